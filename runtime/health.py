"""Health and metrics of a service over HTTP.

`/health` answers 200 while every part works and 503 when one does not, with a JSON object that says
which and why; `/metrics` is Prometheus' text format. Both, and what else is served, are there under this machine's own
names only, see `runtime.http_names`.
"""

import errno
import json
import logging
import threading
from collections.abc import Iterable, Mapping
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from runtime.http_names import is_own_name

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class Health:
    """What is wrong with each part of a service, if anything. Safe to use from several threads.

    >>> health = Health("kafka")
    >>> health.problems()
    {'kafka': 'starting'}
    >>> health.ok("kafka")
    >>> health.problems()
    {}
    """

    def __init__(self, *parts: str) -> None:
        self._lock = threading.Lock()
        self._state: dict[str, str | None] = dict.fromkeys(parts, "starting")

    def ok(self, part: str) -> None:
        """`part` works."""
        with self._lock:
            self._state[part] = None

    def failing(self, part: str, reason: str) -> None:
        """`part` does not work at the moment, because of `reason`."""
        with self._lock:
            self._state[part] = reason

    def problems(self) -> dict[str, str]:
        """The parts that do not work, and why."""
        with self._lock:
            return {part: reason for part, reason in self._state.items() if reason is not None}

    def report(self) -> dict[str, Any]:
        """The body of /health."""
        with self._lock:
            parts = {part: reason or "ok" for part, reason in self._state.items()}
        healthy = all(state == "ok" for state in parts.values())
        return {"status": "ok" if healthy else "failing", "parts": parts}


_ANOTHER_NAME: Final = (
    b'{"error": "this service has another name: call it by its IP address, or by a name without a dot, such as'
    b" localhost or a container's\"}"
)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _SilentHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def serve(
    health: Health,
    host: str,
    port: int,
    routes: "Mapping[str, WSGIApplication] | None" = None,
    *,
    setting: str = "port",
) -> int:
    """Serve /health, /metrics, and what else `routes` has by its path, from a background thread; return the port.

    `port` 0 takes a free one. Where it cannot listen, an error names `setting`, which the port is from, or
    METRICS_HOST, and the process exits with status 2, as for a wrong setting.
    """
    metrics: WSGIApplication = make_wsgi_app()

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if not is_own_name(environ.get("HTTP_HOST", "")):
            start_response("403 Forbidden", [("Content-Type", "application/json")])
            return [_ANOTHER_NAME]
        path = environ["PATH_INFO"]
        if path != "/health":
            return (routes or {}).get(path, metrics)(environ, start_response)
        report = health.report()
        status = "200 OK" if report["status"] == "ok" else "503 Service Unavailable"
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(report).encode()]

    try:
        server = make_server(host, port, app, _Server, _SilentHandler)
    except (OSError, OverflowError, UnicodeError) as error:
        logger.error("%s", _why_not_listening(error, host, port, setting))
        raise SystemExit(2) from None
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server.server_port


def _why_not_listening(error: Exception, host: str, port: int, setting: str) -> str:
    if isinstance(error, OverflowError):
        return f"{setting}={port} is no port: set it to one from 0 to 65535, where 0 takes a free one"
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"{setting}={port} is taken at {host}: end what listens there, or set it to another port (0: a free one)"
    if isinstance(error, OSError) and error.errno == errno.EACCES:
        return f"{setting}={port} needs more rights than this user has: set it to a port from 1024 on"
    reason = error.strerror if isinstance(error, OSError) else "it is no host name"
    return (
        f"METRICS_HOST={host} is no address of this machine to listen at ({reason}): set it to one, such as 127.0.0.1"
    )
