"""Compares the rows of each store with those that were recomputed from the lake, while the pipeline goes on."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from contract.event import Event
from verify.database import Database, name
from verify.lake import LAKE, LATER, Cut, Warehouse
from verify.recomputation import TableRows
from verify.report import MAX_KEPT, Check, Difference
from verify.stores import MAX_AGAIN, Store

_PAUSE: Final = 1.0
"""Seconds between two looks at rows that differ."""
_CREDIBLE: Final = timedelta(days=1)
"""A time that is more than this ahead of the clock does not count as the time that events have reached."""
_DIFFERING: Final = "differing_ids"


@dataclass
class _Comparison:
    """One store of one table, until its rows are right."""

    rows: TableRows
    store: Store
    check: Check
    number: int = 0
    """Rows that were not right at the last look."""
    differing: list[str] | None = None
    """The ids of some of them, enough to know whether they are many; None before the first look."""


class RowComparison:
    """Compares stores with the lake until all rows were right at the cut or later, or do not become right any more."""

    def __init__(self, database: Database, warehouse: Warehouse, event: Event, cut: Cut, wait: float) -> None:
        """`wait`: seconds after which rows that still differ count as wrong, unless their number goes down."""
        self._database = database
        self._warehouse = warehouse
        self._event = event
        self._version = cut.version
        self._wait = wait

    def run(self, pairs: Sequence[tuple[TableRows, Store]]) -> Iterator[Check]:
        """Compare each store with the recomputed rows of its table, and yield a check for each."""
        pending = [
            _Comparison(rows, store, Check(f"{store.title} = recomputation of the lake", compared=rows.number))
            for rows, store in pairs
        ]
        deadline, least, is_waiting = time.monotonic() + self._wait, None, False
        while pending:
            for comparison in pending:
                _timed([comparison], partial(self._load, comparison))
            # Afterwards: a row may be of the latest version.
            self._follow([comparison.rows for comparison in pending])
            clock = self._clock()
            for comparison in pending:
                _timed([comparison], partial(self._compare, comparison, clock))
            for comparison in [each for each in pending if not each.number]:
                pending.remove(comparison)
                yield comparison.check
            number = sum(each.number for each in pending)
            if least is None or number < least:
                deadline, least = time.monotonic() + self._wait, number
            if time.monotonic() > deadline:
                break
            if pending and not is_waiting:
                print(f"waiting for {number:,} rows, up to {self._wait:.0f} s", file=sys.stderr)
                is_waiting = True
            if pending:
                _timed(pending, partial(time.sleep, _PAUSE))
        for comparison in pending:
            _timed([comparison], partial(self._report, comparison, self._clock()))
            yield comparison.check

    def _load(self, comparison: _Comparison) -> None:
        if comparison.differing is None:
            comparison.store.load()
        else:
            comparison.store.load_again(comparison.differing)

    def _follow(self, tables: Sequence[TableRows]) -> None:
        """Add the versions that the lake has now."""
        version = self._warehouse.version(self._event.name)
        self._warehouse.load_later(self._database, self._event, self._version, version)
        self._version = version
        for rows in dict.fromkeys(tables):
            rows.follow()

    def _clock(self) -> datetime | None:
        """Return the time that events have reached, which decides which rows are kept."""
        now = datetime.now(UTC)
        limit = int((now + _CREDIBLE).timestamp() * 1_000_000)
        time_of = name(self._event.time)
        times = f"(SELECT {time_of} FROM {LAKE} UNION ALL SELECT {time_of} FROM {LATER})"
        latest = self._database.run(f"SELECT max({time_of}) FROM {times} WHERE {time_of} <= {limit}")[0][0]
        return None if latest is None else min(now, datetime.fromtimestamp(latest / 1_000_000, UTC))

    def _compare(self, comparison: _Comparison, clock: datetime | None) -> None:
        rows, store = comparison.rows, comparison.store
        is_compared = rows.is_kept(clock) + (f" AND id NOT IN ({store.excused})" if store.excused else "")
        equal = " AND ".join(column.equals(f"f.c{n}", f"e.c{n}") for n, column in enumerate(rows.columns))
        self._database.run(
            f"CREATE OR REPLACE TEMP TABLE found AS SELECT * FROM {store.rows} WHERE {is_compared};"
            f"CREATE OR REPLACE TEMP TABLE {_DIFFERING} AS"
            # Rows that are not there, that are there twice, and that are those of no version.
            f" SELECT id FROM {rows.at_cut} WHERE {is_compared}"
            " AND id NOT IN (SELECT id FROM found WHERE id IS NOT NULL)"
            " UNION SELECT id FROM found GROUP BY id HAVING count(*) > 1"
            " UNION (SELECT id FROM found EXCEPT SELECT f.id FROM found f"
            f" JOIN {rows.since_cut} e ON f.id = e.id WHERE f.problem IS NULL AND {equal})"
        )
        comparison.number = self._database.number(f"SELECT count(*) FROM {_DIFFERING}")
        ids = self._database.run(f"SELECT id FROM {_DIFFERING} LIMIT {MAX_AGAIN + 1}")
        comparison.differing = [row[0] for row in ids]

    def _report(self, comparison: _Comparison, clock: datetime | None) -> None:
        """Describe the rows that differ, against their latest version."""
        self._compare(comparison, clock)
        rows = comparison.rows
        columns = ", ".join(f"c{n}" for n in range(len(rows.columns)))
        position = "row_number() OVER (PARTITION BY id ORDER BY version DESC)"
        latest = f"SELECT id, {columns} FROM {rows.since_cut} QUALIFY {position} = 1"
        equal = ", ".join(column.equals(f"f.c{n}", f"e.c{n}") for n, column in enumerate(rows.columns))
        values = ", ".join(f"f.c{n}, e.c{n}" for n in range(len(rows.columns)))
        differing = self._database.run(
            f"SELECT d.id, f.text, f.problem, e.id IS NOT NULL, [{equal}], {values} FROM {_DIFFERING} d"
            f" LEFT JOIN found f ON f.id = d.id LEFT JOIN ({latest}) e ON e.id = d.id"
            f" ORDER BY d.id LIMIT {MAX_KEPT}"
        )
        for row_id, text, problem, is_expected, are_equal, *cells in differing:
            # Of a row that is there, the columns that differ; if none does, it is there twice.
            wrong = [n for n, is_equal in enumerate(are_equal) if not is_equal]
            shown = wrong if is_expected and text is not None and problem is None and wrong else range(len(are_equal))
            found = (
                None if text is None else rows.as_text(shown, cells[::2]) if problem is None else f"{text} ({problem})"
            )
            expected = rows.as_text(shown, cells[1::2]) if is_expected else None
            comparison.check.add([Difference(comparison.store.title, row_id, found, expected)])
        comparison.check.number = max(comparison.check.number, comparison.number)


def _timed(comparisons: Sequence[_Comparison], step: Callable[[], Any]) -> None:
    """Add the time of a step to that of each comparison."""
    began = time.monotonic()
    step()
    for comparison in comparisons:
        comparison.check.seconds += time.monotonic() - began
