"""Claims 1 to 10 of the alloy and its electrode, as one table, and what a measurement says about each.

A claim holds when each of its own features holds and, for a dependent claim, one of its parents holds:

    all of:  not_met if any is; else not_assessed if any is; else undecided if any is; else met
    any of:  met if any is; else undecided if any is; else not_assessed if any is; else not_met

The invariant: `probability` belongs to the `value` and the `limits` beside it; `joint_probability` and the risks
belong to the whole claim with its parents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from xrdz.decision import IntervalLike, Measured, Verdict, measured_from
from xrdz.errors import InputError
from xrdz.features import FEATURES, FeatureCheck, scan_checks, sheet_checks, withdrawn
from xrdz.findings import Finding, Level
from xrdz.method import Decision
from xrdz.numerals import probability_text
from xrdz.sample_sheet import Sample

INDENT = " " * 10
"""In front of a reason that has its own lines."""


@dataclass(frozen=True)
class Claim:
    """One claim: the features it adds, the first with limits being the one shown, and its alternative parents."""

    number: int
    text: str
    features: tuple[str, ...]
    parents: tuple[int, ...] = ()


CLAIMS = (
    Claim(1, "5-25 mass % Ni, 75-95 mass % Sn, both phases present", ("phases", "nickel")),
    Claim(2, "mass ratio Z in 0.2-3", ("mass_ratio",), (1,)),
    Claim(3, "carbon present", ("carbon",), (1, 2)),
    Claim(4, "carbon present, S in 0.05-3.5", ("carbon", "carbon_ratio"), (1, 2)),
    Claim(5, "powdered, porosity 30-75 %", ("powdered", "porosity"), (1, 2)),
    Claim(6, "claim 3, powdered, porosity 30-75 %", ("powdered", "porosity"), (3,)),
    Claim(7, "claim 4, powdered, porosity 30-75 %", ("powdered", "porosity"), (4,)),
    Claim(8, "apparent density 2.5-8.3 g/cm^3", ("density",), (1, 2)),
    Claim(9, "claim 3, apparent density 2.5-8.3 g/cm^3", ("density",), (3,)),
    Claim(10, "claim 4, apparent density 2.5-8.3 g/cm^3", ("density",), (4,)),
)
"""Parents stand before their children, the wider one first: claim 2 contains claim 1, so that "claim 1 or 2" has the
probability of claim 1."""

BY_NUMBER: Mapping[int, Claim] = {claim.number: claim for claim in CLAIMS}


@dataclass(frozen=True)
class ClaimResult:
    """What was found about one claim.

    Parameters
    ----------
    claim : its number
    verdict : with its parents
    probability : of conformity of `value` with `limits`, None for a plain fact or without an uncertainty
    value, limits : of the feature shown; fractions are 0 to 1
    rule : the decision rule in words
    why : what the verdict rests on
    joint_probability : that the claim holds with its parents, None when a feature is not known
    provisional : whether the laboratory's own reproducibility is missing from the uncertainty
    """

    claim: int
    verdict: Verdict
    probability: float | None
    value: float | None
    limits: tuple[float, float] | None
    rule: str
    why: str
    joint_probability: float | None = None
    provisional: bool = False

    @property
    def consumer_risk(self) -> float | None:
        """Specific consumer's risk: that an item accepted here does not conform (JCGM 106:2012, clause 3.3)."""
        if self.verdict is not Verdict.MET or self.joint_probability is None:
            return None
        return 1.0 - self.joint_probability

    @property
    def producer_risk(self) -> float | None:
        """Specific producer's risk: that an item rejected here does conform (JCGM 106:2012, clause 3.3)."""
        return self.joint_probability if self.verdict is Verdict.NOT_MET else None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the analysis document."""
        return {
            "claim": self.claim,
            "verdict": self.verdict.value,
            "probability": self.probability,
            "value": self.value,
            "limits": None if self.limits is None else list(self.limits),
            "rule": self.rule,
            "why": self.why,
            "joint_probability": self.joint_probability,
            "consumer_risk": self.consumer_risk,
            "producer_risk": self.producer_risk,
            "provisional": self.provisional,
        }


def check_claims(
    *,
    mass_ratio: IntervalLike | None,
    both_detected: bool | None,
    nickel: IntervalLike | None = None,
    graphite_detected: bool = False,
    sample: Sample | None = None,
    decision: Decision | None = None,
    findings: Sequence[Finding] = (),
) -> tuple[ClaimResult, ...]:
    """Return what a scan, and its row of the sample sheet, say about each claim.

    Parameters
    ----------
    mass_ratio : Z = m(Ni3Sn4)/m(Sn), None when the method does not hold both phases or the fit failed
    both_detected : whether beta-Sn and Ni3Sn4 were both detected, None when the method does not hold both
    nickel : mass fraction Ni/(Ni + Sn) of the phases; None when Sn and Ni3Sn4 are all there is, and Z gives it
    graphite_detected : whether the scan shows graphite
    sample : its chemistry replaces the nickel of the phases; carbon, porosity and density come from it
    decision : None for the default rule
    findings : a severe one makes everything that rests on the scan undecided
    """
    checks = scan_checks(
        mass_ratio=mass_ratio,
        both_detected=both_detected,
        nickel=nickel,
        graphite_detected=graphite_detected,
        sample=sample,
        decision=decision or Decision(),
    )
    severe = [finding for finding in findings if finding.level is Level.SEVERE]
    if severe:
        checks = {name: withdrawn(check, severe) if check.from_scan else check for name, check in checks.items()}
    return _judge(checks)


def check_sheet(sample: Sample, decision: Decision | None = None) -> tuple[ClaimResult, ...]:
    """Return what measured values alone, without a scan, say about each claim; what is inferred is provisional."""
    return _judge(sheet_checks(sample, decision or Decision()))


def claimed_ratio(numerator: str, denominator: str, mass_ratio: IntervalLike | None) -> Measured | None:
    """Return the distribution of m(Ni3Sn4)/m(Sn) from a reported mass ratio, or None when it is of other phases."""
    ratio = None if mass_ratio is None else measured_from(mass_ratio, "ln")
    if (numerator, denominator) == ("ni3sn4", "sn"):
        return ratio
    if (numerator, denominator) == ("sn", "ni3sn4") and ratio is not None:
        return ratio.reciprocal()
    return None


def parse_requirement(option_text: str, option: str = "--require") -> tuple[int, ...]:
    """Return claim numbers from text such as `claim2` or `claim2,claim5`.

    Raises
    ------
    InputError
        If the text names no claim of the table.
    """
    known = {f"claim{claim.number}": claim.number for claim in CLAIMS}
    names = [name.strip().lower() for name in option_text.split(",")]
    for name in names:
        if name not in known:
            raise InputError(f"{option} {option_text!r}: expected claim1 to claim10, such as claim2 or claim1,claim5")
    return tuple(known[name] for name in names)


def to_text(results: Iterable[ClaimResult], width: int | None = None) -> str:
    """Return a line per claim: number, verdict, value within limits, probability of conformity, and why.

    Parameters
    ----------
    width : of the lines; what is claimed and the reasons then stand below, broken where they need it
    """
    lines = []
    for result in results:
        value = "" if result.value is None else f"{result.value:.4g}"
        limits = "" if result.limits is None else f"{result.limits[0]:g} to {result.limits[1]:g}"
        shown = probability_text(result.probability)
        probability = "" if not shown else f"p {shown}" if shown[0] in "<>" else f"p = {shown}"
        columns = f"claim {result.claim:<3d}{result.verdict.value:13s}{value:>8s} {limits:>12s}  {probability:9s}"
        if width is None:
            lines.append(f"{columns} {result.why}\n")
        else:
            words = (BY_NUMBER[result.claim].text, result.why)
            below = [fill(text, width, initial_indent=INDENT, subsequent_indent=INDENT) for text in words]
            lines.append("\n".join([columns.rstrip(), *below]) + "\n")
    return "".join(lines)


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict of "each of them holds"."""
    return _first_of(verdicts, (Verdict.NOT_MET, Verdict.NOT_ASSESSED, Verdict.UNDECIDED), Verdict.MET)


