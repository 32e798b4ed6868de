"""Imports saved objects through Kibana's API."""

import json
import uuid
from pathlib import Path
from typing import Any

import urllib3
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

_TIMEOUT = urllib3.Timeout(connect=5.0, read=60.0)


class NotUpError(Exception):
    """Kibana does not answer, or not yet as it should."""


class RefusedError(Exception):
    """Kibana refuses the objects; waiting would not mend it."""


def import_objects(kibana: str, file: Path, patience: float, user: str = "", password: str = "") -> int:
    """Import the objects of `file` (NDJSON), in place of those of the same ids, and give their number.

    `user` is empty where Kibana asks for none.
    Waits up to `patience` seconds for Kibana, then raises `NotUpError`; raises `RefusedError` with Kibana's
    words if it does not take them.
    """
    headers = urllib3.make_headers(basic_auth=f"{user}:{password}") if user else {}
    http = urllib3.PoolManager(timeout=_TIMEOUT, retries=False, headers=headers)
    retrying = Retrying(
        retry=retry_if_exception_type(NotUpError), wait=wait_fixed(2), stop=stop_after_delay(patience), reraise=True
    )
    return retrying(_import, http, kibana, file.read_bytes())


def _import(http: urllib3.PoolManager, kibana: str, objects: bytes) -> int:
    # The form that curl -F would send; without the kbn-xsrf header Kibana refuses any change.
    body, content_type = urllib3.encode_multipart_formdata(
        {"file": ("kibana.ndjson", objects, "application/ndjson")}, boundary=uuid.uuid4().hex
    )
    try:
        answer = http.request(
            "POST",
            f"{kibana}/api/saved_objects/_import?overwrite=true",
            body=body,
            headers={**http.headers, "content-type": content_type, "kbn-xsrf": "true"},
        )
    except urllib3.exceptions.HTTPError as error:
        raise NotUpError(f"no answer from Kibana at {kibana}: {error}") from None
    if answer.status in (429, 502, 503, 504):
        raise NotUpError(f"Kibana at {kibana} answers {answer.status}")
    result = _decoded(answer.data)
    if answer.status != 200 or not result.get("success"):
        raise RefusedError(f"Kibana at {kibana} answers {answer.status}: {answer.data.decode(errors='replace')[:2000]}")
    return int(result["successCount"])


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        decoded = json.loads(data)
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}
