"""The sink's settings."""

import sys
from pathlib import Path
from typing import Any, Final

from pydantic import PositiveInt, SecretStr, field_validator

from runtime import commands
from runtime.settings import NonEmptyStr, Port, Settings

_OWN_MAPPER: Final = Path(__file__).parents[1] / "data_mapper.yml"
"""In an image: the copy that was made when it was built."""


class SinkSettings(Settings):
    """What the sink needs to know beyond what all services do."""

    kafka_group_id: NonEmptyStr = "ElasticsearchSink-Alert"
    es_host: NonEmptyStr = "http://localhost:9200"
    """Elasticsearch's URL, or several, separated by commas."""
    es_username: str = ""
    es_password: SecretStr = SecretStr("")
    es_api_key: SecretStr = SecretStr("")
    """As Elasticsearch gives it: id and key, joined by a colon, in base64. It goes before user and password."""
    es_ca_file: Path | None = None
    """The certificate authority of Elasticsearch (PEM), if it is none that the machine knows."""
    data_mapper: Path = _OWN_MAPPER
    alert_notify: SecretStr = SecretStr("")
    """URLs of Apprise's, separated by spaces: who is told of alerts."""
    alert_webhook_url: SecretStr = SecretStr("")
    alert_webhook_secret: SecretStr = SecretStr("")
    """The webhook's requests are signed with it, if there is one."""
    alert_template: Path | None = None
    """A file with the texts of notifications; a relative path starts at the data mapper's folder."""
    alerts_per_minute: PositiveInt = 20
    """Notifications of a rule in a minute; the rest is told in a summary."""
    kibana_url: NonEmptyStr = "http://localhost:5601"
    """Where the links of notifications lead."""
    sink_batch_size: PositiveInt = 10_000
    """The most records that are indexed, and then committed, at once."""
    sink_metrics_port: Port = 9103

    @field_validator("data_mapper")
    @classmethod
    def _readable(cls, file: Path) -> Path:
        """The file; under Compose the image's copy where the mounted one may not be read, with a warning.

        A clone that was made under umask 077 is for its owner alone, who is not the container's user.
        """
        if not commands.under_compose():
            return file
        try:
            file.open("rb").close()
        except PermissionError:
            print(
                "the alert rules are those of when the image was built, for the container may not read its data mapper:"
                " `chmod -R go+rX 03-ElasticsearchSink-Alert`, then `docker compose restart` has it follow the file",
                file=sys.stderr,
            )
            return _OWN_MAPPER
        except OSError:
            pass  # Whoever loads the file reports it.
        return file

    @property
    def es_client(self) -> dict[str, Any]:
        """How the client proves who it is, and whom it trusts."""
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
        """The URLs one by one."""
        return [host.strip() for host in self.es_host.split(",") if host.strip()]
