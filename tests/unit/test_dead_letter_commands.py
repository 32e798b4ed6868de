"""What the commands for dead letters print, without a server."""

import pytest
from elasticsearch_sink_alert.cli import dead_letter_commands
from elasticsearch_sink_alert.kafka import dead_letter_replay
from elasticsearch_sink_alert.kafka.dead_letter_replay import DeadLetter, Latest, TopicRows
from elasticsearch_sink_alert.settings import SinkSettings

from contract import dead_letters

SETTINGS = SinkSettings()


def _dead_letter(id_: str, service: str, key: bytes | None = None, *, value: bytes | None = b"{}") -> DeadLetter:
    headers = {
        dead_letters.TOPIC: "avroic",
        dead_letters.PARTITION: "3",
        dead_letters.OFFSET: "2022",
        dead_letters.REASON: "not JSON",
        dead_letters.SERVICE: service,
    }
    return DeadLetter(id_, "2026-01-01T00:00:00+00:00", key, value, headers, replayed=id_ == "0-2")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[DeadLetter]:
    """The dead letters of the topic: a test adds them."""
    added: list[DeadLetter] = []
    monkeypatch.setattr(dead_letter_replay, "read_all", lambda *_: added)
    return added


def test_the_list_names_its_columns(found: list[DeadLetter], capsys: pytest.CaptureFixture[str]) -> None:
    found += [
        _dead_letter("0-1", "stream-processing", b"user_1"),
        _dead_letter("0-2", "stream-processing"),
        _dead_letter("0-3", "stream-processing", b"k" * 60),
    ]
    assert dead_letter_commands.show_list(SETTINGS, "") == 0
    assert [line.split(maxsplit=6) for line in capsys.readouterr().out.splitlines()] == [
        ["ID", "TIME", "TOPIC", "PARTITION", "OFFSET", "KEY", "REASON"],
        ["0-1", "2026-01-01T00:00:00+00:00", "avroic", "3", "2022", "user_1", "not JSON"],
        ["0-2", "2026-01-01T00:00:00+00:00", "avroic", "3", "2022", "none", "not JSON  (replayed)"],
        ["0-3", "2026-01-01T00:00:00+00:00", "avroic", "3", "2022", "k" * 60, "not JSON"],
        ["3", "dead", "letters", "of", "stream-processing"],
    ]


def test_the_columns_of_the_list_are_aligned(found: list[DeadLetter], capsys: pytest.CaptureFixture[str]) -> None:
    found += [_dead_letter("0-1", "stream-processing", b"user_1"), _dead_letter("10-200", "stream-processing")]
    dead_letter_commands.show_list(SETTINGS, "")
    header, *lines, _ = capsys.readouterr().out.splitlines()
    for column, text in {"TOPIC": "avroic", "OFFSET": "2022", "REASON": "not JSON"}.items():
        assert {line.index(text) for line in lines} == {header.index(column)}


def test_without_dead_letters_the_list_has_no_header(
    found: list[DeadLetter], capsys: pytest.CaptureFixture[str]
) -> None:
    assert dead_letter_commands.show_list(SETTINGS, "") == 0
    assert capsys.readouterr().out == "no dead letters\n"


