"""Readable ids for parametrised values, where pytest would number them (`text12`) or use the whole of a long text."""

_MAX_LENGTH = 60
_START, _END = 30, 27
_NAMES = ("name", "title", "package")
"""Attributes that name an object, such as a service or a member of an Enum."""


def case_id(value: object, argument: str) -> str | None:
    """Return the id of a value of a parametrised argument; None leaves it to pytest.

    An id is the same in every process, as pytest-xdist requires.

    >>> case_id(True, "dark"), case_id("", "content"), case_id("x" * 512, "id"), case_id("short", "text")
    ('dark=True', 'no content', 'x * 512', None)
    >>> case_id({"dynamic": True}, "mapping")
    "{'dynamic': True}"
    >>> case_id("agg_interactions_item:\\n  id: item_id\\n  alerts:\\n    - [max_interactions, '=>', 12]\\n", "text")
    "agg_interactions_item: id: ite...max_interactions, '=>', 12]"
    """
    if isinstance(value, bool):
        return f"{argument}={value}"
    if isinstance(value, str | bytes) and not value:
        return f"no {argument}"
    if isinstance(value, str):
        return None if len(value) <= _MAX_LENGTH else _shortened(value)
    if isinstance(value, set | frozenset):
        return _shortened(repr(sorted(value, key=repr)))
    if isinstance(value, bytes | dict | list | tuple | BaseException):
        text = repr(value)
        # A memory address differs between processes.
        return None if " at 0x" in text else _shortened(text)
    names = (getattr(value, attribute, None) for attribute in _NAMES)
    return next((name for name in names if isinstance(name, str)), None)


def _shortened(text: str) -> str:
    if len(text) > _MAX_LENGTH and len(set(text)) == 1:
        text = f"{text[0]} * {len(text)}"
    elif len(text) > _MAX_LENGTH:
        text = " ".join(text.split())
    shortened = text if len(text) <= _MAX_LENGTH else f"{text[:_START]}...{text[-_END:]}"
    printable = "".join(each if each.isprintable() else repr(each)[1:-1] for each in shortened)
    return printable.encode("ascii", "backslashreplace").decode()
