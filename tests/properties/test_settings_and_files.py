"""What a user or another program hands in: settings, `.env`, the data mapper, templates, requests.

Each is accepted, or refused with the documented error: a line for each reason, that says what is wrong, and that a
terminal shows as it is.
"""

import json
import os
import re
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import pytest
from data_producer.controls import Controls, Flow, application
from data_producer.settings import ProducerSettings
from elasticsearch_sink_alert.alerting import data_mapper
from elasticsearch_sink_alert.alerting.alert_lifecycle import Alert
from elasticsearch_sink_alert.alerting.data_mapper import DataMapperError
from elasticsearch_sink_alert.alerting.notifications.rate_limit import Summary
from elasticsearch_sink_alert.alerting.notifications.texts import DEFAULT_TEMPLATE, TemplateError, Texts
from elasticsearch_sink_alert.settings import SinkSettings
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from stream_processing.kafka_io import connection_options
from stream_processing.settings import StreamProcessingSettings

from contract.loading import DeclarationError, load
from live_page.settings import PageSettings
from local_stack.services import ROOT
from runtime import dotenv
from runtime.addresses import without_passwords
from runtime.health import Health, serve
from runtime.settings import Settings, SettingsError
from tests.properties.hostile import RAW_JSON, any_texts, is_one_line, mutated, number_of_examples, texts

_SETTINGS: Final[Sequence[type[Settings]]] = (ProducerSettings, StreamProcessingSettings, SinkSettings, PageSettings)
_SECRET: Final = "very-secret-word"
_in_temporary_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def _assert_lines(message: str, expected_start: str) -> None:
    """Check that each line of an error can be printed as it is, and says what it is about."""
    lines = message.split("\n")
    for line in lines:
        assert is_one_line(line), lines
        assert re.match(expected_start, line, re.DOTALL), lines


# --- Settings -----------------------------------------------------------------------------------------

_WRITTEN: Final = (
    "0", "1", "-1", "1.5", "1e400", "nan", "inf", "true", "yes", "no", " ", "9" * 30, "0x10", "1_000", "٣", "1g",
    "512m", "localhost:9092", "[::1]:9092", "[", "http://[", "http://]", "http://a:b", "http://h:99999", "http://xn--",
    "http://user:very-secret-word@host", "https://user@host", "http://\u2100", "http://" + "a" * 300, "SASL_SSL", "SSL",
    "SASL_PLAINTEXT", "cluster", "DEBUG", ",", ",,", "a,b", "s3a://bucket/x", "file:///x", "/", ".", "..", "~",
    "/dev/null", "/nowhere/x", "SELECT 1", "SELECT * FROM source", ";", "very-secret-word",
)  # fmt: skip
_names_of = {cls: sorted(name.upper() for name in cls.model_fields) for cls in _SETTINGS}
# A variable of the environment has no NUL; a byte that is not UTF-8 is half of a surrogate pair in Python.
_env_texts = (
    st.sampled_from(_WRITTEN)
    | any_texts.map(lambda text: text.replace("\0", "").encode("utf-8", "replace").decode())
    | texts.map(lambda text: text.replace("\0", "") + "\udcff")
)


@st.composite
def _environments(draw: st.DrawFn) -> tuple[type[Settings], dict[str, str]]:
    cls = draw(st.sampled_from(_SETTINGS))
    names = draw(st.lists(st.sampled_from(_names_of[cls]), max_size=5, unique=True))
    return cls, {name: draw(_env_texts) for name in names}


