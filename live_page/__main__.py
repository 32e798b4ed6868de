"""Runs the page: ``python -m live_page``."""

import logging
import os
import signal
import sys
from functools import partial

from nicegui import app, core, ui

from live_page.guard import Guard
from live_page.layout import build
from live_page.settings import PageSettings
from live_page.sources import elasticsearch, sources
from observer.reading_history import Watch
from observer.snapshot import Observer
from runtime import logs

logger = logging.getLogger("live_page")

_TITLE = "Streaming analytics"
_ICON = "📈"


def main() -> int:
    """Serve until stopped."""
    # Started by somebody's test, NiceGUI would take this for a test of itself.
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    settings = PageSettings.load()
    logs.configure(settings.log_level)
    asked = sources(settings)
    observer = Observer(settings, elasticsearch(settings), settings.warehouse, settings.service_urls)
    watch = Watch(observer, asked.board)
    app.on_startup(watch.start)
    app.on_shutdown(watch.stop)
    app.add_middleware(Guard, names=settings.page_names.split(","))
    # NiceGUI lets any site open its socket: the guard has looked at the origin, and no other site is to read an answer.
    core.sio.eio.cors_allowed_origins = []
    # The server stops by itself on these, and raises them again when it has stopped: that is then no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    app.get("/health")(lambda: {"status": "ok"})
    logger.info("ready: http://%s:%d", settings.page_host, settings.page_port)
    ui.run(
        partial(build, asked),
        host=settings.page_host,
        port=settings.page_port,
        title=_TITLE,
        favicon=_ICON,
        dark=None,
        language="en-US",
        show=False,
        reload=False,
        show_welcome_message=False,
        binding_refresh_interval=None,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
