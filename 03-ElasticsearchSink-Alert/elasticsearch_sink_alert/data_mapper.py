"""Reads the data mapper: the file in which the user says what identifies a row and what raises alerts.

Everything that is wrong is reported at once, each with its line and with what is allowed.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError

from contract.tables import AGGREGATE_TABLES, AggregateTable, Column, ColumnType, table_named
from elasticsearch_sink_alert.rules import COMPARABLE, OPERATORS, SEVERITIES, Rule, parse_time

_SHAPE: Final = ("field", "operator", "threshold")
_OPTIONAL: Final = ("name", "severity", "resolve", "for", "silence", "within")

_ORDERED: Final = ("<", "<=", ">", ">=")
_LONGEST_WAIT: Final = 1e9
_LONGEST_WINDOW: Final = 86_400
_SETTLED: Final = 1_000_000_000
"""Nanoseconds."""


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


class Watched:
    """The data mapper as its file has it; a file that becomes wrong leaves the last right one in force."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises `DataMapperError`."""
        self._path = path
        self._seen = self._stamp()
        self.now = load(path)

    def reload(self) -> bool:
        """Read the file again if it has changed, and tell whether it has; raises `DataMapperError`, once per change.

        A change counts when it is a second old, so that no half of a file is taken for the whole.
        """
        stamp = self._stamp()
        if stamp == self._seen or time.time_ns() - stamp[0] < _SETTLED:
            return False
        self._seen = stamp
        self.now = load(self._path)
        return True

    def _stamp(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except OSError:
            return 0, 0, 0
        return status.st_mtime_ns, status.st_size, status.st_ino


@dataclass(frozen=True)
class _Problem:
    line: int
    text: str


def load(path: Path) -> DataMapper:
    """Read and check the file; raises `DataMapperError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataMapperError(f"{path} cannot be read: {error}") from None
    try:
        document = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise DataMapperError(f"{path}:{line}: not YAML: {error.problem} (is an operator without quotes?)") from None
    problems: list[_Problem] = []
    rules = _tables(document, problems)
    if problems:
        lines = [f"{path}:{problem.line}: {problem.text}" for problem in sorted(problems, key=lambda p: p.line)]
        raise DataMapperError("\n".join(lines))
    return DataMapper(rules)


def _tables(document: Any, problems: list[_Problem]) -> dict[str, tuple[Rule, ...]]:
    known = [table.name for table in AGGREGATE_TABLES]
    if not isinstance(document, CommentedMap):
        problems.append(_Problem(1, f"expected tables, each with id and alerts: {_listed(known)}"))
        return {}
    rules: dict[str, tuple[Rule, ...]] = {}
    lines: dict[str, int] = {}
    for name, entry in document.items():
        line = document.lc.key(name)[0] + 1
        if name not in known:
            problems.append(_Problem(line, f"unknown table {name!r}: expected {_listed(known)}"))
        elif not isinstance(entry, CommentedMap):
            problems.append(_Problem(line, f"table {name}: expected id and alerts below it"))
        else:
            rules[name] = tuple(_table(table_named(name), entry, line, lines, problems))
    return rules


def _table(
    table: AggregateTable, entry: CommentedMap, line: int, lines: dict[str, int], problems: list[_Problem]
) -> Iterator[Rule]:
    for name in entry:
        if name not in ("id", "alerts"):
            problems.append(
                _Problem(_line(entry, name), f"table {table.name}: unknown entry {name!r}: expected id, alerts")
            )
    id_field = table.key or table.name
    if entry.get("id") != id_field:
        at = _line(entry, "id") if "id" in entry else line
        problems.append(_Problem(at, f"table {table.name}: id is {entry.get('id')!r}: expected {id_field!r}"))
    alerts = entry.get("alerts")
    if alerts is None:
        return
    if not isinstance(alerts, CommentedSeq):
        problems.append(_Problem(_line(entry, "alerts"), f"table {table.name}: alerts: expected a list of rules"))
        return
    for number, written in enumerate(alerts):
        at = alerts.lc.item(number)[0] + 1
        rule = _rule(table, written, at, problems)
        if rule is None:
            continue
        if rule.name in lines:
            text = f"rule {rule.name!r} is on line {lines[rule.name]} already: remove one, or give it another name"
            problems.append(_Problem(at, text))
        lines.setdefault(rule.name, at)
        yield rule


def _rule(table: AggregateTable, written: Any, line: int, problems: list[_Problem]) -> Rule | None:
    where = f"table {table.name}: rule"
    found: list[str] = []
    if isinstance(written, CommentedSeq) and len(written) == len(_SHAPE):
        parts: dict[Any, Any] = dict(zip(_SHAPE, written, strict=True))
    elif isinstance(written, CommentedMap) and set(_SHAPE) <= set(written) <= {*_SHAPE, *_OPTIONAL}:
        parts = dict(written)
    else:
        shape = f"[{', '.join(_SHAPE)}], or these by name with {_listed(_OPTIONAL)} if you like"
        problems.append(_Problem(line, f"{where} {_shown(written)}: expected {shape}"))
        return None
    column = table.column(parts["field"]) if isinstance(parts["field"], str) else None
    if column is None:
        fields = _listed([column.name for column in table.columns])
        found.append(f"unknown field {parts['field']!r}: expected {fields}")
    elif problem := _threshold_problem(column, parts["threshold"]):
        found.append(problem)
    if parts["operator"] not in OPERATORS:
        found.append(f"unknown operator {parts['operator']!r}: expected {_listed(OPERATORS)}")
    severity = parts.get("severity", "warning")
    if severity not in SEVERITIES:
        found.append(f"unknown severity {severity!r}: expected {_listed(SEVERITIES)}")
    name = parts.get("name")
    if name is not None and not (isinstance(name, str) and name.strip()):
        found.append(f"name is {name!r}: expected some text")
    resolve = parts.get("resolve")
    if resolve is not None and not found and column is not None:
        found += _resolve_problems(column, parts["operator"], parts["threshold"], resolve)
    wait = parts.get("for", 0)
    if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait < _LONGEST_WAIT:
        found.append(f"for is {wait!r}: expected seconds, 0 or more, for which the rule has to stay true")
    silence = parts.get("silence", [])
    if not (isinstance(silence, list) and all(isinstance(pattern, str) and pattern for pattern in silence)):
        found.append(f'silence is {silence!r}: expected a list of ids or patterns, such as ["user_1", "test_*"]')
    within = parts.get("within")
    if within is not None and not found and column is not None:
        found += _within_problems(column, parts, within)
    problems.extend(_Problem(line, f"{where} {_shown(written)}: {text}") for text in found)
    if found or column is None:
        return None
    condition = (table.name, column.name, parts["operator"], parts["threshold"], column.type)
    return Rule(*condition, severity, name, resolve, wait, tuple(silence), within)


def _resolve_problems(column: Column, operator: str, threshold: Any, resolve: Any) -> Iterator[str]:
    if problem := _threshold_problem(column, resolve):
        yield problem.replace("threshold", "resolve", 1)
    elif operator not in _ORDERED:
        yield f"resolve goes with >, >=, < and <=, not with {operator}"
    # Whatever fires has to hold: with the looser condition, the threshold itself does, or nothing lies between them.
    elif not OPERATORS[operator[0] + "="](_comparable(column, threshold), _comparable(column, resolve)):
        yield f"resolve {resolve!r} is on the wrong side of {threshold!r}: an alert would be resolved as it fires"


def _within_problems(column: Column, parts: dict[Any, Any], within: Any) -> Iterator[str]:
    if isinstance(within, bool) or not isinstance(within, int | float) or not 1 <= within <= _LONGEST_WINDOW:
        yield f"within is {within!r}: expected seconds, from 1 to {_LONGEST_WINDOW}"
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
    if isinstance(threshold, bool) or not isinstance(threshold, COMPARABLE[column.type]):
        return (
            f"threshold {threshold!r} is of the wrong type: {column.name} is a {column.type.value}, expected {expected}"
        )
    if column.type is ColumnType.DATE:
        try:
            parse_time(str(threshold))
        except ValueError:
            return f'threshold {threshold!r} is no point in time: expected one like "2026-01-31T12:00:00Z", in quotes'
    return None


def _line(entry: CommentedMap, name: str) -> int:
    return int(entry.lc.key(name)[0]) + 1


def _listed(names: Any) -> str:
    return ", ".join(map(str, names))


def _shown(written: Any) -> str:
    if isinstance(written, CommentedSeq):
        return f"[{_listed(written)}]"
    return str(dict(written)) if isinstance(written, CommentedMap) else repr(written)
