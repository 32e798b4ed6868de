"""Faults of files: checkpoints that are lost, damaged or old, a damaged class archive, a full disk."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal, Self

from chaos.faults.fault import Fault, draw_seconds
from chaos.stack import STREAM_JOB, Stack, copy_class_archive

Damage = Literal["emptied", "truncated", "overwritten"]
_DAMAGES: tuple[Damage, ...] = ("emptied", "truncated", "overwritten")
CheckpointFile = Literal["offsets", "commit", "metadata", "topic id", "definitions", "counts", "log of the counts"]
Folder = Literal["ingest", "state", "everything"]
_POLL = 0.2
_MOST_OLD = 40.0
_MOST_FULL = 45.0


class _CheckpointFault(Fault):
    """A fault of the stream job's checkpoints, while it is killed."""

    @property
    def process(self) -> str:
        """The stream job."""
        return STREAM_JOB


class RemovedCheckpoint(_CheckpointFault):
    """A folder of the checkpoints is removed: that of the query, the counts, or all."""

    kind: ClassVar = "removed checkpoint"
    weight: ClassVar = 2
    folder: Folder

    @classmethod
    def draw(cls, rng: random.Random, longest: float) -> Self:  # noqa: ARG003
        """Return one."""
        return cls(folder=rng.choice(("ingest", "state", "everything")))

    def apply(self, stack: Stack) -> None:
        """Kill the job and remove the folder."""
        _stop(stack)
        _remove(stack, self.folder)

    def undo(self, stack: Stack) -> None:
        """Let the job start."""
        stack.processes[STREAM_JOB].release()


class OlderCheckpoint(_CheckpointFault):
    """A folder of the checkpoints is replaced by a copy that is `seconds` old."""

    kind: ClassVar = "older checkpoint"
    weight: ClassVar = 2
    shortest: ClassVar = 5.0
    folder: Folder
    seconds: float

    @classmethod
    def draw(cls, rng: random.Random, longest: float) -> Self:
        """Return one."""
        seconds = draw_seconds(rng, 5, min(longest, _MOST_OLD))
        return cls(folder=rng.choice(("ingest", "state", "everything")), seconds=seconds)

    @property
    def lasts(self) -> float:
        """The age of the copy."""
        return self.seconds

    def apply(self, stack: Stack) -> None:
        """Kill the job, copy the folder, and let the job start."""
        _stop(stack)
        _forget(_copy_of(stack))
        for path in _paths(stack, self.folder):
            _copy(path, _copy_of(stack) / path.name)
        stack.processes[STREAM_JOB].release()

    def undo(self, stack: Stack) -> None:
        """Kill the job, put the copy back, and let the job start."""
        _stop(stack)
        _remove(stack, self.folder)
        for path in _copy_of(stack).iterdir():
            _copy(path, stack.checkpoints / path.name)
        _forget(_copy_of(stack))
        stack.processes[STREAM_JOB].release()


class DamagedCheckpoint(_CheckpointFault):
    """A file of the checkpoints is damaged: the job repairs it, or is refused, and then an operator removes it."""

    kind: ClassVar = "damaged checkpoint"
    weight: ClassVar = 3
    file: CheckpointFile
    damage: Damage

    @classmethod
    def draw(cls, rng: random.Random, longest: float) -> Self:  # noqa: ARG003
        """Return one."""
        return cls(file=rng.choice(tuple(_FILES)), damage=rng.choice(_DAMAGES))

    def apply(self, stack: Stack) -> None:
        """Kill the job and damage the file."""
        _stop(stack)
        file = _FILES[self.file](stack.checkpoints)
        if file is None:
            stack.say(self.kind, f"there is no file of the {self.file} yet")
        else:
            _damage(file, self.damage)

    def undo(self, stack: Stack) -> None:
        """Let the job start; if it is refused, remove what is damaged."""
        if _start(stack) is None:
            return
        folder: Folder = "state" if "counts" in self.file else "everything"
        stack.say(self.kind, f"was refused: {folder} of the checkpoints is removed")
        _remove(stack, folder)
        if (reason := _start(stack)) is not None:
            stack.violations.append(f"{self}: the job does not start when {folder} is removed: {reason}")
            stack.processes[STREAM_JOB].release()


