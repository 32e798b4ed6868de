"""The line on every page that says whether everything sent is in the lake and in the index."""

from typing import Final

from nicegui import ui

from live_page.formatting import format_text
from observer.reading_history import ReadingHistory
from observer.reconciliation import State

_ICONS: Final = {
    State.UNKNOWN: "help",
    State.BEHIND: "sync",
    State.EQUAL: "check_circle",
    State.WRONG: "error",
}


def show_badge(history: ReadingHistory) -> None:
    """Build the line, which follows the latest reading: by icon and text, not by colour alone."""
    # On a phone its text has one line or two.
    with ui.row().classes("w-full items-center gap-2 no-wrap px-3 py-1 text-sm max-sm:min-h-12") as line:
        icon = ui.icon("").classes("shrink-0 text-base")
        text = ui.label().classes("min-w-0 tabular-nums [overflow-wrap:anywhere]")

    def update() -> None:
        verdict = history.latest.verdict
        icon.set_name(_ICONS[verdict.state])
        text.set_text(format_text(verdict.text, 1_000))
        line.props(f'data-badge="{verdict.state}"')

    update()
    ui.timer(1.0, update)
