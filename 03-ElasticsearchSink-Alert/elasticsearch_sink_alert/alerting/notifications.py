"""Tells people of alerts: beside the sink, which never waits for it, and not more often than anybody reads.

The index `alerts` is the record. A notification that is under way when the sink is killed is lost, the alert is not.
"""

import hashlib
import hmac
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

import orjson
import requests
from apprise import Apprise
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from elasticsearch_sink_alert import metrics
from elasticsearch_sink_alert.alerting.alerts import INDEX, Alert
from elasticsearch_sink_alert.settings import SinkSettings

logger = logging.getLogger(__name__)

SIGNATURE: Final = "X-Signature-256"
"""Header of a webhook's request: `sha256=` and the HMAC-SHA-256 of the body, in hexadecimal digits."""
_TIMEOUT: Final = 10.0
_PATIENCE: Final = 600.0
"""Seconds for which a notification is tried."""
_QUEUE: Final = 1_000
"""Notifications that may wait for one notifier; what comes on top is dropped, and counted."""
_MINUTE: Final = 60.0


class Message(NamedTuple):
    """A notification."""

    title: str
    text: str
    alerts: tuple[Alert, ...] = ()
    """The alert that it is about; none where it is a summary."""


class NotSentError(Exception):
    """A notifier could not send; trying again may help."""


class Notifier(Protocol):
    """A way to tell people."""

    name: str

    def send(self, message: Message) -> None:
        """Send it; raises `NotSentError`."""


class Webhook:
    """Posts JSON with a `text`, as Slack and its like take it, and the alert; signed where there is a secret."""

    name = "webhook"

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._secret = secret.encode()

    def send(self, message: Message) -> None:
        """Post it; raises `NotSentError` for any answer but a 2xx."""
        alert = message.alerts[0].document() if message.alerts else None
        body = orjson.dumps({"text": f"*{message.title}*\n{message.text}", "alert": alert})
        headers = {"Content-Type": "application/json"}
        if self._secret:
            headers[SIGNATURE] = "sha256=" + hmac.new(self._secret, body, hashlib.sha256).hexdigest()
        try:
            answer = requests.post(self._url, data=body, headers=headers, timeout=_TIMEOUT)
        except requests.RequestException as error:
            raise NotSentError(f"no answer: {type(error).__name__}") from None
        if not answer.ok:
            raise NotSentError(f"it answered {answer.status_code}")


class AppriseNotifier:
    """E-mail, chat and some hundred other services, each by a URL of Apprise's."""

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that Apprise does not know."""
        self._service = Apprise()
        if not self._service.add(url):
            raise ValueError(f"{url.split('://')[0]}://… is no URL that Apprise knows")
        self.name = url.split("://")[0]

    def send(self, message: Message) -> None:
        """Send it; raises `NotSentError`."""
        if not self._service.notify(title=message.title, body=message.text):
            raise NotSentError("Apprise could not send it")


def notifiers(settings: SinkSettings) -> list[Notifier]:
    """The notifiers that the settings name; raises ValueError."""
    found: list[Notifier] = [AppriseNotifier(url) for url in settings.alert_notify.get_secret_value().split()]
    if url := settings.alert_webhook_url.get_secret_value():
        found.append(Webhook(url, settings.alert_webhook_secret.get_secret_value()))
    return found


def message_of(alert: Alert, kibana_url: str) -> Message:
    """What there is to say of an alert that fires or is resolved."""
    was = "had changed by" if " within " in alert.alert_text else "was"
    value = f"{alert.field} {was} {alert.value} when it fired, the rule is {alert.alert_text}"
    since = f"fired at {alert.fired_at}" + (f", resolved at {alert.resolved_at}" if alert.resolved_at else "")
    link = f"{kibana_url.rstrip('/')}/app/discover#/doc/{INDEX}/{INDEX}?id={alert.alert_id}"
    title = f"{alert.status} [{alert.severity}] {alert.rule}: {alert.id}"
    return Message(title, f"{value}\n{since}\n{link}", (alert,))


class RateLimiter:
    """Lets so many alerts of a rule through in a minute, and says in one summary what else there was.

    `clock` gives seconds.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._until: dict[str, float] = {}
        self._passed: Counter[str] = Counter()
        self._held: dict[str, Counter[str]] = {}

    def allow(self, alert: Alert) -> bool:
        """Whether it may be told by itself; what may not goes into the summary."""
        self._until.setdefault(alert.rule, self._clock() + _MINUTE)
        if self._passed[alert.rule] < self._most:
            self._passed[alert.rule] += 1
            return True
        self._held.setdefault(alert.rule, Counter())[alert.status] += 1
        return False

    def summaries(self) -> list[Message]:
        """Those of the minutes that are over."""
        ended = [rule for rule, until in self._until.items() if until <= self._clock()]
        found = []
        for rule in ended:
            del self._until[rule]
            del self._passed[rule]
            held = self._held.pop(rule, None)
            if held:
                many = " and ".join(f"{number} {status}" for status, number in sorted(held.items()))
                found.append(Message(f"{rule}: {many} more", f"within a minute, beyond the first {self._most}"))
        return found


class Notifications:
    """Hands messages to notifiers, each of which has a thread and a queue of its own."""

    def __init__(self, to: Sequence[Notifier], kibana_url: str, cap: RateLimiter) -> None:
        self._kibana_url = kibana_url
        self._cap = cap
        self._queues = [queue.Queue[Message](_QUEUE) for _ in to]
        for notifier, its_queue in zip(to, self._queues, strict=True):
            arguments = (notifier, its_queue)
            threading.Thread(target=_deliver, args=arguments, name=notifier.name, daemon=True).start()

    def tell(self, changed: Sequence[Alert]) -> None:
        """Have these told, and the summaries that are due; does not wait."""
        if not self._queues:
            return
        for alert in changed:
            if alert.status in ("firing", "resolved") and self._cap.allow(alert):
                self._put(message_of(alert, self._kibana_url))
        for summary in self._cap.summaries():
            self._put(summary)

    def drain(self, seconds: float) -> None:
        """Wait until all is told, but not for longer than this."""
        until = time.monotonic() + seconds
        while any(its_queue.unfinished_tasks for its_queue in self._queues) and time.monotonic() < until:
            time.sleep(0.05)

    def _put(self, message: Message) -> None:
        for its_queue in self._queues:
            try:
                its_queue.put_nowait(message)
            except queue.Full:
                metrics.NOTIFICATIONS.labels("dropped").inc()
                logger.error("not told, for %d notifications are waiting already: %s", _QUEUE, message.title)


def _deliver(notifier: Notifier, its_queue: "queue.Queue[Message]") -> None:
    while True:
        message = its_queue.get()
        retrying = Retrying(
            retry=retry_if_exception_type(NotSentError),
            wait=wait_random_exponential(multiplier=0.5, max=30),
            stop=stop_after_delay(_PATIENCE),
            before_sleep=lambda state: logger.warning(
                "%s: a notification waits: %s", notifier.name, state.outcome and state.outcome.exception()
            ),
        )
        try:
            retrying(notifier.send, message)
            metrics.NOTIFICATIONS.labels("sent").inc()
        except RetryError:
            metrics.NOTIFICATIONS.labels("failed").inc()
            logger.error("%s: given up after %d s: %s", notifier.name, _PATIENCE, message.title)
        except Exception:
            # Whatever a notifier does: the next message is tried.
            metrics.NOTIFICATIONS.labels("failed").inc()
            logger.exception("%s: not sent: %s", notifier.name, message.title)
        finally:
            its_queue.task_done()