@given(_environments(), st.booleans())
# The escape of a terminal came through to it.
@example((SinkSettings, {"ES_USERNAME": "a\x1b[31m"}), False)
@example((SinkSettings, {"ES_CA_FILE": "x", "ES_HOST": "http://h/\u202e"}), False)
@example((ProducerSettings, {"PRODUCER_QUERY": "SELECT\x1b[31m\n1"}), False)
@example((ProducerSettings, {"PRODUCER_SOURCE": "a\x1b[31m"}), False)
@example((ProducerSettings, {"PRODUCER_SOURCE": "a\nb"}), False)
# Longer than the name of a file can be: the system refuses to look for it.
@example((ProducerSettings, {"PRODUCER_SOURCE": "x" * 5_000 + ".csv"}), False)
@example((ProducerSettings, {"PRODUCER_SOURCE": "x.csv", "PRODUCER_POSITION": "x" * 5_000}), False)
@example((SinkSettings, {"ES_PASSWORD": f"{_SECRET}\udcff"}), False)
# A path is passed on to libraries that take text alone.
@example((StreamProcessingSettings, {"SPARK_JARS": "a\udcff"}), False)
@example((PageSettings, {"PRODUCER_URL": "http://user:very-secret-word@"}), False)
def test_any_environment_is_accepted_or_each_wrong_setting_is_named(
    environment: tuple[type[Settings], dict[str, str]], in_dotenv: bool
) -> None:
    cls, values = environment
    known = "|".join(_names_of[cls])
    # The file of a data mapper is read later, the recording of a producer at once.
    with patch.dict(os.environ, {} if in_dotenv else values):
        try:
            found = cls.read(values if in_dotenv else {})
        except SettingsError as error:
            _assert_lines(str(error), rf"({known})\b")
            _assert_no_secret(str(error), cls, values)
        else:
            _assert_usable(found)
            _assert_no_secret(without_passwords(repr(found)), cls, values)


def _assert_no_secret(text: str, cls: type[Settings], values: dict[str, str]) -> None:
    """Check that a text has neither a secret nor the password of a URL, unless another setting has the same value."""
    is_secret = {name.upper(): "SecretStr" in str(field.annotation) for name, field in cls.model_fields.items()}
    others = [value for name, value in values.items() if not is_secret[name]]
    if not any(_SECRET in without_passwords(value) for value in others):
        assert _SECRET not in text


def _assert_usable(found: Settings) -> None:
    """Derive all that the services derive from their settings."""
    assert found.kafka_client
    assert len(found.aggregated_topic) <= 249
    if isinstance(found, StreamProcessingSettings):
        for options in (connection_options(found), found.storage_options, found.hadoop_options):
            assert all(isinstance(value, str) for value in options.values())
        assert found.master
    if isinstance(found, SinkSettings):
        assert found.es_hosts
        assert all(isinstance(value, str | tuple) or value for value in found.es_client.values())
    for name in type(found).model_fields:
        value = getattr(found, name)
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        text.encode()


@_in_temporary_folder
@given(
    mutated(
        st.lists(
            st.tuples(
                st.sampled_from(
                    ("KAFKA_TOPIC", "kafka_topic", "export LOOP_SLEEP", "UNKNOWN", "KAFKA_TOPICS", "", "# A")
                )
                | any_texts,
                st.sampled_from(("=", " = ", "", "==", ": ")),
                any_texts | st.sampled_from(('"a', "'a", '"a\nb"', "a # b", "$x", "${y}", "\\")),
            ),
            max_size=4,
        ).map(lambda lines: "\n".join(map("".join, lines)).encode("utf-8", "surrogatepass"))
    )
)
# The escape of a terminal came through to it.
@example(b"\x1b[31mKAFKA_TOPIC=a")
@example(b"KAFKA_\x1b[31mTOPIC")
@example(b"A\xe2\x80\xae=1\nA\xe2\x80\xae=2")
@example(b"KAFKA_TOPIC='a\nb'")
def test_any_dotenv_file_is_read_or_refused_by_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / ".env"
    file.write_bytes(content)
    at = rf"{re.escape(str(file))}(:\d+: | )"
    try:
        found = dotenv.read(file, dotenv.known_names())
    except dotenv.DotenvError as error:
        _assert_lines(str(error), at)
    else:
        if found.warnings:
            _assert_lines("\n".join(found.warnings), at)
        for name, value in found.values.items():
            assert name == name.upper()
            value.encode()


# --- Files ----------------------------------------------------------------------------------------------

_MAPPER: Final = (ROOT / "03-ElasticsearchSink-Alert" / "data_mapper.yml").read_bytes()
_RULE: Final = "agg_interactions_item:\n  id: item_id\n  alerts:\n  - "


def _one_rule(rule: Mapping[str, str]) -> bytes:
    return f"{_RULE}{{{', '.join(f'{name}: {value}' for name, value in rule.items())}}}\n".encode("utf-8", "replace")


