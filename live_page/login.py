"""Asks for the page's user and password, where they are set: HTTP's basic authentication."""

import base64
import binascii
import secrets
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_COOKIE: Final = "page-session"
_OPEN: Final = ("/health", "/metrics")
"""For health checks and Prometheus, which have no password; neither has text of a record."""


class Login:
    """Passes on requests with the right user and password, of pages, files and the socket alike.

    /health and /metrics need none.

    Not every browser sends a password when it opens a socket, so the answer to a request with the right one sets a
    cookie, which is valid until the page is restarted.
    """

    def __init__(self, app: "ASGIApp", user: str, password: str) -> None:
        """Protect `app`, unless the user is empty."""
        self._app = app
        self._expected = f"{user}:{password}".encode() if user else b""
        self._session = secrets.token_urlsafe(32)

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request on, or refuse it."""
        is_request = scope["type"] in ("http", "websocket")
        if not self._expected or not is_request or (scope["type"] == "http" and scope["path"] in _OPEN):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if self._has_session(headers):
            await self._app(scope, receive, send)
        elif self._has_password(headers):
            await self._app(scope, receive, self._with_cookie(send))
        else:
            refusal = PlainTextResponse(
                "This page asks for the user and password in PAGE_USER and PAGE_PASSWORD.\n",
                401,
                {"WWW-Authenticate": 'Basic realm="live page", charset="UTF-8"'},
            )
            await refusal(scope, receive, send)

    def _has_password(self, headers: Headers) -> bool:
        scheme, _, encoded = headers.get("authorization", "").partition(" ")
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        return secrets.compare_digest(given, self._expected) and scheme.lower() == "basic"

    def _has_session(self, headers: Headers) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
        except CookieError:
            return False
        # The comparison of two texts takes ASCII alone.
        return cookie is not None and secrets.compare_digest(cookie.value.encode(), self._session.encode())

    def _with_cookie(self, send: "Send") -> "Send":
        async def send_with_cookie(message: "Message") -> None:
            if message["type"] == "http.response.start":
                cookie = f"{_COOKIE}={self._session}; Path=/; HttpOnly; SameSite=Strict"
                MutableHeaders(scope=message).append("Set-Cookie", cookie)
            await send(message)

        return send_with_cookie
