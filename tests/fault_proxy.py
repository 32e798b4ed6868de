"""An HTTP proxy that lets a server fail in the ways that networks and overloaded servers do."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import urllib3

from local_stack.servers import HOST

Fault = Literal["none", "429", "503", "reset", "cut", "slow", "page", "text", "json"]
"""`cut`: the server does the work, but its answer is lost. The last three: something else answers."""

_OTHERS = {
    "page": (404, "text/html", b"<html>\n<body>There is no such page.</body>\n</html>\n"),
    "text": (200, "text/plain", b"Welcome!\n"),
    "json": (200, "application/json", b'{"message": "Welcome!"}'),
}


class FaultyProxy(ThreadingHTTPServer):
    """Passes requests on to `upstream`, but for what `fault` says at the time."""

    daemon_threads = True
    fault: Fault = "none"
    slow_seconds = 40.0

    def __init__(self, upstream: str) -> None:
        super().__init__((HOST, 0), _Handler)
        self.upstream = upstream
        self.pool = urllib3.PoolManager()
        self.met = 0
        """Requests that met a fault."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.fault
        if fault != "none":
            self.server.met += 1
        if fault == "reset":
            self._hang_up()
            return
        if fault in ("429", "503"):
            self._answer(int(fault), {"Content-Type": "application/json"}, b'{"error": "as the test wants it"}')
            return
        if fault in _OTHERS:
            status, kind, answered = _OTHERS[fault]
            self._answer(status, {"Content-Type": kind}, answered)
            return
        if fault == "slow":
            time.sleep(self.server.slow_seconds)
        headers = {"Content-Type": self.headers.get("Content-Type", "application/json")}
        answer = self.server.pool.request(self.command, self.server.upstream + self.path, body=body, headers=headers)
        if fault == "cut":
            self._hang_up()
            return
        kept = {name: answer.headers[name] for name in ("Content-Type", "X-Elastic-Product") if name in answer.headers}
        self._answer(answer.status, kept, answer.data)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _any  # noqa: N815 - the base class looks for these

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """A proxy before `upstream`, listening."""
    with FaultyProxy(upstream) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy
        proxy.shutdown()
        proxy.pool.clear()