_odd_values = st.sampled_from(RAW_JSON) | any_texts.map(json.dumps) | texts


_RULE_NAMES: Final = (
    "field", "operator", "threshold", "resolve", "for", "within", "silence", "severity", "name", "x", "<<",
)  # fmt: skip


@_in_temporary_folder
@given(
    mutated(st.just(_MAPPER))
    | st.dictionaries(st.sampled_from(_RULE_NAMES) | any_texts.map(json.dumps), _odd_values, max_size=5).map(_one_rule)
)
@example(_one_rule({'"\\u202e"': "1"}))
@example(_one_rule({"field": '"\\x9b31m"'}))
@example(_one_rule({"operator": ">", "threshold": "1", "field": "x\u200b"}))
def test_any_data_mapper_is_read_or_refused_by_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "data_mapper.yml"
    file.write_bytes(content)
    try:
        found = data_mapper.load(file)
    except DataMapperError as error:
        _assert_lines(str(error), rf"{re.escape(str(file))}(:\d+: |: and \d+ more problems)")
    else:
        for rule in found.all_rules:
            assert is_one_line(rule.name)
            rule.matches({rule.field: 1})
            rule.is_silent_about("a")


_ALERT: Final = Alert(
    "1", 1, "a rule", "n > 1", "warning", "items", "a", "n", ">", 1, 2, {"n": 2}, fired_at="2026-01-31T12:00:00.000Z"
)


@_in_temporary_folder
@given(mutated(st.just(DEFAULT_TEMPLATE.read_bytes()) | any_texts.map(lambda text: text.encode("utf-8", "replace"))))
@example(b"$a\x1b[31m\n")
@example(b"$ 5\n")
@example(b"a\n---\n$")
def test_any_template_is_read_or_refused_by_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "template.txt"
    file.write_bytes(content)
    try:
        found = Texts.load(file, "http://localhost:5601")
    except TemplateError as error:
        _assert_lines(str(error), rf"{re.escape(str(file))}:\d+: ")
    else:
        assert found.of_alert(_ALERT).alert is _ALERT
        assert found.of_summary(Summary("a rule", Counter({"firing": 2}), 20)).title


_DECLARATION: Final = (ROOT / "pipeline.py").read_bytes()
_SPANS: Final = [match.span() for match in re.finditer(rb'"[a-z_]+"|[A-Z]{4,}|\b\d+\b|[a-z_]+(?=\()', _DECLARATION)]
_EXPRESSIONS: Final = (
    b"None", b"5", b"()", b"'x'", b"[]", b"{}", b"lambda: 1", b"count", b"count()", b"KIND", b"USERS", b"INTERACTION",
    b"text('a')", b"days(1)", b"every(hours=1)", b'"\x1b[31m"', b'"\\x1b[31m"', b"1/0", b"float('nan')", b"10**400",
    b"-1", b"\xff", b"\x00", b"raise", b'"alerts"', b'"timestamp"', b"minutes(5)", b"1j",
)  # fmt: skip


# Of the changed declaration.
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@settings(max_examples=number_of_examples(0.6), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(_SPANS), st.sampled_from(_EXPRESSIONS)), min_size=1, max_size=2))
def test_any_declaration_is_loaded_or_refused_by_line(
    tmp_path: Path, changes: list[tuple[tuple[int, int], bytes]]
) -> None:
    content = _DECLARATION
    for (start, end), expression in sorted(dict(changes).items(), reverse=True):
        content = content[:start] + expression + content[end:]
    file = tmp_path / "pipeline.py"
    file.write_bytes(content)
    try:
        found = load(file)
    except DeclarationError as error:
        _assert_lines(str(error), rf"{re.escape(str(file))}\b")
    else:
        assert found.tables


# --- Requests -------------------------------------------------------------------------------------------

