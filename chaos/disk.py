"""The disk of the lake: a small file system of its own, where mounting is permitted, which can be full."""

import itertools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_SIZE: Final = 4 << 30
"""Bytes; what is not used takes no memory."""
_ATTEMPTS: Final = 100
_UNMOUNT_TIMEOUT: Final = 10.0
"""Seconds for the last process to close its files."""


class Disk:
    """The folder of lake and checkpoints."""

    def __init__(self, folder: Path, *, is_mounted: bool) -> None:
        self.folder = folder
        self._is_mounted = is_mounted

    def fill(self) -> None:
        """Let the disk have no free space."""
        for attempt in itertools.count():
            try:
                self._resize(shutil.disk_usage(self.folder).used)
            except subprocess.CalledProcessError:
                # It was written to since, and cannot be smaller than what it holds.
                if attempt == _ATTEMPTS:
                    raise
            else:
                return

    def empty(self) -> None:
        """Let the disk have free space again."""
        self._resize(_SIZE)

    def _resize(self, size: int) -> None:
        assert self._is_mounted
        _mount("-o", f"remount,size={max(size, 4096)}", str(self.folder))


def can_mount() -> bool:
    """Whether this process may mount a file system in memory."""
    if shutil.which("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        try:
            _mount("-t", "tmpfs", "-o", "size=4096", "tmpfs", folder)
        except (OSError, subprocess.CalledProcessError):
            return False
        _unmount(Path(folder))
    return True


@contextmanager
def disk(folder: Path, *, mounted: bool) -> Iterator[Disk]:
    """Create the folder of lake and checkpoints; as a file system of its own if it is `mounted`.

    What such a one holds is copied to the folder at the end.
    """
    folder.mkdir(parents=True)
    if not mounted:
        yield Disk(folder, is_mounted=False)
        return
    _mount("-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(folder))
    try:
        yield Disk(folder, is_mounted=True)
    finally:
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            copy = shutil.copytree(folder, Path(scratch, "copy"))
            _unmount(folder)
            folder.rmdir()
            copy.rename(folder)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def _unmount(folder: Path) -> None:
    deadline = time.monotonic() + _UNMOUNT_TIMEOUT
    while subprocess.run(["umount", str(folder)], check=False, capture_output=True).returncode:
        if time.monotonic() > deadline:
            # It disappears when the last process that uses it has ended.
            subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)
            return
        time.sleep(0.2)
