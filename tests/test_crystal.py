"""Cell geometry, reflections, structure factors and texture angles against gemmi and against first principles."""

from __future__ import annotations

from dataclasses import replace

import gemmi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xrdz.charges import NEUTRAL
from xrdz.crystal import (
    cell_volume,
    charge_slope,
    free_cell_names,
    free_cell_values,
    full_cell,
    group_pairs,
    inverse_d_squared,
    march_dollase_geometry,
    pair_products,
    reflections,
    structure_factor_squared,
)
from xrdz.errors import InputError
from xrdz.reference import library_folder, reference
from xrdz.reflection import inverse_d_squared_and_jacobian
from xrdz.scattering import dispersion, form_factor

CU_K_ALPHA1 = 1.5405929
SHIPPED = sorted(path.stem for path in library_folder().glob("*.cif"))

CELLS = {
    "cubic": (5.43094,),
    "tetragonal": (5.8318, 3.1819),
    "hexagonal": (3.2494, 5.2038),
    "trigonal": (4.7592, 12.992),
    "orthorhombic": (11.512, 3.564, 4.368),
    "monoclinic": (12.214, 4.060, 5.219, 105.0),
    "triclinic": (5.1, 6.3, 7.7, 81.0, 96.0, 112.0),
}


def all_indices(limit: int) -> np.ndarray:
    steps = np.arange(-limit, limit + 1)
    hkl = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    return hkl[np.any(hkl != 0, axis=1)]


@pytest.mark.parametrize("system", CELLS)
def test_geometry_agrees_with_gemmi(system):
    cell = full_cell(system, CELLS[system])
    assert free_cell_values(system, cell) == CELLS[system]
    other = gemmi.UnitCell(*cell)
    assert cell_volume(cell) == pytest.approx(other.volume, rel=1e-12)
    hkl = all_indices(3)
    expected = [other.calculate_1_d2(indices.tolist()) for indices in hkl]
    np.testing.assert_allclose(inverse_d_squared(hkl, cell), expected, rtol=1e-10)


@pytest.mark.parametrize("system", CELLS)
def test_jacobian_agrees_with_central_differences(system):
    hkl = all_indices(3)
    free = np.array(CELLS[system])
    values, jacobian = inverse_d_squared_and_jacobian(hkl, system, free)
    np.testing.assert_allclose(values, inverse_d_squared(hkl, full_cell(system, free)), rtol=1e-12)
    assert jacobian.shape == (len(hkl), len(free_cell_names(system)))
    step = 1e-5
    for column in range(free.size):
        change = step * (np.arange(free.size) == column)
        difference = (
            inverse_d_squared(hkl, full_cell(system, free + change))
            - inverse_d_squared(hkl, full_cell(system, free - change))
        ) / (2 * step)
        # central differences of values near 1 carry rounding errors of 1e-16 / 1e-5
        np.testing.assert_allclose(jacobian[:, column], difference, atol=1e-9, rtol=1e-7)


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.tuples(*[st.floats(2.0, 20.0)] * 3),
    angles=st.tuples(*[st.floats(75.0, 105.0)] * 3),
    scale=st.floats(0.5, 2.0),
)
def test_scaling_a_cell_scales_spacings_and_volume(lengths, angles, scale):
    hkl = all_indices(2)
    scaled = tuple(scale * length for length in lengths)
    np.testing.assert_allclose(
        inverse_d_squared(hkl, (*scaled, *angles)) * scale**2, inverse_d_squared(hkl, (*lengths, *angles)), rtol=1e-9
    )
    assert cell_volume((*scaled, *angles)) == pytest.approx(scale**3 * cell_volume((*lengths, *angles)))


@pytest.mark.parametrize("system", CELLS)
def test_scaling_lengths_obeys_eulers_theorem(system):
    # 1/d^2 is homogeneous of degree -2 in the lengths
    hkl = all_indices(3)
    values, jacobian = inverse_d_squared_and_jacobian(hkl, system, CELLS[system])
    lengths = [position for position, name in enumerate(free_cell_names(system)) if name in "abc"]
    np.testing.assert_allclose(jacobian[:, lengths] @ np.array(CELLS[system])[lengths], -2 * values, rtol=1e-10)


