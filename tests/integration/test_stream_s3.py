"""Warehouse and checkpoints in an S3-compatible object store."""

import base64
import hmac
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
from mirakuru import TCPExecutor
from rich.console import Console
from stream_processing.lake import Lake

from local_stack import cache, servers
from local_stack.cache import CACHE, Download
from local_stack.java import JAVA
from local_stack.services import STREAM
from tests.interaction import INTERACTION_TYPES, Interaction
from tests.pipeline import Pipeline, eventually, kill_9
from tests.processes import command_lines

S3PROXY = Download("S3Proxy", Path(__file__).parents[1] / "jars" / "s3proxy.txt", CACHE / "s3proxy")
BUCKET = "lake"
KEYS = {"AWS_ACCESS_KEY_ID": "key-of-the-test", "AWS_SECRET_ACCESS_KEY": "word-of-the-test"}


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    cache.fill(S3PROXY, console=Console(stderr=True))
    url = f"http://{servers.HOST}:{(port := servers.free_port())}"
    properties = tmp_path / "s3proxy.properties"
    properties.write_text(
        f"s3proxy.endpoint={url}\ns3proxy.authorization=aws-v2-or-v4\n"
        f"s3proxy.identity={KEYS['AWS_ACCESS_KEY_ID']}\ns3proxy.credential={KEYS['AWS_SECRET_ACCESS_KEY']}\n"
        "jclouds.identity=unused\njclouds.credential=unused\n"
        # In memory: a store in a file system would have folders, which an object store has not.
        "jclouds.provider=transient\n"
    )
    jar = next(S3PROXY.folder.glob("*.jar"))
    with (
        (tmp_path / "s3proxy.log").open("w") as log,
        TCPExecutor(
            [str(JAVA), "-jar", str(jar), "--properties", str(properties)],
            host=servers.HOST, port=port, timeout=60, stdout=log, stderr=subprocess.STDOUT,
            expected_returncode=143,
        ),
    ):  # fmt: skip
        _create_bucket(url)
        yield url


def _create_bucket(endpoint: str) -> None:
    """Create the bucket, with the old signature version, which needs no library."""
    date = formatdate(usegmt=True)
    to_sign = f"PUT\n\n\n{date}\n/{BUCKET}".encode()
    signature = base64.b64encode(hmac.digest(KEYS["AWS_SECRET_ACCESS_KEY"].encode(), to_sign, "sha1")).decode()
    authorization = f"AWS {KEYS['AWS_ACCESS_KEY_ID']}:{signature}"
    headers = {"Date": date, "Authorization": authorization}
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT", headers=headers)).close()


def _interactions(count: int) -> list[Interaction]:
    return [
        Interaction(f"user_{n % 9}", f"item_{n % 5}", INTERACTION_TYPES[n * n % 4], 1_700_000_000 + n)
        for n in range(count)
    ]


def test_lake_and_checkpoints_can_be_in_an_object_store_and_survive_a_kill(pipeline: Pipeline, endpoint: str) -> None:
    s3 = {
        "WAREHOUSE": f"s3a://{BUCKET}/warehouse",
        "CHECKPOINTS": f"s3a://{BUCKET}/checkpoints",
        "AWS_ENDPOINT_URL": endpoint,
        **KEYS,
    }
    lake = Lake(s3["WAREHOUSE"], {"AWS_ALLOW_HTTP": "true", "AWS_ENDPOINT_URL": endpoint, **KEYS})
    on_s3 = replace(pipeline, remote_lake=lake)
    first, second = _interactions(2_000)[:1_000], _interactions(2_000)[1_000:]
    stream = on_s3.service(STREAM, UPKEEP_INTERVAL=5, **s3)
    try:
        stream.start()
        on_s3.send_interactions(first)
        eventually(lambda: on_s3.assert_published(first))
        assert stream.process is not None
        commands = str(command_lines(stream.process.pid))
        assert "fs.s3a.endpoint" in commands
        assert not [key for key in KEYS.values() if key in commands]
        on_s3.send_interactions(second)
    finally:
        kill_9(stream)
    with on_s3.running(STREAM, UPKEEP_INTERVAL=5, **s3):
        eventually(lambda: on_s3.assert_published(first + second))
        on_s3.assert_in_the_lake(first + second)
        eventually(lambda: _assert_logged(on_s3, "maintenance took"))
    _assert_logged(on_s3, f"nothing keeps a second stream job or command off CHECKPOINTS={s3['CHECKPOINTS']}")
    assert "failed" not in on_s3.log(STREAM)
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in on_s3.log(STREAM)
    assert not (pipeline.data / "warehouse").exists()


def _assert_logged(pipeline: Pipeline, text: str) -> None:
    assert text in pipeline.log(STREAM)
