"""Records about which parsers once differed, or which they did not read to the end: all parsers read them all."""

from collections.abc import Mapping
from typing import Final

from contract.event import MAX_BYTES

_INTERACTION: Final = b'{"user_id":"a","item_id":"b","interaction_type":"view","timestamp":1}'
_ORDER: Final = b'{"customer_id":"a","category":"toys","quantity":1,"price":1.5,"ordered_at":"2026-01-31T12:00:00Z"}'
_EVERY_TYPE: Final = (
    b'{"who":"a","kind":"b","size":1,"price":1.5,"weight":0.5,"isNew2":false,"at":1,"sent":1,'
    b'"ordered":"2026-01-31T12:00:00Z","note":"n","place":"p","level":1,"discount":1,"is_gift":true}'
)


def _order(price: bytes) -> bytes:
    return _ORDER.replace(b"1.5", price)


def _with(value: bytes) -> bytes:
    """Return an interaction with a field that is not declared."""
    return _INTERACTION.replace(b"}", b',"x":%s}' % value)


FOUND: Final[Mapping[str, bytes | None]] = {
    "an interaction": _INTERACTION,
    "an order": _ORDER,
    "no value": None,
    "the largest record": _with(b'"%s"' % (b"x" * (MAX_BYTES - len(_with(b'""'))))),
    "one byte more": _with(b'"%s"' % (b"x" * (MAX_BYTES - len(_with(b'""')) + 1))),
    # The stream job ended: Python's decimals have no such exponent.
    "a number with an exponent of 19 digits": _order(b"1e9999999999999999999"),
    "another field with such an exponent": _with(b"1e9999999999999999999"),
    # An event in a small batch, and a dead letter in a large one: Spark knows no time zone beyond 18 hours.
    "a time zone beyond 18 hours": _ORDER.replace(b"00Z", b"00+18:01"),
    "a time zone with 60 minutes": _ORDER.replace(b"00Z", b"00+05:60"),
    # The job stopped, and stopped again after each start: Java failed at the power, or computed it for hours.
    "a decimal with an exponent of 10 digits": _order(b"1e-2000000000"),
    "another one": _order(b"1e20000000"),
    "such a decimal as a string": _order(b'"1e-2000000000"'),
    "such a decimal with escapes": _order(b'"1\\u0065-2\\u0030\\u003000000000"'),
    "such a decimal with a name with an escape": _order(b"1e-2000000000").replace(b"price", b"pric\\u0065"),
    "a decimal as a long string": _order(b'"%s"' % (b"0" * 1_000_000)),
    # An event of Spark, and malformed by verify; and the other way round.
    "a decimal with 30 decimal places": _order(b"1.999999999999999999999999999999"),
    "a decimal in digits of another script": _order('"\u0661.5"'.encode()),
    "a decimal in digits beyond 16 bits": _order('"\U0001d7cf"'.encode()),
    "a number with 1,200 digits": _with(b"9" * 600 + b"." + b"9" * 600),
    # Malformed by verify, of which Python counted the calls too.
    **{f"a depth of {n + 1:,}": _with(b"[" * n + b"]" * n) for n in (970, 998, 1_000)},
    # An event without the field: Spark made null of it.
    "an escape of two digits in an optional field": _EVERY_TYPE.replace(b'"level":1', b'"level":"\\u12"'),
    # An event, although a field occurs twice: the names were only counted in all, and not each with any escape.
    **{
        f"a field twice, once as {name.decode()}": _EVERY_TYPE.replace(b"{", b'{"%s":true,' % name)
        for name in (rb"is\u004eew2", rb"isNew\u0032")
    },
    "a field twice, and an optional one missing": _ORDER.replace(b"{", b'{"customer_id":"b",'),
}
