"""From the text of a CIF to a crystal structure: the only module that imports pymatgen.

pymatgen reads the CIF's grammar, its symmetry operations and, where the CIF does not say, finds its space group. The
expansion by symmetry is done here, so that every atom's position is exact and the Laue class is the one the CIF states.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdz.crystal import cell_volume, free_cell_values, full_cell, metric_tensor
from xrdz.errors import InputError
from xrdz.scattering import atomic_number

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CIF_DISPLACEMENT_SU = 0.3
"""Prior su of a B that a CIF states, angstrom^2: published B of one substance scatter by about this much."""

SAME_SITE = 0.02
"""Symmetry images of an atom closer than this are the same site, angstrom; rounded coordinates differ by less."""

TOO_CLOSE = 0.6
"""Fully occupied sites closer than this mean wrong symmetry, origin or units, angstrom (H-H in H2 is 0.74)."""

# Space groups whose symbol leaves the origin open (International Tables A, origin choices 1 and 2)
_TWO_ORIGINS = frozenset(
    (48, 50, 59, 68, 70, 85, 86, 88, 125, 126, 129, 130, 133, 134, 137, 138, 141, 142, 201, 203, 222, 224, 227, 228)
)

_OPERATION_TAGS = (
    "_space_group_symop_operation_xyz",
    "_space_group_symop.operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
)
_SYMBOL_TAGS = (
    "_space_group_name_h-m_alt",
    "_space_group.name_h-m_alt",
    "_symmetry_space_group_name_h-m",
    "_symmetry.space_group_name_h-m",
)
_NUMBER_TAGS = ("_space_group_it_number", "_space_group.it_number", "_symmetry_int_tables_number")


@dataclass(frozen=True, eq=False)
class CifCrystal:
    """What a CIF says, expanded by symmetry, on hexagonal axes if trigonal and with b unique if monoclinic.

    Parameters
    ----------
    name, formula, source : "" where the CIF does not say (`formula` is then made from the atoms)
    elements : symbols in the order of the CIF
    displacement : mean B and su in angstrom^2 of the elements for which the CIF states it
    atom_element, atom_position, atom_occupancy : shapes (n,), (n, 3), (n,), all atoms of the conventional cell
    rotations : shape (m, 3, 3), Laue class, acting on hkl as row vectors
    """

    name: str
    formula: str
    source: str
    space_group: str
    space_group_number: int
    crystal_system: str
    cell: tuple[float, ...]
    formula_units: int
    elements: tuple[str, ...]
    displacement: Mapping[str, tuple[float, float]]
    atom_element: IntArray
    atom_position: FloatArray
    atom_occupancy: FloatArray
    rotations: IntArray


@dataclass(frozen=True, eq=False)
class _Symmetry:
    """Operations x' = R x + t; shapes (m, 3, 3) and (m, 3)."""

    rotations: IntArray
    translations: FloatArray


@dataclass(frozen=True, eq=False)
class _Sites:
    """Atoms: element symbols, fractional positions (n, 3), occupancies (n,)."""

    symbols: list[str]
    positions: FloatArray
    occupancies: FloatArray


def generic_displacement(element: str) -> tuple[float, float]:
    """Return a wide prior of B and its su, angstrom^2, for an element of which nothing is known.

    Room-temperature B of inorganic crystals: 0.3 to 0.7 for most elements, near 0.9 for alkali metals and the heavier
    anions, 1 to 3 for hydrogen. Ranges of Peng, Ren, Dudarev & Whelan 1996, Acta Cryst. A52, 456 (elements) and of
    Butt, Bashir, Willis & Heger 1988, Acta Cryst. A44, 396 and 1993, A49, 579 (cubic elements and compounds).
    """
    if element == "H":
        return (2.0, 1.0)
    if element in {"Li", "Na", "K", "Rb", "Cs", "Cl", "Br", "I"}:
        return (1.2, 0.6)
    return (0.6, 0.4)


