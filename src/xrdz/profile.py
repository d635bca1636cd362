"""Peak shape: width laws, the comb of emission lines and axial shifts that makes a reflection's profile.

Widths after Thompson, Cox & Hastings 1987 (J. Appl. Cryst. 20, 79), full widths at half maximum in degrees 2theta:

    G^2 = U tan^2(theta) + V tan(theta) + W + U_p tan^2(theta) + P_p / cos^2(theta)
    L   = (X + X_p) tan(theta) + (Y + Y_p) / cos(theta)

U, V, W, X, Y belong to the instrument, U_p, P_p, X_p, Y_p to a phase: a Gaussian and a Lorentzian part of strain and
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
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdz.diffractogram import FloatArray

IntArray = NDArray[np.int64]

DEGREE = 180.0 / np.pi
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


AXIAL_SQUARES = tuple((nodes**2, weights) for nodes, weights in map(_axial_rule, range(1, MAX_NODES + 1)))
"""t^2 at the nodes, and weights, of each rule."""

_SQUARE, _WEIGHT = AXIAL_SQUARES[-1]
T2_MEAN = 1.0 / 6.0
T2_VARIANCE = float(_WEIGHT @ (_SQUARE - T2_MEAN) ** 2)
T2_THIRD = float(_WEIGHT @ (_SQUARE - T2_MEAN) ** 3)
"""Mean, variance and third central moment of t^2."""


@dataclass(frozen=True)
class CombAccuracy:
    """Where lines merge and how many axial nodes are used.

    Parameters
    ----------
    merge : emission lines closer than this many peak widths are one node
    one_node, two_nodes : largest axial shift over the width up to which one and two nodes are enough
    """

    merge: float = 0.06
    one_node: float = 0.1
    two_nodes: float = 0.5


FINE = CombAccuracy()
ROUGH = CombAccuracy(merge=0.5, one_node=0.4, two_nodes=2.0)
"""`FINE` for the result; `ROUGH` for the way there, a third of the nodes."""


@dataclass(frozen=True)
class Comb:
    """The nodes of every reflection's profile, ragged by `start`, and their moments for the tails.

    Parameters
    ----------
    start : (j + 1,) first node of each reflection
    offset : distance from the reflection's centre, deg
    axial : shift per unit kappa, deg
    gauss : variance the node stands for, as a squared Gaussian full width, deg^2
    lorentz : natural Lorentzian width, deg
    weight : share of the area; sums to 1 for each reflection
    slope : derivative of the weight by the share of the satellite lines; sums to 0
    mean_offset, mean_axial, mean_lorentz, variance : (j,) moments; the variance (deg^2) at the compiled kappa
    """

    start: IntArray
    offset: FloatArray
    axial: FloatArray
    gauss: FloatArray
    lorentz: FloatArray
    weight: FloatArray
    slope: FloatArray
    mean_offset: FloatArray
    mean_axial: FloatArray
    mean_lorentz: FloatArray
    variance: FloatArray


_NONE = np.empty(0)
NO_COMB = Comb(np.zeros(1, dtype=np.int64), *([_NONE] * 10))
"""A comb without reflections."""


def profile_comb(
    *,
    theta: FloatArray,
    fwhm: FloatArray,
    kappa: float,
    line_offset: FloatArray,
    line_lorentz: FloatArray,
    line_weight: FloatArray,
    line_slope: FloatArray,
    accuracy: CombAccuracy = FINE,
) -> Comb:
    """Return the comb of every reflection: its emission lines times the axial quadrature.

    Lines closer than `accuracy.merge` widths are one node at their mean, with their variance. The number of axial nodes
    follows the ratio of the largest shift to the width; a single node keeps the variance of the shifts. Both are
    decided here and frozen.

    Parameters
    ----------
    theta : (j,) Bragg angle of the principal line, rad
    fwhm : (j,) width expected, deg
    kappa : axial divergence expected
    line_offset, line_lorentz, line_weight, line_slope : (lines, j) deg, deg, share of the area, and its derivative by
        the share of the satellite
    """
    n_peaks = theta.size
    group, n_groups = _line_groups(line_offset, accuracy.merge * fwhm)
    peak = np.broadcast_to(np.arange(n_peaks), group.shape)
    key = (peak * line_offset.shape[0] + group).ravel()
    size = n_peaks * line_offset.shape[0]

    def grouped(values: FloatArray, weight: FloatArray = line_weight) -> FloatArray:
        sums = np.bincount(key, weights=(weight * values).ravel(), minlength=size)
        return np.asarray(sums, dtype=np.float64).reshape(n_peaks, -1)

    share = grouped(np.ones_like(line_offset))
    with np.errstate(invalid="ignore", divide="ignore"):
        offset, lorentz = grouped(line_offset) / share, grouped(line_lorentz) / share
        spread = np.maximum(grouped(line_offset**2) / share - offset**2, 0.0)
    total = share.sum(axis=1, keepdims=True)
    slope = grouped(np.ones_like(line_offset), line_slope) / total
    share = share / total
    slope = slope - share * slope.sum(axis=1, keepdims=True)

    count, axial_nodes = _axial_rules(theta, kappa, fwhm, accuracy)
    start = np.concatenate(([0], np.cumsum(n_groups * count)))
    table = np.empty((6, int(start[-1])))
    for lines, nodes in {(int(a), int(b)) for a, b in zip(n_groups, count, strict=True)}:
        peaks = np.flatnonzero((n_groups == lines) & (count == nodes))
        places = (start[peaks][:, None] + np.arange(lines * nodes)).ravel()
        shift, axial_weight, extra = axial_nodes(nodes, peaks)
        variance = spread[peaks, :lines] + extra[:, None]
        for row, values in enumerate(
            (
                np.repeat(offset[peaks, :lines], nodes, axis=1),
                np.tile(shift, (1, lines)),
                np.repeat(8.0 * np.log(2.0) * variance, nodes, axis=1),
                np.repeat(lorentz[peaks, :lines], nodes, axis=1),
                share[peaks, :lines, None] * axial_weight[:, None, :],
                slope[peaks, :lines, None] * axial_weight[:, None, :],
            )
        ):
            table[row, places] = values.ravel()
    node_offset, axial, gauss, node_lorentz, weight, node_slope = (np.ascontiguousarray(row) for row in table)

    def mean(of: FloatArray) -> FloatArray:
        return np.add.reduceat(weight * of, start[:-1])

    place = node_offset + kappa * axial
    variance = np.maximum(mean(place**2) - mean(place) ** 2, 0.0) + mean(gauss) / (8.0 * np.log(2.0))
    return Comb(
        start=start,
        offset=node_offset,
        axial=axial,
        gauss=gauss,
        lorentz=node_lorentz,
        weight=weight,
        slope=node_slope,
        mean_offset=mean(node_offset),
        mean_axial=mean(axial),
        mean_lorentz=mean(node_lorentz),
        variance=variance,
    )


def _axial_rules(
    theta: FloatArray, kappa: float, fwhm: FloatArray, accuracy: CombAccuracy
) -> tuple[IntArray, Callable[[int, IntArray], tuple[FloatArray, FloatArray, FloatArray]]]:
    """Return the number of axial nodes of each reflection, and a function that gives them.

    The shift per kappa is q = h t'^2 - l t^2 with l = cot(theta) / 4, h = tan(theta) / 4 (in deg). One node holds its
    mean and variance; two hold its mean, variance and skewness; where more are needed one of the terms dominates and
    gets the Gauss rule of t^2, the other its mean and variance. The function takes the number of nodes and the
    reflections that have it, and returns shifts and weights (reflections, nodes) and the variance left out (deg^2).
    """
    low = DEGREE / 4.0 / np.tan(theta)
    high = DEGREE / 4.0 * np.tan(theta)
    spread = kappa * np.maximum(low, high) / fwhm
    more = np.where(spread < accuracy.two_nodes, 2, np.ceil(2.0 + 2.0 * spread))
    wanted = np.where(spread < accuracy.one_node, 1, more)
    count: IntArray = np.clip(wanted, 1, MAX_NODES).astype(np.int64)

    def nodes(number: int, peaks: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        l, h = low[peaks], high[peaks]  # noqa: E741 - the symbols of the formula
        mean = (h - l) * T2_MEAN
        variance = (l**2 + h**2) * T2_VARIANCE
        if number == 1:
            return mean[:, None], np.ones((peaks.size, 1)), kappa**2 * variance
        if number == 2:
            sigma = np.sqrt(variance)
            skewness = (h**3 - l**3) * T2_THIRD / sigma**3
            root = np.sqrt(1.0 + 0.25 * skewness**2)
            upper = 0.5 * (1.0 - 0.5 * skewness / root)
            shift = mean[:, None] + sigma[:, None] * np.stack((0.5 * skewness - root, 0.5 * skewness + root), axis=1)
            return shift, np.stack((1.0 - upper, upper), axis=1), np.zeros(peaks.size)
        square, weight = AXIAL_SQUARES[number - 1]
        at_low = l > h
        main, other = np.where(at_low, -l, h), np.where(at_low, h, -l)
        shift = main[:, None] * square + other[:, None] * T2_MEAN
        return shift, np.broadcast_to(weight, shift.shape), kappa**2 * other**2 * T2_VARIANCE

    return count, nodes


def _line_groups(offset: FloatArray, distance: FloatArray) -> tuple[IntArray, IntArray]:
    """Return which node each emission line belongs to, (lines, j), and the number of nodes of each reflection.

    Lines are taken in ascending order of their offset; one starts a new node when it is further than `distance` from
    the first of the present node.
    """
    order = np.argsort(offset, axis=0)
    group = np.zeros(offset.shape, dtype=np.int64)
    columns = np.arange(offset.shape[1])
    first = offset[order[0], columns]
    current = np.zeros(offset.shape[1], dtype=np.int64)
    for rank in range(1, offset.shape[0]):
        here = offset[order[rank], columns]
        new = here - first > distance
        current = current + new
        first = np.where(new, here, first)
        group[order[rank], columns] = current
    return group, current + 1


def total_width(*, gauss_squared: FloatArray, lorentz: FloatArray) -> FloatArray:
    """Return the full width at half maximum of the Voigt function by the fifth-power law (deg)."""
    G, L = np.sqrt(gauss_squared), lorentz
    fifth = G**5 + 2.69269 * G**4 * L + 2.42843 * G**3 * L**2 + 4.47163 * G**2 * L**3 + 0.07842 * G * L**4 + L**5
    width: FloatArray = fifth**0.2
    return width
