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


def problems_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
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
def test_a_value_is_what_is_written(folder: Path, written: str, value: str, end: str, export: str) -> None:
    (folder / ".env").write_bytes(f"{export}KAFKA_PASSWORD={written}{end}".encode())
    assert Settings.load().kafka_password == SecretStr(value)


def test_a_byte_order_mark_of_utf_8_is_no_part_of_the_first_name(folder: Path) -> None:
    (folder / ".env").write_bytes("KAFKA_TOPIC=named\n".encode("utf-8-sig"))
    assert Settings.load().kafka_topic == "named"


def test_an_unknown_name_is_named_with_the_one_that_was_meant(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_OPTS", "of another program")
    (folder / ".env").write_text(
        "# The names of a user\n\nKAFKA_TOPIC_PARTITIONS=9\nPRODUCR_RATE=1\nKAFKA_HEAP_OPTS=-Xmx1g\n"
        "COMPOSE_PROJECT_NAME=mine\nDATABASE_URL=x\nKAFKA_PORT=9093\nELASTIC_PASSWORD=x\nkafka_topic=small\n"
    )
    assert warnings_of(folder, capsys) == [
        "3: there is no setting KAFKA_TOPIC_PARTITIONS: did you mean KAFKA_TOPIC_PARTITION?",
        "4: there is no setting PRODUCR_RATE: did you mean PRODUCER_RATE?",
        "5: there is no setting KAFKA_HEAP_OPTS: .env.example names all that there are",
    ]
    assert Settings.load().kafka_topic == "small"


def test_the_example_has_nothing_to_warn_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / ".env").write_text((Path(__file__).parents[2] / ".env.example").read_text())
    assert warnings_of(folder, capsys) == []


def test_of_a_name_that_is_there_twice_the_last_counts_and_a_name_without_a_value_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / ".env").write_text("KAFKA_TOPIC=one\nLOOP_SLEEP\n\nKAFKA_TOPIC=two\n")
    assert warnings_of(folder, capsys) == [
        "2: LOOP_SLEEP has no effect: expected NAME=value",
        "4: KAFKA_TOPIC is on line 1 too: this one counts",
    ]
    assert Settings.load().kafka_topic == "two"


@pytest.mark.parametrize("line", ["KAFKA_TOPIC avroic", "KAFKA_TOPIC: avroic", "KAFKA_PASSWORD='it's'", "=x"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_that_cannot_be_parsed_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], line: str, end: str
) -> None:
    (folder / ".env").write_bytes(f"KAFKA_TOPIC=a{end}{end}{end}{line}{end}LOOP_SLEEP=1{end}".encode())
    (problem,) = problems_of(folder, capsys)
    assert problem == ":4: expected NAME=value, a value that starts with a quote in quotes as a whole"


def test_a_quote_that_is_closed_on_a_later_line_hides_no_setting(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / ".env").write_text("KAFKA_PASSWORD='a\nKAFKA_TOPIC=b'\n")
    assert problems_of(folder, capsys) == [":1: the quote after KAFKA_PASSWORD= is not closed on this line"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_unicode_encoding_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str], encoding: str) -> None:
    (folder / ".env").write_bytes("KAFKA_TOPIC=named\n".encode(encoding))
    assert problems_of(folder, capsys) == [" is UTF-16, or no text: save it as UTF-8"]


def test_latin_1_is_one_line_that_names_the_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / ".env").write_bytes("A=1\nKAFKA_PASSWORD=für\n".encode("latin-1"))
    assert problems_of(folder, capsys) == [":2: byte 0xfc is not UTF-8: save the file as UTF-8"]


def test_a_folder_in_its_place_is_one_line_and_a_virtual_environment_is_none(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / ".env").mkdir()
    assert problems_of(folder, capsys) == [" is a folder: remove it, or rename it; .env is a file with settings"]
    (folder / ".env" / "pyvenv.cfg").touch()
    assert Settings.load().kafka_topic == "avroic"


def test_a_file_that_cannot_be_read_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / ".env").symlink_to(folder / "gone")
    assert problems_of(folder, capsys) == [" cannot be read: No such file or directory"]


def test_an_installation_without_the_example_knows_of_no_wrong_names(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dotenv, "_EXAMPLE", folder / "none")
    (folder / ".env").write_text("KAFKA_TOPICS=x\n")
    assert warnings_of(folder, capsys) == []
