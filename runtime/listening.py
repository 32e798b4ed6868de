"""Checks that a service can listen on its port, and says what to set if it cannot."""

import errno
import socket
from typing import Final

from runtime.addresses import shown

_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""By the address with which a server listens at all addresses of this machine."""
_FREE_ONE: Final = " (0: a free one)"


class ListenError(Exception):
    """The service cannot listen; the message names the setting and has the remedy."""


def url(host: str, port: int) -> str:
    """Return the URL of a server.

    >>> url("127.0.0.1", 8090), url("::1", 8090)
    ('http://127.0.0.1:8090', 'http://[::1]:8090')
    """
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def local_host(host: str) -> str:
    """Return the host at which programs on this machine reach a server that listens at `host`.

    >>> [local_host(host) for host in ("0.0.0.0", "::", "127.0.0.2", "localhost")]
    ['127.0.0.1', '::1', '127.0.0.2', 'localhost']
    """
    return _LOOPBACK.get(host, host)


def require_port(host: str, port: int, *, host_setting: str, port_setting: str) -> None:
    """Raise `ListenError` if this process cannot listen on `port` at an address of `host`.

    For a server that binds its port late, and reports a port in use without the setting's name.
    """
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as probe:
                # As servers do: connections of an earlier start that are closing do not block the port.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except (OSError, OverflowError, TypeError, UnicodeError) as error:
        reason = describe(error, host, port, host_setting=host_setting, port_setting=port_setting, lowest=1)
        raise ListenError(reason) from None


def describe(error: Exception, host: str, port: int, *, host_setting: str, port_setting: str, lowest: int = 0) -> str:
    """Return why a server could not listen, with the setting and the remedy; `lowest` is its lowest valid port."""
    free_one = "" if lowest else _FREE_ONE
    if isinstance(error, OverflowError):
        return f"{port_setting}={port} is not a port: set it to one from {lowest} to 65535{free_one}"
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"{port_setting}={port} is in use at {host}: stop what listens there, or set another port{free_one}"
    if isinstance(error, OSError) and error.errno == errno.EACCES:
        return f"{port_setting}={port} is a privileged port, which this user cannot listen on: set it to one from 1024"
    reason = error.strerror if isinstance(error, OSError) else "not a host name"
    return (
        f"{host_setting}={shown(host)} is not an address of this machine ({reason}): set it to one, such as 127.0.0.1"
    )
