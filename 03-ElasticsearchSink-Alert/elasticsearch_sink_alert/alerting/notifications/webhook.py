"""Sends notifications to a webhook: JSON over HTTP, signed if there is a secret."""

import hashlib
import hmac
import html
import re
from typing import Final
from urllib.parse import urljoin, urlsplit

import orjson
import requests
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema

from elasticsearch_sink_alert.alerting.notifications.notifier import (
    Message,
    NotSentError,
    RefusedError,
    is_permanent,
    is_redirect,
)

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
_HOST: Final = r"[a-z0-9._:-]{1,253}"
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
        # As Slack asks for it: an id such as <!channel> is text then, and mentions nobody.
        text = html.escape(f"*{message.title}*\n{message.text}", quote=False)
        body = orjson.dumps({"text": text, "alert": alert})
        headers = {"Content-Type": "application/json"}
        if self._secret:
            headers[SIGNATURE] = "sha256=" + hmac.new(self._secret, body, hashlib.sha256).hexdigest()
        try:
            with _WithoutRedirects() as session:
                response = session.post(self._url, data=body, headers=headers, timeout=_TIMEOUT)
        except (InvalidSchema, InvalidURL, MissingSchema) as error:
            raise RefusedError(
                f"the URL is not valid ({type(error).__name__})", "set ALERT_WEBHOOK_URL to the receiver's address"
            ) from None
        except requests.RequestException as error:
            raise NotSentError(f"no response: {type(error).__name__}") from None
        if is_redirect(response.status_code):
            raise _redirected(response)
        if is_permanent(response.status_code):
            remedy = _REMEDIES.get(response.status_code, _OTHER_REMEDY)
            raise RefusedError(f"the receiver responded {response.status_code}", remedy)
        if not response.ok:
            raise NotSentError(f"the receiver responded {response.status_code}")


class _WithoutRedirects(requests.Session):
    """Follows no redirect. With `allow_redirects=False` requests would still read its target, and fail at a bad one."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return that there is none."""


def _redirected(response: requests.Response) -> RefusedError:
    target = _target(response)
    reason = f"the receiver responded {response.status_code}, a redirect{f' to {target}' if target else ''}"
    return RefusedError(reason, "redirects are not followed: if you trust that address, use it in ALERT_WEBHOOK_URL")


def _target(response: requests.Response) -> str:
    """Return the server that a redirect leads to; empty if it leads to none."""
    location = response.headers.get("Location")
    try:
        return _server(urljoin(response.url, location)) if location else ""
    except ValueError:
        return ""


def _server(url: str) -> str:
    """Return the part of a URL that names the server, without what may be secret: user, password, path, query.

    >>> _server("https://user:password@hooks.example.com:8443/secret?token=secret")
    'https://hooks.example.com:8443/…'
    >>> _server("ftp://example.com"), _server("http://a b/")
    ('', '')

    Raises ValueError if it is no URL.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    if parts.scheme not in ("http", "https") or re.fullmatch(_HOST, host) is None:
        return ""
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{'' if port is None else f':{port}'}/…"
