"""What the keys of the live view do to the producer, and what they say."""

import threading
import webbrowser
from collections.abc import Callable
from wsgiref.types import WSGIApplication

import pytest
from data_producer.controls import Controls, Flow, application, disabled

from live_page.sources.producer import ProducerControls
from local_stack import actions
from runtime.health import Health, serve

PAGE = "http://localhost:8090"


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


def _press(application_: WSGIApplication, stop: threading.Event) -> Callable[[str], str]:
    port = serve(Health("kafka"), "127.0.0.1", 0, {"/control": application_})
    by_key = actions.actions_by_key(PAGE, ProducerControls(f"http://127.0.0.1:{port}"), stop)
    return lambda key: by_key[key].perform()


def test_each_key_does_what_it_says(stop: threading.Event) -> None:
    controls = Controls(Flow(rate=1, users=10, items=10))
    press = _press(application(controls), stop)
    assert press("p") == "the producer is paused: p resumes it"
    assert controls.flow.paused
    assert press("p") == "the producer sends again"
    assert not controls.flow.paused
    for key, done, pending in (
        ("+", "+ 1,000 interactions", (1_000, 0, 0)),
        ("m", "+ 10 malformed records", (0, 10, 0)),
        ("v", "+ 4,000 interactions about one item, within some seconds", (0, 0, 4_000)),
    ):
        assert press(key) == done
        assert controls.drain_requests() == pending
    assert not stop.is_set()
    assert press("q") == "stopping"
    assert stop.is_set()


def test_the_browser_opens_the_page_where_there_is_one(monkeypatch: pytest.MonkeyPatch, stop: threading.Event) -> None:
    opened: list[str] = []

    def open_page(url: str) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", open_page)
    press = _press(disabled, stop)
    monkeypatch.setattr(actions, "has_display", lambda: False)
    assert press("b") == f"no browser opens here: open {PAGE} in one"
    assert opened == []
    monkeypatch.setattr(actions, "has_display", lambda: True)
    assert press("b") == f"opened {PAGE}"
    assert opened == [PAGE]


def test_a_key_that_has_no_effect_says_why(stop: threading.Event) -> None:
    without_effect = {"viral_interactions": "no effect while it is replayed"}
    controls = Controls(Flow(rate=1, users=10, items=10), without_effect=without_effect)
    assert _press(application(controls), stop)("v") == "viral_interactions: no effect while it is replayed"
    assert controls.drain_requests() == (0, 0, 0)
    assert "set PRODUCER_CONTROLS=true in .env" in _press(disabled, stop)("p")
    nothing = actions.actions_by_key(PAGE, ProducerControls("http://127.0.0.1:1"), stop)
    assert "producer" in nothing["p"].perform()
