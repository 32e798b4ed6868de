"""An S3-compatible object store for the tests, in memory, which enforces the conditions of writes."""

import base64
import hmac
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from mirakuru import TCPExecutor
from rich.console import Console

from build_tools.jars import read_pins
from local_stack import cache, servers
from local_stack.cache import CACHE, Download
from local_stack.java import JAVA

S3PROXY = Download("S3Proxy", Path(__file__).parent / "jars" / "s3proxy.txt", CACHE / "s3proxy")
KEYS = {"AWS_ACCESS_KEY_ID": "key-of-the-test", "AWS_SECRET_ACCESS_KEY": "word-of-the-test"}
_BUCKET = "lake"
_CONTENT_TYPE = "application/json"


@dataclass(frozen=True)
class ObjectStore:
    """A store with one bucket."""

    endpoint: str

    def location(self, folder: str) -> str:
        """Return the URI of a folder of the bucket, as Hadoop names it."""
        return f"s3a://{_BUCKET}/{folder}"

    def read(self, key: str) -> str:
        """Return the content of an object."""
        return self._request("GET", f"/{key}")

    def write(self, key: str, text: str) -> None:
        """Create or replace an object, without a condition."""
        self._request("PUT", f"/{key}", text)

    def create_bucket(self) -> None:
        """Create the bucket."""
        self._request("PUT", "")

    def _request(self, method: str, path: str, text: str | None = None) -> str:
        # With the old signature version, which needs no library.
        date, content_type = formatdate(usegmt=True), "" if text is None else _CONTENT_TYPE
        to_sign = f"{method}\n\n{content_type}\n{date}\n/{_BUCKET}{path}".encode()
        signature = base64.b64encode(hmac.digest(KEYS["AWS_SECRET_ACCESS_KEY"].encode(), to_sign, "sha1")).decode()
        headers = {"Date": date, "Authorization": f"AWS {KEYS['AWS_ACCESS_KEY_ID']}:{signature}"}
        if content_type:
            headers["Content-Type"] = content_type
        data = None if text is None else text.encode()
        request = urllib.request.Request(f"{self.endpoint}/{_BUCKET}{path}", data=data, method=method, headers=headers)
        with urllib.request.urlopen(request) as response:
            return str(response.read().decode())


@contextmanager
def running_object_store(folder: Path) -> Iterator[ObjectStore]:
    """Run an empty store with its log in `folder`."""
    cache.fill(S3PROXY, console=Console(stderr=True))
    url = f"http://{servers.HOST}:{(port := servers.free_port())}"
    properties = folder / "s3proxy.properties"
    properties.write_text(
        f"s3proxy.endpoint={url}\ns3proxy.authorization=aws-v2-or-v4\n"
        f"s3proxy.identity={KEYS['AWS_ACCESS_KEY_ID']}\ns3proxy.credential={KEYS['AWS_SECRET_ACCESS_KEY']}\n"
        "jclouds.identity=unused\njclouds.credential=unused\n"
        # In memory: a store in a file system would have folders, which an object store has not.
        "jclouds.provider=transient\n"
    )
    (pinned,) = read_pins(S3PROXY.pins)
    with (
        (folder / "s3proxy.log").open("w") as log,
        TCPExecutor(
            [str(JAVA), "-jar", str(S3PROXY.folder / pinned.file_name), "--properties", str(properties)],
            host=servers.HOST, port=port, timeout=60, stdout=log, stderr=subprocess.STDOUT,
            expected_returncode=143,
        ),
    ):  # fmt: skip
        store = ObjectStore(url)
        store.create_bucket()
        yield store
