"""The result of a run: when it is exact, what is lost and doubled, and its table."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from chaos import schedule
from chaos.faults import FAULTS
from chaos.ledger import Balance
from chaos.processes import Death
from chaos.result import Happened, Result
from chaos.schedule import Event

_KILL = FAULTS["kill"].model_validate({"name": "sink", "down": 2})
_CUT = FAULTS["cut"].model_validate({"link": "sink to Kafka", "seconds": 5})
_EVENTS = [Event(3.0, _KILL), Event(20.5, _CUT)]


def _difference(store: str, found: str | None, expected: str | None) -> dict[str, Any]:
    return {"store": store, "key": "x", "found": found, "expected": expected}


def _report(*differences: dict[str, Any]) -> dict[str, Any]:
    check = {"name": "a = b", "compared": 9, "number": len(differences), "differences": list(differences)}
    return {"exact": not differences, "checks": [check]}


def _result() -> Result:
    happened = [Happened(_EVENTS[0], 3.0, 5.0, 7.25), Happened(_EVENTS[1], 20.5, 25.5, 9.0)]
    return Result(7, 1, 500, _EVENTS, happened, Balance(10, 10, 10), _report())


def test_a_run_without_any_difference_is_exact() -> None:
    result = _result()
    assert result.is_exact
    assert list(result.lines())[-1] == "nothing lost, nothing twice"


def test_an_exact_run_needs_both_comparisons() -> None:
    for missing in ("balance", "verified"):
        result = _result()
        setattr(result, missing, None)
        assert not result.is_exact


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"balance": Balance(10, 10, 9, lost=[4])}, "ledger: 1 records lost: numbers 4"),
        ({"verified": _report(_difference("index a", "1", "2"))}, "DIFFERENT  index a: x: found 1, expected 2"),
        ({"failures": ["a second stream job was not refused"]}, "failed: a second stream job was not refused"),
    ],
)
def test_a_run_with_a_difference_or_a_broken_promise_is_not_exact(change: dict[str, Any], line: str) -> None:
    result = _result()
    for name, value in change.items():
        setattr(result, name, value)
    assert not result.is_exact
    assert line in list(result.lines())
    assert list(result.lines())[-1] == "NOT EXACT"


def test_lost_and_doubled_records_are_those_of_the_topic_and_of_the_lake() -> None:
    result = _result()
    result.balance = Balance(10, 10, 7, lost=[1, 2, 3], doubled=[5])
    result.verified = _report(
        _difference("lake interactions", None, "once"),
        _difference("lake interactions", "3 times", "once"),
        _difference("index agg_interactions_user", None, "a row"),
    )
    assert result.lost_and_doubled() == (4, 3)


def test_the_table_has_the_slowest_recovery_of_each_process() -> None:
    result = _result()
    result.deaths = [Death("stream job", "it had a reason")]
    console = Console(width=100, force_terminal=False)
    with console.capture() as capture:
        console.print(result.table())
    rows = [line.split() for line in capture.get().splitlines()]
    assert ["sink", "2", "2", "9.0", "s", "0"] in rows
    assert ["stream", "job", "0", "0", "1"] in rows


def test_the_json_of_a_result_is_a_schedule_that_can_be_run_again(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps(_result().as_json()))
    content = schedule.read(file)
    assert content["schedule"] == _EVENTS
    assert (content["seed"], content["minutes"], content["rate"]) == (7, 1, 500)
    assert [fault["recovered"] for fault in content["faults"]] == [7.2, 9.0]
