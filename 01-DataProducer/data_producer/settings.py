"""The producer's settings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from data_producer.errors import ReplayError
from data_producer.position import Position
from runtime.addresses import shown
from runtime.settings import NonEmptyStr, Port, Settings

_MIN_INTERVAL: Final = 1e-6
_MAX_INTERVAL: Final = 86_400.0
"""Seconds."""


_MIN_WAVE: Final = 1.0
"""Seconds."""


def _is_not_too_short(interval: float) -> float:
    if 0 < interval < _MIN_INTERVAL:
        raise ValueError(f"below {_MIN_INTERVAL}")
    return interval


def _is_a_wave(seconds: float) -> float:
    if 0 < seconds < _MIN_WAVE:
        raise ValueError(f"below {_MIN_WAVE}")
    return seconds


Count = Annotated[int, Field(ge=1, le=1_000_000)]
"""A number of users, of items, or of interactions in a burst; users and items are kept in memory."""
Interval = Annotated[
    float,
    Field(
        ge=0,
        le=_MAX_INTERVAL,
        allow_inf_nan=False,
        description=(
            "a number of seconds between interactions, 0 (as fast as possible)"
            f" or {_MIN_INTERVAL:f} to {_MAX_INTERVAL:,.0f}"
        ),
    ),
    AfterValidator(_is_not_too_short),
]
Wave = Annotated[
    float,
    Field(
        ge=0,
        le=_MAX_INTERVAL,
        allow_inf_nan=False,
        description=f"a number of seconds, 0 (no wave) or {_MIN_WAVE:.0f} to {_MAX_INTERVAL:,.0f}",
    ),
    AfterValidator(_is_a_wave),
]
"""The period of the wave in which the rate of random data changes."""


class ProducerSettings(Settings):
    """The producer's settings, in addition to those of all services."""

    random_data_max_users: Count = 10
    random_data_max_items: Count = 10
    random_data_seed: Annotated[int, Field(ge=0, le=2**64 - 1)] | None = None
    """The same seed, users, items and skew generate the same interactions, except for the timestamps. Not
    negative: Python takes -1 for 1."""
    random_data_skew: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Exponent of the power law of users and items; 0: uniform."""
    producer_rate: Interval = 1.0
    """The interval: seconds between interactions; 0: as fast as possible."""
    producer_wave: Wave = 0.0
    """Seconds in which the rate of random data falls to half of its mean and rises to one and a half; 0: no wave."""
    producer_limit: Annotated[int, Field(ge=0, le=1_000_000_000_000)] = 0
    """Stop after this number of interactions; 0: no limit."""
    producer_controls: bool = False
    """Whether /control on the metrics' port, which has no authentication, changes the producer while it runs."""
    producer_source: Path | None = None
    """A recorded file to replay instead of random data: CSV, JSON lines or Parquet."""
    producer_query: NonEmptyStr | None = None
    """One SELECT over the file, the table `source`; unset: the columns named like the event's fields."""
    producer_speed: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Multiple of the recorded pace; unset: the interval is the pace."""
    producer_position: Path = Path(".data/replay_position.json")
    """The file that says up to where the recording is replayed."""
    producer_metrics_port: Port = 9101

    def conflicts(self) -> Iterator[str]:
        """Yield an error for each setting that the others contradict, or that the recorded file does not fit."""
        yield from super().conflicts()
        if self.producer_source is None:
            for name, value in (("PRODUCER_QUERY", self.producer_query), ("PRODUCER_SPEED", self.producer_speed)):
                if value is not None:
                    yield (
                        f"{name}={shown(str(value))} has no effect without PRODUCER_SOURCE: set that to a recorded"
                        f" file, or remove {name}"
                    )
            return
        # Only a replay needs DuckDB, which takes a moment to import.
        from data_producer.recording import Recording

        try:
            Recording(self.producer_source, self.producer_query or "").close()
            Position.load(self.producer_position)
        except ReplayError as error:
            yield str(error)
