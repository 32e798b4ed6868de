"""What the properties are about: hostile texts and JSON, and what a line of a message may have."""

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st

T = TypeVar("T")

FRAGMENTS = (
    "\x1b[31m", "\x1b]0;title\x07", "\x9b2J", "\x00", "\x7f", "\r", "\n", "\t", "\u0085", "\u2028", "\u200b", "\u202e",
    "\ufeff", "\U000e0001", "<img src=x onerror=alert(1)>", "</script>", "{{7*7}}", "${x}", "$(id)", "%s", "%25", "%00",
    "'", '"', '";--', "\\", "|", "\\|", "~2F", "/", "..", "?", "#", "-", "é", "e\u0301", "日本", "😀", "x" * 600,
    "*" * 40, "None", "true", "null", "0", "-1", "1e400", "NaN", "2026-01-31T12:00:00Z", "0001-01-01T00:00:00+14:00",
)  # fmt: skip
"""Parts of a text that have a meaning somewhere: to a terminal, a browser, a query, a path, a parser."""

texts = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), min_size=1, max_size=4).map("".join).filter(bool)
"""Texts of characters that UTF-8 has."""
any_texts = texts | st.text(st.characters(), max_size=6)
"""Texts that can also have half of a surrogate pair."""

RAW_JSON: Sequence[str] = (
    "null", "true", "false", "0", "-0", "1", "-1", "1.5", "1e2", "1E400", "-1e400", "1e-400", "9" * 18, "9" * 19,
    "9" * 400, "9" * 5_000, "9223372036854775807", "9223372036854775808", "-9223372036854775809", "0.1", "1.", ".5",
    "+1", "01", "0x10", "NaN", "Infinity", "-Infinity", '""', '"1"', '"NaN"', '"a', "'a'", r'"\ud83d"',
    r'"\ude00\ud83d"', r'"\ud83d\ude00"', r'"\u0000"', r'"\u001b[31m"', r'"\x"', r'"\u12"', '"\x1b"', '"a\nb"', "[]",
    "{}", "[1]", '{"a":1}', "[" * 300 + "]" * 300, '{"a":' * 300 + "1" + "}" * 300, "[" * 1_500 + "]" * 1_500,
    "[" * 100_000, '"2026-01-31T12:00:00Z"', '"2026-01-31T12:00:00"', '"2026-01-31T12:00:30.000Z"',
    '"0001-01-01T00:00:00+14:00"', '"9999-12-31T23:59:59-14:00"', '"2026-01-31"', '"soon"', "", ",", "//", "/**/",
    "undefined",
)  # fmt: skip
"""Values of a field as they may stand in a record, not all of them JSON."""

_BYTES = (b"\x00", b"\xff", b"\xc0\x80", b"\xed\xa0\xbd", b"\xef\xbb\xbf", b'"', b"\n", b"}", b"\\")

SPACES = ("", "", "", " ", "\n", "\r\n", "\t", "\x0b", "\u00a0", "\ufeff")


def mostly(usual: st.SearchStrategy[T], odd: st.SearchStrategy[T], one_in: int = 40) -> st.SearchStrategy[T]:
    """Return what is usual, and what is odd once in that number of times."""
    # Not by `one_of`, which takes the same strategy only once.
    is_odd = st.sampled_from((False,) * (one_in // 2) + (True,) + (False,) * (one_in - 1 - one_in // 2))
    return is_odd.flatmap(lambda found: odd if found else usual)


@st.composite
def mutated(draw: st.DrawFn, originals: st.SearchStrategy[bytes]) -> bytes:
    """Return bytes of which a part was replaced, repeated or cut off, or which are as they were."""
    data = draw(originals)
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 2)))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 8)))
        replacement = draw(st.sampled_from((b"", data[start:end] * 2, *_BYTES)) | st.binary(max_size=3))
        data = data[:start] + replacement + data[end:]
    return data


@st.composite
def objects(draw: st.DrawFn, members: Sequence[tuple[str, st.SearchStrategy[str]]]) -> bytes:
    """Return what may be a JSON object of some of these members, each a name and what stands for its value."""
    chosen = list(members)
    if draw(st.integers(0, 3)) == 0:
        chosen = draw(st.lists(st.sampled_from(chosen), max_size=len(chosen) + 1))
    if draw(st.integers(0, 5)) == 0:
        chosen.append((draw(any_texts), st.sampled_from(RAW_JSON)))
    space = draw(st.sampled_from(SPACES))
    written = [f"{json.dumps(name)}{space}:{space}{draw(value)}" for name, value in chosen]
    text = "{" + space + f"{space},{space}".join(written) + space + "}" + draw(st.sampled_from(SPACES))
    return text.encode("utf-8", "surrogatepass")


def number_of_examples(share: float) -> int:
    """Return the number of examples of a property that takes more or less time than others, by the profile."""
    profile = settings.default
    assert profile is not None
    return max(1, int(profile.max_examples * share))


def is_one_line(text: str) -> bool:
    """Whether a text can be shown as a line of a log or a terminal as it is."""
    return text.isprintable() and text.strip() != ""


def assert_one_line(text: object) -> None:
    """Check that a text, such as that of an exception, can be shown as one line."""
    assert is_one_line(str(text)), repr(text)


def raw(value: Any) -> str:
    """Return a value as JSON, with characters as they are where JSON allows it."""
    return json.dumps(value, ensure_ascii=False)
