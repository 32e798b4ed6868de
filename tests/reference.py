"""What the tables must hold, computed the straightforward way from all interactions at once."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from contract.interaction import Interaction

Tables = dict[str, dict[str, dict[str, Any]]]
"""Table, row id, row; timestamps as epoch seconds."""


def reference_tables(interactions: Iterable[Interaction]) -> Tables:
    """The rows of the three aggregate tables."""
    interactions = list(interactions)
    of_user: dict[str, list[Interaction]] = defaultdict(list)
    of_item: dict[str, list[Interaction]] = defaultdict(list)
    for interaction in interactions:
        of_user[interaction.user_id].append(interaction)
        of_item[interaction.item_id].append(interaction)
    overall = {
        "avg_interactions": _rounded(len(interactions), len(of_user)),
        "last_interaction": _last(interactions),
    }
    return {
        "agg_interactions_user": {user: _user_row(user, own) for user, own in of_user.items()},
        "agg_interactions_item": {item: _item_row(item, own) for item, own in of_item.items()},
        "avg_interactions": {"avg_interactions": overall} if interactions else {},
    }


def _user_row(user: str, own: list[Interaction]) -> dict[str, Any]:
    counts = Counter(interaction.interaction_type for interaction in own)
    return {
        "user_id": user,
        "total_click": counts["click"],
        "total_like": counts["like"],
        "total_view": counts["view"],
        "total_purchase": counts["purchase"],
        "total_interactions": len(own),
        "avg_interactions": _rounded(len(own), len(counts)),
        "last_interaction": _last(own),
    }


def _item_row(item: str, own: list[Interaction]) -> dict[str, Any]:
    counts = Counter(interaction.interaction_type for interaction in own)
    return {
        "item_id": item,
        "min_interactions": min(counts.values()),
        "max_interactions": max(counts.values()),
        "last_interaction": _last(own),
    }


def _last(own: list[Interaction]) -> int:
    return max(interaction.timestamp for interaction in own)


def _rounded(total: int, over: int) -> float:
    return float((Decimal(total) / Decimal(over)).quantize(Decimal("0.01"), ROUND_HALF_UP))


def as_epoch_seconds(row: dict[str, Any]) -> dict[str, Any]:
    """A row as found in a table, a record or a document, with its timestamps as epoch seconds."""
    return {name: _epoch(value) if name == "last_interaction" else value for name, value in row.items()}


def _epoch(value: Any) -> int:
    if isinstance(value, datetime):
        return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    return int(datetime.fromisoformat(value).timestamp())
