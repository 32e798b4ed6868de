"""The producer's settings."""

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from runtime.settings import Port, Settings


class ProducerSettings(Settings):
    """The producer's settings, in addition to those of all services."""

    random_data_max_users: PositiveInt = 10
    random_data_max_items: PositiveInt = 10
    random_data_seed: int | None = None
    """The same seed, users, items and skew generate the same interactions, except for the timestamps."""
    random_data_skew: NonNegativeFloat = 0.0
    """Exponent of the power law of users and items; 0: uniform."""
    producer_rate: NonNegativeFloat = 1.0
    """The interval: seconds between interactions; 0: as fast as possible."""
    producer_limit: NonNegativeInt = 0
    """Stop after this number of interactions; 0: no limit."""
    producer_controls: bool = False
    """Whether /control on the metrics' port, which has no authentication, changes the producer while it runs."""
    producer_metrics_port: Port = 9101
