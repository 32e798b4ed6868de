"""The settings: read from the environment and from `.env`, typed, and validated before anything starts."""

import logging
import os
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError, PydanticKnownError
from pydantic_settings import BaseSettings, SettingsConfigDict

from contract.topics import aggregated_topic_name, dead_letter_topic_name
from runtime import dotenv, expectations, logs, proxies
from runtime.addresses import quoted, require_brokers, require_http_url

NonEmptyStr = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Port = Annotated[int, Field(ge=0, le=65535, description="a port from 0 to 65535")]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
"""A duration of up to a day: longer ones overflow in the libraries that wait."""
TopicName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-zA-Z0-9._-]{1,230}$"),
    Field(description="1 to 230 letters (a to z), digits, dots, hyphens and underscores"),
]
BrokerList = Annotated[
    NonEmptyStr,
    AfterValidator(require_brokers),
    Field(description="host:port, such as localhost:9092 or [::1]:9092, or several of them separated by commas"),
]
HttpUrl = Annotated[
    NonEmptyStr,
    AfterValidator(require_http_url),
    Field(description="a URL with http:// or https:// and a host, such as http://localhost:8080"),
]
_SECRETS = Path("/run/secrets")
"""The folder of Docker's secrets."""
_NOT_UTF_8: Final = "string_unicode"
"""Pydantic's type of this error."""
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
LogFormat = Literal["text", "json"]


class SettingsError(Exception):
    """Settings are wrong; the message has a line for each reason."""


def missing(setting: str, needed_by: str, remedy: str) -> str:
    """Return the error of a setting that another one needs.

    >>> missing("ES_PASSWORD", "ES_USERNAME", "set both")
    'ES_PASSWORD is not set, but ES_USERNAME needs it: set both'
    """
    return f"{setting} is not set, but {needed_by} needs it: {remedy}"


