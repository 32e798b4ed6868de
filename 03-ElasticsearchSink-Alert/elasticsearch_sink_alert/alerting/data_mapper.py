"""Reads the data mapper: the file in which the user declares the id of each table's rows and the alert rules.

All problems are reported at once, each with its line and what is allowed.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from contract.declared import TABLES, table_named
from contract.tables import Table
from elasticsearch_sink_alert.alerting import plain_yaml
from elasticsearch_sink_alert.alerting.plain_yaml import Entries, Items
from elasticsearch_sink_alert.alerting.rule_parser import InvalidRuleError, listed, parse_rule, shown
from elasticsearch_sink_alert.alerting.rules import Rule
from elasticsearch_sink_alert.alerting.text_file import Problem, UnusableFileError, printable, read_text, unreadable

_SETTLED_AFTER: Final = 1_000_000_000
"""Nanoseconds."""
_MAX_PROBLEMS: Final = 50


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
        """The rules of all tables by name."""
        return {rule.name: rule for rule in self.all_rules}


class ReloadingRules:
    """The data mapper, reloaded when its file changes. An invalid change leaves the last valid one in force."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises `DataMapperError`."""
        self._path = path
        self._loaded = self._last_seen = self._stamp()
        self._last_seen_at = 0
        self.current = load(path)

    def reload(self) -> bool:
        """Read the file if it has changed; returns whether it has. Raises `DataMapperError`, once per change.

        A change counts when it is a second old, so that a file that is still being written is not read.
        """
        stamp, now = self._stamp(), time.time_ns()
        if stamp == self._loaded:
            return False
        if stamp != self._last_seen:
            self._last_seen, self._last_seen_at = stamp, now
        # The age by the file's own time; if that is in the future, since it was first seen in this state.
        if now - min(stamp[0], self._last_seen_at) < _SETTLED_AFTER:
            return False
        self._loaded = stamp
        self.current = load(self._path)
        return True

    def _stamp(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except OSError:
            return 0, 0, 0
        return status.st_mtime_ns, status.st_size, status.st_ino


def load(path: Path) -> DataMapper:
    """Read and check the file; raises `DataMapperError`, whatever the path and the content are."""
    try:
        document = plain_yaml.parse(read_text(path))
    except (OSError, ValueError) as error:
        raise DataMapperError(unreadable(path, error)) from None
    except UnusableFileError as error:
        raise _error(path, error.problems) from None
    reader = _Reader()
    rules = reader.tables(document)
    if reader.problems:
        raise _error(path, reader.problems)
    return DataMapper(rules)


def _error(path: Path, problems: Iterable[Problem]) -> DataMapperError:
    # An alias repeats the problems of the value that it refers to.
    found = list(dict.fromkeys(sorted(problems, key=lambda problem: problem.line)))
    lines = [f"{path}:{problem.line}: {printable(problem.text)}" for problem in found[:_MAX_PROBLEMS]]
    if more := len(found) - len(lines):
        lines.append(f"{path}: and {more} more problems")
    return DataMapperError("\n".join(lines))


class _Reader:
    """Reads the parsed document, and collects all of its problems."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._line_of_rule: dict[str, int] = {}

    def tables(self, document: Any) -> dict[str, tuple[Rule, ...]]:
        """Return the rules of each table."""
        known = [table.name for table in TABLES]
        if not isinstance(document, Entries):
            self._report(1, f"expected tables, each with id and alerts: {listed(known)}")
            return {}
        rules: dict[str, tuple[Rule, ...]] = {}
        for name, entry in document.items():
            line = document.lines[name]
            if name not in known:
                self._report(line, f"unknown table {shown(name)}: expected {listed(known)}")
            elif not isinstance(entry, Entries):
                self._report(line, f"table {name}: expected id and alerts below it")
            else:
                rules[name] = self._table(table_named(name), entry, line)
        return rules

    def _table(self, table: Table, entry: Entries, line: int) -> tuple[Rule, ...]:
        for name in entry:
            if name not in ("id", "alerts"):
                at = entry.lines[name]
                self._report(at, f"table {table.name}: unknown entry {shown(name)}: expected id, alerts")
        expected: object = list(table.key) if len(table.key) > 1 else next(iter(table.key), table.name)
        if entry.get("id") != expected:
            at = entry.lines.get("id", line)
            self._report(at, f"table {table.name}: id is {shown(entry.get('id'))}: expected {expected!r}")
        alerts = entry.get("alerts")
        if alerts is None:
            return ()
        if not isinstance(alerts, Items):
            self._report(entry.lines["alerts"], f"table {table.name}: alerts: expected a list of rules")
            return ()
        rules = (self._rule(table, written, at) for written, at in zip(alerts, alerts.lines, strict=True))
        return tuple(rule for rule in rules if rule is not None)

    def _rule(self, table: Table, written: Any, line: int) -> Rule | None:
        try:
            rule = parse_rule(table, written)
        except InvalidRuleError as error:
            for problem in error.problems:
                self._report(line, problem)
            return None
        if rule.name in self._line_of_rule:
            first = self._line_of_rule[rule.name]
            text = f"rule {shown(rule.name)} is already on line {first}: remove one, or give it another name"
            self._report(line, text)
        self._line_of_rule.setdefault(rule.name, line)
        return rule

    def _report(self, line: int, text: str) -> None:
        self.problems.append(Problem(line, text))
