"""Any data mapper gives plain values, or one line per problem, and never anything else."""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from elasticsearch_sink_alert.alerting import data_mapper
from elasticsearch_sink_alert.alerting.alert_lifecycle import alert_from, evaluate
from elasticsearch_sink_alert.alerting.data_mapper import DataMapper, DataMapperError, ReloadingRules
from elasticsearch_sink_alert.alerting.rules import Rule
from elasticsearch_sink_alert.cli.check import query
from elasticsearch_sink_alert.kafka.rows import Record, Row

from contract.declared import TABLES
from contract.fields import ColumnType
from contract.keys import RowKey

HEAD = "agg_interactions_item:\n  id: item_id\n  alerts:\n"
USERS = "agg_interactions_user:\n  id: user_id\n  alerts:\n"


def _load(folder: Path, text: str | bytes) -> DataMapper:
    mapper = folder / "mapper.yml"
    mapper.write_bytes(text if isinstance(text, bytes) else text.encode())
    return data_mapper.load(mapper)


def _problems(folder: Path, text: str | bytes) -> list[str]:
    """Return the lines of the error, without the file's path."""
    with pytest.raises(DataMapperError) as raised:
        _load(folder, text)
    lines = str(raised.value).splitlines()
    assert all(line.startswith(str(folder)) and line.isprintable() and len(line) < 2_000 for line in lines), lines
    return [line.removeprefix(f"{folder / 'mapper.yml'}:") for line in lines]


def _assert_plain(rule: Rule) -> None:
    """Assert that the rule has plain Python values: its alert and its query can be serialized."""
    for value in (
        rule.threshold,
        rule.resolve,
        rule.for_seconds,
        rule.within,
        rule.declared_name,
        *rule.silence,
        rule.operator,
    ):
        assert type(value) in (int, float, str, type(None)), (rule, type(value))
    high = {ColumnType.LONG: 1 << 62, ColumnType.DOUBLE: 1e300, ColumnType.KEYWORD: "zz"}
    field_value: Any
    for field_value in (high.get(rule.column_type, "9999-01-01T00:00:00Z"), rule.threshold):
        record = Record("t", 0, 0, 1_000, b"", b"")
        row = Row(RowKey(rule.table, "a"), {rule.field: field_value}, 1, record)
        for alert in evaluate({rule.table: [rule]}, [row], {}, {}, {}):
            document = orjson.loads(orjson.dumps(alert.document()))
            assert alert_from(alert.alert_id, document) == alert
            assert all(len(str(text).encode()) < 32_766 for text in document.values())
    orjson.dumps(query(rule))


