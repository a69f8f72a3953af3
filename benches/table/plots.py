"""Plots of what grows. Run by the Python of `.tools/bench`, which has matplotlib: plots.py RESULTS FOLDER."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
# Text stays text, and the same figures give the same file.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "roomcast"})

from matplotlib import pyplot  # noqa: E402 - the backend is chosen before

# What grows, the figure, the axes' names, what a unit of the upright one is, and the file.
PLOTS = [
    ("members", "CPU us per delivery", "members of a room", "CPU us per delivery", 1, "growth-members.svg"),
    ("rooms", "CPU us per delivery", "rooms", "CPU us per delivery", 1, "growth-rooms.svg"),
    ("connections", "private bytes", "connections", "private MiB", 1 << 20, "growth-memory.svg"),
    ("connections", "CPU us per connect", "connections", "CPU us per connect", 1, "growth-connects.svg"),
]


def main():
    results = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for kind, metric, across, upright, unit, name in PLOTS:
        lines = series(results["rows"], kind, metric, unit)
        if lines:
            draw(lines, across, upright, folder / name)


def series(rows, kind, metric, unit):
    """Points of each server."""
    lines = {}
    for row in rows.values():
        if not row.get("x") or row["x"][0] != kind:
            continue
        for server, metrics in row["servers"].items():
            if metric in metrics:
                value = metrics[metric]["median"]
                lines.setdefault(server, []).append((row["x"][1], value / unit))
    return lines


def draw(lines, across, upright, path):
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for server, points in lines.items():
        axes.plot(*zip(*sorted(points)), marker="o", label=server)
    if across != "connections":
        axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(across)
    axes.set_ylabel(upright)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    # Without the date, so that equal figures are an equal file.
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
