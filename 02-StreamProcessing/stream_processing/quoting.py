"""Quotes text for Java's option and login configuration formats."""


def double_quoted(text: str) -> str:
    r"""Return the text in double quotes, with quotes and backslashes escaped.

    >>> print(double_quoted('a "b" \\c'))
    "a \"b\" \\c"
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
