"""Reads `.env`: values exactly as written, and a warning with the line number for each likely mistake."""

import difflib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from io import StringIO
from os import path
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Final

from dotenv.parser import Binding, parse_stream

from runtime.addresses import shown

_EXAMPLE: Final = Path(__file__).parents[1] / ".env.example"
"""Lists every setting. The images do not contain it, as their settings come from Compose."""
_NAME_IN_EXAMPLE: Final = re.compile(r"^(?:# )?([A-Z][A-Z_]*)=", re.MULTILINE)
"""A setting that is commented out has another default in the demo."""
_COMPOSE_PREFIXES: Final = ("COMPOSE_", "DOCKER_")
"""Prefixes of names that Docker Compose itself reads from the same file."""
_MIN_SIMILARITY: Final = 0.8
"""From 0 to 1: an unknown name that is this similar to a setting's name is reported as a misspelling of it."""
_VIRTUAL_ENVIRONMENT: Final = "pyvenv.cfg"


class DotenvError(Exception):
    """The file is invalid; the message has a line for each reason."""


@dataclass(frozen=True)
class Dotenv:
    """The content of a `.env` file."""

    values: dict[str, str]
    """By name, in upper case."""
    warnings: tuple[str, ...]
    """A line for each name that has no effect, or another than the file suggests."""


def known_names() -> frozenset[str]:
    """Return the names of all settings of all services; none if `.env.example` does not exist."""
    try:
        example = _EXAMPLE.read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    return frozenset(_NAME_IN_EXAMPLE.findall(example))


def find(start: Path) -> Path | None:
    """Return the nearest `.env` in `start` and its parents; a virtual environment of that name does not count."""
    for folder in (start, *start.parents):
        candidate = folder / ".env"
        if path.lexists(candidate) and not path.lexists(candidate / _VIRTUAL_ENVIRONMENT):
            return candidate
    return None


def read_nearest() -> Dotenv:
    """Read the `.env` that is nearest to the working directory; the result is empty if there is none."""
    file = find(Path.cwd())
    return Dotenv({}, ()) if file is None else read(file, known_names())


def read(file: Path, known: Collection[str]) -> Dotenv:
    """Read the file; `known` are the names of all settings, in upper case.

    Values are not interpolated. If a name is set more than once, its last line takes precedence. Raises `DotenvError`
    if the file or a line cannot be read.
    """
    bindings = list(parse_stream(StringIO(_text(file), newline="")))
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    errors, warnings = [], []
    for binding in bindings:
        line = _line(binding)
        at = f"{file}:{line}"
        if binding.error:
            errors.append(f"{at}: expected NAME=value; a value that starts with a quote has to end with it")
        if binding.key is None:
            continue
        name = binding.key.upper()
        if binding.value is None:
            warnings.append(f"{at}: {shown(binding.key)} has no effect: expected NAME=value")
            continue
        if name in known and re.search(r"[\r\n]", binding.value):
            errors.append(f"{at}: the quote after {name}= is not closed on this line")
        if name in lines:
            warnings.append(f"{at}: {shown(name)} is also set on line {lines[name]}: this line takes precedence")
        lines[name] = line
        values[name] = binding.value
        if known and name not in known:
            warnings.extend(f"{at}: {reason}" for reason in _warnings_of_unknown(name, known))
    if errors:
        raise DotenvError("\n".join(errors))
    return Dotenv(values, tuple(warnings))


def _text(file: Path) -> str:
    try:
        mode = file.stat().st_mode
        if S_ISDIR(mode):
            raise DotenvError(f"{file} is a folder, not a file with settings: remove it, or rename it")
        if not S_ISREG(mode):
            # Reading a pipe could wait forever.
            raise DotenvError(f"{file} is not a regular file: remove it, or replace it by a file with settings")
        raw = file.read_bytes()
    except OSError as error:
        raise DotenvError(f"{file} cannot be read: {error.strerror or error}") from None
    if b"\0" in raw:
        raise DotenvError(f"{file} is UTF-16 or not text: save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DotenvError(
            f"{file}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8: save the file as UTF-8"
        ) from None


def _line(binding: Binding) -> int:
    """Return the line number; the parser reports that of the first empty line above."""
    original = binding.original.string
    above = original[: len(original) - len(original.lstrip())]
    return binding.original.line + len(re.findall(r"\r\n|\n|\r", above))


def _warnings_of_unknown(name: str, known: Collection[str]) -> Iterator[str]:
    similar = difflib.get_close_matches(name, sorted(known), n=1, cutoff=_MIN_SIMILARITY)
    prefixes = {setting.split("_")[0] for setting in known}
    if similar:
        yield f"unknown setting {shown(name)} is ignored: did you mean {similar[0]}?"
    elif name.split("_")[0] in prefixes and not name.startswith(_COMPOSE_PREFIXES):
        yield f"unknown setting {shown(name)} is ignored: .env.example lists all settings"
