"""The declaration of the tables: the key and the measures of each.

The stream job derives a Delta table, an aggregation and a topic key from a declaration; the sink an index, its
template and the fields that a rule can use.

>>> [column.name for column in table_named("agg_interactions_item").columns]
['item_id', 'min_interactions', 'max_interactions', 'last_interaction']
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class ColumnType(Enum):
    """The type of a column, named as in Elasticsearch."""

    KEYWORD = "keyword"
    LONG = "long"
    DOUBLE = "double"
    DATE = "date"

    @property
    def is_number(self) -> bool:
        """Whether the values are numbers."""
        return self in (ColumnType.LONG, ColumnType.DOUBLE)


class Measure(Enum):
    """An aggregate over the interactions of one key. Existing checkpoints have the texts of the tables' measures."""

    CLICKS = "number of clicks"
    LIKES = "number of likes"
    VIEWS = "number of views"
    PURCHASES = "number of purchases"
    INTERACTIONS = "number of interactions"
    MEAN_PER_TYPE = "interactions over the number of interaction types seen, half up to 2 places"
    LEAST_PER_TYPE = "the least of the counts per interaction type, over the types seen"
    MOST_PER_TYPE = "the greatest of the counts per interaction type, over the types seen"
    MEAN_PER_USER = "interactions over the number of distinct users, half up to 2 places"
    LAST = "the latest timestamp"

    @property
    def column_type(self) -> ColumnType:
        """The type of a column with this measure."""
        if self in (Measure.MEAN_PER_TYPE, Measure.MEAN_PER_USER):
            return ColumnType.DOUBLE
        return ColumnType.DATE if self is Measure.LAST else ColumnType.LONG


@dataclass(frozen=True)
class Column:
    """A column of a table; the key column has no measure."""

    name: str
    type: ColumnType
    measure: Measure | None = None


@dataclass(frozen=True)
class AggregateTable:
    """A table with one row per key, or with a single row if it has no key."""

    name: str
    key: str | None
    """The interaction's field that identifies a row; None for a single row over all interactions."""
    measures: dict[str, Measure]
    """The measure of each column, by name."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns, the key first."""
        key = (Column(self.key, ColumnType.KEYWORD),) if self.key else ()
        return key + tuple(Column(name, measure.column_type, measure) for name, measure in self.measures.items())

    def column(self, name: str) -> Column | None:
        """Return the column with this name, or None."""
        return next((column for column in self.columns if column.name == name), None)


INTERACTIONS: Final = "interactions"
"""The Delta table with every valid interaction, exactly once."""

AGGREGATE_TABLES: Final = (
    AggregateTable(
        "agg_interactions_user",
        key="user_id",
        measures={
            "total_click": Measure.CLICKS,
            "total_like": Measure.LIKES,
            "total_view": Measure.VIEWS,
            "total_purchase": Measure.PURCHASES,
            "total_interactions": Measure.INTERACTIONS,
            "avg_interactions": Measure.MEAN_PER_TYPE,
            "last_interaction": Measure.LAST,
        },
    ),
    AggregateTable(
        "agg_interactions_item",
        key="item_id",
        measures={
            "min_interactions": Measure.LEAST_PER_TYPE,
            "max_interactions": Measure.MOST_PER_TYPE,
            "last_interaction": Measure.LAST,
        },
    ),
    AggregateTable(
        "avg_interactions",
        key=None,
        measures={"avg_interactions": Measure.MEAN_PER_USER, "last_interaction": Measure.LAST},
    ),
)


def table_named(name: str) -> AggregateTable:
    """Return the aggregate table with this name; raises KeyError if it is not declared."""
    for table in AGGREGATE_TABLES:
        if table.name == name:
            return table
    raise KeyError(name)