def read_cif(text: str, *, where: str) -> CifCrystal:
    """Return the crystal structure of the first data block that holds atoms.

    Parameters
    ----------
    text : the whole CIF
    where : its name in messages

    Raises
    ------
    InputError
        If the text is not a CIF, has no cell, no atoms or no symmetry, or these contradict each other.
    """
    block = _first_block_with_atoms(text, where)
    cell = _cell(block, where)
    symmetry, symbol, number = _symmetry(block, where)
    sites = _expanded(_listed_sites(block, where), symmetry, cell, where)
    displacement = _displacement(block)
    cell, sites, symmetry = _standard_axes(cell, sites, symmetry, where)
    _check_distances(sites, cell, where)

    rotations = _laue_class(symmetry.rotations)
    system = crystal_system_of(rotations)
    cell = full_cell(system, free_cell_values(system, cell))
    cell_volume(cell)
    if not number:
        symbol, number = _found_space_group(sites, cell, where)

    elements = tuple(dict.fromkeys(sites.symbols))
    index = {element: position for position, element in enumerate(elements)}
    atom_element = np.array([index[symbol] for symbol in sites.symbols], dtype=np.int64)
    counts: FloatArray = np.bincount(atom_element, weights=sites.occupancies, minlength=len(elements)).astype(float)
    _check_formula(block, elements, counts, where)
    formula_units = _formula_units(block, counts)
    return CifCrystal(
        name=_first_text(block, ("_chemical_name_common", "_chemical_name_mineral", "_chemical_name_systematic")),
        formula="".join(
            element + _count_text(count / formula_units) for element, count in zip(elements, counts, strict=True)
        ),
        source=_citation(block),
        space_group=symbol,
        space_group_number=number,
        crystal_system=system,
        cell=cell,
        formula_units=formula_units,
        elements=elements,
        displacement=displacement,
        atom_element=atom_element,
        atom_position=sites.positions,
        atom_occupancy=sites.occupancies,
        rotations=rotations,
    )


def crystal_system_of(rotations: IntArray) -> str:
    """Return the crystal system from the orders of the proper rotations of the Laue class, in any setting.

    The trace of a rotation of order 2, 3, 4, 6 is -1, 0, 1, 2 in every basis.
    """
    laue_class = _laue_class(rotations)
    traces = np.trace(laue_class, axis1=1, axis2=2)
    proper = traces[np.rint(np.linalg.det(laue_class)).astype(int) == 1]
    count = {order: int((proper == trace).sum()) for order, trace in ((2, -1), (3, 0), (4, 1), (6, 2))}
    if count[3] == 8:
        return "cubic"
    if count[6]:
        return "hexagonal"
    if count[3]:
        return "trigonal"
    if count[4]:
        return "tetragonal"
    return {0: "triclinic", 1: "monoclinic"}.get(count[2], "orthorhombic")


# --- reading ----------------------------------------------------------------------------------------------------------


def _first_block_with_atoms(text: str, where: str) -> dict[str, Any]:
    from pymatgen.io.cif import CifFile

    if "data_" not in text.lower():
        raise InputError(f"{where}: not a CIF (no data_ block found); expected a crystal structure in CIF format")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pymatgen warns of style; what matters is checked below
            blocks = [
                {str(tag).lower(): value for tag, value in block.data.items()}
                for block in CifFile.from_str(text).data.values()
            ]
    except (ValueError, IndexError, KeyError, AssertionError, TypeError) as error:
        raise InputError(f"{where}: the CIF cannot be parsed ({error}); check quotes and loops") from None
    for block in blocks:
        if _column(block, ("_atom_site_fract_x", "_atom_site.fract_x")):
            return block
    raise InputError(f"{where}: no atoms (_atom_site_fract_x) in any data block; expected a crystal structure")


def _column(block: Mapping[str, Any], tags: Sequence[str]) -> list[str]:
    """Return the values of the first tag that is there, as a list; tags are in lower case."""
    for tag in tags:
        if tag in block:
            value = block[tag]
            return [str(entry) for entry in value] if isinstance(value, list) else [str(value)]
    return []


