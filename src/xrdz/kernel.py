"""The compiled inner loop: reflections of one phase summed on the measured points, with every derivative column.

The profile of a reflection is a comb of Voigt functions of unit area,

    P(x) = sum_n w_n V(x - c - o_n - kappa d_n - a t_n; G^2 + g_n, L + l_n),    V = Re w(z) / (sigma sqrt(2 pi))
    z = (u + i gamma) / (sigma sqrt 2),   sigma^2 = G^2 / (8 ln 2),   gamma = L / 2

whose nodes n run over the emission lines (offset o_n, natural width l_n), the axial quadrature (shift d_n) and that of
the depth (shift t_n in units of the reflection's a); g_n is the variance, as a squared Gaussian width, of what one node
stands for. All derivatives follow from w'(z) = -2 z w + 2 i / sqrt(pi). The Faddeeva function w is Weideman's rational
series near the centre (1994, SIAM J. Numer. Anal. 31, 1497) and the Laplace continued fraction outside.

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

from xrdz.compiled import BoolArray, FloatArray, FloatRows, IntArray, SingleArray, SingleRows, compiled

BLOCK = 16
"""Points that go through the profile at a time."""

TAPER_START = 0.4
"""Where the tail begins, as a fraction of the window half width."""

CENTRAL_REACH = 4.0
"""|Re z| and Im z inside which the series is used; it and the continued fraction outside are good to 7e-7 of w(0)."""

N_BASIS = 7
PATTERN, POSITION, GAUSS_SQUARED, LORENTZ, AXIAL, SATELLITE, DEPTH = range(N_BASIS)
"""The basis functions a derivative column can be a multiple of, in the order of the kernel's work arrays."""

N_STATE_ROWS = 6
CENTRE, BRAGG, GAUSS, WIDTH, AREA, DEPTH_SCALE = range(N_STATE_ROWS)
"""Rows of the state of reflections: centre and Bragg angle (deg), G^2 (deg^2), L, area at unit scale, a (deg)."""

N_NODE_ROWS = 7
NODE_OFFSET, NODE_AXIAL, NODE_DEPTH, NODE_GAUSS, NODE_LORENTZ, NODE_WEIGHT, NODE_SLOPE = range(N_NODE_ROWS)
"""Rows of the nodes of combs: offset (deg), shift per kappa (deg) and per a, extra squared Gaussian width (deg^2),
Lorentzian width (deg), weight and its derivative by the share of the satellite."""

N_MOMENTS = 5
MEAN_OFFSET, MEAN_AXIAL, MEAN_DEPTH, MEAN_LORENTZ, VARIANCE = range(N_MOMENTS)
"""Rows of the moments of combs: means over the nodes, and the variance (deg^2) where they were compiled."""

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
(_C0, _C1, _C2, _C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11, _C12, _C13) = map(np.float32, _SERIES)
_REACH, _ROOT, _ZERO, _HALF, _ONE, _TWO = map(np.float32, (_LENGTH, _INVERSE_ROOT_PI, 0.0, 0.5, 1.0, 2.0))
_N2, _N0, _D4, _D2, _D0 = map(np.float32, (7.0, 8.25, 7.5, 11.25, 1.875))
_SIX, _TEN, _FIFTEEN, _THREE, _FLAT, _NEAR = map(np.float32, (6.0, 10.0, 15.0, 3.0, 4.5, CENTRAL_REACH))
"""Numbers of single precision: one of double precision among them would make a loop of it."""


