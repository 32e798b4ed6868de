"""A new aggregate table needs one declaration and nothing else."""

from collections import Counter
from pathlib import Path

import orjson
from elasticsearch import Elasticsearch

from local_stack.services import SINK, STREAM
from tests.declarations.extra_table import TABLE
from tests.interaction import INTERACTION_TYPES, Interaction
from tests.pipeline import Pipeline, assert_equal, eventually

DECLARATION = Path(__file__).parents[1] / "declarations" / "extra_table.py"

MAPPER = f"""
{TABLE.name}:
  id: {TABLE.key[0]}
  alerts:
    - [total, ">", 100]
"""


def test_a_declared_table_is_in_lake_topic_and_index_and_alert_rules_can_use_its_columns(pipeline: Pipeline) -> None:
    mapper = pipeline.data / "data_mapper.yml"
    mapper.write_text(MAPPER)
    sent = [
        Interaction(f"user_{n % 7}", f"item_{n % 5}", INTERACTION_TYPES[n * n % 4], 1_700_000_000 + n)
        for n in range(500)
    ]
    totals = dict(Counter(interaction.interaction_type for interaction in sent))
    with (
        pipeline.running(STREAM, PIPELINE=DECLARATION),
        pipeline.running(SINK, PIPELINE=DECLARATION, DATA_MAPPER=mapper),
    ):
        pipeline.send_interactions(sent)
        eventually(lambda: assert_equal(_in_the_topic(pipeline), totals))
        eventually(lambda: assert_equal(_in_the_index(pipeline), totals))
        eventually(lambda: assert_equal(_in_the_lake(pipeline), totals))
        frequent = {kind for kind, total in totals.items() if total > 100}
        eventually(lambda: assert_equal({alert["id"] for alert in pipeline.alerts()}, frequent))
        assert frequent
    with Elasticsearch([pipeline.es_url]) as client:
        mapping = client.indices.get_mapping(index=TABLE.name)[TABLE.name]["mappings"]
        client.indices.delete(index=TABLE.name)
        client.indices.delete_index_template(name=TABLE.name)
    types = {name: field["type"] for name, field in mapping["properties"].items()}
    assert types == {"interaction_type": "keyword", "total": "long", "latest": "date"}


def _in_the_topic(pipeline: Pipeline) -> dict[str, int]:
    found = {}
    for message in pipeline.read(pipeline.settings.aggregated_topic):
        key = message.key()
        assert isinstance(key, bytes)
        if key.startswith(f"{TABLE.name}-".encode()):
            found[key.decode().removeprefix(f"{TABLE.name}-")] = orjson.loads(message.value() or b"")["total"]
    return found


def _in_the_index(pipeline: Pipeline) -> dict[str, int]:
    return {row_id: row["total"] for row_id, row in pipeline.documents(TABLE.name).items()}


def _in_the_lake(pipeline: Pipeline) -> dict[str, int]:
    rows = pipeline.lake_rows(f"SELECT interaction_type, total FROM {TABLE.name}", TABLE.name)
    return {row["interaction_type"]: row["total"] for row in rows}
