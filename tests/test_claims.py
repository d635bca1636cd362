"""Verdicts: the decision rules on one value, and the tree of the ten claims."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from xrdz.claims import (
    CLAIMS,
    ClaimResult,
    all_of,
    any_of,
    check_claims,
    check_sheet,
    claimed_ratio,
    joint_probability,
    parse_requirement,
    to_text,
)
from xrdz.decision import COVERAGE_FACTOR_95, DOMAINS, TRANSFORMS, Measured, Space, Verdict, conformity, measured_from
from xrdz.errors import InputError
from xrdz.features import FEATURES, NICKEL_IN_NI3SN4, FeatureCheck, nickel_from_ratio, ratio_from_nickel
from xrdz.findings import Code, severe, warning
from xrdz.method import Decision
from xrdz.sample_sheet import Sample, nickel_by_chemistry

LIMITS = (0.2, 3.0)
DRAWS = 60_000
MONTE_CARLO_TOLERANCE = 0.01  # five standard errors of a share of 60 000 draws
GOOD_ELECTRODE = Sample(
    "a.xy", carbon_present=True, carbon_ratio_s=1.0, powdered=True, porosity_percent=50.0, apparent_density_g_cm3=5.0
)

ratios = st.floats(0.01, 50.0)
spreads = st.floats(0.005, 0.5)
rules = st.sampled_from(["simple", "guard-band", "non-binary"])


def ratio(value: float, below: float = 0.05, above: float | None = None) -> Measured:
    """Return Z with standard uncertainties of ln Z on its two sides."""
    above = below if above is None else above
    low, high = (value * math.exp(sign * COVERAGE_FACTOR_95 * u) for sign, u in ((-1, below), (1, above)))
    return Measured(value, value * (below + above) / 2.0, (low, high), "ln")


def draws(measured: Measured, extra: float = 0.0, seed: int = 7) -> list[float]:
    """Return samples of the distribution, built here from its definition and not through its cdf."""
    generator = random.Random(seed)
    forward, backward, slope = TRANSFORMS[measured.space]
    if measured.limit is not None:
        edge = measured.interval95[1 if measured.limit == "upper" else 0]
        edge *= math.exp(COVERAGE_FACTOR_95 * extra * (1 if measured.limit == "upper" else -1))
        half = [abs(generator.gauss()) / COVERAGE_FACTOR_95 for _ in range(DRAWS)]
        return [edge * x if measured.limit == "upper" else edge / x for x in half]
    if measured.interval95 is None:
        spread = [measured.su * slope(measured.value)] * 2
    else:
        spread = [abs(forward(end) - forward(measured.value)) / COVERAGE_FACTOR_95 for end in measured.interval95]
    spread = [math.hypot(s, extra) for s in spread]
    normal = (generator.gauss() for _ in range(DRAWS))
    return [backward(forward(measured.value) + z * spread[z > 0.0]) for z in normal]


def share_within(samples: list[float], limits: tuple[float, float] = LIMITS) -> float:
    return sum(limits[0] <= x <= limits[1] for x in samples) / len(samples)


def verdict_of(results: tuple[ClaimResult, ...], claim: int) -> Verdict:
    return results[claim - 1].verdict


# One value


@pytest.mark.parametrize(
    ("measured", "extra"),
    [
        (ratio(0.21, 0.05), 0.0),
        (ratio(0.21, 0.03, 0.20), 0.0),
        (ratio(2.8, 0.20, 0.03), 0.05),
        (ratio(1.0, 0.6), 0.0),
        (Measured(2.9, 0.3, space="ln"), 0.0),
        (Measured(2.9, None, (2.0, 3.3), "ln"), 0.1),
        (Measured(0.3, 0.05, space="linear"), 0.0),
        (Measured(0.4, 0.15, space="logit"), 0.0),
        (Measured(0.25, None, (0.15, 0.6), "logit"), 0.0),
        (Measured(0.5, None, (None, 0.5), "ln", "upper"), 0.0),
        (Measured(0.5, None, (None, 0.5), "ln", "upper"), 0.1),
        (Measured(2.0, None, (2.0, None), "ln", "lower"), 0.0),
    ],
)
def test_the_probability_of_conformity_is_that_of_a_monte_carlo(measured: Measured, extra: float) -> None:
    probability = conformity(measured, LIMITS, Decision(), extra=extra).probability
    assert probability == pytest.approx(share_within(draws(measured, extra)), abs=MONTE_CARLO_TOLERANCE)


@given(value=ratios, below=spreads, above=spreads, coverage=st.floats(0.5, 0.999), extra=st.floats(0.0, 0.2))
def test_the_coverage_interval_holds_its_coverage(
    value: float, below: float, above: float, coverage: float, extra: float
) -> None:
    measured = ratio(value, below, above)
    low, high = measured.coverage_interval(coverage, extra)
    assert low < value < high
    assert measured.probability(low, high, extra) == pytest.approx(coverage, abs=1e-9)  # rounding of erf and exp
    assert measured.cdf(low, extra) == pytest.approx((1.0 - coverage) / 2.0, abs=1e-9)


def test_the_95_percent_interval_is_its_own_coverage_interval() -> None:
    for measured in (ratio(0.7, 0.1, 0.3), Measured(0.3, None, (0.1, 0.4), "logit"), Measured(5.0, None, (4.0, 7.0))):
        assert measured.coverage_interval(0.95) == pytest.approx(measured.interval95, rel=1e-12)


@pytest.mark.parametrize("edge", [0.0, None])
def test_an_interval_that_reaches_zero_is_normal_in_the_ratio_below_its_value(edge: float | None) -> None:
    measured = Measured(0.4, None, (edge, 0.9), "ln")
    assert measured.cdf(0.2) == pytest.approx(0.5 * math.erfc(0.5 * COVERAGE_FACTOR_95 / math.sqrt(2.0)))
    assert measured.coverage_interval(0.95)[0] == pytest.approx(0.0, abs=1e-12)
    assert conformity(measured, LIMITS, Decision()).verdict is Verdict.UNDECIDED


def test_an_interval_without_upper_end_is_normal_in_the_reciprocal() -> None:
    upward = Measured(2.0, None, (1.0, None), "ln")
    downward = upward.reciprocal()
    assert downward == Measured(0.5, None, (None, 1.0), "ln")
    for x in (0.5, 1.5, 2.5, 8.0):
        assert upward.cdf(x) == pytest.approx(1.0 - downward.cdf(1.0 / x))
    assert upward.coverage_interval(0.95)[1] == math.inf


@given(value=ratios, spread=spreads, factor=st.floats(1.01, 5.0))
def test_probability_is_monotone_on_each_side_of_the_middle_of_the_limits(
    value: float, spread: float, factor: float
) -> None:
    middle = math.sqrt(LIMITS[0] * LIMITS[1])
    outward = factor if value >= middle else 1.0 / factor
    nearer = conformity(ratio(value, spread), LIMITS, Decision()).probability
    farther = conformity(ratio(value * outward, spread), LIMITS, Decision()).probability
    assert nearer is not None
    assert farther is not None
    assert farther <= nearer + 1e-12


@given(value=ratios, below=spreads, above=spreads, rule=rules)
def test_mirrored_values_have_the_same_verdict_and_risk(value: float, below: float, above: float, rule: str) -> None:
    """ln Z reflected about the middle of the limits."""
    mirrored = LIMITS[0] * LIMITS[1] / value
    assume(all(abs(math.log(value / limit)) > 1e-9 for limit in LIMITS))
    one = conformity(ratio(value, below, above), LIMITS, Decision(rule))
    other = conformity(ratio(mirrored, above, below), LIMITS, Decision(rule))
    assert one.verdict is other.verdict
    assert one.probability == pytest.approx(other.probability, abs=1e-9)


@given(value=ratios, below=spreads, above=spreads, coverage=st.floats(0.5, 0.99), extra=st.floats(0.0, 0.3))
def test_the_three_rules_agree_with_their_definitions(
    value: float, below: float, above: float, coverage: float, extra: float
) -> None:
    measured = ratio(value, below, above)
    low, high = measured.coverage_interval(coverage, extra)
    within = LIMITS[0] <= low and high <= LIMITS[1]
    outside = high < LIMITS[0] or low > LIMITS[1]
    by_value = LIMITS[0] <= value <= LIMITS[1]
    found = {
        rule: conformity(measured, LIMITS, Decision(rule, coverage), extra=extra).verdict
        for rule in ("simple", "guard-band", "non-binary")
    }
    assert found["simple"] is (Verdict.MET if by_value else Verdict.NOT_MET)
    assert found["guard-band"] is (Verdict.MET if within else Verdict.NOT_MET)
    assert found["non-binary"] is (Verdict.MET if within else Verdict.NOT_MET if outside else Verdict.UNDECIDED)


def test_the_guard_band_is_the_expanded_uncertainty() -> None:
    """w = U = k u in ln Z: the acceptance limit is 0.2 exp(k u) with k = 1.96 at 95 %."""
    u = 0.05
    acceptance_limit = 0.2 * math.exp(1.959963984540054 * u)
    for value, expected in ((acceptance_limit * 1.0001, Verdict.MET), (acceptance_limit * 0.9999, Verdict.NOT_MET)):
        assert conformity(ratio(value, u), LIMITS, Decision("guard-band")).verdict is expected


def test_the_laboratorys_reproducibility_joins_in_quadrature() -> None:
    wide = conformity(ratio(0.21, 0.03), LIMITS, Decision(), extra=0.04)
    assert wide.probability == pytest.approx(conformity(ratio(0.21, 0.05), LIMITS, Decision()).probability)


def test_a_value_without_uncertainty_is_only_compared() -> None:
    for value, expected in ((0.2, Verdict.MET), (3.0, Verdict.MET), (3.01, Verdict.NOT_MET)):
        found = conformity(Measured(value), LIMITS, Decision())
        assert found.verdict is expected
        assert found.probability is None
        assert "no uncertainty is stated" in found.rule


@pytest.mark.parametrize(
    ("measured", "rule", "expected"),
    [
        (Measured(0.1, None, (None, 0.1), "ln", "upper"), "non-binary", Verdict.NOT_MET),
        (Measured(0.5, None, (None, 0.5), "ln", "upper"), "non-binary", Verdict.UNDECIDED),
        (Measured(0.5, None, (None, 0.5), "ln", "upper"), "simple", Verdict.UNDECIDED),
        (Measured(0.5, None, (None, 0.5), "ln", "upper"), "guard-band", Verdict.NOT_MET),
        (Measured(4.0, None, (4.0, None), "ln", "lower"), "non-binary", Verdict.NOT_MET),
        (Measured(2.0, None, (2.0, None), "ln", "lower"), "non-binary", Verdict.UNDECIDED),
    ],
)
def test_a_limit_never_conforms_and_fails_only_beyond_the_tolerance(
    measured: Measured, rule: str, expected: Verdict
) -> None:
    assert conformity(measured, LIMITS, Decision(rule)).verdict is expected


def test_a_limit_holds_95_percent_and_its_reciprocal_is_the_other_limit() -> None:
    upper = Measured(0.3, None, (0.0, 0.3), "ln", "upper")
    assert upper.cdf(0.3) == pytest.approx(0.95)
    lower = upper.reciprocal()
    assert lower.limit == "lower"
    assert lower.cdf(1.0 / 0.3) == pytest.approx(0.05)


@dataclass(frozen=True)
class Quantity:
    """A stand-in for the quantities of the analysis."""

    value: float | None
    su: float | None
    interval95: tuple[float | None, float | None] | None
    limit: str | None = None


@pytest.mark.parametrize(
    ("quantity", "space", "expected"),
    [
        (Quantity(1.0, 0.1, (0.8, 1.2)), "ln", Measured(1.0, 0.1, (0.8, 1.2), "ln")),
        (Quantity(1.0, 0.1, (0.8, math.inf)), "ln", Measured(1.0, 0.1, (0.8, None), "ln")),
        (Quantity(0.0, math.nan, (0.0, 0.3)), "ln", Measured(0.3, None, (0.0, 0.3), "ln", "upper")),
        (Quantity(math.inf, math.nan, (5.0, math.inf)), "ln", Measured(5.0, None, (5.0, None), "ln", "lower")),
        (Quantity(None, None, (5.0, None), "lower"), "ln", Measured(5.0, None, (5.0, None), "ln", "lower")),
        (Quantity(0.1, 0.1, (0.0, 0.3), "upper"), "ln", Measured(0.1, 0.1, (0.0, 0.3), "ln", "upper")),
        (Quantity(1.0, 0.1, None), "logit", Measured(1.0, 0.1, None, "linear")),
        (Quantity(None, None, None), "ln", None),
        (Quantity(math.nan, math.nan, (math.nan, math.nan)), "ln", None),
        (Quantity(0.0, None, None), "ln", None),
        (Quantity(math.inf, None, (0.0, math.inf)), "ln", None),
    ],
)
def test_quantities_of_the_analysis_are_taken_as_they_are(
    quantity: Quantity, space: Space, expected: Measured | None
) -> None:
    assert measured_from(quantity, space) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        {"value": math.nan},
        {"value": 1.0, "su": -0.1},
        {"value": 1.0, "su": math.nan},
        {"value": 1.0, "interval95": (1.1, 1.2)},
        {"value": -1.0, "space": "ln"},
        {"value": 0.0, "space": "ln", "limit": "upper"},
        {"value": 1.0, "interval95": (0.5, None)},
        {"value": 0.5, "interval95": (0.4, 0.6), "space": "logit", "limit": "upper"},
    ],
)
def test_an_impossible_value_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected"):
        Measured(**arguments)  # type: ignore[arg-type]


@given(space=st.sampled_from(["linear", "ln", "logit", "reciprocal"]), x=st.floats(0.05, 0.95))
def test_transforms_and_their_inverse_and_slope_belong_together(space: str, x: float) -> None:
    forward, backward, slope = TRANSFORMS[space]
    step = 1e-6
    assert backward(forward(x)) == pytest.approx(x, rel=1e-12)
    central = (forward(x + step) - forward(x - step)) / (2.0 * step)
    assert slope(x) == pytest.approx(central, rel=1e-6)  # second-order error of the central difference
    assert DOMAINS.get(space, (0.0, math.inf))[0] < x


# The ten claims


def test_the_table_is_the_tree_of_the_document() -> None:
    parents = {claim.number: claim.parents for claim in CLAIMS}
    assert parents == {
        1: (), 2: (1,), 3: (1, 2), 4: (1, 2), 5: (1, 2), 6: (3,), 7: (4,), 8: (1, 2), 9: (3,), 10: (4,)
    }  # fmt: skip
    assert FEATURES["mass_ratio"].limits == (0.2, 3.0)
    assert FEATURES["nickel"].limits == (0.05, 0.25)
    assert FEATURES["carbon_ratio"].limits == (0.05, 3.5)
    assert FEATURES["porosity"].limits == (0.30, 0.75)
    assert FEATURES["density"].limits == (2.5, 8.3)
    with pytest.raises(ValueError, match="no limits"):
        FEATURES["carbon"].range  # noqa: B018


@pytest.mark.parametrize(("nickel", "z"), [(0.05, 0.227), (0.10, 0.586), (0.15, 1.245), (0.20, 2.836), (0.25, 12.19)])
def test_nickel_and_the_mass_ratio_are_one_variable(nickel: float, z: float) -> None:
    """Pairs of the source document, which prints four digits; 12.19 is steep, hence the tolerance."""
    assert ratio_from_nickel(nickel) == pytest.approx(z, rel=2e-3)
    assert nickel_from_ratio(ratio_from_nickel(nickel)) == pytest.approx(nickel)
    assert ratio_from_nickel(0.28) == math.inf
    assert nickel_from_ratio(math.inf) == pytest.approx(NICKEL_IN_NI3SN4)


def test_a_good_electrode_meets_every_claim() -> None:
    results = check_claims(
        mass_ratio=ratio(1.0), both_detected=True, sample=GOOD_ELECTRODE, decision=Decision(method_u_ln=0.05)
    )
    assert [result.verdict for result in results] == [Verdict.MET] * 10
    assert results[1].value == 1.0
    assert results[1].limits == (0.2, 3.0)
    assert not any("provisional" in result.why for result in results)
    assert results[0].value == pytest.approx(nickel_from_ratio(1.0))


def test_without_the_laboratorys_reproducibility_verdicts_are_provisional() -> None:
    results = check_claims(mass_ratio=ratio(1.0), both_detected=True, sample=GOOD_ELECTRODE)
    assert all(result.verdict is Verdict.MET and "provisional" in result.why for result in results)
    assert results[1].provisional


verdicts = st.sampled_from(list(Verdict))


@given(first=verdicts, second=verdicts, third=verdicts)
def test_combining_verdicts_is_what_the_words_say(first: Verdict, second: Verdict, third: Verdict) -> None:
    several = (first, second, third)
    assert (all_of(several) is Verdict.MET) == all(verdict is Verdict.MET for verdict in several)
    assert (all_of(several) is Verdict.NOT_MET) == any(verdict is Verdict.NOT_MET for verdict in several)
    assert (any_of(several) is Verdict.MET) == any(verdict is Verdict.MET for verdict in several)
    assert (any_of(several) is Verdict.NOT_MET) == all(verdict is Verdict.NOT_MET for verdict in several)
    assert all_of(several) is all_of(reversed(several)) is all_of((all_of((first, second)), third))
    assert any_of(several) is any_of(reversed(several)) is any_of((any_of((first, second)), third))


optional = st.none() | st.booleans()
samples = st.builds(
    Sample,
    file=st.just("a.xy"),
    ni_mass_percent=st.none() | st.floats(0.1, 99.9),
    ni_u=st.none() | st.floats(0.01, 5.0),
    carbon_present=optional,
    carbon_ratio_s=st.none() | st.floats(0.0, 10.0),
    powdered=optional,
    porosity_percent=st.none() | st.floats(0.0, 100.0),
    apparent_density_g_cm3=st.none() | st.floats(0.0, 12.0),
)


@given(value=ratios, spread=spreads, sample=samples, rule=rules, detected=optional, graphite=st.booleans())
def test_a_dependent_claim_is_met_only_with_one_of_its_parents(
    value: float, spread: float, sample: Sample, rule: str, detected: bool | None, graphite: bool
) -> None:
    decision = Decision(rule, method_u_ln=0.05)
    for results in (
        check_claims(
            mass_ratio=ratio(value, spread) if detected else None,
            both_detected=detected,
            sample=sample,
            graphite_detected=graphite,
            decision=decision,
        ),
        check_sheet(sample, decision),
    ):
        found = {result.claim: result for result in results}
        assert list(found) == list(range(1, 11))
        for claim in CLAIMS:
            parents = [found[number].verdict for number in claim.parents]
            if parents and found[claim.number].verdict is Verdict.MET:
                assert Verdict.MET in parents
            if parents and set(parents) == {Verdict.NOT_MET}:
                assert found[claim.number].verdict is Verdict.NOT_MET
        for result in results:
            assert result.probability is None or 0.0 <= result.probability <= 1.0
            assert result.joint_probability is None or 0.0 <= result.joint_probability <= 1.0
            assert result.consumer_risk is None or result.producer_risk is None
            assert {"claim", "verdict", "probability", "value", "limits", "rule", "why"} <= set(result.to_dict())


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({"carbon_present": False}, {3, 4, 6, 7, 9, 10}),
        ({"carbon_ratio_s": 3.6}, {4, 7, 10}),
        ({"powdered": False}, {5, 6, 7}),
        ({"porosity_percent": 29.0}, {5, 6, 7}),
        ({"apparent_density_g_cm3": 8.4}, {8, 9, 10}),
    ],
)
def test_a_failed_feature_fails_its_claim_and_the_claims_below(change: dict[str, object], lost: set[int]) -> None:
    sample = Sample(**{**GOOD_ELECTRODE.__dict__, **change})
    results = check_claims(mass_ratio=ratio(1.0), both_detected=True, sample=sample)
    assert {result.claim for result in results if result.verdict is Verdict.NOT_MET} == lost
    assert {result.claim for result in results if result.verdict is Verdict.MET} == set(range(1, 11)) - lost


def test_without_a_sample_sheet_the_electrode_is_not_assessed() -> None:
    results = check_claims(mass_ratio=ratio(1.0), both_detected=True)
    assert [verdict_of(results, claim) for claim in (1, 2)] == [Verdict.MET] * 2
    assert {verdict_of(results, claim) for claim in range(3, 11)} == {Verdict.NOT_ASSESSED}


def test_detected_graphite_is_evidence_of_carbon_and_contradiction_is_undecided() -> None:
    seen = check_claims(mass_ratio=ratio(1.0), both_detected=True, graphite_detected=True)
    assert verdict_of(seen, 3) is Verdict.MET
    denied = Sample("a.xy", carbon_present=False)
    against = check_claims(mass_ratio=ratio(1.0), both_detected=True, graphite_detected=True, sample=denied)
    assert verdict_of(against, 3) is Verdict.UNDECIDED


def test_other_phases_leave_everything_not_assessed() -> None:
    findings = [severe(Code.POOR_FIT, "Rwp 40 %")]
    results = check_claims(mass_ratio=None, both_detected=None, findings=findings)
    assert {result.verdict for result in results} == {Verdict.NOT_ASSESSED}


@pytest.mark.parametrize("z", [0.1, 1.0, 5.0, None])
def test_a_severe_finding_withdraws_every_verdict_that_rests_on_the_scan(z: float | None) -> None:
    results = check_claims(
        mass_ratio=None if z is None else ratio(z),
        both_detected=z is not None,
        sample=GOOD_ELECTRODE,
        findings=[severe(Code.POOR_FIT, "Rwp 40 %"), warning(Code.AT_BOUND, "x")],
    )
    assert {result.verdict for result in results} == {Verdict.UNDECIDED}
    assert "POOR_FIT: Rwp 40 %" in results[1].why
    assert results[1].probability is None
    assert results[1].value == z


def test_a_severe_finding_leaves_chemistry_and_the_sheet_alone() -> None:
    sample = Sample("a.xy", ni_mass_percent=2.0, ni_u=0.1, carbon_present=True)
    results = check_claims(
        mass_ratio=ratio(1.0), both_detected=True, sample=sample, findings=[severe(Code.POOR_FIT, "Rwp 40 %")]
    )
    assert verdict_of(results, 1) is Verdict.NOT_MET
    assert "POOR_FIT" in results[0].why  # the presence of both phases is withheld


def test_a_phase_below_its_detection_limit() -> None:
    far = Measured(0.01, None, (0.0, 0.01), "ln", "upper")
    near = Measured(0.5, None, (0.0, 0.5), "ln", "upper")
    assert verdict_of(check_claims(mass_ratio=far, both_detected=False), 2) is Verdict.NOT_MET
    unsure = check_claims(mass_ratio=near, both_detected=False)
    assert verdict_of(unsure, 1) is Verdict.UNDECIDED
    assert verdict_of(unsure, 2) is Verdict.UNDECIDED
    strict = check_claims(mass_ratio=near, both_detected=False, decision=Decision("guard-band"))
    assert verdict_of(strict, 1) is Verdict.NOT_MET


@pytest.mark.parametrize("value", [0.205, 0.225, 0.24, 1.0, 2.9, 3.2, 12.0])
@pytest.mark.parametrize("extra", [0.0, 0.08])
def test_joint_probability_and_risks_are_those_of_a_monte_carlo(value: float, extra: float) -> None:
    """Nickel and Z are one variable: claim 2 holds from nickel 5 % (Z 0.227) to Z 3."""
    z = ratio(value, 0.04, 0.06)
    results = check_claims(mass_ratio=z, both_detected=True, decision=Decision("simple", method_u_ln=extra))
    samples = draws(z, extra)
    nickel = [nickel_from_ratio(x) for x in samples]
    first = sum(0.05 <= ni <= 0.25 for ni in nickel) / DRAWS
    both = sum(0.05 <= ni <= 0.25 and 0.2 <= x <= 3.0 for ni, x in zip(nickel, samples, strict=True)) / DRAWS
    assert results[0].probability == pytest.approx(first, abs=MONTE_CARLO_TOLERANCE)
    assert results[1].probability == pytest.approx(share_within(samples), abs=MONTE_CARLO_TOLERANCE)
    assert results[1].joint_probability == pytest.approx(both, abs=MONTE_CARLO_TOLERANCE)
    risk = results[1].consumer_risk if results[1].verdict is Verdict.MET else results[1].producer_risk
    wrong = 1.0 - both if results[1].verdict is Verdict.MET else both
    assert risk == pytest.approx(wrong, abs=MONTE_CARLO_TOLERANCE)
    assert (results[1].consumer_risk is None) != (results[1].producer_risk is None)


def test_an_undecided_claim_has_neither_risk() -> None:
    result = check_claims(mass_ratio=ratio(3.0), both_detected=True)[1]
    assert result.verdict is Verdict.UNDECIDED
    assert result.consumer_risk is None
    assert result.producer_risk is None
    assert result.probability == pytest.approx(0.5, abs=1e-6)  # the value stands on the limit


def test_nickel_of_other_phases_replaces_nickel_from_the_ratio() -> None:
    """A ratio of 0.2 alone means 4.5 % nickel; unalloyed nickel beside it lifts the alloy to 8 %."""
    without = check_claims(mass_ratio=ratio(0.21, 0.01), both_detected=True)
    assert verdict_of(without, 1) is Verdict.NOT_MET
    assert verdict_of(without, 2) is Verdict.NOT_MET
    beside = check_claims(mass_ratio=ratio(0.21, 0.01), both_detected=True, nickel=Measured(0.08, 0.004, space="logit"))
    assert verdict_of(beside, 1) is Verdict.MET
    assert verdict_of(beside, 2) is Verdict.MET


def test_the_reproducibility_of_ln_z_reaches_nickel_the_same_way_on_both_paths() -> None:
    z, u_ln = ratio(0.25, 0.0001), 0.1
    through = check_claims(mass_ratio=z, both_detected=True, decision=Decision(method_u_ln=u_ln))[0]
    nickel = Measured(nickel_from_ratio(0.25), 1e-9, space="logit")
    direct = check_claims(mass_ratio=z, both_detected=True, nickel=nickel, decision=Decision(method_u_ln=u_ln))[0]
    assert direct.probability == pytest.approx(through.probability, abs=0.01)  # linearised, at 1 u from the limit


def test_chemistry_replaces_nickel_of_the_phases() -> None:
    sample = Sample("a.xy", ni_mass_percent=3.0, sn_mass_percent=97.0, ni_u=0.2)
    results = check_claims(mass_ratio=ratio(1.0), both_detected=True, sample=sample)
    assert results[0].value == pytest.approx(0.03)
    assert verdict_of(results, 1) is Verdict.NOT_MET
    assert verdict_of(results, 2) is Verdict.NOT_MET


def test_a_ratio_stated_the_other_way_round_gives_the_same_verdict() -> None:
    assert claimed_ratio("ni3sn4", "sn", ratio(2.5)) == ratio(2.5)
    turned = claimed_ratio("sn", "ni3sn4", ratio(2.5, 0.05, 0.1).reciprocal())
    assert turned is not None
    assert turned.coverage_interval(0.95) == pytest.approx(ratio(2.5, 0.05, 0.1).coverage_interval(0.95))
    assert claimed_ratio("zincite", "corundum", ratio(2.5)) is None
    assert claimed_ratio("ni3sn4", "sn", None) is None


def test_the_sheet_alone_infers_the_ratio_from_nickel_and_says_so() -> None:
    results = check_sheet(Sample("a.xy", ni_mass_percent=15.0, ni_u=0.2))
    assert results[1].verdict is Verdict.MET
    assert results[1].value == pytest.approx(ratio_from_nickel(0.15))
    assert "provisional: inferred" in results[1].why
    exact = check_sheet(Sample("a.xy", ni_mass_percent=15.0))
    assert exact[1].verdict is Verdict.MET
    assert exact[1].probability is None


@pytest.mark.parametrize(
    ("percent", "expected"), [(0.0, Verdict.NOT_MET), (3.0, Verdict.NOT_MET), (28.0, Verdict.NOT_MET)]
)
def test_the_sheet_alone_outside_the_alloy(percent: float, expected: Verdict) -> None:
    assert {result.verdict for result in check_sheet(Sample("a.xy", ni_mass_percent=percent, ni_u=0.1))} == {expected}


def test_the_sheet_alone_without_nickel_is_not_assessed() -> None:
    assert {result.verdict for result in check_sheet(Sample("a.xy"))} == {Verdict.NOT_ASSESSED}


def test_tin_alone_gives_nickel_as_the_rest() -> None:
    assert check_sheet(Sample("a.xy", sn_mass_percent=85.0))[0].value == pytest.approx(0.15)


def test_stated_uncertainties_of_the_electrode_decide() -> None:
    """Values 1.96 su from the upper limit hold with 97.5 %; a ratio in ln, a fraction in logit, a density as it is."""
    sure = replace(
        GOOD_ELECTRODE,
        carbon_ratio_s=3.5 / math.exp(1.96 * 0.05),
        carbon_ratio_s_u=0.05 * 3.5 / math.exp(1.96 * 0.05),
        apparent_density_g_cm3=8.3 - 1.96 * 0.2,
        apparent_density_u=0.2,
        porosity_percent=60.0,
        porosity_u=10.0,
    )
    results = check_claims(mass_ratio=ratio(1.0), both_detected=True, sample=sure, decision=Decision(method_u_ln=0.05))
    assert results[3].probability == pytest.approx(0.975, abs=1e-4)
    assert results[7].probability == pytest.approx(0.975, abs=1e-4)
    spread = 0.1 / (0.6 * 0.4)
    expected = NormalDist().cdf((math.log(3.0) - math.log(1.5)) / spread)
    expected -= NormalDist().cdf((math.log(0.3 / 0.7) - math.log(1.5)) / spread)
    assert results[4].probability == pytest.approx(expected)
    assert results[4].verdict is Verdict.UNDECIDED
    assert results[3].consumer_risk == pytest.approx(0.025, abs=1e-3)
    assert results[6].joint_probability == pytest.approx(
        results[3].joint_probability * results[4].probability, rel=1e-3
    )


def test_both_chemical_uncertainties_make_that_of_nickel() -> None:
    sample = Sample("a.xy", ni_mass_percent=14.0, sn_mass_percent=84.0, ni_u=0.3, sn_u=0.4)
    value, su = nickel_by_chemistry(sample) or (0.0, None)
    random = np.random.default_rng(3)
    ni, sn = random.normal(14.0, 0.3, 200_000), random.normal(84.0, 0.4, 200_000)
    assert value == pytest.approx(14.0 / 98.0)
    assert su == pytest.approx(np.std(ni / (ni + sn)), rel=0.01)
    assert nickel_by_chemistry(Sample("a.xy", sn_mass_percent=85.0, sn_u=0.5)) == pytest.approx((0.15, 0.005))


def test_without_either_phase_nothing_is_known_of_their_ratio() -> None:
    results = check_claims(mass_ratio=None, both_detected=False)
    assert [result.verdict for result in results[:2]] == [Verdict.UNDECIDED] * 2
    assert "not both detected" in results[1].why
    assert results[1].value is None


def test_what_the_sheet_refutes_is_not_provisional() -> None:
    results = check_claims(mass_ratio=ratio(1.0), both_detected=True, sample=replace(GOOD_ELECTRODE, powdered=False))
    assert [result.claim for result in results if result.provisional] == [1, 2, 3, 4, 8, 9, 10]


def test_joint_probability_of_facts_and_independent_quantities() -> None:
    half = FeatureCheck("density", Verdict.UNDECIDED, "", probability=0.5, span=(0.0, 0.5))
    stated = FeatureCheck("carbon", Verdict.MET, "")
    assert joint_probability([half, half, stated]) == 0.25
    assert joint_probability([half, FeatureCheck("carbon", Verdict.NOT_MET, "")]) == 0.0
    assert joint_probability([half, FeatureCheck("carbon", Verdict.NOT_ASSESSED, "")]) is None
    assert joint_probability([half, FeatureCheck("porosity", Verdict.MET, "")]) is None  # a value without uncertainty


def test_requirements_are_claims_by_name() -> None:
    assert parse_requirement("claim2") == (2,)
    assert parse_requirement("claim1, Claim10") == (1, 10)
    for text in ("2", "claim11", "claim2,", ""):
        with pytest.raises(InputError, match="such as claim2"):
            parse_requirement(text)


def test_the_text_has_a_line_per_claim() -> None:
    lines = to_text(check_claims(mass_ratio=ratio(1.0), both_detected=True)).splitlines()
    assert len(lines) == 10
    assert lines[1].startswith("claim 2  met")
    assert "0.2 to 3" in lines[1]
    assert "p > 0.999" in lines[1]
    narrow = to_text(check_claims(mass_ratio=ratio(1.0), both_detected=True, sample=GOOD_ELECTRODE), 80).splitlines()
    assert max(map(len, narrow)) <= 80
    assert [line.split()[1] for line in narrow if line.startswith("claim")] == [str(n) for n in range(1, 11)]
