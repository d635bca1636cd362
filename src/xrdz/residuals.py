"""What a fit leaves over: agreement indices and peaks no phase explains.

R_wp^2 = sum w (y - m)^2 / sum w y^2,  R_exp^2 = (N - P) / sum w y^2  (Young 1993, The Rietveld Method, table 1.3);
d = sum (r_i - r_(i-1))^2 / sum r_i^2 with r = sqrt(w) (y - m)  (Hill & Flack 1987, J. Appl. Cryst. 20, 356).

Unexplained peaks are found by a matched filter: the residual r is correlated with the local peak shape; the
correlation over its own standard deviation is the significance of a peak of that width there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xrdz.diffractogram import FloatArray
from xrdz.fit import FitResult


@dataclass(frozen=True)
class Agreement:
    """Agreement indices; R values in percent."""

    rwp: float
    rexp: float
    gof: float
    rwp_background_subtracted: float
    durbin_watson: float


@dataclass(frozen=True)
class ResidualPeak:
    """A peak no phase explains: position (deg 2theta), significance (su), area and height relative to the strongest."""

    two_theta: float
    significance: float
    area: float
    relative_height: float


def agreement_of(result: FitResult) -> Agreement:
    """Return the agreement indices of a fit."""
    y, m = result.diffractogram.intensity, result.model
    weights = result.minimum.weights
    misfit = float(np.sum(weights * (y - m) ** 2))
    whole = float(np.sum(weights * y**2))
    net = float(np.sum(weights * (y - result.background) ** 2))
    freedom = max(y.size - result.fisher.shape[0], 1)
    residual = np.sqrt(weights) * (y - m)
    return Agreement(
        rwp=100.0 * float(np.sqrt(misfit / whole)),
        rexp=100.0 * float(np.sqrt(freedom / whole)),
        gof=float(np.sqrt(misfit / freedom)),
        rwp_background_subtracted=100.0 * float(np.sqrt(misfit / net)) if net > 0 else 100.0,
        durbin_watson=float(np.sum(np.diff(residual) ** 2) / max(float(np.sum(residual**2)), 1e-300)),
    )


def typical_width(result: FitResult) -> FloatArray:
    """Return the narrowest phase's full width at each measured point, deg."""
    x = result.pattern.two_theta
    widths = []
    for phase in result.pattern.phases:
        state = result.pattern.peak_state(phase, result.values)
        order = np.argsort(state.centre)
        widths.append(np.interp(x, state.centre[order], state.fwhm[order]))
    width: FloatArray = np.min(widths, axis=0)
    return width


def unexplained_peaks(result: FitResult, *, least_significance: float = 6.0, most: int = 12) -> list[ResidualPeak]:
    """Return peaks in the residual by decreasing significance.

    A candidate must stand out of the local misfit as well: where the model's own peaks leave residuals, the
    significance is measured against their scatter, and an excess below 3 % of the calculated peak is no new peak.
    """
    x = result.pattern.two_theta
    weights = result.minimum.weights
    y, m = result.diffractogram.intensity, result.model
    residual = (y - m) * weights
    width = typical_width(result)
    step = float(np.median(np.diff(x)))
    peaks: list[ResidualPeak] = []
    reference = float(np.max(m - result.background)) if m.size else 0.0
    strength = np.zeros(x.size)
    area = np.zeros(x.size)
    for factor in (1.0, 2.0):
        half = int(np.ceil(1.5 * factor * float(np.median(width)) / step))
        offsets = np.arange(-half, half + 1) * step
        sigma = factor * float(np.median(width)) / 2.355
        shape = np.exp(-0.5 * (offsets / sigma) ** 2)
        shape /= shape.sum() * step
        signal = np.convolve(residual, shape[::-1], mode="same")
        information = np.convolve(weights, (shape**2)[::-1], mode="same")
        z = signal / np.sqrt(np.maximum(information, 1e-300))
        better = z > strength
        strength = np.where(better, z, strength)
        area = np.where(better, signal / np.maximum(information, 1e-300), area)
    # Profile misfit at strong peaks is no new phase: count it as extra noise in proportion to the calculated peak.
    model_peak = np.maximum(m - result.background, 0.0)
    height = area / (1.2 * np.median(width))
    smeared = np.convolve(model_peak, np.ones(2 * half + 1) / (2 * half + 1), mode="same")
    credible = height > 0.05 * np.maximum(model_peak, smeared)
    local = (strength > least_significance) & credible
    local[1:-1] &= (strength[1:-1] >= strength[:-2]) & (strength[1:-1] >= strength[2:])
    for place in np.flatnonzero(local)[np.argsort(-strength[local])]:
        if all(abs(x[place] - peak.two_theta) > 2.0 * width[place] for peak in peaks):
            peaks.append(
                ResidualPeak(
                    float(x[place]),
                    float(strength[place]),
                    float(area[place]),
                    float(height[place] / reference) if reference > 0 else 0.0,
                )
            )
        if len(peaks) >= most:
            break
    return peaks
