"""The rows of a table where the pipeline has them: in the aggregated topic, in the Delta table, in the index."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Final

from elasticsearch import Elasticsearch
from elasticsearch.helpers import scan

from contract.fields import ColumnType
from contract.tables import Column, Table
from verify.database import BYTES, TEXT, WHOLE, Database, literal, name
from verify.lake import NoRowsError, Warehouse
from verify.recomputation import row_id
from verify.source import DeadLetters
from verify.topic import TopicReader

MAX_AGAIN: Final = 10_000
"""Rows that are read again one by one; of more, all are."""
_TYPES: Final = {
    ColumnType.KEYWORD: "VARCHAR",
    ColumnType.LONG: "BIGINT",
    ColumnType.DOUBLE: "DOUBLE",
    ColumnType.DECIMAL: "DOUBLE",
    ColumnType.FLAG: "BOOLEAN",
    ColumnType.DATE: "BIGINT",
}
"""The type of a stored value; times are microseconds since 1970."""
_JSON_TYPES: Final = {
    ColumnType.KEYWORD: ("VARCHAR",),
    ColumnType.LONG: ("BIGINT", "UBIGINT"),
    ColumnType.DOUBLE: ("BIGINT", "UBIGINT", "DOUBLE"),
    ColumnType.DECIMAL: ("BIGINT", "UBIGINT", "DOUBLE"),
    ColumnType.FLAG: ("BOOLEAN",),
    ColumnType.DATE: ("VARCHAR",),
}
"""How DuckDB calls the types of JSON."""


class Store(ABC):
    """One place with the rows of a table: a table of the database with `id`, `text`, `problem`, and `c0`, `c1`, ..."""

    def __init__(self, database: Database, table: Table) -> None:
        self.table = table
        self._database = database

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is called in the report."""

    @property
    @abstractmethod
    def rows(self) -> str:
        """The rows, as SQL has them."""

    @property
    def excused(self) -> str | None:
        """The ids of rows that are rightly not the latest ones, as SQL has them."""
        return None

    @abstractmethod
    def load(self) -> None:
        """Read all rows as they are now."""

    def load_again(self, ids: Sequence[str]) -> None:  # noqa: ARG002
        """Read the rows with these ids as they are now."""
        self.load()


class DeltaRows(Store):
    """The rows of a Delta table."""

    def __init__(self, database: Database, table: Table, warehouse: Warehouse) -> None:
        super().__init__(database, table)
        self._warehouse = warehouse
        self._rows = ""

    @property
    def title(self) -> str:
        """The table's name."""
        return f"Delta table {self.table.name}"

    @property
    def rows(self) -> str:
        """The rows of the version that was read last."""
        return self._rows

    def load(self) -> None:
        """Take the current version."""
        try:
            source = self._warehouse.rows(self.table.name)
        except NoRowsError:
            self._rows = f"({_no_rows(self.table)})"
            return
        # Names of columns start with a letter, those of this program with _.
        values = ", ".join(f"{_from_delta(column)} AS _c{n}" for n, column in enumerate(self.table.columns))
        shown = ", ".join(f"{name(column.name)} := {name(column.name)}" for column in self.table.columns)
        read = f"SELECT {values}, to_json(struct_pack({shown}))::VARCHAR AS _text FROM {source}"
        key = row_id(self.table, self.table.event, [f"_c{n}" for n in range(len(self.table.key))])
        columns = ", ".join(f"_c{n} AS c{n}" for n in range(len(self.table.columns)))
        self._rows = f"(SELECT {key} AS id, _text AS text, NULL AS problem, {columns} FROM ({read}))"


class TopicRows(Store):
    """The latest row of each key in the aggregated topic."""

    def __init__(self, database: Database, table: Table, topic: "AggregatedTopic") -> None:
        super().__init__(database, table)
        self._topic = topic

    @property
    def title(self) -> str:
        """The topic, and the table whose rows these are."""
        return f"topic {self._topic.name}, {self.table.name}"

    @property
    def rows(self) -> str:
        """The latest rows that were read."""
        key = f"substr(key, {len(self.table.name) + 2})" if self.table.key else "key"
        is_row = f"value IS NOT NULL AND {self._topic.is_of(self.table)}"
        text = f"SELECT {key} AS id, value AS text FROM {self._topic.latest} WHERE {is_row}"
        return from_json(self.table, text)

    def load(self) -> None:
        """Read the records that were added since the last time."""
        self._topic.read()


class AggregatedTopic:
    """The latest record of each key, in a table of the database."""

    def __init__(self, database: Database, reader: TopicReader) -> None:
        self.name = reader.topic
        self._database = database
        self._reader = reader
        columns = "key VARCHAR, value VARCHAR, moment BIGINT, number BIGINT, part BIGINT"
        database.run(f"CREATE TABLE latest_rows ({columns})")

    latest = "latest_rows"
    """The table: `key`, `value` (null: deleted), the offset `number` and the partition `part`."""

    def is_of(self, table: Table) -> str:
        """Return whether a key is that of a row of the table, as an expression."""
        return f"starts_with(key, {literal(f'{table.name}-')})" if table.key else f"key = {literal(table.name)}"

    def read(self) -> None:
        """Read the records that were added since the last time."""
        columns = {"key": BYTES, "value": BYTES, "moment": WHOLE, "number": WHOLE, "part": WHOLE}
        number = 0
        self._database.run(
            "CREATE OR REPLACE TEMP TABLE raw_rows (key BLOB, value BLOB, moment BIGINT, number BIGINT, part BIGINT)"
        )
        for messages in self._reader.read_new():
            rows = [
                (message.key(), message.value(), message.timestamp()[1], message.offset(), message.partition())
                for message in messages
            ]
            self._database.insert("raw_rows", columns, rows)
            number += len(rows)
        if not number:
            return
        # The latest by the broker's time, and of one moment by offset; a key that is no text is none of a row.
        self._database.run(
            "INSERT INTO latest_rows SELECT coalesce(TRY(decode(key)), hex(key)),"
            " CASE WHEN value IS NOT NULL THEN coalesce(TRY(decode(value)), hex(value)) END, moment, number, part"
            " FROM raw_rows"
        )
        record = "struct_pack(value := value, moment := moment, number := number, part := part)"
        position = "moment::HUGEINT * (1::HUGEINT << 64) + number"
        self._database.run(
            f"CREATE OR REPLACE TABLE latest_rows AS SELECT key, unnest(arg_max({record}, {position})) FROM latest_rows"
            " GROUP BY key"
        )


