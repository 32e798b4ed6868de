"""Draws the charts of benchmark results: ``python -m benchmarks.plots RESULTS.json FOLDER``."""

import argparse
import json
import re
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.peers.peer import BACKLOG, LATENCY, RATE
from benchmarks.peers.project import PROJECT

_BLUE, _ORANGE, _GREY = "#0072b2", "#e69f00", "#666666"
"""Distinguishable with colour blindness."""
_RATE: Final = "interactions/s"
_APART: Final = r"peers, |verify, |.* users$"
"""Rates that are not of the stages of the pipeline."""


def main() -> None:
    """Draw each chart that has results, with the machine that they were measured on."""
    parser = argparse.ArgumentParser(prog="benchmarks.plots", description="Draws the charts of benchmark results.")
    parser.add_argument("results", type=Path, help="the JSON file that the benchmarks write")
    parser.add_argument("folder", type=Path, help="where to put the charts; existing ones are replaced")
    args = parser.parse_args()
    document = json.loads(args.results.read_text())
    folder: Path = args.folder
    folder.mkdir(exist_ok=True)
    # The same results give the same file; text stays text.
    mpl.rcParams |= {"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 10}
    results: list[dict[str, Any]] = document["results"]
    for name, draw in {"throughput": _throughput, "latency": _latency, "history": _history, "peers": _peers}.items():
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        if used := draw(figure, results):
            figure.suptitle(used[0]["machine"], fontsize=8, color=_GREY)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def _throughput(figure: Figure, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rates = [result for result in results if result["unit"] == _RATE and not re.match(_APART, result["name"])][::-1]
    axes = figure.subplots()
    bars = axes.barh([result["name"] for result in rates], [result["value"] / 1e6 for result in rates], color=_BLUE)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.margins(x=0.1)
    axes.set_xlabel("million interactions a second, warm")
    axes.spines[["top", "right"]].set_visible(False)
    return rates


def _latency(figure: Figure, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    series: dict[str, dict[str, float]] = {}
    used = []
    for result in results:
        if match := re.fullmatch(r"(send → .*), p(\d+)", result["name"]):
            used.append(result)
            series.setdefault(match[1], {})[match[2]] = result["value"]
    axes = figure.subplots()
    _draw_percentiles(axes, series)
    if series:
        axes.legend(loc="center left")
    axes.set_xlabel("seconds")
    return used


def _peers(figure: Figure, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rates: dict[str, float] = {}
    series: dict[str, dict[str, float]] = {}
    used = []
    for result in results:
        if match := re.fullmatch(f"peers, (.*): (?:({BACKLOG})|{LATENCY}, p(\\d+))", result["name"]):
            used.append(result)
            if match[2]:
                rates[match[1]] = result["value"]
            else:
                series.setdefault(match[1], {})[match[3]] = result["value"]
    if not used:
        return []
    left, right = figure.subplots(1, 2, sharey=True)
    names = list(reversed(rates))
    colours = [_BLUE if name == PROJECT.title else _ORANGE for name in names]
    bars = left.barh(range(len(names)), [rates[name] / 1e6 for name in names], color=colours)
    left.bar_label(bars, fmt="%.2f", padding=3)
    left.margins(x=0.15)
    left.set_xlabel("million interactions a second, warm")
    left.spines[["top", "right"]].set_visible(False)
    _draw_percentiles(right, {name: series[name] for name in rates})
    right.legend(loc="best")
    right.set_xlabel(f"seconds from send to row at {RATE:,}/s")
    return used


def _draw_percentiles(axes: Axes, series: dict[str, dict[str, float]]) -> None:
    """Draw a line for each name, from the 50th to the 99th percentile, the first name at the top."""
    for n, percentiles in enumerate(reversed(series.values())):
        axes.plot([percentiles["50"], percentiles["99"]], [n, n], color=_GREY, zorder=0)
        for percent, colour, marker in (("50", _BLUE, "o"), ("95", _ORANGE, "s"), ("99", "black", "d")):
            axes.plot(percentiles[percent], n, marker, color=colour, label=f"p{percent}" if n == 0 else None)
    axes.set_yticks(range(len(series)), list(reversed(series)))
    axes.set_xlim(left=0)
    axes.margins(y=0.2)
    axes.spines[["top", "right"]].set_visible(False)


def _history(figure: Figure, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    series: dict[str, list[tuple[float, float]]] = {}
    used = []
    for result in results:
        if match := re.fullmatch(r"batch of (\w+), ([\d,]+) in the lake", result["name"]):
            used.append(result)
            series.setdefault(match[1], []).append((int(match[2].replace(",", "")) / 1e6, result["value"]))
    axes = figure.subplots()
    for (query, points), colour, marker in zip(series.items(), (_BLUE, _ORANGE), "os", strict=False):
        axes.plot(*zip(*sorted(points), strict=True), marker=marker, color=colour, label=f"batch of {query}")
    axes.set_xlabel("million interactions in the lake already, 1,000 a second arriving")
    axes.set_ylabel("seconds")
    axes.set_ylim(bottom=0)
    if series:
        axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    return used


if __name__ == "__main__":
    main()
