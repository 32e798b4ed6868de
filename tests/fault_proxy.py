"""Runs an HTTP proxy that makes a server fail the way networks and overloaded servers do."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import urllib3

from local_stack.servers import HOST

Fault = Literal["none", "429", "503", "reset", "lost response", "slow", "HTML page", "text", "JSON"]
"""`lost response`: the server executes the request, but the connection is closed before its response. The last three:
a response that is not Elasticsearch's."""

_FOREIGN_RESPONSES = {
    "HTML page": (404, "text/html", b"<html>\n<body>There is no such page.</body>\n</html>\n"),
    "text": (200, "text/plain", b"Welcome!\n"),
    "JSON": (200, "application/json", b'{"message": "Welcome!"}'),
}


class FaultProxy(ThreadingHTTPServer):
    """Forwards requests to `upstream`, and injects the current `fault`."""

    daemon_threads = True
    fault: Fault = "none"
    delay_seconds = 5.0
    """Delay of a response with the fault `slow`."""

    def __init__(self, upstream: str) -> None:
        super().__init__((HOST, 0), _Handler)
        self.upstream = upstream
        self.pool = urllib3.PoolManager()
        self.faulted_requests = 0
        """Number of requests that arrived while a fault was set."""

    @property
    def url(self) -> str:
        """The URL that the proxy listens at."""
        return f"http://{HOST}:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.fault
        if fault != "none":
            self.server.faulted_requests += 1
        if fault == "reset":
            self._close_connection()
        elif fault in ("429", "503"):
            self._respond(int(fault), {"Content-Type": "application/json"}, b'{"error": "injected by the test"}')
        elif fault in _FOREIGN_RESPONSES:
            status, content_type, content = _FOREIGN_RESPONSES[fault]
            self._respond(status, {"Content-Type": content_type}, content)
        else:
            self._forward(body, fault)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _handle  # noqa: N815 - names that the base class requires

    def _forward(self, body: bytes, fault: Fault) -> None:
        if fault == "slow":
            time.sleep(self.server.delay_seconds)
        headers = {"Content-Type": self.headers.get("Content-Type", "application/json")}
        response = self.server.pool.request(self.command, self.server.upstream + self.path, body=body, headers=headers)
        if fault == "lost response":
            self._close_connection()
            return
        forwarded = ("Content-Type", "X-Elastic-Product")
        headers = {name: response.headers[name] for name in forwarded if name in response.headers}
        self._respond(response.status, headers, response.data)

    def _respond(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _close_connection(self) -> None:
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """Run a proxy in front of `upstream`."""
    with FaultProxy(upstream) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy
        proxy.shutdown()
        proxy.pool.clear()
