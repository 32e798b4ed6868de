from decimal import ROUND_HALF_UP, Decimal

import polars as pl
import pytest
from stream_processing.engines import POLARS


@pytest.mark.parametrize("divisor", [1, 3, 7, 100, -3])
def test_a_quotient_of_whole_numbers_is_the_double_that_its_two_decimal_places_read_as(divisor: int) -> None:
    dividends = range(-3_000, 3_000)
    frame = pl.DataFrame({"dividend": dividends, "divisor": [divisor] * len(dividends)})
    found = frame.select(POLARS.quotient(pl.col("dividend"), pl.col("divisor"), is_exact=True)).to_series().to_list()
    rounded = [(Decimal(each) / divisor).quantize(Decimal("0.01"), ROUND_HALF_UP) for each in dividends]
    assert [repr(each) for each in found] == [repr(float(each) + 0.0) for each in rounded]


def test_a_quotient_by_zero_is_null() -> None:
    frame = pl.DataFrame({"dividend": [0, 1], "divisor": [0, 0]})
    quotient = POLARS.quotient(pl.col("dividend"), pl.col("divisor"), is_exact=True)
    assert frame.select(quotient).to_series().to_list() == [None, None]
