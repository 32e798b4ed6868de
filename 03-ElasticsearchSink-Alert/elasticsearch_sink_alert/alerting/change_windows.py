"""Computes how much fields have changed `within` a time window, for the rules about a change.

Each row that such a rule applies to has a document with the field's recent values. It is written before the offsets
are committed, and read again when it is not in memory: after a restart, after a rebalance, or when the row was idle.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
from elasticsearch import Elasticsearch

from contract.keys import RowKey, encode_key
from elasticsearch_sink_alert.alerting.alert_lifecycle import CHANGE_WINDOWS_INDEX, AlertKey, Deltas
from elasticsearch_sink_alert.alerting.rules import Rule
from elasticsearch_sink_alert.indexing.bulk import BulkWriter, bulk_action
from elasticsearch_sink_alert.indexing.errors import require_no_errors
from elasticsearch_sink_alert.indexing.retrier import Retrier
from elasticsearch_sink_alert.kafka.rows import Row

Samples = list[tuple[int, float]]
"""Times in milliseconds since the epoch, in order, and the field's value from then on."""

_SAMPLES_PER_WINDOW: Final = 20
"""Samples are at least a twentieth of the window apart, which is the precision of the window's start."""
_MAX_ROWS_IN_MEMORY: Final = 20_000
"""About 2 kB each."""


def with_sample(samples: Samples, at: int, value: float, window: int) -> Samples:
    """Return the samples with one more, without those that are older than the window (milliseconds).

    >>> with_sample([(0, 1.0), (1000, 2.0)], 1040, 3.0, window=1000)
    [(0, 1.0), (1000, 2.0), (1040, 3.0)]
    >>> with_sample([(0, 1.0), (1000, 2.0), (1040, 3.0)], 1045, 4.0, window=1000)
    [(0, 1.0), (1000, 2.0), (1045, 4.0)]
    """
    if samples and at <= samples[-1][0]:  # The same record again, or a clock that was set back.
        return [*samples[:-1], (samples[-1][0], value)]
    kept = samples[_first_needed(samples, at - window) :]
    if len(kept) > 1 and at - kept[-2][0] < window // _SAMPLES_PER_WINDOW:
        kept = kept[:-1]
    return [*kept, (at, value)]


def delta(samples: Samples, at: int, window: int) -> float:
    """Return the field's value minus its value a window (milliseconds) before `at`.

    Before its first sample, a field is assumed to have had that sample's value: a new row is not a change.

    >>> delta([(0, 1.0), (600, 5.0), (900, 7.0)], at=1000, window=500)
    6.0
    """
    return samples[-1][1] - samples[_first_needed(samples, at - window)][1] if samples else 0.0


def _first_needed(samples: Samples, start: int) -> int:
    """Return the position of the sample that was current at `start`."""
    return max((n for n, (since, _) in enumerate(samples) if since <= start), default=0)


class ChangeWindows:
    """The recent values of fields: samples by row and rule."""

    def __init__(self, client: Elasticsearch, writer: BulkWriter, retrier: Retrier) -> None:
        self._client = client
        self._writer = writer
        self._retrier = retrier
        self._cached: dict[RowKey, dict[str, Samples]] = {}

    def clear_cache(self) -> None:
        """Read all documents again when they are needed, as another sink may have changed them."""
        self._cached.clear()

    def add(self, rules: Mapping[str, Sequence[Rule]], rows: Iterable[Row]) -> Deltas:
        """Add the rows' values to the windows, save them, and return the changes within the rules' windows."""
        with_window = {table: [rule for rule in of_table if rule.within] for table, of_table in rules.items()}
        affected = [row for row in rows if with_window.get(row.key.table)] if any(with_window.values()) else []
        if not affected:
            return {}
        self._load([row.key for row in affected])
        deltas: dict[AlertKey, Mapping[str, float]] = {}
        for row in affected:
            before, after = self._cached[row.key], {}
            for rule in with_window[row.key.table]:
                value = row.fields.get(rule.field) if row.fields else None
                if isinstance(value, int | float):
                    window, at = _milliseconds(rule), row.record.timestamp_ms
                    samples = after[rule.name] = with_sample(before.get(rule.name, []), at, value, window)
                    deltas[rule.name, row.key] = {rule.field: delta(samples, at, window)}
            self._cached[row.key] = after
        self._writer.write([_action(row, self._cached[row.key]) for row in affected])
        for oldest in list(self._cached)[: max(0, len(self._cached) - _MAX_ROWS_IN_MEMORY)]:
            del self._cached[oldest]
        return deltas

    def deltas_at(self, at: int, rules: Mapping[AlertKey, Rule]) -> Deltas:
        """Return the changes until `at` (milliseconds since the epoch) of rows that are idle."""
        self._load([row_key for _, row_key in rules])
        return {
            (name, row_key): {rule.field: delta(self._cached[row_key].get(name, []), at, _milliseconds(rule))}
            for (name, row_key), rule in rules.items()
        }

    def _load(self, keys: Sequence[RowKey]) -> None:
        """Read the windows of these rows unless they are cached, and mark them as the most recently used."""
        missing = list({key for key in keys if key not in self._cached})
        if missing:
            ids = [encode_key(*key) for key in missing]
            found = self._retrier.call("reading the change windows", lambda: self._get(ids))
            for key, document in zip(missing, found, strict=True):
                self._cached[key] = _samples(document["_source"]["samples"]) if document.get("found") else {}
        for key in keys:
            self._cached[key] = self._cached.pop(key)

    def _get(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        documents: list[dict[str, Any]] = self._client.mget(index=CHANGE_WINDOWS_INDEX, body={"ids": ids})["docs"]
        require_no_errors(documents)
        return documents


def _milliseconds(rule: Rule) -> int:
    return int((rule.within or 0) * 1000)


def _action(row: Row, samples: Mapping[str, Samples]) -> bytes:
    if row.fields is None:
        return bulk_action(CHANGE_WINDOWS_INDEX, encode_key(*row.key), row.version, None)
    source = {"index": row.key.table, "id": row.key.id, "samples": samples}
    return bulk_action(CHANGE_WINDOWS_INDEX, encode_key(*row.key), row.version, orjson.dumps(source))


def _samples(document: Mapping[str, Any]) -> dict[str, Samples]:
    return {rule: [(at, value) for at, value in samples] for rule, samples in document.items()}
