"""Geometry and diffraction of a crystal: cell, reflections, structure factors, angles to a texture axis.

    1/d^2 = h . G* . h,      G* = G^-1,      G_ij = a_i . a_j
    F(h)  = sum_k f_k(s, lambda) exp(-B_k s^2) G_k(h),      G_k(h) = sum_{atoms j of group k} o_j exp(2 pi i h . x_j)
    I(h) ~ m(h) <|F|^2>   with |F|^2 averaged over the Friedel mates h and -h, per conventional cell

A group k is one displacement group (one element). Everything discrete here (which reflections, in which order) follows
from the reference alone, so that a refinement can change cell and displacement without changing the list.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xrdz.errors import InputError
from xrdz.scattering import dispersion, form_factor, form_factor_slope

if TYPE_CHECKING:
    from xrdz.reference import Reference

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
ComplexArray = NDArray[np.complex128]

CELL_NAMES = ("a", "b", "c", "alpha", "beta", "gamma")

# Which free parameter (by position) each of a, b, c, alpha, beta, gamma equals, or the constant angle in degrees.
_CELL_RULES: MappingProxyType[str, tuple[tuple[str, ...], tuple[int | float, ...]]] = MappingProxyType(
    {
        "cubic": (("a",), (0, 0, 0, 90.0, 90.0, 90.0)),
        "tetragonal": (("a", "c"), (0, 0, 1, 90.0, 90.0, 90.0)),
        "hexagonal": (("a", "c"), (0, 0, 1, 90.0, 90.0, 120.0)),
        "trigonal": (("a", "c"), (0, 0, 1, 90.0, 90.0, 120.0)),
        "orthorhombic": (("a", "b", "c"), (0, 1, 2, 90.0, 90.0, 90.0)),
        "monoclinic": (("a", "b", "c", "beta"), (0, 1, 2, 90.0, 3, 90.0)),
        "triclinic": (CELL_NAMES, (0, 1, 2, 3, 4, 5)),
    }
)

_ABSENT = 1e-4
"""A reflection is absent when every |G_k| is below this fraction of the atoms in the cell."""


def _cell_rule(crystal_system: str) -> tuple[tuple[str, ...], tuple[int | float, ...]]:
    try:
        return _CELL_RULES[crystal_system]
    except KeyError:
        known = ", ".join(_CELL_RULES)
        raise InputError(f"crystal system {crystal_system!r} is not known; expected one of {known}") from None


def free_cell_names(crystal_system: str) -> tuple[str, ...]:
    """Return the names of the cell parameters that symmetry leaves free; trigonal means hexagonal axes."""
    return _cell_rule(crystal_system)[0]


def free_cell_values(crystal_system: str, cell: Sequence[float]) -> tuple[float, ...]:
    """Return the free parameters out of a, b, c (angstrom), alpha, beta, gamma (degrees)."""
    return tuple(float(cell[CELL_NAMES.index(name)]) for name in free_cell_names(crystal_system))


def full_cell(crystal_system: str, free_values: Sequence[float] | FloatArray) -> tuple[float, ...]:
    """Return a, b, c (angstrom), alpha, beta, gamma (degrees) from the free parameters of a crystal system."""
    names, rule = _cell_rule(crystal_system)
    if len(free_values) != len(names):
        raise InputError(f"a {crystal_system} cell has {len(names)} free parameters {names}, not {len(free_values)}")
    return tuple([float(free_values[entry]) if type(entry) is int else entry for entry in rule])


@lru_cache(maxsize=8)
def cell_from_free(crystal_system: str) -> FloatArray:
    """Return d(a, b, c, alpha, beta, gamma) / d(free parameters), shape (6, n_free)."""
    names, rule = _cell_rule(crystal_system)
    matrix = np.zeros((6, len(names)))
    for row, entry in enumerate(rule):
        if isinstance(entry, int):
            matrix[row, entry] = 1.0
    matrix.setflags(write=False)
    return matrix


def metric_tensor(cell: Sequence[float] | FloatArray) -> FloatArray:
    """Return the metric tensor G_ij = a_i . a_j of a cell (angstrom, degrees), shape (3, 3), angstrom^2."""
    a, b, c = (float(length) for length in cell[:3])
    cos_alpha, cos_beta, cos_gamma = np.cos(np.radians(np.asarray(cell[3:6], dtype=np.float64)))
    # cos(90 deg) is 6e-17 in floating point: a zero keeps orthogonal cells orthogonal
    cos_alpha, cos_beta, cos_gamma = (0.0 if abs(x) < 1e-15 else float(x) for x in (cos_alpha, cos_beta, cos_gamma))
    ab, ac, bc = a * b * cos_gamma, a * c * cos_beta, b * c * cos_alpha
    return np.array([[a * a, ab, ac], [ab, b * b, bc], [ac, bc, c * c]])


def cell_volume(cell: Sequence[float] | FloatArray) -> float:
    """Return the volume a b c sqrt(1 - x^2 - y^2 - z^2 + 2 x y z) of a cell (angstrom, degrees; x, y, z the cosines).

    Raises
    ------
    InputError
        If no such cell exists, as with three angles of 130 degrees.
    """
    a, b, c = (float(length) for length in cell[:3])
    x, y, z = (math.cos(math.radians(float(angle))) for angle in cell[3:6])
    determinant = 1.0 - x * x - y * y - z * z + 2.0 * x * y * z
    if not determinant > 0.0:
        raise InputError(f"cell {tuple(cell)}: no such cell exists; check lengths and angles")
    return a * b * c * math.sqrt(determinant)


def inverse_d_squared(hkl: NDArray[np.generic], cell: Sequence[float] | FloatArray) -> FloatArray:
    """Return 1/d^2 = h . G* . h of reflections `hkl`, shape (n, 3), in a cell (angstrom, degrees), 1/angstrom^2."""
    indices = np.asarray(hkl, dtype=np.float64)
    reciprocal = np.linalg.inv(metric_tensor(cell))
    values: FloatArray = ((indices @ reciprocal) * indices).sum(axis=1)
    return values


@dataclass(frozen=True, eq=False)
class Reflections:
    """The reflections of a reference between two spacings, by decreasing d; systematic absences are left out.

    Parameters
    ----------
    hkl : shape (n, 3), one of each set of Laue equivalents, the one a reader expects (few negative indices)
    multiplicity : shape (n,), size of each set
    geometry : shape (n, n_groups), G_k(h) per displacement group, without f and B
    equivalents : shape (total, 3), all members of all sets, end to end
    offsets : shape (n + 1,), set i owns `equivalents[offsets[i]:offsets[i + 1]]`
    s : shape (n,), 1/(2d) at the reference cell, 1/angstrom
    """

    hkl: IntArray
    multiplicity: FloatArray
    geometry: ComplexArray
    equivalents: IntArray
    offsets: IntArray
    s: FloatArray

    def __post_init__(self) -> None:
        for array in (self.hkl, self.multiplicity, self.geometry, self.equivalents, self.offsets, self.s):
            array.setflags(write=False)

    @property
    def n_reflections(self) -> int:
        """Number of reflections."""
        return int(self.s.size)


def _score(hkl: FloatArray) -> FloatArray:
    """Return a number that orders indices: few negatives, then negatives early, then small, then large h, k, l.

    Distinct indices below 1000 have distinct scores, so the largest of a set of equivalents names one member. Indices
    and scores are whole numbers below 2^53 in floating point, exact and faster to multiply than integers.
    """
    order = hkl @ np.array([4_000_000.0, 2_000.0, 1.0])
    penalty = (hkl < 0) @ np.array([27_000.0, 30_000.0, 36_000.0]) + np.abs(hkl).sum(axis=-1)
    score: FloatArray = order - 16_000_000_000.0 * penalty
    return score


def _representatives(hkl: FloatArray, rotations: FloatArray) -> FloatArray:
    """Return the members of `hkl` that no rotation turns into one of higher score; each step shrinks the list."""
    score = _score(hkl)
    for rotation in rotations:
        keep = _score(hkl @ rotation) <= score
        hkl, score = hkl[keep], score[keep]
    return hkl


def _equivalents(hkl: FloatArray, rotations: FloatArray) -> tuple[IntArray, IntArray]:
    """Return all distinct h @ R, best score first, end to end, and the offsets of each set."""
    images = np.moveaxis(hkl @ rotations, 0, 1)
    score = _score(images)
    order = np.argsort(-score, axis=1)
    images = np.take_along_axis(images, order[..., None], axis=1)
    score = np.take_along_axis(score, order, axis=1)
    distinct = np.ones(score.shape, dtype=bool)
    distinct[:, 1:] = score[:, 1:] != score[:, :-1]
    offsets = np.concatenate([[0], np.cumsum(distinct.sum(axis=1))])
    return np.rint(images[distinct]).astype(np.int64), offsets


@lru_cache(maxsize=256)
def reflections(reference: Reference, *, d_min: float, d_max: float = np.inf) -> Reflections:
    """Return the reflections of a reference with `d_min <= d <= d_max` at its reference cell.

    Families that share a spacing by accident (511 and 333) stay separate.

    Parameters
    ----------
    reference : the crystal structure
    d_min, d_max : angstrom

    Raises
    ------
    InputError
        If `d_min` is not positive or so small that more than a million indices would have to be tried.
    """
    cell = reference.cell
    if not (0.0 < d_min < np.inf):
        raise InputError(f"reflections of {reference.id}: d_min {d_min!r} angstrom is not positive")
    limits = [int(np.floor(length / d_min + 1e-9)) for length in cell[:3]]
    if np.prod([2.0 * limit + 1.0 for limit in limits]) > 4e6:
        raise InputError(
            f"reflections of {reference.id}: d_min {d_min!r} angstrom asks for too many reflections of cell {cell}; "
            "raise d_min or check the wavelength and the cell"
        )
    axes = [np.arange(-limit, limit + 1.0) for limit in limits]
    candidates = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    q_squared = inverse_d_squared(candidates, cell)
    keep = (q_squared <= d_min**-2 * (1 + 1e-12)) & (q_squared >= d_max**-2 * (1 - 1e-12)) & (q_squared > 0)
    rotations = reference.rotations.astype(np.float64)
    hkl = _representatives(candidates[keep], rotations)

    n_groups = len(reference.groups)
    weights = np.zeros((reference.atom_occupancy.size, n_groups))
    weights[np.arange(weights.shape[0]), reference.atom_group] = reference.atom_occupancy
    geometry = np.exp(2j * np.pi * (hkl @ reference.atom_position.T)) @ weights
    present = np.abs(geometry).max(axis=1) > _ABSENT * reference.atom_occupancy.sum()
    hkl, geometry = hkl[present], geometry[present]

    s = 0.5 * np.sqrt(inverse_d_squared(hkl, cell))
    order = np.lexsort((-_score(hkl), np.round(s, 9)))
    hkl, geometry, s = hkl[order], geometry[order], s[order]
    equivalents, offsets = _equivalents(hkl, rotations)
    return Reflections(
        hkl=np.rint(hkl).astype(np.int64),
        multiplicity=np.diff(offsets).astype(np.float64),
        geometry=geometry,
        equivalents=equivalents,
        offsets=offsets,
        s=s,
    )


@lru_cache(maxsize=32)
def group_pairs(n_groups: int) -> IntArray:
    """Return the pairs k <= l in the order of the columns of `pair_products`, shape (n_pairs, 2); read-only."""
    pairs = np.stack(np.triu_indices(n_groups), axis=1)
    pairs.setflags(write=False)
    return pairs


def pair_products(reference: Reference, reflections: Reflections, *, wavelength: float) -> FloatArray:
    """Return P_kl, of which <|F|^2> = sum_{k<=l} P_kl exp(-(B_k + B_l) s^2) is made.

    P_kk = |f_k|^2 |G_k|^2 and, for k < l, P_kl = 2 Re(f_k f_l*) Re(G_k G_l*), with f = f0 + f' + i f''. The product of
    two real parts is the mean over h and -h, where G becomes G*: exact for crystals without a centre as well.

    Parameters
    ----------
    reference : the crystal structure
    reflections : of that reference
    wavelength : angstrom

    Returns
    -------
    Shape (n, n_groups (n_groups + 1) / 2), electrons^2 per cell, columns in the order of `group_pairs`.
    """
    f = _form_factors(reference, reflections, wavelength)
    geometry = reflections.geometry
    k, l = group_pairs(len(reference.groups)).T  # noqa: E741 - the pair indices of the formula
    both = (f[:, k] * f[:, l].conj()).real * (geometry[:, k] * geometry[:, l].conj()).real
    products: FloatArray = both * np.where(k == l, 1.0, 2.0)
    return products


@lru_cache(maxsize=128)
def _form_factors(reference: Reference, reflections: Reflections, wavelength: float) -> ComplexArray:
    """Return f0 + f' + i f'' of each group, shape (n, n_groups); read-only."""
    factors: ComplexArray = np.stack(
        [
            form_factor(element, s=reflections.s, charge=charge, formal=formal)
            + dispersion(element, wavelength=wavelength)
            for element, (charge, _, formal) in zip(reference.groups, reference.charges, strict=True)
        ],
        axis=1,
    )
    factors.setflags(write=False)
    return factors


