"""What a user should judge about a fit: every finding the fit itself gives rise to, in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xrdz.analysis import PhaseAnalysis
from xrdz.findings import Code, Finding, info, severe, warning
from xrdz.fit import FitResult, Status, bounds_that_matter
from xrdz.numerals import two_digits
from xrdz.residuals import Agreement, ResidualPeak, unexplained_peaks


@dataclass(frozen=True)
class Thresholds:
    """Where a value becomes a finding.

    Parameters
    ----------
    poor_gof, poor_rwp : goodness of fit, and R_wp after background in percent, both exceeded: warning
    hopeless_rwp : R_wp after background in percent from which the fit cannot be believed: severe
    texture_ln_r : |ln r| of a March-Dollase coefficient
    cell_relative : relative change of a cell length from the reference; thermal expansion over 100 K stays below
    cell_relative_variable : the same for a phase whose composition is known to vary
    cell_relative_approximate : the same for a reference whose cell is itself approximate
    cell_angle_deg : change of a free cell angle
    anisotropy : |amplitude| of direction-dependent broadening; widths then differ by about its exponential
    few_lines : reflections with at least 5 % of the strongest, below which a phase rests on too little
    """

    poor_gof: float = 2.5
    poor_rwp: float = 15.0
    hopeless_rwp: float = 45.0
    texture_ln_r: float = 0.2
    cell_relative: float = 0.006
    cell_relative_variable: float = 0.004
    cell_relative_approximate: float = 0.015
    cell_angle_deg: float = 0.5
    anisotropy: float = 0.3
    few_lines: int = 3


def findings_of_fit(
    result: FitResult,
    phases: dict[str, PhaseAnalysis],
    agreement: Agreement,
    thresholds: Thresholds | None = None,
) -> list[Finding]:
    """Return the findings of a fit, most serious first."""
    limits = thresholds or Thresholds()
    findings = [*_state(result), *_misfit(agreement, limits)]
    changes = {id: cell_change(result, number) for number, id in enumerate(phases)}
    for number, phase in enumerate(phases.values()):
        findings += _phase(result, number, phase, limits)
        if phase.detected:
            others = [changes[id] for id, other in phases.items() if other.detected and id != phase.id]
            findings += _cell(result, number, phase, others, limits)
    findings += [_unexplained(peak) for peak in unexplained_peaks(result)]
    order = {"severe": 0, "warning": 1, "info": 2}
    return sorted(findings, key=lambda finding: order[finding.level.value])


def _unexplained(peak: ResidualPeak) -> Finding:
    """Return the finding of a peak no phase explains; one that only the tube's other lines explain is information."""
    what = f"a peak at {peak.two_theta:.2f} deg, {two_digits(100 * peak.relative_height)} % of the strongest, "
    what += f"significance {peak.significance:.0f}, belongs to no phase of the method"
    named = ", ".join(f"{id} ({100 * score:.0f} %)" for id, score in peak.matches)
    where = f"{peak.two_theta:.3f}"
    if peak.tube_line:
        other = f"; it could be {named} too" if named else ""
        return info(
            Code.UNEXPLAINED_PEAK,
            f"{what}: {peak.tube_line}{other}",
            where=where,
            suggestion="use a better filter or monochromator, or exclude the range",
        )
    if named:
        first = peak.matches[0][0]
        return warning(
            Code.UNEXPLAINED_PEAK,
            f"{what}; references with lines there, and how much of their pattern is seen: {named}",
            where=where,
            suggestion=f"try {first} as a candidate phase, or exclude the range if it is the holder",
        )
    return warning(
        Code.UNEXPLAINED_PEAK,
        f"{what}, and to none of the reference library",
        where=where,
        suggestion="identify it and add its CIF, or exclude the range if it is the holder",
    )


def _state(result: FitResult) -> list[Finding]:
    findings = []
    if result.status is Status.NOT_CONVERGED:
        findings.append(
            severe(
                Code.NOT_CONVERGED,
                f"the fit stopped after {result.evaluations} evaluations before its next step was small",
                suggestion="look at the plot; check phases, wavelength and range",
            )
        )
    for name in bounds_that_matter(result.pattern, result.minimum.active):
        findings.append(
            warning(
                Code.AT_BOUND,
                f"{name} = {result.value(name):.4g} ended on its bound",
                where=name,
                suggestion="check that the phase is right and the instrument's geometry is stated",
            )
        )
    if result.second_start:
        findings.append(info(Code.SECOND_START_BETTER, "the annealed second start found the lower minimum"))
    return findings


def _misfit(agreement: Agreement, limits: Thresholds) -> list[Finding]:
    rwp, gof = agreement.rwp_background_subtracted, agreement.gof
    if gof > 1.3 and rwp > limits.hopeless_rwp:
        return [
            severe(
                Code.POOR_FIT,
                f"R_wp after background is {rwp:.0f} % (goodness of fit {gof:.1f}): "
                "the model is not this diffractogram",
                suggestion="check phases, wavelength, and whether the scan is a powder pattern",
            )
        ]
    if gof > limits.poor_gof and rwp > limits.poor_rwp:
        return [
            warning(
                Code.POOR_FIT,
                f"R_wp after background is {rwp:.1f} %, goodness of fit {gof:.1f}",
                suggestion="look at the difference curve: a missing phase, texture or peak shape",
            )
        ]
    return []


