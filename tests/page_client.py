"""What stands for a browser where elements of the live page are built without one."""

from nicegui import Client, ui
from starlette.requests import Request


def page_client(path: str = "/", headers: dict[str, str] | None = None) -> Client:
    """Return the client of a request for a page; elements are created in its `with` block."""
    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {
        "type": "http", "method": "GET", "scheme": "http", "server": ("localhost", 8090), "root_path": "", "path": path,
        "query_string": b"", "headers": raw,
    }  # fmt: skip
    return Client(ui.page("/"), request=Request(scope))
