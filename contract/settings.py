"""Settings: read from the environment and from `.env`, typed, and checked before anything starts."""

import sys
from typing import Annotated, Literal, Self

from dotenv import find_dotenv
from pydantic import Field, NonNegativeFloat, PositiveInt, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

NonEmptyStr = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Port = Annotated[int, Field(ge=0, le=65535)]
TopicName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9._-]{1,230}$")]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class Settings(BaseSettings):
    """What every service needs to know; a service's own settings extend it.

    A variable of the environment goes before the same name in the nearest `.env`, searched from the
    working directory upwards. An empty value counts as unset.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

    kafka_broker: NonEmptyStr = "localhost:9092"
    """Bootstrap servers, host:port, separated by commas."""
    kafka_topic: TopicName = "avroic"
    kafka_topic_partition: PositiveInt = 4
    kafka_topic_replication_factor: PositiveInt = 1
    loop_sleep: NonNegativeFloat = 2.0
    """Seconds between looks while there is no new data."""
    log_level: LogLevel = "INFO"
    metrics_host: str = "127.0.0.1"
    """The address that /health and /metrics listen on."""

    @property
    def kafka_client(self) -> dict[str, str | int]:
        """How a librdkafka client reaches the broker."""
        return {"bootstrap.servers": self.kafka_broker, "reconnect.backoff.max.ms": 5000}

    @property
    def aggregated_topic(self) -> str:
        """The compacted topic of changed rows."""
        return f"{self.kafka_topic}_aggregated"

    @property
    def dead_letter_topic(self) -> str:
        """The topic of records that did not fit."""
        return f"{self.kafka_topic}_dead_letter"

    @classmethod
    def load(cls) -> Self:
        """Read the settings; on a wrong one print every wrong one by name, and exit with status 2."""
        try:
            return cls(_env_file=find_dotenv(usecwd=True) or None)  # type: ignore[call-arg]  # a keyword of pydantic's
        except ValidationError as error:
            print("These settings are wrong (.env.example explains each of them):", file=sys.stderr)
            for problem in error.errors():
                name = "_".join(map(str, problem["loc"])).upper() or "settings"
                print(f"  {name}={problem['input']!r}: {problem['msg']}", file=sys.stderr)
            raise SystemExit(2) from None
