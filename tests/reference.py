"""Computes the expected tables in plain Python, from all interactions at once."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from tests.interaction import INTERACTION_TYPES, Interaction

_TIMES = ("last_interaction", "minute", "hour")

Tables = dict[str, dict[str, dict[str, Any]]]
"""Rows by table and row id; timestamps are epoch seconds."""


def reference_tables(interactions: Iterable[Interaction]) -> Tables:
    """Compute the rows of the aggregate tables."""
    interactions = list(interactions)
    by_user: dict[str, list[Interaction]] = defaultdict(list)
    by_item: dict[str, list[Interaction]] = defaultdict(list)
    for interaction in interactions:
        by_user[interaction.user_id].append(interaction)
        by_item[interaction.item_id].append(interaction)
    minutes = _windows(interactions, 60, 7 * 86_400)
    hours: dict[tuple[str, int], list[Interaction]] = defaultdict(list)
    for start, group in _windows(interactions, 3_600, 30 * 86_400).items():
        for interaction in group:
            # The id of a row is too long otherwise.
            if len(_escaped(interaction.item_id).encode()) + len("|2026-01-31T12:00:00Z") <= 512:
                hours[interaction.item_id, start].append(interaction)
    overall = {
        "avg_interactions": _rounded_ratio(len(interactions), len(by_user)),
        "last_interaction": _last(interactions),
    }
    return {
        "agg_interactions_user": {user: _user_row(user, group) for user, group in by_user.items()},
        "agg_interactions_item": {item: _item_row(item, group) for item, group in by_item.items()},
        "avg_interactions": {"avg_interactions": overall} if interactions else {},
        "agg_interactions_minute": {_time(start): _minute_row(start, group) for start, group in minutes.items()},
        "agg_interactions_item_hour": {
            f"{_escaped(item)}|{_time(start)}": _hour_row(item, start, group) for (item, start), group in hours.items()
        },
    }


def _windows(interactions: list[Interaction], size: int, keep: int) -> dict[int, list[Interaction]]:
    """Return the interactions by the start of their window, without the windows that are no longer kept."""
    now = int(datetime.now(UTC).timestamp())
    # A time that is more than a day ahead is wrong.
    clock = min(now, max((i.timestamp for i in interactions if i.timestamp <= now + 86_400), default=0))
    windows: dict[int, list[Interaction]] = defaultdict(list)
    for interaction in interactions:
        start = interaction.timestamp - interaction.timestamp % size
        if start > clock - keep:
            windows[start].append(interaction)
    return windows


def _minute_row(start: int, interactions: list[Interaction]) -> dict[str, Any]:
    counts = Counter(interaction.interaction_type for interaction in interactions)
    return {
        "minute": start,
        **{f"total_{kind}": counts[kind] for kind in INTERACTION_TYPES},
        "total_interactions": len(interactions),
        "users": len({interaction.user_id for interaction in interactions}),
    }


def _hour_row(item: str, start: int, interactions: list[Interaction]) -> dict[str, Any]:
    return {
        "item_id": item,
        "hour": start,
        "total_interactions": len(interactions),
        "total_purchase": sum(interaction.interaction_type == "purchase" for interaction in interactions),
        "last_interaction": _last(interactions),
    }


def _escaped(item: str) -> str:
    return item.replace("\\", "\\\\").replace("|", "\\|")


def _time(start: int) -> str:
    return datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


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
    return {name: _epoch_seconds(value) if name in _TIMES else value for name, value in row.items()}


def _epoch_seconds(value: Any) -> int:
    if isinstance(value, datetime):
        return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    return int(datetime.fromisoformat(value).timestamp())