def expanded(id: str) -> tuple[gemmi.SmallStructure, list[tuple[str, np.ndarray, float, float]]]:
    """Return gemmi's reading of a shipped CIF: (element, fractional position, occupancy, B) of every atom."""
    structure = gemmi.read_small_structure(str(library_folder() / f"{id}.cif"))
    atoms = [
        (site.element.name, np.array(site.fract.tolist()), site.occ, 8 * np.pi**2 * site.u_iso)
        for site in structure.get_all_unit_cell_sites()
    ]
    return structure, atoms


def direct_structure_factors(id: str, hkl: np.ndarray) -> np.ndarray:
    """Return F(hkl) summed atom by atom over gemmi's expansion of the CIF."""
    structure, atoms = expanded(id)
    s = np.array([0.5 * np.sqrt(structure.cell.calculate_1_d2([int(x) for x in h])) for h in hkl])
    total = np.zeros(len(hkl), dtype=complex)
    for element, position, occupancy, b_iso in atoms:
        charge, _, formal = reference(id).charges[reference(id).groups.index(element)]
        f = form_factor(element, s=s, charge=charge, formal=formal)
        f = f + dispersion(element, wavelength=CU_K_ALPHA1)
        total += occupancy * f * np.exp(-b_iso * s**2) * np.exp(2j * np.pi * hkl @ position)
    return total


@pytest.mark.parametrize("id", SHIPPED)
def test_every_reflection_is_counted_once(id):
    # first principles: the sum of |F|^2 over all indices of one spacing equals the sum of m |F|^2 over its families
    phase = reference(id)
    d_min = 1.1
    found = reflections(phase, d_min=d_min)
    limit = int(max(phase.cell[:3]) / d_min) + 1
    hkl = all_indices(limit)
    q = inverse_d_squared(hkl, phase.cell)
    hkl, q = hkl[q <= d_min**-2], q[q <= d_min**-2]
    expected = np.abs(direct_structure_factors(id, hkl)) ** 2
    ours = found.multiplicity * structure_factor_squared(phase, found, wavelength=CU_K_ALPHA1)
    edges = np.append(np.unique(np.round(q, 7)) - 5e-8, 1.0)
    brute, _ = np.histogram(q, edges, weights=expected)
    families, _ = np.histogram(4 * found.s**2, edges, weights=ours)
    # CIF coordinates have eight decimals and absences below 1e-4 of the atoms are dropped
    np.testing.assert_allclose(families, brute, rtol=1e-6, atol=1e-5 * brute.max())


@pytest.mark.parametrize("id", SHIPPED)
def test_structure_factors_agree_with_gemmi(id):
    # gemmi has no O2-, so the comparison is made with neutral atoms throughout
    phase = replace(reference(id), charges=tuple(NEUTRAL for _ in reference(id).groups))
    found = reflections(phase, d_min=0.85)
    structure, _ = expanded(id)
    structure.change_occupancies_to_crystallographic()
    calculator = gemmi.StructureFactorCalculatorX(structure.cell)

    def friedel_pair(imaginary: bool) -> np.ndarray:
        for group in phase.groups:
            f = dispersion(group, wavelength=CU_K_ALPHA1)
            calculator.addends.set(gemmi.Element(group), f.real + imaginary * f.imag)
        return np.array(
            [
                [calculator.calculate_sf_from_small_structure(structure, [sign * int(x) for x in h]) for h in found.hkl]
                for sign in (1, -1)
            ]
        )

    # gemmi's addends are real: F = F(f0 + f') + i (F(f0 + f' + f'') - F(f0 + f'))
    real = friedel_pair(False)
    total = real + 1j * (friedel_pair(True) - real)
    expected = np.mean(np.abs(total) ** 2, axis=0)
    ours = structure_factor_squared(phase, found, wavelength=CU_K_ALPHA1)
    # gemmi has four-Gaussian form factors, 0.5 % of Z off: weak reflections (differences) and hydrogen feel it most
    atoms = sum(phase.group_counts)
    np.testing.assert_allclose(np.sqrt(ours), np.sqrt(expected), rtol=0.015, atol=0.05 * np.sqrt(atoms))
    assert np.abs(ours - expected).sum() < 0.015 * expected.sum()


