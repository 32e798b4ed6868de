"""Tabs of the live page without a browser: each has the document and its socket, and draws nothing."""

import ast
import asyncio
import re
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlencode, urljoin

import aiohttp
import socketio

_QUERY: Final = re.compile(r"query: (\{'client_id'.*\}),")
"""What a document gives to its socket."""
_ACKNOWLEDGE_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 30.0


class _Tab:
    """An open tab, which acknowledges what the page sends."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._socket = socketio.AsyncClient(reconnection=False)
        self._socket.on("*", self._on_message)
        self._client = ""
        self._next_message = 0

    async def open(self) -> None:
        async with aiohttp.ClientSession() as session, session.get(self._url) as response:
            response.raise_for_status()
            found = _QUERY.search(await response.text())
        if found is None:
            raise RuntimeError(f"{self._url} has no socket")
        query = ast.literal_eval(found[1])
        self._client = query["client_id"]
        ids = {"document_id": uuid.uuid4(), "tab_id": uuid.uuid4(), "old_tab_id": ""}
        parameters = urlencode(query | ids | {"implicit_handshake": "true"})
        await self._socket.connect(
            f"{urljoin(self._url, '/')}?{parameters}",
            socketio_path="/_nicegui_ws/socket.io",
            transports=["websocket"],
            wait_timeout=_CONNECT_SECONDS,
        )

    async def acknowledge(self) -> None:
        await self._socket.emit("ack", {"client_id": self._client, "next_message_id": self._next_message})

    async def close(self) -> None:
        if not self._next_message:
            raise RuntimeError(f"{self._url} has sent nothing to a tab")
        await self._socket.disconnect()

    async def _on_message(self, _: str, message: Any = None) -> None:
        if isinstance(message, dict) and "_id" in message:
            self._next_message = message["_id"] + 1


@contextmanager
def open_tabs(url: str, number: int) -> Iterator[None]:
    """Keep tabs of a page open during the `with` block; raises the error of one that is closed or gets nothing."""
    are_open: Future[None] = Future()
    stop = threading.Event()

    async def run() -> None:
        tabs = [_Tab(url) for _ in range(number)]
        try:
            # One after the other, as readers come.
            for tab in tabs:
                await tab.open()
        except Exception as error:
            are_open.set_exception(error)
            return
        are_open.set_result(None)
        while not stop.is_set():
            for tab in tabs:
                await tab.acknowledge()
            await asyncio.sleep(_ACKNOWLEDGE_SECONDS)
        for tab in tabs:
            await tab.close()

    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(asyncio.run, run())
        try:
            are_open.result()
            yield
        finally:
            stop.set()
        running.result()
