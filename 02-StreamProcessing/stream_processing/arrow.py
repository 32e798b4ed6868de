"""Builds Arrow columns from Python values, in the types of the Delta tables."""

from collections.abc import Sequence
from typing import Any, Final

from arro3.core import Array, DataType

from contract.tables import ColumnType

_TYPES: Final[dict[ColumnType, DataType]] = {
    ColumnType.KEYWORD: DataType.utf8(),
    ColumnType.LONG: DataType.int64(),
    ColumnType.DOUBLE: DataType.float64(),
}


def arrow_column(type: ColumnType, values: Sequence[Any]) -> Array:
    """Build a column from values; dates are microseconds since 1970, UTC."""
    if type is ColumnType.DATE:
        return Array(values, DataType.int64()).cast(DataType.timestamp("us", tz="UTC"))
    return Array(values, _TYPES[type])
