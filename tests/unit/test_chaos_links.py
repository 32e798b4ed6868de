"""The proxies of the faults: connections through them are cut, delayed and half-open."""

import gc
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from chaos.links import Link, links
from local_stack.servers import HOST, free_port

_TIMEOUT = 20.0
"""Seconds in which something that should arrive has arrived."""
_SILENCE = 0.3
"""Seconds in which nothing arrives."""


def _echo(listener: socket.socket, accepted: list[socket.socket]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        accepted.append(connection)
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection:
        try:
            while data := connection.recv(1 << 16):
                connection.sendall(data.upper())
        except OSError:
            return


@pytest.fixture
def accepted() -> list[socket.socket]:
    """The connections that the server has accepted."""
    return []


@pytest.fixture
def link(accepted: list[socket.socket]) -> Iterator[Link]:
    port = free_port()
    with socket.create_server((HOST, port)) as listener:
        threading.Thread(target=_echo, args=(listener, accepted), daemon=True).start()
        with links({"server": port}) as opened:
            yield opened["server"]


def _connect(link: Link, timeout: float = _TIMEOUT) -> socket.socket:
    return socket.create_connection((HOST, link.port), timeout)


def _ask(connection: socket.socket, text: bytes = b"hello") -> bytes:
    connection.sendall(text)
    received = b""
    while len(received) < len(text):
        data = connection.recv(1 << 16)
        if not data:
            raise ConnectionError
        received += data
    return received


def test_everything_is_forwarded(link: Link) -> None:
    with _connect(link) as connection:
        assert _ask(connection) == b"HELLO"
        large = b"x" * 3_000_000
        threading.Thread(target=connection.sendall, args=(large,)).start()
        received = 0
        while received < len(large):
            received += len(connection.recv(1 << 16))
        assert received == len(large)


def test_a_cut_resets_connections_and_new_ones_until_it_ends(link: Link) -> None:
    with _connect(link) as connection:
        assert _ask(connection) == b"HELLO"
        link.cut()
        with pytest.raises(ConnectionError):
            _ask(connection)
    with pytest.raises(ConnectionError), _connect(link) as connection:
        _ask(connection)
    link.restore()
    with _connect(link) as connection:
        assert _ask(connection) == b"HELLO"


def test_a_delay_is_added_in_each_direction_and_keeps_the_order(link: Link) -> None:
    with _connect(link) as connection:
        link.delay(0.2)
        began = time.monotonic()
        assert _ask(connection) == b"HELLO"
        assert time.monotonic() - began >= 0.4
        connection.sendall(b"first ")
        link.restore()
        assert _ask(connection, b"second")[:6] == b"FIRST "


@pytest.mark.parametrize("lost", ["requests", "responses"])
def test_a_half_open_connection_loses_one_direction_and_is_reset_at_the_end(link: Link, lost: str) -> None:
    with _connect(link) as connection:
        assert _ask(connection) == b"HELLO"
        link.half_open(frozenset({"requests"} if lost == "requests" else {"responses"}))
        connection.settimeout(_SILENCE)
        with pytest.raises(TimeoutError):
            _ask(connection)
        connection.settimeout(_TIMEOUT)
        link.restore()
        with pytest.raises(ConnectionError):
            _ask(connection)
    with _connect(link) as connection:
        assert _ask(connection) == b"HELLO"


def test_a_connection_that_is_opened_meanwhile_is_half_open_too(link: Link) -> None:
    link.half_open(frozenset({"requests", "responses"}))
    with _connect(link, _SILENCE) as connection, pytest.raises(TimeoutError):
        _ask(connection)


def test_after_a_silent_end_old_connections_stay_silent_and_new_ones_work(link: Link) -> None:
    with _connect(link) as old:
        assert _ask(old) == b"HELLO"
        link.half_open(frozenset({"requests", "responses"}))
        old.sendall(b"lost")
        link.restore(silent=True)
        with _connect(link) as new:
            assert _ask(new) == b"HELLO"
        old.settimeout(_SILENCE)
        with pytest.raises(TimeoutError):
            _ask(old)


def test_without_its_server_a_connection_is_closed() -> None:
    with links({"server": free_port()}) as opened, pytest.raises(ConnectionError):
        _ask(_connect(opened["server"]))


def test_the_end_of_both_sides_of_a_silent_connection_is_not_reported(
    link: Link, accepted: list[socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    old = _connect(link)
    assert _ask(old) == b"HELLO"
    link.half_open(frozenset({"requests", "responses"}))
    link.restore(silent=True)
    for each in (old, *accepted):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    accepted[0].shutdown(socket.SHUT_RDWR)
    old.close()
    with _connect(link) as new:
        for _ in range(5):
            assert _ask(new) == b"HELLO"
            # asyncio reports what nobody refers to any longer.
            gc.collect()
    assert caplog.text == ""
