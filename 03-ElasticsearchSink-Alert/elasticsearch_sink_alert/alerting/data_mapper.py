"""Reads the data mapper: the file in which the user says what identifies a row and what raises alerts.

Everything that is wrong is reported at once, each with its line and with what is allowed.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any, Final

from contract.tables import AGGREGATE_TABLES, AggregateTable, Column, ColumnType, table_named
from elasticsearch_sink_alert.alerting import plain_yaml
from elasticsearch_sink_alert.alerting.plain_yaml import Entries, Items, NotPlainError, Problem
from elasticsearch_sink_alert.alerting.rules import COMPARABLE, OPERATORS, SEVERITIES, Rule, parse_time

_SHAPE: Final = ("field", "operator", "threshold")
_OPTIONAL: Final = ("name", "severity", "resolve", "for", "silence", "within")

_ORDERED: Final = ("<", "<=", ">", ">=")
_LONGEST_WAIT: Final = 1e9
_LONGEST_WINDOW: Final = 86_400
_SETTLED: Final = 1_000_000_000
"""Nanoseconds."""
_LONGEST_TEXT: Final = 512
"""Bytes of a name, an id or a pattern: Elasticsearch's bound of an id."""
_LONGEST_PATTERN: Final = 128
_MOST_WILDCARDS: Final = 8
"""What Elasticsearch can turn into a query, with room to spare; a pattern without wildcards is no matter."""
_MOST_SHOWN: Final = 200
"""Characters of a wrong value."""
_MOST_PROBLEMS: Final = 50
_LONGS: Final = (-(1 << 63), 1 << 63)


class DataMapperError(Exception):
    """The data mapper cannot be used; the message lists every problem."""


@dataclass(frozen=True)
class DataMapper:
    """The rules of each table."""

    rules: dict[str, tuple[Rule, ...]]

    @property
    def all_rules(self) -> tuple[Rule, ...]:
        """The rules of all tables."""
        return tuple(rule for rules in self.rules.values() for rule in rules)

    @property
    def by_name(self) -> dict[str, Rule]:
        """The same by their names."""
        return {rule.name: rule for rule in self.all_rules}


