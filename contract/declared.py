"""The pipeline that this process runs: the one of `pipeline.py`, or of the file that the setting PIPELINE names.

The import ends the process with status 2 if the declaration is wrong.
"""

import logging
from typing import Final

from contract.event import Event
from contract.loading import DeclarationError, declared_file, load
from contract.pipeline import Pipeline
from contract.tables import Table
from runtime.logs import report

FILE: Final = declared_file()


def _load() -> Pipeline:
    try:
        return load(FILE)
    except DeclarationError as error:
        text = f"The declaration of the pipeline is wrong (docs/adapting.md explains it):\n{error}"
        report(__name__, logging.ERROR, text)
        raise SystemExit(2) from None


PIPELINE: Final = _load()
EVENT: Final[Event] = PIPELINE.event
TABLES: Final[tuple[Table, ...]] = PIPELINE.tables


def table_named(name: str) -> Table:
    """Return the table with this name; raises KeyError if it is not declared."""
    for table in TABLES:
        if table.name == name:
            return table
    raise KeyError(name)
