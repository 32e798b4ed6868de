"""Computes the expected tables in plain Python, from all interactions at once."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from tests.interaction import Interaction

Tables = dict[str, dict[str, dict[str, Any]]]
"""Rows by table and row id; timestamps are epoch seconds."""


def reference_tables(interactions: Iterable[Interaction]) -> Tables:
    """Compute the rows of the three aggregate tables."""
    interactions = list(interactions)
    by_user: dict[str, list[Interaction]] = defaultdict(list)
    by_item: dict[str, list[Interaction]] = defaultdict(list)
    for interaction in interactions:
        by_user[interaction.user_id].append(interaction)
        by_item[interaction.item_id].append(interaction)
    overall = {
        "avg_interactions": _rounded_ratio(len(interactions), len(by_user)),
        "last_interaction": _last(interactions),
    }
    return {
        "agg_interactions_user": {user: _user_row(user, group) for user, group in by_user.items()},
        "agg_interactions_item": {item: _item_row(item, group) for item, group in by_item.items()},
        "avg_interactions": {"avg_interactions": overall} if interactions else {},
    }


def _user_row(user: str, interactions: list[Interaction]) -> dict[str, Any]:
    counts = Counter(interaction.interaction_type for interaction in interactions)
    return {
        "user_id": user,
        "total_click": counts["click"],
        "total_like": counts["like"],
        "total_view": counts["view"],
        "total_purchase": counts["purchase"],
        "total_interactions": len(interactions),
        "avg_interactions": _rounded_ratio(len(interactions), len(counts)),
        "last_interaction": _last(interactions),
    }


def _item_row(item: str, interactions: list[Interaction]) -> dict[str, Any]:
    counts = Counter(interaction.interaction_type for interaction in interactions)
    return {
        "item_id": item,
        "min_interactions": min(counts.values()),
        "max_interactions": max(counts.values()),
        "last_interaction": _last(interactions),
    }


def _last(interactions: list[Interaction]) -> int:
    return max(interaction.timestamp for interaction in interactions)


def _rounded_ratio(total: int, count: int) -> float:
    return float((Decimal(total) / Decimal(count)).quantize(Decimal("0.01"), ROUND_HALF_UP))


def as_epoch_seconds(row: dict[str, Any]) -> dict[str, Any]:
    """Convert the timestamps of a row, read from a table, a record or a document, to epoch seconds."""
    return {name: _epoch_seconds(value) if name == "last_interaction" else value for name, value in row.items()}


def _epoch_seconds(value: Any) -> int:
    if isinstance(value, datetime):
        return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    return int(datetime.fromisoformat(value).timestamp())