@pytest.mark.parametrize(
    ("field", "written", "expected"),
    [
        ("avg_interactions", "40.5", 40.5),
        ("avg_interactions", "1e5", 100_000.0),
        ("avg_interactions", "-1.5e+3", -1500.0),
        ("avg_interactions", "40", 40),
        ("total_interactions", "40.5", 40.5),
        ("total_interactions", "0x1F", 31),
        ("total_interactions", "0o17", 15),
        ("total_interactions", "1_000", 1000),
        ("total_interactions", "9223372036854775807", (1 << 63) - 1),
        ("total_interactions", "!!int 5", 5),
        ("user_id", "plain", "plain"),
        ("user_id", '"double é \\U0001F600"', "double é 😀"),
        ("user_id", "'single'", "single"),
        ("user_id", "2026-01-31", "2026-01-31"),
        ("user_id", "!!str 12", "12"),
        ("user_id", "yes", "yes"),
        ("last_interaction", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("last_interaction", '"2026-01-31 12:00:00+01:00"', "2026-01-31 12:00:00+01:00"),
    ],
)
def test_a_threshold_becomes_a_plain_value_however_it_is_written(
    tmp_path: Path, field: str, written: str, expected: Any
) -> None:
    (rule,) = _load(tmp_path, f'{USERS}    - [{field}, ">", {written}]\n').all_rules
    assert (type(rule.threshold), rule.threshold) == (type(expected), expected)
    _assert_plain(rule)


def test_block_scalars_anchors_and_merge_keys_give_plain_rules(tmp_path: Path) -> None:
    text = f"""{USERS}
    - &busy {{field: total_interactions, operator: ">", threshold: &most 100, silence: &tests ["test_*"], for: 1_0}}
    - {{<<: *busy, threshold: 0x3e8, severity: critical}}
    - field: user_id
      operator: "=="
      threshold: >-
        ann
      name: |
        watched
      silence: *tests
"""
    with pytest.raises(DataMapperError, match=r"name 'watched.n' holds characters that cannot be shown"):
        _load(tmp_path, text)
    rules = _load(tmp_path, text.replace("name: |", "name: |-")).all_rules
    assert [(rule.threshold, rule.severity, rule.silence, rule.for_seconds) for rule in rules] == [
        (100, "warning", ("test_*",), 10),
        (1000, "critical", ("test_*",), 10),
        ("ann", "warning", ("test_*",), 0),
    ]
    assert rules[2].name == "watched"
    for rule in rules:
        _assert_plain(rule)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ('[avg_interactions, "<", .nan]', "'.nan' is not a finite number"),
        ('[avg_interactions, "<", -.inf]', "'-.inf' is not a finite number"),
        ('[avg_interactions, "<", 1e999]', "'1e999' is not a finite number"),
        ('[total_interactions, "<", 9223372036854775808]', "'9223372036854775808' is an integer beyond 64 bits"),
        ('[avg_interactions, "<", -9223372036854775809]', "is an integer beyond 64 bits"),
        (f'[avg_interactions, "<", {"9" * 5000}]', "is an integer beyond 64 bits"),
        ('[total_interactions, "<", 9.3e18]', "threshold 9.3e+18 is beyond the 64 bits of total_interactions"),
        ('[total_interactions, "<", -1e300]', "threshold -1e+300 is beyond the 64 bits of total_interactions"),
        ('{field: total_interactions, operator: "<", threshold: 1, resolve: 1e30}', "resolve 1e+30 is beyond the 64"),
        ('[user_id, "==", "ann\\ud83d"]', "'ann\\ud83d' holds half a surrogate pair"),
        ('[user_id, "==", "\\ud83d\\ude00"]', "holds half a surrogate pair"),
        (f'[user_id, "==", {"é" * 257}]', "is longer than the 512 bytes of user_id"),
        ('[last_interaction, ">", 2026-01-31]', "threshold '2026-01-31' is not a timestamp"),
        ('[last_interaction, ">", "0001-01-01T00:00:00+14:00"]', "is not a timestamp"),
        ('[user_id, "==", !!binary aGk=]', "the tag 'tag:yaml.org,2002:binary' is not allowed"),
        ('[user_id, "==", !mine x]', "the tag '!mine' is not allowed"),
        ('[user_id, "==", !!int ann]', "'ann' is not of the type int"),
        ('[[user_id], "==", ann]', "unknown field ['user_id']"),
        ('[user_id, ["=="], ann]', "unknown operator ['==']"),
        ('[user_id, {"==": 1}, ann]', "unknown operator {'==': 1}"),
        ('[user_id, "==", [ann]]', "threshold ['ann'] is of the wrong type"),
        ('{field: user_id, operator: "==", threshold: ann, severity: [info]}', "unknown severity ['info']"),
        ('{field: user_id, operator: "==", threshold: ann, name: {a: b}}', "name is {'a': 'b'}: expected text"),
        (f'{{field: user_id, operator: "==", threshold: ann, name: {"n" * 513}}}', "is longer than 512 bytes"),
        ('{field: user_id, operator: "==", threshold: ann, name: "a\\nb"}', "holds characters that cannot be shown"),
        ('{field: user_id, operator: "==", threshold: ann, name: "\\0"}', "holds characters that cannot be shown"),
        ('{field: user_id, operator: "==", threshold: ann, for: .inf}', "'.inf' is not a finite number"),
        (f'{{field: user_id, operator: "==", threshold: a, silence: ["*{"a" * 128}"]}}', "is too large a pattern"),
        ('{field: user_id, operator: "==", threshold: a, silence: ["*a?????????"]}', "is too large a pattern"),
        (
            f'{{field: user_id, operator: "==", threshold: a, silence: ["{"a" * 513}"]}}',
            "is longer than the 512 bytes of an id",
        ),
        ('{field: user_id, operator: "==", threshold: ann, field: user_id}', "'field' is already on line 4"),
        ('{field: total_interactions, operator: ">=", threshold: 0, within: 60, resolve: null}', "a change of 0 must"),
        ("{? [field] : user_id}", "a key is ['field']: expected a name"),
        ("{1: 2}", "a key is 1: expected a name"),
        ("{<<: 5}", "<< takes a mapping"),
        ("&me [*me]", "an alias refers to a value that contains it"),
        ("*nobody", "found undefined alias 'nobody'"),
    ],
)
def test_a_value_that_a_later_stage_cannot_use_is_refused_with_its_line(tmp_path: Path, rule: str, reason: str) -> None:
    (problem, *_) = _problems(tmp_path, f"{USERS}    - {rule}\n")
    assert problem.startswith("4: ")
    assert reason in problem


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            '{field: total_interactions, operator: ">", treshold: 3, severity: high}',
            ["unknown option 'treshold': did you mean threshold?", "unknown severity 'high': expected info, warning,"],
        ),
        (
            "[avg_interaction, =<, forty]",
            [
                "unknown field 'avg_interaction': did you mean avg_interactions?",
                "unknown operator '=<': expected >, >=, <, <=, ==, !=",
                "threshold 'forty' is of the wrong type: avg_interactions is a double, expected a number",
            ],
        ),
        (
            "{feild: avg_interactions, operator: '<', threshold: forty, colour: red, sevrity: high}",
            [
                "unknown option 'feild': did you mean field?",
                "unknown option 'colour': expected field, operator, threshold, name, severity, resolve, for,",
                "unknown option 'sevrity': did you mean severity?",
                "threshold 'forty' is of the wrong type",
                "unknown severity 'high'",
            ],
        ),
        (
            '{field: colour, operator: ">", threshold: [], resolve: {}, for: -1, silence: 5, within: 0, name: 1}',
            [
                "unknown field 'colour': expected user_id, total_click",
                "threshold [] is of the wrong type: expected a number or text",
                "name is 1: expected text",
                "resolve {} is of the wrong type: expected a number or text",
                "for is -1: expected seconds",
                "silence is 5: expected a list",
                "within is 0: expected seconds",
                "for does not go with within",
            ],
        ),
        (
            '{field: total_click, operator: "=", threshold: 1, resolve: low, within: soon}',
            ["unknown operator '='", "resolve 'low' is of the wrong type", "within is 'soon': expected seconds"],
        ),
        ("{field: total_click}", ["operator, threshold are missing: expected [field, operator, threshold], or"]),
        ('{operator: ">", threshold: 5}', ["field is missing: expected [field, operator, threshold], or"]),
    ],
)
def test_every_problem_of_a_rule_is_reported(tmp_path: Path, rule: str, expected: list[str]) -> None:
    problems = _problems(tmp_path, f"{USERS}    - {rule}\n")
    assert len(problems) == len(expected), problems
    for problem, text in zip(problems, expected, strict=True):
        assert f": {text}" in problem


