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

import numpy as np
from numpy.typing import NDArray

from xrdz import algebra
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.errors import FitError
from xrdz.kernel import poisson_deviance
from xrdz.pattern import PatternModel, PhaseColumns

BoolArray = NDArray[np.bool_]

PREDICTED_DECREASE = 1e-3
"""The fit has converged when the next step promises less than this decrease of the objective."""

NEARLY, SETTLED_SU = 0.05, 0.005
"""Below a predicted decrease of `NEARLY` it is enough that every scale would move by less than `SETTLED_SU` su."""

MAX_STEPS = 40
TRUST_SU = 1.5
"""No parameter moves by more than this many prior standard uncertainties in one step."""

LINEAR_SWEEPS = 2

ROUNDING = 3e-7
"""Relative rounding of a calculated intensity; twice its root mean square times the root of all counts is what the
objective cannot tell from zero."""

SWINGING = 5.0
"""Predicted decrease below which a step that mostly takes the last one back is shortened; see `minimise`."""


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
        # Below a fraction of a count the likelihood is flat; the floor keeps weights finite there.
        return cls(diffractogram.intensity, gain, diffractogram.su, 0.2 * float(np.median(gain)))

    def weights(self, model: FloatArray) -> FloatArray:
        """Return 1 / variance at the expected intensities `model`."""
        if self.su is not None:
            return 1.0 / self.su**2
        return 1.0 / (self.gain * np.maximum(model, self.floor))

    def deviance(self, model: FloatArray) -> float:
        """Return the Poisson deviance of `model`, or chi^2 with explicit uncertainties."""
        if self.su is not None:
            return float(np.sum(((self.observed - model) / self.su) ** 2))
        return float(poisson_deviance(self.observed, model, self.gain, self.floor))


@dataclass(frozen=True)
class Point:
    """The model at one set of nonlinear values, linear parameters solved exactly."""

    values: FloatArray
    linear: FloatArray
    model: FloatArray
    columns: list[PhaseColumns]
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
    raise FitError("the normal equations are singular; a phase or a background term cannot be determined")


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
    step, active, solved = algebra.bounded_step(matrix, gradient, low, high)
    if not solved:
        raise FitError("the normal equations are singular; a phase or a background term cannot be determined")
    return step, active


def solve_linear(
    design: FloatArray, noise: Noise, lower: FloatArray, upper: FloatArray, model: FloatArray, sweeps: int
) -> tuple[FloatArray, FloatArray]:
    """Return the linear parameters of maximum likelihood and the model they give; weights start from `model`."""
    linear = np.zeros(design.shape[0])
    for _ in range(sweeps):
        normal, right = algebra.weighted_normal(design, noise.weights(model), noise.observed)
        linear = bounded_step(normal, right, lower, upper)[0]
        model = linear @ design
        if noise.su is not None:
            break
    return linear, model


FixedScale = tuple[int, float]
"""Number of a phase and the value its scale is held at."""


def linear_bounds(pattern: PatternModel, fixed_scale: FixedScale | None) -> tuple[FloatArray, FloatArray]:
    """Return the bounds of the linear parameters; a fixed scale has both at its value."""
    lower, upper = pattern.linear_lower.copy(), np.full(pattern.n_linear, np.inf)
    if fixed_scale is not None:
        lower[fixed_scale[0]] = upper[fixed_scale[0]] = fixed_scale[1]
    return lower, upper


class Workspace:
    """Memory of one minimisation: blocks of columns that take turns, and the design whose background rows stay."""

    def __init__(self, pattern: PatternModel) -> None:
        self.spare: list[list[PhaseColumns]] = []
        self.design = np.empty((pattern.n_linear, pattern.two_theta.size))
        self.design[len(pattern.phases) :] = pattern.background_columns

    def blocks(self, pattern: PatternModel) -> list[PhaseColumns]:
        """Return blocks that hold nothing any more."""
        return self.spare.pop() if self.spare else pattern.blocks()


