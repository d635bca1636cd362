"""Poisson maximum likelihood with Gaussian priors, by variable projection on normal equations.

Minimised is  D(y, m) + sum_q ((theta_q - mu_q) / su_q)^2  with the Poisson deviance
D = 2 sum_i [m_i - y_i + y_i ln(y_i / m_i)] / gain_i, or chi^2 where the diffractogram carries explicit uncertainties.
Weights are 1 / (gain m), renewed at every step (Fisher scoring), not 1 / y, which biases low counts.

At every trial point the linear parameters (scales, background) are solved exactly first, so the step of the
nonlinear ones is that of variable projection in Kaufman's approximation (Golub & Pereyra 2003, Inverse Problems 19,
R1). Steps come from the normal equations, scaled to a unit diagonal, by Cholesky; bounds by an active set: a parameter
that would leave its interval is put on its bound and the others are solved again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from xrdz import algebra, descent
from xrdz.descent import deviance, set_weights
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.errors import FitError
from xrdz.pattern import PatternModel

BoolArray = NDArray[np.bool_]

PREDICTED_DECREASE = 1e-3
"""The fit has converged when the next step promises less than this decrease of the objective."""

MAX_STEPS = 40

UNDETERMINED = "the normal equations are singular; a phase or a background term cannot be determined"


@dataclass(frozen=True)
class Noise:
    """Variance of each point: `gain * expected intensity`, floored, or fixed `su`^2."""

    observed: FloatArray
    gain: FloatArray
    su: FloatArray | None
    floor: float

    @classmethod
    def of(cls, diffractogram: Diffractogram) -> Noise:
        """Return the noise model of a diffractogram."""
        positive = diffractogram.intensity[diffractogram.intensity > 0]
        if positive.size == 0:
            raise FitError("no positive intensity in the range; check the file and the range")
        gain = np.full(diffractogram.n_points, 1.0) * diffractogram.gain
        typical = float(np.median(diffractogram.gain))
        # Below a fraction of a count the likelihood is flat; the floor keeps weights finite there.
        return cls(diffractogram.intensity, gain, diffractogram.su, 0.2 * typical)

    @cached_property
    def fixed_su(self) -> FloatArray:
        """Explicit standard uncertainties, empty without any, as the compiled functions take them."""
        return np.empty(0) if self.su is None else np.ascontiguousarray(self.su)

    def weights(self, model: FloatArray) -> FloatArray:
        """Return 1 / variance at the expected intensities `model`."""
        weights = np.empty(model.size)
        set_weights(model, self.gain, self.fixed_su, self.floor, weights)
        return weights

    def deviance(self, model: FloatArray) -> float:
        """Return the Poisson deviance of `model`, or chi^2 with explicit uncertainties."""
        return float(deviance(self.observed, model, self.gain, self.fixed_su, self.floor))


@dataclass(frozen=True)
class Point:
    """The model at one set of nonlinear values, linear parameters solved exactly.

    `patterns` are those of unit scale of the phases, (phases, n).
    """

    values: FloatArray
    linear: FloatArray
    model: FloatArray
    patterns: FloatArray
    deviance: float
    prior: float

    @property
    def objective(self) -> float:
        """Deviance plus prior term."""
        return self.deviance + self.prior


@dataclass(frozen=True)
class Minimum:
    """Where the minimiser stopped.

    `whitened` is the Jacobian times the root of the weights, (parameters, n); `normal` = J^T W J without priors over
    (linear, nonlinear) parameters, and `active` marks those held by a bound.
    """

    point: Point
    converged: bool
    steps: int
    normal: FloatArray
    gradient: FloatArray
    whitened: FloatArray
    weights: FloatArray
    active: BoolArray


def solve_positive_definite(matrix: FloatArray, right: FloatArray) -> FloatArray:
    """Solve a symmetric positive system scaled to a unit diagonal; a tiny ridge saves a singular one."""
    scale = 1.0 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    scaled = matrix * scale * scale[:, None]
    for ridge in (0.0, *(10.0**power for power in range(-13, -3))):
        try:
            np.linalg.cholesky(scaled + ridge * np.eye(len(scaled)))
        except np.linalg.LinAlgError:
            continue
        inverse = np.linalg.inv(scaled + ridge * np.eye(len(scaled)))
        result: FloatArray = (inverse * scale * scale[:, None]) @ right
        return result
    raise FitError(UNDETERMINED)


def bounded_step(
    matrix: FloatArray, gradient: FloatArray, low: FloatArray, high: FloatArray
) -> tuple[FloatArray, BoolArray]:
    """Minimise  d^T M d / 2 - g^T d  subject to low <= d <= high by an active set (`algebra.bounded_step`).

    Returns
    -------
    step : (k,)
    active : (k,) True where the step ended on a bound and the slope would carry it further

    Raises
    ------
    FitError
        If the matrix is singular.
    """
    step, active = np.zeros(gradient.size), np.zeros(gradient.size, dtype=np.bool_)
    if not algebra.bounded_step(matrix, gradient, low, high, step, active):
        raise FitError(UNDETERMINED)
    return step, active


def solve_linear(
    design: FloatArray, noise: Noise, lower: FloatArray, upper: FloatArray, model: FloatArray, sweeps: int
) -> tuple[FloatArray, FloatArray]:
    """Return the linear parameters of maximum likelihood and the model they give; weights start from `model`.

    Raises
    ------
    FitError
        If the normal equations are singular.
    """
    linear, found, weights = np.empty(design.shape[0]), model.copy(), np.empty(model.size)
    data = (noise.observed, noise.gain, noise.fixed_su, noise.floor)
    if not descent.solve_linear(design, *data, lower, upper, sweeps, weights, found, linear):
        raise FitError(UNDETERMINED)
    return linear, found


FixedScale = tuple[int, float]
"""Number of a phase and the value its scale is held at."""


def linear_bounds(pattern: PatternModel, fixed_scale: FixedScale | None) -> tuple[FloatArray, FloatArray]:
    """Return the bounds of the linear parameters; a fixed scale has both at its value."""
    lower, upper = pattern.linear_lower.copy(), np.full(pattern.n_linear, np.inf)
    if fixed_scale is not None:
        lower[fixed_scale[0]] = upper[fixed_scale[0]] = fixed_scale[1]
    return lower, upper


def evaluate(
    pattern: PatternModel,
    noise: Noise,
    values: FloatArray,
    previous_model: FloatArray,
    *,
    fixed_scale: FixedScale | None = None,
) -> Point:
    """Return the model at nonlinear `values` with the linear parameters solved."""
    design = pattern.design(pattern.phase_columns(values, derivatives=False))
    lower, upper = linear_bounds(pattern, fixed_scale)
    linear, model = solve_linear(design, noise, lower, upper, previous_model, descent.LINEAR_SWEEPS)
    table = pattern.parameters
    pull = values - table.prior_mean
    prior = float(pull @ table.prior_precision @ pull)
    return Point(values, linear, model, design[: len(pattern.phases)], noise.deviance(model), prior)


def minimise(
    pattern: PatternModel,
    noise: Noise,
    start: FloatArray,
    *,
    tolerance: float = PREDICTED_DECREASE,
    max_steps: int = MAX_STEPS,
    held: BoolArray | None = None,
    first_model: FloatArray | None = None,
    fixed_scale: FixedScale | None = None,
) -> Minimum:
    """Minimise the objective of a compiled pattern from nonlinear values `start`; the loop is `descent.descend`.

    Parameters
    ----------
    tolerance : predicted decrease of the objective at which to stop
    held : nonlinear parameters kept at their start
    fixed_scale : a phase whose scale is held, for profile likelihoods

    Raises
    ------
    FitError
        If there are fewer points than parameters, or the normal equations are singular.
    """
    table, instrument, grid = pattern.parameters, pattern.instrument, pattern.grid
    n_linear, n_points, n_phases = pattern.n_linear, noise.observed.size, len(pattern.phases)
    size = n_linear + table.size
    if n_points <= size:
        raise FitError(f"{n_points} points cannot determine {size} parameters; widen the range")
    linear_lower, linear_upper = linear_bounds(pattern, fixed_scale)
    values = np.clip(start, table.lower, table.upper)
    model = smoothed(noise.observed) if first_model is None else first_model.copy()
    linear, patterns, weights = np.empty(n_linear), np.empty((n_phases, n_points)), np.empty(n_points)
    whitened, normal, gradient = np.empty((size, n_points)), np.empty((size, size)), np.empty(size)
    active = np.zeros(size, dtype=np.bool_)
    phases = np.concatenate([phase.table[0] for phase in pattern.phases])
    height, prior, steps, ending = descent.descend(
        pattern.two_theta,
        grid.coarse,
        grid.run_first,
        grid.run_cell,
        grid.stencil,
        phases,
        len(instrument.parameters),
        instrument.wavelength.principal,
        instrument.radius_mm,
        pattern.frozen_satellite,
        pattern.background_columns,
        noise.observed,
        noise.gain,
        noise.fixed_su,
        noise.floor,
        np.stack((table.prior_mean, table.prior_su)),
        table.prior_precision,
        np.array([[*linear_lower, *table.lower], [*linear_upper, *table.upper]]),
        np.zeros(table.size, dtype=np.bool_) if held is None else held,
        tolerance,
        max_steps,
        values,
        linear,
        model,
        patterns,
        weights,
        whitened,
        normal,
        gradient,
        active,
    )
    if ending == descent.SINGULAR:
        raise FitError(UNDETERMINED)
    point = Point(values, linear, model, patterns, height, prior)
    return Minimum(point, ending == descent.CONVERGED, steps, normal, gradient, whitened, weights, active)


def smoothed(observed: FloatArray) -> FloatArray:
    """Return a five-point running mean, the first estimate of the expected intensities."""
    padded = np.pad(observed, 2, mode="edge")
    mean: FloatArray = np.convolve(padded, np.full(5, 0.2), mode="valid")
    return np.maximum(mean, 0.25 * max(float(np.mean(observed)), 1e-12))
