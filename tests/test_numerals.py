"""Values with uncertainties in brackets: the rule's own examples, and that nothing is lost beyond the rounding."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xrdz.numerals import interval_text, significant, su_decimals, value_with_su


@pytest.mark.parametrize(
    ("value", "su", "text"),
    [
        (49.8376, 0.16038, "49.84(16)"),
        (1.00652, 0.006457, "1.007(6)"),
        (5.834709, 0.000268, "5.83471(27)"),
        (12.193659, 0.000562, "12.1937(6)"),
        (104.9413, 0.00051983, "104.9413(5)"),
        (12.3456, 0.0294, "12.346(29)"),
        (12.3456, 0.0299, "12.35(3)"),  # the digits that would be shown decide, and 30 is one digit
        (0.96, 0.96, "1.0(10)"),  # one digit of 0.96 is 1.0
        (12.34, 1.6, "12.3(16)"),
        (165.6, 3.8, "166(4)"),
        (165.6, 16.4, "166(16)"),
        (165.6, 45.0, "170(50)"),
        (1234.0, 163.0, "1230(160)"),
        (-0.0004, 0.01, "0.000(10)"),
        (0.0, 0.5, "0.0(5)"),
        (1.23456, None, "1.235"),
        (1.23456, 0.0, "1.235"),
        (1.23456, math.nan, "1.235"),
        (None, 0.1, "-"),
        (math.nan, 0.1, "-"),
        (math.inf, 0.1, "-"),
    ],
)
def test_value_with_su(value: float | None, su: float | None, text: str) -> None:
    assert value_with_su(value, su) == text


@given(
    st.floats(-1e6, 1e6, allow_nan=False),
    st.floats(1e-9, 1e6, allow_nan=False),
)
def test_value_and_su_come_back_within_the_rounding(value: float, su: float) -> None:
    found = re.fullmatch(r"(-?\d+(?:\.(\d+))?)\((\d+)\)", value_with_su(value, su))
    assert found is not None
    shown, decimals, digits = float(found[1]), len(found[2] or ""), int(found[3])
    unit = 10.0 ** -(decimals if decimals else min(su_decimals(su), 0))
    shown_su = digits * 10.0**-decimals
    assert abs(shown - value) <= 0.5001 * unit + 1e-9 * abs(value)
    assert shown_su == pytest.approx(su, rel=0.17)  # one digit from 3 on: at worst 3.5 shown as 4 or 3
    assert 3 <= round(shown_su / unit) <= 29 or shown_su / unit == pytest.approx(30)


@pytest.mark.parametrize(
    ("low", "high", "decimals", "text"),
    [
        (0.99394, 1.01925, None, "0.994 to 1.019"),
        (49.523, 50.152, 2, "49.52 to 50.15"),
        (0.2, None, None, "at least 0.2"),
        (0.2, math.inf, None, "at least 0.2"),
        (None, 3.0, 1, "at most 3.0"),
        (None, None, None, "-"),
        (1.0, 1.0, None, "1 to 1"),
    ],
)
def test_interval_text(low: float | None, high: float | None, decimals: int | None, text: str) -> None:
    assert interval_text(low, high, decimals=decimals) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(1.0, 3, "1.00"), (13.6, 4, "13.60"), (0.2, 3, "0.200"), (99.96, 3, "100"), (12345.0, 3, "12300"), (0.0, 3, "0")],
)
def test_significant_digits_keep_their_zeros(value: float, digits: int, text: str) -> None:
    assert significant(value, digits) == text


@given(st.floats(1e-9, 1e12), st.integers(1, 6))
def test_significant_digits_come_back(value: float, digits: int) -> None:
    assert float(significant(value, digits)) == pytest.approx(value, rel=0.5 * 10.0 ** (1 - digits) + 1e-9)