@compiled
def sum_reflections(
    x: FloatArray,
    coarse: FloatArray,
    run_first: IntArray,
    run_cell: IntArray,
    stencil: FloatRows,
    state: FloatRows,
    kappa: float,
    half_window: FloatArray,
    first: IntArray,
    last: IntArray,
    core_first: IntArray,
    core_last: IntArray,
    node_start: IntArray,
    nodes: FloatRows,
    node_weight: FloatArray,
    moments: FloatRows,
    area: FloatArray,
    basis: IntArray,
    coefficient: FloatRows,
    pattern: FloatArray,
    slopes: SingleRows,
) -> None:
    """Sum all reflections of one phase into `pattern` and `slopes`, in place.

    Parameters
    ----------
    x : (n,) measured 2theta, degrees
    coarse : (m,) uniform coarse grid, degrees
    run_first, run_cell, stencil : (r + 1,), (r,), (4, n) runs of points between the same two points of the coarse grid,
        the first of the four points they are interpolated from, and the weights of those
    state : (6, j) of each reflection, rows as named above; its area is not read
    half_window, first, last : (j,) its window; core_first, core_last : where the comb itself is summed, beyond it T
        stands for it
    node_start : (j + 1,) first node of each reflection
    nodes, moments : (7, nodes), (5, j), rows as named above
    node_weight : (nodes,) at the present share of the satellite, instead of the row of `nodes`
    area : (j,) what each profile is multiplied by in `pattern`
    basis : (rows,) which basis function each column of `slopes` is a multiple of
    coefficient : (rows, j) the multiples
    pattern, slopes : (n,), (rows, n) output, overwritten; no rows, no derivatives
    """
    n_coarse, rows = coarse.size, slopes.shape[0]
    derivatives = rows > 0
    pattern[:] = 0.0
    slopes[:, :] = 0.0
    tail, tail_slopes = np.zeros(n_coarse), np.zeros((rows, n_coarse), dtype=np.float32)
    size, most_nodes = n_coarse, 0
    for j in range(area.size):
        size = max(size, last[j] - first[j])
        most_nodes = max(most_nodes, node_start[j + 1] - node_start[j])
    work, share = np.empty((N_BASIS, size), dtype=np.float32), np.empty((4, size), dtype=np.float32)
    node_state, block = np.empty((10, most_nodes), dtype=np.float32), np.empty(12 * BLOCK, dtype=np.float32)
    zones = np.zeros(5, dtype=np.int64)
    origin, inverse_step = coarse[0], 1.0 / (coarse[1] - coarse[0])

    for j in range(area.size):
        centre, depth = state[CENTRE, j], state[DEPTH_SCALE, j]
        mean_axial, mean_depth = moments[MEAN_AXIAL, j], moments[MEAN_DEPTH, j]
        c = centre + moments[MEAN_OFFSET, j] + kappa * mean_axial + depth * mean_depth
        g = 0.5 * (state[WIDTH, j] + moments[MEAN_LORENTZ, j])
        v = state[GAUSS, j] * _VARIANCE_PER_FWHM_SQUARED + moments[VARIANCE, j]
        w = half_window[j]
        inner = TAPER_START * w
        start, count = first[j], last[j] - first[j]
        if count > 0:
            low, high = core_first[j] - start, core_last[j] - start
            window = x[start : start + count]
            left, right = _first_from(window, c - inner), _first_from(window, c + inner)
            _sum_nodes(
                window[low:high],
                centre,
                state[GAUSS, j],
                state[WIDTH, j],
                kappa,
                depth,
                node_start[j],
                node_start[j + 1],
                nodes,
                node_weight,
                derivatives,
                node_state,
                block,
                low,
                work,
            )
            # Inside the core the tail's share t T is taken out of the comb.
            for begin, end in ((low, min(left, high)), (max(right, low), high)):
                if begin < end:
                    _set_tail(window, begin, end, c, g, v, derivatives, share)
                    _taper(window, begin, end, c, w, 1.0, derivatives, share)
                    _take(begin, end, mean_axial, mean_depth, derivatives, share, work)
            # Between core and window edge only (1 - t) T is left.
            left, right = min(left, low), max(right, high)
            zones[0], zones[1], zones[2], zones[3], zones[4] = 0, left, low, right, count
            for zone in (0, 1, 2, 3):
                begin, end = (high if zone == 2 else zones[zone]), zones[zone + 1]
                _set_tail(window, begin, end, c, g, v, derivatives, work)
                if zone in (0, 3):
                    _taper(window, begin, end, c, w, -1.0, derivatives, work)
            _add(work[0, :count], area[j], pattern[start : start + count])
            for begin, end in ((0, low), (low, high), (high, count)):
                is_tail = begin != low or end != high
                _add_slopes(j, begin, end, start, is_tail, mean_axial, mean_depth, basis, coefficient, work, slopes)
        # The coarse grid carries t T: all of it far away, nothing near the centre.
        far_left, far_right = _cell(c - w, origin, inverse_step, n_coarse), _cell(c + w, origin, inverse_step, n_coarse)
        near_left = _cell(c - inner, origin, inverse_step, n_coarse)
        near_right = _cell(c + inner, origin, inverse_step, n_coarse)
        zones[0], zones[1], zones[2], zones[3] = 0, near_left, near_right, n_coarse
        for side in (0, 1):
            begin, end = zones[2 * side], zones[2 * side + 1]
            _set_tail(coarse, begin, end, c, g, v, derivatives, work)
            first_tapered, last_tapered = (far_left, end) if side == 0 else (begin, far_right)
            _taper(coarse, first_tapered, last_tapered, c, w, 1.0, derivatives, work)
            _add(work[0, begin:end], area[j], tail[begin:end])
            _add_slopes(j, begin, end, 0, True, mean_axial, mean_depth, basis, coefficient, work, tail_slopes)
    _interpolate(run_first, run_cell, stencil, tail, tail_slopes, pattern, slopes)


