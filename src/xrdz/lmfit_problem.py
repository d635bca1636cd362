"""The compiled pattern model as an lmfit problem: the interactive door, and the independent referee of the solver.

    minimise  sum_i w_i (y_i - m_i)^2 + |R (theta - mu)|^2,      w_i = 1 / (gain_i m_i)

with R^T R the prior precision (R holds 1 / su on its diagonal where priors are independent), over linear and nonlinear
parameters together, by lmfit's bounded Levenberg-Marquardt with the analytic Jacobian. The weights are held during one
minimisation and renewed from its model until nothing moves (iteratively reweighted least squares). Where that stands
still, the gradient sum_i J_i (y_i - m_i) / (gain_i m_i) minus that of the priors vanishes: it is the minimum of the
Poisson deviance plus priors that `solver` looks for by another road (M. Newville et al. 2014, LMFIT,
doi:10.5281/zenodo.11813; Green 1984, J. R. Stat. Soc. B 46, 149).

What lmfit does that this module works around: it scales a returned Jacobian in place, so each call gets a fresh array;
a parameter that starts on a bound never leaves it, so starts are moved inside; one that ends at a bound still gets a
healthy standard error, so the covariance is made here, with `FitResult`'s rule; covariances are scaled by chi^2 unless
told otherwise; `expr` ties are not chained into the Jacobian, so a problem with ties is refused. Its transformed
variables approach a bound ever more slowly, so a parameter that leans on one is held there in the next sweep.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import lmfit
import numpy as np
from scipy.optimize import lsq_linear
from scipy.stats import chi2

from xrdz.diffractogram import FloatArray
from xrdz.errors import FitError, InputError
from xrdz.fit import FitResult, Status, bounds_that_matter, posterior_covariance, score_blocks
from xrdz.pattern import PatternModel
from xrdz.quantify import mass_jacobian
from xrdz.solver import BoolArray, Minimum, Noise, Point, linear_bounds, smoothed

INSIDE = 1e-3
"""Least distance of a start from a bound, in prior standard uncertainties."""

SETTLED_SU = 0.002
"""Weights are renewed until no mass fraction moves by more than this many posterior standard uncertainties."""

MAX_SWEEPS = 25
SAME_OBJECTIVE = 0.01
"""Two minima are one when their objectives differ by less."""

ON_BOUND = 0.02
"""A parameter this near a bound, in standard uncertainties, whose slope points outwards, stands on it."""

TOLERANCE = 1e-7
"""Relative change of the sum of squares and of the parameters at which lmfit stops: what profiles of seven digits can
tell, some 1e-4 of the objective."""

MAX_EVALUATIONS = 60
"""Evaluations of one sweep; what leans on a bound after them is held, which speeds up the next one."""


@dataclass(frozen=True, eq=False)
class LmfitProblem:
    """A pattern model at fixed weights as lmfit wants it.

    Parameters
    ----------
    pattern, noise : the compiled model and the data with their variances
    weights : (n,) 1 / variance of each point
    parameters : lmfit `Parameters`, linear ones first, with bounds and starts inside them; lmfit works on a copy
    lmfit_names : by our name ("sn.a") lmfit's ("sn_a")
    """

    pattern: PatternModel
    noise: Noise
    weights: FloatArray
    parameters: lmfit.Parameters
    lmfit_names: Mapping[str, str]

    @cached_property
    def prior_root(self) -> FloatArray:
        """R of the priors: R^T R is their precision."""
        return np.asarray(np.linalg.cholesky(self.pattern.parameters.prior_precision).T, dtype=np.float64)

    @property
    def names(self) -> tuple[str, ...]:
        """Our names in lmfit's order: linear parameters, then nonlinear ones."""
        return tuple(self.lmfit_names)

    def values_of(self, parameters: lmfit.Parameters) -> tuple[FloatArray, FloatArray]:
        """Return the linear and the nonlinear values that lmfit parameters hold."""
        values = np.array([parameters[name].value for name in self.lmfit_names.values()], dtype=np.float64)
        return values[: self.pattern.n_linear], values[self.pattern.n_linear :]

    def residual(self, parameters: lmfit.Parameters) -> FloatArray:
        """Return sqrt(w) (y - m) of every point, then R (theta - mu), as long as the nonlinear parameters."""
        linear, values = self.values_of(parameters)
        columns = self.pattern.phase_columns(values, derivatives=False)
        model = linear @ self.pattern.design(columns)
        pulls = self.prior_root @ (values - self.pattern.parameters.prior_mean)
        return np.concatenate((np.sqrt(self.weights) * (self.noise.observed - model), pulls))

    def jacobian(self, parameters: lmfit.Parameters) -> FloatArray:
        """Return the derivatives of the residual by the parameters that vary, (varying, points), a new array."""
        linear, values = self.values_of(parameters)
        pattern = self.pattern
        n_points, n_linear = self.weights.size, pattern.n_linear
        result = np.zeros((n_linear + values.size, n_points + values.size))
        columns = pattern.phase_columns(values)
        result[:, :n_points] = pattern.whitened(columns, linear[: len(pattern.phases)], -np.sqrt(self.weights))
        result[n_linear:, n_points:] = self.prior_root.T
        return result[[bool(parameters[name].vary) for name in self.lmfit_names.values()]]

    def minimizer(self) -> lmfit.Minimizer:
        """Return a new lmfit `Minimizer`, analytic Jacobian and plain covariance set; call its `leastsq`.

        Raises
        ------
        InputError
            If a parameter is tied by an expression, which lmfit does not chain into the Jacobian.
        """
        tied = [name for name, parameter in self.parameters.items() if parameter.expr]
        if tied:
            raise InputError(
                f"lmfit parameter {tied[0]}: ties do not reach the Jacobian; hold it with vary=False instead"
            )
        return lmfit.Minimizer(
            self.residual,
            self.parameters,
            scale_covar=False,
            Dfun=self.jacobian,
            col_deriv=1,
            ftol=TOLERANCE,
            xtol=TOLERANCE,
        )


