"""Which direction-dependent terms a fit needs, and what those it leaves out may still do to the masses.

At the minimum of a model each extension e of amplitude a (zero so far, prior su s_a) is weighed by one step. With g its
score, h = J_e W J_e - J_e W J C J W J_e + 1/s_a^2 its curvature with everything else refined (Schur complement),

    gain = g^2 / h,   a = g / h,   dm = K a,   K = -(d m / d theta) C J W J_e    masses per unit amplitude
    ln(odds) = gain / 2 - ln(h s_a^2) / 2 + ln(prior odds)                       Laplace's evidence; MacKay 1992

(Neural Comput. 4, 415). The gain is divided by the misfit chi^2 / N where that exceeds one: a model that is wrong
elsewhere must not buy terms with its misfit. Extensions above `ENTER_GAIN` are refined. Those left out keep a share of
the uncertainty, with p their probability: p K K / h for an amplitude that may be there, and p (1 - p) dm dm for the
choice itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xrdz.anisotropy import Extension, possible_extensions
from xrdz.diffractogram import FloatArray
from xrdz.pattern import PatternModel
from xrdz.solver import Minimum, Noise

ENTER_GAIN = 12.0
"""Decrease of the objective, over the misfit, from which an extension is refined."""

PRIOR_ODDS = 0.25
MOST_AT_ONCE = 4


@dataclass(frozen=True)
class WeighedExtension:
    """One extension's evidence at a minimum.

    Parameters
    ----------
    gain : expected decrease of the objective over the misfit
    amplitude, curvature : of the one step, h
    probability : that the term is there
    shift : (scales and nonlinear parameters) change per unit amplitude
    """

    extension: Extension
    gain: float
    amplitude: float
    curvature: float
    probability: float
    shift: FloatArray


def weigh_extensions(
    pattern: PatternModel,
    minimum: Minimum,
    noise: Noise,
    covariance: FloatArray,
    *,
    refined: Sequence[Extension],
    misfit: float,
) -> tuple[WeighedExtension, ...]:
    """Return the evidence of every extension the model does not have yet, best first."""
    point = minimum.point
    root = np.sqrt(minimum.weights)
    residual = root * (noise.observed - point.model)
    found = []
    for number, phase in enumerate(pattern.phases):
        scale = point.linear[number]
        if scale <= 0.0:
            continue
        present = {extension.name for extension in refined}
        extensions = [
            extension
            for extension in possible_extensions(phase.reference, phase.texture_axis)
            if extension.name not in present
        ]
        if not extensions:
            continue
        columns = scale * root * pattern.extension_columns(number, extensions, point.values)
        scores = columns @ residual
        cross = columns @ minimum.whitened.T
        own = np.einsum("en,en->e", columns, columns)
        for row, extension in enumerate(extensions):
            prior_su = extension.parameter().prior_su
            response = -covariance @ cross[row]
            curvature = float(own[row] + cross[row] @ response) + prior_su**-2.0
            if curvature <= 0.0:
                continue
            gain = float(scores[row] ** 2 / curvature) / misfit
            log_odds = 0.5 * gain - 0.5 * np.log(curvature * prior_su**2) + np.log(PRIOR_ODDS)
            found.append(
                WeighedExtension(
                    extension,
                    gain,
                    float(scores[row] / curvature),
                    curvature,
                    float(1.0 / (1.0 + np.exp(-np.clip(log_odds, -60.0, 60.0)))),
                    response,
                )
            )
    return tuple(sorted(found, key=lambda item: -item.gain))


def entering(weighed: Sequence[WeighedExtension]) -> tuple[Extension, ...]:
    """Return the extensions to refine next: the best of each phase and kind above `ENTER_GAIN`, a few at once."""
    chosen: list[Extension] = []
    for item in weighed:
        taken = {(extension.phase, extension.kind) for extension in chosen}
        if item.gain > ENTER_GAIN and (item.extension.phase, item.extension.kind) not in taken:
            chosen.append(item.extension)
    return tuple(chosen[:MOST_AT_ONCE])


def left_out_spread(weighed: Sequence[WeighedExtension], mass_jacobian: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the covariance of the masses from extensions left out: (texture, broadening), each (p, p)."""
    size = mass_jacobian.shape[0]
    texture, broadening = np.zeros((size, size)), np.zeros((size, size))
    for item in weighed:
        per_amplitude = mass_jacobian @ item.shift
        p = item.probability
        variance = p / item.curvature + p * (1.0 - p) * item.amplitude**2
        target = texture if item.extension.kind == "texture" else broadening
        target += variance * np.outer(per_amplitude, per_amplitude)
    return texture, broadening


def charge_spread(
    pattern: PatternModel, minimum: Minimum, covariance: FloatArray, mass_jacobian: FloatArray
) -> FloatArray:
    """Return the covariance of the masses from the charges of the atoms, everything else refined along, (p, p).

    With one su of a charge the pattern changes by J_q, and the masses by -(d m / d theta) C J W J_q. Charges of
    different atoms and phases are taken as independent.
    """
    size = mass_jacobian.shape[0]
    total = np.zeros((size, size))
    root = np.sqrt(minimum.weights)
    for number in range(len(pattern.phases)):
        scale = minimum.point.linear[number]
        if scale <= 0.0 or not pattern.phases[number].uncertain_charges:
            continue
        columns = scale * root * pattern.charge_columns(number, minimum.point.values)
        changes = mass_jacobian @ covariance @ (minimum.whitened @ columns.T)
        total += changes @ changes.T
    return total
