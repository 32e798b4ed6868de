"""Delivers notifications: a queue and a thread for each notifier, so that the sink never waits for one.

The index `alerts` is the record: a notification that is not delivered yet when the sink is killed is lost, the alert
is not.
"""

import logging
import queue
import threading
import time
from collections.abc import Sequence
from typing import Final, Self

from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from contract.alerts import FIRING, RESOLVED
from elasticsearch_sink_alert import metrics
from elasticsearch_sink_alert.alerting.alert_lifecycle import Alert
from elasticsearch_sink_alert.alerting.notifications.notifier import Message, Notifier, NotSentError, RefusedError
from elasticsearch_sink_alert.alerting.notifications.rate_limit import RateLimiter
from elasticsearch_sink_alert.alerting.notifications.schemes import create_notifiers
from elasticsearch_sink_alert.alerting.notifications.texts import Texts
from elasticsearch_sink_alert.settings import SinkSettings

logger = logging.getLogger(__name__)

_MAX_RETRY_SECONDS: Final = 600.0
_MAX_QUEUED: Final = 1_000
"""Messages that may wait for one notifier; more are dropped, and counted."""


class Notifications:
    """Hands alerts to all notifiers, within the rate limit."""

    def __init__(self, notifiers: Sequence[Notifier], texts: Texts, limiter: RateLimiter) -> None:
        self._texts = texts
        self._limiter = limiter
        self._queues = [NotifierQueue(notifier) for notifier in notifiers]

    @classmethod
    def from_settings(cls, settings: SinkSettings) -> Self:
        """Raises ValueError, in one line, for a URL or a template that cannot be used."""
        template = settings.alert_template and settings.data_mapper.parent / settings.alert_template
        texts = Texts.load(template, settings.kibana_url)
        return cls(create_notifiers(settings), texts, RateLimiter(settings.alerts_per_minute))

    def notify(self, changed: Sequence[Alert]) -> None:
        """Queue a message for each alert that fires or is resolved, and the summaries that are due; does not wait."""
        if not self._queues:
            return
        for alert in changed:
            if alert.status in (FIRING, RESOLVED) and self._limiter.allow(alert):
                self._put(self._texts.of_alert(alert))
        for summary in self._limiter.summaries():
            self._put(self._texts.of_summary(summary))

    def drain(self, seconds: float) -> None:
        """Wait until every queue is empty, at most `seconds`."""
        deadline = time.monotonic() + seconds
        while any(each.is_busy for each in self._queues) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _put(self, message: Message) -> None:
        for each in self._queues:
            each.put(message)


class NotifierQueue:
    """The messages for one notifier, and the thread that sends them in order."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._messages = queue.Queue[Message](_MAX_QUEUED)
        threading.Thread(target=self._run, name=notifier.name, daemon=True).start()

    @property
    def is_busy(self) -> bool:
        """Whether a message is queued or being sent."""
        return self._messages.unfinished_tasks > 0

    def put(self, message: Message) -> None:
        """Queue a message, or drop it with a log line if the queue is full; does not wait."""
        try:
            self._messages.put_nowait(message)
        except queue.Full:
            metrics.NOTIFICATIONS.labels("dropped").inc()
            logger.error("%s: dropped, %d are queued already: %s", self._notifier.name, _MAX_QUEUED, message.title)

    def _run(self) -> None:
        while True:
            message = self._messages.get()
            try:
                metrics.NOTIFICATIONS.labels(self._deliver(message)).inc()
            finally:
                self._messages.task_done()

    def _deliver(self, message: Message) -> str:
        """Send a message, with retries; "sent" or "failed". Whatever happens, the next message is tried."""
        name, title = self._notifier.name, message.title
        retrying = Retrying(
            retry=retry_if_exception_type(NotSentError),
            wait=wait_random_exponential(multiplier=0.5, max=30),
            stop=stop_after_delay(_MAX_RETRY_SECONDS),
            before_sleep=self._log_retry,
        )
        try:
            retrying(self._notifier.send, message)
        except RefusedError as error:
            logger.error("%s: not sent, not retried, as %s: %s: %s", name, error, error.remedy, title)
        except RetryError:
            logger.error("%s: not sent after %d s of retries: %s", name, _MAX_RETRY_SECONDS, title)
        except Exception:
            logger.exception("%s: not sent: %s", name, title)
        else:
            return "sent"
        return "failed"

    def _log_retry(self, state: RetryCallState) -> None:
        metrics.NOTIFICATION_RETRIES.inc()
        reason = state.outcome and state.outcome.exception()
        logger.warning("%s: not sent yet, will be retried: %s", self._notifier.name, reason)