def test_a_rule_is_quoted_as_it_stands_in_the_file(tmp_path: Path) -> None:
    written = (
        '{field: total_interactions, operator: ">", threshold: "5", silence: [ann, "test_*"], for: true, name: null}'
    )
    (problem, *_) = _problems(tmp_path, f"{USERS}    - {written}\n")
    assert f"rule {written}: " in problem


def test_a_rule_of_many_unknown_options_takes_no_time(tmp_path: Path) -> None:
    began = time.process_time()
    options = ", ".join(f"o{n}: 1" for n in range(2_000))
    assert len(_problems(tmp_path, f"{USERS}    - {{{options}}}\n")) == 51
    assert time.process_time() - began < 4


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "1: expected tables"),
        (b"\x00\x01\x02", "1: holds the character U+0000, which YAML does not allow"),
        (HEAD.encode() + b"    - \x07\n", "4: holds the character U+0007"),
        (HEAD.encode() + b"    - \xff\xfe\n", "4: not UTF-8 text: save it as UTF-8"),
        (HEAD.encode("utf-16"), "1: not UTF-8 text"),
        (bytes(range(256)) * 8, "2: not UTF-8 text"),
        (b"a: 1\n---\nb: 2\n", "2: holds several documents: expected one"),
        (b"x" * (300 << 10), "1: is larger than 256 KiB"),
        (b"{a: " * 20_000, "1: is nested more than 50 levels deep"),
        (b"- " * 20_000 + b"a", "1: is nested more than 50 levels deep"),
        (b"[\n" * 100, "51: is nested more than 50 levels deep"),
        (b"!!python/object/apply:os.system [ls]", "1: the tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        (b"a: b: c", "1: not YAML: mapping values are not allowed here"),
        (b"\ttabs", "1: not YAML"),
        (b"agg_interactions_item: *x\n", "1: not YAML: found undefined alias 'x'"),
        (b"agg_interactions_item: *" + b"x" * 5_000, f"1: not YAML: found undefined alias '{'x' * 57}…"),
        (b"agg_interactions_item: []\nagg_interactions_item: []\n", "2: 'agg_interactions_item' is already on line 1"),
    ],
)
def test_a_file_that_is_not_a_data_mapper_is_reported_in_one_line(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    (problem,) = _problems(tmp_path, content)
    assert problem.startswith(expected)


OPEN_LIST = HEAD + '    - [max_interactions, ">", 12'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{OPEN_LIST}\n\n{USERS}", "4: not YAML: the list that starts here is not closed by ] before line 6"),
        (f"{OPEN_LIST}\n    - [a]\n", "4: not YAML: the list that starts here is not closed by ] before line 5"),
        (f"{OPEN_LIST}\n\n", "4: not YAML: the list that starts here is not closed by ] before the end of the file"),
        (
            f"{HEAD}    - {{field: a\n\n{USERS}",
            "4: not YAML: the mapping that starts here is not closed by } before line",
        ),
        (
            f"{HEAD}    - [a, 'x]\n",
            "4: not YAML: the text that starts here is not closed by a quote before the end of the",
        ),
        (f'{OPEN_LIST} 13: 4, "<"\n', "4: not YAML: the list that starts here"),
        (f"{HEAD}    - [a, '>', 3]]\n", "4: not YAML: expected <block end>, but found ']'"),
    ],
)
def test_what_is_not_closed_is_reported_where_it_starts(tmp_path: Path, text: str, expected: str) -> None:
    (problem,) = _problems(tmp_path, text)
    assert problem.startswith(expected)
    assert "operator" not in problem


