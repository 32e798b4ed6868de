"""Asks the project's own services over HTTP."""

from typing import Any

import requests


def ask(method: str, url: str, *, timeout: float, body: dict[str, Any] | None = None) -> requests.Response:
    """The answer; raises `requests.RequestException`.

    Never by a proxy and with no password of the environment: the services are on this machine or in its containers.
    """
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, json=body, timeout=timeout, allow_redirects=False)
