"""Validates addresses in settings, and shows settings in messages without passwords."""

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from runtime.logs import escape_controls

_BROKER: Final = re.compile(r"(?:\[(?P<ipv6>[^\]%]+)(?:%[\w.-]+)?\]|[\w.-]+)(?::(?P<port>\d{1,5}))?", re.ASCII)
_PASSWORD: Final = re.compile(r"((?:^|://)[^:]*:)(?!//)(?:(?!://).)+@", re.DOTALL)
"""Up to the last @ of a URL, with or without a scheme: a password that is not encoded may have more of them."""
_MAX_SHOWN: Final = 100
"""Characters of a setting in a message."""


def split_list(text: str) -> list[str]:
    """Return the entries of a list that is separated by commas.

    >>> split_list("a:9092, b:9092,")
    ['a:9092', 'b:9092']
    """
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def require_brokers(text: str) -> str:
    """Return a list of host:port, separated by commas; raises ValueError if one is not. The port may be missing.

    >>> require_brokers("localhost:9092,[::1]:9092,kafka")
    'localhost:9092,[::1]:9092,kafka'
    """
    entries = split_list(text)
    if not entries or not all(map(_is_broker, entries)):
        raise ValueError("not a list of host:port")
    return text


def require_http_urls(text: str) -> str:
    """Return a list of http(s) URLs, separated by commas; raises ValueError if one is not."""
    urls = split_list(text)
    if not urls:
        raise ValueError("no URL")
    for url in urls:
        require_http_url(url)
    return text


def require_http_url(text: str) -> str:
    """Return an http(s) URL with a host; raises ValueError for another text, or a user without a password.

    >>> require_http_url("https://user:password@example.com:9200/path")
    'https://user:password@example.com:9200/path'
    """
    url = urlsplit(text)
    # Reading the port raises ValueError if it is none.
    is_valid = url.scheme in ("http", "https") and url.hostname and (url.port is None or url.port > 0)
    # Not a blank, a control character, or a byte that is not UTF-8.
    if not is_valid or not text.isprintable() or " " in text or (url.username is None) != (url.password is None):
        raise ValueError("not an http(s) URL")
    if url.hostname and ":" not in url.hostname:
        url.hostname.encode("idna")
    return text


def without_passwords(text: str) -> str:
    """Return a URL, or a list of URLs, with *** for each password.

    >>> without_passwords("http://user:secret@localhost:9200")
    'http://user:***@localhost:9200'
    """
    return _PASSWORD.sub(r"\1***@", text)


def shown(text: str) -> str:
    """Return a setting's value for a message: its first 100 characters, without passwords and control characters."""
    return escape_controls(_cut(text))


def quoted(text: str) -> str:
    """Return a setting's value as `shown` does, in quotes.

    >>> quoted("a\\n")
    "'a\\\\n'"
    """
    return repr(_cut(text))


def _cut(text: str) -> str:
    visible = without_passwords(text)
    return visible if len(visible) <= _MAX_SHOWN else f"{visible[:_MAX_SHOWN]}…"


def _is_broker(text: str) -> bool:
    match = _BROKER.fullmatch(text)
    if match is None or (match["port"] is not None and not 1 <= int(match["port"]) <= 65_535):
        return False
    try:
        return match["ipv6"] is None or ipaddress.ip_address(match["ipv6"]).version == 6
    except ValueError:
        return False
