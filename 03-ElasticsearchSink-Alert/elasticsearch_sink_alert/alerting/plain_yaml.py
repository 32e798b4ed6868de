"""Reads YAML into plain Python values that know their lines: `dict`, `list`, `str`, `int`, `float`, `bool`, None.

The values are of exactly these types or of the two subclasses below, never of the parser's own types, so that any
code for plain Python accepts them. Dates stay text. Everything else that YAML allows is refused with its line.
"""

import math
import re
import warnings
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.composer import ComposerError, MaxDepthExceededError
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from elasticsearch_sink_alert.alerting.text_file import Problem, UnusableFileError

_MAX_VALUES: Final = 50_000
"""An alias counts as all the values that it repeats."""
_MAX_DEPTH: Final = 50
"""Each level slows the parser down for the whole rest of the file."""
_TOO_DEEP: Final = f"is nested more than {_MAX_DEPTH} levels deep"
_TAG: Final = "tag:yaml.org,2002:"
_INTEGERS: Final = range(-(1 << 63), 1 << 63)
_MAX_DIGITS: Final = 200
"""Python refuses to parse more than some thousands."""
_PARSER_BUGS: Final = (
    YAMLError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError, AssertionError, RecursionError,
)  # fmt: skip
"""Raised by the parser itself over input that it does not expect."""
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_CLOSED_BY: Final = {
    "flow sequence": ("the list", "]"),
    "flow mapping": ("the mapping", "}"),
    "quoted scalar": ("the text", "a quote"),
}
"""By the parser's name of a construct: its name in a message, and what ends it."""
_QUOTED_OR_COMMENT: Final = re.compile(r"""\"[^\"]*\"|'[^']*'|#.*""")
_OPERATOR: Final = re.compile(r"(?:^|[\[{,:\s])([<>]=?|[!=]=)\s*(?:[,\]}]|$)")
_MAX_SHOWN: Final = 80
"""Characters of a wrong value, or of the parser's own text, in a message."""


class Entries(dict[str, Any]):
    """A mapping, and the line of each of its keys."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}

    def put(self, key: str, value: Any, line: int) -> None:
        """Add an entry that stands on that line."""
        self[key] = value
        self.lines[key] = line


class Items(list[Any]):
    """A sequence, and the line of each of its items."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int] = []


def parse(text: str) -> Any:
    """Return the one document of a text; raises `UnusableFileError`.

    >>> parse("a: [1, 0x10, 1_000, 1e5, 2026-01-31]")
    {'a': [1, 16, 1000, 100000.0, '2026-01-31']}
    """
    conversion = _Conversion()
    try:
        value = conversion.value(_compose(text))
    except UnusableFileError:
        raise
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"holds the character U+{int(error.character):04X}, which YAML does not allow"
        raise UnusableFileError(Problem(line, problem)) from None
    except MarkedYAMLError as error:
        raise UnusableFileError(_problem(error, text)) from None
    except _PARSER_BUGS as error:
        raise UnusableFileError(Problem(1, f"not YAML: {type(error).__name__}: {_cut(str(error))}")) from None
    if conversion.problems:
        raise UnusableFileError(*conversion.problems)
    return value


def _compose(text: str) -> Node | None:
    with warnings.catch_warnings(action="ignore"):
        node: Node | None = _new_parser().compose(text)
    return node


def _new_parser() -> YAML:
    parser = YAML(typ="safe", pure=True)
    parser.max_depth = _MAX_DEPTH
    return parser


def _problem(error: MarkedYAMLError, text: str) -> Problem:
    """Return what is wrong, and the line on which the user has to look for it."""
    line, problem = _line_of_error(error), _cut(str(error.problem))
    if isinstance(error, MaxDepthExceededError):
        return Problem(line, _TOO_DEEP)
    if isinstance(error, ComposerError):
        is_several = error.context is not None and "single document" in error.context
        return Problem(line, "holds several documents: expected one" if is_several else f"not YAML: {problem}")
    operator = _unquoted_operator(text, line)
    if operator:
        return Problem(line, f'not YAML: {problem} (an operator needs quotes: "{operator}")')
    start = int(error.context_mark.line) + 1 if error.context_mark else line
    for construct, (name, end) in _CLOSED_BY.items():
        # The parser notices a missing end at whatever comes next, often some lines below.
        if start < line and error.context is not None and construct in error.context:
            before = f"line {line}" if line <= text.rstrip().count("\n") + 1 else "the end of the file"
            return Problem(start, f"not YAML: {name} that starts here is not closed by {end} before {before}")
    return Problem(line, f"not YAML: {problem}")


