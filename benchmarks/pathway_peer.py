"""The same aggregates per user and item in Pathway, over the same topic and without a lake, for comparison.

``KAFKA_BROKER=... pathway spawn --threads 2 python benchmarks/pathway_peer.py TOPIC OUTPUT_TOPIC``
"""

import os
import sys

import pathway as pw


class Interaction(pw.Schema):  # type: ignore[misc]
    """A record of the topic."""

    user_id: str
    item_id: str
    interaction_type: str
    timestamp: int


def main() -> None:
    """Aggregate the topic until stopped."""
    topic, output = sys.argv[1:3]
    client = {"bootstrap.servers": os.environ["KAFKA_BROKER"], "group.id": output, "auto.offset.reset": "earliest"}
    rows = pw.io.kafka.read(client, topic=topic, schema=Interaction, format="json", autocommit_duration_ms=1000)
    kinds = {
        f"total_{kind}": pw.reducers.sum(pw.cast(int, rows.interaction_type == kind))
        for kind in ("click", "like", "view", "purchase")
    }
    for key in ("user_id", "item_id"):
        table = rows.groupby(rows[key]).reduce(
            rows[key],
            **kinds,
            total_interactions=pw.reducers.count(),
            last_interaction=pw.reducers.max(rows.timestamp),
        )
        pw.io.kafka.write(table, client, topic_name=f"{output}_{key}", format="json")
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


if __name__ == "__main__":
    main()
