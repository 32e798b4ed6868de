"""Sends notifications to a webhook: JSON over HTTP, signed if there is a secret."""

import hashlib
import hmac
from typing import Final

import orjson
import requests
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema

from elasticsearch_sink_alert.alerting.notifications.notifier import Message, NotSentError, RefusedError, is_permanent

SIGNATURE: Final = "X-Signature-256"
"""Request header: `sha256=` and the HMAC-SHA-256 of the body, in hexadecimal digits."""
_TIMEOUT: Final = 10.0
"""Seconds to connect, and seconds between two bytes of the response."""
_REMEDIES: Final = {
    401: "set ALERT_WEBHOOK_SECRET to the receiver's secret",
    403: "set ALERT_WEBHOOK_SECRET to the receiver's secret",
    404: "set ALERT_WEBHOOK_URL to the receiver's address",
    405: "set ALERT_WEBHOOK_URL to the receiver's address",
    410: "set ALERT_WEBHOOK_URL to the receiver's address",
}
_OTHER_REMEDY: Final = "let the receiver accept the JSON that the sink's README describes"


class Webhook:
    """Posts JSON with a `text`, as Slack and similar services accept it, and the alert."""

    name = "webhook"

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._secret = secret.encode()

    def send(self, message: Message) -> None:
        """Post one message; raises `NotSentError`, or `RefusedError` for a permanent status."""
        alert = message.alert.document() if message.alert else None
        body = orjson.dumps({"text": f"*{message.title}*\n{message.text}", "alert": alert})
        headers = {"Content-Type": "application/json"}
        if self._secret:
            headers[SIGNATURE] = "sha256=" + hmac.new(self._secret, body, hashlib.sha256).hexdigest()
        try:
            response = requests.post(self._url, data=body, headers=headers, timeout=_TIMEOUT)
        except (InvalidSchema, InvalidURL, MissingSchema) as error:
            raise RefusedError(
                f"the URL is not valid ({type(error).__name__})", "set ALERT_WEBHOOK_URL to the receiver's address"
            ) from None
        except requests.RequestException as error:
            raise NotSentError(f"no response: {type(error).__name__}") from None
        if is_permanent(response.status_code):
            remedy = _REMEDIES.get(response.status_code, _OTHER_REMEDY)
            raise RefusedError(f"the receiver responded {response.status_code}", remedy)
        if not response.ok:
            raise NotSentError(f"the receiver responded {response.status_code}")
