"""What makes the demonstration come alive, and the rules that watch it."""

from collections.abc import Mapping
from typing import Any

from elasticsearch_sink_alert import data_mapper
from elasticsearch_sink_alert.data_mapper import DataMapper, DataMapperError
from elasticsearch_sink_alert.rules import Rule
from nicegui import run, ui

from live_page.pages.alerts import COUNT_COLUMNS, counts
from live_page.parts import Column, Panel, table
from live_page.producer import RefusedError
from live_page.sources import Sources
from live_page.unavailable import EmptyError, UnavailableError

_RATES = (1, 10, 50, 200, 1_000, 5_000)
_BURSTS = (100, 1_000, 10_000)
_MALFORMED = (1, 10)
_RULES = (
    Column("rule", "rule", wraps=True),
    Column("severity", "severity"),
    *COUNT_COLUMNS,
    Column("more", "more of it", is_minor=True, wraps=True),
)


def show(sources: Sources) -> None:
    """The producer's controls, and the rules."""
    producer = sources.producer
    with Panel("The data producer") as panel:
        state = ui.label("–").classes("text-lg tabular-nums").props('data-flow role="status"')

        async def ask(**wishes: float | bool) -> None:
            try:
                await run.io_bound(lambda: producer.ask(**wishes))
            except (RefusedError, EmptyError, UnavailableError) as reason:
                ui.notify(str(reason), type="negative")
                return
            ui.notify(", ".join(f"{name}: {_said(value)}" for name, value in wishes.items()), type="positive")
            await panel.renew()

        def button(text: str, **wishes: float | bool) -> None:
            ui.button(text, on_click=lambda: ask(**wishes)).props("no-caps unelevated")

        with _group("interactions a second"):
            for rate in _RATES:
                button(f"{rate:,}", rate=1 / rate)
        with _group("pause"):
            button("Pause", paused=True)
            button("Go on", paused=False)
        with _group("a burst of interactions, at once"):
            for burst in _BURSTS:
                button(f"+ {burst:,}", burst=burst)
        with _group("malformed records (they become dead letters)"):
            for malformed in _MALFORMED:
                button(f"+ {malformed} malformed", malformed=malformed)
        with _group("how many there are to draw from"):
            users = ui.number(label="users", min=1, max=1_000_000, precision=0).props("dense outlined").classes("w-32")
            items = ui.number(label="items", min=1, max=1_000_000, precision=0).props("dense outlined").classes("w-32")
            draw = ui.button("Set", on_click=lambda: ask(users=int(users.value), items=int(items.value)))
            draw.props("no-caps unelevated")

    with Panel("Alert rules") as ruled:
        rules = table(_RULES, "No rules: write some into data_mapper.yml", row_key="rule", height="min-h-36")
        ui.label(f"They are in {_shown_path(sources)}; the sink reads the file again when you save it.").classes(
            "text-sm opacity-75 break-all"
        )

    def show_flow(flow: Mapping[str, Any]) -> None:
        rate = "as fast as it goes" if not flow["rate"] else f"{1 / flow['rate']:,.3g} interactions a second"
        paused = "paused; otherwise " if flow["paused"] else ""
        state.set_text(f"{paused}{rate}, of {flow['users']:,} users and {flow['items']:,} items")
        for field, name in ((users, "users"), (items, "items")):
            if field.value is None:
                field.set_value(flow[name])

    def read_rules() -> tuple[DataMapper, Mapping[str, Mapping[str, Any]]]:
        try:
            mapper = data_mapper.load(sources.settings.data_mapper)
        except DataMapperError as error:
            raise UnavailableError(str(error)) from None
        try:
            return mapper, sources.documents.alerts_per_rule()
        except (EmptyError, UnavailableError):
            return mapper, {}

    def show_rules(found: tuple[DataMapper, Mapping[str, Mapping[str, Any]]]) -> None:
        mapper, alerts = found
        rules.rows = [_rule_row(rule, alerts.get(rule.name, {})) for rule in mapper.all_rules]

    panel.keep(producer.flow, show_flow)
    ruled.keep(read_rules, show_rules)


def _group(text: str) -> ui.row:
    ui.label(text).classes("text-sm opacity-75 mt-2")
    return ui.row().classes("items-center gap-2 w-full")


def _said(value: float | bool) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:,.4g}"


def _rule_row(rule: Rule, alerts: Mapping[str, Any]) -> dict[str, Any]:
    more = {
        "resolve": rule.resolve,
        "for": f"{rule.wait:g} s" if rule.wait else None,
        "silence": ", ".join(rule.silence) or None,
    }
    return {
        "rule": rule.name if rule.alert_text in rule.name else f"{rule.name} ({rule.table}: {rule.alert_text})",
        "severity": rule.severity,
        **counts(alerts),
        "more": "; ".join(f"{name}: {value}" for name, value in more.items() if value is not None),
    }


def _shown_path(sources: Sources) -> str:
    return "/".join(sources.settings.data_mapper.parts[-2:])
