"""Settings: read from the environment and from `.env`, typed, and checked before anything starts."""

import os
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, SecretStr, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from runtime import dotenv, proxies

NonEmptyStr = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Port = Annotated[int, Field(ge=0, le=65535)]
TopicName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9._-]{1,230}$")]
_SECRETS = Path("/run/secrets")
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class SettingsError(Exception):
    """Settings are wrong, or `.env` cannot be read; the message has a line for each reason."""


class Settings(BaseSettings):
    """What every service needs to know; a service's own settings extend it.

    A variable of the environment goes before the same name in the nearest `.env`, searched from the
    working directory upwards, and that before a file of that name (in small letters) in /run/secrets,
    where Docker puts secrets. An empty value counts as unset. In `.env` a value is what is written: a $ is a $.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

    kafka_broker: NonEmptyStr = "localhost:9092"
    """Bootstrap servers, host:port, separated by commas."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    kafka_username: str = ""
    kafka_password: SecretStr = SecretStr("")
    kafka_ca_file: Path | None = None
    """The certificate authority of the brokers (PEM), if it is none that the machine knows."""
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
        client: dict[str, str | int] = {
            "bootstrap.servers": self.kafka_broker,
            "reconnect.backoff.max.ms": 5000,
            "security.protocol": self.kafka_security_protocol,
        }
        if self.kafka_security_protocol.startswith("SASL"):
            client |= {
                "sasl.mechanism": self.kafka_sasl_mechanism,
                "sasl.username": self.kafka_username,
                "sasl.password": self.kafka_password.get_secret_value(),
            }
        if self.kafka_ca_file is not None:
            client["ssl.ca.location"] = str(self.kafka_ca_file)
        return client

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
        """Read the settings, and print a warning for each line of `.env` that has no effect.

        On a wrong one print every wrong one by name, and exit with status 2; likewise where `.env` cannot be read.
        From then on no proxy is used for servers that the settings name on this machine or in a container next to it.
        """
        try:
            file = dotenv.read_nearest()
            for warning in file.warnings:
                print(warning, file=sys.stderr)
            for name in cls.model_fields:
                # Libraries read some of them too, and would take an empty address or key for one.
                if os.environ.get(name.upper()) == "":
                    del os.environ[name.upper()]
            settings = cls.read(file.values)
        except dotenv.DotenvError as error:
            print(error, file=sys.stderr)
            raise SystemExit(2) from None
        except SettingsError as error:
            print("These settings are wrong (.env.example explains each of them):", file=sys.stderr)
            print(textwrap.indent(str(error), "  "), file=sys.stderr)
            raise SystemExit(2) from None
        written = (getattr(settings, name) for name in cls.model_fields)
        values_as_text = (value.get_secret_value() if isinstance(value, SecretStr) else value for value in written)
        proxies.exempt_near(value for value in values_as_text if isinstance(value, str))
        return settings

    @classmethod
    def read(cls, dotenv_values: Mapping[str, str], overriding: Mapping[str, str] | None = None) -> Self:
        """Read the settings: those of `overriding`, of the environment, of `.env`, of the secrets, in this order.

        Names are in capital letters. Raises `SettingsError` with a line for each wrong one.
        """
        # As arguments they take precedence over everything, so those that the environment has are left out.
        set_otherwise = {name.upper() for name, value in os.environ.items() if value}
        values: dict[str, Any] = {
            name: dotenv_values[name.upper()]
            for name in cls.model_fields
            if dotenv_values.get(name.upper()) and name.upper() not in set_otherwise
        }
        values |= {
            name.lower(): value for name, value in (overriding or {}).items() if name.lower() in cls.model_fields
        }
        secrets = _SECRETS if _SECRETS.is_dir() else None
        try:
            # A keyword of pydantic's own.
            return cls(**values, _secrets_dir=secrets)  # type: ignore[call-arg]
        except ValidationError as error:
            lines = (
                f"{'_'.join(map(str, problem['loc'])).upper() or 'settings'}={problem['input']!r}: {problem['msg']}"
                for problem in error.errors()
            )
            raise SettingsError("\n".join(lines)) from None
