"""From refined scales to masses, mass fractions, their ratio, and an uncertainty by source.

    m_p = S_p (Z M V)_p                                    Hill & Howard 1987, J. Appl. Cryst. 20, 467
    w_p = m_p / sum_q m_q,      Z = m_numerator / m_denominator

Uncertainty. Every source gives a covariance matrix of the masses, all propagated to any quantity by its gradient g:

* counting: G C F C G^T, what the counts alone contribute with all parameters refined together
* one matrix per group of priors: G C P_group C G^T (displacement parameters, texture, peak shape, cell and position)
* texture model, broadening model: direction-dependent terms that were left out (see `evidence`)
* charge of the atoms: form factors between those of neutral atoms and ions (see `charges`)
* background flexibility: the spread of the masses over background orders, weighted by their evidence
* model misfit: what the cluster-robust covariance (see `fit`) shows beyond counting, never less than zero

G = d m / d theta, C the posterior covariance, F the counting information, P the prior precisions. Counting plus priors
is exactly the posterior covariance. The interval of Z is made in ln Z, that of a fraction in ln(w / (1 - w)), so that
both stay where they can be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from xrdz.crystal import cell_from_free
from xrdz.diffractogram import FloatArray
from xrdz.evidence import charge_spread, left_out_spread
from xrdz.fit import FitResult
from xrdz.phase_model import PhaseModel

COVERAGE_FACTOR = 1.959963984540054
"""Two-sided 95 % of the normal distribution."""

COUNTING = "counting"
MISFIT = "model misfit"
BACKGROUND = "background flexibility"
TEXTURE_MODEL = "texture model"
BROADENING_MODEL = "broadening model"
CHARGE = "charge of the atoms"
PRIOR_GROUPS: Mapping[str, str] = {
    "B": "displacement parameters",
    "ln_texture": "texture",
    "size_lorentz": "peak shape",
    "strain_lorentz": "peak shape",
    "size_gauss": "peak shape",
    "strain_gauss": "peak shape",
    "u": "peak shape",
    "v": "peak shape",
    "w": "peak shape",
    "kappa": "peak shape",
    "roughness": "surface and footprint",
    "polarization": "polarization",
    "overspill": "surface and footprint",
    "defocus": "peak shape",
    "transparency": "peak shape",
    "satellite": "peak shape",
    "zero": "cell and position",
    "displacement": "cell and position",
}
"""Budget row of each parameter's prior; cell parameters share the row of the position."""


@dataclass(frozen=True)
class Quantity:
    """A value with its standard uncertainties and 95 % interval.

    Parameters
    ----------
    su_stat : counting statistics alone
    su : combined, all sources
    interval95 : limits of the 95 % interval; an open side is infinite
    """

    value: float
    su_stat: float
    su: float
    interval95: tuple[float, float]


@dataclass(frozen=True)
class MassEstimate:
    """Masses of all phases (arbitrary common unit) and their covariance by source.

    Parameters
    ----------
    masses : (p,)
    sources : covariance (p, p) of each source but the misfit
    robust : cluster-robust covariance; what it exceeds counting by is the misfit
    """

    ids: tuple[str, ...]
    masses: FloatArray
    sources: Mapping[str, FloatArray]
    robust: FloatArray

    @property
    def fractions(self) -> FloatArray:
        """Mass fractions of the crystalline phases."""
        result: FloatArray = self.masses / self.masses.sum()
        return result

    @cached_property
    def _stacked(self) -> FloatArray:
        """Covariance matrices of the sources, (sources, p, p)."""
        return np.array(list(self.sources.values()))

    def variances(self, gradient: FloatArray) -> dict[str, float]:
        """Return the variance of a quantity with this gradient by the masses, one entry per source."""
        result = dict(zip(self.sources, ((self._stacked @ gradient) @ gradient).tolist(), strict=True))
        result[MISFIT] = max(float(gradient @ self.robust @ gradient) - result[COUNTING], 0.0)
        return {name: max(value, 0.0) for name, value in result.items()}

    def fraction_gradient(self, number: int) -> FloatArray:
        """Return d w_number / d m."""
        total = float(self.masses.sum())
        gradient = np.full(self.masses.size, -self.fractions[number] / total)
        gradient[number] += 1.0 / total
        return gradient

    def ln_ratio_gradient(self, numerator: int, denominator: int) -> FloatArray:
        """Return d ln(m_numerator / m_denominator) / d m."""
        gradient = np.zeros(self.masses.size)
        gradient[numerator] = 1.0 / self.masses[numerator]
        gradient[denominator] -= 1.0 / self.masses[denominator]
        return gradient


def mass_jacobian(result: FitResult) -> tuple[FloatArray, FloatArray]:
    """Return masses (p,) and d m / d (all parameters), (p, parameters)."""
    pattern = result.pattern
    n_linear = pattern.n_linear
    masses = np.empty(len(pattern.phases))
    jacobian = np.zeros((len(pattern.phases), n_linear + pattern.parameters.size))
    for number, (phase, scale) in enumerate(zip(pattern.phases, result.scales, strict=True)):
        factor = phase.mass_per_scale(result.values)
        masses[number] = scale * factor
        jacobian[number, number] = factor
        places = phase.parameter_index[: phase.n_cell]
        jacobian[number, n_linear + places] = scale * factor * relative_volume_slope(phase, result.values)
    return masses, jacobian


