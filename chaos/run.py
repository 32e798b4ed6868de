"""One run: the pipeline under load and a schedule of faults, until it is drained and compared."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from confluent_kafka import Consumer

from chaos.disk import disk
from chaos.load import Load, committed
from chaos.recovery import RecoveryWatch, lake_offsets
from chaos.result import Happened, Result
from chaos.schedule import Event
from chaos.stack import PRODUCER, STREAM_JOB, Stack, copy_class_archive, run_module, running
from local_stack import services
from runtime.topic_reader import offset_ranges

_PATIENCE: Final = 300.0
"""Seconds without any progress, after which the pipeline counts as stuck: more than any service waits for a server."""
_VERIFY_WAIT: Final = 120
"""Seconds in which `verify` has to see progress in the rows that differ."""
_POLL: Final = 0.2
_MAX_FAULTS: Final = 64
"""Faults at one time, those included that wait for their target."""
_MAX_OUTPUT: Final = 500
_CRASH_REPORTS: Final = "hs_err_pid*.log"
Say = Callable[[str, str], None]
"""Prints a line about a process or a fault."""
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """What is to be run."""

    seed: int
    minutes: float
    rate: float
    events: Sequence[Event]

    @property
    def needs_mount(self) -> bool:
        """Whether lake and checkpoints need a disk of their own."""
        return any(event.fault.needs_mount for event in self.events)


class StuckError(Exception):
    """The run cannot go on; the message has the reason."""


def run(plan: Plan, data: Path, say: Say) -> Result:
    """Run a plan with all data in an empty folder, and return what was found."""
    result = Result(plan.seed, plan.minutes, plan.rate, plan.events)
    copy_class_archive(data)
    with ExitStack() as resources:
        resources.callback(_collect_crash_reports, data)
        own_disk = resources.enter_context(disk(data / "disk", mounted=plan.needs_mount))
        stack = resources.enter_context(running(data, own_disk, say))
        try:
            _Run(plan, stack, say, result).run()
        except StuckError as error:
            result.failures.append(str(error))
        stack.stopped.set()
        result.failures += stack.violations
        result.deaths = [death for process in stack.processes.values() for death in process.deaths]
    return result


def _collect_crash_reports(data: Path) -> None:
    """Move the reports of Java processes of this run that have crashed to its logs: Java writes them to its folder."""
    for report in {*Path.cwd().glob(_CRASH_REPORTS), *services.ROOT.glob(_CRASH_REPORTS)}:
        if str(data) in report.read_text(errors="replace"):
            shutil.move(report, data / "logs" / report.name)


class _Run:
    """The steps of a run."""

    def __init__(self, plan: Plan, stack: Stack, say: Say, result: Result) -> None:
        self._plan = plan
        self._stack = stack
        self._say = say
        self._result = result
        self._load = Load(stack.settings, plan.seed, plan.rate, stack.stopped)
        self._recoveries = RecoveryWatch(stack, self._load)
        self._targets = {target: threading.Lock() for event in plan.events for target in event.fault.targets}
        self._began = 0.0

    def run(self) -> None:
        """Start, let everything happen, drain and compare. Raises `StuckError`."""
        self._until_ready()
        self._say("ready", f"{self._plan.rate:g} records a second for {self._plan.minutes:g} minutes begin")
        self._began = time.monotonic()
        self._load.start()
        self._recoveries.start()
        self._let_happen()
        self._load.stop()
        self._drain()
        self._compare()

    def _let_happen(self) -> None:
        """Start each fault at its second, and wait until all have ended and the time is over."""
        pool = ThreadPoolExecutor(_MAX_FAULTS, thread_name_prefix="fault")
        faults: list[Future[None]] = []
        try:
            for event in self._plan.events:
                self._wait_until(event.second)
                faults.append(pool.submit(self._happen, event))
            self._wait_until(self._plan.minutes * 60)
            self._wait_for_progress(
                "faults that have ended", lambda: sum(fault.done() for fault in faults), lambda n: n == len(faults)
            )
        except BaseException:
            self._stack.stopped.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        for fault in faults:
            fault.result()

    def _happen(self, event: Event) -> None:
        with ExitStack() as targets:
            # In one order, so that two faults never wait for each other.
            for target in sorted(event.fault.targets):
                targets.enter_context(self._targets[target])
            if self._stack.stopped.is_set():
                return
            began = self._seconds()
            self._say("begins", str(event.fault))
            event.fault.run(self._stack)
        happened = Happened(event, began, self._seconds())
        self._result.happened.append(happened)
        self._say("ends", str(event.fault))
        self._recoveries.begin(partial(self._on_recovered, happened))

    def _on_recovered(self, happened: Happened, seconds: float) -> None:
        happened.recovered = seconds
        self._say("recovered", f"{happened.event.fault}: {seconds:.1f} s after its end")

    def _drain(self) -> None:
        """Wait until everything is acknowledged, read and indexed."""
        self._say("drains", f"{self._load.ledger.sent:,} records were sent")
        self._until_ready()
        producer = self._stack.processes[PRODUCER]
        producer.hold()
        producer.stop()
        self._wait_for_progress("records without acknowledgement", lambda: self._load.waiting, lambda n: n == 0)
        self._wait_for_progress(
            "faults without recovery", lambda: (self._recoveries.waiting, self._read()), lambda waiting: waiting[0] == 0
        )
        ends = self._ends()
        self._wait_for_progress(f"offsets in the lake, of {ends}", self._read, lambda read: read == ends)

    def _compare(self) -> None:
        stack = self._stack
        self._say("compares", "the topic with the ledger, and everything by verify")
        self._result.balance = self._load.ledger.compare(committed(stack.settings))
        report = stack.data / "verify.json"
        environment = stack.environment(STREAM_JOB) | {"KAFKA_BROKER": stack.kafka, "ES_HOST": stack.es_host}
        arguments = ("--json", str(report), "--wait", str(_VERIFY_WAIT), "--temporary", str(stack.data))
        completed = run_module("verify", *arguments, environment=environment)
        if completed.returncode not in (0, 1):
            raise StuckError(f"verify ended with status {completed.returncode}: {completed.stderr[-_MAX_OUTPUT:]}")
        self._result.verified = json.loads(report.read_text())

    def _ends(self) -> dict[int, int]:
        """Return the offset of the next record of each partition that has any."""
        settings = self._stack.settings
        with closing(Consumer({**settings.kafka_client, "group.id": "chaos"})) as consumer:
            ranges = offset_ranges(consumer, settings.kafka_topic, _PATIENCE)
        return {partition: end for partition, (_, end) in ranges.items() if end}

    def _read(self) -> dict[int, int]:
        """Return the offset of each partition that the lake was made up to."""
        read = lake_offsets(self._stack.warehouse, self._stack.settings.kafka_topic)
        return {partition: end for partition, end in read.items() if end}

    def _until_ready(self) -> None:
        processes = self._stack.processes.values()
        self._wait_for_progress(
            "processes that are ready",
            lambda: sum(process.is_ready for process in processes),
            lambda n: n == len(processes),
        )

    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _wait_until(self, second: float) -> None:
        while (left := second - self._seconds()) > 0:
            self._require_running()
            time.sleep(min(_POLL, left))

    def _wait_for_progress(self, title: str, look: Callable[[], T], is_done: Callable[[T], bool]) -> None:
        """Wait until what is seen is what is expected; raises `StuckError` if it does not change for a while."""
        seen, deadline = look(), time.monotonic() + _PATIENCE
        while not is_done(seen):
            self._require_running()
            time.sleep(_POLL)
            before, seen = seen, look()
            if seen != before:
                deadline = time.monotonic() + _PATIENCE
            elif time.monotonic() > deadline:
                raise StuckError(f"no progress for {_PATIENCE:.0f} s: {title}: {seen}")

    def _require_running(self) -> None:
        """Raise `StuckError` if something has failed that does not recover."""
        failure = self._stack.failure() or self._load.failure or self._recoveries.failure
        if failure is not None:
            raise StuckError(failure)
