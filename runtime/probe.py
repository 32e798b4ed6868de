"""Checks a server's health: ``python -m runtime.probe PORT``, for a container's health check.

It ignores the environment's proxies, as the server is on this machine or in a container next to it.
"""

import argparse
import sys
from http.client import HTTPConnection, HTTPException
from typing import Final
from urllib.parse import urlsplit

from runtime.broken_pipe import exit_status

_TIMEOUT: Final = 3.0


def main() -> int:
    """Print the server's answer; return 0 if its status is 200, otherwise 1.

    The argument is a port, for http://127.0.0.1:PORT/health, or an http:// URL.
    """
    parser = argparse.ArgumentParser(prog="runtime.probe", description="Checks a server's health.")
    parser.add_argument("target", help="a port, for http://127.0.0.1:PORT/health, or an http:// URL")
    target: str = parser.parse_args().target
    url = urlsplit(target if "://" in target else f"http://127.0.0.1:{target}/health")
    try:
        connection = HTTPConnection(url.hostname or "", url.port, timeout=_TIMEOUT)
        connection.request("GET", url.path)
        response = connection.getresponse()
        answer = response.read().decode(errors="replace")
    except (OSError, HTTPException) as error:
        print(f"{url.geturl()}: {error or type(error).__name__}")
        return 1
    print(answer)
    return 0 if response.status == 200 else 1


if __name__ == "__main__":
    sys.exit(exit_status(main))