def relative_volume_slope(phase: PhaseModel, values: FloatArray) -> FloatArray:
    """Return d ln V / d (free cell parameters), V as in `crystal.cell_volume`."""
    a, b, c, *angles = phase.cell(values)
    x, y, z = np.cos(np.radians(angles))
    determinant = 1.0 - x * x - y * y - z * z + 2.0 * x * y * z
    by_cosine = np.array([y * z - x, x * z - y, x * y - z]) / determinant
    by_angle = -by_cosine * np.sin(np.radians(angles)) * np.radians(1.0)
    slope: FloatArray = np.concatenate(([1.0 / a, 1.0 / b, 1.0 / c], by_angle))
    return slope @ cell_from_free(phase.reference.crystal_system)


def prior_group(name: str) -> str:
    """Return the budget row of a nonlinear parameter's prior."""
    parts = name.split(".")
    if parts[0] == "response":
        return "intensity response"
    key = parts[0] if len(parts) == 1 else parts[1]
    if key.startswith("texture"):
        return "texture"
    if "anisotropy" in key:
        return "peak shape"
    return PRIOR_GROUPS.get(key, "cell and position")


def estimate_masses(result: FitResult) -> MassEstimate:
    """Return the masses of a fit with their covariance by source."""
    masses, jacobian = mass_jacobian(result)
    covariance = result.covariance
    spread = jacobian @ covariance
    sources: dict[str, FloatArray] = {COUNTING: spread @ result.fisher @ spread.T}
    table = result.pattern.parameters
    n_linear = result.pattern.n_linear
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(table.names):
        groups.setdefault(prior_group(name), []).append(place)
    for group, places in groups.items():
        # Priors correlated across groups are shared evenly between them, so that the groups add up to C P C.
        member = np.zeros(table.size)
        member[places] = 0.5
        shared = table.prior_precision * (member[:, None] + member[None, :])
        sources[group] = spread[:, n_linear:] @ shared @ spread[:, n_linear:].T
    sources[BACKGROUND] = _background_spread(result, jacobian)
    sources[TEXTURE_MODEL], sources[BROADENING_MODEL] = left_out_spread(result.weighed, jacobian)
    sources[CHARGE] = charge_spread(result.pattern, result.minimum, covariance, jacobian)
    scores = result.block_scores @ spread.T
    ids = tuple(phase.id for phase in result.pattern.phases)
    return MassEstimate(ids, masses, sources, scores.T @ scores)


def _background_spread(result: FitResult, jacobian: FloatArray) -> FloatArray:
    """Return the covariance of the masses over background orders, weighted by their probability."""
    orders = result.orders
    n_phases, n_linear = len(result.pattern.phases), result.pattern.n_linear
    chosen = np.concatenate((jacobian[:, :n_phases], jacobian[:, n_linear:]), axis=1)
    shifts = orders.steps @ chosen.T
    weights = orders.probability
    mean = weights @ shifts
    deviation = shifts - mean
    spread: FloatArray = (weights[:, None] * deviation).T @ deviation
    return spread


def fraction_quantity(estimate: MassEstimate, number: int) -> Quantity:
    """Return a phase's mass fraction with its interval made in ln(w / (1 - w))."""
    value = float(estimate.fractions[number])
    variances = estimate.variances(estimate.fraction_gradient(number))
    su_stat, su = math.sqrt(variances[COUNTING]), math.sqrt(sum(variances.values()))
    if len(estimate.ids) == 1:
        return Quantity(1.0, 0.0, 0.0, (1.0, 1.0))
    if not 0.0 < value < 1.0:
        return Quantity(value, su_stat, su, (max(value - 2 * su, 0.0), min(value + 2 * su, 1.0)))
    centre, half = math.log(value / (1.0 - value)), COVERAGE_FACTOR * su / (value * (1.0 - value))
    return Quantity(value, su_stat, su, (_logistic(centre - half), _logistic(centre + half)))


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x > -700 else 0.0


def ratio_quantity(estimate: MassEstimate, numerator: int, denominator: int) -> tuple[Quantity, dict[str, float]]:
    """Return the mass ratio with its interval made in ln Z, and the variance of ln Z by source."""
    value = float(estimate.masses[numerator] / estimate.masses[denominator])
    variances = estimate.variances(estimate.ln_ratio_gradient(numerator, denominator))
    u_stat, u = math.sqrt(variances[COUNTING]), math.sqrt(sum(variances.values()))
    half = math.exp(min(COVERAGE_FACTOR * u, 700.0))
    return Quantity(value, value * u_stat, value * u, (value / half, value * half)), variances


def element_fractions(result: FitResult, estimate: MassEstimate) -> dict[str, tuple[float, float]]:
    """Return the mass fraction and su of each element implied by the phases."""
    compositions = [phase.reference.composition for phase in result.pattern.phases]
    elements = list(dict.fromkeys(element for composition in compositions for element in composition))
    fractions = estimate.fractions
    table = {}
    for element in elements:
        content = np.array([composition.get(element, 0.0) for composition in compositions])
        value = float(content @ fractions)
        gradient = (content - value) / estimate.masses.sum()
        table[element] = (value, math.sqrt(sum(estimate.variances(gradient).values())))
    return table


__all__ = [
    "COUNTING",
    "MassEstimate",
    "Quantity",
    "element_fractions",
    "estimate_masses",
    "fraction_quantity",
    "ratio_quantity",
]