def _first_text(block: Mapping[str, Any], tags: Sequence[str]) -> str:
    for tag in tags:
        for value in _column(block, (tag,)):
            text = " ".join(value.split()).strip("'\"")
            if text not in {"", "?", ".", "<missing>"}:
                return text
    return ""


def _number(text: str) -> float | None:
    """Return the value of `4.7592(3)`, or None where the CIF says unknown."""
    try:
        return float(text.split("(")[0])
    except ValueError:
        return None


def _cell(block: Mapping[str, Any], where: str) -> tuple[float, ...]:
    values = []
    for name in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma"):
        found = _number(_first_text(block, (f"_cell_{name}", f"_cell.{name}")))
        if found is None:
            raise InputError(f"{where}: _cell_{name} is missing or not a number; add it (angstrom, degrees)")
        values.append(found)
    if not (all(0.5 < x < 500 for x in values[:3]) and all(10 < x < 170 for x in values[3:])):
        raise InputError(f"{where}: cell {tuple(values)} is not in angstrom and degrees; correct it")
    cell_volume(values)
    return tuple(values)


def _symmetry(block: Mapping[str, Any], where: str) -> tuple[_Symmetry, str, int]:
    """Return the operations and what the CIF says of its space group ("" and 0 where it does not)."""
    from pymatgen.core.operations import SymmOp

    symbol = _first_text(block, _SYMBOL_TAGS)
    number = int(_number(_first_text(block, _NUMBER_TAGS)) or 0)
    listed = _column(block, _OPERATION_TAGS)
    if listed:
        try:
            operations = [SymmOp.from_xyz_str(text.strip("'\" ")) for text in listed]
        except (ValueError, IndexError, KeyError) as error:
            raise InputError(f"{where}: a symmetry operation cannot be read ({error}); write them as x,y,z") from None
    else:
        operations, number = _operations_of_symbol(symbol, number, where)
    rotations = np.rint([operation.rotation_matrix for operation in operations]).astype(np.int64)
    for text, rotation in zip(listed, rotations, strict=False):
        if abs(round(float(np.linalg.det(rotation)))) != 1:
            raise InputError(f"{where}: symmetry operation {text!r} is not a rotation; write it as x,y,z")
    stated = np.array([operation.translation_vector for operation in operations], dtype=np.float64)
    translations = np.round(stated * 24) / 24  # every translation of a space group is a multiple of 1/24
    if np.abs(translations - stated).max() > 5e-3:
        raise InputError(f"{where}: a symmetry operation has a translation that is no simple fraction; correct it")
    symmetry = _unique_operations(_Symmetry(rotations, translations % 1.0))
    _check_group(symmetry, where)
    return symmetry, symbol, number


def _operations_of_symbol(symbol: str, number: int, where: str) -> tuple[list[Any], int]:
    """Return pymatgen's operations and number of a space group named by symbol or number only.

    Raises
    ------
    InputError
        If the name is unknown or leaves the origin open.
    """
    from pymatgen.symmetry.groups import SpaceGroup

    if not symbol and not number:
        raise InputError(f"{where}: neither symmetry operations nor a space group are given; list the operations")
    name = re.sub(r"\s+", "", symbol).split(":")[0]
    try:
        group = SpaceGroup(name) if name else SpaceGroup.from_int_number(number)
    except (ValueError, KeyError):
        raise InputError(f"{where}: space group {symbol!r} is not known; list the symmetry operations") from None
    if group.int_number in _TWO_ORIGINS:
        raise InputError(
            f"{where}: space group {symbol or number!r} has two origins and no symmetry operations are listed; "
            "list the operations so that the origin is certain"
        )
    return list(group.symmetry_ops), int(group.int_number)


def _operation_keys(rotations: IntArray, translations: FloatArray) -> IntArray:
    """Return one integer per operation: digits of the rotation (-3 to 3) and of the translation in 24ths."""
    digits = np.concatenate([rotations.reshape(-1, 9) + 3, np.rint(translations * 24).astype(np.int64) % 24], axis=1)
    keys: IntArray = digits @ np.concatenate([7 ** np.arange(9), 7**9 * 24 ** np.arange(3)])
    return keys


