"""Writes the tables of the peers into a page: ``python -m benchmarks.peers.table RESULTS.json PAGE.md``."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.peers import peer
from benchmarks.peers.driver import PEERS
from benchmarks.peers.peer import Peer

BEGIN: Final = "<!-- The tables of the peers, written by make plots -->"
END: Final = "<!-- End of the tables -->"
_UNKNOWN: Final = "–"
_HEADINGS: Final = (
    "engine",
    "lake",
    "backlog, interactions a second",
    "core-seconds per million of them",
    f"latency at {peer.RATE:,}/s: p50, p95, p99",
    f"cores at {peer.RATE:,}/s",
    "peak memory",
    "exact rows",
)


def main() -> None:
    """Replace the tables in the page that the command line names."""
    parser = argparse.ArgumentParser(prog="benchmarks.peers.table", description="Writes the tables of the peers.")
    parser.add_argument("results", type=Path, help="the JSON file that the benchmarks write")
    parser.add_argument("page", type=Path, help="a Markdown file with the comments between which the tables are")
    args = parser.parse_args()
    page: Path = args.page
    page.write_text(replace_tables(page.read_text(), read_values(args.results)))


def read_values(results: Path) -> dict[str, float]:
    """Return the values of the results by name."""
    return {result["name"]: result["value"] for result in json.loads(results.read_text())["results"]}


def replace_tables(page: str, values: Mapping[str, float]) -> str:
    """Return the page with the tables of these values; the figure of a peer that was not measured is a dash."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return "\n".join([f"{before}{BEGIN}", "", *_lines(values), "", f"{END}{after}"])


def _lines(values: Mapping[str, float]) -> Iterator[str]:
    yield from _table(_HEADINGS, [[each.title, each.lake, *_figures(each, values)] for each in PEERS.values()])
    yield ""
    described = [[each.title, each.version, each.settings, each.does_not] for each in PEERS.values()]
    yield from _table(("engine", "version", "settings", "what it does not do"), described)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (headings, ["---"] * len(headings), *rows):
        yield f"| {' | '.join(row)} |" if row[0] != "---" else f"|{'|'.join(row)}|"


def _figures(each: Peer, values: Mapping[str, float]) -> Iterator[str]:
    def show(form: str, *measures: str) -> str:
        found = [values.get(each.result_name(measure)) for measure in measures]
        return _UNKNOWN if None in found else form.format(*found)

    yield show("{:,.0f}", peer.BACKLOG)
    yield show("{:.1f}", peer.COST)
    yield show("{:.2f} s, {:.2f} s, {:.2f} s", *(f"{peer.LATENCY}, p{percent}" for percent in (50, 95, 99)))
    yield show("{:.2f}", peer.CORES)
    yield show("{:,.0f} MB", peer.MEMORY)
    yield "all" if values.get(each.result_name(peer.EXACT)) == 1 else show("{:.2%}", peer.EXACT)


if __name__ == "__main__":
    main()
