"""The compiled inner loop: reflections of one phase summed on the measured points, with every derivative column.

The profile of a reflection is a comb of Voigt functions of unit area,

    P(x) = sum_n w_n V(x - c - o_n - kappa d_n; G^2 + g_n, L + l_n),    V = Re w(z) / (sigma sqrt(2 pi))
    z = (u + i gamma) / (sigma sqrt 2),   sigma^2 = G^2 / (8 ln 2),   gamma = L / 2

whose nodes n run over the emission lines (offset o_n, natural width l_n) and the axial quadrature (shift d_n); g_n is
the variance, as a squared Gaussian width, of what one node stands for. All
derivatives follow from w'(z) = -2 z w + 2 i / sqrt(pi). The Faddeeva function w is Weideman's rational series near the
centre (1994, SIAM J. Numer. Anal. 31, 1497) and the Laplace continued fraction outside.

Lorentzian tails are never cut. With D = d + i gamma, the tail of the whole comb, of variance s^2 about its mean, is

    T(d) = Re[ i D / (D^2 - s^2) ] / pi

and a smooth step t(d), zero for |d| < `TAPER_START` w and one for |d| > w, gives the share t T to a coarse uniform grid,
which is interpolated once per column by a four-point Lagrange polynomial, and leaves P - t T to the measured points
inside the window +-w. Every integer (windows, nodes, grids) is frozen by the caller, so the result is a smooth
function of its arguments.
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

CENTRAL_REACH = 6.5
"""|Re z| inside which the series is used; the continued fraction is good to 1e-6 outside."""

PATTERN, POSITION, GAUSS_SQUARED, LORENTZ, AXIAL = range(5)
"""The five basis functions a derivative column can be a multiple of, in the order of the kernel's work arrays."""

_INVERSE_ROOT_PI = 1.0 / math.sqrt(math.pi)
_VARIANCE_PER_FWHM_SQUARED = 1.0 / (8.0 * math.log(2.0))
_HALF_PER_VARIANCE = 0.5 / _VARIANCE_PER_FWHM_SQUARED


def _weideman(terms: int) -> tuple[float, tuple[float, ...]]:
    """Return L and the polynomial coefficients, highest power first, of Weideman's series with `terms` terms."""
    points = 2 * terms
    length = math.sqrt(terms / math.sqrt(2.0))
    theta = np.arange(-points + 1, points) * math.pi / points
    t = length * np.tan(0.5 * theta)
    function = np.concatenate(([0.0], np.exp(-(t**2)) * (length**2 + t**2)))
    coefficients = np.real(np.fft.fft(np.fft.fftshift(function))) / (2 * points)
    return length, tuple(float(value) for value in coefficients[1 : terms + 1][::-1])


_LENGTH, _SERIES = _weideman(18)
_TERMS = len(_SERIES)


