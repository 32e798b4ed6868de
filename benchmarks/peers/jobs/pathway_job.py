"""The rows of all aggregate tables in Pathway.

``KAFKA_BROKER=... pathway spawn --threads 2 python benchmarks/peers/jobs/pathway_job.py TOPIC OUTPUT_TOPIC COMMIT_MS``
"""

import functools
import os
import sys
from typing import Any

import pathway as pw

_TYPES = ("click", "like", "view", "purchase")


class Interaction(pw.Schema):  # type: ignore[misc]
    """A record of the topic."""

    user_id: str
    item_id: str
    interaction_type: str
    timestamp: int


def main() -> None:
    """Aggregate the topic until stopped."""
    topic, output, commit_ms = sys.argv[1:4]
    client = {"bootstrap.servers": os.environ["KAFKA_BROKER"], "group.id": output, "auto.offset.reset": "earliest"}
    commit = {"autocommit_duration_ms": int(commit_ms)}
    interactions = pw.io.kafka.read(client, topic=topic, schema=Interaction, format="json", **commit)
    users, items = _counts(interactions, "user_id"), _counts(interactions, "item_id")
    overall = users.reduce(
        total=pw.reducers.sum(users.total), users=pw.reducers.count(), last=pw.reducers.max(users.last)
    )
    rows = (
        users.select(
            row_key="agg_interactions_user-" + users.user_id,
            user_id=users.user_id,
            **{f"total_{name}": users[name] for name in _TYPES},
            total_interactions=users.total,
            avg_interactions=_ratio(users.total, sum(pw.cast(int, users[name] > 0) for name in _TYPES)),
            last_interaction=_time(users.last),
        ),
        items.select(
            row_key="agg_interactions_item-" + items.item_id,
            item_id=items.item_id,
            min_interactions=functools.reduce(_least, (_seen(items[name], items.total) for name in _TYPES)),
            max_interactions=functools.reduce(_greatest, (items[name] for name in _TYPES)),
            last_interaction=_time(items.last),
        ),
        overall.select(
            row_key="avg_interactions",
            avg_interactions=_ratio(overall.total, overall.users),
            last_interaction=_time(overall.last),
        ),
    )
    for table in rows:
        pw.io.kafka.write(table, client, topic_name=output, format="json", key=table.row_key)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


def _counts(interactions: pw.Table, key: str) -> pw.Table:
    return interactions.groupby(interactions[key]).reduce(
        interactions[key],
        **{name: pw.reducers.sum(pw.cast(int, interactions.interaction_type == name)) for name in _TYPES},
        total=pw.reducers.count(),
        last=pw.reducers.max(interactions.timestamp),
    )


def _ratio(total: Any, count: Any) -> Any:
    """Round half up to two places, in whole numbers."""
    return (200 * total + count) // (2 * count) / 100


def _time(seconds: Any) -> Any:
    return seconds.dt.utc_from_timestamp(unit="s").dt.strftime("%Y-%m-%dT%H:%M:%SZ")


def _seen(count: Any, otherwise: Any) -> Any:
    return pw.if_else(count > 0, count, otherwise)


def _least(one: Any, other: Any) -> Any:
    return pw.if_else(one < other, one, other)


def _greatest(one: Any, other: Any) -> Any:
    return pw.if_else(one > other, one, other)


if __name__ == "__main__":
    main()
