"""The local stack's command line: ``python -m local_stack demo`` or ``stack``."""

import argparse
import os
import signal
import sys
import threading

from rich.console import Console
from rich.text import Text

from build_tools.jars import JarError
from local_stack import demo
from local_stack.environment import inherited
from local_stack.places import PlaceError, resolved
from local_stack.servers import PortTakenError, ServerError
from local_stack.services import ROOT
from runtime import proxies
from runtime.logs import escape_controls


def main() -> int:
    """Run a command; status 1, with one line of reason, if it could not run to its end."""
    parser = argparse.ArgumentParser(prog="local_stack", description="The pipeline on real servers, without Docker.")
    parser.add_argument("command", choices=["demo", "stack"], help="everything, or Kafka and Elasticsearch alone")
    parser.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help="stop by itself after so long")
    parser.add_argument("--no-view", action="store_true", help="no live view")
    parser.add_argument("--data", default=str(ROOT / ".data"), help="where all data and logs are kept")
    parser.add_argument("--kafka-port", type=int, default=9092)
    parser.add_argument("--es-port", type=int, default=9200)
    parser.add_argument(
        "--free-ports", action="store_true", help="free ports for everything, beside another demo with other --data"
    )
    given = parser.parse_args()
    kept = inherited(os.environ)
    os.environ.clear()
    os.environ.update(kept)
    proxies.exempt_local_hosts()
    console = Console()
    stop = threading.Event()

    def interrupt(*_: object) -> None:
        # An exception alone could be lost: raised within a library's callback, it may go no further.
        stop.set()
        raise KeyboardInterrupt

    # A SIGTERM ends it like Ctrl-C, with everything stopped.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)
    try:
        plan = demo.Plan(
            resolved(given.data), given.kafka_port, given.es_port, seconds=given.seconds, view=not given.no_view
        )
        if given.free_ports:
            plan = plan.with_free_ports()
        if given.command == "demo":
            demo.run(plan, console, stop)
        else:
            demo.run_servers(plan, console, stop)
    except (demo.StackError, PlaceError, PortTakenError, ServerError, JarError) as error:
        console.print(Text.assemble(("cannot run:", "red"), f" {escape_controls(str(error))}"), soft_wrap=True)
        return 1
    except OSError as error:
        # Such as a disk that has become full, or a folder that somebody has removed.
        reason = f"{error.filename or given.data}: {error.strerror or error}"
        console.print(Text.assemble(("cannot run:", "red"), f" {escape_controls(reason)}"), soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
