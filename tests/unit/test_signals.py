import signal
from collections.abc import Iterator

import pytest

from runtime.signals import stop_on_signal


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
