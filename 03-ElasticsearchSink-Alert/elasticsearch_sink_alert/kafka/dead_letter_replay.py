"""Reads dead letters, and sends those of the sink to their topic again: for its command and for the live page.

A dead letter is marked as replayed before it is sent, so that no kill in between has it sent twice: one that is marked
and was not sent is found by the topic, which has no replay of its key, or sent with ``again``.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from contract import dead_letters
from contract.dead_letters import ELASTICSEARCH_SINK
from runtime.kafka_client import MESSAGE_TIMED_OUT, as_bytes, headers_of, producer_config, time_of
from runtime.settings import Settings
from runtime.topic_reader import read_to_end

NEVER_REPLAYED: Final = "not replayed, the same bytes would be rejected again"
_TIMEOUT: Final = 10.0
"""Seconds."""
_NO_CLIENT_LOG: Final = {"log_level": 0}
"""An error is reported once, by who calls this."""
_MAX_DIGITS: Final = 19
"""Of an offset."""
_POSITION: Final = (dead_letters.PARTITION, dead_letters.OFFSET)


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
    def origin(self) -> tuple[str, ...]:
        """The topic, partition and offset of the original record."""
        return tuple(self.headers.get(name, "?") for name in (dead_letters.TOPIC, *_POSITION))

    @property
    def position(self) -> tuple[int, ...] | None:
        """Partition and offset of the original record; None if the headers do not say."""
        texts = [self.headers.get(name, "") for name in _POSITION]
        are_whole = all(text.isdecimal() and len(text) <= _MAX_DIGITS for text in texts)
        return tuple(map(int, texts)) if are_whole else None


class Replay(NamedTuple):
    """What came of a dead letter: it was sent, unless there is a reason."""

    dead_letter: DeadLetter
    skipped: str = ""
    """Why it was not sent."""
    refused: str = ""
    """Why the topic did not accept it."""


class Latest(NamedTuple):
    """The position of a key's latest record, and the last offset of its partition."""

    partition: int
    offset: int
    end: int


@dataclass(frozen=True)
class TopicRows:
    """What the topic has of the keys of dead letters."""

    latest: Mapping[bytes, Latest]
    """The latest record of each key, without replays."""
    replays: Mapping[bytes, Collection[str]] = field(default_factory=dict)
    """The ids of the dead letters whose replays it has, by key."""


def is_replayable(headers: Mapping[str, str], key: object) -> bool:
    """Whether a record of the dead letter topic can be replayed at all: it is the sink's, and has a key."""
    return dead_letters.REASON in headers and headers.get(dead_letters.SERVICE) == ELASTICSEARCH_SINK and bool(key)


def read_all(settings: Settings, reason: str = "") -> list[DeadLetter]:
    """Return the dead letters whose reason contains this text, in any case; raises KafkaException."""
    records = [(message, _headers(message)) for message in _records(settings, settings.dead_letter_topic)]
    replayed = {name for _, headers in records if (name := headers.get(dead_letters.REPLAYED))}
    return [
        _dead_letter(message, headers, replayed)
        for message, headers in records
        if dead_letters.REASON in headers and reason.lower() in headers[dead_letters.REASON].lower()
    ]


def read_one(settings: Settings, dead_letter_id: str) -> DeadLetter | None:
    """Return a dead letter, without keeping the others in memory; raises KafkaException."""
    found: Message | None = None
    replayed: set[str] = set()
    for message in _records(settings, settings.dead_letter_topic):
        if _id(message) == dead_letter_id:
            found = message
        elif _headers(message).get(dead_letters.REPLAYED) == dead_letter_id:
            replayed.add(dead_letter_id)
    if found is None or dead_letters.REASON not in (headers := _headers(found)):
        return None
    return _dead_letter(found, headers, replayed)


