"""Asks a server on this machine: ``python -m runtime.probe PORT``, for a container's health check.

It never goes by a proxy, whatever the environment says: what it asks is next to it.
"""

import sys
from http.client import HTTPConnection, HTTPException
from typing import Final
from urllib.parse import urlsplit

_TIMEOUT: Final = 3.0


def main() -> int:
    """Status 0 if the server answers 200; otherwise 1, with what it says.

    The argument is a port of 127.0.0.1, whose /health is asked for, or a whole http:// URL.
    """
    at = sys.argv[1]
    url = urlsplit(at if "://" in at else f"http://127.0.0.1:{at}/health")
    try:
        connection = HTTPConnection(url.hostname or "", url.port, timeout=_TIMEOUT)
        connection.request("GET", url.path)
        answer = connection.getresponse()
        print(answer.read().decode(errors="replace"))
    except (OSError, HTTPException) as error:
        print(f"{url.geturl()}: {error or type(error).__name__}")
        return 1
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
