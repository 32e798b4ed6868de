"""Building blocks of the pages: panels that refresh themselves, tables, toggles."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from nicegui import run, ui

from live_page.banner import SERVERS
from live_page.charts import Chart
from live_page.formatting import format_text, format_time
from live_page.sources import READING_THREADS
from live_page.sources.errors import EmptyError, UnavailableError, WaitingError
from live_page.sources.producer import RefusedError

T = TypeVar("T")

LINK: Final = "underline text-sky-800 dark:text-sky-300"
_LOADING: Final = "Loading …"
_SHOW_FOCUSABLE: Final = """table => {
  const box = table.el.querySelector(".q-table__middle");
  const title = table.el.closest(".q-card")?.querySelector("[role=heading]")?.textContent;
  const attributes = {tabindex: 0, role: "region", "aria-label": title};
  const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
  for (const [key, value] of Object.entries(attributes))
    scrolls ? box.setAttribute(key, value) : box.removeAttribute(key);
}"""
"""Lets the keyboard scroll a table that is larger than its place."""
_STALE: Final = "stale"
"""Class of what is not current."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str
    label: str
    is_number: bool = False
    is_minor: bool = False
    """Hidden on narrow screens."""
    is_sortable: bool = False
    wraps: bool = False
    """Shows long text in several lines instead of truncating it to one."""

    @property
    def props(self) -> dict[str, Any]:
        """The column as a property of Quasar's table."""
        classes = "max-sm:hidden" if self.is_minor else ""
        return {
            "name": self.name,
            "label": self.label,
            "field": self.name,
            "align": "right" if self.is_number else "left",
            "sortable": self.is_sortable,
            "classes": f"{classes} tabular-nums {'wraps' if self.wraps else ''}",
            "headerClasses": classes,
        }


class RecordTable(ui.table):
    """A table that shows why it is empty, and text of any length in cells of bounded size."""

    def __init__(
        self, columns: Sequence[Column], empty: str, *, row_key: str = "key", links: str = "", height: str = ""
    ) -> None:
        """Create a table that is loading.

        Args:
            columns: the columns.
            empty: text to show if there are no rows.
            row_key: field that identifies a row.
            links: column whose cells link to the row's `href`.
            height: class of the table's minimum height.
        """
        super().__init__(columns=[column.props for column in columns], rows=[], row_key=row_key)
        self._empty = empty
        self.props["no-data-label"] = _LOADING
        self.classes(f"w-full min-w-0 {height}").props('dense flat hide-pagination :rows-per-page-options="[0]"')
        # Quasar's own shows a warning sign.
        self.add_slot("no-data", '<div class="w-full py-2 text-sm opacity-75">{{ props.message }}</div>')
        for moment in ("vnodeMounted", "vnodeUpdated"):
            self.on(moment, js_handler=_SHOW_FOCUSABLE)
        # As the tables of a lake have it: a text can be the word, too.
        text = (
            '<div class="cell" :class="{null: props.value === null}" :title="props.value">'
            '{{ props.value === null ? "NULL" : props.value }}</div>'
        )
        self.add_slot("body-cell", f'<q-td :props="props">{text}</q-td>')
        if links:
            self.add_slot(
                f"body-cell-{links}",
                f'<q-td :props="props"><a v-if="props.row.href" :href="props.row.href" class="{LINK}">'
                f"{text}</a><template v-else>{text}</template></q-td>",
            )

    def set_loaded(self) -> None:
        """Show the table's text for no rows."""
        self._set_empty_text(self._empty)

    def set_unavailable(self, reason: str) -> None:
        """Show the reason in place of missing rows."""
        self._set_empty_text(f"Not available: {reason}")

    def clear_rows(self, reason: str) -> None:
        """Remove all rows, and show the reason instead."""
        self._set_empty_text(reason)
        self.rows = []

    def _set_empty_text(self, text: str) -> None:
        if self.props["no-data-label"] != text:
            self.props["no-data-label"] = text
            self.update()


