"""`make demo`: everything starts, everything arrives, everything stops, and the next start goes on."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from local_stack.services import ROOT


def _demo(data: Path, *arguments: str, command: str = "demo") -> subprocess.Popen[str]:
    environment = {**os.environ, "PRODUCER_RATE": "0.005", "MATERIALISE_INTERVAL": "2", "COLUMNS": "200"}
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


def _left_over(data: Path) -> list[int]:
    return [p.pid for p in psutil.process_iter(["cmdline"]) if str(data) in " ".join(p.info["cmdline"] or [])]


@pytest.mark.usefixtures("cache")
def test_the_demo_runs_for_a_time_then_for_another_and_leaves_no_process(tmp_path: Path) -> None:
    first = _demo(tmp_path, "--free-ports", "--for", "15")
    said = first.communicate(timeout=240)[0]
    assert first.returncode == 0, said
    for part in (
        "Kafka",
        "Elasticsearch",
        "live_page",
        "stream_processing",
        "elasticsearch_sink_alert",
        "data_producer",
    ):
        assert f"ready {part}" in said
    summary = _summary(said)
    assert summary["in the lake"] == summary["sent"] > 500
    assert (summary["index agg_interactions_user"], summary["index agg_interactions_item"]) == (10, 10)
    assert (summary["index avg_interactions"], summary["dead letters"]) == (1, 0)
    assert summary["alerts"] >= summary["alerts firing"] > 0
    assert _left_over(tmp_path) == []

    second = _demo(tmp_path, "--free-ports")
    assert second.stdout is not None
    for line in second.stdout:
        if "Ctrl-C stops" in line:
            break
    second.send_signal(signal.SIGINT)
    said = second.communicate(timeout=120)[0]
    assert second.returncode == 0, said
    again = _summary(said)
    assert again["in the lake"] == again["sent"] > summary["sent"]
    assert _left_over(tmp_path) == []


@pytest.mark.usefixtures("cache")
def test_the_demo_ends_with_the_reason_when_a_part_has_died(tmp_path: Path) -> None:
    demo = _demo(tmp_path, "--free-ports")
    assert demo.stdout is not None
    for line in demo.stdout:
        if "ready elasticsearch_sink_alert" in line:
            break
    for process in psutil.Process(demo.pid).children(recursive=True):
        # Spark starts processes that live for a moment only.
        with contextlib.suppress(psutil.NoSuchProcess):
            if "elasticsearch_sink_alert" in process.cmdline():
                process.kill()
    said = demo.communicate(timeout=120)[0]
    assert demo.returncode == 1
    assert "cannot run: elasticsearch_sink_alert was killed by SIGKILL" in said
    assert _left_over(tmp_path) == []


@pytest.mark.usefixtures("cache")
def test_the_servers_run_alone(tmp_path: Path) -> None:
    stack = _demo(tmp_path, "--free-ports", "--for", "1", command="stack")
    said = stack.communicate(timeout=120)[0]
    assert stack.returncode == 0, said
    assert "ready Elasticsearch" in said
    assert "data_producer" not in said
    assert _left_over(tmp_path) == []


@pytest.mark.usefixtures("cache")
def test_a_second_stack_on_the_same_data_is_one_clear_line_and_harms_nothing(tmp_path: Path) -> None:
    first = _demo(tmp_path, "--free-ports", command="stack")
    assert first.stdout is not None
    while "Ctrl-C stops" not in (line := first.stdout.readline()):
        assert line, "it has ended"
    for command in ("stack", "demo"):
        second = _demo(tmp_path, "--free-ports", command=command)
        said = second.communicate(timeout=60)[0]
        assert second.returncode == 1
        assert f"runs on {tmp_path} (process {first.pid} and " in said
        assert len(said.strip().splitlines()) == 1
    first.send_signal(signal.SIGINT)
    said = first.communicate(timeout=60)[0]
    assert first.returncode == 0, said
    assert _left_over(tmp_path) == []


def test_a_taken_port_is_one_clear_line(tmp_path: Path, kafka: str) -> None:
    port = kafka.split(":")[1]
    demo = _demo(tmp_path, "--kafka-port", port)
    said = demo.communicate(timeout=60)[0]
    assert demo.returncode == 1
    assert f"Kafka needs port {port}, but " in said
    assert len(said.strip().splitlines()) == 1
