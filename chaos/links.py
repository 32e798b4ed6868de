"""TCP proxies between services and servers, whose connections can be cut, delayed and half-open."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Literal

from local_stack.servers import HOST, free_port

Direction = Literal["requests", "responses"]
"""From the service to the server, or back."""
_CHUNK: Final = 64 << 10
_QUEUED: Final = 64
"""Chunks of a direction that can be under way."""
_RESET: Final = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which a closed connection is reset."""


class Link:
    """A proxy in front of one server, for one service; created by `links`."""

    def __init__(self, name: str, upstream: int, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.port = free_port()
        self._upstream = upstream
        self._loop = loop
        self._is_cut = False
        self._delay = 0.0
        self._deaf_to: frozenset[Direction] = frozenset()
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    def cut(self) -> None:
        """Reset all connections, and each new one, until `restore`."""
        self._change(self._cut)

    def delay(self, seconds: float) -> None:
        """Deliver everything that arrives from now on so much later, in each direction, until `restore`."""
        self._change(lambda: setattr(self, "_delay", seconds))

    def half_open(self, lost: frozenset[Direction]) -> None:
        """Deliver nothing in these directions, while all connections stay open, until `restore`."""
        self._change(lambda: self._half_open(lost))

    def restore(self, *, silent: bool = False) -> None:
        """Forward everything again.

        Connections that were half-open are reset. A `silent` end leaves them as they are, as a router does that has
        forgotten them: whoever waits for an answer has to notice by itself.
        """
        self._change(lambda: self._restore(silent=silent))

    async def open(self) -> None:
        """Start to listen."""
        self._server = await asyncio.start_server(self._accept, HOST, self.port, limit=_CHUNK)

    async def close(self) -> None:
        """Stop to listen, and close all connections."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.reset()

    def _change(self, change: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            change()
            done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait()

    def _cut(self) -> None:
        self._is_cut = True
        for connection in list(self._connections):
            connection.reset()

    def _half_open(self, lost: frozenset[Direction]) -> None:
        self._deaf_to = lost
        for connection in self._connections:
            connection.deaf_to = lost

    def _restore(self, *, silent: bool) -> None:
        self._is_cut, self._delay, self._deaf_to = False, 0.0, frozenset()
        for connection in list(self._connections):
            if connection.deaf_to and not silent:
                connection.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, reader, writer, self._deaf_to)
        self._connections.add(connection)
        try:
            if self._is_cut:
                connection.reset()
            else:
                await connection.run(self._upstream)
        finally:
            connection.reset()
            self._connections.discard(connection)

    @property
    def seconds_of_delay(self) -> float:
        """The delay of what arrives now."""
        return self._delay


class _Connection:
    """One connection of the service, and the one to the server that belongs to it."""

    def __init__(
        self,
        link: Link,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        deaf_to: frozenset[Direction],
    ) -> None:
        self.deaf_to = deaf_to
        self._link = link
        self._reader = reader
        self._writers = [writer]
        # The loop itself keeps no task that waits for nothing but its own objects, as those of a silent connection do.
        self._tasks: list[asyncio.Future[None] | None] = [asyncio.current_task()]

    async def run(self, upstream: int) -> None:
        """Forward both directions until one of them ends."""
        try:
            reader, writer = await asyncio.open_connection(HOST, upstream, limit=_CHUNK)
        except OSError:
            return
        self._writers.append(writer)
        pumps = [
            asyncio.ensure_future(self._pump("requests", self._reader, writer)),
            asyncio.ensure_future(self._pump("responses", reader, self._writers[0])),
        ]
        self._tasks += pumps
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    def reset(self) -> None:
        """Reset both connections."""
        for writer in self._writers:
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def _pump(self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED)
        reading = asyncio.ensure_future(self._read(reader, chunks))
        self._tasks.append(reading)
        loop = asyncio.get_running_loop()
        try:
            while True:
                due, data = await chunks.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if direction in self.deaf_to:
                    if data:
                        continue
                    # Nobody hears of the end either.
                    await asyncio.Event().wait()
                if not data:
                    return
                writer.write(data)
                try:
                    await writer.drain()
                except ConnectionError:
                    return
        finally:
            reading.cancel()

    async def _read(self, reader: asyncio.StreamReader, chunks: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        data = b"-"
        while data:
            try:
                data = await reader.read(_CHUNK)
            except OSError:
                data = b""
            await chunks.put((loop.time() + self._link.seconds_of_delay, data))


@contextmanager
def links(upstreams: dict[str, int]) -> Iterator[dict[str, Link]]:
    """Run a proxy for each port of `upstreams` during the `with` block, by the same names."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="links", daemon=True)
    thread.start()
    opened = {name: Link(name, port, loop) for name, port in upstreams.items()}
    try:
        for link in opened.values():
            asyncio.run_coroutine_threadsafe(link.open(), loop).result()
        yield opened
    finally:
        for link in opened.values():
            asyncio.run_coroutine_threadsafe(link.close(), loop).result()
        asyncio.run_coroutine_threadsafe(_end_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end_all() -> None:
    """Cancel what is left of the connections."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
