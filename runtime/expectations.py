"""Says in words which values a setting or a field of a request may have, for error messages."""

from collections.abc import Mapping
from typing import Any, Final

_NUMBERS: Final = {"integer": "a whole number", "number": "a number"}


def describe(schema: Mapping[str, Any]) -> str:
    """Return what a JSON schema allows: its description, or else its type and bounds.

    >>> describe({"type": "integer", "minimum": 1, "maximum": 1_000_000})
    'a whole number from 1 to 1,000,000'
    >>> describe({"type": "number", "exclusiveMinimum": 0})
    'a number above 0'
    >>> describe({"enum": ["DEBUG", "INFO", "ERROR"]})
    'DEBUG, INFO or ERROR'
    """
    if "description" in schema:
        return str(schema["description"])
    if "anyOf" in schema:
        return describe(next(each for each in schema["anyOf"] if each.get("type") != "null"))
    if "enum" in schema:
        *others, last = schema["enum"]
        return f"{', '.join(others)} or {last}" if others else str(last)
    kind = schema.get("type")
    if kind == "boolean":
        return "true or false"
    if kind in _NUMBERS:
        return _NUMBERS[kind] + _bounds(kind, schema)
    return "text that is not empty" if schema.get("minLength") else "text"


def _bounds(kind: str, schema: Mapping[str, Any]) -> str:
    least, above, most = (schema.get(name) for name in ("minimum", "exclusiveMinimum", "maximum"))
    if kind == "integer" and above is not None:
        least, above = above + 1, None
    if above is not None:
        return f" above {above:,}" + ("" if most is None else f", at most {most:,}")
    if least is not None and most is not None:
        return f" from {least:,} to {most:,}"
    if least is not None:
        return f", at least {least:,}"
    return "" if most is None else f", at most {most:,}"