@dataclass(frozen=True)
class _End:
    """Where a series of sweeps stopped."""

    linear: FloatArray
    values: FloatArray
    objective: float
    evaluations: int
    settled: bool


def lmfit_names(names: Sequence[str]) -> dict[str, str]:
    """Return a valid and unique lmfit name for each of ours: "sn.a" becomes "sn_a"; read backwards it names ours."""
    result: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"\W", "_", name)
        if not plain.isidentifier() or keyword.iskeyword(plain):
            plain = f"p_{plain}"
        candidate, number = plain, 2
        while candidate in result.values():
            candidate, number = f"{plain}_{number}", number + 1
        result[name] = candidate
    return result


def lmfit_problem(result: FitResult) -> LmfitProblem:
    """Return the problem a fit has solved: its values as starts, its model in the weights, its bounds held."""
    return problem_at(
        result.pattern,
        Noise.of(result.diffractogram),
        linear=result.linear,
        values=result.values,
        model=result.model,
        held=result.minimum.active,
    )


def problem_at(
    pattern: PatternModel,
    noise: Noise,
    *,
    linear: FloatArray,
    values: FloatArray,
    model: FloatArray,
    held: BoolArray | None = None,
) -> LmfitProblem:
    """Return the problem of a compiled model with given starts and weights from the expected intensities `model`.

    Starts on or beyond a bound are moved inside, but those of parameters that are `held`.
    """
    table = pattern.parameters
    lower, upper = _bounds(pattern)
    # One count under the column's peak is near enough to nothing for a scale.
    peak = np.abs(pattern.design(pattern.phase_columns(values, derivatives=False))).max(axis=1)
    unit = np.concatenate((1.0 / np.maximum(peak, 1e-300), table.prior_su))
    given = np.concatenate((linear, values))
    held = np.zeros(given.size, dtype=np.bool_) if held is None else held
    starts = np.where(held, given, _inside(given, lower, upper, unit))
    names = lmfit_names((*pattern.linear_names(), *table.names))
    parameters = lmfit.Parameters()
    for name, start, low, high, fixed in zip(names.values(), starts, lower, upper, held, strict=True):
        parameters.add(name, value=float(start), min=float(low), max=float(high), vary=not fixed)
    return LmfitProblem(pattern, noise, noise.weights(model), parameters, names)


