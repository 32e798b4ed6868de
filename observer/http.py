"""HTTP requests to the project's own services."""

from typing import Any

import requests


def request(method: str, url: str, *, timeout: float, body: dict[str, Any] | None = None) -> requests.Response:
    """Send a request, with `body` as JSON; raises `requests.RequestException`.

    Ignores proxies and credentials of the environment: the services run on this machine or in its containers.
    """
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, json=body, timeout=timeout, allow_redirects=False)
