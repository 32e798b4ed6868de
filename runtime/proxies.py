"""Exempts this machine and the containers next to it from the proxy that the environment names."""

import ipaddress
import os
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_PROXY_VARIABLES: Final = {"http_proxy", "https_proxy", "all_proxy"}
_NO_PROXY_VARIABLES: Final = ("no_proxy", "NO_PROXY")
"""Some libraries read the one, some the other."""


def is_local(host: str) -> bool:
    """Return whether the host is this machine or a container: public names contain a dot.

    >>> [is_local(host) for host in ("localhost", "127.0.0.2", "::1", "kafka", "example.com", "10.0.0.1")]
    [True, True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return bool(host) and ("." not in host or host.endswith(".localhost"))


def exempt_local_hosts(addresses: Iterable[str] = ()) -> None:
    """Add the loopback names and the local hosts of these URLs to `no_proxy`, if the environment names a proxy.

    An address may hold several URLs, separated by commas or spaces; anything else is ignored.
    """
    if not any(name.lower() in _PROXY_VARIABLES and value for name, value in os.environ.items()):
        return
    urls = [url for address in addresses for url in re.split(r"[,\s]+", address) if "://" in url]
    variables = (os.environ.get(name, "") for name in _NO_PROXY_VARIABLES)
    exempt = [host.strip() for variable in variables for host in variable.split(",") if host.strip()]
    local = [host for host in map(_host, urls) if is_local(host)]
    for name in _NO_PROXY_VARIABLES:
        os.environ[name] = ",".join(dict.fromkeys([*exempt, *_LOOPBACK, *local]))


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
