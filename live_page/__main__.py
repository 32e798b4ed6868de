"""Runs the page: ``python -m live_page``."""

import logging
import os
import signal
import sys
from functools import partial

from nicegui import app, core, ui
from starlette.responses import Response

from live_page.guard import Guard
from live_page.layout import TITLE, build
from live_page.settings import PageSettings
from live_page.sources import create_sources, elasticsearch_client
from observer.reading_history import Poller
from observer.snapshot import Observer
from runtime import logs

logger = logging.getLogger("live_page")

_ICON = "📈"


def main() -> int:
    """Serve the page until stopped."""
    # With this variable set, NiceGUI runs in its own test mode.
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    settings = PageSettings.load()
    logs.configure(settings.log_level)
    sources = create_sources(settings)
    observer = Observer(settings, elasticsearch_client(settings), settings.warehouse, settings.service_urls)
    poller = Poller(observer, sources.history)
    app.on_startup(poller.start)
    app.on_shutdown(poller.stop)
    app.add_middleware(Guard, names=settings.page_names.split(","))
    # NiceGUI allows every origin by default; the guard has checked it already, and no other site may read a response.
    core.sio.eio.cors_allowed_origins = []
    # The server handles these itself, and raises them again after a clean stop: ignored, so that the exit status is 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    app.get("/health")(lambda: Response('{"status": "ok"}\n', media_type="application/json"))
    logger.info("ready: http://%s:%d", settings.page_host, settings.page_port)
    ui.run(
        partial(build, sources),
        host=settings.page_host,
        port=settings.page_port,
        title=TITLE,
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
