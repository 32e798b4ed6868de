"""A declaration is checked as a whole: each error has its line, and the remedy."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake
from stream_processing.lake import Lake, merge_rows
from stream_processing.measures import key_name

from contract.declaration import Event, Table, count, epoch_seconds, text
from contract.fields import MAX_ID_BYTES
from contract.loading import DeclarationError, load
from contract.pipeline import Pipeline
from contract.tables import Key, decode_row_id, encode_row_id
from local_stack.services import ROOT

_HEAD = """from contract.declaration import *
KIND = choice("kind", "a", "b")
EVENT = Event("events", text("user_id"), KIND, whole("size"), epoch_seconds("at"), time="at", partition_by="user_id")
USERS = Table("users", EVENT, key=("user_id",), measures={"events": count(), "last": latest("at")})
"""
_TAIL = """
PIPELINE = Pipeline(EVENT, tables=TABLES, overview=Overview(total=USERS["events"]))
"""


def _problems(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "pipeline.py"
    file.write_text(text)
    with pytest.raises(DeclarationError) as raised:
        load(file)
    lines = str(raised.value).splitlines()
    assert all(line.startswith(f"{file}") for line in lines)
    return [line.removeprefix(f"{file}:") for line in lines]


def _of(event: str = "", tables: str = "", pipeline: str = "") -> str:
    head = _HEAD.replace('whole("size")', f'whole("size"), {event}') if event else _HEAD
    return f"{head}{tables or 'TABLES = (USERS,)'}{pipeline or _TAIL}"


def test_the_default_declaration_and_the_examples_are_right() -> None:
    files = [ROOT / "pipeline.py", *sorted(ROOT.glob("examples/*/pipeline.py"))]
    assert len(files) == 3
    for file in files:
        assert load(file).tables


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (_of('whole("SIZE")'), "3: event events: the name size occurs 2 times (case does not matter)"),
        (_of('text("a b")'), "3: field 'a b': a name has letters, digits and _, and starts with a letter"),
        (_of('text("_id")'), "3: field '_id': a name has letters, digits and _, and starts with a letter"),
        (_of('choice("c")'), "3: field c: a choice needs at least one value"),
        (_of('choice("c", "x", "x")'), "3: field c: a value is listed twice"),
        (_of('choice("c", "x", "y", weights=(1,))'), "3: field c: 1 weights: expected 2, one for each value"),
        (_of('choice("c", "x", "y", weights=(1, -1))'), "3: field c: a weight is a number, and not negative"),
        (_of('choice("c", "x", "y", weights=(1, "2"))'), "3: field c: a weight is a number, and not negative"),
        (_of('choice("c", "x", "y", weights=(1, float("nan")))'), "3: field c: a weight is a number, and not negative"),
        (_of('choice("c", "x", "y", weights=(0, 0))'), "3: field c: all weights are 0"),
        (_of('decimal("d", places=0)'), "3: field d: places is 0: expected 1 to 17"),
        (_of('text("t", max_bytes=513)'), "3: field t: max_bytes is 513: expected 1 to 512"),
        (_of('whole("w", at_least=2, at_most=1)'), "3: field w: at_least is greater than at_most"),
        (_of('flag("f", default=True)'), "3: field f: only an optional field has a default: add optional=True"),
        (_of('whole("w", optional=True, default="1")'), "3: field w: its default '1' is not a whole"),
        (_HEAD.replace('time="at"', 'time="size"') + "TABLES = (USERS,)" + _TAIL,
         "3: event events: size is a whole, which is no time"),
        (_HEAD.replace('time="at"', 'time="then"') + "TABLES = (USERS,)" + _TAIL,
         "3: event events: time='then' is none of its fields: user_id, kind, size, at"),
        (_HEAD.replace('partition_by="user_id"', 'partition_by="kind"') + "TABLES = (USERS,)" + _TAIL,
         "3: event events: partition_by='kind' is a choice: expected a text"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=("who",), measures={"n": count()}))'),
         "5: table t: key 'who' is none of the event's fields: user_id, kind, size, at"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=("at",), measures={"n": count()}))'),
         "5: table t: key at is a epoch_seconds, expected a text, choice, whole or flag;"
         " for windows of time write every(...) instead"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=(every(minutes=7),), measures={"n": count()}))'),
         "5: table t: window minutes_7: 0:07:00 does not divide a day: expected such as minutes=15 or hours=1"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=(every(),), measures={"n": count()}))'),
         "5: table t: window window: 0:00:00 does not divide a day: expected such as minutes=15 or hours=1"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=(every(hours=1, name="size"),), measures={"n": count()}))'),
         "5: table t: window 'size' needs the name of a column that is no field"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=(every(hours=1, closes_after=minutes(-1)),),'
                    ' measures={"n": count()}))'),
         "5: table t: window hour: closes_after is not within 0 and 100 years"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=(every(hours=1, closes_after=600),),'
                    ' measures={"n": count()}))'),
         "5: table t: window hour: closes_after is 600: expected such as minutes(10)"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=(every(hours=1),), keep=7, measures={"n": count()}))'),
         "5: table t: keep is 7: expected such as days(7)"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=(every(hours=1),), keep=days(40_000),'
                    ' measures={"n": count()}))'),
         "5: table t: keep is more than 100 years"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=(every(hours=1), every(days=1)),'
                    ' measures={"n": count()}))'),
         "5: table t: a key has at most one window"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=("kind",), keep=days(1), measures={"n": count()}))'),
         "5: table t: keep needs a window in the key"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=(every(hours=1),), keep=hours(1),'
                    ' measures={"n": count()}))'),
         "5: table t: keep is shorter than the time until a window is closed, 1:10:00"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=(every(hours=1),), measures={"n": count()}),\n'
                    'Table("u", EVENT, key=("kind", every(hours=1, closes_after=hours(1))), measures={"n": count()}))'),
         "6: window hour differs from that on line 5: rename one"),
        (_of(tables='H = Table("h", EVENT, key=(every(hours=1),), measures={"n": count()})\n'
                    'TABLES = (USERS, H, Table("t", EVENT, key=(), measures={"n": rows_of(H)}))'),
         "6: table t: column n: rows_of cannot count the rows of windows"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=(), measures={"n": distinct("who")}))'),
         "5: table t: column n: distinct: 'who' is none of the event's fields: user_id, kind, size, at"),
        (_of(tables='H = Table("h", EVENT, key=(every(hours=1),), keep=days(1), measures={"n": count()})\n'
                    'TABLES = (USERS, H)',
             pipeline='\nPIPELINE = Pipeline(EVENT, tables=TABLES, overview=Overview(total=H["n"]))'),
         "7: overview: total: rows of h are deleted: see its keep"),
        (_of('text("o", optional=True)', 'TABLES = (USERS, Table("t", EVENT, key=("o",), measures={"n": count()}))'),
         "5: table t: key o is optional and has no default: give it one"),
        (_of(tables='TABLES = (USERS, Table("T-1", EVENT, key=(), measures={"n": count()}))'),
         "5: table 'T-1': expected small letters, digits and _, at most 200, a letter first"),
        (_of(tables='TABLES = (USERS, Table("alerts_x", EVENT, key=(), measures={"n": count()}))'),
         "5: table alerts_x: names that start with alerts are reserved for the indices of the alerts"),
        (_of(tables='TABLES = (USERS, Table("events", EVENT, key=(), measures={"n": count()}))'),
         "5: table events: the table of events has this name"),
        (_of(tables='TABLES = (USERS, Table("users", EVENT, key=(), measures={"n": count()}))'),
         "6: 2 tables have the name users"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=(), measures={}))'), "5: table t: it has no measure"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=("user_id",), measures={"USER_ID": count()}))'),
         "5: table t: column USER_ID occurs twice (case does not matter)"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=(), measures={"n": total("user_id")}))'),
         "5: table t: column n: total: user_id is a text: expected one of whole, decimal, number"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=(), measures={"n": total("what")}))'),
         "5: table t: column n: total: 'what' is none of the event's fields: user_id, kind, size, at"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=(), measures={"n": count(where={KIND: "c"})}))'),
         "5: table t: column n: where: kind is never 'c', only a, b"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=(), measures={"n": ratio(latest("at"), count())}))'),
         "5: table t: column n: a ratio needs two numbers"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=("kind",), measures={"n": rows_of(USERS)}))'),
         "5: table t: column n: rows_of needs a table without a key"),
        (_of(tables='O = Table("o", EVENT, key=(), measures={"n": rows_of(USERS)})\nTABLES = (O,)',
             pipeline='\nPIPELINE = Pipeline(EVENT, tables=TABLES, overview=Overview(total=O["n"]))'),
         "5: table o: column n: users is not in the pipeline"),
        (_of(pipeline='\nPIPELINE = Pipeline(EVENT, tables=TABLES, overview=Overview(total=USERS["n"]))'),
         "6: overview: table users has no 'n': events, last"),
        (_of(pipeline='\nPIPELINE = Pipeline(EVENT, tables=TABLES, overview=Overview(total=USERS["events"], by=KIND))'),
         "6: overview: table users has no count(where={kind: 'a'})"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=(), measures={"n": count(where={"kind": "a"})}))'),
         "5: table t: column n: where: 'kind' is no field: name the field itself, as in where={KIND: 'view'}"),
        (_of(tables='TABLES = (USERS, Table("t", EVENT, key=("user_id"), measures={"n": count()}))'),
         "5: TypeError: key='user_id' is a text: expected a tuple such as ('user_id',)"),
        (_HEAD, " it has to set PIPELINE = Pipeline(...)"),
        ("x = (\n", "1: '(' was never closed"),
        (_HEAD + 'text("x", length=3)\n', "5: TypeError: text() got an unexpected keyword argument 'length'"),
        (_HEAD + "TABLES = (ITEMS,)\n", "5: NameError: name 'ITEMS' is not defined"),
    ],
)  # fmt: skip
def test_an_error_is_reported_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in _problems(tmp_path, text)


def test_all_errors_are_reported_at_once(tmp_path: Path) -> None:
    tables = (
        'TABLES = (USERS, Table("a-b", EVENT, key=("x",),\n  measures={"n": total("y"),\n    "m": mean("user_id")}))'
    )
    found = _problems(tmp_path, _of('choice("c")', tables))
    assert [line.split(":")[0] for line in found] == ["3", "5", "5", "6", "7"]


def test_a_service_with_a_wrong_declaration_ends_with_the_lines_and_status_2(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.py"
    file.write_text(_HEAD + "TABLES = ()" + _TAIL)
    for module in ("stream_processing", "data_producer", "elasticsearch_sink_alert"):
        result = subprocess.run(
            [sys.executable, "-m", module],
            cwd=ROOT, env={"PIPELINE": str(file), "PATH": ""}, capture_output=True, text=True,
        )  # fmt: skip
        assert result.returncode == 2
        assert f"{file}:6: the pipeline has no table" in result.stderr.splitlines()
        assert "Traceback" not in result.stderr
    checked = subprocess.run(
        [sys.executable, "-m", "contract", "check", str(file)], cwd=ROOT, capture_output=True, text=True
    )
    assert (checked.returncode, checked.stdout) == (1, "")
    assert "the pipeline has no table" in checked.stderr


_COUNTS = '"a": count(where={KIND: "a"}), "b": count(where={KIND: "b"})'


def _pipeline(tmp_path: Path, tables: str, overview: str = "") -> Pipeline:
    """Load a declaration whose table of users counts each value of the choice."""
    head = _HEAD.replace('{"events": count(),', f'{{"events": count(), {_COUNTS},')
    total = f"total=USERS['events']{overview}"
    file = tmp_path / "pipeline.py"
    file.write_text(
        f"{head}TABLES = (USERS, {tables})\nPIPELINE = Pipeline(EVENT, tables=TABLES, overview=Overview({total}))\n"
    )
    return load(file)


@pytest.mark.parametrize(
    ("overview", "columns", "title"),
    [
        (", by=KIND", {"a": "a", "b": "b"}, "Events per 90 minutes, by kind"),
        ("", {"n": "n"}, "Events per 90 minutes"),
    ],
)
def test_the_activity_is_in_the_first_table_with_a_row_per_window(
    tmp_path: Path, overview: str, columns: dict[str, str], title: str
) -> None:
    tables = (
        "Table('t', EVENT, key=('kind', every(hours=1)), measures={'n': count()}),"
        f" Table('u', EVENT, key=(every(minutes=90),), measures={{'n': count(), {_COUNTS}}}),"
        " Table('v', EVENT, key=(every(hours=2),), measures={'n': count()})"
    )
    activity = _pipeline(tmp_path, tables, overview).activity
    assert activity is not None
    assert (activity.table.name, dict(activity.columns), activity.title) == ("u", columns, title)


@pytest.mark.parametrize(
    ("measures", "column"),
    [
        ('"d": distinct("user_id"), "a": count(where={KIND: "a"}), "n": count()', "n"),
        ('"s": total("size"), "a": count(where={KIND: "a"}), "m": mean("size")', "a"),
        ('"s": total("size"), "r": ratio(total("size"), count()), "d": distinct("user_id")', None),
    ],
)
def test_if_not_each_value_is_counted_the_activity_is_the_count_of_all_events_or_the_first_count(
    tmp_path: Path, measures: str, column: str | None
) -> None:
    table = f"Table('t', EVENT, key=(every(days=1),), measures={{{measures}}})"
    activity = _pipeline(tmp_path, table, ", by=KIND").activity
    assert (activity and dict(activity.columns)) == (column and {column: column})
    assert activity is None or activity.title == "Events per day"


@pytest.mark.parametrize("file", sorted(ROOT.glob("examples/*/pipeline.py")), ids=lambda file: file.parent.name)
def test_without_windows_there_is_no_activity(file: Path) -> None:
    assert load(file).activity is None


@pytest.mark.parametrize("file", ["pipeline.py", "examples/sensors/pipeline.py"])
def test_a_right_declaration_is_summarised(file: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "contract", "check", file], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith(f"{file}: event ")


def test_the_check_without_a_file_is_of_the_one_that_runs(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text((ROOT / "examples/orders/pipeline.py").read_text())
    for setting, event in (({}, "interactions"), ({"PIPELINE": str(tmp_path / "other.py")}, "orders")):
        result = subprocess.run(
            [sys.executable, "-m", "contract", "check"],
            cwd=ROOT, env=setting, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert f": event {event} " in result.stdout


@pytest.mark.parametrize("name", ["interval", "true", "null", "cast", "old", "userId", "array"])
def test_a_column_can_have_the_name_of_a_word_of_sql(name: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({name: ["a", "b"], "n": [1, 2]})
    write_deltalake(str(tmp_path / "t"), frame)
    event = Event("e", text(name), epoch_seconds("at"), time="at", partition_by=name)
    merge_rows(Lake(str(tmp_path)), Table("t", event, (name,), {"n": count()}), frame.with_columns(n=pl.lit(9)))
    assert pl.read_delta(str(tmp_path / "t")).get_column("n").to_list() == [9, 9]


@pytest.mark.parametrize("file", ["pipeline.py", "examples/sensors/pipeline.py", "examples/orders/pipeline.py"])
def test_the_record_of_the_class_archive_is_one_that_the_fast_reader_takes(file: str) -> None:
    read = "from stream_processing.event_reader import read; from build_tools.cds_archive import canonical_record"
    code = f"{read}; print(read([canonical_record().encode()])[1], canonical_record())"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PIPELINE": file}, capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("[] {")
    # A whole number has no decimal point in canonical form.
    assert '"quantity": 1.0' not in result.stdout


def test_a_key_called_all_has_a_snapshot_of_its_own() -> None:
    assert len({key_name(key) for key in (Key(), Key(("all",)), Key(("all", "b")))}) == 3


def test_different_keys_of_several_columns_have_different_ids() -> None:
    texts = ["a", "b", "|", "\\", "a|b", "a\\", "\\|", "a|", "|a", "\\\\"]
    ids = {encode_row_id([one, two]): [one, two] for one in texts for two in texts}
    assert len(ids) == len(texts) ** 2
    assert all(decode_row_id(row_id) == key for row_id, key in ids.items())
    assert encode_row_id(["|" * MAX_ID_BYTES]) == "|" * MAX_ID_BYTES