class Settings(BaseSettings):
    """The settings of every service; each service adds its own.

    Environment variables take precedence over the nearest `.env` (in the working directory or a parent), and that over
    files in /run/secrets, where Docker puts secrets, named like the setting in lower case. An empty value counts as
    unset. Values in `.env` are literal: a $ is a $.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True, allow_inf_nan=False)

    kafka_broker: BrokerList = "localhost:9092"
    """Bootstrap servers, host:port, separated by commas."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    kafka_username: str = ""
    kafka_password: SecretStr = SecretStr("")
    kafka_ca_file: Path | None = None
    """The brokers' certificate authority (PEM); unset: those that the machine trusts."""
    pipeline: Path | None = None
    """The file with the declaration of the pipeline; unset: `pipeline.py` of this project. Read by `contract.declared`
    before any other setting."""
    kafka_topic: TopicName = "avroic"
    kafka_topic_partition: Annotated[int, Field(ge=1, le=10_000)] = 4
    kafka_topic_replication_factor: Annotated[int, Field(ge=1, le=10_000)] = 1
    """The maximum is that of the client library."""
    loop_sleep: Annotated[float, Field(ge=0, le=86_400)] = 2.0
    """Seconds between two polls while there is no new data."""
    log_level: LogLevel = "INFO"
    log_format: LogFormat = "text"
    """Of the services' logs; a command prints text."""
    metrics_host: str = "127.0.0.1"
    """The address that /health and /metrics listen on."""
    otel_exporter_otlp_endpoint: HttpUrl | None = None
    """Base URL of the collector that producer, stream job and sink send traces to, over OTLP/HTTP; unset: no traces."""
    otel_traces_sampler_arg: Annotated[float, Field(ge=0, le=1)] = 0.01
    """The share of the producer's interactions that start a trace; the other services continue it."""

    @property
    def kafka_client(self) -> dict[str, str | int]:
        """The connection options of a librdkafka client."""
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
        return aggregated_topic_name(self.kafka_topic)

    @property
    def dead_letter_topic(self) -> str:
        """The topic of dead letters."""
        return dead_letter_topic_name(self.kafka_topic)

    def conflicts(self) -> Iterator[str]:
        """Yield an error for each setting that the others contradict; subclasses add theirs."""
        protocol = self.kafka_security_protocol
        if protocol.startswith("SASL"):
            for name, value in (("KAFKA_USERNAME", self.kafka_username), ("KAFKA_PASSWORD", self.kafka_password)):
                if not value:
                    remedy = "set it, or set KAFKA_SECURITY_PROTOCOL to PLAINTEXT or SSL"
                    yield missing(name, f"KAFKA_SECURITY_PROTOCOL={protocol}", remedy)
        if self.kafka_ca_file is not None and not protocol.endswith("SSL"):
            yield (
                f"KAFKA_CA_FILE has no effect with KAFKA_SECURITY_PROTOCOL={protocol}: set that to SSL or SASL_SSL, or"
                " remove KAFKA_CA_FILE"
            )

    @field_validator("*")
    @classmethod
    def _is_unicode(cls, value: Any) -> Any:
        """Refuse a variable of the environment that is not UTF-8: libraries cannot take its surrogates."""
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if isinstance(text, str | Path):
            try:
                str(text).encode()
            except UnicodeEncodeError:
                raise PydanticKnownError(_NOT_UTF_8) from None
        return value

    @model_validator(mode="after")
    def _have_no_conflicts(self) -> Self:
        if conflicts := "\n".join(self.conflicts()):
            raise PydanticCustomError("conflicts", "{conflicts}", {"conflicts": conflicts})
        return self

    @classmethod
    def load(cls) -> Self:
        """Read the settings, and print a warning for each line of `.env` that has no effect.

        If settings are wrong or `.env` is invalid, it prints every error and exits with status 2. It exempts the local
        servers that the settings name from the environment's proxy.
        """
        try:
            file = dotenv.read_nearest()
            for warning in file.warnings:
                logs.report(__name__, logging.WARNING, warning)
            for name in cls.model_fields:
                # Libraries read some of them too, and do not take an empty value for unset.
                if os.environ.get(name.upper()) == "":
                    del os.environ[name.upper()]
            settings = cls.read(file.values)
        except dotenv.DotenvError as error:
            logs.report(__name__, logging.ERROR, str(error))
            raise SystemExit(2) from None
        except SettingsError as error:
            lines = textwrap.indent(str(error), "  ")
            text = f"These settings are wrong (.env.example explains each of them):\n{lines}"
            logs.report(__name__, logging.ERROR, text)
            raise SystemExit(2) from None
        values = (getattr(settings, name) for name in cls.model_fields)
        plain_values = (value.get_secret_value() if isinstance(value, SecretStr) else value for value in values)
        proxies.exempt_local_hosts(value for value in plain_values if isinstance(value, str))
        return settings

    @classmethod
    def read(cls, dotenv_values: Mapping[str, str], overriding: Mapping[str, str] | None = None) -> Self:
        """Read the settings from `overriding`, the environment, `.env` and the secrets, in order of precedence.

        Names are in upper case. Raises `SettingsError` with a line for each error.
        """
        # Arguments take precedence over the environment, so they leave out what the environment sets.
        in_environment = {name.upper() for name, value in os.environ.items() if value}
        values: dict[str, Any] = {
            name: dotenv_values[name.upper()]
            for name in cls.model_fields
            if dotenv_values.get(name.upper()) and name.upper() not in in_environment
        }
        values |= {
            name.lower(): value for name, value in (overriding or {}).items() if name.lower() in cls.model_fields
        }
        # A keyword of pydantic's own, which type checkers do not know.
        values["_secrets_dir"] = _SECRETS if _SECRETS.is_dir() else None
        try:
            return cls(**values)
        except ValidationError as error:
            errors = error.errors()
        if wrong := {str(each["loc"][0]) for each in errors if each["loc"]}:
            # Conflicts are checked once every setting is valid: here with defaults instead of the wrong values.
            try:
                cls(**values | {name: cls.model_fields[name].default for name in wrong})
            except ValidationError as error:
                errors += error.errors()
        allowed = cls.model_json_schema()["properties"]
        raise SettingsError("\n".join(_line(error, allowed) for error in errors))


def _line(error: ErrorDetails, allowed: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the setting, its value and what is `allowed` (the JSON schema by name); or a conflict's own line."""
    if not error["loc"]:
        return error["msg"]
    name = str(error["loc"][0])
    schemas = (allowed[name], *allowed[name].get("anyOf", ()))
    is_secret = any(schema.get("format") == "password" for schema in schemas)
    value = "***" if is_secret else quoted(str(error["input"]))
    expected = "text in UTF-8" if error["type"] == _NOT_UTF_8 else expectations.describe(allowed[name])
    return f"{name.upper()}={value}: expected {expected}"
