"""The sink's settings."""

from pathlib import Path
from typing import Any

from pydantic import PositiveInt, SecretStr

from contract.settings import NonEmptyStr, Port, Settings


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
    data_mapper: Path = Path(__file__).parents[1] / "data_mapper.yml"
    alert_notify: SecretStr = SecretStr("")
    """URLs of Apprise's, separated by spaces: who is told of alerts."""
    alert_webhook_url: SecretStr = SecretStr("")
    alert_webhook_secret: SecretStr = SecretStr("")
    """The webhook's requests are signed with it, if there is one."""
    alerts_per_minute: PositiveInt = 20
    """Notifications of a rule in a minute; the rest is told in a summary."""
    kibana_url: NonEmptyStr = "http://localhost:5601"
    """Where the links of notifications lead."""
    sink_batch_size: PositiveInt = 10_000
    """The most records that are indexed, and then committed, at once."""
    sink_metrics_port: Port = 9103

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
