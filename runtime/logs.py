"""One form of log line for all services, in which no text from a record can pass for a line or command a terminal."""

import logging
import time


def escape_controls(text: str) -> str:
    """The text with all that a terminal would obey, or that cannot be seen, as an escape: ``\\x1b``, ``\\u202e``.

    >>> print(escape_controls("a\\x1b]0;title\\x07b"))
    a\\x1b]0;title\\x07b
    """
    if text.isprintable():
        return text
    # What is not printable is controls, unseen formats such as those of direction, surrogates, and odd spaces.
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode() for each in text
    )


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        # A line that follows is indented, so that it cannot pass for a log line of its own.
        return "\n    ".join(escape_controls(line.expandtabs(4)) for line in super().format(record).split("\n"))


def configure(level: str) -> None:
    """Send log lines to standard error: time in UTC, level, logger, message."""
    formatter = _Formatter("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("py4j").setLevel(logging.WARNING)
    logging.getLogger("elasticsearch").setLevel(logging.ERROR)
