"""When the stream job says that its counts do not fit into memory."""

from stream_processing.state_memory import warning

HEAP = 1 << 30


def test_a_state_that_fits_is_no_reason_to_warn() -> None:
    assert warning(0, HEAP) is None
    assert warning(900_000, HEAP) is None


def test_a_state_that_does_not_fit_is_told_with_its_size_and_what_to_do() -> None:
    said = warning(1_001_000, HEAP)
    assert said is not None
    for part in ("1,001,000 users and items", "668 MB", "1,024 MB", "SPARK_DRIVER_MEMORY", "STATE_STORE=rocksdb"):
        assert part in said


def test_a_larger_heap_is_the_remedy() -> None:
    assert warning(1_001_000, 2 * HEAP) is None
