"""The overview of the live page without a browser: the pipeline's model, its figures over time, and the banner."""

from typing import Any

import pytest

from contract.alerts import ALERTS
from live_page.banner import banner_text
from live_page.charts import Options, bar_chart, line_options, stacked_chart, update_bars, update_stacked
from live_page.diagram import edge_width
from live_page.pages.tiles import minute_before
from live_page.pipeline_model import Box, Edge, Flow, PipelineModel, pipeline_model
from observer.lake_cuts import Cut
from observer.reading_history import ReadingHistory
from observer.snapshot import Snapshot
from tests.page_client import page_client

HEALTHY = dict.fromkeys(
    ("Kafka", "Elasticsearch", "data_producer", "stream_processing", "elasticsearch_sink_alert"), "ok"
)


def _snapshot(second: int, **changes: Any) -> Snapshot:
    """A pipeline in which 100 interactions and 50 rows a second are nowhere late."""
    done = 100 * second
    figures: dict[str, Any] = {
        "sent": done + 40, "ends": {0: done + 40}, "cuts": (Cut(done, {0: done}, "id", second, 0),),
        "in_the_lake": done, "aggregated": done, "published": 50 * second, "sink_lag": 3, "uncommitted": 10,
        "dead_letters": 7, "documents": {"agg_interactions_user": 10, ALERTS: second}, "indexed": done, "firing": 2,
        "health": HEALTHY,
    }  # fmt: skip
    return Snapshot(**(figures | changes))


def _model(*snapshots: Snapshot) -> PipelineModel:
    """The model after one snapshot per second."""
    return pipeline_model(_history(*snapshots), "avroic")


def _history(*snapshots: Snapshot) -> ReadingHistory:
    history = ReadingHistory()
    for second, snapshot in enumerate(snapshots, start=1):
        history.add(snapshot, at=float(second))
    return history


def _box(model: PipelineModel, name: str) -> Box:
    (box,) = (box for box in model.boxes if box.name == name)
    return box


def _edge(model: PipelineModel, source: str, target: str) -> Edge:
    (edge,) = (edge for edge in model.edges if (edge.source, edge.target) == (source, target))
    return edge


def _flows(model: PipelineModel) -> set[Flow]:
    return {edge.flow for edge in model.edges}


# --- The pipeline ----------------------------------------------------------------------------------


def test_each_box_has_its_rate_its_rows_or_lag_and_its_health() -> None:
    model = _model(*[_snapshot(second) for second in range(1, 21)])
    assert {box.name: (box.rate_text, box.figure, box.state) for box in model.boxes} == {
        "producer": ("100/s", "2,040 sent", "ok"),
        "topic": ("100/s", "2,040 records", "ok"),
        "ingest": ("100/s", "lag 40", "ok"),
        "dead letters": ("0/s", "7 records", "ok"),
        "lake": ("100/s", "2,000 rows", "ok"),
        "aggregate": ("100/s", "lag 0", "ok"),
        "aggregated topic": ("50/s", "1,000 records", "ok"),
        "sink": ("50/s", "lag 3", "ok"),
        "alerts": ("1/s", "2 firing", "ok"),
        "indices": ("100/s", "2,000 counted", "ok"),
    }
    assert [box.title for box in model.boxes if box.kind == "Kafka topic"] == [
        "avroic", "Dead letters", "avroic_aggregated",
    ]  # fmt: skip
    assert ("Users", 10) in _box(model, "indices").parts
    # A count of an index that is not there yet is unknown, not 0.
    assert ("Items", None) in _box(model, "indices").parts


def test_each_edge_leads_from_a_box_to_a_box_and_each_box_but_the_first_has_one() -> None:
    model = _model(_snapshot(1))
    names = [box.name for box in model.boxes]
    assert {edge.source for edge in model.edges} <= set(names)
    assert sorted(edge.target for edge in model.edges) == sorted(set(names) - {"producer"})


def test_edges_of_a_pipeline_that_keeps_up_flow_and_are_idle_without_records() -> None:
    model = _model(*[_snapshot(second) for second in range(1, 21)])
    assert {edge.target for edge in model.edges if edge.flow == Flow.IDLE} == {"dead letters"}
    assert _flows(model) == {Flow.FLOWING, Flow.IDLE}
    assert _edge(model, "topic", "ingest").text == "topic to ingest: 100/s"
    assert _flows(_model(*[_snapshot(20, ends={0: 2_000}, sink_lag=0)] * 20)) == {Flow.IDLE}