@pytest.mark.parametrize(
    ("rule", "operator"),
    [
        ("[max_interactions, >, 12]", ">"),
        ("[max_interactions,>=,12]", ">="),
        ("[max_interactions, !=, 12]", "!="),
        ("{field: a, operator: >, threshold: 12} # >", ">"),
        ("{field: a, operator: !=, threshold: 12}", "!="),
        ("field: a\n      operator: >=\n      threshold: 12", ">="),
    ],
)
def test_an_operator_without_quotes_is_named(tmp_path: Path, rule: str, operator: str) -> None:
    (problem, *_) = _problems(tmp_path, f"{HEAD}    - {rule}\n")
    assert problem.endswith(f'(an operator needs quotes: "{operator}")')


def test_a_bomb_of_aliases_is_refused_at_once(tmp_path: Path) -> None:
    levels = [f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]" for n in range(20)]
    (problem,) = _problems(tmp_path, "\n".join(["a: &a [x, x, x, x, x, x, x, x, x]", *levels]))
    assert "holds more than 50000 values, counting what its aliases repeat" in problem


def test_nesting_is_refused_before_it_takes_time(tmp_path: Path) -> None:
    began = time.process_time()
    assert _problems(tmp_path, HEAD + "    - " + "[" * 20_000) == ["4: is nested more than 50 levels deep"]
    assert time.process_time() - began < 4


