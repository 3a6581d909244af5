"""Ten thousand endpoints, and a thousand changes of the roster a second: is there a step in the latency? The gateway
runs without the rest of `lethe` here (its example `fixed_roster`), so that nothing but the roster changes."""

import pathlib
import subprocess
import tempfile
import time

from gateway.load import Row, open_model
from measure import TARGET, connect_when_listening, end_with_parent, free_port, resident_bytes, stop

FIXED_ROSTER = TARGET / "release" / "examples" / "fixed_roster"
ENDPOINTS = 10_000
CHANGES_PER_S = 1_000
# Few enough that the connections to so many endpoints, kept for seconds by each core, fit into a usual limit of files.
RATE = 1_000
TITLE = f"{ENDPOINTS:,} endpoints, with and without {CHANGES_PER_S:,} roster changes a second"


class Gateway:
    """One with that many endpoints, all of them the same few upstreams."""

    def __init__(self, upstreams, changes_per_s):
        self.port = free_port()
        self.said = tempfile.NamedTemporaryFile("w", suffix=".txt")
        self.process = subprocess.Popen(
            [FIXED_ROSTER, f"127.0.0.1:{self.port}", *(f"127.0.0.1:{port}" for port in upstreams),
             "--endpoints", str(ENDPOINTS), "--changes-per-second", str(changes_per_s)],
            stdout=self.said, preexec_fn=end_with_parent)

    def port_for(self, _protocol):
        return self.port

    def changes(self):
        """How many it has made."""
        # Read apart: a position that was shared would move where the process writes.
        lines = pathlib.Path(self.said.name).read_text().splitlines()
        return int(lines[-1].split()[0]) if lines else 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        stop(self.process)
        self.said.close()


def measured(upstreams, seconds):
    """One round: first with a roster at rest, then with a changing one."""
    return {name: at_rate(upstreams, changes, seconds) for name, changes in (("quiet", 0), ("changing", CHANGES_PER_S))}


def at_rate(upstreams, changes_per_s, seconds):
    row = Row("roster", TITLE, RATE)
    with Gateway(upstreams, changes_per_s) as gateway:
        connect_when_listening(gateway.port)
        open_model(row, gateway, None, 1)
        changes, began = gateway.changes(), time.monotonic()
        figures = open_model(row, gateway, None, seconds)
        # Tenths of a second are reported, so this is exact to one of them.
        made = (gateway.changes() - changes) / (time.monotonic() - began)
        return {key: figures[key] for key in ("p50_ms", "p99_ms", "p999_ms")} | {
            "changes_per_s": round(made), "resident_mib": round(resident_bytes([gateway.process.pid]) / 2**20, 1)}
