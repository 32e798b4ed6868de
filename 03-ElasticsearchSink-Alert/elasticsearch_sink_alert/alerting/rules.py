"""Alert rules: plain functions over a row."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Final, Literal, get_args

from contract.fields import ColumnType

Severity = Literal["info", "warning", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)

Threshold = int | float | str

OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}

COMPARABLE: Final[dict[ColumnType, tuple[type, ...]]] = {
    ColumnType.KEYWORD: (str,),
    ColumnType.LONG: (int, float),
    ColumnType.DOUBLE: (int, float),
    ColumnType.DECIMAL: (int, float),
    ColumnType.FLAG: (),
    ColumnType.DATE: (str,),
}
"""The Python types of a threshold, by the type of its column."""


@dataclass(frozen=True)
class Rule:
    """A condition on one field of a table's rows.

    >>> Rule("agg_interactions_item", "max_interactions", ">", 12, ColumnType.LONG).matches({"max_interactions": 13})
    True
    """

    table: str
    field: str
    operator: str
    threshold: Threshold
    column_type: ColumnType
    severity: Severity = "warning"
    declared_name: str | None = None
    resolve: Threshold | None = None
    """The threshold while the alert is firing; None: the same."""
    for_seconds: float = 0
    """Seconds for which the rule must stay true before an alert fires; `for` in the data mapper."""
    silence: tuple[str, ...] = ()
    """Ids, or patterns of ids with * and ?, for which the rule is never true."""
    within: float | None = None
    """Seconds: the rule is about the change of the field within them, not about its value."""

    @property
    def alert_text(self) -> str:
        """The condition as text."""
        condition = f"{self.field} {self.operator} {self.threshold}"
        return condition if self.within is None else f"{condition} within {self.within:g} s"

    @cached_property
    def name(self) -> str:
        """The unique name: the given one, or the table and the condition."""
        return self.declared_name or f"{self.table}: {self.alert_text}"

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether the row meets the condition; not if the field is missing, null or of another type."""
        return self._compares(row, self.threshold)

    def still_holds(self, row: Mapping[str, Any]) -> bool:
        """Whether a firing alert keeps firing.

        >>> rule = Rule("agg_interactions_item", "max_interactions", ">", 12, ColumnType.LONG, resolve=10)
        >>> [rule.still_holds({"max_interactions": value}) for value in (12, 11, 10)]
        [True, True, False]
        """
        return self._compares(row, self.threshold if self.resolve is None else self.resolve)

    def is_silent_about(self, row_id: str) -> bool:
        """Whether the rule is silenced for the row with this id."""
        return any(fnmatchcase(row_id, pattern.replace("[", "[[]")) for pattern in self.silence)

    def _compares(self, row: Mapping[str, Any], threshold: Threshold) -> bool:
        value = row.get(self.field)
        return isinstance(value, self._comparable) and self._compare(value, threshold)

    @cached_property
    def _comparable(self) -> tuple[type, ...]:
        return COMPARABLE[self.column_type]

    @cached_property
    def _compare(self) -> Callable[[Any, Any], bool]:
        compare = OPERATORS[self.operator]
        return _by_time(compare) if self.column_type is ColumnType.DATE else compare


def _by_time(compare: Callable[[Any, Any], bool]) -> Callable[[str, str], bool]:
    """Return the comparison for timestamps as text; false if one of them is not valid."""

    def compare_times(value: str, threshold: str) -> bool:
        try:
            return compare(parse_time(value), parse_time(threshold))
        except ValueError:
            return False

    return compare_times


def parse_time(text: str) -> datetime:
    """Parse an ISO 8601 timestamp with a UTC offset; raises ValueError for anything else."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no offset from UTC")
    return time
