"""The compiled step from refined parameters to the reflections of one phase and the coefficients of its columns.

The formulas are those of `phase_model` and `profile`; here they stand reflection by reflection, with every derivative,
because some hundred reflections cost less in one compiled loop than the calls of array arithmetic do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xrdz.compiled import FloatArray, FloatRows, IntArray, IntRows, compiled
from xrdz.crystal import cell_from_free, full_cell
from xrdz.kernel import AREA, BRAGG, CENTRE, DEPTH_SCALE, GAUSS, WIDTH

_DEGREE = 180.0 / math.pi

WIDTH_FLOOR = 0.02
"""Smallest Gaussian width (deg) the smooth floor lets a peak have."""

OVERSPILL_POWER = 6.0
"""Sharpness of the corner where the footprint of the beam grows beyond the specimen."""

TANGENT, SECANT, COSECANT, POLARIZED, UNPOLARIZE = range(5)
"""Rows of the functions of the frozen Bragg angles."""

N_GLOBAL = 12
"""Instrument and specimen parameters ahead of the intensity response; see `phase_model.GLOBAL_NAMES`."""

N_WIDTHS = 4


def inverse_d_squared_and_jacobian(
    hkl: NDArray[np.generic], crystal_system: str, free_values: Sequence[float] | FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return 1/d^2 and its derivatives with respect to the free cell parameters.

    Parameters
    ----------
    hkl : shape (n, 3)
    crystal_system : see `crystal.free_cell_names`
    free_values : the free parameters, angstrom and degrees

    Returns
    -------
    values : shape (n,), 1/angstrom^2
    jacobian : shape (n, n_free), per angstrom and per degree
    """
    cell = np.array(full_cell(crystal_system, free_values))
    indices = np.ascontiguousarray(hkl, dtype=np.float64)
    chain = cell_from_free(crystal_system)
    values, jacobian = np.empty(len(indices)), np.empty((len(indices), chain.shape[1]))
    _inverse_d_squared(indices, cell, chain, values, jacobian)
    return values, jacobian


@compiled
def _inverse_d_squared(hkl: FloatRows, cell: FloatArray, chain: FloatRows, q: FloatArray, by_free: FloatRows) -> None:
    """Set q = h . G* . h and dq: with u = G* h, dq = -u . dG . u, chained to the free cell parameters."""
    cosine, sine = np.empty(3), np.empty(3)
    for k in range(3):
        angle = cell[3 + k] / _DEGREE
        cosine[k] = math.cos(angle) if cell[3 + k] != 90.0 else 0.0
        sine[k] = math.sin(angle) / _DEGREE
    a, b, c = cell[0], cell[1], cell[2]
    aa, bb, cc = a * a, b * b, c * c
    ab, ac, bc = a * b * cosine[2], a * c * cosine[1], b * c * cosine[0]
    inverse = 1.0 / (aa * (bb * cc - bc * bc) - ab * (ab * cc - ac * bc) + ac * (ab * bc - ac * bb))
    xx, yy, zz = (bb * cc - bc * bc) * inverse, (aa * cc - ac * ac) * inverse, (aa * bb - ab * ab) * inverse
    xy, xz, yz = (ac * bc - ab * cc) * inverse, (ab * bc - ac * bb) * inverse, (ab * ac - aa * bc) * inverse
    by_cell = np.empty(6)
    for j in range(q.size):
        h, k, l = hkl[j, 0], hkl[j, 1], hkl[j, 2]  # noqa: E741 - Miller indices
        u, v, w = xx * h + xy * k + xz * l, xy * h + yy * k + yz * l, xz * h + yz * k + zz * l
        q[j] = u * h + v * k + w * l
        # -u . dG/da . u = -2 u_a (G u)_a / a, and G u = h: the derivative to a length needs no cosine.
        by_cell[0], by_cell[1], by_cell[2] = -2.0 * u * h / a, -2.0 * v * k / b, -2.0 * w * l / c
        by_cell[3] = 2.0 * v * b * w * c * sine[0]
        by_cell[4] = 2.0 * u * a * w * c * sine[1]
        by_cell[5] = 2.0 * u * a * v * b * sine[2]
        for free in range(chain.shape[1]):
            total = 0.0
            for k6 in range(6):
                total += by_cell[k6] * chain[k6, free]
            by_free[j, free] = total