def _phase(result: FitResult, number: int, phase: PhaseAnalysis, limits: Thresholds) -> list[Finding]:
    findings = []
    if not phase.detected:
        findings.append(
            warning(
                Code.PHASE_NOT_DETECTED,
                f"{phase.id} was not detected; detection limit {two_digits(100 * phase.detection_limit)} mass %, "
                f"less than {two_digits(100 * phase.mass_fraction.interval95[1])} mass % with 95 % confidence",
                where=phase.id,
            )
        )
        return findings
    r, su = phase.texture_r
    if abs(math.log(r)) > limits.texture_ln_r and abs(math.log(r)) > 4.0 * su / r:
        axis = " ".join(str(index) for index in phase.texture_axis)
        findings.append(
            warning(
                Code.STRONG_TEXTURE,
                f"{phase.id}: March-Dollase r = {r:.2f} along [{axis}] is far from 1",
                where=phase.id,
                suggestion="load the specimen from the back or side, or spray-dry it",
            )
        )
    for extension in result.extensions:
        amplitude, amplitude_su = result.value(extension.name), result.su(extension.name)
        if extension.phase != phase.id or extension.kind == "texture" or abs(amplitude) < limits.anisotropy:
            continue
        if abs(amplitude) > 4.0 * amplitude_su:
            findings.append(
                info(
                    Code.BROADENING_ANISOTROPIC,
                    f"{phase.id}: {extension.kind} broadening depends on the direction, amplitude {amplitude:+.2f} "
                    f"+- {amplitude_su:.2f} in ln(width)",
                    where=phase.id,
                )
            )
    x = result.pattern.two_theta
    state = result.states[number]
    inside = (state.centre > x[0]) & (state.centre < x[-1])
    strong = inside & (state.intensity > 0.05 * np.max(state.intensity, initial=0.0))
    if int(strong.sum()) < limits.few_lines:
        findings.append(
            warning(
                Code.RANGE_TOO_SHORT,
                f"{phase.id}: only {int(strong.sum())} strong reflections lie between {x[0]:.1f} and {x[-1]:.1f} deg",
                where=phase.id,
                suggestion="measure a wider range",
            )
        )
    return findings


def cell_change(result: FitResult, number: int) -> float:
    """Return the relative change of a phase's cell from its reference, as a mean over its edges."""
    phase = result.pattern.phases[number]
    edges = np.array(phase.cell(result.values)[:3]) / np.array(phase.reference.cell[:3])
    return float(np.mean(edges)) - 1.0


def _cell(
    result: FitResult, number: int, phase: PhaseAnalysis, others: Sequence[float], limits: Thresholds
) -> list[Finding]:
    """Return the finding of a cell that is not the reference's, with what it points to.

    Nickel-rich Ni3+xSn4 keeps the symmetry of Ni3Sn4 and changes its axes by some tenths of a percent, one against the
    other; a wrong wavelength or zero moves the cells of all phases alike.
    """
    reference = result.pattern.phases[number].reference
    lengths = dict(zip("abc", reference.cell[:3], strict=True))
    angles = dict(zip(("alpha", "beta", "gamma"), reference.cell[3:], strict=True))
    limit = limits.cell_relative
    if "variable_composition" in reference.flags:
        limit = limits.cell_relative_variable
    if "approximate_cell" in reference.flags:
        limit = limits.cell_relative_approximate
    far = []
    for name, (value, su) in phase.cell.items():
        if name in lengths:
            change, size, shown = value - lengths[name], limit * lengths[name], 100.0 * (value / lengths[name] - 1.0)
            text = f"{name} = {value:.4f} angstrom is {shown:+.2f} % from the reference's {lengths[name]:.4f}"
        else:
            change, size = value - angles[name], limits.cell_angle_deg
            text = f"{name} = {value:.2f} deg is {change:+.2f} deg from the reference's {angles[name]:.2f}"
        if abs(change) > size and abs(change) > 3.0 * su:
            far.append((abs(change) / size, text))
    if not far:
        return []
    own = cell_change(result, number)
    alike = [other for other in others if abs(other - own) < 0.3 * abs(own)]
    if others and len(alike) == len(others):
        meaning = "the cells of all phases changed alike: check wavelength, zero and displacement"
    elif "variable_composition" in reference.flags:
        meaning = (
            f"another composition than {reference.formula}, whose structure factors and mass then hold only nearly; "
            "nickel-rich Ni3+xSn4 (x to 0.4) raises Z by 1 to 2 % at Z = 1, by up to 20 % at Z = 10"
            if phase.id == "ni3sn4"
            else f"another composition than {reference.formula}"
        )
    else:
        meaning = "a solid solution, another phase, another temperature, or a misaligned zero"
    return [
        warning(
            Code.CELL_FAR_FROM_REFERENCE,
            f"{phase.id}: {'; '.join(text for _, text in sorted(far, reverse=True))}",
            where=phase.id,
            suggestion=meaning,
        )
    ]
