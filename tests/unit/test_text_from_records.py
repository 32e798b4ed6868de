"""Text from records is printed as text: no markup, no terminal commands, no line breaks."""

import logging

import pytest
from elasticsearch_sink_alert.cli import dead_letter_commands
from elasticsearch_sink_alert.kafka import dead_letter_replay
from elasticsearch_sink_alert.settings import SinkSettings

from contract import dead_letters
from runtime import logs
from runtime.logs import escape_controls

HOSTILE = "[/red]\x1b]0;owned\x07[bold]\u202eevil\x9b31m"
SHOWN = r"[/red]\x1b]0;owned\x07[bold]\u202eevil\x9b31m"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("user_765", "user_765"),
        ("Łódź 東京 🎉", "Łódź 東京 🎉"),
        (r"C:\new", r"C:\new"),
        ("a\nb\tc\rd\x00\x7f", r"a\nb\tc\rd\x00\x7f"),
        ("\u2028\u2066\u200b\ufeff", r"\u2028\u2066\u200b\ufeff"),
        ("half \ud83d", r"half \ud83d"),
        ("\U000e0001", r"\U000e0001"),
        (HOSTILE, SHOWN),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert escape_controls(text) == shown


def test_a_log_line_cannot_be_forged_or_control_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        logs.configure("INFO")
        forged = "2026-01-01T00:00:00.000Z ERROR   forged: all is lost"
        logging.getLogger("here").info("refused: %s", f"{HOSTILE}\n{forged}")
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            logging.getLogger("here").exception("failed")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(f"INFO    here: refused: {SHOWN}")
    assert lines[1] == f"    {forged}"
    assert lines[-1].endswith(f"ValueError: {SHOWN}")
    assert "\x1b" not in "".join(lines)


def test_dead_letters_are_printed_as_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    headers = {dead_letters.TOPIC: HOSTILE, dead_letters.REASON: HOSTILE, dead_letters.SERVICE: HOSTILE}
    data = HOSTILE.encode() + b"\xff\n"
    dead_letter = dead_letter_replay.DeadLetter("0-7", "2026-01-01T00:00:00+00:00", data, data, headers, replayed=False)
    monkeypatch.setattr(dead_letter_replay, "read_all", lambda *_: [dead_letter])
    settings = SinkSettings()
    assert dead_letter_commands.show_list(settings, "") == 0
    listed = capsys.readouterr().out
    assert dead_letter_commands.show_one(settings, "0-7") == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in listed + shown
    assert len(listed.splitlines()) == 3, "the header, the dead letter, and the number per service"
    assert shown.splitlines()[-1] == SHOWN + r"\xff\n"
