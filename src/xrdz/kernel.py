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

and a smooth step t(d), zero for |d| < `TAPER_START` w and one for |d| > w, gives the share t T to a coarse uniform
grid, interpolated once per column by a four-point Lagrange polynomial, and leaves P - t T to the measured points
inside the window +-w. Every integer (windows, nodes, grids) is frozen by the caller, so the result is a smooth
function of its arguments.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from xrdz.compiled import compiled
from xrdz.diffractogram import FloatArray

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

BLOCK = 16
"""Points that go through the profile at a time."""

TAPER_START = 0.4
"""Where the tail begins, as a fraction of the window half width."""

CENTRAL_REACH = 4.0
"""|Re z| inside which the series is used; both it and the continued fraction outside are good to 7e-7 of w(0)."""

PATTERN, POSITION, GAUSS_SQUARED, LORENTZ, AXIAL, SATELLITE = range(6)
"""The six basis functions a derivative column can be a multiple of, in the order of the kernel's work arrays."""

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


_LENGTH, _SERIES = _weideman(14)
(_C0, _C1, _C2, _C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11, _C12, _C13) = _SERIES


@compiled
def sum_reflections(
    x: FloatArray,
    coarse: FloatArray,
    stencil_start: IntArray,
    stencil_weight: FloatArray,
    centre: FloatArray,
    gauss_squared: FloatArray,
    lorentz: FloatArray,
    kappa: float,
    half_window: FloatArray,
    first: IntArray,
    last: IntArray,
    core_first: IntArray,
    core_last: IntArray,
    node_start: IntArray,
    node_offset: FloatArray,
    node_axial: FloatArray,
    node_gauss: FloatArray,
    node_lorentz: FloatArray,
    node_weight: FloatArray,
    node_slope: FloatArray,
    mean_offset: FloatArray,
    mean_axial: FloatArray,
    mean_lorentz: FloatArray,
    variance: FloatArray,
    basis: IntArray,
    coefficient: FloatArray,
    columns: FloatArray,
) -> None:
    """Sum all reflections of one phase into `columns`, in place.

    Parameters
    ----------
    x : (n,) measured 2theta, degrees
    coarse : (m,) uniform coarse grid, degrees
    stencil_start, stencil_weight : (n,), (n, 4) Lagrange stencil of each measured point on the coarse grid
    centre, gauss_squared, lorentz : (j,) of each reflection, deg, deg^2, deg; half_window, first, last : its window;
        core_first, core_last : where the comb itself is summed, beyond it T stands for it
    node_start : (j + 1,) first node of each reflection; node_* : offset (deg), shift per
        kappa (deg), extra squared Gaussian width (deg^2), Lorentzian width (deg), weight
    node_slope : (nodes,) d weight / d satellite
    mean_offset, mean_axial, mean_lorentz, variance : (j,) moments of the nodes, for the tail
    basis : (rows,) which basis function each column is a multiple of
    coefficient : (rows, j) the multiples
    columns : (rows, n) output, overwritten
    """
    n_points = x.size
    n_coarse = coarse.size
    rows = columns.shape[0]
    columns[:, :] = 0.0
    # One row alone is the pattern itself: nothing but the value is wanted.
    derivatives = rows > 1 or basis[0] != PATTERN
    tail = np.zeros((rows, n_coarse))
    size = n_coarse
    for j in range(centre.size):
        size = max(size, last[j] - first[j])
    work = np.empty((6, size))
    value, position, gauss, width, axial, satellite = work[0], work[1], work[2], work[3], work[4], work[5]
    share = np.empty((4, size))
    most_nodes = 0
    for j in range(centre.size):
        most_nodes = max(most_nodes, node_start[j + 1] - node_start[j])
    node_state = np.empty((9, most_nodes))
    block = np.empty(9 * BLOCK)

    for j in range(centre.size):
        g2 = gauss_squared[j]
        tail_centre = centre[j] + mean_offset[j] + kappa * mean_axial[j]
        tail_gamma = 0.5 * (lorentz[j] + mean_lorentz[j])
        tail_variance = g2 * _VARIANCE_PER_FWHM_SQUARED + variance[j]
        start = first[j]
        count = last[j] - start
        low, high = core_first[j] - start, core_last[j] - start
        if count > 0:
            _sum_nodes(
                x[start + low : start + high],
                centre[j],
                g2,
                lorentz[j],
                kappa,
                node_start[j],
                node_start[j + 1],
                node_offset,
                node_axial,
                node_gauss,
                node_lorentz,
                node_weight,
                node_slope,
                derivatives,
                node_state,
                block,
                work[:, low:high],
            )
            # Between core and window edge only (1 - t) T is left; inside the core the tail's share t T is taken out.
            window = x[start : start + count]
            g = tail_gamma
            v = tail_variance
            w = half_window[j]
            for begin, end in ((0, low), (high, count)):
                _set_tail(
                    window[begin:end],
                    tail_centre,
                    g,
                    v,
                    w,
                    True,
                    derivatives,
                    value[begin:end],
                    position[begin:end],
                    gauss[begin:end],
                    width[begin:end],
                )
                if derivatives:
                    for i in range(begin, end):
                        axial[i] = mean_axial[j] * position[i]
                        satellite[i] = 0.0
            taper_low = max(low, int(np.searchsorted(window, tail_centre - TAPER_START * w)))
            taper_high = min(high, int(np.searchsorted(window, tail_centre + TAPER_START * w)))
            for begin, end in ((low, min(taper_low, high)), (max(taper_high, low), high)):
                _set_tail(
                    window[begin:end],
                    tail_centre,
                    g,
                    v,
                    w,
                    False,
                    derivatives,
                    share[0, begin:end],
                    share[1, begin:end],
                    share[2, begin:end],
                    share[3, begin:end],
                )
                for i in range(begin, end):
                    value[i] -= share[0, i]
                if derivatives:
                    for i in range(begin, end):
                        position[i] -= share[1, i]
                        gauss[i] -= share[2, i]
                        width[i] -= share[3, i]
                        axial[i] -= mean_axial[j] * share[1, i]
            _add_columns(j, start, count, basis, coefficient, work, columns)
        _set_tail(
            coarse,
            tail_centre,
            tail_gamma,
            tail_variance,
            half_window[j],
            False,
            derivatives,
            value[:n_coarse],
            position[:n_coarse],
            gauss[:n_coarse],
            width[:n_coarse],
        )
        if derivatives:
            satellite[:n_coarse] = 0.0
            for i in range(n_coarse):
                axial[i] = mean_axial[j] * position[i]
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


