"""Layout around every page: header, navigation, colour theme, and the routes of the pages."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from contract.tables import Table
from live_page import stylesheet
from live_page.address import current_query, one_of, path_of, set_query
from live_page.badge import show_badge
from live_page.banner import show_banner
from live_page.components import LINK
from live_page.formatting import format_text
from live_page.pages import alerts, controls, lake, overview, row, rows, topics
from live_page.pages.links import KEYED, decode_id, mistyped_row, noun, plural, row_href, row_label, table_href
from live_page.sources import Sources
from observer.reading_history import ReadingHistory

TITLE = "Streaming analytics"
_STYLE = """
<style>
.nicegui-content { padding: 0; }
:focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
nav a { padding: .375rem .625rem; border-radius: .375rem; white-space: nowrap; }
nav a { color: inherit !important; text-decoration: none !important; }
nav a:hover, nav a[aria-current=page] { background: rgb(0 0 0 / .28); }
.q-table th { font-weight: 600; }
.q-table__middle { flex: 0 1 auto !important; }
.q-table td, .q-table th { padding-left: 8px !important; padding-right: 8px !important; }
.q-table__container { container-type: inline-size; }
.q-table td .cell { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; max-width: max(6.5rem, 26cqw); }
.q-table td.text-right .cell { margin-left: auto; }
.q-table td .cell.null { font-style: italic; opacity: .75; }
.nicegui-codemirror { border-color: rgb(128 134 143 / .45); height: auto; }
.nicegui-codemirror .cm-editor { min-height: 6rem; max-height: 20rem; }
.nicegui-codemirror .cm-activeLine { background: transparent !important; }
.body--dark .nicegui-codemirror .cm-editor { filter: invert(.9) hue-rotate(180deg); }
.q-table td.wraps { white-space: normal; }
.q-table td.wraps .cell {
  white-space: pre-wrap; overflow-wrap: anywhere; max-width: none; min-width: 6rem;
  display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 8;
}
.opener { background: none; border: 0; padding: 0; color: inherit; font: inherit; text-align: left; cursor: pointer; }
.q-table tr.opened td { border-bottom-width: 0; }
.q-table td.detail { white-space: normal; }
.record { max-width: calc(100cqw - 1rem); padding: 0 0 .5rem; line-height: 1.4; }
.record dl { display: grid; grid-template-columns: fit-content(12rem) minmax(0, 1fr); gap: 0 .75rem; margin: 0; }
.record dt, .record dd { margin: 0; overflow-wrap: anywhere; }
.record .title { font-weight: 600; margin-top: .5rem; overflow-wrap: anywhere; }
.record pre {
  margin: .25rem 0 0; padding: .5rem; max-height: 24rem; overflow: auto; border-radius: .25rem;
  white-space: pre-wrap; overflow-wrap: anywhere; background: rgb(128 134 143 / .15);
}
.record .replay { display: flex; flex-wrap: wrap; align-items: center; gap: .75rem; margin-top: .75rem; }
.nicegui-echart text { paint-order: stroke; stroke-width: 3px; stroke-linejoin: round; }
.nicegui-echart text { fill: #3c4149 !important; stroke: #fff !important; }
.body--dark .nicegui-echart text { fill: #c3c8d0 !important; stroke: #1d1d1d !important; }
[data-badge] { background: #3f454d; color: #fff; }
[data-badge=equal] { background: #14622f; }
[data-badge=behind] { background: #f0b429; color: #1c1400; }
[data-badge=wrong] { background: #a3201a; }
.stale { background: #e6e8eb !important; }
.body--dark .stale { background: #34373c !important; }
.stale .nicegui-echart, .stale .tile, .stale svg { filter: grayscale(1); }
.stale .q-table__card { background: transparent; }
.stale .nicegui-echart text { stroke: #e6e8eb !important; }
.body--dark .stale .q-table__card { background: transparent; }
.body--dark .stale .nicegui-echart text { stroke: #34373c !important; }
.banner { background: #8c1d18; color: #fff; }
.q-btn.bg-primary > .q-focus-helper { color: #000; }
.q-btn-toggle { border: 1px solid rgb(128 134 143 / .45); }
@media (max-width: 639px) {
  nav a { padding: .25rem .3rem; font-size: .8125rem; }
  .q-table td, .q-table th { padding-left: 4px !important; padding-right: 4px !important; }
}
</style>
"""
_MAX_TAB_TITLE = 80
"""Characters."""
_MAX_SHOWN_PATH = 600
"""Characters."""
_THEMES: Final[Mapping[str, bool | None]] = {"auto": None, "light": False, "dark": True}
_SYSTEM: Final = "auto"
_ICONS = {"auto": "brightness_auto", "light": "light_mode", "dark": "dark_mode"}


def build(sources: Sources) -> None:
    """Build the whole page of one browser."""
    pages = _pages(sources)
    ui.colors(primary="#1f6aa5", positive="#1b7a3d")
    # In the head from the start, so that nothing moves when it is applied. That of the overview too, whichever page is
    # the first one: a browser opens the others without another document.
    ui.add_head_html(f"{_STYLE}{stylesheet.link(ui.context.client.request)}")
    names = {path: name for path, (name, _) in pages.items()}
    theme = _Theme()
    _add_header(names, sources.history, theme)
    with ui.column().classes("w-full max-w-7xl mx-auto gap-3 p-2 sm:p-4") as content:
        routes: dict[str, Callable[..., None]] = {
            path: partial(_page, sources.history, name, show) for path, (name, show) in pages.items()
        }
        for table in KEYED:
            routes[table_href(table) + "/{row_id}"] = partial(_row_page, sources, table)
        shown = _SubPages(routes, partial(_show_not_found, sources.history, names)).classes("w-full gap-3")
    ui.skip_link(target=content)

    def on_path_changed(_: str) -> None:
        theme.keep()
        # NiceGUI itself does not build a page again if only the query has changed.
        shown.refresh()

    ui.context.client.sub_pages_router.on_path_changed(on_path_changed)


class _SubPages(ui.sub_pages):
    """The pages by their addresses, and one for all other addresses."""

    def __init__(self, routes: dict[str, Callable[..., None]], show_not_found: Callable[[str], None]) -> None:
        self._show_not_found = show_not_found
        super().__init__(routes)

    def _render_404(self) -> None:
        self._show_not_found(path_of(self._router.current_path))


def _pages(sources: Sources) -> dict[str, tuple[str, Callable[[], None]]]:
    """Return the name and the function of each page by its path."""
    return {
        "/": ("Overview", partial(overview.show, sources)),
        **{table_href(table): (plural(table).capitalize(), partial(rows.show, sources, table)) for table in KEYED},
        "/alerts": ("Alerts", partial(alerts.show, sources)),
        "/topics": ("Topics", partial(topics.show, sources)),
        "/lake": ("Lake", partial(lake.show, sources)),
        "/controls": ("Controls", partial(controls.show, sources)),
    }


def _add_header(names: Mapping[str, str], history: ReadingHistory, theme: "_Theme") -> None:
    """Add the header with links to the pages, given by path, and the badge."""
    with ui.header().classes("p-0 gap-0"):
        with ui.row().classes("w-full items-center gap-x-4 gap-y-1 px-3 py-2 no-wrap max-sm:flex-wrap"):
            ui.label(TITLE).classes("font-semibold text-lg whitespace-nowrap max-sm:grow")
            with ui.element("nav").classes(
                "flex flex-wrap gap-1 max-h-24 overflow-y-auto grow max-sm:order-3 max-sm:w-full"
            ):
                links = {path: ui.link(name, path) for path, name in names.items()}
            theme.add_button()
        show_badge(history)
    router = ui.context.client.sub_pages_router
    router.on_path_changed(partial(_mark_current, links))
    _mark_current(links, router.current_path)


def _page(history: ReadingHistory, name: str, show: Callable[[], None], title: tuple[str, str] = ("", TITLE)) -> None:
    """Build a page below its heading; `title` is that of the browser's tab, as default the heading."""
    ui.page_title(tab_title(title[0] or name, title[1]))
    with ui.row().classes("w-full items-baseline justify-between gap-x-3 gap-y-0"):
        TextElement(tag="h1", text=format_text(name)).classes("text-xl font-semibold min-w-0 [overflow-wrap:anywhere]")
        show_banner(history)
        ui.label("All times are UTC").classes("text-sm opacity-75")
    show()


def _row_page(sources: Sources, table: Table, row_id: str) -> None:
    id_ = decode_id(row_id)
    name = f"{noun(table).capitalize()} {row_label(table, id_)}"
    title = row_label(table, id_), plural(table).capitalize()
    _page(sources.history, name, partial(row.show, sources, table, id_), title)


def tab_title(what: str, of: str) -> str:
    """Return the title of the browser's tab.

    >>> tab_title("user_1", "Users"), tab_title("a" * 100, "Users") == f"{'a' * 80}… (100 characters) · Users"
    ('user_1 · Users', True)
    """
    return f"{format_text(what, _MAX_TAB_TITLE)} · {of}"


def _show_not_found(history: ReadingHistory, names: Mapping[str, str], path: str) -> None:
    """Build the page of an address that is none, with links to what there is."""

    def show() -> None:
        ui.label(f"There is no page {format_text(path, _MAX_SHOWN_PATH)}").classes("[overflow-wrap:anywhere]")
        found = mistyped_row(path)
        if found is not None:
            table, row_id = found
            name = format_text(f"{noun(table)} {row_label(table, row_id)}", _MAX_SHOWN_PATH)
            ui.link(f"Did you mean the {name}?", row_href(table, row_id)).classes(f"{LINK} [overflow-wrap:anywhere]")
        with ui.row().classes("gap-x-4 gap-y-1"):
            ui.label("The pages are:")
            for target, text in names.items():
                ui.link(text, target).classes(LINK)

    _page(history, "Page not found", show)


def _mark_current(links: Mapping[str, ui.link], current: str) -> None:
    """Mark the link to the current page, or to the page above it."""
    path = current.partition("?")[0]
    for target, link in links.items():
        if path == target or (target != "/" and path.startswith(f"{target}/")):
            link.props('aria-current="page"')
        else:
            link.props(remove="aria-current")


class _Theme:
    """The colour theme, which is in the address unless it is the system's."""

    def __init__(self) -> None:
        self._name = one_of(current_query().get("theme"), _THEMES, _SYSTEM)
        self._dark = ui.dark_mode(_THEMES[self._name])

    def add_button(self) -> None:
        """Add the button that switches to the next theme."""
        self._button = ui.button(icon=_ICONS[self._name], on_click=self._switch).props('flat round dense color="white"')
        self._button.props('aria-label="Colour theme: system, light or dark"')

    def keep(self) -> None:
        """Apply the theme of another address, which gets the current one if it has none."""
        self._apply(one_of(current_query().get("theme"), _THEMES, self._name))

    def _switch(self) -> None:
        names = list(_THEMES)
        self._apply(names[(names.index(self._name) + 1) % len(names)])

    def _apply(self, name: str) -> None:
        self._name = name
        self._dark.set_value(_THEMES[name])
        self._button.set_icon(_ICONS[name])
        set_query({"theme": "" if name == _SYSTEM else name})
