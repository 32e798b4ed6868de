"""Settings of the comparison: those of the servers, and where the lake is."""

from pathlib import Path

from elasticsearch_sink_alert.settings import SharedSinkSettings
from pydantic import Field

from observer.demo_rules import rules_of_demo
from observer.settings import default_warehouse
from runtime.settings import NonEmptyStr


class VerifySettings(SharedSinkSettings):
    """The pipeline's own settings: Kafka, Elasticsearch, the alert rules and the lake."""

    warehouse: NonEmptyStr = Field(default_factory=default_warehouse)

    @property
    def rules(self) -> Path:
        """The file with the alert rules: DATA_MAPPER, or else the one that the demo uses whose warehouse this is."""
        if "data_mapper" in self.model_fields_set:
            return self.data_mapper
        return rules_of_demo(self.warehouse) or self.data_mapper
