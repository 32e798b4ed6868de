"""Short schedules of faults, each from a fixed seed, against the whole pipeline under load.

Longer ones: ``make chaos ARGS="--seed 7 --minutes 30"``.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from local_stack.environment import inherited
from local_stack.services import ROOT

_SEEDS = (25, 58, 136)
"""Of schedules that together have most kinds of faults."""
_MINUTES = 0.5


@pytest.mark.parametrize("seed", _SEEDS)
def test_nothing_is_lost_or_doubled_under_a_schedule_of_faults(seed: int, cache: None, tmp_path: Path) -> None:
    report, data = tmp_path / "report.json", tmp_path / "data"
    data.mkdir()
    command = [sys.executable, "-m", "chaos", "--seed", seed, "--minutes", _MINUTES, "--rate", 300, "--json", report]
    completed = subprocess.run(
        [*map(str, command), "--data", str(data)], cwd=ROOT, env=inherited(os.environ), capture_output=True, text=True
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    result = json.loads(report.read_text())
    assert len(result["schedule"]) > 2
    assert len(result["faults"]) == len(result["schedule"])
    assert all(fault["recovered"] is not None for fault in result["faults"])
    assert result["ledger"]["acknowledged"] == result["ledger"]["sent"] > 300 * 60 * _MINUTES * 0.9
    assert result["verify"]["checks"][0]["compared"] > 0
    assert list(data.iterdir()) == []
    assert [process for process in psutil.process_iter(["cmdline", "cwd"]) if _uses(process, data)] == []


def _uses(process: psutil.Process, data: Path) -> bool:
    return any(str(data) in argument for argument in process.info["cmdline"] or ())
