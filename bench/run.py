#!/usr/bin/env python3
"""Measures what the README claims, on this machine, now; `make bench` runs it.

Prints a table and writes `bench/results/up.json`. Figures of one run are compared with each other only: nginx is
measured in the same run, in turn with lethe, in front of the same two workers.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
HERE = ROOT / "bench"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
LETHE = TARGET / "release" / "lethe"
TICKS = os.sysconf("SC_CLK_TCK")

STARTS = 10
READINESS_ROUNDS = 30
ROUNDS = 3
ROUND_SECONDS = 5
CONNECTIONS = 32


class Lethe:
    """A running `lethe up`, in a state folder and runtime folder of its own."""

    def __init__(self, *arguments, env=None):
        self.folder = tempfile.TemporaryDirectory(prefix="lethe-bench-")
        self.state = os.path.join(self.folder.name, "state")
        self.env = os.environ | {"XDG_RUNTIME_DIR": self.folder.name} | (env or {})
        self.port = free_port()
        self.log = open(os.path.join(self.folder.name, "log"), "w+")
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [LETHE, "up", "--listen", f"127.0.0.1:{self.port}", "--state-dir", self.state, *arguments],
            stdout=self.log, stderr=self.log, env=self.env, cwd=ROOT)

    def tell(self, *arguments):
        command = [LETHE, *arguments, "--state-dir", self.state, "--json"]
        return json.loads(subprocess.run(command, env=self.env, capture_output=True, check=True).stdout or "null")

    def workers(self):
        return self.tell("ps")["workers"]

    def wait_ready(self, count):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if sum(worker["state"] == "ready" for worker in self.workers()) >= count:
                    return
            except (subprocess.CalledProcessError, KeyError):
                pass
            time.sleep(0.02)
        self.log.seek(0)
        sys.exit("lethe did not become ready; it said:\n" + self.log.read())

    def close(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        self.log.close()
        self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def connect_when_listening(port):
    """Connects as soon as something listens; returns when."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return time.monotonic()
        except ConnectionRefusedError:
            time.sleep(0.0002)


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def resident_mib(pid):
    status = open(f"/proc/{pid}/status").read()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def install(*packages):
    """Installs Debian packages whose command is missing; returns those that stay missing."""
    missing = [name for name in packages if shutil.which(name) is None]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run(["apt-get", "update"], **quiet)
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *missing], **quiet)
        missing = [name for name in packages if shutil.which(name) is None]
    return missing


def idle_memory_and_start(results):
    shop = ROOT / "examples" / "shop"
    with Lethe(str(shop)) as node:  # Builds the shop when it is not built yet.
        node.wait_ready(3)
        time.sleep(5)  # Idle means that nothing is left to do after the start.
        results["idle_resident_mib"] = round(resident_mib(node.process.pid), 1)
    starts = []
    for _ in range(STARTS):
        with Lethe("--", sys.executable, str(HERE / "late_worker.py")) as node:
            starts.append((connect_when_listening(node.port) - node.started) * 1000)
            node.wait_ready(1)
    results["start_to_accept_ms"] = spread(starts)


def readiness(results):
    """From a worker's listen() to the request that waited for it: both instants are the worker's own."""
    delays = []
    with tempfile.NamedTemporaryFile("r", suffix=".txt") as notes:
        env = {"LATE_WORKER_NOTES": notes.name, "LATE_WORKER_DELAY_S": "0.15"}
        with Lethe("--instances", "1", "--", sys.executable, str(HERE / "late_worker.py"), env=env) as node:
            node.wait_ready(1)
            for _ in range(READINESS_ROUNDS):
                worker = next(w for w in node.workers() if w["state"] == "ready")
                os.kill(worker["pid"], signal.SIGKILL)
                with socket.create_connection(("127.0.0.1", node.port)) as client:
                    client.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
                    while client.recv(65536):
                        pass
        delays = [float(line) for line in notes.read().split()]
    results["ready_to_first_request_ms"] = spread(delays)


