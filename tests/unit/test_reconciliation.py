"""What the counts of topic, lake and index prove while data flows, on plain objects."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from observer.lake_cuts import Cut
from observer.reconciliation import NO_VERDICT, Reconciliation, State, Verdict
from observer.snapshot import Snapshot

OTHER_TOPIC = "another"


def _cut(sent: int, malformed: int | None = 0, **fields: Any) -> Cut:
    """A version of the lake after `sent` records, half of them in each of two partitions."""
    rows = sent - (malformed or 0)
    return Cut(**{"rows": rows, "offsets": _ends(sent), "topic_id": "topic", "malformed": malformed, **fields})


def _ends(sent: int) -> Mapping[int, int]:
    return {0: sent // 2, 1: sent - sent // 2}


def _snapshot(sent: int, cuts: list[Cut], indexed: int | None, **fields: Any) -> Snapshot:
    return Snapshot(sent=sent, ends=_ends(sent), cuts=tuple(cuts), indexed=indexed, **fields)


def _everywhere(sent: int) -> Snapshot:
    return _snapshot(sent, [_cut(sent)], sent)


def _stopped(sent: int, arrived: int, **fields: Any) -> Snapshot:
    """Nothing arrives since `arrived` records."""
    return _snapshot(sent, [_cut(arrived)], arrived, **fields)


def _verdicts(*snapshots: Snapshot) -> list[Verdict]:
    """The verdicts of one snapshot per second."""
    reconciliation = Reconciliation()
    return [reconciliation.add(snapshot, float(second)) for second, snapshot in enumerate(snapshots, start=100)]


def test_what_is_everywhere_is_shown_with_its_number() -> None:
    (verdict,) = _verdicts(_everywhere(41_203))
    assert verdict == Verdict(State.EQUAL, "sent 41,203 = lake = indexed: nothing lost, nothing twice")


def test_malformed_records_are_part_of_the_equation() -> None:
    (verdict,) = _verdicts(_snapshot(1_010, [_cut(1_010, malformed=10)], 1_000))
    text = "sent 1,010 = lake = indexed 1,000 + 10 malformed: nothing lost, nothing twice"
    assert verdict == Verdict(State.EQUAL, text)


def test_before_anything_was_sent_everything_is_equal() -> None:
    (verdict,) = _verdicts(_snapshot(0, [Cut(0, {}, malformed=0)], 0))
    assert verdict.text == "sent 0 = lake = indexed: nothing lost, nothing twice"


def test_under_load_the_number_is_that_of_a_version_of_the_lake_which_the_index_had_reached() -> None:
    # In each second 1,000 are sent, the lake is 100 behind them, and the index at a version before that.
    snapshots = [
        _snapshot(sent, [_cut(sent - 700), _cut(sent - 400), _cut(sent - 100)], sent - 700)
        for sent in range(1_000, 21_000, 1_000)
    ]
    verdicts = _verdicts(*snapshots)
    assert verdicts[0] == NO_VERDICT
    assert {verdict.state for verdict in verdicts[1:]} == {State.EQUAL}
    assert verdicts[-1].text == "sent 19,300 = lake = indexed: nothing lost, nothing twice"


def test_a_lost_row_is_not_hidden_by_those_that_were_sent_later() -> None:
    # From the tenth second on, the lake lacks one record; its count is soon greater than what was sent until then.
    snapshots = []
    for second in range(1, 31):
        sent, lost = second * 100, 1 if second >= 10 else 0
        rows = sent - 20 - lost
        snapshots.append(_snapshot(sent, [_cut(sent - 20, rows=rows)], rows, unread=20))
    verdicts = _verdicts(*snapshots)
    assert verdicts[8].state is State.EQUAL
    assert {verdict.state for verdict in verdicts[15:]} == {State.UNKNOWN}
    assert verdicts[-1].text.startswith("unknown: 1 offsets of the topic are neither in the lake nor malformed")


def test_a_loss_in_the_index_under_load_is_never_called_equal() -> None:
    snapshots = [
        _snapshot(sent, [_cut(sent - 300), _cut(sent - 100)], sent - 100 - 7) for sent in range(1_000, 21_000, 1_000)
    ]
    verdicts = _verdicts(*snapshots)
    assert {verdict.state for verdict in verdicts[:6]} == {State.UNKNOWN}
    assert {verdict.state for verdict in verdicts[6:]} == {State.BEHIND}


def test_an_index_between_two_versions_for_a_moment_is_not_behind() -> None:
    between = [_snapshot(1_000 + n, [_cut(1_000), _cut(1_000 + n)], 1_000 + n - 1) for n in (5, 10, 15)]
    verdicts = _verdicts(_everywhere(1_000), *between, _everywhere(1_020))
    assert {verdict.state for verdict in verdicts} == {State.EQUAL}
    assert verdicts[1].text.startswith("sent 1,000 = ")
    assert verdicts[-1].text == "sent 1,020 = lake = indexed: nothing lost, nothing twice"


def test_a_stopped_stage_is_behind_by_what_was_sent_since_and_its_recovery_is_reported_for_a_while() -> None:
    stopped = [_stopped(1_000 + 50 * n, 1_000) for n in range(1, 9)]
    verdicts = _verdicts(_everywhere(1_000), *stopped, *[_everywhere(1_400)] * 40)
    assert [verdict.state for verdict in verdicts[:9]] == [State.EQUAL] * 6 + [State.BEHIND] * 3
    assert verdicts[8].text == "catching up: 400 to go, for 8 s"
    assert verdicts[9].state is State.EQUAL
    assert verdicts[9].text == "sent 1,400 = lake = indexed: nothing lost, nothing twice (recovered in 9 s)"
    assert verdicts[39].text.endswith("(recovered in 9 s)")
    assert verdicts[40].text.endswith("nothing twice")


def test_the_number_to_go_is_of_what_is_not_in_the_index_yet() -> None:
    catching_up = [_snapshot(2_000, [_cut(2_000)], indexed) for indexed in (1_000, 1_000, 1_000, 1_200, 1_400, 1_600)]
    assert _verdicts(_everywhere(1_000), *catching_up)[-1].text == "catching up: 400 to go, for 6 s"


def test_a_backlog_at_the_start_is_no_recovery() -> None:
    verdicts = _verdicts(*[_stopped(1_000, 10)] * 10, _everywhere(1_000))
    assert verdicts[9] == Verdict(State.BEHIND, "catching up: 990 to go, for 9 s")
    assert verdicts[10].text == "sent 1,000 = lake = indexed: nothing lost, nothing twice"
    # While it is caught up with, an older part of it is everywhere.
    growing = [_stopped(1_000 + 50 * n, 10) for n in range(10)]
    verdicts = _verdicts(*growing, _stopped(1_500, 1_000), _everywhere(1_550))
    assert verdicts[10].state is State.BEHIND
    assert verdicts[-1].text == "sent 1,550 = lake = indexed: nothing lost, nothing twice"


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ({"ends": None}, "unknown: Kafka does not answer"),
        ({"indexed": None}, "unknown: Elasticsearch does not answer"),
        ({"cuts": ()}, "unknown: the lake cannot be read"),
        ({"cuts": (_cut(1_000, None),)}, "unknown: not all dead letters are known"),
    ],
)
def test_what_does_not_answer_is_named_at_once_and_nothing_is_claimed(missing: dict[str, Any], text: str) -> None:
    verdicts = _verdicts(_everywhere(1_000), replace(_everywhere(1_000), **missing))
    assert verdicts[1] == Verdict(State.UNKNOWN, text)


def test_an_outage_of_a_store_is_recovered_from_like_one_of_a_service() -> None:
    outage = [replace(_everywhere(1_000), indexed=None)] * 6
    assert _verdicts(_everywhere(1_000), *outage, _everywhere(1_000))[-1].text.endswith("(recovered in 7 s)")


def test_more_in_the_lake_than_was_sent_is_wrong() -> None:
    doubled = _snapshot(1_100, [_cut(1_100, rows=1_103)], 1_103)
    assert _verdicts(_everywhere(1_000), doubled)[1] == Verdict(State.WRONG, "3 more in the lake than were sent")


def test_a_surplus_that_is_as_old_as_the_page_is_not_called_wrong() -> None:
    # The lake has the rows of an earlier topic of the same name, which its operator has accepted.
    verdicts = _verdicts(*[_snapshot(1_000, [_cut(1_000, rows=1_500)], 1_500)] * 10)
    assert State.WRONG not in {verdict.state for verdict in verdicts}
    assert State.EQUAL not in {verdict.state for verdict in verdicts}
    recreated = _snapshot(10, [_cut(10, rows=1_010, topic_id=OTHER_TOPIC)], 1_010)
    assert {verdict.state for verdict in _verdicts(_everywhere(1_000), recreated)} == {State.EQUAL}


def test_more_in_the_index_than_in_the_lake_is_wrong() -> None:
    verdicts = _verdicts(_everywhere(1_000), _snapshot(1_000, [_cut(1_000)], 1_002))
    assert verdicts[1] == Verdict(State.WRONG, "the index counts 2 more than the lake has")


def test_fewer_in_the_index_are_wrong_once_nothing_is_on_its_way() -> None:
    drained = {"unread": 0, "in_the_lake": 1_000, "aggregated": 1_000, "published": 9, "sink_lag": 0, "uncommitted": 0}
    fewer = _snapshot(1_000, [_cut(1_000)], 997, **drained)
    assert fewer.is_drained
    verdicts = _verdicts(fewer, fewer)
    assert verdicts[0] == NO_VERDICT
    text = "the index counts 3 fewer than the lake has, and nothing is on its way"
    assert verdicts[1] == Verdict(State.WRONG, text)
    on_its_way = replace(fewer, sink_lag=3)
    assert _verdicts(*[on_its_way] * 9)[-1] == Verdict(State.BEHIND, "catching up: 3 to go, for 8 s")


def test_a_standstill_is_wrong_only_if_a_service_says_so() -> None:
    health = {"elasticsearch_sink_alert": "does not answer"}
    dead = [_stopped(2_000, 1_000, health=health)] * 62
    verdicts = _verdicts(_everywhere(1_000), *dead)
    assert verdicts[59].state is State.BEHIND
    text = "stopped for 62 s, 1,000 to go: elasticsearch_sink_alert: does not answer"
    assert verdicts[62] == Verdict(State.WRONG, text)
    for harmless in ({"elasticsearch_sink_alert": "ok"}, {"data_producer": "does not answer"}):
        slow = [_stopped(2_000, 1_000, health=harmless)] * 62
        assert _verdicts(_everywhere(1_000), *slow)[-1].state is State.BEHIND


def test_a_standstill_is_counted_from_when_there_was_something_to_do() -> None:
    idle, dead = [_everywhere(1_000)] * 100, _stopped(1_001, 1_000, health={"stream_processing": "does not answer"})
    first = _stopped(1_000, 900)
    verdicts = _verdicts(*[first] * 10, *idle, *[dead] * 50)
    assert verdicts[-1] == Verdict(State.BEHIND, "catching up: 1 to go, for 50 s")


def test_offsets_of_transactions_are_not_called_lost() -> None:
    # 13 of them are markers and aborted records.
    snapshot = _snapshot(1_013, [_cut(1_013, rows=1_000)], 1_000, unread=0)
    (first, second) = _verdicts(snapshot, snapshot)
    text = "unknown: 13 offsets of the topic are neither in the lake nor malformed: see `make verify`"
    assert first == second == Verdict(State.UNKNOWN, text)


def test_the_dead_letters_of_the_latest_batch_may_be_on_their_way() -> None:
    # The batch is not finished: it has appended its rows, and sends its 10 malformed records.
    unfinished = _snapshot(1_110, [_cut(1_000), _cut(1_110, rows=1_100)], 1_100, unread=None)
    finished = _snapshot(1_110, [_cut(1_000), _cut(1_110, malformed=10)], 1_100, unread=0)
    verdicts = _verdicts(_everywhere(1_000), *[unfinished] * 6, finished)
    assert verdicts[6] == Verdict(State.BEHIND, "catching up: 10 to go, for 6 s")
    assert verdicts[7].state is State.EQUAL


def test_a_topic_that_was_recreated_starts_again() -> None:
    empty = replace(_everywhere(0), cuts=(_cut(0, topic_id=OTHER_TOPIC),))
    filled = _snapshot(10, [_cut(10, topic_id=OTHER_TOPIC)], 10)
    behind = [_stopped(2_000, 1_000)] * 9
    verdicts = _verdicts(_everywhere(1_000), *behind, empty, filled)
    assert verdicts[-1].state is State.EQUAL
    assert verdicts[-1].text.startswith("sent 10 = ")
