#!/usr/bin/env python3
"""The state tier beside Redis, PostgreSQL and tower-sessions, on this machine, now; `make bench-state` runs it.

Prints a table and writes `bench/results/state.json` and `state.md`. Single parts can be repeated while something is being
improved: `python3 bench/state/run.py --parts near,served --rounds 3`; the others stay as they were.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from measure import ROOT, TARGET, Lethe, install, need_release_build, read_results, spread, write_results
from state import report, servers

PROGRAM = TARGET / "release" / "lethe-state-bench"
PARTS = ["near", "served", "blob", "crowd"]
CLIENTS = [1, 8, 64]
BLOB_MIB = 1024
# A worker that is asked for nothing.
UPSTREAM = """
import http.server, os
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def main():
    options = arguments()
    need_release_build()
    if missing := install({"redis-server": "redis-server", "setpriv": "util-linux"}) + servers.install_postgres(install):
        sys.exit(f"the peers {', '.join(missing)} cannot be installed here; as root: apt-get install {' '.join(missing)}")
    build = ["cargo", "build", "--release", "--manifest-path", HERE / "Cargo.toml", "--target-dir", TARGET]
    subprocess.run(build, check=True)
    results = read_results("state.json")
    for part in options.parts:
        print(f"{part}: {report.TITLES[part]}", flush=True)
        run = {"at": datetime.datetime.now().isoformat(" ", "minutes"), "cores": os.cpu_count(),
               "kernel": os.uname().release, "rounds": options.rounds, "milliseconds": options.milliseconds}
        with tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder, contextlib.ExitStack() as stack:
            results[part] = {"run": run, **globals()[part](pathlib.Path(folder), stack, options)}
        write_results("state.json", results)
    text = report.markdown(results)
    (HERE.parent / "results" / "state.md").write_text(text + "\n")
    print("\n" + text)


def arguments():
    def among(text):
        chosen = text.split(",")
        if unknown := set(chosen) - set(PARTS):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: there is {', '.join(PARTS)}")
        return [part for part in PARTS if part in chosen]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=among, default=PARTS, help="such as near,served")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--milliseconds", type=int, default=1000, help="for each figure of a round")
    parser.add_argument("--sessions", type=int, default=1_000_000, help="of the part `crowd`")
    return parser.parse_args()


def near(folder, stack, options):
    """A session as a request begins with it, one call at a time."""
    node, redis = lethe(stack), stack.enter_context(servers.Redis(folder / "redis", durable=False))
    systems = {"lethe": node.state_url, "redis": redis.url, "tower-sessions": redis.url}
    return rounds_of(systems, options, "near")


def served(folder, stack, options):
    """Reads and writes through a server, from several clients at once."""
    node = lethe(stack)
    memory = stack.enter_context(servers.Redis(folder / "redis", durable=False))
    durable = stack.enter_context(servers.Redis(folder / "redis-always", durable=True))
    postgres = stack.enter_context(servers.Postgres())
    loads = {}
    for op in ("read", "write"):
        for clients in CLIENTS:
            systems = {"lethe": node.state_url, "redis": memory.url, "redis-shared": memory.url, "postgres": postgres.url}
            if op == "write":
                systems |= {"redis always": durable.url, "redis-shared always": durable.url}
            more = ["--op", op, "--clients", str(clients)]
            loads[f"{op}, {clients} clients"] = rounds_of(systems, options, "served", *more)
    return {"loads": loads}


def rounds_of(systems, options, part, *more):
    """The figures of each system in each round, another one first each time."""
    names, rounds = list(systems), []
    for number in range(options.rounds):
        turn, figures = number % len(names), {}
        for name in names[turn:] + names[:turn]:
            figures[name] = program(part, "--system", name.split()[0], "--url", systems[name],
                                    "--milliseconds", str(options.milliseconds), *more)
        rounds.append(figures)
    for name in names:
        print(f"  {' '.join(more[1::2])} {name}: {report.median(rounds, name)}", flush=True)
    return {"rounds": rounds}


def blob(folder, stack, options):
    """A large blob in and out, beside `cp` and `sha256sum` of the same file."""
    node = lethe(stack)
    large, rounds = folder / "large", []
    with open(large, "wb") as file:
        for _ in range(BLOB_MIB):
            file.write(os.urandom(1 << 20))
    for _ in range(options.rounds):
        peak = Peak(node.process.pid)
        figures = program("blob", "--url", node.state_url, "--from", str(large), "--to", str(folder / "out"))
        figures["extra_mib"] = peak.extra_mib()
        (folder / "out").unlink()
        began = time.monotonic()
        subprocess.run(["cp", large, folder / "copy"], check=True)
        # The blob is on the disk before it is acknowledged.
        subprocess.run(["sync", folder / "copy"], check=True)
        figures["cp_s"] = time.monotonic() - began
        began = time.monotonic()
        subprocess.run(["sha256sum", large], check=True, capture_output=True)
        figures["sha256sum_s"] = time.monotonic() - began
        (folder / "copy").unlink()
        print(f"  {figures}", flush=True)
        rounds.append(figures)
    ratio = spread([figures["put_s"] / (figures["cp_s"] + figures["sha256sum_s"]) for figures in rounds])
    return {"rounds": rounds, "put_ratio_to_cp_and_hash": ratio, "mib": BLOB_MIB}


def crowd(folder, stack, options):
    """Very many sessions, in an engine of its own with a clock that can be moved."""
    figures = program("crowd", "--folder", str(folder / "state"), "--sessions", str(options.sessions),
                      "--milliseconds", str(options.milliseconds))
    print(f"  {figures}", flush=True)
    return {"sessions": options.sessions, "figures": figures}


class Peak:
    """The most memory that a process has had resident, beyond what it had before."""

    def __init__(self, pid):
        self.status = pathlib.Path(f"/proc/{pid}/status")
        pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")  # Resets the peak: proc_pid_clear_refs(5).
        self.before = self.mib("VmRSS")

    def mib(self, name):
        line = next(line for line in self.status.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) / 1024

    def extra_mib(self):
        return round(self.mib("VmHWM") - self.before, 1)


def lethe(stack):
    node = stack.enter_context(Lethe("--instances", "1", "--", "python3", "-c", UPSTREAM))
    node.wait_ready(1)
    node.state_url = node.tell("ps")["node"]["state"]
    return node


def program(part, *options):
    done = subprocess.run([PROGRAM, part, *options], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{part} {' '.join(options)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
