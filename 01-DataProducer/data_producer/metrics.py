"""The producer's metrics, which Prometheus reads: docs/metrics.md."""

from typing import Final

from data_producer.publisher import Publisher
from runtime.metrics import Measurement

_ACCEPTED: Final = Measurement(
    "producer_accepted_interactions_total", "Interactions accepted by the Kafka client", type="counter"
)
_DELIVERED: Final = Measurement(
    "producer_delivered_interactions_total", "Interactions acknowledged by the broker", type="counter"
)
_REFUSED: Final = Measurement(
    "producer_refused_interactions_total", "Interactions refused by the Kafka client or the broker", type="counter"
)
_WAITING: Final = Measurement("producer_waiting_interactions", "Interactions accepted and not acknowledged yet")
REPLAYED_ROWS: Final = Measurement(
    "producer_replayed_rows_total", "Rows of the recording that are sent or skipped; of a replay only", type="counter"
)
SKIPPED_ROWS: Final = Measurement(
    "producer_skipped_rows_total",
    "Rows of the recording that are invalid; of a replay only",
    type="counter",
)


def follow(publisher: Publisher) -> None:
    """Publish the publisher's counts."""
    delivered = 0

    def count_delivered() -> int:
        nonlocal delivered
        # Three counts are read one after the other while the publisher goes on; a counter never falls.
        delivered = max(delivered, publisher.delivered)
        return delivered

    _ACCEPTED.set_function(lambda: publisher.accepted)
    _DELIVERED.set_function(count_delivered)
    _REFUSED.set_function(lambda: publisher.refused)
    _WAITING.set_function(lambda: publisher.waiting)