def charge_slope(
    reference: Reference,
    reflections: Reflections,
    group: int,
    *,
    wavelength: float,
    displacement: Sequence[float] | FloatArray,
) -> FloatArray:
    """Return d ln <|F|^2> / d (charge of a group's atoms) of each reflection, zero where it scatters nothing.

    d<|F|^2> / dq_k = 2 sum_l Re(f_k' f_l*) Re(G_k G_l*) exp(-(B_k + B_l) s^2) with f_k' = d f_k / d q_k, real.

    Parameters
    ----------
    group : index k; its formal charge is not zero
    wavelength : angstrom
    displacement : shape (n_groups,), B in angstrom^2

    Returns
    -------
    Shape (n,), per elementary charge.
    """
    slope = form_factor_slope(reference.groups[group], s=reflections.s, formal=reference.charges[group][2])
    own = reflections.geometry[:, group]
    return _ln_slope(reference, reflections, group, slope.astype(np.complex128), own, wavelength, displacement)


def excess_slope(
    reference: Reference,
    reflections: Reflections,
    *,
    wavelength: float,
    displacement: Sequence[float] | FloatArray,
) -> FloatArray:
    """Return d ln <|F|^2> / d (atoms in excess per formula unit), zero where nothing scatters or no site takes any.

    d<|F|^2> / dx = 2 sum_l Re(f_k f_l*) Re(g G_l*) exp(-(B_k + B_l) s^2), with k the group of the excess element and
    g = (Z / n) sum exp(2 pi i h.r) over the n positions of the site, Z the formula units in the cell.

    Parameters
    ----------
    wavelength : angstrom
    displacement : shape (n_groups,), B in angstrom^2

    Returns
    -------
    Shape (n,), per atom and formula unit.
    """
    site = reference.excess
    if site is None:
        return np.zeros(reflections.n_reflections)
    phases = reflections.hkl @ np.array(site.positions).T
    added = np.exp(2j * np.pi * phases).sum(axis=1) * (reference.formula_units / len(site.positions))
    factor = _form_factors(reference, reflections, wavelength)[:, site.group]
    return _ln_slope(reference, reflections, site.group, factor, added, wavelength, displacement)


