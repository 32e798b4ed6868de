"""Compares the topic of events with the lake and with the dead letters."""

import hashlib
import time
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import Message

from contract import dead_letters
from contract.event import Event
from contract.tables import Key
from runtime.kafka_client import headers_of
from verify.database import TEXT, WHOLE, Database, name
from verify.events import EventParser, Values, columns
from verify.lake import LAKE, Cut, NotReadableError
from verify.report import MAX_KEPT, Check, Difference
from verify.topic import TopicReader

_BUCKETS: Final = 4_096
"""Rows are compared by a sum for each of so many ranges of their hashes, and one by one only where these differ."""
_BATCH: Final = 100_000
_PAUSE: Final = 1.0
"""Seconds between two looks for missing dead letters."""


class DeadLetters:
    """The dead letters, in the table `dead_letters`: the record that each came from, and a digest of its bytes."""

    def __init__(self, database: Database, reader: TopicReader) -> None:
        self.name = reader.topic
        self._database = database
        self._reader = reader
        database.run(
            "CREATE TABLE dead_letters (topic VARCHAR, part BIGINT, number BIGINT, service VARCHAR, digest VARCHAR)"
        )

    def read(self) -> None:
        """Read those that were added since the last time."""
        kinds = {"topic": TEXT, "part": WHOLE, "number": WHOLE, "service": TEXT, "digest": TEXT}
        for messages in self._reader.read_new():
            self._database.insert("dead_letters", kinds, [row for each in messages if (row := _origin(each))])


def _origin(message: Message) -> tuple[str, int, int, str, str | None] | None:
    """Return where a dead letter came from; None for another record of the topic, such as the mark of a replay."""
    headers = {key: _bytes(value) or b"" for key, value in headers_of(message)}
    try:
        topic, service = headers[dead_letters.TOPIC].decode(), headers[dead_letters.SERVICE].decode()
        partition, offset = int(headers[dead_letters.PARTITION]), int(headers[dead_letters.OFFSET])
    except (KeyError, ValueError):
        return None
    is_cut = dead_letters.CUT in headers
    return topic, partition, offset, service, None if is_cut else _digest(message)


def _digest(message: Message) -> str:
    key, value = message.key(), message.value()
    parts = [b"-" if part is None else b"%d:%b" % (len(part), part) for part in (_bytes(key), _bytes(value))]
    return hashlib.blake2b(b"".join(parts), digest_size=16).hexdigest()


def _bytes(part: str | bytes | None) -> bytes | None:
    return part.encode() if isinstance(part, str) else part


