"""What `check` prints without a server."""

import pytest
from elasticsearch_sink_alert.cli.check import check
from elasticsearch_sink_alert.settings import SinkSettings


def test_the_password_in_the_url_of_elasticsearch_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    settings = SinkSettings(es_host="http://user:secret@127.0.0.1:1")
    assert check(settings, settings.data_mapper) == 1
    printed = capsys.readouterr()
    assert "Elasticsearch at http://user:***@127.0.0.1:1 cannot be queried" in printed.err
    assert "secret" not in printed.out + printed.err
