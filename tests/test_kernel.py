"""The compiled pattern against first principles, against a plain reference and against central differences."""

from __future__ import annotations

import copy
import importlib.util
import math
import pickle
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import voigt_profile

from xrdz import descent, kernel
from xrdz.conditions import conditions_of
from xrdz.diffractogram import Diffractogram
from xrdz.instrument import Instrument
from xrdz.pattern import (
    GLOBAL_NAMES,
    InstrumentModel,
    PatternModel,
    compile_pattern,
    lorentz_polarization,
)
from xrdz.reference import Reference, reference, reference_from_cif
from xrdz.reflection import march_dollase_factor
from xrdz.wavelength import Wavelength, wavelength_from_name

FloatArray = NDArray[np.float64]
ROOT = Path(__file__).resolve().parent.parent
DEGREE = 180.0 / math.pi

SAME_NODES = 3e-4
"""Of the pattern's peak. The tail of a comb enters as that of one profile of the comb's variance, and the coarse grid
interpolates it: 1e-6 for sharp lines, a few 1e-5 mostly, 2.2e-4 at worst, 1.3 degrees off a width of half a degree."""

SAME_NODES_SLOPE = 5e-3
SATELLITE_SLOPE = 0.03
"""Of a derivative's largest value. The worst are kappa, which lives from the difference of neighbouring nodes (5e-4),
and polarization, which the engine takes at the principal line for all lines (3e-3); most are below 1e-4. The satellite
moves a share of the peak 0.5 degrees along, which the tail does not follow: 2 %, of a parameter held within 0.5 %."""

DENSE_NODES = 2e-3
"""Of the pattern's peak. The frozen nodes keep the first moments of axial divergence and of merged lines, not every
shoulder; the error has no area, which `test_the_area_does_not_depend_on_the_nodes` holds to 2e-4."""

TRICLINIC_CIF = """data_triclinic
_cell_length_a 5.1
_cell_length_b 6.3
_cell_length_c 7.2
_cell_angle_alpha 84.0
_cell_angle_beta 97.0
_cell_angle_gamma 101.5
_symmetry_space_group_name_H-M 'P -1'
loop_
_symmetry_equiv_pos_as_xyz
 'x,y,z'
 '-x,-y,-z'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Cu1 Cu 0.10 0.20 0.30 1.0
O1 O 0.45 0.12 0.62 1.0
S1 S 0.73 0.58 0.88 1.0
"""


def _reference_kernel() -> ModuleType:
    if "reference_kernel" not in sys.modules:
        path = ROOT / "benchmarks" / "reference_kernel.py"
        specification = importlib.util.spec_from_file_location("reference_kernel", path)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules["reference_kernel"] = module
        specification.loader.exec_module(module)
    return sys.modules["reference_kernel"]


@lru_cache
def instrument_model(wavelength: str = "CuKa", *, soller_deg: float = 4.0) -> InstrumentModel:
    lines = {"synchrotron": Wavelength(((0.41326, 1.0),)), "line": Wavelength(((1.2, 1.0),))}.get(wavelength)
    blank = Diffractogram(np.array([20.0, 30.0]), np.array([1.0, 1.0]))
    instrument = Instrument(
        goniometer_radius_mm=200.0,
        wavelength=lines or wavelength_from_name(wavelength),
        soller_deg=soller_deg,
        monochromator_two_theta_deg=26.6 if wavelength == "CuKa" else None,
    )
    return conditions_of(blank, instrument).instrument


def compiled(
    item: Reference,
    two_theta: FloatArray,
    wavelength: str = "CuKa",
    *,
    at: dict[str, float] | None = None,
    frozen_at_start: bool = False,
) -> tuple[PatternModel, FloatArray]:
    """Return the model of one phase and nonlinear values: the starts, with `at` set by the last part of the name."""
    blank = Diffractogram(two_theta, np.ones(two_theta.shape))
    arguments = {"instrument": instrument_model(wavelength), "references": (item,), "n_chebyshev": 3}
    pattern = compile_pattern(blank, **arguments)  # type: ignore[arg-type]
    values = pattern.parameters.start.copy()
    for name, value in (at or {}).items():
        for place, full in enumerate(pattern.parameters.names):
            if name in (full, full.rpartition(".")[2]):
                values[place] = value
    values.setflags(write=False)
    if not frozen_at_start:
        pattern = compile_pattern(blank, at=values, **arguments)  # type: ignore[arg-type]
    return pattern, values


