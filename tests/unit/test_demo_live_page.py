"""The live page within the demo: its end is reported and ends nothing else."""

import io
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mirakuru import HTTPExecutor
from rich.console import Console

from local_stack.demo import _LivePage
from local_stack.servers import HOST, free_port, log_file

CRASH = "import sys; print('ERROR the disk is full'); sys.exit(3)"
HANG = "import time; time.sleep(60)"


@pytest.fixture
def screen() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(params=[CRASH])
def page(tmp_path: Path, screen: io.StringIO, request: pytest.FixtureRequest) -> Iterator[_LivePage]:
    executor = HTTPExecutor(
        [sys.executable, "-c", request.param],
        url=f"http://{HOST}:{free_port()}/health",
        timeout=0.2,
        stdout=log_file(tmp_path, "live_page"),
        stderr=subprocess.STDOUT,
    )
    live_page = _LivePage(executor, tmp_path, "http://localhost:8090", Console(file=screen, width=80))
    live_page.start()
    yield live_page
    live_page.stop()


def test_the_end_of_the_page_is_reported_once_and_does_not_end_the_demo(page: _LivePage, screen: io.StringIO) -> None:
    deadline = time.monotonic() + 30
    while not page.has_ended and time.monotonic() < deadline:
        page.require_running()
        time.sleep(0.01)
    page.require_running()
    (line,) = screen.getvalue().splitlines()
    assert line.startswith("the live page has ended: live_page has ended with status 3: ERROR the disk is full (log: ")
    assert line.endswith("; the pipeline goes on")


@pytest.mark.parametrize("page", [CRASH, HANG], indirect=True)
def test_the_demo_does_not_wait_for_a_page_that_cannot_start(page: _LivePage, screen: io.StringIO) -> None:
    deadline = time.monotonic() + 30
    while not page.is_ready(Console(file=screen)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert page.has_ended
    (line,) = screen.getvalue().splitlines()
    assert line.startswith("the live page has ended: ")
