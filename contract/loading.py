"""Loads a declaration from its file, and checks all of it."""

import importlib.util
import logging
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Final

from contract.event import Event
from contract.pipeline import Pipeline
from contract.tables import Table
from runtime import commands, dotenv
from runtime.logs import escape_controls, report

_VARIABLE: Final = "PIPELINE"
"""The name that the file gives its pipeline."""


_DEFAULT: Final = Path(__file__).parents[1] / "pipeline.py"


class DeclarationError(Exception):
    """The declaration is wrong; the message has a line for each reason."""


def declared_file() -> Path:
    """Return the file that the setting PIPELINE names, or `pipeline.py`."""
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
        report(
            __name__,
            logging.WARNING,
            "the container may not read the mounted pipeline.py, and uses the copy from the image: run"
            " `chmod go+r pipeline.py`, then `docker compose restart`, to use the mounted file",
        )
        return _DEFAULT
    return file


def load(file: Path) -> Pipeline:
    """Return the pipeline that a file declares; raises `DeclarationError`."""
    pipeline = _run(file)
    problems = sorted(dict.fromkeys(_problems(file, pipeline)))
    if problems:
        raise DeclarationError("\n".join(f"{file}:{line}: {escape_controls(text)}" for line, text in problems))
    return pipeline


def _problems(file: Path, pipeline: Pipeline) -> list[tuple[int, str]]:
    line, problems = pipeline.line, []
    try:
        # The pipeline's are all; the others find the line of a value of another type than its annotation says.
        parts: tuple[Event | Table | Pipeline, ...] = (pipeline.event, *pipeline.tables, pipeline)
        for part in parts:
            line = getattr(part, "line", line)
            problems = list(part.problems())
    except Exception as error:
        what = escape_controls(f"{type(error).__name__}: {error}")
        raise DeclarationError(f"{file}:{line}: {what}: a value here is of the wrong type") from None
    return problems


def _run(file: Path) -> Pipeline:
    name = "declared_pipeline"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise DeclarationError(f"{file} is no Python file: set PIPELINE to the file with the declaration")
    if not os.access(file, os.R_OK):
        raise DeclarationError(f"{file} is not readable: run `chmod go+r` for it")
    module = importlib.util.module_from_spec(spec)
    # No folder beside it: it may be mounted read-only.
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        at = f"{error.filename}:{error.lineno}" if error.filename else str(file)
        raise DeclarationError(f"{at}: {escape_controls(error.msg)}") from None
    except Exception as error:
        lines = [each.lineno for each in traceback.extract_tb(error.__traceback__) if each.filename == str(file)]
        at = f"{file}:{lines[-1]}" if lines else str(file)
        raise DeclarationError(f"{at}: {escape_controls(f'{type(error).__name__}: {error}')}") from None
    finally:
        sys.dont_write_bytecode = written
    pipeline = getattr(module, _VARIABLE, None)
    if not isinstance(pipeline, Pipeline):
        raise DeclarationError(f"{file}: it has to set {_VARIABLE} = Pipeline(...)")
    return pipeline
