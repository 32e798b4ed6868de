"""What fields were a while ago, for the rules over how much a field changes `within` a time.

Each row that such a rule looks at has a document with the values of the last window, written before the
offsets are committed and read again where the memory has it no more: after a restart, a rebalance, or a long rest.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
from elasticsearch import Elasticsearch

from contract.keys import RowKey, encode_key
from elasticsearch_sink_alert.alerting.alerts import HISTORIES_INDEX, Period
from elasticsearch_sink_alert.alerting.rules import Rule
from elasticsearch_sink_alert.indexing.answers import require_no_errors
from elasticsearch_sink_alert.indexing.bulk import BulkWriter, Document
from elasticsearch_sink_alert.indexing.retrier import Patience
from elasticsearch_sink_alert.kafka.rows import Row

Samples = list[tuple[int, float]]
"""Milliseconds since the epoch and what the field was from then on, in order."""

_STEPS: Final = 20
"""Samples are a window's twentieth apart at least: that is how exact the start of the window is."""
_IN_MEMORY: Final = 20_000
"""Rows; some 2 kB each."""


def with_sample(samples: Samples, at: int, value: float, window: int) -> Samples:
    """The samples and one more, without those that the window (milliseconds) has no more use for.

    >>> with_sample([(0, 1.0), (1000, 2.0)], 1040, 3.0, window=1000)
    [(0, 1.0), (1000, 2.0), (1040, 3.0)]
    >>> with_sample([(0, 1.0), (1000, 2.0), (1040, 3.0)], 1045, 4.0, window=1000)
    [(0, 1.0), (1000, 2.0), (1045, 4.0)]
    """
    if samples and at <= samples[-1][0]:  # The same record again, or a clock that was set back.
        return [*samples[:-1], (samples[-1][0], value)]
    kept = samples[_first_needed(samples, at - window) :]
    if len(kept) > 1 and at - kept[-2][0] < window // _STEPS:
        kept = kept[:-1]
    return [*kept, (at, value)]


def change(samples: Samples, at: int, window: int) -> float:
    """How much more the field is than it was a window (milliseconds) before `at`.

    A field is taken to have been before its first sample what it was then: its beginning is no change.

    >>> change([(0, 1.0), (600, 5.0), (900, 7.0)], at=1000, window=500)
    6.0
    """
    return samples[-1][1] - samples[_first_needed(samples, at - window)][1] if samples else 0.0


def _first_needed(samples: Samples, start: int) -> int:
    """Where the sample is that held at `start`."""
    return max((n for n, (since, _) in enumerate(samples) if since <= start), default=0)


class Histories:
    """The samples of each row and rule."""

    def __init__(self, client: Elasticsearch, writer: BulkWriter, patience: Patience) -> None:
        self._client = client
        self._writer = writer
        self._patience = patience
        self._known: dict[RowKey, dict[str, Samples]] = {}

    def forget(self) -> None:
        """Read all again when it is needed, as another sink may have written it meanwhile."""
        self._known.clear()

    def add(self, rules: Mapping[str, Sequence[Rule]], rows: Iterable[Row]) -> dict[Period, Mapping[str, float]]:
        """Add the rows' values, keep them, and give the changes: each by the field that it is one of."""
        moving = {table: [rule for rule in of_table if rule.within] for table, of_table in rules.items()}
        seen = [row for row in rows if moving.get(row.key.table)]
        if not seen:
            return {}
        self._look_up([row.key for row in seen])
        changes: dict[Period, Mapping[str, float]] = {}
        for row in seen:
            before, now = self._known[row.key], {}
            for rule in moving[row.key.table]:
                value = row.fields.get(rule.field) if row.fields else None
                if isinstance(value, int | float):
                    window, at = _milliseconds(rule), row.record.timestamp_ms
                    samples = now[rule.name] = with_sample(before.get(rule.name, []), at, value, window)
                    changes[rule.name, row.key.table, row.key.id] = {rule.field: change(samples, at, window)}
            self._known[row.key] = now
        self._writer.write([_document(row, self._known[row.key]) for row in seen])
        for oldest in list(self._known)[: max(0, len(self._known) - _IN_MEMORY)]:
            del self._known[oldest]
        return changes

    def changes_by(self, at: int, rule_of: Mapping[Period, Rule]) -> dict[Period, Mapping[str, float]]:
        """The changes until `at` (milliseconds since the epoch) of rows that have not changed since."""
        keys = {period: RowKey(*period[1:]) for period in rule_of}
        self._look_up(list(keys.values()))
        return {
            period: {rule.field: change(self._known[keys[period]].get(rule.name, []), at, _milliseconds(rule))}
            for period, rule in rule_of.items()
        }

    def _look_up(self, keys: Sequence[RowKey]) -> None:
        """Have all of these in memory, as the ones that were needed last."""
        missing = list({key for key in keys if key not in self._known})
        if missing:
            ids = [encode_key(*key) for key in missing]
            found = self._patience.call("reading what fields were before", lambda: self._get(ids))
            for key, document in zip(missing, found, strict=True):
                self._known[key] = _samples(document["_source"]["samples"]) if document.get("found") else {}
        for key in keys:
            self._known[key] = self._known.pop(key)

    def _get(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        documents: list[dict[str, Any]] = self._client.mget(index=HISTORIES_INDEX, body={"ids": ids})["docs"]
        require_no_errors(documents)
        return documents


def _milliseconds(rule: Rule) -> int:
    return int((rule.within or 0) * 1000)


def _document(row: Row, samples: Mapping[str, Samples]) -> Document:
    if row.fields is None:
        return Document(HISTORIES_INDEX, encode_key(*row.key), row.version, None)
    source = {"index": row.key.table, "id": row.key.id, "samples": samples}
    return Document(HISTORIES_INDEX, encode_key(*row.key), row.version, orjson.dumps(source))


def _samples(document: Mapping[str, Any]) -> dict[str, Samples]:
    return {rule: [(at, value) for at, value in samples] for rule, samples in document.items()}
