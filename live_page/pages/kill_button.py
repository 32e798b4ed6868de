"""A button that kills a process of the local stack, with a second click to confirm."""

import time
from typing import Final

from nicegui import ui

from live_page.components import button, report
from live_page.sources.processes import Processes, kill_refusal
from observer.processes import ProcessList

_CONFIRM_SECONDS: Final = 5.0
_KILL: Final = "Kill it"
_CONFIRM: Final = "Really kill it?"


class KillButton:
    """The button, and beside it why it is disabled."""

    def __init__(self, processes: Processes, name: str) -> None:
        self._processes = processes
        self._name = name
        self._confirm_until = 0.0
        self._button = button(_KILL, self._click).props("dense").classes("shrink-0 px-2")
        self._reason = ui.label().classes("text-sm w-full empty:hidden").props(f'data-reason="{name}"')
        self._show()

    def update(self, listed: ProcessList) -> None:
        """Enable or disable it as the list of processes allows."""
        reason = kill_refusal(listed, self._name)
        self._button.set_enabled(not reason)
        self._reason.set_text(reason)
        if reason or time.monotonic() > self._confirm_until:
            self._confirm_until = 0.0
        self._show()

    def _show(self) -> None:
        text, colour = (_CONFIRM, "negative") if self._confirm_until else (_KILL, "primary")
        self._button.set_text(text)
        self._button.props(f'color={colour} aria-label="{text} {self._name}"')

    async def _click(self) -> None:
        if not self._confirm_until:
            self._confirm_until = time.monotonic() + _CONFIRM_SECONDS
            self._show()
            return
        self._confirm_until = 0.0
        self._show()
        await report(lambda: self._processes.kill(self._name), f"{self._name} was killed: the stack starts it again")
