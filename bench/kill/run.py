#!/usr/bin/env python3
"""Kills workers behind lethe and behind each of its peers, and counts what users lose; `make bench-kill` runs it.

The same load and the same kills go to each in turn: three workers, one killed with SIGKILL every 300 ms and started
again at once. Prints the tables, and writes `bench/results/kill.json` and `bench/results/kill.md`, which is what
`docs/when-a-worker-dies.md` shows.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile

import gateways
import report
from gateways import PEERS
from tally import KINDS, Tally
from workers import Kills

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "when-a-worker-dies.md"
KILL_INTERVAL_S = 0.3
ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def main():
    options = arguments()
    for program in ("lethe", "bench-kill"):
        if not (TARGET / program).exists():
            sys.exit(f"{TARGET / program} is not there: run `make bench-kill`, which builds it")
    # Ctrl-C, `kill` and a closed terminal all end in the same way: everything that was started is ended first.
    for number in ENDING - {signal.SIGINT}:
        signal.signal(number, lambda *_: sys.exit(1))
    chosen = [name for name in options.peers if name != "lethe"]
    missing = gateways.install(chosen)
    for name, hint in missing.items():
        print(f"skipping {name}, which cannot be installed here; {hint}", file=sys.stderr)
    print(f"seed {options.seed}", file=sys.stderr)
    runs = [("lethe", "default")] if "lethe" in options.peers else []
    runs += [(name, settings) for settings in options.settings for name in chosen if name not in missing]
    results = {"about": about(options, chosen, missing), "runs": []}
    broken = 0
    for name, settings in runs:
        print(f"{name}, {settings} settings ...", end=" ", file=sys.stderr, flush=True)
        try:
            results["runs"].append(measure(name, settings, options))
            print(report.line(results["runs"][-1]), file=sys.stderr)
        except Broken as error:
            broken += 1
            print(error, file=sys.stderr)
    if results["runs"]:
        print(report.text(results))
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "kill.json").write_text(json.dumps(results, indent=2) + "\n")
        (RESULTS / "kill.md").write_text(report.markdown(results))
        print(f"written: {RESULTS / 'kill.json'}, and as Markdown {RESULTS / 'kill.md'}", file=sys.stderr)
        if options.page:
            PAGE.write_text(report.put_into(PAGE.read_text(), report.markdown(results)))
            print(f"the figures of {PAGE} are those of this run", file=sys.stderr)
    sys.exit(1 if broken else 0)


def arguments():
    names = ["lethe", *PEERS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    listed = lambda allowed: lambda text: [one_of(allowed, word) for word in text.split(",")]
    parser.add_argument("--peers", type=listed(names), default=names, help=f"of {','.join(names)}")
    parser.add_argument("--settings", type=listed(["best", "default"]), default=["best", "default"],
                        help="of the peers: best,default")
    parser.add_argument("--kinds", type=listed(KINDS), default=list(KINDS), help=f"of {','.join(KINDS)}")
    parser.add_argument("--seconds", type=float, default=40, help="with kills, for each; 40")
    parser.add_argument("--calm-seconds", type=float, default=10, help="without, for each; 10")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--page", action="store_true", help=f"put the tables into {PAGE.relative_to(ROOT)} too")
    return parser.parse_args()


def one_of(allowed, word):
    if word not in allowed:
        raise argparse.ArgumentTypeError(f"{word} is none of {', '.join(allowed)}")
    return word


def about(options, chosen, missing):
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    lethe = subprocess.run([TARGET / "lethe", "--version"], capture_output=True, text=True, check=True).stdout
    versions = {"lethe": lethe.split()[-1]}
    versions |= {name: gateways.version_of(name) for name in chosen if name not in missing}
    return {
        "seed": options.seed, "seconds": options.seconds, "calm_seconds": options.calm_seconds,
        "kill_interval_s": KILL_INTERVAL_S, "date": report.today(), "processors": os.cpu_count(), "cpu": cpu,
        "kernel": os.uname().release, "load_average": os.getloadavg()[0], "versions": versions,
    }


class Broken(Exception):
    """A gateway that could not be measured."""


def measure(name, settings, options):
    """One gateway: first without kills, then with."""
    with tempfile.TemporaryDirectory(prefix="lethe-kill-") as folder:
        os.chmod(folder, 0o755)  # nginx's processes are another user's.
        log = pathlib.Path(folder, "changes")
        worker = [str(TARGET / "bench-kill"), "worker", "--log", str(log)]
        if name == "lethe":
            gateway = gateways.Lethe(str(TARGET / "lethe"), folder, worker)
        else:
            gateway = gateways.Peer(name, settings, folder, worker)
        try:
            gateway.start()
            calm, _ = load(gateway, folder, "calm", options.calm_seconds, options)
            killed, killed_by = load(gateway, folder, "killed", options.seconds, options, KILL_INTERVAL_S)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Broken(f"not measured: {error}; it said:\n{gateway.said()}") from error
        finally:
            # A second Ctrl-C must not leave anything running.
            signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
            gateway.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        tally = Tally(calm, killed, log)
    return {"name": name, "settings": settings, **killed_by, **tally.figures()}


def load(gateway, folder, part, seconds, options, interval=None):
    """The path of the records, and the kills."""
    records = pathlib.Path(folder, part)
    # Another seed than that of the calm part, or its ids would be the same.
    seed = options.seed * 2 + (interval is not None)
    process = subprocess.Popen(
        [TARGET / "bench-kill", "load", "--address", f"127.0.0.1:{gateway.port}", "--seconds", str(seconds),
         "--kinds", ",".join(options.kinds), "--seed", str(seed), "--records", records], start_new_session=True)
    kills = None
    try:
        kills = Kills(gateway.workers, interval) if interval else None
        if process.wait():
            raise OSError(f"the load ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()
        if kills:
            kills.close()
    return records, {"kills": kills.done, "missed_kills": kills.missed, "early_kills": kills.early} if kills else {}


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\ninterrupted; nothing is left running, and nothing was written", file=sys.stderr)
        sys.exit(130)