class ReloadingRules:
    """The data mapper as its file has it; a file that becomes wrong leaves the last right one in force."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises `DataMapperError`."""
        self._path = path
        self._seen = self._looked = self._stamp()
        self._looked_at = 0
        self.current = load(path)

    def reload(self) -> bool:
        """Read the file again if it has changed, and tell whether it has; raises `DataMapperError`, once per change.

        A change counts when it is a second old, so that no half of a file is taken for the whole.
        """
        stamp, now = self._stamp(), time.time_ns()
        if stamp == self._seen:
            return False
        if stamp != self._looked:
            self._looked, self._looked_at = stamp, now
        # By the file's own time; if that is in the future, by when it was first seen like this.
        if now - min(stamp[0], self._looked_at) < _SETTLED:
            return False
        self._seen = stamp
        self.current = load(self._path)
        return True

    def _stamp(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except OSError:
            return 0, 0, 0
        return status.st_mtime_ns, status.st_size, status.st_ino


def load(path: Path) -> DataMapper:
    """Read and check the file; raises `DataMapperError`, whatever the file is."""
    try:
        document = plain_yaml.parse(plain_yaml.read(path))
    except (OSError, ValueError) as error:
        raise DataMapperError(f"{path} cannot be read: {_printable(str(error))}") from None
    except NotPlainError as error:
        raise _error(path, error.problems) from None
    problems: list[Problem] = []
    rules = _tables(document, problems)
    if problems:
        raise _error(path, problems)
    return DataMapper(rules)


def _error(path: Path, problems: Iterable[Problem]) -> DataMapperError:
    # An alias repeats what is wrong with what it stands for.
    found = list(dict.fromkeys(sorted(problems, key=lambda problem: problem.line)))
    lines = [f"{path}:{problem.line}: {_printable(problem.text)}" for problem in found[:_MOST_PROBLEMS]]
    if more := len(found) - len(lines):
        lines.append(f"{path}: and {more} more problems")
    return DataMapperError("\n".join(lines))


def _tables(document: Any, problems: list[Problem]) -> dict[str, tuple[Rule, ...]]:
    known = [table.name for table in AGGREGATE_TABLES]
    if not isinstance(document, Entries):
        problems.append(Problem(1, f"expected tables, each with id and alerts: {_listed(known)}"))
        return {}
    rules: dict[str, tuple[Rule, ...]] = {}
    lines: dict[str, int] = {}
    for name, entry in document.items():
        line = document.lines[name]
        if name not in known:
            problems.append(Problem(line, f"unknown table {_shown(name)}: expected {_listed(known)}"))
        elif not isinstance(entry, Entries):
            problems.append(Problem(line, f"table {name}: expected id and alerts below it"))
        else:
            rules[name] = tuple(_table(table_named(name), entry, line, lines, problems))
    return rules


def _table(
    table: AggregateTable, entry: Entries, line: int, lines: dict[str, int], problems: list[Problem]
) -> Iterator[Rule]:
    for name in entry:
        if name not in ("id", "alerts"):
            problems.append(
                Problem(entry.lines[name], f"table {table.name}: unknown entry {_shown(name)}: expected id, alerts")
            )
    id_field = table.key or table.name
    if entry.get("id") != id_field:
        at = entry.lines.get("id", line)
        problems.append(Problem(at, f"table {table.name}: id is {_shown(entry.get('id'))}: expected {id_field!r}"))
    alerts = entry.get("alerts")
    if alerts is None:
        return
    if not isinstance(alerts, Items):
        problems.append(Problem(entry.lines["alerts"], f"table {table.name}: alerts: expected a list of rules"))
        return
    for written, at in zip(alerts, alerts.lines, strict=True):
        rule = _rule(table, written, at, problems)
        if rule is None:
            continue
        if rule.name in lines:
            text = (
                f"rule {_shown(rule.name)} is on line {lines[rule.name]} already: remove one, or give it another name"
            )
            problems.append(Problem(at, text))
        lines.setdefault(rule.name, at)
        yield rule


def _rule(table: AggregateTable, written: Any, line: int, problems: list[Problem]) -> Rule | None:
    where = f"table {table.name}: rule"
    found: list[str] = []
    if isinstance(written, Items) and len(written) == len(_SHAPE):
        parts: dict[str, Any] = dict(zip(_SHAPE, written, strict=True))
    elif isinstance(written, Entries) and set(_SHAPE) <= set(written) <= {*_SHAPE, *_OPTIONAL}:
        parts = dict(written)
    else:
        shape = f"[{', '.join(_SHAPE)}], or these by name with {_listed(_OPTIONAL)} if you like"
        problems.append(Problem(line, f"{where} {_shown_rule(written)}: expected {shape}"))
        return None
    column = table.column(parts["field"]) if isinstance(parts["field"], str) else None
    if column is None:
        fields = _listed([column.name for column in table.columns])
        found.append(f"unknown field {_shown(parts['field'])}: expected {fields}")
    elif problem := _threshold_problem(column, parts["threshold"]):
        found.append(problem)
    if not isinstance(parts["operator"], str) or parts["operator"] not in OPERATORS:
        found.append(f"unknown operator {_shown(parts['operator'])}: expected {_listed(OPERATORS)}")
    severity = parts.get("severity", "warning")
    if severity not in SEVERITIES:
        found.append(f"unknown severity {_shown(severity)}: expected {_listed(SEVERITIES)}")
    name = parts.get("name")
    if name is not None:
        found += _name_problems(name)
    resolve = parts.get("resolve")
    if resolve is not None and not found and column is not None:
        found += _resolve_problems(column, parts["operator"], parts["threshold"], resolve)
    wait = parts.get("for", 0)
    if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait < _LONGEST_WAIT:
        found.append(f"for is {_shown(wait)}: expected seconds, 0 or more, for which the rule has to stay true")
    silence = parts.get("silence", [])
    found += _silence_problems(silence)
    within = parts.get("within")
    if within is not None and not found and column is not None:
        found += _within_problems(column, parts, within)
    problems.extend(Problem(line, f"{where} {_shown_rule(written)}: {text}") for text in found)
    if found or column is None:
        return None
    condition = (table.name, column.name, parts["operator"], parts["threshold"], column.type)
    return Rule(*condition, severity, name, resolve, wait, tuple(silence), within)


def _name_problems(name: Any) -> Iterator[str]:
    if not (isinstance(name, str) and name.strip()):
        yield f"name is {_shown(name)}: expected some text"
    elif _is_too_long(name):
        yield f"name {_shown(name)} is longer than {_LONGEST_TEXT} bytes"
    elif not name.isprintable():
        yield f"name {_shown(name)} holds characters that cannot be shown, such as an end of line"


def _silence_problems(silence: Any) -> Iterator[str]:
    if not (isinstance(silence, list) and all(isinstance(pattern, str) and pattern for pattern in silence)):
        yield f'silence is {_shown(silence)}: expected a list of ids or patterns, such as ["user_1", "test_*"]'
        return
    for pattern in silence:
        wildcards = sum(map(pattern.count, "*?"))
        if _is_too_long(pattern):
            yield f"silence {_shown(pattern)} is longer than {_LONGEST_TEXT} bytes, as no id is"
        elif wildcards and (_is_too_long(pattern, _LONGEST_PATTERN) or wildcards > _MOST_WILDCARDS):
            most = f"{_MOST_WILDCARDS} of * and ? in {_LONGEST_PATTERN} bytes"
            yield f"silence {_shown(pattern)} is too large a pattern: expected at most {most}"


def _is_too_long(text: str, most: int = _LONGEST_TEXT) -> bool:
    return len(text.encode()) > most


def _resolve_problems(column: Column, operator: str, threshold: Any, resolve: Any) -> Iterator[str]:
    if problem := _threshold_problem(column, resolve):
        yield problem.replace("threshold", "resolve", 1)
    elif operator not in _ORDERED:
        yield f"resolve goes with >, >=, < and <=, not with {operator}"
    # Whatever fires has to hold: with the looser condition, the threshold itself does, or nothing lies between them.
    elif not OPERATORS[operator[0] + "="](_comparable(column, threshold), _comparable(column, resolve)):
        sides = f"resolve {_shown(resolve)} is on the wrong side of {_shown(threshold)}"
        yield f"{sides}: an alert would be resolved as it fires"


def _within_problems(column: Column, parts: dict[Any, Any], within: Any) -> Iterator[str]:
    if isinstance(within, bool) or not isinstance(within, int | float) or not 1 <= within <= _LONGEST_WINDOW:
        yield f"within is {_shown(within)}: expected seconds, from 1 to {_LONGEST_WINDOW}"
    if not column.type.is_number:
        yield f"within goes with numbers, and {column.name} is a {column.type.value}"
    elif parts["operator"] not in _ORDERED:
        yield f"within goes with >, >=, < and <=, not with {parts['operator']}"
    # A row at rest does not change: no rule may be true of that, or its alert would never end.
    elif any(OPERATORS[parts["operator"]](0, limit) for limit in (parts["threshold"], parts.get("resolve", 1e999))):
        yield "with within, no change at all may not be enough: expected a rise (> 10) or a fall (< -10)"
    if parts.get("for"):
        yield "for does not go with within"


def _comparable(column: Column, threshold: Any) -> Any:
    return parse_time(str(threshold)) if column.type is ColumnType.DATE else threshold


def _threshold_problem(column: Column, threshold: Any) -> str | None:
    expected = "a number" if column.type.is_number else "text"
    shown = _shown(threshold)
    fits = isinstance(threshold, COMPARABLE[column.type]) and not isinstance(threshold, bool)
    if not fits:
        return f"threshold {shown} is of the wrong type: {column.name} is a {column.type.value}, expected {expected}"
    if column.type is ColumnType.LONG and not _LONGS[0] <= threshold < _LONGS[1]:
        return f"threshold {shown} is beyond the 64 bits of {column.name}"
    if column.type is ColumnType.KEYWORD and _is_too_long(threshold):
        return f"threshold {shown} is longer than {_LONGEST_TEXT} bytes, as no {column.name} is"
    if column.type is ColumnType.DATE:
        try:
            parse_time(threshold).astimezone(UTC)
        except (ValueError, OverflowError):
            return f'threshold {shown} is no point in time: expected one like "2026-01-31T12:00:00Z"'
    return None


def _listed(names: Any) -> str:
    return ", ".join(map(str, names))


def _shown(value: Any) -> str:
    return _cut(repr(value))


def _shown_rule(written: Any) -> str:
    return _cut(f"[{_listed(written)}]") if isinstance(written, Items) else _shown(written)


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _printable(text: str) -> str:
    """The same in one line, whatever the file holds."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
