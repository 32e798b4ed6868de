"""The banner of every page that names the servers that do not answer, once for all panels."""

import time
from datetime import UTC, datetime
from typing import Final

from nicegui import ui

from live_page.formatting import format_time
from live_page.sources.consumers import KAFKA
from live_page.sources.documents import ELASTICSEARCH
from observer.reading_history import Reading, ReadingHistory
from observer.services import OK

SERVERS: Final = (KAFKA, ELASTICSEARCH)
_OLD: Final = 15.0
"""Seconds after which the latest reading is old: one in which nothing answers takes several."""


def banner_text(reading: Reading, now: float) -> str:
    """Return what does not answer, or that there is no new reading `now` (seconds since the epoch); or nothing."""
    if reading.at and now - reading.at > _OLD:
        return f"No new figures since {format_time(datetime.fromtimestamp(reading.at, UTC))}"
    silent = [name for name in SERVERS if reading.snapshot.health.get(name, OK) != OK]
    if not silent:
        return ""
    verb = "does" if len(silent) == 1 else "do"
    return f"{' and '.join(silent)} {verb} not answer: grey panels show their last state"


def show_banner(history: ReadingHistory) -> None:
    """Build the banner, which is hidden while there is nothing to say."""
    with ui.row().classes("banner items-center gap-2 no-wrap rounded px-2 py-0.5 text-sm") as banner:
        ui.icon("cloud_off").classes("shrink-0 text-base").props('aria-hidden="true"')
        text = ui.label().classes("min-w-0")
    banner.props('role="alert" data-banner')

    def update() -> None:
        shown = banner_text(history.latest, time.time())
        text.set_text(shown)
        banner.set_visibility(bool(shown))

    update()
    ui.timer(1.0, update)
