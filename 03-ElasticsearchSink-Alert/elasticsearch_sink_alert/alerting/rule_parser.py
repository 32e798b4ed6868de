"""Parses one rule of the data mapper, and describes everything in it that is not allowed."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from typing import Any, Final

from contract.fields import ColumnType
from contract.tables import Column, Table
from elasticsearch_sink_alert.alerting.plain_yaml import Entries, Items
from elasticsearch_sink_alert.alerting.rules import COMPARABLE, OPERATORS, SEVERITIES, Rule, parse_time

_REQUIRED: Final = ("field", "operator", "threshold")
_OPTIONAL: Final = ("name", "severity", "resolve", "for", "silence", "within")
_KNOWN: Final = (*_REQUIRED, *_OPTIONAL)
_SHAPE: Final = f"[{', '.join(_REQUIRED)}], or a mapping of these and optionally {', '.join(_OPTIONAL)}"
_MIN_SIMILARITY: Final = 0.8
"""From 0 to 1: a name that is this similar to a known one is reported as a misspelling of it."""
_PLAIN: Final = re.compile(r"[^\W\d][\w .-]*")
"""Text that stands without quotes."""
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


def parse_rule(table: Table, written: Any) -> Rule:
    """Return the rule that a value of the data mapper describes; raises `InvalidRuleError`."""
    fields = _fields_by_name(written)
    problems = [f"expected {_SHAPE}"] if fields is None else list(_problems(table, fields))
    if fields is None or problems:
        start = f"table {table.name}: rule {_truncate(_in_yaml(written))}"
        raise InvalidRuleError([f"{start}: {text}" for text in problems])
    column = table.column(fields["field"])
    assert column is not None
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
    """Return the fields of a rule by name; None if it is neither a list of the required ones nor a mapping."""
    if isinstance(written, Items) and len(written) == len(_REQUIRED):
        return dict(zip(_REQUIRED, written, strict=True))
    return written if isinstance(written, Entries) else None


def _problems(table: Table, fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield every problem. A misspelt name counts as the one that it resembles, so that its value is checked too."""
    meant = {}
    for name in fields:
        if name in _KNOWN:
            continue
        similar = _similar(name, _KNOWN)
        yield f"unknown option {shown(name)}: " + (
            f"did you mean {similar}?" if similar else f"expected {listed(_KNOWN)}"
        )
        if similar:
            meant[similar] = fields[name]
    fields = {**meant, **fields}
    column, condition_problems = _column(table, fields), list(_condition_problems(table, fields))
    yield from condition_problems
    yield from _severity_problems(fields)
    yield from _name_problems(fields)
    # Whether they suit the condition can be told only of a valid one.
    is_valid = not condition_problems
    yield from _resolve_problems(column, fields, is_valid)
    yield from _for_problems(fields)
    yield from _silence_problems(fields)
    yield from _within_problems(column, fields, is_valid)


def _column(table: Table, fields: Mapping[str, Any]) -> Column | None:
    """Return the column that the rule is about, or the one that a misspelt name resembles."""
    name = fields.get("field")
    if not isinstance(name, str):
        return None
    return table.column(name) or table.column(_similar(name, [column.name for column in table.columns]))


def _condition_problems(table: Table, fields: Mapping[str, Any]) -> Iterator[str]:
    if missing := [name for name in _REQUIRED if name not in fields]:
        yield f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} missing: expected {_SHAPE}"
    column = _column(table, fields)
    if "field" in fields and (column is None or column.name != fields["field"]):
        expected = f"expected {listed(each.name for each in table.columns)}"
        yield f"unknown field {shown(fields['field'])}: " + (f"did you mean {column.name}?" if column else expected)
    if "operator" in fields and not _is_operator(fields["operator"]):
        yield f"unknown operator {shown(fields['operator'])}: expected {listed(OPERATORS)}"
    if "threshold" in fields:
        yield from _threshold_problems("threshold", column, fields["threshold"])


def _is_operator(value: Any) -> bool:
    return isinstance(value, str) and value in OPERATORS


def _similar(name: str, known: Sequence[str]) -> str:
    """Return the known name that this one probably stands for; empty if there is none."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=_MIN_SIMILARITY)), "")


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


def _resolve_problems(column: Column | None, fields: Mapping[str, Any], condition_is_valid: bool) -> Iterator[str]:
    operator, threshold, resolve = fields.get("operator"), fields.get("threshold"), fields.get("resolve")
    if resolve is None:
        return
    problems = list(_threshold_problems("resolve", column, resolve))
    yield from problems
    if _is_operator(operator) and operator not in _ORDERING:
        yield f"resolve goes with >, >=, < and <=, not with {operator}"
    elif condition_is_valid and not problems and column is not None:
        # The looser condition has to be true wherever the alert fires: the threshold meets it, or nothing lies between.
        loose = OPERATORS[str(operator)[0] + "="]
        if not loose(_comparable(column, threshold), _comparable(column, resolve)):
            sides = f"resolve {shown(resolve)} is on the wrong side of {shown(threshold)}"
            yield f"{sides}: an alert would be resolved as it fires"


def _within_problems(column: Column | None, fields: Mapping[str, Any], condition_is_valid: bool) -> Iterator[str]:
    within, operator = fields.get("within"), fields.get("operator")
    if within is None:
        return
    if isinstance(within, bool) or not isinstance(within, int | float) or not 1 <= within <= _MAX_WITHIN:
        yield f"within is {shown(within)}: expected seconds, from 1 to {_MAX_WITHIN}"
    if column is not None and not column.type.is_number:
        yield f"within goes with numbers, and {column.name} is a {column.type.value}"
    elif _is_operator(operator) and operator not in _ORDERING:
        yield f"within goes with >, >=, < and <=, not with {operator}"
    elif condition_is_valid:
        limits = [fields["threshold"], fields.get("resolve")]
        # Otherwise the alert of a row that no longer changes would never be resolved.
        if any(OPERATORS[str(operator)](0, limit) for limit in limits if _is_number(limit)):
            yield "with within, a change of 0 must not meet the condition: expected a rise (> 10) or a fall (< -10)"
    if fields.get("for"):
        yield "for does not go with within"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _threshold_problems(name: str, column: Column | None, threshold: Any) -> Iterator[str]:
    """Yield the problems of `threshold` or `resolve`, at most one; `column` is None if the field is unknown."""
    start = f"{name} {shown(threshold)}"
    if column is None:
        if not (isinstance(threshold, str) or _is_number(threshold)):
            yield f"{start} is of the wrong type: expected a number or text"
        return
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


def _in_yaml(value: Any) -> str:
    """Return a value much as it stands in the file."""
    if isinstance(value, Items):
        return f"[{listed(map(_in_yaml, value))}]"
    if isinstance(value, Entries):
        return f"{{{listed(f'{_in_yaml(name)}: {_in_yaml(each)}' for name, each in value.items())}}}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    # An alias may repeat a long text many times.
    text = _truncate(str(value))
    return text if not isinstance(value, str) or _PLAIN.fullmatch(value) else json.dumps(text, ensure_ascii=False)


def _truncate(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