@compiled
def _sum_nodes(
    x: FloatArray,
    centre: float,
    gauss_squared: float,
    lorentz: float,
    kappa: float,
    begin: int,
    end: int,
    node_offset: FloatArray,
    node_axial: FloatArray,
    node_gauss: FloatArray,
    node_lorentz: FloatArray,
    node_weight: FloatArray,
    node_slope: FloatArray,
    derivatives: bool,
    state: FloatArray,
    block: FloatArray,
    work: FloatArray,
) -> None:
    """Set the six basis functions (6, n) of one reflection at the points `x` of its core from the nodes begin..end.

    Points go in blocks of a fixed length through memory at fixed places, `block` (9 BLOCK,): offsets, Re w, Im w, the
    six sums. Loops of known length over memory that is known not to overlap are what a compiler makes vectors of.
    `state` (9, nodes) is for what does not depend on the point.
    """
    count = end - begin
    for k in range(count):
        node = begin + k
        node_g2 = gauss_squared + node_gauss[node]
        inverse = math.sqrt(_HALF_PER_VARIANCE / node_g2)
        amplitude = node_weight[node] * inverse * _INVERSE_ROOT_PI
        state[0, k] = node_offset[node] + kappa * node_axial[node]
        state[1, k] = inverse
        state[2, k] = 0.5 * (lorentz + node_lorentz[node]) * inverse
        state[3, k] = amplitude
        state[4, k] = node_slope[node] * inverse * _INVERSE_ROOT_PI
        state[5, k] = 2.0 * amplitude * inverse
        state[6, k] = node_axial[node]
        state[7, k] = -0.5 * amplitude / node_g2
        state[8, k] = CENTRAL_REACH / inverse
    for first in range(0, x.size, BLOCK):
        here = min(BLOCK, x.size - first)
        for i in range(here):
            block[i] = x[first + i] - centre
        for i in range(here, BLOCK):
            block[i] = block[here - 1]
        for i in range(3 * BLOCK, 9 * BLOCK):
            block[i] = 0.0
        middle, half = 0.5 * (block[0] + block[BLOCK - 1]), 0.5 * (block[BLOCK - 1] - block[0])
        for k in range(count):
            shift, inverse, y = state[0, k], state[1, k], state[2, k]
            if abs(middle - shift) - half < state[8, k]:
                _series(block, shift, inverse, y)
            else:
                _fraction(block, shift, inverse, y)
            amplitude = state[3, k]
            if not derivatives:
                for i in range(BLOCK):
                    block[3 * BLOCK + i] += amplitude * block[BLOCK + i]
                continue
            slope, steep, axial, narrow = state[4, k], state[5, k], state[6, k], state[7, k]
            level = 0.5 * steep
            for i in range(BLOCK):
                zr = (block[i] - shift) * inverse
                real, imaginary = block[BLOCK + i], block[2 * BLOCK + i]
                # w' = -2 z w + 2 i / sqrt(pi) is -2 (fall + i turn).
                fall = zr * real - y * imaginary
                turn = zr * imaginary + y * real - _INVERSE_ROOT_PI
                moved = steep * fall
                block[3 * BLOCK + i] += amplitude * real
                block[4 * BLOCK + i] += moved
                block[5 * BLOCK + i] += narrow * (real - 2.0 * (zr * fall - y * turn))
                block[6 * BLOCK + i] += level * turn
                block[7 * BLOCK + i] += axial * moved
                block[8 * BLOCK + i] += slope * real
        for row in range(6 if derivatives else 1):
            for i in range(here):
                work[row, first + i] = block[(3 + row) * BLOCK + i]


