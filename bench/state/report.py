"""From the rounds to medians and ratios, and from those to the text that people read."""

import statistics

from measure import spread

TITLES = {
    "near": "a session of 300 bytes at the begin of a request, one call at a time",
    "served": "reads of sessions and writes of rows of 100 bytes through a server",
    "blob": "a blob of 1 GiB, streamed in and out",
    "crowd": "very many sessions in the embedded engine",
}
# With whom what Lethe does is compared: those who promise as much.
DURABLE = ["redis always", "redis-shared always", "postgres"]
READ = ["redis", "redis-shared"]


def median(rounds, name):
    return {key: round(statistics.median(figures[name][key] for figures in rounds), 2) for key in rounds[0][name]}


def ratio(rounds, peers, key, better):
    """Lethe to the peer whose median is the best, round by round."""
    peer = better(peers, key=lambda name: median(rounds, name)[key])
    values = spread([figures["lethe"][key] / figures[peer][key] for figures in rounds])
    low, high = values.get("low", values["min"]), values.get("high", values["max"])
    return f"{values['median']:.2f} ({low:.2f} to {high:.2f}) of {peer}"


def markdown(results):
    lines = ["# The state tier beside its peers", "",
             "In each round all in turn, another one first each time; medians of the rounds, and of the ratios of each "
             "round (with the middle half of them).", ""]
    for part, title in TITLES.items():
        if part in results:
            run = results[part]["run"]
            lines += [f"## {part}: {title}", "",
                      f"{run['at']}, {run['cores']} cores, Linux {run['kernel']}; {run['rounds']} rounds.", ""]
            lines += [*globals()[part](results[part]), ""]
    return "\n".join(lines)


def near(result):
    rounds = result["rounds"]
    yield from table(rounds)
    yield ""
    yield f"p50, Lethe to the best: {ratio(rounds, ['redis', 'tower-sessions'], 'p50_us', min)}."


def served(result):
    for load, rounds in ((load, row["rounds"]) for load, row in result["loads"].items()):
        yield f"### {load}"
        yield ""
        yield from table(rounds)
        yield ""
        peers = READ if load.startswith("read") else DURABLE
        yield (f"Calls a second, Lethe to the best that promises as much: {ratio(rounds, peers, 'per_s', max)}; "
               f"p50: {ratio(rounds, peers, 'p50_us', min)}.")
        yield ""


def table(rounds):
    yield "| | calls/s | p50 µs | p99 µs |"
    yield "|---|---:|---:|---:|"
    for name in rounds[0]:
        figures = median(rounds, name)
        yield f"| {name} | {figures['per_s']:,.0f} | {figures['p50_us']:.2f} | {figures['p99_us']:.2f} |"


def blob(result):
    rounds = result["rounds"]
    middle = {key: statistics.median(figures[key] for figures in rounds) for key in rounds[0]}
    yield (f"{result['mib']} MiB in {middle['put_s']:.2f} s, out in {middle['get_s']:.2f} s; `cp` and `sync` {middle['cp_s']:.2f} s, "
           f"`sha256sum` {middle['sha256sum_s']:.2f} s. Extra memory of lethe at its peak: {middle['extra_mib']:.1f} MiB.")
    values = result["put_ratio_to_cp_and_hash"]
    yield ""
    yield f"In, to `cp`, `sync` and `sha256sum`: {values['median']:.2f} ({values['min']:.2f} to {values['max']:.2f})."


def crowd(result):
    figures = result["figures"]
    load, listed, beside = figures["load"], figures["list"], figures["load_beside_expiry"]
    yield (f"{result['sessions']:,} sessions made in {figures['create_s']:.0f} s; then {figures['resident_mib']} MiB resident, "
           f"{figures['disk_mib']} MiB on disk.")
    yield ""
    yield "| | p50 µs | p99 µs |"
    yield "|---|---:|---:|"
    for name, row in (("load", load), ("list of a user's ten", listed), ("load while all others expire", beside)):
        yield f"| {name} | {row['p50_us']:.1f} | {row['p99_us']:.1f} |"
    yield ""
    yield f"All of them expired and were removed in {figures['expire_s']:.1f} s."
