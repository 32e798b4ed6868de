"""The reason why a process of the stack has ended: its signal or status, its log's first error, and the remedy."""

import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from runtime.logs import as_text, escape_controls

_ERROR: Final = re.compile(
    r"\b(ERROR|FATAL|CRITICAL)\b|^(Error|Exception)\b|OutOfMemoryError|^[\w.]*(Error|Exception|Interrupt)(: |$)"
)
_LEVEL: Final = re.compile(r"\b(ERROR|FATAL|CRITICAL|WARN|INFO|DEBUG|TRACE)(?:ING)?\b")
_CONSEQUENCES: Final = re.compile(
    r"\bFAIL \[rdkafka|\[thrd:|ERROR\s+root: Exception while|ERROR\s+py4j[.\w]*:"
    r"|Query .* terminated with error$|Executor: Exception in task |Task \d+ in stage .* failed |: Aborting task$"
    r"|: Job \S+ aborted"
)
"""Errors that follow from another one: a server that does not answer and is tried again, or Spark's Java is gone; and
those that Spark logs before the stream job logs the reason."""
_FRAME: Final = re.compile(r"\s+at |\s*\.\.\. \d+ more")
_MAX_LENGTH: Final = 500
_SIGNALS: Final = {
    signal.SIGKILL: "kill -9, or the kernel for lack of memory: dmesg shows that, close something then",
    signal.SIGTERM: "another program ended it",
    signal.SIGINT: "another program ended it",
    signal.SIGSEGV: "a crash",
    signal.SIGABRT: "a crash",
    signal.SIGBUS: "a crash, or a disk that is full",
}
_REMEDIES: Final = {
    "No space left on device": "the disk of {data} is full: free some space, or choose another folder with --data",
    "Disk quota exceeded": "the quota of {data} is used up: free some space, or choose another folder with --data",
    "OutOfMemoryError": "it has run out of heap; the data is kept: start again, with a lower rate or more memory",
    "Failed to acquire lock": "another stack runs on {data}: stop it, or choose another folder with --data",
    "failed to obtain node locks": "another stack runs on {data}: stop it, or choose another folder with --data",
}
"""The remedy by a text that the log contains."""


def describe(name: str, status: int | None, log: Path, begin: int, data: Path) -> str:
    """Return one line: how `name` ended, the first error in its log from byte `begin` on, and the remedy."""
    lines = _lines(log, begin)
    killed = status is not None and status < 0
    error = _first_error(lines, otherwise_last=not killed)
    remedy = next(
        (text.format(data=data) for sign, text in _REMEDIES.items() if any(sign in line for line in lines)), ""
    )
    parts = [f"{name} {_how_it_ended(status)}", escape_controls(error)[:_MAX_LENGTH], remedy]
    return f"{': '.join(part for part in parts if part)} (log: {log})"


def last_line(log: Path, begin: int) -> str:
    """Return the last line of a log from byte `begin` on, without control characters."""
    return escape_controls(next(reversed(_lines(log, begin)), ""))[:_MAX_LENGTH]


def _how_it_ended(status: int | None) -> str:
    if status is None:
        return "did not get ready in time"
    if status >= 0:
        return f"has ended with status {status}"
    try:
        number = signal.Signals(-status)
    except ValueError:
        return f"was killed by signal {-status}"
    return f"was killed by {number.name}" + (f" ({_SIGNALS[number]})" if number in _SIGNALS else "")


def _lines(log: Path, begin: int) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(begin)
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.rstrip() for written in text.splitlines() for line in as_text(written) if line.strip()]


def _first_error(lines: Sequence[str], *, otherwise_last: bool) -> str:
    is_skipped = False
    for line in lines:
        is_consequence = bool(_CONSEQUENCES.search(line))
        if level := _LEVEL.search(line[:100]):
            # With the lines below it.
            is_skipped = level[1] == "WARN" or is_consequence
        elif line.startswith(("Traceback", "Exception in thread")):
            is_skipped = False
        if _ERROR.search(line) and not line[0].isspace() and not is_skipped and not is_consequence:
            return line
    if not otherwise_last:
        return ""
    messages = [line.strip() for line in lines if not _FRAME.match(line)]
    return messages[-1] if messages else "no output"