def test_aliases_that_nest_are_refused_as_brackets_are(tmp_path: Path) -> None:
    levels = [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 60)]
    assert _problems(tmp_path, "\n".join(["a0: &a0 [x]", *levels])) == ["1: is nested more than 50 levels deep"]


def test_problems_of_an_alias_are_reported_once_and_long_lists_are_cut(tmp_path: Path) -> None:
    assert _problems(tmp_path, "a: &a [.nan]\nb: [*a, *a, *a]\n") == ["1: '.nan' is not a finite number"]
    many = _problems(tmp_path, HEAD + "    - [item, 1]\n" * 80)
    assert len(many) == 51
    assert many[-1].endswith("and 30 more problems")


def test_a_path_that_is_not_a_file_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for path, reason in [
        (tmp_path, "is not a regular file"),
        (tmp_path / "fifo", "is not a regular file"),
        (Path("/dev/zero"), "is not a regular file"),
        (tmp_path / "loop", "cannot be read: Too many levels of symbolic links$"),
        (tmp_path / "nowhere" / "mapper.yml", "mapper.yml does not exist$"),
        (tmp_path / "a\0b", "cannot be read"),
        (tmp_path / ("n" * 300), "cannot be read: File name too long$"),
    ]:
        with pytest.raises(DataMapperError, match=reason):
            data_mapper.load(path)


@pytest.mark.parametrize("becomes", ["gone", "folder", "rubbish", "structure", "bomb"])
def test_the_last_valid_rules_stay_in_force_however_the_file_breaks(tmp_path: Path, becomes: str) -> None:
    mapper = tmp_path / "mapper.yml"
    valid_text = HEAD + '    - [max_interactions, ">", 12]\n'
    mapper.write_text(valid_text)
    rules = ReloadingRules(mapper)
    mapper.unlink()
    if becomes == "folder":
        mapper.mkdir()
    elif becomes != "gone":
        wrong = {"rubbish": b"\0\xff", "structure": b"[[{[a]: b}]]", "bomb": b"{a: " * 50_000}
        mapper.write_bytes(wrong[becomes])
    if mapper.exists():
        os.utime(mapper, (time.time() - 5,) * 2)
    with pytest.raises(DataMapperError):
        rules.reload()
    assert [rule.threshold for rule in rules.current.all_rules] == [12]
    if mapper.is_dir():
        mapper.rmdir()
    mapper.write_text(valid_text.replace("12", "13"))
    os.utime(mapper, (time.time() - 4,) * 2)
    assert rules.reload()
    assert [rule.threshold for rule in rules.current.all_rules] == [13]


def test_a_file_with_a_modification_time_in_the_future_is_reloaded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapper = tmp_path / "mapper.yml"
    mapper.write_text(HEAD + '    - [max_interactions, ">", 12]\n')
    rules = ReloadingRules(mapper)
    mapper.write_text(HEAD + '    - [max_interactions, ">", 13]\n')
    now = time.time_ns()
    os.utime(mapper, ns=(now + 10**15,) * 2)
    monkeypatch.setattr(time, "time_ns", lambda: now)
    assert not rules.reload()
    monkeypatch.setattr(time, "time_ns", lambda: now + 2 * 10**9)
    assert rules.reload()


