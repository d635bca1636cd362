"""Masses, their ratio and uncertainty against hand calculations and identities; detection against simulations."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from small_patterns import instrument_model, phases, positions
from xrdz.detection import (
    WIDEST_DEG,
    WeakPhase,
    at_least_the_limit,
    detection_limits,
    is_background,
    profile_weak_phase,
    significance,
)
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.fit import FitResult, fit
from xrdz.kernel import GAUSS, WIDTH
from xrdz.pattern import compile_pattern
from xrdz.quantify import (
    BACKGROUND,
    COUNTING,
    MISFIT,
    MassEstimate,
    element_fractions,
    estimate_masses,
    fraction_quantity,
    mass_jacobian,
    prior_group,
    ratio_quantity,
)
from xrdz.reference import reference
from xrdz.solver import Noise, minimise

TIN, COMPOUND = 0, 1


@lru_cache(maxsize=16)
def expected_counts(total: float, compound_fraction: float) -> FloatArray:
    """Return the expected counts of a powder with this mass fraction of Ni3Sn4; half of them are background."""
    blank = Diffractogram(positions(), np.ones(positions().size))
    pattern = compile_pattern(blank, instrument=instrument_model(), references=phases(), n_chebyshev=3)
    values = pattern.parameters.prior_mean.copy()
    curves = [block.pattern for block in pattern.phase_columns(values, derivatives=False)]
    per_scale = [phase.mass_per_scale(values) for phase in pattern.phases]
    peaks = (1.0 - compound_fraction) / per_scale[TIN] * curves[TIN]
    peaks += compound_fraction / per_scale[COMPOUND] * curves[COMPOUND]
    background = 1.0 - 0.2 * (positions() - 38.0) / 10.0
    counts: FloatArray = 0.5 * total * (peaks / peaks.sum() + background / background.sum())
    return counts


def fitted(seed: int, total: float, compound_fraction: float) -> FitResult:
    counts = np.random.default_rng(seed).poisson(expected_counts(total, compound_fraction)).astype(np.float64)
    return fit(Diffractogram(positions(), counts), instrument=instrument_model(), references=phases())


@pytest.fixture(scope="module")
def mixture() -> FitResult:
    """Return the fit of 40 % Ni3Sn4 in 2 million counts."""
    return fitted(5, 2e6, 0.4)


@pytest.fixture(scope="module")
def estimate(mixture: FitResult) -> MassEstimate:
    return estimate_masses(mixture)


# --- masses -----------------------------------------------------------------------------------------------------------


def test_hill_and_howard_by_hand(mixture: FitResult) -> None:
    # Z M V: formula units, dalton, cubic angstrom; standard atomic masses Sn 118.710, Ni 58.6934.
    tin, compound = mixture.pattern.phases
    a, c = mixture.value("sn.a"), mixture.value("sn.c")
    tin_zmv = 4 * 118.710 * a * a * c
    a, b, c = (mixture.value(f"ni3sn4.{name}") for name in "abc")
    volume = a * b * c * math.sin(math.radians(mixture.value("ni3sn4.beta")))
    compound_zmv = 2 * (3 * 58.6934 + 4 * 118.710) * volume
    assert tin.mass_per_scale(mixture.values) * tin.normalisation == pytest.approx(tin_zmv, rel=1e-6)
    assert compound.mass_per_scale(mixture.values) * compound.normalisation == pytest.approx(compound_zmv, rel=1e-6)
    # Areas of structure factor one are S / normalisation.
    areas = mixture.scales / [tin.normalisation, compound.normalisation]
    by_hand = areas[COMPOUND] * compound_zmv / (areas[TIN] * tin_zmv)
    estimate = estimate_masses(mixture)
    assert ratio_quantity(estimate, COMPOUND, TIN)[0].value == pytest.approx(by_hand, rel=1e-6)
    assert estimate.fractions[COMPOUND] == pytest.approx(by_hand / (1.0 + by_hand), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("sn", 10.5),
        ("ni3sn4", 4.1),
        ("sno2", 10.1),
        ("cu", 9.5),
        ("ni", 8.0),
        ("zincite", 5.6),
        ("si", 4.8),
        ("fluorite", 4.2),
        ("graphite", 2.3),
    ],
)
def test_equal_masses_give_the_intensity_ratios_of_the_cards(name: str, card: float) -> None:
    # Calculated I/Ic at Cu K-alpha. Cards and we differ in B, in oxygen's form factor and in what counts as one peak.
    assert strongest_area_per_mass(name) / strongest_area_per_mass("corundum") == pytest.approx(card, rel=0.12)


@lru_cache(maxsize=16)
def strongest_area_per_mass(name: str) -> float:
    blank = Diffractogram(np.linspace(20.0, 100.0, 4001, dtype=np.float64), np.ones(4001))
    pattern = compile_pattern(blank, instrument=instrument_model(), references=(reference(name),), n_chebyshev=2)
    values = pattern.parameters.start.copy()
    values[pattern.parameters.index("overspill")] = pattern.parameters.lower[pattern.parameters.index("overspill")]
    phase = pattern.phases[0]
    return float(pattern.peak_state(phase, values).intensity.max() / phase.mass_per_scale(values))


def test_fractions_sum_to_one_and_so_do_their_changes(estimate: MassEstimate) -> None:
    assert estimate.fractions.sum() == pytest.approx(1.0, abs=1e-14)
    total = estimate.fraction_gradient(TIN) + estimate.fraction_gradient(COMPOUND)
    np.testing.assert_allclose(total * estimate.masses, 0.0, atol=1e-14)
    assert abs(estimate.fractions[COMPOUND] - 0.4) < 4.0 * fraction_quantity(estimate, COMPOUND).su


def test_the_mass_jacobian_is_that_of_the_masses(mixture: FitResult) -> None:
    masses, jacobian = mass_jacobian(mixture)
    n_linear = mixture.pattern.n_linear
    for place, name in enumerate(mixture.pattern.parameters.names):
        values = mixture.values.copy()
        values[place] += 1e-4 * (1.0 + abs(values[place]))
        step = values[place] - mixture.values[place]
        moved = mass_jacobian(replace(mixture, values=values))[0]
        # A volume is a product of lengths: its second derivative leaves 1e-4 of the first.
        expected = (moved - masses) / step
        np.testing.assert_allclose(
            jacobian[:, n_linear + place], expected, rtol=5e-4, atol=1e-9 * masses[0], err_msg=name
        )
    scales = replace(mixture, linear=2.0 * mixture.linear)
    np.testing.assert_allclose(mass_jacobian(scales)[0], 2.0 * masses)


def test_elements_follow_from_the_phases(mixture: FitResult, estimate: MassEstimate) -> None:
    elements = element_fractions(mixture, estimate)
    nickel_in_compound = 3 * 58.6934 / (3 * 58.6934 + 4 * 118.710)
    assert nickel_in_compound == pytest.approx(0.2705, abs=1e-4)
    nickel, su = elements["Ni"]
    assert nickel == pytest.approx(nickel_in_compound * estimate.fractions[COMPOUND], rel=1e-6)
    assert elements["Sn"][0] + nickel == pytest.approx(1.0, abs=1e-12)
    assert su == pytest.approx(nickel_in_compound * fraction_quantity(estimate, COMPOUND).su, rel=1e-6)
    assert elements["Sn"][1] == pytest.approx(su, rel=1e-6)


# --- uncertainties ----------------------------------------------------------------------------------------------------


def test_counting_and_priors_add_up_to_the_posterior(mixture: FitResult) -> None:
    covariance, fisher = mixture.covariance, mixture.fisher
    n_linear = mixture.pattern.n_linear
    precision = np.zeros_like(fisher)
    precision[n_linear:, n_linear:] = mixture.pattern.parameters.prior_precision
    su = np.sqrt(np.diag(covariance))
    unit = np.outer(su, su) + 1e-300
    sum_of_parts = covariance @ fisher @ covariance + covariance @ precision @ covariance
    # Exact but for the inverse of a matrix of condition 1e5 to 1e7.
    np.testing.assert_allclose(sum_of_parts / unit, covariance / unit, atol=1e-6)


def test_the_sources_add_up_to_the_posterior_masses(mixture: FitResult, estimate: MassEstimate) -> None:
    _, jacobian = mass_jacobian(mixture)
    posterior = jacobian @ mixture.covariance @ jacobian.T
    groups = {prior_group(name) for name in mixture.pattern.parameters.names}
    total = estimate.sources[COUNTING] + sum(estimate.sources[group] for group in groups)
    np.testing.assert_allclose(total, posterior, rtol=1e-5, atol=1e-6 * float(np.max(posterior)))
    for matrix in estimate.sources.values():
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-9 * float(np.max(posterior)))
        assert np.all(np.linalg.eigvalsh(matrix) > -1e-9 * np.max(posterior))


def test_ratio_and_fraction_of_two_phases_tell_the_same(estimate: MassEstimate) -> None:
    ratio, variances = ratio_quantity(estimate, COMPOUND, TIN)
    fraction = fraction_quantity(estimate, COMPOUND)
    # ln Z = ln(w / (1 - w)): one interval in two coordinates.
    assert ratio.value == pytest.approx(fraction.value / (1.0 - fraction.value))
    assert ratio.su / ratio.value == pytest.approx(fraction.su / (fraction.value * (1.0 - fraction.value)), rel=1e-9)
    for z, w in zip(ratio.interval95, fraction.interval95, strict=True):
        assert z == pytest.approx(w / (1.0 - w), rel=1e-9)
    assert ratio.su == pytest.approx(ratio.value * math.sqrt(sum(variances.values())), rel=1e-12)
    assert ratio.su_stat <= ratio.su
    assert {COUNTING, MISFIT, BACKGROUND} <= set(variances)


def two_masses(tin: float, compound: float, relative_su: float) -> MassEstimate:
    masses = np.array([tin, compound])
    counting = np.diag((relative_su * masses) ** 2)
    return MassEstimate(("sn", "ni3sn4"), masses, {COUNTING: counting}, counting)


@given(
    tin=st.floats(1e-6, 1e6),
    compound=st.floats(1e-6, 1e6),
    relative_su=st.floats(1e-4, 3.0),
)
def test_the_interval_is_symmetric_in_the_logarithm(tin: float, compound: float, relative_su: float) -> None:
    estimate = two_masses(tin, compound, relative_su)
    ratio, _ = ratio_quantity(estimate, COMPOUND, TIN)
    low, high = ratio.interval95
    assert 0.0 < low < ratio.value < high
    assert low * high == pytest.approx(ratio.value**2, rel=1e-9)
    # Var(ln Z) of two independent masses is twice the relative variance of one.
    assert math.log(high / ratio.value) == pytest.approx(1.959964 * math.sqrt(2.0) * relative_su, rel=1e-6)
    fraction = fraction_quantity(estimate, TIN)
    assert 0.0 <= fraction.interval95[0] <= fraction.value <= fraction.interval95[1] <= 1.0
    # Swapping numerator and denominator mirrors the interval.
    inverse, _ = ratio_quantity(estimate, TIN, COMPOUND)
    assert inverse.interval95[0] == pytest.approx(1.0 / high, rel=1e-9)


def test_misfit_counts_only_beyond_counting() -> None:
    plain = two_masses(1.0, 2.0, 0.1)
    gradient = plain.ln_ratio_gradient(COMPOUND, TIN)
    assert plain.variances(gradient)[MISFIT] == 0.0
    calm, rough = (replace(plain, robust=factor * plain.robust) for factor in (0.5, 3.0))
    assert calm.variances(gradient)[MISFIT] == 0.0
    assert rough.variances(gradient)[MISFIT] == pytest.approx(2.0 * plain.variances(gradient)[COUNTING])


def test_a_single_phase_is_everything() -> None:
    alone = MassEstimate(("sn",), np.array([3.0]), {COUNTING: np.array([[0.1]])}, np.array([[0.1]]))
    quantity = fraction_quantity(alone, 0)
    assert (quantity.value, quantity.su, quantity.interval95) == (1.0, 0.0, (1.0, 1.0))


def test_on_its_own_model_the_robust_variance_is_that_of_counting() -> None:
    ratios = []
    for seed in range(12):
        found = estimate_masses(fitted(100 + seed, 1e6, 0.5))
        gradient = found.ln_ratio_gradient(COMPOUND, TIN)
        ratios.append(float(gradient @ found.robust @ gradient) / found.variances(gradient)[COUNTING])
    # 20 blocks of one degree, of which few hold much: each ratio scatters like chi^2 / n of some six, and loses what
    # the parameters absorb; the mean of twelve lies well between a third and twice.
    assert 0.33 < np.mean(ratios) < 2.0


def test_pulls_of_the_ratio_are_standard_normal() -> None:
    # Everything uncertain stands at the mean of its prior, so that counting is all that scatters;
    # `benchmarks/fit_statistics.py` does the same with a thousand patterns and drawn specimens.
    pulls = []
    for seed in range(40):
        ratio, variances = ratio_quantity(estimate_masses(fitted(600 + seed, 1e6, 0.4)), COMPOUND, TIN)
        pulls.append(math.log(ratio.value / (0.4 / 0.6)) / math.sqrt(variances[COUNTING]))
    # Three standard errors of 40 draws: 3 / sqrt(40) of the mean, 3 / sqrt(80) of the standard deviation.
    assert abs(np.mean(pulls)) < 0.48
    assert abs(np.std(pulls, ddof=1) - 1.0) < 0.34


# --- detection --------------------------------------------------------------------------------------------------------

WEAK_COUNTS = 2e5


@lru_cache(maxsize=1)
def limit_of_the_compound() -> float:
    """Return the detection limit of Ni3Sn4 in tin, the mean over some patterns without it."""
    found = []
    for seed in range(4):
        result = fitted(200 + seed, WEAK_COUNTS, 0.0)
        found.append(detection_limits(result, estimate_masses(result))[COMPOUND])
    return float(np.mean(found))


def judged(seed: int, fraction: float) -> WeakPhase:
    result = fitted(seed, WEAK_COUNTS, fraction)
    return profile_weak_phase(result, estimate_masses(result), COMPOUND)


def compound_fraction(masses: FloatArray) -> float:
    return float(masses[COMPOUND] / masses.sum())


def test_an_absent_phase_is_not_found() -> None:
    judgements = [judged(300 + seed, 0.0) for seed in range(8)]
    # 0.5 % false detections are allowed: two of eight would be one chance in fifteen hundred.
    assert sum(item.detected for item in judgements) <= 1
    limits = [compound_fraction(item.masses_high) for item in judgements]
    assert all(0.0 < limit < 5.0 * limit_of_the_compound() for limit in limits)
    assert all(item.masses_low[COMPOUND] == 0.0 for item in judgements if not item.detected)


def test_a_content_at_the_limit_is_found_as_promised() -> None:
    # 95 % are promised; fewer than 5 of 8 would be one chance in two thousand.
    content = limit_of_the_compound()
    judgements = [judged(400 + seed, content) for seed in range(8)]
    assert sum(item.detected for item in judgements) >= 5
    inside = [
        compound_fraction(item.masses_low) <= content <= compound_fraction(item.masses_high) for item in judgements
    ]
    assert sum(inside) >= 6


def test_far_below_the_limit_most_is_missed() -> None:
    judgements = [judged(500 + seed, 0.2 * limit_of_the_compound()) for seed in range(4)]
    assert sum(item.detected for item in judgements) <= 2


@pytest.mark.parametrize("content", [0.05, 0.4])
def test_the_limit_falls_with_the_root_of_the_counts(content: float) -> None:
    few, many = (fitted(7, total, content) for total in (2e5, 2e7))
    limits = [detection_limits(result, estimate_masses(result))[COMPOUND] for result in (few, many)]
    # A hundred times the counts lower it tenfold where counting alone decides. At few counts priors hold the profile
    # and the instrument, which makes the limit there lower than counting alone would, and the fall less steep.
    assert 3.0 < limits[0] / limits[1] < 11.5


def test_the_ends_of_a_profile_interval_cost_what_they_should() -> None:
    result = fitted(8, WEAK_COUNTS, 2.0 * limit_of_the_compound())
    estimate = estimate_masses(result)
    found = profile_weak_phase(result, estimate, COMPOUND)
    assert found.detected
    assert found.significance == pytest.approx(significance(result, estimate, COMPOUND))
    low, best, high = (compound_fraction(masses) for masses in (found.masses_low, estimate.masses, found.masses_high))
    assert 0.0 <= low < best < high < 1.0
    gradient = np.eye(2)[COMPOUND]
    variances = estimate.variances(gradient)
    widening = math.sqrt(sum(variances.values()) / variances[COUNTING])
    scale = found.masses_high[COMPOUND] / result.pattern.phases[COMPOUND].mass_per_scale(result.values)
    end = minimise(
        result.pattern,
        Noise.of(result.diffractogram),
        result.values,
        first_model=result.model,
        fixed_scale=(COMPOUND, scale),
    )
    rise = math.sqrt(end.point.objective - result.minimum.point.objective)
    # The root finder stops within 3 %; cells differ a little between the two ends.
    assert rise == pytest.approx(1.96 * widening, rel=0.1)


def test_an_undetected_phase_may_be_there_up_to_its_limit() -> None:
    unseen = WeakPhase(1, 0.5, False, np.array([9.0, 0.0]), np.array([9.0, 0.2]))
    assert at_least_the_limit(unseen, 0.5).masses_high.tolist() == [9.0, 0.5]
    assert at_least_the_limit(unseen, 0.1) is unseen
    seen = replace(unseen, detected=True)
    assert at_least_the_limit(seen, 0.5) is seen


def test_a_phase_of_lines_wider_than_any_grain_gives_is_not_detected(mixture: FitResult) -> None:
    assert not is_background(mixture, COMPOUND)
    values = mixture.values.copy()
    values[mixture.pattern.parameters.index("ni3sn4.size_lorentz")] = 1.2 * WIDEST_DEG
    broad = replace(mixture, values=values)
    assert is_background(broad, COMPOUND)
    assert profile_weak_phase(mixture, estimate_masses(mixture), COMPOUND).detected
    assert not profile_weak_phase(broad, estimate_masses(broad), COMPOUND).detected


def test_a_phase_of_lines_spread_out_but_for_the_strongest_is_not_detected(mixture: FitResult) -> None:
    state = mixture.states[COMPOUND]
    strongest = int(np.argmax(state.intensity))
    widths = np.full(state.fwhm.size, 4.0)
    widths[strongest] = 0.2
    mean = float(widths @ state.intensity / state.intensity.sum())
    rows = state.rows.copy()
    rows[GAUSS], rows[WIDTH] = 0.0, widths
    spread = replace(state, rows=rows)
    result = SimpleNamespace(pattern=mixture.pattern, states=(state, spread))
    assert mean > WIDEST_DEG
    assert is_background(result, COMPOUND)


def test_a_phase_of_lines_narrower_than_a_step_is_not_detected(mixture: FitResult) -> None:
    values = mixture.values.copy()
    values[mixture.pattern.parameters.index("w")] = -0.9
    for name in ("size_lorentz", "strain_lorentz", "size_gauss", "strain_gauss"):
        values[mixture.pattern.parameters.index(f"ni3sn4.{name}")] = 0.0
    assert is_background(replace(mixture, values=values), COMPOUND)
