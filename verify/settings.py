"""Settings of the comparison: those of the servers, and where the lake is."""

from pathlib import Path

from elasticsearch_sink_alert.settings import SharedSinkSettings
from pydantic import Field

from contract.declared import FILE
from runtime.settings import NonEmptyStr


def _default_warehouse() -> str:
    """Return the folder of the local stack: each declaration has its own."""
    folder = Path(".data")
    is_default = FILE.parent == Path(__file__).parents[1]
    return str((folder if is_default else folder / FILE.parent.name) / "warehouse")


class VerifySettings(SharedSinkSettings):
    """The pipeline's own settings: Kafka, Elasticsearch, the alert rules and the lake."""

    warehouse: NonEmptyStr = Field(default_factory=_default_warehouse)
