"""The last errors in the logs of the local stack."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from runtime.logs import as_text

_TAIL: Final = 1 << 18
"""Bytes at the end of a log that are read."""
_ERROR: Final = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d{3}Z (?:ERROR|CRITICAL) ")
"""As `runtime.logs` formats a line as text."""
_RECENT: Final = timedelta(hours=1)
_MAX_LENGTH: Final = 500


def last_error(log: Path, now: datetime) -> str | None:
    """Return the last line with an error, if it is of the last hour. Raises OSError."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    for line in reversed(lines):
        text = as_text(line)[0]
        if found := _ERROR.match(text):
            at = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
            return text[:_MAX_LENGTH] if now - at <= _RECENT else None
    return None