def _ln_slope(
    reference: Reference,
    reflections: Reflections,
    group: int,
    factor: ComplexArray,
    geometry: ComplexArray,
    wavelength: float,
    displacement: Sequence[float] | FloatArray,
) -> FloatArray:
    """Return d ln <|F|^2> by an amplitude a g exp(-B_k s^2) more, zero where nothing scatters.

    d<|F|^2> = 2 sum_l Re(a f_l*) Re(g G_l*) exp(-(B_k + B_l) s^2), a being `factor` and g `geometry`, both (n,), and k
    the group whose B damps it.
    """
    f = _form_factors(reference, reflections, wavelength)
    values = np.asarray(displacement, dtype=np.float64)
    damping = np.exp(-np.square(reflections.s)[:, None] * (values + values[group]))
    overlap = (geometry[:, None] * reflections.geometry.conj()).real
    change = 2.0 * ((factor[:, None] * f.conj()).real * overlap * damping).sum(axis=1)
    total = structure_factor_squared(reference, reflections, wavelength=wavelength, displacement=values)
    relative: FloatArray = np.divide(change, total, out=np.zeros_like(change), where=total > 0.0)
    return relative


def structure_factor_squared(
    reference: Reference,
    reflections: Reflections,
    *,
    wavelength: float,
    displacement: Sequence[float] | FloatArray | None = None,
) -> FloatArray:
    """Return <|F|^2> per cell with displacement parameters B per group (the priors of the reference if None).

    Parameters
    ----------
    wavelength : angstrom
    displacement : shape (n_groups,), B in angstrom^2

    Returns
    -------
    Shape (n,), electrons^2; sum of `pair_products` times exp(-(B_k + B_l) s^2).
    """
    values = np.array([prior[0] for prior in reference.displacement] if displacement is None else displacement)
    pair_sums = values[group_pairs(values.size)].sum(axis=1)
    damping = np.exp(-np.square(reflections.s)[:, None] * pair_sums)
    squared: FloatArray = (pair_products(reference, reflections, wavelength=wavelength) * damping).sum(axis=1)
    return squared


