"""What Elasticsearch knows of users, items and alerts: bounded queries, each answer shared for a moment."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cachetools.func import ttl_cache
from elasticsearch import Elasticsearch
from elasticsearch.exceptions import NotFoundError

from contract.alerts import ALERTS, FIRED_AT, FIRING, ID, INDEX, RULE, STATUS
from contract.tables import ColumnType, table_named
from live_page.unavailable import told

ELASTICSEARCH: Final = "Elasticsearch"
_FRESH: Final = 0.9
"""Seconds for which an answer is given again."""
_DEEPEST: Final = 10_000
"""Elasticsearch gives no page beyond so many documents."""
_LONGEST_PART: Final = 64
"""Characters; to look for a longer part anywhere in an id is too complex for Elasticsearch."""
_BARS: Final = 20


@dataclass(frozen=True)
class Page:
    """Some of the documents, in order, and how many there are in all."""

    rows: list[dict[str, Any]]
    total: int


class Documents:
    """Asks the indices. Every method raises `UnavailableError` or `EmptyError`."""

    def __init__(self, client: Elasticsearch) -> None:
        self._client = client
        self.rows = ttl_cache(200, _FRESH)(self._rows)
        self.distribution = ttl_cache(20, 5)(self._distribution)
        self.alerts = ttl_cache(200, _FRESH)(self._alerts)
        self.alerts_per_rule = ttl_cache(2, _FRESH)(self._alerts_per_rule)
        self.alerts_over_time = ttl_cache(2, _FRESH)(self._alerts_over_time)

    def row(self, table: str, row_id: str) -> dict[str, Any] | None:
        """One row, if there is one of that id."""
        # The id is in the request's body: no character of it has a meaning there.
        with told(ELASTICSEARCH):
            (found,) = self._client.mget(index=table, body={"ids": [row_id]})["docs"]
            if "error" in found:
                raise NotFoundError(404, found["error"].get("type", ""), found)
        return found["_source"] if found["found"] else None

    def _rows(self, table: str, search: str, sort: str, descending: bool, first: int, size: int) -> Page:
        """Rows whose id contains `search`, or begins with a long one, sorted by a column, from the `first` one on."""
        wanted: dict[str, Any] = {"match_all": {}}
        if search and (key := table_named(table).key):
            if len(search) <= _LONGEST_PART:
                wanted = {"wildcard": {key: {"value": f"*{_escaped(search)}*", "case_insensitive": True}}}
            else:
                wanted = {"prefix": {key: {"value": search, "case_insensitive": True}}}
        return self._page(table, wanted, [{sort: "desc" if descending else "asc"}], first, size)

    def _distribution(self, table: str, field: str) -> list[tuple[float, float, int]]:
        """How many rows there are with a value from one bound up to the next: bars over the whole range."""
        with told(ELASTICSEARCH):
            bounds: Any = {"least": {"min": {"field": field}}, "most": {"max": {"field": field}}}
            found = self._search(index=table, size=0, aggs=bounds)["aggregations"]
            least, most = found["least"]["value"], found["most"]["value"]
            if least is None:
                return []
            width = (most - least) / _BARS
            column = table_named(table).column(field)
            if column is not None and column.type is ColumnType.LONG:
                width = max(1.0, -(-(most - least + 1) // _BARS))
            width = width or 1.0
            bars: Any = {"bars": {"histogram": {"field": field, "interval": width, "offset": least % width}}}
            buckets = self._search(index=table, size=0, aggs=bars)["aggregations"]["bars"]["buckets"]
        return [(bucket["key"], bucket["key"] + width, bucket["doc_count"]) for bucket in buckets]

    def _alerts(self, status: str = "", rule: str = "", index: str = "", row_id: str = "", size: int = 50) -> Page:
        """Alerts, the latest first; with a status, rule, index or row only those."""
        terms = {STATUS: status, RULE: rule, INDEX: index, ID: row_id}
        wanted = {"bool": {"filter": [{"term": {name: value}} for name, value in terms.items() if value]}}
        return self._page(ALERTS, wanted, [{FIRED_AT: "desc"}], 0, size)

    def _alerts_per_rule(self) -> dict[str, dict[str, Any]]:
        """Per rule: how many alerts are `firing`, how many there were, and when the `last` one fired."""
        with told(ELASTICSEARCH):
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
        """Per rule: how many alerts fired in each minute (its start in epoch milliseconds) of the last hour."""
        end = datetime.now(UTC).replace(second=0, microsecond=0)
        start = end - timedelta(minutes=59)
        bounds = {"min": int(start.timestamp() * 1000), "max": int(end.timestamp() * 1000)}
        with told(ELASTICSEARCH):
            minutes: Any = {
                "date_histogram": {
                    "field": FIRED_AT, "fixed_interval": "1m", "min_doc_count": 0, "extended_bounds": bounds,
                }
            }  # fmt: skip
            rules: Any = {"rules": {"terms": {"field": RULE, "size": 12}, "aggs": {"minutes": minutes}}}
            recent: Any = {"range": {FIRED_AT: {"gte": start.isoformat()}}}
            found = self._search(index=ALERTS, size=0, query=recent, aggs=rules)["aggregations"]["rules"]
        return {
            bucket["key"]: [(minute["key"], minute["doc_count"]) for minute in bucket["minutes"]["buckets"]]
            for bucket in found["buckets"]
        }

    def _search(self, **query: Any) -> dict[str, Any]:
        """An answer of all shards: what some of them know is not what there is."""
        answer: dict[str, Any] = self._client.search(allow_partial_search_results=False, **query)
        return answer

    def _page(self, index: str, wanted: dict[str, Any], sort: list[dict[str, str]], first: int, size: int) -> Page:
        first = min(first, _DEEPEST - size)
        with told(ELASTICSEARCH):
            found = self._search(index=index, query=wanted, sort=sort, from_=first, size=size, track_total_hits=True)
            hits = found["hits"]
        return Page([hit["_source"] for hit in hits["hits"]], hits["total"]["value"])


def _escaped(text: str) -> str:
    """For a wildcard query, which gives these characters a meaning."""
    return "".join(f"\\{c}" if c in "*?\\" else c for c in text)
