"""What the stream job says when its Java has ended."""

import subprocess
from types import SimpleNamespace
from typing import Any, cast

import pytest
from stream_processing import __main__ as job
from stream_processing.transient import is_transient


@pytest.mark.parametrize(
    ("command", "said", "is_about_memory"),
    [
        ("kill -9 $$", "it was killed by SIGKILL", False),
        ("kill -15 $$", "it was ended by SIGTERM", False),
        ("exit 3", "it has ended with status 3", True),
    ],
)
def test_the_signal_or_the_status_is_named_and_the_heap_only_where_it_may_be_the_cause(
    command: str, said: str, is_about_memory: bool
) -> None:
    with subprocess.Popen(["sh", "-c", command]) as java:
        session = cast(Any, SimpleNamespace(sparkContext=SimpleNamespace(_gateway=SimpleNamespace(proc=java))))
        ending = job._ending_of_java(session, ConnectionError())
    assert ending.startswith(said)
    assert any(sign in ending for sign in job._REMEDIES) == is_about_memory
    assert not is_transient(ending)
