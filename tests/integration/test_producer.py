import signal
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import requests

from local_stack import servers
from local_stack.services import PRODUCER
from tests.interaction import INTERACTION_TYPES
from tests.pipeline import Pipeline, assert_equal, assert_more_than, eventually


def test_the_producer_sends_exactly_its_limit_keyed_by_user(pipeline: Pipeline) -> None:
    pipeline.run_to_end(PRODUCER, PRODUCER_RATE=0, PRODUCER_LIMIT=50_000, RANDOM_DATA_MAX_USERS=100)
    messages = pipeline.read(pipeline.topic)
    assert len(messages) == 50_000
    partitions_of = defaultdict(set)
    for message in messages:
        interaction = orjson.loads(message.value() or b"")
        assert list(interaction) == ["user_id", "item_id", "interaction_type", "timestamp"]
        assert interaction["interaction_type"] in INTERACTION_TYPES
        assert isinstance(interaction["timestamp"], int)
        assert message.key() == interaction["user_id"].encode()
        partitions_of[interaction["user_id"]].add(message.partition())
    assert len(partitions_of) == 100
    assert all(len(partitions) == 1 for partitions in partitions_of.values())
    assert {p for partitions in partitions_of.values() for p in partitions} == {0, 1, 2, 3}
    assert "sent 50000 interactions" in pipeline.log(PRODUCER)


def test_a_stopped_producer_reports_what_it_has_sent(pipeline: Pipeline) -> None:
    with pipeline.running(PRODUCER, PRODUCER_RATE="0.002"):
        eventually(lambda: assert_more_than(len(pipeline.read(pipeline.topic)), 100))
    sent = len(pipeline.read(pipeline.topic))
    assert f"sent {sent} interactions" in pipeline.log(PRODUCER)
    assert "0 not acknowledged" in pipeline.log(PRODUCER)


def test_no_interaction_is_lost_or_duplicated_while_the_broker_is_unavailable(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    port = servers.free_port()
    broker = servers.kafka(tmp_path / "broker", port)
    own_pipeline = Pipeline(f"{servers.HOST}:{port}", pipeline.es_url, "away", tmp_path)
    producer = own_pipeline.service(PRODUCER, PRODUCER_RATE="0.001", PRODUCER_LIMIT=15_000)
    try:
        broker.start()
        producer.start()
        broker.kill(sig=signal.SIGKILL)
        broker.start()
        assert producer.process is not None
        assert producer.process.wait(90) == 0
        eventually(lambda: _assert_count(own_pipeline, 15_000))
        assert "sent 15000 interactions" in own_pipeline.log(PRODUCER)
    finally:
        producer.kill()
        broker.kill()


def test_the_producer_waits_for_a_broker_that_starts_later(pipeline: Pipeline, tmp_path: Path) -> None:
    port = servers.free_port()
    own_pipeline = Pipeline(f"{servers.HOST}:{port}", pipeline.es_url, "later", tmp_path)
    producer = own_pipeline.service(PRODUCER, PRODUCER_RATE="0.02", PRODUCER_LIMIT=300)
    with ThreadPoolExecutor() as pool:
        started = pool.submit(producer.start)
        try:
            eventually(lambda: _assert_logged(own_pipeline, "no answer from Kafka"))
            with servers.kafka(tmp_path / "broker", port):
                started.result()
                assert producer.process is not None
                assert producer.process.wait(60) == 0
                _assert_count(own_pipeline, 300)
        finally:
            producer.kill()


def _assert_logged(pipeline: Pipeline, text: str) -> None:
    assert text in pipeline.log(PRODUCER)


def _assert_count(pipeline: Pipeline, count: int) -> None:
    assert len(pipeline.read(pipeline.topic)) == count


def test_the_controls_change_the_producer_while_it_runs(pipeline: Pipeline) -> None:
    with pipeline.running(PRODUCER, PRODUCER_CONTROLS="true", PRODUCER_RATE="0.01") as producer:
        url = producer.url.geturl().replace("/health", "/control")
        assert requests.get(url, timeout=5).json() == {
            "rate": 0.01,
            "users": 10,
            "items": 10,
            "wave": 0,
            "paused": False,
        }
        assert requests.post(url, json={"paused": True, "users": 3}, timeout=5).json()["users"] == 3
        eventually(lambda: assert_idle(pipeline))
        before = len(pipeline.read(pipeline.topic))
        requests.post(url, json={"burst": 12_000, "malformed": 10}, timeout=5).raise_for_status()
        eventually(lambda: assert_equal(len(pipeline.read(pipeline.topic)), before + 12_010))
        burst = [message.value() or b"" for message in pipeline.read(pipeline.topic) if message.key() is None]
        assert len(burst) == 10
        requests.post(url, json={"viral_interactions": 500, "items": 300}, timeout=5).raise_for_status()
        eventually(lambda: assert_equal(len(pipeline.read(pipeline.topic)), before + 12_510))
        by_time = sorted(pipeline.read(pipeline.topic), key=lambda message: message.timestamp()[1])
        viral = [orjson.loads(message.value() or b"") for message in by_time[-500:]]
        assert len({interaction["item_id"] for interaction in viral}) == 1
        assert len({interaction["user_id"] for interaction in viral}) == 3
        requests.post(url, json={"paused": False, "rate": 0.002, "items": 1}, timeout=5).raise_for_status()
        eventually(lambda: assert_more_than(len(pipeline.read(pipeline.topic)), before + 12_510 + 100))
        latest = [orjson.loads(m.value() or b"") for m in pipeline.read(pipeline.topic) if m.key() is not None][-1]
        assert latest["user_id"] in {"user_0", "user_1", "user_2"}
        assert_refused(requests.post(url, json={"users": 0, "rates": 1}, timeout=5), 400, "users", "rates")
        assert_refused(requests.post(url, data="{}", timeout=5), 415, "application/json")
        assert_refused(requests.get(url, headers={"Host": "evil.example.com"}, timeout=5), 403, "name")
    with pipeline.running(PRODUCER) as producer:
        # Disabled by default.
        url = producer.url.geturl().replace("/health", "/control")
        assert_refused(requests.get(url, timeout=5), 404, "PRODUCER_CONTROLS=true")
        assert_refused(requests.post(url, json={"paused": True}, timeout=5), 404, "PRODUCER_CONTROLS=true")


def assert_refused(response: requests.Response, status: int, *fragments: str) -> None:
    assert response.status_code == status
    assert all(fragment in response.json()["error"] for fragment in fragments)


def assert_idle(pipeline: Pipeline) -> None:
    before = len(pipeline.read(pipeline.topic))
    time.sleep(1.5)
    assert len(pipeline.read(pipeline.topic)) == before
