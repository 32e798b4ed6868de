"""Settings of a program that observes a pipeline: those of its servers, where its lake is, and its services."""

from pathlib import Path

from elasticsearch_sink_alert.settings import SharedSinkSettings
from pydantic import Field

from contract.declared import FILE
from runtime.settings import HttpUrl, NonEmptyStr


def default_data() -> Path:
    """Return the folder of the local stack's data, from the project's folder: each declaration has its own."""
    folder = Path(".data")
    return folder if FILE.parent == Path(__file__).parents[1] else folder / FILE.parent.name


def default_warehouse() -> str:
    """Return the folder of the local stack's Delta tables."""
    return str(default_data() / "warehouse")


class ObserverSettings(SharedSinkSettings):
    """The pipeline's own settings: Kafka, Elasticsearch, the lake and the services."""

    warehouse: NonEmptyStr = Field(default_factory=default_warehouse)
    producer_url: HttpUrl = "http://localhost:9101"
    stream_url: HttpUrl = "http://localhost:9102"
    sink_url: HttpUrl = "http://localhost:9103"

    @property
    def service_urls(self) -> dict[str, str]:
        """URLs below which each service has /health and /metrics, by package."""
        return {
            "data_producer": self.producer_url,
            "stream_processing": self.stream_url,
            "elasticsearch_sink_alert": self.sink_url,
        }


class StatusSettings(ObserverSettings):
    """The same, and whether the producer ends by itself."""

    producer_source: str = ""
    producer_limit: int = Field(default=0, ge=0)

    @property
    def producer_may_end(self) -> bool:
        """Whether the producer ends when it has sent everything."""
        return bool(self.producer_source or self.producer_limit)