def replay(settings: Settings, chosen: Iterable[DeadLetter], *, again: bool = False) -> Iterator[Replay]:
    """Send dead letters that are replayable to their topic again, and yield what came of each.

    One is skipped if the topic has a later row of its key, which it would replace in the index, or if it holds only the
    start of its original. One that is marked as replayed is sent only if that replay was interrupted, or with `again`.
    Raises KafkaException if the dead letter topic does not answer.
    """
    ours = list(chosen)
    rows = rows_of_topic(settings, {each.key for each in ours if each.key is not None})
    others = _positions_of_replayed(settings, rows, ours)
    producer = _producer(settings)
    for dead_letter in ours:
        if why := _why_skipped(dead_letter, rows, others, again=again):
            yield Replay(dead_letter, skipped=why)
            continue
        _send(producer, settings.dead_letter_topic, None, None, {dead_letters.REPLAYED: dead_letter.id})
        origin = {dead_letters.REPLAY_OF: dead_letter.id}
        try:
            _send(producer, settings.aggregated_topic, dead_letter.key, dead_letter.value, origin)
        except KafkaException as error:
            yield Replay(dead_letter, refused=error.args[0].str())
        else:
            yield Replay(dead_letter)


def rows_of_topic(settings: Settings, keys: Collection[bytes]) -> TopicRows:
    """Read what the topic has of these keys; raises KafkaException.

    A key may be in two partitions, as partitions may have been added to the topic: the later append counts.
    """
    latest: dict[bytes, tuple[int, int, int]] = {}
    replays: defaultdict[bytes, set[str]] = defaultdict(set)
    ends: dict[int, int] = {}
    for message in _records(settings, settings.aggregated_topic) if keys else ():
        key, partition, offset = as_bytes(message.key()), int(message.partition() or 0), int(message.offset() or 0)
        ends[partition] = offset
        if key is None or key not in keys:
            continue
        if (of := _headers(message).get(dead_letters.REPLAY_OF)) is not None:
            replays[key].add(of)
            continue
        latest[key] = max(latest.get(key, (-1, 0, 0)), (message.timestamp()[1], partition, offset))
    positions = {key: Latest(partition, offset, ends[partition]) for key, (_, partition, offset) in latest.items()}
    return TopicRows(positions, replays)


def _positions_of_replayed(
    settings: Settings, rows: TopicRows, known: Iterable[DeadLetter]
) -> dict[str, tuple[int, ...]]:
    """Return the original positions of the dead letters whose replays the topic has, by id."""
    positions = {each.id: each.position for each in known}
    if any(of not in positions for ids in rows.replays.values() for of in ids):
        positions |= {each.id: each.position for each in _dead_letters(settings)}
    return {id_: position for id_, position in positions.items() if position is not None}


def _dead_letters(settings: Settings) -> Iterator[DeadLetter]:
    for message in _records(settings, settings.dead_letter_topic):
        headers = _headers(message)
        if dead_letters.REASON in headers:
            # Without its bytes, which nobody asks for.
            yield DeadLetter(_id(message), "", None, None, headers, replayed=False)


def _why_skipped(
    dead_letter: DeadLetter, rows: TopicRows, positions: Mapping[str, tuple[int, ...]], *, again: bool
) -> str:
    """Return why a dead letter cannot be replayed; empty if it can. `positions`: originals of replays, by id."""
    if dead_letters.CUT in dead_letter.headers:
        return dead_letter.headers[dead_letters.CUT]
    original = dead_letter.position
    if original is None:
        return "its headers do not say where it was"
    replays = rows.replays.get(dead_letter.key or b"", ())
    if _is_outdated(dead_letter.key, original, rows) or any(positions.get(of, original) > original for of in replays):
        return "the topic has a later row of its key"
    # The topic may have only the latest of several replays of a key.
    return "it was replayed already" if dead_letter.replayed and replays and not again else ""


def _is_outdated(key: bytes | None, original: tuple[int, ...], rows: TopicRows) -> bool:
    if key is None or key not in rows.latest:
        return False
    partition, offset, end = rows.latest[key]
    # If the topic ends before the original's offset, it was recreated since.
    return (partition, offset) > original or partition != original[0] or end < original[1]


def _dead_letter(message: Message, headers: dict[str, str], replayed: Collection[str]) -> DeadLetter:
    id_, at = _id(message), time_of(message).isoformat(timespec="seconds")
    return DeadLetter(id_, at, as_bytes(message.key()), as_bytes(message.value()), headers, id_ in replayed)


def _id(message: Message) -> str:
    return f"{message.partition()}-{message.offset()}"


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