def test_rows_that_wait_for_a_service_that_does_not_answer_are_behind_at_once() -> None:
    away = HEALTHY | {"elasticsearch_sink_alert": "does not answer"}
    # Without the sink's own metrics, Kafka tells what it has not committed.
    model = _model(_snapshot(1), _snapshot(2, health=away, sink_lag=None, uncommitted=60))
    edge = _edge(model, "aggregated topic", "sink")
    assert edge.flow == Flow.BEHIND
    assert edge.text == "aggregated topic to sink: 0/s, behind by 60"
    sink = _box(model, "sink")
    assert (sink.figure, sink.state, sink.is_behind, sink.has_problem) == (
        "behind by 60",
        "does not answer",
        True,
        True,
    )
    assert _edge(model, "topic", "ingest").flow == Flow.FLOWING


def test_rows_that_wait_for_a_sink_without_partitions_yet_are_behind() -> None:
    starting = HEALTHY | {"elasticsearch_sink_alert": "kafka: starting"}
    model = _model(_snapshot(1), _snapshot(2, health=starting, sink_lag=0, uncommitted=60))
    assert _edge(model, "aggregated topic", "sink").text == "aggregated topic to sink: 0/s, behind by 60"


def test_a_service_that_does_not_answer_and_has_nothing_to_do_is_not_behind() -> None:
    away = HEALTHY | {"elasticsearch_sink_alert": "does not answer"}
    model = _model(_snapshot(1), _snapshot(2, health=away, sink_lag=None, uncommitted=0))
    assert _edge(model, "aggregated topic", "sink").flow != Flow.BEHIND
    assert _box(model, "sink").has_problem


@pytest.mark.parametrize(
    ("late", "lagging", "edge"),
    [
        ({"sink_lag": 251}, {"sink_lag": 250}, ("aggregated topic", "sink")),
        ({"aggregated": 1_499}, {"aggregated": 1_500}, ("lake", "aggregate")),
        ({"ends": {0: 2_501}}, {"ends": {0: 2_500}}, ("topic", "ingest")),
    ],
)
def test_an_edge_is_behind_if_something_has_waited_for_more_than_5_seconds(
    late: dict[str, Any], lagging: dict[str, Any], edge: tuple[str, str]
) -> None:
    earlier = [_snapshot(second) for second in range(1, 20)]
    assert _edge(_model(*earlier, _snapshot(20, **lagging)), *edge).flow == Flow.FLOWING
    assert _edge(_model(*earlier, _snapshot(20, **late)), *edge).flow == Flow.BEHIND
    # Nobody knows before 5 seconds have passed.
    assert _edge(_model(_snapshot(18), _snapshot(19), _snapshot(20, **late)), *edge).flow != Flow.BEHIND


def test_the_lag_of_the_ingest_is_exact_in_the_middle_of_a_batch_with_aborted_records() -> None:
    # 40 offsets wait; 500 of those before are neither rows nor dead letters.
    model = _model(_snapshot(20, cuts=(Cut(1_500, {0: 2_000}, "id", 1, 0),), in_the_lake=1_500))
    assert _box(model, "ingest").figure == "lag 40"
    # Without the lake's history, by the numbers of records.
    assert _box(_model(_snapshot(20, cuts=())), "ingest").figure == "lag 33"


def test_what_does_not_answer_is_unknown_and_neither_zero_nor_none() -> None:
    nothing = dict.fromkeys(("sent", "ends", "published", "uncommitted", "dead_letters", "indexed", "firing"))
    away = HEALTHY | {"Kafka": "does not answer", "Elasticsearch": "does not answer"}
    model = _model(_snapshot(1), _snapshot(2, **nothing, documents={}, health=away))
    for name, figure in {
        "topic": "– records", "dead letters": "– records", "alerts": "– firing", "indices": "– counted",
    }.items():  # fmt: skip
        box = _box(model, name)
        assert (box.rate_text, box.figure, box.state) == ("–/s", figure, "does not answer")
    assert {number for _, number in _box(model, "indices").parts} == {None}
    assert _edge(model, "producer", "topic").flow == Flow.UNKNOWN


def test_rows_that_elasticsearch_does_not_take_are_behind_on_the_way_to_it() -> None:
    away = HEALTHY | {"Elasticsearch": "does not answer"}
    model = _model(_snapshot(1), _snapshot(2, indexed=None, documents={}, health=away))
    assert _edge(model, "sink", "indices").flow == Flow.BEHIND
    assert _edge(model, "aggregated topic", "sink").flow == Flow.FLOWING


def test_before_the_first_reading_everything_waits() -> None:
    model = pipeline_model(ReadingHistory(), "avroic")
    assert {box.state for box in model.boxes} == {"waiting"}
    assert not any(box.has_problem for box in model.boxes)
    assert _flows(model) == {Flow.UNKNOWN}


