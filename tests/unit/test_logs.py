import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runtime import logs

_ROOT = Path(__file__).parents[2]
_HOSTILE = '"}\n{"level": "ERROR"}\r\x1b]0;owned\x07\x00\x7f\x9b31m\u202eevil\u2028\ud83d \U000e0001 Łódź 東京 🎉 \\'


@pytest.fixture(autouse=True)
def _unchanged_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root, warnings = logging.getLogger(), logging.getLogger("py.warnings")
    before, level, handlers = root.handlers[:], root.level, warnings.handlers[:]
    for module, name in ((sys, "stderr"), (sys, "excepthook"), (threading, "excepthook")):
        monkeypatch.setattr(module, name, getattr(module, name))
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level, warnings.handlers[:] = before, level, handlers


def _parsed(log: str) -> list[dict[str, Any]]:
    lines = log.split("\n")
    assert lines.pop() == ""
    assert all(line.isprintable() for line in lines), "nothing that could control a terminal, or end a line elsewhere"
    objects = [json.loads(line) for line in lines]
    assert all(isinstance(each, dict) for each in objects)
    return objects


def _run(code: str, *args: str, cwd: Path = _ROOT, **environment: str) -> list[dict[str, Any]]:
    """Run a service of this code that logs as JSON, and return the objects that it has logged."""
    completed = subprocess.run(
        [sys.executable, "-c", f"from runtime import logs\nlogs.begin('it')\n{code}", *args],
        env={"PYTHONPATH": str(_ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environment}, cwd=cwd,
        check=False, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert completed.stdout == ""
    return _parsed(completed.stderr)


def test_log_lines_carry_utc_time_level_and_logger(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO")
    logging.getLogger("some.part").warning("it %s", "happened")
    line = capsys.readouterr().err.strip()
    assert line.endswith("WARNING some.part: it happened")
    assert line[10] == "T"
    assert line[23] == "Z"


def test_a_line_in_json_has_time_level_service_logger_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "json", "the_sink")
    logging.getLogger("some.part").warning("it %s", "happened")
    (line,) = _parsed(capsys.readouterr().err)
    at = datetime.fromisoformat(line.pop("time"))
    assert at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=5)
    assert line == {"level": "WARNING", "service": "the_sink", "logger": "some.part", "message": "it happened"}


def test_a_line_about_a_record_has_its_coordinates(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "json", "it")
    logging.getLogger("a").info("refused", extra=logs.coordinates("avroic", 0, 7))
    logging.getLogger("a").info("not sent", extra=logs.coordinates("avroic"))
    refused, not_sent = _parsed(capsys.readouterr().err)
    assert (refused["topic"], refused["partition"], refused["offset"]) == ("avroic", 0, 7)
    assert not_sent["topic"] == "avroic"
    assert not not_sent.keys() & {"partition", "offset"}


def test_text_of_a_record_never_breaks_a_line_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "json", "it")
    logging.getLogger(_HOSTILE).info("refused: %s", _HOSTILE, extra=logs.coordinates(_HOSTILE, 0, 1))
    try:
        raise ValueError(_HOSTILE)
    except ValueError:
        logging.getLogger("a").exception("failed")
    sys.stderr.write(f"{_HOSTILE}\n")
    refused, failed, *printed = _parsed(capsys.readouterr().err)
    expected = _HOSTILE.replace("\ud83d", "\ufffd")
    assert refused["message"] == f"refused: {expected}"
    assert refused["topic"] == expected
    assert failed["exception"].startswith("Traceback (most recent call last):\n")
    assert failed["exception"].endswith(f"ValueError: {expected}")
    assert "\n".join(line["message"] for line in printed) == expected


def test_a_line_that_cannot_be_formatted_is_replaced_by_one_that_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "json", "it")
    logging.getLogger("a").info("%d records", "many")
    (line,) = _parsed(capsys.readouterr().err)
    assert (line["level"], line["logger"]) == ("ERROR", "runtime.logs")
    assert line["message"].startswith("a line of a cannot be logged: TypeError(")
    assert line["message"].endswith(": '%d records'")


def test_a_log_that_can_no_longer_be_written_fails_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        logs.configure("INFO", "json", "it")
    logging.getLogger("a").info("nobody reads this")
    print("nor this", file=sys.stderr)


def test_a_line_in_json_reads_as_the_same_line_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    def written(log_format: str) -> str:
        logs.configure("INFO", log_format, "it")
        record = logging.LogRecord("a", logging.WARNING, "", 0, "one\ntwo\t\x1b", None, None)
        record.created, record.msecs, record.exc_text = 1e9, 7, "E\n at"
        logging.getLogger().handle(record)
        return capsys.readouterr().err

    text, as_json = written("text"), written("json")
    assert text.splitlines() == ["2001-09-09T01:46:40.007Z WARNING a: one", r"    two \x1b", "    E", "     at"]
    assert logs.as_text(as_json.strip()) == text.splitlines()


