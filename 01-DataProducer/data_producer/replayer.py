"""Sends the rows of a recording at the recorded pace or at an interval, and continues after a kill where it was."""

import logging
import threading
import time
from typing import Final

from data_producer.columns import InvalidRow
from data_producer.controls import Controls
from data_producer.errors import ReplayError
from data_producer.events import Event, seconds_of
from data_producer.pacing import Pacer, RecordedPacer
from data_producer.position import Position
from data_producer.publisher import KAFKA, Publisher
from data_producer.recording import Recording
from data_producer.settings import ProducerSettings
from data_producer.topic_tail import TopicTail, rows_in_topic
from runtime.health import Health

logger = logging.getLogger(__name__)

_BATCH: Final = 5_000
"""Rows that are read and sent at once."""
_MAX_UNSTORED: Final = 50_000
"""Rows after the stored position that may have been sent: a start after a kill looks for these in the topic."""
_STORE_INTERVAL: Final = 1.0
"""Seconds between two positions, unless that many rows are sent before."""
_MAX_PAUSE: Final = 0.5
"""Seconds until changed controls take effect."""
_RETRY_SECONDS: Final = 0.5
_MAX_LOGGED: Final = 100
"""Skipped rows that are logged, so that a file without a valid row does not fill the disk."""


class Replayer:
    """The producer's loop for a recording: sends what is due, stores the position, pauses."""

    def __init__(
        self,
        settings: ProducerSettings,
        recording: Recording,
        controls: Controls,
        publisher: Publisher,
        health: Health,
        tail: TopicTail,
    ) -> None:
        self._settings = settings
        self._recording = recording
        self._controls = controls
        self._publisher = publisher
        self._health = health
        self._tail = tail
        self._flow = controls.flow
        self._pacer = self._new_pacer()
        self._rows: list[Event | InvalidRow] = []
        self._in_topic: set[int] = set()
        """The rows that a killed replay has sent after its last position."""
        self._last_in_topic = 0
        self._stored_at = 0.0
        self._is_started = False
        self._logged = 0
        self._position = Position(identity=recording.identity(settings.kafka_topic), ends={})
        self.row = 0
        """The number of rows that are sent or skipped."""
        self.sent = 0
        self.skipped = 0

    def run(self, stop: threading.Event) -> None:
        """Send until the recording ends, `stop` is set, or the limit is reached.

        Raises `PublishError`, `ReplayError`, and KafkaException where the topic cannot be read.
        """
        if not self._start(stop):
            return
        limit = self._settings.producer_limit
        while not stop.is_set() and not (limit and self._publisher.accepted >= limit):
            self._apply_controls()
            if not self._rows:
                self._rows = self._recording.read(_BATCH)
            if not self._rows:
                self._finish(stop)
                return
            size = min(self._due(), _BATCH, _MAX_UNSTORED - (self.row - self._position.row))
            self._send(min(size, limit - self._publisher.accepted) if limit else size)
            is_stored = not self._is_store_due() or self._store(stop)
            stop.wait(self._pause() if is_stored else _RETRY_SECONDS)

    def store_last(self) -> None:
        """Store the position after a run, unless Kafka has not acknowledged everything; raises as `run` does."""
        is_known = self._is_started and self.row >= self._last_in_topic and not self._publisher.waiting
        if is_known and not self._position.finished:
            self._store(threading.Event(), stopped=True)

    def _start(self, stop: threading.Event) -> bool:
        """Continue at the stored position, or begin; return whether there is anything to send."""
        ends = self._wait_for_ends(stop)
        if ends is None:
            return False
        self._health.ok(KAFKA)
        stored = Position.load(self._settings.producer_position)
        if reason := _why_over(stored, self._position, ends):
            logger.warning("the replay starts over: %s", reason)
            stored = None
        self._position = stored or self._position
        if self._position.finished:
            self._log_state("is already finished")
            logger.info("to replay it again, delete %s", self._settings.producer_position)
            return False
        self.row, self.sent, self.skipped = self._position.row, self._position.sent, self._position.skipped
        self._recording.seek(self.row)
        if stored is None or stored.stopped:
            # Before the first row: also a kill within the first second is continued.
            self._position = self._position.model_copy(update={"ends": ends, "stopped": False})
            self._position.store(self._settings.producer_position)
        else:
            self._find_rows_in_topic()
        if stored is not None:
            already = f"{len(self._in_topic)} later ones are in the topic already"
            self._log_state(f"continues after row {self.row}, {already}")
        self._stored_at = time.monotonic()
        self._is_started = True
        return True

    def _wait_for_ends(self, stop: threading.Event) -> dict[int, int] | None:
        while not stop.is_set():
            if (ends := self._tail.ends()) is not None:
                return ends
            stop.wait(_RETRY_SECONDS)
        return None

    def _find_rows_in_topic(self) -> None:
        records = self._tail.records_since(self._position.ends)
        if records:
            self._rows = self._recording.read(_MAX_UNSTORED)
            self._in_topic = rows_in_topic(self._rows, self.row + 1, records)
            self._last_in_topic = max(self._in_topic, default=0)

    def _apply_controls(self) -> None:
        if self._controls.flow != self._flow:
            self._flow = self._controls.flow
            logger.info("changed by /control: %s", self._flow)
            self._pacer = self._new_pacer()

    def _due(self) -> int:
        """Return how many of the rows are due now."""
        if self.row < self._last_in_topic:
            # What the killed replay was sending: it was due then.
            return min(len(self._rows), self._last_in_topic - self.row)
        if self._flow.paused:
            return 0
        now = time.monotonic()
        if isinstance(self._pacer, RecordedPacer):
            return self._pacer.due(map(_timestamp, self._rows), now)
        return min(len(self._rows), self._pacer.due(now)) if self._pacer else len(self._rows)

    def _send(self, size: int) -> None:
        rows, self._rows = self._rows[:size], self._rows[size:]
        skipped = self.skipped
        events = []
        for number, row in enumerate(rows, self.row + 1):
            if isinstance(row, InvalidRow):
                self._skip(number, row.reason)
            elif number not in self._in_topic:
                events.append(row)
        self.row += len(rows)
        self.sent += len(rows) - (self.skipped - skipped)
        self._publisher.publish(events)
        if self._publisher.delivered:
            self._health.ok(KAFKA)
        if isinstance(self._pacer, Pacer):
            self._pacer.record_sent(size)

    def _skip(self, number: int, reason: str) -> None:
        self.skipped += 1
        if self._logged < _MAX_LOGGED:
            logger.warning("row %d is skipped: %s", number, reason)
        elif self._logged == _MAX_LOGGED:
            logger.warning("row %d is skipped too: from here on skipped rows are counted, and not logged", number)
        self._logged += 1

    def _is_store_due(self) -> bool:
        # Among the rows that were in the topic at the start, a position would not say which are there.
        if self.row == self._position.row or self.row < self._last_in_topic:
            return False
        return self.row - self._position.row >= _MAX_UNSTORED or time.monotonic() - self._stored_at >= _STORE_INTERVAL

    def _store(self, stop: threading.Event, *, stopped: bool = False, finished: bool = False) -> bool:
        """Store the position once everything sent is acknowledged; return whether that was possible."""
        while self._publisher.waiting:
            if stop.is_set():
                return False
            self._publisher.flush(_RETRY_SECONDS)
        # A client that has failed has nothing waiting either.
        self._publisher.poll(0)
        if self._publisher.refused:
            raise ReplayError(
                f"Kafka has refused {self._publisher.refused} rows, as logged above: remove the reason; the next start"
                " sends them"
            )
        ends = self._tail.ends()
        if ends is None:
            return False
        counts = {"row": self.row, "sent": self.sent, "skipped": self.skipped}
        state = {"ends": ends, "stopped": stopped, "finished": finished}
        self._position = self._position.model_copy(update=counts | state)
        self._position.store(self._settings.producer_position)
        self._stored_at = time.monotonic()
        return True

    def _finish(self, stop: threading.Event) -> None:
        while not self._store(stop, finished=True):
            if stop.wait(_RETRY_SECONDS):
                return
        self._log_state("is finished")

    def _log_state(self, state: str) -> None:
        logger.info(
            "the replay of %s %s: %d rows sent, %d skipped",
            self._position.identity.source, state, self._position.sent, self._position.skipped,
        )  # fmt: skip

    def _pause(self) -> float:
        """Return the seconds until the next rows are due."""
        if self.row < self._last_in_topic or not self._rows:
            return 0.0
        if self._flow.paused:
            return _MAX_PAUSE
        now = time.monotonic()
        if isinstance(self._pacer, RecordedPacer):
            return min(self._pacer.pause(_timestamp(self._rows[0]), now), _MAX_PAUSE)
        return min(self._pacer.pause(now), _MAX_PAUSE) if self._pacer else 0.0

    def _new_pacer(self) -> Pacer | RecordedPacer | None:
        if self._settings.producer_speed is not None:
            return RecordedPacer(self._settings.producer_speed, time.monotonic())
        return Pacer(self._flow.rate, time.monotonic()) if self._flow.rate else None


def _why_over(stored: Position | None, new: Position, ends: dict[int, int]) -> str:
    """Return why the stored position is of no use; empty if it is, or if there is none."""
    if stored is None:
        return ""
    if stored.identity != new.identity:
        old, now = stored.identity, new.identity
        names = {"source": "PRODUCER_SOURCE", "query": "PRODUCER_QUERY", "topic": "KAFKA_TOPIC"}
        changed = [name for field, name in names.items() if getattr(old, field) != getattr(now, field)]
        return f"{' and '.join(changed) or 'the file'} changed since the position was stored"
    if any(ends.get(partition, 0) < end for partition, end in stored.ends.items()):
        return f"topic {new.identity.topic} was recreated since the position was stored"
    return ""


def _timestamp(row: Event | InvalidRow) -> float | None:
    return None if isinstance(row, InvalidRow) else seconds_of(row)