def test_an_edge_is_wider_with_a_higher_rate_within_bounds() -> None:
    widths = [edge_width(rate) for rate in (0, 1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)]
    assert widths == sorted(set(widths))
    assert edge_width(None) == edge_width(0) >= 1
    assert widths[-1] < 12


# --- Figures over time -----------------------------------------------------------------------------


def test_figures_are_kept_for_half_an_hour() -> None:
    history = _history(*[Snapshot(sent=n, firing=n) for n in range(2_000)])
    assert [point.at for point in history.points(3_600)] == [float(second) for second in range(200, 2_001)]
    assert [(point.at, point.firing) for point in history.points(1)] == [(1_999.0, 1_998), (2_000.0, 1_999)]
    assert ReadingHistory().points(60) == []


def test_browsers_share_the_figures_of_a_time_until_there_are_newer_ones() -> None:
    history = _history(*[Snapshot(firing=n) for n in range(100)])
    minute, hour = history.points(60), history.points(3_600)
    assert (len(minute), len(hour)) == (61, 100)
    assert history.points(60) is minute
    history.add(Snapshot(firing=100), 101.0)
    assert [point.at for point in history.points(60)] == [float(second) for second in range(41, 102)]
    assert (len(minute), len(history.points(3_600))) == (61, 101)


def test_a_change_is_against_the_value_a_minute_before_if_that_is_known() -> None:
    history = _history(*[Snapshot(firing=n) for n in range(100)])
    assert minute_before(history.points(65), lambda point: point.firing) == 39
    assert (
        minute_before(_history(*[Snapshot(firing=n) for n in range(50)]).points(65), lambda point: point.firing) is None
    )
    unknown = [Snapshot(firing=None if 30 <= n <= 40 else n) for n in range(100)]
    assert minute_before(_history(*unknown).points(65), lambda point: point.firing) == 41


def _charted(values: list[float | None], **levels: float | None) -> Options:
    points = [(float(second), value) for second, value in enumerate(values)]
    return line_options("seconds", points, unit=" s", levels=levels, span=(0, 100))


def test_a_cold_start_does_not_flatten_a_chart_and_is_marked() -> None:
    chart = _charted([3.1, 2.0, *[0.5] * 60, None, 9.0, *[0.5] * 20])
    bound = chart["yAxis"]["max"]
    assert bound == pytest.approx(0.6)
    marks = chart["series"][0]["markPoint"]["data"]
    # The highest of each run; the values themselves are still there.
    assert [(mark["coord"], mark["name"]) for mark in marks] == [([63_000, bound], "↑ 9 s"), ([0, bound], "↑ 3.1 s")]
    assert sorted((value for _, value in chart["series"][0]["data"] if value), reverse=True)[:2] == [9.0, 3.1]


def test_of_marks_whose_texts_would_overlap_the_highest_is_drawn() -> None:
    values: list[float | None] = [0.5] * 101
    for second, value in {9: 4.0, 18: 5.0, 38: 2.0, 97: 6.0, 75: 3.0}.items():
        values[second] = value
    chart = _charted(values)
    marks = chart["series"][0]["markPoint"]["data"]
    # Within a fifth of the axis of 18 is 9; the text of 97 is to its left, where that of 75 would be.
    assert [(mark["name"], mark.get("label")) for mark in marks] == [
        ("↑ 6 s", {"position": "left"}),
        ("↑ 5 s", None),
        ("↑ 2 s", None),
    ]


@pytest.mark.parametrize(
    ("late", "places"),
    [
        ({}, {"insideEndTop", "insideEndBottom"}),
        ({97: 6.0}, {"insideStartTop", "insideStartBottom"}),
        ({3: 6.0, 97: 6.0}, {"insideMiddleTop", "insideMiddleBottom"}),
    ],
)
def test_the_texts_of_levels_are_not_over_those_of_outliers(late: dict[int, float], places: set[str]) -> None:
    chart = _charted([late.get(second, 0.5) for second in range(101)], p50=0.5, p95=0.55)
    lines = chart["series"][0]["markLine"]["data"]
    assert {line["label"]["position"] for line in lines} == places


def test_an_axis_that_was_clipped_is_free_again() -> None:
    assert _charted([3.1, *[0.5] * 40])["yAxis"]["max"] is not None
    chart = _charted([0.5, 0.6])
    # It is sent, since ECharts would keep a bound that is left out.
    assert chart["yAxis"]["max"] is None
    assert chart["series"][0]["markPoint"]["data"] == []


