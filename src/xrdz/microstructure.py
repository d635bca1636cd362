"""Sizes, strains and Bragg agreement of a fitted phase.

Integral breadth of a Voigt function from its Gaussian and Lorentzian parts (de Keijser, Langford, Mittemeijer & Vogels
1982, J. Appl. Cryst. 15, 308):  beta = beta_G exp(-k^2) / erfc(k),  k = beta_L / (sqrt(pi) beta_G),
beta_G = G sqrt(pi / (4 ln 2)),  beta_L = L pi / 2.  Volume-weighted column length D = lambda / (beta cos theta)
(Scherrer), and strain e = beta / (4 tan theta) (Stokes & Wilson 1944).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from xrdz.diffractogram import FloatArray
from xrdz.fit import FitResult
from xrdz.pattern import PhaseModel

Estimated = tuple[float, float]


def voigt_breadth(gauss_squared: float, lorentz: float) -> float:
    """Return the integral breadth of a Voigt function with widths G^2 (deg^2) and L (deg), in degrees."""
    gauss = math.sqrt(max(gauss_squared, 0.0)) * math.sqrt(math.pi / (4.0 * math.log(2.0)))
    cauchy = 0.5 * math.pi * max(lorentz, 0.0)
    if gauss < 1e-6 * max(cauchy, 1e-12):
        return cauchy
    k = cauchy / (math.sqrt(math.pi) * gauss)
    if k > 5.0:  # erfc underflows; the Lorentzian limit with its first correction
        return cauchy * (1.0 + 0.5 / k**2)
    return gauss * math.exp(-k * k) / math.erfc(k)


def _propagated(result: FitResult, names: tuple[str, ...], function: Callable[..., float]) -> Estimated:
    table = result.pattern.parameters
    places = [table.index(name) for name in names]
    values = result.values[places]
    centre = function(*values)
    gradient = np.zeros(len(names))
    for k in range(len(names)):
        step = max(1e-4 * abs(values[k]), 1e-6)
        shifted = values.copy()
        shifted[k] += step
        gradient[k] = (function(*shifted) - centre) / step
    rows = result.pattern.n_linear + np.array(places)
    covariance = result.covariance[np.ix_(rows, rows)]
    return centre, math.sqrt(max(float(gradient @ covariance @ gradient), 0.0))


def size_nm(result: FitResult, phase: PhaseModel) -> Estimated | None:
    """Return the volume-weighted column length (nm) and su; None when no size broadening is seen."""
    wavelength = result.pattern.instrument.wavelength.principal
    names = (f"{phase.id}.size_gauss", f"{phase.id}.size_lorentz")

    def breadth(gauss_squared: float, lorentz: float) -> float:
        return voigt_breadth(gauss_squared, lorentz)

    beta, su = _propagated(result, names, breadth)
    if beta < 3e-3:
        return None
    size = 0.1 * wavelength / math.radians(beta)
    return size, size * su / beta


def strain(result: FitResult, phase: PhaseModel) -> Estimated:
    """Return the apparent strain Delta d / d and su."""
    names = (f"{phase.id}.strain_gauss", f"{phase.id}.strain_lorentz")

    def apparent(gauss_squared: float, lorentz: float) -> float:
        return math.radians(voigt_breadth(gauss_squared, lorentz)) / 4.0

    return _propagated(result, names, apparent)


def r_bragg(result: FitResult, number: int) -> float | None:
    """Return R_Bragg of a phase in percent, observed intensities by Rietveld's partition inside +-1.5 widths."""
    pattern = result.pattern
    if result.scales[number] <= 0.0:
        return None
    state = result.states[number]
    x = pattern.two_theta
    reach = 1.5 * state.fwhm
    first, last = np.searchsorted(x, state.centre - reach), np.searchsorted(x, state.centre + reach)
    background = result.background

    def inside(curve: FloatArray) -> FloatArray:
        sums = np.concatenate(([0.0], np.cumsum(curve)))
        return sums[last] - sums[first]

    calculated = inside(result.model - background)
    observed = inside(result.diffractogram.intensity - background)
    seen = (last > first) & (calculated > 0.0)
    if not seen.any():
        return None
    misfit = state.intensity[seen] * np.abs(observed[seen] / calculated[seen] - 1.0)
    return 100.0 * float(misfit.sum() / state.intensity[seen].sum())
