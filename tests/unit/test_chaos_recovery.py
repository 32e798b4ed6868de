"""What the watch of recoveries reads of the lake: up to which offsets it was made."""

import json
from pathlib import Path

from chaos.recovery import lake_offsets
from contract.declared import EVENT


def _commit(warehouse: Path, version: int, *actions: object) -> Path:
    entry = warehouse / EVENT.name / "_delta_log" / f"{version:020}.json"
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.write_text("".join(json.dumps(action) + "\n" for action in actions))
    return entry


def _append(**offsets: int) -> dict[str, object]:
    return {"commitInfo": {"userMetadata": json.dumps({"batch": 1, "offsets": {"chaos": offsets}})}}


def test_the_offsets_are_those_of_the_latest_append(tmp_path: Path) -> None:
    _commit(tmp_path, 9, _append(**{"0": 5}))
    _commit(tmp_path, 10, {"protocol": {}}, _append(**{"0": 7, "1": 3}))
    _commit(tmp_path, 11, {"commitInfo": {"operation": "OPTIMIZE"}}, {"add": {}})
    assert lake_offsets(tmp_path, "chaos") == {0: 7, 1: 3}
    assert lake_offsets(tmp_path, "other") == {}


def test_a_lake_that_cannot_be_read_now_has_no_offsets(tmp_path: Path) -> None:
    assert lake_offsets(tmp_path, "chaos") == {}
    _commit(tmp_path, 1, _append(**{"0": 5}))
    _commit(tmp_path, 2).write_text('{"commitInfo": {')
    assert lake_offsets(tmp_path, "chaos") == {}
