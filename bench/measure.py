"""What the measurements in this folder share: a running `lethe`, what processes cost, a closed loop, statistics."""

import ctypes
import json
import os
import pathlib
import random
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
# `dist` is what `make install` installs; it takes twice as long to compile.
LETHE = TARGET / os.environ.get("PROFILE", "release") / "lethe"
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
TICKS = os.sysconf("SC_CLK_TCK")


class Lethe:
    """A running `lethe up`, in a state folder and runtime folder of its own."""

    def __init__(self, *arguments, env=None):
        self.folder = tempfile.TemporaryDirectory(prefix="lethe-bench-")
        self.state = os.path.join(self.folder.name, "state")
        self.env = os.environ | {"XDG_RUNTIME_DIR": self.folder.name, "TMPDIR": self.folder.name} | (env or {})
        self.port = free_port()
        self.log = open(os.path.join(self.folder.name, "log"), "w+")
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [LETHE, "up", "--listen", f"127.0.0.1:{self.port}", "--state-dir", self.state, *arguments],
            stdout=self.log, stderr=self.log, env=self.env, cwd=ROOT, preexec_fn=end_with_parent)

    def tell(self, *arguments):
        command = [LETHE, *arguments, "--state-dir", self.state, "--json"]
        return json.loads(subprocess.run(command, env=self.env, capture_output=True, check=True).stdout or "null")

    def workers(self):
        return self.tell("ps")["workers"]

    def wait_ready(self, count):
        """Raises ValueError with what it said if it ends before."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if sum(worker["state"] == "ready" for worker in self.workers()) >= count:
                    return
            except (subprocess.CalledProcessError, KeyError):
                pass
            time.sleep(0.02)
        self.log.seek(0)
        raise ValueError("lethe did not become ready; it said:\n" + self.log.read())

    def close(self):
        stop(self.process)
        self.log.close()
        self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def end_with_parent():
    """For a process about to be started: Ctrl-C does not reach it, and it is asked to end when this one is killed."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def stop(process):
    """Asks it to end, and makes it and its children do so when it does not."""
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port():
    """A port that is free, as is the next one, where `lethe` puts its admin server. Below those that the system gives
    to outgoing connections, of which a load makes so many that one of them may have it a moment later."""
    while True:
        port = random.randrange(10_000, 32_000, 2)
        try:
            for wanted in (port, port + 1):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", wanted))
            return port
        except OSError:
            continue


def connect_when_listening(port):
    """Connects as soon as something listens; returns when."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return time.monotonic()
        except ConnectionRefusedError:
            time.sleep(0.0002)


def family(pid, without=()):
    """The process and all that descend from it, but for those in `without` and what descends from them."""
    found = []
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            if int(child) not in without:
                found += family(int(child), without)
    return [pid, *found]


def cpu_seconds(pids):
    """User and system time of the processes so far."""
    total = 0
    for pid in pids:
        fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def resident_bytes(pids):
    """Memory of the processes; a page that several of them have counts once (`Pss`)."""
    texts = (open(f"/proc/{pid}/smaps_rollup").read() for pid in pids)
    return sum(int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) << 10 for text in texts)


def install(packages):
    """Installs the Debian packages whose command is missing, given as {command: package}; returns the commands that
    stay missing."""
    missing = [name for name in packages if shutil.which(name) is None]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        names = [packages[name] for name in missing]
        subprocess.run(["apt-get", "update"], **quiet)
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *names], **quiet)
        missing = [name for name in packages if shutil.which(name) is None]
    return missing


def wrk(url, connections, seconds, *options):
    """As many requests as get through, each connection sending the next when the last was answered."""
    text = subprocess.run(
        ["wrk", "--latency", "-t2", f"-c{connections}", f"-d{seconds}s", *options, url],
        capture_output=True, text=True, check=True).stdout
    said = re.search(
        r"50%\s+([\d.]+)(us|ms|s)\n.*99%\s+([\d.]+)(us|ms|s)\s*\n.*?(\d+) requests in.*Requests/sec:\s+([\d.]+)",
        text, re.DOTALL)
    if not said or "Non-2xx" in text or "Socket errors" in text:
        raise ValueError("the load met errors:\n" + text)
    p50, p50_unit, p99, p99_unit, requests, per_s = said.groups()
    milliseconds = {"us": 0.001, "ms": 1, "s": 1000}
    return {
        "requests": int(requests), "requests_per_s": round(float(per_s)),
        "p50_ms": round(float(p50) * milliseconds[p50_unit], 3),
        "p99_ms": round(float(p99) * milliseconds[p99_unit], 3),
    }


def spread(values):
    # With a handful of values the quartiles are the extremes.
    low, _, high = statistics.quantiles(values, method="inclusive") if len(values) > 4 else (min(values), 0, max(values))
    return {"min": round(min(values), 3), "low": round(low, 3), "median": round(statistics.median(values), 3),
            "high": round(high, 3), "max": round(max(values), 3), "runs": len(values)}


def need_release_build():
    """Ends the program if there is none."""
    if not LETHE.exists():
        sys.exit(f"{LETHE} is not there: run this through `make`, which builds it")


def read_results(name):
    """What an earlier run has left; nothing if there was none, or it was written in another way."""
    try:
        results = json.loads((HERE / "results" / name).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return results if all("run" in row for row in results.get("rows", {}).values()) else {}


def write_results(name, results):
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(results, indent=2) + "\n")
