"""A record that the Kafka client itself refuses is counted and logged; the producer continues."""

import logging

import pytest
from data_producer.publisher import KAFKA, Publisher

from runtime.health import Health


@pytest.mark.timeout(60)
def test_a_record_that_is_too_large_is_refused_once_and_does_not_stop_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Nothing listens there, so an accepted record stays in the queue.
    publisher = Publisher({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, "topic", Health(KAFKA), 1_000_000)
    with caplog.at_level(logging.ERROR):
        publisher.publish_records([{"value": b"x" * 2_000_000}, {"value": b"small"}])
    assert (publisher.accepted, publisher.refused, publisher.waiting) == (2, 1, 1)
    assert publisher.delivered == 0
    refusals = [record.getMessage() for record in caplog.records if "was refused" in record.getMessage()]
    assert len(refusals) == 1
    assert len(refusals[0]) < 1_000
