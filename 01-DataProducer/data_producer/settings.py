"""The producer's settings."""

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from runtime.settings import Port, Settings


class ProducerSettings(Settings):
    """What the producer needs to know beyond what all services do."""

    random_data_max_users: PositiveInt = 10
    random_data_max_items: PositiveInt = 10
    random_data_seed: int | None = None
    """The same seed, users, items and skew give the same interactions; only their timestamps differ."""
    random_data_skew: NonNegativeFloat = 0.0
    """Exponent of the power law that users and items follow; 0: all are equally likely."""
    producer_rate: NonNegativeFloat = 1.0
    """Seconds between interactions; 0: as fast as it goes."""
    producer_limit: NonNegativeInt = 0
    """Stop after so many interactions; 0: go on until stopped."""
    producer_controls: bool = False
    """Whether anybody who reaches the metrics' port may change rate, users and items, or ask for more."""
    producer_metrics_port: Port = 9101
