"""What fires now, what did, and by how much."""

from collections.abc import Mapping
from typing import Any

from nicegui import ui

from contract.tables import AGGREGATE_TABLES
from live_page.components import Column, Panel, bars, choice, show_bars, show_stacked, stacked, table
from live_page.documents import Page
from live_page.pages.links import row_href
from live_page.sources import Sources
from live_page.text import UNKNOWN, cell, clock, count, lasting, visible

ALERT_COLUMNS = (
    Column("fired", "fired (UTC)"),
    Column("state", "status"),
    Column("rule", "rule", wraps=True),
    Column("id", "row"),
    Column("value", "value", is_number=True),
    Column("lasted", "for", is_minor=True, is_number=True),
)
COUNT_COLUMNS = (
    Column("firing", "firing", is_number=True),
    Column("all", "in all", is_number=True),
    Column("last", "last fired (UTC)", is_minor=True),
)
_RULES = (Column("rule", "rule", wraps=True), *COUNT_COLUMNS)
_TABLES = {each.name: each for each in AGGREGATE_TABLES}
_EMPTY = "No alerts: nothing has met a rule of data_mapper.yml yet"
_ALL = "all"
_BARS = 15


def show(sources: Sources) -> None:
    """Alerts, firing and past."""
    documents = sources.documents
    with ui.element("div").classes("grid grid-cols-1 lg:grid-cols-2 gap-3 w-full"):
        with Panel("By rule") as by_rule:
            rules = table(_RULES, _EMPTY, row_key="rule", height="min-h-56")
        with Panel("Alerts fired, minute by minute (UTC)") as over_time:
            chart = stacked("alerts fired in each minute of the last hour, UTC")
    with Panel("Value when it fired, against the threshold") as against:
        of_rule = ui.select([], label="rule").classes("w-full max-w-md").props("dense outlined")
        values = bars([], "value when it fired")
    with Panel("Alerts") as listed:
        with ui.row().classes("items-center gap-3 w-full"):
            status = choice([_ALL, "firing", "resolved"])
            only = ui.select([_ALL], value=_ALL, label="rule").classes("min-w-56 max-w-full").props("dense outlined")
            total = ui.label().classes("text-sm opacity-75 tabular-nums")
        alerts = table(ALERT_COLUMNS, _EMPTY, links="id", height="min-h-96")

    def show_rules(found: Mapping[str, Mapping[str, Any]]) -> None:
        rules.rows = [{"rule": visible(rule), **counts(of)} for rule, of in sorted(found.items())]
        names = sorted(found)
        if names != of_rule.options:
            of_rule.set_options(
                names, value=of_rule.value or max(names, key=lambda n: found[n]["firing"], default=None)
            )
            only.set_options([_ALL, *names])

    def read_values() -> Page:
        return documents.alerts(rule=of_rule.value, size=_BARS) if of_rule.value else Page([], 0)

    def show_values(page: Page) -> None:
        threshold = page.rows[0]["threshold"] if page.rows else None
        numbers = [alert for alert in page.rows if isinstance(alert["value"], int | float)]
        line = threshold if isinstance(threshold, int | float) else None
        show_bars(values, [f"{a['id']} {clock(a['fired_at'])}" for a in numbers], [a["value"] for a in numbers], line)

    def read_alerts() -> Page:
        chosen = {"status": status.value, "rule": only.value}
        return documents.alerts(**{name: value for name, value in chosen.items() if value != _ALL})

    def show_alerts(page: Page) -> None:
        alerts.rows = [alert_row(alert) for alert in page.rows]
        shown = f", the latest {len(page.rows)} of them shown" if page.total > len(page.rows) else ""
        total.set_text(f"{count(page.total)} alerts{shown}")

    by_rule.keep(documents.alerts_per_rule, show_rules)
    over_time.keep(
        documents.alerts_over_time,
        lambda counts: show_stacked(chart, {short(rule): n for rule, n in counts.items()}),
        every=2.0,
    )
    against.keep(read_values, show_values)
    listed.keep(read_alerts, show_alerts)
    for filtered_by in (status, only):
        filtered_by.on_value_change(listed.renew)
    of_rule.on_value_change(against.renew)


def short(rule: str) -> str:
    """A rule's name, without the table's that an unnamed rule starts with."""
    table, _, condition = rule.partition(": ")
    return condition if condition and table in _TABLES else rule


def counts(of_rule: Mapping[str, Any] | None) -> dict[str, Any]:
    """What `Documents.alerts_per_rule` tells of a rule, for `COUNT_COLUMNS`; None: it could not be asked."""
    if of_rule is None:
        return dict.fromkeys(("firing", "all", "last"), UNKNOWN)
    return {
        "firing": count(of_rule.get("firing", 0)),
        "all": count(of_rule.get("all", 0)),
        "last": clock(of_rule.get("last")),
    }


def alert_row(alert: Mapping[str, Any]) -> dict[str, Any]:
    """An alert as a row of a table with `ALERT_COLUMNS`."""
    of_table = _TABLES.get(alert["index"])
    return {
        "key": f"{alert['rule']} {alert['id']} {alert['fired_at']}",
        "fired": clock(alert["fired_at"]),
        "state": f"{'▲' if alert['status'] == 'firing' else '✓'} {alert['status']}",
        "rule": visible(
            short(alert["rule"]) + ("" if alert["alert_text"] in alert["rule"] else f" ({alert['alert_text']})")
        ),
        "id": visible(alert["id"]),
        "value": cell(alert["value"]),
        "lasted": lasting(alert["fired_at"], alert["resolved_at"]),
        "href": row_href(of_table, alert["id"]) if of_table and of_table.key else "",
    }
