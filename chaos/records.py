"""The records of the load: valid, late, odd, malformed and huge ones, from a seed."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from contract.fields import MAX_ID_BYTES

_TYPES: Final = ("click", "like", "view", "purchase")
_COMMON_IDS: Final = 200
_ODD_IDS: Final = (
    "ünïcödé",
    "用户",
    "👩‍👩‍👧‍👦",
    "\u202eright to left",
    "é",
    "e\u0301",
    "a/b",
    "../..",
    "a;b",
    "100%",
    "%2F%00",
    'say "hi"',
    "it's",
    "back\\slash",
    "a|b",
    "-",
    ".",
    "..",
    "_id",
    " ",
    "\t",
    "line\nbreak",
    "carriage\rreturn",
    "null\x00",
    "\x1b[31m",
    "\x7f",
    "\u2028",
    "\ufeffmark",
    "\uffff",
    "null",
    "true",
    "0",
    "-1",
    "1e3",
    "{}",
    "[]",
    "<b>",
    "$where",
    "*",
    "?q=1&x=#",
    "user_1 OR 1=1; --",
)
_LATE: Final = 48
"""Different hours that late records fall into, each at one minute: every other one would be read from the lake too."""
_HUGE: Final = (200_000, 900_000)
"""Bytes; less than a topic accepts by default."""


@dataclass(frozen=True)
class Record:
    """What is sent."""

    kind: str
    key: bytes | None
    value: bytes | None


class Records:
    """The records of a seed: the n-th one follows from the seed, the beginning and the rate alone."""

    def __init__(self, seed: int, began: float, rate: float) -> None:
        """`began` is when the first one is due, in epoch seconds; `rate` is a number per second."""
        self._seed = seed
        self._began = began
        self._rate = rate

    def record(self, number: int) -> Record:
        """Return the n-th record.

        >>> Records(seed=7, began=1_700_000_000, rate=500).record(2)  # doctest: +ELLIPSIS
        Record(kind='valid', key=b'user_122', value=b'{"user_id": "user_122", ...}')
        """
        rng = random.Random(f"{self._seed}/{number}")
        (kind,) = rng.choices(list(_KINDS), _WEIGHTS)
        make, _ = _KINDS[kind]
        key, value = make(rng, _interaction(rng, int(self._began + number / self._rate)))
        return Record(kind, key, value)


def probe(name: str, at: float) -> Record:
    """Return a valid record of a user of its own, whose row shows that what was sent before it has arrived."""
    return Record(
        "probe", *_keyed({"user_id": name, "item_id": name, "interaction_type": "view", "timestamp": int(at)})
    )


Interaction = dict[str, Any]
_Parts = tuple[bytes | None, bytes | None]


def _interaction(rng: random.Random, at: int) -> Interaction:
    user, item = (f"{name}_{rng.randrange(_COMMON_IDS)}" for name in ("user", "item"))
    return {"user_id": user, "item_id": item, "interaction_type": rng.choice(_TYPES), "timestamp": at}


def _keyed(interaction: Interaction, **other: Any) -> _Parts:
    """Return the record of an interaction as the producer keys it."""
    return str(interaction["user_id"]).encode(), json.dumps({**interaction, **other}).encode()


def _late(rng: random.Random, interaction: Interaction) -> _Parts:
    hour = interaction["timestamp"] // 3_600 - 1 - rng.randrange(_LATE)
    return _keyed({**interaction, "timestamp": hour * 3_600})


def _odd(rng: random.Random, interaction: Interaction) -> _Parts:
    changed = {name: rng.choice(_ODD_IDS) for name in rng.choice((("user_id",), ("item_id",), ("user_id", "item_id")))}
    # As some writers do: other spaces and escapes than those of the canonical form.
    value = json.dumps(
        interaction | changed, ensure_ascii=rng.random() < 0.5, separators=rng.choice((None, (",", ":")))
    )
    return str((interaction | changed)["user_id"]).encode(), value.encode()


def _long(rng: random.Random, interaction: Interaction) -> _Parts:
    """Return one with an id at the limit, or beyond it: which is malformed."""
    size = MAX_ID_BYTES + rng.choice((-1, 0, 0, 1))
    letter = rng.choice(("x", "é", "用"))
    text = letter * (size // len(letter.encode()))
    text += "y" * (size - len(text.encode()))
    return _keyed(interaction | {rng.choice(("user_id", "item_id")): text})


def _huge_valid(rng: random.Random, interaction: Interaction) -> _Parts:
    return _keyed(interaction, ignored=_text(rng))


def _huge_malformed(rng: random.Random, interaction: Interaction) -> _Parts:
    _, value = _keyed(interaction | {rng.choice(("user_id", "interaction_type", "timestamp")): _text(rng)})
    # Both of this size would be more than a topic accepts.
    return interaction["user_id"].encode(), value


def _text(rng: random.Random) -> str:
    # Random enough that compression does not make it small.
    return rng.randbytes(rng.randint(*_HUGE) // 2).hex()


def _not_json(rng: random.Random, interaction: Interaction) -> _Parts:
    _, value = _keyed(interaction)
    assert value is not None
    return None, rng.choice(
        (
            b"",
            None,
            b"not json",
            b"null",
            b"[]",
            b'"text"',
            value[:-1],
            value[: len(value) // 2],
            value + value,
            b"\x00",
        )
    )


def _missing(rng: random.Random, interaction: Interaction) -> _Parts:
    gone = rng.choice(tuple(interaction))
    rest = {name: value for name, value in interaction.items() if name != gone}
    return interaction["user_id"].encode(), json.dumps(rest | rng.choice(({}, {gone: None}))).encode()


def _wrong_type(rng: random.Random, interaction: Interaction) -> _Parts:
    changes: tuple[Interaction, ...] = (
        {"timestamp": "now"},
        {"timestamp": str(interaction["timestamp"])},
        {"timestamp": interaction["timestamp"] * 1000},
        {"timestamp": -1},
        {"timestamp": True},
        {"timestamp": 1.5},
        {"timestamp": []},
        {"user_id": 7},
        {"user_id": ""},
        {"user_id": ["user_1"]},
        {"item_id": {}},
        {"item_id": ""},
        {"interaction_type": "stare"},
        {"interaction_type": "LIKE"},
        {"interaction_type": 1},
    )
    return interaction["user_id"].encode(), json.dumps(interaction | rng.choice(changes)).encode()


def _not_utf_8(rng: random.Random, interaction: Interaction) -> _Parts:
    _, value = _keyed(interaction)
    assert value is not None
    wrong = rng.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\\ud83d"))
    return rng.choice((b"\xff\xfe", None)), value.replace(b"item_", wrong)


def _twice(rng: random.Random, interaction: Interaction) -> _Parts:
    key, value = _keyed(interaction)
    assert value is not None
    return key, value[:-1] + b', "' + rng.choice(tuple(interaction)).encode() + b'": "again"}'


_KINDS: Final[dict[str, tuple[Callable[[random.Random, Interaction], _Parts], float]]] = {
    "valid": (lambda _, interaction: _keyed(interaction), 88.0),
    "late": (_late, 2.0),
    "odd id": (_odd, 4.0),
    "long id": (_long, 1.0),
    "valid and huge": (_huge_valid, 0.02),
    "huge": (_huge_malformed, 0.02),
    "no JSON": (_not_json, 1.5),
    "missing field": (_missing, 1.0),
    "wrong type": (_wrong_type, 1.5),
    "not UTF-8": (_not_utf_8, 0.7),
    "repeated field": (_twice, 0.26),
}
"""How a record of each kind is made, and its share in percent."""
_WEIGHTS: Final = [share for _, share in _KINDS.values()]
