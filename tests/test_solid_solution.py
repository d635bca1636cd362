"""Phases of variable composition: the structure by hand, an excess that is found, and none where there is none."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest
from scipy import stats

from xrdz.analysis import Analysis
from xrdz.conditions import conditions_of
from xrdz.crystal import excess_slope, reflections, structure_factor_squared
from xrdz.diffractogram import Diffractogram
from xrdz.findings import Code
from xrdz.fit import FitResult, fit
from xrdz.instrument import Instrument
from xrdz.method import Method
from xrdz.pattern import compile_pattern
from xrdz.pipeline import analyse_diffractogram
from xrdz.quantify import estimate_masses
from xrdz.reference import Reference, reference, reference_from_entry
from xrdz.solid_solution import (
    ENTER_GAIN,
    STRUCTURE,
    Excess,
    composition_findings,
    weigh_excess,
    with_composition,
    with_excess,
    with_solid_solutions,
)
from xrdz.wavelength import wavelength_from_name

COPPER = Instrument(goniometer_radius_mm=217.5, soller_deg=2.5, wavelength=wavelength_from_name("CuKa"))
X = np.arange(20.0, 90.0, 0.02)
COMPOUND = 1


def expected(excess: int, scales: tuple[float, float]) -> np.ndarray:
    """Return counts of tin and Ni3Sn4 with hundredths of nickel in excess, by the same engine."""
    blank = Diffractogram(X, np.ones(X.size))
    references = (reference("sn"), with_excess(reference("ni3sn4"), excess))
    instrument = conditions_of(blank, COPPER, references).instrument
    pattern = compile_pattern(blank, instrument=instrument, references=references, n_chebyshev=3)
    columns = pattern.phase_columns(pattern.parameters.start, derivatives=False)
    counts: np.ndarray = scales[0] * columns[0].pattern + scales[1] * columns[1].pattern + 120.0
    return counts


@lru_cache(maxsize=16)
def fitted(excess: int, seed: int = 1, scales: tuple[float, float] = (4e3, 2e4)) -> FitResult:
    counts = np.random.default_rng(seed).poisson(expected(excess, scales)).astype(np.float64)
    scan = Diffractogram(X, counts)
    references = (reference("sn"), reference("ni3sn4"))
    return fit(scan, instrument=conditions_of(scan, COPPER, references).instrument, references=references)


def mass_ratio(result: FitResult) -> float:
    masses = estimate_masses(result).masses
    return float(masses[1] / masses[0])


def test_the_structure_holds_the_excess() -> None:
    # Ni3.2Sn4: 3.2 x 58.6934 of 3.2 x 58.6934 + 4 x 118.710 dalton.
    nickel = 3.2 * 58.6934
    rich = with_excess(reference("ni3sn4"), 20)
    assert rich.composition["Ni"] == pytest.approx(nickel / (nickel + 4 * 118.710), rel=1e-5)
    assert rich.mass_per_cell == pytest.approx(reference("ni3sn4").mass_per_cell + 2 * 0.2 * 58.6934, rel=1e-6)
    assert rich.id == "ni3sn4"
    assert with_excess(reference("ni3sn4"), 20) is rich
    assert with_excess(reference("ni3sn4"), 0) is reference("ni3sn4")
    assert with_excess(reference("sn"), 20) is reference("sn")


def test_no_atom_is_too_near_the_site() -> None:
    """Six tin neighbours at 2.3 to 2.5 angstrom, nickel no nearer than that: by distances over all images."""
    item = reference("ni3sn4")
    site = item.excess
    assert site is not None
    a, b, c, _, beta, _ = item.cell
    cosine, sine = math.cos(math.radians(beta)), math.sin(math.radians(beta))
    vectors = np.array([[a, 0.0, 0.0], [0.0, b, 0.0], [c * cosine, 0.0, c * sine]])
    images = np.array([[i, j, k] for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)])
    steps = (item.atom_position[:, None, :] + images[None] - np.array(site.positions[0])) @ vectors
    distance = np.linalg.norm(steps, axis=2)
    tin = np.sort(distance[item.atom_group == item.groups.index("Sn")].ravel())
    nickel = np.sort(distance[item.atom_group == item.groups.index("Ni")].ravel())
    assert tin[0] > 2.25
    assert tin[5] < 2.55 < tin[6]
    assert nickel[0] > 2.4


def test_structure_factors_are_linear_in_the_excess() -> None:
    found = []
    for hundredths in (0, 10, 20):
        item = with_excess(reference("ni3sn4"), hundredths)
        listed = reflections(item, d_min=1.0, d_max=10.0)
        squared = structure_factor_squared(item, listed, wavelength=1.5406)
        found.append({tuple(hkl): float(value) for hkl, value in zip(listed.hkl.tolist(), squared, strict=True)})
    common = set(found[0]) & set(found[1]) & set(found[2])
    for hkl in common:
        none, some, more = (item[hkl] for item in found)
        # |F0 + x F1|^2 has a second difference of 2 |x F1|^2, F1 being two atoms of nickel at most.
        assert 0.0 <= more - 2.0 * some + none <= 2.0 * (0.1 * 2 * 28.0) ** 2


def test_a_stored_reference_keeps_its_site() -> None:
    item = reference("ni3sn4")
    again: Reference = reference_from_entry(item.to_entry())
    assert again.excess is not None
    assert item.excess is not None
    assert again.excess.positions == item.excess.positions
    assert (again.excess.su, again.excess.most) == (item.excess.su, item.excess.most)


@pytest.mark.parametrize("excess", [12, 30])
def test_an_excess_is_found(excess: int) -> None:
    before = fitted(excess)
    after = with_solid_solutions(before)
    site = after.pattern.phases[COMPOUND].reference.excess
    assert site is not None
    item = weigh_excess(after, COMPOUND)
    assert item is not None
    assert abs(site.present - 0.01 * excess) < 4.0 * item.su + 0.005
    assert item.su < 0.05
    assert abs(item.best - site.present) < 0.02
    assert after.minimum.point.objective < before.minimum.point.objective - ENTER_GAIN
    finding = composition_findings(after)[0]
    assert finding.code is Code.COMPOSITION_FITTED
    assert finding.where == "ni3sn4"


def test_the_mass_ratio_comes_back() -> None:
    before = fitted(30)
    after = with_solid_solutions(before)
    blank = fitted(0)
    # The same scales of patterns whose normalisation and mass differ.
    rich = with_excess(reference("ni3sn4"), 30)
    pattern = compile_pattern(
        blank.diffractogram,
        instrument=blank.pattern.instrument,
        references=(reference("sn"), rich),
        n_chebyshev=3,
    )
    start = pattern.parameters.start
    truth = 2e4 * pattern.phases[1].mass_per_scale(start) / (4e3 * pattern.phases[0].mass_per_scale(start))
    assert abs(math.log(mass_ratio(after) / truth)) < 0.03
    assert abs(math.log(mass_ratio(after) / truth)) < abs(math.log(mass_ratio(before) / truth))


@pytest.mark.parametrize("seed", range(1, 7))
def test_a_phase_of_its_formula_keeps_it(seed: int) -> None:
    result = fitted(0, seed)
    assert with_solid_solutions(result) is result
    assert composition_findings(result) == []


def test_the_row_is_there_without_an_excess_and_shrinks_with_what_is_known() -> None:
    def row(scales: tuple[float, float]) -> float:
        result = fitted(0, 3, scales)
        estimate = with_composition(estimate_masses(result), result)
        gradient = np.array([-1.0, 1.0]) / estimate.masses
        return float(np.sqrt(gradient @ estimate.sources[STRUCTURE] @ gradient))

    strong, weak = row((4e3, 2e4)), row((2e4, 2e2))
    assert 0.0 < strong < 0.02
    assert strong < weak < 0.1


@pytest.mark.parametrize(("best", "present"), [(0.05, 0.0), (-0.2, 0.0), (0.3, 0.28), (-6.0, 0.0)])
def test_the_mean_square_is_that_of_the_cut_normal(best: float, present: float) -> None:
    item = Excess(0, present, best, 0.1, 0.0, np.zeros(1))
    cut = stats.truncnorm(-best / 0.1, np.inf, loc=best, scale=0.1)
    assert item.mean_square == pytest.approx(float(cut.var() + (cut.mean() - present) ** 2), rel=2e-3)


def test_a_phase_without_a_site_has_no_row() -> None:
    scan = fitted(0).diffractogram
    result = fit(scan, instrument=conditions_of(scan, COPPER).instrument, references=[reference("sn")])
    estimate = estimate_masses(result)
    assert with_composition(estimate, result) is estimate
    assert weigh_excess(result, 0) is None
    assert with_solid_solutions(result) is result


def test_the_slope_is_that_of_the_squared_structure_factor() -> None:
    here = with_excess(reference("ni3sn4"), 20)
    listed = reflections(here, d_min=1.0, d_max=10.0)
    B = [0.5, 0.7]

    def squared(hundredths: int) -> np.ndarray:
        other = with_excess(reference("ni3sn4"), hundredths)
        theirs = reflections(other, d_min=1.0, d_max=10.0)
        assert theirs.hkl.tolist() == listed.hkl.tolist()
        return structure_factor_squared(other, theirs, wavelength=1.5406, displacement=B)

    difference = (squared(21) - squared(19)) / 0.02
    slope = excess_slope(here, listed, wavelength=1.5406, displacement=B) * squared(20)
    np.testing.assert_allclose(slope, difference, rtol=1e-6, atol=1e-6 * np.abs(difference).max())


def analysed(counts: np.ndarray) -> Analysis:
    scan = Diffractogram(X, np.random.default_rng(5).poisson(counts).astype(np.float64))
    return analyse_diffractogram(scan, Method(candidates=("ni", "ni3sn2", "cu"), instrument=COPPER))


def excess_in(analysis: Analysis) -> float:
    assert analysis.fit is not None
    site = analysis.fit.pattern.phases[COMPOUND].reference.excess
    assert site is not None
    return site.present


def test_an_excess_is_no_candidate_and_a_candidate_no_excess() -> None:
    rich = analysed(expected(25, (4e3, 2e4)))
    assert abs(excess_in(rich) - 0.25) < 0.08
    assert list(rich.phases) == ["sn", "ni3sn4"]

    blank = Diffractogram(X, np.ones(X.size))
    nickel = (reference("ni"),)
    instrument = conditions_of(blank, COPPER, nickel).instrument
    pattern = compile_pattern(blank, instrument=instrument, references=nickel, n_chebyshev=3)
    lines = pattern.phase_columns(pattern.parameters.start, derivatives=False)[0].pattern
    impure = analysed(expected(0, (4e3, 2e4)) + 400.0 * lines)
    assert excess_in(impure) == 0.0
    assert list(impure.phases) == ["sn", "ni3sn4", "ni"]
