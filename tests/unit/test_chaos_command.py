"""The command line of chaos: it prints its schedule first, and runs the one of a file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos import __main__ as program
from chaos import schedule

Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], signal_handlers: None) -> Run:
    def run(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["chaos", *map(str, arguments)])
        assert program.main() == 0
        return capsys.readouterr().out

    return run


def test_a_dry_run_prints_the_schedule_of_a_seed_and_runs_nothing(run: Run) -> None:
    output = run("--seed", 7, "--minutes", 2, "--dry-run")
    first, *lines = output.splitlines()
    assert first == "schedule of seed 7, 2 minutes, 500 records a second:"
    shown = [f"  {event}" for event in schedule.generate(7, 2)]
    assert lines[: len(shown)] == shown
    assert run("--seed", 7, "--minutes", 2, "--dry-run") == output


def test_what_needs_a_mount_is_left_out_where_that_is_not_permitted_and_that_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(program, "can_mount", lambda: False)
    seed = next(n for n in range(100) if any(each.fault.needs_mount for each in schedule.generate(n, 5)))
    output = run("--seed", seed, "--dry-run", "--json", tmp_path / "schedule.json")
    assert output.splitlines()[-1] == "left out: full disk: mounting a file system is not permitted here"
    events = schedule.read(tmp_path / "schedule.json")["schedule"]
    assert events == schedule.without_mount(schedule.generate(seed, 5))


def test_the_schedule_of_a_file_comes_with_its_seed_minutes_and_rate(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "schedule.json"
    kill = {"second": 4, "fault": "kill", "name": "sink", "down": 1}
    file.write_text(json.dumps({"seed": 3, "minutes": 0.5, "rate": 100, "schedule": [kill]}))
    assert run("--schedule", file, "--dry-run").splitlines() == [
        "schedule of seed 3, 0.5 minutes, 100 records a second:",
        "    0:04.0  kill, name=sink, down=1.0",
    ]
    assert run("--schedule", file, "--dry-run", "--seed", 4, "--minutes", 2).startswith(
        "schedule of seed 4, 2 minutes, 100 records a second:"
    )


def test_an_empty_schedule_of_a_file_is_one_without_faults(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "schedule.json"
    file.write_text('{"seed": 3, "schedule": []}')
    assert run("--schedule", file, "--dry-run") == "schedule of seed 3, 5 minutes, 500 records a second:\n"


def test_a_file_without_a_schedule_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, signal_handlers: None
) -> None:
    monkeypatch.setattr("sys.argv", ["chaos", "--schedule", str(tmp_path / "none.json")])
    assert program.main() == 1
    assert (
        capsys.readouterr().err == f"cannot run: {tmp_path / 'none.json'} cannot be read: No such file or directory\n"
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--minutes", "0"), "'0': expected a number above 0 and below a million"),
        (("--rate", "fast"), "'fast': expected a number above 0"),
        (("--rate", "nan"), "'nan': expected a number above 0"),
        (("--data", "/no/such/folder"), "'/no/such/folder' is not a folder"),
    ],
)
def test_a_wrong_argument_is_refused_with_the_reason(
    arguments: tuple[str, str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    signal_handlers: None,
) -> None:
    monkeypatch.setattr("sys.argv", ["chaos", *arguments])
    # No run, if it is accepted.
    monkeypatch.setattr(program, "_run", lambda _: 0)
    with pytest.raises(SystemExit) as stopped:
        program.main()
    assert stopped.value.code == 2
    assert reason in capsys.readouterr().err
