"""The live view in the terminal: what it shows, that it fits into any terminal, and that text from records is text."""

import io
import re
import unicodedata
from typing import Any

import pytest
from rich.console import Console

from local_stack.sections import HAS_ENDED
from local_stack.view import View
from observer.lake_cuts import Cut
from observer.services import OK
from observer.snapshot import Snapshot
from observer.status import Part

PAGE = "http://localhost:8090"
ADDRESSES = {"Kafka": "127.0.0.1:9092", "topic": "avroic", "logs": "/here/logs"}
KEYS = {
    "b": "browser", "p": "pause", "+": "burst of 1,000", "m": "10 malformed", "v": "viral item", "q": "quit"
}  # fmt: skip
NAMES = ("Kafka", "Elasticsearch", "live_page", "stream_processing", "elasticsearch_sink_alert", "data_producer")
HOSTILE = "[/red]\x1b]0;owned\x07[bold]\u202eevil\x9b31m"
SHOWN = r"[/red]\x1b]0;owned\x07[bold]\u202eevil\x9b31m"
SIZES = pytest.mark.parametrize("size", [(80, 24), (100, 30), (119, 40), (120, 40), (200, 50)])


def _view(keys: dict[str, str] = KEYS, **addresses: str) -> View:
    return View(PAGE, {**ADDRESSES, **addresses}, keys)


def _lines(view: View, width: int = 110, height: int = 60) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), record=True)
    console.print(view)
    return console.export_text().splitlines()


def _alert(**fields: Any) -> dict[str, Any]:
    return {
        "fired_at": "2026-01-01T10:20:30.000Z",
        "status": "firing",
        "rule": f"agg_interactions_item: {fields.get('alert_text', 'max_interactions > 12')}",
        "alert_text": "max_interactions > 12",
        "id": "item_7",
        "value": 13,
        **fields,
    }


def _parts(state: str = OK) -> list[Part]:
    return [Part(name, state, answers=state == OK, memory=987_600_000, uptime=600.0) for name in NAMES]


