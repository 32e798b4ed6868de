import signal
from collections.abc import Iterator

import pytest

from runtime.signals import stop_on_signal, stop_signals


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_sets_the_event(number: signal.Signals) -> None:
    stop = stop_on_signal()
    assert not stop.is_set()
    signal.raise_signal(number)
    assert stop.wait(5)


def test_a_signal_that_interrupts_the_event_itself_sets_it_afterwards() -> None:
    stop = stop_on_signal()
    # As in the first lines of `Event.wait`.
    with stop._cond:  # type: ignore[attr-defined]
        signal.raise_signal(signal.SIGTERM)
        assert not stop.is_set()
    assert stop.wait(5)


def test_a_closed_terminal_does_not_stop_a_program_that_nohup_has_started() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop_on_signal()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.SIGHUP not in stop_signals()
