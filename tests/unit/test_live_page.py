"""The live page without a browser: addresses, charts, access, and the services that it queries."""

import asyncio
import base64
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from typing import Any
from urllib.parse import quote, unquote

import pytest
import requests
from data_producer.controls import ControlRequest, Controls, Flow, application, disabled
from data_producer.settings import ProducerSettings
from starlette.types import Receive, Scope, Send

from contract.declared import table_named
from contract.loading import load
from contract.windows import every
from live_page.charts import _vertical_lines, axis_bounds
from live_page.guard import Guard
from live_page.layout import _STYLE
from live_page.login import Login
from live_page.pages.alert_rows import alert_row
from live_page.pages.controls import _describe_flow
from live_page.pages.links import KEYED, decode_id, encode_id, noun, row_label, table_href
from live_page.pages.row_queries import events_of
from live_page.sources.documents import from_first_alert, in_last_windows
from live_page.sources.errors import EmptyError, UnavailableError
from live_page.sources.producer import ProducerControls
from local_stack.services import ROOT
from observer.reconciliation import State
from observer.services import read_service
from runtime.health import Health, serve

USERS, MINUTES = table_named("agg_interactions_user"), table_named("agg_interactions_minute")
ITEM_HOURS = table_named("agg_interactions_item_hour")
WINDOW_IDS = ("2020-11-27T07:14:00Z", "item_1|2020-11-27T07:00:00Z", "a\\|b|2020-11-27T07:00:00Z")
HOSTILE_IDS = (
    "a/b", "a;b", "a%25b", "a%2Fb", "a?b=c", "a#b", "a b", "..", ".", "~2F", "é😀", "a\\b", "+", "%", "\x1b]0;x",
    "\u202eab", '" onclick="alert(1)', "<img src=x onerror=alert(1)>", "{{7*7}}", "x" * 512,
)  # fmt: skip


# --- Addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("id_", [*HOSTILE_IDS, *WINDOW_IDS])
def test_an_id_survives_its_path_however_often_that_is_percent_encoded(id_: str) -> None:
    segment = encode_id(id_)
    assert "/" not in segment
    assert "." not in segment
    assert decode_id(segment) == decode_id(unquote(segment)) == decode_id(quote(segment)) == id_


def test_a_path_that_was_typed_or_encoded_elsewhere_is_decoded() -> None:
    assert decode_id("user_1") == "user_1"
    assert decode_id("ann%20lee") == decode_id("ann lee") == "ann lee"


def test_each_table_with_a_key_has_a_page_and_a_noun() -> None:
    assert {table_href(table): noun(table) for table in KEYED} == {
        "/users": "user",
        "/items": "item",
        "/minutes": "minute",
        "/items-by-hour": "item by hour",
    }


def test_the_window_in_an_id_is_shown_as_a_time() -> None:
    assert row_label(MINUTES, WINDOW_IDS[0]) == "2020-11-27 07:14:00"
    assert row_label(ITEM_HOURS, WINDOW_IDS[1]) == "item_1, 2020-11-27 07:00:00"
    assert row_label(ITEM_HOURS, WINDOW_IDS[2]) == "a|b, 2020-11-27 07:00:00"
    now = datetime.now(UTC)
    assert row_label(MINUTES, f"{now:%Y-%m-%dT00:01:00Z}") in ("00:01:00", f"{now:%Y-%m-%d} 00:01:00")
    # An id that no row has, and one of a table without windows.
    assert row_label(ITEM_HOURS, "item_1") == "item_1"
    assert row_label(MINUTES, "0001-01-01T00:00:00+14:00") == "0001-01-01T00:00:00+14:00"
    assert row_label(USERS, WINDOW_IDS[0]) == WINDOW_IDS[0]


def test_an_alert_names_its_window_by_the_time_and_links_to_its_row() -> None:
    alert = {
        "rule": "viral item", "alert_text": "total_interactions > 400", "index": ITEM_HOURS.name, "id": WINDOW_IDS[1],
        "value": 401, "status": "firing", "fired_at": "2020-11-27T07:31:00Z", "resolved_at": None,
    }  # fmt: skip
    row = alert_row(alert)
    assert (row["id"], row["href"]) == ("item_1, 2020-11-27 07:00:00", f"/items-by-hour/{encode_id(WINDOW_IDS[1])}")
    # The condition of a rule that has a name is beside it, but not in the narrow panel of the overview.
    assert row["rule"] == "viral item (total_interactions > 400)"
    assert alert_row(alert, is_short=True)["rule"] == "viral item"
    # An index of an earlier declaration.
    assert alert_row(alert | {"index": "gone"})["id"] == WINDOW_IDS[1]