class Panel:
    """A card with a title and a status beside it, whose content refreshes itself."""

    def __init__(self, title: str, classes: str = "") -> None:
        self._card = ui.card().classes(f"w-full min-w-0 gap-2 p-3 sm:p-4 {classes}").props("flat bordered")
        with (
            self._card,
            ui.row().classes("w-full items-baseline justify-between gap-x-3 gap-y-0 min-h-6") as self.header,
        ):
            heading = ui.label(title).classes("text-base font-semibold min-w-0 [overflow-wrap:anywhere]")
            heading.props('role="heading" aria-level="2"')
            self._status = ui.label().classes("text-sm text-orange-800 dark:text-orange-400").props('role="status"')
        self._refresh: Callable[[], Any] | None = None
        self._clear: Callable[[], object] = lambda: None
        self._loaded_at: datetime | None = None
        self._followers: list[Panel] = []
        self._choice = self._shown_choice = 0
        """How often the reader had chosen something else, now and when the content was read."""

    def __enter__(self) -> "Panel":
        self._card.__enter__()
        return self

    def __exit__(self, *args: Any) -> None:
        self._card.__exit__(*args)

    def set_status(self, text: str) -> None:
        """Show a text beside the title, unless the reader has left the page."""
        if not self._status.is_deleted:
            self._status.set_text(text)

    def set_loaded(self, at: datetime | None = None) -> None:
        """Mark the content as current, or as of another time."""
        self.set_status("")
        self._card.classes(remove=_STALE)
        self._loaded_at = at or datetime.now(UTC)
        self._shown_choice = self._choice
        for each in self._tables():
            each.set_loaded()
        for follower in self._followers:
            follower.set_loaded(at)

    def set_unavailable(self, reason: str, *, is_in_banner: bool = False) -> None:
        """Mark the content as old, and show from when it is, and the reason unless the page's banner has it."""
        since = f"as of {format_time(self._loaded_at)}" if self._loaded_at else "unknown" if is_in_banner else ""
        self.set_status(since if is_in_banner else ", ".join(filter(None, (reason, since))))
        self._card.classes(_STALE)
        for each in self._tables():
            each.set_unavailable(reason)
        for follower in self._followers:
            follower.set_unavailable(reason, is_in_banner=is_in_banner)

    def _set_empty(self, reason: str) -> None:
        tables = self._tables()
        # Once: a table says it in place of its rows.
        self.set_status("" if tables else reason)
        self._card.classes(remove=_STALE)
        self._shown_choice = self._choice
        for each in tables:
            each.clear_rows(reason)
        for follower in self._followers:
            # This one gives the reason.
            follower._set_empty("")

    def _forget_other_choice(self) -> None:
        """Remove the content if it is that of an earlier choice."""
        if self._shown_choice == self._choice:
            return
        self._shown_choice = self._choice
        self._loaded_at = None
        for table in self._tables():
            table.clear_rows(_LOADING)
        for chart in self._card.descendants():
            if isinstance(chart, Chart):
                chart.remove_values()
        self._clear()

    def _tables(self) -> list[RecordTable]:
        return [each for each in self._card.descendants() if isinstance(each, RecordTable)]

    def refresh_from(
        self,
        read: Callable[[], T],
        show: Callable[[T], None],
        interval: float = 1.0,
        show_empty: Callable[[EmptyError], None] = lambda _: None,
        clear: Callable[[], object] = lambda: None,
    ) -> None:
        """Show what `read` returns, now and every `interval` seconds; `read` runs in a thread and may block.

        `show_empty` is called if there is nothing to show, and `clear` if the content is of an earlier choice and must
        not be shown any more: it removes what is neither in a table nor in a chart.
        """
        self._clear = clear

        async def refresh() -> None:
            choice = self._choice
            try:
                value, reason = await run.io_bound(read), None
            except (UnavailableError, EmptyError) as error:
                value, reason = None, error
            # The reader has chosen something else meanwhile, which is being read, or has left the page.
            if choice != self._choice or self._card.is_deleted:
                return
            if isinstance(reason, UnavailableError):
                self._forget_other_choice()
            if isinstance(reason, WaitingError):
                # What is shown is not older than it would be anyway.
                if self._loaded_at is None:
                    self.set_status(str(reason))
            elif isinstance(reason, UnavailableError):
                self.set_unavailable(str(reason), is_in_banner=reason.server in SERVERS)
            elif reason is not None:
                self._set_empty(str(reason))
                show_empty(reason)
            elif value is not None:
                show(value)
                self.set_loaded()

        self._refresh = refresh
        with self._card:
            ui.timer(interval, refresh)

    def add_follower(self, follower: "Panel") -> None:
        """Have another panel be as current as this one, since it shows a part of what this one reads."""
        self._followers.append(follower)

    async def choose(self) -> None:
        """Refresh now, as the reader has chosen something else, such as a filter: what is shown is not of it."""
        self._choice += 1
        await self.refresh()

    async def refresh(self) -> None:
        """Refresh now."""
        if self._refresh is not None:
            await self._refresh()


def use_many_threads() -> None:
    """Let every panel of some browsers read at once, so that a server that does not answer holds up only its own.

    As default there are only 4 threads more than processors, which the panels of two browsers can keep waiting.
    """
    run.thread_pool = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="read")


async def report(change: Callable[[], object], done: str) -> bool:
    """Make a change in a thread, and tell the reader its result, on whichever page that is by then.

    Returns whether it was made.
    """
    # The elements of the page from which it was asked for may be gone.
    client = ui.context.client
    problem = ""
    try:
        await run.io_bound(change)
    except (RefusedError, EmptyError, UnavailableError) as reason:
        problem = format_text(reason, 1_000)
    with client:
        ui.notify(problem or done, type="negative" if problem else "positive", multi_line=True)
    return not problem


def toggle(options: Sequence[str], selected: str | None = None) -> ui.toggle:
    """Create a group of buttons of which one is selected, at first the first one unless another is given."""
    return ui.toggle(list(options), value=selected or options[0]).props("no-caps unelevated").classes("flex-wrap")


def button(text: str, on_click: Callable[..., Any] | None = None) -> ui.button:
    """Create a button."""
    return ui.button(text, on_click=on_click).props("no-caps unelevated")


def height_of(rows: int) -> str:
    """Return the class of the minimum height of a table with a header and this number of rows of one line."""
    return f"min-h-[{1.8 * (1 + rows):.1f}rem]"


def hint(text: str) -> ui.label:
    """Create a line of small print, which is as high while it has no text yet."""
    return ui.label(text).classes("text-sm opacity-75 min-h-5")


def two_columns(classes: str = "") -> ui.element:
    """Create a grid of two columns, of one on narrow screens; a panel alone in the last row is as wide as both."""
    wide = "lg:[&>:last-child:nth-child(odd)]:col-span-2"
    return ui.element("div").classes(f"grid grid-cols-1 lg:grid-cols-2 gap-3 w-full {wide} {classes}")
