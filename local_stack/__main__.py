"""The local stack's command line: ``python -m local_stack demo`` or ``stack``."""

from runtime.signals import end_on_interrupt

if __name__ == "__main__":
    end_on_interrupt()

import argparse
import os
import signal
import sys
import threading

import rich.console
from rich.text import Text

from build_tools.jars import JarError
from local_stack import demo
from local_stack.data_folder import DataFolderError, resolve
from local_stack.environment import inherited
from local_stack.plan import DEFAULT_DATA, NotEverythingError, Plan, StackError, StoppedEarlyError
from local_stack.servers import PortTakenError, ServerError
from local_stack.terminal import Console
from runtime import proxies
from runtime.broken_pipe import exit_status
from runtime.logs import escape_controls
from runtime.signals import set_in_handler, stop_signals


def main() -> int:
    """Run a command; status 1, with the reason, if it fails."""
    args = _parse_args()
    variables = inherited(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    proxies.exempt_local_hosts()
    console = Console()
    try:
        _run(args, console, _stop_on_signal())
    except (StackError, DataFolderError, PortTakenError, ServerError, JarError) as error:
        return _fail(console, str(error))
    except StoppedEarlyError as error:
        return _fail(console, f"{error}; the next start continues", "stopped early:")
    except NotEverythingError as error:
        return _fail(console, str(error), "not equal:")
    except OSError as error:
        # Such as a full disk, or a folder that was removed.
        return _fail(console, f"{error.filename or args.data}: {error.strerror or error}")
    except KeyboardInterrupt:
        return 130
    return 0


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="local_stack", description="The pipeline on real servers, without Docker.")
    parser.add_argument(
        "command", choices=["demo", "stack"], help="the whole pipeline, or Kafka and Elasticsearch alone"
    )
    parser.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help="stop after this time")
    parser.add_argument("--no-view", action="store_true", help="no live view in the terminal")
    parser.add_argument(
        "--data", default=str(DEFAULT_DATA), help="the folder of all data and logs (default: %(default)s)"
    )
    parser.add_argument("--kafka-port", type=int, default=9092, metavar="PORT", help="Kafka's port (default: 9092)")
    parser.add_argument(
        "--es-port", type=int, default=9200, metavar="PORT", help="Elasticsearch's port (default: 9200)"
    )
    parser.add_argument(
        "--free-ports", action="store_true", help="free ports for everything, to run beside a demo with other --data"
    )
    return parser.parse_args()


def _stop_on_signal() -> threading.Event:
    """Have the stop signals set an event and raise KeyboardInterrupt, so that everything is stopped."""
    stop = threading.Event()

    def interrupt(number: int, _: object) -> None:
        # A terminal that closes sends it several times; the later ones must not interrupt the stop.
        if number == signal.SIGHUP and stop.is_set():
            return
        # The exception alone could be lost: raised in a library's callback, it may be swallowed there.
        set_in_handler(stop)
        raise KeyboardInterrupt

    for number in stop_signals():
        signal.signal(number, interrupt)
    return stop


def _run(args: argparse.Namespace, console: rich.console.Console, stop: threading.Event) -> None:
    plan = Plan(resolve(args.data), args.kafka_port, args.es_port, seconds=args.seconds, view=not args.no_view)
    if args.free_ports:
        plan = plan.with_free_ports()
    if args.command == "demo":
        demo.run(plan, console, stop)
    else:
        demo.run_servers(plan, console, stop)


def _fail(console: rich.console.Console, reason: str, what: str = "cannot run:") -> int:
    text = "\n".join(map(escape_controls, reason.splitlines()))
    console.print(Text.assemble((what, "red"), f" {text}"), soft_wrap=True)
    return 1


if __name__ == "__main__":
    sys.exit(exit_status(main))
