"""Data of older commits: this one continues with them, or says which command it needs; then `verify` finds nothing.

`tests/old_data/record.py` has recorded them.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mirakuru.exceptions import ProcessExitedWithError
from stream_processing.lake import Lake

from local_stack import servers
from local_stack.services import ROOT, SINK, STREAM
from tests.interaction import Interaction
from tests.pipeline import Pipeline, assert_equal, eventually


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


# From before the single query, with the state in Spark; from before the declaration; stopped at work.
@pytest.mark.parametrize("upgraded", ["d5cbeab", "b24eba2", "ba0bcb4"], indirect=True)
def test_the_pipeline_continues_with_the_data_of_an_older_one(upgraded: Pipeline) -> None:
    _assert_continues(upgraded)


# From before two of the tables.
@pytest.mark.parametrize("upgraded", ["5c7a034"], indirect=True)
def test_data_of_other_tables_are_refused_until_the_command_that_the_job_names(upgraded: Pipeline) -> None:
    with pytest.raises(ProcessExitedWithError), upgraded.running(STREAM):
        pass
    assert "run `python -m stream_processing rebuild`" in upgraded.log(STREAM)
    upgraded.command(STREAM, "rebuild")
    _assert_continues(upgraded)


def _assert_continues(upgraded: Pipeline) -> None:
    """Assert that it reads what waited and what is sent, and that every store is as if there had been no upgrade."""
    # As in the demo, and with the rules of then.
    settings = {"KAFKA_GROUP_ID": "ElasticsearchSink-Alert", "DATA_MAPPER": str(upgraded.data / "data_mapper.yml")}
    with upgraded.running(STREAM), upgraded.running(SINK, **settings):
        upgraded.send_interactions([Interaction(f"user_{n}", "new", "like", 1_700_000_000 + n) for n in range(50)])
        sent = len(upgraded.read(upgraded.topic))
        assert sent > 500
        # `verify` compares what the job has read when it begins.
        eventually(lambda: assert_equal(_processed(upgraded), sent))
        upgraded.assert_exact(DATA_MAPPER=settings["DATA_MAPPER"])


def _processed(pipeline: Pipeline) -> int:
    """Count the interactions in the lake and the malformed records."""
    return Lake(str(pipeline.data / "warehouse")).count() + len(pipeline.read(pipeline.settings.dead_letter_topic))
