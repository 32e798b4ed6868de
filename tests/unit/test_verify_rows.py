"""The comparison of rows while the pipeline goes on."""

from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from verify import rows
from verify.rows import RowComparison


class _RightAtTheSecondLook(RowComparison):
    """Compares nothing; each store is right at the second look."""

    def _load(self, comparison: Any) -> None:
        pass

    def _follow(self, tables: Any) -> None:
        pass

    def _clock(self) -> datetime | None:
        return None

    def _compare(self, comparison: Any, clock: datetime | None) -> None:  # noqa: ARG002
        comparison.number = int(comparison.differing is None)
        comparison.differing = []


def test_the_seconds_of_a_comparison_include_those_of_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_PAUSE", 0.1)
    comparison = _RightAtTheSecondLook(
        database=cast(Any, None), warehouse=cast(Any, None), event=cast(Any, None),
        cut=cast(Any, SimpleNamespace(version=0)), wait=60,
    )  # fmt: skip
    pairs: Any = [(SimpleNamespace(number=1), SimpleNamespace(title=title)) for title in ("topic", "index")]
    checks = list(comparison.run(pairs))
    assert [check.name for check in checks] == [
        "topic = recomputation of the lake",
        "index = recomputation of the lake",
    ]
    assert all(check.seconds >= 0.1 for check in checks)
