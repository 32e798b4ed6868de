"""What `check` prints without a server."""

import pytest
from elasticsearch_sink_alert.cli import check as check_command
from elasticsearch_sink_alert.cli.check import check
from elasticsearch_sink_alert.settings import SinkSettings


def test_the_password_in_the_url_of_elasticsearch_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    settings = SinkSettings(es_host="http://user:secret@127.0.0.1:1")
    assert check(settings, settings.data_mapper) == 1
    printed = capsys.readouterr()
    assert "Elasticsearch at http://user:***@127.0.0.1:1 cannot be queried" in printed.err
    assert "secret" not in printed.out + printed.err


def test_no_id_of_a_row_controls_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_command, "_report", lambda *_: "true of 1 rows, such as \x1b]0;title\x07 (13)")
    assert check(SinkSettings(), SinkSettings().data_mapper) == 0
    printed = capsys.readouterr().out
    assert "such as \\x1b]0;title\\x07 (13)" in printed
    assert "\x1b" not in printed
