"""What a service logs while it waits for Kafka."""

import logging

import pytest
from tenacity import RetryCallState

from runtime import topic_admin
from runtime.client_logs import WhileWaiting, lower_routine

_REFUSED = (
    "FAIL [rdkafka#producer-1] [thrd:127.0.0.1:9092/bootstrap]: 127.0.0.1:9092/bootstrap: Connect to"
    " ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)"
)
_UNTRUSTED = "FAIL [rdkafka#producer-{}] [thrd:ssl://b:1/0]: certificate verify failed (after {}ms)"
_ENDING = "BGQUEUE [rdkafka#producer-2] [thrd:background]: Purging 1 unserved events from background queue"
_LOADING = "GETPID [rdkafka#producer-3] [thrd:main]: Failed to acquire PID: Broker: Coordinator load in progress"


def _record(message: str, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord("test_client_logs", level, __file__, 1, message, (), None)


def test_a_broker_that_is_not_up_yet_is_logged_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    for logged, level in ((False, logging.INFO), (True, logging.DEBUG)):
        caplog.set_level(level, "test_client_logs")
        for message, keep in (
            (_REFUSED, WhileWaiting()),
            (_LOADING, WhileWaiting()),
            (_LOADING, lower_routine),
            (_ENDING, lower_routine),
        ):
            record = _record(message)
            assert keep(record) is logged
            assert record.levelname == "DEBUG"


def test_another_reason_is_logged_once_a_minute() -> None:
    now = [0.0]
    keep = WhileWaiting(lambda: now[0])
    assert keep(_record(_UNTRUSTED.format(1, 20)))
    assert not keep(_record(_UNTRUSTED.format(2, 31)))
    assert keep(_record("FAIL [rdkafka#producer-2] [thrd:b]: Failed to resolve 'b' (after 3ms)"))
    assert keep(_record("created topic avroic"))
    now[0] = 61.0
    record = _record(_UNTRUSTED.format(3, 9))
    assert keep(record)
    assert record.levelname == "ERROR"


def test_waiting_for_kafka_is_one_line_and_a_warning_with_the_reason_once_it_takes_long(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    log = topic_admin._WaitLog({"bootstrap.servers": "127.0.0.1:9092"})
    for attempt, seconds in enumerate((0.1, 1.0, 4.0, 11.0, 19.0, 23.0), start=1):
        state = RetryCallState(topic_admin._retrying(lambda _: None, log), None, (), {})
        state.start_time, state.attempt_number = 0.0, attempt
        try:
            raise topic_admin._BrokerUnavailableError("no answer from Kafka at 127.0.0.1:9092: timed out")
        except topic_admin._BrokerUnavailableError as error:
            state.set_exception((type(error), error, None))
        state.outcome_timestamp = seconds
        log(state)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "waiting for Kafka at 127.0.0.1:9092"),
        ("WARNING", "no answer from Kafka at 127.0.0.1:9092: timed out; waiting for 11 s"),
        ("WARNING", "no answer from Kafka at 127.0.0.1:9092: timed out; waiting for 23 s"),
    ]
