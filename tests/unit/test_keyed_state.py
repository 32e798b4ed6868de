"""The counts in memory: merged batch by batch, they are those of all interactions at once."""

import json
import random
from datetime import UTC, datetime

import polars as pl
import pytest
from stream_processing.engines import POLARS
from stream_processing.keyed_state import ROW_ID, KeyedState, select_rows
from stream_processing.lake import EVENT_FRAME
from stream_processing.measures import EVENTS, record_key, record_value

from contract.declared import EVENT, TABLES
from contract.measures import Operation, StateColumn
from contract.tables import Key
from tests.interaction import INTERACTION_TYPES, Interaction
from tests.reference import as_epoch_seconds, reference_tables

_USERS = Key(("user_id",))


def _likes() -> StateColumn:
    return StateColumn(Operation.COUNT, None, ((EVENT.field("interaction_type"), "like"),))


def _frame(interactions: list[Interaction]) -> pl.LazyFrame:
    rows = [(i.user_id, i.item_id, i.interaction_type, datetime.fromtimestamp(i.timestamp, UTC)) for i in interactions]
    return pl.LazyFrame(rows, schema=EVENT_FRAME, orient="row")


def _random_interactions(rng: random.Random, count: int) -> list[Interaction]:
    return [
        Interaction(
            f"user_{rng.randrange(20)}",
            f"item_{rng.randrange(5)}",
            rng.choice(INTERACTION_TYPES),
            10**9 + rng.randrange(20_000),
        )
        for _ in range(count)
    ]


def _add(state: KeyedState, interactions: list[Interaction]) -> pl.DataFrame:
    """Return the new states of the changed values."""
    changed = state.add(_frame(interactions))
    return select_rows(state.rows, state.key, changed)


@pytest.mark.parametrize("seed", range(5))
def test_batches_add_up_to_the_tables_of_all_interactions(seed: int) -> None:
    rng = random.Random(seed)
    interactions = _random_interactions(rng, 500)
    tables = [table for table in TABLES if table.key]
    states = {table.key: KeyedState(table.key) for table in tables}
    published: dict[str, dict[str, object]] = {}
    rest = interactions
    while rest:
        size = rng.randint(1, 60)
        batch, rest = rest[:size], rest[size:]
        for table in tables:
            changed = _add(states[table.key], batch)
            for name in table.key.fields:
                assert set(changed[name]) == {getattr(interaction, name) for interaction in batch}
            records = changed.select(key=record_key(POLARS, table), value=record_value(POLARS, table))
            published |= {key: as_epoch_seconds(json.loads(value)) for key, value in records.iter_rows()}
    expected = {
        f"{table.name}-{row_id}": row
        for table in tables
        for row_id, row in reference_tables(interactions)[table.name].items()
    }
    assert published == expected


def test_a_row_is_json_as_the_contract_has_it() -> None:
    state = KeyedState(_USERS)
    changed = _add(state, [Interaction('a"\\\n\x01ü🙂', "item", "like", 253_402_300_799)])
    (value,) = changed.select(record_value(POLARS, TABLES[0])).to_series()
    row = json.loads(value)
    assert row["user_id"] == 'a"\\\n\x01ü🙂'
    assert row["last_interaction"] == "9999-12-31T23:59:59.000Z"
    assert (row["total_like"], row["total_view"], row["avg_interactions"]) == (1, 0, 1.0)


def test_the_overall_state_covers_all_values() -> None:
    state = KeyedState(Key())
    interactions = _random_interactions(random.Random(1), 100)
    for part in (interactions[:30], [], interactions[30:]):
        assert len(state.add(_frame(part))) == min(1, len(part))
    (overall,) = state.rows.to_dicts()
    assert overall[EVENTS.name] == 100
    last = StateColumn(Operation.MOST, EVENT.field("timestamp"))
    assert overall[last.name] == datetime.fromtimestamp(max(i.timestamp for i in interactions), UTC)


def test_rows_do_not_change_afterwards() -> None:
    state = KeyedState(_USERS)
    before, after = (_random_interactions(random.Random(seed), 100) for seed in (1, 2))
    state.add(_frame(before))
    rows = state.rows
    copy = select_rows(rows, _USERS).to_dicts()
    state.add(_frame(after))
    assert select_rows(rows, _USERS).to_dicts() == copy
    assert select_rows(state.rows, _USERS).to_dicts() != copy


def test_values_are_found_again_after_a_restart_in_another_order() -> None:
    interactions = _random_interactions(random.Random(1), 200)
    state = KeyedState(_USERS)
    state.add(_frame(interactions))
    rows = select_rows(state.rows, _USERS)
    restarted = KeyedState(_USERS, rows.reverse())
    changed = _add(restarted, interactions)
    twice = KeyedState(_USERS)
    twice.add(_frame(interactions * 2))
    assert changed.sort("user_id").equals(select_rows(twice.rows, _USERS).sort("user_id"))


def test_a_hundred_thousand_values_are_numbered_in_their_order() -> None:
    state = KeyedState(_USERS)
    for start in (0, 50_000):
        users = [f"user_{n}" for n in range(start, start + 100_000)]
        changed = _add(state, [Interaction(user, "item", "like", 0) for user in users])
        assert sorted(changed["user_id"]) == sorted(users)
    assert len(state) == 150_000
    assert sum(state.rows[_likes().name]) == 200_000
    assert state.estimated_bytes > 150_000 * (6 * 8 + len("user_10000"))


def test_many_appends_with_new_values_leave_few_chunks() -> None:
    state = KeyedState(_USERS)
    for n in range(200):
        state.add(_frame([Interaction(f"u{n}", "i", "like", 0)]))
    assert list(state.rows[ROW_ID].cast(pl.String)) == [f"u{n}" for n in range(200)]
    assert max(column.n_chunks() for column in state.rows) < 70