@compiled
def _series(block: FloatArray, shift: float, inverse: float, y: float) -> None:
    """Set w of a block by Weideman's series, its recurrence unrolled.

    w = 2 p(Z) / (L - iz)^2 + 1 / (sqrt(pi) (L - iz)),  Z = (L + iz) / (L - iz)
    """
    ar, br = _LENGTH + y, _LENGTH - y
    for i in range(BLOCK):
        zr = (block[i] - shift) * inverse
        # L - i z = (L + y) - i zr and L + i z = (L - y) + i zr.
        inverse_norm = 1.0 / (ar * ar + zr * zr)
        qr = ar * inverse_norm
        qi = zr * inverse_norm
        c = br * qr - zr * qi
        s = br * qi + zr * qr
        # A real polynomial at a complex point: b_k = C_k + 2 Re(Z) b_(k-1) - |Z|^2 b_(k-2), half of Horner's products.
        double, square = 2.0 * c, c * c + s * s
        b0 = _C0
        b1 = _C1 + double * b0
        b0 = _C2 + double * b1 - square * b0
        b1 = _C3 + double * b0 - square * b1
        b0 = _C4 + double * b1 - square * b0
        b1 = _C5 + double * b0 - square * b1
        b0 = _C6 + double * b1 - square * b0
        b1 = _C7 + double * b0 - square * b1
        b0 = _C8 + double * b1 - square * b0
        b1 = _C9 + double * b0 - square * b1
        b0 = _C10 + double * b1 - square * b0
        b1 = _C11 + double * b0 - square * b1
        b0 = _C12 + double * b1 - square * b0
        r = _C13 + c * b0 - square * b1
        t = s * b0
        # w = q (2 q p + 1 / sqrt(pi)) with q = 1 / (L - iz)
        inner_r = 2.0 * (qr * r - qi * t) + _INVERSE_ROOT_PI
        inner_i = 2.0 * (qr * t + qi * r)
        block[BLOCK + i] = qr * inner_r - qi * inner_i
        block[2 * BLOCK + i] = qr * inner_i + qi * inner_r


@compiled
def _fraction(block: FloatArray, shift: float, inverse: float, y: float) -> None:
    """Set w of a block by the sixth convergent of the Laplace continued fraction.

    w = (i / sqrt(pi)) z (z^4 - 7 z^2 + 33/4) / (z^6 - 15/2 z^4 + 45/4 z^2 - 15/8)
    """
    for i in range(BLOCK):
        zr = (block[i] - shift) * inverse
        sr = zr * zr - y * y
        si = 2.0 * zr * y
        # numerator z (s^2 - 7 s + 33/4) and denominator s^3 - 15/2 s^2 + 45/4 s - 15/8 with s = z^2
        ssr = sr * sr - si * si
        ssi = 2.0 * sr * si
        er = ssr - 7.0 * sr + 8.25
        ei = ssi - 7.0 * si
        nr = zr * er - y * ei
        ni = zr * ei + y * er
        fr = ssr - 7.5 * sr + 11.25
        fi = ssi - 7.5 * si
        dr = sr * fr - si * fi - 1.875
        di = sr * fi + si * fr
        norm = _INVERSE_ROOT_PI / (dr * dr + di * di)
        block[BLOCK + i] = -(ni * dr - nr * di) * norm
        block[2 * BLOCK + i] = (nr * dr + ni * di) * norm


