"""Data of older commits: this one continues with them, and `verify` finds nothing.

`tests/old_data/record.py` has recorded them.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from stream_processing.lake import Lake

from local_stack import servers
from local_stack.services import ROOT, SINK, STREAM
from tests.interaction import Interaction
from tests.pipeline import TIMEOUT, Pipeline


@pytest.fixture
def upgraded(cache: None, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pipeline]:
    """Run the servers with the data that a commit has left."""
    with tarfile.open(ROOT / "tests" / "old_data" / f"{request.param}.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    kafka, elasticsearch = servers.free_port(), servers.free_port()
    with (
        # The records are as old as the recording.
        servers.kafka(tmp_path, kafka, properties={"log.retention.ms": "-1"}),
        servers.elasticsearch(tmp_path, elasticsearch),
    ):
        yield Pipeline(f"{servers.HOST}:{kafka}", f"http://{servers.HOST}:{elasticsearch}", "avroic", tmp_path)


# From before the single query, with the state in Spark; before the declaration; from a day ago, stopped at work.
@pytest.mark.parametrize("upgraded", ["d5cbeab", "b24eba2", "ba0bcb4"], indirect=True)
def test_the_pipeline_continues_with_the_data_of_an_older_one(upgraded: Pipeline) -> None:
    recorded = Lake(str(upgraded.data / "warehouse")).count()
    # As in the demo, and with the rules of then.
    settings = {"KAFKA_GROUP_ID": "ElasticsearchSink-Alert", "DATA_MAPPER": upgraded.data / "data_mapper.yml"}
    with upgraded.running(STREAM), upgraded.running(SINK, **settings):
        upgraded.send_interactions([Interaction(f"user_{n}", "new", "like", 1_700_000_000 + n) for n in range(50)])
        upgraded.assert_exact(wait=TIMEOUT, **settings)
    # Records of the last one were still waiting in Kafka.
    assert upgraded.lake_count() >= recorded + 50 > 1_000
