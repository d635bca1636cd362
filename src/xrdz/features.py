"""The features that claims require, and how each is checked against a scan and the sample sheet.

Z = m(Ni3Sn4) / m(Sn). If all nickel sits in Ni3Sn4 (nickel fraction w = 0.2705), nickel and Z are one variable:

    Ni = w Z / (1 + Z)        Z = Ni / (w - Ni)

The invariant: a check knows whether it rests on the scan, so that a severe finding can withdraw exactly those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from xrdz.decision import IntervalLike, Measured, Verdict, conformity, measured_from
from xrdz.findings import Finding
from xrdz.method import Decision
from xrdz.sample_sheet import Sample, nickel_by_chemistry

NICKEL_IN_NI3SN4 = 3 * 58.6934 / (3 * 58.6934 + 4 * 118.710)
"""Mass fraction of nickel in Ni3Sn4, standard atomic weights."""

NO_REPRODUCIBILITY = "provisional: the method gives no method_u_ln (the laboratory's own reproducibility of ln Z)"


@dataclass(frozen=True)
class Feature:
    """One thing a claim requires: a quantity within limits (both belong to them), or a plain fact (limits None)."""

    label: str
    limits: tuple[float, float] | None = None

    @property
    def range(self) -> tuple[float, float]:
        """The limits of a quantity; a plain fact has none and asking for them is a mistake in the program."""
        if self.limits is None:
            raise ValueError(f"{self.label!r} has no limits")
        return self.limits


FEATURES: Mapping[str, Feature] = {
    "phases": Feature("beta-Sn and Ni3Sn4 are both present"),
    "nickel": Feature("mass fraction of nickel in the alloy", (0.05, 0.25)),  # the same as tin in 0.75 to 0.95
    "mass_ratio": Feature("Z = m(Ni3Sn4)/m(Sn)", (0.2, 3.0)),
    "carbon": Feature("carbon is present"),
    "carbon_ratio": Feature("S = m(alloy)/m(carbon)", (0.05, 3.5)),
    "powdered": Feature("the active material is powdered"),
    "porosity": Feature("porosity of the layer", (0.30, 0.75)),
    "density": Feature("apparent density of the electrode, g/cm^3", (2.5, 8.3)),
}


@dataclass(frozen=True)
class FeatureCheck:
    """What was found about one feature.

    Parameters
    ----------
    feature : key of `FEATURES`
    verdict, why, rule : after the decision rule, in words
    value, probability : of a quantity; a plain fact has none
    span : (F(low), F(high)) of a quantity with an uncertainty
    moves_with_ratio : whether its quantiles are those of Z, so that spans intersect instead of multiplying
    from_scan : whether it rests on the scan
    provisional : why the uncertainty is not yet complete, or ""
    """

    feature: str
    verdict: Verdict
    why: str
    rule: str = "stated or not"
    value: float | None = None
    probability: float | None = None
    span: tuple[float, float] | None = None
    moves_with_ratio: bool = False
    from_scan: bool = False
    provisional: str = ""


def scan_checks(
    *,
    mass_ratio: IntervalLike | None,
    both_detected: bool | None,
    nickel: IntervalLike | None,
    graphite_detected: bool,
    sample: Sample | None,
    decision: Decision,
) -> dict[str, FeatureCheck]:
    """Return every feature as a scan and its row of the sample sheet show it; see `claims.check_claims`."""
    ratio = None if mass_ratio is None else measured_from(mass_ratio, "ln")
    chemical = None if sample is None else chemical_nickel(sample)
    return {
        "phases": _presence(both_detected, decision),
        "nickel": _phase_nickel(ratio, nickel, both_detected, decision)
        if chemical is None
        else _quantity("nickel", chemical, decision, source="chemical analysis"),
        "mass_ratio": _mass_ratio(ratio, both_detected, decision),
        **_electrode(sample or Sample(), graphite_detected, decision),
    }


def sheet_checks(sample: Sample, decision: Decision) -> dict[str, FeatureCheck]:
    """Return every feature as the sample sheet alone shows it.

    Presence of both phases and Z are inferred from the chemical nickel, as if all of it sat in Ni3Sn4.
    """
    electrode = _electrode(sample, False, decision)
    chemical = chemical_nickel(sample)
    if chemical is None:
        why = "no scan, and the sample sheet gives no ni_mass_percent or sn_mass_percent"
        return {name: _unknown(name, why) for name in ("phases", "nickel", "mass_ratio")} | electrode
    both = 0.0 < chemical.value < NICKEL_IN_NI3SN4
    inferred = "provisional: inferred from the nickel content as if all nickel sat in Ni3Sn4, without a scan"
    if both:
        phases = FeatureCheck("phases", Verdict.MET, "both phases follow from the nickel content")
        ratio = _quantity("mass_ratio", _ratio_of_nickel(chemical), decision, moves_with_ratio=True)
    else:
        phases = FeatureCheck("phases", Verdict.NOT_MET, "the nickel content leaves only one of the phases")
        ratio = FeatureCheck("mass_ratio", Verdict.NOT_MET, phases.why)
    return {
        "phases": replace(phases, provisional=inferred),
        "nickel": _quantity("nickel", chemical, decision, source="chemical analysis", moves_with_ratio=True),
        "mass_ratio": replace(ratio, provisional=inferred),
        **electrode,
    }


def withdrawn(check: FeatureCheck, severe: Sequence[Finding]) -> FeatureCheck:
    """Return a check undecided because of severe findings: its value stays visible, its probability does not."""
    named = "; ".join(f"{finding.code.value}: {finding.message}" for finding in severe)
    why = f"withheld because of a severe finding ({named})"
    return replace(check, verdict=Verdict.UNDECIDED, why=why, probability=None, span=None, provisional="")


def nickel_from_ratio(mass_ratio: float) -> float:
    """Return the mass fraction of nickel in Sn + Ni3Sn4, w Z / (1 + Z)."""
    return NICKEL_IN_NI3SN4 / (1.0 + 1.0 / mass_ratio) if mass_ratio > 0.0 else 0.0


def ratio_from_nickel(nickel: float) -> float:
    """Return Z = Ni / (w - Ni), infinite where no free tin is left."""
    return nickel / (NICKEL_IN_NI3SN4 - nickel) if nickel < NICKEL_IN_NI3SN4 else math.inf


def chemical_nickel(sample: Sample) -> Measured | None:
    """Return Ni / (Ni + Sn) by chemical analysis, or from the one of the two that is given, or None."""
    found = nickel_by_chemistry(sample)
    return None if found is None else _fraction(*found)


def _fraction(value: float, su: float | None) -> Measured:
    """Return a mass or volume fraction; on the edge of its range it has no logit."""
    return Measured(value, su, space="logit" if 0.0 < value < 1.0 else "linear")


def _ratio_of_nickel(nickel: Measured) -> Measured:
    """Return Z with the 95 % interval of the nickel content carried over."""
    interval = None
    if nickel.is_uncertain():
        low, high = nickel.coverage_interval(0.95)
        interval = ratio_from_nickel(low), ratio_from_nickel(high) if high < NICKEL_IN_NI3SN4 else None
    return Measured(ratio_from_nickel(nickel.value), interval95=interval, space="ln")


def _quantity(
    feature: str,
    measured: Measured,
    decision: Decision,
    *,
    limits: tuple[float, float] | None = None,
    shown_as: Callable[[float], float] = lambda x: x,
    extra: float = 0.0,
    source: str = "",
    moves_with_ratio: bool = False,
) -> FeatureCheck:
    """Check a quantity against the limits of its feature, or against `limits` in the terms of `measured`."""
    found = conformity(measured, limits or FEATURES[feature].range, decision, extra=extra, shown_as=shown_as)
    return FeatureCheck(
        feature=feature,
        verdict=found.verdict,
        why=f"{source}: {found.why}" if source else found.why,
        rule=found.rule,
        value=shown_as(measured.value),
        probability=found.probability,
        span=found.span,
        moves_with_ratio=moves_with_ratio,
    )


def _unknown(feature: str, why: str, *, from_scan: bool = False) -> FeatureCheck:
    return FeatureCheck(feature, Verdict.NOT_ASSESSED, why, from_scan=from_scan)


def _open(feature: str, why: str) -> FeatureCheck:
    """Return the check of a quantity that the scan was to show and does not: the question stays open."""
    return FeatureCheck(feature, Verdict.UNDECIDED, why, from_scan=True)


def _of_scan(check: FeatureCheck, decision: Decision) -> FeatureCheck:
    """Return a check marked as resting on the scan, and as provisional without the laboratory's reproducibility."""
    return replace(check, from_scan=True, provisional=NO_REPRODUCIBILITY if decision.method_u_ln is None else "")


