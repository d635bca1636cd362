"""Peak shape: Thompson-Cox-Hastings widths and the axial-divergence quadrature.

Widths (Thompson, Cox & Hastings 1987, J. Appl. Cryst. 20, 79), all full widths at half maximum in degrees 2theta:

    gauss^2 = U tan^2(theta) + V tan(theta) + W + U_p tan^2(theta) + P_p / cos^2(theta)
    lorentz = (X + X_p) tan(theta) + (Y + Y_p) / cos(theta)
    H^5     = G^5 + 2.69269 G^4 L + 2.42843 G^3 L^2 + 4.47163 G^2 L^3 + 0.07842 G L^4 + L^5
    eta     = 1.36603 (L/H) - 0.47719 (L/H)^2 + 0.11116 (L/H)^3

U, V, W, X, Y belong to the instrument, U_p, P_p, X_p, Y_p to a phase: a Gaussian and a Lorentzian part of strain and
of size each, since neither alone can follow a distribution of grain sizes.

Axial divergence. A ray that leaves the equatorial plane by the angle alpha before and beta after the specimen is
recorded, to second order, at (Cheary & Coelho 1998, J. Appl. Cryst. 31, 851; here in half angles)

    2phi - 2theta = -(alpha - beta)^2 / 4 cot(theta) + (alpha + beta)^2 / 4 tan(theta)

For symmetric distributions the two combinations are uncorrelated; each is given the triangular density of
Finger, Cox & Jephcoat 1994 (J. Appl. Cryst. 27, 892), |alpha -+ beta| = A t with density 2 (1 - t) on 0..1,
where A = (S + H)/L. The refined parameter is kappa = A^2, in which every shift is linear. With one combination and
cot(2 theta) = (cot(theta) - tan(theta)) / 2 the mean shift is that of Finger, Cox & Jephcoat for S = H.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xrdz.diffractogram import FloatArray

DEGREE = 180.0 / np.pi
WIDTH_FLOOR = 2e-3
"""Smallest Gaussian width (deg) the smooth floor lets a peak have."""

# Gauss-Jacobi nodes in t for the density 2 (1 - t) on 0..1; numpy's Legendre rule on the same interval with the weight
# folded in would need more nodes for the same accuracy.
MAX_NODES = 10


def _jacobi_rule(n: int) -> tuple[FloatArray, FloatArray]:
    """Return nodes t and weights of the n-point Gauss rule for the density 2 (1 - t) on 0..1 (Golub & Welsch 1969)."""
    # Jacobi polynomials with alpha = 1, beta = 0 on -1..1: recurrence coefficients of the monic polynomials.
    k = np.arange(n, dtype=np.float64)
    diagonal = -1.0 / ((2.0 * k + 1.0) * (2.0 * k + 3.0))
    k = k[1:]
    off_squared = k * (k + 1.0) / (2.0 * k + 1.0) ** 2
    matrix = np.diag(diagonal) + np.diag(np.sqrt(off_squared), 1) + np.diag(np.sqrt(off_squared), -1)
    nodes, vectors = np.linalg.eigh(matrix)
    return 0.5 * (nodes + 1.0), vectors[0] ** 2


JACOBI_RULES = tuple(_jacobi_rule(n) for n in range(1, MAX_NODES + 1))


@dataclass(frozen=True)
class AxialNodes:
    """Quadrature of the axial shift of every peak: `shift` (deg per unit kappa) and `weight`, ragged by `offset`."""

    offset: np.ndarray[tuple[int], np.dtype[np.int64]]
    shift: FloatArray
    weight: FloatArray
    mean_shift: FloatArray


def axial_nodes(*, theta: FloatArray, fwhm: FloatArray, kappa: float) -> AxialNodes:
    """Return the axial quadrature for peaks at Bragg angles `theta` (rad), enough nodes for `kappa` at width `fwhm`.

    The node count follows the ratio of the largest shift to the width at compile time and is frozen afterwards.
    """
    low_scale = DEGREE / 4.0 / np.tan(theta)
    high_scale = DEGREE / 4.0 * np.tan(theta)

    def count(scale: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        spread = kappa * scale / fwhm
        wanted = np.where(spread < 0.15, 1, np.where(spread < 0.5, 2, np.ceil(2.0 + 1.5 * spread)))
        clipped: np.ndarray[tuple[int], np.dtype[np.int64]] = np.clip(wanted, 1, MAX_NODES).astype(np.int64)
        return clipped

    n_low, n_high = count(low_scale), count(high_scale)
    offset = np.concatenate(([0], np.cumsum(n_low * n_high)))
    shift = np.empty(int(offset[-1]))
    weight = np.empty_like(shift)
    for nodes_low, nodes_high in {(int(a), int(b)) for a, b in zip(n_low, n_high, strict=True)}:
        t_low, w_low = JACOBI_RULES[nodes_low - 1]
        t_high, w_high = JACOBI_RULES[nodes_high - 1]
        peaks = np.flatnonzero((n_low == nodes_low) & (n_high == nodes_high))
        places = offset[peaks][:, None] + np.arange(nodes_low * nodes_high)[None, :]
        # One node stands for the whole distribution at its mean: E[t^2] = 1/6 in every rule of two nodes or more.
        square_low = t_low**2 if nodes_low > 1 else np.array([1.0 / 6.0])
        square_high = t_high**2 if nodes_high > 1 else np.array([1.0 / 6.0])
        table = (
            -low_scale[peaks][:, None, None] * square_low[None, :, None]
            + high_scale[peaks][:, None, None] * square_high[None, None, :]
        )
        shift[places] = table.reshape(peaks.size, -1)
        weight[places] = (w_low[:, None] * w_high[None, :]).reshape(1, -1)
    mean = (high_scale - low_scale) / 6.0
    return AxialNodes(offset, shift, weight, mean)


def pseudo_voigt_width(
    *, gauss_squared: FloatArray, lorentz: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return H, eta and their derivatives by gauss^2 and by lorentz (deg, deg^2).

    A negative or tiny gauss^2 meets a smooth floor: (g + sqrt(g^2 + 4 f^4)) / 2 with f = `WIDTH_FLOOR`.

    Returns
    -------
    fwhm, eta, fwhm_by_gauss_squared, fwhm_by_lorentz, eta_by_gauss_squared, eta_by_lorentz : each (n,)
    """
    root = np.sqrt(gauss_squared**2 + 4.0 * WIDTH_FLOOR**4)
    floored = 0.5 * (gauss_squared + root)
    floored_slope = floored / root
    G = np.sqrt(floored)
    L = lorentz
    fifth = G**5 + 2.69269 * G**4 * L + 2.42843 * G**3 * L**2 + 4.47163 * G**2 * L**3 + 0.07842 * G * L**4 + L**5
    by_gauss = 5 * G**4 + 4 * 2.69269 * G**3 * L + 3 * 2.42843 * G**2 * L**2 + 2 * 4.47163 * G * L**3 + 0.07842 * L**4
    by_lorentz = 2.69269 * G**4 + 2 * 2.42843 * G**3 * L + 3 * 4.47163 * G**2 * L**2 + 4 * 0.07842 * G * L**3 + 5 * L**4
    H = fifth**0.2
    to_width = 0.2 * H / fifth
    H_G = by_gauss * to_width * floored_slope / (2.0 * G)
    H_L = by_lorentz * to_width
    q = L / H
    eta = q * (1.36603 + q * (-0.47719 + q * 0.11116))
    eta_q = 1.36603 + q * (-2 * 0.47719 + q * 3 * 0.11116)
    eta_G = eta_q * (-q / H) * H_G
    eta_L = eta_q * (1.0 / H - q / H * H_L)
    return H, eta, H_G, H_L, eta_G, eta_L