def _bounds(pattern: PatternModel) -> tuple[FloatArray, FloatArray]:
    """Return the bounds of the linear and the nonlinear parameters."""
    lower, upper = linear_bounds(pattern, None)
    return np.concatenate((lower, pattern.parameters.lower)), np.concatenate((upper, pattern.parameters.upper))


def _inside(values: FloatArray, lower: FloatArray, upper: FloatArray, unit: FloatArray) -> FloatArray:
    """Return `values` at least `INSIDE` units, or a quarter of the interval, away from every bound."""
    margin = np.minimum(INSIDE * unit, 0.25 * (upper - lower))
    inside: FloatArray = np.clip(values, lower + margin, upper - margin)
    return inside


def refit(result: FitResult) -> FitResult:
    """Fit again with lmfit, from elsewhere, and return its result as a fit of the same type.

    What was compiled is shared; the way is not: all parameters at once from the generic start with broad peaks, then,
    while the end is higher than the minimum known, from the best end with broadened peaks, and from the known minimum
    moved by its own standard uncertainties. A result that stays higher has the status `not_converged`.
    """
    pattern, noise = result.pattern, Noise.of(result.diffractogram)
    known = result.minimum.point.objective
    best: _End | None = None
    evaluations = 0
    for attempt in range(3):
        values = _attempt(result, attempt, best)
        end = _sweeps(pattern, noise, values, result)
        evaluations += end.evaluations
        if best is None or end.objective < best.objective:
            best = end
        if best.objective < known + SAME_OBJECTIVE:
            break
    assert best is not None
    reached = best.settled and best.objective < known + SAME_OBJECTIVE
    return _as_fit_result(result, noise, best, evaluations, reached)


def _attempt(result: FitResult, number: int, best: _End | None) -> FloatArray:
    """Return the nonlinear values of one attempt: generic, from the best end, from the known minimum; all displaced."""
    table = result.pattern.parameters
    signs = np.where(np.arange(table.size) % 2 == 0, 1.0, -1.0)
    if number == 2:
        su = np.sqrt(np.maximum(np.diag(result.covariance)[result.pattern.n_linear :], 0.0))
        moved: FloatArray = result.values + signs * np.where(su > 0.0, su, 0.1 * table.prior_su)
        return moved
    values: FloatArray = table.start + 0.05 * signs * table.prior_su
    if number == 1 and best is not None:
        values = np.array(best.values)
    for phase in result.pattern.phases:
        values[table.index(f"{phase.id}.size_gauss")] += 0.05
    return values


def _sweeps(pattern: PatternModel, noise: Noise, values: FloatArray, known: FitResult) -> _End:
    """Minimise at fixed weights and renew them until the phases' shares stand still."""
    model = smoothed(noise.observed)
    table = pattern.parameters
    linear = _starting_linear(pattern, noise, values, model)
    su = _share_su(known)
    shares = np.full(len(pattern.phases), np.inf)
    held: BoolArray = np.zeros(pattern.n_linear + table.size, dtype=np.bool_)
    evaluations, settled = 0, False
    for sweep in range(MAX_SWEEPS):
        problem = problem_at(pattern, noise, linear=linear, values=values, model=model, held=held)
        found = problem.minimizer().leastsq(max_nfev=MAX_EVALUATIONS)
        evaluations += int(found.nfev)
        place = _state(pattern, noise, *problem.values_of(found.params))
        linear, values, model = place.linear, place.values, place.model
        previous, shares = shares, _shares(pattern, linear, values)
        still = bool(np.all(np.abs(shares - previous) < SETTLED_SU * su)) and bool(np.all(held == place.active))
        held = place.active
        if bool(found.success) and sweep > 0 and still:
            settled = True
            break
    return _End(linear, values, place.objective, evaluations, settled)


