"""A recorded file reaches the topic in its order and once, however often the producer is stopped or killed."""

import csv
import gzip
import random
import re
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from subprocess import CalledProcessError

import duckdb
import orjson
import pytest
import requests
from confluent_kafka import Consumer, KafkaException

from local_stack import servers
from local_stack.services import PRODUCER, ROOT
from runtime.topic_reader import offset_ranges
from tests.interaction import INTERACTION_TYPES, Interaction
from tests.pipeline import Pipeline, assert_more_than, eventually, kill_9

EXAMPLE = ROOT / "examples/replay/shop_events.csv.gz"
QUERY = "SELECT visitor AS user_id, product AS item_id, action AS interaction_type, event_time AS timestamp FROM source"


def recorded(count: int, seed: int = 1) -> list[Interaction]:
    """Return random interactions, many of which are equal."""
    draw = random.Random(seed)
    return [
        Interaction(f"user_{draw.randrange(9)}", f"item_{draw.randrange(3)}", draw.choice(INTERACTION_TYPES), n // 500)
        for n in range(count)
    ]


def write_json_lines(path: Path, interactions: Iterable[Interaction]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(interaction) + b"\n" for interaction in interactions))
    return path


def by_user(interactions: Iterable[Interaction]) -> dict[str, list[Interaction]]:
    """Return the interactions of each user in their order: a user is in one partition, whose order Kafka keeps."""
    ordered = defaultdict(list)
    for interaction in interactions:
        ordered[interaction.user_id].append(interaction)
    return dict(ordered)


def assert_sent_once(pipeline: Pipeline, interactions: Sequence[Interaction]) -> None:
    assert Counter(pipeline.interactions()) == Counter(interactions)


@pytest.mark.parametrize("name", ["events.csv", "events.ndjson", "events.parquet"])
def test_a_whole_file_of_each_format_reaches_the_topic_in_its_order_and_only_once(
    name: str, pipeline: Pipeline, tmp_path: Path
) -> None:
    interactions = recorded(30_000)
    lines = write_json_lines(tmp_path / "lines.ndjson", interactions)
    path = tmp_path / name
    if name != "events.ndjson":
        duckdb.connect().execute(f"COPY (FROM read_json('{lines}')) TO '{path}'")
    else:
        lines.rename(path)
    for _ in range(2):
        pipeline.run_to_end(PRODUCER, PRODUCER_SOURCE=path, PRODUCER_RATE=0)
        assert by_user(pipeline.interactions()) == by_user(interactions)
    assert all(m.key() == orjson.loads(m.value() or b"")["user_id"].encode() for m in pipeline.read(pipeline.topic))
    log = pipeline.log(PRODUCER)
    assert f"the replay of {path} is finished: 30000 rows sent, 0 skipped" in log
    assert f"the replay of {path} is already finished: 30000 rows sent, 0 skipped" in log


def test_a_query_maps_the_columns_of_the_example(pipeline: Pipeline) -> None:
    pipeline.run_to_end(
        PRODUCER, PRODUCER_SOURCE=EXAMPLE, PRODUCER_QUERY=f"{QUERY} WHERE product = 'p108'", PRODUCER_RATE=0
    )
    sent = pipeline.interactions()
    assert sent[0].item_id == "p108"
    assert len(sent) == _rows_of_example("p108") > 10


def _rows_of_example(product: str) -> int:
    with gzip.open(EXAMPLE, "rt") as file:
        return sum(row["product"] == product for row in csv.DictReader(file))


