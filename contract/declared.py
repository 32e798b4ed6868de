"""The pipeline that this process runs: the one of `pipeline.py`, or of the file that the setting PIPELINE names.

The import ends the process with status 2 if the declaration is wrong.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from contract.event import Event
from contract.loading import DeclarationError, load
from contract.pipeline import Pipeline
from contract.tables import Table
from runtime import commands, dotenv

_DEFAULT: Final = Path(__file__).parents[1] / "pipeline.py"


def _file() -> Path:
    named = os.environ.get("PIPELINE")
    if not named:
        # An invalid .env is reported when the settings are read.
        with suppress(dotenv.DotenvError):
            named = dotenv.read_nearest().values.get("PIPELINE")
    if not named:
        return _DEFAULT
    file = Path(named).resolve()
    if commands.under_compose() and not os.environ.get("DECLARATION") and not os.access(file, os.R_OK):
        # A clone that was made under umask 077: files are readable only for their owner.
        print(
            "the container may not read the mounted pipeline.py, and uses the copy from the image: run"
            " `chmod go+r pipeline.py`, then `docker compose restart`, to use the mounted file",
            file=sys.stderr,
        )
        return _DEFAULT
    return file


FILE: Final = _file()


def _load() -> Pipeline:
    try:
        return load(FILE)
    except DeclarationError as error:
        print("The declaration of the pipeline is wrong (docs/adapting.md explains it):", file=sys.stderr)
        print(error, file=sys.stderr)
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
