"""A real HTTP server that receives webhook requests."""

import hashlib
import hmac
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from local_stack.servers import HOST

SECRET = "a secret of the test's"


class WebhookReceiver(ThreadingHTTPServer):
    """Keeps the JSON that it receives. Responds with `statuses` first, one per request, then with `status`.

    Each has the header Location if `location` is set. A signature with another secret than `SECRET` is refused with
    403. With `requires_signature`, so is none.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.status = 200
        self.statuses: list[int] = []
        self.location = ""
        self.requires_signature = False
        self.refused = 0
        self.gets = 0
        self.received: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/alerts"


class _Handler(BaseHTTPRequestHandler):
    server: WebhookReceiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        expected = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        status = self.server.statuses.pop(0) if self.server.statuses else self.server.status
        signature = self.headers["X-Signature-256"]
        if status == 200 and signature != expected and (signature or self.server.requires_signature):
            status = 403
        if status == 200:
            self.server.received.append(orjson.loads(body))
        else:
            self.server.refused += 1
        self.send_response(status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()

    def do_GET(self) -> None:
        self.server.gets += 1
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def webhook_receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
