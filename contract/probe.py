"""Asks a service's /health: ``python -m contract.probe PORT``, for a container's health check."""

import sys
import urllib.error
import urllib.request


def main() -> int:
    """Status 0 if the service on this machine's port is well; otherwise 1, with what it says."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{int(sys.argv[1])}/health", timeout=3) as answer:
            print(answer.read().decode())
    except urllib.error.HTTPError as error:
        print(error.read().decode())
        return 1
    except OSError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
