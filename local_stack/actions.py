"""What the keys of the live view do: open the page, control the producer, quit."""

import os
import sys
import threading
import webbrowser
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from contract.declared import EVENT
from live_page.formatting import format_name
from live_page.sources.errors import EmptyError, UnavailableError
from live_page.sources.producer import OTHER, VIRAL_INTERACTIONS, ProducerControls, RefusedError

_BURST: Final = 1_000
_MALFORMED: Final = 10
_EVENTS: Final = format_name(EVENT.name)


@dataclass(frozen=True)
class Action:
    """What a key does."""

    label: str
    """In a word or two."""
    run: Callable[[], str]
    """Does it, and returns what came of it."""

    def perform(self) -> str:
        """Run it; return what came of it, or the reason why nothing did."""
        try:
            return self.run()
        except (RefusedError, EmptyError, UnavailableError) as reason:
            return str(reason)


def actions_by_key(page_url: str, producer: ProducerControls, stop: threading.Event) -> Mapping[str, Action]:
    """Return the actions by key; `stop` is set by the one that quits."""

    def send(done: str, **changes: int) -> Callable[[], str]:
        def run() -> str:
            producer.change(**changes)
            return done

        return run

    def pause() -> str:
        is_paused = producer.change(paused=not producer.flow()["paused"])["paused"]
        return "the producer is paused: p resumes it" if is_paused else "the producer sends again"

    def end() -> str:
        stop.set()
        return "stopping"

    sent = f"+ {VIRAL_INTERACTIONS:,} {_EVENTS} about one {OTHER}, within some seconds"
    viral = Action(f"viral {OTHER}", send(sent, viral_interactions=VIRAL_INTERACTIONS))
    return {
        "b": Action("browser", lambda: _open(page_url)),
        "p": Action("pause", pause),
        "+": Action(f"burst of {_BURST:,}", send(f"+ {_BURST:,} {_EVENTS}", burst=_BURST)),
        "m": Action(f"{_MALFORMED} malformed", send(f"+ {_MALFORMED} malformed records", malformed=_MALFORMED)),
        **({"v": viral} if OTHER else {}),
        "q": Action("quit", end),
    }


def has_display() -> bool:
    """Whether a browser opens in a window: one in the terminal would cover the live view."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _open(page_url: str) -> str:
    is_open = has_display() and webbrowser.open(page_url)
    return f"opened {page_url}" if is_open else f"no browser opens here: open {page_url} in one"
