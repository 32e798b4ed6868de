import signal
import threading
from concurrent.futures import Future

import pytest

from runtime.signals import StoppedError, stop_on_signal, stop_signals, wait_for

pytestmark = pytest.mark.usefixtures("signal_handlers")


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


def test_a_closed_terminal_does_not_stop_a_program_that_nohup_has_started() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop_on_signal()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.SIGHUP not in stop_signals()