ODD = (
    "null", "~", "true", "no", "-1", "0", "0x10", "1_0", "1e5", "-1e400", ".inf", ".NaN", "12", "9" * 30, "1" * 5000,
    "0b1", "2026-01-31", "2026-01-31T12:00:00Z", "1:30", "=", "''", "' '", "text", '"\\0"', '"\\ud800"', '"\\x1b]0;x"',
    "é", "😀", "x" * 600, '"*" ', '"**********"', "[]", "[[]]", "[a, b, c]", "{}", "{a: b}", "{[a]: b}", "{{}: []}",
    "{? : }", "&a [*a]", "*b", "!x y", "!!set {a}", "!!binary aGk=", "!!int x", "!!float x", "!!bool x", "!!null x",
    "!!timestamp x", "!!omap [a: b]", "!!str [a]", "!!map x", "<<", "{<<: {field: a}}", "{<<: [1]}", "|", ">-", "---",
    "...", "%YAML 1.1", "? a", "- a", "#", "\t", "\0", "\x85", "\u2028", "\ufeff", "@", "`", "'", '"', "[", "}", ",",
    "user_id", "max_interactions", '">"', '"=="', "critical", "5", "5.5", "user_1",
)  # fmt: skip
"""Values in YAML notation, and text that is not YAML."""

SHAPES = (
    "{0}: {1}\n",
    "{table}:\n  {0}: {1}\n  alerts: {2}\n",
    "{table}:\n  id: {id}\n  alerts: {0}\n",
    "{table}:\n  id: {id}\n  alerts:\n    - {0}\n    - {1}\n",
    "{table}:\n  id: {id}\n  alerts:\n    - [{0}, {1}, {2}]\n",
    "{table}:\n  id: {id}\n  alerts:\n    - [{field}, {0}, {1}]\n    - [{field}, {operator}, {2}]\n",
    "{table}:\n  id: {id}\n  alerts:\n    - {{field: {field}, operator: {operator}, threshold: {0}, {option}: {1}}}\n",
    "{table}:\n  id: {id}\n  alerts:\n    - {{field: {field}, operator: {operator}, threshold: 5, {option}: {0}}}\n",
    "{table}:\n  id: {id}\n  alerts:\n    - field: {field}\n      operator: {operator}\n      {0}: {1}\n"
    "      threshold: {2}\n",
)  # fmt: skip
"""Data mappers with room for odd values."""


def _mappers() -> Iterator[str]:
    """Yield each unusual value in each shape, with other unusual or ordinary values."""
    rng = random.Random(7)
    for shape in SHAPES:
        for odd in ODD:
            table = rng.choice(TABLES)
            other_values = ODD if rng.random() < 0.3 else ("5", "7.5", "user_1", "[]")
            values = [odd, rng.choice(other_values), rng.choice(other_values)]
            rng.shuffle(values)
            yield shape.format(
                *values,
                table=table.name,
                id=list(table.key) if len(table.key) > 1 else next(iter(table.key), table.name),
                field=rng.choice(table.columns).name,
                operator=rng.choice(['">"', '"<="', '"=="', '"!="']),
                option=rng.choice(["name", "severity", "resolve", "for", "silence", "within"]),
            )


def test_odd_values_in_every_position_give_plain_rules_or_a_line_with_the_problem(tmp_path: Path) -> None:
    mapper = tmp_path / "mapper.yml"
    valid_count = 0
    for text in _mappers():
        mapper.write_bytes(text.encode())
        try:
            rules = data_mapper.load(mapper).all_rules
        except DataMapperError as error:
            for line in str(error).splitlines():
                assert line.startswith(f"{mapper}:"), text
                assert line.isprintable(), text
            continue
        valid_count += 1
        for rule in rules:
            _assert_plain(rule)
    assert 15 < valid_count < 400


def test_noise_in_a_valid_file_gives_plain_rules_or_a_line_with_the_problem(tmp_path: Path) -> None:
    rng, mapper = random.Random(11), tmp_path / "mapper.yml"
    valid_bytes = (
        HEAD + '    - {field: max_interactions, operator: ">", threshold: 12, silence: ["a*"], for: 3}\n'
    ).encode()
    for _ in range(300):
        mutated = bytearray(valid_bytes)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(mutated))
            mutated[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        mapper.write_bytes(bytes(mutated))
        try:
            rules = data_mapper.load(mapper).all_rules
        except DataMapperError:
            continue
        for rule in rules:
            _assert_plain(rule)
