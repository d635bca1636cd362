"""Median and quantiles of a few thousand numbers, to the last digit those of numpy.

`np.median` and `np.quantile` serve any type along any axis, which takes several times as long as the order itself.
Here the numbers are one-dimensional and at least one; as in numpy, the result is NaN if one of them is.
"""

from __future__ import annotations

import numpy as np

from xrdz.diffractogram import FloatArray


def median(values: FloatArray) -> float:
    """Return the middle one of the values, or the mean of the middle two.

    Parameters
    ----------
    values : shape (n,), n >= 1
    """
    upper = values.size // 2
    lower = upper - 1 + values.size % 2
    ordered = np.sort(values)
    # NaN are sorted to the end.
    if np.isnan(ordered[-1]):
        return np.nan
    return float(ordered[upper]) if lower == upper else float((ordered[lower] + ordered[upper]) / 2)


def quantile(values: FloatArray, share: float) -> float:
    """Return the value below which a share of the values lies, linear between two of them.

    With the ordered values x_0 ... x_(n-1), i = floor((n - 1) share) and t = (n - 1) share - i: x_i + (x_(i+1) - x_i) t
    (Hyndman & Fan, Am. Stat. 50 (1996) 361, definition 7), reckoned from x_(i+1) where t >= 1/2, as numpy does.

    Parameters
    ----------
    values : shape (n,), n >= 1
    share : from 0 to 1
    """
    index = (values.size - 1) * share
    before = int(index)
    after = min(before + 1, values.size - 1)
    ordered = np.sort(values)
    if np.isnan(ordered[-1]):
        return np.nan
    low, high, part = float(ordered[before]), float(ordered[after]), index - before
    return high - (high - low) * (1 - part) if part >= 0.5 else low + (high - low) * part
