"""A short schedule with all kinds of faults but two, against the whole pipeline under load.

Longer ones: ``make chaos ARGS="--seed 7 --minutes 30"``.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil

from local_stack.environment import inherited
from local_stack.services import ROOT

_SCHEDULE = ROOT / "chaos" / "schedules" / "most_kinds.json"


def test_nothing_is_lost_or_doubled_under_a_schedule_of_faults(cache: None, tmp_path: Path) -> None:
    planned = json.loads(_SCHEDULE.read_text())
    report, data = tmp_path / "report.json", tmp_path / "data"
    data.mkdir()
    command = [sys.executable, "-m", "chaos", "--schedule", _SCHEDULE, "--json", report, "--data", data]
    completed = subprocess.run(
        [*map(str, command)], cwd=ROOT, env=inherited(os.environ), capture_output=True, text=True
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    result = json.loads(report.read_text())
    assert {fault["fault"] for fault in result["faults"]} == {event["fault"] for event in planned["schedule"]}
    assert len(result["faults"]) == len(planned["schedule"])
    assert all(fault["recovered"] is not None for fault in result["faults"])
    enough = planned["rate"] * 60 * planned["minutes"] * 0.9
    assert result["ledger"]["acknowledged"] == result["ledger"]["sent"] > enough
    assert result["verify"]["checks"][0]["compared"] > 0
    assert list(data.iterdir()) == []
    assert [process for process in psutil.process_iter(["cmdline", "cwd"]) if _uses(process, data)] == []


def _uses(process: psutil.Process, data: Path) -> bool:
    return any(str(data) in argument for argument in process.info["cmdline"] or ())
