"""Only committed records of a transaction count, in every reader."""

from collections.abc import Sequence
from uuid import uuid4

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from local_stack.services import STREAM
from tests.interaction import INTERACTION_TYPES, Interaction
from tests.pipeline import Pipeline, assert_equal, eventually


def _interactions(count: int, first: int = 0) -> list[Interaction]:
    return [
        Interaction(f"user_{n % 9}", f"item_{n % 5}", INTERACTION_TYPES[n * n % 4], 1_700_000_000 + n)
        for n in range(first, first + count)
    ]


class _Transaction:
    """A transaction that has begun, with records that the broker has acknowledged."""

    def __init__(self, pipeline: Pipeline, values: Sequence[bytes]) -> None:
        self._producer = Producer({"bootstrap.servers": pipeline.kafka, "transactional.id": uuid4().hex})
        self._producer.init_transactions(60)
        self._producer.begin_transaction()
        for n, value in enumerate(values):
            self._producer.produce(pipeline.topic, key=b"key", value=value, partition=n % 4)
        assert self._producer.flush(60) == 0

    def commit(self) -> None:
        self._producer.commit_transaction(60)

    def abort(self) -> None:
        self._producer.abort_transaction(60)


def _values(interactions: Sequence[Interaction]) -> list[bytes]:
    return [orjson.dumps(interaction) for interaction in interactions]


def _ends(pipeline: Pipeline) -> list[int]:
    consumer = Consumer({"bootstrap.servers": pipeline.kafka, "group.id": "tests"})
    try:
        return [consumer.get_watermark_offsets(TopicPartition(pipeline.topic, n), timeout=30)[1] for n in range(4)]
    finally:
        consumer.close()


def test_records_of_an_uncommitted_transaction_do_not_count(pipeline: Pipeline) -> None:
    before, committed, uncommitted, after_open = (_interactions(40, first) for first in (0, 40, 80, 120))
    with pipeline.running(STREAM):
        # A batch of aborted records only, which ends with them.
        _Transaction(pipeline, _values(_interactions(40, 1_000))).abort()
        pipeline.send_interactions(before)
        _Transaction(pipeline, [*_values(committed), b"malformed"]).commit()
        eventually(lambda: pipeline.assert_published(before + committed))
        hanging = _Transaction(pipeline, _values(uncommitted))
        # After the open transaction, and so not read before it ends.
        pipeline.send_interactions(after_open)
        pipeline.send(pipeline.topic, [])
        _Transaction(pipeline, [*_values(_interactions(40, 2_000)), b"aborted and malformed"]).abort()
        assert len(pipeline.interactions(ignore=[b"malformed"])) == 80
        pipeline.assert_published(before + committed)
        hanging.commit()
        everything = before + committed + uncommitted + after_open
        eventually(lambda: pipeline.assert_published(everything))
        pipeline.assert_in_the_lake(everything)
        eventually(lambda: _assert_dead_letters(pipeline, [b"malformed"]))
        # The topic ends with aborted records, and the job has processed all others.
        _Transaction(pipeline, _values(_interactions(40, 3_000))).abort()
    assert sum(_ends(pipeline)) > len(pipeline.read(pipeline.topic))

    # The next start finds a topic with an end that no reader can reach.
    with pipeline.running(STREAM):
        more = _interactions(40, 160)
        pipeline.send_interactions(more)
        eventually(lambda: pipeline.assert_published(everything + more))
        pipeline.assert_in_the_lake(everything + more)
    _assert_dead_letters(pipeline, [b"malformed"])


def _assert_dead_letters(pipeline: Pipeline, values: list[bytes]) -> None:
    assert_equal([message.value() for message in pipeline.read(pipeline.settings.dead_letter_topic)], values)
