"""Imports saved objects, and changes settings, through the Kibana API."""

import json
import uuid
from collections.abc import Mapping
from typing import Any

import urllib3
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from runtime.addresses import without_passwords

_TIMEOUT = urllib3.Timeout(connect=5.0, read=60.0)


class NotUpError(Exception):
    """Kibana does not respond, or is not ready."""


class RefusedError(Exception):
    """Kibana refuses the objects; a retry would not help."""


def import_objects(kibana: str, objects: bytes, timeout: float, user: str = "", password: str = "") -> int:
    """Import objects (NDJSON), overwriting those with the same ids; returns their number.

    Waits up to `timeout` seconds for Kibana, then raises `NotUpError`. Raises `RefusedError` with Kibana's response
    if it refuses them. `user` is empty if Kibana has no authentication.
    """
    # Multipart, as `curl -F` sends it.
    body, content_type = urllib3.encode_multipart_formdata(
        {"file": ("kibana.ndjson", objects, "application/ndjson")}, boundary=uuid.uuid4().hex
    )
    path = "/api/saved_objects/_import?overwrite=true"
    response = _post(kibana, path, body, content_type, timeout, user, password)
    result = _decoded(response.data)
    if response.status != 200 or not result.get("success"):
        raise _refused(kibana, response)
    return int(result["successCount"])


def change_settings(
    kibana: str, changes: Mapping[str, object], timeout: float, user: str = "", password: str = ""
) -> None:
    """Change advanced settings of Kibana; waits and raises as `import_objects` does."""
    body = json.dumps({"changes": changes}).encode()
    response = _post(kibana, "/api/kibana/settings", body, "application/json", timeout, user, password)
    if response.status != 200:
        raise _refused(kibana, response)


def _post(
    kibana: str, path: str, body: bytes, content_type: str, timeout: float, user: str, password: str
) -> urllib3.BaseHTTPResponse:
    headers = urllib3.make_headers(basic_auth=f"{user}:{password}") if user else {}
    # Without the kbn-xsrf header, Kibana refuses every write.
    headers |= {"content-type": content_type, "kbn-xsrf": "true"}
    http = urllib3.PoolManager(timeout=_TIMEOUT, retries=False, headers=headers)
    retrying = Retrying(
        retry=retry_if_exception_type(NotUpError), wait=wait_fixed(2), stop=stop_after_delay(timeout), reraise=True
    )
    return retrying(_try_post, http, kibana, path, body)


def _try_post(http: urllib3.PoolManager, kibana: str, path: str, body: bytes) -> urllib3.BaseHTTPResponse:
    try:
        response = http.request("POST", kibana + path, body=body)
    except urllib3.exceptions.HTTPError as error:
        raise NotUpError(f"no response from Kibana at {without_passwords(kibana)}: {error}") from None
    if response.status in (429, 502, 503, 504):
        raise NotUpError(f"Kibana at {without_passwords(kibana)} responded {response.status}")
    return response


def _refused(kibana: str, response: urllib3.BaseHTTPResponse) -> RefusedError:
    text = response.data.decode(errors="replace")[:2000]
    return RefusedError(f"Kibana at {without_passwords(kibana)} responded {response.status}: {text}")


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        decoded = json.loads(data)
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}
