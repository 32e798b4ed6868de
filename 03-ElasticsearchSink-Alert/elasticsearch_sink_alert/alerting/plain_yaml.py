"""Reads YAML into plain Python values that know their lines: `dict`, `list`, `str`, `int`, `float`, `bool`, None.

The values are of exactly these types or of the two subclasses below, never of the parser's own, so whatever takes
plain Python takes them. Dates stay text. What YAML allows beyond that is refused with its line.
"""

import math
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.composer import ComposerError
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

_MOST_BYTES: Final = 256 << 10
"""The parser takes some 10 s for a megabyte, and the reader has other things to do."""
_MOST_VALUES: Final = 50_000
"""An alias counts as all that it stands for."""
_TAG: Final = "tag:yaml.org,2002:"
_INTEGERS: Final = range(-(1 << 63), 1 << 63)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class Problem(NamedTuple):
    """Something that cannot be used, and its line."""

    line: int
    text: str


class NotPlainError(Exception):
    """A file or text cannot be used; `problems` lists why."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(f"line {line}: {text}" for line, text in problems))
        self.problems = problems


class Entries(dict[str, Any]):
    """A mapping, and the line of each of its keys."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}

    def put(self, key: str, value: Any, line: int) -> None:
        """Add an entry of that line."""
        self[key] = value
        self.lines[key] = line


class Items(list[Any]):
    """A sequence, and the line of each of its items."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int] = []


def read(path: Path) -> str:
    """The text of a file; raises OSError, and `NotPlainError` for what is no text or too large."""
    if not S_ISREG(path.stat().st_mode):
        raise NotPlainError(Problem(1, "is not a regular file"))
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise NotPlainError(Problem(1, f"is larger than {_MOST_BYTES >> 10} KiB"))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotPlainError(
            Problem(content[: error.start].count(b"\n") + 1, "not UTF-8 text: save it as UTF-8")
        ) from None


def parse(text: str) -> Any:
    """The one document of a text; raises `NotPlainError`.

    >>> parse("a: [1, 0x10, 1_000, 1e5, 2026-01-31]")
    {'a': [1, 16, 1000, 100000.0, '2026-01-31']}
    """
    conversion = _Conversion()
    try:
        with warnings.catch_warnings(action="ignore"):
            value = conversion.value(YAML(typ="safe", pure=True).compose(text))
    except NotPlainError:
        raise
    except ComposerError as error:
        several = error.context is not None and "single document" in error.context
        problem = "holds several documents: expected one" if several else f"not YAML: {error.problem}"
        raise NotPlainError(Problem(_line_of_error(error), problem)) from None
    except MarkedYAMLError as error:
        problem = f"not YAML: {error.problem} (is an operator without quotes?)"
        raise NotPlainError(Problem(_line_of_error(error), problem)) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise NotPlainError(
            Problem(line, f"holds the character U+{int(error.character):04X}, which YAML does not allow")
        ) from None
    except RecursionError:
        raise NotPlainError(Problem(1, "is nested too deeply")) from None
    except (YAMLError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError, AssertionError) as error:
        # The parser's own, over input that nobody foresaw.
        raise NotPlainError(Problem(1, f"not YAML: {type(error).__name__}: {error}")) from None
    if conversion.problems:
        raise NotPlainError(*conversion.problems)
    return value


class _Conversion:
    """From the parser's nodes to values; what it refuses is None, and one of the problems."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._count = 0
        self._within: set[int] = set()
        self._constructor = SafeConstructor(loader=YAML(typ="safe", pure=True))

    def value(self, node: Node | None) -> Any:
        if node is None:
            return None
        self._count += 1
        if self._count > _MOST_VALUES:
            text = f"holds more than {_MOST_VALUES} values, with all that its aliases stand for"
            raise NotPlainError(*self.problems, Problem(_line(node), text))
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if id(node) in self._within:
            self._refuse(node, "an alias stands for what it is a part of")
            return None
        self._within.add(id(node))
        try:
            return self._entries(node) if isinstance(node, MappingNode) else self._items(node)
        finally:
            self._within.discard(id(node))

    def _entries(self, node: MappingNode) -> Entries:
        self._require_tag(node, "map")
        entries, merged = Entries(), Entries()
        for key_node, value_node in node.value:
            line = _line(key_node)
            if _kind(key_node) == "merge":
                for others in self._merged(value_node):
                    for name, value in others.items():
                        if name not in merged:
                            merged.put(name, value, line)
                continue
            key = self.value(key_node)
            value = self.value(value_node)
            if not isinstance(key, str):
                self._refuse(key_node, f"a key is {_shown(key)}: expected a name")
            elif key in entries:
                self._refuse(key_node, f"{_shown(key)} is on line {entries.lines[key]} already")
            else:
                entries.put(key, value, line)
        for name, value in merged.items():
            if name not in entries:
                entries.put(name, value, merged.lines[name])
        return entries

    def _merged(self, node: Node) -> Iterator[Entries]:
        found = self.value(node)
        for each in [found] if isinstance(found, Entries) else found if isinstance(found, Items) else [None]:
            if isinstance(each, Entries):
                yield each
            else:
                self._refuse(node, "<< takes a mapping, or a list of them")

    def _items(self, node: Node) -> Items:
        assert isinstance(node, SequenceNode)
        self._require_tag(node, "seq")
        items = Items()
        for each in node.value:
            items.append(self.value(each))
            items.lines.append(_line(each))
        return items

    def _scalar(self, node: ScalarNode) -> Any:
        kind, text = _kind(node), str(node.value)
        if kind == "null":
            return None
        if kind in ("str", "timestamp", "value"):
            if _SURROGATE.search(text):
                self._refuse(node, f"{_shown(text)} holds half a surrogate pair, which is no character")
                return None
            return text
        try:
            if kind == "bool":
                return bool(self._constructor.construct_yaml_bool(node))
            if kind == "int":
                return self._integer(node)
            if kind == "float":
                return self._float(node)
        except (ValueError, LookupError, ArithmeticError):
            self._refuse(node, f"{_shown(text)} is not of the type {kind}")
            return None
        self._refuse(node, f"the tag {_shown(str(node.tag))} is not allowed")
        return None

    def _integer(self, node: ScalarNode) -> int | None:
        # Python itself refuses to read very many digits.
        number = int(self._constructor.construct_yaml_int(node)) if len(node.value) < 200 else _INTEGERS.stop
        if number not in _INTEGERS:
            self._refuse(node, f"{_shown(node.value)} is an integer beyond 64 bits")
            return None
        return number

    def _float(self, node: ScalarNode) -> float | None:
        number = float(self._constructor.construct_yaml_float(node))
        if not math.isfinite(number):
            self._refuse(node, f"{_shown(node.value)} is not a finite number")
            return None
        return number

    def _require_tag(self, node: Node, kind: str) -> None:
        if _kind(node) != kind:
            self._refuse(node, f"the tag {_shown(str(node.tag))} is not allowed")

    def _refuse(self, node: Node, text: str) -> None:
        self.problems.append(Problem(_line(node), text))


def _kind(node: Node) -> str:
    return str(node.tag).removeprefix(_TAG)


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _line_of_error(error: MarkedYAMLError) -> int:
    mark: StringMark | None = error.problem_mark or error.context_mark
    return int(mark.line) + 1 if mark else 1


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
