"""A service with an additional table in its contract: ``SERVICE=stream_processing python -m tests.extra_table_job``."""

import os
import runpy
from typing import Final

from contract import tables
from contract.tables import AggregateTable, Measure

TABLE: Final = AggregateTable(
    "interactions_per_type",
    key="interaction_type",
    measures={"total": Measure.INTERACTIONS, "latest": Measure.LAST},
)

if __name__ == "__main__":
    tables.AGGREGATE_TABLES = (*tables.AGGREGATE_TABLES, TABLE)  # type: ignore[assignment, misc]
    runpy.run_module(os.environ["SERVICE"], run_name="__main__")
