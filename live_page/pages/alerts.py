"""The alerts page: alerts per rule, over time, against their thresholds, and a list to filter."""

from collections.abc import Mapping
from typing import Any

from nicegui import ui

from contract.alerts import FIRING, RESOLVED
from live_page.address import current_query, one_of, remember
from live_page.charts import bar_chart, stacked_chart, update_bars, update_stacked
from live_page.components import Column, Panel, RecordTable, toggle, two_columns
from live_page.formatting import UNKNOWN, format_count, format_text, format_time
from live_page.pages.alert_rows import alert_row, alerted_row, short_rule
from live_page.sources import Sources
from live_page.sources.documents import Documents, Hits

ALERT_COLUMNS = (
    Column("fired", "Fired (UTC)"),
    Column("state", "Status"),
    Column("rule", "Rule", wraps=True),
    Column("id", "Row"),
    Column("value", "Value", is_number=True),
    Column("lasted", "Duration", is_minor=True, is_number=True),
)
COUNT_COLUMNS = (
    Column("firing", "Firing", is_number=True),
    Column("all", "Total", is_number=True),
    Column("last", "Last fired (UTC)", is_minor=True),
)
_RULES = (Column("rule", "Rule", wraps=True), *COUNT_COLUMNS)
NO_ALERTS = "No alerts: no row has matched a rule yet"
_ALL = "all"
_CHARTED_ALERTS = 15


def show(sources: Sources) -> None:
    """Build the page."""
    documents = sources.documents
    with two_columns():
        with Panel("Alerts by rule") as by_rule:
            rules = RecordTable(_RULES, NO_ALERTS, row_key="rule", height="min-h-56")
        _show_alerts_per_minute(documents)
    most_firing: str | None = None
    charted_rule = _show_values(documents)
    remember(charted_rule, "charted", lambda: most_firing)
    rule_filter = _show_list(documents)

    def show_rules(found: Mapping[str, Mapping[str, Any]]) -> None:
        rules.rows = [{"rule": format_text(rule), **rule_counts(of_rule)} for rule, of_rule in sorted(found.items())]
        nonlocal most_firing
        names = sorted(found)
        if names != charted_rule.options:
            most_firing = max(names, key=lambda name: found[name]["firing"], default=None)
            charted_rule.set_options(names, value=charted_rule.value if charted_rule.value in names else most_firing)
            rule_filter.set_options(list(dict.fromkeys((_ALL, *names, rule_filter.value))))

    by_rule.refresh_from(documents.alerts_per_rule, show_rules)


def _show_alerts_per_minute(documents: Documents) -> None:
    with Panel("Alerts per minute (UTC)") as panel:
        chart = stacked_chart("alerts fired per minute in the last hour, UTC")

    def show_counts(counts: Mapping[str, list[tuple[int, int]]]) -> None:
        by_name = {short_rule(rule): of_rule for rule, of_rule in counts.items()}
        update_stacked(chart, dict(sorted(by_name.items())))

    panel.refresh_from(documents.alerts_over_time, show_counts, interval=2.0)


def _show_values(documents: Documents) -> ui.select:
    """Show the latest values that fired a rule against its threshold; return the selection of the rule."""
    with Panel("Values against the threshold") as panel:
        # The rules are not known yet.
        charted = _rule_of_address("charted")
        rule = ui.select([charted] if charted else [], value=charted, label="Rule")
        rule.classes("w-full max-w-md").props("dense outlined")
        chart = bar_chart([], "value when the alert fired")

    def read() -> Hits:
        return documents.alerts(rule=rule.value, size=_CHARTED_ALERTS) if rule.value else Hits([], 0)

    def show_values(page: Hits) -> None:
        threshold = page.rows[0]["threshold"] if page.rows else None
        alerts = [alert for alert in page.rows if isinstance(alert["value"], int | float)]
        update_bars(
            chart,
            [f"{alerted_row(alert)} {format_time(alert['fired_at'])}" for alert in alerts],
            [alert["value"] for alert in alerts],
            threshold if isinstance(threshold, int | float) else None,
        )

    panel.refresh_from(read, show_values)
    rule.on_value_change(panel.choose)
    return rule


def _show_list(documents: Documents) -> ui.select:
    """Show the latest alerts, filtered by status and rule; return the selection of the rule."""
    with Panel("Alerts") as panel:
        with ui.row().classes("items-center gap-3 w-full"):
            states = (_ALL, FIRING, RESOLVED)
            status = toggle(states, one_of(current_query().get("status"), states, _ALL))
            filtered = _rule_of_address("rule") or _ALL
            rule = ui.select(list(dict.fromkeys((_ALL, filtered))), value=filtered, label="Rule")
            rule.classes("min-w-56 max-w-full").props("dense outlined")
            total = ui.label().classes("text-sm opacity-75 tabular-nums")
        table = RecordTable(ALERT_COLUMNS, NO_ALERTS, links="id", height="min-h-96")

    def read() -> Hits:
        filters = {"status": status.value, "rule": rule.value}
        return documents.alerts(**{name: value for name, value in filters.items() if value != _ALL})

    def show_alerts(page: Hits) -> None:
        table.rows = [alert_row(alert) for alert in page.rows]
        shown = f", showing the latest {len(page.rows)}" if page.total > len(page.rows) else ""
        total.set_text(f"{format_count(page.total)} alert{'' if page.total == 1 else 's'}{shown}")

    panel.refresh_from(read, show_alerts, clear=lambda: total.set_text(""))
    remember(status, "status", lambda: _ALL)
    remember(rule, "rule", lambda: _ALL)
    status.on_value_change(panel.choose)
    rule.on_value_change(panel.choose)
    return rule


def _rule_of_address(name: str) -> str | None:
    """Return a rule that the address names, if its text can be shown."""
    rule = current_query().get(name)
    return rule if rule and rule == format_text(rule) else None


def rule_counts(of_rule: Mapping[str, Any] | None) -> dict[str, Any]:
    """Format an entry of `Documents.alerts_per_rule` for `COUNT_COLUMNS`; None: not available."""
    if of_rule is None:
        return dict.fromkeys(("firing", "all", "last"), UNKNOWN)
    return {
        "firing": format_count(of_rule.get("firing", 0)),
        "all": format_count(of_rule.get("all", 0)),
        "last": format_time(of_rule.get("last")),
    }
