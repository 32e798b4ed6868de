"""How a user runs a service's command, for messages that name it as the remedy."""

import os
from typing import Final

_UNDER_COMPOSE: Final = "UNDER_COMPOSE"
"""Set by docker-compose.yml alone: a container that somebody else's tools started knows no `docker compose`."""


def under_compose() -> bool:
    """Whether Docker Compose runs this service."""
    return bool(os.environ.get(_UNDER_COMPOSE))


def command(package: str, arguments: str) -> str:
    """The command line that runs a command of the service with this package, to be copied into a terminal.

    >>> command("stream_processing", "accept-gap")
    'python -m stream_processing accept-gap'
    """
    if under_compose():
        return f"docker compose run --rm {_service(package)} {arguments}"
    return f"python -m {package} {arguments}"


def stop(package: str) -> str:
    """What to do to stop the service, as a part of a sentence.

    >>> stop("stream_processing")
    'stop it'
    """
    return f"`docker compose stop {_service(package)}`" if under_compose() else "stop it"


def _service(package: str) -> str:
    return package.replace("_", "-")
