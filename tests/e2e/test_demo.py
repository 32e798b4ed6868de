"""`make demo`: everything starts, all records arrive, everything stops, and the next start continues."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import termios
from pathlib import Path

import psutil
import pytest

from local_stack.servers import free_port
from local_stack.services import ROOT
from tests.processes import command_line
from tests.terminal import terminal_of

PROCESSES = {
    "live_page": "live_page",
    "data_producer": "data_producer",
    "stream_processing": "stream_processing",
    "elasticsearch_sink_alert": "elasticsearch_sink_alert",
    "Kafka": "kafka.Kafka",
    "Elasticsearch": "org.elasticsearch.bootstrap.Elasticsearch",
}
"""The parts of the demo, with an argument of each one's command."""


def _is_everything_there(output: str) -> bool:
    everything = r"sent [\d,]+ = in the lake and indexed [\d,]+( \+ malformed \d+)?: nothing lost, nothing twice"
    return bool(re.fullmatch(everything, output.splitlines()[-1]))


def _demo(data: Path, *arguments: str, command: str = "demo", **settings: str) -> subprocess.Popen[str]:
    few = {"RANDOM_DATA_MAX_USERS": "10", "RANDOM_DATA_MAX_ITEMS": "10", "MATERIALISE_INTERVAL": "2", "COLUMNS": "200"}
    environment = {**os.environ, "PRODUCER_RATE": "0.005", **few, **settings}
    return subprocess.Popen(
        [sys.executable, "-m", "local_stack", command, "--no-view", "--data", str(data), *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _summary(output: str) -> dict[str, int]:
    return {name.strip(): int(n.replace(",", "")) for name, n in re.findall(r"^ +(\D+?) +([\d,]+) *$", output, re.M)}


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("example", "documents"),
    [
        ("sensors", {"devices": 10, "channels": 30, "fleet": 1}),
        ("orders", {"customers": 10, "customer_categories": 30, "shop": 1}),
    ],
)
def test_the_demo_runs_another_declaration_with_its_rules(
    tmp_path: Path, example: str, documents: dict[str, int]
) -> None:
    demo = _demo(tmp_path, "--free-ports", "--for", "15", PIPELINE=f"examples/{example}/pipeline.py")
    output = demo.communicate(timeout=240)[0]
    assert demo.returncode == 0, output
    summary = _summary(output)
    assert summary["in the lake"] == summary["sent"] > 500
    assert {table: summary[f"index {table}"] for table in documents} == documents
    assert summary["dead letters"] == 0
    assert summary["alerts"] > 0
    assert _leftover_processes(tmp_path) == []


def _read_until(demo: "subprocess.Popen[str]", text: str) -> None:
    assert demo.stdout is not None
    output = ""
    while text not in (line := demo.stdout.readline()):
        output += line
        assert line, f"the demo has ended before it printed {text!r}:\n{output}"


def _kill(demo: "subprocess.Popen[str]", package: str) -> None:
    for process in psutil.Process(demo.pid).children(recursive=True):
        if package in command_line(process):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def _leftover_processes(data: Path) -> list[int]:
    return [p.pid for p in psutil.process_iter(["cmdline"]) if str(data) in " ".join(p.info["cmdline"] or [])]


@pytest.mark.usefixtures("cache")
def test_the_demo_continues_with_its_data_and_leaves_no_process(tmp_path: Path) -> None:
    # The demo's own rules need more time to fire.
    rules = str(ROOT / "03-ElasticsearchSink-Alert/data_mapper.yml")
    first = _demo(tmp_path, "--free-ports", "--for", "15", DATA_MAPPER=rules)
    output = first.communicate(timeout=240)[0]
    assert first.returncode == 0, output
    for process in (
        "Kafka",
        "Elasticsearch",
        "live_page",
        "stream_processing",
        "elasticsearch_sink_alert",
        "data_producer",
    ):
        assert f"ready {process}" in output
    summary = _summary(output)
    assert summary["in the lake"] == summary["sent"] > 500
    assert (summary["index agg_interactions_user"], summary["index agg_interactions_item"]) == (10, 10)
    assert (summary["index avg_interactions"], summary["dead letters"]) == (1, 0)
    assert summary["alerts"] >= summary["alerts firing"] > 0
    assert _is_everything_there(output)
    assert _leftover_processes(tmp_path) == []

    second = _demo(tmp_path, "--free-ports")
    _read_until(second, "Ctrl-C stops")
    second.send_signal(signal.SIGINT)
    output = second.communicate(timeout=120)[0]
    assert second.returncode == 0, output
    again = _summary(output)
    assert again["in the lake"] == again["sent"] > summary["sent"]
    assert _is_everything_there(output)
    assert _leftover_processes(tmp_path) == []


@pytest.mark.usefixtures("cache")
def test_in_a_terminal_keys_control_the_demo_and_q_stops_all_of_it(tmp_path: Path) -> None:
    demo = ["-m", "local_stack", "demo", "--free-ports", "--data", str(tmp_path)]
    with terminal_of(demo, {"PRODUCER_RATE": "0.005"}, columns=130, lines=40) as terminal:
        terminal.wait_for_text("q quit")
        terminal.wait_for_text("= lake = indexed: nothing lost, nothing twice")
        for process in PROCESSES:
            assert re.search(rf"{process} +ok ", terminal.shown)
        terminal.press(b"m")
        terminal.wait_for_text("+ 10 malformed records")
        terminal.wait_for(lambda: bool(re.search("dead letters +10 ", terminal.shown)))
        terminal.wait_for_text(" + 10 malformed: nothing lost, nothing twice")
        terminal.press(b"p")
        terminal.wait_for(lambda: bool(re.search(r"rate +0\.0/s", terminal.shown)))
        terminal.press(b"q")
        assert terminal.status() == 0
        assert _is_everything_there(terminal.shown)
        assert termios.tcgetattr(terminal.terminal) == terminal.modes
    assert _leftover_processes(tmp_path) == []


@pytest.mark.usefixtures("cache")
def test_the_demo_goes_on_after_a_replay_and_every_row_of_the_file_is_in_the_lake(tmp_path: Path) -> None:
    query = "SELECT visitor AS user_id, product AS item_id, action AS interaction_type, event_time AS timestamp"
    example = ROOT / "examples/replay/shop_events.csv.gz"
    settings = {"PRODUCER_SOURCE": str(example), "PRODUCER_QUERY": f"{query} FROM source", "PRODUCER_RATE": "0"}
    for _ in range(2):
        demo = _demo(tmp_path, "--free-ports", "--for", "10", **settings)
        output = demo.communicate(timeout=240)[0]
        assert demo.returncode == 0, output
        assert "data_producer has sent everything" in output
        summary = _summary(output)
        assert summary["in the lake"] == summary["sent"] == 5_000


@pytest.mark.usefixtures("cache")
def test_the_demo_starts_each_process_again_that_is_killed_and_loses_nothing(tmp_path: Path) -> None:
    demo = _demo(tmp_path, "--free-ports")
    _read_until(demo, "Ctrl-C stops")
    for name, argument in PROCESSES.items():
        _kill(demo, argument)
        _read_until(demo, f"starting again: {name} was killed by SIGKILL")
        _read_until(demo, f"ready again {name} after ")
    demo.send_signal(signal.SIGINT)
    output = demo.communicate(timeout=120)[0]
    assert demo.returncode == 0, output
    assert _is_everything_there(output)
    assert _leftover_processes(tmp_path) == []


@pytest.mark.usefixtures("cache")
def test_the_demo_ends_with_the_reason_when_a_service_dies_three_times_within_a_minute(tmp_path: Path) -> None:
    demo = _demo(tmp_path, "--free-ports")
    _read_until(demo, "Ctrl-C stops")
    for _ in range(2):
        _kill(demo, "elasticsearch_sink_alert")
        _read_until(demo, "ready again elasticsearch_sink_alert")
    _kill(demo, "elasticsearch_sink_alert")
    output = demo.communicate(timeout=120)[0]
    assert demo.returncode == 1
    assert "stopped early: 3 times within a minute: elasticsearch_sink_alert was killed by SIGKILL" in output
    assert "sent" in _summary(output)
    assert _leftover_processes(tmp_path) == []


@pytest.mark.usefixtures("cache")
def test_the_servers_run_alone(tmp_path: Path) -> None:
    stack = _demo(tmp_path, "--free-ports", "--for", "1", command="stack")
    output = stack.communicate(timeout=120)[0]
    assert stack.returncode == 0, output
    assert "ready Elasticsearch" in output
    assert "data_producer" not in output
    assert _leftover_processes(tmp_path) == []


@pytest.mark.usefixtures("cache")
def test_a_second_stack_on_the_same_data_is_rejected_with_one_line_and_the_first_goes_on(tmp_path: Path) -> None:
    first = _demo(tmp_path, "--free-ports", command="stack")
    _read_until(first, "Ctrl-C stops")
    for command in ("stack", "demo"):
        second = _demo(tmp_path, "--free-ports", command=command)
        output = second.communicate(timeout=60)[0]
        assert second.returncode == 1
        assert f"runs on {tmp_path} (process {first.pid} and " in output
        assert len(output.strip().splitlines()) == 1
    first.send_signal(signal.SIGINT)
    output = first.communicate(timeout=60)[0]
    assert first.returncode == 0, output
    assert _leftover_processes(tmp_path) == []


def test_a_port_in_use_is_one_clear_line(tmp_path: Path, kafka: str) -> None:
    port = kafka.split(":")[1]
    demo = _demo(tmp_path, "--kafka-port", port, "--es-port", str(free_port()), command="stack")
    output = demo.communicate(timeout=60)[0]
    assert demo.returncode == 1
    assert f"Kafka needs port {port}, but " in output
    assert len(output.strip().splitlines()) == 1
