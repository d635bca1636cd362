"""Candidate phases: never kept where they are not, kept where they are, and in the budget either way."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xrdz.candidates import (
    CANDIDATES,
    FALSE_STRAINS,
    PRIOR_FRACTION,
    PRIOR_ODDS,
    STRAINS,
    CandidateTrial,
    candidate_findings,
    estimate_of,
    presence,
    try_candidates,
    unseen_variance,
    weigh_candidates,
    with_candidates,
)
from xrdz.conditions import conditions_of
from xrdz.diffractogram import Diffractogram
from xrdz.findings import Code
from xrdz.fit import FitResult, fit
from xrdz.instrument import Instrument
from xrdz.method import TIN_NICKEL_CANDIDATES
from xrdz.quantify import estimate_masses
from xrdz.reference import reference
from xrdz.simulation import SimulationSettings, simulate
from xrdz.wavelength import wavelength_from_name

COPPER = Instrument(goniometer_radius_mm=217.5, soller_deg=2.5, wavelength=wavelength_from_name("CuKa"))
ALL = tuple(reference(name) for name in TIN_NICKEL_CANDIDATES)
RANGE = SimulationSettings(two_theta=(24.0, 80.0), step=0.03, counts=1e6)


def scan(seed: int, **impurities: float) -> Diffractogram:
    settings = replace(RANGE, impurities=impurities, cell_change=dict.fromkeys(impurities, 0.001))
    return simulate(settings, np.random.default_rng(seed))[0]


def fitted(diffractogram: Diffractogram) -> FitResult:
    return fit(
        diffractogram,
        instrument=conditions_of(diffractogram, COPPER).instrument,
        references=[reference("sn"), reference("ni3sn4")],
    )


@lru_cache(maxsize=4)
def clean(seed: int = 1) -> FitResult:
    return fitted(scan(seed))


@lru_cache(maxsize=8)
def tried(seed: int, *impurities: tuple[str, float]) -> CandidateTrial:
    return try_candidates(fitted(scan(seed, **dict(impurities))), ALL)


def ratio_of(trial: CandidateTrial) -> float:
    masses = estimate_of(trial.result)
    return float(masses[1] / masses[0])


# --- nothing where nothing is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_kept_of_a_clean_scan(seed: int) -> None:
    trial = try_candidates(clean(seed), ALL)
    assert trial.kept == ()
    assert trial.result is clean(seed)
    assert {item.reference.id for item in trial.left_out} == set(TIN_NICKEL_CANDIDATES)
    for item in trial.left_out:
        assert abs(item.significance) < 4.0
        assert item.fraction_su < 0.01


def test_scores_of_a_right_model_are_standard_normal_or_less() -> None:
    # The best of nine strains is reported, which lifts the mean; the misfit noise n can only lower the score.
    scores = np.array([item.significance for seed in range(6) for item in weigh_candidates(clean(seed), ALL)])
    assert scores.size == 30
    assert abs(float(scores.mean())) < 1.5
    assert float(scores.std()) < 1.6


def test_the_row_holds_what_may_have_been_missed() -> None:
    trial = try_candidates(clean(1), ALL)
    estimate = with_candidates(estimate_masses(trial.result), trial.left_out)
    gradient = estimate.ln_ratio_gradient(1, 0)
    row = estimate.variances(gradient)[CANDIDATES]
    assert row == pytest.approx(sum(item.variance * float(gradient @ item.shift) ** 2 for item in trial.left_out))
    assert 0.0 < math.sqrt(row) < 0.02


def test_no_candidates_is_no_work_and_no_row() -> None:
    trial = try_candidates(clean(1), ())
    assert trial.left_out == ()
    estimate = with_candidates(estimate_masses(trial.result), ())
    assert estimate.variances(estimate.ln_ratio_gradient(1, 0))[CANDIDATES] == 0.0
    assert candidate_findings(trial, estimate, ratio=("ni3sn4", "sn")) == []


def test_a_candidate_without_lines_in_the_range_is_passed_over() -> None:
    # Nickel's first lines are at 44.5 and 51.8 degrees, copper's at 43.3 and 50.4.
    narrow = scan(1).cropped((28.0, 40.0))
    found = weigh_candidates(fitted(narrow), ALL)
    assert {"ni", "cu"}.isdisjoint({item.reference.id for item in found})


# --- kept where they are ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "share"), [("ni", 0.02), ("ni3sn2", 0.02), ("sno2", 0.01), ("cu", 0.01)])
def test_a_phase_that_is_there_is_kept_and_mends_the_ratio(name: str, share: float) -> None:
    trial = tried(11, (name, share))
    assert trial.kept == (name,)
    estimate = with_candidates(estimate_masses(trial.result), trial.left_out)
    assert estimate.fractions[2] == pytest.approx(share, rel=0.3)
    u = math.sqrt(sum(estimate.variances(estimate.ln_ratio_gradient(1, 0)).values()))
    assert abs(math.log(ratio_of(trial))) < 3.0 * u
    finding = candidate_findings(trial, estimate, ratio=("ni3sn4", "sn"))[0]
    assert finding.code is Code.CANDIDATE_KEPT
    assert finding.where == name
    assert "ni3sn4/sn changed by" in finding.message


def test_two_that_share_their_strongest_line_are_told_apart() -> None:
    # Graphite 002 stands on SnO2 110: oxide alone must not be taken for carbon, nor the two for one.
    assert tried(12, ("sno2", 0.02)).kept == ("sno2",)
    assert set(tried(13, ("sno2", 0.02), ("graphite", 0.06)).kept) == {"sno2", "graphite"}


def test_one_line_is_no_phase() -> None:
    # A peak where nickel's strongest line would be, in free range, and nothing where its second has to be.
    base = scan(14)
    x = base.two_theta
    nickel_200 = 51.85
    height = 0.05 * float(base.intensity.max())
    added = height * np.exp(-4.0 * np.log(2.0) * ((x - nickel_200) / 0.15) ** 2)
    counts = base.intensity + np.random.default_rng(1).poisson(added)
    result = fitted(replace(base, intensity=counts))
    weighed = next(item for item in weigh_candidates(result, ALL) if item.reference.id == "ni")
    assert weighed.significance > 4.0
    assert not weighed.consistent
    assert "ni" not in try_candidates(result, ALL).kept


def test_presence_does_not_fall_with_what_scales_the_mass() -> None:
    trial = tried(11, ("ni", 0.02))
    assert presence(trial.result, 2) > 4.0
    assert presence(trial.result, 0) > 50.0


def test_the_fit_that_was_tried_is_not_changed() -> None:
    result = clean(1)
    before = result.values.copy(), result.linear.copy()
    try_candidates(result, ALL)
    assert np.array_equal(before[0], result.values)
    assert np.array_equal(before[1], result.linear)


# --- what was not seen ------------------------------------------------------------------------------------------------


def numerical_variance(scale: float, su: float, prior: float) -> float:
    """Return p E[s^2 | present] by summing the posterior on a grid."""
    s = np.linspace(0.0, 12.0 * max(su, prior, abs(scale)), 40_001)
    step = s[1] - s[0]
    density = 2.0 / (math.sqrt(2.0 * math.pi) * prior) * np.exp(-0.5 * (s / prior) ** 2)
    # Relative to the likelihood of none at all.
    likelihood = np.exp(-0.5 * ((scale - s) / su) ** 2 + 0.5 * (scale / su) ** 2)
    weight = density * likelihood
    weight[0] *= 0.5
    evidence = float(weight.sum() * step)
    probability = PRIOR_ODDS * evidence / (1.0 + PRIOR_ODDS * evidence)
    return probability * float((weight * s * s).sum() / weight.sum())


@given(st.floats(-4.0, 5.0), st.floats(0.01, 30.0))
def test_unseen_variance_is_the_integral_it_stands_for(deviate: float, prior: float) -> None:
    # The grid's step against the narrower of likelihood and prior leaves a part in a thousand.
    assert unseen_variance(deviate, 1.0, prior) == pytest.approx(numerical_variance(deviate, 1.0, prior), rel=2e-3)


def test_what_data_cannot_tell_is_left_to_the_prior() -> None:
    # A candidate the data say nothing of is there with odds of one to four, with its prior amount.
    share = PRIOR_ODDS / (1.0 + PRIOR_ODDS)
    assert unseen_variance(0.0, 1e6, PRIOR_FRACTION) == pytest.approx(share * PRIOR_FRACTION**2, rel=1e-3)
    assert unseen_variance(-50.0, 1.0, 10.0) < 1e-3
    assert unseen_variance(10.0, 1.0, 100.0) == pytest.approx(101.0, rel=0.01)


def test_false_strains_lie_beyond_any_line_width_of_the_tried_ones() -> None:
    # At 44 degrees a strain of 0.8 % moves a line by 0.37 degrees, two widths and more.
    gap = min(abs(false) for false in FALSE_STRAINS) - max(STRAINS)
    assert math.degrees(2.0 * math.tan(math.radians(22.0)) * gap) > 0.3
