#!/usr/bin/env python3
"""Proves all examples of violations, and services made with middleware as it is published; prints what was found, what was missed and what
is a false alarm. Ends with status 1 if anything was missed or false: `make prove-cases`."""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
REAL = HERE / "real"
CLEAN = None


class Found(NamedTuple):
    """One finding: its kind, the step that leaves something behind, and the one that needs it; both from 1, as in the report."""

    kind: str
    producer: int
    consumer: int

    def __str__(self):
        return f"{self.kind} {self.producer}-{self.consumer}"


# What is found in what is in a folder, and nothing in its twin. Those in Rust are one program, which is told the folder. What belongs to one
# step alone has that twice, and what belongs to none the first.
EXAMPLES = {
    "session-in-memory": Found("memory", 2, 4),
    "file-upload": Found("file", 2, 4),
    "items-in-memory": Found("memory", 1, 2),
    "boot-secret": Found("boot-secret", 2, 4),
    "rate-limit": Found("rate-limit", 1, 4),
    "stale-cache": Found("stale-cache", 2, 3),
    "half-done": Found("half-done", 2, 3),
    "no-drain": Found("drain", 2, 2),
    "unsafe-retry": Found("retry", 2, 3),
    "key-in-memory": Found("retry", 2, 3),
    "schedule": Found("schedule", 1, 1),
    "migration": Found("migration", 1, 1),
    "slow-start": Found("slow-start", 1, 1),
    "duplicate-id": Found("duplicate-id", 2, 2),
    "sticky-cookie": Found("sticky-cookie", 1, 1),
    "configuration": Found("configuration", 1, 1),
    "job": Found("job", 1, 2),
    "polling": Found("memory", 1, 3),
    "websocket": Found("websocket", 2, 3),
    "events": Found("event-stream", 1, 2),
}
APPS, TWINS = ["app.py", "app.mjs", "rust"], ["fixed.py", "fixed.mjs", "rust --fixed"]
# Further ones of a folder; those in Rust have names of their own.
MORE = [
    ("schedule", "hourly.py", Found("schedule", 1, 1)),
    ("schedule", "hourly.mjs", Found("schedule", 1, 1)),
    ("schedule", "rust hourly", Found("schedule", 1, 1)),
    ("schedule", "hourly_fixed.py", CLEAN),
    ("schedule", "hourly_fixed.mjs", CLEAN),
    ("schedule", "rust hourly --fixed", CLEAN),
]

# What is given beside; this empties the store, so that there is something to migrate.
FLAGS = {
    "schedule": ["--idle", "3"],
    "migration": [
        "--reset",
        "python3 -c \"import os, urllib.request as r; r.urlopen(r.Request(os.environ['STORE'], method='DELETE'))\"",
    ]
}

SIGN_IN = HERE / "session-in-memory/journey.toml"
ASK_OFTEN = HERE / "rate-limit/journey.toml"
LOOK = REAL / "look.toml"
CHAT = REAL / "chat.toml"
# Made by a browser that signs in at the first of these services, when they have been installed.
RECORDING = Path("recorded.har")
PHP = ["sh", "-c", 'exec php -S "127.0.0.1:$PORT" session.php']

