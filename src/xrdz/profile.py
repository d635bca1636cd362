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

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdz.diffractogram import FloatArray

IntArray = NDArray[np.int64]

DEGREE = 180.0 / np.pi
WIDTH_FLOOR = 2e-3
"""Smallest Gaussian width (deg) the smooth floor lets a peak have."""

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


def _axial_squares(n: int) -> tuple[FloatArray, FloatArray]:
    """Return t^2 at the nodes, and weights; a single node stands at the mean E[t^2] = 1/6 as every larger rule does."""
    if n == 1:
        return np.array([1.0 / 6.0]), np.array([1.0])
    nodes, weights = _axial_rule(n)
    return nodes**2, weights


AXIAL_SQUARES = tuple(_axial_squares(n) for n in range(1, MAX_NODES + 1))
MERGE_WIDTHS = 0.2
"""Emission lines closer than this many peak widths are treated as one."""


@dataclass(frozen=True)
class Comb:
    """The nodes of every reflection's profile, ragged by `start`, and their moments for the tails.

    Parameters
    ----------
    start : (j + 1,) first node of each reflection
    offset : distance from the reflection's centre, deg
    axial : shift per unit kappa, deg
    lorentz : natural Lorentzian width, deg
    weight : share of the area; sums to 1 for each reflection
    mean_offset, mean_axial, mean_lorentz, variance : (j,) moments; the variance (deg^2) at the compiled kappa
    """

    start: IntArray
    offset: FloatArray
    axial: FloatArray
    lorentz: FloatArray
    weight: FloatArray
    mean_offset: FloatArray
    mean_axial: FloatArray
    mean_lorentz: FloatArray
    variance: FloatArray


def profile_comb(
    *,
    theta: FloatArray,
    fwhm: FloatArray,
    kappa: float,
    line_offset: FloatArray,
    line_lorentz: FloatArray,
    line_weight: FloatArray,
) -> Comb:
    """Return the comb of every reflection: its emission lines times the axial quadrature.

    Lines closer than `MERGE_WIDTHS` widths are one node at their mean. The axial node count follows the ratio of the
    largest shift to the width. Both are decided here and frozen.

    Parameters
    ----------
    theta : (j,) Bragg angle of the principal line, rad
    fwhm : (j,) width expected, deg
    kappa : axial divergence expected
    line_offset, line_lorentz, line_weight : (lines, j) deg, deg, share of the area
    """
    low_scale = DEGREE / 4.0 / np.tan(theta)
    high_scale = DEGREE / 4.0 * np.tan(theta)
    n_low, n_high = _axial_count(kappa * low_scale / fwhm), _axial_count(kappa * high_scale / fwhm)
    starts, parts = [0], []
    for j in range(theta.size):
        lines = _merged_lines(line_offset[:, j], line_lorentz[:, j], line_weight[:, j], MERGE_WIDTHS * fwhm[j])
        square_low, w_low = AXIAL_SQUARES[n_low[j] - 1]
        square_high, w_high = AXIAL_SQUARES[n_high[j] - 1]
        shift = (high_scale[j] * square_high[None, :] - low_scale[j] * square_low[:, None]).ravel()
        share = (w_low[:, None] * w_high[None, :]).ravel()
        nodes = np.empty((4, lines.shape[1], shift.size))
        nodes[0] = lines[0][:, None]
        nodes[1] = shift
        nodes[2] = lines[1][:, None]
        nodes[3] = lines[2][:, None] * share
        parts.append(nodes.reshape(4, -1))
        starts.append(starts[-1] + parts[-1].shape[1])
    table = np.concatenate(parts, axis=1)
    start = np.array(starts, dtype=np.int64)
    offset, axial, lorentz, weight = (np.ascontiguousarray(row) for row in table)

    def mean(of: FloatArray) -> FloatArray:
        return np.add.reduceat(weight * of, start[:-1])

    place = offset + kappa * axial
    variance = np.maximum(mean(place**2) - mean(place) ** 2, 0.0)
    return Comb(start, offset, axial, lorentz, weight, mean(offset), mean(axial), mean(lorentz), variance)


def _axial_count(spread: FloatArray) -> IntArray:
    wanted = np.where(spread < 0.15, 1, np.where(spread < 0.5, 2, np.ceil(2.5 + 1.8 * spread)))
    clipped: IntArray = np.clip(wanted, 1, MAX_NODES).astype(np.int64)
    return clipped


def _merged_lines(offset: FloatArray, lorentz: FloatArray, weight: FloatArray, distance: float) -> FloatArray:
    """Merge neighbouring lines closer than `distance`; return rows offset, lorentz, weight (normalised)."""
    order = np.argsort(offset)
    groups: list[list[int]] = []
    for k in order:
        if groups and offset[k] - offset[groups[-1][0]] < distance:
            groups[-1].append(int(k))
        else:
            groups.append([int(k)])
    total = float(weight.sum())
    merged = np.empty((3, len(groups)))
    for column, members in enumerate(groups):
        share = weight[members]
        merged[2, column] = share.sum() / total
        merged[:2, column] = (offset[members] @ share, lorentz[members] @ share) / share.sum()
    return merged


def floored_gauss_squared(gauss_squared: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (g + sqrt(g^2 + 4 f^4)) / 2 with f = `WIDTH_FLOOR`, and its slope: a smooth floor under G^2."""
    root = np.sqrt(gauss_squared**2 + 4.0 * WIDTH_FLOOR**4)
    floored = 0.5 * (gauss_squared + root)
    return floored, floored / root


def total_width(*, gauss_squared: FloatArray, lorentz: FloatArray) -> FloatArray:
    """Return the full width at half maximum of the Voigt function by the fifth-power law (deg)."""
    G, L = np.sqrt(gauss_squared), lorentz
    fifth = G**5 + 2.69269 * G**4 * L + 2.42843 * G**3 * L**2 + 4.47163 * G**2 * L**3 + 0.07842 * G * L**4 + L**5
    width: FloatArray = fifth**0.2
    return width
