"""The style sheet of the overview: a file that a browser requests once for each of its contents."""

from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import quote

from nicegui import app
from starlette.requests import Request

_FILE: Final = Path(__file__).with_name("overview.css")
PATH: Final = f"/static/overview.{sha256(_FILE.read_bytes()).hexdigest()[:16]}.css"
"""Other contents have another path, so it is never out of date."""
_CACHE_SECONDS: Final = 365 * 24 * 3600


def serve() -> None:
    """Serve it at its path."""
    app.add_static_file(local_file=_FILE, url_path=PATH, max_cache_age=_CACHE_SECONDS)


def link(request: Request) -> str:
    """Return the element of the head that loads it, before anything is drawn."""
    # A proxy that serves the page below a path says so by this header; NiceGUI reads it too.
    prefix = quote(request.headers.get("X-Forwarded-Prefix", "")) + request.scope.get("root_path", "")
    return f'<link rel="stylesheet" href="{prefix}{PATH}">'
