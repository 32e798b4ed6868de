"""Measures, and prints one table: ``python -m benchmarks [PART ...]`` (all parts where none is named)."""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from benchmarks import documents, growth, latency, sink, start, throughput
from benchmarks.results import Result, save, show
from benchmarks.stack import Stack, running
from local_stack import cache, services
from local_stack.services import ROOT
from runtime import proxies

Part = Callable[[Stack, argparse.Namespace], Iterator[Result]]

PARTS: dict[str, Part] = {
    "throughput": lambda stack, given: throughput.measure(stack, given.interactions, given.pathway),
    "documents": lambda stack, given: documents.measure(stack, given.interactions // 3),
    "sink": lambda stack, given: sink.measure(stack, given.rows),
    "start": lambda stack, _: start.measure(stack),
    "latency": lambda stack, given: latency.measure(stack, 1_000, given.warm, 60),
    "latency-10k": lambda stack, given: latency.measure(stack, 10_000, given.warm, 60),
    "users": lambda stack, given: growth.users(stack, given.interactions),
    "soak": lambda stack, given: growth.soak(stack, given.minutes),
    "history": lambda stack, given: growth.history(stack, (0, given.history // 5, given.history)),
}


def main() -> None:
    """Run the parts that the command line names."""
    proxies.exempt_near()
    parser = argparse.ArgumentParser(prog="benchmarks")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which parts; all where none is named")
    parser.add_argument("--interactions", type=int, default=8_000_000, help="in a backlog")
    parser.add_argument("--rows", type=int, default=1_000_000, help="changed rows in the sink's backlog")
    parser.add_argument("--history", type=int, default=50_000_000, help="the most interactions in the lake")
    parser.add_argument("--minutes", type=float, default=60, help="how long the soak runs")
    parser.add_argument("--warm", type=float, default=120, help="seconds before latencies count")
    parser.add_argument("--pathway", default=os.environ.get("PATHWAY_PYTHON"), help="a Python that has Pathway")
    parser.add_argument("--json", type=Path, default=ROOT / ".data" / "benchmarks.json", help="where results go")
    given = parser.parse_args()
    console = Console()
    cache.fill(cache.SPARK, cache.KAFKA, cache.ELASTICSEARCH, cache.ELASTICSEARCH_NETTY, console=console)
    services.make_cds_archive(console)
    results: list[Result] = []
    for part in given.parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, running(Path(folder)) as stack:
            for result in PARTS[part](stack, given):
                console.print(f"{result.name}: {result.value:,.2f} {result.unit}", soft_wrap=True)
                results.append(result)
        # After each part: the next one may fail.
        save(results, given.json)
    show(results, console, relative_to=throughput.LIMIT)


if __name__ == "__main__":
    main()
