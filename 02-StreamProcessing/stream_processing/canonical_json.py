"""Takes a record in the usual form apart at its quotes, at a third of a JSON parser's cost.

The usual form is what most producers write: the contract's fields in the contract's order, with or without a
space after each colon and comma. Every byte of such a record is accounted for, so nothing else passes for one.

>>> '{"user_id":"u","item_id":"i","interaction_type":"like","timestamp":1}'.split('"')[3:8]
['u', ',', 'item_id', ':', 'i']
"""

import operator
from functools import reduce
from typing import Final

from pyspark.sql import Column
from pyspark.sql import functions as F

from contract.interaction import INTERACTION_TYPES, MAX_ID_BYTES, MAX_TIMESTAMP, MIN_TIMESTAMP

_PIECES: Final = 15
_NAMES: Final = {0: "{", 1: "user_id", 5: "item_id", 9: "interaction_type", 13: "timestamp"}
_COLONS: Final = (2, 6, 10)
_COMMAS: Final = (4, 8, 12)
_USER, _ITEM, _KIND, _REST = 3, 7, 11, 14
_NOT_PLAIN: Final = r"[\x00-\x1f\\]"
"""What a JSON string holds only as an escape, and the sign that starts one."""


def split(text: Column) -> Column:
    """The pieces of a record that the other functions take; null for null."""
    # One more than a record in the usual form has; a record of a million quotes is not taken apart.
    return F.split(text, '"', _PIECES + 1)


def user_id(pieces: Column) -> Column:
    """The user of a record in the usual form."""
    return pieces[_USER]


def item_id(pieces: Column) -> Column:
    """The item of a record in the usual form."""
    return pieces[_ITEM]


def interaction_type(pieces: Column) -> Column:
    """The interaction type of a record in the usual form."""
    return pieces[_KIND]


def timestamp(pieces: Column) -> Column:
    """The timestamp, epoch seconds, of a record in the usual form."""
    return F.substring_index(F.substring_index(pieces[_REST], "}", 1), ":", -1).cast("long")


def fits(pieces: Column, seconds: Column, text: Column, value: Column) -> Column:
    """Whether a record is in the usual form and an interaction; true or false, never null.

    `value` holds the record's bytes, `text` the same as a string, `pieces` its pieces, `seconds` its timestamp.
    """
    colon, comma = pieces[_COLONS[0]], pieces[_COMMAS[0]]
    checks = [
        F.size(pieces) == _PIECES,
        *(pieces[n] == name for n, name in _NAMES.items()),
        colon.isin(":", ": "),
        comma.isin(",", ", "),
        *(pieces[n] == colon for n in _COLONS[1:]),
        *(pieces[n] == comma for n in _COMMAS[1:]),
        F.octet_length(user_id(pieces)).between(1, MAX_ID_BYTES),
        F.octet_length(item_id(pieces)).between(1, MAX_ID_BYTES),
        interaction_type(pieces).isin(*INTERACTION_TYPES),
        seconds.between(MIN_TIMESTAMP, MAX_TIMESTAMP),
        # The number is written as a number is: no sign, no leading zero, nothing behind the brace.
        F.concat(colon, seconds.cast("string"), F.lit("}")) == pieces[_REST],
        ~F.concat(user_id(pieces), item_id(pieces)).rlike(_NOT_PLAIN),
        # Malformed UTF-8 is replaced on decoding, and no longer equals the bytes.
        F.decode(value, "UTF-8") == text,
    ]
    return F.coalesce(reduce(operator.and_, checks), F.lit(False))
