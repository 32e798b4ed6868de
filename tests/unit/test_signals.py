import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from runtime.signals import StoppedError, stop_on_signal, wait_for


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
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


def test_waiting_for_results_ends_with_the_first_error() -> None:
    failed: Future[None] = Future()
    failed.set_exception(OSError("no Java"))
    with pytest.raises(OSError, match="no Java"):
        wait_for(threading.Event(), Future(), failed)


def test_waiting_for_results_ends_with_a_signal() -> None:
    stop = stop_on_signal()
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(StoppedError):
        wait_for(stop, Future())


def test_results_that_are_there_are_no_wait() -> None:
    done: Future[int] = Future()
    done.set_result(1)
    stop = threading.Event()
    stop.set()
    wait_for(stop, done)
