"""Benchmark results: one measured value each, shown as a table and saved as JSON."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Result:
    """One measured value."""

    name: str
    value: float
    unit: str
    over: int = 0
    """Interactions that were measured, without the warm-up."""


def machine() -> str:
    """Describe the machine in one line."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return f"{os.cpu_count()} cores, {cpu}, {psutil.virtual_memory().total >> 30} GB, shared by all that is measured"


def show(results: Sequence[Result], console: Console, *, relative_to: str) -> None:
    """Print a table; rates also as a ratio to the result named `relative_to`."""
    base = next((result.value for result in results if result.name == relative_to), None)
    table = Table("benchmark", "result", "measured over", "ratio", title=machine())
    for result in results:
        ratio = f"{result.value / base:.2f}" if base and result.unit == "interactions/s" else ""
        shown = f"{result.value:,.0f}" if result.value >= 100 else f"{result.value:.2f}"
        table.add_row(result.name, f"{shown} {result.unit}", f"{result.over:,}" if result.over else "", ratio)
    console.print(table)


def save(results: Sequence[Result], file: Path) -> None:
    """Write the results as JSON with machine and time; they replace older ones of the same name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    origin = {"machine": machine(), "taken_at": datetime.now(UTC).isoformat(timespec="seconds")}
    known = {result["name"]: result for result in json.loads(file.read_text())["results"]} if file.exists() else {}
    known |= {result.name: asdict(result) | origin for result in results}
    file.write_text(json.dumps({"results": list(known.values())}, indent=2, ensure_ascii=False) + "\n")
