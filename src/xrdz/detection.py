"""Phases near or below their detection limit: the limit itself, and intervals from the profile likelihood.

An absent phase still owns a cell, widths, displacement and texture, and its fit looks for the best place in the noise.
Its scale over its uncertainty is therefore no normal deviate. Detected is a phase whose absence would cost

    T = objective(S = 0) - objective(best) > c^2 chi^2_k,   k = 1 + sum over its own parameters of (1 - C_qq P_qq)

the quantile being that of `FALSE_DETECTION`, k its effective number of parameters (1 where the data, 0 where the prior
decides one; after Davies 1977, Biometrika 64, 247), and c = su / su_stat >= 1 what counting does not hold.

The detection limit is the amount that passes this test with 95 % (Currie 1968, Anal. Chem. 40, 586):
(sqrt(chi^2_k) + 1.645) su_0, su_0 being that of the scale of an absent phase, with k = 2 + its free cell parameters. A
weak phase's own widths are what noise made of them, mostly too narrow: the limit takes those of the heaviest phase, as
grains of one powder are. One of far smaller grains needs more.

Near zero the normal interval of ln Z fails. There the interval of a scale S is where the profile of the objective,
minimised over everything else, rises above its minimum by (1.96 c)^2 (Wilks 1938, Ann. Math. Stat. 9, 60), for an upper
limit as well: its own widths make a weak phase less regular than Wilks assumes, and 1.645 holds the truth too rarely.
The upper end of a phase that is not detected is at least its detection limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from xrdz.algebra import sums_of_points
from xrdz.diffractogram import FloatArray
from xrdz.fit import FitResult
from xrdz.phase_model import WIDTH_NAMES
from xrdz.quantify import COUNTING, COVERAGE_FACTOR, MassEstimate
from xrdz.solver import Noise, minimise

FALSE_DETECTION_DEVIATE = 2.5758293035489004
"""Normal deviate of the probability of a false detection, 0.5 % for each phase."""

BROAD_DEG = 0.6
"""Lorentzian size width at which the profile of a weak phase is started a second time, grains of about 10 nm."""

WIDEST_DEG = 1.5
"""Mean width (deg) of the lines, grains of about 6 nm, beyond which what was fitted is background, not a phase.

Below the step of the scan it is noise: such lines describe single points, and no goniometer resolves them."""

PROFILE_BELOW = 8.0
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
    detected : whether the cost of its absence exceeds the quantile above
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


def is_weak(result: FitResult, estimate: MassEstimate, number: int) -> bool:
    """Return whether a phase is near or below its detection limit, or so broad that it describes background."""
    return significance(result, estimate, number) < PROFILE_BELOW or is_background(result, number)


def is_background(result: FitResult, number: int) -> bool:
    """Return whether what a phase describes is background or noise, by the mean width of its lines.

    The mean weighs with the areas: anisotropic widths can leave the strongest line narrow and spread all others out.
    """
    state = result.states[number]
    width = float(state.fwhm @ state.intensity / max(float(state.intensity.sum()), 1e-300))
    return width > WIDEST_DEG or width < result.pattern.grid.point_step


def profile_weak_phase(result: FitResult, estimate: MassEstimate, number: int) -> WeakPhase:
    """Return the profile-likelihood interval of a weak phase."""
    level = significance(result, estimate, number)
    absent = estimate.masses.copy()
    absent[number] = 0.0
    if result.is_hopeless:
        # The model is not this scan's: a profile of its objective would mean nothing, whatever it cost.
        some = estimate.masses.copy()
        some[number] += (
            COVERAGE_FACTOR * _scale_su(result, number) * result.pattern.phases[number].mass_per_scale(result.values)
        )
        return WeakPhase(number, level, False, absent, some)
    gradient = np.zeros(estimate.masses.size)
    gradient[number] = 1.0
    variances = estimate.variances(gradient)
    widening = 1.0
    if variances[COUNTING] > 0.0 and result.scales[number] > 0.0:
        widening = min(math.sqrt(sum(variances.values()) / variances[COUNTING]), 5.0)
    noise = Noise.of(result.diffractogram)
    base = result.minimum.point.objective
    best = float(result.scales[number])
    first_step = _scale_su(result, number)

    broadened = result.values.copy()
    broadened[result.pattern.parameters.index(f"{result.pattern.phases[number].id}.size_lorentz")] = BROAD_DEG

    def rise(scale: float) -> tuple[float, FloatArray]:
        # Broad lines of a weak phase hide in the background, a minimum of its own that must be asked for.
        starts = (result.values, broadened) if scale > best else (result.values,)
        found = [
            minimise(
                result.pattern,
                noise,
                start,
                tolerance=1e-2,
                max_steps=12,
                first_model=result.model,
                fixed_scale=(number, scale),
            ).point
            for start in starts
        ]
        lowest = min(found, key=lambda point: point.objective)
        masses = np.array(
            [lowest.linear[k] * phase.mass_per_scale(lowest.values) for k, phase in enumerate(result.pattern.phases)]
        )
        return max(lowest.objective - base, 0.0), masses

    threshold = chi_squared_quantile(effective_parameters(result, number))
    detected = best > 0.0 and not is_background(result, number) and rise(0.0)[0] > widening**2 * threshold
    factor = COVERAGE_FACTOR * widening
    high = _crossing(rise, best, first_step * factor, factor)
    low = _crossing(rise, best, -min(first_step * factor, 0.7 * best), factor) if detected else absent
    return WeakPhase(number, level, detected, low, high)


def at_least_the_limit(profile: WeakPhase, mass: float) -> WeakPhase:
    """Return a weak phase with the upper end of its interval at its detection limit `mass` or above, if not detected.

    A lesser amount may be there unseen: a profile that noise made steep cannot exclude it.
    """
    if profile.detected or profile.masses_high[profile.number] >= mass:
        return profile
    high = profile.masses_high.copy()
    high[profile.number] = mass
    return replace(profile, masses_high=high)


def effective_parameters(result: FitResult, number: int) -> float:
    """Return one for the scale plus, for each own parameter, the share of its prior variance the data removed."""
    pattern = result.pattern
    places = pattern.phases[number].parameter_index
    posterior = np.diag(result.covariance)[pattern.n_linear + places]
    free = ~result.minimum.active[pattern.n_linear + places]
    removed = np.clip(1.0 - posterior / pattern.parameters.prior_su[places] ** 2, 0.0, 1.0)
    return 1.0 + float(np.sum(removed[free]))


def chi_squared_quantile(freedom: float) -> float:
    """Return the upper quantile of chi^2 at `FALSE_DETECTION_DEVIATE` (Wilson & Hilferty 1931, PNAS 17, 684)."""
    share = 2.0 / (9.0 * freedom)
    return freedom * (1.0 - share + FALSE_DETECTION_DEVIATE * math.sqrt(share)) ** 3


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


def _column_with_widths_of(result: FitResult, number: int, other: int) -> FloatArray:
    """Return a phase's pattern of unit scale with another's widths, summed as the fit's `summed` is."""
    pattern, values = result.pattern, result.values.copy()
    if other != number:
        ours, theirs = (pattern.phases[k] for k in (number, other))
        for name in WIDTH_NAMES:
            values[pattern.parameters.index(f"{ours.id}.{name}")] = result.value(f"{theirs.id}.{name}")
    column = pattern.phase_columns(values, derivatives=False)[number].pattern
    summed: FloatArray = sums_of_points(column[None], np.ones(column.size), result.summed.factor)[0]
    return summed


