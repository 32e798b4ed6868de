"""The page's settings."""

from elasticsearch_sink_alert.settings import SinkSettings
from pydantic import Field

from runtime.settings import NonEmptyStr, Port


class PageSettings(SinkSettings):
    """What the page needs to know beyond what the sink does: it asks the same servers, and shows the same rules."""

    page_host: NonEmptyStr = "127.0.0.1"
    """The address that the page listens on."""
    page_port: Port = 8090
    page_names: str = ""
    """Names, separated by commas, by which browsers may call the page, beside localhost."""
    warehouse: NonEmptyStr = ".data/warehouse"
    producer_url: NonEmptyStr = "http://localhost:9101"
    stream_url: NonEmptyStr = "http://localhost:9102"
    sink_url: NonEmptyStr = "http://localhost:9103"
    sql_seconds: float = Field(default=5.0, gt=0, le=300)
    """The longest that a query over the lake may take."""

    @property
    def service_urls(self) -> dict[str, str]:
        """Where each service has its /health and /metrics."""
        return {
            "data_producer": self.producer_url,
            "stream_processing": self.stream_url,
            "elasticsearch_sink_alert": self.sink_url,
        }