def _presence(both_detected: bool | None, decision: Decision) -> FeatureCheck:
    if both_detected is None:
        return _unknown("phases", "the method does not hold both sn and ni3sn4")
    if both_detected:
        return FeatureCheck("phases", Verdict.MET, "beta-Sn and Ni3Sn4 were both detected", from_scan=True)
    # A phase below its detection limit may still be there: only a binary rule calls that not met.
    verdict = Verdict.UNDECIDED if decision.rule == "non-binary" else Verdict.NOT_MET
    return FeatureCheck("phases", verdict, "beta-Sn and Ni3Sn4 were not both detected", from_scan=True)


def _mass_ratio(ratio: Measured | None, both_detected: bool | None, decision: Decision) -> FeatureCheck:
    if ratio is None and both_detected is False:
        return _open("mass_ratio", "no mass ratio, as beta-Sn and Ni3Sn4 were not both detected")
    if ratio is None:
        return _unknown("mass_ratio", "no mass ratio of ni3sn4 to sn", from_scan=both_detected is not None)
    extra = decision.method_u_ln or 0.0
    return _of_scan(_quantity("mass_ratio", ratio, decision, extra=extra, moves_with_ratio=True), decision)


def _phase_nickel(
    ratio: Measured | None, nickel: IntervalLike | None, both_detected: bool | None, decision: Decision
) -> FeatureCheck:
    """Check nickel of the phases, through Z when Sn and Ni3Sn4 are all there is."""
    own = None if nickel is None else measured_from(nickel, "logit")
    extra = decision.method_u_ln or 0.0
    if own is not None:
        # The reproducibility of ln Z reaches logit(Ni) with the slope it has in Sn + Ni3Sn4.
        slope = max(0.0, 1.0 - own.value / NICKEL_IN_NI3SN4) / (1.0 - own.value) if own.space == "logit" else 0.0
        check = _quantity("nickel", own, decision, extra=extra * slope, source="the phases", moves_with_ratio=True)
    elif ratio is not None:
        low, high = FEATURES["nickel"].range
        check = _quantity(
            "nickel",
            ratio,
            decision,
            limits=(ratio_from_nickel(low), ratio_from_nickel(high)),
            shown_as=nickel_from_ratio,
            extra=extra,
            source="the phases",
            moves_with_ratio=True,
        )
    elif both_detected is False:
        return _open("nickel", "the phases give no nickel content")
    else:
        why = "neither the phases nor the sample sheet give nickel"
        return _unknown("nickel", why, from_scan=both_detected is not None)
    return _of_scan(check, decision)