def evaluate(
    pattern: PatternModel,
    noise: Noise,
    values: FloatArray,
    previous_model: FloatArray,
    *,
    fixed_scale: FixedScale | None = None,
    workspace: Workspace | None = None,
) -> Point:
    """Return the model at nonlinear `values` with the linear parameters solved."""
    workspace = workspace or Workspace(pattern)
    columns = pattern.phase_columns(values, out=workspace.blocks(pattern))
    for number, block in enumerate(columns):
        workspace.design[number] = block.pattern
    lower, upper = linear_bounds(pattern, fixed_scale)
    linear, model = solve_linear(workspace.design, noise, lower, upper, previous_model, LINEAR_SWEEPS)
    table = pattern.parameters
    pull = values - table.prior_mean
    prior = float(pull @ table.prior_precision @ pull)
    return Point(values, linear, model, columns, noise.deviance(model), prior)


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
    """Minimise the objective of a compiled pattern from nonlinear values `start`.

    Parameters
    ----------
    tolerance : predicted decrease of the objective at which to stop
    held : nonlinear parameters kept at their start
    fixed_scale : a phase whose scale is held, for profile likelihoods
    """
    table = pattern.parameters
    n_linear = pattern.n_linear
    n_total = n_linear + table.size
    if noise.observed.size <= n_total:
        raise FitError(f"{noise.observed.size} points cannot determine {n_total} parameters; widen the range")
    guess = first_model if first_model is not None else smoothed(noise.observed)
    workspace = Workspace(pattern)

    def at(values: FloatArray, previous: FloatArray) -> Point:
        return evaluate(pattern, noise, values, previous, fixed_scale=fixed_scale, workspace=workspace)

    point = at(np.clip(start, table.lower, table.upper), guess)
    linear_lower, linear_upper = linear_bounds(pattern, fixed_scale)
    lower = np.concatenate((linear_lower, table.lower))
    upper = np.concatenate((linear_upper, table.upper))
    local = _Linearisation.at(pattern, noise, point)
    blur = 2.0 * ROUNDING * float(np.sqrt(np.sum(local.weights * point.model**2)))
    damping = 1e-4
    converged = False
    steps = 0
    last_step: FloatArray | None = None
    while True:
        gradient, hessian = local.gradient, local.hessian
        place = np.concatenate((point.linear, point.values))
        low, high = np.minimum(lower - place, 0.0), np.maximum(upper - place, 0.0)
        box = TRUST_SU * table.prior_su
        low[n_linear:] = np.maximum(low[n_linear:], -box)
        high[n_linear:] = np.minimum(high[n_linear:], box)
        if held is not None:
            low[n_linear:][held] = high[n_linear:][held] = 0.0
        step, active = bounded_step(hessian, gradient, low, high)
        predicted = float(2.0 * gradient @ step - step @ hessian @ step)
        if predicted < tolerance or (
            predicted < NEARLY * max(tolerance / PREDICTED_DECREASE, 1.0) and _scales_settled(pattern, hessian, step)
        ):
            converged = True
            break
        if steps >= max_steps:
            break
        damped = hessian + np.diag(damping * np.diag(hessian))
        trial_step, _ = bounded_step(damped, gradient, low, high)
        slope = 2.0 * float(gradient @ trial_step)
        expected = slope - float(trial_step @ hessian @ trial_step)
        length = 1.0
        if last_step is not None and predicted < SWINGING:
            # Where the objective is steeper than the parabola, each step takes a share s of the last one back and they
            # swing about the minimum; all that would follow add up to step / (1 + s) (Aitken 1926, extrapolation).
            back = -float(last_step @ hessian @ trial_step) / float(last_step @ hessian @ last_step)
            length = 1.0 / (1.0 + min(max(back, 0.0), 2.0))
        for _ in range(8):
            values = np.clip(point.values + length * trial_step[n_linear:], table.lower, table.upper)
            trial = at(values, np.maximum(point.model, noise.floor))
            decrease = point.objective - trial.objective
            if decrease > -blur or expected < tolerance:
                break
            workspace.spare.append(trial.columns)
            # Where the parabola through both objectives with the slope at the start has its minimum.
            length *= min(max(0.5 * slope * length / (slope * length - decrease), 0.1), 0.5)
        steps += 1
        if decrease <= -blur:
            # No downhill step is left within rounding: this is the minimum as far as it can be resolved.
            converged = expected < 100.0 * tolerance
            break
        workspace.spare.append(point.columns)
        point, last_step = trial, length * trial_step
        local = _Linearisation.at(pattern, noise, point, local.whitened)
        ratio = decrease / max(expected, 1e-300)
        if ratio > 0.5:
            damping *= 0.1
        elif ratio < 0.2:
            damping = max(damping * 10.0, 1e-3)
        damping = max(damping, 1e-9)
    return Minimum(point, converged, steps, local.normal, gradient, local.whitened, local.weights, active)


@dataclass(frozen=True)
class _Linearisation:
    """Weights, the Jacobian times their root, J^T W J, the half gradient (score minus prior) and the Hessian."""

    weights: FloatArray
    whitened: FloatArray
    normal: FloatArray
    gradient: FloatArray
    hessian: FloatArray

    @classmethod
    def at(cls, pattern: PatternModel, noise: Noise, point: Point, memory: FloatArray | None = None) -> _Linearisation:
        """Linearise at a point, in the memory of a Jacobian no longer needed."""
        n_linear, table = pattern.n_linear, pattern.parameters
        weights = noise.weights(point.model)
        root = np.sqrt(weights)
        whitened = pattern.whitened(point.columns, point.linear[: len(pattern.phases)], root, out=memory)
        normal = algebra.gram(whitened)
        gradient = whitened @ (root * (noise.observed - point.model))
        gradient[n_linear:] -= table.prior_precision @ (point.values - table.prior_mean)
        hessian = normal.copy()
        hessian[n_linear:, n_linear:] += table.prior_precision
        return cls(weights, whitened, normal, gradient, hessian)


def _scales_settled(pattern: PatternModel, hessian: FloatArray, step: FloatArray) -> bool:
    """Return whether no scale would move by more than `SETTLED_SU` of its standard uncertainty.

    A flat valley of the width parameters may still promise a little decrease that no mass depends on.
    """
    diagonal = 1.0 / np.sqrt(np.maximum(np.diag(hessian), 1e-300))
    scaled = hessian * diagonal * diagonal[:, None]
    scaled[np.arange(len(scaled)), np.arange(len(scaled))] += 1e-10
    variance = np.diag(np.linalg.inv(scaled)) * diagonal**2
    moves = np.abs(step[: len(pattern.phases)]) / np.sqrt(np.maximum(variance[: len(pattern.phases)], 1e-300))
    return bool(np.all(moves < SETTLED_SU))


def smoothed(observed: FloatArray) -> FloatArray:
    """Return a five-point running mean, the first estimate of the expected intensities."""
    padded = np.pad(observed, 2, mode="edge")
    mean: FloatArray = np.convolve(padded, np.full(5, 0.2), mode="valid")
    return np.maximum(mean, 0.25 * max(float(np.mean(observed)), 1e-12))
