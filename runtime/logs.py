"""The log format of all services, in which a record's text can neither forge a log line nor control a terminal."""

import logging
import time


def escape_controls(text: str) -> str:
    """Return the text with control and invisible characters as escapes: ``\\x1b``, ``\\u202e``.

    >>> print(escape_controls("a\\x1b]0;title\\x07b"))
    a\\x1b]0;title\\x07b
    """
    if text.isprintable():
        return text
    # Not printable: control characters, invisible formats such as those of direction, surrogates, unusual spaces.
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        # Continuation lines are indented, so that none looks like a log line of its own.
        return "\n    ".join(escape_controls(line.expandtabs(4)) for line in super().format(record).split("\n"))


def configure(level: str) -> None:
    """Log to standard error: time in UTC, level, logger, message."""
    formatter = _Formatter("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("py4j").setLevel(logging.WARNING)
    logging.getLogger("elasticsearch").setLevel(logging.ERROR)
