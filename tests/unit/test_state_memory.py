"""The stream job warns before its counts outgrow the memory of its process."""

from pathlib import Path

import pytest
from stream_processing.state_memory import memory_limit, warning

MB = 1 << 20


def test_counts_that_fit_beside_the_heap_cause_no_warning() -> None:
    assert warning(0, 1952 * MB, 1024 * MB) is None
    assert warning(82 * MB, 1952 * MB, 1024 * MB) is None


def test_counts_that_do_not_fit_cause_a_warning_with_their_size_and_the_remedy() -> None:
    message = warning(83 * MB, 1952 * MB, 1024 * MB)
    assert message is not None
    for part in ("332 MB", "328 MB", "STREAM_MEMORY_LIMIT", "STATE_STORE=rocksdb"):
        assert part in message


def test_a_heap_that_is_as_large_as_the_memory_leaves_nothing() -> None:
    assert "0 MB are left" in (warning(1, 1024 * MB, 2048 * MB) or "")


@pytest.mark.parametrize(("text", "is_limit"), [("1048576\n", True), ("max\n", False), ("", False)])
def test_the_limit_of_a_container_counts_if_it_has_one(tmp_path: Path, text: str, is_limit: bool) -> None:
    file = tmp_path / "memory.max"
    file.write_text(text)
    assert (memory_limit([file, tmp_path / "none"]) == MB) is is_limit
    assert memory_limit([]) > MB
