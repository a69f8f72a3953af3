"""What came of the runs: medians, ratios, a table for people."""

from statistics import median


def summary(row, runs):
    """The figures of one row. `runs` are (round, server, report)."""
    servers = {}
    for _, server, report in runs:
        for metric in row.metrics:
            value = at(report, metric.path)
            if value is not None:
                servers.setdefault(server, {}).setdefault(metric.name, []).append(value)
    return {
        "command": row.arguments,
        "target": row.target,
        "servers": {
            server: {name: spread(values) for name, values in metrics.items()} for server, metrics in servers.items()
        },
        "ratios": ratios(row, runs),
    }


def at(report, path):
    """The number under a path of keys and indices, or nothing."""
    for key in path.split("."):
        try:
            report = report[int(key)] if isinstance(report, list) else report[key]
        except (KeyError, IndexError, TypeError):
            return None
    return report


def spread(values):
    return {"median": median(values), "min": min(values), "max": max(values), "values": values}


def ratios(row, runs):
    """The median over rounds of each server's figure through the limit's in the same round."""
    found = {}
    rounds = {}
    for number, server, report in runs:
        rounds.setdefault(number, {})[server] = report
    for metric in (metric for metric in row.metrics if metric.ratio and row.limit):
        for reports in rounds.values():
            limit = at(reports.get(row.limit, {}), metric.path)
            for server, report in reports.items():
                value = at(report, metric.path)
                if server != row.limit and limit and value is not None:
                    found.setdefault(server, {}).setdefault(metric.name, []).append(value / limit)
    return {server: {name: spread(values) for name, values in of.items()} for server, of in found.items()}


def markdown(results):
    """A table for each kind of figures: a line for each row and server, a column for each figure."""
    tables = {}
    for name, row in results["rows"].items():
        for server, metrics in row["servers"].items():
            cells = [cell(figure, row["ratios"].get(server, {}).get(metric)) for metric, figure in metrics.items()]
            line = [name, server, *cells, row["target"] if server == "roomcast" else ""]
            tables.setdefault(tuple(metrics), []).append(line)
    return "\n".join(table(["row", "server", *columns, "target"], lines) for columns, lines in tables.items())


def table(head, lines):
    rule = ["---"] * len(head)
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, rule, *lines])


def cell(figure, ratio):
    """Median, the span where there is one, and the ratio to the limit with the number of pairs."""
    text = number(figure["median"])
    if len(figure["values"]) > 1:
        text += f" ({number(figure['min'])} to {number(figure['max'])})"
    if ratio:
        text += f", **{ratio['median']:.2f}x**/{len(ratio['values'])}"
    return text


def number(value):
    """Three digits that say something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
