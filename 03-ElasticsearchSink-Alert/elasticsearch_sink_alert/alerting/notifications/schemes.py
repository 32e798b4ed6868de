"""Finds the notifier for each URL in the settings by its scheme. A new notifier is one file and one entry here."""

from collections.abc import Callable, Mapping
from typing import Final

from elasticsearch_sink_alert.alerting.notifications.apprise import AppriseNotifier
from elasticsearch_sink_alert.alerting.notifications.notifier import Notifier
from elasticsearch_sink_alert.alerting.notifications.webhook import Webhook
from elasticsearch_sink_alert.settings import SinkSettings

Factory = Callable[[str, SinkSettings], Notifier]


def _webhook(url: str, settings: SinkSettings) -> Notifier:
    return Webhook(url, settings.alert_webhook_secret.get_secret_value())


def _apprise(url: str, _: SinkSettings) -> Notifier:
    return AppriseNotifier(url)


_ANY_OTHER: Final = "*"
_WEBHOOK_SCHEMES: Final[Mapping[str, Factory]] = {"http": _webhook, "https": _webhook}
_NOTIFY_SCHEMES: Final[Mapping[str, Factory]] = {_ANY_OTHER: _apprise}
"""http(s) is Apprise's here: it knows the webhook URLs of chat services by their hosts."""


def create_notifiers(settings: SinkSettings) -> list[Notifier]:
    """Return the notifiers for `ALERT_NOTIFY` and `ALERT_WEBHOOK_URL`; raises ValueError that names the setting."""
    notifiers = [
        _create("ALERT_NOTIFY", url, _NOTIFY_SCHEMES, settings)
        for url in settings.alert_notify.get_secret_value().split()
    ]
    if url := settings.alert_webhook_url.get_secret_value():
        notifiers.append(_create("ALERT_WEBHOOK_URL", url, _WEBHOOK_SCHEMES, settings))
    return notifiers


def _create(setting: str, url: str, by_scheme: Mapping[str, Factory], settings: SinkSettings) -> Notifier:
    # No message shows more of a URL than its scheme: the rest may hold a password.
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise ValueError(f"{setting}: a URL has no ://, expected scheme://...")
    factory = by_scheme.get(scheme.lower()) or by_scheme.get(_ANY_OTHER)
    if factory is None:
        raise ValueError(f"{setting}: {scheme}://… is not supported: expected {' or '.join(by_scheme)}")
    try:
        return factory(url, settings)
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from None
