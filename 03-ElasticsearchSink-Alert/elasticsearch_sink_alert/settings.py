"""The sink's settings."""

from pathlib import Path

from pydantic import PositiveInt

from contract.settings import NonEmptyStr, Port, Settings


class SinkSettings(Settings):
    """What the sink needs to know beyond what all services do."""

    kafka_group_id: NonEmptyStr = "ElasticsearchSink-Alert"
    es_host: NonEmptyStr = "http://localhost:9200"
    """Elasticsearch's URL, or several, separated by commas."""
    data_mapper: Path = Path(__file__).parents[1] / "data_mapper.yml"
    sink_batch_size: PositiveInt = 5_000
    """The most records that are indexed, and then committed, at once."""
    sink_metrics_port: Port = 9103

    @property
    def es_hosts(self) -> list[str]:
        """The URLs one by one."""
        return [host.strip() for host in self.es_host.split(",") if host.strip()]