def test_rows_that_are_no_interaction_are_skipped_and_logged_by_number(pipeline: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(
        "user_id,item_id,interaction_type,timestamp\n"
        "user_1,item_1,view,1700000000\n"
        ",item_1,view,1700000001\n"
        "user_1,item_1,stare,1700000002\n"
        "user_2,item_1,like,1700000003\n"
    )
    pipeline.run_to_end(PRODUCER, PRODUCER_SOURCE=path, PRODUCER_RATE=0)
    expected = [
        Interaction("user_1", "item_1", "view", 1_700_000_000),
        Interaction("user_2", "item_1", "like", 1_700_000_003),
    ]
    assert_sent_once(pipeline, expected)
    log = pipeline.log(PRODUCER)
    assert "row 2 is skipped: user_id is missing" in log
    assert "row 3 is skipped: interaction_type is stare, not one of click, like, view, purchase" in log
    assert "is finished: 2 rows sent, 2 skipped" in log


def test_a_replay_that_is_killed_again_and_again_sends_every_row_once(
    pipeline: Pipeline, tmp_path: Path, seed: int
) -> None:
    interactions = recorded(60_000)
    settings = {"PRODUCER_SOURCE": write_json_lines(tmp_path / "events.ndjson", interactions)}
    draw = random.Random(seed)
    for _ in range(4):
        # More than a second at this interval: some rows are before the stored position, and some after it.
        least = _end_offsets(pipeline) + draw.randrange(2_500, 4_000)
        producer = pipeline.service(PRODUCER, **settings, PRODUCER_RATE="0.0005")
        producer.start()
        eventually(partial(_assert_more_records_than, pipeline, least))
        kill_9(producer)
    assert _end_offsets(pipeline) < len(interactions)
    pipeline.run_to_end(PRODUCER, **settings, PRODUCER_RATE=0)
    # Also in order: Kafka appends what an idempotent producer has in flight in its order, and without gaps.
    assert by_user(pipeline.interactions()) == by_user(interactions)
    assert re.search(r"continues after row [1-9]\d*, [1-9]\d* later ones are in the topic", pipeline.log(PRODUCER))


def _assert_more_records_than(pipeline: Pipeline, least: int) -> None:
    assert _end_offsets(pipeline) > least


def test_a_replay_at_full_speed_that_is_killed_sends_every_row_once(pipeline: Pipeline, tmp_path: Path) -> None:
    interactions = recorded(600_000)
    path = write_json_lines(tmp_path / "events.ndjson", interactions)
    settings = {"PRODUCER_SOURCE": path, "PRODUCER_RATE": 0}
    producer = pipeline.service(PRODUCER, **settings)
    producer.start()
    eventually(lambda: assert_more_than(_end_offsets(pipeline), 0))
    kill_9(producer)
    assert 0 < _end_offsets(pipeline) < len(interactions)
    pipeline.run_to_end(PRODUCER, **settings)
    assert by_user(pipeline.interactions()) == by_user(interactions)


def _end_offsets(pipeline: Pipeline) -> int:
    """Return the number of records in the topic, without reading them; 0 until the topic is known."""
    with closing(Consumer({"bootstrap.servers": pipeline.kafka, "group.id": "tests"})) as consumer:
        try:
            return sum(end for _, end in offset_ranges(consumer, pipeline.topic, timeout=30).values())
        except KafkaException:
            return 0


def test_a_replay_that_is_stopped_continues_at_the_next_row(pipeline: Pipeline, tmp_path: Path) -> None:
    interactions = recorded(3_000)
    path = write_json_lines(tmp_path / "events.ndjson", interactions)
    settings = {"PRODUCER_SOURCE": path, "PRODUCER_RATE": "0.001"}
    with pipeline.running(PRODUCER, **settings):
        eventually(lambda: assert_more_than(len(pipeline.read(pipeline.topic)), 500))
    stopped_at = len(pipeline.read(pipeline.topic))
    assert stopped_at < len(interactions)
    pipeline.run_to_end(PRODUCER, **settings)
    assert by_user(pipeline.interactions()) == by_user(interactions)
    assert f"continues after row {stopped_at}, 0 later ones are in the topic already" in pipeline.log(PRODUCER)


def test_a_changed_file_is_replayed_from_its_start(pipeline: Pipeline, tmp_path: Path) -> None:
    first, second = recorded(300, seed=1), recorded(400, seed=2)
    path = write_json_lines(tmp_path / "events.ndjson", first)
    pipeline.run_to_end(PRODUCER, PRODUCER_SOURCE=path, PRODUCER_RATE=0)
    write_json_lines(path, second)
    pipeline.run_to_end(PRODUCER, PRODUCER_SOURCE=path, PRODUCER_RATE=0)
    assert_sent_once(pipeline, first + second)
    assert "the replay starts over: the file changed since the position was stored" in pipeline.log(PRODUCER)


def test_a_limit_ends_a_run_and_the_next_one_continues(pipeline: Pipeline, tmp_path: Path) -> None:
    interactions = recorded(1_000)
    path = write_json_lines(tmp_path / "events.ndjson", interactions)
    for sent in (400, 800, 1_000):
        pipeline.run_to_end(PRODUCER, PRODUCER_SOURCE=path, PRODUCER_RATE=0, PRODUCER_LIMIT=400)
        assert by_user(pipeline.interactions()) == by_user(interactions[:sent])


def test_no_row_is_lost_or_sent_twice_while_the_broker_is_unavailable(pipeline: Pipeline, tmp_path: Path) -> None:
    interactions = recorded(15_000)
    path = write_json_lines(tmp_path / "events.ndjson", interactions)
    port = servers.free_port()
    broker = servers.kafka(tmp_path / "broker", port)
    own_pipeline = Pipeline(f"{servers.HOST}:{port}", pipeline.es_url, "away", tmp_path)
    producer = own_pipeline.service(PRODUCER, PRODUCER_SOURCE=path, PRODUCER_RATE="0.001")
    try:
        broker.start()
        producer.start()
        eventually(lambda: assert_more_than(len(own_pipeline.read(own_pipeline.topic)), 1_000))
        broker.kill(sig=signal.SIGKILL)
        broker.start()
        assert producer.process is not None
        assert producer.process.wait(90) == 0
        assert by_user(own_pipeline.interactions()) == by_user(interactions)
    finally:
        producer.kill()
        broker.kill()


def test_rows_are_sent_at_a_multiple_of_the_recorded_pace(pipeline: Pipeline, tmp_path: Path) -> None:
    seconds = [0, 10, 5, 30, 40]
    path = write_json_lines(tmp_path / "events.ndjson", [Interaction("u", f"i{s}", "view", s) for s in seconds])
    pipeline.run_to_end(PRODUCER, PRODUCER_SOURCE=path, PRODUCER_SPEED=10)
    sent_at = {
        orjson.loads(m.value() or b"")["timestamp"]: m.timestamp()[1] / 1000 for m in pipeline.read(pipeline.topic)
    }
    assert list(sent_at) == seconds
    # Never early. Late is possible on a busy machine, and then only as a whole.
    assert sent_at[10] - sent_at[0] > 0.9
    assert sent_at[30] - sent_at[10] > 1.0
    assert sent_at[40] - sent_at[0] > 3.9
    assert sent_at[5] - sent_at[10] < 0.5


def test_the_controls_pause_a_replay_and_say_what_has_no_effect(pipeline: Pipeline, tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "events.ndjson", recorded(100_000))
    settings = {"PRODUCER_SOURCE": path, "PRODUCER_RATE": "0.005", "PRODUCER_CONTROLS": "true"}
    with pipeline.running(PRODUCER, **settings) as producer:
        url = producer.url.geturl().replace("/health", "/control")
        assert requests.get(url, timeout=5).json()["replay"] == "events.ndjson"
        refused = requests.post(url, json={"burst": 10}, timeout=5)
        assert (refused.status_code, refused.json()["error"]) == (
            409, "burst: no effect while events.ndjson is replayed"
        )  # fmt: skip
        requests.post(url, json={"rate": 0.0005}, timeout=5).raise_for_status()
        eventually(lambda: assert_more_than(len(pipeline.read(pipeline.topic)), 3_000))
        requests.post(url, json={"paused": True}, timeout=5).raise_for_status()
        eventually(lambda: assert_idle(pipeline))


def assert_idle(pipeline: Pipeline) -> None:
    before = len(pipeline.read(pipeline.topic))
    time.sleep(1.5)
    assert len(pipeline.read(pipeline.topic)) == before


def test_a_file_that_cannot_be_replayed_is_a_wrong_setting(pipeline: Pipeline) -> None:
    with pytest.raises(CalledProcessError) as error:
        pipeline.run_to_end(PRODUCER, PRODUCER_SOURCE="missing.csv")
    assert error.value.returncode == 2
    assert "PRODUCER_SOURCE=missing.csv does not exist" in pipeline.log(PRODUCER)


ORDERS = """
customer,category,n,price,coupon,placed
c1,toys,2,19.99,spring,2026-01-31 12:00:00
c2,music,1,5,,2026-01-31T13:00:00.250+01:00
c3,books,1,0.001,,2026-01-31 12:00:00
c4,cars,1,1,,2026-01-31 12:00:00
c5,books,1.5,1,,2026-01-31 12:00:00
c6,books,1,1,,yesterday
"""


def test_a_file_of_another_declaration_is_replayed_by_its_fields(pipeline: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text(ORDERS.lstrip())
    columns = "customer AS customer_id, category, n AS quantity, price, coupon, placed AS ordered_at"
    pipeline.run_to_end(
        PRODUCER,
        PIPELINE=ROOT / "examples/orders/pipeline.py",
        PRODUCER_SOURCE=path,
        PRODUCER_QUERY=f"SELECT {columns} FROM source",
        PRODUCER_RATE=0,
    )
    sent = sorted(
        (orjson.loads(m.value() or b"") for m in pipeline.read(pipeline.topic)), key=lambda e: e["customer_id"]
    )
    assert sent == [
        {
            "customer_id": "c1", "category": "toys", "quantity": 2, "price": "19.99", "coupon": "spring",
            "ordered_at": "2026-01-31T12:00:00.000000Z",
        },
        {
            "customer_id": "c2", "category": "music", "quantity": 1, "price": "5", "coupon": None,
            "ordered_at": "2026-01-31T12:00:00.250000Z",
        },
    ]  # fmt: skip
    log = pipeline.log(PRODUCER)
    for reason in (
        "row 3 is skipped: price is 0.001, which has more than 2 decimal places",
        "row 4 is skipped: category is cars, not one of books, music, toys",
        "row 5 is skipped: quantity is missing, or not a whole number, or text that is one",
        "row 6 is skipped: ordered_at is missing, or not a TIMESTAMP (UTC), or text that is one",
    ):
        assert reason in log
