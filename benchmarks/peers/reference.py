"""Computes the expected rows from the interactions one by one, and compares published rows with them."""

from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

import orjson

from contract.declared import TABLES, table_named
from contract.fields import ColumnType
from contract.keys import decode_key, encode_key

Row = dict[str, Any]

_INDEX: Final = {name: index for index, name in enumerate(("click", "like", "view", "purchase"))}
_LAST: Final = len(_INDEX)
_DATES: Final = {column.name for table in TABLES for column in table.columns if column.type is ColumnType.DATE}


class Reference:
    """The counts of all interactions that were added."""

    def __init__(self) -> None:
        # Per key: the count of each interaction type, then the latest timestamp.
        self._users: dict[str, list[int]] = {}
        self._items: dict[str, list[int]] = {}

    def add(self, value: bytes) -> int:
        """Add a record of the topic of interactions; return the number of the user's interactions until now."""
        interaction = orjson.loads(value)
        index, timestamp = _INDEX[interaction["interaction_type"]], interaction["timestamp"]
        for states, key in ((self._users, interaction["user_id"]), (self._items, interaction["item_id"])):
            state = states.get(key)
            if state is None:
                state = states[key] = [0] * (_LAST + 1)
            state[index] += 1
            state[_LAST] = max(state[_LAST], timestamp)
        return sum(self._users[interaction["user_id"]][:_LAST])

    def rows(self) -> dict[str, Row]:
        """Return the expected rows by their keys in the topic; timestamps are epoch seconds."""
        rows = {
            encode_key("agg_interactions_user", user): _user_row(user, state) for user, state in self._users.items()
        }
        rows |= {
            encode_key("agg_interactions_item", item): _item_row(item, state) for item, state in self._items.items()
        }
        if self._users:
            total = sum(sum(state[:_LAST]) for state in self._users.values())
            last = max(state[_LAST] for state in self._users.values())
            overall = {"avg_interactions": _ratio(total, len(self._users)), "last_interaction": last}
            rows[encode_key("avg_interactions", None)] = overall
        return rows


def parse_row(key: str, value: bytes) -> Row:
    """Return the declared columns of a published row; what an engine adds of its own is left out."""
    published = orjson.loads(value)
    names = [column.name for column in table_named(decode_key(key).table).columns]
    return {name: _epoch_seconds(published[name]) if name in _DATES else published[name] for name in names}


def _user_row(user: str, state: list[int]) -> Row:
    counts, total = state[:_LAST], sum(state[:_LAST])
    return {
        "user_id": user,
        **{f"total_{name}": counts[index] for name, index in _INDEX.items()},
        "total_interactions": total,
        "avg_interactions": _ratio(total, sum(count > 0 for count in counts)),
        "last_interaction": state[_LAST],
    }


def _item_row(item: str, state: list[int]) -> Row:
    seen = [count for count in state[:_LAST] if count]
    return {
        "item_id": item,
        "min_interactions": min(seen),
        "max_interactions": max(seen),
        "last_interaction": state[_LAST],
    }


def _ratio(total: int, count: int) -> float:
    return float((Decimal(total) / Decimal(count)).quantize(Decimal("0.01"), ROUND_HALF_UP))


def _epoch_seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())
