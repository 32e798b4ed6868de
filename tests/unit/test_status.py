"""What the status says and which exit status it has, on plain figures and without a server."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from arro3.core import Array, DataType, Table
from deltalake import CommitProperties, DeltaTable, write_deltalake

from contract.declared import EVENT, TABLES
from local_stack.services import ROOT
from observer import __main__ as program
from observer.lake_cuts import Cut, read_cuts
from observer.log_errors import last_error
from observer.reading_history import Stage
from observer.reconciliation import NO_VERDICT, State, Verdict
from observer.services import OK, read_service
from observer.settings import StatusSettings
from observer.status import (
    MAY_HAVE_ENDED,
    Batch,
    Disk,
    ExitStatus,
    Figures,
    LoggedError,
    Part,
    TableRows,
    exit_status,
    problems,
)
from observer.status_reader import Background, StatusReader, result_of
from observer.status_text import figures_text, verdict_text
from runtime.health import Health, serve

_GB = 1 << 30
_SERVICES = ("data_producer", "stream_processing", "elasticsearch_sink_alert")
_WELL = Figures(
    at="2026-01-01T10:20:30+00:00",
    seconds=1.2,
    parts=(
        Part("Kafka", OK, answers=True),
        Part("Elasticsearch", OK, answers=True),
        *(Part(name, OK, answers=True, memory=61_000_000, uptime=30.0) for name in _SERVICES),
    ),
    stages=(
        Stage("sent to Kafka", 12_345, 50.0, None),
        Stage("rows published", 700, 12.0, None),
        Stage("rows indexed", 690, 11.0, 10),
    ),
    sent=12_345,
    in_the_lake=12_340,
    malformed=5,
    indexed=12_340,
    dead_letters=7,
    alerts_firing=3,
    counts=Verdict(State.EQUAL, "sent 12,345 = lake = indexed: nothing lost, nothing twice"),
    tables=(TableRows(EVENT.name, None, 12_340, None), TableRows("agg_interactions_user", 41, 42, 43)),
    batch=Batch(0.6, 40, 0.21),
    behind_seconds=60.0,
    lake_is_readable=True,
    lake_overdue=0,
    aggregates_overdue=0,
    sink_overdue=0,
    disks=(Disk("the lake", 5_000_000, 20 * _GB),),
    errors=(),
)
_UNKNOWN = replace(
    _WELL,
    parts=tuple(replace(part, state="does not answer", answers=False, uptime=None) for part in _WELL.parts),
    stages=tuple(Stage(stage.name, None, None, None) for stage in _WELL.stages),
    sent=None,
    in_the_lake=None,
    malformed=None,
    indexed=None,
    dead_letters=None,
    alerts_firing=None,
    counts=NO_VERDICT,
    tables=tuple(TableRows(table.name, None, None, None) for table in _WELL.tables),
    batch=None,
    lake_overdue=None,
    aggregates_overdue=None,
    sink_overdue=None,
    disks=(Disk("Elasticsearch", None, None),),
)


def _with_state(name: str, state: str, *, answers: bool = True) -> Figures:
    parts = tuple(replace(part, state=state, answers=answers) if part.name == name else part for part in _WELL.parts)
    return replace(_WELL, parts=parts)


def test_alerts_and_dead_letters_alone_need_no_attention() -> None:
    assert exit_status(_WELL) == ExitStatus.WELL
    assert verdict_text(_WELL) == "all well at 2026-01-01T10:20:30+00:00"


@pytest.mark.parametrize(
    ("figures", "problem"),
    [
        (
            _with_state("stream_processing", "ingest: stuck"),
            "stream_processing: ingest: stuck: docs/runbook.md#symp",
        ),
        (_with_state("Kafka", "does not answer", answers=False), "Kafka: does not answer: docs/runbook.md#symp"),
        (replace(_WELL, lake_is_readable=False), "the lake: cannot be read: set WAREHOUSE and KAFKA_TOPIC as for the"),
        (
            replace(_WELL, lake_overdue=1_500),
            "stream_processing: is behind: 1,500 records in Kafka are not in the lake for more than 60 s: "
            "docs/operations.md#working-through-a-backlog",
        ),
        (
            replace(_WELL, aggregates_overdue=9),
            "stream_processing: is behind: 9 interactions in the lake are not aggregated for more than 60 s: docs/",
        ),
        (
            replace(_WELL, sink_overdue=7, behind_seconds=2.5),
            "elasticsearch_sink_alert: is behind: 7 published rows are not indexed for more than 2.5 s: docs/",
        ),
        (
            replace(_WELL, disks=(Disk("the lake", 5, _GB - 1), Disk("Kafka", 5, _GB))),
            "the disk of the lake: 1,074 MB are free: free some space",
        ),
        (
            replace(_WELL, counts=Verdict(State.WRONG, "3 more in the lake than were sent")),
            "the counts: 3 more in the lake than were sent: `make verify` names each row that differs",
        ),
    ],
    ids=["unhealthy", "no server", "no lake", "lake behind", "aggregates behind", "sink behind", "full disk", "counts"],
)
def test_each_problem_needs_attention_and_has_its_reason_and_remedy(figures: Figures, problem: str) -> None:
    assert exit_status(figures) == ExitStatus.ATTENTION
    (found,) = problems(figures)
    assert str(found).startswith(problem)
    first, line = verdict_text(figures).splitlines()
    assert first == "1 thing needs attention at 2026-01-01T10:20:30+00:00:"
    assert line == f"  {found}"


def test_an_unhealthy_service_is_reported_with_where_its_log_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNDER_COMPOSE", raising=False)
    part = Part("stream_processing", "does not answer", answers=False, log="/data/logs/stream_processing.log")
    (found,) = problems(replace(_WELL, parts=(part,)))
    assert found.remedy == "its log /data/logs/stream_processing.log has more, then docs/runbook.md#symptoms"
    monkeypatch.setenv("UNDER_COMPOSE", "true")
    (found,) = problems(replace(_WELL, parts=(part,)))
    assert found.remedy.startswith("`docker compose logs stream-processing` has more")


def test_a_producer_that_may_have_ended_needs_no_attention() -> None:
    assert exit_status(_with_state("data_producer", MAY_HAVE_ENDED, answers=False)) == ExitStatus.WELL
    assert not StatusSettings.read({}).producer_may_end
    assert StatusSettings.read({"PRODUCER_LIMIT": "5"}).producer_may_end
    assert StatusSettings.read({"PRODUCER_SOURCE": "events.csv"}).producer_may_end


def test_without_any_answer_nothing_can_be_said() -> None:
    assert exit_status(_UNKNOWN) == ExitStatus.NO_ANSWER
    assert exit_status(replace(_UNKNOWN, parts=(*_UNKNOWN.parts, _WELL.parts[0]))) == ExitStatus.ATTENTION
    late = Part("Kafka", "unknown: not everything has answered within 3.5 s", answers=None)
    assert exit_status(replace(_UNKNOWN, parts=(late,))) == ExitStatus.ATTENTION


def test_the_text_has_every_figure() -> None:
    rows = [" ".join(line.split()) for line in figures_text(_WELL).splitlines()]
    assert "stream_processing ok 30.0 s 61.0 MB" in rows
    assert "sent to Kafka 12,345 50.0" in rows
    assert "rows published 700 12.0" in rows
    assert "rows indexed 690 11.0 10" in rows
    assert f"{EVENT.name} 12,340" in rows
    assert "agg_interactions_user 41 42 43" in rows
    assert "in total 41" in rows
    assert "sent 12,345 in the lake 12,340 malformed 5 indexed 12,340" in rows
    assert "sent 12,345 = lake = indexed: nothing lost, nothing twice" in rows
    assert "dead letters 7 alerts firing 3" in rows
    assert "latest batch 0.6 s ago: 40 records in 0.21 s" in rows
    assert "the lake 5.0 MB 21.5 GB" in rows


def test_what_is_unknown_is_never_shown_as_a_number() -> None:
    text = figures_text(_UNKNOWN)
    assert not any(character.isdigit() for character in text)
    assert "sent unknown   in the lake unknown   malformed unknown   indexed unknown" in text
    assert "latest batch unknown" in text
    assert "whether everything sent has arrived is unknown after one look" in text


def test_texts_of_services_and_logs_cannot_control_the_terminal() -> None:
    hostile = "\x1b]0;title\x07\u202e\nall well"
    figures = replace(
        _with_state("elasticsearch_sink_alert", hostile), errors=(LoggedError("data_producer", f"ERROR {hostile}"),)
    )
    text = f"{figures_text(figures)}\n{verdict_text(figures)}"
    assert all(line.isprintable() for line in text.splitlines())
    assert text.count(r"\x1b]0;title\x07\u202e\nall well") == 3
    assert "  data_producer: ERROR " in text


def test_a_cut_of_the_lake_has_the_time_of_its_append(tmp_path: Path) -> None:
    rows = Table.from_pydict({"user_id": Array(["a"], DataType.string())})
    before = time.time()
    metadata = {"batch": 4, "topic_id": "id", "offsets": {"avroic": {"0": 1}}}
    properties = CommitProperties(custom_metadata={"userMetadata": json.dumps(metadata)})
    write_deltalake(tmp_path, rows, commit_properties=properties)
    (cut,) = read_cuts(DeltaTable(tmp_path), "avroic")
    assert cut.at is not None
    assert before - 1 <= cut.at <= time.time() + 1
    assert Cut(0, {}).at is None


def test_the_last_error_of_a_log_is_shown_for_an_hour(tmp_path: Path) -> None:
    log = tmp_path / "it.log"
    log.write_text(
        "2026-01-01T10:00:00.000Z ERROR   it: first\n2026-01-01T10:30:00.000Z ERROR   it: second\n"
        "    2026-01-01T10:31:00.000Z ERROR   it: a continuation\n2026-01-01T10:40:00.000Z INFO    it: ready\n"
    )
    at = datetime(2026, 1, 1, 10, 45, tzinfo=UTC)
    assert last_error(log, at) == "2026-01-01T10:30:00.000Z ERROR   it: second"
    assert last_error(log, at + timedelta(hours=1)) is None
    log.write_text("ERROR: no time\n")
    assert last_error(log, at) is None


def test_the_last_error_of_a_log_in_json_is_shown_as_text(tmp_path: Path) -> None:
    log = tmp_path / "it.log"
    lines = [("10:00", "ERROR", "first"), ("10:30", "CRITICAL", "second\nwith a reason"), ("10:40", "INFO", "ready")]
    objects = [
        {"time": f"2026-01-01T{at}:00.000Z", "level": level, "service": "it", "logger": "a.b", "message": message}
        for at, level, message in lines
    ]
    log.write_text('{"time": "cut off\n' + "".join(f"{json.dumps(each)}\n" for each in objects))
    at = datetime(2026, 1, 1, 10, 45, tzinfo=UTC)
    assert last_error(log, at) == "2026-01-01T10:30:00.000Z CRITICAL a.b: second"
    assert last_error(log, at + timedelta(hours=1)) is None


def test_what_does_not_answer_in_time_is_unknown_and_not_asked_twice() -> None:
    released = threading.Event()
    calls = []

    def hang() -> int:
        calls.append(1)
        released.wait()
        return 7

    def refused() -> int:
        raise ConnectionRefusedError

    def wrong() -> int:
        raise AssertionError("an error of this program")

    background = Background()
    assert result_of(background.start("it", hang), time.monotonic()) is None
    pending = background.start("it", hang)
    released.set()
    assert result_of(pending, time.monotonic() + 60) == 7
    assert len(calls) == 1
    assert result_of(background.start("it", refused), time.monotonic() + 60) is None
    with pytest.raises(AssertionError):
        result_of(background.start("it", wrong), time.monotonic() + 60)


@pytest.fixture
def frozen_ports() -> Iterator[list[int]]:
    """Ports that accept connections and never answer, as those of a process that SIGSTOP has stopped."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(5)]
        yield [listener.getsockname()[1] for listener in listeners]


