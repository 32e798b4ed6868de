"""Keeps what is usual while Kafka starts out of the log of its client, librdkafka."""

import logging
import re
from typing import Final

UNREACHABLE: Final = re.compile(
    r"Connect to .* failed: Connection refused|Failed to resolve|Connection setup timed out"
)
"""The broker does not listen yet. Only for clients whose user reports that it waits."""
COORDINATOR_LOADING: Final = re.compile(r"\bGETPID\b.*Coordinator load in progress")
"""The broker has just started. The client asks again by itself."""


def lower_to_debug(logger: logging.Logger, usual: re.Pattern[str]) -> None:
    """Lower those lines of a client that logs to `logger` to level DEBUG which match `usual`."""

    def lower(record: logging.LogRecord) -> bool:
        if record.levelno > logging.DEBUG and usual.search(record.getMessage()):
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
            return logger.isEnabledFor(logging.DEBUG)
        return True

    logger.addFilter(lower)
