"""Phases near or below their detection limit: the limit itself, and intervals from the profile likelihood.

Detection limit (Currie 1968, Anal. Chem. 40, 586): 3.29 standard uncertainties of the scale of an absent phase, the
amount that is missed and falsely seen with 5 % each. A phase counts as detected when its scale exceeds `DETECTED_AT`
standard uncertainties.

Near zero the normal interval of ln Z fails. There the interval of a scale S is where the profile of the objective,
minimised over everything else, rises above its minimum by (k c)^2: k = 1.96 for a two-sided interval, 1.645 for an
upper limit, and c = su / su_stat >= 1 widens it by what counting does not hold (Wilks 1938, Ann. Math.
Stat. 9, 60).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xrdz.diffractogram import FloatArray
from xrdz.fit import FitResult
from xrdz.quantify import COUNTING, COVERAGE_FACTOR, MassEstimate
from xrdz.solver import Noise, minimise

DETECTED_AT = 3.29
"""Scale over its standard uncertainty (all sources) from which a phase counts as detected."""

PROFILE_BELOW = 6.0
"""Scale over its standard uncertainty below which intervals come from the profile likelihood."""

ONE_SIDED = 1.6448536269514722
"""One-sided 95 % of the normal distribution."""


@dataclass(frozen=True)
class WeakPhase:
    """Interval of a weak phase's mass relative to the other masses, from the profile likelihood.

    Parameters
    ----------
    number : the phase
    significance : scale over its standard uncertainty
    detected : whether that exceeds `DETECTED_AT`
    masses_low, masses_high : all masses at the two ends of the interval; the low end has none of the phase when it
        is not detected
    """

    number: int
    significance: float
    detected: bool
    masses_low: FloatArray
    masses_high: FloatArray


def significance(result: FitResult, estimate: MassEstimate, number: int) -> float:
    """Return a phase's mass over the standard uncertainty of all sources; infinite for a single phase."""
    gradient = np.zeros(estimate.masses.size)
    gradient[number] = 1.0
    su = math.sqrt(sum(estimate.variances(gradient).values()))
    if result.scales[number] <= 0.0:
        return 0.0
    return float(estimate.masses[number]) / su if su > 0 else math.inf


def profile_weak_phase(result: FitResult, estimate: MassEstimate, number: int) -> WeakPhase:
    """Return the profile-likelihood interval of a weak phase."""
    level = significance(result, estimate, number)
    detected = level >= DETECTED_AT
    gradient = np.zeros(estimate.masses.size)
    gradient[number] = 1.0
    variances = estimate.variances(gradient)
    widening = 1.0
    if variances[COUNTING] > 0.0 and result.scales[number] > 0.0:
        widening = min(math.sqrt(sum(variances.values()) / variances[COUNTING]), 5.0)
    factor = (COVERAGE_FACTOR if detected else ONE_SIDED) * widening
    noise = Noise.of(result.diffractogram)
    base = result.minimum.point.objective
    best = float(result.scales[number])
    first_step = _scale_su(result, number)

    def rise(scale: float) -> tuple[float, FloatArray]:
        found = minimise(
            result.pattern,
            noise,
            result.values,
            tolerance=1e-2,
            max_steps=12,
            first_model=result.model,
            fixed_scale=(number, scale),
        )
        masses = np.array(
            [
                found.point.linear[k] * phase.mass_per_scale(found.point.values)
                for k, phase in enumerate(result.pattern.phases)
            ]
        )
        return max(found.point.objective - base, 0.0), masses

    high = _crossing(rise, best, first_step * factor, factor)
    absent = estimate.masses.copy()
    absent[number] = 0.0
    low = _crossing(rise, best, -min(first_step * factor, 0.7 * best), factor) if detected else absent
    return WeakPhase(number, level, detected, low, high)


def _crossing(rise: Callable[[float], tuple[float, FloatArray]], best: float, step: float, factor: float) -> FloatArray:
    """Return the masses where the profile has risen by factor^2, by secant steps in its square root."""
    masses = np.empty(0)
    for _ in range(6):
        height, masses = rise(max(best + step, 0.0))
        reached = math.sqrt(height)
        if abs(reached - factor) < 0.03 * factor or (best + step <= 0.0 and reached < factor):
            break
        stretch = factor / reached if reached > 0.0 else 3.0
        step = max(step * min(max(stretch, 0.3), 3.0), -best)
    return masses


def _scale_su(result: FitResult, number: int) -> float:
    """Return the standard uncertainty of a scale, also where a bound holds it at zero."""
    su = math.sqrt(max(float(result.covariance[number, number]), 0.0))
    if su > 0.0:
        return su
    information = float(result.fisher[number, number])
    return 2.0 / math.sqrt(information) if information > 0.0 else 1.0


def detection_limits(result: FitResult, estimate: MassEstimate) -> FloatArray:
    """Return the detection limit of each phase as a mass fraction (Currie 1968, Anal. Chem. 40, 586: 3.29 su at zero).

    su at zero is that of the phase's scale if it were absent: weights from the model without it, its own nonlinear
    parameters undetermined and therefore left out, everything else refined.
    """
    pattern, minimum = result.pattern, result.minimum
    table = pattern.parameters
    n_linear = pattern.n_linear
    limits = np.empty(len(pattern.phases))
    free_all = ~minimum.active
    for number, phase in enumerate(pattern.phases):
        column = minimum.point.columns[number][0]
        without = np.maximum(minimum.point.model - result.scales[number] * column, 1e-6)
        weights = minimum.weights * np.maximum(minimum.point.model, 1e-6) / without
        if result.diffractogram.su is not None:
            weights = minimum.weights
        keep = free_all.copy()
        keep[number] = True
        keep[n_linear + phase.parameter_index] = False
        keep[:number] &= result.scales[:number] > 0
        places = np.flatnonzero(keep)
        body = minimum.jacobian[places] * np.sqrt(weights)
        normal = body @ body.T
        nonlinear = np.flatnonzero(places >= n_linear)
        inside = places[nonlinear] - n_linear
        normal[np.ix_(nonlinear, nonlinear)] += table.prior_precision[np.ix_(inside, inside)]
        scale = np.sqrt(np.maximum(np.diag(normal), 1e-300))
        here = int(np.searchsorted(places, number))
        unit = np.zeros(places.size)
        unit[here] = 1.0 / scale[here]
        variance = (
            np.linalg.solve(normal / scale / scale[:, None] + 1e-12 * np.eye(places.size), unit)[here] / scale[here]
        )
        smallest = 3.29 * math.sqrt(max(variance, 0.0)) * phase.mass_per_scale(result.values)
        others = float(estimate.masses.sum() - estimate.masses[number])
        limits[number] = smallest / (others + smallest) if others > 0 else 0.0
    return limits
