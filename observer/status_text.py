"""The status as text for a terminal."""

from collections.abc import Iterator, Sequence

from contract.declared import EVENT
from observer.reconciliation import NO_VERDICT
from observer.services import OK
from observer.status import MAY_HAVE_ENDED, ExitStatus, Figures, Problem, exit_status, problems
from runtime.logs import escape_controls

_UNKNOWN = "unknown"
_NOT_PROVEN = "whether everything sent has arrived is unknown after one look: --watch follows it"
_NAME_WIDTH = 28
_NUMBER_WIDTH = 14


def figures_text(figures: Figures) -> str:
    """Return all figures."""
    sections = (_health(figures), _stages(figures), _totals(figures), _tables(figures), _disks(figures))
    lines = [line for section in sections for line in (*section, "")]
    return escaped([*lines, *_errors(figures)])


def verdict_text(figures: Figures) -> str:
    """Return whether all is well, or what needs attention."""
    if exit_status(figures) == ExitStatus.WELL:
        return f"all well at {figures.at}"
    return escaped(_attention(figures.at, problems(figures)))


def escaped(lines: Sequence[str]) -> str:
    """Return lines as text, in which no record and no message can control the terminal."""
    return "\n".join(map(escape_controls, lines))


def _attention(at: str, found: Sequence[Problem]) -> list[str]:
    needs = "1 thing needs" if len(found) == 1 else f"{len(found)} things need"
    return [f"{needs} attention at {at}:", *(f"  {problem}" for problem in found)]


def _health(figures: Figures) -> Iterator[str]:
    yield f"{'health':<{_NAME_WIDTH}}  {'':14}{'up':>10}{'memory':>12}"
    for part in figures.parts:
        if part.state not in (OK, MAY_HAVE_ENDED) or part.uptime is None:
            yield f"  {part.name:<{_NAME_WIDTH}}{part.state}"
        else:
            up, memory = duration_text(part.uptime), _bytes(part.memory)
            yield f"  {part.name:<{_NAME_WIDTH}}{part.state:<14}{up:>10}{memory:>12}"


def _stages(figures: Figures) -> Iterator[str]:
    yield _row(EVENT.name, "rows", "per second", "lag")
    for n, stage in enumerate(figures.stages):
        # No stage comes before the first one, and the lag of the published rows is that of the sink.
        has_lag = n not in (0, len(figures.stages) - 2)
        rate = _UNKNOWN if stage.rate is None else f"{stage.rate:,.1f}"
        yield _row(f"  {stage.name}", _count(stage.rows), rate, _count(stage.lag) if has_lag else "")


def _tables(figures: Figures) -> Iterator[str]:
    yield _row("rows", "in the state", "in the lake", "indexed")
    for table in figures.tables:
        if table.name == EVENT.name:
            yield _row(f"  {table.name}", "", _count(table.in_the_lake), "")
        else:
            counts = (table.in_the_state, table.in_the_lake, table.indexed)
            yield _row(f"  {table.name}", *map(_count, counts))
    yield _row("  in total", _count(figures.state_rows), "", "")


def _totals(figures: Figures) -> Iterator[str]:
    yield "   ".join(
        f"{name} {_count(number)}"
        for name, number in (
            ("sent", figures.sent),
            ("in the lake", figures.in_the_lake),
            ("malformed", figures.malformed),
            ("indexed", figures.indexed),
        )
    )
    yield _NOT_PROVEN if figures.counts == NO_VERDICT else figures.counts.text
    yield f"dead letters {_count(figures.dead_letters)}   alerts firing {_count(figures.alerts_firing)}"
    batch = figures.batch
    if batch is None:
        yield f"latest batch {_UNKNOWN}"
    else:
        seconds = _UNKNOWN if batch.seconds is None else f"{batch.seconds:.2f}"
        yield f"latest batch {duration_text(batch.age)} ago: {_count(batch.records)} records in {seconds} s"


def _disks(figures: Figures) -> Iterator[str]:
    yield _row("disk", "used", "free", "")
    for disk in figures.disks:
        yield _row(f"  {disk.name}", _bytes(disk.used), _bytes(disk.free), "")


def _errors(figures: Figures) -> Iterator[str]:
    if figures.errors:
        yield "last errors in the logs"
        yield from (f"  {error.service}: {error.line}" for error in figures.errors)


def _row(name: str, *cells: str) -> str:
    return (f"{name:<{_NAME_WIDTH}}" + "".join(f"{cell:>{_NUMBER_WIDTH}}" for cell in cells)).rstrip()


def _count(number: int | None) -> str:
    return _UNKNOWN if number is None else f"{number:,}"


def _bytes(number: int | None) -> str:
    """Format a number of bytes.

    >>> _bytes(12_345_678), _bytes(3_000_000_000), _bytes(None)
    ('12.3 MB', '3.0 GB', 'unknown')
    """
    if number is None:
        return _UNKNOWN
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"


def duration_text(seconds: float) -> str:
    """Format a duration.

    >>> duration_text(1.25), duration_text(600), duration_text(20_000)
    ('1.2 s', '10 min', '5.6 h')
    """
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6_000 else f"{seconds / 3600:,.1f} h"