def test_frozen_servers_and_services_are_unknown_within_seconds(frozen_ports: list[int], tmp_path: Path) -> None:
    kafka, elasticsearch, *services = frozen_ports
    urls = [f"http://127.0.0.1:{port}" for port in services]
    settings = StatusSettings(
        kafka_broker=f"127.0.0.1:{kafka}",
        es_host=f"http://127.0.0.1:{elasticsearch}",
        warehouse=str(tmp_path),
        producer_url=urls[0],
        stream_url=urls[1],
        sink_url=urls[2],
    )
    figures = StatusReader(settings, behind_seconds=60).read()
    assert figures.seconds < 5
    assert exit_status(figures) == ExitStatus.NO_ANSWER
    assert {part.state for part in figures.parts} == {"does not answer"}
    unknown = replace(figures, disks=(), at="", seconds=0, behind_seconds=0)
    assert not any(character.isdigit() for character in figures_text(unknown))


def test_a_metric_by_table_has_a_name_of_its_own() -> None:
    from stream_processing import metrics

    metrics.STATE_ROWS.labels("agg_interactions_user").set(41)
    metrics.STATE_ROWS.labels("agg_interactions_item").set(42)
    _, read = read_service(f"http://127.0.0.1:{serve(Health(), '127.0.0.1', 0)}")
    assert read["stream_state_rows/agg_interactions_user"] == 41
    assert read["stream_state_rows/agg_interactions_item"] == 42


