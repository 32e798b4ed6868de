"""Where data may be kept: what cannot work is refused before anything starts."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

_DISK_NEEDED: Final = 1 << 29
_REFUSED: Final = {
    ",": "Kafka takes it for the end of the path",
    "${": "Elasticsearch takes it for a setting",
    "%": "the tables' paths are URIs, where it begins an escape",
    "\\": "the tables' paths are URIs, where it becomes a slash",
}
_REMEDY: Final = 'choose another folder with --data (make: ARGS="--data FOLDER")'


class PlaceError(Exception):
    """Data cannot be kept there; the message says why and what to do."""


def resolved(folder: str) -> Path:
    """The absolute path of the data folder that the user names. Raises `PlaceError` where there can be none."""
    if not folder.strip():
        raise PlaceError(f"the data folder has no name: {_REMEDY}")
    try:
        return Path(folder).resolve()
    except RuntimeError:
        # Python 3.11 and 3.12; newer ones leave it to whoever opens the folder.
        raise PlaceError(f"the data folder {folder} is a loop of symbolic links: {_REMEDY}") from None


def require_usable(data: Path) -> None:
    """Make the folder for data. Raises `PlaceError` where nothing can be kept in it."""
    for text, reason in _REFUSED.items():
        if text in str(data):
            raise PlaceError(f"the data folder {data} has {text!r} in its path, and {reason}: {_REMEDY}")
    if not str(data).isprintable():
        raise PlaceError(f"the data folder {str(data)!r} has characters in its path that cannot be seen: {_REMEDY}")
    probe = data / f".writable-{os.getpid()}"
    try:
        data.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
        free = shutil.disk_usage(data).free
    except OSError as error:
        raise PlaceError(f"the data folder {data} cannot be written ({error.strerror}): {_REMEDY}") from None
    if free < _DISK_NEEDED:
        raise PlaceError(
            f"the disk of {data} has {free / 1e6:,.0f} MB left, and {_DISK_NEEDED / 1e6:,.0f} are needed: "
            f"free some space, or {_REMEDY}"
        )


@contextmanager
def claimed(data: Path) -> Iterator[int]:
    """Keep every other stack off the folder; gives a file descriptor, which processes may inherit.

    The claim ends with the last process that has the descriptor: a server that a killed stack has left behind
    still holds it. Raises `PlaceError` with the processes that do.
    """
    path = data / ".lock"
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlaceError(
                f"another stack, or what is left of it, runs on {data} ({_holders(path)}): stop it, or {_REMEDY}"
            ) from None
        yield lock.fileno()


def _holders(path: Path) -> str:
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(opened.path == str(path) for opened in process.open_files()):
                found.append(str(process.pid))
        except psutil.Error:
            continue
    return f"process {' and '.join(found)}" if found else "processes of somebody else"
