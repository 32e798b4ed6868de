"""Lets in only browsers that are at the page itself, and keeps the page out of others' frames."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
# NiceGUI compiles its components in the browser and starts them by scripts within the page: neither can be forbidden.
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
    """Answers requests and sockets for the page's own names, from the page's own origins.

    A site elsewhere can give this machine a name of its own, or open a socket to it from its own page; neither gets in.
    """

    def __init__(self, app: "ASGIApp", names: Iterable[str]) -> None:
        """`names`: those that the page has beside localhost; `*.example.com` stands for all below it, `*` for any."""
        self._app = app
        self._names = [name.strip().lower().strip("[]") for name in names if name.strip()]

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass it on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.is_known(host):
            answer = PlainTextResponse("This page has another name; PAGE_NAMES adds names to it.\n", 400)
        elif origin is not None and not self.is_own(origin, host):
            answer = PlainTextResponse("This page answers no other site; PAGE_NAMES adds names to it.\n", 403)
        else:
            await self._app(scope, receive, _with_headers(send))
            return
        await answer(scope, receive, _with_headers(send))

    def is_known(self, host: str) -> bool:
        """Whether the page has this name; `host` may have a port."""
        name = _name(f"//{host}")
        return name in _LOCAL or self._is_named(name)

    def is_own(self, origin: str, host: str) -> bool:
        """Whether a page of this origin is this page, which was asked for at this host.

        A proxy may have changed the host; its name is then one of the names that the page was given.
        """
        return urlsplit(origin).netloc.lower() == host.lower() or self._is_named(_name(origin))

    def _is_named(self, name: str) -> bool:
        return name != "" and any(
            name == each or each == "*" or (each.startswith("*.") and name.endswith(each[1:])) for each in self._names
        )


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _with_headers(send: "Send") -> "Send":
    async def sending(message: "Message") -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
        await send(message)

    return sending
