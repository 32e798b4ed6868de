"""Text from records as it is shown, with nothing hidden in it, and numbers as people write them."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

UNKNOWN: Final = "–"
_EXACT: Final = 2**53
"""Browsers know whole numbers exactly up to this."""
# Control characters but newline and tab; marks that change the direction of text; what has no width; what separates
# lines; halves of surrogate pairs; noncharacters; tags.
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202f"
    "\u205f-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff\ud800-\udfff\U000e0000-\U000e0fff]"
)


def visible(text: object, most: int | None = None) -> str:
    r"""Text in which nothing is hidden: control and direction characters are written as escapes; cut at `most`.

    >>> visible("\x1b]0;title\x07")
    '\\x1b]0;title\\x07'
    >>> visible("a" * 10, most=4)
    'aaaa… (10 characters)'
    """
    whole = str(text)
    shown = _UNSEEN.sub(_escaped, whole if most is None else whole[:most])
    return shown if most is None or len(whole) <= most else f"{shown}… ({len(whole):,} characters)"


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def count(number: float | None) -> str:
    """A whole number as people write it, exact whatever its size."""
    if number is None:
        return UNKNOWN
    return f"{number:,}" if isinstance(number, int) else f"{number:,.0f}"


def decimal(number: float | None, places: int = 1, unit: str = "") -> str:
    """A number with so many places."""
    return UNKNOWN if number is None else f"{number:,.{places}f}{unit}"


def short(number: float) -> str:
    """A number in few digits, and never in powers of ten.

    >>> [short(n) for n in (1000, 200.0, 0.005, 12.345, 1234567.8, 0.00001)]
    ['1,000', '200', '0.005', '12.3', '1,234,568', '0.00001']
    """
    if isinstance(number, int) or abs(number) >= 100:
        return count(number)
    return f"{Decimal(f'{number:.3g}').normalize():,f}"


def cell(value: Any) -> str:
    """A value of a document as it is shown in a table."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return count(value)
    return f"{value:,}" if isinstance(value, float) else UNKNOWN if value is None else visible(value)


def drawable(number: float) -> float | str:
    """A number for a chart; beyond what a browser knows exactly it is text, which is drawn just as well."""
    return f"{number}" if isinstance(number, int) and abs(number) > _EXACT else number


def per_second(interval: float) -> str:
    """A rate of so many seconds between interactions (0: no limit), in the one unit that the page has for it.

    >>> per_second(0.005), per_second(0), per_second(1)
    ('200 interactions a second', 'as fast as it goes', '1 interaction a second')
    """
    if not interval:
        return "as fast as it goes"
    rate = short(1 / interval)
    return f"{rate} interaction{'' if rate == '1' else 's'} a second"


def size(number: float) -> str:
    """Bytes as people write them."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} GB"


def clock(at: datetime | str | None) -> str:
    """The time of day of a point in time (text: ISO 8601), in UTC; with the date where that is not today."""
    if not at:
        return UNKNOWN
    try:
        time = (datetime.fromisoformat(at) if isinstance(at, str) else at).astimezone(UTC)
    except ValueError:
        return visible(at, 40)
    return time.strftime("%H:%M:%S" if time.date() == datetime.now(UTC).date() else "%Y-%m-%d %H:%M:%S")


def lasting(since: object, until: object) -> str:
    """From one point in time to another, or to now."""
    end = datetime.fromisoformat(str(until)) if until else datetime.now(UTC)
    seconds = max(0, int((end - datetime.fromisoformat(str(since))).total_seconds()))
    minutes, hours = seconds // 60, seconds // 3600
    return f"{seconds} s" if seconds < 100 else f"{minutes} min" if minutes < 100 else f"{hours} h"
