"""Client of the producer's controls."""

from typing import Any, Final

import requests

from contract.declared import EVENT
from live_page.formatting import format_name
from live_page.sources.errors import EmptyError, UnavailableError
from observer import http
from runtime.addresses import without_passwords

VIRAL_INTERACTIONS: Final = 4_000
"""Events about one item that goes viral: enough for the rule of the demo at any time of its wave."""
OTHER: Final = format_name(EVENT.other_texts[0].removesuffix("_id")) if EVENT.other_texts else ""
"""What can go viral, such as an item; empty if the event has no text besides the key."""
_TIMEOUT: Final = 3.0
_OFF: Final = "The producer's controls are off: set PRODUCER_CONTROLS=true in .env and restart the producer."


class RefusedError(Exception):
    """The producer refused a change; the message gives the reason."""


class ProducerControls:
    """Client of the producer's `/control`."""

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/')}/control"

    def flow(self) -> dict[str, Any]:
        """Return the current rate (seconds between interactions), users, items and paused.

        During a replay those without effect are missing, and `replay` and `without_effect` describe it.

        Raises `UnavailableError`, or `EmptyError` if the controls are off.
        """
        return self._request("GET", None)

    def change(self, **changes: float | bool) -> dict[str, Any]:
        """Change how the producer sends and return the result as `flow` does; raises `RefusedError` as well."""
        return self._request("POST", changes)

    def _request(self, method: str, body: dict[str, Any] | None) -> dict[str, Any]:
        try:
            response = http.request(method, self._url, timeout=_TIMEOUT, body=body)
        except requests.RequestException as error:
            raise UnavailableError(f"The producer does not answer ({type(error).__name__})") from None
        is_json = response.headers.get("Content-Type") == "application/json"
        if is_json and response.status_code == 404:
            raise EmptyError(_OFF)
        try:
            response_body = response.json()
        except ValueError:
            response_body = None
        if not isinstance(response_body, dict):
            raise UnavailableError(f"The server at {without_passwords(self._url)} is not the producer")
        if not response.ok:
            raise RefusedError(str(response_body.get("error", f"HTTP status {response.status_code}")))
        return response_body
