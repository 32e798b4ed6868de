"""Records of a topic: the latest, or those that a filter finds, read further at most once a second for all browsers."""

import re
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cachetools import LRUCache
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from contract import dead_letters
from live_page.sources.consumers import TIMEOUT, Consumers
from live_page.sources.errors import EmptyError, UnavailableError
from runtime.kafka_client import PARTITION_EOF, readable_headers_of, time_of
from runtime.topic_reader import offset_ranges

SHOWN_RECORDS: Final = 50
SEARCHED_RECORDS: Final = 50_000
"""Number of a topic's records that one search reads."""
MAX_CHARACTERS: Final = 2_000
"""Of a key, value or header in a list."""
MAX_WHOLE: Final = 100_000
"""Characters of the value of a record that is shown alone."""
_MAX_HEADERS: Final = 100
_MAX_UNSORTED: Final = 20 * SHOWN_RECORDS
_LISTED_HEADERS: Final = frozenset((*dead_letters.HEADERS, dead_letters.REPLAYED, dead_letters.REPLAY_OF))
_READ_SECONDS: Final = 3.0
"""A reading ends after this time, and the next one continues."""
_READ_BYTES: Final = 64 << 20
"""Likewise."""
_INTERVAL: Final = 0.9
"""Seconds between two readings of the same query."""
_WATCHED_SECONDS: Final = 10.0
"""Nobody looks any more if nobody has asked for so long."""
_KEPT_QUERIES: Final = 100
_BATCH: Final = 1_000
_POSITION: Final = re.compile(r"(\d{1,9})-(\d{1,19})")


@dataclass(frozen=True)
class Record:
    """A committed record, decoded; bytes that are not UTF-8 are escaped, control characters are not."""

    at: datetime
    partition: int
    offset: int
    key: str
    value: str
    """Or its start, if it is long."""
    size: int
    """Bytes of the value."""
    is_cut: bool
    """Whether that is only the start of it."""
    headers: dict[str, str]
    are_headers_readable: bool = True
    """Whether the client can decode their names."""

    @property
    def id(self) -> str:
        """Partition and offset."""
        return f"{self.partition}-{self.offset}"

    @property
    def is_dead_letter(self) -> bool:
        """Whether it has the headers of a dead letter, rather than those of a replayed one."""
        return dead_letters.REASON in self.headers


@dataclass(frozen=True)
class RecordQuery:
    """Which records of a topic are shown: the latest, or those from an offset or a time on."""

    topic: str
    partition: int | None = None
    offset: int | None = None
    """The first offset, in each partition that is read."""
    since: datetime | None = None
    key: str = ""
    """The whole key."""
    text: str = ""
    """A part of key, value or a header, in any case."""
    until: tuple[tuple[int, int], ...] = ()
    """The offset before which the latest are read, by partition; as default the end."""

    @property
    def is_forward(self) -> bool:
        """Whether records are read from a position on, the oldest first."""
        return self.offset is not None or self.since is not None

    @property
    def is_search(self) -> bool:
        """Whether records are read that are not shown."""
        return bool(self.key or self.text)

    def matches(self, key: str, value: str, headers: Mapping[str, str]) -> bool:
        """Whether a record is one of those that are searched."""
        if self.key and key != self.key:
            return False
        text = self.text.lower()
        return not text or any(text in each.lower() for each in (value, key, *headers, *headers.values()))


@dataclass(frozen=True)
class Found:
    """What a query has found so far."""

    records: list[Record]
    """The latest first, or from a position on the oldest first."""
    looked: int
    """How many records were read."""
    skipped: int
    """Offsets that were not read, as too many had arrived since the reading before."""
    since: datetime | None
    """From this time on all partitions were read; None: from their start, or from the position asked for."""
    until: datetime | None
    """The time of the latest record that was read."""
    next_offsets: tuple[tuple[int, int], ...]
    """Of each partition the offset after the last that was read."""
    is_finished: bool
    """Whether it will not read further."""


def parse_offsets(text: str) -> tuple[tuple[int, int], ...]:
    """Return the offsets of an address by partition; nothing if it is none.

    >>> parse_offsets("0-12.3-400"), parse_offsets("0-12.x"), parse_offsets("")
    (((0, 12), (3, 400)), (), ())
    """
    matches = [_POSITION.fullmatch(part) for part in text.split(".")] if text.isascii() else []
    found = tuple((int(match[1]), int(match[2])) for match in matches if match)
    return found if len(found) == len(matches) else ()


