"""Reads a text file that the user edits, and describes its problems by line."""

from pathlib import Path
from stat import S_ISREG
from typing import Final, NamedTuple

_MAX_BYTES: Final = 256 << 10
"""The YAML parser takes some 10 s for a megabyte, and the thread that reads the file has other work."""


class Problem(NamedTuple):
    """Something that cannot be used, and its line."""

    line: int
    text: str


class UnusableFileError(Exception):
    """A file or text cannot be used; `problems` lists the reasons."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(f"{line}: {text}" for line, text in problems))
        self.problems = problems


def read_text(path: Path) -> str:
    """Return the text of a file; raises OSError, ValueError for an impossible path, and `UnusableFileError`."""
    if not S_ISREG(path.stat().st_mode):
        raise UnusableFileError(Problem(1, "is not a regular file"))
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise UnusableFileError(Problem(1, f"is larger than {_MAX_BYTES >> 10} KiB"))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UnusableFileError(Problem(line, "not UTF-8 text: save it as UTF-8")) from None


def unreadable(path: Path, error: OSError | ValueError) -> str:
    """Return in one line why `read_text` cannot read a file."""
    file = printable(str(path))
    if isinstance(error, FileNotFoundError):
        return f"{file} does not exist"
    reason = error.strerror if isinstance(error, OSError) else None
    return f"{file} cannot be read: {printable(reason or str(error))}"


def printable(text: str) -> str:
    """Return the text on one line, with escapes for characters that cannot be shown."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