@pytest.fixture(scope="module")
def triclinic(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    path = tmp_path_factory.mktemp("cif") / "triclinic.cif"
    path.write_text(TRICLINIC_CIF)
    return reference_from_cif(path)


GENERAL = {
    "zero": 0.03,
    "displacement": -0.12,
    "u": 0.004,
    "v": -0.001,
    "w": 0.004,
    "kappa": 0.0021,
    "roughness": 0.01,
    "polarization": 0.85,
    "satellite": 0.009,
    "overspill": 0.25,
    "defocus": 0.0004,
    "transparency": 0.03,
    "size_lorentz": 0.07,
    "strain_lorentz": 0.03,
    "size_gauss": 0.003,
    "strain_gauss": 0.006,
    "ln_texture": -0.2,
}
"""Nothing at zero and nothing at its start, so that every derivative has something to say."""

SYSTEMS = [
    ("ni", "cubic", "CuKa", (42.0, 54.0)),
    ("fluorite", "cubic", "MoKa", (11.0, 18.0)),
    ("sn", "tetragonal", "CuKa", (28.0, 34.0)),
    ("sn", "tetragonal", "CoKa", (50.0, 55.0)),
    ("zincite", "hexagonal", "CuKa", (60.0, 70.0)),
    ("corundum", "trigonal", "CoKa", (28.0, 32.0)),
    ("corundum", "trigonal", "synchrotron", (6.0, 11.0)),
    ("v2o5", "orthorhombic", "CuKa", (29.0, 35.0)),
    ("ni3sn4", "monoclinic", "CuKa", (29.0, 34.0)),
    ("ni3sn4", "monoclinic", "MoKa", (13.0, 16.0)),
]


@pytest.mark.parametrize(("name", "system", "wavelength", "limits"), SYSTEMS)
def test_columns_agree_with_the_plain_reference(
    name: str, system: str, wavelength: str, limits: tuple[float, float]
) -> None:
    item = reference(name)
    assert item.crystal_system == system
    two_theta = np.arange(*limits, 0.02)
    _compare_with_reference(item, two_theta, wavelength)


def test_a_triclinic_phase_agrees_with_the_plain_reference(triclinic: Reference) -> None:
    assert triclinic.crystal_system == "triclinic"
    _compare_with_reference(triclinic, np.arange(24.0, 30.0, 0.02), "CuKa")


def _compare_with_reference(item: Reference, two_theta: FloatArray, wavelength: str) -> None:
    pattern, values = compiled(item, two_theta, wavelength, at=GENERAL)
    errors = errors_against_reference(pattern, values)
    assert errors.pop("pattern") < SAME_NODES
    assert errors.pop("satellite") < SATELLITE_SLOPE
    assert {name: error for name, error in errors.items() if error > SAME_NODES_SLOPE} == {}


def errors_against_reference(pattern: PatternModel, values: FloatArray) -> dict[str, float]:
    """Return the error of the pattern and of each derivative relative to its largest value; of one phase."""
    block = pattern.phase_columns(values)
    ours = np.concatenate((block[0].pattern[None], pattern.jacobian(block, np.ones(1))[pattern.n_linear :]))
    theirs = _reference_kernel().phase_columns(pattern, pattern.phases[0], values)
    assert ours.shape == theirs.shape
    largest = np.max(np.abs(theirs), axis=1)
    # The satellite has no column where the emission has none.
    errors = np.max(np.abs(ours - theirs), axis=1) / np.where(largest > 1e-12 * largest[0], largest, 1.0)
    return dict(zip(("pattern", *pattern.parameters.names), errors.tolist(), strict=True))


@pytest.mark.parametrize("limits", [(28.0, 34.0), (62.0, 66.0), (88.0, 92.0)])
def test_frozen_nodes_stand_for_all_lines_and_axial_angles(limits: tuple[float, float]) -> None:
    pattern, values = compiled(reference("sn"), np.arange(*limits, 0.02), at=GENERAL)
    ours = pattern.phase_columns(values, derivatives=False)[0].pattern
    theirs = _reference_kernel().phase_columns(pattern, pattern.phases[0], values, dense=True)[0]
    assert np.max(np.abs(ours - theirs)) < DENSE_NODES * theirs.max()


def test_the_area_does_not_depend_on_the_nodes() -> None:
    # 28 to 34 degrees hold two strong reflections of tin between valleys.
    pattern, values = compiled(reference("sn"), np.arange(28.0, 34.0, 0.02), at=GENERAL)
    ours = pattern.phase_columns(values, derivatives=False)[0].pattern
    theirs = _reference_kernel().phase_columns(pattern, pattern.phases[0], values, dense=True)[0]
    assert ours.sum() == pytest.approx(theirs.sum(), rel=2e-4)


@pytest.mark.parametrize(
    ("name", "wavelength", "limits", "frozen_at_start"),
    [
        ("fluorite", "CuKa", (27.0, 60.0), False),
        ("sn", "CuKa", (28.0, 70.0), True),
        ("zincite", "MoKa", (13.0, 30.0), False),
        ("corundum", "synchrotron", (6.0, 16.0), False),
        ("v2o5", "CoKa", (20.0, 60.0), False),
        ("ni3sn4", "CuKa", (28.0, 70.0), True),
    ],
)
def test_every_derivative_agrees_with_central_differences(
    name: str, wavelength: str, limits: tuple[float, float], frozen_at_start: bool
) -> None:
    _compare_with_differences(*compiled(reference(name), np.arange(*limits, 0.02), wavelength, at=GENERAL))
    if frozen_at_start:
        # Derivatives are exact between two compilations, wherever the last one was made.
        two_theta = np.arange(*limits, 0.02)
        _compare_with_differences(*compiled(reference(name), two_theta, wavelength, at=GENERAL, frozen_at_start=True))


def test_every_derivative_of_a_triclinic_phase_agrees_with_central_differences(triclinic: Reference) -> None:
    _compare_with_differences(*compiled(triclinic, np.arange(20.0, 50.0, 0.02), at=GENERAL))


def _compare_with_differences(pattern: PatternModel, values: FloatArray) -> None:
    block = pattern.phase_columns(values)[0]
    jacobian = pattern.jacobian([block], np.array([3.0]))
    assert jacobian.shape == (pattern.n_linear + pattern.parameters.size, pattern.two_theta.size)
    np.testing.assert_array_equal(jacobian[0], block.pattern)
    for place, name in enumerate(pattern.parameters.names):
        column = jacobian[pattern.n_linear + place]
        # Profiles have seven digits, and where a point passes from the series to the continued fraction 7e-7 of w(0)
        # jump: a small step magnifies them, a long one has its own error. The best of some steps counts, and two points
        # in a thousand may feel a jump all the same.
        # The satellite has no column where the emission has none.
        largest = np.abs(column).max() or 1.0
        errors = []
        # Without a phase's attenuation the prior of the transparency is too narrow to take steps by.
        su = 0.02 if name == "transparency" else min(float(pattern.parameters.prior_su[place]), 0.05)
        for step in su * np.array([0.01, 0.03, 0.1, 0.3, 1.0]):
            shifted = np.tile(values, (4, 1))
            shifted[:, place] += (2.0 * step, step, -step, -2.0 * step)
            far_up, up, down, far_down = (pattern.phase_columns(row, derivatives=False)[0].pattern for row in shifted)
            difference = 3.0 * (8.0 * (up - down) - (far_up - far_down)) / (12.0 * step)
            errors.append(np.abs(column - difference) / largest)
        best = min(errors, key=lambda error: float(np.quantile(error, 0.998)))
        assert np.quantile(best, 0.998) < 1e-3, name
        assert best.max() < 1e-2, name


def test_without_derivatives_the_pattern_is_the_same() -> None:
    pattern, values = compiled(reference("ni3sn4"), np.arange(25.0, 60.0, 0.02), at=GENERAL)
    np.testing.assert_allclose(
        pattern.phase_columns(values, derivatives=False)[0].pattern, pattern.phase_columns(values)[0].pattern, rtol=1e-6
    )


# --- any grid ---------------------------------------------------------------------------------------------------------


def grids() -> dict[str, FloatArray]:
    plain = np.arange(28.0, 34.0, 0.02)
    rng = np.random.default_rng(5)
    return {
        "growing steps": 28.0 + 6.0 * np.linspace(0.0, 1.0, 260) ** 1.4,
        "jittered": np.sort(rng.uniform(28.0, 34.0, 300)),
        "a gap at a peak": plain[(plain < 30.2) | (plain > 31.5)],
        "one point alone": np.concatenate((plain[plain < 29.5], [30.63], plain[plain > 32.5])),
        "coarse steps": np.arange(28.0, 34.0, 0.11),
    }


@pytest.mark.parametrize("name", list(grids()))
def test_any_grid_agrees_with_the_plain_reference(name: str) -> None:
    pattern, values = compiled(reference("sn"), grids()[name], at=GENERAL)
    errors = errors_against_reference(pattern, values)
    # A coarse scan has a coarse tail grid; its interpolation is the largest error there.
    assert errors.pop("pattern") < (5e-4 if name == "coarse steps" else SAME_NODES)
    assert {name: error for name, error in errors.items() if error > 10.0 * SAME_NODES_SLOPE} == {}


@pytest.mark.parametrize("start", [31.6, 32.2, 33.0, 33.9])
@pytest.mark.parametrize("lorentz", [0.07, 0.8])
def test_reflections_outside_the_range_leave_their_tails_in_it(start: float, lorentz: float) -> None:
    """Tin's strong lines stand at 30.6 and 32.0 degrees, those after the range at 43.9 and 44.9."""
    grid = np.arange(start, 43.2, 0.02)
    pattern, values = compiled(reference("sn"), grid, at=GENERAL | {"size_lorentz": lorentz})
    ours = pattern.phase_columns(values)[0].pattern
    theirs = _reference_kernel().phase_columns(pattern, pattern.phases[0], values)[0]
    # Of the peak of the line, which is not in the range.
    whole, _ = compiled(reference("sn"), np.arange(28.0, 43.2, 0.02), at=GENERAL | {"size_lorentz": lorentz})
    scale = pattern.phases[0].normalisation / whole.phases[0].normalisation
    peak = whole.phase_columns(values)[0].pattern.max() / scale
    assert np.max(np.abs(ours - theirs)) < SAME_NODES * peak


def test_a_point_has_one_value_whatever_the_other_points_are() -> None:
    every, values = compiled(reference("sn"), np.arange(28.0, 34.0, 0.02), at=GENERAL)
    whole = every.phase_columns(values)[0].pattern
    keep = (every.two_theta < 30.0) | (every.two_theta > 31.0)
    some, _ = compiled(reference("sn"), every.two_theta[keep], at=GENERAL)
    np.testing.assert_allclose(
        some.phase_columns(values)[0].pattern, whole[keep], rtol=0, atol=SAME_NODES * whole.max()
    )


# --- first principles -------------------------------------------------------------------------------------------------

SHARP = {
    "kappa": 0.0,
    "transparency": 0.0,
    "defocus": 0.0,
    "u": 0.0,
    "v": 0.0,
    "strain_gauss": 0.0,
    "size_gauss": 0.0,
    "strain_lorentz": 0.0,
}


def single_line(
    values: dict[str, float], limits: tuple[float, float] = (20.0, 140.0)
) -> tuple[PatternModel, FloatArray]:
    """Return nickel at one sharp line: few reflections, far apart."""
    return compiled(reference("ni"), np.arange(*limits, 0.02), "line", at=SHARP | {"zero": 0.0} | values)


@given(
    gauss=st.floats(0.02, 0.5),
    lorentz=st.floats(0.0, 0.8),
)
@settings(max_examples=25, deadline=None)
def test_a_sharp_line_is_scipys_voigt_profile(gauss: float, lorentz: float) -> None:
    pattern, values = single_line({"w": gauss**2, "size_lorentz": lorentz}, (30.0, 60.0))
    ours = pattern.phase_columns(values, derivatives=False)[0].pattern
    peaks = pattern.peak_state(pattern.phases[0], values)
    expected = np.zeros_like(ours)
    for centre, gauss_squared, width, area in zip(
        peaks.centre, peaks.gauss_squared, peaks.lorentz, peaks.intensity, strict=True
    ):
        sigma = math.sqrt(gauss_squared / (8.0 * math.log(2.0)))
        expected += area * voigt_profile(pattern.two_theta - centre, sigma, 0.5 * width)
    assert np.max(np.abs(ours - expected)) < SAME_NODES * expected.max()


def test_the_tails_are_never_cut() -> None:
    pattern, values = single_line({"w": 0.01, "size_lorentz": 0.4})
    peaks = pattern.peak_state(pattern.phases[0], values)
    x = pattern.two_theta
    area = np.trapezoid(pattern.phase_columns(values, derivatives=False)[0].pattern, x)
    # What a Lorentzian of half width g leaves beyond a distance a is g / (pi a), on each side.
    beyond = 0.5 * peaks.lorentz / math.pi
    inside = (peaks.centre > x[0]) & (peaks.centre < x[-1])
    share = inside - beyond / (x[-1] - peaks.centre) - beyond / (peaks.centre - x[0])
    assert area == pytest.approx(float(np.sum(peaks.intensity * share)), rel=2e-4)
    # Cut at 30 widths, the pattern would miss 2 g / (pi 30 L) = 1 % of its area.
    assert np.sum(peaks.intensity[inside]) - area > 0.002 * area


def test_far_from_every_peak_only_lorentzian_tails_are_left() -> None:
    pattern, values = single_line({"w": 0.01, "size_lorentz": 0.1}, (10.0, 60.0))
    curve = pattern.phase_columns(values, derivatives=False)[0].pattern
    peaks = pattern.peak_state(pattern.phases[0], values)
    x = pattern.two_theta
    far = x < 25.0  # the first reflection of nickel lies at 34 degrees
    gamma = 0.5 * peaks.lorentz[:, None]
    tails = np.sum(peaks.intensity[:, None] * gamma / math.pi / ((x - peaks.centre[:, None]) ** 2 + gamma**2), axis=0)
    # Relative, not of the peak: the Gaussian part adds 3 sigma^2 / d^2 = 7e-5 at 9 degrees.
    np.testing.assert_allclose(curve[far], tails[far], rtol=5e-4)


@pytest.mark.parametrize("r", [0.4, 0.8, 1.0, 1.3, 2.5])
def test_march_dollase_has_mean_one_over_the_sphere(r: float) -> None:
    points, weights = np.polynomial.legendre.leggauss(400)
    cos_squared, weight = points**2, 0.5 * weights
    factor, slope = march_dollase_factor(math.log(r), cos_squared, weight)
    assert factor == pytest.approx(1.0, abs=1e-9)
    assert slope == pytest.approx(0.0, abs=1e-9)


def test_without_texture_every_orientation_is_equally_likely() -> None:
    factor, slope = march_dollase_factor(0.0, np.array([0.0, 0.3, 1.0]), np.array([0.5, 0.25, 0.25]))
    assert factor == pytest.approx(1.0, rel=1e-15)
    # d O / d ln r at r = 1 is -(3/2) (3 <cos^2> - 1).
    assert slope == pytest.approx(-1.5 * (3.0 * 0.325 - 1.0), rel=1e-14)


def test_lorentz_polarization_by_hand() -> None:
    # At 2theta = 90 degrees the polarization term vanishes: 1 / (sin^2 45 cos 45) = 2 sqrt 2.
    right = np.array([math.radians(45.0)])
    for polarization in (1.0, 0.8):
        assert lorentz_polarization(right, polarization=polarization)[0] == pytest.approx(2.0 * math.sqrt(2.0))
    # At 60 degrees cos^2 2theta = 1/4, sin 30 = 1/2, cos 30 = sqrt(3)/2.
    theta = np.array([math.radians(30.0)])
    assert lorentz_polarization(theta, polarization=1.0)[0] == pytest.approx(1.25 * 8.0 / math.sqrt(3.0))
    assert lorentz_polarization(theta, polarization=0.8)[0] == pytest.approx(1.20 * 8.0 / math.sqrt(3.0))


@pytest.mark.parametrize("kappa", [0.0, 0.0005, 0.002, 0.008])
def test_axial_divergence_shifts_the_mean_by_kappa_cotangent_over_twelve(kappa: float) -> None:
    pattern, values = compiled(reference("sn"), np.arange(28.0, 100.0, 0.02), at=GENERAL | {"kappa": kappa})
    phase = pattern.phases[0]
    comb = phase.comb
    expected = -DEGREE / 12.0 / np.tan(2.0 * phase.theta)
    np.testing.assert_allclose(comb.mean_axial, expected, rtol=1e-6, atol=1e-6)
    axial = comb.nodes[kernel.NODE_AXIAL]
    np.testing.assert_allclose(np.add.reduceat(comb.weight * axial, comb.start[:-1]), expected, rtol=1e-6, atol=1e-6)
    assert float(values[GLOBAL_NAMES.index("kappa")]) == kappa


@pytest.mark.parametrize("wavelength", ["CuKa", "CuKa1", "CoKa", "MoKa", "synchrotron"])
def test_node_weights_sum_to_one(wavelength: str) -> None:
    pattern, _ = compiled(reference("corundum"), np.arange(20.0, 60.0, 0.02), wavelength, at=GENERAL)
    comb = pattern.phases[0].comb
    np.testing.assert_allclose(np.add.reduceat(comb.weight, comb.start[:-1]), 1.0, rtol=1e-12)
    assert np.all(comb.weight > 0.0)


# --- state ------------------------------------------------------------------------------------------------------------


def test_inputs_stay_as_they_are_and_results_repeat() -> None:
    pattern, values = compiled(reference("ni3sn4"), np.arange(25.0, 60.0, 0.02), at=GENERAL)
    assert not values.flags.writeable
    assert not pattern.two_theta.flags.writeable
    before = values.copy()
    first = pattern.phase_columns(values)[0]
    kept = first.pattern.copy()
    second = pattern.phase_columns(values)[0]
    np.testing.assert_array_equal(values, before)
    np.testing.assert_array_equal(first.pattern, second.pattern)
    np.testing.assert_array_equal(first.slopes, second.slopes)
    second.pattern[:] = 0.0
    np.testing.assert_array_equal(first.pattern, kept)


def test_two_compilations_are_the_same() -> None:
    one, values = compiled(reference("sn"), np.arange(25.0, 60.0, 0.02), at=GENERAL)
    two, _ = compiled(reference("sn"), np.arange(25.0, 60.0, 0.02), at=GENERAL)
    first, second = one.phase_columns(values)[0], two.phase_columns(values)[0]
    np.testing.assert_array_equal(first.pattern, second.pattern)
    np.testing.assert_array_equal(first.slopes, second.slopes)


def test_a_shift_of_the_zero_moves_the_pattern_along() -> None:
    pattern, values = compiled(reference("sn"), np.arange(28.0, 34.0, 0.02), at=GENERAL)
    moved = values.copy()
    moved[0] += 0.1
    here = pattern.phase_columns(values)[0].pattern
    there = pattern.phase_columns(moved)[0].pattern
    # Five points of 0.02 degrees; the tail grid does not move along.
    np.testing.assert_allclose(there[5:], here[:-5], rtol=0, atol=SAME_NODES * here.max())


def test_the_table_of_a_phase_names_the_arrays_the_descent_expects() -> None:
    pattern, _ = compiled(reference("ni3sn4"), np.arange(25.0, 60.0, 0.02), at=GENERAL)
    phase = pattern.phases[0]
    table, kept = phase.table
    assert table.shape == (descent.N_FIELDS, 3)
    assert len(kept) == descent.N_FIELDS
    comb = phase.comb
    expected = {
        descent.HKL: phase.indices,
        descent.PAIR_INTENSITY: phase.pair_intensity,
        descent.S_SQUARED: phase.s_squared,
        descent.HALF_WINDOW: phase.half_window,
        descent.FIRST: phase.first,
        descent.CORE_LAST: phase.core_last,
        descent.NODE_START: comb.start,
        descent.NODES: comb.nodes,
        descent.MOMENTS: comb.moments,
        descent.BASIS: phase.basis,
        descent.PARAMETER_INDEX: phase.parameter_index,
        descent.ROW_PARAMETER: phase.row_parameter,
    }
    for field, array in expected.items():
        np.testing.assert_array_equal(kept[field], array)
        assert table[field, 0] == kept[field].ctypes.data


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda item: pickle.loads(pickle.dumps(item))])
def test_a_copy_has_the_addresses_of_its_own_arrays(copied: Callable[[PatternModel], PatternModel]) -> None:
    pattern, _ = compiled(reference("sn"), np.arange(28.0, 34.0, 0.02), at=GENERAL)
    assert pattern.phases[0].table is not None
    other = copied(pattern).phases[0]
    table, kept = other.table
    assert [row[0] for row in table] == [array.ctypes.data for array in kept]