class DamagedClassArchive(Fault):
    """The class archive, with which Java starts faster, is damaged: the job has to start nevertheless."""

    kind: ClassVar = "damaged class archive"
    damage: Damage

    @classmethod
    def draw(cls, rng: random.Random, longest: float) -> Self:  # noqa: ARG003
        """Return one."""
        return cls(damage=rng.choice(_DAMAGES))

    @property
    def process(self) -> str:
        """The stream job."""
        return STREAM_JOB

    def apply(self, stack: Stack) -> None:
        """Kill the job and damage the archive."""
        _stop(stack)
        if stack.class_archive.exists():
            _damage(stack.class_archive, self.damage)

    def undo(self, stack: Stack) -> None:
        """Let the job start, then replace the archive."""
        reason = _start(stack)
        # Another file: the job that runs has the damaged one open.
        stack.class_archive.unlink(missing_ok=True)
        copy_class_archive(stack.data)
        if reason is not None:
            stack.violations.append(f"{self}: the job does not start: {reason}")
            stack.processes[STREAM_JOB].release()


class FullDisk(Fault):
    """The disk of lake and checkpoints has no free space for `seconds`."""

    kind: ClassVar = "full disk"
    weight: ClassVar = 2
    shortest: ClassVar = 3.0
    needs_mount: ClassVar = True
    seconds: float

    @classmethod
    def draw(cls, rng: random.Random, longest: float) -> Self:
        """Return one."""
        return cls(seconds=draw_seconds(rng, 3, min(longest, _MOST_FULL)))

    @property
    def process(self) -> str:
        """The stream job."""
        return STREAM_JOB

    @property
    def lasts(self) -> float:
        """Seconds until there is space again."""
        return self.seconds

    def apply(self, stack: Stack) -> None:
        """Take all free space; the job may end as often as it does."""
        stack.processes[STREAM_JOB].tolerate()
        stack.disk.fill()

    def undo(self, stack: Stack) -> None:
        """Give the space back."""
        stack.disk.empty()
        stack.processes[STREAM_JOB].no_longer_tolerate()


def _stop(stack: Stack) -> None:
    """Kill the stream job, and do not start it again."""
    stack.processes[STREAM_JOB].hold()
    stack.processes[STREAM_JOB].kill()


def _start(stack: Stack) -> str | None:
    """Let the job start, and wait until it is ready; if it ends by itself, return the reason, with the job held."""
    process = stack.processes[STREAM_JOB]
    deaths = len(process.deaths)
    process.tolerate()
    process.release()
    try:
        while not (process.is_ready or stack.stopped.wait(_POLL)):
            if len(process.deaths) > deaths:
                process.hold()
                process.kill()
                return process.deaths[deaths].reason
    finally:
        process.no_longer_tolerate()
    return None


def _paths(stack: Stack, folder: Folder) -> list[Path]:
    if folder != "everything":
        return [stack.checkpoints / folder]
    # The lock has to stay: a job that starts waits for it.
    return [path for path in stack.checkpoints.iterdir() if path.name != ".lock"] if stack.checkpoints.exists() else []


def _remove(stack: Stack, folder: Folder) -> None:
    for path in _paths(stack, folder):
        _forget(path)


def _copy_of(stack: Stack) -> Path:
    return stack.data / "older checkpoints"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy2(source, target)


def _forget(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _damage(file: Path, damage: Damage) -> None:
    size = file.stat().st_size
    with file.open("r+b") as opened:
        if damage == "overwritten":
            opened.seek(size // 4)
            opened.write(b"\xa5" * max(1, min(size // 2, 1 << 20)))
        else:
            opened.truncate(0 if damage == "emptied" else size // 2)
        os.fsync(opened.fileno())


def _latest(folder: Path) -> Path | None:
    """Return the file with the greatest number of a folder."""
    names = [path for path in folder.glob("*") if path.name.isdecimal()]
    return max(names, key=lambda path: int(path.name), default=None)


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _newest(folder: Path, pattern: str) -> Path | None:
    return max(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns, default=None)


_FILES: dict[CheckpointFile, Callable[[Path], Path | None]] = {
    "offsets": lambda folder: _latest(folder / "ingest" / "offsets"),
    "commit": lambda folder: _latest(folder / "ingest" / "commits"),
    "metadata": lambda folder: _existing(folder / "ingest" / "metadata"),
    "topic id": lambda folder: _existing(folder / "ingest.topic"),
    "definitions": lambda folder: _existing(folder / "tables.definitions"),
    "counts": lambda folder: _newest(folder / "state", "*/*.parquet"),
    "log of the counts": lambda folder: _newest(folder / "state", "*/_delta_log/*.json"),
}
