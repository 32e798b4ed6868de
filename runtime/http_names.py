"""Decides under which host names a service answers HTTP requests."""

import ipaddress
import socket
from typing import Final

_PRIVATE_SUFFIXES: Final = (".localhost", ".internal", ".local")
"""Domains that the public DNS does not delegate."""


def is_own_name(host: str) -> bool:
    """Return whether a request's Host, with or without a port, cannot belong to a foreign site.

    This prevents DNS rebinding: a page of evil.example.com, open in a browser on this machine, can resolve its own
    name to this machine and read the answers. It cannot do so with an IP address, a single label such as localhost or
    a container's name, a domain that the public DNS does not delegate, or this machine's own name. Only clients other
    than browsers send no Host.

    >>> [is_own_name(host) for host in ("localhost:9101", "[::1]:9101", "10.0.0.7", "stream-processing:9102", "")]
    [True, True, True, True, True]
    >>> [is_own_name(host) for host in ("sink.svc.cluster.local:9103", "evil.example.com", "127.0.0.1.a.b")]
    [True, False, False]
    """
    name = host.lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    name = name.removesuffix(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(_PRIVATE_SUFFIXES) or name == socket.gethostname().lower()
    return True
