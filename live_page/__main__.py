"""Runs the page: ``python -m live_page``."""

from runtime.signals import end_on_interrupt

if __name__ == "__main__":
    end_on_interrupt()
    from runtime.logs import begin

    begin("live_page")

import argparse
import asyncio
import logging
import os
import signal
import sys
from functools import partial

from nicegui import app, background_tasks, core, ui
from nicegui.server import Server
from starlette.responses import Response

from live_page import metrics, stylesheet
from live_page.components import use_many_threads
from live_page.guard import Guard
from live_page.layout import TITLE, build
from live_page.login import Login
from live_page.settings import PageSettings
from live_page.sources import create_sources, elasticsearch_client
from observer.reading_history import Poller
from observer.snapshot import Observer
from runtime import listening, logs
from runtime.broken_pipe import exit_status
from runtime.signals import stop_signals

logger = logging.getLogger("live_page")

_ICON = "📈"
_CHECK_SECONDS = 0.05


def main() -> int:
    """Serve the page until stopped; return 2 if it cannot listen on its port."""
    argparse.ArgumentParser(prog="live_page", description="Serves the live page until it is stopped.").parse_args()
    # With this variable set, NiceGUI runs in its own test mode.
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    settings = PageSettings.load()
    logs.configure(settings.log_level, settings.log_format, logger.name)
    host, port = settings.page_host, settings.page_port
    try:
        listening.require_port(host, port, host_setting="PAGE_HOST", port_setting="PAGE_PORT")
    except listening.ListenError as error:
        logger.error("%s", error)
        return 2
    sources = create_sources(settings)
    observer = Observer(
        settings,
        elasticsearch_client(settings),
        settings.warehouse,
        settings.service_urls,
        settings.kafka_group_id,
    )
    poller = Poller(observer, sources.history)
    app.on_startup(poller.start)
    app.on_shutdown(poller.stop)
    # The last one that is added is the first to see a request.
    app.add_middleware(Login, user=settings.page_user, password=settings.page_password.get_secret_value())
    app.add_middleware(Guard, names=[listening.local_host(host), *settings.page_names.split(",")])
    # NiceGUI allows every origin by default; the guard has checked it already, and no other site may read a response.
    core.sio.eio.cors_allowed_origins = []
    _end_on_signals()
    app.get("/health")(lambda: Response('{"status": "ok"}\n', media_type="application/json"))
    metrics.PageMetrics(sources.history)
    app.get(metrics.PATH)(metrics.response)
    # The server listens only after the handlers of its start have returned.
    app.on_startup(lambda: background_tasks.create(_log_when_listening(listening.url(host, port))))
    stylesheet.serve()
    use_many_threads()
    # Quasar's bar on top shows every request of the browser, also those that nobody waits for, and has no name.
    app.config.quasar_config["loadingBar"]["skipHijack"] = True
    ui.run(
        partial(build, sources),
        host=host,
        port=port,
        title=TITLE,
        favicon=_ICON,
        dark=None,
        language="en-US",
        show=False,
        reload=False,
        show_welcome_message=False,
        binding_refresh_interval=None,
        # The longest with which a browser still asks every 4 s whether the page answers.
        reconnect_timeout=5.0,
        # Its log goes through that of the page, in the same format.
        log_config=None,
    )
    return 0


def _end_on_signals() -> None:
    """Have the stop signals end the page with status 0."""

    def end(*_: object) -> None:
        # While the server runs it handles these itself, and raises them again after it has stopped.
        if not hasattr(Server, "instance") or not Server.instance.started:
            raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if signal.SIGHUP in stop_signals():
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


async def _log_when_listening(url: str) -> None:
    while not Server.instance.started:
        await asyncio.sleep(_CHECK_SECONDS)
    logger.info("ready: %s", url)


if __name__ == "__main__":
    sys.exit(exit_status(main))
