"""Absolute amounts: what the masses of the crystalline phases mean outside the pattern.

A pattern gives masses m_p in a common unknown unit. Three kinds of knowledge fix the unit, and with it what the pattern
does not see:

    internal standard s, mass fraction c of the spiked specimen (Madsen & Scarlett 2008, in Dinnebier & Billinge, Powder
    Diffraction, ch. 11):            X_p = c / (1 - c) m_p / m_s         of the sample without its spike
    external standard (O'Connor & Raven 1988, Powder Diffr. 3, 2):
                                     X_p = m_p mu / K,   K = m_s mu_s / X_s
    amorphous part                   A = 1 - sum_p X_p

mu is the mass attenuation coefficient (cm^2/g) of the whole specimen, from its composition: of a thick flat specimen
the diffracting depth goes with 1/mu. K belongs to the instrument: the same tube current, slits and detector, and a
counting time that is stated. m_p is per count, so both scans must be in counts.

Chemical analysis is the third: the nickel of the phases against the nickel of the alloy (`sample_sheet`).

A standard that is itself not wholly crystalline counts with the mass of its crystalline part: multiply c, or X_s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from xrdz.compiled import IntArray, compiled
from xrdz.detection import WeakPhase
from xrdz.diffractogram import FloatArray
from xrdz.errors import InputError
from xrdz.fields import Estimate
from xrdz.findings import Code, Finding, warning
from xrdz.fit import FitResult
from xrdz.quantify import COUNTING, COVERAGE_FACTOR, MassEstimate, Quantity, estimate_masses
from xrdz.reference import Reference
from xrdz.scattering import mass_attenuation

if TYPE_CHECKING:
    from xrdz.analysis import Analysis

ATTENUATION_SU = 0.02
"""Relative standard uncertainty of a ratio of tabulated mass attenuation coefficients (Elam, Ravel & Sieber 2002)."""

SUSPECT_SU = 3.0
"""Standard uncertainties by which an amorphous part must differ from zero."""

HUMP_SHARE, HUMP_SU = 0.06, 5.0
"""Share of the intensity above a hull under the background, and its height over its uncertainty, that make a hump."""


@dataclass(frozen=True)
class AbsoluteAmounts:
    """Mass fractions of the whole sample.

    Parameters
    ----------
    fractions : by phase id; an internal standard is no part of the sample and has none
    amorphous : what the phases leave of it
    total : sum of the fractions, before anything is cut at one
    findings : what makes the amounts doubtful
    """

    fractions: Mapping[str, Quantity]
    amorphous: Quantity
    total: float
    findings: tuple[Finding, ...]


def logit_quantity(value: float, variances: Mapping[str, float]) -> Quantity:
    """Return a fraction with its variances by source and an interval made in ln(x / (1 - x))."""
    su_stat, su = math.sqrt(variances[COUNTING]), math.sqrt(sum(variances.values()))
    if not 0.0 < value < 1.0:
        return Quantity(value, su_stat, su, (max(value - 2.0 * su, 0.0), min(value + 2.0 * su, 1.0)))
    centre, half = math.log(value / (1.0 - value)), min(COVERAGE_FACTOR * su / (value * (1.0 - value)), 700.0)
    return Quantity(value, su_stat, su, (_logistic(centre - half), _logistic(centre + half)))


def _logistic(x: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * x))


def _inside(value: float, variances: Mapping[str, float]) -> Quantity:
    """Return a fraction that measurement may put outside 0..1, cut there, with its normal interval cut as well."""
    su_stat, su = math.sqrt(variances[COUNTING]), math.sqrt(sum(variances.values()))
    low, high, centre = (min(max(value + k * su, 0.0), 1.0) for k in (-COVERAGE_FACTOR, COVERAGE_FACTOR, 0.0))
    return Quantity(centre, su_stat, su, (low, high))


def amounts_by_internal_standard(
    estimate: MassEstimate, *, phase: str, mass_fraction: float, su: float = 0.0
) -> AbsoluteAmounts | None:
    """Return the amounts of the sample without its spike, None when the spike was not found.

    Parameters
    ----------
    phase : id of the weighed phase
    mass_fraction, su : of the spiked specimen
    """
    standard = estimate.ids.index(phase)
    spike = float(estimate.masses[standard])
    if spike <= 0.0:
        return None
    factor = mass_fraction / (1.0 - mass_fraction)
    relative = (su / (mass_fraction * (1.0 - mass_fraction))) ** 2
    others = [number for number in range(len(estimate.ids)) if number != standard]
    gradients = np.zeros((len(estimate.ids), len(estimate.ids)))
    for number in others:
        gradients[number, number] = factor / spike
        gradients[number, standard] = -factor * estimate.masses[number] / spike**2
    values = factor * estimate.masses / spike
    return _amounts(estimate, others, values, gradients, relative, "the weighing and the standard's crystallinity")


def amounts_by_external_standard(
    estimate: MassEstimate,
    references: Sequence[Reference],
    *,
    k: Estimate,
    wavelength: float,
    composition: Mapping[str, float] | None = None,
    time_ratio: float = 1.0,
) -> AbsoluteAmounts:
    """Return the amounts of the sample from a K factor.

    Parameters
    ----------
    references : of the phases, in their order
    k : see `k_factor`
    wavelength : angstrom
    composition : mass fraction per element of the specimen; that of the fitted phases when empty
    time_ratio : counting time per step of this scan over that of the standard's scan
    """
    masses = estimate.masses
    total = float(masses.sum())
    own = np.array([mixture_attenuation(item.composition, wavelength=wavelength) for item in references])
    scale = 1.0 / (k.value * time_ratio)
    if composition:
        attenuation, slope = mixture_attenuation(composition, wavelength=wavelength), np.zeros(masses.size)
    else:
        attenuation = float(own @ masses) / total
        slope = (own - attenuation) / total
    values = scale * attenuation * masses
    gradients = scale * (attenuation * np.eye(masses.size) + np.outer(masses, slope))
    relative = ((k.su or 0.0) / k.value) ** 2 + ATTENUATION_SU**2
    return _amounts(estimate, range(masses.size), values, gradients, relative, "the K factor, times and composition")


def _amounts(
    estimate: MassEstimate,
    numbers: Sequence[int],
    values: FloatArray,
    gradients: FloatArray,
    relative_variance: float,
    suspects: str,
) -> AbsoluteAmounts:
    """Return the amounts of the phases `numbers`, whose common factor has a relative variance of its own."""

    def variances(gradient: FloatArray, value: float) -> dict[str, float]:
        return {**estimate.variances(gradient), "standard": relative_variance * value**2}

    fractions = {}
    for number in numbers:
        value = float(values[number])
        found = variances(gradients[number], value)
        fractions[estimate.ids[number]] = logit_quantity(value, found) if value < 1.0 else _inside(value, found)
    total = float(sum(values[number] for number in numbers))
    rest = variances(-np.sum([gradients[number] for number in numbers], axis=0), total)
    amorphous = _inside(1.0 - total, rest)
    findings = []
    if 1.0 - total > SUSPECT_SU * amorphous.su:
        low, high = (100.0 * end for end in amorphous.interval95)
        findings.append(
            warning(
                Code.AMORPHOUS_SUSPECTED,
                f"the crystalline phases are {100.0 * total:.1f} mass % of the sample; {100.0 * amorphous.value:.1f} % "
                f"(95 %: {low:.1f} to {high:.1f}) are amorphous or in phases not fitted",
                suggestion="mass fractions are of the crystalline phases; use the absolute fractions",
            )
        )
    elif total - 1.0 > SUSPECT_SU * amorphous.su:
        findings.append(
            warning(
                Code.AMORPHOUS_SUSPECTED,
                f"the phases sum to {100.0 * total:.1f} mass % of the sample, which cannot be: part of the standard is "
                "amorphous, or absorption contrast hides it",
                suggestion=f"check {suspects}",
            )
        )
    return AbsoluteAmounts(fractions, amorphous, total, tuple(findings))


def mixture_attenuation(composition: Mapping[str, float], *, wavelength: float) -> float:
    """Return the mass attenuation coefficient (cm^2/g) of a mixture; `composition` is a mass fraction per element."""
    return sum(fraction * mass_attenuation(element, wavelength=wavelength) for element, fraction in composition.items())


def k_factor(analysis: Analysis, *, crystalline: Estimate | None = None) -> Estimate:
    """Return the K factor of the scan of one pure phase, for scans of the same instrument and settings.

    Parameters
    ----------
    analysis : of the pure phase's scan, with its fit (`xrdz.analyse` of a method with this one phase)
    crystalline : mass fraction of the specimen that is this crystalline phase; 1 when absent

    Returns
    -------
    K = m mu / X in counts dalton angstrom^3 cm^2/g, with its combined standard uncertainty; what scales every mass
    alike (displacement parameters, texture) is in it.

    Raises
    ------
    InputError
        If the analysis holds no fit, or not exactly one phase.
    """
    result = analysis.fit
    if result is None:
        raise InputError("k_factor: the analysis holds no fit; make it with xrdz.analyse in this process")
    if len(result.pattern.phases) != 1:
        names = ", ".join(phase.id for phase in result.pattern.phases)
        raise InputError(f"k_factor: expected the scan of one pure phase, found {names}; fit the standard alone")
    estimate = estimate_masses(result)
    part = crystalline or Estimate(1.0, 0.0)
    wavelength = result.pattern.instrument.wavelength.principal
    attenuation = mixture_attenuation(result.pattern.phases[0].reference.composition, wavelength=wavelength)
    value = float(estimate.masses[0]) * attenuation / part.value
    relative = sum(estimate.variances(np.ones(1)).values()) / float(estimate.masses[0]) ** 2
    return Estimate(value, value * math.sqrt(relative + ((part.su or 0.0) / part.value) ** 2))


def hump_finding(result: FitResult) -> Finding | None:
    """Return a finding when the background holds a broad hump: more than its convex hull from below accounts for.

    Air scatter, fluorescence and Compton scattering leave a background that falls or bends upward; what rises from its
    hull and falls again is an amorphous phase, a glass or resin holder, or a film over the specimen.
    """
    peaks = float(np.trapezoid(result.model - result.background, result.pattern.two_theta))
    # A background is smooth: every eighth point shows it.
    x, background = result.pattern.two_theta[::8], result.background[::8]
    excess = background - lower_hull(np.ascontiguousarray(x), background)
    hump = float(np.trapezoid(excess, x))
    top = int(np.argmax(excess))
    column = result.pattern.background_columns[:, 8 * top]
    own = slice(len(result.pattern.phases), result.pattern.n_linear)
    su = math.sqrt(max(float(column @ result.covariance[own, own] @ column), 0.0))
    if hump <= HUMP_SHARE * (hump + max(peaks, 0.0)) or excess[top] <= HUMP_SU * su:
        return None
    return warning(
        Code.AMORPHOUS_SUSPECTED,
        f"a hump in the background near {x[top]:.1f} deg holds {100.0 * hump / (hump + max(peaks, 0.0)):.0f} % of the "
        "intensity above its smooth part",
        where=f"{x[top]:.2f}",
        suggestion="an amorphous part, or the holder: measure the empty holder, or add an internal standard",
    )


def lower_hull(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the greatest convex curve below y(x) (Andrew 1979, Inf. Process. Lett. 9, 216)."""
    corners = np.empty(x.size, dtype=np.int64)
    kept = corners[: hull_corners(x, np.ascontiguousarray(y), corners)]
    hull: FloatArray = np.interp(x, x[kept], y[kept])
    return hull