def _unquoted_operator(text: str, line: int) -> str:
    """Return the first operator without quotes on a line; empty if there is none."""
    lines = text.split("\n")
    unquoted = _QUOTED_OR_COMMENT.sub("", lines[line - 1]) if line <= len(lines) else ""
    found = _OPERATOR.search(unquoted)
    return found[1] if found else ""


class _Conversion:
    """Converts the parser's nodes to values. A refused node becomes None and a problem."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._count = 0
        self._open: set[int] = set()
        """The mappings and sequences around the node that is being converted."""
        self._constructor = SafeConstructor(loader=_new_parser())

    def value(self, node: Node | None) -> Any:
        if node is None:
            return None
        self._count += 1
        if self._count > _MAX_VALUES:
            self._stop(node, f"holds more than {_MAX_VALUES} values, counting what its aliases repeat")
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            self._refuse(node, "an alias refers to a value that contains it")
            return None
        if len(self._open) == _MAX_DEPTH:
            self._stop(node, _TOO_DEEP)
        self._open.add(id(node))
        try:
            return self._entries(node) if isinstance(node, MappingNode) else self._items(node)
        finally:
            self._open.discard(id(node))

    def _entries(self, node: MappingNode) -> Entries:
        self._require_tag(node, "map")
        entries, merged = Entries(), Entries()
        for key_node, value_node in node.value:
            if _kind(key_node) == "merge":
                self._merge(value_node, _line(key_node), merged)
            else:
                self._add_entry(key_node, value_node, entries)
        for name, value in merged.items():
            if name not in entries:
                entries.put(name, value, merged.lines[name])
        return entries

    def _add_entry(self, key_node: Node, value_node: Node, entries: Entries) -> None:
        key = self.value(key_node)
        value = self.value(value_node)
        if not isinstance(key, str):
            self._refuse(key_node, f"a key is {_shown(key)}: expected a name")
        elif key in entries:
            self._refuse(key_node, f"{_shown(key)} is already on line {entries.lines[key]}")
        else:
            entries.put(key, value, _line(key_node))

    def _merge(self, node: Node, line: int, merged: Entries) -> None:
        for mapping in self._merged(node):
            for name, value in mapping.items():
                if name not in merged:
                    merged.put(name, value, line)

    def _merged(self, node: Node) -> Iterator[Entries]:
        found = self.value(node)
        for each in found if isinstance(found, Items) else [found]:
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
            return self._text(node, text)
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
        self._refuse_tag(node)
        return None

    def _text(self, node: ScalarNode, text: str) -> str | None:
        if _SURROGATE.search(text):
            self._refuse(node, f"{_shown(text)} holds half a surrogate pair, which is not a character")
            return None
        return text

    def _integer(self, node: ScalarNode) -> int | None:
        is_short = len(node.value) < _MAX_DIGITS
        number = int(self._constructor.construct_yaml_int(node)) if is_short else _INTEGERS.stop
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
            self._refuse_tag(node)

    def _refuse_tag(self, node: Node) -> None:
        hint = ' (an operator needs quotes: "!=")' if str(node.tag).startswith("!=") else ""
        self._refuse(node, f"the tag {_shown(str(node.tag))} is not allowed{hint}")

    def _refuse(self, node: Node, text: str) -> None:
        self.problems.append(Problem(_line(node), text))

    def _stop(self, node: Node, text: str) -> NoReturn:
        raise UnusableFileError(*self.problems, Problem(_line(node), text))


def _kind(node: Node) -> str:
    return str(node.tag).removeprefix(_TAG)


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _line_of_error(error: MarkedYAMLError) -> int:
    mark: StringMark | None = error.problem_mark or error.context_mark
    return int(mark.line) + 1 if mark else 1


def _shown(value: Any) -> str:
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
