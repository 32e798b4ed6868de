import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from runtime import dotenv
from runtime.settings import Settings

PASSWORD = "pa${x}ss $y #1"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("x", "something")
    return tmp_path


def warnings_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    Settings.load()
    return [line.removeprefix(f"{folder}/.env:") for line in capsys.readouterr().err.splitlines()]


def errors_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit) as stopped:
        Settings.load()
    assert stopped.value.code == 2
    return [line.removeprefix(f"{folder}/.env") for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (f"'{PASSWORD}'", PASSWORD),
        ("pa${x}ss", "pa${x}ss"),
        ('"pa$x"', "pa$x"),
        ("a#b", "a#b"),
        ("a #b", "a"),
        ("'a #b' # why", "a #b"),
        ("  a b  ", "a b"),
        ("' a '", " a "),
        ("a=b", "a=b"),
        ("ü", "ü"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
@pytest.mark.parametrize("export", ["", "export "])
def test_a_value_is_read_literally(folder: Path, written: str, value: str, end: str, export: str) -> None:
    (folder / ".env").write_bytes(f"{export}KAFKA_PASSWORD={written}{end}".encode())
    assert Settings.load().kafka_password == SecretStr(value)


def test_a_byte_order_mark_is_not_part_of_the_first_name(folder: Path) -> None:
    (folder / ".env").write_bytes("KAFKA_TOPIC=named\n".encode("utf-8-sig"))
    assert Settings.load().kafka_topic == "named"


def test_an_unknown_name_is_reported_with_a_similar_one(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_OPTS", "of another program")
    (folder / ".env").write_text(
        "# The names of a user\n\nKAFKA_TOPIC_PARTITIONS=9\nPRODUCR_RATE=1\nKAFKA_HEAP_OPTS=-Xmx1g\n"
        "COMPOSE_PROJECT_NAME=mine\nDATABASE_URL=x\nKAFKA_PORT=9093\nKIBANA_PORT=5602\nkafka_topic=small\n"
    )
    assert warnings_of(folder, capsys) == [
        "3: unknown setting KAFKA_TOPIC_PARTITIONS is ignored: did you mean KAFKA_TOPIC_PARTITION?",
        "4: unknown setting PRODUCR_RATE is ignored: did you mean PRODUCER_RATE?",
        "5: unknown setting KAFKA_HEAP_OPTS is ignored: .env.example lists all settings",
    ]
    assert Settings.load().kafka_topic == "small"


def test_the_example_causes_no_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / ".env").write_text((Path(__file__).parents[2] / ".env.example").read_text())
    assert warnings_of(folder, capsys) == []


def test_a_duplicate_name_and_a_name_without_a_value_are_reported(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / ".env").write_text("KAFKA_TOPIC=one\nLOOP_SLEEP\n\nKAFKA_TOPIC=two\n")
    assert warnings_of(folder, capsys) == [
        "2: LOOP_SLEEP has no effect: expected NAME=value",
        "4: KAFKA_TOPIC is also set on line 1: this line takes precedence",
    ]
    assert Settings.load().kafka_topic == "two"


@pytest.mark.parametrize("line", ["KAFKA_TOPIC avroic", "KAFKA_TOPIC: avroic", "KAFKA_PASSWORD='it's'", "=x"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_that_cannot_be_parsed_is_reported(
    folder: Path, capsys: pytest.CaptureFixture[str], line: str, end: str
) -> None:
    (folder / ".env").write_bytes(f"KAFKA_TOPIC=a{end}{end}{end}{line}{end}LOOP_SLEEP=1{end}".encode())
    (error,) = errors_of(folder, capsys)
    assert error == ":4: expected NAME=value; a value that starts with a quote has to end with it"


def test_a_quote_that_is_closed_on_a_later_line_is_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / ".env").write_text("KAFKA_PASSWORD='a\nKAFKA_TOPIC=b'\n")
    assert errors_of(folder, capsys) == [":1: the quote after KAFKA_PASSWORD= is not closed on this line"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_unicode_encoding_is_reported_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], encoding: str
) -> None:
    (folder / ".env").write_bytes("KAFKA_TOPIC=named\n".encode(encoding))
    assert errors_of(folder, capsys) == [" is UTF-16 or not text: save it as UTF-8"]


def test_latin_1_is_reported_with_its_line_number(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / ".env").write_bytes("A=1\nKAFKA_PASSWORD=für\n".encode("latin-1"))
    assert errors_of(folder, capsys) == [":2: byte 0xfc is not UTF-8: save the file as UTF-8"]


def test_a_folder_of_that_name_is_reported_unless_it_is_a_virtual_environment(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / ".env").mkdir()
    assert errors_of(folder, capsys) == [" is a folder, not a file with settings: remove it, or rename it"]
    (folder / ".env" / "pyvenv.cfg").touch()
    assert Settings.load().kafka_topic == "avroic"


def test_a_pipe_of_that_name_is_reported_and_not_waited_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(folder / ".env")
    assert errors_of(folder, capsys) == [" is not a regular file: remove it, or replace it by a file with settings"]


def test_a_long_name_is_cut_and_a_password_in_it_is_not_printed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / ".env").write_text(f"KAFKA_{'A' * 5_000}=1\nhttp://user:secret@localhost\n")
    assert warnings_of(folder, capsys) == [
        f"1: unknown setting KAFKA_{'A' * 94}… is ignored: .env.example lists all settings",
        "2: http://user:***@localhost has no effect: expected NAME=value",
    ]


def test_an_unreadable_file_is_reported_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / ".env").symlink_to(folder / "gone")
    assert errors_of(folder, capsys) == [" cannot be read: No such file or directory"]


def test_unknown_names_are_not_reported_without_the_example(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dotenv, "_EXAMPLE", folder / "none")
    (folder / ".env").write_text("KAFKA_TOPICS=x\n")
    assert warnings_of(folder, capsys) == []