def test_the_events_of_a_window_are_those_from_its_start_to_the_next() -> None:
    condition, parameters = events_of(ITEM_HOURS, WINDOW_IDS[1])
    assert condition == (
        'CAST("item_id" AS VARCHAR) = ?'
        ' AND "timestamp" >= CAST(? AS TIMESTAMPTZ) AND "timestamp" < CAST(? AS TIMESTAMPTZ)'
    )
    assert parameters == ["item_1", "2020-11-27T07:00:00+00:00", "2020-11-27T08:00:00+00:00"]
    assert events_of(USERS, "user_1") == ('CAST("user_id" AS VARCHAR) = ?', ["user_1"])


@pytest.mark.parametrize("id_", ["", "x", "2020-11-27T07:14:01Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:00Z"])
def test_an_id_that_no_row_can_have_is_reported_as_such(id_: str) -> None:
    with pytest.raises(EmptyError, match="No minute has this id"):
        events_of(MINUTES, id_)
    with pytest.raises(EmptyError, match="No item by hour has this id"):
        events_of(ITEM_HOURS, f"item_1|{id_}")


# --- Charts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "threshold"),
    [([3, 7], 40), ([100, 120], 40), ([3, 7], 7), ([], 40), ([0, 0], 0.005), ([-5, -2], -100), ([5], -3), ([5], 1e6)],
)
def test_a_threshold_is_within_the_axis(values: list[float], threshold: float) -> None:
    bounds = axis_bounds(values, threshold)
    # Without a bound, the axis spans 0 and the bars.
    lowest, highest = min(0, *values, 0), max(0, *values, 0)
    assert bounds.get("min", lowest) < threshold < bounds.get("max", highest)
    assert bounds.get("min", lowest) <= lowest
    assert bounds.get("max", highest) >= highest


def test_of_marks_that_are_close_together_the_last_one_has_its_text() -> None:
    times = [0, 60_000, 300_000]
    lines = _vertical_lines([(100.0, "b"), (90.0, "a"), (200.0, "c\x1b")], times)["data"]
    assert [(line["xAxis"], line["name"], line["label"]["show"]) for line in lines] == [
        (90_000, "a", False),
        (100_000, "b", True),
        (200_000, "c\\x1b", True),
    ]
    assert _vertical_lines([], [])["data"] == []


def test_a_window_without_a_row_is_a_gap_and_those_before_the_last_60_are_left_out() -> None:
    window = every(minutes=15, name="quarter")
    last = datetime(2026, 11, 27, 7, 30, tzinfo=UTC)
    ages = (0, 1, 3, 59, 60)
    # The latest first, as Elasticsearch returns them.
    rows = [{"quarter": f"{last - age * window.size:%Y-%m-%dT%H:%M:%S.000Z}", "n": age, "m": -age} for age in ages]
    points = in_last_windows(rows, window, ["n", "m"])
    times = [datetime.fromtimestamp(at / 1000, UTC) for at, _ in points["n"]]
    assert times == [last - timedelta(minutes=15 * age) for age in reversed(range(60))]
    assert [value for _, value in points["n"]] == [59, *[None] * 55, 3, None, 1, 0]
    assert [value for _, value in points["m"]] == [-59, *[None] * 55, -3, None, -1, 0]


@pytest.mark.parametrize(("ages", "shown"), [([0], 10), ([0, 3], 10), ([2, 0, 12], 13), ([0, 80], 10), ([0, 59], 60)])
def test_windows_over_time_begin_with_the_first_row_and_are_ten_at_least(ages: list[int], shown: int) -> None:
    window = every(minutes=1)
    last = datetime(2026, 11, 27, 7, 30, tzinfo=UTC)
    rows = [{window.name: (last - age * window.size).isoformat(), "n": age} for age in ages]
    points = in_last_windows(rows, window, ["n"])["n"]
    assert len(points) == shown
    assert points[-1] == (int(last.timestamp()) * 1000, 0)
    assert points[0][1] == (shown - 1 if shown - 1 in ages else None)


def test_a_table_without_rows_has_no_windows() -> None:
    assert in_last_windows([], every(hours=1), ["n"]) == {"n": []}


