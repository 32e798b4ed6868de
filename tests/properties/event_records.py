"""Generates records of an event, valid and nearly valid ones, and parses them by the rules of the declaration alone.

The parser is the third one, beside Spark's and the stream job's own: Python's `json`, then a check for each rule. It
shares no code with the others.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from functools import cache
from itertools import accumulate
from random import Random
from typing import Any, Final, NamedTuple

from contract.event import Event
from contract.fields import Field, FieldType
from contract.pipeline import Pipeline
from tests.properties.hostile import FRAGMENTS, RAW_JSON

_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_SECOND: Final = 253_402_300_799
_MAX_LEVELS: Final = 999
# Python's JSON parser counts each level as a call.
sys.setrecursionlimit(3 * _MAX_LEVELS)
_SHORT: Final = [text for text in RAW_JSON if len(text) < 1_000]
_TEXTS: Final = ("user_1", "item_43", "日本 🙂", "a b", "|", "<b>", "\x7f", "\u2028")
_EDITS: Final = (
    b"", b"", b" ", b"\n", b"\x00", b"\xff", b"\xc0\x80", b"\xed\xa0\xbd", b"\xef\xbb\xbf", b'"', b"\\", b"{", b"}",
    b"[", b"]", b",", b":", b"0", b"e", b"E400", b".", b"-", b"+", b"'", b"\\u0061", b"\\ud83d", b"null", b"//",
    b"\xc2\xa0",
)  # fmt: skip

_SPACES: Final = (b"", b" ", b"\n", b"\r\n", b"\t", b"  ", b"\x0b", b"\x0c", b"\x00", b"\xc2\x85", b"\xe2\x80\xa8")


class Written(NamedTuple):
    """A record, and whether it is written as most producers do: the stream job then reads it without Spark."""

    value: bytes
    is_plain: bool


class _Number(str):
    """A number as it is written."""


class InvalidRecordError(ValueError):
    """The record is no event."""

    def __init__(self, problem: str, about: str = "") -> None:
        super().__init__(problem)
        self.about = about
        """The field that is wrong, the fields of an id that is too long, or "" for the record as a whole."""


# --- The third parser ---------------------------------------------------------------------------------


def parse_event(value: bytes, pipeline: Pipeline) -> tuple[Any, ...]:
    """Return the values of the fields, times as microseconds since 1970; raises `InvalidRecordError`."""
    event = pipeline.event
    if len(value) > 4 << 20:
        raise InvalidRecordError("too large")
    members = _members(value)
    names = [name for name, _ in members]
    decimals = [field.name for field in event.fields if field.type is FieldType.DECIMAL]
    if any(name in decimals and _is_long(each) for name, each in members):
        raise InvalidRecordError("a long decimal")
    for name in event.names:
        if names.count(name) > 1:
            raise InvalidRecordError("a field occurs twice", name)
    record = dict(members)
    values = {}
    for field in event.fields:
        try:
            values[field.name] = _value(field, record.get(field.name))
        except InvalidRecordError as error:
            raise InvalidRecordError(str(error), field.name) from None
    for key in pipeline.keys:
        fields = [name for name in key if key.window is None or name != key.window.name]
        if len(fields) > 1 and len("|".join(_escaped(values[name]) for name in fields).encode()) > 512:
            raise InvalidRecordError("the id is too long", " and ".join(fields))
    return tuple(values.values())


def _members(value: bytes) -> list[tuple[str, Any]]:
    top: list[tuple[str, Any]] = []

    def remember(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # The outermost object ends last.
        top[:] = pairs
        return dict(pairs)

    try:
        text = value.decode()
        if len(value) > _MAX_LEVELS and levels(text) > _MAX_LEVELS:
            raise InvalidRecordError("too deep")
        found = json.loads(
            text, object_pairs_hook=remember, parse_int=_number, parse_float=_number, parse_constant=_refuse
        )
        # Half of a surrogate pair is no text, wherever it is.
        json.dumps(top).encode()
        json.dumps(found, ensure_ascii=False).encode()
        for name, each in top:
            json.dumps([name, each], ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise InvalidRecordError("no JSON") from None
    if not isinstance(found, dict):
        raise InvalidRecordError("no object")
    return top


def _is_long(value: Any) -> bool:
    _, *exponent = re.split("[eE][+-]?", value) if isinstance(value, str) else ("",)
    is_long = any(re.match(r"[\d,]{5}", each) for each in exponent)
    return is_long or (_is_text(value) and len(value) > 100)


def levels(text: str) -> int:
    """Return the depth of a JSON text: the most brackets that are open."""
    brackets = re.sub(r'"[^"\\]*(?:\\.[^"\\]*)*"|[^]["{}]+', "", text, flags=re.DOTALL)
    return max(accumulate((1 if each in "[{" else -1 for each in brackets), initial=0))


def _number(text: str) -> _Number:
    if len(re.sub("[^0-9]", "", text)) > 1_000:
        raise InvalidRecordError("too many digits")
    return _Number(text)


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _escaped(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.replace("\\", "\\\\").replace("|", "\\|")


def _value(field: Field, value: Any) -> Any:
    if value is None:
        if not field.optional:
            raise InvalidRecordError("missing or null")
        is_decimal = field.type is FieldType.DECIMAL and field.default is not None
        return Decimal(str(field.default)) if is_decimal else field.default
    match field.type:
        case FieldType.TEXT:
            if not _is_text(value) or not 1 <= len(value.encode()) <= field.max_bytes:
                raise InvalidRecordError("text")
            return value
        case FieldType.CHOICE:
            if not _is_text(value) or value not in field.choices:
                raise InvalidRecordError("choice")
            return value
        case FieldType.FLAG:
            if value is not True and value is not False:
                raise InvalidRecordError("flag")
            return value
        case FieldType.WHOLE:
            return _within(field, _whole(value))
        case FieldType.EPOCH_SECONDS:
            return _moment(_whole(value) * 1_000_000)
        case FieldType.EPOCH_MILLISECONDS:
            return _moment(_whole(value) * 1_000)
        case FieldType.ISO_DATETIME:
            return _iso(value)
        case FieldType.DECIMAL:
            return _within(field, _decimal(field, value))
        case FieldType.NUMBER:
            if not isinstance(value, _Number) or abs(float(value)) == float("inf"):
                raise InvalidRecordError("number")
            return _within(field, float(value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, _Number)


def _whole(value: Any) -> int:
    if not isinstance(value, _Number) or not re.fullmatch("-?[0-9]{1,30}", value):
        raise InvalidRecordError("whole")
    return int(value)


def _decimal(field: Field, value: Any) -> Decimal:
    if not isinstance(value, str):
        raise InvalidRecordError("decimal")
    if _is_text(value):
        # As Java reads it, which Spark gives the string without its commas.
        value = value.replace(",", "")
        digits = "".join("0" if each.isdecimal() and each < "\U00010000" else each for each in value)
        if re.fullmatch(r"[+-]?(0+[.]?0*|[.]0+)([eE][+-]?0+)?", digits) is None:
            raise InvalidRecordError("decimal")
    try:
        # Spark has 38 digits, 18 of them decimal places, and rounds all further ones.
        found = Decimal(value).quantize(Decimal("1e-18"), ROUND_HALF_UP, Context(prec=38))
    except InvalidOperation:
        raise InvalidRecordError("decimal") from None
    if int(found.scaleb(18, Context(prec=38))) % 10 ** (18 - field.places):
        raise InvalidRecordError("decimal places")
    return round(found, field.places)


def _within(field: Field, value: Any) -> Any:
    if (field.at_least is not None and value < field.at_least) or (field.at_most is not None and value > field.at_most):
        raise InvalidRecordError("out of bounds")
    return value


def _moment(microseconds: int) -> int:
    if not 0 <= microseconds // 1_000_000 <= _LAST_SECOND:
        raise InvalidRecordError("out of the years")
    return microseconds


def _iso(value: Any) -> int:
    if not _is_text(value) or not _TIME.fullmatch(value):
        raise InvalidRecordError("time")
    digits = (value[20:].split("Z")[0].split("+")[0].split("-")[0] if value[19] == "." else "").ljust(6, "0")
    zone = value[-6:] if value[-1] != "Z" else "+00:00"
    try:
        local = datetime.strptime(value[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        raise InvalidRecordError("no such day") from None
    hours, minutes = int(zone[1:3]), int(zone[4:])
    # As ISO 8601 has it, and Java: up to 18 hours, which no zone has.
    if minutes > 59 or hours * 60 + minutes > 18 * 60:
        raise InvalidRecordError("no such time zone")
    offset = timedelta(hours=hours, minutes=minutes) * (-1 if zone[0] == "-" else 1)
    seconds = (local - _EPOCH) // timedelta(seconds=1) - offset // timedelta(seconds=1)
    return _moment(seconds * 1_000_000 + int(digits))


# --- Records --------------------------------------------------------------------------------------------


def write_records(event: Event, random: Random, number: int) -> list[Written]:
    """Return records: most are plain, the others differ in spelling, in a value, in the structure or in a byte."""
    return [_write(event, random) for _ in range(number)]


def _write(event: Event, random: Random) -> Written:
    raw = {field.name: _plain(field, random) for field in event.fields}
    names = list(event.names)
    kind = random.randrange(10)
    if kind < 3:
        return Written(_joined(names, raw, *random.choice(((":", ","), (": ", ", ")))), is_plain=True)
    if kind == 3:
        random.shuffle(names)
        space = random.choice((" ", "\n", "\t", "\r\n", "  "))
        return Written(_joined(names, raw, f"{space}:", f",{space}", space), is_plain=True)
    # Twice as often a single change: two of them hide each other.
    for _ in range(random.choice((1, 1, 2))):
        _change(event, names, raw, random)
    value = _joined(names, raw, ": ", ", ")
    return Written(_edit(value, random) if random.randrange(3) == 0 else value, is_plain=False)


def _joined(names: list[str], raw: dict[str, str], colon: str, comma: str, space: str = "") -> bytes:
    text = "{" + space + comma.join(f'"{name}"{colon}{raw[name]}' for name in names) + space + "}" + space
    return text.encode("utf-8", "surrogatepass")


def _change(event: Event, names: list[str], raw: dict[str, str], random: Random) -> None:
    """Change a value, or which fields there are."""
    field = random.choice(event.fields)
    match random.randrange(14):
        case 0:
            names[:] = [name for name in names if name != field.name]
        case 1:
            names.append(field.name)
        case 2:
            at = random.randrange(len(field.name))
            hidden = f"{field.name[:at]}\\u00{ord(field.name[at]):02x}{field.name[at + 1 :]}"
            extra = random.choice(("x", "user_id2", "", "é", "\\u0078", field.name.upper(), hidden))
            raw[extra] = random.choice((*_SHORT, json.dumps(random.choice(FRAGMENTS))))
            names.insert(random.randrange(len(names) + 1), extra)
        case 3 | 4:
            raw[field.name] = random.choice(RAW_JSON if random.randrange(50) == 0 else _SHORT)
        case 5:
            raw[random.choice(("x", field.name))] = _nested(event, random)
            names.append("x")
            raw.setdefault("x", "0")
        case 6:
            raw[field.name] = f'"{_any_text(field, random)}"'
        case 7:
            numbers = [each.name for each in event.fields if not each.type.is_quoted]
            raw[random.choice(numbers or event.names)] = _any_number(random)
        case 8:
            times = [each.name for each in event.fields if each.type is FieldType.ISO_DATETIME]
            raw[random.choice(times or event.names)] = f'"{_any_time(random)}"'
        case _:
            raw[field.name] = random.choice(_near(field))


def _any_number(random: Random) -> str:
    """Return a number, most of them as JSON has it."""
    whole = random.choice(("0", "1", "-0", "-", "", "+1", "00", *("1234567890" * 4,) * 5))
    whole = random.choice(("", "", "-")) + whole[: random.choice((1, 2, 3, 10, 15, 16, 17, 18, 19, 20, 21, 38, 39))]
    fraction = random.choice(("", "", ".", "." + "0123456789" * 4, "." + "0" * 30, "." + "9" * 30, ".5", ".25"))
    fraction = fraction[: random.choice((2, 3, 4, 5, 10, 16, 19, 20, 31))]
    exponents = (
        "",
        "",
        "",
        "",
        "e",
        "E+",
        f"e{random.randint(-400, 400)}",
        f"E{random.randint(-20, 20)}",
        "e+05",
        "e-00",
    )
    quote = random.choice(("", "", "", '"'))
    return quote + whole + fraction + random.choice(exponents) + quote


def _any_text(field: Field, random: Random) -> str:
    """Return what stands between the quotes of a text: any characters, as they are or as escapes."""
    length = random.choice((1, 2, 3, 8, field.max_bytes // 4, field.max_bytes // 2, field.max_bytes))
    text = random.choice((*field.choices, "".join(random.choices(_CHARACTERS, k=length))))
    return "".join(
        _escaped_character(character, random) if random.randrange(8) == 0 else character for character in text
    )


def _escaped_character(character: str, random: Random) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    digits = [units[at : at + 2].hex() for at in range(0, len(units), 2)]
    if len(digits) > 1 and random.randrange(10) == 0:
        digits.remove(random.choice(digits))
    return "".join("\\u" + random.choice((each, each.upper())) for each in digits)


def _any_time(random: Random) -> str:
    """Return a time, most of them as ISO 8601 has it."""
    year = random.choice((random.randint(0, 9999), 1969, 1970, 9999, 2024, 1900, 10_000))
    month, day = random.choice((random.randint(1, 12), 2, 0, 13)), random.choice((random.randint(1, 31), 29, 0))
    hour, minute, second = (random.choice((random.randint(0, most), 0, most, most + 1)) for most in (23, 59, 59))
    fraction = random.choice(("", "", "." + "".join(random.choices("0159", k=random.randint(0, 8)))))
    zone = f"{random.choice('+-')}{random.randint(0, 19):02}:{random.choice((0, 0, 30, 59, 60)):02}"
    time = f"{year:04}-{month:02}-{day:02}{random.choice('TTTTTTTt ')}{hour:02}:{minute:02}:{second:02}"
    return time + fraction + random.choice(("Z", "Z", zone, zone, "", zone[:3], f"{zone}:00", "UTC", "[UTC]"))


def _nested(event: Event, random: Random) -> str:
    """Return a structure, with names of fields in it, flat or as deep as a parser takes it, or deeper by two levels."""
    depth = random.choice((1, 1, 2, 3, 3, 10, 100, 498, 499, 500, 990, 997, 1_000, 1_001))
    opened = [random.choice(("[", '{"a":', f'{{"{random.choice(event.names)}":', "[ ")) for _ in range(min(depth, 3))]
    opened += ["[" if random.randrange(2) == 0 else '{"a":'] * (depth - len(opened))
    closed = ["]" if each[0] == "[" else "}" for each in reversed(opened)]
    inner = random.choice((*_SHORT, "0", '"}"', '"]"', "[]", "{}"))
    if random.randrange(20) == 0:
        closed[random.randrange(len(closed))] = random.choice(("]", "}", ""))
    return "".join(opened) + inner + "".join(closed)


_CHARACTERS: Final = [
    *"abcXYZ019 ._:/{}[],'<>&|%", "\x7f", "\x80", "\xa0", "é", "ß", "İ", "\u0301", "\u0661", "\u2028", "\u3000", "日",
    "\ufeff", "\ufffd", "\uffff", "🙂", "\U0010ffff",
]  # fmt: skip


def _edit(value: bytes, random: Random) -> bytes:
    match random.randrange(16):
        case 0:
            return value + random.choice((b"x", b"\x00", value, b",", b"]", b" {}", b" "))
        case 1:
            return b"[" + value + b"]"
        case 2:
            encoding = random.choice(("utf-16", "utf-16-le", "utf-8-sig", "utf-32"))
            return value.decode("utf-8", "replace").encode(encoding)
        case 3:
            return value[: random.randrange(len(value))]
        case 4:
            return value.replace(b'"', b"'")
        case 5:
            # A letter as an escape, of a name or of a text: `tru\\u0065` is none.
            at = random.randrange(len(value))
            return value[:at] + b"\\u00%02x" % value[at] + value[at + 1 :] if value[at] < 128 else value
        case 6:
            start, end = sorted(random.choices(range(len(value) + 1), k=2))
            return value[:end] + value[start:end] + value[end:]
        case 7:
            spaces = random.choice((_SPACES[:6], _SPACES))
            return b",".join(random.choice(spaces) + part + random.choice(spaces) for part in value.split(b","))
        case _:
            at = random.randrange(len(value))
            return value[:at] + random.choice(_EDITS) + value[at + random.randrange(3) :]


def _plain(field: Field, random: Random) -> str:
    """Return a valid value as most producers write it."""
    if field.optional and random.randrange(4) == 0:
        return "null"
    match field.type:
        case FieldType.TEXT:
            size = min(field.max_bytes, 100)
            text = random.choice((*_TEXTS, "é" * (size // 2), "u" * size))
            fits = 1 <= len(text.encode()) <= size
            return f'"{text if fits else "u"}"'
        case FieldType.CHOICE:
            return f'"{random.choice(field.choices)}"'
        case FieldType.FLAG:
            return random.choice(("true", "false"))
        case FieldType.WHOLE:
            assert isinstance(field.at_least, int)
            assert isinstance(field.at_most, int)
            return str(random.choice((field.at_least, field.at_most, random.randint(field.at_least, field.at_most))))
        case FieldType.DECIMAL:
            assert field.at_least is not None
            assert field.at_most is not None
            units = [int(Decimal(bound).scaleb(field.places)) for bound in (field.at_least, field.at_most)]
            return str(Decimal(random.choice((*units, random.randint(*units)))).scaleb(-field.places))
        case FieldType.NUMBER:
            least = -1e300 if field.at_least is None else float(field.at_least)
            most = 1e300 if field.at_most is None else float(field.at_most)
            return repr(random.choice((least, most, random.uniform(least, most))))
        case FieldType.EPOCH_SECONDS:
            return str(random.choice((0, _LAST_SECOND, random.randint(0, _LAST_SECOND))))
        case FieldType.EPOCH_MILLISECONDS:
            return str(random.choice((0, _LAST_SECOND * 1_000 + 999, random.randint(0, _LAST_SECOND * 1_000))))
        case FieldType.ISO_DATETIME:
            return f'"{_plain_time(random)}"'


def _plain_time(random: Random) -> str:
    time = _EPOCH + timedelta(seconds=random.randint(100_000, _LAST_SECOND - 100_000))
    fraction = random.choice(("", ".5", ".123", ".000001", ".999999"))
    return time.strftime("%Y-%m-%dT%H:%M:%S") + fraction + random.choice(("Z", "+00:00", "+05:30", "-08:00", "+14:00"))


_ENDS_OF_64_BITS: Final = tuple(str(sign * 2**63 + n) for sign in (1, -1) for n in (-1, 0, 1))
_WHOLE_NUMBERS: Final = ("0", "-0", "1.0", "1e2", "01", "1_0", '"1"', "true", *_ENDS_OF_64_BITS)


@cache
def _near(field: Field) -> list[str]:
    """Return values that are nearly those of the field, or are unusual ones of it."""
    return _NEAR[field.type](field)


def _near_bounds(field: Field) -> list[str]:
    bounds = [bound for bound in (field.at_least, field.at_most) if bound is not None]
    steps = (-1, 0, 1) if field.type is FieldType.WHOLE else (-1, Decimal("-0.001"), 0, Decimal("0.001"), 1)
    return [str(Decimal(str(bound)) + step) for bound in bounds for step in steps]


_AFTER_A_SECOND: Final = (
    "", "z", "+0100", "+01", "+18:00", "-18:00", "+18:01", "-23:59", "-24:00", "+05:60", "-00:00", ".Z", ",5Z", " Z",
    ".1234567Z", ".123456789Z", "Z\\n", "+01:00:30",
)  # fmt: skip

_NEAR: Final[Mapping[FieldType, Callable[[Field], list[str]]]] = {
    FieldType.TEXT: lambda field: [
        *(json.dumps(text) for text in FRAGMENTS),
        *(json.dumps(text, ensure_ascii=False) for text in FRAGMENTS),
        *(f'"{"u" * (field.max_bytes + n)}"' for n in (-1, 0, 1)),
        f'"{"é" * (field.max_bytes // 2 + 1)}"', r'"\u0061"', r'"\\"', r'"\/"', '""', '"|"', f'"{"|" * 250}"',
    ],
    FieldType.CHOICE: lambda field: [
        *(f'"{value} "' for value in field.choices), *(f'"{value.upper()}"' for value in field.choices),
        *(f'"\\u{ord(value[0]):04x}{value[1:]}"' for value in field.choices), '""', json.dumps(list(field.choices)),
    ],
    FieldType.FLAG: lambda _: ["TRUE", '"true"', "1", "0", '""', "tru"],
    FieldType.WHOLE: lambda field: [*_WHOLE_NUMBERS, *_near_bounds(field)],
    FieldType.DECIMAL: lambda field: [
        *_WHOLE_NUMBERS, *_near_bounds(field), "1e2", "1E-2", "1.50", "1.500", "1.501", "0.0000000001", '"1.5"',
        '"1.505"', '"1e1"', '" 1"', '"+1"', '"1_0"', '"NaN"', '"Infinity"', "1" * 30, "1e400", "-0.0", "1e-400",
        "1e9999", "1e-9999", "1e10000", "1e-99999", "0e00001", '"1e-9999"', '"1e10000"', '"1e-1,0000"', '"1,000.5"',
        f'"1{"0" * 98}"', f'"1.{"0" * 98}"', f'"1.{"0" * 99}"', '"\u0661.5"', '"\U0001d7cf"',
    ],
    FieldType.NUMBER: lambda field: [
        *_WHOLE_NUMBERS, *_near_bounds(field), "1e400", "1e308", "-1e-400", "0.1e1", "1E+2", "9" * 400, '"1.5"', "1e",
        "1.7976931348623157e308", "1.7976931348623159e308", "5e-324",
    ],
    FieldType.EPOCH_SECONDS: lambda _: [
        *_WHOLE_NUMBERS, "-1", str(_LAST_SECOND), str(_LAST_SECOND + 1), "1736404972000",
    ],
    FieldType.EPOCH_MILLISECONDS: lambda _: [
        *_WHOLE_NUMBERS, "-1", str(_LAST_SECOND * 1_000 + 999), str((_LAST_SECOND + 1) * 1_000),
    ],
    FieldType.ISO_DATETIME: lambda _: [
        f'"{text}"'
        for text in (
            *(f"2026-01-31T12:00:00{rest}" for rest in _AFTER_A_SECOND), "2026-01-31 12:00:00Z", "2026-01-31T12:00Z",
            "2026-01-31", "2026-02-30T12:00:00Z", "2026-01-31T24:00:00Z", "2026-01-31T23:59:60Z",
            "2026-W05-6T12:00:00Z",
            "1969-12-31T23:59:59Z", "1969-12-31T23:59:59.5Z", "1970-01-01T00:00:00+00:01", "1970-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-00:01", "10000-01-01T00:00:00Z", "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+14:00", "٢٠٢٦-01-31T12:00:00Z", "-2026-01-31T12:00:00Z",
        )
    ],
}  # fmt: skip
