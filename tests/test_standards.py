"""Absolute amounts against hand calculations, and against scans made with a known amount of each phase."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xrdz
from xrdz.analysis import Analysis
from xrdz.detection import WeakPhase
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.errors import InputError
from xrdz.fields import Estimate
from xrdz.findings import Code
from xrdz.fit import FitResult
from xrdz.instrument import Instrument
from xrdz.method import ExternalStandard, InternalStandard, Method
from xrdz.quantify import COUNTING, MassEstimate
from xrdz.reference import reference
from xrdz.simulation import SimulationSettings, simulate
from xrdz.standards import (
    ATTENUATION_SU,
    alloy_nickel,
    amounts_by_external_standard,
    amounts_by_internal_standard,
    hump_finding,
    k_factor,
    logit_quantity,
    lower_hull,
    mixture_attenuation,
)

COPPER = 1.5405929


def estimate_of(**masses: float) -> MassEstimate:
    """Return masses known within 1 % each, independently, by counting."""
    values = np.array(list(masses.values()))
    return MassEstimate(tuple(masses), values, {COUNTING: np.diag((0.01 * values) ** 2)}, np.zeros((values.size,) * 2))


# --- internal standard ------------------------------------------------------------------------------------------------


def test_internal_standard_by_hand() -> None:
    # 20 % spike, 1 g of it for 2 g and 1 g of the phases: 0.25 * 2 = 50 %, 0.25 * 1 = 25 %, 25 % amorphous.
    amounts = amounts_by_internal_standard(
        estimate_of(sn=2.0, corundum=1.0, ni3sn4=1.0), phase="corundum", mass_fraction=0.2
    )
    assert amounts is not None
    assert set(amounts.fractions) == {"sn", "ni3sn4"}
    assert amounts.fractions["sn"].value == pytest.approx(0.5)
    assert amounts.fractions["ni3sn4"].value == pytest.approx(0.25)
    assert amounts.amorphous.value == pytest.approx(0.25)
    # Ratios of two masses known to 1 %: sqrt(2) %. The sum varies with each phase and, as a whole, with the spike.
    assert amounts.fractions["sn"].su == pytest.approx(0.5 * 0.01 * math.sqrt(2.0))
    assert amounts.amorphous.su == pytest.approx(0.01 * math.sqrt(0.5**2 + 0.25**2 + 0.75**2))
    assert [finding.code for finding in amounts.findings] == [Code.AMORPHOUS_SUSPECTED]
    assert "75.0 mass %" in amounts.findings[0].message


def test_weighing_of_the_spike_counts() -> None:
    estimate = estimate_of(sn=3.0, corundum=1.0)
    plain, weighed = (
        amounts_by_internal_standard(estimate, phase="corundum", mass_fraction=0.2, su=su) for su in (0.0, 0.002)
    )
    assert plain is not None
    assert weighed is not None
    # d ln(c / (1 - c)) = dc / (c (1 - c)) = 0.0125.
    added = weighed.fractions["sn"].su ** 2 - plain.fractions["sn"].su ** 2
    assert math.sqrt(added) == pytest.approx(0.75 * 0.0125)


def test_a_sum_above_one_is_cut_and_said() -> None:
    amounts = amounts_by_internal_standard(estimate_of(sn=5.0, corundum=1.0), phase="corundum", mass_fraction=0.2)
    assert amounts is not None
    assert amounts.total == pytest.approx(1.25)
    assert amounts.amorphous.value == 0.0
    assert amounts.amorphous.interval95 == (0.0, 0.0)
    assert amounts.fractions["sn"].value == 1.0
    assert "125.0 mass %" in amounts.findings[0].message


def test_no_finding_where_the_amorphous_part_may_be_zero() -> None:
    amounts = amounts_by_internal_standard(estimate_of(sn=3.99, corundum=1.0), phase="corundum", mass_fraction=0.2)
    assert amounts is not None
    assert amounts.findings == ()
    assert amounts.amorphous.interval95[0] == 0.0 < amounts.amorphous.interval95[1]


def test_a_spike_that_was_not_found_gives_nothing() -> None:
    estimate = estimate_of(sn=3.0, corundum=0.0)
    assert amounts_by_internal_standard(estimate, phase="corundum", mass_fraction=0.2) is None


@given(st.floats(0.01, 100.0), st.floats(0.05, 0.9))
def test_the_unit_of_mass_does_not_matter(unit: float, spike: float) -> None:
    first, second = (
        amounts_by_internal_standard(
            estimate_of(sn=2.0 * scale, ni3sn4=1.0 * scale, corundum=4.0 * scale),
            phase="corundum",
            mass_fraction=spike,
        )
        for scale in (1.0, unit)
    )
    assert first is not None
    assert second is not None
    for name, quantity in first.fractions.items():
        assert second.fractions[name].value == pytest.approx(quantity.value)
        assert second.fractions[name].su == pytest.approx(quantity.su)


def test_intervals_of_fractions_stay_inside() -> None:
    for value in (1e-6, 0.5, 1.0 - 1e-6, 0.0, 1.0):
        low, high = logit_quantity(value, {COUNTING: 0.3**2}).interval95
        assert 0.0 <= low <= value <= high <= 1.0


# --- external standard ------------------------------------------------------------------------------------------------


def test_external_standard_by_hand() -> None:
    # m = K X / mu: with mu of the whole specimen, 60 % crystalline of the same composition.
    estimate = estimate_of(sn=0.4, ni3sn4=0.2)
    items = [reference("sn"), reference("ni3sn4")]
    own = [mixture_attenuation(item.composition, wavelength=COPPER) for item in items]
    mean = (0.4 * own[0] + 0.2 * own[1]) / 0.6
    amounts = amounts_by_external_standard(estimate, items, k=Estimate(mean, 0.03 * mean), wavelength=COPPER)
    assert amounts.fractions["sn"].value == pytest.approx(0.4)
    assert amounts.amorphous.value == pytest.approx(0.4)
    assert amounts.fractions["sn"].su == pytest.approx(0.4 * math.hypot(0.01, 0.03, ATTENUATION_SU), rel=0.02)
    half = amounts_by_external_standard(estimate, items, k=Estimate(mean), wavelength=COPPER, time_ratio=2.0)
    assert half.fractions["sn"].value == pytest.approx(0.2)


def test_composition_of_the_specimen_replaces_that_of_the_phases() -> None:
    estimate, items = estimate_of(sn=0.5), [reference("sn")]
    tin = mixture_attenuation({"Sn": 1.0}, wavelength=COPPER)
    amounts = amounts_by_external_standard(
        estimate, items, k=Estimate(tin), wavelength=COPPER, composition={"Sn": 0.5, "C": 0.5}
    )
    carbon = mixture_attenuation({"C": 1.0}, wavelength=COPPER)
    assert amounts.fractions["sn"].value == pytest.approx(0.5 * (0.5 + 0.5 * carbon / tin))


def test_external_gradient_agrees_with_differences() -> None:
    items = [reference("sn"), reference("corundum")]
    masses = np.array([0.3, 0.4])

    def amount(values: FloatArray) -> float:
        estimate = MassEstimate(("sn", "corundum"), values, {COUNTING: np.zeros((2, 2))}, np.zeros((2, 2)))
        found = amounts_by_external_standard(estimate, items, k=Estimate(200.0), wavelength=COPPER)
        return found.fractions["sn"].value

    step = 1e-5
    gradient = [(amount(masses + step * unit) - amount(masses - step * unit)) / (2.0 * step) for unit in np.eye(2)]
    covariance = np.diag([1e-4, 4e-4])
    estimate = MassEstimate(("sn", "corundum"), masses, {COUNTING: covariance}, np.zeros((2, 2)))
    found = amounts_by_external_standard(estimate, items, k=Estimate(200.0), wavelength=COPPER)
    expected = math.sqrt(gradient @ covariance @ np.array(gradient))
    assert found.fractions["sn"].su_stat == pytest.approx(expected, rel=1e-5)


# --- scans with known amounts -----------------------------------------------------------------------------------------

INSTRUMENT = Instrument(goniometer_radius_mm=217.5, soller_deg=2.5)
FINE = {name: Estimate(0.05, 0.01) for name in ("sn", "ni3sn4", "corundum", "fluorite", "zincite")}
"""Grains that absorb nothing, so that the tests see the standards alone."""


def scan(fractions: dict[str, float], counts: float, seed: int) -> Diffractogram:
    settings = SimulationSettings(
        phases=tuple(fractions), mass_fractions=fractions, counts=counts, two_theta=(24.0, 80.0), step=0.03
    )
    return simulate(settings, np.random.default_rng(seed))[0]


def test_a_spiked_specimen_gives_amorphous_and_absolute_fractions() -> None:
    # 20 % corundum, 40 % tin, 15 % Ni3Sn4, and 25 % that diffracts nothing: 31.25 % of the sample is amorphous.
    seen = {"sn": 0.4 / 0.75, "ni3sn4": 0.15 / 0.75, "corundum": 0.2 / 0.75}
    method = Method(
        phases=tuple(seen),
        instrument=INSTRUMENT,
        particle_size_um=FINE,
        internal_standard=InternalStandard("corundum", 0.2, 0.001),
    )
    analysis = xrdz.analyse(scan(seen, 2e6, 1), method)
    amorphous = analysis.amorphous
    assert amorphous is not None
    assert amorphous.interval95[0] < 0.3125 < amorphous.interval95[1]
    assert amorphous.su < 0.08
    absolute = analysis.phases["sn"].absolute_fraction
    assert absolute is not None
    assert absolute.interval95[0] < 0.5 < absolute.interval95[1]
    # The spike is a crystalline phase that was fitted, but no part of the sample.
    assert analysis.phases["corundum"].mass_fraction.value == pytest.approx(seen["corundum"], rel=0.2)
    assert analysis.phases["corundum"].absolute_fraction is None
    assert Code.AMORPHOUS_SUSPECTED in {finding.code for finding in analysis.findings}
    assert analysis.mass_ratio is not None
    assert (analysis.mass_ratio.numerator, analysis.mass_ratio.denominator) == ("ni3sn4", "sn")
    document = analysis.to_dict()
    assert document["amorphous"]["value"] == pytest.approx(amorphous.value)
    assert [phase["absolute_fraction"] is None for phase in document["phases"]] == [False, False, True]


@lru_cache(maxsize=1)
def pure_analysis() -> Analysis:
    method = Method(phases=("fluorite",), instrument=INSTRUMENT)
    return xrdz.analyse(scan({"fluorite": 1.0}, 1e6, 2), method)


def test_k_factor_is_mass_times_attenuation_of_the_pure_phase() -> None:
    analysis = pure_analysis()
    result = analysis.fit
    assert result is not None
    phase = result.pattern.phases[0]
    attenuation = mixture_attenuation(reference("fluorite").composition, wavelength=COPPER)
    factor = k_factor(analysis)
    assert factor.value == pytest.approx(result.scales[0] * phase.mass_per_scale(result.values) * attenuation)
    assert factor.su is not None
    assert 0.0 < factor.su < 0.05 * factor.value
    part = k_factor(analysis, crystalline=Estimate(0.9, 0.01))
    assert part.value == pytest.approx(factor.value / 0.9)


def test_an_external_standard_weighs_a_mixture_of_the_same_instrument() -> None:
    # The intensity of a phase goes with its mass fraction over the attenuation of the specimen (O'Connor & Raven 1988,
    # equation 3), so the pure phase's counts are scaled by what a specimen of 30 % fluorite in carbon would show.
    pure = pure_analysis()
    fluorite, carbon = reference("fluorite").composition, {"C": 1.0}
    own = mixture_attenuation(fluorite, wavelength=COPPER)
    mean = 0.3 * own + 0.7 * mixture_attenuation(carbon, wavelength=COPPER)
    factor = k_factor(pure)
    diluted = scan({"fluorite": 1.0}, 1e6 * 0.3 * own / mean, 3)
    composition = {element: 0.3 * share for element, share in fluorite.items()} | {"C": 0.7}
    method = Method(
        phases=("fluorite",),
        instrument=INSTRUMENT,
        external_standard=ExternalStandard(factor.value, factor.su or 0.0, composition=composition),
    )
    analysis = xrdz.analyse(diluted, method)
    absolute = analysis.phases["fluorite"].absolute_fraction
    assert absolute is not None
    assert absolute.interval95[0] < 0.3 < absolute.interval95[1]
    assert absolute.su < 0.03
    assert analysis.amorphous is not None
    assert analysis.amorphous.value == pytest.approx(1.0 - absolute.value)


def test_k_factor_wants_the_fit_of_one_pure_phase() -> None:
    with pytest.raises(InputError, match="holds no fit"):
        k_factor(replace(pure_analysis(), fit=None))
    phases = [SimpleNamespace(id="sn"), SimpleNamespace(id="cu")]
    mixture = SimpleNamespace(fit=SimpleNamespace(pattern=SimpleNamespace(phases=phases)))
    with pytest.raises(InputError, match="found sn, cu"):
        k_factor(cast(Analysis, mixture))


# --- humps ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-10.0, 10.0), min_size=3, max_size=40))
def test_the_hull_is_convex_and_below(values: list[float]) -> None:
    x, y = np.arange(len(values), dtype=np.float64), np.array(values)
    hull = lower_hull(x, y)
    assert np.all(hull <= y + 1e-9)
    assert np.all(np.diff(hull, 2) >= -1e-9)
    assert (hull[0], hull[-1]) == (y[0], y[-1])


def background_only(background: FloatArray, peaks: float) -> FitResult:
    """Return as much of a fit as `hump_finding` looks at."""
    x = np.linspace(20.0, 100.0, 1601)
    columns = np.vstack((np.ones_like(x), x / 100.0))
    model = background + peaks * np.exp(-((x - 50.0) ** 2))
    pattern = SimpleNamespace(two_theta=x, background_columns=columns, phases=(1,), n_linear=3)
    result = SimpleNamespace(pattern=pattern, background=background, model=model, covariance=np.eye(3) * 1e-2)
    return cast(FitResult, result)


def test_a_hump_is_found_and_a_falling_background_is_none() -> None:
    x = np.linspace(20.0, 100.0, 1601)
    falling = 500.0 * np.exp(-(x - 20.0) / 15.0) + 100.0 + 0.01 * (x - 60.0) ** 2
    assert hump_finding(background_only(falling, 5000.0)) is None
    hump = 160.0 * np.exp(-(((x - 42.0) / 8.0) ** 2))
    found = hump_finding(background_only(falling + hump, 5000.0))
    assert found is not None
    assert found.code is Code.AMORPHOUS_SUSPECTED
    assert float(found.where) == pytest.approx(42.0, abs=1.5)
    # The same hump under fifty times the peaks is no matter.
    assert hump_finding(background_only(falling + hump, 250000.0)) is None


# --- nickel -----------------------------------------------------------------------------------------------------------


def test_nickel_of_the_alloy_by_hand() -> None:
    share = 3 * 58.6934 / (3 * 58.6934 + 4 * 118.710)
    items = [reference("sn"), reference("ni3sn4")]
    nickel = alloy_nickel(estimate_of(sn=1.0, ni3sn4=2.0), items, {})
    assert nickel is not None
    assert nickel.value == pytest.approx(share * 2.0 / 3.0, rel=1e-4)
    # Ni = w Z / (1 + Z): d ln Ni = d ln Z / (1 + Z), and Z is known to sqrt(2) %.
    assert nickel.su == pytest.approx(nickel.value / 3.0 * 0.01 * math.sqrt(2.0), rel=1e-4)
    assert nickel.interval95[0] < nickel.value < nickel.interval95[1]


def test_carbon_and_oxygen_are_no_part_of_the_alloy() -> None:
    items = [reference(name) for name in ("sn", "ni3sn4", "graphite", "sno2")]
    nickel = alloy_nickel(estimate_of(sn=1.0, ni3sn4=1.0, graphite=5.0, sno2=1.0), items, {})
    assert nickel is not None
    in_compound, tin_in_oxide = items[1].composition["Ni"], items[3].composition["Sn"]
    assert nickel.value == pytest.approx(in_compound / (2.0 + tin_in_oxide))


def test_a_weak_phase_carries_the_interval_along() -> None:
    items = [reference("sn"), reference("ni3sn4")]
    estimate = estimate_of(sn=1.0, ni3sn4=0.01)
    weak = WeakPhase(1, 2.0, False, np.array([1.0, 0.0]), np.array([1.0, 0.03]))
    nickel = alloy_nickel(estimate, items, {1: weak})
    assert nickel is not None
    assert nickel.interval95[0] == 0.0
    assert nickel.interval95[1] == pytest.approx(items[1].composition["Ni"] * 0.03 / 1.03, rel=1e-6)


def test_no_nickel_without_tin_or_nickel() -> None:
    assert alloy_nickel(estimate_of(sn=1.0), [reference("sn")], {}) is None
    assert alloy_nickel(estimate_of(ni=1.0), [reference("ni")], {}) is None
    assert alloy_nickel(estimate_of(sn=0.0, ni3sn4=0.0), [reference("sn"), reference("ni3sn4")], {}) is None