def _unique_operations(symmetry: _Symmetry) -> _Symmetry:
    _, first = np.unique(_operation_keys(symmetry.rotations, symmetry.translations), return_index=True)
    first = np.sort(first)
    return _Symmetry(symmetry.rotations[first], symmetry.translations[first])


def _check_group(symmetry: _Symmetry, where: str) -> None:
    """Raise unless the product of any two operations is an operation: an incomplete list gives wrong intensities."""
    rotations, translations = symmetry.rotations, symmetry.translations
    products = (rotations[:, None] @ rotations[None, :]).reshape(-1, 3, 3)
    shifts = (np.einsum("aij,bj->abi", rotations, translations) + translations[:, None, :]).reshape(-1, 3)
    if not np.isin(_operation_keys(products, shifts), _operation_keys(rotations, translations)).all():
        raise InputError(
            f"{where}: the {rotations.shape[0]} symmetry operations do not form a group; some are missing or misprinted"
        )


def _element(type_symbol: str, label: str, where: str) -> str:
    """Return the element of an atom from its type symbol, or from its label; deuterium counts as hydrogen."""
    for text in (type_symbol, label):
        if text.startswith("Wat"):  # a water molecule in mineralogical CIFs; its hydrogen is not located
            return "O"
        match = re.match(r"([A-Z][a-z]?)", text)
        for symbol in (match.group(1), match.group(1)[0]) if match else ():
            if symbol == "D":
                return "H"
            try:
                atomic_number(symbol)
            except InputError:
                continue
            return symbol
    raise InputError(f"{where}: atom {label!r}: no element is known by that name; give _atom_site_type_symbol")


def _listed_sites(block: Mapping[str, Any], where: str) -> _Sites:
    axes = [_column(block, (f"_atom_site_fract_{axis}", f"_atom_site.fract_{axis}")) for axis in "xyz"]
    n_atoms = len(axes[0])
    labels = _column(block, ("_atom_site_label", "_atom_site.label")) or [""] * n_atoms
    types = _column(block, ("_atom_site_type_symbol", "_atom_site.type_symbol")) or [""] * n_atoms
    occupancies = _column(block, ("_atom_site_occupancy", "_atom_site.occupancy")) or ["1"] * n_atoms
    symbols, positions, kept = [], [], []
    for row, (x, y, z) in enumerate(zip(*axes, strict=True)):
        position = [_number(x), _number(y), _number(z)]
        if any(value is None for value in position):
            raise InputError(f"{where}: atom {labels[row]!r} has no position; complete the CIF")
        occupancy = _number(occupancies[row])
        occupancy = 1.0 if occupancy is None else occupancy
        if not 0.0 <= occupancy <= 1.02:
            raise InputError(f"{where}: atom {labels[row]!r} has occupancy {occupancy}; expected 0 to 1")
        if occupancy > 0.0:
            symbols.append(_element(types[row], labels[row], where))
            positions.append(position)
            kept.append(occupancy)
    if not symbols:
        raise InputError(f"{where}: every atom has occupancy 0; expected a crystal structure")
    fractional = np.array(positions, dtype=np.float64)
    # 0.3333 means a third: a rounded special position would be doubled by symmetry
    sixths = np.round(fractional * 6) / 6
    fractional = np.where(np.abs(fractional - sixths) < 1e-4, sixths, fractional)
    return _Sites(symbols, fractional, np.array(kept))


# --- symmetry ---------------------------------------------------------------------------------------------------------


def _distances(differences: FloatArray, metric: FloatArray) -> FloatArray:
    """Return the lengths of fractional differences, each reduced to the nearest lattice translation, angstrom."""
    reduced = differences - np.round(differences)
    lengths: FloatArray = np.sqrt(np.maximum(np.einsum("...i,ij,...j->...", reduced, metric, reduced), 0.0))
    return lengths


