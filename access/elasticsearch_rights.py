"""Keys for the API of Elasticsearch with the least rights, and the password of Kibana's own user."""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import urllib3
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from runtime.addresses import without_passwords

logger = logging.getLogger(__name__)

_TIMEOUT: Final = urllib3.Timeout(connect=5.0, read=30.0)
_WAIT: Final = 120.0
"""Seconds for Elasticsearch to be ready."""

Role = Mapping[str, Any]


class RefusedError(Exception):
    """Elasticsearch refuses a request, and a retry would not help; the message has its reason."""


class NotUpError(Exception):
    """Elasticsearch does not answer, or is not ready; retried."""


def writer(indices: list[str], aliases: list[str]) -> Role:
    """Return the rights of the sink: it creates templates and its indices, and writes documents."""
    privileges = ["manage", "read", "write"]
    return {
        "cluster": ["monitor", "manage_index_templates"],
        "index": [{"names": [*indices, *aliases], "privileges": privileges}],
    }


def reader(indices: list[str]) -> Role:
    """Return the rights of the live page, of `status` and `verify`: they count, read, refresh, and see the disks."""
    privileges = ["read", "view_index_metadata", "maintenance"]
    return {"cluster": ["monitor"], "index": [{"names": indices, "privileges": privileges}]}


class Security:
    """The security API of an Elasticsearch, called as the user elastic."""

    def __init__(self, url: str, password: str, ca_file: str, wait: float = _WAIT) -> None:
        self._url = url
        self._wait = wait
        self._as_elastic = urllib3.make_headers(basic_auth=f"elastic:{password}")
        self._http = urllib3.PoolManager(timeout=_TIMEOUT, retries=False, ca_certs=ca_file)

    def set_password(self, user: str, password: str) -> None:
        """Set the password of a user that Elasticsearch has built in."""
        self._request("POST", f"/_security/user/{user}/_password", {"password": password})

    def ensure_key(self, name: str, role: Role, existing: str | None, save: Callable[[str], None]) -> bool:
        """Keep an existing key that is valid for this role; otherwise replace all keys of this name by a saved one.

        A run that is killed in between leaves a key that the next one removes. Returns whether there is a new one.
        """
        marker = {"role": json.dumps(role, sort_keys=True)}
        if existing is not None and self._metadata(name, existing) == marker:
            return False
        self._request("DELETE", "/_security/api_key", {"name": name, "owner": True}, missing=True)
        body = {"name": name, "role_descriptors": {name: role}, "metadata": marker}
        save(str(self._request("POST", "/_security/api_key", body)["encoded"]))
        return True

    def _metadata(self, name: str, key: str) -> Mapping[str, Any] | None:
        """Return what was stored with a key; None if Elasticsearch does not accept it."""
        response = self._send("GET", "/_security/_authenticate", None, {"authorization": f"ApiKey {key}"})
        if response.status != 200:
            return None
        key_id = json.loads(response.data).get("api_key", {}).get("id", "")
        found = self._request("GET", f"/_security/api_key?id={key_id}", None).get("api_keys", [])
        return next((each.get("metadata") for each in found if each.get("name") == name), None)

    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, missing: bool = False
    ) -> dict[str, Any]:
        response = self._send(method, path, body, self._as_elastic)
        if response.status == 404 and missing:
            return {}
        if response.status != 200:
            reason = response.data.decode(errors="replace")[:500]
            raise RefusedError(
                f"{method} {path} of Elasticsearch at {without_passwords(self._url)} returned status {response.status}:"
                f" {reason}"
            )
        decoded: dict[str, Any] = json.loads(response.data or b"{}")
        return decoded

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> urllib3.BaseHTTPResponse:
        retrying = Retrying(
            retry=retry_if_exception_type(NotUpError),
            wait=wait_fixed(2),
            stop=stop_after_delay(self._wait),
            reraise=True,
        )
        return retrying(self._try_send, method, path, body, headers)

    def _try_send(
        self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> urllib3.BaseHTTPResponse:
        content = None if body is None else json.dumps(body).encode()
        try:
            response = self._http.request(
                method, self._url + path, body=content, headers={**headers, "content-type": "application/json"}
            )
        except urllib3.exceptions.HTTPError as error:
            raise NotUpError(f"no answer from Elasticsearch at {without_passwords(self._url)}: {error}") from None
        if response.status in (429, 502, 503, 504):
            raise NotUpError(f"Elasticsearch at {without_passwords(self._url)} returned status {response.status}")
        return response