@pytest.mark.parametrize("id", SHIPPED)
def test_reflections_agree_with_gemmis_space_group(id):
    phase = reference(id)
    found = reflections(phase, d_min=0.9)
    structure, _ = expanded(id)
    group = structure.spacegroup
    operations = group.operations()
    assert group.number == phase.space_group_number
    assert group.crystal_system_str() == phase.crystal_system
    for hkl, multiplicity in zip(found.hkl.tolist(), found.multiplicity, strict=True):
        assert not operations.is_systematically_absent(hkl)
        images = {tuple(operation.apply_to_hkl(hkl)) for operation in operations}
        images |= {tuple(-index for index in image) for image in images}
        assert len(images) == multiplicity
    asymmetric_unit = gemmi.ReciprocalAsu(group)
    expected = {tuple(hkl) for hkl in gemmi.make_miller_array(structure.cell, group, 0.9).tolist()}
    ours = {tuple(asymmetric_unit.to_asu(hkl, operations)[0]) for hkl in found.hkl.tolist()}
    # what the space group allows but we drop must be absent by the positions of the atoms
    assert ours <= expected
    dropped = np.array(sorted(expected - ours)).reshape(-1, 3)
    strongest = structure_factor_squared(phase, found, wavelength=CU_K_ALPHA1).max()
    assert np.all(np.abs(direct_structure_factors(id, dropped)) ** 2 < 1e-6 * strongest)


@pytest.mark.parametrize("id", ["zincite", "quartz"])
def test_friedel_mates_are_averaged_in_crystals_without_a_centre(id):
    phase = reference(id)
    found = reflections(phase, d_min=0.8)
    plus, minus = (np.abs(direct_structure_factors(id, sign * found.hkl)) ** 2 for sign in (1, -1))
    if id == "zincite":
        assert np.max(np.abs(plus - minus) / plus) > 0.01  # else the test would prove nothing
    np.testing.assert_allclose(
        structure_factor_squared(phase, found, wavelength=CU_K_ALPHA1), (plus + minus) / 2, rtol=1e-6, atol=1e-3
    )


@pytest.mark.parametrize("id", ["ni3sn4", "sn", "zircon"])
def test_pair_products_make_the_structure_factor(id):
    phase = reference(id)
    found = reflections(phase, d_min=0.8)
    products = pair_products(phase, found, wavelength=CU_K_ALPHA1)
    pairs = group_pairs(len(phase.groups))
    assert products.shape == (found.n_reflections, len(pairs))
    b_values = np.linspace(0.3, 1.1, len(phase.groups))
    total = sum(products[:, column] * np.exp(-b_values[pair].sum() * found.s**2) for column, pair in enumerate(pairs))
    np.testing.assert_allclose(
        total, structure_factor_squared(phase, found, wavelength=CU_K_ALPHA1, displacement=b_values), rtol=1e-12
    )


@pytest.mark.parametrize("id", ["ni3sn4", "corundum", "sn", "lab6", "quartz"])
def test_equivalents_are_complete_sets(id):
    phase = reference(id)
    found = reflections(phase, d_min=0.9)
    assert found.offsets[0] == 0
    assert found.offsets[-1] == len(found.equivalents)
    for row, hkl in enumerate(found.hkl):
        members = {tuple(member) for member in found.equivalents[found.offsets[row] : found.offsets[row + 1]]}
        assert members == {tuple(hkl @ rotation) for rotation in phase.rotations}
        assert found.multiplicity[row] == len(members)
    assert np.all(np.diff(found.s) >= -1e-9)


def test_accidental_overlaps_stay_separate():
    found = reflections(reference("cu"), d_min=0.6)
    sets = {tuple(hkl): multiplicity for hkl, multiplicity in zip(found.hkl.tolist(), found.multiplicity, strict=True)}
    assert sets[(5, 1, 1)] == 24
    assert sets[(3, 3, 3)] == 8


def test_spacing_limits_select_and_results_are_cached():
    phase = reference("ni3sn4")
    everything = reflections(phase, d_min=0.9)
    some = reflections(phase, d_min=0.9, d_max=2.0)
    assert reflections(phase, d_min=0.9) is everything
    np.testing.assert_array_equal(some.hkl, everything.hkl[0.5 / everything.s <= 2.0])
    assert not everything.geometry.flags.writeable