def _expanded(sites: _Sites, symmetry: _Symmetry, cell: Sequence[float], where: str) -> _Sites:
    """Return all atoms of the cell: each listed atom's distinct images."""
    metric = metric_tensor(cell)
    distorted = np.abs(np.einsum("mji,jk,mkl->mil", symmetry.rotations, metric, symmetry.rotations) - metric)
    if distorted.max() > 4e-3 * np.trace(metric) / 3:
        raise InputError(
            f"{where}: cell {tuple(cell)} does not have the symmetry of its operations; correct one of them"
        )
    symbols: list[str] = []
    positions, occupancies = [], []
    for symbol, position, occupancy in zip(sites.symbols, sites.positions, sites.occupancies, strict=True):
        images = symmetry.rotations @ position + symmetry.translations
        near = _distances(images[:, None, :] - images[None, :, :], metric) < SAME_SITE
        first = np.argmax(near, axis=1)  # the first image each one coincides with
        distinct = np.flatnonzero(first == np.arange(first.size))
        if images.shape[0] % distinct.size or np.any(near.sum(axis=1) != images.shape[0] // distinct.size):
            raise InputError(
                f"{where}: atom {symbol} at {tuple(np.round(position, 5))} lies too near a symmetry element; "
                "give the special position exactly or with five decimals"
            )
        # the mean of coinciding images lies exactly on the symmetry element
        for row in distinct:
            offsets = images[near[row]] - images[row]
            mean = images[row] + (offsets - np.round(offsets)).mean(axis=0)
            positions.append(np.round(mean, 8) % 1.0)
            symbols.append(symbol)
            occupancies.append(occupancy)
    return _Sites(symbols, np.array(positions), np.array(occupancies))


def _change_of_basis(
    cell: Sequence[float], sites: _Sites, symmetry: _Symmetry, matrix: IntArray
) -> tuple[tuple[float, ...], _Sites, _Symmetry]:
    """Return a structure on the axes a'_j = sum_i a_i P_ij; the cell may grow by lattice translations (det P > 1)."""
    inverse = np.linalg.inv(matrix)
    metric = matrix.T @ metric_tensor(cell) @ matrix
    lengths = np.sqrt(np.diag(metric))
    angles = [np.degrees(np.arccos(metric[i, j] / (lengths[i] * lengths[j]))) for i, j in ((1, 2), (0, 2), (0, 1))]
    new_cell = tuple(float(x) for x in (*lengths, *angles))
    steps = np.arange(-3, 4)
    lattice = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3) @ inverse.T
    shifts = np.unique(np.round(lattice % 1.0, 6) % 1.0, axis=0)  # lattice points inside the new cell
    positions = (sites.positions @ inverse.T)[:, None, :] + shifts[None, :, :]
    times = shifts.shape[0]
    rotations = np.rint(inverse @ symmetry.rotations @ matrix).astype(np.int64)
    return (
        new_cell,
        _Sites(
            [symbol for symbol in sites.symbols for _ in range(times)],
            np.round(positions.reshape(-1, 3), 8) % 1.0,
            np.repeat(sites.occupancies, times),
        ),
        _Symmetry(rotations, symmetry.translations @ inverse.T % 1.0),
    )


def _standard_axes(
    cell: Sequence[float], sites: _Sites, symmetry: _Symmetry, where: str
) -> tuple[tuple[float, ...], _Sites, _Symmetry]:
    """Return the structure on hexagonal axes if it is trigonal on rhombohedral ones, with b unique if monoclinic."""
    system = crystal_system_of(symmetry.rotations)
    cyclic = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=np.int64)  # a, b, c -> b, c, a
    candidates: list[IntArray] = [np.eye(3, dtype=np.int64)]
    if system == "trigonal":
        candidates.append(np.array([[1, 0, 1], [-1, 1, 1], [0, -1, 1]], dtype=np.int64))  # obverse hexagonal axes
    if system in {"monoclinic", "tetragonal", "hexagonal"}:
        candidates += [cyclic, cyclic @ cyclic]
    for matrix in candidates:
        moved = _change_of_basis(cell, sites, symmetry, matrix) if matrix is not candidates[0] else None
        new_cell, new_sites, new_symmetry = moved or (tuple(cell), sites, symmetry)
        fitted = full_cell(system, free_cell_values(system, new_cell))
        lengths_agree = np.allclose(fitted[:3], new_cell[:3], rtol=2e-3)
        if lengths_agree and np.allclose(fitted[3:], new_cell[3:], atol=0.1) and _axis_fits(system, new_symmetry):
            return new_cell, new_sites, new_symmetry
    raise InputError(f"{where}: cell {tuple(cell)} is not a conventional {system} cell; transform the CIF to one")