def _electrode(sample: Sample, graphite_detected: bool, decision: Decision) -> dict[str, FeatureCheck]:
    s, porosity, density = sample.carbon_ratio_s, sample.porosity_percent, sample.apparent_density_g_cm3
    porosity_su = None if sample.porosity_u is None else sample.porosity_u / 100.0
    measured = {
        "carbon_ratio": None if s is None else Measured(s, sample.carbon_ratio_s_u, space="ln" if s > 0 else "linear"),
        "porosity": None if porosity is None else _fraction(porosity / 100.0, porosity_su),
        "density": None if density is None else Measured(density, sample.apparent_density_u),
    }
    checks = {name: _stated(name, value, decision) for name, value in measured.items()}
    return {
        "carbon": _carbon(sample, graphite_detected),
        "powdered": _fact("powdered", sample.powdered, "powdered"),
        **checks,
    }


COLUMN_OF = {"carbon_ratio": "carbon_ratio_s", "porosity": "porosity_percent", "density": "apparent_density_g_cm3"}
"""Column of the sample sheet that states a quantity of the electrode."""


def _stated(feature: str, measured: Measured | None, decision: Decision) -> FeatureCheck:
    column = COLUMN_OF[feature]
    if measured is None:
        return _unknown(feature, f"the sample sheet gives no {column}")
    return _quantity(feature, measured, decision, source=column)


def _fact(feature: str, holds: bool | None, column: str) -> FeatureCheck:
    if holds is None:
        return _unknown(feature, f"the sample sheet gives no {column}")
    return FeatureCheck(feature, Verdict.MET if holds else Verdict.NOT_MET, f"{column}: {'yes' if holds else 'no'}")


def _carbon(sample: Sample, graphite_detected: bool) -> FeatureCheck:
    if sample.carbon_present is False and graphite_detected:
        why = "the sample sheet says no carbon, but graphite was detected"
        return FeatureCheck("carbon", Verdict.UNDECIDED, why, from_scan=True)
    if sample.carbon_present is not None:
        return _fact("carbon", sample.carbon_present, "carbon_present")
    if sample.carbon_ratio_s is not None:
        return FeatureCheck("carbon", Verdict.MET, "carbon_ratio_s is given")
    if graphite_detected:
        return FeatureCheck("carbon", Verdict.MET, "graphite was detected", from_scan=True)
    return _unknown("carbon", "the sample sheet gives no carbon_present, and no graphite was detected")
