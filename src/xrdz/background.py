"""Background columns: Chebyshev polynomials on an explicit fixed domain, and broad humps.

    background(x) = sum_k c_k T_k(2 (x - low) / (high - low) - 1) + sum_h a_h exp(-4 ln2 (x - x_h)^2 / w_h^2)

Both are linear in their coefficients and are fitted together with the phases; nothing is ever subtracted beforehand,
since that would break the weights and the uncertainties.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xrdz.diffractogram import FloatArray


def chebyshev_columns(two_theta: FloatArray, *, domain: tuple[float, float], terms: int) -> FloatArray:
    """Return T_0 .. T_(terms-1) at `two_theta` on `domain` (degrees), shape (terms, n)."""
    t = 2.0 * (two_theta - domain[0]) / (domain[1] - domain[0]) - 1.0
    columns = np.ones((terms, two_theta.size))
    if terms > 1:
        columns[1] = t
    for k in range(2, terms):
        columns[k] = 2.0 * t * columns[k - 1] - columns[k - 2]
    return columns


def hump_columns(two_theta: FloatArray, humps: Sequence[tuple[float, float]]) -> FloatArray:
    """Return one Gaussian of unit height per (centre, full width) in degrees, shape (humps, n)."""
    columns = np.empty((len(humps), two_theta.size))
    for row, (centre, fwhm) in enumerate(humps):
        columns[row] = np.exp(-4.0 * np.log(2.0) * ((two_theta - centre) / fwhm) ** 2)
    return columns