def detection_limits(result: FitResult, estimate: MassEstimate) -> FloatArray:
    """Return the detection limit of each phase as a mass fraction; see the module.

    su at zero is that of the phase's scale if it were absent: weights from the model without it, its own nonlinear
    parameters undetermined and therefore left out, everything else refined.
    """
    pattern, minimum, coarse = result.pattern, result.minimum, result.summed
    table = pattern.parameters
    n_linear = pattern.n_linear
    limits = np.empty(len(pattern.phases))
    free_all = ~minimum.active
    for number, phase in enumerate(pattern.phases):
        # Poisson weights at the model without the phase, relative to those the Jacobian holds already.
        relative = np.ones(coarse.root.size)
        own = coarse.columns[number]
        if is_weak(result, estimate, number):
            own = _column_with_widths_of(result, number, int(np.argmax(estimate.masses)))
        if result.diffractogram.su is None:
            share = result.scales[number] * coarse.columns[number] / coarse.model
            relative = 1.0 / np.sqrt(np.maximum(1.0 - share, 1e-6))
        keep = free_all.copy()
        keep[number] = True
        keep[n_linear + phase.parameter_index] = False
        keep[:number] &= result.scales[:number] > 0
        places = np.flatnonzero(keep)
        body = coarse.whitened[places] * relative
        here = int(np.searchsorted(places, number))
        body[here] = own * coarse.root * relative
        normal = body @ body.T
        nonlinear = np.flatnonzero(places >= n_linear)
        inside = places[nonlinear] - n_linear
        normal[np.ix_(nonlinear, nonlinear)] += table.prior_precision[np.ix_(inside, inside)]
        scale = np.sqrt(np.maximum(np.diag(normal), 1e-300))
        unit = np.zeros(places.size)
        unit[here] = 1.0 / scale[here]
        variance = (
            np.linalg.solve(normal / scale / scale[:, None] + 1e-12 * np.eye(places.size), unit)[here] / scale[here]
        )
        factor = math.sqrt(chi_squared_quantile(2.0 + phase.n_cell)) + ONE_SIDED
        smallest = factor * math.sqrt(max(variance, 0.0)) * phase.mass_per_scale(result.values)
        # In a specimen of the same total mass; a single phase has nothing to be a fraction of.
        total = max(float(estimate.masses.sum()), smallest)
        limits[number] = smallest / total if len(limits) > 1 else 0.0
    return limits
