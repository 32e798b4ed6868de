"""Finds the line of a declaration, for error messages."""

import sys


def declared_at() -> int:
    """Return the line of the nearest caller outside of this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("contract."):
        frame = frame.f_back
    return frame.f_lineno
