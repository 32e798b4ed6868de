"""Asks the producer to send otherwise."""

from typing import Any, Final

import requests

from live_page.unavailable import EmptyError, UnavailableError
from observer.http import ask

_TIMEOUT: Final = 3.0
_OFF: Final = "The producer takes no wishes: set PRODUCER_CONTROLS=true in .env, and start it again."


class RefusedError(Exception):
    """The producer does not do that; the message says why."""


class ProducerControls:
    """The producer's `/control`."""

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/')}/control"

    def flow(self) -> dict[str, Any]:
        """How it sends: rate (seconds between interactions), users, items, paused.

        Raises `UnavailableError`, or `EmptyError` where the controls are not on.
        """
        return self._ask("GET", None)

    def ask(self, **wishes: float | bool) -> dict[str, Any]:
        """Have it send otherwise from now on, and tell how; raises what `flow` does, and `RefusedError`."""
        return self._ask("POST", wishes)

    def _ask(self, method: str, wishes: dict[str, Any] | None) -> dict[str, Any]:
        try:
            answer = ask(method, self._url, timeout=_TIMEOUT, body=wishes)
        except requests.RequestException as error:
            raise UnavailableError(f"The producer does not answer ({type(error).__name__})") from None
        if answer.headers.get("Content-Type") != "application/json":
            raise EmptyError(_OFF)
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise UnavailableError(f"What answers at {self._url} is not the producer")
        if not answer.ok:
            raise RefusedError(str(body.get("error", f"it answers {answer.status_code}")))
        return body
