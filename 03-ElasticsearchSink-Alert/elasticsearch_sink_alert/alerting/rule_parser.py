"""Parses one rule of the data mapper, and describes everything in it that is not allowed."""

from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any, Final

from contract.tables import AggregateTable, Column, ColumnType
from elasticsearch_sink_alert.alerting.plain_yaml import Entries, Items
from elasticsearch_sink_alert.alerting.rules import COMPARABLE, OPERATORS, SEVERITIES, Rule, parse_time

_REQUIRED: Final = ("field", "operator", "threshold")
_OPTIONAL: Final = ("name", "severity", "resolve", "for", "silence", "within")
_ORDERING: Final = ("<", "<=", ">", ">=")
_MAX_FOR: Final = 1e9
"""Seconds."""
_MAX_WITHIN: Final = 86_400
"""Seconds."""
_MAX_ID_BYTES: Final = 512
"""Of a name, an id or a pattern: Elasticsearch's limit for an id."""
_MAX_PATTERN_BYTES: Final = 128
"""Of a pattern with wildcards: well below what Elasticsearch can turn into a query."""
_MAX_WILDCARDS: Final = 8
_MAX_SHOWN: Final = 200
"""Characters of a wrong value in a message."""
_LONGS: Final = (-(1 << 63), 1 << 63)


