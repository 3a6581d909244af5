#!/usr/bin/env python3
"""Lethe's gateway beside nginx, HAProxy, Envoy, Traefik and Caddy, on this machine, now; `make bench-gateway` runs it.

Prints a table and writes `bench/results/gateway.json` and `gateway.md`. Single rows can be repeated while something is
being improved: `python3 bench/gateway/run.py --rows get-32,tls --peers nginx,haproxy,lethe --rounds 1`; the others stay as
they were, and each says when and how it was measured.
"""

import argparse
import contextlib
import datetime
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from gateway import load, peers, report, roster
from measure import LETHE, install, need_release_build, read_results, spread, write_results

TOOLS = {"wrk": "wrk", "h2load": "nghttp2-client", "openssl": "openssl", "nginx": "nginx"}


def main():
    options = arguments()
    need_release_build()
    # A kill ends the proxies just as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if missing := install(TOOLS):
        sys.exit(f"the load and the upstreams need {', '.join(missing)}, which cannot be installed here; "
                 f"as root: apt-get install {' '.join(TOOLS[name] for name in missing)}")
    names = peers.available(options.peers)
    load.raise_open_files()
    run = {
        "at": datetime.datetime.now().isoformat(" ", "minutes"), "cores": os.cpu_count(),
        "kernel": os.uname().release, "rounds": options.rounds, "seconds": options.seconds,
        "versions": {name: version(name) for name in names}}
    rows = read_results("gateway.json").get("rows", {})
    with tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder:
        certificate = peers.Certificate(pathlib.Path(folder))
        for name in options.rows:
            print(f"{name}: {report.TITLES[name]}", flush=True)
            rows[name] = {"run": run, **measured(name, names, certificate, options)}
            # Written after each row, so that a run that is broken off leaves what it has.
            write_results("gateway.json", {"rows": {name: rows[name] for name in report.TITLES if name in rows}})
    text = report.markdown(read_results("gateway.json"))
    (pathlib.Path(__file__).resolve().parent.parent / "results" / "gateway.md").write_text(text + "\n")
    print("\n" + text)


def arguments():
    def among(known):
        def parse(text):
            chosen = text.split(",")
            if unknown := set(chosen) - set(known):
                raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: there is {', '.join(known)}")
            return [name for name in known if name in chosen]
        return parse
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=among(report.TITLES), default=list(report.TITLES), help="such as get-32,tls")
    parser.add_argument("--peers", type=among(peers.NAMES), default=peers.NAMES, help="such as nginx,haproxy,lethe")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=1, help="for each figure of a round")
    return parser.parse_args()


def measured(name, names, certificate, options):
    """All rounds of one row."""
    rounds, missing = [], {}
    row = next((row for row in load.ROWS if row.name == name), None)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(peers.Ours(certificate))
        running = started(names, ours, certificate, stack, missing) if name != "roster" else []
        if row:
            running = [proxy for proxy in running if is_warm(row, proxy, missing)]
        # Memory is weighed once: a second time it would be that of connections that were there before.
        for number in range(options.rounds if name != "idle" else 1):
            # Nobody is always the first: what else goes on here meets all alike.
            turn = number % max(1, len(running))
            if name == "roster":
                figures = roster.measured(ours.upstreams, options.seconds)
            else:
                figures = one_round(row, running[turn:] + running[:turn], certificate, options, missing)
            rounds.append(figures)
            for proxy, values in figures.items():
                shown = "  ".join(f"{key} {value}" for key, value in values.items())
                print(f"  round {number + 1}  {proxy:<8} {shown}", flush=True)
    result = {"title": report.TITLES[name], "rounds": rounds, "peers": report.summary(rounds), "missing": missing}
    if row:
        result["rate"] = row.rate
    if name == "roster":
        result["p99_ratio"] = spread([figures["changing"]["p99_ms"] / figures["quiet"]["p99_ms"] for figures in rounds])
    return result


def started(names, ours, certificate, stack, missing):
    """The proxies that are asked for, running."""
    running = []
    for name in names:
        try:
            if name == "lethe":
                running.append(ours)
            else:
                running.append(stack.enter_context(peers.Peer(name, certificate, ours.upstreams)))
        except ValueError as error:
            note(missing, name, str(error))
    return running


def is_warm(row, proxy, missing):
    """Whether it offers what the row is about, and has opened its connections to the workers."""
    if not proxy.offers(row.protocol):
        excuse = f": {proxy.excuse}" if proxy.excuse and row.protocol != "h2c" else ""
        note(missing, proxy.name, f"does not offer {row.protocol}{excuse}")
        return False
    try:
        load.warm(row, proxy)
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        note(missing, proxy.name, f"{error} {getattr(error, 'stderr', None) or ''}".strip())
        return False
    return True


def one_round(row, running, certificate, options, missing):
    """Each proxy in turn; {name: figures} of those that made it."""
    figures = {}
    for proxy in running:
        try:
            figures[proxy.name] = (
                load.measured(row, proxy, certificate, options.seconds) if row else load.idle_connections(proxy))
        except (ValueError, OSError, subprocess.CalledProcessError) as error:
            note(missing, proxy.name, f"{error} {getattr(error, 'stderr', None) or ''}".strip())
    return figures


def note(missing, name, why):
    """Says once why a proxy has no figures, or not those of all rounds."""
    if name not in missing:
        print(f"  {name}: {why}", flush=True)
        missing[name] = why


def version(name):
    if name in peers.PYPI:
        return peers.PACKAGES[name].partition("==")[2]
    program, flag = (LETHE, "--version") if name == "lethe" else (name, "-v")
    said = subprocess.run([program, flag], capture_output=True, text=True)
    return next(word for word in (said.stdout + said.stderr).replace("/", " ").split() if word[0].isdigit())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
