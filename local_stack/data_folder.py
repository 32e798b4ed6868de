"""The data folder: checks that it can be used, and locks it for one stack at a time."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

_DISK_NEEDED: Final = 1 << 29
"""Bytes."""
_UNUSABLE: Final = {
    ",": "Kafka reads it as the end of the path",
    "${": "Elasticsearch reads it as a setting",
    "%": "the tables' paths are URIs, where it starts an escape",
    "\\": "the tables' paths are URIs, where it becomes a slash",
    **dict.fromkeys("#?", "the tables' paths are URIs, where it ends the path"),
    **dict.fromkeys("[]|^", "the library that writes the tables accepts no such character"),
}
"""Characters that no path of data may have, with the reason."""
_REMEDY: Final = 'choose another folder with --data (make: ARGS="--data FOLDER")'


class DataFolderError(Exception):
    """The folder cannot be used; the message has the reason and the remedy."""


def resolve(folder: str) -> Path:
    """Return the absolute path of the data folder that the user names. Raises `DataFolderError` if it has none."""
    if not folder.strip():
        raise DataFolderError(f"the data folder has no name: {_REMEDY}")
    try:
        return Path(folder).resolve()
    except RuntimeError:
        # Python 3.11 and 3.12; newer versions raise only when the folder is opened.
        raise DataFolderError(f"the data folder {folder} is a loop of symbolic links: {_REMEDY}") from None


def require_usable(data: Path) -> None:
    """Create the data folder, which only its user can read. Raises `DataFolderError` if it cannot be used."""
    if not str(data).isprintable():
        raise DataFolderError(f"the data folder {str(data)!r} has unprintable characters in its path: {_REMEDY}")
    for text, reason in _UNUSABLE.items():
        if text in str(data):
            raise DataFolderError(f"the data folder {data} has {text!r} in its path, and {reason}: {_REMEDY}")
    probe = data / f".writable-{os.getpid()}"
    try:
        data.mkdir(0o700, parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
        free = shutil.disk_usage(data).free
    except OSError as error:
        raise DataFolderError(f"the data folder {data} cannot be written ({error.strerror}): {_REMEDY}") from None
    if free < _DISK_NEEDED:
        raise DataFolderError(
            f"the disk of {data} has {free / 1e6:,.0f} MB free, and {_DISK_NEEDED / 1e6:,.0f} are needed: "
            f"free some space, or {_REMEDY}"
        )


@contextmanager
def locked(data: Path) -> Iterator[int]:
    """Lock the folder against other stacks; yields the lock's file descriptor, which processes may inherit.

    The lock is released when the last process with the descriptor has ended: a server that a killed stack has left
    running still holds it. Raises `DataFolderError` with the processes that hold it.
    """
    path = data / ".lock"
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataFolderError(
                f"another stack, or a process that it left, runs on {data} ({_holders(path)}): stop it, or {_REMEDY}"
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
    return f"process {' and '.join(found)}" if found else "processes of another user"