def _axis_fits(system: str, symmetry: _Symmetry) -> bool:
    """Return whether the unique axis is b (monoclinic) or c (tetragonal, trigonal, hexagonal)."""
    if system not in {"monoclinic", "tetragonal", "trigonal", "hexagonal"}:
        return True
    axis = np.eye(3, dtype=np.int64)[1 if system == "monoclinic" else 2]
    images = symmetry.rotations @ axis
    return bool(np.all(np.all(images == axis, axis=1) | np.all(images == -axis, axis=1)))


def _laue_class(rotations: IntArray) -> IntArray:
    """Return the distinct rotations and their products with the inversion, shape (m, 3, 3)."""
    return np.unique(np.concatenate([rotations, -rotations]), axis=0)


# --- checks and descriptions ------------------------------------------------------------------------------------------


def _check_distances(sites: _Sites, cell: Sequence[float], where: str) -> None:
    """Raise if fully occupied sites overlap, the mark of a wrong origin or of coordinates in the wrong unit."""
    metric = metric_tensor(cell)
    heavy = np.flatnonzero([symbol != "H" for symbol in sites.symbols])
    for place, atom in enumerate(heavy):
        others = heavy[place + 1 :]
        near = _distances(sites.positions[others] - sites.positions[atom], metric) < TOO_CLOSE
        together = sites.occupancies[atom] + sites.occupancies[others[near]].max(initial=0.0)
        if near.any() and together > 1.02:
            other = others[near][0]
            raise InputError(
                f"{where}: {sites.symbols[atom]} at {tuple(np.round(sites.positions[atom], 4))} and "
                f"{sites.symbols[other]} at {tuple(np.round(sites.positions[other], 4))} overlap; check the symmetry "
                "operations, the origin and the coordinates"
            )


def _formula_counts(text: str) -> dict[str, float]:
    counts: dict[str, float] = {}
    for symbol, amount in re.findall(r"([A-Z][a-z]?)\s*([0-9.]*)", text):
        element = "H" if symbol == "D" else symbol
        counts[element] = counts.get(element, 0.0) + (float(amount) if amount not in {"", "."} else 1.0)
    return counts


def _check_formula(block: Mapping[str, Any], elements: Sequence[str], counts: FloatArray, where: str) -> None:
    """Raise if the atoms contradict the CIF's own formula; hydrogen, often not located, is left out."""
    stated = _formula_counts(_first_text(block, ("_chemical_formula_sum",)))
    found = {element: float(count) for element, count in zip(elements, counts, strict=True) if element != "H"}
    stated = {element: count for element, count in stated.items() if element != "H"}
    if not stated or not found or set(stated) != set(found):
        return
    ratio = {element: found[element] / stated[element] for element in found if stated[element] > 0}
    if ratio and max(ratio.values()) > 1.2 * min(ratio.values()):
        made = "".join(f"{element}{count:g}" for element, count in found.items())
        raise InputError(
            f"{where}: symmetry makes {made} of the atoms, but _chemical_formula_sum says "
            f"{_first_text(block, ('_chemical_formula_sum',))!r}; check the origin and the operations"
        )


def _formula_units(block: Mapping[str, Any], counts: FloatArray) -> int:
    """Return what the CIF states, or the greatest common divisor of the atom counts."""
    stated = _number(_first_text(block, ("_cell_formula_units_z", "_cell.formula_units_z")))
    if stated is not None and stated >= 1 and stated == int(stated):
        return int(stated)
    whole = np.rint(counts).astype(int)
    if np.allclose(whole, counts, atol=0.02) and np.all(whole > 0):
        return int(reduce(gcd, (int(count) for count in whole)))
    return 1


