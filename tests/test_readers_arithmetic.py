"""The readers' fast arithmetic against the plain one it stands for: the same numbers to the last digit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from xrdz.readers.order_statistics import median, quantile
from xrdz.readers.spikes import _crossing
from xrdz.readers.text import _plain_rows

VALUES = st.floats(-1e15, 1e15) | st.integers(-5, 5).map(float)


@given(arrays(np.float64, st.integers(1, 60), elements=VALUES), st.floats(0, 1))
def test_order_statistics_are_those_of_numpy(values: np.ndarray, share: float) -> None:
    values.setflags(write=False)
    assert median(values) == np.median(values)
    assert quantile(values, share) == np.quantile(values, share)


@pytest.mark.parametrize("size", [1, 2, 5, 4001])
def test_order_statistics_of_numbers_with_a_nan_are_nan(size: int) -> None:
    values = np.arange(size, dtype=np.float64)
    values[size // 2] = np.nan
    assert np.isnan(median(values))
    assert np.isnan(quantile(values, 0.3))


def rows_one_by_one(text: str) -> np.ndarray | None:
    rows = [line.split() for line in text.split("\n") if line.strip()]
    try:
        return np.array([[float(token) for token in row] for row in rows])
    except ValueError:
        return None


DIGITS = st.text("0123456789", min_size=1, max_size=9)
DECIMALS = st.builds("{}.{}".format, DIGITS, DIGITS)
OTHERS = st.sampled_from(["5.", ".5", ".", "-0", "-1.5", "+2", "1e3", "1.5E-3", "1.2.3", "-", "1e999", "0.1", "007"])
BLANKS = st.sampled_from([" ", "  ", "\t"])


@pytest.mark.parametrize("tokens", [DIGITS | DECIMALS, DIGITS | DECIMALS | OTHERS])
@given(data=st.data())
def test_plain_rows_are_what_float_makes_of_each_token(tokens: st.SearchStrategy[str], data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 4))
    lines = ["1 " * width]
    for _ in range(data.draw(st.integers(0, 8))):
        ragged = data.draw(st.integers(0, 19)) == 0
        row = data.draw(st.lists(tokens, min_size=width + ragged, max_size=width + ragged))
        lines += [
            data.draw(BLANKS).join(row) + data.draw(st.sampled_from(["", " "])),
            *data.draw(st.sampled_from([[], [""]])),
        ]
    text = "\n".join(lines) + data.draw(st.sampled_from(["", "\n", "\n\n"]))
    expected, found = rows_one_by_one(text), _plain_rows(text)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found.dtype == np.float64
        assert found.tobytes() == expected.tobytes()


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(0.001, 180), st.floats(1e-4, 1), st.floats(-0.2, 1.2))
def test_a_crossing_is_where_numpy_interpolates_it(
    low: float, high: float, angle: float, step: float, part: float
) -> None:
    if high - low < 1e-3:
        low, high = high, low + 1.0
    if not low < high:
        return
    height = low + part * (high - low)
    for wanted in (height, low, high):
        expected = np.interp(wanted, [low, high], [angle, angle + step])
        # Some processors multiply and add with one rounding, and then numpy's last digit differs.
        assert _crossing(wanted, (low, angle), (high, angle + step)) == pytest.approx(expected, rel=1e-15, abs=0)