def format_offsets(offsets: Collection[tuple[int, int]]) -> str:
    """Return offsets by partition for an address.

    >>> format_offsets([(0, 12), (3, 400)])
    '0-12.3-400'
    """
    return ".".join(f"{partition}-{offset}" for partition, offset in offsets)


class TopicRecords:
    """Reads records from the broker; every method raises `UnavailableError` or `EmptyError`."""

    def __init__(self, consumers: Consumers) -> None:
        self._consumers = consumers
        self._searches: LRUCache[RecordQuery, _Search] = LRUCache(_KEPT_QUERIES)
        self._lock = threading.Lock()

    def read(self, query: RecordQuery) -> Found:
        """Return what is found, after reading further unless that was less than a second ago."""
        with self._lock:
            search = self._searches.setdefault(query, _Search(query))
        return search.read(self._consumers)

    def latest(self, topic: str) -> list[Record]:
        """Return the latest records, the last one first."""
        return self.read(RecordQuery(topic)).records

    def record(self, topic: str, partition: int, offset: int) -> Record:
        """Return one record with more of its value; raises `EmptyError` if the topic does not have it."""
        with self._consumers.borrow() as consumer:
            ranges = offset_ranges(consumer, topic, TIMEOUT)
            begin, end = ranges.get(partition, (0, 0))
            if begin <= offset < end:
                messages = _read(consumer, topic, {partition: offset}, {partition: offset + 1})
                for message in messages:
                    if message.offset() == offset:
                        return _record(message, is_whole=True)
        raise EmptyError(f"Topic {topic} has no record {partition}-{offset}: it was deleted, or never committed")


