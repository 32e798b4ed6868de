"""Shows the status of a running pipeline: ``python -m observer`` (``--help``)."""

from runtime.signals import end_on_interrupt

if __name__ == "__main__":
    end_on_interrupt()

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import asdict

from observer.settings import StatusSettings
from observer.status import ExitStatus, Figures, problems
from observer.status import exit_status as status_of
from observer.status_reader import StatusReader
from observer.status_text import escaped, figures_text, verdict_text
from runtime import commands, logs
from runtime.addresses import shown
from runtime.broken_pipe import exit_status

_CLEAR = "\x1b[H\x1b[J"
"""Moves the cursor to the top, and clears the screen."""


def main() -> int:
    """Return 0 if all is well, 1 if something needs attention, 2 if nothing answers; see `observer.status`."""
    args = _parse_args()
    settings = StatusSettings.load()
    logs.configure("ERROR")
    reader = StatusReader(settings, args.behind)
    if args.watch is not None:
        _watch(reader, settings, args.watch, as_json=args.json)
    figures = reader.read()
    status = status_of(figures)
    if args.json:
        print(json.dumps(_as_json(figures), indent=2))
    elif status == ExitStatus.NO_ANSWER:
        print(_no_answer(settings), file=sys.stderr)
    else:
        print(f"{figures_text(figures)}\n{verdict_text(figures)}")
    return status


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="observer",
        description="Shows the status of a running pipeline. Exit status: 0 all is well, 1 something needs attention,"
        " 2 nothing answers. docs/operations.md has what needs attention.",
    )
    parser.add_argument(
        "--watch", type=_seconds, nargs="?", const=2.0, metavar="SECONDS", help="repeat, each so many seconds (2)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON; with --watch one line each time")
    parser.add_argument(
        "--behind", type=_seconds, default=60.0, metavar="SECONDS", help="a record that waits for longer is late (60)"
    )
    return parser.parse_args()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of seconds, up to 86400")
    return seconds


def _watch(reader: StatusReader, settings: StatusSettings, seconds: float, *, as_json: bool) -> None:
    """Show the status until Ctrl-C."""
    while True:
        figures = reader.read()
        if as_json:
            print(json.dumps(_as_json(figures)), flush=True)
        else:
            is_answered = status_of(figures) != ExitStatus.NO_ANSWER
            text = f"{verdict_text(figures)}\n\n{figures_text(figures)}" if is_answered else _no_answer(settings)
            print(_screen(text) if sys.stdout.isatty() else f"{text}\n", end="", flush=True)
        time.sleep(seconds)


def _screen(text: str) -> str:
    """Return a text that replaces the terminal's content; what does not fit is left out."""
    size = shutil.get_terminal_size()
    lines = (line[: size.columns] for line in text.splitlines()[: size.lines - 1])
    return _CLEAR + "\n".join(lines)


def _as_json(figures: Figures) -> dict[str, object]:
    found = [asdict(problem) for problem in problems(figures)]
    return {"exit_status": int(status_of(figures)), "problems": found, **asdict(figures)}


def _no_answer(settings: StatusSettings) -> str:
    addresses = ", ".join([settings.kafka_broker, shown(settings.es_host), *settings.service_urls.values()])
    if commands.under_compose():
        remedy = "`docker compose up -d --wait` starts the pipeline"
    else:
        remedy = (
            "start `make demo`, or set KAFKA_BROKER, ES_HOST, WAREHOUSE, PRODUCER_URL, STREAM_URL and SINK_URL to those"
            " of a pipeline that runs"
        )
    return escaped([f"cannot ask: nothing answers at {addresses}: {remedy}"])


if __name__ == "__main__":
    status = exit_status(main)
    sys.stderr.flush()
    # Threads still wait for a server that answers late: an orderly end of Python can crash them in native code.
    os._exit(status)