def any_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict of "at least one of them holds"."""
    return _first_of(verdicts, (Verdict.MET, Verdict.UNDECIDED, Verdict.NOT_ASSESSED), Verdict.NOT_MET)


def _first_of(verdicts: Iterable[Verdict], order: Sequence[Verdict], otherwise: Verdict) -> Verdict:
    present = set(verdicts)
    return next((verdict for verdict in order if verdict in present), otherwise)


def joint_probability(checks: Iterable[FeatureCheck]) -> float | None:
    """Return the probability that all features hold, None when one of them is not known.

    Quantities that move with Z share its quantiles, so their spans intersect; the others are independent. A plain
    fact counts as certain; a value without an uncertainty leaves the probability open.
    """
    known = list(checks)
    facts = [check for check in known if FEATURES[check.feature].limits is None]
    if any(check.probability is None and check.verdict is Verdict.NOT_MET for check in facts):
        return 0.0
    if any(check.probability is None and not (check in facts and check.verdict is Verdict.MET) for check in known):
        return None
    shared = [check.span for check in known if check.moves_with_ratio and check.span is not None]
    product = max(0.0, min(high for _, high in shared) - max(low for low, _ in shared)) if shared else 1.0
    for check in known:
        if not check.moves_with_ratio and check.probability is not None:
            product *= check.probability
    return product


def _judge(checks: Mapping[str, FeatureCheck]) -> tuple[ClaimResult, ...]:
    """Return the results in the order of the table, parents before children."""
    results: dict[int, ClaimResult] = {}
    for claim in CLAIMS:
        results[claim.number] = _judge_claim(claim, checks, [results[number] for number in claim.parents])
    return tuple(results.values())


def _judge_claim(claim: Claim, checks: Mapping[str, FeatureCheck], parents: Sequence[ClaimResult]) -> ClaimResult:
    own = [checks[name] for name in claim.features]
    shown = next((check for check in own if FEATURES[check.feature].limits is not None), own[0])
    verdict = all_of(check.verdict for check in own)
    reasons = [check.why for check in own]
    if parents:
        base = any_of(parent.verdict for parent in parents)
        verdict = all_of((verdict, base))
        named = " or ".join(str(parent.claim) for parent in parents)
        reasons.append(f"claim {named}: {base.value.replace('_', ' ')}")
    joint = joint_probability(checks[name] for name in sorted(_features_with_parents(claim)))
    if joint is not None and shown.probability is not None and abs(joint - shown.probability) > 5e-4:
        reasons.append(f"probability with its parents {joint:.3f}")
    provisional = _provisional(own, parents, verdict)
    return ClaimResult(
        claim=claim.number,
        verdict=verdict,
        probability=shown.probability,
        value=shown.value,
        limits=FEATURES[shown.feature].limits,
        rule=shown.rule,
        why="; ".join(dict.fromkeys([*reasons, *provisional])),
        joint_probability=joint,
        provisional=bool(provisional),
    )


def _provisional(own: Sequence[FeatureCheck], parents: Sequence[ClaimResult], verdict: Verdict) -> list[str]:
    """Return why a verdict may change with the laboratory's reproducibility; empty where it rests on other grounds.

    What is not assessed is not provisional, and neither is a claim that a feature without a scan already refutes.
    """
    settled = any(check.verdict is Verdict.NOT_MET and not check.provisional for check in own)
    if verdict is Verdict.NOT_ASSESSED or settled:
        return []
    reasons = [check.provisional for check in own if check.provisional]
    if not reasons and any(parent.provisional for parent in parents):
        return ["provisional as its parent is"]
    return reasons


def _features_with_parents(claim: Claim) -> frozenset[str]:
    """Return the features of a claim and of its first parent's line; a second parent contains the first."""
    own = frozenset(claim.features)
    return own | _features_with_parents(BY_NUMBER[claim.parents[0]]) if claim.parents else own
