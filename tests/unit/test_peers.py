"""The benchmark of peers: its reference, its figures, its pinned downloads and its tables."""

import json
import random
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks.latency import percentiles
from benchmarks.peers import table
from benchmarks.peers.driver import PEERS
from benchmarks.peers.java_program import JARS
from benchmarks.peers.peer import BACKLOG, EXACT, MEMORY, Peer
from benchmarks.peers.processes import JOBS
from benchmarks.peers.reference import Reference, parse_row
from benchmarks.process_tree import Costs, Sample
from build_tools.jars import read_pins
from contract.declared import table_named
from contract.keys import decode_key, encode_key
from contract.loading import load
from local_stack.services import ROOT
from tests.interaction import INTERACTION_TYPES, Interaction
from tests.reference import reference_tables

_PEERS_FOLDER = JARS.parent


def _random_interactions(count: int) -> list[Interaction]:
    draw = random.Random(7)
    return [
        Interaction(
            f"user_{draw.randrange(8)}",
            f"item_{draw.randrange(40)}",
            draw.choice(INTERACTION_TYPES),
            1_736_404_972 + draw.randrange(100),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("count", [1, 9, 21, 500])
def test_the_expected_rows_are_those_of_the_tests(count: int) -> None:
    interactions = _random_interactions(count)
    reference = Reference()
    for interaction in interactions:
        reference.add(json.dumps(asdict(interaction)).encode())
    expected = {
        encode_key(name, None if name == "avg_interactions" else row_id): row
        for name, rows in reference_tables(interactions).items()
        for row_id, row in rows.items()
        if table_named(name).key.window is None
    }
    assert reference.rows() == expected
    assert {table.name for table in load(ROOT / "benchmarks/without_windows.py").tables} == {
        decode_key(key).table for key in expected
    }


def test_an_interaction_is_numbered_among_those_of_its_user() -> None:
    reference = Reference()
    values = [json.dumps(asdict(Interaction(user, "i", "view", 7))).encode() for user in ("a", "b", "a", "a", "b")]
    assert [reference.add(value) for value in values] == [1, 1, 2, 3, 2]


def test_columns_that_an_engine_adds_do_not_count_in_the_comparison() -> None:
    value = b'{"row_key": "x", "avg_interactions": 2.5, "last_interaction": "1970-01-01T00:01:00.000Z", "diff": 1}'
    assert parse_row("avg_interactions", value) == {"avg_interactions": 2.5, "last_interaction": 60}


def test_cpu_time_is_interpolated_between_the_samples() -> None:
    costs = Costs([Sample(0, 1.0, 10), Sample(1000, 2.0, 30), Sample(2000, 2.5, 20)])
    assert costs.core_seconds(0, 1000) == 1.0
    assert costs.core_seconds(500, 1500) == 0.75
    assert costs.core_seconds(-100, 5000) == 1.5
    assert costs.peak_memory == 30


def test_percentiles_are_seconds_of_that_share() -> None:
    results = list(percentiles("x", list(range(1000, 0, -1))))
    assert [(result.name, result.value, result.over) for result in results] == [
        ("x, p50", 0.501, 1000),
        ("x, p95", 0.951, 1000),
        ("x, p99", 0.991, 1000),
    ]


@pytest.mark.parametrize("pins", sorted(JARS.glob("*.txt")), ids=lambda pins: pins.stem)
def test_every_jar_is_pinned_with_checksum_and_size(pins: Path) -> None:
    jars = read_pins(pins)
    assert jars
    assert len({jar.file_name for jar in jars}) == len(jars)
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) and jar.size for jar in jars)


def test_the_versions_in_the_texts_are_those_of_the_downloads() -> None:
    flink = {jar.artifact: jar.version for jar in read_pins(JARS / "flink.txt")}
    assert PEERS["flink"].version == (
        f"Flink {flink['flink-streaming-java']}, Kafka connector {flink['flink-connector-kafka']}"
    )
    streams = {jar.artifact: jar.version for jar in read_pins(JARS / "kafka_streams.txt")}
    assert PEERS["kafka-streams"].version == f"Kafka Streams {streams['kafka-streams']}"
    pathway = re.search(r"^pathway==([\d.]+)", (_PEERS_FOLDER / "pathway.txt").read_text(), re.M)
    assert pathway is not None
    assert PEERS["pathway"].version == f"Pathway {pathway[1]}"


def test_every_python_package_is_pinned_with_a_checksum() -> None:
    requirements = re.split(r"\n(?=\S)", (_PEERS_FOLDER / "pathway.txt").read_text().strip())
    assert len(requirements) > 100
    assert all("==" in each and "--hash=sha256:" in each for each in requirements)


def test_every_engine_writes_the_columns_of_the_contract() -> None:
    for job in ("flink.sql", "KafkaStreamsJob.java", "pathway_job.py"):
        text = (JOBS / job).read_text()
        for name in ("min_interactions", "max_interactions", "total_interactions", "avg_interactions"):
            assert name in text, job


def test_the_page_has_the_tables_of_the_published_results() -> None:
    page = (ROOT / "docs/performance.md").read_text()
    assert table.replace_tables(page, table.read_values(ROOT / "docs/benchmarks.json")) == page


def test_a_figure_that_was_not_measured_is_a_dash() -> None:
    flink: Peer = PEERS["flink"]
    values = {flink.result_name(BACKLOG): 559_000.4, flink.result_name(MEMORY): 2048.0, flink.result_name(EXACT): 1.0}
    page = table.replace_tables(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n", values)
    assert "| Flink SQL | none | 559,000 | – | – | – | 2,048 MB | all |" in page
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert "old" not in page.splitlines()


def test_rows_that_differ_are_never_shown_as_all() -> None:
    values = {PEERS["flink"].result_name(EXACT): 2000 / 2001}
    assert "| 99.95% |" in table.replace_tables(table.BEGIN + table.END, values)


def test_an_unknown_peer_is_reported_with_the_known_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "peers", "--only", "flink,storm"])
    with pytest.raises(SystemExit):
        program.main()
    assert "unknown peer 'storm': expected project, flink, " in capsys.readouterr().err
