"""What it costs a service to be kept apart and watched by `lethe prove`: CPU time for each request, in turn and several rounds, beside
the same worker without; and how long a whole proof takes. Needs root, Node.js and release builds of `lethe` and of the example
`observed`; see README.md."""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import measure  # noqa: E402

PATHS = ["/", "/file", "/log", "/random", "/beside"]
# What is measured, and what it is compared with.
MODES = {
    "machine": None,
    "apart": "machine",
    "watched": "apart",
    "entropy": "apart",
    "clock": "apart",
    "user-apart": "machine",
    "user-watched": "user-apart",
}
# A small service with a journey of five steps, whose whole proof is timed: with a violation, and without.
WHOLE = measure.ROOT / "examples" / "violations" / "session-in-memory"
PROGRAMS = {"app.py": "violation", "fixed.py": "stateless"}


def play(mode, requests):
    """µs of CPU for each request, by path."""
    with tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder:
        shutil.copy(HERE / "service.mjs", folder)
        program = measure.TARGET / "release" / "examples" / "observed"
        command = [program, mode, str(requests), folder, *PATHS, "--", "node", "service.mjs"]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {path: float(figure) for path, figure in (line.split() for line in lines)}


def prove(program, verdict):
    """Seconds of a whole proof, from the start of `lethe prove` to its end."""
    with tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder:
        report = pathlib.Path(folder) / "proof.json"
        command = [measure.LETHE, "prove", "--journey", "journey.toml", "--json", report, "--", "python3", program]
        began = time.monotonic()
        # Its status is that of the verdict.
        subprocess.run(command, cwd=WHOLE, env=os.environ | {"XDG_STATE_HOME": folder}, capture_output=True)
        seconds = time.monotonic() - began
        said = json.loads(report.read_text())["verdict"]
    if said != verdict:
        raise ValueError(f"{program}: {said} instead of {verdict}")
    return seconds


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--requests", type=int, default=5000)
    asked = arguments.parse_args()
    rounds = []
    for number in range(asked.rounds):
        # Each begins with another one, so that none is always first.
        modes = list(MODES)
        modes = modes[number % len(modes):] + modes[:number % len(modes)]
        rounds.append({mode: play(mode, asked.requests) for mode in modes})
        rounds[-1].update({program: prove(program, verdict) for program, verdict in PROGRAMS.items()})
        print(f"round {number + 1} of {asked.rounds}", file=sys.stderr)
    rows = []
    print("| worker | path | µs CPU a request | ratio | to |\n|---|---|---:|---:|---|")
    for mode, base in MODES.items():
        for path in PATHS:
            figures = [each[mode][path] for each in rounds]
            ratios = [each[mode][path] / each[base][path] for each in rounds] if base else []
            row = {"mode": mode, "path": path, "cpu_us": figures, "base": base, "ratios": ratios}
            ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
            print(f"| {mode} | {path} | {statistics.median(figures):.1f} | {ratio} | {base or ''} |")
            rows.append(row)
    print("\n| whole proof of five steps | s |\n|---|---:|")
    for program in PROGRAMS:
        seconds = [each[program] for each in rounds]
        print(f"| {program} | {statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f}) |")
        rows.append({"proof": f"{WHOLE.name}/{program}", "steps": 5, "seconds": seconds})
    measure.write_results("prove.json", rows)


if __name__ == "__main__":
    main()
