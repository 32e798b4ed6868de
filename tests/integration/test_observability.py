"""Prometheus' own tools accept the files in observability/, and its rules do what their tests say."""

import shutil
import subprocess
from pathlib import Path

from local_stack.services import ROOT
from tests.prometheus_tools import program

OBSERVABILITY = ROOT / "observability"


def _run(*command: str, cwd: Path = OBSERVABILITY) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def _assert_accepted(*command: str) -> None:
    completed = _run(*command)
    assert completed.returncode == 0, completed.stdout + completed.stderr


def test_prometheus_and_alertmanager_accept_their_configurations() -> None:
    _assert_accepted(program("promtool"), "check", "config", "prometheus.yml")
    _assert_accepted(program("amtool"), "check-config", "alertmanager.yml")


def test_the_rules_record_and_alert_what_their_tests_expect() -> None:
    _assert_accepted(program("promtool"), "check", "rules", "--lint-fatal", "rules.yml")
    _assert_accepted(program("promtool"), "test", "rules", "rules_test.yml")


def test_a_rule_with_another_threshold_fails_its_test(tmp_path: Path) -> None:
    for name in ("rules.yml", "rules_test.yml"):
        shutil.copy(OBSERVABILITY / name, tmp_path)
    rules = tmp_path / "rules.yml"
    rules.write_text(rules.read_text().replace("sink_lag_seconds > 60", "sink_lag_seconds > 600"))
    completed = _run(program("promtool"), "test", "rules", "rules_test.yml", cwd=tmp_path)
    assert completed.returncode == 1
    assert "alertname: SinkLags" in completed.stdout + completed.stderr


def test_an_alert_reaches_the_receiver_that_the_route_names() -> None:
    completed = _run(
        program("amtool"), "config", "routes", "test", "--config.file=alertmanager.yml", "severity=warning"
    )
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.strip() == "page"
