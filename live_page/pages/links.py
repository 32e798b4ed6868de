"""Where each page is."""

import re
import string
from typing import Final
from urllib.parse import unquote

from contract.tables import AGGREGATE_TABLES, AggregateTable

_PLAIN: Final = frozenset(string.ascii_letters + string.digits + "_-")

KEYED = tuple(table for table in AGGREGATE_TABLES if table.key)
"""Those with a page of rows: a table that is declared has one."""


def plural(table: AggregateTable) -> str:
    """What its rows are, such as `users`."""
    return f"{noun(table)}s"


def noun(table: AggregateTable) -> str:
    """What a row is, such as `user`."""
    return (table.key or table.name).removesuffix("_id")


def table_href(table: AggregateTable) -> str:
    """The page of its rows."""
    return f"/{plural(table)}"


def row_href(table: AggregateTable, row_id: str) -> str:
    """The page of one row."""
    return f"{table_href(table)}/{encoded(row_id)}"


def encoded(row_id: str) -> str:
    """An id as one segment of a path, which is the same id for whoever decodes percent signs once, twice or never.

    >>> encoded("user_1"), encoded("a/b%25 ..")
    ('user_1', 'a~2Fb~2525~20~2E~2E')
    """
    data = row_id.encode("utf-8", "surrogatepass")
    return "".join(chr(byte) if chr(byte) in _PLAIN else f"~{byte:02X}" for byte in data)


def decoded(segment: str) -> str:
    """The id of a segment of a path.

    >>> decoded(encoded("50% off; ~2F?#é")), decoded("user%201")
    ('50% off; ~2F?#é', 'user 1')
    """
    # A percent sign is none of ours: somebody, or a program, wrote the address as others are written.
    plain = unquote(segment).encode("utf-8", "surrogatepass")
    data = re.sub(rb"~([0-9A-F]{2})", lambda match: bytes.fromhex(match[1].decode()), plain)
    return data.decode("utf-8", "replace")
