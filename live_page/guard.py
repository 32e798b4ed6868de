"""Protects the page from other sites: checks host and origin, and forbids framing."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

from live_page.metrics import PATH as METRICS
from runtime.http_names import is_own_name

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
# NiceGUI compiles its components in the browser and starts them with inline scripts, which needs both 'unsafe-...'.
_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Accepts HTTP and WebSocket requests for the page's own names, from the page's own origins.

    This refuses other sites that point a name of theirs at this machine (DNS rebinding) or connect from their pages.
    """

    def __init__(self, app: "ASGIApp", names: Iterable[str]) -> None:
        """Protect `app`; `names` are allowed besides localhost: `*.example.com` is any subdomain, `*` any name."""
        self._app = app
        self._names = [name.strip().lower().strip("[]") for name in names if name.strip()]

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        # Prometheus asks for the metrics by a container's name, as of the other services.
        is_of_metrics = scope.get("path") == METRICS and is_own_name(host)
        if not self.is_known(host) and not is_of_metrics:
            refusal = PlainTextResponse("Unknown host name: to allow it, add it to PAGE_NAMES.\n", 400)
        elif origin is not None and not self.is_own(origin, host):
            refusal = PlainTextResponse(
                "Requests from other sites are refused: to allow one, add it to PAGE_NAMES.\n", 403
            )
        else:
            await self._app(scope, receive, _with_headers(send))
            return
        await refusal(scope, receive, _with_headers(send))

    def is_known(self, host: str) -> bool:
        """Whether `host`, which may include a port, is one of the page's names."""
        name = _name(f"//{host}")
        return name in _LOCAL or self._is_allowed(name)

    def is_own(self, origin: str, host: str) -> bool:
        """Whether `origin` is the page itself, requested at `host`.

        Behind a proxy that changes the host, the proxy's name has to be one of the page's names.
        """
        return _netloc(origin) == host.lower() or self._is_allowed(_name(origin))

    def _is_allowed(self, name: str) -> bool:
        return name != "" and any(
            name == each or each == "*" or (each.startswith("*.") and name.endswith(each[1:])) for each in self._names
        )


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _netloc(url: str) -> str:
    # Half of the brackets of an IPv6 address raises ValueError.
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


def _with_headers(send: "Send") -> "Send":
    async def send_with_headers(message: "Message") -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
        await send(message)

    return send_with_headers
