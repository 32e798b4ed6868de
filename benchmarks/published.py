"""Reads from the aggregated topic, afterwards, when each interaction was counted in a published row.

No service is instrumented: a user's interactions are all in one partition, so the n-th of them is covered by
the first row of that user with a total of at least n, and both records have their timestamps.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson

from contract.keys import encode_key
from runtime.topic_reader import read_to_end

USERS = encode_key("agg_interactions_user", "").encode()
"""How the keys of all users' rows start."""


@dataclass(frozen=True)
class Row:
    """A published row of a user: its total, and the time when the broker appended it (epoch milliseconds)."""

    at_ms: int
    total: int


@dataclass
class Published:
    """All published rows of users, in order per user."""

    rows: dict[bytes, list[Row]] = field(default_factory=lambda: defaultdict(list))

    def progress(self) -> list[tuple[int, int]]:
        """Return points of time (epoch ms), each with the number of interactions in the rows published until then."""
        steps = []
        for rows in self.rows.values():
            before = 0
            for row in rows:
                steps.append((row.at_ms, row.total - before))
                before = row.total
        covered = 0
        curve = []
        for at_ms, more in sorted(steps):
            covered += more
            curve.append((at_ms, covered))
        return curve


def records(broker: str, topic: str) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield key, value and time (epoch ms) of all records that the topic has now, in order per partition."""
    for message in read_to_end({"bootstrap.servers": broker}, topic, group_id="benchmarks"):
        yield message.key() or b"", message.value() or b"", message.timestamp()[1]


def read_published(broker: str, topic: str) -> Published:
    """Read all rows of users from the aggregated topic."""
    published = Published()
    for key, value, at_ms in records(broker, topic):
        if key.startswith(USERS):
            row = orjson.loads(value)
            published.rows[row["user_id"].encode()].append(Row(at_ms, row["total_interactions"]))
    return published


def latencies(broker: str, topic: str, published: Published) -> list[tuple[int, int]]:
    """Return for each interaction of `topic` its send time (epoch ms) and the time to its aggregate in Kafka (ms)."""
    numbers: dict[bytes, int] = defaultdict(int)
    totals = {user: [row.total for row in rows] for user, rows in published.rows.items()}
    measured = []
    for user, _, sent_ms in records(broker, topic):
        numbers[user] += 1
        n = bisect_left(totals.get(user, []), numbers[user])
        if user in totals and n < len(totals[user]):
            measured.append((sent_ms, published.rows[user][n].at_ms - sent_ms))
    return measured
