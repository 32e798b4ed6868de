"""How the columns of a table are shown."""

from collections.abc import Mapping
from typing import Any, Final

from contract.declared import EVENT
from contract.fields import ColumnType
from contract.measures import Operation, StateColumn
from contract.tables import Column, Table
from contract.windows import DAY
from live_page.formatting import format_count, format_decimal, format_name, format_time, format_value

EMPTY: Final = f"No rows yet: they appear with the first {format_name(EVENT.name)}"
_EVENTS: Final = StateColumn(Operation.COUNT)


def is_total(column: Column) -> bool:
    """Whether a column counts all events of its row."""
    return column.measure is not None and column.measure.state(EVENT) == (_EVENTS,)


def format_cell(of: Table, column: Column, row: Mapping[str, Any]) -> str:
    """Format the value that a row has in a column."""
    value = row.get(column.name)
    match column.type:
        case ColumnType.LONG:
            return format_count(value)
        case ColumnType.DOUBLE | ColumnType.DECIMAL:
            return format_decimal(value, 2)
        case ColumnType.DATE:
            window = of.key.window
            return format_time(value, is_day=window is not None and window.name == column.name and window.size == DAY)
        case _:
            return format_value(value)
