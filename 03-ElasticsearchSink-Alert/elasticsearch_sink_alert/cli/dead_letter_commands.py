"""Lists, shows and replays dead letters.

A dead letter is marked as replayed before it is sent: one that a kill in between leaves marked but not sent is sent
with ``--again``.
"""

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from contract import dead_letters
from contract.dead_letters import ELASTICSEARCH_SINK
from elasticsearch_sink_alert.kafka.group_consumer import as_bytes
from runtime.kafka_client import MESSAGE_TIMED_OUT, headers_of, producer_config, time_of
from runtime.logs import escape_controls
from runtime.settings import Settings
from runtime.topic_reader import read_to_end

_TIMEOUT = 10.0
"""Seconds."""
_NO_CLIENT_LOG = {"log_level": 0}
"""An error is reported once, as the one that ends the command."""
_COLUMNS = ("ID", "TIME", "TOPIC", "PARTITION", "OFFSET", "KEY", "REASON")
_MAX_WIDTH = 40
"""Characters up to which a column is widened for a long text."""
_POSITION = (dead_letters.PARTITION, dead_letters.OFFSET)


class DeadLetter(NamedTuple):
    """A record of the dead letter topic."""

    id: str
    """Partition and offset in the dead letter topic."""
    at: str
    key: bytes | None
    value: bytes | None
    headers: dict[str, str]
    replayed: bool

    @property
    def reason(self) -> str:
        """Why the original record was dead-lettered."""
        return self.headers.get(dead_letters.REASON, "")

    @property
    def service(self) -> str:
        """The service that wrote the dead letter."""
        return self.headers.get(dead_letters.SERVICE, "?")

    @property
    def origin(self) -> str:
        """The topic, partition and offset of the original record."""
        return " ".join(self._position())

    def columns(self) -> tuple[str, ...]:
        """Return the texts of `_COLUMNS`."""
        reason = self.reason + "  (replayed)" * self.replayed
        return tuple(map(escape_controls, (self.id, self.at, *self._position(), _as_text(self.key), reason)))

    def _position(self) -> tuple[str, ...]:
        return tuple(self.headers.get(name, "?") for name in (dead_letters.TOPIC, *_POSITION))


class _Latest(NamedTuple):
    """The position of a key's latest record, and the last offset of its partition."""

    partition: int
    offset: int
    end: int


def show_list(settings: Settings, reason: str) -> int:
    """Print the dead letters whose reason contains this text, and their number per service."""
    found = _read(settings, reason)
    for line in _table([dead_letter.columns() for dead_letter in found]):
        print(line)
    for service, number in Counter(dead_letter.service for dead_letter in found).items():
        print(f"{_count(number)} of {escape_controls(service)}")
    if not found:
        print("no dead letters" + (f" with {reason!r} in their reason" if reason else ""))
    return 0


def show_one(settings: Settings, dead_letter_id: str) -> int:
    """Print the time, headers, key and value of a dead letter; returns 1 if there is none with that id."""
    for dead_letter in _read(settings, ""):
        if dead_letter.id == dead_letter_id:
            print(f"time: {dead_letter.at}")
            for name, value in dead_letter.headers.items():
                print(escape_controls(f"{name}: {value}"))
            print(f"key: {escape_controls(_as_text(dead_letter.key))}\n")
            print(escape_controls(_as_text(dead_letter.value)))
            return 0
    print(f"no dead letter has the id {dead_letter_id!r}: `dead-letters list` prints the ids", file=sys.stderr)
    return 1


def replay(settings: Settings, reason: str, *, again: bool) -> int:
    """Send the sink's dead letters to their topic again; those that were replayed before only with `again`.

    A dead letter is skipped if the topic has a later row of its key, which it would replace in the index, or if it
    holds only the start of its original. Returns 1 if the topic refuses one.
    """
    found = [dead_letter for dead_letter in _read(settings, reason) if again or not dead_letter.replayed]
    ours = [dead_letter for dead_letter in found if dead_letter.service == ELASTICSEARCH_SINK and dead_letter.key]
    sent, refused = _replay_rows(settings, ours) if ours else (0, 0)
    if ours or not found:
        print(f"{sent} replayed, {len(ours) - sent - refused} skipped")
    for line in _not_replayed(found):
        print(line)
    return 1 if refused else 0


def _replay_rows(settings: Settings, ours: Sequence[DeadLetter]) -> tuple[int, int]:
    """Send rows to their topic again; return the number of those that it accepted, and of those that it refused."""
    latest = _latest_records(settings, {dead_letter.key for dead_letter in ours if dead_letter.key is not None})
    producer = _producer(settings)
    sent = refused = 0
    for dead_letter in ours:
        if why := _why_skipped(dead_letter, latest):
            print(f"{dead_letter.id} is skipped, {why}: {escape_controls(dead_letter.origin)}")
            continue
        _send(producer, settings.dead_letter_topic, None, None, {dead_letters.REPLAYED: dead_letter.id})
        try:
            _send(
                producer,
                settings.aggregated_topic,
                dead_letter.key,
                dead_letter.value,
                {dead_letters.REPLAY_OF: dead_letter.id},
            )
            sent += 1
        except KafkaException as error:
            reason = escape_controls(error.args[0].str())
            print(f"{dead_letter.id} is refused by {settings.aggregated_topic}: {reason}", file=sys.stderr)
            refused += 1
    return sent, refused


