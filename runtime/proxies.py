"""Keeps what goes to this machine or to a container next to it off the proxy that the environment names."""

import ipaddress
import os
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_PROXIES: Final = {"http_proxy", "https_proxy", "all_proxy"}
_EXEMPT: Final = ("no_proxy", "NO_PROXY")
"""Libraries read the one or the other."""


def is_near(host: str) -> bool:
    """Whether the name is this machine's or a container's: a name without a dot is not one of the wide world.

    >>> [is_near(host) for host in ("localhost", "127.0.0.2", "::1", "kafka", "example.com", "10.0.0.1")]
    [True, True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return bool(host) and ("." not in host or host.endswith(".localhost"))


def exempt_near(addresses: Iterable[str] = ()) -> None:
    """Add loopback names, and the near hosts of these URLs, to `no_proxy` where the environment names a proxy.

    An address may be several, separated by commas or spaces; what is no URL is passed over.
    """
    if not any(name.lower() in _PROXIES and value for name, value in os.environ.items()):
        return
    urls = [url for address in addresses for url in re.split(r"[,\s]+", address) if "://" in url]
    known = [host.strip() for name in _EXEMPT for host in os.environ.get(name, "").split(",") if host.strip()]
    near = [host for host in map(_host, urls) if is_near(host)]
    for name in _EXEMPT:
        os.environ[name] = ",".join(dict.fromkeys([*known, *_LOOPBACK, *near]))


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
