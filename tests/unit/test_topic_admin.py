import logging
import re
import threading
import time
from pathlib import Path

import pytest

from contract.topics import interactions_topic
from runtime import topic_admin
from runtime.kafka_log import COORDINATOR_LOADING, UNREACHABLE, lower_to_debug
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


def _retry(monkeypatch: pytest.MonkeyPatch, pauses: int) -> None:
    """Let a client wait for a broker that does not answer, for this number of pauses of 9 s."""

    class EnoughError(Exception):
        pass

    left = iter(range(pauses))

    def sleep(_: float) -> None:
        if next(left, None) is None:
            raise EnoughError

    now = iter(range(0, 10_000, 9))
    monkeypatch.setattr("tenacity.time.monotonic", lambda: float(next(now)))
    with pytest.raises(EnoughError):
        topic_admin._retrying(NO_BROKER, sleep)(_no_answer)


def _no_answer() -> None:
    raise topic_admin._BrokerUnavailableError("Local: Timed out")


def test_a_broker_that_starts_a_little_later_is_one_line_that_is_no_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    _retry(monkeypatch, 1)
    assert [(each.levelname, each.message) for each in caplog.records] == [
        ("INFO", "no answer from Kafka at 127.0.0.1:1 yet: waiting for it")
    ]


def test_a_broker_that_does_not_answer_for_long_is_a_warning_with_the_reason_every_20_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    _retry(monkeypatch, 6)
    assert caplog.messages == [
        f"still no answer from Kafka at 127.0.0.1:1 after {seconds} s: Local: Timed out" for seconds in (27, 54)
    ]


@pytest.mark.parametrize(
    ("usual", "line"),
    [
        (
            UNREACHABLE,
            "FAIL [rdkafka#producer-1] Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms)",
        ),
        (UNREACHABLE, "FAIL [rdkafka#producer-1] Failed to resolve 'kafka:9092': Name or service not known"),
        (
            COORDINATOR_LOADING,
            "GETPID [rdkafka#producer-2] [thrd:main]: Failed to acquire idempotence PID from broker kafka:9092/1:"
            " Broker: Coordinator load in progress: retrying",
        ),
    ],
)
def test_what_the_client_says_while_kafka_starts_is_for_debugging(
    usual: re.Pattern[str], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    serious = "FAIL [rdkafka#producer-1] SSL handshake failed: certificate verify failed"
    for level, expected in (
        (logging.INFO, [("ERROR", serious)]),
        (logging.DEBUG, [("DEBUG", line), ("ERROR", serious)]),
    ):
        caplog.clear()
        logger = logging.Logger("client", level)
        logger.addHandler(caplog.handler)
        lower_to_debug(logger, usual)
        logger.error("%s", line)
        logger.error("%s", serious)
        assert [(each.levelname, each.message) for each in caplog.records] == expected


def test_a_configuration_that_the_client_rejects_is_not_retried() -> None:
    client: dict[str, str | int] = {"bootstrap.servers": "127.0.0.1:1", "sasl.mechanism": "NONE"}
    with pytest.raises(
        topic_admin.TopicError, match=re.escape("correct KAFKA_BROKER=127.0.0.1:1 KAFKA_SASL_MECHANISM=NONE")
    ):
        topic_admin.create_missing_topics(
            client | {"security.protocol": "SASL_PLAINTEXT"}, threading.Event(), interactions_topic(Settings())
        )
