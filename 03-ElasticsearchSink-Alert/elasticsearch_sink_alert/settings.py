"""The sink's settings."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, SecretStr, field_validator

from contract import declared
from runtime import commands, logs
from runtime.addresses import require_http_urls, shown, split_list
from runtime.settings import HttpUrl, NonEmptyStr, Port, Settings, missing

_DEFAULT_MAPPER: Final = Path(__file__).parents[1] / "data_mapper.yml"
"""In an image: the copy from its build."""


def _default_mapper() -> Path:
    """Return the data mapper beside the declaration, or else the sink's own."""
    beside = declared.FILE.with_name(_DEFAULT_MAPPER.name)
    return beside if beside.exists() else _DEFAULT_MAPPER


_UrlList = Annotated[
    NonEmptyStr,
    AfterValidator(require_http_urls),
    Field(
        description="a URL with http:// or https:// and a host, such as http://localhost:9200, or several of them"
        " separated by commas"
    ),
]


class SharedSinkSettings(Settings):
    """The settings of the sink that the live page reads too: the cluster, the consumer group, the rules."""

    kafka_group_id: NonEmptyStr = "ElasticsearchSink-Alert"
    es_host: _UrlList = "http://localhost:9200"
    """One or more URLs of Elasticsearch, separated by commas."""
    es_username: str = ""
    es_password: SecretStr = SecretStr("")
    es_api_key: SecretStr = SecretStr("")
    """As Elasticsearch returns it: base64 of `id:key`. Takes precedence over user and password."""
    es_ca_file: Path | None = None
    """Certificate authority of Elasticsearch (PEM), if the machine does not trust it already."""
    data_mapper: Path = Field(default_factory=_default_mapper)

    @field_validator("data_mapper")
    @classmethod
    def _readable(cls, file: Path) -> Path:
        """Return the file; under Compose, the image's copy if the mounted file is not readable, with a warning.

        In a clone that was made under umask 077, files are readable only for their owner, not for the container's user.
        """
        if not commands.under_compose():
            return file
        try:
            file.open("rb").close()
        except PermissionError:
            logs.report(
                __name__,
                logging.WARNING,
                "the container may not read the mounted data mapper, and uses the copy from the image: run"
                " `chmod -R go+rX 03-ElasticsearchSink-Alert`, then `docker compose restart`, to use the mounted file",
            )
            return _DEFAULT_MAPPER
        except OSError:
            pass  # Loading the file reports it.
        return file

    def conflicts(self) -> Iterator[str]:
        """Yield an error for each setting that the others contradict."""
        yield from super().conflicts()
        remedy = "set both, or ES_API_KEY alone, or none of them"
        if not self.es_api_key and self.es_username and not self.es_password:
            yield missing("ES_PASSWORD", f"ES_USERNAME={shown(self.es_username)}", remedy)
        if not self.es_api_key and self.es_password and not self.es_username:
            yield missing("ES_USERNAME", "ES_PASSWORD", remedy)
        if self.es_ca_file is not None and not any(host.startswith("https://") for host in self.es_hosts):
            yield f"ES_CA_FILE has no effect with ES_HOST={shown(self.es_host)}: use https://, or remove ES_CA_FILE"

    @property
    def es_client(self) -> dict[str, Any]:
        """The client's options for authentication and TLS."""
        options: dict[str, Any] = {}
        if self.es_api_key.get_secret_value():
            options["headers"] = {"authorization": f"ApiKey {self.es_api_key.get_secret_value()}"}
        elif self.es_username:
            options["http_auth"] = (self.es_username, self.es_password.get_secret_value())
        if self.es_ca_file is not None:
            options["ca_certs"] = str(self.es_ca_file)
        return options

    @property
    def es_hosts(self) -> list[str]:
        """The URLs as a list."""
        return split_list(self.es_host)


class SinkSettings(SharedSinkSettings):
    """The settings of the sink, beyond those of all services."""

    alert_notify: SecretStr = SecretStr("")
    """Apprise URLs, separated by spaces, to which notifications of alerts are sent."""
    alert_webhook_url: SecretStr = SecretStr("")
    alert_webhook_secret: SecretStr = SecretStr("")
    """Key that signs the webhook's requests; empty: they are not signed."""
    alert_template: Path | None = None
    """A file with the texts of notifications; a relative path starts at the data mapper's folder."""
    alerts_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Notifications per rule and minute; a summary counts the rest."""
    kibana_url: HttpUrl = "http://localhost:5601"
    """Base URL of the links in notifications."""
    sink_batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Maximum number of records that are indexed, and then committed, together."""
    sink_metrics_port: Port = 9103

    def conflicts(self) -> Iterator[str]:
        """Yield an error for each setting that the others contradict."""
        yield from super().conflicts()
        if self.alert_webhook_secret and not self.alert_webhook_url:
            yield missing("ALERT_WEBHOOK_URL", "ALERT_WEBHOOK_SECRET", "set both, or remove the secret")
