"""Peak shape: width laws, the comb of emission lines and axial shifts that makes a reflection's profile.

Widths after Thompson, Cox & Hastings 1987 (J. Appl. Cryst. 20, 79), full widths at half maximum in degrees 2theta:

    G^2 = U tan^2(theta) + V tan(theta) + W + D cot^2(theta) + U_p tan^2(theta) + P_p / cos^2(theta)
    L   = (X + X_p) tan(theta) + (Y + Y_p) / cos(theta)

U, V, W, D, X, Y belong to the instrument, U_p, P_p, X_p, Y_p to a phase: a Gaussian and a Lorentzian part of strain and
of size each, since neither alone can follow a distribution of grain sizes. The shape is the true Voigt function of
G and L: the pseudo-Voigt of the same paper carries up to 15 % more tail than the convolution it stands for, and what
lies under the tails of a major phase is the minor one. Its fifth-power law for the total width,

    H^5 = G^5 + 2.69269 G^4 L + 2.42843 G^3 L^2 + 4.47163 G^2 L^3 + 0.07842 G L^4 + L^5,

serves wherever one number for a width is wanted.

Axial divergence. A ray that leaves the equatorial plane by the angle alpha before and beta after the specimen is
recorded, to second order, at (Cheary & Coelho 1998, J. Appl. Cryst. 31, 851; here in half angles)

    2phi - 2theta = -(alpha - beta)^2 / 4 cot(theta) + (alpha + beta)^2 / 4 tan(theta)

A Soller slit passes alpha (and another beta) with a triangular transmission, so each combination alpha -+ beta has the
cubic B-spline density (four uniform variables, Irwin-Hall) and the two are uncorrelated. The refined parameter is
kappa, scaled as the square of the (S + H)/L of Finger, Cox & Jephcoat 1994 (J. Appl. Cryst. 27, 892): both models have
the mean shift -kappa/12 cot(2 theta) for S = H, and every shift is linear in kappa.

Depth. A ray diffracted at the depth z is recorded at -2 z cos(theta) / R and has lost exp(-2 mu z / sin(theta)), mu
being the attenuation of the packed powder (Klug & Alexander 1974, X-ray Diffraction Procedures, chapter 5). The shifts
are exponentially distributed,

    2phi - 2theta = -a t,  t ~ Exp(1),   a = sin(2 theta) / (2 mu R)

and linear in the refined transparency 1 / (2 mu R). The specimen is taken as thick enough to hold the beam.

Equator. A ray that enters at the angle phi off the central one, of a beam of divergence delta, and meets a linear
detector at the angle psi off its centre is recorded, to second order (ray tracing; W. Parrish & A. J. C. Wilson 1959,
International Tables II, 4.7 for psi = 0), at

    2phi' - 2theta = phi (psi - 2 phi) cot(theta),   phi in +-delta/2, psi in +-Delta/2

Its mean, the flat-specimen error -delta^2/6 cot(theta), belongs to the centre. Its variance is that of a product of two
uniform variables, nearly Gaussian in its fourth moment (kurtosis 81/25), and is the defocus D of the Gaussian width:

    G^2 += D cot^2(theta),   D = 8 ln 2 (delta^2 Delta^2 / 144 + delta^4 / 45)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from xrdz.compiled import FloatArray, FloatRows, IntArray, IntRows, compiled
from xrdz.kernel import (
    MEAN_AXIAL,
    MEAN_DEPTH,
    MEAN_LORENTZ,
    MEAN_OFFSET,
    N_MOMENTS,
    N_NODE_ROWS,
    NODE_AXIAL,
    NODE_DEPTH,
    NODE_GAUSS,
    NODE_LORENTZ,
    NODE_OFFSET,
    NODE_SLOPE,
    NODE_WEIGHT,
    VARIANCE,
)

DEGREE = 180.0 / np.pi
_VARIANCE_PER_FWHM_SQUARED = 1.0 / (8.0 * math.log(2.0))
MAX_NODES = 10


def _axial_rule(n: int) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights of the n-point Gauss rule for the cubic B-spline density of t (Golub & Welsch 1969).

    The recurrence coefficients come from the Stieltjes procedure on a fine midpoint grid.
    """
    grid = (np.arange(4000) + 0.5) / 4000
    v = 2.0 * grid
    density = np.where(v < 1.0, 4.0 - 6.0 * v**2 + 3.0 * v**3, (2.0 - v) ** 3)
    density = density / density.sum()
    diagonal, off_squared = np.empty(n), np.zeros(n)
    previous, current, previous_norm = np.zeros_like(grid), np.ones_like(grid), 1.0
    for k in range(n):
        norm = float(np.sum(density * current**2))
        diagonal[k] = np.sum(density * grid * current**2) / norm
        off_squared[k] = norm / previous_norm if k else 0.0
        previous, current = current, (grid - diagonal[k]) * current - off_squared[k] * previous
        previous_norm = norm
    off = np.sqrt(off_squared[1:])
    nodes, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
    return np.sqrt(2.0) * nodes, vectors[0] ** 2