# Name, runtime, command, environment, journey, and what is found.
MIDDLEWARE = [
    ("express-session, in memory", "node", ["node", "session-memory.mjs"], {}, SIGN_IN, Found("memory", 2, 4)),
    ("express-session, connect-redis", "node", ["node", "session-redis.mjs"], {}, SIGN_IN, CLEAN),
    ("express-session, recorded by Chromium", "node", ["node", "session-memory.mjs"], {}, RECORDING, Found("memory", 2, 3)),
    ("connect-redis, recorded by Chromium", "node", ["node", "session-redis.mjs"], {}, RECORDING, CLEAN),
    ("multer, on the disk", "node", ["node", "upload-disk.mjs"], {}, REAL / "upload.toml", Found("file", 2, 3)),
    ("express-rate-limit, in memory", "node", ["node", "rate-limit.mjs"], {}, ASK_OFTEN, Found("rate-limit", 1, 4)),
    ("socket.io, without an adapter", "node", ["node", "fan-out.mjs"], {}, CHAT, Found("websocket", 2, 3)),
    ("socket.io, @socket.io/redis-adapter", "node", ["node", "fan-out-redis.mjs"], {}, CHAT, CLEAN),
    ("socket.io, long polling", "node", ["node", "polling.mjs"], {}, REAL / "polling.toml", Found("memory", 1, 2)),
    ("node-cron, in each worker", "node", ["node", "cron.mjs"], {}, LOOK, Found("schedule", 1, 1)),
    ("bullmq, results in memory", "node", ["node", "job.mjs"], {}, REAL / "job.toml", Found("job", 2, 3)),
    ("bullmq, results in Redis", "node", ["node", "job-redis.mjs"], {}, REAL / "job.toml", CLEAN),
    ("flask, a random secret", "python", ["PYTHON", "session.py"], {}, SIGN_IN, Found("boot-secret", 2, 4)),
    ("flask, a fixed secret", "python", ["PYTHON", "session.py"], {"SECRET": "only for this example"}, SIGN_IN, CLEAN),
    ("php sessions, in files", "php", PHP, {}, SIGN_IN, Found("file", 2, 4)),
]

PROOF_SECONDS_MAX = 180


def journey_of(folder):
    """The one that was written, or what the service says of itself."""
    written = folder / "journey.toml"
    return written if written.exists() else folder / "openapi.yaml"


def command_of(program, folder, rust):
    """What starts a program of a folder."""
    language, *words = program.split()
    if language == "rust":
        has_name = words and not words[0].startswith("-")
        return [rust, *words] if has_name else [rust, folder, *words]
    return ["python3" if program.endswith(".py") else "node", program]


def install(cache):
    """Puts the middleware into the cache, beside copies of the programs; versions are those of the lists."""
    for runtime in ["node", "python", "php"]:
        shutil.copytree(REAL / runtime, cache / runtime, dirs_exist_ok=True)
    node, python = cache / "node", cache / "python"
    if stamp(node / "node_modules", node / "package.json"):
        run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error"], node)
        mark(node / "node_modules", node / "package.json")
    if stamp(python / "venv", python / "requirements.txt"):
        run([sys.executable, "-m", "venv", "venv"], python)
        run(["venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"], python)
        mark(python / "venv", python / "requirements.txt")


def stamp(folder, wanted):
    """Whether what is installed is not what is wanted."""
    installed = folder / ".installed"
    return not installed.exists() or installed.read_bytes() != wanted.read_bytes()


def mark(folder, wanted):
    folder.mkdir(exist_ok=True)
    (folder / ".installed").write_bytes(wanted.read_bytes())


def run(command, folder):
    subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)


def start_store():
    store = subprocess.Popen([sys.executable, HERE / "store.py", "0"], stdout=subprocess.PIPE, text=True)
    return store, f"http://127.0.0.1:{store.stdout.readline().strip()}"


def end(process):
    process.kill()
    process.wait()


