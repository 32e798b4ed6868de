"""The log of the live page, without any server behind it."""

import re
import socket
from pathlib import Path

import pytest

from local_stack import services
from local_stack.servers import HOST, free_port
from tests.pipeline import eventually

_LINE = re.compile(r"(?a:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (INFO|WARNING|ERROR) +\S+: \S.*|    .*")
"""A log line, or an indented continuation."""


@pytest.mark.parametrize("request_", [b"no request at all\r\n\r\n", b"GET / HTTP/1.1\r\nHost: \x1b[2J\r\n\r\n"])
def test_what_is_no_request_is_a_log_line_like_any_other(tmp_path: Path, request_: bytes) -> None:
    port = free_port()
    nowhere = {"KAFKA_BROKER": f"{HOST}:{free_port()}", "ES_HOST": f"http://{HOST}:{free_port()}"}
    log = tmp_path / "logs" / "live_page.log"
    with services.run(services.PAGE, tmp_path, nowhere, port=port):
        with socket.create_connection((HOST, port), timeout=30) as connection:
            connection.sendall(request_)
            assert connection.recv(1024).startswith(b"HTTP/1.1 400 ")
        eventually(lambda: _assert_in("Invalid HTTP request received.", log))
    lines = log.read_text().splitlines()
    assert [line for line in lines if _LINE.fullmatch(line) is None] == []


def _assert_in(text: str, log: Path) -> None:
    assert text in log.read_text()
