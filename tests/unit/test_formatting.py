"""Numbers, times and text from records as the live page shows them."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from live_page.formatting import (
    UNKNOWN,
    chart_value,
    format_bytes,
    format_compact,
    format_count,
    format_decimal,
    format_duration,
    format_rate,
    format_text,
    format_time,
    format_value,
)


def test_invisible_characters_of_text_are_escaped() -> None:
    assert format_text("\x1b]0;title\x07") == "\\x1b]0;title\\x07"
    assert format_text("ann\u202egnp.exe\u200b\u2066\ufeff") == "ann\\u202egnp.exe\\u200b\\u2066\\ufeff"
    assert format_text("half \ud83d, tag \U000e0041, NUL \0, DEL \x7f, NEL \x85") == (
        "half \\ud83d, tag \\U000e0041, NUL \\x00, DEL \\x7f, NEL \\x85"
    )
    assert format_text("<b>é 漢字 😀</b>\tand\nlines") == "<b>é 漢字 😀</b>\tand\nlines"
    assert format_text("x" * 3_000, 2_000) == "x" * 2_000 + "… (3,000 characters)"
    json.dumps(format_text("\ud83d")).encode()


def test_numbers_are_exact_and_never_in_scientific_notation() -> None:
    assert format_count(12345678901234567890) == "12,345,678,901,234,567,890"
    assert format_value(12345678901234567891) == "12,345,678,901,234,567,891"
    assert chart_value(2**53 + 1) == "9007199254740993"
    assert chart_value(2**53) == 2**53
    assert [format_compact(n) for n in (1_000, 1e6, 0.005, 1e-5, 12.34, 0)] == [
        "1,000",
        "1,000,000",
        "0.005",
        "0.00001",
        "12.3",
        "0",
    ]
    assert format_value(None) == "–"
    assert format_value(True) == "true"


def test_an_unknown_number_is_a_dash() -> None:
    assert format_count(None) == format_decimal(None) == format_decimal(None, 2, " s") == format_time(None) == UNKNOWN


def test_the_start_of_a_day_is_its_date_and_a_time_out_of_range_is_text() -> None:
    now = datetime.now(UTC)
    assert format_time(now, is_day=True) == f"{now:%Y-%m-%d}"
    assert format_time("2026-11-27T00:00:00Z", is_day=True) == "2026-11-27"
    assert format_time("0001-01-01T00:00:00+14:00") == "0001-01-01T00:00:00+14:00"


def test_decimals_have_fixed_places_and_a_unit() -> None:
    assert format_decimal(1234.567) == "1,234.6"
    assert format_decimal(1.005, 2, " s") == "1.00 s"


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (1_234_567, "1.2 MB"), (5e12, "5,000.0 GB")]
)
def test_bytes_have_the_unit_that_fits(number: float, text: str) -> None:
    assert format_bytes(number) == text


@pytest.mark.parametrize("rate", [1, 10, 50, 200, 1_000, 5_000])
def test_an_interval_is_shown_as_interactions_per_second(rate: int) -> None:
    assert format_rate(1 / rate, "interactions") == f"{rate:,} interaction{'' if rate == 1 else 's'} per second"


def test_a_time_of_today_has_no_date() -> None:
    now = datetime.now(UTC)
    assert format_time(now.isoformat()) in (f"{now:%H:%M:%S}", f"{now:%Y-%m-%d %H:%M:%S}")
    assert format_time(now - timedelta(days=2)) == f"{now - timedelta(days=2):%Y-%m-%d %H:%M:%S}"


def test_a_time_is_converted_to_utc_and_an_invalid_one_is_shown_as_it_is() -> None:
    assert format_time("2025-01-09T07:22:52+01:00") == "2025-01-09 06:22:52"
    assert format_time("<b>soon</b>") == "<b>soon</b>"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (99, "99 s"), (100, "1 min"), (5_999, "99 min"), (6_000, "1 h"), (-5, "0 s")]
)
def test_a_duration_has_the_unit_that_fits(seconds: int, text: str) -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC)
    assert format_duration(since.isoformat(), (since + timedelta(seconds=seconds)).isoformat()) == text


def test_a_duration_without_an_end_lasts_until_now() -> None:
    assert format_duration((datetime.now(UTC) - timedelta(hours=5)).isoformat(), None) == "5 h"
