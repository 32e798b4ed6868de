"""The alert document and its index, which the sink writes, and the live page and the dashboards read."""

from enum import Enum
from typing import Final

ALERTS: Final = "alerts"
"""The index: one document per rule, row and firing period."""

FIRING: Final = "firing"
"""Status of an alert whose rule holds for the row."""
RESOLVED: Final = "resolved"
"""Status of an alert whose rule no longer does."""

RULE: Final = "rule"
ALERT_TEXT: Final = "alert_text"
SEVERITY: Final = "severity"
INDEX: Final = "index"
ID: Final = "id"
FIELD: Final = "field"
OPERATOR: Final = "operator"
THRESHOLD: Final = "threshold"
VALUE: Final = "value"
ROW: Final = "row"
STATUS: Final = "status"
FIRED_AT: Final = "fired_at"
RESOLVED_AT: Final = "resolved_at"
PARTITION: Final = "partition"
VERSION: Final = "version"


class FieldType(Enum):
    """The type of a field, independent of how Elasticsearch maps it."""

    KEYWORD = "a text that is searched as a whole"
    NUMBER_OR_TEXT = "a number, or a text if the rule compares texts; only numbers are indexed"
    OBJECT = "an object that is stored and not indexed"
    DATE = "ISO 8601, UTC"
    LONG = "an integer"


FIELDS: Final[dict[str, FieldType]] = {
    RULE: FieldType.KEYWORD,
    ALERT_TEXT: FieldType.KEYWORD,
    SEVERITY: FieldType.KEYWORD,
    INDEX: FieldType.KEYWORD,
    ID: FieldType.KEYWORD,
    FIELD: FieldType.KEYWORD,
    OPERATOR: FieldType.KEYWORD,
    STATUS: FieldType.KEYWORD,
    THRESHOLD: FieldType.NUMBER_OR_TEXT,
    VALUE: FieldType.NUMBER_OR_TEXT,
    ROW: FieldType.OBJECT,
    FIRED_AT: FieldType.DATE,
    RESOLVED_AT: FieldType.DATE,
    PARTITION: FieldType.LONG,
    VERSION: FieldType.LONG,
}
"""All fields of the document. `index` and `id` name the row, `field`, `operator` and `threshold` the rule's condition;
`value` and `row` are those that fired; `partition` and `version` are the sink's own."""
