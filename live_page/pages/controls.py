"""The controls page: what the producer sends, and the alert rules."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from elasticsearch_sink_alert.alerting import data_mapper
from elasticsearch_sink_alert.alerting.data_mapper import DataMapper, DataMapperError
from elasticsearch_sink_alert.alerting.rules import Rule
from nicegui import ui

from contract.declared import EVENT
from live_page.components import Column, Panel, RecordTable, button, hint, report
from live_page.formatting import UNKNOWN, format_compact, format_name, format_rate, format_text
from live_page.pages.alerts import COUNT_COLUMNS, rule_counts
from live_page.sources import Sources
from live_page.sources.errors import EmptyError, UnavailableError
from live_page.sources.producer import OTHER, VIRAL_INTERACTIONS, ProducerControls

_RATES = (1, 10, 50, 200, 1_000, 5_000)
_BURSTS = (100, 1_000, 10_000)
_MALFORMED = (1, 10)
_MAX_COUNT = 1_000_000
_EVENTS = format_name(EVENT.name)
_TEXTS = EVENT.other_texts
_KEYS = f"{format_name(EVENT.partition_by.removesuffix('_id'))}s"
_OTHERS = f"{OTHER}s" if len(_TEXTS) == 1 else "others"
"""What the producer makes up besides: of several texts, the number is the same."""
_UNITS = {
    "burst": _EVENTS,
    "malformed": "malformed records",
    "viral_interactions": f"{_EVENTS} about one {OTHER}",
    "users": _KEYS,
    "items": _OTHERS,
}
_ADDED = ("burst", "malformed", "viral_interactions")
"""What is sent in addition to the regular events."""
_RULES = (
    Column("rule", "Rule", wraps=True),
    Column("severity", "Severity"),
    *COUNT_COLUMNS,
    Column("options", "Options", is_minor=True, wraps=True),
)

Change = Callable[..., Awaitable[None]]


def show(sources: Sources) -> None:
    """Build the page."""
    _show_producer(sources.producer)
    _show_rules(sources)


def _show_producer(producer: ProducerControls) -> None:
    with Panel("Data producer") as panel:
        flow = ui.label(UNKNOWN).classes("text-lg tabular-nums").props('data-flow role="status"')
        limits = hint("").classes("empty:hidden").props("data-without-effect")

        async def change(**changes: float | bool) -> None:
            described = ", ".join(_describe(name, value) for name, value in changes.items())
            if await report(lambda: producer.change(**changes), described):
                await panel.refresh()

        buttons = _add_buttons(change)
        fields, set_button = _add_number_fields(change)
        buttons += [(name, set_button) for name in fields]

    filled: set[str] = set()

    def show_flow(current: Mapping[str, Any]) -> None:
        flow.set_text(_describe_flow(current))
        without_effect = current.get("without_effect", [])
        named = ", ".join(map(format_name, without_effect))
        limits.set_text(f"No effect during this replay: {named}" if named else "")
        for name, each in buttons:
            each.set_enabled(name not in without_effect)
        for name, field in fields.items():
            field.set_enabled(name not in without_effect)
            if field.value is None and name not in filled and name in current:
                field.set_value(current[name])
                filled.add(name)

    panel.refresh_from(producer.flow, show_flow)


def _add_buttons(change: Change) -> list[tuple[str, ui.button]]:
    """Add the buttons; return each with the name of what it changes."""
    buttons = []

    def add(text: str, **changes: float | bool) -> None:
        (name,) = changes
        buttons.append((name, button(text, lambda: change(**changes))))

    with _group(f"{_EVENTS.capitalize()} per second"):
        for rate in _RATES:
            add(f"{rate:,}", rate=1 / rate)
    with _group("Pause"):
        add("Pause", paused=True)
        add("Resume", paused=False)
    with _group(f"Send a burst of {_EVENTS}"):
        for burst in _BURSTS:
            add(f"+ {burst:,}", burst=burst)
    with _group("Send malformed records (they become dead letters)"):
        for malformed in _MALFORMED:
            add(f"+ {malformed} malformed", malformed=malformed)
    if _TEXTS:
        with _group(f"Send {VIRAL_INTERACTIONS:,} {_EVENTS} about one {OTHER} within some seconds"):
            add(f"Viral {OTHER}", viral_interactions=VIRAL_INTERACTIONS)
    return buttons


def _add_number_fields(change: Change) -> tuple[dict[str, ui.number], ui.button]:
    shown = {"users": _KEYS, "items": _OTHERS} if _TEXTS else {"users": _KEYS}
    # Below a field there is room for what is wrong with its number.
    with _group(f"Number of {' and '.join(shown.values())}").classes(remove="items-center", add="items-start"):
        fields = {name: _number_field(label) for name, label in shown.items()}

        async def set_numbers() -> None:
            if all(field.validate() for field in fields.values()):
                await change(**{name: int(field.value) for name, field in fields.items()})

        set_button = button("Set", set_numbers).classes("h-10")
    return fields, set_button


def _show_rules(sources: Sources) -> None:
    path = "/".join(sources.settings.data_mapper.parts[-2:])
    with Panel("Alert rules") as panel:
        table = RecordTable(_RULES, "No rules: add some to data_mapper.yml", row_key="rule", height="min-h-36")
        hint(f"Defined in {path}: the sink reloads the file when you save it.").classes("break-all")

    def read() -> tuple[DataMapper, Mapping[str, Mapping[str, Any]] | None]:
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
        table.rows = [
            _rule_row(rule, None if alerts is None else alerts.get(rule.name, {})) for rule in mapper.all_rules
        ]

    panel.refresh_from(read, show_rules)


def _group(text: str) -> ui.row:
    hint(text).classes("mt-2")
    return ui.row().classes("items-center gap-2 w-full")


def _number_field(name: str) -> ui.number:
    """Create a field for a count, which rejects values out of bounds instead of clamping them."""

    def problem(value: float | None) -> str | None:
        is_valid = value is not None and float(value).is_integer() and 1 <= value <= _MAX_COUNT
        return None if is_valid else f"Enter a whole number from 1 to {_MAX_COUNT:,}"

    field = ui.number(label=name.capitalize(), validation=problem).props("dense outlined").classes("w-44")
    return field.without_auto_validation()


def _describe(name: str, value: float | bool) -> str:
    if name == "rate":
        return format_rate(value, _EVENTS)
    if name == "paused":
        return "paused" if value else "resumed"
    return f"{'+ ' if name in _ADDED else ''}{format_compact(value)} {_UNITS.get(name, name)}"


def _describe_flow(flow: Mapping[str, Any]) -> str:
    paused = "paused; resumes at " if flow["paused"] else ""
    if "replay" in flow:
        paused = "paused; " if flow["paused"] else ""
        pace = f" at {format_rate(flow['rate'], _EVENTS)}" if "rate" in flow else ""
        return f"{paused}replaying {format_text(flow['replay'])}{pace}"
    wave = f" on average, in waves of {format_compact(flow['wave'])} s" if flow["wave"] and flow["rate"] else ""
    others = f", {flow['items']:,} {_OTHERS}" if _TEXTS else ""
    return f"{paused}{format_rate(flow['rate'], _EVENTS)}{wave}, {flow['users']:,} {_KEYS}{others}"


def _rule_row(rule: Rule, alerts: Mapping[str, Any] | None) -> dict[str, Any]:
    options = {
        "resolve": rule.resolve,
        "for": f"{format_compact(rule.for_seconds)} s" if rule.for_seconds else None,
        "silence": ", ".join(rule.silence) or None,
    }
    return {
        "rule": format_text(
            rule.name if rule.alert_text in rule.name else f"{rule.name} ({rule.table}: {rule.alert_text})"
        ),
        "severity": rule.severity,
        **rule_counts(alerts),
        "options": "; ".join(f"{name}: {value}" for name, value in options.items() if value is not None),
    }
