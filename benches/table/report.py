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
    """One table: a line for each row, server and figure."""
    lines = [
        "| row | server | figure | median | min | max | to the limit | target |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in results["rows"].items():
        for server, metrics in row["servers"].items():
            for metric, figure in metrics.items():
                ratio = row["ratios"].get(server, {}).get(metric)
                cells = [
                    name,
                    server,
                    metric,
                    *(number(figure[key]) for key in ("median", "min", "max")),
                    f"{ratio['median']:.2f}x of {len(ratio['values'])}" if ratio else "",
                    row["target"] if server == "roomcast" else "",
                ]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def number(value):
    """Three digits that say something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