class InvalidRuleError(Exception):
    """A rule is not valid; `problems` has a line of text for each reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def parse_rule(table: AggregateTable, written: Any) -> Rule:
    """Return the rule that a value of the data mapper describes; raises `InvalidRuleError`."""
    fields = _fields_by_name(written)
    if fields is None:
        expected = f"[{', '.join(_REQUIRED)}], or a mapping of these and optionally {listed(_OPTIONAL)}"
        raise InvalidRuleError([f"table {table.name}: rule {_shown_rule(written)}: expected {expected}"])
    column = table.column(fields["field"]) if isinstance(fields["field"], str) else None
    problems = _problems(table, column, fields)
    if problems or column is None:
        raise InvalidRuleError([f"table {table.name}: rule {_shown_rule(written)}: {text}" for text in problems])
    return Rule(
        table=table.name,
        field=column.name,
        operator=fields["operator"],
        threshold=fields["threshold"],
        column_type=column.type,
        severity=fields.get("severity", "warning"),
        declared_name=fields.get("name"),
        resolve=fields.get("resolve"),
        for_seconds=fields.get("for", 0),
        silence=tuple(fields.get("silence", ())),
        within=fields.get("within"),
    )


def listed(names: Any) -> str:
    """Return names for a message, separated by commas."""
    return ", ".join(map(str, names))


def shown(value: Any) -> str:
    """Return a value for a message, truncated if it is long."""
    return _truncate(repr(value))


def _fields_by_name(written: Any) -> Mapping[str, Any] | None:
    """Return the fields of a rule by name; None if it has another shape."""
    if isinstance(written, Items) and len(written) == len(_REQUIRED):
        return dict(zip(_REQUIRED, written, strict=True))
    if isinstance(written, Entries) and set(_REQUIRED) <= set(written) <= {*_REQUIRED, *_OPTIONAL}:
        return written
    return None


def _problems(table: AggregateTable, column: Column | None, fields: Mapping[str, Any]) -> list[str]:
    found = [*_condition_problems(table, column, fields), *_severity_problems(fields), *_name_problems(fields)]
    # `resolve` and `within` are compared with the condition, which has to be valid for that.
    if column is not None and not found:
        found += _resolve_problems(column, fields)
    found += _for_problems(fields)
    found += _silence_problems(fields)
    if column is not None and not found:
        found += _within_problems(column, fields)
    return found


def _condition_problems(table: AggregateTable, column: Column | None, fields: Mapping[str, Any]) -> Iterator[str]:
    if column is None:
        yield f"unknown field {shown(fields['field'])}: expected {listed(column.name for column in table.columns)}"
    else:
        yield from _threshold_problems("threshold", column, fields["threshold"])
    if not isinstance(fields["operator"], str) or fields["operator"] not in OPERATORS:
        yield f"unknown operator {shown(fields['operator'])}: expected {listed(OPERATORS)}"


def _severity_problems(fields: Mapping[str, Any]) -> Iterator[str]:
    severity = fields.get("severity", "warning")
    if severity not in SEVERITIES:
        yield f"unknown severity {shown(severity)}: expected {listed(SEVERITIES)}"


def _name_problems(fields: Mapping[str, Any]) -> Iterator[str]:
    name = fields.get("name")
    if name is None:
        return
    if not (isinstance(name, str) and name.strip()):
        yield f"name is {shown(name)}: expected text"
    elif _is_longer(name, _MAX_ID_BYTES):
        yield f"name {shown(name)} is longer than {_MAX_ID_BYTES} bytes"
    elif not name.isprintable():
        yield f"name {shown(name)} holds characters that cannot be shown, such as a line break"


def _for_problems(fields: Mapping[str, Any]) -> Iterator[str]:
    seconds = fields.get("for", 0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < _MAX_FOR:
        yield f"for is {shown(seconds)}: expected seconds, 0 or more, for which the rule must stay true"


def _silence_problems(fields: Mapping[str, Any]) -> Iterator[str]:
    silence = fields.get("silence", [])
    if not (isinstance(silence, list) and all(isinstance(pattern, str) and pattern for pattern in silence)):
        yield f'silence is {shown(silence)}: expected a list of ids or patterns, such as ["user_1", "test_*"]'
        return
    for pattern in silence:
        wildcards = sum(map(pattern.count, "*?"))
        if _is_longer(pattern, _MAX_ID_BYTES):
            yield f"silence {shown(pattern)} is longer than the {_MAX_ID_BYTES} bytes of an id"
        elif wildcards and (_is_longer(pattern, _MAX_PATTERN_BYTES) or wildcards > _MAX_WILDCARDS):
            limits = f"{_MAX_WILDCARDS} of * and ? in {_MAX_PATTERN_BYTES} bytes"
            yield f"silence {shown(pattern)} is too large a pattern: expected at most {limits}"


def _resolve_problems(column: Column, fields: Mapping[str, Any]) -> Iterator[str]:
    operator, threshold, resolve = fields["operator"], fields["threshold"], fields.get("resolve")
    if resolve is None:
        return
    if problems := list(_threshold_problems("resolve", column, resolve)):
        yield from problems
    elif operator not in _ORDERING:
        yield f"resolve goes with >, >=, < and <=, not with {operator}"
    # The looser condition has to be true wherever the alert fires: the threshold meets it, or nothing lies between.
    elif not OPERATORS[operator[0] + "="](_comparable(column, threshold), _comparable(column, resolve)):
        sides = f"resolve {shown(resolve)} is on the wrong side of {shown(threshold)}"
        yield f"{sides}: an alert would be resolved as it fires"


def _within_problems(column: Column, fields: Mapping[str, Any]) -> Iterator[str]:
    within, limits = fields.get("within"), (fields["threshold"], fields.get("resolve"))
    if within is None:
        return
    if isinstance(within, bool) or not isinstance(within, int | float) or not 1 <= within <= _MAX_WITHIN:
        yield f"within is {shown(within)}: expected seconds, from 1 to {_MAX_WITHIN}"
    if not column.type.is_number:
        yield f"within goes with numbers, and {column.name} is a {column.type.value}"
    elif fields["operator"] not in _ORDERING:
        yield f"within goes with >, >=, < and <=, not with {fields['operator']}"
    # Otherwise the alert of a row that no longer changes would never be resolved.
    elif any(OPERATORS[fields["operator"]](0, limit) for limit in limits if limit is not None):
        yield "with within, a change of 0 must not meet the condition: expected a rise (> 10) or a fall (< -10)"
    if fields.get("for"):
        yield "for does not go with within"


def _threshold_problems(name: str, column: Column, threshold: Any) -> Iterator[str]:
    """Yield the problems of `threshold` or `resolve`, at most one."""
    start = f"{name} {shown(threshold)}"
    is_comparable = isinstance(threshold, COMPARABLE[column.type]) and not isinstance(threshold, bool)
    if not is_comparable:
        expected = "a number" if column.type.is_number else "text"
        yield f"{start} is of the wrong type: {column.name} is a {column.type.value}, expected {expected}"
    elif column.type is ColumnType.LONG and not _LONGS[0] <= threshold < _LONGS[1]:
        yield f"{start} is beyond the 64 bits of {column.name}"
    elif column.type is ColumnType.KEYWORD and _is_longer(threshold, _MAX_ID_BYTES):
        yield f"{start} is longer than the {_MAX_ID_BYTES} bytes of {column.name}"
    elif column.type is ColumnType.DATE and not _is_timestamp(threshold):
        yield f'{start} is not a timestamp: expected one like "2026-01-31T12:00:00Z"'


def _is_timestamp(text: str) -> bool:
    try:
        parse_time(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return False
    return True


def _comparable(column: Column, threshold: Any) -> Any:
    return parse_time(str(threshold)) if column.type is ColumnType.DATE else threshold


def _is_longer(text: str, limit: int) -> bool:
    return len(text.encode()) > limit


def _shown_rule(written: Any) -> str:
    return _truncate(f"[{listed(written)}]") if isinstance(written, Items) else shown(written)


def _truncate(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