@dataclass(frozen=True)
class _State:
    """Everything that is computed at one place; parameters beside a bound have been put on it."""

    linear: FloatArray
    values: FloatArray
    patterns: FloatArray
    model: FloatArray
    jacobian: FloatArray
    weights: FloatArray
    normal: FloatArray
    gradient: FloatArray
    active: BoolArray
    deviance: float
    prior: float

    @property
    def objective(self) -> float:
        return self.deviance + self.prior


def _precision(pattern: PatternModel) -> FloatArray:
    """Return the prior precision over all parameters; the linear ones have none."""
    n_linear = pattern.n_linear
    precision = np.zeros((n_linear + pattern.parameters.size, n_linear + pattern.parameters.size))
    precision[n_linear:, n_linear:] = pattern.parameters.prior_precision
    return precision


def _state(pattern: PatternModel, noise: Noise, linear: FloatArray, values: FloatArray) -> _State:
    """Evaluate a place; a parameter within `ON_BOUND` of a bound whose slope points outwards is put on it first."""
    table, n_linear = pattern.parameters, pattern.n_linear
    lower, upper = _bounds(pattern)
    precision = _precision(pattern)
    mean = np.concatenate((np.zeros(n_linear), table.prior_mean))
    place = np.concatenate((linear, values))
    moved = True
    while moved:
        columns = pattern.phase_columns(place[n_linear:])
        design = pattern.design(columns)
        model = place[:n_linear] @ design
        jacobian = pattern.jacobian(columns, place[: len(pattern.phases)])
        weights = noise.weights(model)
        normal = (jacobian * weights) @ jacobian.T
        gradient = (jacobian * weights) @ (noise.observed - model) - precision @ (place - mean)
        su = 1.0 / np.sqrt(np.maximum(np.diag(normal + precision), 1e-300))
        at_lower = (place - lower < ON_BOUND * su) & (gradient < 0.0)
        at_upper = (upper - place < ON_BOUND * su) & (gradient > 0.0)
        moved = bool(np.any(at_lower & (place > lower)) or np.any(at_upper & (place < upper)))
        place = np.where(at_lower, lower, np.where(at_upper, upper, place))
    return _State(
        linear=place[:n_linear],
        values=place[n_linear:],
        patterns=design[: len(pattern.phases)],
        model=model,
        jacobian=jacobian,
        weights=weights,
        normal=normal,
        gradient=gradient,
        active=at_lower | at_upper,
        deviance=noise.deviance(model),
        prior=float((place - mean) @ precision @ (place - mean)),
    )


def _starting_linear(pattern: PatternModel, noise: Noise, values: FloatArray, model: FloatArray) -> FloatArray:
    """Return the linear parameters of least squares at nonlinear `values`, by scipy instead of the solver."""
    root = np.sqrt(noise.weights(model))
    design = pattern.design(pattern.phase_columns(values, derivatives=False))
    size = np.maximum(np.linalg.norm(design * root, axis=1), 1e-300)
    lower, upper = (bound[: pattern.n_linear] for bound in _bounds(pattern))
    found = lsq_linear(
        (design * root / size[:, None]).T, root * noise.observed, bounds=(lower * size, upper * size), method="bvls"
    )
    result: FloatArray = found.x / size
    return result


def _shares(pattern: PatternModel, linear: FloatArray, values: FloatArray) -> FloatArray:
    """Return the mass fraction of each phase; of a single phase its scale."""
    scales = linear[: len(pattern.phases)]
    masses = np.array(
        [scale * phase.mass_per_scale(values) for phase, scale in zip(pattern.phases, scales, strict=True)]
    )
    shares: FloatArray = masses / masses.sum() if masses.size > 1 else scales.copy()
    return shares


