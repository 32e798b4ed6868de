"""By which names a service may be called over HTTP."""

import ipaddress
import socket
from typing import Final

_PRIVATE: Final = (".localhost", ".internal", ".local")
"""What the public DNS gives nobody."""


def is_own_name(host: str) -> bool:
    """Whether a request's Host, with or without a port, is one that no site elsewhere can have.

    A page of evil.example.com, open in somebody's browser here, can have its own name lead to this machine, and would
    then read what it asks. It cannot do that with an address, with a single label such as localhost or a container's
    name, with a name of a domain that the public DNS does not have, or with the name of this very machine.
    Only programs that are no browsers leave the Host out.

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
        return "." not in name or name.endswith(_PRIVATE) or name == socket.gethostname().lower()
    return True