@compiled
def _first_from(x: FloatArray, place: float) -> int:
    """Return the first of ascending points at or beyond a place, by bisection."""
    low, high = 0, x.size
    while low < high:
        middle = (low + high) >> 1
        if x[middle] < place:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _cell(place: float, origin: float, inverse_step: float, size: int) -> int:
    """Return the first point of the coarse grid at or beyond a place."""
    return min(max(int(math.ceil((place - origin) * inverse_step)), 0), size)


@compiled
def _sum_nodes(
    x: FloatArray,
    centre: float,
    gauss_squared: float,
    lorentz: float,
    kappa: float,
    depth: float,
    begin: int,
    end: int,
    nodes: FloatRows,
    node_weight: FloatArray,
    derivatives: bool,
    state: SingleRows,
    block: SingleArray,
    low: int,
    work: SingleRows,
) -> None:
    """Set the basis functions (7, from `low` on) of one reflection at its core `x` from the nodes begin..end.

    Distances are taken in double precision, what follows from them in single: seven digits of a profile, where its
    series has six. Points go in blocks of a fixed length through memory at fixed places, `block` (12 BLOCK,): offsets,
    what `_series` and `_fraction` set, the seven sums. Loops of known length over memory that is known not to overlap
    are what a compiler makes vectors of. `state` (10, nodes) is for what does not depend on the point.
    """
    count = end - begin
    for k in range(count):
        node = begin + k
        node_g2 = gauss_squared + nodes[NODE_GAUSS, node]
        inverse = math.sqrt(_HALF_PER_VARIANCE / node_g2)
        amplitude = node_weight[node] * inverse * _INVERSE_ROOT_PI
        axial, deep = nodes[NODE_AXIAL, node], nodes[NODE_DEPTH, node]
        state[0, k] = nodes[NODE_OFFSET, node] + kappa * axial + depth * deep
        state[1, k] = inverse
        state[2, k] = 0.5 * (lorentz + nodes[NODE_LORENTZ, node]) * inverse
        state[3, k] = amplitude
        state[4, k] = nodes[NODE_SLOPE, node] * inverse * _INVERSE_ROOT_PI
        state[5, k] = 2.0 * amplitude * inverse
        state[6, k] = axial
        state[7, k] = -0.5 * amplitude / node_g2
        state[8, k] = CENTRAL_REACH / inverse
        state[9, k] = deep
    for first in range(0, x.size, BLOCK):
        here = min(BLOCK, x.size - first)
        for i in range(here):
            block[i] = x[first + i] - centre
        for i in range(here, BLOCK):
            block[i] = block[here - 1]
        for i in range(5 * BLOCK, 12 * BLOCK):
            block[i] = _ZERO
        middle, half = _HALF * (block[0] + block[BLOCK - 1]), _HALF * (block[BLOCK - 1] - block[0])
        for k in range(count):
            shift, inverse, y = state[0, k], state[1, k], state[2, k]
            if y < _NEAR and abs(middle - shift) - half < state[8, k]:
                _series(block, shift, inverse, y)
            else:
                _fraction(block, shift, inverse, y)
            amplitude = state[3, k]
            if not derivatives:
                for i in range(BLOCK):
                    block[5 * BLOCK + i] += amplitude * block[BLOCK + i]
                continue
            slope, steep, sideways, narrow = state[4, k], state[5, k], state[6, k], state[7, k]
            inward = state[9, k]
            level = _HALF * steep
            for i in range(BLOCK):
                real, moved = block[BLOCK + i], steep * block[2 * BLOCK + i]
                block[5 * BLOCK + i] += amplitude * real
                block[6 * BLOCK + i] += moved
                block[7 * BLOCK + i] += narrow * block[4 * BLOCK + i]
                block[8 * BLOCK + i] += level * block[3 * BLOCK + i]
                block[9 * BLOCK + i] += sideways * moved
                block[10 * BLOCK + i] += slope * real
                block[11 * BLOCK + i] += inward * moved
        for row in range(N_BASIS if derivatives else 1):
            sink = work[row, low + first : low + first + here]
            for i in range(here):
                sink[i] = block[(5 + row) * BLOCK + i]


