"""The protocol of a notifier: the message that it gets, and the two ways to fail."""

from typing import NamedTuple, Protocol

from elasticsearch_sink_alert.alerting.alert_lifecycle import Alert


class Message(NamedTuple):
    """A notification."""

    title: str
    text: str
    alert: Alert | None = None
    """None for a summary."""


class NotSentError(Exception):
    """The message was not sent; a retry may help."""


class RefusedError(Exception):
    """The receiver refuses the message, and would refuse it again."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


class Notifier(Protocol):
    """Sends messages to one receiver."""

    name: str
    """Names it in the log; holds no secret."""

    def send(self, message: Message) -> None:
        """Send one message; raises `NotSentError` or `RefusedError`."""


def is_permanent(status: int) -> bool:
    """Whether an HTTP status would be the same after a retry.

    It would for a redirect, which is never followed, and a 4xx other than 408 (timeout) and 429 (rate limit).

    >>> [is_permanent(status) for status in (307, 403, 404, 408, 429, 500)]
    [True, True, True, False, False, False]
    """
    return is_redirect(status) or (400 <= status < 500 and status not in (408, 429))


def is_redirect(status: int) -> bool:
    """Whether an HTTP status sends the client elsewhere, where it would hand the alert to whom the user has not chosen.

    >>> [is_redirect(status) for status in (200, 301, 308, 400)]
    [False, True, True, False]
    """
    return 300 <= status < 400