@compiled
def march_dollase_factor(ln_r: float, cos_squared: FloatArray, weight: FloatArray) -> tuple[float, float]:
    """Return the March-Dollase factor of one reflection and its derivative by ln r.

    O = sum_e weight_e (r^2 cos^2 a_e + sin^2 a_e / r)^(-3/2), W. A. Dollase 1986, J. Appl. Cryst. 19, 267, eq. 5.
    """
    r = math.exp(ln_r)
    inverse = 1.0 / r
    factor = slope = 0.0
    for e in range(cos_squared.size):
        along, across = r * r * cos_squared[e], (1.0 - cos_squared[e]) * inverse
        inner = along + across
        power = weight[e] / (inner * math.sqrt(inner))
        factor += power
        slope -= 1.5 * power / inner * (2.0 * along - across)
    return factor, slope


@compiled
def reflect(
    hkl: FloatRows,
    cell: FloatArray,
    chain: FloatRows,
    wavelength: float,
    radius: float,
    angles: FloatRows,
    instrument_lorentz: FloatArray,
    pair_intensity: FloatRows,
    pair_first: IntArray,
    pair_second: IntArray,
    s_squared: FloatArray,
    texture_cos_squared: FloatArray,
    texture_weight: FloatArray,
    texture_offset: IntRows,
    shape_is_size: IntArray,
    shape_values: FloatRows,
    legendre: FloatRows,
    common: FloatArray,
    own: FloatArray,
    state: FloatRows,
    rows: FloatRows,
) -> None:
    """Set the state of every reflection and the coefficient of each slope, in place.

    Parameters
    ----------
    hkl, cell, chain : (j, 3), (6,) angstrom and deg, (6, free) derivative of the cell by its free parameters
    angles : (5, j) functions of the frozen Bragg angles
    instrument_lorentz : X, Y of the instrument, deg
    pair_intensity, pair_first, pair_second, s_squared : (j, pairs), (pairs,), (pairs,), (j,)
    texture_cos_squared, texture_weight, texture_offset : angles of the equivalents of all axes, (axes, j + 1)
    shape_is_size, shape_values : (shapes,), (shapes, j) of anisotropic broadening
    legendre : (degrees, j) of the intensity response
    common, own : values of the shared parameters and of the phase's
    state, rows : (6, j), (rows, j) output; without rows no derivatives are taken
    """
    n_cell, n_shapes, n_textures = chain.shape[1], shape_values.shape[0], texture_offset.shape[0]
    n_response, n_pairs = legendre.shape[0], pair_first.size
    n_displacement = own.size - n_cell - N_WIDTHS - n_textures - n_shapes
    zero, displacement, u, v, w = common[0], common[1], common[2], common[3], common[4]
    roughness, polarization, overspill = common[6], common[7], common[9]
    defocus, transparency = common[10], common[11]
    size_lorentz, strain_lorentz = own[n_cell], own[n_cell + 1]
    size_gauss, strain_gauss = own[n_cell + 2], own[n_cell + 3]
    B = own[n_cell + N_WIDTHS : n_cell + N_WIDTHS + n_displacement]
    textures = own[n_cell + N_WIDTHS + n_displacement : own.size - n_shapes]
    amplitudes = own[own.size - n_shapes :]
    lever = 2.0 * _DEGREE / radius
    n = hkl.shape[0]
    q, q_by_cell = np.empty(n), np.empty((n, n_cell))
    _inverse_d_squared(hkl, cell, chain, q, q_by_cell)
    by_displacement = np.empty(n_displacement)
    factor, factor_slope = np.empty(n_textures), np.empty(n_textures)
    for j in range(n):
        sine = min(0.5 * wavelength * math.sqrt(q[j]), 0.99999)
        cosine = math.sqrt(1.0 - sine * sine)
        bragg = 2.0 * _DEGREE * math.asin(sine)
        state[CENTRE, j] = bragg + zero - lever * displacement * cosine
        state[BRAGG, j] = bragg

        tangent, secant = angles[TANGENT, j], angles[SECANT, j]
        twice = 2.0 * tangent / (secant * secant)  # sin(2 theta)
        state[DEPTH_SCALE, j] = transparency * twice
        by_size, by_strain = secant, tangent
        for k in range(n_shapes):
            stretch = math.exp(amplitudes[k] * shape_values[k, j])
            if shape_is_size[k] == 1:
                by_size *= stretch
            else:
                by_strain *= stretch
        by_size_gauss, by_strain_gauss = by_size * by_size, by_strain * by_strain
        cotangent_squared = 1.0 / (tangent * tangent)
        raw = u * tangent * tangent + v * tangent + w + defocus * cotangent_squared
        raw += strain_gauss * by_strain_gauss + size_gauss * by_size_gauss
        # A smooth floor under G^2: (g + sqrt(g^2 + 4 f^4)) / 2 with f = `WIDTH_FLOOR`.
        root = math.sqrt(raw * raw + 4.0 * WIDTH_FLOOR**4)
        gauss_squared = 0.5 * (raw + root)
        floor_slope = gauss_squared / root
        state[GAUSS, j] = gauss_squared
        state[WIDTH, j] = (
            strain_lorentz * by_strain
            + size_lorentz * by_size
            + instrument_lorentz[0] * tangent
            + instrument_lorentz[1] * secant
        )

        polarized = 1.0 + polarization * angles[POLARIZED, j]
        depth = angles[COSECANT, j] - 1.0
        excess = (overspill * angles[COSECANT, j]) ** OVERSPILL_POWER
        exponent = -roughness * depth
        for k in range(n_response):
            exponent += common[N_GLOBAL + k] * legendre[k, j]
        # LP was frozen with the polarization of the compilation; the factor is relative to it.
        together = polarized * angles[UNPOLARIZE, j] * (1.0 + excess) ** (-1.0 / OVERSPILL_POWER) * math.exp(exponent)
        untextured = 0.0
        by_displacement[:] = 0.0
        for pair in range(n_pairs):
            first, second = pair_first[pair], pair_second[pair]
            share = pair_intensity[j, pair] * together * math.exp(-(B[first] + B[second]) * s_squared[j])
            untextured += share
            by_displacement[first] += share
            by_displacement[second] += share
        orientation = 1.0
        for axis in range(n_textures):
            begin, end = texture_offset[axis, j], texture_offset[axis, j + 1]
            factor[axis], factor_slope[axis] = march_dollase_factor(
                textures[axis], texture_cos_squared[begin:end], texture_weight[begin:end]
            )
            orientation *= factor[axis]
        area = untextured * orientation
        state[AREA, j] = area
        if rows.shape[0] == 0:
            continue

        sloped = floor_slope * area
        rows[0, j] = rows[5, j] = rows[8, j] = area
        rows[1, j] = -lever * cosine * area
        rows[2, j] = sloped * tangent * tangent
        rows[3, j] = sloped * tangent
        rows[4, j] = sloped
        rows[6, j] = -depth * area
        rows[7, j] = angles[POLARIZED, j] / polarized * area
        rows[9, j] = -excess / (1.0 + excess) / overspill * area
        rows[10, j] = sloped * cotangent_squared
        rows[11, j] = twice * area
        row = N_GLOBAL
        for k in range(n_response):
            rows[row + k, j] = legendre[k, j] * area
        row += n_response
        # d centre / d (2theta_bragg in deg): the displacement shift itself moves with the angle.
        moves = (1.0 + displacement / radius * sine) * _DEGREE * wavelength * wavelength / (4.0 * sine * cosine) * area
        for k in range(n_cell):
            rows[row + k, j] = moves * q_by_cell[j, k]
        row += n_cell
        rows[row, j], rows[row + 1, j] = by_size * area, by_strain * area
        rows[row + 2, j], rows[row + 3, j] = by_size_gauss * sloped, by_strain_gauss * sloped
        row += N_WIDTHS
        for k in range(n_displacement):
            rows[row + k, j] = -s_squared[j] * orientation * by_displacement[k]
        row += n_displacement
        for axis in range(n_textures):
            rows[row + axis, j] = area * factor_slope[axis] / factor[axis]
        row += n_textures
        for k in range(n_shapes):
            is_size = shape_is_size[k] == 1
            lorentz = size_lorentz * by_size if is_size else strain_lorentz * by_strain
            gauss = size_gauss * by_size_gauss if is_size else strain_gauss * by_strain_gauss
            rows[row, j] = shape_values[k, j] * lorentz * area
            rows[row + 1, j] = 2.0 * shape_values[k, j] * gauss * sloped
            row += 2
