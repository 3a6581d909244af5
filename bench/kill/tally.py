"""What became of each request, from the client's records and from the log that the workers write: the one says what the
user saw, the other what was done. Neither asks the gateway."""

import collections

# As `bench-kill load --kinds` names them, with what they are.
KINDS = {
    "small": "GET 512 B",
    "half": "GET 32 KiB",
    "large": "GET 2 MiB",
    "put": "PUT",
    "post": "POST",
    "key": "POST with key",
    "put-large": "PUT 256 KiB",
    "post-large": "POST 256 KiB",
    "key-large": "POST 256 KiB with key",
}
# Those that take the same time in a worker, so that their latencies may be put together.
ALIKE = ("small", "put", "post", "key")
NOT_REPEATABLE = ("post", "post-large")
PER = 10_000


class Tally:
    """One gateway's figures."""

    def __init__(self, calm, killed, log):
        self.calm = list(records(calm))
        self.killed = list(records(killed))
        self.applied = collections.Counter()
        for line in open(log):
            what, kind, ident, _pid = line.split()
            if what == "applied":
                self.applied[kind, ident] += 1

    def figures(self):
        kinds = {kind: self.of_kind(kind) for kind in KINDS if any(record.kind == kind for record in self.killed)}
        alike = [latencies(part, ALIKE) for part in (self.calm, self.killed)]
        return {"kinds": kinds, "alike": spread(*alike), "calm_failures": failures(self.calm)}

    def of_kind(self, kind):
        all_of = [record for record in self.killed if record.kind == kind]
        outcomes = collections.Counter(record.outcome for record in all_of)
        count = len(all_of)
        answered, unknown = outcomes["answered"], outcomes["unknown"]
        ran = lambda record: self.applied[kind, record.ident]
        silent = [record for record in all_of if record.outcome == "silent"]
        said_unknown = [record.us for record in all_of if record.outcome == "unknown"]
        writes = kind in ("put", "put-large", "post", "post-large", "key", "key-large")
        return {
            "requests": count,
            "answered": answered,
            "failed": count - answered - unknown,
            "unknown": unknown,
            "failed_per_10000": rate(count - answered - unknown, count),
            "unknown_per_10000": rate(unknown, count),
            "outcomes": dict(sorted(outcomes.items())),
            # From the request to this answer: a worker is killed while it works, so it is no longer than its work.
            "unknown_max_ms": max(said_unknown, default=0) / 1000,
            "hung": outcomes["hung"],
            # The client sends nothing twice, so each of these was repeated by the gateway.
            "ran_twice": sum(ran(record) > 1 for record in all_of),
            "doubled": sum(ran(record) > 1 for record in all_of) if kind in NOT_REPEATABLE else 0,
            # A browser sends these again without asking, POST too: those that had run would then have run twice.
            "silent": len(silent),
            "silent_had_run": sum(ran(record) > 0 for record in silent) if kind in NOT_REPEATABLE else 0,
            # Answered, but not done: never to be seen.
            "lost": sum(record.outcome == "answered" and not ran(record) for record in all_of) if writes else 0,
            "latency": spread(latencies(self.calm, [kind]), latencies(self.killed, [kind])),
        }


Record = collections.namedtuple("Record", "kind ident outcome how us")


def records(path):
    for line in open(path):
        kind, ident, outcome, how, us = line.split()
        yield Record(kind, ident, outcome, how, int(us))


def latencies(part, kinds):
    """Of those that were answered, in microseconds, ascending."""
    return sorted(record.us for record in part if record.kind in kinds and record.outcome == "answered")


def failures(part):
    """Without kills none is expected; what there was, by kind and outcome."""
    bad = collections.Counter(f"{record.kind} {record.outcome}" for record in part if record.outcome != "answered")
    return dict(sorted(bad.items()))


def spread(calm, killed):
    """Median and 99th percentile in milliseconds, and what the kills make of the latter."""
    if not calm or not killed:
        return None
    before, now = at(calm, 0.99), at(killed, 0.99)
    return {"p50_ms": at(killed, 0.5), "p99_ms": now, "calm_p50_ms": at(calm, 0.5), "calm_p99_ms": before,
            "p99_ratio": round(now / before, 2)}


def at(ascending, share):
    return round(ascending[min(len(ascending) - 1, int(len(ascending) * share))] / 1000, 1)


def rate(part, whole):
    return round(part * PER / whole, 1) if whole else None
