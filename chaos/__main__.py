"""Runs the pipeline under load and faults: ``python -m chaos --seed 7 --minutes 30`` (``--help``)."""

from runtime.signals import end_on_interrupt

if __name__ == "__main__":
    end_on_interrupt()

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console

from build_tools.jars import JarError
from chaos import schedule
from chaos.disk import can_mount
from chaos.faults import FAULTS
from chaos.result import Result
from chaos.run import Plan, run
from chaos.schedule import Event, ScheduleError
from chaos.shrink import smallest
from contract import declared
from local_stack import data_folder, services
from local_stack.data_folder import DataFolderError
from local_stack.environment import inherited
from local_stack.servers import ServerError
from runtime import proxies
from runtime.broken_pipe import exit_status
from runtime.logs import escape_controls
from runtime.signals import interrupt_on_signal

_RATE: Final = 500.0
_MINUTES: Final = 5.0
_USUAL: Final = {"minutes": _MINUTES, "rate": _RATE}
_AFTER_LAST: Final = 30.0
"""Seconds of load after the last fault, in the runs of --shrink."""


def main() -> int:
    """Return 0 if nothing was lost, doubled or broken, 1 otherwise, and 130 if it was stopped."""
    args = _parse_args()
    interrupt_on_signal()
    try:
        return _run(args)
    except (ScheduleError, DataFolderError, ServerError, JarError) as error:
        print(f"cannot run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="chaos",
        description="Runs the whole pipeline under load and a seeded schedule of faults, and compares everything at the"
        " end. Exit status: 0 nothing is lost, doubled or broken, 1 something is.",
    )
    parser.add_argument("--seed", type=int, help="of load and faults (default: another one each time)")
    parser.add_argument("--minutes", type=_positive, help=f"of load and faults (default: {_MINUTES:g})")
    parser.add_argument("--rate", type=_positive, help=f"records a second (default: {_RATE:g})")
    parser.add_argument(
        "--schedule", type=Path, metavar="FILE", help="run the schedule of a file that --json has written, or yours"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the schedule, and run nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write schedule and result as JSON")
    parser.add_argument(
        "--shrink", action="store_true", help="after a failure, repeat it with fewer faults: many runs, much time"
    )
    parser.add_argument("--data", type=_folder, metavar="FOLDER", help="where the data of a run is kept meanwhile")
    parser.add_argument("--keep", action="store_true", help="keep the data; that of a failed run is always kept")
    return parser.parse_args()


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0 and below a million")
    return number


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder")
    return Path(text).resolve()


def _run(args: argparse.Namespace) -> int:
    plan = _plan(args)
    print(f"schedule of seed {plan.seed}, {plan.minutes:g} minutes, {plan.rate:g} records a second:")
    _print_events(plan.events)
    plan = _possible(plan)
    if args.dry_run:
        _write(args.json, {**_head(plan), "schedule": schedule.as_json(plan.events)})
        return 0
    _prepare()
    result = _run_once(plan, args)
    if not result.is_exact and args.shrink:
        result = _shrink(plan, result, args)
    _write(args.json, result.as_json())
    return 0 if result.is_exact else 1


def _plan(args: argparse.Namespace) -> Plan:
    written = {} if args.schedule is None else schedule.read(args.schedule)
    seed = args.seed if args.seed is not None else written.get("seed", random.SystemRandom().randrange(1_000_000))
    minutes, rate = (getattr(args, name) or written.get(name, usual) for name, usual in _USUAL.items())
    events = schedule.generate(seed, minutes) if args.schedule is None else written["schedule"]
    return Plan(seed, minutes, rate, events)


def _head(plan: Plan) -> dict[str, float]:
    return {"seed": plan.seed, "minutes": plan.minutes, "rate": plan.rate}


def _print_events(events: Sequence[Event]) -> None:
    for event in events:
        print(f"  {event}")


def _possible(plan: Plan) -> Plan:
    """Leave out what this machine does not permit, and say so."""
    if not plan.needs_mount or can_mount():
        return plan
    left_out = ", ".join(kind for kind, fault in FAULTS.items() if fault.needs_mount)
    print(f"left out: {left_out}: mounting a file system is not permitted here")
    return replace(plan, events=schedule.without_mount(plan.events))


def _prepare() -> None:
    """Check that this is possible, and fill the caches. Raises `ScheduleError`, and `JarError`."""
    if declared.FILE != services.ROOT / "pipeline.py":
        raise ScheduleError(f"the load is made for pipeline.py, and PIPELINE is {declared.FILE}: unset it")
    variables = inherited(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    proxies.exempt_local_hosts()
    services.fill_caches(Console())


def _run_once(plan: Plan, args: argparse.Namespace) -> Result:
    """Run a plan in a folder of its own, which is kept if it has failed."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=args.data))
    is_kept = True
    try:
        data_folder.require_usable(folder)
        result = run(plan, folder, _say)
        is_kept = args.keep or not result.is_exact
        Console().print(result.table())
        for line in result.lines():
            print(escape_controls(line))
    except KeyboardInterrupt:
        is_kept = args.keep
        raise
    finally:
        if is_kept:
            print(f"the data is kept in {folder}", flush=True)
        else:
            shutil.rmtree(folder)
    return result


def _say(what: str, text: str) -> None:
    # In one piece: several threads print.
    print(f"{datetime.now(UTC):%H:%M:%S}  {what:<10}  {escape_controls(text)}\n", end="", flush=True)


def _shrink(plan: Plan, failed: Result, args: argparse.Namespace) -> Result:
    """Repeat a run that has failed with fewer faults; return the smallest one that failed."""
    last = failed

    def fails(events: Sequence[Event]) -> bool:
        nonlocal last
        end = max((event.second + event.fault.planned for event in events), default=0.0)
        minutes = min(plan.minutes, (end + _AFTER_LAST) / 60)
        print(f"with {len(events)} of {len(plan.events)} faults:")
        _print_events(events)
        result = _run_once(replace(plan, minutes=minutes, events=events), args)
        if not result.is_exact:
            last = result
        return not result.is_exact

    found = smallest(plan.events, fails)
    print(f"the smallest schedule that fails has {len(found)} faults:")
    _print_events(found)
    return last


def _write(file: Path | None, content: object) -> None:
    if file is not None:
        file.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(exit_status(main))