@pytest.mark.parametrize(
    ("key", "value", "last_lines"),
    [
        (b"user_1", b"{}", ["key: user_1", "", "{}"]),
        (None, None, ["key: none", "", "none"]),
        (b"", b"", ["key: empty", "", "empty"]),
    ],
)
def test_a_dead_letter_is_shown_with_its_time_its_headers_and_what_it_lacks(
    found: list[DeadLetter],
    capsys: pytest.CaptureFixture[str],
    key: bytes | None,
    value: bytes | None,
    last_lines: list[str],
) -> None:
    found.append(_dead_letter("0-1", "stream-processing", key, value=value))
    assert dead_letter_commands.show_one(SETTINGS, "0-1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "time: 2026-01-01T00:00:00+00:00"
    assert "dead_letter.reason: not JSON" in lines
    assert lines[-3:] == last_lines


def test_what_is_never_replayed_is_counted_with_the_reason(
    found: list[DeadLetter], capsys: pytest.CaptureFixture[str]
) -> None:
    found += [_dead_letter(f"1-{n}", "stream-processing", b"user_1") for n in range(12)]
    assert dead_letter_commands.replay(SETTINGS, "", again=False) == 0
    why = "not replayed, the same bytes would be rejected again"
    assert capsys.readouterr().out == f"12 dead letters of stream-processing: {why}\n"
    found[:] = [_dead_letter("1-1", "elasticsearch-sink-alert"), _dead_letter("1-2", "elasticsearch-sink-alert", b"")]
    assert dead_letter_commands.replay(SETTINGS, "", again=False) == 0
    assert capsys.readouterr().out == f"2 dead letters without a key: {why}\n"
    found.pop()
    assert dead_letter_commands.replay(SETTINGS, "", again=False) == 0
    assert capsys.readouterr().out == f"1 dead letter without a key: {why}\n"
    found.clear()
    assert dead_letter_commands.replay(SETTINGS, "", again=False) == 0
    assert capsys.readouterr().out == "0 replayed, 0 skipped\n"


def test_no_header_of_a_dead_letter_controls_the_terminal(
    found: list[DeadLetter], capsys: pytest.CaptureFixture[str]
) -> None:
    dead_letter = _dead_letter("0-1", "stream-processing")
    dead_letter.headers["\x1b]0;name\x07\nkey: forged"] = "\x1b]0;value\x07"
    found.append(dead_letter)
    assert dead_letter_commands.show_one(SETTINGS, "0-1") == 0
    printed = capsys.readouterr().out
    assert "\\x1b]0;name\\x07\\nkey: forged: \\x1b]0;value\\x07\n" in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize("offset", [None, "", "x", "-1", "²", "9" * 5_000])
def test_a_foreign_dead_letter_without_its_position_is_skipped(
    found: list[DeadLetter], offset: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dead_letter = _dead_letter("0-1", "elasticsearch-sink-alert", b"avg_interactions")
    if offset is None:
        del dead_letter.headers[dead_letters.OFFSET]
    else:
        dead_letter.headers[dead_letters.OFFSET] = offset
    found.append(dead_letter)
    rows = TopicRows({b"avg_interactions": Latest(0, 5, 9)})
    monkeypatch.setattr(dead_letter_replay, "rows_of_topic", lambda *_: rows)
    assert dead_letter_commands.replay(SETTINGS, "", again=False) == 0
    assert "0-1 is skipped, its headers do not say where it was" in capsys.readouterr().out


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str]]]:
    """The topic and the headers of what is sent."""
    topics: list[tuple[str, dict[str, str]]] = []

    def send(_: object, topic: str, __: object, ___: object, headers: dict[str, str]) -> None:
        topics.append((topic, headers))

    monkeypatch.setattr(dead_letter_replay, "_send", send)
    return topics


def _replay_with(
    monkeypatch: pytest.MonkeyPatch, rows: TopicRows, *chosen: DeadLetter, again: bool = False
) -> list[str]:
    monkeypatch.setattr(dead_letter_replay, "rows_of_topic", lambda *_: rows)
    return [each.skipped for each in dead_letter_replay.replay(SETTINGS, chosen, again=again)]


def test_a_dead_letter_is_marked_before_it_is_sent_so_no_kill_has_it_sent_twice(
    monkeypatch: pytest.MonkeyPatch, sent: list[tuple[str, dict[str, str]]]
) -> None:
    letter = _dead_letter("0-1", "elasticsearch-sink-alert", b"avg_interactions")
    assert _replay_with(monkeypatch, TopicRows({}), letter) == [""]
    assert sent == [
        (SETTINGS.dead_letter_topic, {dead_letters.REPLAYED: "0-1"}),
        (SETTINGS.aggregated_topic, {dead_letters.REPLAY_OF: "0-1"}),
    ]


def test_a_replay_that_was_interrupted_is_finished_and_a_whole_one_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, sent: list[tuple[str, dict[str, str]]]
) -> None:
    marked = _dead_letter("0-2", "elasticsearch-sink-alert", b"avg_interactions")
    assert marked.replayed
    assert _replay_with(monkeypatch, TopicRows({}), marked) == [""]
    whole = TopicRows({}, {b"avg_interactions": {"0-2"}})
    assert _replay_with(monkeypatch, whole, marked) == ["it was replayed already"]
    assert _replay_with(monkeypatch, whole, marked, again=True) == [""]
    assert len(sent) == 4


def test_an_older_dead_letter_does_not_replace_the_replay_of_a_later_one(
    monkeypatch: pytest.MonkeyPatch, sent: list[tuple[str, dict[str, str]]]
) -> None:
    older = _dead_letter("0-1", "elasticsearch-sink-alert", b"avg_interactions")
    later = _dead_letter("0-5", "elasticsearch-sink-alert", b"avg_interactions")
    later.headers[dead_letters.OFFSET] = "3000"
    # Compaction has removed the original of the later one: only its replay is left.
    rows = TopicRows({}, {b"avg_interactions": {"0-5"}})
    assert _replay_with(monkeypatch, rows, older, later) == ["the topic has a later row of its key", ""]
    assert {headers.get(dead_letters.REPLAY_OF, "0-5") for _, headers in sent} == {"0-5"}


def test_two_replays_that_have_looked_before_either_has_sent_send_equal_records(
    monkeypatch: pytest.MonkeyPatch, sent: list[tuple[str, dict[str, str]]]
) -> None:
    letter = _dead_letter("0-1", "elasticsearch-sink-alert", b"avg_interactions")
    for _ in range(2):
        assert _replay_with(monkeypatch, TopicRows({}), letter) == [""]
    first, second = sent[:2], sent[2:]
    # The sink takes both for replays of the same dead letter: neither becomes another one.
    assert first == second