_FIELDS: Final = ("rate", "users", "items", "paused", "burst", "malformed", "speed", "\x1b[31m", "", "users\n")
_bodies = st.dictionaries(st.sampled_from(_FIELDS) | any_texts, st.sampled_from(RAW_JSON), max_size=3).map(
    lambda body: ("{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in body.items()) + "}").encode()
)
_headers_of_requests = st.fixed_dictionaries(
    {
        "REQUEST_METHOD": st.sampled_from(("POST", "POST", "POST", "GET", "PUT", "\x1b")),
        "PATH_INFO": st.just("/control"),
    },
    optional={
        "CONTENT_TYPE": st.sampled_from(("application/json", "application/json; charset=utf-8", "", "\x1b[31m", ";")),
        "HTTP_ORIGIN": any_texts,
    },
)


class _Body:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int) -> bytes:
        return self._data[:size]


@given(_headers_of_requests, mutated(_bodies) | st.binary(max_size=20), st.none() | any_texts)
def test_any_control_request_changes_the_flow_within_bounds_or_is_refused_in_one_line(
    environ: dict[str, Any], body: bytes, length: str | None
) -> None:
    controls = Controls(Flow(rate=1, users=10, items=10))
    before, started = controls.flow, []

    def start_response(status: str, _headers: list[tuple[str, str]], _exc_info: Any = None) -> Any:
        started.append(int(status.split()[0]))

    request = {"CONTENT_LENGTH": str(len(body)) if length is None else length, "wsgi.input": _Body(body)}
    (answer,) = application(controls)({"CONTENT_TYPE": "application/json", **environ, **request}, start_response)
    assert answer.isascii()
    assert answer.endswith(b"}\n")
    assert answer[:-1].decode().isprintable()
    found, flow = json.loads(answer), controls.flow
    if started == [200]:
        assert found == controls.describe()
        assert 0 <= flow.rate <= 86_400
        assert min(flow.users, flow.items) >= 1
        assert max(flow.users, flow.items) <= 1_000_000
        assert flow.wave == 0 or 1 <= flow.wave <= 86_400
        burst, malformed, viral_interactions = controls.drain_requests()
        assert 0 <= burst <= 1_000_000
        assert 0 <= malformed <= 10_000
        assert 0 <= viral_interactions <= 1_000_000
    else:
        assert started[0] in (400, 403, 413, 415)
        assert is_one_line(found["error"]), found
        assert (flow, controls.drain_requests()) == (before, (0, 0, 0))


@pytest.fixture(scope="module")
def port() -> int:
    state = Health("kafka")
    state.failing("kafka", "\x1b[31m<script>")
    controls = application(Controls(Flow(rate=1, users=10, items=10)))
    return serve(state, "127.0.0.1", 0, {"/control": controls})


_PATHS: Final = (
    "/health",
    "/metrics",
    "/control",
    "/",
    "//health",
    "/health/..",
    "/%00",
    "/\xff",
    "*",
    "http://x/health",
    "",
)


@settings(max_examples=number_of_examples(0.4), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(("GET", "POST", "HEAD", "BREW", "")),
    st.sampled_from(_PATHS) | st.text(st.characters(codec="latin-1", exclude_characters="\r\n "), max_size=8),
    st.sampled_from(("", "?name[]=up", "?name[]=%ff&&&==", "?" + "a&" * 2_000)),
    st.lists(
        st.tuples(
            st.sampled_from(("Host", "Accept", "Accept-Encoding", "Content-Length", "Origin", "Content-Type", "X")),
            st.sampled_from(
                ("localhost", "[", "[::1", "a.b", "*/*;q=x", "application/openmetrics-text; version=9", "-1", "9" * 30)
            )
            | st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=8),
        ),
        max_size=3,
    ),
)
def test_any_request_to_a_service_is_answered_and_none_stops_it(
    port: int, capfd: pytest.CaptureFixture[str], method: str, path: str, query: str, headers: list[tuple[str, str]]
) -> None:
    lines = [f"{method} {path}{query} HTTP/1.0", *(f"{name}: {value}" for name, value in headers), "", ""]
    answer = _answer(port, "\r\n".join(lines).encode("latin-1"))
    assert not re.match(rb"HTTP/1\.[01] 5(?!03)", answer), answer
    assert b"\x1b" not in answer
    status, _, body = _answer(port, b"GET /health HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert status.startswith(b"HTTP/1.0 503")
    assert json.loads(body) == {"status": "failing", "parts": {"kafka": "\x1b[31m<script>"}}
    assert "Traceback" not in capfd.readouterr().err


def _answer(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)
