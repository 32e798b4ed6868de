"""Serves a service's health and metrics over HTTP.

`/health` answers 200 if every component is healthy and 503 otherwise, with the state of each as JSON; `/metrics` is in
Prometheus' text format. Requests are answered under this machine's own names only, see `runtime.http_names`.
"""

import json
import logging
import socket
import threading
from collections.abc import Iterable, Mapping
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from runtime import listening
from runtime.http_names import is_own_name

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class Health:
    """The state of each component of a service. Thread-safe.

    >>> health = Health("kafka")
    >>> health.problems()
    {'kafka': 'starting'}
    >>> health.ok("kafka")
    >>> health.problems()
    {}
    """

    def __init__(self, *components: str) -> None:
        self._lock = threading.Lock()
        self._state: dict[str, str | None] = dict.fromkeys(components, "starting")

    def ok(self, component: str) -> None:
        """Report the component as healthy."""
        with self._lock:
            self._state[component] = None

    def failing(self, component: str, reason: str) -> None:
        """Report the component as failing, with the reason."""
        with self._lock:
            self._state[component] = reason

    def problems(self) -> dict[str, str]:
        """Return the reason of each component that is not healthy."""
        with self._lock:
            return {component: reason for component, reason in self._state.items() if reason is not None}

    def report(self) -> dict[str, Any]:
        """Return the body of /health."""
        with self._lock:
            parts = {component: reason or "ok" for component, reason in self._state.items()}
        healthy = all(state == "ok" for state in parts.values())
        return {"status": "ok" if healthy else "failing", "parts": parts}


_FOREIGN_HOST: Final = (
    b'{"error": "the Host header is not a name of this service: use its IP address, or a name without a dot, such as'
    b" localhost or a container's\"}\n"
)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Ipv6Server(_Server):
    address_family = socket.AF_INET6


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
    """Serve /health, /metrics and the `routes` by path from a background thread; return the port.

    `port` 0 selects a free one. If it cannot listen, it logs an error that names METRICS_HOST or `setting`, the setting
    of the port, and exits with status 2, as for a wrong setting.
    """
    metrics: WSGIApplication = make_wsgi_app()

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if not is_own_name(environ.get("HTTP_HOST", "")):
            start_response("403 Forbidden", [("Content-Type", "application/json")])
            return [_FOREIGN_HOST]
        path = environ["PATH_INFO"].rstrip("/")
        if path != "/health":
            return (routes or {}).get(path, metrics)(environ, start_response)
        report = health.report()
        status = "200 OK" if report["status"] == "ok" else "503 Service Unavailable"
        start_response(status, [("Content-Type", "application/json")])
        return [f"{json.dumps(report)}\n".encode()]

    try:
        server = make_server(host, port, app, _Ipv6Server if ":" in host else _Server, _SilentHandler)
    except (OSError, OverflowError, TypeError, UnicodeError) as error:
        reason = listening.describe(error, host, port, host_setting="METRICS_HOST", port_setting=setting)
        logger.error("%s", reason)
        raise SystemExit(2) from None
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server.server_port