class SourceComparison:
    """Compares the records of the topic, up to the cut, with the lake at the cut and with the dead letters."""

    def __init__(self, database: Database, reader: TopicReader, event: Event, keys: Sequence[Key], cut: Cut) -> None:
        self._database = database
        self._reader = reader
        self._event = event
        self._cut = cut
        self._parser = EventParser(event, keys)
        self._columns = columns(event)
        self._names = ", ".join(map(name, self._columns))
        self._bucket = f"hash({self._names}) % {_BUCKETS}"
        ranges = reader.ranges()
        ends = {partition: end for partition, (_, end) in ranges.items()}
        if any(offset > ends.get(partition, 0) for partition, offset in cut.offsets.items()):
            raise NotReadableError(
                f"the lake has records beyond the end of topic {reader.topic}: it was made of another one: set"
                " KAFKA_BROKER and WAREHOUSE to those of one pipeline"
            )
        self._begins = {partition: begin for partition, (begin, _) in ranges.items()}
        database.run("CREATE TABLE malformed (part BIGINT, number BIGINT, digest VARCHAR)")
        database.run("CREATE TABLE sums (bucket BIGINT, number BIGINT, total HUGEINT)")
        database.run(f"CREATE TABLE sent AS SELECT * FROM {LAKE} LIMIT 0")
        database.run(f"CREATE TABLE batch AS SELECT * FROM {LAKE} LIMIT 0")

    def lake(self) -> Check:
        """Compare the valid records with the rows of the lake."""
        began = time.monotonic()
        check = Check(f"lake {self._event.name} = valid records of {self._reader.topic}")
        is_whole = self._cut.is_whole and not any(self._begins.values())
        check.compared = self._read(keep_malformed=True)
        malformed = self._database.number("SELECT count(*) FROM malformed")
        check.notes.append(
            f"{check.compared:,} valid + {malformed:,} malformed = {check.compared + malformed:,} records"
        )
        if not is_whole:
            check.notes.append(
                "the topic no longer has all records that were read: rows of the lake without a record are not compared"
            )
            differing = f"SELECT unnest(range({_BUCKETS})) AS bucket"
        else:
            differing = (
                f"SELECT bucket FROM (SELECT bucket, number, total FROM sums UNION ALL SELECT {self._bucket},"
                f" -count(*), -sum(hash({self._names})::HUGEINT) FROM {LAKE} GROUP BY 1) GROUP BY bucket"
                " HAVING sum(number) != 0 OR sum(total) != 0"
            )
        self._database.run(f"CREATE TABLE differing_buckets AS {differing}")
        if self._database.number("SELECT count(*) FROM differing_buckets"):
            self._compare_rows(check, is_whole=is_whole)
        check.seconds = time.monotonic() - began
        return check

    def _compare_rows(self, check: Check, *, is_whole: bool) -> None:
        """Compare the rows of the ranges that differ one by one."""
        self._read(keep_rows=True)
        self._database.run(
            "CREATE TABLE differing_rows AS"
            f" SELECT {self._names}, sum(_sent) AS _sent, sum(_stored) AS _stored FROM"
            f" (SELECT {self._names}, 1 AS _sent, 0 AS _stored FROM sent UNION ALL"
            f" SELECT {self._names}, 0, 1 FROM {LAKE} WHERE {self._bucket} IN (SELECT bucket FROM differing_buckets))"
            f" GROUP BY {self._names} HAVING sum(_sent) {'!=' if is_whole else '>'} sum(_stored)"
        )
        check.number = self._database.number("SELECT count(*) FROM differing_rows")
        fields = ", ".join(f"{each} := {each}" for each in map(name, self._columns))
        found = self._database.run(
            f"SELECT to_json(struct_pack({fields}))::VARCHAR, _sent, _stored FROM differing_rows LIMIT {MAX_KEPT}"
        )
        check.differences = [
            Difference(f"lake {self._event.name}", row, _times(stored), _times(sent)) for row, sent, stored in found
        ]

    def _read(self, *, keep_malformed: bool = False, keep_rows: bool = False) -> int:
        """Parse the records up to the cut; return the number of valid ones."""
        number = 0
        rows: list[Values] = []
        malformed: list[Values] = []
        for messages in self._reader.read(self._begins, self._cut.offsets):
            for message in messages:
                values = self._parser.parse(_bytes(message.value()))
                if values is not None:
                    rows.append(values)
                elif keep_malformed:
                    malformed.append((message.partition(), message.offset(), _digest(message)))
            if len(rows) + len(malformed) >= _BATCH:
                number += self._take(rows, malformed, keep_rows=keep_rows)
                rows, malformed = [], []
        return number + self._take(rows, malformed, keep_rows=keep_rows)

    def _take(self, rows: Sequence[Values], malformed: Sequence[Values], *, keep_rows: bool) -> int:
        """Keep the malformed ones, and the rows of ranges that differ or else the sums of all ranges."""
        self._database.insert("malformed", {"part": WHOLE, "number": WHOLE, "digest": TEXT}, malformed)
        self._database.run("DELETE FROM batch")
        self._database.insert("batch", self._columns, rows)
        if keep_rows:
            self._database.run(
                f"INSERT INTO sent SELECT * FROM batch WHERE {self._bucket} IN (SELECT bucket FROM differing_buckets)"
            )
        else:
            self._database.run(
                "CREATE OR REPLACE TABLE sums AS SELECT bucket, sum(number) AS number, sum(total) AS total FROM"
                f" (SELECT * FROM sums UNION ALL SELECT {self._bucket}, count(*), sum(hash({self._names})::HUGEINT)"
                " FROM batch GROUP BY 1) GROUP BY bucket"
            )
        return len(rows)

    def dead_letters(self, letters: DeadLetters, wait: float) -> Check:
        """Compare the malformed records with their dead letters; waits for missing ones for some seconds."""
        began = time.monotonic()
        check = Check(f"dead letters = malformed records of {self._reader.topic}")
        check.compared = self._database.number("SELECT count(*) FROM malformed")
        while True:
            letters.read()
            missing = self._database.number(
                f"SELECT count(*) FROM malformed ANTI JOIN ({self._own()}) USING (part, number)"
            )
            if not missing or time.monotonic() - began > wait:
                break
            time.sleep(_PAUSE)
        differences = {
            f"SELECT part, number, NULL, 'a dead letter' FROM malformed ANTI JOIN ({self._own()}) USING (part, number)",
            f"SELECT part, number, 'a dead letter', NULL FROM ({self._own()}) ANTI JOIN malformed USING (part, number)",
            f"SELECT part, number, count(*) || ' dead letters', 'one' FROM ({self._own()})"
            " GROUP BY part, number HAVING count(*) > 1",
            "SELECT part, number, 'a dead letter with other bytes', 'those of the record' FROM malformed m"
            f" JOIN ({self._own()}) d USING (part, number) WHERE d.digest != m.digest",
        }
        for sql in sorted(differences):
            for partition, offset, found, expected in self._database.run(sql):
                key = f"{self._reader.topic}, partition {partition}, offset {offset}"
                check.add([Difference(f"topic {letters.name}", key, found, expected)])
        check.seconds = time.monotonic() - began
        return check

    def _own(self) -> str:
        """Return the dead letters of the stream job whose records are before the cut and still in the topic."""
        offsets = " OR ".join(
            f"part = {partition} AND number >= {self._begins.get(partition, 0)} AND number < {end}"
            for partition, end in self._cut.offsets.items()
        )
        topic = self._reader.topic
        return (
            "SELECT part, number, digest FROM dead_letters"
            f" WHERE topic = '{topic}' AND service = '{dead_letters.STREAM_PROCESSING}'"
            f" AND ({offsets or 'false'})"
        )


def _times(number: Any) -> str | None:
    return None if not number else "once" if number == 1 else f"{number} times"