def test_representatives_read_as_in_the_literature():
    monoclinic = {tuple(hkl) for hkl in reflections(reference("ni3sn4"), d_min=2.0).hkl.tolist()}
    assert {(1, 1, 1), (-4, 0, 1), (3, 1, 0), (-3, 1, 2)} <= monoclinic
    trigonal = {tuple(hkl) for hkl in reflections(reference("corundum"), d_min=1.5).hkl.tolist()}
    assert {(0, 1, 2), (1, 0, 4), (1, 1, 3), (0, 2, 4), (1, 1, 6)} <= trigonal


@pytest.mark.parametrize(
    ("id", "axis"), [("sn", (1, 0, 1)), ("ni3sn4", (0, 1, 0)), ("ni3sn4", (1, 1, 1)), ("corundum", (1, 0, 4))]
)
def test_texture_angles_agree_with_cartesian_vectors(id, axis):
    phase = reference(id)
    found = reflections(phase, d_min=1.0)
    angles = march_dollase_geometry(phase, found, axis)
    to_cartesian = np.array(gemmi.UnitCell(*phase.cell).frac.mat.tolist())  # rows a*, b*, c* as hkl @ frac
    direction = np.array(axis) @ to_cartesian
    for row in range(found.n_reflections):
        members = found.equivalents[found.offsets[row] : found.offsets[row + 1]] @ to_cartesian
        cosines = members @ direction / np.linalg.norm(members, axis=1) / np.linalg.norm(direction)
        own = slice(angles.offsets[row], angles.offsets[row + 1])
        assert angles.weights[own].sum() == pytest.approx(1.0, abs=1e-12)
        for r in (0.6, 1.0, 1.4):
            squares, weights = angles.cos_squared[own], angles.weights[own]
            ours = weights @ (r**2 * squares + (1 - squares) / r) ** -1.5
            assert ours == pytest.approx(np.mean((r**2 * cosines**2 + (1 - cosines**2) / r) ** -1.5), rel=1e-8)


def test_texture_of_a_cube_face_along_a_diagonal():
    phase = reference("cu")
    found = reflections(phase, d_min=1.7)
    angles = march_dollase_geometry(phase, found, (1, 1, 1))
    row = found.hkl.tolist().index([2, 0, 0])
    own = slice(angles.offsets[row], angles.offsets[row + 1])
    np.testing.assert_allclose(angles.cos_squared[own], [1 / 3], rtol=1e-12)
    np.testing.assert_allclose(angles.weights[own], [1.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: free_cell_names("rhombohedral"), "crystal system 'rhombohedral'"),
        (lambda: full_cell("cubic", (1.0, 2.0)), "1 free parameters"),
        (lambda: cell_volume((5.0, 5.0, 5.0, 130.0, 130.0, 130.0)), "no such cell"),
        (lambda: reflections(reference("sn"), d_min=0.0), "is not positive"),
        (lambda: reflections(reference("y2o3"), d_min=0.05), "too many reflections"),
        (lambda: march_dollase_geometry(reference("sn"), reflections(reference("sn"), d_min=2.0), (0, 0, 0)), "axis"),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_changed_copy_of_a_reference_has_its_own_reflections():
    phase = reference("sn")
    larger = replace(phase, cell=(6.0, 6.0, 3.3, 90.0, 90.0, 90.0))
    assert reflections(larger, d_min=2.0).s[0] != reflections(phase, d_min=2.0).s[0]


@pytest.mark.parametrize(("id", "group"), [("corundum", 0), ("zircon", 1), ("v2o5", 0), ("zincite", 0)])
def test_slope_by_a_charge_is_the_difference_quotient(id, group):
    phase = reference(id)
    found = reflections(phase, d_min=0.9)
    displacement = [0.4 + 0.2 * number for number in range(len(phase.groups))]

    def squared(change: float) -> np.ndarray:
        charges = [
            (charge + change * (number == group), su, formal)
            for number, (charge, su, formal) in enumerate(phase.charges)
        ]
        moved = replace(phase, charges=tuple(charges))
        return structure_factor_squared(moved, found, wavelength=CU_K_ALPHA1, displacement=displacement)

    slope = charge_slope(phase, found, group, wavelength=CU_K_ALPHA1, displacement=displacement)
    # |F|^2 is quadratic in the charge, so that a central difference is exact but for rounding.
    expected = (squared(0.1) - squared(-0.1)) / 0.2 / squared(0.0)
    np.testing.assert_allclose(slope, expected, rtol=1e-8, atol=1e-10)