@pytest.mark.parametrize("line", ["", "it", "{", "[1]", '{"level": "ERROR"}', "{" * 100_000, '{"a": 1} b'])
def test_any_other_line_stays_as_it_is(line: str) -> None:
    assert logs.as_text(line) == [line]


def test_what_another_process_logs_is_passed_on_as_objects(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "json", "it")
    theirs = logs.to_json(dict.fromkeys(("time", "level", "service", "logger", "message"), "of Spark"))
    control = theirs.replace("of Spark", "of\x9b Spark")
    logs.relay(
        [
            f"{theirs}\n",
            control,
            '{"level": "ERROR"}',
            "Terminating due to java.lang.OutOfMemoryError\r\n",
            "\n",
            "[1]\n",
            "cut off",
        ],
        "java",
    )
    lines = _parsed(capsys.readouterr().err)
    assert lines[:2] == [json.loads(theirs), json.loads(control)]
    assert [(line["level"], line["logger"], line["message"]) for line in lines[2:]] == [
        ("WARNING", "java", '{"level": "ERROR"}'),
        ("WARNING", "java", "Terminating due to java.lang.OutOfMemoryError"),
        ("WARNING", "java", "[1]"),
        ("WARNING", "java", "cut off"),
    ]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("1 / 0", ("CRITICAL", "uncaught", "ZeroDivisionError: division by zero")),
        ("import threading\nthreading.Thread(target=lambda: 1 / 0).start()",
         ("CRITICAL", "uncaught", "ZeroDivisionError: division by zero")),
        ("import warnings\nwarnings.warn('it is old')", ("WARNING", "py.warnings", "UserWarning: it is old")),
        ("import sys\nprint('by a library', file=sys.stderr)", ("WARNING", "stderr", "by a library")),
        ("import sys\nsys.stderr.write('no line break')", ("WARNING", "stderr", "no line break")),
        ("raise SystemExit('cannot run')", ("WARNING", "stderr", "cannot run")),
    ],
    ids=["exception", "exception of a thread", "warning", "print", "no line break", "exit"],
)  # fmt: skip
def test_what_is_not_logged_is_an_object_too(code: str, expected: tuple[str, str, str]) -> None:
    (line,) = _run(code, LOG_FORMAT="json")
    assert (line["level"], line["logger"]) == expected[:2]
    assert expected[2] in line["message"]
    assert line["service"] == "it"
    assert ("exception" in line) == (expected[1] == "uncaught")


def test_a_wrong_setting_or_declaration_is_an_object_with_all_of_its_reasons(tmp_path: Path) -> None:
    load = "from runtime.settings import Settings\nSettings.load()"
    (line,) = _run(load, LOG_FORMAT="json", LOG_LEVEL="loud", KAFKA_TOPIC="a b")
    assert line["level"] == "ERROR"
    assert "LOG_LEVEL='loud': expected DEBUG, INFO, WARNING or ERROR" in line["message"]
    assert "KAFKA_TOPIC='a b'" in line["message"]
    declaration = tmp_path / "pipeline.py"
    declaration.write_text("1 / 0\n")
    (line,) = _run("from contract import declared", LOG_FORMAT="json", PIPELINE=str(declaration))
    assert line["level"] == "ERROR"
    assert f"{declaration}:1" in line["message"]


def test_the_format_in_a_dotenv_file_applies_before_the_settings_are_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LOG_FORMAT=json\nLOG_LEVLE=INFO\n")
    (line,) = _run("from runtime.settings import Settings\nSettings.load()", cwd=tmp_path)
    assert line["level"] == "WARNING"
    assert "LOG_LEVLE is ignored: did you mean LOG_LEVEL?" in line["message"]


def test_a_locale_without_unicode_does_not_break_a_line() -> None:
    (line,) = _run(
        "import sys\nprint('Łódź é 🎉', file=sys.stderr)", LOG_FORMAT="json", PYTHONIOENCODING="ascii:backslashreplace"
    )
    assert line["message"] == "Łódź é 🎉"


def test_a_command_prints_text(tmp_path: Path) -> None:
    completed = subprocess.run(
        [sys.executable, "-c", "import sys\nfrom runtime import logs\nlogs.begin('it')\nsys.exit('no')", "check"],
        env={"PYTHONPATH": str(_ROOT), "LOG_FORMAT": "json"}, cwd=tmp_path, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert completed.stderr == "no\n"