@pytest.mark.parametrize(
    ("age", "shown"), [(3, 10), (9, 10), (10, 11), (25, 26), (59, 60), (60, 60), (10_000, 60), (None, 10)]
)
def test_the_chart_of_alerts_begins_with_the_first_one_of_all_and_has_ten_minutes_at_least(
    age: int | None, shown: int
) -> None:
    minute, last = 60_000, 60_000 * 29_000_000
    hour = [last - n * minute for n in reversed(range(60))]
    counts = {"a": [(at, 0) for at in hour], "b": [(at, (last - at) // minute) for at in hour]}
    # In the middle of its minute.
    first = None if age is None else last - age * minute + 30_000
    assert from_first_alert(counts, first) == {rule: minutes[-shown:] for rule, minutes in counts.items()}


# --- The badge -------------------------------------------------------------------------------------


def _luminance(colour: str) -> float:
    """The relative luminance of a colour, as WCAG 2 defines it."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_badge_has_readable_colours_of_its_own_in_each_state() -> None:
    rules = re.findall(r"^\[data-badge(?:=(\w+))?\] \{ background: (.+?);(?: color: (.+?);)? \}$", _STYLE, re.M)
    (default, background, colour), *others = rules
    colours = {"unknown": (background, "#ffffff")} | {
        state: (background, colour or "#ffffff") for state, background, colour in others
    }
    assert (default, colour) == ("", "#fff")
    assert set(colours) == set(State)
    assert len({background for background, _ in colours.values()}) == len(State)
    for pair in colours.values():
        dark, light = sorted(map(_luminance, pair))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, pair


# --- Access ----------------------------------------------------------------------------------------


def _guard_response(kind: str, headers: dict[str, str], path: str = "/") -> tuple[int, dict[str, str]]:
    """Return the guard's status and headers, for an application that answers 200."""
    sent: list[MutableMapping[str, Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {}

    encoded_headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "path": path, "headers": encoded_headers, "extensions": {"websocket.http.response": {}}}
    asyncio.run(Guard(app, ["page.example.com", " *.lan "])(scope, receive, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:8090", None, 200),
        ("localhost:8090", "http://localhost:8090", 200),
        ("127.0.0.1:8090", "http://127.0.0.1:8090", 200),
        ("[::1]:8090", "http://[::1]:8090", 200),
        ("localhost:9000", "http://localhost:9000", 200),  # Another port that is forwarded to this one.
        ("page.example.com", "https://page.example.com", 200),
        ("localhost:8090", "https://page.example.com", 200),  # Behind a proxy that sends requests to localhost.
        ("pi.lan:8090", "http://pi.lan:8090", 200),
        ("localhost:8090", "http://localhost:3000", 403),  # Another program's page on this machine.
        ("localhost:8090", "http://evil.example.com", 403),
        ("localhost:8090", "http://localhost.evil.example.com:8090", 403),
        ("localhost:8090", "http://evil.example.com#localhost:8090", 403),
        ("localhost:8090", "null", 403),
        ("localhost:8090", "", 403),
        ("evil.example.com", "http://evil.example.com", 400),
        ("evil.example.com:8090", None, 400),
        ("localhost.evil.example.com", None, 400),
        ("127.0.0.1.evil.example.com", None, 400),
        ("", None, 400),
        ("[", None, 400),
    ],
)
def test_only_the_pages_own_names_and_origins_are_accepted(host: str, origin: str | None, status: int) -> None:
    sent = {"Host": host} | ({} if origin is None else {"Origin": origin})
    assert _guard_response("websocket", sent)[0] == status
    returned, headers = _guard_response("http", sent)
    assert returned == status
    assert headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


async def _page(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


def _login_response(login: Login, kind: str, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
    """Return the login's status and headers; the page answers 200."""
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {}

    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "path": path, "headers": encoded, "extensions": {"websocket.http.response": {}}}
    asyncio.run(login(scope, receive, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def _basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


_PROTECTED = [
    ("http", "/"),
    ("http", "/_nicegui/any.js"),
    ("http", "/health/"),
    ("http", "/metrics/"),
    ("websocket", "/metrics"),
    ("websocket", "/_nicegui_ws/socket.io/"),
]
_WRONG = [
    "", "Basic", "Basic !", _basic(""), _basic("page"), _basic("page:"), _basic("page:secret:"), _basic("Page:sécret"),
    _basic(":"), "Bearer " + _basic("page:sécret").split()[1], _basic("page:sécret")[6:],
]  # fmt: skip


@pytest.mark.parametrize(("kind", "path"), _PROTECTED)
def test_everything_but_health_and_metrics_of_the_page_needs_its_password(kind: str, path: str) -> None:
    login = Login(_page, "page", "sécret")
    for wrong in _WRONG:
        status, headers = _login_response(login, kind, path, {"Authorization": wrong})
        assert status == 401, wrong
        assert headers["www-authenticate"].startswith("Basic ")
        assert "set-cookie" not in headers
    assert _login_response(login, kind, path, {"Authorization": _basic("page:sécret")})[0] == 200
    assert _login_response(login, kind, path, {})[0] == 401
    for path_without in ("/health", "/metrics"):
        assert _login_response(login, "http", path_without, {})[0] == 200
    assert _login_response(Login(_page, "", ""), kind, path, {})[0] == 200


def test_a_browser_that_sends_no_password_with_its_socket_is_known_by_its_cookie() -> None:
    login, other = Login(_page, "page", "secret"), Login(_page, "page", "secret")
    _, headers = _login_response(login, "http", "/", {"Authorization": _basic("page:secret")})
    cookie, *attributes = headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict"} <= set(attributes)
    socket = _PROTECTED[-1]
    assert _login_response(login, *socket, {"Cookie": f"a=b; {cookie}"})[0] == 200
    for wrong in ("", "page-session=", cookie + "x", f"{cookie[:-1]}", "page-session=é", "=", "a b=c"):
        assert _login_response(login, *socket, {"Cookie": wrong})[0] == 401, wrong
    assert _login_response(other, *socket, {"Cookie": cookie})[0] == 401


def test_prometheus_may_ask_for_the_metrics_by_a_containers_name_and_no_other_site_may() -> None:
    assert _guard_response("http", {"Host": "live-page:8090"}, "/metrics")[0] == 200
    assert _guard_response("http", {"Host": "live-page:8090"}, "/health")[0] == 400
    assert _guard_response("http", {"Host": "evil.example.com"}, "/metrics")[0] == 400


@pytest.fixture(scope="module")
def service() -> str:
    state = Health("kafka")
    state.ok("kafka")
    controls = application(Controls(Flow(rate=1, users=10, items=10)))
    return f"http://127.0.0.1:{serve(state, '127.0.0.1', 0, {'/control': controls})}"


@pytest.mark.parametrize("path", ["/health", "/metrics", "/control"])
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9101", 200),
        ("127.0.0.1:9101", 200),
        ("[::1]:9101", 200),
        ("172.18.0.5:9101", 200),
        ("data-producer:9101", 200),
        ("data_producer.default.svc.cluster.local:9101", 200),
        ("host.docker.internal", 200),
        ("evil.example.com", 403),
        ("evil.example.com:9101", 403),
        ("localhost.evil.example.com:9101", 403),
        ("127.0.0.1.evil.example.com", 403),
    ],
)
def test_a_service_answers_its_own_names(service: str, path: str, host: str, status: int) -> None:
    code, body = _request(f"{service}{path}", {"Host": host})
    assert code == status
    assert status == 200 or "IP address" in body


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ('{"rate": 1e400}', "rate: expected a number of seconds between interactions, 0"),
        ('{"rate": NaN}', "rate"),
        ('{"rate": -1}', "rate"),
        ('{"rate": true}', "rate"),
        ('{"rate": "5"}', "rate"),
        ('{"rate": null}', "rate"),
        ('{"rate": 1e-300}', "0.000001 to 86,400"),
        ('{"rate": 86401}', "0.000001 to 86,400"),
        ('{"users": 5000000}', "users: expected a whole number from 1 to 1,000,000"),
        ('{"users": 0}', "users"),
        ('{"users": 1.5}', "users"),
        ('{"items": 123456789012345678901234567890}', "items"),
        ('{"burst": true}', "burst"),
        ('{"malformed": 10001}', "malformed: expected a whole number from 1 to 10,000"),
        ('{"viral_interactions": 0}', "viral_interactions: expected a whole number from 1 to 1,000,000"),
        ('{"wave": 0.5}', "wave: expected a number of seconds, 0 (no wave) or 1 to 86,400"),
        ('{"paused": 1}', "paused: expected true or false"),
        ('{"speed": 1}', "'speed' cannot be changed, only rate, users"),
        ("[]", "expected a JSON object of rate, users"),
        ("nonsense", "expected a JSON object of rate, users"),
    ],
)
def test_a_change_out_of_bounds_is_refused_with_the_bounds(service: str, body: str, named: str) -> None:
    before = _request(f"{service}/control")
    code, response = _request(f"{service}/control", {"Content-Type": "application/json"}, body)
    assert code == 400
    assert named in json.loads(response)["error"]
    assert _request(f"{service}/control") == before


@pytest.mark.parametrize("length", ["\xb2", "9" * 5_000, "-1", "+1", "1_0", "10001"])
def test_a_content_length_that_is_not_a_small_number_is_refused(service: str, length: str) -> None:
    code, response = _request(
        f"{service}/control", {"Content-Type": "application/json", "Content-Length": length}, "{}"
    )
    assert (code, json.loads(response)) == (413, {"error": "expected at most 10000 bytes"})


def test_controls_that_are_off_say_how_to_switch_them_on_and_the_page_does_too() -> None:
    state = Health("kafka")
    producer = f"http://127.0.0.1:{serve(state, '127.0.0.1', 0, {'/control': disabled})}"
    for path, body in product(("/control", "/control/"), (None, '{"paused": true}', "nonsense")):
        code, answer = _request(f"{producer}{path}", {"Content-Type": "application/json"}, body)
        assert code == 404
        assert json.loads(answer) == {
            "error": "the controls are off: set PRODUCER_CONTROLS=true and restart the producer"
        }
    with pytest.raises(EmptyError, match="PRODUCER_CONTROLS=true"):
        ProducerControls(producer).flow()
    with pytest.raises(EmptyError, match="PRODUCER_CONTROLS=true"):
        ProducerControls(producer).change(paused=True)


def test_a_server_that_is_not_the_producer_is_not_taken_for_one_with_its_controls_off() -> None:
    for status in (200, 404):
        with _answering("<html>", status) as url, pytest.raises(UnavailableError, match="is not the producer"):
            ProducerControls(url).flow()


@pytest.mark.parametrize("path", ["/health", "/control"])
@pytest.mark.parametrize("host", ["localhost", "evil.example.com"])
def test_the_body_of_an_answer_ends_with_a_newline(service: str, path: str, host: str) -> None:
    assert _request(f"{service}{path}", {"Host": host})[1].endswith("}\n")


def test_a_viral_item_is_refused_of_an_event_without_items(monkeypatch: pytest.MonkeyPatch) -> None:
    sensors = load(ROOT / "examples/sensors/pipeline.py").event
    monkeypatch.setattr("data_producer.controls.EVENT", sensors)
    controls = application(Controls.of(ProducerSettings()))
    url = f"http://127.0.0.1:{serve(Health('kafka'), '127.0.0.1', 0, {'/control': controls})}"
    code, answer = _request(f"{url}/control", {"Content-Type": "application/json"}, '{"viral_interactions": 1}')
    error = "viral_interactions: no effect, as the event has no text besides the key"
    assert (code, json.loads(answer)) == (409, {"error": error})
    assert _request(f"{url}/control", {"Content-Type": "application/json"}, '{"burst": 1}')[0] == 200


def test_the_flow_of_a_wave_says_so() -> None:
    controls = Controls.of(ProducerSettings.read({}, {"PRODUCER_RATE": "0.005", "PRODUCER_WAVE": "180"}))
    shown = "200 interactions per second on average, in waves of 180 s, 10 users, 10 items"
    assert _describe_flow(controls.describe()) == shown
    controls.apply(ControlRequest(rate=0))
    assert _describe_flow(controls.describe()) == "as fast as possible, 10 users, 10 items"


def test_requests_from_browsers_cannot_change_what_is_sent(service: str) -> None:
    for origin in ("http://evil.example.com", "null", "http://localhost:3000"):
        headers = {"Content-Type": "application/json", "Origin": origin}
        assert _request(f"{service}/control", headers, '{"paused": true}')[0] == 403


@pytest.mark.parametrize("path", ["/health", "/metrics", "/control"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
def test_no_answer_of_a_service_may_be_read_by_another_site(service: str, path: str, method: str) -> None:
    headers = {"Origin": "http://evil.example.com", "Access-Control-Request-Method": "POST"}
    response = requests.request(method, f"{service}{path}", headers=headers, timeout=30)
    assert [name for name in response.headers if name.lower().startswith("access-control-")] == []


def _request(url: str, headers: dict[str, str] | None = None, body: str | None = None) -> tuple[int, str]:
    request = urllib.request.Request(url, body.encode() if body is not None else None, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


# --- Services -------------------------------------------------------------------------------------


def test_services_are_read_without_a_proxy(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert read_service(service)[0] == "ok"
    assert ProducerControls(service).flow()["users"] == 10


def test_a_service_that_refuses_its_host_name_is_shown_with_the_remedy(service: str) -> None:
    code, body = _request(f"{service}/health", {"Host": "producer.example.com"})
    assert code == 403
    with _answering(body) as url:
        assert "use its IP address" in read_service(url)[0]


@pytest.mark.parametrize("body", ["[]", '"text"', '{"parts": 1}', "{}", "not JSON", ""])
def test_an_answer_of_another_program_is_reported_as_such(body: str) -> None:
    with _answering(body) as url:
        state, metrics = read_service(url)
    assert state in ("another program answers at its address", "does not answer")
    assert metrics == {}


@contextmanager
def _answering(body: str, status: int = 200) -> Iterator[str]:
    """A server that answers every request with `body`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
