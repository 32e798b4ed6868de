"""The default declaration with one more table, by the interaction type."""

from dataclasses import replace
from pathlib import Path

from contract.declaration import Table, count, latest
from contract.loading import load

DEFAULT = load(Path(__file__).parents[2] / "pipeline.py")

TABLE = Table(
    "interactions_per_type",
    DEFAULT.event,
    key=("interaction_type",),
    measures={"total": count(), "latest": latest("timestamp")},
)

PIPELINE = replace(DEFAULT, tables=(*DEFAULT.tables, TABLE))