@dataclass
class _Search:
    """A query that is read further by whoever asks for it."""

    query: RecordQuery
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _positions: dict[int, int] = field(default_factory=dict)
    _begins: dict[int, datetime] = field(default_factory=dict)
    """The time of the first record that was read of each partition that was not read from its start."""
    _records: list[Record] = field(default_factory=list)
    _found_in: Counter[int] = field(default_factory=Counter)
    """How many records of each partition were found."""
    _looked: int = 0
    _skipped: int = 0
    _until: datetime | None = None
    _is_finished: bool = False
    _found: Found | None = None
    _failure: UnavailableError | EmptyError | None = None
    """Of the latest reading, if it has failed."""
    _read_at: float = 0.0
    _asked_at: float = 0.0

    def read(self, consumers: Consumers) -> Found:
        is_new = time.monotonic() - self._asked_at > _WATCHED_SECONDS
        self._asked_at = time.monotonic()
        # While another browser reads, what is known is enough, also that the reading before has failed.
        if not self._lock.acquire(blocking=self._found is None):
            assert self._found is not None
            if (failure := self._failure) is not None:
                # Another object, as this one gets the traceback of each thread that raises it.
                raise copy(failure)
            return self._found
        try:
            is_due = self._found is None or time.monotonic() - self._read_at > _INTERVAL
            if self._found is None or (is_due and not self._is_finished):
                try:
                    with consumers.borrow() as consumer:
                        self._read_further(consumer)
                    if is_new and not self.query.is_search:
                        # Nobody has looked at what was skipped.
                        self._skipped = 0
                except (UnavailableError, EmptyError) as failure:
                    self._failure = failure
                    raise
                self._read_at = time.monotonic()
                self._found, self._failure = self._result(), None
            return self._found
        finally:
            self._lock.release()

    def _result(self) -> Found:
        since = max(self._begins.values(), default=None)
        offsets = tuple(sorted(self._positions.items()))
        shown = list(self._records)
        return Found(shown, self._looked, self._skipped, since, self._until, offsets, self._is_finished)

    def _read_further(self, consumer: Consumer) -> None:
        ranges = self._ranges(consumer)
        if any(end < self._positions.get(n, 0) for n, (_, end) in ranges.items()) and not self.query.is_forward:
            self._forget()
        # The topic was recreated, or this is the first reading.
        if not self._positions:
            self._start(consumer, ranges)
        else:
            self._continue(consumer, ranges)
        self._is_finished = self._is_done(ranges)

    def _ranges(self, consumer: Consumer) -> dict[int, tuple[int, int]]:
        ranges = offset_ranges(consumer, self.query.topic, TIMEOUT)
        if not ranges:
            raise EmptyError("The topic does not exist yet")
        partition = self.query.partition
        if partition is not None and partition not in ranges:
            raise EmptyError(f"{self.query.topic} has no partition {partition}: it has 0 to {max(ranges)}")
        until = dict(self.query.until)
        return {
            n: (min(begin, until.get(n, end)), min(end, until.get(n, end)))
            for n, (begin, end) in ranges.items()
            if partition in (None, n)
        }

    def _forget(self) -> None:
        self._positions.clear()
        self._begins.clear()
        self._records.clear()
        self._found_in.clear()
        self._looked = self._skipped = 0
        self._until = None

    def _start(self, consumer: Consumer, ranges: Mapping[int, tuple[int, int]]) -> None:
        if self.query.is_forward:
            self._positions = self._first_offsets(consumer, ranges)
            self._continue(consumer, ranges)
            return
        # Grows until it holds enough records: transactions and compaction leave gaps in the offsets.
        window = SEARCHED_RECORDS // len(ranges) if self.query.is_search else SHOWN_RECORDS
        while True:
            self._forget()
            self._positions = {n: max(begin, end - window) for n, (begin, end) in ranges.items()}
            first = dict(self._positions)
            times = self._take(consumer, ranges)
            self._begins = {n: at for n, at in times.items() if first[n] > ranges[n][0]}
            is_all = all(position == ranges[n][0] for n, position in first.items())
            if is_all or self.query.is_search or len(self._records) >= SHOWN_RECORDS or window >= SEARCHED_RECORDS:
                return
            window *= 10

    def _first_offsets(self, consumer: Consumer, ranges: Mapping[int, tuple[int, int]]) -> dict[int, int]:
        offset, since = self.query.offset, self.query.since
        positions = {n: max(begin, offset or 0) for n, (begin, _) in ranges.items()}
        if since is None:
            return positions
        milliseconds = int(since.timestamp() * 1_000)
        asked = [TopicPartition(self.query.topic, n, max(0, milliseconds)) for n in ranges]
        for each in consumer.offsets_for_times(asked, timeout=TIMEOUT):
            if each.error is not None:
                raise KafkaException(each.error)
            # Without a later record, those that will come are.
            first = each.offset if each.offset >= 0 else ranges[each.partition][1]
            positions[each.partition] = max(positions[each.partition], first)
        return positions

    def _continue(self, consumer: Consumer, ranges: Mapping[int, tuple[int, int]]) -> None:
        if not self.query.is_forward:
            window = SEARCHED_RECORDS // len(ranges) if self.query.is_search else SHOWN_RECORDS
            for n, (begin, end) in ranges.items():
                position = self._positions.setdefault(n, begin)
                self._positions[n] = max(position, begin, end - window)
                self._skipped += max(0, self._positions[n] - position)
        for n, (begin, _) in ranges.items():
            self._positions[n] = max(self._positions.get(n, begin), begin)
        self._take(consumer, ranges)

    def _take(self, consumer: Consumer, ranges: Mapping[int, tuple[int, int]]) -> dict[int, datetime]:
        """Read from the positions on, and keep what matches; return the time of each partition's first record."""
        begins = {n: position for n, position in self._positions.items() if n in ranges and position < ranges[n][1]}
        ends = {n: ranges[n][1] for n in begins}
        if self.query.is_forward:
            begins = {n: position for n, position in begins.items() if not self._is_full(n)}
        times: dict[int, datetime] = {}
        if not begins:
            return times
        for message in _read(consumer, self.query.topic, begins, ends, self._positions):
            self._looked += 1
            at, partition = time_of(message), int(message.partition() or 0)
            times.setdefault(partition, at)
            self._until = max(self._until or at, at)
            self._add(message, partition)
            if self.query.is_forward and (self._looked >= SEARCHED_RECORDS or all(map(self._is_full, begins))):
                break
        self._sort()
        return times

    def _add(self, message: Message, partition: int) -> None:
        if self.query.is_forward and self._is_full(partition):
            return
        if self.query.is_search:
            headers = {name: _decode(value) for name, value in readable_headers_of(message) or ()}
            if not self.query.matches(_decode(message.key()), _decode(message.value()), headers):
                return
        self._found_in[partition] += 1
        self._records.append(_record(message))
        # In a topic of matches.
        if len(self._records) > _MAX_UNSORTED and not self.query.is_forward:
            self._sort()

    def _sort(self) -> None:
        self._records.sort(key=_order, reverse=not self.query.is_forward)
        if not self.query.is_forward:
            del self._records[SHOWN_RECORDS:]

    def _is_full(self, partition: int) -> bool:
        return self._found_in[partition] >= SHOWN_RECORDS

    def _is_done(self, ranges: Mapping[int, tuple[int, int]]) -> bool:
        if self.query.is_forward:
            is_done = self._looked >= SEARCHED_RECORDS or all(map(self._is_full, ranges))
            if is_done:
                del self._records[SHOWN_RECORDS:]
            return is_done
        return bool(self.query.until) and all(self._positions.get(n, 0) >= end for n, (_, end) in ranges.items())


