"""Alerts as rows of a table."""

from collections.abc import Mapping
from typing import Any, Final

from contract.declared import TABLES
from live_page.formatting import format_duration, format_text, format_time, format_value
from live_page.pages.links import row_href, row_label

_TABLES: Final = {each.name: each for each in TABLES}


def alert_row(alert: Mapping[str, Any], *, is_short: bool = False) -> dict[str, Any]:
    """Format an alert for `alerts.ALERT_COLUMNS`; a short one has no condition beside the name of its rule."""
    of_table = _TABLES.get(alert["index"])
    rule, text = alert["rule"], alert["alert_text"]
    name = short_rule(rule)
    return {
        "key": f"{rule} {alert['id']} {alert['fired_at']}",
        "fired": format_time(alert["fired_at"]),
        "state": f"{'▲' if alert['status'] == 'firing' else '✓'} {alert['status']}",
        "rule": format_text(name if is_short or text in rule else f"{name} ({text})"),
        "id": format_text(alerted_row(alert)),
        "value": format_value(alert["value"]),
        "lasted": format_duration(alert["fired_at"], alert["resolved_at"]),
        "href": row_href(of_table, alert["id"]) if of_table and of_table.key else "",
    }


def alerted_row(alert: Mapping[str, Any]) -> str:
    """Return the row of an alert to be read."""
    of_table = _TABLES.get(alert["index"])
    return row_label(of_table, alert["id"]) if of_table else f"{alert['id']}"


def short_rule(rule: str) -> str:
    """Return a rule's name without the table that the name of an unnamed rule starts with."""
    table, _, condition = rule.partition(": ")
    return condition if condition and table in _TABLES else rule
