"""Dead letters by command: what there is, one in full, and the sink's own sent again once their reason is mended.

A letter is marked as sent again before it is: a kill in between leaves it marked and not sent, which `again` mends.
"""

import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from contract import dead_letters
from elasticsearch_sink_alert.kafka.dead_letter_writer import SERVICE
from elasticsearch_sink_alert.kafka.group_consumer import as_bytes
from runtime.logs import escape_controls
from runtime.settings import Settings
from runtime.topic_reader import read_to_end

_TIMEOUT = 10.0
"""Seconds."""
_QUIET = {"log_level": 0}
"""What is wrong is told once, as the error that ends the command."""


class Letter(NamedTuple):
    """A record that a service put aside."""

    id: str
    """Partition and offset in the dead letter topic."""
    at: str
    key: bytes | None
    value: bytes | None
    headers: dict[str, str]
    replayed: bool

    @property
    def reason(self) -> str:
        """Why it was put aside."""
        return self.headers.get(dead_letters.REASON, "")

    @property
    def origin(self) -> str:
        """The topic, partition and offset that it was put aside from."""
        return " ".join(self.headers.get(name, "?") for name in (dead_letters.TOPIC, *_PLACE))

    def line(self) -> str:
        """All that matters, in a line."""
        key = (self.key or b"").decode(errors="replace")
        return f"{self.id:>8}  {self.at}  {self.origin}  {key}  {self.reason}" + ("  (sent again)" * self.replayed)


_PLACE = (dead_letters.PARTITION, dead_letters.OFFSET)


def show_list(settings: Settings, reason: str) -> int:
    """Print the letters whose reason has this text in it, and how many there are of each service."""
    found = _letters(settings, reason)
    for letter in found:
        print(escape_controls(letter.line()))
    for service, number in Counter(letter.headers.get(dead_letters.SERVICE, "?") for letter in found).items():
        print(f"{number} letters of {escape_controls(service)}")
    if not found:
        print("no dead letters" + (f" with {reason!r} in their reason" if reason else ""))
    return 0


def show_one(settings: Settings, letter_id: str) -> int:
    """Print a letter's headers and its value as it came; status 1 where there is none of that id."""
    for letter in _letters(settings, ""):
        if letter.id == letter_id:
            for name, value in letter.headers.items():
                print(f"{name}: {escape_controls(value)}")
            print(f"key: {escape_controls((letter.key or b'').decode(errors='backslashreplace'))}\n")
            print(escape_controls((letter.value or b"").decode(errors="backslashreplace")))
            return 0
    print(f"there is no dead letter {letter_id!r}: dead-letters list shows those that there are", file=sys.stderr)
    return 1


def replay(settings: Settings, reason: str, *, again: bool) -> int:
    """Send the sink's letters to their topic again; those that were sent already only if `again` says so.

    A letter is left out if the topic has a later row of its key, which it would otherwise replace in the index, or if
    it holds only the start of its original. Status 1 where the topic refuses one.
    """
    found = [letter for letter in _letters(settings, reason) if again or not letter.replayed]
    ours = [letter for letter in found if letter.headers.get(dead_letters.SERVICE) == SERVICE and letter.key]
    latest = _latest(settings, {letter.key for letter in ours if letter.key is not None})
    producer = _producer(settings)
    sent = refused = 0
    for letter in ours:
        if dead_letters.CUT in letter.headers:
            print(f"{letter.id} is left out, {letter.headers[dead_letters.CUT]}: {letter.origin}")
            continue
        if _is_outdated(letter, latest):
            print(f"{letter.id} is left out, a later row of its key is in the topic: {escape_controls(letter.origin)}")
            continue
        mark = {dead_letters.REPLAYED: letter.id}
        _send(producer, settings.dead_letter_topic, None, None, mark)
        try:
            _send(producer, settings.aggregated_topic, letter.key, letter.value, {dead_letters.REPLAY_OF: letter.id})
            sent += 1
        except KafkaException as error:
            print(f"{letter.id} is refused by {settings.aggregated_topic}: {error.args[0].str()}", file=sys.stderr)
            refused += 1
    print(f"{sent} sent again, {len(ours) - sent - refused} left out")
    if others := len(found) - len(ours):
        print(f"{others} more are no rows of a key: the same bytes would only be refused again")
    return 1 if refused else 0


def _letters(settings: Settings, reason: str) -> list[Letter]:
    records = list(_records(settings, settings.dead_letter_topic))
    replayed = {name for message in records if (name := _headers(message).get(dead_letters.REPLAYED))}
    letters = []
    for message in records:
        headers = _headers(message)
        if dead_letters.REASON in headers and reason.lower() in headers[dead_letters.REASON].lower():
            id_ = f"{message.partition()}-{message.offset()}"
            at = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC).isoformat(timespec="seconds")
            letters.append(
                Letter(id_, at, as_bytes(message.key()), as_bytes(message.value()), headers, id_ in replayed)
            )
    return letters


def _latest(settings: Settings, keys: Collection[bytes]) -> dict[bytes, tuple[int, int, int]]:
    """Where the latest record of each key is, replays left out: partition and offset; and that partition's last.

    A key may be in two partitions, for the topic may have been given more: the later append counts.
    """
    latest: dict[bytes, tuple[int, int, int]] = {}
    ends: dict[int, int] = {}
    for message in _records(settings, settings.aggregated_topic) if keys else ():
        key, partition, offset = as_bytes(message.key()), int(message.partition() or 0), int(message.offset() or 0)
        ends[partition] = offset
        if key is not None and key in keys and dead_letters.REPLAY_OF not in _headers(message):
            latest[key] = max(latest.get(key, (-1, 0, 0)), (message.timestamp()[1], partition, offset))
    return {key: (partition, offset, ends[partition]) for key, (_, partition, offset) in latest.items()}


def _is_outdated(letter: Letter, latest: Mapping[bytes, tuple[int, int, int]]) -> bool:
    if letter.key is None or letter.key not in latest:
        return False
    partition, offset, end = latest[letter.key]
    place = tuple(int(letter.headers[name]) for name in _PLACE)
    # Where the topic ends before the letter's place, it was made anew since.
    return (partition, offset) > place or partition != place[0] or end < place[1]


def _records(settings: Settings, topic: str) -> Iterator[Message]:
    """All records that a topic has now; raises KafkaException."""
    client = {**settings.kafka_client, **_QUIET}
    return read_to_end(client, topic, group_id="dead-letters", timeout=_TIMEOUT)


def _producer(settings: Settings) -> Producer:
    return Producer(
        {
            **settings.kafka_client,
            **_QUIET,
            "acks": "all",
            "enable.idempotence": True,
            # What the topic took compressed it takes again.
            "message.max.bytes": dead_letters.MAX_BYTES,
            "compression.type": "zstd",
            # The partition that every other record of the key is in.
            "partitioner": "murmur2_random",
        }
    )


def _send(producer: Producer, topic: str, key: bytes | None, value: bytes | None, headers: Mapping[str, str]) -> None:
    refused: list[KafkaError] = []
    producer.produce(
        topic,
        key=key,
        value=value,
        headers=[(name, text.encode()) for name, text in headers.items()],
        on_delivery=lambda error, _: refused.append(error) if error else None,
    )
    if producer.flush(_TIMEOUT) or refused:
        raise KafkaException(refused[0] if refused else KafkaError(KafkaError._MSG_TIMED_OUT))


def _headers(message: Message) -> dict[str, str]:
    headers = message.headers() or []
    assert isinstance(headers, list)
    return {name: value.decode(errors="replace") if isinstance(value, bytes) else "" for name, value in headers}
