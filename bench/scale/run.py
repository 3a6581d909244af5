#!/usr/bin/env python3
"""Measures how soon load is followed: a step of it, and the first request to a service with no worker. Beside that, the
simulator's comparison with an autoscaler that decides each 15 s. `make bench-scale` runs it; README.md says what is what.

Writes `bench/results/scale.json` and prints it.
"""

import asyncio
import datetime
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from measure import HERE, LETHE, ROOT, TARGET, Lethe, need_release_build, spread, write_results

SHOP = ROOT / "examples" / "shop"
SHOP_RATE = 50
SERVICE_S = 0.05
SLOTS = 4
LEAST = 2
ROUNDS = 5
BEFORE_S, AFTER_S = 3, 12
IDLE_S = 1


class Notes:
    """What the workers have written down."""

    def __init__(self, folder):
        self.path = pathlib.Path(folder, "notes")
        self.path.touch()

    def of(self, what):
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        return {line["instance"]: line for line in lines if line["what"] == what}


def project(folder, scale):
    toml = f"""
[services.web]
command = ["{sys.executable}", "{HERE / "scale" / "worker.py"}"]
concurrency = {SLOTS}
env = {{ SERVICE_S = "{SERVICE_S}", NOTES = "{folder}/notes" }}
[services.web.scale]
{scale}
"""
    pathlib.Path(folder, "lethe.toml").write_text(toml)


async def ask(port):
    """One request on a connection of its own; whether it was answered well, and when."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer.startswith(b"HTTP/1.1 200"), time.monotonic()
    except OSError:
        return False, time.monotonic()


async def step(port, capacity):
    """Requests that do not wait for answers: a tenth of the capacity, then three times as many as it is."""
    tasks = []
    for rate, seconds in ((0.1 * capacity, BEFORE_S), (3 * capacity, AFTER_S)):
        at = time.monotonic()
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0, at + number / rate - time.monotonic()))
            tasks.append(asyncio.create_task(ask(port)))
    answers = await asyncio.gather(*tasks)
    # The last of the two began at the step.
    return at, sum(not well for well, _ in answers), len(answers)


def one_step():
    with tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder:
        notes = Notes(folder)
        project(folder, f'instances = "{LEAST}..40"\nconcurrency = {SLOTS * 0.7:.1f}')
        with Lethe(folder) as node:
            node.wait_ready(LEAST)
            at, failed, sent = asyncio.run(step(node.port, LEAST * SLOTS / SERVICE_S))
        listening, asked = notes.of("listening"), notes.of("asked")
    added = [name for name, line in listening.items() if line["began"] > at and name in asked]
    if not added:
        raise ValueError("no worker was added")
    first = min(added, key=lambda name: asked[name]["at"])
    own = listening[first]["at"] - listening[first]["began"]
    serving = asked[first]["at"] - at
    return {
        "step_to_started_ms": (listening[first]["began"] - at) * 1000, "worker_start_ms": own * 1000,
        "step_to_serving_ms": serving * 1000, "without_worker_start_ms": (serving - own) * 1000,
        "failed": failed, "sent": sent, "workers": len(listening)}


def one_step_of_the_shop():
    """The catalogue of the shop, of which a worker is said to show SHOP_RATE a second. When workers serve is in the access log."""
    with tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder:
        toml, log = pathlib.Path(folder, "lethe.toml"), pathlib.Path(folder, "access")
        text = (SHOP / "lethe.toml").read_text().replace('build = "cargo build --release -p shop"\n', "")
        text = text.replace('directory = "../.."', f'directory = "{ROOT}"').replace("instances = 3\n", "")
        text = text.replace("[[routes]]", "[services.shop.scale]\n"
            f'instances = "{LEAST}..40"\nrequests = "{SHOP_RATE}/s"\n\n[[routes]]', 1)
        toml.write_text(f'access-log = "{log}"\n{text}')
        with Lethe(str(toml), env={"CARGO_TARGET_DIR": str(TARGET)}) as node:
            node.wait_ready(LEAST)
            before = {worker["instance"] for worker in node.workers()}
            monotonic, clock = time.monotonic(), time.time()
            at, failed, sent = asyncio.run(step(node.port, LEAST * SHOP_RATE))
            at += clock - monotonic
            started = {worker["instance"]: seconds(worker["started_at"]) for worker in node.workers()}
        served = {}
        for line in map(json.loads, log.read_text().splitlines()):
            answered = seconds(line["time"]) + line["duration_ms"] / 1000
            for attempt in line["attempts"]:
                served.setdefault(attempt["worker"], answered)
    first = min((name for name in served if name not in before), key=served.get)
    return {
        "step_to_started_ms": (started[first] - at) * 1000, "step_to_serving_ms": (served[first] - at) * 1000,
        "failed": failed, "sent": sent, "workers": len(started)}


def seconds(text):
    return datetime.datetime.fromisoformat(text).timestamp()


def from_zero():
    with tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder:
        notes = Notes(folder)
        project(folder, f'instances = "0..2"\nidle = "{IDLE_S}s"\ndown = {{ window = "0s" }}')
        with Lethe(folder) as node:
            node.wait_ready(1)
            while node.workers():
                time.sleep(0.1)
            before = set(notes.of("listening"))
            at = time.monotonic()
            well, answered = asyncio.run(ask(node.port))
        line = next(line for name, line in notes.of("listening").items() if name not in before)
    if not well:
        raise ValueError("the first request was not answered")
    return {
        "asked_to_started_ms": (line["began"] - at) * 1000,
        "listening_to_answer_ms": (answered - line["at"] - SERVICE_S) * 1000}


# Traces for the simulator: a quiet hour with a step in its middle, and a day with two humps, as those of shops are.
TRACES = {
    "step": "0,16\n1200,480\n1800,16\n3600,16\n",
    "day": "".join(f"{at},{220 - 200 * math.cos(at / 86400 * 4 * math.pi):.0f}\n" for at in range(0, 86400, 60)),
}


def simulated(load):
    """The same load, seen by all policies."""
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as trace:
        trace.write(load)
        trace.flush()
        return json.loads(subprocess.run(
            [LETHE, "simulate", "--trace", trace.name, "--service-time", f"{SERVICE_S * 1000:.0f}ms", "--slots", str(SLOTS),
             "--startup", "300ms", "--instances", f"{LEAST}..40", "--compare", "hpa,kpa,target,lethe", "--json"],
            capture_output=True, check=True).stdout)


def decisions():
    """What the scaler's example of its speed prints: one line a figure."""
    example = TARGET / "release" / "examples" / "speed"
    return subprocess.run([example], capture_output=True, check=True, text=True).stdout.splitlines()


def medians(rounds):
    return {key: spread([one[key] for one in rounds]) for key in rounds[0]}


def main():
    need_release_build()
    results = {
        "step": medians([one_step() for _ in range(ROUNDS)]),
        "shop": medians([one_step_of_the_shop() for _ in range(ROUNDS)]),
        "from_zero": medians([from_zero() for _ in range(ROUNDS)]),
        "simulated": {name: simulated(load) for name, load in TRACES.items()},
        "decisions": decisions(),
    }
    write_results("scale.json", results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
