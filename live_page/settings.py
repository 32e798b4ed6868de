"""Settings of the live page."""

from typing import Annotated

from elasticsearch_sink_alert.settings import SharedSinkSettings
from pydantic import Field

from runtime.settings import HttpUrl, NonEmptyStr


class PageSettings(SharedSinkSettings):
    """Settings of the page, and the sink's that it shares: it queries the same servers and shows the same rules."""

    page_host: NonEmptyStr = "127.0.0.1"
    """Address to listen on."""
    page_port: Annotated[int, Field(ge=1, le=65535, description="a port from 1 to 65535")] = 8090
    page_names: str = ""
    """Host names of the page besides localhost, separated by commas."""
    warehouse: NonEmptyStr = ".data/warehouse"
    producer_url: HttpUrl = "http://localhost:9101"
    stream_url: HttpUrl = "http://localhost:9102"
    sink_url: HttpUrl = "http://localhost:9103"
    processes_file: str = ""
    """The file in which a local stack lists its processes; empty: none of them can be killed from here."""
    sql_seconds: float = Field(default=5.0, gt=0, le=300)
    """Timeout of a query over the lake."""

    @property
    def service_urls(self) -> dict[str, str]:
        """URLs below which each service has /health and /metrics, by package."""
        return {
            "data_producer": self.producer_url,
            "stream_processing": self.stream_url,
            "elasticsearch_sink_alert": self.sink_url,
        }