def start_redis(scratch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", scratch]
    redis = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return redis, f"redis://127.0.0.1:{port}"
        except ConnectionRefusedError:
            if time.monotonic() > until or redis.poll() is not None:
                sys.exit("redis-server does not start")


def prove(lethe, folder, command, journey, env, scratch, hinted):
    """What is found, of hints only those of the kind `hinted`, the verdict, and how long it took."""
    report = Path(scratch) / "proof.json"
    report.unlink(missing_ok=True)
    flags = FLAGS.get(folder.name, [])
    words = [lethe, "prove", *flags, "--journey", journey, "--json", report, "--", *command]
    env = {**os.environ, "XDG_STATE_HOME": scratch, **env}
    try:
        ended = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=PROOF_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        return [], f"not done in {PROOF_SECONDS_MAX} s", 0
    if not report.exists():
        return [], f"status {ended.returncode}: {ended.stderr.strip()[-300:]}", 0
    proof = json.loads(report.read_text())
    verdict = proof["verdict"]
    if verdict == "inconclusive":
        verdict += ": " + "; ".join(each["why"] for each in proof["coverage"]["uncovered"])
    is_told = lambda found: found["confidence"] != "hint" or found["kind"] == hinted
    findings = [
        Found(found["kind"], found["producer"]["step"], found["consumer"]["step"])
        for found in proof["findings"]
        if is_told(found)
    ]
    return findings, verdict, proof["coverage"]["duration_ms"] / 1000


def judge(expected, findings, verdict):
    """What a case counts as, and what is said of it. A finding of the right kind at other steps is as false as one of another kind, and so is
    the same one told twice."""
    false = list(findings)
    if expected in false:
        false.remove(expected)
    if false:
        return "false", f"{expected or 'clean'}, but {', '.join(map(str, false))} was said"
    if expected is CLEAN:
        return ("clean", "nothing found") if verdict == "stateless" else ("missed", f"clean, but {verdict}")
    return ("found", str(expected)) if findings else ("missed", f"{expected}: {verdict}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lethe", default="lethe", help="the program")
    parser.add_argument("--rust", default="violations", help="the program of the folder rust")
    parser.add_argument("--cache", type=Path, default=HERE / ".cache", help="where middleware is installed")
    parser.add_argument("--only", default="", help="cases with this in their names")
    chosen = parser.parse_args()
    chosen.cache.mkdir(parents=True, exist_ok=True)
    cache = chosen.cache.resolve()
    # They are started in other folders.
    lethe, rust = (path and str(Path(path).resolve()) for path in map(shutil.which, (chosen.lethe, chosen.rust)))

    cases = []
    both = lambda found: [(app, found) for app in APPS] + [(twin, CLEAN) for twin in TWINS]
    examples = [(folder, program, expected) for folder, found in EXAMPLES.items() for program, expected in both(found)]
    for folder, program, expected in examples + MORE:
        command = command_of(program, folder, rust)
        # A twin gives no hint of what its folder is about either.
        hinted = EXAMPLES[folder].kind
        cases.append((f"{folder}/{program}", HERE / folder, command, {}, journey_of(HERE / folder), expected, hinted))
    for name, runtime, command, env, journey, expected in MIDDLEWARE:
        command = [str(cache / "python/venv/bin/python") if word == "PYTHON" else word for word in command]
        cases.append((name, cache / runtime, command, env, journey, expected, expected and expected.kind))
    cases = [case for case in cases if chosen.only in case[0]]
    if any(case[1].is_relative_to(cache) for case in cases):
        install(cache)
    if any(case[4] == RECORDING for case in cases):
        run(["node", "record.mjs", RECORDING, "node", "session-memory.mjs"], cache / "node")
    if any(None in case[2] for case in cases):
        sys.exit(f"{chosen.rust} is not there; `cargo build -p violations` makes it, and --rust says where it is")
    if not lethe:
        sys.exit(f"{chosen.lethe} is not there; `cargo build -p lethe-cli` makes it, and --lethe says where it is")

    counts = dict.fromkeys(["found", "clean", "missed", "false"], 0)
    with tempfile.TemporaryDirectory() as scratch:
        redis, redis_url = start_redis(scratch)
        try:
            for name, folder, command, env, journey, expected, hinted in cases:
                # Users have the same names in each proof, and must not find what those of another one have left.
                store, store_url = start_store()
                env = {"STORE": store_url, "REDIS_URL": redis_url, **env}
                findings, verdict, seconds = prove(lethe, folder, command, journey, env, scratch, hinted)
                end(store)
                outcome, said = judge(expected, findings, verdict)
                counts[outcome] += 1
                print(f"{outcome:7} {name:38} {said} ({seconds:.1f} s)", flush=True)
        finally:
            end(redis)
    print(f"{counts['found']} found, {counts['missed']} missed, {counts['false']} false, {counts['clean']} clean")
    sys.exit(1 if counts["missed"] or counts["false"] else 0)


main()
