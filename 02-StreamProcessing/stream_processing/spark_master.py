"""Checks that a Spark master is reachable: without one Spark retries for a minute and ends in a stack trace."""

import socket
from typing import Final

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from runtime import commands

_TIMEOUT: Final = 20.0
"""Seconds to wait for a master that is starting."""
_SCHEME: Final = "spark://"
_DEFAULT_PORT: Final = 7077


class NoMasterError(Exception):
    """No Spark master is reachable."""


def require_master(url: str, timeout: float = _TIMEOUT) -> None:
    """Raise `NoMasterError` if none of the masters of a spark:// URL is reachable within `timeout` seconds."""
    if not url.startswith(_SCHEME):
        return
    retrying = Retrying(
        retry=retry_if_exception_type(NoMasterError), wait=wait_fixed(1), stop=stop_after_delay(timeout), reraise=True
    )
    retrying(_connect_to_any, url)


def _connect_to_any(url: str) -> None:
    reasons = []
    for address in url.removeprefix(_SCHEME).split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            socket.create_connection((host or port, int(port) if host else _DEFAULT_PORT), timeout=3).close()
        except (OSError, ValueError) as error:
            reasons.append(str(error))
        else:
            return
    remedy = (
        "start it with COMPOSE_PROFILES=cluster in .env and `docker compose up -d`"
        if commands.under_compose()
        else "start it, or correct SPARK_MASTER_URL"
    )
    raise NoMasterError(
        f"no Spark master is reachable at {url} ({'; '.join(dict.fromkeys(reasons))}), and DEPLOY_MODE is cluster:"
        f" {remedy}"
    )