_SQUARES, _WEIGHTS = np.zeros((2, MAX_NODES, MAX_NODES))
for _count in range(1, MAX_NODES + 1):
    _nodes, _WEIGHTS[_count - 1, :_count] = _axial_rule(_count)
    _SQUARES[_count - 1, :_count] = _nodes**2

_SQUARE, _WEIGHT = _SQUARES[-1], _WEIGHTS[-1]
T2_MEAN = 1.0 / 6.0
T2_VARIANCE = float(_WEIGHT @ (_SQUARE - T2_MEAN) ** 2)
T2_THIRD = float(_WEIGHT @ (_SQUARE - T2_MEAN) ** 3)
"""Mean, variance and third central moment of t^2."""


MAX_DEPTH_NODES = 10
DEPTH_COMPANDING = 3.0


def _depth_rule(n: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return mean, weight and variance of the n pieces of the exponential density that stand for it.

    A piece keeps its variance as a Gaussian width, so that a long tail does not fall into separate peaks as it does
    with a Gauss rule. The edges -3 ln(1 - k/n) spread n pieces by the cube root of the density, which makes the sum of
    squared errors least for many pieces (Panter & Dite 1951, Proc. IRE 39, 44).
    """
    low = -DEPTH_COMPANDING * np.log1p(-np.arange(n) / n)
    high = np.append(low[1:], 50.0)
    below, above = np.exp(-low), np.exp(-high)
    weight = below - above
    mean = ((low + 1.0) * below - (high + 1.0) * above) / weight
    square = ((low**2 + 2.0 * low + 2.0) * below - (high**2 + 2.0 * high + 2.0) * above) / weight
    return mean, weight, square - mean**2


_DEPTHS, _DEPTH_WEIGHTS, _DEPTH_VARIANCES = np.zeros((3, MAX_DEPTH_NODES, MAX_DEPTH_NODES))
for _count in range(1, MAX_DEPTH_NODES + 1):
    _rule = _depth_rule(_count)
    _DEPTHS[_count - 1, :_count], _DEPTH_WEIGHTS[_count - 1, :_count], _DEPTH_VARIANCES[_count - 1, :_count] = _rule


@dataclass(frozen=True)
class CombAccuracy:
    """Where lines merge and how many axial nodes are used.

    Parameters
    ----------
    merge : emission lines closer than this many peak widths are one node
    one_node, two_nodes : largest axial shift over the width up to which one and two nodes are enough
    one_piece : mean depth over the width up to which one piece is enough; twice as much asks for each one more, up to
        `MAX_DEPTH_NODES`, which are good to 0.3 % of the peak where the depth is the width
    window_steps : least half width of a window in steps of the tail grid, so that the grid resolves the taper
    """

    merge: float = 0.06
    one_node: float = 0.1
    two_nodes: float = 0.5
    one_piece: float = 0.05
    window_steps: float = 8.0


FINE = CombAccuracy()
ROUGH = CombAccuracy(merge=0.5, one_node=0.4, two_nodes=2.0, one_piece=0.2, window_steps=4.0)
"""`FINE` for the result; `ROUGH` for the way there, a third of the nodes."""


def _row(array: FloatArray, number: int) -> FloatArray:
    row: FloatArray = array[number]
    return row


@dataclass(frozen=True)
class Comb:
    """The nodes of every reflection's profile, ragged by `start`, and their moments for the tails.

    Parameters
    ----------
    start : (j + 1,) first node of each reflection
    nodes, moments : (7, nodes), (5, j), rows as `kernel` names them: distances from the reflection's centre; shifts per
        unit kappa and per unit depth; the variance a node stands for, as a squared Gaussian full width; weights sum to
        1 for each reflection, their slopes to 0; the variance is that at the compiled kappa and depth
    """

    start: IntArray
    nodes: FloatArray
    moments: FloatArray

    @property
    def weight(self) -> FloatArray:
        """Share of the area of each node."""
        return _row(self.nodes, NODE_WEIGHT)

    @property
    def slope(self) -> FloatArray:
        """Derivative of each weight by the share of the satellite lines."""
        return _row(self.nodes, NODE_SLOPE)

    @property
    def mean_offset(self) -> FloatArray:
        """Mean distance from the centre, deg."""
        return _row(self.moments, MEAN_OFFSET)

    @property
    def mean_axial(self) -> FloatArray:
        """Mean shift per unit kappa, deg."""
        return _row(self.moments, MEAN_AXIAL)

    @property
    def mean_depth(self) -> FloatArray:
        """Mean shift per unit depth."""
        return _row(self.moments, MEAN_DEPTH)

    @property
    def variance(self) -> FloatArray:
        """Variance of the nodes, deg^2."""
        return _row(self.moments, VARIANCE)


NO_COMB = Comb(np.zeros(1, dtype=np.int64), np.empty((N_NODE_ROWS, 0)), np.empty((N_MOMENTS, 0)))
"""A comb without reflections."""


def profile_comb(
    *,
    theta: FloatArray,
    fwhm: FloatArray,
    kappa: float,
    depth: FloatArray,
    line_offset: FloatArray,
    line_lorentz: FloatArray,
    line_weight: FloatArray,
    line_slope: FloatArray,
    accuracy: CombAccuracy = FINE,
) -> Comb:
    """Return the comb of every reflection: its emission lines times the axial quadrature times that of the depth.

    Lines closer than `accuracy.merge` widths are one node at their mean, with their variance. The numbers of
    axial and of depth nodes follow the ratio of the shift to the width; a single node keeps the variance of the shifts.
    All is decided here and frozen.

    Parameters
    ----------
    theta : (j,) Bragg angle of the principal line, rad
    fwhm : (j,) width expected, deg
    kappa : axial divergence expected
    depth : (j,) mean shift by the depth expected, deg
    line_offset, line_lorentz, line_weight, line_slope : (lines, j) deg, deg, share of the area, and its derivative by
        the share of the satellite
    """
    order = np.argsort(line_offset, axis=0)
    group, n_groups = np.zeros(line_offset.shape, dtype=np.int64), np.empty(theta.size, dtype=np.int64)
    _group_lines(order, line_offset, accuracy.merge * fwhm, group, n_groups)
    low, high = DEGREE / 4.0 / np.tan(theta), DEGREE / 4.0 * np.tan(theta)
    spread = kappa * np.maximum(low, high) / fwhm
    more = np.where(spread < accuracy.two_nodes, 2, np.ceil(2.0 + 2.0 * spread))
    count = np.clip(np.where(spread < accuracy.one_node, 1, more), 1, MAX_NODES).astype(np.int64)
    inward = depth / fwhm / accuracy.one_piece
    more = np.ceil(1.0 + 0.5 * inward)
    depth_count = np.clip(np.where(inward < 1.0, 1, np.maximum(more, 2)), 1, MAX_DEPTH_NODES).astype(np.int64)
    start = np.concatenate(([0], np.cumsum(n_groups * count * depth_count)))
    nodes, moments = np.empty((N_NODE_ROWS, int(start[-1]))), np.empty((N_MOMENTS, theta.size))
    _fill_comb(
        kappa,
        low,
        high,
        group,
        n_groups,
        count,
        depth,
        depth_count,
        start,
        line_offset,
        line_lorentz,
        line_weight,
        line_slope,
        _SQUARES,
        _WEIGHTS,
        _DEPTHS,
        _DEPTH_WEIGHTS,
        _DEPTH_VARIANCES,
        nodes,
        moments,
    )
    return Comb(start, nodes, moments)


@compiled
def _group_lines(order: IntRows, offset: FloatRows, distance: FloatArray, group: IntRows, n_groups: IntArray) -> None:
    """Set which node each emission line belongs to, (lines, j), and the number of nodes of each reflection.

    Lines are taken in ascending order of their offset; one starts a new node when it is further than `distance` from
    the first of the present node.
    """
    for j in range(n_groups.size):
        current, first = 0, offset[order[0, j], j]
        for rank in range(1, order.shape[0]):
            line = order[rank, j]
            if offset[line, j] - first > distance[j]:
                current, first = current + 1, offset[line, j]
            group[line, j] = current
        n_groups[j] = current + 1


@compiled
def _fill_comb(
    kappa: float,
    low: FloatArray,
    high: FloatArray,
    group: IntRows,
    n_groups: IntArray,
    count: IntArray,
    depth: FloatArray,
    depth_count: IntArray,
    start: IntArray,
    offset: FloatRows,
    lorentz: FloatRows,
    weight: FloatRows,
    slope: FloatRows,
    squares: FloatRows,
    weights: FloatRows,
    depths: FloatRows,
    depth_weights: FloatRows,
    depth_variances: FloatRows,
    nodes: FloatRows,
    moments: FloatRows,
) -> None:
    """Set the nodes and the moments of every reflection, rows as `kernel` names them.

    The shift per kappa is q = h t'^2 - l t^2 with l = cot(theta) / 4, h = tan(theta) / 4 (in deg). One node holds its
    mean and variance; two hold its mean, variance and skewness; where more are needed one of the terms dominates and
    gets the Gauss rule of t^2, the other its mean and variance. The depth has its pieces, each with
    its mean and variance.
    """
    n_lines = offset.shape[0]
    shift, share = np.empty(MAX_NODES), np.empty(MAX_NODES)
    sums = np.empty((5, n_lines))
    for j in range(n_groups.size):
        sums[:] = 0.0
        total = total_slope = 0.0
        for line in range(n_lines):
            g, part = group[line, j], weight[line, j]
            sums[0, g] += part
            sums[1, g] += part * offset[line, j]
            sums[2, g] += part * offset[line, j] ** 2
            sums[3, g] += part * lorentz[line, j]
            sums[4, g] += slope[line, j]
            total += part
            total_slope += slope[line, j]

        l, h, number = low[j], high[j], count[j]  # noqa: E741 - the symbols of the formula
        extra = 0.0
        if number <= 2:
            mean, variance = (h - l) * T2_MEAN, (l * l + h * h) * T2_VARIANCE
            shift[0], share[0], extra = mean, 1.0, kappa * kappa * variance
            if number == 2:
                sigma = math.sqrt(variance)
                half_skewness = 0.5 * (h**3 - l**3) * T2_THIRD / sigma**3
                root = math.sqrt(1.0 + half_skewness * half_skewness)
                share[1] = 0.5 * (1.0 - half_skewness / root)
                share[0] = 1.0 - share[1]
                shift[0], shift[1] = mean + sigma * (half_skewness - root), mean + sigma * (half_skewness + root)
                extra = 0.0
        else:
            main, other = (-l, h) if l > h else (h, -l)
            for k in range(number):
                shift[k] = main * squares[number - 1, k] + other * T2_MEAN
                share[k] = weights[number - 1, k]
            extra = kappa * kappa * other * other * T2_VARIANCE

        deep = depth_count[j]
        node = start[j]
        mean_offset = mean_axial = mean_depth = mean_lorentz = mean_gauss = mean_place = mean_square = 0.0
        for g in range(n_groups[j]):
            place = sums[1, g] / sums[0, g]
            spread = max(sums[2, g] / sums[0, g] - place * place, 0.0)
            width = sums[3, g] / sums[0, g]
            part = sums[0, g] / total
            part_slope = sums[4, g] / total - part * total_slope / total
            for k in range(number):
                for layer in range(deep):
                    both = share[k] * depth_weights[deep - 1, layer]
                    within = depth[j] * depth[j] * depth_variances[deep - 1, layer]
                    gauss = (spread + extra + within) / _VARIANCE_PER_FWHM_SQUARED
                    w, inward = part * both, -depths[deep - 1, layer]
                    nodes[NODE_OFFSET, node], nodes[NODE_AXIAL, node], nodes[NODE_DEPTH, node] = place, shift[k], inward
                    nodes[NODE_GAUSS, node], nodes[NODE_LORENTZ, node] = gauss, width
                    nodes[NODE_WEIGHT, node], nodes[NODE_SLOPE, node] = w, part_slope * both
                    at = place + kappa * shift[k] + depth[j] * inward
                    mean_offset += w * place
                    mean_axial += w * shift[k]
                    mean_depth += w * inward
                    mean_lorentz += w * width
                    mean_gauss += w * gauss
                    mean_place += w * at
                    mean_square += w * at * at
                    node += 1
        moments[MEAN_OFFSET, j], moments[MEAN_AXIAL, j], moments[MEAN_DEPTH, j] = mean_offset, mean_axial, mean_depth
        moments[MEAN_LORENTZ, j] = mean_lorentz
        moments[VARIANCE, j] = max(mean_square - mean_place**2, 0.0) + mean_gauss * _VARIANCE_PER_FWHM_SQUARED


def flat_specimen_error(divergence_deg: float) -> float:
    """Return delta^2 / 6 in deg, the mean shift to low angles times tan(theta); 1/343 deg for 1 deg."""
    return divergence_deg**2 / (6.0 * DEGREE)


def defocus_of(divergence_deg: float, detector_deg: float) -> float:
    """Return D (deg^2) of a beam and a linear detector by their angular openings; see the module."""
    openings = (divergence_deg * detector_deg) ** 2 / 144.0 + divergence_deg**4 / 45.0
    return openings / (_VARIANCE_PER_FWHM_SQUARED * DEGREE**2)


def total_width(*, gauss_squared: FloatArray, lorentz: FloatArray) -> FloatArray:
    """Return the full width at half maximum of the Voigt function by the fifth-power law (deg)."""
    G, L = np.sqrt(gauss_squared), lorentz
    fifth = G**5 + 2.69269 * G**4 * L + 2.42843 * G**3 * L**2 + 4.47163 * G**2 * L**3 + 0.07842 * G * L**4 + L**5
    width: FloatArray = fifth**0.2
    return width
