"""Command lines for error messages that name a command as the remedy."""

import os
import shlex
from typing import Final

_UNDER_COMPOSE: Final = "UNDER_COMPOSE"
"""Set by docker-compose.yml only: other tools that start the containers have no `docker compose`."""


def under_compose() -> bool:
    """Return whether Docker Compose runs this service."""
    return bool(os.environ.get(_UNDER_COMPOSE))


def command(package: str, arguments: str) -> str:
    """Return the command line that runs a command of the service with this package.

    >>> command("stream_processing", "accept-gap")
    'python -m stream_processing accept-gap'
    """
    if under_compose():
        return f"docker compose run --rm {_service(package)} {arguments}"
    return f"python -m {package} {arguments}"


def remove(package: str, folder: str) -> str:
    """Return the command line that deletes a folder of the service, on a file system.

    >>> remove("stream_processing", ".data/check points")
    "rm -rf '.data/check points'"
    """
    arguments = f"-rf {shlex.quote(folder)}"
    if under_compose():
        return f"docker compose run --rm --entrypoint rm {_service(package)} {arguments}"
    return f"rm {arguments}"


def stop(package: str) -> str:
    """Return how to stop the service, as part of a sentence.

    >>> stop("stream_processing")
    'stop it'
    """
    return f"`docker compose stop {_service(package)}`" if under_compose() else "stop it"


def _service(package: str) -> str:
    return package.replace("_", "-")