def _count_text(count: float) -> str:
    return "" if abs(count - 1.0) < 5e-4 else f"{count:.3f}".rstrip("0").rstrip(".")


def _displacement(block: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Return the mean B per element, angstrom^2, from B or U (B = 8 pi^2 U), isotropic or anisotropic."""
    eight_pi_squared = 8.0 * np.pi**2
    labels = _column(block, ("_atom_site_label", "_atom_site.label"))
    types = _column(block, ("_atom_site_type_symbol", "_atom_site.type_symbol")) or [""] * len(labels)
    symbols = {label: _element(kind, label, "") for label, kind in zip(labels, types, strict=True)}
    found: dict[str, list[float]] = {}
    for tag, factor in (
        ("_atom_site_b_iso_or_equiv", 1.0),
        ("_atom_site_u_iso_or_equiv", eight_pi_squared),
        ("_atom_site_aniso_u", eight_pi_squared),
        ("_atom_site_aniso_b", 1.0),
    ):
        if "aniso" in tag:
            names = _column(block, ("_atom_site_aniso_label",))
            diagonal = [_column(block, (f"{tag}_{axis}{axis}",)) for axis in "123"]
            rows = [
                (name, [_number(x) for x in row])
                for name, row in zip(names, zip(*diagonal, strict=False), strict=False)
            ]
        else:
            rows = [(label, [_number(x)]) for label, x in zip(labels, _column(block, (tag,)), strict=False)]
        if found:
            break
        for label, values in rows:
            known = [value for value in values if value is not None]
            # the mean of the diagonal is the equivalent isotropic value up to the cell's obliquity: good for a prior
            if label in symbols and len(known) == len(values) and 0.05 <= factor * np.mean(known) <= 5.0:
                found.setdefault(symbols[label], []).append(float(factor * np.mean(known)))
    return {element: (round(float(np.mean(values)), 4), CIF_DISPLACEMENT_SU) for element, values in found.items()}


def _found_space_group(sites: _Sites, cell: Sequence[float], where: str) -> tuple[str, int]:
    """Return the space group that pymatgen (spglib) finds for the expanded atoms."""
    from pymatgen.core import Lattice, Structure
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    species = [
        {symbol: min(1.0, occupancy)} for symbol, occupancy in zip(sites.symbols, sites.occupancies, strict=True)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numerical tolerance notes; failure is handled below
        structure = Structure(Lattice.from_parameters(*cell), species, sites.positions)
        try:
            analyzer = SpacegroupAnalyzer(structure, symprec=1e-2)
            return str(analyzer.get_space_group_symbol()), int(analyzer.get_space_group_number())
        except (ValueError, TypeError, AttributeError):
            raise InputError(f"{where}: no space group fits the atoms; give _space_group_IT_number") from None


def _citation(block: Mapping[str, Any]) -> str:
    """Return "authors year, journal volume, page" as far as the CIF says it."""
    authors = _column(block, ("_publ_author_name", "_citation_author_name", "_publ_author_names"))
    names = [" ".join(part.split()).strip("'\"") for author in authors for part in author.split(";")]
    surnames = [re.split(r",|\s(?=[A-Z]\b)", name)[0] for name in names if name not in {"", "?", "."}]
    year = _first_text(block, ("_journal_year", "_citation_year"))
    journal = _first_text(block, ("_journal_name_full", "_citation_journal_abbrev", "_citation_journal_full"))
    volume = _first_text(block, ("_journal_volume", "_citation_journal_volume"))
    page = _first_text(block, ("_journal_page_first", "_citation_page_first"))
    parts = (_joined(_author_list(surnames), year), _joined(journal, volume), page)
    return ", ".join(part for part in parts if part)


def _joined(*words: str) -> str:
    return " ".join(word for word in words if word)


def _author_list(surnames: Sequence[str]) -> str:
    if len(surnames) > 3:
        return f"{surnames[0]} et al."
    *others, last = surnames or [""]
    return f"{', '.join(others)} & {last}" if others else last
