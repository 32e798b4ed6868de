"""Settings of the comparison: those of the servers, and where the lake is."""

from pathlib import Path

from elasticsearch_sink_alert.settings import SharedSinkSettings
from pydantic import Field

from observer.settings import default_warehouse
from runtime.settings import NonEmptyStr


class VerifySettings(SharedSinkSettings):
    """The pipeline's own settings: Kafka, Elasticsearch, the alert rules and the lake."""

    warehouse: NonEmptyStr = Field(default_factory=default_warehouse)

    @property
    def rules(self) -> Path:
        """The file with the alert rules: DATA_MAPPER, or else the one that the demo uses whose warehouse this is."""
        of_demo = Path(self.warehouse).with_name("data_mapper.yml")
        return of_demo if "data_mapper" not in self.model_fields_set and of_demo.exists() else self.data_mapper
