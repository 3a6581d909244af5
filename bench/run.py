#!/usr/bin/env python3
"""Measures what the README claims, on this machine, now; `make bench` runs it.

Prints a table and writes `bench/results/up.json`. Figures of one run are compared with each other only: nginx is
measured in the same run, in turn with lethe, in front of the same two workers.
"""

import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from gateway import peers
from measure import (
    HERE, Lethe, ROOT, connect_when_listening, cpu_seconds, install, need_release_build, resident_bytes, spread, wrk,
    write_results)

STARTS = 10
READINESS_ROUNDS = 30
ROUNDS = 3
ROUND_SECONDS = 5
CONNECTIONS = 32


def idle_memory_and_start(results):
    shop = ROOT / "examples" / "shop"
    with Lethe(str(shop)) as node:  # Builds the shop when it is not built yet.
        node.wait_ready(3)
        time.sleep(5)  # Idle means that nothing is left to do after the start.
        results["idle_resident_mib"] = round(resident_bytes([node.process.pid]) / 2**20, 1)
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
    tools = ("wrk", "nginx", "openssl")
    missing = install({name: name for name in tools})
    if missing:
        print(f"skipped the comparison with nginx: {', '.join(missing)} cannot be installed here; "
              f"as root: apt-get install {' '.join(missing)}")
        return
    command = ["--instances", "2", "--", "sh", str(HERE / "upstream.sh")]
    with Lethe(*command) as node, tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder:
        node.wait_ready(2)
        ports = [worker["port"] for worker in node.workers()]
        with peers.Peer("nginx", peers.Certificate(pathlib.Path(folder)), ports) as nginx:
            proxies = {
                "lethe": (node.port, lambda: cpu_seconds([node.process.pid])),
                "nginx": (nginx.port, nginx.cpu_seconds),
            }
            rows = {name: [] for name in proxies}
            for port, cpu in proxies.values():
                load(port, cpu, 1)  # Warm: connections to the workers are open.
            for _ in range(ROUNDS):
                for name, (port, cpu) in proxies.items():
                    rows[name].append(load(port, cpu, ROUND_SECONDS))
    for name, rounds in rows.items():
        results[name] = {key: statistics.median(row[key] for row in rounds) for key in rounds[0]}
    pairs = zip(rows["lethe"], rows["nginx"])
    ratios = [ours["cpu_us_per_request"] / theirs["cpu_us_per_request"] for ours, theirs in pairs]
    results["cpu_per_request_ratio_to_nginx"] = spread(ratios)


def load(port, cpu, seconds):
    before = cpu()
    figures = wrk(f"http://127.0.0.1:{port}/", CONNECTIONS, seconds)
    return figures | {"cpu_us_per_request": round((cpu() - before) / figures["requests"] * 1e6, 2)}


def main():
    need_release_build()
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
    write_results("up.json", results)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(str(error))