def _columns(line: str) -> int:
    """Count the columns that a terminal needs, without the library that the view is made with."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in line)
    return len(line) + wide - sum(unicodedata.category(char) in ("Mn", "Me") for char in line)


def _line_with(lines: list[str], text: str) -> str:
    (line,) = [line for line in lines if text in line]
    return line


def _full_view(id_: str, topic: str, index: str) -> View:
    """A view in which everything is shown, and long."""
    view = _view(topic=topic)
    for second in range(100):
        view.add(
            Snapshot(
                sent=(sent := 40_000_000 * (second + 1)),
                ends={0: sent},
                cuts=(Cut(rows=sent - 1_000, offsets={0: sent}, malformed=1_000),),
                in_the_lake=sent - 1_000,
                aggregated=sent - 1_000,
                published=9_000_000_000,
                sink_lag=1_234_567,
                dead_letters=1_000,
                indexed=sent - 1_000,
                documents={index: 1_000_000, "alerts": 1_234_567},
                firing=1_234,
                alerts=tuple(_alert(id=id_, alert_text=f"{id_} > 1", value=-(2**63)) for _ in range(8)),
            ),
            float(second),
            _parts(),
        )
    return view


# --- What it shows ---------------------------------------------------------------------------------


def test_it_shows_rows_rates_lag_and_alerts() -> None:
    view = _view()
    view.add(Snapshot(sent=1_000, in_the_lake=900), 0.0)
    view.add(
        Snapshot(
            sent=3_000,
            in_the_lake=2_500,
            aggregated=2_400,
            published=70,
            sink_lag=3,
            dead_letters=5,
            documents={"avg_interactions": 1, "alerts": 7},
            firing=1,
            alerts=(_alert(),),
        ),
        2.0,
    )
    lines = _lines(view)
    assert _line_with(lines, "sent to Kafka").split()[-2:] == ["3,000", "1,000"]
    assert _line_with(lines, "in the lake").split()[-3:] == ["2,500", "800", "495"]
    assert _line_with(lines, "aggregated").split()[-1] == "100"
    assert _line_with(lines, "rows published").split()[-1] == "3"
    assert _line_with(lines, "dead letters").split()[-1] == "5"
    assert _line_with(lines, "avg_interactions").split() == ["avg_interactions", "1"]
    assert _line_with(lines, "alerts:").strip() == "alerts: 1 firing, 7 in total"
    assert re.split(" {2,}", _line_with(lines, "item_7").strip()) == [
        "10:20:30", "firing", "max_interactions > 12", "item_7", "13"
    ]  # fmt: skip


def test_it_shows_rate_and_latency_with_their_course_and_percentiles() -> None:
    view = _view()
    for second in range(101):
        # What is counted was sent a second before; from second 91 on, 3 seconds before.
        delay = 1 if second <= 90 else 3
        view.add(Snapshot(sent=100 * second, indexed=max(0, 100 * (second - delay)), dead_letters=0), float(second))
    lines = _lines(view, width=80)
    rate, latency = _line_with(lines, "rate ").rstrip(), _line_with(lines, "latency")
    assert re.fullmatch(r"rate +100\.0/s  █{35}", rate)
    assert re.fullmatch(r"latency +3\.00 s  ▃{25}█{10}  p50 1\.00 s   p95 3\.00 s", latency)


def test_it_shows_in_an_outage_for_how_long_records_have_waited() -> None:
    view = _view()
    for second in range(20):
        # From second 5 on, nothing is counted.
        view.add(Snapshot(sent=100 * second, indexed=100 * min(second, 5), dead_letters=0), float(second))
    # What arrived after second 5 has waited since.
    assert _line_with(_lines(view, width=80), "latency").split()[:4] == ["latency", "≥", "13", "s"]


def test_it_shows_whether_everything_sent_is_indexed() -> None:
    view = _view()
    view.add(Snapshot(ends={0: 7}, cuts=(Cut(rows=7, offsets={0: 7}, malformed=0),), indexed=7), 0.0)
    assert _lines(view)[1].strip() == "✓ sent 7 = lake = indexed: nothing lost, nothing twice"


def test_it_shows_health_memory_and_uptime_of_each_process() -> None:
    view = _view()
    states = {"Kafka": OK, "Elasticsearch": "starting again", "data_producer": HAS_ENDED}
    view.add(Snapshot(), 0.0, [Part(name, state, None, 2_400_000_000, 20_000.0) for name, state in states.items()])
    shown = [line.split("  ") for line in _lines(view) if line.endswith("5.6 h")]
    assert [[cell.strip() for cell in cells if cell] for cells in shown] == [
        [name, state, "2.4 GB", "5.6 h"] for name, state in states.items()
    ]


def test_it_shows_a_long_reason_in_full() -> None:
    view = _view()
    reason = "rules: data_mapper.yml:3: no such \x1b[31mcolumn, " + ", ".join(f"only_{n}" for n in range(20))
    view.add(Snapshot(), 0.0, [Part("Kafka", OK, None), Part("elasticsearch_sink_alert", reason, None)])
    text = " ".join(" ".join(_lines(view, 80, 24)).split())
    assert f"elasticsearch_sink_alert: {reason}".replace("\x1b", r"\x1b") in text
    assert "Kafka:" not in text


def test_it_shows_a_dash_for_what_is_unknown() -> None:
    view = _view()
    view.add(Snapshot(), 0.0, [Part("Kafka", "does not run", None)])
    lines = _lines(view)
    assert _line_with(lines, "sent to Kafka").split() == ["sent", "to", "Kafka", "–", "–"]
    assert _line_with(lines, "does not run").split()[-2:] == ["–", "–"]
    assert _line_with(lines, "latency").split() == ["latency", "–", "p50", "–", "p95", "–"]


def test_what_came_of_a_key_is_above_the_keys() -> None:
    view = _view()
    view.add(Snapshot(), 0.0)
    view.note("+ 1,000 interactions")
    assert [line.strip() for line in _lines(view)[-2:]] == [
        "+ 1,000 interactions",
        "b browser  p pause  + burst of 1,000  m 10 malformed  v viral item  q quit",
    ]


def test_without_keys_ctrl_c_stops() -> None:
    assert _lines(_view(keys={}))[-1].strip() == "Ctrl-C stops"


# --- That it fits ----------------------------------------------------------------------------------


@SIZES
@pytest.mark.parametrize(
    "text",
    [
        "item_7",
        "x" * 512,
        "東京" * 80,
        "e\u0301" * 200,
        "👩‍👩‍👧‍👦" * 20,
        "\x1b[2J\r\n\t" * 40,
        "[/red]:smile:" * 20,
        " ",
    ],
    ids=["usual", "long", "wide", "combining", "joined", "controls", "markup", "blank"],
)
def test_no_line_is_cut_whatever_ids_and_names_are(size: tuple[int, int], text: str) -> None:
    width, height = size
    view = _full_view(text, topic=text, index=text)
    view.note(f"refused: {text}")
    lines = _lines(view, width, height)
    assert len(lines) <= height
    assert {_columns(line) for line in lines} == {width}
    assert lines[-1].strip() == "b browser  p pause  + burst of 1,000  m 10 malformed  v viral item  q quit"
    assert lines[0].strip() == f"streaming analytics   {PAGE}"
    badge = "✓ sent 4,000,000,000 = lake = indexed 3,999,999,000 + 1,000 malformed: nothing lost, nothing twice"
    shown = " ".join(line.strip() for line in lines[1:3]) if width == 80 else lines[1].strip()
    assert shown == badge
    whole = [
        *NAMES, "987.6 MB", "10 min", "40,000,000.0/s", "p50 0.00 s   p95 0.00 s", "4,000,000,000", "3,999,999,000",
        "9,000,000,000", "1,234,567", "dead letters", "alerts: 1,234 firing, 1,234,567 in total",
    ]  # fmt: skip
    assert [each for each in whole if each not in "\n".join(lines)] == []
    if height > 24:
        assert str(-(2**63)) in "\n".join(lines)


@SIZES
def test_a_long_topic_is_shown_in_full_where_there_is_room(size: tuple[int, int]) -> None:
    width, height = size
    view = _view(topic="t" * 249)
    view.add(Snapshot(), 0.0, _parts())
    shown = "".join(_lines(view, width, height)).count("t" * 20) * 20
    assert shown >= 200 or height == 24


def test_two_panes_begin_at_120_columns() -> None:
    view = _full_view("item_7", "avroic", "users")
    assert "ok" not in _line_with(_lines(view, 119, 40), "stage ")
    assert "ok" in _line_with(_lines(view, 120, 40), "stage ")


def test_in_two_panes_the_percentiles_have_a_line_of_their_own_and_the_course_the_width() -> None:
    view = _full_view("item_7", "avroic", "users")
    lines = _lines(view, 120, 40)
    assert "p50" not in _line_with(lines, "latency ")
    assert _line_with(lines, "latency ").count("▁") == 31
    assert "p50 0.00 s   p95 0.00 s" in lines[lines.index(_line_with(lines, "latency ")) + 1]


def test_a_header_without_rows_is_left_out() -> None:
    view = _view()
    view.add(Snapshot(documents={"users": 1, "items": 2}), 0.0, _parts())
    with_rows = [_lines(view, 80, height) for height in range(10, 40)]
    assert {("documents" in "\n".join(lines), "users" in "\n".join(lines)) for lines in with_rows} == {
        (False, False), (True, True)
    }  # fmt: skip


@pytest.mark.parametrize(("width", "height"), [(80, 10), (60, 10), (40, 5), (120, 8)])
def test_in_a_low_terminal_the_keys_stay(width: int, height: int) -> None:
    view = _full_view("item_7", "avroic", "users")
    view.note("refused: " + "x" * 1_000)
    lines = _lines(view, width, height)
    assert len(lines) <= height
    assert " ".join(" ".join(lines).split()).endswith("v viral item q quit")
    assert "✓ sent" in " ".join(lines) or height == 5


@pytest.mark.parametrize(
    ("width", "rule"), [(80, "max_interactions > 1500 within 30 s"), (120, "max_interactions > 1")]
)
def test_the_row_of_an_alert_is_shown_in_full_and_its_rule_as_far_as_possible(width: int, rule: str) -> None:
    view = _view()
    shown = {"alert_text": "max_interactions > 1500 within 30 s", "id": "item_134", "value": 1_501}
    view.add(Snapshot(alerts=(_alert(status="resolved", **shown),)), 0.0)
    line = _line_with(_lines(view, width, 24), "10:20:30")
    assert rule in line
    assert line.split()[-2:] == ["item_134", "1501"]


def test_an_alert_has_the_name_of_its_rule_and_no_alerts_are_not_said_without_elasticsearch() -> None:
    view = _view()
    view.add(Snapshot(firing=0), 0.0)
    assert "none yet" in " ".join(_lines(view))
    view.add(Snapshot(firing=1, alerts=(_alert(rule="viral item"),)), 1.0)
    assert "viral item" in _line_with(_lines(view), "10:20:30")
    view.add(Snapshot(), 2.0)
    lines = " ".join(_lines(view))
    assert "none yet" not in lines
    assert "Elasticsearch does not answer" in lines


def test_in_a_narrow_terminal_rules_and_rows_are_truncated_and_nothing_else() -> None:
    view = _view()
    alert = _alert(
        status="resolved",
        alert_text="total_interactions > 400 within 10 min",
        id="item_1|2026-01-01T10:00:00Z",
        value=12_345,
    )
    view.add(Snapshot(alerts=(alert,)), 0.0)
    cells = re.split(" {2,}", _line_with(_lines(view, 70, 24), "10:20:30").strip())
    assert [cell for cell in cells if not cell.endswith("…")] == ["10:20:30", "resolved", "12345"]
    assert len(cells) == 5


# --- Text from records -----------------------------------------------------------------------------


def test_text_from_records_and_of_errors_is_shown_literally() -> None:
    view = _view(topic=HOSTILE)
    alert = _alert(status=HOSTILE, alert_text=HOSTILE, id=HOSTILE)
    parts = [Part("Kafka", HOSTILE, None), Part("Elasticsearch", "\x9b31m", None)]
    view.add(Snapshot(documents={HOSTILE: 1}, alerts=(alert,)), 0.0, parts)
    view.note(HOSTILE)
    file = io.StringIO()
    Console(width=600, height=50, file=file, force_terminal=True, color_system=None).print(view)
    screen = file.getvalue()
    assert screen.count(SHOWN) == 7
    assert not re.search("[\x1b\x07\u202e\x9b]", screen)