@compiled
def _series(block: SingleArray, shift: float, inverse: float, y: float) -> None:
    """Set w, w' and w + z w' (real parts, and both of w') of a block by Weideman's series, its recurrence unrolled.

    w = 2 p(Z) / (L - iz)^2 + 1 / (sqrt(pi) (L - iz)),  Z = (L + iz) / (L - iz)
    """
    ar, br = _REACH + y, _REACH - y
    for i in range(BLOCK):
        zr = (block[i] - shift) * inverse
        # L - i z = (L + y) - i zr and L + i z = (L - y) + i zr.
        inverse_norm = _ONE / (ar * ar + zr * zr)
        qr = ar * inverse_norm
        qi = zr * inverse_norm
        c = br * qr - zr * qi
        s = br * qi + zr * qr
        # A real polynomial at a complex point: b_k = C_k + 2 Re(Z) b_(k-1) - |Z|^2 b_(k-2), half of Horner's products.
        double, square = _TWO * c, c * c + s * s
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
        inner_r = _TWO * (qr * r - qi * t) + _ROOT
        inner_i = _TWO * (qr * t + qi * r)
        real = qr * inner_r - qi * inner_i
        imaginary = qr * inner_i + qi * inner_r
        # w' = -2 z w + 2 i / sqrt(pi) is -2 (fall + i turn).
        fall = zr * real - y * imaginary
        turn = zr * imaginary + y * real - _ROOT
        block[BLOCK + i] = real
        block[2 * BLOCK + i] = fall
        block[3 * BLOCK + i] = turn
        block[4 * BLOCK + i] = real - _TWO * (zr * fall - y * turn)


@compiled
def _fraction(block: SingleArray, shift: float, inverse: float, y: float) -> None:
    """Set w, w' and w + z w' of a block by the sixth convergent of the Laplace continued fraction, with u = 1 / z^2.

    w = (i / (sqrt(pi) z)) (1 - 7 u + 33/4 u^2) / D,  D = 1 - 15/2 u + 45/4 u^2 - 15/8 u^3
    w' = (2 i / sqrt(pi)) u (-1/2 + 3 u - 15/8 u^2) / D,  w + z w' = (i / (sqrt(pi) z)) u (-1 + 9/2 u) / D

    The derivatives are written without the differences of nearly equal numbers that -2 z w + 2 i / sqrt(pi) is.
    """
    for i in range(BLOCK):
        zr = (block[i] - shift) * inverse
        norm = _ONE / (zr * zr + y * y)
        vr, vi = zr * norm, -y * norm
        ur, ui = vr * vr - vi * vi, _TWO * vr * vi
        # 1 / D
        fr, fi = _D2 - _D0 * ur, -_D0 * ui
        gr, gi = ur * fr - ui * fi - _D4, ur * fi + ui * fr
        dr, di = _ONE + ur * gr - ui * gi, ur * gi + ui * gr
        scale = _ROOT / (dr * dr + di * di)
        dr, di = dr * scale, -di * scale
        # Numerators; those of w and w + z w' are divided by z afterwards.
        er, ei = _N0 * ur - _N2, _N0 * ui
        nr, ni = _ONE + ur * er - ui * ei, ur * ei + ui * er
        pr, pi = _THREE - _D0 * ur, -_D0 * ui
        qr, qi = ur * pr - ui * pi - _HALF, ur * pi + ui * pr
        sr, si = ur * qr - ui * qi, ur * qi + ui * qr
        hr, hi = _FLAT * ur - _ONE, _FLAT * ui
        tr, ti = ur * hr - ui * hi, ur * hi + ui * hr
        # (v / D) for the two, i (a + i b) = -b + i a
        br, bi = vr * dr - vi * di, vr * di + vi * dr
        block[BLOCK + i] = -(nr * bi + ni * br)
        # -2 (fall + i turn) = 2 i s / D
        block[2 * BLOCK + i] = sr * di + si * dr
        block[3 * BLOCK + i] = si * di - sr * dr
        block[4 * BLOCK + i] = -(tr * bi + ti * br)


