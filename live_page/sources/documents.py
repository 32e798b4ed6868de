"""Queries of the indices: rows, distributions and alerts, bounded in size and cached for a moment."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from cachetools.func import ttl_cache
from elasticsearch import Elasticsearch
from elasticsearch.exceptions import NotFoundError

from contract.alerts import ALERTS, FIRED_AT, FIRING, ID, INDEX, RULE, STATUS
from contract.declared import table_named
from contract.fields import ColumnType
from contract.tables import Column
from contract.windows import Window
from live_page.histogram import Bucket, bucket_bounds
from live_page.sources.errors import translate_errors

ELASTICSEARCH: Final = "Elasticsearch"
_CACHE_SECONDS: Final = 0.9
MAX_RESULT_WINDOW: Final = 10_000
"""Elasticsearch returns no page beyond this many documents."""
_MAX_WILDCARD: Final = 64
"""Characters; a longer wildcard query is too complex for Elasticsearch."""
_WINDOWS: Final = 60
_MINUTE: Final = 60_000
"""Milliseconds."""
_LEAST_WINDOWS: Final = 10
"""That a chart over time shows, even if there was nothing before."""

Points = list[tuple[int, float | None]]
"""Values over time, in milliseconds since the epoch; None: there is no row."""


@dataclass(frozen=True)
class Hits:
    """A page of the documents that match a query, and how many match in total."""

    rows: list[dict[str, Any]]
    total: int


@dataclass(frozen=True)
class Ranks:
    """The ranks of a row among all rows of its table, by measure; rows with the same value share one."""

    rows: int
    of: Mapping[str, int]


def is_text_key(column: Column) -> bool:
    """Whether rows can be searched by a column."""
    return column.measure is None and column.type is ColumnType.KEYWORD


def in_last_windows(rows: Sequence[Mapping[str, Any]], window: Window, columns: Sequence[str]) -> dict[str, Points]:
    """Return columns of rows, one per window, in each of the last 60 windows up to the latest row.

    It begins later if the first of these windows have no row, with one that has, but with ten windows at least.
    """
    by_start = {_milliseconds(datetime.fromisoformat(row[window.name])): row for row in rows}
    if not by_start:
        return {column: [] for column in columns}
    size = window.size // timedelta(milliseconds=1)
    last = max(by_start)
    first = min(start for start in by_start if start > last - _WINDOWS * size)
    starts = range(min(first, last - (_LEAST_WINDOWS - 1) * size), last + 1, size)
    return {column: [(start, by_start.get(start, {}).get(column)) for start in starts] for column in columns}


def from_first_alert(
    counts: Mapping[str, Sequence[tuple[int, int]]], first: float | None
) -> dict[str, list[tuple[int, int]]]:
    """Leave out the minutes before the first alert of all (epoch ms), but none of the last ten."""
    since = math.inf if first is None else first - _MINUTE
    return {
        rule: [(at, count) for at, count in minutes if at > min(since, minutes[-1][0] - _LEAST_WINDOWS * _MINUTE)]
        for rule, minutes in counts.items()
    }


class Documents:
    """Queries the indices; every method raises `UnavailableError` or `EmptyError`."""

    def __init__(self, client: Elasticsearch) -> None:
        self._client = client
        self.rows = ttl_cache(200, _CACHE_SECONDS)(self._rows)
        self.over_time = ttl_cache(20, _CACHE_SECONDS)(self._over_time)
        self.distribution = ttl_cache(20, 5)(self._distribution)
        self.alerts = ttl_cache(200, _CACHE_SECONDS)(self._alerts)
        self.alerts_per_rule = ttl_cache(2, _CACHE_SECONDS)(self._alerts_per_rule)
        self.alerts_over_time = ttl_cache(2, _CACHE_SECONDS)(self._alerts_over_time)

    def row(self, table: str, row_id: str) -> dict[str, Any] | None:
        """Return the row with this id, or None."""
        # In the request's body, no character of the id has a special meaning.
        with translate_errors(ELASTICSEARCH):
            (found,) = self._client.mget(index=table, body={"ids": [row_id]})["docs"]
            if "error" in found:
                raise NotFoundError(404, found["error"].get("type", ""), found)
        return found["_source"] if found["found"] else None

    def _rows(self, table: str, search: str, sort: str, descending: bool, first: int, size: int) -> Hits:
        """Return rows sorted by a column whose id contains `search`, or starts with it if it is long."""
        query: dict[str, Any] = {"match_all": {}}
        text_keys = [column.name for column in table_named(table).columns if is_text_key(column)]
        if search and text_keys:
            key = text_keys[0]
            if len(search) <= _MAX_WILDCARD:
                query = {"wildcard": {key: {"value": f"*{_escape_wildcard(search)}*", "case_insensitive": True}}}
            else:
                query = {"prefix": {key: {"value": search, "case_insensitive": True}}}
        # Rows with the same value stay in place while they change.
        ties = [{name: "asc"} for name in table_named(table).key if name != sort]
        return self._page(table, query, [{sort: "desc" if descending else "asc"}, *ties], first, size)

    def _over_time(self, table: str, *columns: str) -> dict[str, Points]:
        """Return columns of a table, whose only key column is a window, in each of its last windows."""
        window = table_named(table).key.window
        if window is None:
            raise ValueError(f"table {table} has no window")
        # A single event of the far future would be the last window.
        is_credible = {"range": {window.name: {"lte": "now+1d"}}}
        rows = self._page(table, is_credible, [{window.name: "desc"}], 0, _WINDOWS).rows
        return in_last_windows(rows, window, columns)

    def _distribution(self, table: str, field: str) -> list[Bucket]:
        """Return a histogram of a field over its whole range."""
        column = table_named(table).column(field)
        is_whole = column is not None and column.type is ColumnType.LONG
        with translate_errors(ELASTICSEARCH):
            of_field = {"field": field}
            stats: Any = {
                "lowest": {"min": of_field},
                "highest": {"max": of_field},
                "median": {"percentiles": {**of_field, "percents": [50]}},
            }
            found = self._search(index=table, size=0, aggs=stats)["aggregations"]
            lowest, highest = found["lowest"]["value"], found["highest"]["value"]
            if lowest is None:
                return []
            bounds = bucket_bounds(lowest, highest, found["median"]["values"]["50.0"], is_whole=is_whole)
            ranges = [{"from": lower, "to": upper} for lower, upper in pairwise(bounds)]
            bars: Any = {"bars": {"range": {**of_field, "ranges": ranges}}}
            buckets = self._search(index=table, size=0, aggs=bars)["aggregations"]["bars"]["buckets"]
        return [Bucket(each["from"], each["to"], each["doc_count"], is_whole) for each in buckets]

    def ranks(self, table: str, row: Mapping[str, Any]) -> Ranks:
        """Return the rank of each measure of a row: 1 and the number of rows with a greater value, or a later time."""
        measures = [
            column.name
            for column in table_named(table).columns
            if column.measure is not None
            and (column.type.is_number or column.type is ColumnType.DATE)
            and row.get(column.name) is not None
        ]
        greater: Any = {name: {"filter": {"range": {name: {"gt": row[name]}}}} for name in measures}
        with translate_errors(ELASTICSEARCH):
            found = self._search(index=table, size=0, track_total_hits=True, **({"aggs": greater} if greater else {}))
        counts = found.get("aggregations", {})
        return Ranks(found["hits"]["total"]["value"], {name: counts[name]["doc_count"] + 1 for name in measures})

    def _alerts(self, status: str = "", rule: str = "", index: str = "", row_id: str = "", size: int = 50) -> Hits:
        """Return alerts, the latest first, filtered by the arguments that are not empty."""
        terms = {STATUS: status, RULE: rule, INDEX: index, ID: row_id}
        query = {"bool": {"filter": [{"term": {name: value}} for name, value in terms.items() if value]}}
        return self._page(ALERTS, query, [{FIRED_AT: "desc"}], 0, size)

    def _alerts_per_rule(self) -> dict[str, dict[str, Any]]:
        """Return per rule the number of alerts `firing` and of `all`, and when the `last` one fired."""
        with translate_errors(ELASTICSEARCH):
            each: Any = {
                "rules": {
                    "terms": {"field": RULE, "size": 500},
                    "aggs": {
                        "firing": {"filter": {"term": {STATUS: FIRING}}},
                        "last": {"max": {"field": FIRED_AT}},
                    },
                }
            }
            found = self._search(index=ALERTS, size=0, aggs=each)["aggregations"]["rules"]["buckets"]
        return {
            bucket["key"]: {
                "firing": bucket["firing"]["doc_count"],
                "all": bucket["doc_count"],
                "last": bucket["last"].get("value_as_string", ""),
            }
            for bucket in found
        }

    def _alerts_over_time(self) -> dict[str, list[tuple[int, int]]]:
        """Return per rule the number of alerts fired in each minute (its start in epoch ms) of the last hour.

        It begins later if there were no alerts at all before, with the first one, and at least ten minutes ago.
        """
        end = datetime.now(UTC).replace(second=0, microsecond=0)
        start = end - timedelta(minutes=59)
        bounds = {"min": int(start.timestamp() * 1000), "max": int(end.timestamp() * 1000)}
        with translate_errors(ELASTICSEARCH):
            minutes: Any = {
                "date_histogram": {
                    "field": FIRED_AT, "fixed_interval": "1m", "min_doc_count": 0, "extended_bounds": bounds,
                }
            }  # fmt: skip
            rules: Any = {"rules": {"terms": {"field": RULE, "size": 12}, "aggs": {"minutes": minutes}}}
            recent: Any = {"filter": {"range": {FIRED_AT: {"gte": start.isoformat()}}}, "aggs": rules}
            first: Any = {"min": {"field": FIRED_AT}}
            found = self._search(index=ALERTS, size=0, aggs={"first": first, "recent": recent})["aggregations"]
        counts = {
            bucket["key"]: [(minute["key"], minute["doc_count"]) for minute in bucket["minutes"]["buckets"]]
            for bucket in found["recent"]["rules"]["buckets"]
        }
        return from_first_alert(counts, found["first"]["value"])

    def _search(self, **query: Any) -> dict[str, Any]:
        """Search all shards; fails rather than return the hits of some of them."""
        response: dict[str, Any] = self._client.search(allow_partial_search_results=False, **query)
        return response

    def _page(self, index: str, query: dict[str, Any], sort: list[dict[str, str]], first: int, size: int) -> Hits:
        first = min(first, MAX_RESULT_WINDOW - size)
        with translate_errors(ELASTICSEARCH):
            found = self._search(index=index, query=query, sort=sort, from_=first, size=size, track_total_hits=True)
            hits = found["hits"]
        return Hits([hit["_source"] for hit in hits["hits"]], hits["total"]["value"])


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp()) * 1000


def _escape_wildcard(text: str) -> str:
    """Escape the characters that are special in a wildcard query."""
    return "".join(f"\\{c}" if c in "*?\\" else c for c in text)