def test_levels_are_lines_with_their_values_and_an_unknown_one_has_none() -> None:
    lines = _charted([0.5], p50=0.5, p95=0.75)["series"][0]["markLine"]["data"]
    assert [(line["yAxis"], line["name"]) for line in lines] == [(0.5, "p50 0.5 s"), (0.75, "p95 0.75 s")]
    # One text is below its line, and the other one above.
    assert [line["label"]["position"] for line in lines] == ["insideEndBottom", "insideEndTop"]
    # Below it would be over the times of the axis.
    far = _charted([0.5], p50=0.5, p95=18.0)["series"][0]["markLine"]["data"]
    assert [line["label"]["position"] for line in far] == ["insideEndTop", "insideEndTop"]
    assert _charted([None], p50=None, p95=None)["series"][0]["markLine"]["data"] == []


def test_the_texts_of_deaths_are_above_the_line_and_never_over_each_other() -> None:
    def charted(*marks: float) -> Options:
        return line_options("seconds", [], [(at, "sink\nready again") for at in marks], span=(0.0, 60.0))

    def labels(*marks: float) -> list[dict[str, object]]:
        return [line["label"] for line in charted(*marks)["series"][0]["markLine"]["data"]]

    right_of_it, left_of_it, arrow, hidden = {"align": "left"}, {"align": "right"}, {"formatter": "▲"}, {"show": False}
    margin = charted()["grid"]["top"]
    assert labels(10.0) == [right_of_it]
    assert charted(10.0)["grid"]["top"] > margin
    assert labels(50.0) == [left_of_it]
    assert labels(5.0, 40.0) == [arrow, left_of_it]
    # The text of the last one covers where the second one is.
    assert labels(5.0, 30.0, 50.0) == [arrow, hidden, left_of_it]
    # One beyond the axis has neither.
    assert labels(-5.0) == []
    assert charted(-5.0)["grid"]["top"] == margin


# --- The banner ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("silent", "text"),
    [
        ([], ""),
        (["Elasticsearch"], "Elasticsearch does not answer: grey panels show their last state"),
        (["Elasticsearch", "Kafka"], "Kafka and Elasticsearch do not answer: grey panels show their last state"),
        # The panel of health has the services.
        (["data_producer"], ""),
    ],
)
def test_one_banner_names_the_servers_that_do_not_answer(silent: list[str], text: str) -> None:
    history = _history(_snapshot(1, health=HEALTHY | dict.fromkeys(silent, "does not answer")))
    assert banner_text(history.latest, now=2) == text


def test_the_banner_says_that_there_is_no_new_reading_but_not_before_the_first_one() -> None:
    assert banner_text(ReadingHistory().latest, now=1e9) == ""
    assert banner_text(_history(_snapshot(1)).latest, now=100) == "No new figures since 1970-01-01 00:00:01"


# --- Bars --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "is_hidden"),
    [
        (["total_click", "total_like", "total_view", "total_purchase"], False),
        (["click", "a text that has more characters than fit"], True),
        ([f"user_{n}" for n in range(10)], True),
    ],
)
def test_the_names_of_few_bars_are_never_hidden(names: list[str], is_hidden: bool) -> None:
    with page_client():
        chart = bar_chart([], "counts")
        update_bars(chart, names, list(range(len(names))))
    assert chart.options["xAxis"]["axisLabel"]["hideOverlap"] is is_hidden


def test_the_fewer_the_bars_the_more_room_their_names_have() -> None:
    def width(*names: str) -> int:
        with page_client():
            chart = bar_chart([], "counts")
            update_bars(chart, names, [1] * len(names))
        return int(chart.options["xAxis"]["axisLabel"]["width"])

    assert width("total_click", "total_like", "total_view", "total_purchase") == 72
    # "interactions" is a few pixels wider than 72, and would be broken within.
    assert width("min_interactions", "max_interactions") == 144
    assert width(*(f"user_{n}" for n in range(10))) == 128


def test_the_texts_of_marks_are_above_the_bars_beside_each_other() -> None:
    minutes = [60_000 * n for n in range(60)]
    with page_client():
        chart = stacked_chart("per minute")
        margin = chart.options["grid"]["top"]
        marks = [(600.0, "▲ a > 1"), (660.0, "▲ b > 1"), (3_000.0, "▲ c > 1")]
        update_stacked(chart, {"view": [(at, 1) for at in minutes]}, marks, has_texts_above=True)
    lines = chart.options["series"][0]["markLine"]
    assert lines["label"]["position"] == "end"
    # The first ones have no room for their texts, beside that of the last one.
    assert [line["label"] for line in lines["data"]] == [{"formatter": "▲"}, {"formatter": "▲"}, {"align": "right"}]
    # Below the legend.
    assert chart.options["grid"]["top"] > margin
    assert [line["name"] for line in lines["data"]] == [text for _, text in marks]
