"""The stream job warns before its state outgrows the Java heap."""

from stream_processing.state_memory import warning

HEAP = 1 << 30


def test_a_state_that_fits_causes_no_warning() -> None:
    assert warning(0, HEAP) is None
    assert warning(900_000, HEAP) is None


def test_a_state_that_does_not_fit_causes_a_warning_with_its_size_and_the_remedy() -> None:
    message = warning(1_001_000, HEAP)
    assert message is not None
    for part in ("1,001,000 users and items", "668 MB", "1,024 MB", "SPARK_DRIVER_MEMORY", "STATE_STORE=rocksdb"):
        assert part in message


def test_a_larger_heap_is_a_remedy() -> None:
    assert warning(1_001_000, 2 * HEAP) is None
