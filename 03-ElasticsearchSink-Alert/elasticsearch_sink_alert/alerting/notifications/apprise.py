"""Sends notifications through Apprise: e-mail, chat and some hundred other services, each by its URL."""

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from apprise import Apprise

from elasticsearch_sink_alert.alerting.notifications.notifier import Message, NotSentError, RefusedError, is_permanent

_LOGGER: Final = logging.getLogger("apprise")
_STATUS: Final = re.compile(r"\berror=(\d{3})\b")
"""How Apprise's plugins log the HTTP status that a service responded with."""


class AppriseNotifier:
    """Sends to the service of one Apprise URL."""

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that Apprise does not know."""
        self.name = url.split("://")[0]
        self._service = Apprise()
        if not self._service.add(url):
            raise ValueError(f"{self.name}://… is not a URL that Apprise knows: see github.com/caronc/apprise")

    def send(self, message: Message) -> None:
        """Send one message; raises `NotSentError`, or `RefusedError` if the service responded with a permanent status.

        Apprise returns only whether it sent the message, so the status is the one that it logs. Anything else that it
        warns of may pass, and is worth a retry.
        """
        with _warnings() as warnings:
            if self._service.notify(title=message.title, body=message.text):
                return
        statuses = [int(found[1]) if (found := _STATUS.search(text)) else None for text in warnings]
        if statuses and all(status is not None and is_permanent(status) for status in statuses):
            raise RefusedError(f"the service responded {statuses[0]}", f"check its {self.name}:// URL in ALERT_NOTIFY")
        raise NotSentError("Apprise did not send it: its log line above has the reason")


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect the warnings that Apprise logs in this thread."""
    handler = _ThreadHandler()
    _LOGGER.addHandler(handler)
    try:
        yield handler.texts
    finally:
        _LOGGER.removeHandler(handler)


class _ThreadHandler(logging.Handler):
    """Keeps the text of log records of the thread that creates it: each notifier has a thread of its own."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.texts.append(record.getMessage())