@numba.njit(cache=True, fastmath=FAST, error_model="numpy")
def sum_reflections(
    x: FloatArray,
    coarse: FloatArray,
    stencil_start: FloatArray,
    stencil_weight: FloatArray,
    centre: FloatArray,
    gauss_squared: FloatArray,
    lorentz: FloatArray,
    kappa: float,
    half_window: FloatArray,
    first: FloatArray,
    last: FloatArray,
    node_start: FloatArray,
    node_offset: FloatArray,
    node_axial: FloatArray,
    node_gauss: FloatArray,
    node_lorentz: FloatArray,
    node_weight: FloatArray,
    mean_offset: FloatArray,
    mean_axial: FloatArray,
    mean_lorentz: FloatArray,
    variance: FloatArray,
    basis: FloatArray,
    coefficient: FloatArray,
    columns: FloatArray,
) -> None:
    """Sum all reflections of one phase into `columns`, in place.

    Parameters
    ----------
    x : (n,) measured 2theta, degrees
    coarse : (m,) uniform coarse grid, degrees
    stencil_start, stencil_weight : (n,), (n, 4) Lagrange stencil of each measured point on the coarse grid
    centre, gauss_squared, lorentz : (j,) of each reflection, deg, deg^2, deg; half_window, first, last : its window
    node_start : (j + 1,) first node of each reflection; node_* : offset (deg), shift per
        kappa (deg), extra squared Gaussian width (deg^2), Lorentzian width (deg), weight
    mean_offset, mean_axial, mean_lorentz, variance : (j,) moments of the nodes, for the tail
    basis : (rows,) which basis function each column is a multiple of
    coefficient : (rows, j) the multiples
    columns : (rows, n) output, overwritten
    """
    n_points = x.size
    n_coarse = coarse.size
    rows = columns.shape[0]
    columns[:, :] = 0.0
    tail = np.zeros((rows, n_coarse))
    size = n_coarse
    for j in range(centre.size):
        size = max(size, last[j] - first[j])
    work = np.empty((5, size))

    for j in range(centre.size):
        g2 = gauss_squared[j]
        tail_centre = centre[j] + mean_offset[j] + kappa * mean_axial[j]
        tail_gamma = 0.5 * (lorentz[j] + mean_lorentz[j])
        tail_variance = g2 * _VARIANCE_PER_FWHM_SQUARED + variance[j]
        start = first[j]
        count = last[j] - start
        if count > 0:
            work[:, :count] = 0.0
            for node in range(node_start[j], node_start[j + 1]):
                node_centre = centre[j] + node_offset[node] + kappa * node_axial[node]
                node_g2 = g2 + node_gauss[node]
                inverse = math.sqrt(_HALF_PER_VARIANCE / node_g2)
                reach = CENTRAL_REACH / inverse
                y = 0.5 * (lorentz[j] + node_lorentz[node]) * inverse
                amplitude = node_weight[node] * inverse * _INVERSE_ROOT_PI
                window = x[start : start + count]
                low = int(np.searchsorted(window, node_centre - reach))
                high = int(np.searchsorted(window, node_centre + reach))
                _add_fraction(window, 0, low, node_centre, inverse, y, amplitude, node_g2, node_axial[node], work)
                _add_series(window, low, high, node_centre, inverse, y, amplitude, node_g2, node_axial[node], work)
                _add_fraction(window, high, count, node_centre, inverse, y, amplitude, node_g2, node_axial[node], work)
            _add_tail(
                x[start : start + count], tail_centre, tail_gamma, tail_variance, half_window[j], mean_axial[j], -1.0, work
            )
            _add_columns(j, start, count, basis, coefficient, work, columns)
        work[:, :n_coarse] = 0.0
        _add_tail(coarse, tail_centre, tail_gamma, tail_variance, half_window[j], mean_axial[j], 1.0, work)
        _add_columns(j, 0, n_coarse, basis, coefficient, work, tail)

    for row in range(rows):
        for i in range(n_points):
            k = stencil_start[i]
            columns[row, i] += (
                stencil_weight[i, 0] * tail[row, k]
                + stencil_weight[i, 1] * tail[row, k + 1]
                + stencil_weight[i, 2] * tail[row, k + 2]
                + stencil_weight[i, 3] * tail[row, k + 3]
            )


@numba.njit(cache=True, fastmath=FAST, error_model="numpy", inline="always")
def _store(
    i: int,
    zr: float,
    y: float,
    wr: float,
    wi: float,
    inverse: float,
    amplitude: float,
    g2: float,
    axial: float,
    work: FloatArray,
) -> None:
    """Add one node's value and derivatives at one point, from w(z) = wr + i wi."""
    slope_r = -2.0 * (zr * wr - y * wi)
    slope_i = -2.0 * (zr * wi + y * wr) + 2.0 * _INVERSE_ROOT_PI
    by_centre = -amplitude * inverse * slope_r
    work[0, i] += amplitude * wr
    work[1, i] += by_centre
    work[2, i] -= amplitude * (wr + zr * slope_r - y * slope_i) * (0.5 / g2)
    work[3, i] -= 0.5 * amplitude * inverse * slope_i
    work[4, i] += axial * by_centre


@numba.njit(cache=True, fastmath=FAST, error_model="numpy")
def _add_series(
    x: FloatArray,
    low: int,
    high: int,
    centre: float,
    inverse: float,
    y: float,
    amplitude: float,
    g2: float,
    axial: float,
    work: FloatArray,
) -> None:
    """Add a Voigt by Weideman's series: w = 2 p(Z) / (L - iz)^2 + 1 / (sqrt(pi) (L - iz)), Z = (L + iz) / (L - iz)."""
    for i in range(low, high):
        zr = (x[i] - centre) * inverse
        # L - i z = (L + y) - i zr and L + i z = (L - y) + i zr.
        ar = _LENGTH + y
        inverse_norm = 1.0 / (ar * ar + zr * zr)
        qr = ar * inverse_norm
        qi = zr * inverse_norm
        br = _LENGTH - y
        big_r = br * qr - zr * qi
        big_i = br * qi + zr * qr
        pr = _SERIES[0]
        pi = 0.0
        for k in range(1, _TERMS):
            new_r = pr * big_r - pi * big_i + _SERIES[k]
            pi = pr * big_i + pi * big_r
            pr = new_r
        # w = q (2 q p + 1 / sqrt(pi)) with q = 1 / (L - iz)
        inner_r = 2.0 * (qr * pr - qi * pi) + _INVERSE_ROOT_PI
        inner_i = 2.0 * (qr * pi + qi * pr)
        wr = qr * inner_r - qi * inner_i
        wi = qr * inner_i + qi * inner_r
        _store(i, zr, y, wr, wi, inverse, amplitude, g2, axial, work)


