import logging

import pytest

from runtime import logs


def test_log_lines_carry_utc_time_level_and_logger(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        logs.configure("INFO")
        logging.getLogger("some.part").warning("it %s", "happened")
    finally:
        root.handlers[:], root.level = before, level
    line = capsys.readouterr().err.strip()
    assert line.endswith("WARNING some.part: it happened")
    assert line[10] == "T"
    assert line[23] == "Z"