class IndexRows(Store):
    """The documents of an index."""

    def __init__(
        self,
        database: Database,
        table: Table,
        elasticsearch: Elasticsearch,
        topic: AggregatedTopic,
        letters: DeadLetters,
    ) -> None:
        super().__init__(database, table)
        self._topic = topic
        self._letters = letters
        self._elasticsearch = elasticsearch
        self._documents = name(f"documents {table.name}")
        database.run(f"CREATE TABLE {self._documents} (id VARCHAR, text VARCHAR)")

    @property
    def title(self) -> str:
        """The index."""
        return f"index {self.table.name}"

    @property
    def rows(self) -> str:
        """The documents that were read."""
        return from_json(self.table, f"SELECT * FROM {self._documents}")

    @property
    def excused(self) -> str:
        """Rows whose latest record is a dead letter, because Elasticsearch has refused the document."""
        key = "key" if not self.table.key else f"substr(key, {len(self.table.name) + 2})"
        return (
            f"SELECT {key} FROM {self._topic.latest} l JOIN dead_letters d"
            f" ON d.topic = {literal(self._topic.name)} AND d.part = l.part AND d.number = l.number"
            f" WHERE {self._topic.is_of(self.table)}"
        )

    def load(self) -> None:
        """Read all documents."""
        self._topic.read()
        self._letters.read()
        self._database.run(f"DELETE FROM {self._documents}")
        self._elasticsearch.indices.refresh(index=self.table.name, ignore_unavailable=True)
        if self._elasticsearch.indices.exists(index=self.table.name):
            self._insert(scan(self._elasticsearch, index=self.table.name, size=5_000))

    def load_again(self, ids: Sequence[str]) -> None:
        """Read these documents; all, if they are many."""
        if len(ids) > MAX_AGAIN or not self._elasticsearch.indices.exists(index=self.table.name):
            self.load()
            return
        self._database.run(f"DELETE FROM {self._documents} WHERE list_contains(?, id)", list(ids))
        found = self._elasticsearch.mget(index=self.table.name, body={"ids": list(ids)})["docs"]
        self._insert(document for document in found if document.get("found"))

    def _insert(self, documents: Iterable[dict[str, Any]]) -> None:
        rows = ((document["_id"], json.dumps(document["_source"])) for document in documents)
        self._database.insert(self._documents, {"id": TEXT, "text": TEXT}, rows)


def from_json(table: Table, rows: str) -> str:
    """Return rows with the columns of a table, of a query with `id` and the JSON `text` of each."""
    kinds = ", ".join(f"json_type(json, '$.{column.name}') AS t{n}" for n, column in enumerate(table.columns))
    values = ", ".join(f"{_from_json(column, n)} AS c{n}" for n, column in enumerate(table.columns))
    names = ", ".join(sorted(literal(column.name) for column in table.columns))
    wrong = " ".join(
        f"WHEN t{n} != 'NULL' AND c{n} IS NULL THEN 'its {column.name} is of another type'"
        for n, column in enumerate(table.columns)
    )
    valid = f"SELECT id, text, CASE WHEN json_valid(text) THEN text ELSE '{{}}' END AS json FROM ({rows})"
    typed = f"SELECT id, text AS original, json AS text, {kinds} FROM ({valid})"
    columns = f"SELECT id, original, text, {values}, * EXCLUDE (id, original, text) FROM ({typed})"
    problem = f"CASE WHEN list_sort(json_keys(text)) != list_sort([{names}]) THEN 'it has other fields' {wrong} END"
    return f"(SELECT id, original AS text, {problem} AS problem, * EXCLUDE (id, original, text) FROM ({columns}))"


def _from_json(column: Column, number: int) -> str:
    kinds = ", ".join(literal(kind) for kind in _JSON_TYPES[column.type])
    value = f"(text->>'$.{column.name}')"
    if column.type is ColumnType.DATE:
        converted = f"epoch_us(TRY_CAST({value} AS TIMESTAMPTZ))"
    else:
        converted = f"TRY_CAST({value} AS {_TYPES[column.type]})"
    return f"CASE WHEN t{number} IN ({kinds}) THEN {converted} END"


def _from_delta(column: Column) -> str:
    if column.type is ColumnType.DATE:
        return f"epoch_us({name(column.name)})"
    return f"CAST({name(column.name)} AS {_TYPES[column.type]})"


def _no_rows(table: Table) -> str:
    columns = ", ".join(f"NULL::{_TYPES[column.type]} AS c{n}" for n, column in enumerate(table.columns))
    return f"SELECT NULL::VARCHAR AS id, NULL::VARCHAR AS text, NULL::VARCHAR AS problem, {columns} LIMIT 0"
