"""The load follows from its seed, and the ledger compares what a topic has with what was sent."""

from collections import Counter
from collections.abc import Iterable

import pytest

from chaos.ledger import Balance, Ledger
from chaos.records import Records
from contract.declared import EVENT, PIPELINE
from verify.events import EventParser

_SENT = [(b"a", b"1"), (b"a", b"1"), (None, b"2"), (b"c", None), (b"", b"")]
_Found = list[tuple[int | None, bytes | None, bytes | None]]


def _ledger(acknowledged: Iterable[int] = range(5)) -> Ledger:
    ledger = Ledger()
    for key, value in _SENT:
        ledger.enter(key, value)
    for number in acknowledged:
        ledger.acknowledge(number)
    return ledger


def _all() -> _Found:
    return [(number, key, value) for number, (key, value) in enumerate(_SENT)]


def test_a_topic_with_everything_that_was_acknowledged_is_exact() -> None:
    balance = _ledger().compare(reversed(_all()))
    assert balance.is_exact
    assert balance == Balance(sent=5, acknowledged=5, found=5)
    assert list(balance.lines()) == []


def test_a_record_that_was_acknowledged_and_is_missing_is_lost() -> None:
    balance = _ledger().compare(_all()[:3])
    assert (balance.lost, balance.is_exact) == ([3, 4], False)
    assert list(balance.lines()) == ["2 records lost: numbers 3, 4"]


def test_a_record_that_is_there_twice_is_doubled() -> None:
    balance = _ledger().compare([*_all(), _all()[1], _all()[1]])
    assert (balance.doubled, balance.lost, balance.is_exact) == ([1], [], False)


def test_a_record_without_acknowledgement_may_be_there_or_not_but_not_twice() -> None:
    ledger = _ledger(acknowledged=(0, 1, 2, 3))
    assert ledger.compare(_all()).is_exact
    assert ledger.compare(_all()[:4]).is_exact
    assert ledger.compare([*_all(), _all()[4]]).doubled == [4]


@pytest.mark.parametrize("found", [(2, b"", b"2"), (2, None, b"3"), (2, b"2", None), (2, None, None)])
def test_a_record_with_other_bytes_is_changed(found: tuple[int, bytes | None, bytes | None]) -> None:
    records = _all()
    records[2] = found
    balance = _ledger().compare(records)
    assert (balance.changed, balance.is_exact) == ([2], False)


@pytest.mark.parametrize("number", [5, -1])
def test_a_record_that_was_not_sent_is_unknown(number: int) -> None:
    balance = _ledger().compare([*_all(), (number, b"a", b"1")])
    assert (balance.unknown, balance.is_exact) == (1, False)
    assert list(balance.lines()) == ["1 records with a number that was not sent"]


def test_records_of_other_producers_are_counted_and_nothing_else() -> None:
    balance = _ledger().compare([*_all(), (None, b"a", b"1")])
    assert (balance.others, balance.is_exact) == (1, True)


def test_the_load_follows_from_its_seed() -> None:
    first, second, other = (Records(seed, 1_700_000_000, 500) for seed in (1, 1, 2))
    assert [first.record(n) for n in range(2_000)] == [second.record(n) for n in reversed(range(2_000))][::-1]
    assert [first.record(n) for n in range(20)] != [other.record(n) for n in range(20)]


def test_the_load_has_valid_and_malformed_records_of_every_kind() -> None:
    parser = EventParser(EVENT, PIPELINE.keys)
    records = Records(3, 1_700_000_000, 500)
    found: Counter[tuple[str, bool]] = Counter()
    for number in range(60_000):
        record = records.record(number)
        found[record.kind, parser.parse(record.value) is not None] += 1
    valid = {kind for kind, is_valid in found if is_valid}
    malformed = {kind for kind, is_valid in found if not is_valid}
    # An id may be longer than the limit by a byte.
    assert valid == {"valid", "late", "odd id", "long id", "valid and huge"}
    assert malformed == {"long id", "huge", "no JSON", "missing field", "wrong type", "not UTF-8", "repeated field"}


def test_late_records_are_hours_old_and_fall_into_closed_windows() -> None:
    began = 1_700_000_000
    records = [Records(3, began, 500).record(number) for number in range(5_000)]
    parser = EventParser(EVENT, PIPELINE.keys)
    late = [parser.parse(record.value) for record in records if record.kind == "late"]
    ages = [began - values[EVENT.names.index(EVENT.time)] // 1_000_000 for values in late if values is not None]
    assert len(ages) == len(late) > 50
    assert min(ages) >= 3_600
    assert max(ages) <= 50 * 3_600


def test_huge_records_are_within_the_limit_of_a_topic() -> None:
    records = [Records(4, 1_700_000_000, 500).record(number) for number in range(60_000)]
    sizes = [len(record.key or b"") + len(record.value or b"") for record in records if "huge" in record.kind]
    assert len(sizes) > 5
    assert min(sizes) > 190_000
    assert max(sizes) < 1_000_000


def test_a_valid_record_is_keyed_as_the_producer_does() -> None:
    parser = EventParser(EVENT, PIPELINE.keys)
    records = [Records(5, 1_700_000_000, 500).record(number) for number in range(5_000)]
    for record in records:
        values = parser.parse(record.value)
        if values is not None:
            assert record.key == values[EVENT.names.index(EVENT.partition_by)].encode()