@compiled
def _set_tail(
    points: FloatArray,
    begin: int,
    end: int,
    centre: float,
    gamma: float,
    variance: float,
    derivatives: bool,
    work: SingleRows,
) -> None:
    """Set T(d) and its derivatives by position, squared Gaussian and Lorentzian width."""
    # Slices that start at zero and are known to be contiguous are what a compiler makes vectors of.
    x, value, position = points[begin:end], work[PATTERN, begin:end], work[POSITION, begin:end]
    gauss, lorentz = work[GAUSS_SQUARED, begin:end], work[LORENTZ, begin:end]
    g, square, spread = np.float32(gamma), np.float32(gamma * gamma), np.float32(variance)
    height, by_position = np.float32(gamma / math.pi), np.float32(-1.0 / math.pi)
    by_gauss, by_lorentz = np.float32(-_VARIANCE_PER_FWHM_SQUARED / math.pi), np.float32(0.5 / math.pi)
    if not derivatives:
        for i in range(x.size):
            d = np.float32(x[i] - centre)
            nr, si = d * d - square - spread, _TWO * d * g
            value[i] = height * (d * d + square + spread) / (nr * nr + si * si)
        return
    for i in range(x.size):
        d = np.float32(x[i] - centre)
        # D = d + i gamma, s = D^2; N = s - variance; T = Re[i D / N] / pi
        sr, si = d * d - square, _TWO * d * g
        nr = sr - spread
        inverse = _ONE / (nr * nr + si * si)
        # 1 / N^2; (D^2 + variance) / N^2: its imaginary part is dT/dd, its real part dT/dgamma
        hr, hi = (nr * nr - si * si) * inverse * inverse, -_TWO * nr * si * inverse * inverse
        kr, ki = (sr + spread) * hr - si * hi, (sr + spread) * hi + si * hr
        value[i] = height * (d * d + square + spread) * inverse
        position[i] = by_position * ki
        gauss[i] = by_gauss * (g * hr + d * hi)
        lorentz[i] = by_lorentz * kr


@compiled
def _taper(
    points: FloatArray,
    begin: int,
    end: int,
    centre: float,
    half_window: float,
    sign: float,
    derivatives: bool,
    work: SingleRows,
) -> None:
    """Multiply T and its derivatives by t(d), with a negative `sign` by 1 - t(d)."""
    x, value, position = points[begin:end], work[PATTERN, begin:end], work[POSITION, begin:end]
    gauss, lorentz = work[GAUSS_SQUARED, begin:end], work[LORENTZ, begin:end]
    inner = TAPER_START * half_window
    inverse_taper = 1.0 / (half_window - inner)
    offset, slope = np.float32(0.0 if sign > 0.0 else 1.0), np.float32(30.0 * sign * inverse_taper)
    factor = np.float32(sign)
    for i in range(x.size):
        d = x[i] - centre
        f = np.float32(min(max((abs(d) - inner) * inverse_taper, 0.0), 1.0))
        cube = factor * f * f * f
        step = offset + cube * (f * (_SIX * f - _FIFTEEN) + _TEN)
        if derivatives:
            # The taper moves with the centre.
            rise = slope * f * f * (f * (f - _TWO) + _ONE)
            position[i] = position[i] * step - value[i] * (rise if d > 0.0 else -rise)
            gauss[i] *= step
            lorentz[i] *= step
        value[i] *= step


