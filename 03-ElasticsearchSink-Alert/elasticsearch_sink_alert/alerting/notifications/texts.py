"""Builds the texts of notifications from templates, which the user may replace with a file.

A template is text with placeholders such as `$status`; its first line is the title. The file holds the template of
an alert and, after a line `---`, that of a summary; without that line, the summary's is the default.
"""

from pathlib import Path
from string import Template
from typing import Final, NamedTuple, Self

from elasticsearch_sink_alert.alerting.alert_lifecycle import INDEX, Alert
from elasticsearch_sink_alert.alerting.notifications.notifier import Message
from elasticsearch_sink_alert.alerting.notifications.rate_limit import Summary
from elasticsearch_sink_alert.alerting.text_file import UnusableFileError, read_text, unreadable

DEFAULT_TEMPLATE: Final = Path(__file__).with_name("default_template.txt")
_ALERT_FIELDS: Final = (
    "status", "severity", "rule", "alert_text", "index", "id", "field", "operator", "threshold", "value", "fired_at",
)  # fmt: skip
ALERT_PLACEHOLDERS: Final = (*_ALERT_FIELDS, "resolved_at", "observed", "times", "link")
SUMMARY_PLACEHOLDERS: Final = ("rule", "counts", "limit")
_SEPARATOR: Final = "---"


class TemplateError(ValueError):
    """A template file cannot be used; the message is one line with the file, the line and what is expected."""


class _Section(NamedTuple):
    """A template: its first line and the rest."""

    title: Template
    text: Template

    def message(self, values: dict[str, object], alert: Alert | None = None) -> Message:
        return Message(self.title.substitute(values), self.text.substitute(values), alert)


class Texts:
    """The texts of alerts and summaries. Links lead to `kibana_url`."""

    def __init__(self, alert: _Section, summary: _Section, kibana_url: str) -> None:
        self._alert = alert
        self._summary = summary
        self._kibana_url = kibana_url

    @classmethod
    def load(cls, path: Path | None, kibana_url: str) -> Self:
        """Read and check a template file, the default one if `path` is None; raises `TemplateError`."""
        alert, summary = _sections(path or DEFAULT_TEMPLATE)
        if summary is None:
            _, summary = _sections(DEFAULT_TEMPLATE)
        assert summary is not None
        return cls(alert, summary, kibana_url)

    def of_alert(self, alert: Alert) -> Message:
        """Return the message for an alert that fires or is resolved."""
        return self._alert.message(alert_values(alert, self._kibana_url), alert)

    def of_summary(self, summary: Summary) -> Message:
        """Return the message for the alerts over the rate limit."""
        return self._summary.message(summary_values(summary))


def alert_values(alert: Alert, kibana_url: str) -> dict[str, object]:
    """Return the values of `ALERT_PLACEHOLDERS`."""
    verb = "had changed by" if " within " in alert.alert_text else "was"
    times = f"fired at {alert.fired_at}" + (f", resolved at {alert.resolved_at}" if alert.resolved_at else "")
    return {
        **{name: getattr(alert, name) for name in _ALERT_FIELDS},
        "resolved_at": alert.resolved_at or "",
        "observed": f"{verb} {alert.value}",
        "times": times,
        "link": f"{kibana_url.rstrip('/')}/app/discover#/doc/{INDEX}/{INDEX}?id={alert.alert_id}",
    }


def summary_values(summary: Summary) -> dict[str, object]:
    """Return the values of `SUMMARY_PLACEHOLDERS`."""
    counts = " and ".join(f"{number} {status}" for status, number in sorted(summary.by_status.items()))
    return {"rule": summary.rule, "counts": counts, "limit": summary.limit}


def _sections(path: Path) -> tuple[_Section, _Section | None]:
    try:
        lines = [line.rstrip() for line in read_text(path).rstrip().split("\n")]
    except (OSError, ValueError) as error:
        raise TemplateError(unreadable(path, error)) from None
    except UnusableFileError as error:
        raise TemplateError(f"{path}:{error}") from None
    end = lines.index(_SEPARATOR) if _SEPARATOR in lines else len(lines)
    alert = _section(path, lines[:end], 1, ALERT_PLACEHOLDERS)
    return alert, _section(path, lines[end + 1 :], end + 2, SUMMARY_PLACEHOLDERS) if end < len(lines) else None


def _section(path: Path, lines: list[str], first_line: int, placeholders: tuple[str, ...]) -> _Section:
    if not lines or not lines[0].strip():
        raise TemplateError(f"{path}:{first_line}: expected a title on the first line of a template")
    for number, line in enumerate(lines, first_line):
        for found in Template.pattern.finditer(line):
            name = found["named"] or found["braced"]
            if found["invalid"] is not None:
                raise TemplateError(f"{path}:{number}: a $ without a placeholder: write $$ for a dollar sign")
            if name is not None and name not in placeholders:
                expected = ", ".join(f"${placeholder}" for placeholder in placeholders)
                raise TemplateError(f"{path}:{number}: unknown placeholder ${name}: expected {expected}")
    return _Section(Template(lines[0]), Template("\n".join(lines[1:])))
