"""From the rounds of a comparison to medians and ratios, and from those to the text that people read."""

import statistics

from gateway import load, roster
from measure import spread

# The figures with a goal, and what is best of several.
RATIOS = {"cpu_us": min, "p99_ms": min, "requests_per_s": max, "bytes_per_connection": min}
COLUMNS = [("cpu_us", "CPU µs/request"), ("requests_per_s", "requests/s"), ("p50_ms", "p50 ms"), ("p99_ms", "p99 ms"),
           ("p999_ms", "p99.9 ms"), ("cpu_us_at_rate", "CPU µs at the rate"), ("resident_mib", "MiB")]
IDLE_COLUMNS = [("connections", "connections"), ("bytes_per_connection", "bytes/connection"), ("resident_mib_before", "MiB before"),
                ("resident_mib_after", "MiB after")]
RATIO_COLUMNS = {"cpu_us": "CPU ratio", "p99_ms": "p99 ratio", "bytes_per_connection": "ratio"}


def summary(rounds):
    """For each name its medians, and how it compares, round by round, with the peer whose median is the best. `rounds` is
    a list of {name: figures}; a name that is missing in a round did not make it."""
    names = list(dict.fromkeys(name for figures in rounds for name in figures))
    summed = {}
    for name in names:
        own = [figures[name] for figures in rounds if name in figures]
        summed[name] = {"median": {key: statistics.median(figures[key] for figures in own) for key in own[0]}}
    for name in names:
        ratios = summed[name]["ratio_to_best_peer"] = {}
        for key, best in RATIOS.items():
            peers = {peer: summed[peer]["median"][key] for peer in names if peer != "lethe" and key in summed[peer]["median"]}
            if key not in summed[name]["median"] or not peers:
                continue
            # Not the best of each round: among several that vary, somebody is always lucky.
            peer = best(peers, key=peers.get)
            both = [(figures[name][key], figures[peer][key]) for figures in rounds if name in figures and peer in figures]
            if per_round := [value / other for value, other in both if other > 0]:
                ratios[key] = spread(per_round) | {"peer": peer}
    return summed


def markdown(results):
    lines = [
        "# The gateway beside its peers", "",
        "In each round all proxies in turn, another one first each time; medians of the rounds.", "",
        "CPU is user and system time of all processes of a proxy, divided by the requests of a closed loop that goes "
        "as fast as it can. Latencies are those at a fixed rate, timed from when a request was due. A ratio compares, round by "
        "round, with the peer whose median is the best: the median of the ratios (and the middle half of them).", ""]
    for name, row in results["rows"].items():
        run = row["run"]
        lines += [
            f"## {name}: {row['title']}", "",
            f"{run['at']}, {run['cores']} cores, Linux {run['kernel']}; rounds: {run['rounds']}, of {run['seconds']} s for "
            "each figure; " + ", ".join(f"{peer} {version}" for peer, version in run["versions"].items()) + ".", ""]
        if row.get("rate"):
            lines += [f"Latencies at {row['rate']:,} requests/s.", ""]
        if name == "roster":
            lines += roster_table(row)
        elif row["peers"]:
            lines += table(row["peers"], IDLE_COLUMNS if name == "idle" else COLUMNS)
        lines += [""] + [f"- {proxy}: {why}" for proxy, why in row["missing"].items()] + [""] * bool(row["missing"])
    return "\n".join(lines)


def table(peers, columns):
    ratios = [key for key in RATIO_COLUMNS if any(key in peer["ratio_to_best_peer"] for peer in peers.values())]
    yield "| | " + " | ".join([title for _, title in columns] + [RATIO_COLUMNS[key] for key in ratios]) + " |"
    yield "|---" + "|---:" * (len(columns) + len(ratios)) + "|"
    for name, peer in peers.items():
        cells = [shown(peer["median"][key]) for key, _ in columns]
        cells += [ratio(peer["ratio_to_best_peer"].get(key)) for key in ratios]
        yield f"| {name} | " + " | ".join(cells) + " |"


def roster_table(row):
    yield "| roster | p50 ms | p99 ms | p99.9 ms | changes/s | MiB |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name in ("quiet", "changing"):
        median = row["peers"][name]["median"]
        yield f"| {name} | " + " | ".join(
            shown(median[key]) for key in ("p50_ms", "p99_ms", "p999_ms", "changes_per_s", "resident_mib")) + " |"
    yield f"\np99, changing / quiet: {ratio(row['p99_ratio'])}"


def shown(value):
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}" if value < 1 else f"{value:.1f}"


def ratio(spread_of):
    return "" if spread_of is None else "{median:.2f} ({low:.2f} to {high:.2f})".format(**{"low": spread_of["min"], "high": spread_of["max"]} | spread_of)


TITLES = {row.name: row.title for row in load.ROWS} | {
    "idle": f"{load.IDLE:,} connections that have had a request each, then nothing", "roster": roster.TITLE}
