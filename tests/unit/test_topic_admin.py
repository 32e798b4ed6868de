import re
import threading
import time
from pathlib import Path

import pytest

from contract.topics import interactions_topic
from runtime import topic_admin
from runtime.settings import Settings
from runtime.signals import StoppedError

NO_BROKER: dict[str, str | int] = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}


@pytest.fixture(autouse=True)
def _no_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_waiting_for_the_broker_ends_when_the_service_is_stopped() -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    started = time.monotonic()
    with pytest.raises(StoppedError):
        topic_admin.create_missing_topics(NO_BROKER, stop, interactions_topic(Settings()))
    assert time.monotonic() - started < 30


def test_waiting_for_a_topics_limit_ends_when_the_service_is_stopped() -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(StoppedError):
        topic_admin.wait_for_max_message_bytes(NO_BROKER, "topic", topic_admin.interruptible_sleep(stop))


def test_waiting_for_a_topics_limit_sleeps_as_the_caller_says() -> None:
    class EnoughError(Exception):
        pass

    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise EnoughError

    with pytest.raises(EnoughError):
        topic_admin.wait_for_max_message_bytes(NO_BROKER, "topic", sleep, request_timeout=0.2)
    assert all(0 <= pause <= 10 for pause in pauses)


def test_waiting_for_the_broker_is_logged_during_the_first_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(topic_admin, "_SHORT_WAIT", 0.01)
    caplog.set_level("INFO")

    def request() -> None:
        end = time.monotonic() + 10
        while not caplog.messages and time.monotonic() < end:
            time.sleep(0.001)
        assert caplog.messages == ["waiting for Kafka at 127.0.0.1:1"]

    topic_admin._retry(lambda _: None, NO_BROKER, request)


def test_a_broker_that_answers_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert topic_admin._retry(lambda _: None, NO_BROKER, lambda: "answer") == "answer"
    assert caplog.messages == []


def test_a_configuration_that_the_client_rejects_is_not_retried() -> None:
    client: dict[str, str | int] = {"bootstrap.servers": "127.0.0.1:1", "sasl.mechanism": "NONE"}
    with pytest.raises(
        topic_admin.TopicError, match=re.escape("correct KAFKA_BROKER=127.0.0.1:1 KAFKA_SASL_MECHANISM=NONE")
    ):
        topic_admin.create_missing_topics(
            client | {"security.protocol": "SASL_PLAINTEXT"}, threading.Event(), interactions_topic(Settings())
        )