def _share_su(result: FitResult) -> FloatArray:
    """Return the posterior standard uncertainty of each share, from the scales and cells of the known result."""
    masses, jacobian = mass_jacobian(result)
    if masses.size == 1:
        return np.sqrt(np.maximum(np.diag(result.covariance)[:1], 1e-300))
    fractions = masses / masses.sum()
    gradient = (np.eye(masses.size) - fractions[:, None]) / masses.sum() @ jacobian
    variance = np.einsum("pi,ij,pj->p", gradient, result.covariance, gradient)
    su: FloatArray = np.sqrt(np.maximum(variance, (1e-9 * fractions) ** 2 + 1e-300))
    return su


def _as_fit_result(known: FitResult, noise: Noise, end: _End, evaluations: int, reached: bool) -> FitResult:
    """Return lmfit's end as a fit, with gradient, information and covariance computed there."""
    pattern = known.pattern
    place = _state(pattern, noise, end.linear, end.values)
    residual = place.weights * (noise.observed - place.model)
    freedom = max(noise.observed.size - place.gradient.size, 1)
    status = Status.CONVERGED if reached else Status.NOT_CONVERGED
    if reached and bounds_that_matter(pattern, place.active):
        status = Status.AT_BOUND
    blocks = np.asarray(score_blocks(pattern.two_theta), dtype=np.int64)
    return replace(
        known,
        minimum=Minimum(
            point=Point(
                values=place.values,
                linear=place.linear,
                model=place.model,
                patterns=place.patterns,
                deviance=place.deviance,
                prior=place.prior,
            ),
            converged=reached,
            steps=evaluations,
            normal=place.normal,
            gradient=place.gradient,
            whitened=place.jacobian * np.sqrt(place.weights),
            weights=place.weights,
            active=place.active,
        ),
        status=status,
        linear=place.linear,
        values=place.values,
        covariance=posterior_covariance(place.normal + _precision(pattern), place.active),
        fisher=place.normal,
        block_scores=np.add.reduceat(place.jacobian * residual, blocks, axis=1).T,
        chi2_reduced=float(np.sum(residual**2 / place.weights)) / freedom,
        evaluations=evaluations,
    )


def conf_interval(
    result: FitResult, names: Sequence[str], *, sigmas: Sequence[float] = (1.0, 2.0)
) -> dict[str, list[tuple[float, float]]]:
    """Return profile-likelihood intervals of some parameters, by `lmfit.conf_interval`; seconds per parameter.

    Weights stay those of the fit. A level is reached where the objective has risen by sigma^2 (Wilks 1938, Ann. Math.
    Stat. 9, 60), not by lmfit's F test, which would scale by chi^2.

    Parameters
    ----------
    names : our names, such as "sn.a"
    sigmas : levels in standard uncertainties of one parameter

    Returns
    -------
    By our name, pairs (probability, value) from the lowest to the highest, the fit's value in the middle with 0.

    Raises
    ------
    InputError
        If a name is unknown or its parameter stands on a bound, where a profile has one side.
    FitError
        If lmfit could not estimate the standard uncertainties it starts from.
    """
    problem = lmfit_problem(result)
    for name in names:
        if name not in problem.lmfit_names:
            raise InputError(f"parameter {name!r} is not one of {', '.join(problem.names)}")
        if result.minimum.active[problem.names.index(name)]:
            raise InputError(f"parameter {name!r} stands on a bound; a two-sided interval does not exist there")
    minimizer = problem.minimizer()
    found = minimizer.leastsq()
    if not found.errorbars:
        raise FitError(f"lmfit: {found.message} Fix a parameter that the data do not determine")
    ours = {lmfit_name: name for name, lmfit_name in problem.lmfit_names.items()}
    intervals = lmfit.conf_interval(
        minimizer,
        found,
        p_names=[problem.lmfit_names[name] for name in names],
        sigmas=list(sigmas),
        prob_func=_rise_probability,
    )
    return {ours[name]: [(float(p), float(value)) for p, value in row] for name, row in intervals.items()}


def _rise_probability(best: lmfit.minimizer.MinimizerResult, new: lmfit.minimizer.MinimizerResult) -> float:
    """Return the probability of a rise of chi^2 with known variances."""
    return float(chi2.cdf(max(new.chisqr - best.chisqr, 0.0), max(best.nvarys - new.nvarys, 1)))