def test_the_status_is_asked_of_every_declared_table() -> None:
    names = [table.name for table in StatusReader(StatusSettings(kafka_broker="127.0.0.1:1"), 60).read().tables]
    assert names == [EVENT.name, *(table.name for table in TABLES)]


def test_a_screen_has_no_more_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    monkeypatch.setenv("LINES", "4")
    shown = program._screen("\n".join(["a" * 20] * 9)).removeprefix(program._CLEAR)
    assert shown.splitlines() == ["a" * 10] * 3


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "x", "100000"])
def test_a_wrong_number_of_seconds_is_refused(
    seconds: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["observer", f"--watch={seconds}"])
    with pytest.raises(SystemExit):
        program.main()
    assert f"'{seconds}': expected a number of seconds, up to 86400" in capsys.readouterr().err


def test_without_any_answer_the_command_names_the_addresses_without_passwords(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNDER_COMPOSE", raising=False)
    for name, value in {"KAFKA_BROKER": "127.0.0.1:1", "ES_HOST": "http://elastic:secret@127.0.0.1:1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("PRODUCER_URL", "STREAM_URL", "SINK_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setattr("sys.argv", ["observer"])
    assert program.main() == ExitStatus.NO_ANSWER
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("cannot ask: nothing answers at 127.0.0.1:1, http://elastic:***@127.0.0.1:1, http://127.0")
    assert "start `make demo`, or set KAFKA_BROKER, ES_HOST, WAREHOUSE" in line


def test_threads_that_crash_at_the_end_of_python_do_not_change_the_exit_status() -> None:
    crash = (
        "import atexit, os, runpy; atexit.register(os._exit, 139); runpy.run_module('observer', run_name='__main__')"
    )
    servers = {"KAFKA_BROKER": "127.0.0.1:1", "ES_HOST": "http://127.0.0.1:1"}
    services = {f"{name}_URL": "http://127.0.0.1:1" for name in ("PRODUCER", "STREAM", "SINK")}
    ended = subprocess.run(
        [sys.executable, "-c", crash],
        env={**os.environ, **servers, **services},
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == ExitStatus.NO_ANSWER
    assert ended.stderr.startswith("cannot ask: nothing answers at 127.0.0.1:1, ")