@compiled
def hull_corners(x: FloatArray, y: FloatArray, corners: IntArray) -> int:
    """Set the indices of the corners of the lower convex hull, and return how many there are."""
    count = 0
    for here in range(x.size):
        while count > 1:
            before, last = corners[count - 2], corners[count - 1]
            if (y[last] - y[before]) * (x[here] - x[before]) < (y[here] - y[before]) * (x[last] - x[before]):
                break
            count -= 1
        corners[count] = here
        count += 1
    return count


def alloy_nickel(
    estimate: MassEstimate, references: Sequence[Reference], weak: Mapping[int, WeakPhase]
) -> Quantity | None:
    """Return the mass fraction Ni / (Ni + Sn) over all fitted phases, None when they hold no tin or no nickel.

    The interval is made in the logit, and reaches as far as the interval of any weak phase carries it.
    """
    compositions = [item.composition for item in references]
    nickel, tin = (np.array([composition.get(name, 0.0) for composition in compositions]) for name in ("Ni", "Sn"))
    if not (nickel.any() and tin.any()):
        return None

    def share(masses: FloatArray) -> float:
        return float(nickel @ masses / ((nickel + tin) @ masses))

    alloy = float((nickel + tin) @ estimate.masses)
    if alloy <= 0.0:
        return None
    value = share(estimate.masses)
    quantity = logit_quantity(value, estimate.variances((nickel - value * (nickel + tin)) / alloy))
    ends = [*quantity.interval95]
    extremes = [masses for profile in weak.values() for masses in (profile.masses_low, profile.masses_high)]
    ends += [share(masses) for masses in extremes if (nickel + tin) @ masses > 0.0]
    return replace(quantity, interval95=(min(ends), max(ends)))