@compiled
def _set_tail(
    x: FloatArray,
    centre: float,
    gamma: float,
    variance: float,
    half_window: float,
    complement: bool,
    derivatives: bool,
    value: FloatArray,
    position: FloatArray,
    gauss: FloatArray,
    lorentz: FloatArray,
) -> None:
    """Set t(d) T(d) and its derivatives, or with `complement` (1 - t(d)) T(d)."""
    inner = TAPER_START * half_window
    inverse_taper = 1.0 / (half_window - inner)
    factor = 1.0 / math.pi
    nearest = 1.5 * math.sqrt(variance)
    offset, sign = (1.0, -1.0) if complement else (0.0, 1.0)
    for i in range(x.size):
        distance = abs(x[i] - centre)
        # T is asked for beyond the core only, and is zero times something nearer; the clamp keeps it finite there.
        d = math.copysign(max(distance, nearest), x[i] - centre)
        fraction = min(max((distance - inner) * inverse_taper, 0.0), 1.0)
        rise = fraction * fraction * fraction * (fraction * (6.0 * fraction - 15.0) + 10.0)
        rise_slope = 30.0 * fraction * fraction * (fraction * (fraction - 2.0) + 1.0) * inverse_taper
        step = offset + sign * rise
        step_slope = sign * math.copysign(rise_slope, d)
        # D = d + i gamma, s = D^2; N = s - variance; T = Re[i D / N] / pi
        sr = d * d - gamma * gamma
        si = 2.0 * d * gamma
        nr = sr - variance
        inverse_norm = 1.0 / (nr * nr + si * si)
        height = gamma * (d * d + gamma * gamma + variance) * inverse_norm
        value[i] = factor * height * step
        if not derivatives:
            continue
        # 1 / N^2
        hr = (nr * nr - si * si) * inverse_norm * inverse_norm
        hi = -2.0 * nr * si * inverse_norm * inverse_norm
        # (D^2 + variance) / N^2: its imaginary part is dT/dd, its real part dT/dgamma
        kr = (sr + variance) * hr - si * hi
        ki = (sr + variance) * hi + si * hr
        position[i] = -factor * (ki * step + height * step_slope)
        gauss[i] = -factor * (gamma * hr + d * hi) * step * _VARIANCE_PER_FWHM_SQUARED
        lorentz[i] = 0.5 * factor * kr * step


@compiled
def _add_columns(
    j: int,
    start: int,
    count: int,
    basis: IntArray,
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


@compiled
def add_whitened(
    block: FloatArray, factor: FloatArray, target: IntArray, root: FloatArray, written: BoolArray, out: FloatArray
) -> None:
    """Add each row of a phase's block, times its factor and the root of the weights, to its row of the Jacobian.

    Parameters
    ----------
    block : (rows, n) columns of one phase
    factor, target : (rows,) what each row is multiplied by and which row of `out` it belongs to
    root : (n,)
    written : (parameters,) which rows of `out` hold something yet, updated
    out : (parameters, n)
    """
    for row in range(block.shape[0]):
        f, place = factor[row], target[row]
        source, sink = block[row], out[place]
        if written[place]:
            for i in range(root.size):
                sink[i] += f * source[i] * root[i]
        else:
            for i in range(root.size):
                sink[i] = f * source[i] * root[i]
            written[place] = True


@compiled
def poisson_deviance(observed: FloatArray, model: FloatArray, gain: FloatArray, floor: float) -> float:
    """Return 2 sum [m - y + y ln(y / m)] / gain; below `floor` it goes on as its tangent parabola."""
    total = 0.0
    for i in range(observed.size):
        y, m = observed[i], model[i]
        expected = max(m, floor)
        term = expected - y
        if y > 0.0:
            term += y * math.log(y / expected)
        if m < floor:
            below = m - floor
            term += below * (1.0 - y / expected) + 0.5 * below * below / floor
        total += term / gain[i]
    return 2.0 * total