@numba.njit(cache=True, fastmath=FAST, error_model="numpy")
def _add_fraction(
    x: FloatArray,
    low: int,
    high: int,
    centre: float,
    inverse: float,
    y: float,
    amplitude: float,
    g2: float,
    axial: float,
    work: FloatArray,
) -> None:
    """Add a Voigt by the fifth convergent of the Laplace continued fraction of w.

    w = (i / sqrt(pi)) (z^4 - 9/2 z^2 + 2) / (z (z^4 - 5 z^2 + 15/4)).
    """
    for i in range(low, high):
        zr = (x[i] - centre) * inverse
        sr = zr * zr - y * y
        si = 2.0 * zr * y
        # numerator s^2 - 9/2 s + 2 and denominator z (s^2 - 5 s + 15/4) with s = z^2
        ssr = sr * sr - si * si
        ssi = 2.0 * sr * si
        nr = ssr - 4.5 * sr + 2.0
        ni = ssi - 4.5 * si
        er = ssr - 5.0 * sr + 3.75
        ei = ssi - 5.0 * si
        dr = zr * er - y * ei
        di = zr * ei + y * er
        norm = _INVERSE_ROOT_PI / (dr * dr + di * di)
        fr = (nr * dr + ni * di) * norm
        fi = (ni * dr - nr * di) * norm
        _store(i, zr, y, -fi, fr, inverse, amplitude, g2, axial, work)


@numba.njit(cache=True, fastmath=FAST, error_model="numpy")
def _add_tail(
    x: FloatArray,
    centre: float,
    gamma: float,
    variance: float,
    half_window: float,
    axial: float,
    sign: float,
    work: FloatArray,
) -> None:
    """Add sign * t(d) T(d) and its derivatives where the taper t is not zero."""
    inner = TAPER_START * half_window
    inverse_taper = 1.0 / (half_window - inner)
    factor = sign / math.pi
    for i in range(x.size):
        d = x[i] - centre
        distance = abs(d)
        if distance <= inner:
            continue
        fraction = min((distance - inner) * inverse_taper, 1.0)
        step = fraction * fraction * fraction * (fraction * (6.0 * fraction - 15.0) + 10.0)
        step_slope = 30.0 * fraction * fraction * (fraction * (fraction - 2.0) + 1.0) * inverse_taper
        if d < 0.0:
            step_slope = -step_slope
        # D = d + i gamma, s = D^2; N = s - variance; T = Re[i D / N] / pi
        sr = d * d - gamma * gamma
        si = 2.0 * d * gamma
        nr = sr - variance
        inverse_norm = 1.0 / (nr * nr + si * si)
        value = gamma * (d * d + gamma * gamma + variance) * inverse_norm
        # 1 / N^2
        hr = (nr * nr - si * si) * inverse_norm * inverse_norm
        hi = -2.0 * nr * si * inverse_norm * inverse_norm
        # (D^2 + variance) / N^2: its imaginary part is dT/dd, its real part dT/dgamma
        kr = (sr + variance) * hr - si * hi
        ki = (sr + variance) * hi + si * hr
        by_variance = -gamma * hr - d * hi
        by_centre = -(ki * step + value * step_slope)
        work[0, i] += factor * value * step
        work[1, i] += factor * by_centre
        work[2, i] += factor * by_variance * step * _VARIANCE_PER_FWHM_SQUARED
        work[3, i] += 0.5 * factor * kr * step
        work[4, i] += factor * axial * by_centre


@numba.njit(cache=True, fastmath=FAST, error_model="numpy")
def _add_columns(
    j: int,
    start: int,
    count: int,
    basis: FloatArray,
    coefficient: FloatArray,
    work: FloatArray,
    columns: FloatArray,
) -> None:
    """Add one reflection's basis functions, each times its coefficient, to the columns."""
    for row in range(columns.shape[0]):
        factor = coefficient[row, j]
        if factor != 0.0:
            target = columns[row, start : start + count]
            source = work[basis[row], :count]
            for i in range(count):
                target[i] += factor * source[i]