def _read(
    consumer: Consumer,
    topic: str,
    begins: Mapping[int, int],
    ends: Mapping[int, int],
    positions: dict[int, int] | None = None,
) -> Iterator[Message]:
    """Yield committed records between offsets, until all are read, or too many bytes or seconds have passed.

    Sets the next offset of each partition in `positions`.
    """
    deadline, size = time.monotonic() + _READ_SECONDS, 0
    missing = {n: ends[n] for n in begins}
    consumer.assign([TopicPartition(topic, n, begin) for n, begin in begins.items()])
    while missing and size < _READ_BYTES and time.monotonic() < deadline:
        for message in consumer.consume(min(_BATCH, SEARCHED_RECORDS), timeout=0.1):
            error, partition, offset = message.error(), int(message.partition() or 0), int(message.offset() or 0)
            if error is not None and error.code() != PARTITION_EOF:
                raise KafkaException(error)
            if partition not in missing:
                continue
            is_record = error is None and offset < ends[partition]
            if positions is not None:
                positions[partition] = max(positions[partition], min(ends[partition], offset + (error is None)))
            # A topic that is written all the time may never report the end of a partition.
            if error is not None or offset >= ends[partition] - 1:
                del missing[partition]
                with suppress(KafkaException):
                    consumer.incremental_unassign([TopicPartition(topic, partition)])
            if is_record:
                size += len(message.value() or b"")
                yield message


def _order(record: Record) -> tuple[datetime, int, int]:
    return record.at, record.offset, record.partition


def _record(message: Message, *, is_whole: bool = False) -> Record:
    """Decode a record: in a list only the start of its value, and the headers of dead letters."""
    value = message.value()
    headers = readable_headers_of(message)
    limit = MAX_WHOLE if is_whole else MAX_CHARACTERS
    # Not parsed: formatting JSON again could change a number.
    text = "(deleted)" if value is None else _decode(value, limit + 1)
    named = [(name, data) for name, data in headers or () if is_whole or name in _LISTED_HEADERS][:_MAX_HEADERS]
    return Record(
        at=time_of(message),
        partition=int(message.partition() or 0),
        offset=int(message.offset() or 0),
        key=_decode(message.key(), MAX_CHARACTERS),
        value=text[:limit],
        size=len(value or b""),
        is_cut=len(text) > limit,
        headers={name[:MAX_CHARACTERS]: _decode(data, MAX_CHARACTERS) for name, data in named},
        are_headers_readable=headers is not None,
    )


def _decode(data: object, max_characters: int | None = None) -> str:
    if not isinstance(data, bytes):
        return "" if data is None else str(data)
    # A character has up to 4 bytes.
    part = data if max_characters is None else data[: 4 * max_characters]
    return part.decode(errors="backslashreplace")[:max_characters]


def as_time(text: str, now: datetime | None = None) -> datetime | None:
    """Return the time that a reader has typed, in UTC unless it has an offset; None if it is none.

    >>> at = as_time("2026-01-31 14:05"), as_time("2026-01-31T14:05:00+01:00"), as_time("tomorrow")
    >>> [each and each.isoformat() for each in at]
    ['2026-01-31T14:05:00+00:00', '2026-01-31T13:05:00+00:00', None]
    >>> as_time("14:05", datetime(2026, 1, 31, 20, tzinfo=UTC)).isoformat()
    '2026-01-31T14:05:00+00:00'
    """
    # A zero byte would end the text for Python.
    if not text.isprintable():
        return None
    today = (now or datetime.now(UTC)).date().isoformat()
    for candidate in (text.strip(), f"{today}T{text.strip()}"):
        with suppress(ValueError, OverflowError):
            at = datetime.fromisoformat(candidate)
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    return None