def _not_replayed(found: Iterable[DeadLetter]) -> Iterator[str]:
    """Yield a line for each kind of dead letter that is never replayed, with the reason."""
    why = "not replayed, the same bytes would be rejected again"
    for service, number in Counter(each.service for each in found if each.service != ELASTICSEARCH_SINK).items():
        yield f"{_count(number)} of {escape_controls(service)}: {why}"
    if number := sum(each.service == ELASTICSEARCH_SINK and not each.key for each in found):
        yield f"{_count(number)} without a key: {why}"


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield the rows below a header, in columns; nothing if there are no rows."""
    if not rows:
        return
    lines = [_COLUMNS, *rows]
    widths = [min(max(map(len, column)), _MAX_WIDTH) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()


def _count(number: int) -> str:
    return "1 dead letter" if number == 1 else f"{number} dead letters"


def _as_text(data: bytes | None) -> str:
    """Return a key or value for the terminal."""
    if data is None:
        return "none"
    return data.decode(errors="backslashreplace") if data else "empty"


def _why_skipped(dead_letter: DeadLetter, latest: Mapping[bytes, _Latest]) -> str:
    """Return why a dead letter cannot be replayed; empty if it can."""
    if dead_letters.CUT in dead_letter.headers:
        return escape_controls(dead_letter.headers[dead_letters.CUT])
    if not all(dead_letter.headers.get(name, "").isdecimal() for name in _POSITION):
        return "its headers do not say where it was"
    if _is_outdated(dead_letter, latest):
        return "the topic has a later row of its key"
    return ""


def _is_outdated(dead_letter: DeadLetter, latest: Mapping[bytes, _Latest]) -> bool:
    if dead_letter.key is None or dead_letter.key not in latest:
        return False
    partition, offset, end = latest[dead_letter.key]
    original = tuple(int(dead_letter.headers[name]) for name in _POSITION)
    # If the topic ends before the original's offset, it was recreated since.
    return (partition, offset) > original or partition != original[0] or end < original[1]


def _read(settings: Settings, reason: str) -> list[DeadLetter]:
    """Return the dead letters whose reason contains this text, in any case."""
    records = list(_records(settings, settings.dead_letter_topic))
    replayed = {name for message in records if (name := _headers(message).get(dead_letters.REPLAYED))}
    found = []
    for message in records:
        headers = _headers(message)
        if dead_letters.REASON in headers and reason.lower() in headers[dead_letters.REASON].lower():
            id_ = f"{message.partition()}-{message.offset()}"
            at = time_of(message).isoformat(timespec="seconds")
            found.append(
                DeadLetter(id_, at, as_bytes(message.key()), as_bytes(message.value()), headers, id_ in replayed)
            )
    return found


def _latest_records(settings: Settings, keys: Collection[bytes]) -> dict[bytes, _Latest]:
    """Return the latest record of each key, without replays.

    A key may be in two partitions, as partitions may have been added to the topic: the later append counts.
    """
    latest: dict[bytes, tuple[int, int, int]] = {}
    ends: dict[int, int] = {}
    for message in _records(settings, settings.aggregated_topic) if keys else ():
        key, partition, offset = as_bytes(message.key()), int(message.partition() or 0), int(message.offset() or 0)
        ends[partition] = offset
        if key is not None and key in keys and dead_letters.REPLAY_OF not in _headers(message):
            latest[key] = max(latest.get(key, (-1, 0, 0)), (message.timestamp()[1], partition, offset))
    return {key: _Latest(partition, offset, ends[partition]) for key, (_, partition, offset) in latest.items()}


def _records(settings: Settings, topic: str) -> Iterator[Message]:
    """Yield all records that a topic has now; raises KafkaException."""
    client = {**settings.kafka_client, **_NO_CLIENT_LOG}
    return read_to_end(client, topic, group_id="dead-letters", timeout=_TIMEOUT)


def _producer(settings: Settings) -> Producer:
    # A record that the topic accepted compressed is accepted again.
    config = producer_config(settings.kafka_client, dead_letters.MAX_BYTES) | {"compression.type": "zstd"}
    return Producer(config | _NO_CLIENT_LOG)


def _send(producer: Producer, topic: str, key: bytes | None, value: bytes | None, headers: Mapping[str, str]) -> None:
    """Send a record and wait for the acknowledgement; raises KafkaException."""
    refused: list[KafkaError] = []
    producer.produce(
        topic,
        key=key,
        value=value,
        headers=[(name, text.encode()) for name, text in headers.items()],
        on_delivery=lambda error, _: refused.append(error) if error else None,
    )
    if producer.flush(_TIMEOUT) or refused:
        raise KafkaException(refused[0] if refused else KafkaError(MESSAGE_TIMED_OUT))


def _headers(message: Message) -> dict[str, str]:
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else "" for name, value in headers_of(message)
    }
