"""Schedules of faults: a seed always gives the same one, it is possible, and a failing one is made smaller."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from chaos import schedule
from chaos.faults import FAULTS
from chaos.schedule import Event, ScheduleError
from chaos.shrink import smallest

_SEEDS = range(40)


def test_a_seed_always_gives_the_same_schedule_and_another_seed_another_one() -> None:
    assert schedule.generate(7, 10) == schedule.generate(7, 10)
    schedules = [schedule.as_json(schedule.generate(seed, 10)) for seed in _SEEDS]
    assert len({json.dumps(each) for each in schedules}) == len(_SEEDS)


def test_every_kind_of_fault_happens_within_some_long_schedules() -> None:
    events = [event for seed in _SEEDS for event in schedule.generate(seed, 10)]
    assert {event.fault.kind for event in events} == set(FAULTS)


@pytest.mark.parametrize("minutes", [0.2, 1, 10])
def test_every_fault_ends_within_the_minutes(minutes: float) -> None:
    for seed in _SEEDS:
        for event in schedule.generate(seed, minutes):
            assert 0 < event.second < minutes * 60
            # Both are rounded to a tenth.
            assert event.second + event.fault.planned <= minutes * 60 + 0.1


def test_no_two_faults_touch_the_same_target_at_the_same_time() -> None:
    for seed in _SEEDS:
        busy: dict[str, float] = {}
        for event in schedule.generate(seed, 10):
            assert all(busy.get(target, 0) < event.second for target in event.fault.targets)
            busy |= dict.fromkeys(event.fault.targets, event.second + event.fault.planned)


def test_some_faults_overlap_and_never_more_than_two() -> None:
    at_once = []
    for seed in _SEEDS:
        events = schedule.generate(seed, 10)
        for event in events:
            at_once.append(sum(each.second <= event.second < each.second + each.fault.planned for each in events))
    # One that takes no time counts as none.
    assert set(at_once) == {0, 1, 2}


def test_a_pause_lasts_from_a_second_to_a_minute() -> None:
    events = [event for seed in _SEEDS for event in schedule.generate(seed, 10)]
    pauses = [event.fault.lasts for event in events if event.fault.kind == "pause"]
    assert min(pauses) >= 1
    assert max(pauses) <= 60
    assert max(pauses) > 40


def test_without_mounting_no_fault_needs_it_and_all_others_stay() -> None:
    events = schedule.generate(3, 30)
    left = schedule.without_mount(events)
    assert {event.fault.kind for event in events} - {event.fault.kind for event in left} == {"full disk"}
    assert left == [event for event in events if event.fault.kind != "full disk"]


def test_a_schedule_that_was_written_is_read_again(tmp_path: Path) -> None:
    events = schedule.generate(5, 10)
    file = tmp_path / "schedule.json"
    file.write_text(json.dumps({"seed": 5, "schedule": schedule.as_json(events)}))
    assert schedule.read(file) == {"seed": 5, "schedule": events}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "Expecting value"),
        ("[]", "list indices"),
        ("{}", "there is no 'schedule'"),
        ('{"schedule": [{"second": 1}]}', "there is no 'fault'"),
        ('{"schedule": [{"second": 1, "fault": "earthquake"}]}', "unknown fault 'earthquake': expected kill, "),
        ('{"schedule": [{"second": 1, "fault": "kill", "name": "cat", "down": 1}]}', "Kill: name: Input should be"),
        ('{"schedule": [{"second": 1, "fault": "kill part"}]}', "KillPart: part: Field required"),
        ('{"schedule": [{"second": 1, "fault": "kill part", "part": "Java", "x": 1}]}', "KillPart: x: Extra inputs"),
    ],
)
def test_a_file_without_a_schedule_is_refused_with_the_reason(content: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "schedule.json"
    file.write_text(content)
    with pytest.raises(ScheduleError, match="has no schedule, as") as refused:
        schedule.read(file)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScheduleError, match="cannot be read: No such file"):
        schedule.read(tmp_path / "none.json")


def test_a_failing_schedule_is_shrunk_to_the_faults_that_it_needs() -> None:
    events = schedule.generate(7, 10)
    needed = [events[3], events[-2]]
    runs: list[int] = []

    def fails(part: Sequence[Event]) -> bool:
        runs.append(len(part))
        return all(event in part for event in needed)

    assert smallest(events, fails) == needed
    assert len(runs) < len(events) ** 2 / 4


def test_a_single_fault_is_found_in_a_few_runs() -> None:
    runs: list[int] = []

    def fails(part: Sequence[int]) -> bool:
        runs.append(len(part))
        return 41 in part

    assert smallest(range(64), fails) == [41]
    assert len(runs) <= 14


def test_a_run_that_fails_without_any_fault_shrinks_to_nothing() -> None:
    assert smallest([1, 2, 3], lambda _: True) == []


def test_no_part_is_tried_twice() -> None:
    tried: list[tuple[int, ...]] = []

    def fails(part: Sequence[int]) -> bool:
        tried.append(tuple(part))
        return len(part) >= 5

    assert len(smallest(range(12), fails)) == 5
    assert len(tried) == len(set(tried))