@dataclass(frozen=True, eq=False)
class AxisAngles:
    """cos^2 of the angles between a texture axis and the equivalents of each reflection, equal ones merged.

    Parameters
    ----------
    cos_squared : shape (total,)
    weights : shape (total,), share of the equivalents; they sum to 1 for each reflection
    offsets : shape (n + 1,), reflection i owns entries `offsets[i]:offsets[i + 1]`
    """

    cos_squared: FloatArray
    weights: FloatArray
    offsets: IntArray

    def __post_init__(self) -> None:
        for array in (self.cos_squared, self.weights, self.offsets):
            array.setflags(write=False)


def march_dollase_geometry(
    reference: Reference, reflections: Reflections, axis: tuple[int, int, int] | Sequence[int]
) -> AxisAngles:
    """Return cos^2 of the angle between each equivalent plane normal and the texture axis.

    cos(alpha) = h . G* . t / sqrt((h . G* . h)(t . G* . t)) at the reference cell; the March-Dollase factor of a
    reflection is the weighted sum of (r^2 cos^2 + sin^2 / r)^(-3/2) (Dollase 1986, J. Appl. Cryst. 19, 267).

    Parameters
    ----------
    axis : hkl of the plane whose normal is the texture axis

    Raises
    ------
    InputError
        If the axis is not three integers or is 000.
    """
    direction = np.asarray(axis, dtype=np.float64)
    if direction.shape != (3,) or not direction.any():
        raise InputError(f"texture axis {axis!r} of {reference.id}: expected three integers hkl, not all zero")
    reciprocal = np.linalg.inv(metric_tensor(reference.cell))
    members = reflections.equivalents.astype(np.float64)
    dot = members @ (reciprocal @ direction)
    norms = inverse_d_squared(members, reference.cell) * (direction @ reciprocal @ direction)
    cos_squared = np.clip(np.square(dot) / norms, 0.0, 1.0)

    n_reflections = reflections.n_reflections
    owner = np.repeat(np.arange(n_reflections), np.diff(reflections.offsets))
    # one integer per (reflection, cos^2 to ten digits), so that equal angles of one reflection merge
    key = owner * 20_000_000_000 + np.round(cos_squared * 1e10).astype(np.int64)
    _, first, counts = np.unique(key, return_index=True, return_counts=True)
    owner = owner[first]
    return AxisAngles(
        cos_squared=cos_squared[first],
        weights=counts / reflections.multiplicity[owner],
        offsets=np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=n_reflections))]),
    )
