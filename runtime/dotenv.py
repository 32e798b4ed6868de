"""Reads `.env`: values as they are written, and whatever looks like a mistake by its line."""

import difflib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from io import StringIO
from os import path
from pathlib import Path
from typing import Final

from dotenv.parser import Binding, parse_stream

_EXAMPLE: Final = Path(__file__).parents[1] / ".env.example"
"""Names every setting; it is not in the images, whose settings come from Compose."""
_NOT_OURS: Final = ("COMPOSE_", "DOCKER_")
"""Prefixes of names that Docker Compose itself reads from the same file."""
_SIMILAR: Final = 0.8
"""How alike, from 0 to 1, an unknown name has to be to a setting's to be taken for a misspelt one."""
_VIRTUAL_ENVIRONMENT: Final = "pyvenv.cfg"


class DotenvError(Exception):
    """The file cannot be used; the message has a line for each reason."""


@dataclass(frozen=True)
class Dotenv:
    """What a `.env` holds."""

    values: dict[str, str]
    """By name in capital letters."""
    warnings: tuple[str, ...]
    """A line for each name that has no effect, or not the one that it seems to have."""


def known_names() -> frozenset[str]:
    """Every setting of every service; nothing where `.env.example` is not there to tell."""
    try:
        example = _EXAMPLE.read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    return frozenset(binding.key for binding in parse_stream(StringIO(example)) if binding.key)


def find(start: Path) -> Path | None:
    """The nearest `.env`, from `start` upwards; a folder of that name that is a virtual environment is none."""
    for folder in (start, *start.parents):
        candidate = folder / ".env"
        if path.lexists(candidate) and not path.lexists(candidate / _VIRTUAL_ENVIRONMENT):
            return candidate
    return None


def read_nearest() -> Dotenv:
    """`read` of the `.env` that is nearest to the working directory; an empty one where there is none."""
    file = find(Path.cwd())
    return Dotenv({}, ()) if file is None else read(file, known_names())


def read(file: Path, known: Collection[str]) -> Dotenv:
    """Read the file; `known` are the names of all settings, in capital letters.

    Nothing is interpolated. The last one of several lines with the same name counts. Raises `DotenvError` where the
    file or a line of it cannot be read.
    """
    bindings = list(parse_stream(StringIO(_text(file), newline="")))
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    errors, warnings = [], []
    for binding in bindings:
        line = _line(binding)
        at = f"{file}:{line}"
        if binding.error:
            errors.append(f"{at}: expected NAME=value, a value that starts with a quote in quotes as a whole")
        if binding.key is None:
            continue
        name = binding.key.upper()
        if binding.value is None:
            warnings.append(f"{at}: {binding.key} has no effect: expected NAME=value")
            continue
        if name in known and re.search(r"[\r\n]", binding.value):
            errors.append(f"{at}: the quote after {name}= is not closed on this line")
        if name in lines:
            warnings.append(f"{at}: {name} is on line {lines[name]} too: this one counts")
        lines[name] = line
        values[name] = binding.value
        if known and name not in known:
            warnings.extend(f"{at}: {reason}" for reason in _unknown(name, known))
    if errors:
        raise DotenvError("\n".join(errors))
    return Dotenv(values, tuple(warnings))


def _text(file: Path) -> str:
    try:
        raw = file.read_bytes()
    except IsADirectoryError:
        raise DotenvError(f"{file} is a folder: remove it, or rename it; .env is a file with settings") from None
    except OSError as error:
        raise DotenvError(f"{file} cannot be read: {error.strerror or error}") from None
    if b"\0" in raw:
        raise DotenvError(f"{file} is UTF-16, or no text: save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DotenvError(
            f"{file}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8: save the file as UTF-8"
        ) from None


def _line(binding: Binding) -> int:
    """The parser gives the line of the first empty one above it."""
    written = binding.original.string
    above = written[: len(written) - len(written.lstrip())]
    return binding.original.line + len(re.findall(r"\r\n|\n|\r", above))


def _unknown(name: str, known: Collection[str]) -> Iterator[str]:
    similar = difflib.get_close_matches(name, sorted(known), n=1, cutoff=_SIMILAR)
    prefixes = {setting.split("_")[0] for setting in known}
    if similar:
        yield f"there is no setting {name}: did you mean {similar[0]}?"
    elif name.split("_")[0] in prefixes and not name.startswith(_NOT_OURS):
        yield f"there is no setting {name}: .env.example names all that there are"
