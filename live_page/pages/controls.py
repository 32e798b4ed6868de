"""What makes the demonstration come alive, and the rules that watch it."""

from collections.abc import Mapping
from typing import Any

from elasticsearch_sink_alert.alerting import data_mapper
from elasticsearch_sink_alert.alerting.data_mapper import DataMapper, DataMapperError
from elasticsearch_sink_alert.alerting.rules import Rule
from nicegui import run, ui

from live_page.components import Column, Panel, table
from live_page.pages.alerts import COUNT_COLUMNS, counts
from live_page.producer import RefusedError
from live_page.sources import Sources
from live_page.text import per_second, short, visible
from live_page.unavailable import EmptyError, UnavailableError

_RATES = (1, 10, 50, 200, 1_000, 5_000)
_BURSTS = (100, 1_000, 10_000)
_MALFORMED = (1, 10)
_MOST = 1_000_000
_UNITS = {"burst": "interactions at once", "malformed": "malformed records"}
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
                ui.notify(visible(reason, 1_000), type="negative")
                return
            ui.notify(", ".join(_said(name, value) for name, value in wishes.items()), type="positive")
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
            users, items = _number("users"), _number("items")

            async def draw() -> None:
                if users.validate() and items.validate():
                    await ask(users=int(users.value), items=int(items.value))

            ui.button("Set", on_click=draw).props("no-caps unelevated")

    with Panel("Alert rules") as ruled:
        rules = table(_RULES, "No rules: write some into data_mapper.yml", row_key="rule", height="min-h-36")
        ui.label(f"They are in {_shown_path(sources)}; the sink reads the file again when you save it.").classes(
            "text-sm opacity-75 break-all"
        )

    filled: set[str] = set()

    def show_flow(flow: Mapping[str, Any]) -> None:
        rate = per_second(flow["rate"])
        paused = "paused; otherwise " if flow["paused"] else ""
        state.set_text(f"{paused}{rate}, of {flow['users']:,} users and {flow['items']:,} items")
        for field, name in ((users, "users"), (items, "items")):
            if field.value is None and name not in filled:
                field.set_value(flow[name])
                filled.add(name)

    def read_rules() -> tuple[DataMapper, Mapping[str, Mapping[str, Any]] | None]:
        try:
            mapper = data_mapper.load(sources.settings.data_mapper)
        except DataMapperError as error:
            raise UnavailableError(str(error)) from None
        try:
            return mapper, sources.documents.alerts_per_rule()
        except EmptyError:
            return mapper, {}
        except UnavailableError:
            return mapper, None

    def show_rules(found: tuple[DataMapper, Mapping[str, Mapping[str, Any]] | None]) -> None:
        mapper, alerts = found
        rules.rows = [
            _rule_row(rule, None if alerts is None else alerts.get(rule.name, {})) for rule in mapper.all_rules
        ]

    panel.keep(producer.flow, show_flow)
    ruled.keep(read_rules, show_rules)


def _group(text: str) -> ui.row:
    ui.label(text).classes("text-sm opacity-75 mt-2")
    return ui.row().classes("items-center gap-2 w-full")


def _number(name: str) -> ui.number:
    """A field for a count. What is out of bounds is refused in words: nothing is cut to the bounds in silence."""

    def problem(value: float | None) -> str | None:
        is_fit = value is not None and float(value).is_integer() and 1 <= value <= _MOST
        return None if is_fit else f"a whole number from 1 to {_MOST:,}"

    field = ui.number(label=name, validation=problem).props("dense outlined").classes("w-44")
    return field.without_auto_validation()


def _said(name: str, value: float | bool) -> str:
    """A change in the words and units of the page."""
    if name == "rate":
        return per_second(value)
    if name == "paused":
        return "paused" if value else "it goes on"
    return f"{'+ ' if name in ('burst', 'malformed') else ''}{short(value)} {_UNITS.get(name, name)}"


def _rule_row(rule: Rule, alerts: Mapping[str, Any] | None) -> dict[str, Any]:
    more = {
        "resolve": rule.resolve,
        "for": f"{short(rule.for_seconds)} s" if rule.for_seconds else None,
        "silence": ", ".join(rule.silence) or None,
    }
    return {
        "rule": visible(
            rule.name if rule.alert_text in rule.name else f"{rule.name} ({rule.table}: {rule.alert_text})"
        ),
        "severity": rule.severity,
        **counts(alerts),
        "more": "; ".join(f"{name}: {value}" for name, value in more.items() if value is not None),
    }


def _shown_path(sources: Sources) -> str:
    return "/".join(sources.settings.data_mapper.parts[-2:])