@compiled
def _take(
    begin: int,
    end: int,
    mean_axial: float,
    mean_depth: float,
    derivatives: bool,
    share: SingleRows,
    work: SingleRows,
) -> None:
    """Subtract the tail's share from what stands there."""
    for row in range(4 if derivatives else 1):
        source, target = share[row, begin:end], work[row, begin:end]
        for i in range(source.size):
            target[i] -= source[i]
    if derivatives:
        source, axial, deep = share[POSITION, begin:end], work[AXIAL, begin:end], work[DEPTH, begin:end]
        sideways, inward = np.float32(mean_axial), np.float32(mean_depth)
        for i in range(source.size):
            axial[i] -= sideways * source[i]
            deep[i] -= inward * source[i]


@compiled
def _add(source: SingleArray, factor: float, target: FloatArray) -> None:
    """Add a multiple of `source` to `target`, in double precision."""
    for i in range(source.size):
        target[i] += factor * source[i]


@compiled
def _add_slopes(
    j: int,
    begin: int,
    end: int,
    start: int,
    is_tail: bool,
    mean_axial: float,
    mean_depth: float,
    basis: IntArray,
    coefficient: FloatRows,
    work: SingleRows,
    slopes: SingleRows,
) -> None:
    """Add one reflection's basis functions begin..end, each times its coefficient, to the slopes from `start` on.

    In the tail the satellite has no part, and axial divergence and depth act as shifts of the mean.
    """
    for row in range(slopes.shape[0]):
        factor, function = coefficient[row, j], basis[row]
        if is_tail and function == AXIAL:
            factor, function = factor * mean_axial, POSITION
        elif is_tail and function == DEPTH:
            factor, function = factor * mean_depth, POSITION
        if factor == 0.0 or (is_tail and function == SATELLITE):
            continue
        multiple = np.float32(factor)
        source, target = work[function, begin:end], slopes[row, start + begin : start + end]
        for i in range(source.size):
            target[i] += multiple * source[i]


@compiled
def _interpolate(
    run_first: IntArray,
    run_cell: IntArray,
    stencil: FloatRows,
    tail: FloatArray,
    tail_slopes: SingleRows,
    pattern: FloatArray,
    slopes: SingleRows,
) -> None:
    """Add the tails, interpolated from the coarse grid, to the columns."""
    for run in range(run_cell.size):
        begin, end, k = run_first[run], run_first[run + 1], run_cell[run]
        a, b, c, d = stencil[0, begin:end], stencil[1, begin:end], stencil[2, begin:end], stencil[3, begin:end]
        p, q, r, s = tail[k], tail[k + 1], tail[k + 2], tail[k + 3]
        target = pattern[begin:end]
        for i in range(end - begin):
            target[i] += a[i] * p + b[i] * q + c[i] * r + d[i] * s
    weights = stencil.astype(np.float32)
    for row in range(slopes.shape[0]):
        values, sums = tail_slopes[row], slopes[row]
        for run in range(run_cell.size):
            begin, end, k = run_first[run], run_first[run + 1], run_cell[run]
            e, f, g, h = weights[0, begin:end], weights[1, begin:end], weights[2, begin:end], weights[3, begin:end]
            t, u, v, w = values[k], values[k + 1], values[k + 2], values[k + 3]
            sink = sums[begin:end]
            for i in range(end - begin):
                sink[i] += e[i] * t + f[i] * u + g[i] * v + h[i] * w


@compiled
def add_whitened(
    slopes: SingleRows, scale: float, target: IntArray, root: FloatArray, written: BoolArray, out: FloatRows
) -> None:
    """Add each slope of a phase, times its scale and the root of the weights, to its row of the Jacobian.

    Parameters
    ----------
    slopes : (rows, n) of one phase
    target : (rows,) which row of `out` each belongs to
    root : (n,)
    written : (parameters,) which rows of `out` hold something yet, updated
    out : (parameters, n)
    """
    for row in range(slopes.shape[0]):
        place = target[row]
        source, sink = slopes[row], out[place]
        if written[place]:
            for i in range(root.size):
                sink[i] += scale * source[i] * root[i]
        else:
            for i in range(root.size):
                sink[i] = scale * source[i] * root[i]
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
