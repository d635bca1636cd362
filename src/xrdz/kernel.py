"""The compiled inner loop: peaks of one phase summed on the measured points, with every derivative column.

Profile of a peak j at centre c, full width H and mixing eta (Thompson, Cox & Hastings 1987, J. Appl. Cryst. 20, 79):

    P(x) = sum_n w_n [ eta L(x - c - kappa d_n; H) + (1 - eta) G(x - c - kappa d_n; H) ]

with L and G of unit area. The nodes (d_n, w_n) are the quadrature of the axial-divergence shift (`profile.py`).
Lorentzian tails are never cut. A smooth step t(u), zero for |u| < `TAPER_START` * w and one for |u| > w, divides the
Lorentzian into a core, summed on the measured points inside the window, and a tail, summed on a coarse uniform grid
and interpolated once per column by a four-point Lagrange polynomial. Core plus tail is the whole profile.

Every integer (windows, nodes, grids) is frozen by the caller, so the result is a smooth function of its arguments.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from xrdz.diffractogram import FloatArray

TAPER_START = 0.4
"""Where the tail begins, as a fraction of the window half width."""

FAST = {"reassoc", "contract", "arcp", "nsz"}
"""Floating-point freedoms granted to the compiler; NaN and infinity keep their meaning."""

LN2_4 = 4.0 * math.log(2.0)
GAUSS_NORM = 2.0 * math.sqrt(math.log(2.0) / math.pi)
GAUSS_REACH = 3.6
"""Half range of the Gaussian in units of H; beyond it exp(-4 ln2 u^2) is below 1e-15."""


@numba.njit(cache=True, fastmath=FAST, error_model="numpy", inline="always")
def _taper(fraction: float) -> tuple[float, float]:
    """Quintic smooth step on 0..1 and its derivative."""
    if fraction <= 0.0:
        return 0.0, 0.0
    if fraction >= 1.0:
        return 1.0, 0.0
    value = fraction * fraction * fraction * (fraction * (6.0 * fraction - 15.0) + 10.0)
    slope = 30.0 * fraction * fraction * (fraction * (fraction - 2.0) + 1.0)
    return value, slope


@numba.njit(cache=True, fastmath=FAST, error_model="numpy")
def sum_peaks(
    x: FloatArray,
    coarse: FloatArray,
    interpolation_start: FloatArray,
    interpolation_weight: FloatArray,
    centre: FloatArray,
    fwhm: FloatArray,
    eta: FloatArray,
    intensity: FloatArray,
    half_window: FloatArray,
    first: FloatArray,
    last: FloatArray,
    node_offset: FloatArray,
    node_shift: FloatArray,
    node_weight: FloatArray,
    mean_shift: FloatArray,
    kappa: float,
    coefficient_position: FloatArray,
    coefficient_intensity: FloatArray,
    coefficient_fwhm: FloatArray,
    coefficient_eta: FloatArray,
    with_derivatives: bool,
    columns: FloatArray,
) -> None:
    """Sum all peaks of one phase and their derivative columns into `columns`, in place.

    Row 0 is the pattern; then come the position, intensity and width parameters in the order of the coefficient
    matrices (shape (parameters, peaks), each already multiplied by the peak's intensity), then kappa.

    Parameters
    ----------
    x : (n,) measured 2theta, degrees
    coarse : (m,) uniform coarse grid, degrees
    interpolation_start, interpolation_weight : (n,), (n, 4) Lagrange stencil of each measured point on the grid
    centre, fwhm, eta, intensity : (j,) peak centre (deg), total width (deg), mixing and area
    half_window : (j,) window half width w (deg); first, last : (j,) frozen index range on x
    node_offset, node_shift, node_weight : axial nodes of each peak; shift per unit kappa (deg)
    mean_shift : (j,) weighted mean of the node shifts, the position of the tail
    columns : (rows, n) output, overwritten
    """
    n_points = x.size
    n_coarse = coarse.size
    n_position = coefficient_position.shape[0]
    n_intensity = coefficient_intensity.shape[0]
    n_width = coefficient_fwhm.shape[0]
    rows = columns.shape[0]
    for row in range(rows):
        for i in range(n_points):
            columns[row, i] = 0.0
    tail = np.zeros((rows, n_coarse))
    longest = 1
    for j in range(centre.size):
        if last[j] - first[j] > longest:
            longest = last[j] - first[j]
    size = max(longest, n_coarse)
    value = np.empty(size)
    by_position = np.empty(size)
    by_fwhm = np.empty(size)
    by_eta = np.empty(size)
    by_kappa = np.empty(size)

    for j in range(centre.size):
        width = fwhm[j]
        mixing = eta[j]
        inverse = 1.0 / width
        lorentz_height = 2.0 / math.pi * inverse
        gauss_height = GAUSS_NORM * inverse
        four_inverse_squared = 4.0 * inverse * inverse
        inner = TAPER_START * half_window[j]
        inverse_taper = 1.0 / (half_window[j] - inner)
        start = first[j]
        count = last[j] - start
        tail_centre = centre[j] + kappa * mean_shift[j]

        if count > 0:
            for i in range(count):
                value[i] = 0.0
                by_position[i] = 0.0
                by_fwhm[i] = 0.0
                by_eta[i] = 0.0
                by_kappa[i] = 0.0
            for node in range(node_offset[j], node_offset[j + 1]):
                shift = node_shift[node]
                weight = node_weight[node]
                node_centre = centre[j] + kappa * shift
                lorentz_factor = weight * lorentz_height
                for i in range(count):
                    u = x[start + i] - node_centre
                    denominator = 1.0 / (1.0 + four_inverse_squared * u * u)
                    lorentz = lorentz_factor * denominator
                    slope = mixing * lorentz * 2.0 * four_inverse_squared * u * denominator
                    value[i] += mixing * lorentz
                    by_position[i] += slope
                    by_fwhm[i] += mixing * lorentz * inverse * (1.0 - 2.0 * denominator)
                    by_eta[i] += lorentz
                    by_kappa[i] += shift * slope
                low = int(np.searchsorted(x[start : start + count], node_centre - GAUSS_REACH * width))
                high = int(np.searchsorted(x[start : start + count], node_centre + GAUSS_REACH * width))
                gauss_factor = weight * gauss_height
                for i in range(low, high):
                    u = (x[start + i] - node_centre) * inverse
                    exponent = LN2_4 * u * u
                    gauss = gauss_factor * math.exp(-exponent)
                    slope = (1.0 - mixing) * gauss * 2.0 * LN2_4 * u * inverse
                    value[i] += (1.0 - mixing) * gauss
                    by_position[i] += slope
                    by_fwhm[i] += (1.0 - mixing) * gauss * inverse * (2.0 * exponent - 1.0)
                    by_eta[i] -= gauss
                    by_kappa[i] += shift * slope
            # The tail's share is taken out where the taper has begun.
            for i in range(count):
                u = x[start + i] - tail_centre
                distance = abs(u)
                if distance > inner:
                    step, step_slope = _taper((distance - inner) * inverse_taper)
                    if u < 0.0:
                        step_slope = -step_slope
                    denominator = 1.0 / (1.0 + four_inverse_squared * u * u)
                    lorentz = lorentz_height * denominator
                    slope = lorentz * (2.0 * four_inverse_squared * u * denominator * step - step_slope * inverse_taper)
                    value[i] -= mixing * lorentz * step
                    by_position[i] -= mixing * slope
                    by_fwhm[i] -= mixing * lorentz * step * inverse * (1.0 - 2.0 * denominator)
                    by_eta[i] -= lorentz * step
                    by_kappa[i] -= mixing * mean_shift[j] * slope
            _add_columns(
                j,
                start,
                0,
                count,
                intensity[j],
                n_position,
                n_intensity,
                n_width,
                coefficient_position,
                coefficient_intensity,
                coefficient_fwhm,
                coefficient_eta,
                value,
                by_position,
                by_fwhm,
                by_eta,
                by_kappa,
                with_derivatives,
                columns,
            )

        for i in range(n_coarse):
            u = coarse[i] - tail_centre
            step, step_slope = _taper((abs(u) - inner) * inverse_taper)
            if u < 0.0:
                step_slope = -step_slope
            denominator = 1.0 / (1.0 + four_inverse_squared * u * u)
            lorentz = mixing * lorentz_height * denominator
            slope = lorentz * (2.0 * four_inverse_squared * u * denominator * step - step_slope * inverse_taper)
            value[i] = lorentz * step
            by_position[i] = slope
            by_fwhm[i] = lorentz * step * inverse * (1.0 - 2.0 * denominator)
            by_eta[i] = lorentz_height * denominator * step
            by_kappa[i] = mean_shift[j] * slope
        _add_columns(
            j,
            0,
            0,
            n_coarse,
            intensity[j],
            n_position,
            n_intensity,
            n_width,
            coefficient_position,
            coefficient_intensity,
            coefficient_fwhm,
            coefficient_eta,
            value,
            by_position,
            by_fwhm,
            by_eta,
            by_kappa,
            with_derivatives,
            tail,
        )

    used_rows = rows if with_derivatives else 1
    for row in range(used_rows):
        for i in range(n_points):
            k = interpolation_start[i]
            columns[row, i] += (
                interpolation_weight[i, 0] * tail[row, k]
                + interpolation_weight[i, 1] * tail[row, k + 1]
                + interpolation_weight[i, 2] * tail[row, k + 2]
                + interpolation_weight[i, 3] * tail[row, k + 3]
            )


@numba.njit(cache=True, fastmath=FAST, error_model="numpy")
def _add_columns(
    j: int,
    start: int,
    low: int,
    high: int,
    area: float,
    n_position: int,
    n_intensity: int,
    n_width: int,
    coefficient_position: FloatArray,
    coefficient_intensity: FloatArray,
    coefficient_fwhm: FloatArray,
    coefficient_eta: FloatArray,
    value: FloatArray,
    by_position: FloatArray,
    by_fwhm: FloatArray,
    by_eta: FloatArray,
    by_kappa: FloatArray,
    with_derivatives: bool,
    columns: FloatArray,
) -> None:
    """Add one peak's five basis functions, each times its coefficient, to the columns."""
    for i in range(low, high):
        columns[0, start + i] += area * value[i]
    if not with_derivatives:
        return
    row = 1
    for q in range(n_position):
        factor = coefficient_position[q, j]
        if factor != 0.0:
            for i in range(low, high):
                columns[row, start + i] += factor * by_position[i]
        row += 1
    for q in range(n_intensity):
        factor = coefficient_intensity[q, j]
        if factor != 0.0:
            for i in range(low, high):
                columns[row, start + i] += factor * value[i]
        row += 1
    for q in range(n_width):
        factor = coefficient_fwhm[q, j]
        factor_eta = coefficient_eta[q, j]
        for i in range(low, high):
            columns[row, start + i] += factor * by_fwhm[i] + factor_eta * by_eta[i]
        row += 1
    for i in range(low, high):
        columns[row, start + i] += area * by_kappa[i]
