"""Settings of the comparison: those of the servers, and where the lake is."""

from elasticsearch_sink_alert.settings import SharedSinkSettings
from pydantic import Field

from observer.settings import default_warehouse
from runtime.settings import NonEmptyStr


class VerifySettings(SharedSinkSettings):
    """The pipeline's own settings: Kafka, Elasticsearch, the alert rules and the lake."""

    warehouse: NonEmptyStr = Field(default_factory=default_warehouse)