def throughput(results):
    missing = install("wrk", "nginx")
    if missing:
        print(f"skipped the comparison with nginx: {', '.join(missing)} cannot be installed here; "
              f"as root: apt-get install {' '.join(missing)}")
        return
    command = ["--instances", "2", "--", "sh", str(HERE / "upstream.sh")]
    with Lethe(*command) as node, tempfile.TemporaryDirectory(prefix="lethe-bench-nginx-") as folder:
        node.wait_ready(2)
        ports = [worker["port"] for worker in node.workers()]
        proxy_port = free_port()
        proxy = start_nginx(folder, proxy_port, ports)
        try:
            peers = {
                "lethe": (node.port, [node.process.pid]),
                "nginx": (proxy_port, with_workers(proxy.pid, os.cpu_count())),
            }
            rows = {name: [] for name in peers}
            for port, pids in peers.values():
                load(port, pids, 1)  # Warm: connections to the workers are open.
            for _ in range(ROUNDS):
                for name, (port, pids) in peers.items():
                    rows[name].append(load(port, pids, ROUND_SECONDS))
        finally:
            proxy.terminate()
            proxy.wait()
    for name, rounds in rows.items():
        results[name] = {key: statistics.median(row[key] for row in rounds) for key in rounds[0]}
    pairs = zip(rows["lethe"], rows["nginx"])
    ratios = [ours["cpu_us_per_request"] / theirs["cpu_us_per_request"] for ours, theirs in pairs]
    results["cpu_per_request_ratio_to_nginx"] = spread(ratios)


def start_nginx(folder, port, upstreams):
    servers = "\n".join(f"server 127.0.0.1:{upstream};" for upstream in upstreams)
    config = pathlib.Path(folder, "nginx.conf")
    config.write_text((HERE / "nginx.conf").read_text()
                      .replace("@FOLDER@", folder).replace("@PORT@", str(port)).replace("@SERVERS@", servers))
    proxy = subprocess.Popen(["nginx", "-p", folder, "-c", str(config), "-e", "stderr"])
    connect_when_listening(port)
    return proxy


def with_workers(pid, count):
    """nginx and its workers, once all of them are there: it listens before it starts them."""
    while True:
        children = open(f"/proc/{pid}/task/{pid}/children").read().split()
        if len(children) == count:
            return [pid, *map(int, children)]
        time.sleep(0.01)


def load(port, pids, seconds):
    before = cpu_seconds(pids)
    text = subprocess.run(
        ["wrk", "--latency", "-t2", f"-c{CONNECTIONS}", f"-d{seconds}s", f"http://127.0.0.1:{port}/"],
        capture_output=True, text=True, check=True).stdout
    cpu = cpu_seconds(pids) - before
    requests = int(re.search(r"(\d+) requests in", text)[1])
    if "Non-2xx" in text or "Socket errors" in text:
        sys.exit("the load met errors:\n" + text)
    return {
        "requests_per_s": round(float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])),
        "cpu_us_per_request": round(cpu / requests * 1e6, 2),
        "p50_ms": milliseconds(re.search(r"50%\s+(\S+)", text)[1]),
        "p99_ms": milliseconds(re.search(r"99%\s+(\S+)", text)[1]),
    }


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return round(float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit], 3)


def spread(values):
    return {"min": round(min(values), 3), "median": round(statistics.median(values), 3),
            "max": round(max(values), 3), "runs": len(values)}


def main():
    if not LETHE.exists():
        sys.exit(f"{LETHE} is not there: run `make bench`, which builds it")
    results = {}
    for part in (idle_memory_and_start, readiness, throughput):
        part(results)
    print(f"on {os.cpu_count()} processors, kernel {os.uname().release}")
    print(f"resident memory, idle with the shop     {results['idle_resident_mib']} MiB            (goal 30)")
    for key, label, goal in (("start_to_accept_ms", "start to first accepted connection", 50),
                             ("ready_to_first_request_ms", "worker ready to its first request", 5)):
        row = results[key]
        print(f"{label:<39} {row['median']} ms, {row['min']} to {row['max']} in {row['runs']} runs  (goal {goal})")
    for name in ("lethe", "nginx"):
        if name in results:
            row = results[name]
            print(f"{name:<39} {row['requests_per_s']} requests/s, {row['cpu_us_per_request']} us CPU each, "
                  f"p50 {row['p50_ms']} ms, p99 {row['p99_ms']} ms")
    if "nginx" in results:
        row = results["cpu_per_request_ratio_to_nginx"]
        print(f"{'CPU per request, lethe / nginx':<39} {row['median']}, {row['min']} to {row['max']}")
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    (folder / "up.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
