"""The figures as tables, for the terminal and as Markdown."""

import datetime

from tally import KINDS, NOT_REPEATABLE

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
RATIO_MAX = 1.5
NEVER = {"doubled": "run twice", "silent": "closed without a byte", "lost": "answered, but not done"}
SHORT = {
    "small": "GET 512 B", "half": "GET 32 KiB", "large": "GET 2 MiB", "put": "PUT", "post": "POST", "key": "POST+key",
    "put-large": "PUT 256K", "post-large": "POST 256K", "key-large": "POST+key 256K",
}


def today():
    return datetime.date.today().isoformat()


def line(run):
    """One gateway in one line: what failed of each kind."""
    cells = [f"{SHORT[kind]} {lost(row)}" for kind, row in run["kinds"].items()]
    return f"{run['kills']} kills; failed per 10,000: " + ", ".join(cells)


def text(results):
    parts = [plain(table) for table in tables(results)]
    ours = [run for run in results["runs"] if run["name"] == "lethe"]
    if ours:
        short_of = unmet(ours[0])
        parts.append("goals that lethe does not meet: " + "; ".join(short_of) if short_of else "lethe meets its goals")
    if busy := disturbed(results):
        parts.append(busy)
    return "\n\n".join(parts)


def disturbed(results):
    """A word of warning about a run on a machine that had other things to do; empty if all is well."""
    early = {f"{run['name']}, {run['settings']}": run["early_kills"] for run in results["runs"] if run["early_kills"]}
    load, processors = results["about"]["load_average"], results["about"]["processors"]
    signs = [f"{count} of the kills at {name}, while another worker still started" for name, count in early.items()]
    if load > processors / 2:
        signs.insert(0, f"a load average of {load:.1f} on {processors} processors before the first run")
    return f"The machine was busy with other things, which these figures show too: {'; '.join(signs)}." if signs else ""


def unmet(run):
    """What lethe is to be, and is not in this run."""
    bad = []
    for kind, row in run["kinds"].items():
        if row["failed"]:
            bad.append(f"{SHORT[kind]}: {row['failed_per_10000']:g} failed per 10,000, not 0")
        if row["unknown"] and kind not in NOT_REPEATABLE:
            bad.append(f"{SHORT[kind]}: {row['unknown']} answered as unknown that could have been repeated")
        for key, what in NEVER.items():
            if row[key]:
                bad.append(f"{SHORT[kind]}: {row[key]} {what}, not 0")
    if run["alike"] and run["alike"]["p99_ratio"] > RATIO_MAX:
        bad.append(f"p99 is {run['alike']['p99_ratio']} times that without kills, not at most {RATIO_MAX}")
    return bad


def put_into(page, figures):
    """The page with these figures in place of those it has."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page does not have {BEGIN} and {END}")
    return f"{before}{begin}\n{figures}{end}{after}"


def markdown(results):
    about = results["about"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    kills = [run["kills"] for run in results["runs"]]
    requests = [sum(row["requests"] for row in run["kinds"].values()) for run in results["runs"]]
    head = (
        f"Measured on {about['date']}: {versions}; {about['processors']} processors ({about['cpu']}), Linux "
        f"{about['kernel']}; {span(kills)} kills and {span(requests)} requests in {about['seconds']:g} s for each; "
        f"seed {about['seed']}.")
    named = (
        "Failed per 10,000 requests:",
        "How it failed, in numbers of the whole run, and how long what did not fail took:")
    if busy := disturbed(results):
        head += "\n\n" + busy
    pairs = zip(named, tables(results), strict=True)
    return "\n\n".join([head, *(f"{title}\n\n{marked(table)}" for title, table in pairs)]) + "\n"


def tables(results):
    """Two tables, each a list of rows of which the first is the head."""
    kinds = [kind for kind in KINDS if any(kind in run["kinds"] for run in results["runs"])]
    failed = [["", *(SHORT[kind] for kind in kinds)]]
    other = [["", "closed without a byte", "POSTs of these that had run", "POSTs run twice", "hung", "p50", "p99",
              "p99 without kills", "ratio"]]
    for run in results["runs"]:
        name = run["name"] if run["name"] == "lethe" else f"{run['name']}, {run['settings']}"
        rows = run["kinds"]
        failed.append([name, *(lost(rows[kind]) if kind in rows else "" for kind in kinds)])
        total = lambda key: f"{sum(row[key] for row in rows.values()):,}"
        alike = run["alike"]
        times = ["", "", "", ""] if alike is None else [
            f"{alike['p50_ms']} ms", f"{alike['p99_ms']} ms", f"{alike['calm_p99_ms']} ms", f"{alike['p99_ratio']:.2f}"]
        other.append([name, total("silent"), total("silent_had_run"), total("doubled"), total("hung"), *times])
    return failed, other


def lost(row):
    """Failed per 10,000, and beside it what was honestly answered as unknown."""
    cell = f"{row['failed_per_10000']:,.0f}" if row["failed_per_10000"] >= 10 else f"{row['failed_per_10000']:g}"
    return cell + (f" + {row['unknown_per_10000']:.0f} unknown" if row["unknown"] else "")


def plain(table):
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(row, widths))) for row in table)


def marked(table):
    head, *rows = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([head, "|---" + "|--:" * (len(table[0]) - 1) + "|", *rows])


def span(numbers):
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
