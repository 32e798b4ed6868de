"""Parses a record in canonical form by splitting it at its quotes, at a third of a JSON parser's cost.

The canonical form is the one that most producers write: the contract's fields in the contract's order, with or without
a space after each colon and comma. The check covers every byte of the record, so that no other record passes it.

>>> '{"user_id":"u","item_id":"i","interaction_type":"like","timestamp":1}'.split('"')[3:8]
['u', ',', 'item_id', ':', 'i']
"""

import operator
from functools import reduce
from typing import Final

from pyspark.sql import Column
from pyspark.sql import functions as F

from contract.interaction import INTERACTION_TYPES, MAX_ID_BYTES, MAX_TIMESTAMP, MIN_TIMESTAMP

_TOKENS: Final = 15
_NAMES: Final = {0: "{", 1: "user_id", 5: "item_id", 9: "interaction_type", 13: "timestamp"}
_COLONS: Final = (2, 6, 10)
_COMMAS: Final = (4, 8, 12)
_USER, _ITEM, _TYPE, _REST = 3, 7, 11, 14
_NOT_PLAIN: Final = r"[\x00-\x1f\\]"
"""Characters that a JSON string contains only as escapes, and the backslash that starts one."""


def split(text: Column) -> Column:
    """Split a record into the tokens that the other functions take; null for null."""
    # One more than a canonical record has: a record of a million quotes is not split further.
    return F.split(text, '"', _TOKENS + 1)


def user_id(tokens: Column) -> Column:
    """Return the user of a canonical record."""
    return tokens[_USER]


def item_id(tokens: Column) -> Column:
    """Return the item of a canonical record."""
    return tokens[_ITEM]


def interaction_type(tokens: Column) -> Column:
    """Return the interaction type of a canonical record."""
    return tokens[_TYPE]


def timestamp(tokens: Column) -> Column:
    """Return the timestamp of a canonical record, in epoch seconds."""
    return F.substring_index(F.substring_index(tokens[_REST], "}", 1), ":", -1).cast("long")


def is_valid(tokens: Column, seconds: Column, text: Column, value: Column) -> Column:
    """Whether a record is canonical and a valid interaction; true or false, never null.

    `value` has the record's bytes, `text` the same as a string, `tokens` its tokens, `seconds` its timestamp.
    """
    colon, comma = tokens[_COLONS[0]], tokens[_COMMAS[0]]
    checks = [
        F.size(tokens) == _TOKENS,
        *(tokens[n] == name for n, name in _NAMES.items()),
        colon.isin(":", ": "),
        comma.isin(",", ", "),
        *(tokens[n] == colon for n in _COLONS[1:]),
        *(tokens[n] == comma for n in _COMMAS[1:]),
        F.octet_length(user_id(tokens)).between(1, MAX_ID_BYTES),
        F.octet_length(item_id(tokens)).between(1, MAX_ID_BYTES),
        interaction_type(tokens).isin(*INTERACTION_TYPES),
        seconds.between(MIN_TIMESTAMP, MAX_TIMESTAMP),
        # The number has no sign and no leading zero, and nothing follows the brace.
        F.concat(colon, seconds.cast("string"), F.lit("}")) == tokens[_REST],
        ~F.concat(user_id(tokens), item_id(tokens)).rlike(_NOT_PLAIN),
        # Decoding replaces malformed UTF-8, so that the result differs from the text.
        F.decode(value, "UTF-8") == text,
    ]
    return F.coalesce(reduce(operator.and_, checks), F.lit(False))
