"""Other lines of the tube: K-beta that the filter lets through, L-alpha of tungsten from the filament.

Every phase diffracts them too, at the angles of their wavelengths. A line is weighed at the minimum of a fit by its
pattern c, calculated at the refined values as if it were as strong as K-alpha: first on the strongest reflections
alone, with the residual r and the weights W,

    z = sum_j h_j sum_i W_i r_i / sqrt(sum_j h_j^2 sum_i W_i),    h_j the height, i the points within half a width of it

then, where z says so, by the score test of `candidates` with everything else refined along. A line that passes becomes
one linear column, its share of the K-alpha intensity; the pattern itself is not differentiated: a share of some
percent moves no cell or width. Lines that no reflection shows are left out without a trace, as they move nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xrdz.algebra import sums_of_points
from xrdz.candidates import LEAST_GAIN, bears_out
from xrdz.diffractogram import FloatArray
from xrdz.errors import FitError, InputError
from xrdz.findings import Code, Finding, info
from xrdz.fit import FitResult, Status, fit
from xrdz.pattern import TubePatterns, compile_pattern
from xrdz.phase_model import lorentz_polarization
from xrdz.wavelength import TubeLine, Wavelength, tube_lines

SCREEN_SIGNIFICANCE, ENTER_SIGNIFICANCE = 3.0, 5.0
"""Significance from which a line's pattern is calculated, and from which it is refined."""

STRONGEST = 12
"""Reflections a line is looked for at first."""

DEGREE = 180.0 / math.pi


def with_tube_lines(result: FitResult) -> FitResult:
    """Return a fit with the tube's other lines the data ask for, the fit itself where there are none."""
    asking = [line for line in tube_lines(result.pattern.instrument.wavelength) if _is_seen(result, line)]
    if not asking:
        return result
    tube = tube_patterns(result, asking)
    entering = [number for number in range(len(tube.labels)) if _enters(result, tube.parts[number].sum(axis=0))]
    if not entering:
        return result
    chosen = TubePatterns(tuple(tube.labels[number] for number in entering), tube.parts[entering])
    try:
        refined = fit(
            result.diffractogram,
            instrument=result.pattern.instrument,
            references=[phase.reference for phase in result.pattern.phases],
            texture_axes=[phase.texture_axis for phase in result.pattern.phases],
            near=result,
            tube=chosen,
        )
    except FitError:
        return result
    gain = result.minimum.point.objective - refined.minimum.point.objective
    kept = refined.status is not Status.NOT_CONVERGED or result.status is Status.NOT_CONVERGED
    return refined if kept and gain > LEAST_GAIN * max(refined.chi2_reduced, 1.0) else result


def tube_patterns(result: FitResult, lines: Sequence[TubeLine]) -> TubePatterns:
    """Return the patterns of other lines at a fit's values and scales; lines that reach no reflection are left out.

    A phase's scale belongs to the normalisation of its pattern, which differs between wavelengths.
    """
    pattern = result.pattern
    labels, parts = [], []
    for line in lines:
        instrument = replace(pattern.instrument, wavelength=Wavelength(((line.angstrom, 1.0),)))
        try:
            other = compile_pattern(
                result.diffractogram,
                instrument=instrument,
                references=[phase.reference for phase in pattern.phases],
                n_chebyshev=1,
                at=result.values,
                texture_axes=[phase.texture_axis for phase in pattern.phases],
                extensions=result.extensions,
            )
        except InputError:
            continue
        amounts = [
            scale * theirs.normalisation / ours.normalisation
            for scale, ours, theirs in zip(result.scales, pattern.phases, other.phases, strict=True)
        ]
        columns = other.phase_columns(result.values, derivatives=False)
        labels.append(line.label)
        parts.append([amount * block.pattern for amount, block in zip(amounts, columns, strict=True)])
    return TubePatterns(tuple(labels), np.array(parts).reshape(len(labels), len(pattern.phases), -1))


def tube_findings(result: FitResult) -> list[Finding]:
    """Return `TUBE_LINE_FITTED` for each other line of the tube in the fit, with its share."""
    return [
        info(
            Code.TUBE_LINE_FITTED,
            f"{label} of the tube was fitted: {100.0 * share:.2g} % of the K-alpha intensity",
            where=label,
            suggestion="nothing: its reflections are part of the fit; a better filter takes them out",
        )
        for label, share in zip(result.pattern.tube.labels, result.tube_shares.tolist(), strict=True)
    ]


def _is_seen(result: FitResult, line: TubeLine) -> bool:
    """Return whether the strongest reflections may show a line."""
    x = result.pattern.two_theta
    weights = result.minimum.weights
    residual = result.diffractogram.intensity - result.model
    sums = np.concatenate(([0.0], np.cumsum(weights))), np.concatenate(([0.0], np.cumsum(weights * residual)))
    there, area, width = _moved(result, line)
    inside = (there > x[0]) & (there < x[-1])
    there, area, width = there[inside], area[inside], width[inside]
    strongest = np.argsort(area)[-STRONGEST:]
    low = np.searchsorted(x, there[strongest] - 0.5 * width[strongest])
    high = np.searchsorted(x, there[strongest] + 0.5 * width[strongest])
    height = area[strongest] / width[strongest]
    information = float(height**2 @ (sums[0][high] - sums[0][low]))
    score = float(height @ (sums[1][high] - sums[1][low]))
    return score > SCREEN_SIGNIFICANCE * math.sqrt(information)


def _moved(result: FitResult, line: TubeLine) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return place (deg), area for an emission as strong as K-alpha, and width (deg) of every reflection at a line."""
    ratio = line.angstrom / result.pattern.instrument.wavelength.principal
    polarization = result.value("polarization")
    places, areas, widths = [], [], []
    for state, scale in zip(result.states, result.scales, strict=True):
        ours = np.radians(0.5 * state.bragg)
        theirs = np.arcsin(np.minimum(np.sin(ours) * ratio, 1.0 - 1e-9))
        factor = lorentz_polarization(theirs, polarization=polarization)
        factor /= lorentz_polarization(ours, polarization=polarization)
        places.append(state.centre - state.bragg + 2.0 * DEGREE * theirs)
        areas.append(scale * state.intensity * factor)
        widths.append(state.fwhm)
    return np.concatenate(places), np.concatenate(areas), np.concatenate(widths)


def _enters(result: FitResult, column: FloatArray) -> bool:
    """Return whether the score of a line, everything else refined along, is significant and borne out by its lines."""
    coarse = result.summed
    own = sums_of_points(column[None], np.ones(column.size), coarse.factor)[0] * coarse.root
    response = -result.covariance @ (coarse.whitened @ own)
    free = own + response @ coarse.whitened
    information = float(own @ free)
    if information <= 1e-6 * float(own @ own):
        return False
    noise = math.sqrt(max(result.chi2_reduced, 1.0))
    significance = float(own @ coarse.residual) / math.sqrt(information) / noise
    consistent = bears_out(coarse.two_theta, free * coarse.residual, free * own, noise)
    return significance > ENTER_SIGNIFICANCE and consistent
