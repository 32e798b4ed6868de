"""Formats numbers, times and text from records for display."""

import json
import math
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

UNKNOWN: Final = "–"
_JSON_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_LONGER: Final = 4
"""JSON that lines make more than this many times as long stays as it is."""
_INDENTED_LEVELS: Final = 20
"""Deeper levels of JSON are not indented more: the spaces of deep nesting would be most of the text."""
_MAX_SAFE_INTEGER: Final = 2**53
"""JavaScript represents integers exactly up to this."""
# Control characters but newline and tab, direction marks, zero-width characters, line separators, lone surrogates,
# noncharacters, tags.
_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202f"
    "\u205f-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff\ud800-\udfff\U000e0000-\U000e0fff]"
)


def format_text(text: object, max_length: int | None = None) -> str:
    r"""Escape control, direction and other invisible characters; truncate at `max_length`.

    >>> format_text("\x1b]0;title\x07")
    '\\x1b]0;title\\x07'
    >>> format_text("a" * 10, max_length=4)
    'aaaa… (10 characters)'
    """
    whole = str(text)
    shown = _INVISIBLE.sub(_escape, whole if max_length is None else whole[:max_length])
    return shown if max_length is None or len(whole) <= max_length else f"{shown}… ({len(whole):,} characters)"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def format_json(text: str) -> str:
    """Return JSON with a line for each value, and its tokens as they are; another text unchanged.

    Numbers keep all their digits, and of a name that occurs twice both values are shown.

    >>> print(format_json('{"n": 1.0e400, "list": [1, {}], "n": 12345678901234567890}'))
    {
      "n": 1.0e400,
      "list": [
        1,
        {}
      ],
      "n": 12345678901234567890
    }
    >>> format_json("{1}"), format_json('"text"'), format_json("")
    ('{1}', '"text"', '')
    """
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text
    tokens = _JSON_TOKEN.findall(text)
    parts: list[str] = []
    depth = 0
    for before, token in zip(["", *tokens], tokens, strict=False):
        if token in ("}", "]"):
            depth -= 1
        is_empty = token in ("}", "]") and before in ("{", "[")
        if (before in ("{", "[", ",") and not is_empty) or (token in ("}", "]") and not is_empty):
            parts.append("\n" + "  " * min(depth, _INDENTED_LEVELS))
        parts.append(": " if token == ":" else token)
        if token in ("{", "["):
            depth += 1
    lines = "".join(parts)
    return lines if len(lines) <= max(_LONGER * len(text), 10_000) else text


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def format_name(name: str) -> str:
    """Return the name of a column or table as words.

    >>> format_name("last_interaction")
    'last interaction'
    """
    return name.replace("_", " ")


def format_count(number: float | None) -> str:
    """Format a whole number of any size exactly, with thousands separators."""
    if number is None:
        return UNKNOWN
    return f"{number:,}" if isinstance(number, int) else f"{number:,.0f}"


def format_decimal(number: float | None, places: int = 1, unit: str = "") -> str:
    """Format a number with a fixed number of decimal places."""
    return UNKNOWN if number is None else f"{number:,.{places}f}{unit}"


def format_latency(seconds: float | None, places: int = 1, *, is_lower_bound: bool = False) -> str:
    """Format a latency; a lower bound is rounded down, to whole seconds from 1 second on.

    >>> format_latency(12.76), format_latency(12.76, is_lower_bound=True), format_latency(0.76, is_lower_bound=True)
    ('12.8 s', '≥ 12 s', '≥ 0.7 s')
    """
    if seconds is None or not is_lower_bound:
        return format_decimal(seconds, places, " s")
    places = 0 if seconds >= 1 else places
    return f"≥ {format_decimal(math.floor(seconds * 10**places) / 10**places, places, ' s')}"


def format_compact(number: float) -> str:
    """Format a number with 3 significant digits, or more if it is 100 or above; never in scientific notation.

    >>> [format_compact(n) for n in (1000, 200.0, 0.005, 12.345, 1234567.8, 0.00001)]
    ['1,000', '200', '0.005', '12.3', '1,234,568', '0.00001']
    """
    if isinstance(number, int) or abs(number) >= 100:
        return format_count(number)
    return f"{Decimal(f'{number:.3g}').normalize():,f}"


def format_value(value: Any) -> str:
    """Format a value of a document for a table cell."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return format_count(value)
    return f"{value:,}" if isinstance(value, float) else UNKNOWN if value is None else format_text(value)


def chart_value(number: float) -> float | str:
    """Convert a number for a chart: to text if JavaScript could not represent it exactly; charts draw both."""
    return f"{number}" if isinstance(number, int) and abs(number) > _MAX_SAFE_INTEGER else number


def format_rate(interval: float, events: str) -> str:
    """Format an interval in seconds between events (0: no limit) as a rate.

    >>> format_rate(0.005, "readings"), format_rate(0, "readings"), format_rate(1, "readings")
    ('200 readings per second', 'as fast as possible', '1 reading per second')
    """
    if not interval:
        return "as fast as possible"
    rate = format_compact(1 / interval)
    return f"{rate} {events.removesuffix('s') if rate == '1' else events} per second"


def format_bytes(number: float) -> str:
    """Format a number of bytes in B, kB, MB or GB."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} GB"


def format_time(at: datetime | str | None, *, is_day: bool = False) -> str:
    """Format a point in time (text: ISO 8601) as its time of day in UTC, with the date unless that is today.

    With `is_day` it is the start of a day, and only the date is shown.
    """
    if not at:
        return UNKNOWN
    try:
        time = (datetime.fromisoformat(at) if isinstance(at, str) else at).astimezone(UTC)
    except (ValueError, OverflowError):
        return format_text(at, 40)
    if is_day:
        return time.strftime("%Y-%m-%d")
    return time.strftime("%H:%M:%S" if time.date() == datetime.now(UTC).date() else "%Y-%m-%d %H:%M:%S")


def format_duration(since: object, until: object) -> str:
    """Format the time between two points in time (ISO 8601); an empty `until` means now."""
    end = datetime.fromisoformat(str(until)) if until else datetime.now(UTC)
    seconds = max(0, int((end - datetime.fromisoformat(str(since))).total_seconds()))
    minutes, hours = seconds // 60, seconds // 3600
    return f"{seconds} s" if seconds < 100 else f"{minutes} min" if minutes < 100 else f"{hours} h"
