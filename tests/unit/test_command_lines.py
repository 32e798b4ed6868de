"""Every program explains its arguments with --help, and rejects unknown ones before it does anything."""

import importlib
from pathlib import Path

import pytest

from local_stack.services import ROOT

_OTHERS = ("benchmarks/peers/jobs/pathway_job.py", "live_page/sources/sql_worker.py")
"""Programs that only this project starts; the first needs a package that is not installed."""
_FOLDERS = ("01-DataProducer", "02-StreamProcessing", "03-ElasticsearchSink-Alert")
_PACKAGES = ("benchmarks", "build_tools", "dashboards", "img", "live_page", "local_stack", "observer", "runtime")


def _module(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[1:] if parts[0] in _FOLDERS else parts)


_PROGRAMS = [
    _module(file)
    for folder in (*_FOLDERS, *_PACKAGES)
    for file in sorted((ROOT / folder).rglob("*.py"))
    if str(file.relative_to(ROOT)) not in _OTHERS and '\nif __name__ == "__main__":' in file.read_text()
]


def test_all_programs_are_found() -> None:
    assert {"data_producer.__main__", "build_tools.jars", "local_stack.install"} < set(_PROGRAMS)
    assert len(_PROGRAMS) > 12


@pytest.mark.parametrize("program", _PROGRAMS)
@pytest.mark.parametrize(("argument", "status"), [("--help", 0), ("--unknown", 2)])
def test_a_program_explains_its_arguments_and_rejects_unknown_ones(
    program: str, argument: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [program, argument])
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(program).main()
    assert stopped.value.code == status
    output = capsys.readouterr()
    assert (output.out if status == 0 else output.err).startswith(f"usage: {program.removesuffix('.__main__')}")


@pytest.mark.parametrize("program", ["benchmarks.__main__", "img.__main__"])
def test_an_unknown_name_is_reported_with_the_known_ones(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [program, "everything"])
    with pytest.raises(SystemExit):
        importlib.import_module(program).main()
    assert "'everything': expected " in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", [program, "--help"])
    with pytest.raises(SystemExit):
        importlib.import_module(program).main()
    assert "[]" not in capsys.readouterr().out
