"""Runs benchmarks and prints one table: ``python -m benchmarks [NAME ...]``; all of them without a name."""

from runtime.signals import end_on_interrupt

if __name__ == "__main__":
    end_on_interrupt()

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from benchmarks import budget, cost, documents, growth, latency, page, sink, start, throughput, verification
from benchmarks.peers import driver
from benchmarks.results import Result, save, show
from benchmarks.stack import Stack, running
from local_stack import services
from local_stack.services import ROOT
from runtime import proxies
from runtime.broken_pipe import exit_status
from runtime.signals import interrupt_on_signal

Benchmark = Callable[[Stack, argparse.Namespace], Iterator[Result]]

BENCHMARKS: dict[str, Benchmark] = {
    "throughput": lambda stack, args: throughput.measure(stack, args.interactions),
    "peers": lambda stack, args: driver.measure(stack, args.only, args.interactions, args.warm, 60, Console()),
    "documents": lambda stack, args: documents.measure(stack, args.interactions // 3),
    "sink": lambda stack, args: sink.measure(stack, args.rows),
    "start": lambda stack, _: start.measure(stack),
    "latency": lambda stack, args: latency.measure(stack, 1_000, args.warm, 60),
    "latency-10k": lambda stack, args: latency.measure(stack, 10_000, args.warm, 60),
    "cost": lambda stack, args: cost.measure(stack, args.warm, 60),
    "demo": lambda stack, args: cost.demo(stack, args.warm, 60),
    "page": lambda stack, args: page.measure(stack, args.warm, 30),
    "budget": lambda stack, args: budget.measure(stack, args.warm),
    "users": lambda stack, args: growth.users(stack, args.interactions),
    "soak": lambda stack, args: growth.soak(stack, args.minutes),
    "history": lambda stack, args: growth.history(stack, (0, args.history // 5, args.history)),
    "verify": lambda stack, args: verification.measure(stack, args.interactions),
}


def main() -> int:
    """Run the benchmarks that the command line names; status 130 if they are stopped."""
    args = _parse_args()
    interrupt_on_signal()
    try:
        _run(args)
    except KeyboardInterrupt:
        return 130
    return 0


def _run(args: argparse.Namespace) -> None:
    proxies.exempt_local_hosts()
    console = Console()
    services.fill_caches(console)
    results: list[Result] = []
    for name in args.names or BENCHMARKS:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, running(Path(folder)) as stack:
            for result in BENCHMARKS[name](stack, args):
                console.print(f"{result.name}: {result.value:,.2f} {result.unit}", soft_wrap=True)
                results.append(result)
                # After each result: what follows may fail.
                save(results, args.json)
    show(results, console, relative_to=throughput.LIMIT)


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description="Runs benchmarks and prints one table.")
    names = ", ".join(BENCHMARKS)
    # Not `choices`: with a variable number of names they would have to contain the empty list.
    parser.add_argument("names", nargs="*", metavar="NAME", type=_benchmark, help=f"one of {names}; all without a name")
    parser.add_argument("--interactions", type=int, default=8_000_000, help="size of a backlog")
    parser.add_argument("--rows", type=int, default=1_000_000, help="changed rows in the sink's backlog")
    parser.add_argument("--history", type=int, default=50_000_000, help="largest number of interactions in the lake")
    parser.add_argument("--minutes", type=float, default=60, help="duration of the soak test")
    parser.add_argument("--warm", type=float, default=120, help="seconds of warm-up before latencies are measured")
    peers = ",".join(driver.PEERS)
    parser.add_argument("--only", type=_peers, default=list(driver.PEERS), help=f"which peers to measure: {peers}")
    parser.add_argument("--json", type=Path, default=ROOT / ".data" / "benchmarks.json", help="file for the results")
    return parser.parse_args()


def _benchmark(name: str) -> str:
    if name not in BENCHMARKS:
        raise argparse.ArgumentTypeError(f"unknown benchmark {name!r}: expected {', '.join(BENCHMARKS)}")
    return name


def _peers(names: str) -> list[str]:
    if unknown := set(names.split(",")) - set(driver.PEERS):
        raise argparse.ArgumentTypeError(f"unknown peer {min(unknown)!r}: expected {', '.join(driver.PEERS)}")
    return names.split(",")


if __name__ == "__main__":
    sys.exit(exit_status(main))
