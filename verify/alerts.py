"""Compares the alerts with what the rules say of the documents."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from elasticsearch import Elasticsearch
from elasticsearch.helpers import scan
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from contract.alerts import (
    ALERTS,
    FIELD,
    FIRED_AT,
    FIRING,
    ID,
    INDEX,
    OPERATOR,
    RESOLVED,
    RESOLVED_AT,
    RULE,
    STATUS,
    THRESHOLD,
    VALUE,
)
from contract.fields import ColumnType
from contract.tables import Table
from verify.database import TEXT, Database, literal, name
from verify.lake import NotReadableError
from verify.report import MAX_KEPT, Check, Difference
from verify.stores import IndexRows

_PAUSE: Final = 1.0
_GRACE: Final = timedelta(seconds=30)
"""The time after the end of a window in which its alerts may be firing or resolved."""
_OPERATORS: Final = {">": ">", ">=": ">=", "<": "<", "<=": "<=", "==": "=", "!=": "!="}
_COLUMNS: Final = (RULE, INDEX, ID, FIELD, OPERATOR, THRESHOLD, STATUS, FIRED_AT, RESOLVED_AT, VALUE)


@dataclass(frozen=True)
class Rule:
    """A rule as the data mapper has it."""

    table: Table
    field: str
    operator: str
    threshold: Any
    name: str
    resolve: Any = None
    for_seconds: float = 0
    within: float | None = None
    silence: tuple[str, ...] = ()

    @property
    def _column(self) -> int:
        return [column.name for column in self.table.columns].index(self.field)

    def holds(self, threshold: Any) -> str:
        """Return whether a row, with the columns `c0`, `c1`, ..., meets the condition with this threshold."""
        column = self.table.columns[self._column]
        value = f"c{self._column}"
        if column.type is ColumnType.DATE:
            other = f"epoch_us(TIMESTAMPTZ {literal(str(threshold))})"
        elif column.type is ColumnType.KEYWORD:
            other = literal(str(threshold))
        else:
            value, other = f"CAST({value} AS DOUBLE)", f"CAST({threshold} AS DOUBLE)"
        return f"coalesce({value} {_OPERATORS[self.operator]} {other}, false)"

    @property
    def is_silent(self) -> str:
        """Whether the rule ignores a row."""
        patterns = [_as_regex(pattern) for pattern in self.silence]
        return " OR ".join(f"regexp_full_match(id, {literal(pattern)}, 's')" for pattern in patterns) or "false"

    def is_over(self, now: datetime) -> str:
        """Whether the window of a row is certainly over."""
        return self._started_before(now - _GRACE)

    def may_be_over(self, now: datetime) -> str:
        """Whether the window of a row is over or about to be."""
        return self._started_before(now + _GRACE)

    def _started_before(self, now: datetime) -> str:
        window = self.table.key.window
        if window is None:
            return "false"
        limit = int((now - window.size).timestamp() * 1_000_000)
        return f"coalesce(c{list(self.table.key).index(window.name)} <= {limit}, false)"


def read_rules(file: Path, tables: Sequence[Table]) -> list[Rule]:
    """Return the rules of the data mapper; raises `NotReadableError`."""
    try:
        written: Mapping[str, Any] = YAML(typ="safe").load(file.read_text())
        named = {table.name: table for table in tables}
        return [
            _rule(named[table], each) for table, entry in written.items() for each in (entry or {}).get("alerts") or ()
        ]
    except OSError as error:
        raise NotReadableError(f"DATA_MAPPER={file} cannot be read: {error.strerror}") from None
    except (YAMLError, AttributeError, KeyError, TypeError, ValueError):
        raise NotReadableError(
            f"the rules of {file} are not valid: `python -m elasticsearch_sink_alert check` says where"
        ) from None


def _rule(table: Table, written: Any) -> Rule:
    if isinstance(written, list):
        written = dict(zip(("field", "operator", "threshold"), written, strict=True))
    field, operator, threshold = (_plain(written[each]) for each in ("field", "operator", "threshold"))
    if operator not in _OPERATORS or table.column(field) is None:
        raise ValueError(field)
    within = written.get("within")
    condition = f"{field} {operator} {threshold}" + ("" if within is None else f" within {within:g} s")
    return Rule(
        table,
        field,
        operator,
        threshold,
        name=written.get("name") or f"{table.name}: {condition}",
        resolve=_plain(written.get("resolve")),
        for_seconds=written.get("for", 0),
        within=within,
        silence=tuple(str(_plain(each)) for each in written.get("silence", ())),
    )


def _plain(value: Any) -> Any:
    """Return a scalar as the sink reads it: a time is text."""
    return value.isoformat() if isinstance(value, date) else value


def _as_regex(pattern: str) -> str:
    return "".join({"*": ".*", "?": "."}.get(each, re.escape(each)) for each in pattern)


class AlertComparison:
    """Compares the alerts of all rules."""

    def __init__(self, database: Database, elasticsearch: Elasticsearch, rules: Sequence[Rule], wait: float) -> None:
        self._database = database
        self._elasticsearch = elasticsearch
        self._rules = rules
        self._wait = wait

    def run(self, indices: Sequence[IndexRows]) -> Check:
        """Compare until no alert was wrong at every look; `indices` are those of the tables."""
        began = time.monotonic()
        check = Check("alerts = what the rules say of the documents")
        check.notes += [
            f"rule {rule.name!r} has a memory (within): only its number of alerts"
            for rule in self._rules
            if rule.within is not None
        ]
        wrong = self._look(indices)
        while wrong and time.monotonic() - began < self._wait:
            time.sleep(_PAUSE)
            again = self._look(indices)
            # A row and its alert do not change at the same moment.
            wrong = {key: difference for key, difference in again.items() if key in wrong}
        check.compared = self._database.number("SELECT count(*) FROM alerts")
        check.add(wrong.values())
        check.seconds = time.monotonic() - began
        return check

    def _look(self, indices: Sequence[IndexRows]) -> dict[tuple[str, ...], Difference]:
        for index in indices:
            index.load()
        self._load()
        now = datetime.now().astimezone()
        differences = [*self._malformed(), *self._of_no_rule()]
        for index in indices:
            for rule in self._rules:
                if rule.table is index.table:
                    differences += self._of_rule(rule, index, now)
        return {(each.key, str(each.expected)): each for each in differences}

    def _load(self) -> None:
        columns = dict.fromkeys(("document", *_COLUMNS), TEXT)
        self._database.run(
            f"CREATE OR REPLACE TABLE alerts ({', '.join(f'{each} VARCHAR' for each in map(name, columns))})"
        )
        self._elasticsearch.indices.refresh(index=ALERTS, ignore_unavailable=True)
        if not self._elasticsearch.indices.exists(index=ALERTS):
            return
        hits = scan(self._elasticsearch, index=ALERTS, size=5_000, _source=list(_COLUMNS))
        rows = ((hit["_id"], *(_as_text(hit["_source"].get(each)) for each in _COLUMNS)) for hit in hits)
        self._database.insert("alerts", columns, rows)

    def _malformed(self) -> Iterator[Difference]:
        """Find alerts whose own fields contradict each other."""
        found = self._database.run(
            f"SELECT document, rule, index, id, status, fired_at, resolved_at FROM alerts WHERE fired_at IS NULL"
            f" OR status NOT IN ('{FIRING}', '{RESOLVED}') OR (status = '{FIRING}') != (resolved_at IS NULL)"
            f" LIMIT {MAX_KEPT}"
        )
        for document, rule, index, row_id, *state in found:
            yield _difference(rule, index, row_id, f"alert {document} with {state}", "a time for each state")

    def _of_no_rule(self) -> Iterator[Difference]:
        """Find firing alerts of rules that do not exist."""
        names = ", ".join(literal(rule.name) for rule in self._rules) or "''"
        found = self._database.run(
            f"SELECT rule, index, id FROM alerts WHERE status = '{FIRING}' AND rule NOT IN ({names}) LIMIT {MAX_KEPT}"
        )
        for rule, index, row_id in found:
            yield _difference(rule, index, row_id, "a firing alert", "none: there is no such rule")

    def _of_rule(self, rule: Rule, index: IndexRows, now: datetime) -> Iterator[Difference]:
        firing = (
            f"SELECT id, count(*) AS firing FROM alerts WHERE status = '{FIRING}' AND rule = {literal(rule.name)}"
            f" AND index = {literal(rule.table.name)} GROUP BY id"
        )
        if rule.within is not None:
            must, may = "false", "true"
        else:
            ends = f"NOT ({rule.is_silent}) AND NOT "
            must = (
                f"{rule.holds(rule.threshold)} AND {ends}{rule.may_be_over(now)}" if not rule.for_seconds else "false"
            )
            threshold = rule.threshold if rule.resolve is None else rule.resolve
            may = f"({rule.holds(rule.threshold)} OR {rule.holds(threshold)}) AND {ends}{rule.is_over(now)}"
        found = self._database.run(
            f"SELECT id, text, coalesce(firing, 0), coalesce({must}, false) FROM"
            f" (SELECT coalesce(r.id, a.id) AS id, * EXCLUDE (id) FROM {index.rows} r"
            f" FULL JOIN ({firing}) a ON r.id = a.id)"
            f" WHERE ({must} AND coalesce(firing, 0) = 0) OR (NOT coalesce({may}, false) AND firing > 0) OR firing > 1"
            f" LIMIT {MAX_KEPT}"
        )
        for row_id, text, number, is_missing in found:
            condition = f"{rule.field} {rule.operator} {rule.threshold} of {text or 'no document'}"
            expected = "one" if is_missing or number > 1 else "none"
            yield _difference(rule.name, rule.table.name, row_id, f"{number} firing: {condition}", f"{expected} firing")


def _difference(rule: str, index: str, row_id: str, found: str, expected: str) -> Difference:
    return Difference(f"index {ALERTS}", f"rule {rule!r}, {index} {row_id}", found, expected)


def _as_text(value: Any) -> str | None:
    return None if value is None else str(value)
