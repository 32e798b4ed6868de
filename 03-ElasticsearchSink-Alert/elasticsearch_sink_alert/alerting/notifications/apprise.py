"""Sends notifications through Apprise: e-mail, chat and some hundred other services, each by its URL."""

import re
from typing import Final

from apprise import Apprise, AppriseAsset

from elasticsearch_sink_alert.alerting.notifications.notifier import (
    Message,
    NotSentError,
    RefusedError,
    is_permanent,
    is_redirect,
)

_STATUS: Final = re.compile(r"\berror=(\d{3})\b")
"""How Apprise's plugins report the HTTP status of a response, in their log entries alone."""


class AppriseNotifier:
    """Sends to the service of one Apprise URL."""

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that Apprise does not know."""
        self.name = url.split("://")[0]
        # A redirect would hand the alert to another server; `?redirect=yes` in a URL allows it.
        self._service = Apprise(asset=AppriseAsset(http_redirects=False))
        if not self._service.add(url):
            raise ValueError(f"{self.name}://… is not a URL that Apprise knows: see github.com/caronc/apprise")

    def send(self, message: Message) -> None:
        """Send one message; raises `NotSentError`, or `RefusedError` if every warning is of a permanent status."""
        result = self._service.notify(title=message.title, body=message.text)
        if result:
            return
        found = [_STATUS.search(entry.message) for entry in result.logs()]
        statuses = [int(status[1]) if status else 0 for status in found]
        if statuses and all(map(is_permanent, statuses)):
            raise RefusedError(f"the service responded {statuses[0]}", self._remedy(statuses[0]))
        raise NotSentError("Apprise could not send it, its own log line has the reason")

    def _remedy(self, status: int) -> str:
        if is_redirect(status):
            return f"redirects are not followed: use the address it leads to in the {self.name}:// URL in ALERT_NOTIFY"
        return f"check its {self.name}:// URL in ALERT_NOTIFY"
