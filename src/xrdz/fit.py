"""One fit from a generic start to a minimum with its covariance.

The sequence: compile at the priors; minimise; compile again at the solution, where angles, windows and quadrature
now fit the widths found, and choose the background order by evidence; minimise to the end. When the result is
suspicious a second start with annealed (broadened) widths is tried and the lower objective kept.

Covariance. With F = J^T W J (counting information) and P the prior precisions, C = (F + P)^-1 is the posterior
covariance, and exactly  C = C F C + C P C: what counting alone contributes plus what each prior contributes.
Model misfit shows as serially correlated residuals. It is measured by the cluster-robust estimate
(Liang & Zeger 1986, Biometrika 73, 13) over contiguous blocks b of the scan,
C_robust = C (sum_b s_b s_b^T) C with scores s_b = sum_(i in b) J_i w_i r_i; for a right model its expectation is C F C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from xrdz.algebra import solve_leading, solve_lower, sums_of_points
from xrdz.anisotropy import Extension
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.errors import FitError
from xrdz.evidence import WeighedExtension, entering, weigh_extensions
from xrdz.parameters import Parameter, ParameterTable
from xrdz.pattern import (
    MOST_CHEBYSHEV,
    NO_TUBE_LINES,
    InstrumentModel,
    PatternModel,
    ReflectionState,
    TubePatterns,
    chebyshev_terms,
    compile_pattern,
    parameter_table,
)
from xrdz.reference import Reference
from xrdz.solver import BoolArray, Minimum, Noise, minimise, solve_positive_definite
from xrdz.start import RoughProblem, rough_factor, rough_problem

MAX_COMPILATIONS = 4
LOOSE = 1.0
SECOND_START_CHI2 = 1.15
HOPELESS_CHI2, HOPELESS_SHARE = 15.0, 0.45
"""Deviance per degree of freedom, and R_wp after background, of a model that is not this scan's when both are exceeded;
no effort is spent on refining it further."""


class Status(StrEnum):
    """How a fit ended; a failed one has the same type as a good one."""

    CONVERGED = "converged"
    AT_BOUND = "at_bound"
    NOT_CONVERGED = "not_converged"
    FAILED = "failed"


@dataclass(frozen=True)
class OrderChoice:
    """Evidence of the background orders tried: number of terms, criterion, probability, and the step to each."""

    terms: tuple[int, ...]
    criterion: FloatArray
    probability: FloatArray
    steps: FloatArray  # (orders, n_linear_without_background + n_nonlinear): phase scales, then nonlinear parameters


@dataclass(frozen=True)
class FitResult:
    """A fit's values with everything that is needed to quantify them.

    Linear parameters come first (scales, background), then the nonlinear ones, in every vector and matrix.
    """

    diffractogram: Diffractogram
    pattern: PatternModel
    minimum: Minimum
    status: Status
    linear: FloatArray
    values: FloatArray
    covariance: FloatArray
    fisher: FloatArray
    block_scores: FloatArray  # (blocks, parameters)
    orders: OrderChoice
    chi2_reduced: float
    second_start: bool
    evaluations: int
    extensions: tuple[Extension, ...] = ()
    weighed: tuple[WeighedExtension, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all parameters."""
        return (*self.pattern.linear_names(), *self.pattern.parameters.names)

    @property
    def scales(self) -> FloatArray:
        """Refined scale of each phase."""
        return self.linear[: len(self.pattern.phases)]

    @property
    def model(self) -> FloatArray:
        """Calculated intensities."""
        return self.minimum.point.model

    @property
    def background(self) -> FloatArray:
        """Calculated background."""
        n_phases, n_terms = len(self.pattern.phases), self.pattern.n_background
        result: FloatArray = self.linear[n_phases : n_phases + n_terms] @ self.pattern.background_columns[:n_terms]
        return result

    @property
    def tube_shares(self) -> FloatArray:
        """Share of each other line of the tube, of the K-alpha intensity."""
        return self.linear[len(self.pattern.phases) + self.pattern.n_background :]

    @cached_property
    def is_hopeless(self) -> bool:
        """Whether the model is not this scan's."""
        return is_hopeless(self.pattern, self.minimum, Noise.of(self.diffractogram))

    @cached_property
    def states(self) -> tuple[ReflectionState, ...]:
        """Reflections of each phase at the refined values."""
        return tuple(self.pattern.peak_state(phase, self.values) for phase in self.pattern.phases)

    @cached_property
    def summed(self) -> Summed:
        """Residual and Jacobian with neighbouring points summed, for what needs no more than half a width."""
        return Summed.of(self)

    def phase_curve(self, number: int) -> FloatArray:
        """Return the calculated contribution of one phase, by all lines of the tube."""
        curve: FloatArray = self.scales[number] * self.minimum.point.patterns[number]
        if number < self.pattern.tube.parts.shape[1]:
            curve = curve + self.tube_shares @ self.pattern.tube.parts[:, number]
        return curve

    def value(self, name: str) -> float:
        """Return a nonlinear parameter's value by name."""
        return float(self.values[self.pattern.parameters.index(name)])

    def su(self, name: str) -> float:
        """Return the posterior standard uncertainty of any parameter by name."""
        place = self.names.index(name)
        return float(np.sqrt(max(self.covariance[place, place], 0.0)))


def largest_order(diffractogram: Diffractogram) -> int:
    """Return the most Chebyshev terms tried: half a wave per 4 degrees, so that no term resembles a peak."""
    span = diffractogram.two_theta[-1] - diffractogram.two_theta[0]
    return int(np.clip(round(span / 4.0), 6, MOST_CHEBYSHEV))


def fit(
    diffractogram: Diffractogram,
    *,
    instrument: InstrumentModel,
    references: Sequence[Reference],
    humps: Sequence[tuple[float, float]] = (),
    texture_axes: Sequence[tuple[int, int, int] | None] | None = None,
    start: FloatArray | None = None,
    parameters: Sequence[Parameter] = (),
    extend: bool = True,
    near: FitResult | None = None,
    tube: TubePatterns = NO_TUBE_LINES,
) -> FitResult:
    """Fit the pattern of `references` to a diffractogram.

    Parameters
    ----------
    parameters : entries that replace those of the generic table by name: start, prior and bounds
    extend : whether direction-dependent terms are weighed and refined where they pay
    start : nonlinear values to start from instead of the generic start
    near : a fit of the same phases to a scan like this one, whose solution is tried as the start; the generic start is
        taken where it does not lead to a fit that looks right
    tube : patterns of the tube's other lines; the first steps go without them

    Raises
    ------
    FitError
        If the points cannot determine the parameters.
    InputError
        If a phase has no reflection in the range, or `parameters` names one that does not exist.
    """
    problem = _Problem(
        diffractogram, instrument, tuple(references), tuple(humps), texture_axes, tuple(parameters), tube
    )
    if near is not None:
        carried = problem.carried(near)
        best = None if carried is None else problem.refined(near.pattern.n_chebyshev, carried, 0, ())
        if best is not None and not _suspicious(best):
            return problem.finish(problem.extended(best) if extend else best, False)
    begin = rough_problem(
        diffractogram,
        instrument=instrument,
        references=problem.references,
        humps=problem.humps,
        texture_axes=texture_axes,
        replaced=problem.replaced,
    )
    origin = begin.displaced_start() if start is None else start
    best = problem.run(begin, origin)
    second = False
    if start is None and _suspicious(best):
        annealed = problem.run(begin, begin.annealed_start())
        if annealed.minimum.point.objective < best.minimum.point.objective - 1e-2:
            best, second = annealed, True
    if extend and not is_hopeless(best.pattern, best.minimum, problem.noise):
        best = problem.extended(best)
    return problem.finish(best, second)


@dataclass(frozen=True)
class _Run:
    pattern: PatternModel
    minimum: Minimum
    orders: OrderChoice
    evaluations: int
    extensions: tuple[Extension, ...] = ()
    weighed: tuple[WeighedExtension, ...] = ()


@dataclass(frozen=True)
class Summed:
    """What is left of a scan at a fit, neighbouring points summed, relative to its standard uncertainty.

    Parameters
    ----------
    two_theta : mean positions, deg
    factor : how many points were summed
    root : one over the standard uncertainty of a sum
    residual, whitened : residual and Jacobian of the sums, times `root`
    columns, model : (phases, sums) pattern of unit scale of each phase, (sums,) calculated intensity
    """

    two_theta: FloatArray
    factor: int
    root: FloatArray
    residual: FloatArray
    whitened: FloatArray
    columns: FloatArray
    model: FloatArray

    @classmethod
    def of(cls, result: FitResult) -> Summed:
        """Sum a fit's points as its first stage did."""
        factor = rough_factor(result.pattern.two_theta)
        weights = result.minimum.weights
        one = np.ones(weights.size)
        patterns = result.minimum.point.patterns
        single = np.array(
            [
                result.pattern.two_theta / factor,
                1.0 / weights,
                result.diffractogram.intensity - result.model,
                np.maximum(result.model, 1e-6),
            ]
        )
        two_theta, variance, residual, model = sums_of_points(single, one, factor)
        root = 1.0 / np.sqrt(variance)
        return cls(
            two_theta=two_theta,
            factor=factor,
            root=root,
            residual=root * residual,
            whitened=root * sums_of_points(result.minimum.whitened, 1.0 / np.sqrt(weights), factor),
            columns=sums_of_points(patterns, one, factor),
            model=model,
        )


@dataclass(frozen=True)
class _Problem:
    diffractogram: Diffractogram
    instrument: InstrumentModel
    references: tuple[Reference, ...]
    humps: tuple[tuple[float, float], ...]
    texture_axes: Sequence[tuple[int, int, int] | None] | None
    replaced: tuple[Parameter, ...] = ()
    tube: TubePatterns = NO_TUBE_LINES

    @cached_property
    def noise(self) -> Noise:
        return Noise.of(self.diffractogram)

    def compile(self, terms: int, at: FloatArray, extensions: tuple[Extension, ...] = ()) -> PatternModel:
        return compile_pattern(
            self.diffractogram,
            instrument=self.instrument,
            references=self.references,
            n_chebyshev=terms,
            humps=self.humps,
            at=at,
            texture_axes=self.texture_axes,
            extensions=extensions,
            parameters=self.table(extensions),
            tube=self.tube,
        )

    def table(self, extensions: tuple[Extension, ...]) -> ParameterTable:
        """Return the nonlinear parameters, with the replaced entries in place."""
        return parameter_table(self.instrument, self.references, extensions, self.replaced)

    def carried(self, near: FitResult) -> FloatArray | None:
        """Return the values of another fit as a start of this one, None where it has other phases."""
        names = near.pattern.parameters.names
        table = self.table(())
        if not set(table.names) <= set(names) or len(near.pattern.phases) != len(self.references):
            return None
        return near.values[[names.index(name) for name in table.names]]

    def run(self, rough: RoughProblem, start: FloatArray) -> _Run:
        """Minimise the rough problem, then the whole one until frozen and refined angles agree."""
        minimum = minimise(rough.pattern, rough.noise, start, tolerance=LOOSE)
        orders = self.choose_order(rough.pattern, minimum, rough.noise)
        terms = orders.terms[int(np.argmax(orders.probability))]
        return self.refined(terms, minimum.point.values, minimum.steps + 1, ())

    def refined(self, terms: int, values: FloatArray, evaluations: int, extensions: tuple[Extension, ...]) -> _Run:
        """Minimise the whole problem from `values` until the background order and the frozen model hold."""
        for _ in range(MAX_COMPILATIONS):
            pattern = self.compile(terms, values, extensions)
            minimum = minimise(pattern, self.noise, values)
            values = minimum.point.values
            evaluations += minimum.steps + 1
            orders = self.choose_order(pattern, minimum, self.noise)
            best = orders.terms[int(np.argmax(orders.probability))]
            settled = best == terms and pattern.drift(minimum.point.values) < 1.0
            if settled or is_hopeless(pattern, minimum, self.noise):
                break
            terms = best
        return _Run(pattern, minimum, orders, evaluations, extensions)

    def misfit(self, minimum: Minimum) -> float:
        """Return the objective's deviance over its degrees of freedom."""
        return float(minimum.point.deviance / max(self.noise.observed.size - minimum.normal.shape[0], 1))

    def extended(self, run: _Run) -> _Run:
        """Refine the direction-dependent terms that pay, a few at a time, and weigh those left out."""
        for last in (False, False, True):
            pattern, minimum = run.pattern, run.minimum
            hessian = minimum.normal.copy()
            hessian[pattern.n_linear :, pattern.n_linear :] += pattern.parameters.prior_precision
            weighed = weigh_extensions(
                pattern,
                minimum,
                self.noise,
                posterior_covariance(hessian, minimum.active),
                refined=run.extensions,
                misfit=max(self.misfit(minimum), 1.0),
            )
            run = replace(run, weighed=weighed)
            chosen = entering(weighed)
            if last or not chosen:
                break
            extensions = (*run.extensions, *chosen)
            table = self.table(extensions)
            values = table.start.copy()
            for place, name in enumerate(pattern.parameters.names):
                values[table.index(name)] = minimum.point.values[place]
            run = self.refined(pattern.n_chebyshev, values, run.evaluations, extensions)
        return run

    def choose_order(self, pattern: PatternModel, minimum: Minimum, noise: Noise) -> OrderChoice:
        """Weigh every background order by one Gauss-Newton step of the whole model (Akaike 1974 criterion).

        Schwarz's penalty ln(n) would let a background misfit of several units of the deviance stand, which moves the
        masses by up to one standard uncertainty; Akaike's 2 costs about one more term and no precision.
        """
        n_phases, n_now = len(pattern.phases), pattern.n_chebyshev
        most = max(largest_order(self.diffractogram), n_now)
        n_linear = pattern.n_linear
        root = np.sqrt(minimum.weights)
        terms = chebyshev_terms(pattern.two_theta.tobytes(), pattern.background_domain, max(most, MOST_CHEBYSHEV))
        extra = root * terms[n_now:most]
        # Order: scales and nonlinear parameters, humps, then Chebyshev terms so that orders are leading blocks.
        known = np.concatenate(
            (
                np.arange(n_phases),
                np.arange(n_linear, len(minimum.normal)),
                np.arange(n_phases + n_now, n_linear),
                np.arange(n_phases, n_phases + n_now),
            )
        )
        residual = root * (noise.observed - minimum.point.model)
        cross = (extra @ minimum.whitened.T)[:, known]
        normal = np.block([[minimum.normal[np.ix_(known, known)], cross.T], [cross, extra @ extra.T]])
        gradient = np.concatenate(((minimum.whitened @ residual)[known], extra @ residual))
        table = pattern.parameters
        own = slice(n_phases, n_phases + table.size)
        gradient[own] -= table.prior_precision @ (minimum.point.values - table.prior_mean)
        normal[own, own] += table.prior_precision
        # Coefficients are measured from zero, so an order below the present one removes terms.
        n_body = normal.shape[0] - most
        present = minimum.point.linear[n_phases : n_phases + n_now]
        gradient += normal[:, n_body : n_body + n_now] @ present
        held = np.concatenate((minimum.active[:n_phases], minimum.active[n_linear:]))
        held = np.concatenate((held, np.zeros(normal.shape[0] - held.size, dtype=bool)))
        free = np.flatnonzero(~held)
        scale = np.sqrt(np.maximum(np.diag(normal)[free], 1e-300))
        matrix = normal[np.ix_(free, free)] / scale / scale[:, None] + 1e-12 * np.eye(free.size)
        factor = np.asarray(np.linalg.cholesky(matrix), dtype=np.float64)
        half = gradient[free] / scale
        solve_lower(factor, half)
        explained = np.cumsum(half**2)
        orders = tuple(range(4, most + 1))
        ends = free.size - most + np.array(orders)
        freedom = max(noise.observed.size - normal.shape[0], 1)
        total = minimum.point.objective + explained[free.size - most + n_now - 1]
        spread = max((total - explained[-1]) / freedom, 1.0)
        criterion = (total - explained[ends - 1]) / spread + 2.0 * np.array(orders)
        probability = np.exp(-0.5 * (criterion - criterion.min()))
        probability /= probability.sum()
        steps = np.zeros((len(orders), n_phases + table.size))
        body_free = free[free < n_phases + table.size]
        probable = np.flatnonzero(probability > 1e-4)
        solutions = np.empty((probable.size, free.size))
        solve_leading(factor, half, ends[probable], solutions)
        steps[np.ix_(probable, body_free)] = (solutions / scale)[:, : body_free.size]
        return OrderChoice(orders, criterion, probability, steps)

    def finish(self, run: _Run, second_start: bool) -> FitResult:
        """Return the result with its covariance."""
        pattern, minimum = run.pattern, run.minimum
        if not np.any(minimum.point.linear[: len(pattern.phases)] > 0.0):
            names = ", ".join(phase.id for phase in pattern.phases)
            raise FitError(f"none of the phases {names} is in this scan: every scale ended at zero; check the phases")
        n_linear = pattern.n_linear
        hessian = minimum.normal.copy()
        hessian[n_linear:, n_linear:] += pattern.parameters.prior_precision
        covariance = posterior_covariance(hessian, minimum.active)
        root = np.sqrt(minimum.weights)
        residual = root * (self.noise.observed - minimum.point.model)
        blocks = score_blocks(pattern.two_theta)
        scores = np.add.reduceat(minimum.whitened * residual, blocks, axis=1).T
        freedom = max(self.noise.observed.size - hessian.shape[0], 1)
        chi2 = float(residual @ residual) / freedom
        status = Status.CONVERGED if minimum.converged else Status.NOT_CONVERGED
        if status is Status.CONVERGED and bounds_that_matter(pattern, minimum.active):
            status = Status.AT_BOUND
        return FitResult(
            self.diffractogram,
            pattern,
            minimum,
            status,
            minimum.point.linear,
            minimum.point.values,
            covariance,
            minimum.normal,
            scores,
            run.orders,
            chi2,
            second_start,
            run.evaluations,
            run.extensions,
            run.weighed,
        )


def is_hopeless(pattern: PatternModel, minimum: Minimum, noise: Noise) -> bool:
    """Return whether a model is not this scan's: far beyond counting noise, and much of the peaks unexplained.

    Chi^2 grows with the counts for one and the same imperfection; that alone, with many counts, is no reason to stop.
    What is left over is compared with what stands above the background, sum w (y - m)^2 / sum w (y - b)^2.
    """
    freedom = max(noise.observed.size - minimum.normal.shape[0], 1)
    if minimum.point.deviance / freedom < HOPELESS_CHI2:
        return False
    point, n_phases = minimum.point, len(pattern.phases)
    background = point.linear[n_phases:] @ pattern.background_columns
    left = float(minimum.weights @ (noise.observed - point.model) ** 2)
    above = float(minimum.weights @ (noise.observed - background) ** 2)
    return left > HOPELESS_SHARE**2 * above


def _suspicious(run: _Run) -> bool:
    points = run.minimum.point.model.size
    freedom = max(points - run.minimum.normal.shape[0], 1)
    return (
        run.minimum.point.deviance / freedom > SECOND_START_CHI2
        or not run.minimum.converged
        or bool(bounds_that_matter(run.pattern, run.minimum.active))
    )


def bounds_that_matter(pattern: PatternModel, active: BoolArray) -> list[str]:
    """Return the parameters on a bound that is no natural zero of a width, an axial divergence or an amplitude."""
    natural = (
        "size_lorentz",
        "strain_lorentz",
        "size_gauss",
        "strain_gauss",
        "kappa",
        "satellite",
        "overspill",
        "defocus",
        "transparency",
    )
    names = pattern.parameters.names
    return [
        name
        for name, is_active in zip(names, active[pattern.n_linear :], strict=True)
        if is_active and name.rpartition(".")[2] not in natural
    ]


def posterior_covariance(hessian: FloatArray, active: BoolArray) -> FloatArray:
    """Return the inverse of the Hessian over the free parameters, zero rows for those on a bound."""
    free = np.flatnonzero(~active)
    covariance = np.zeros_like(hessian)
    inverse = solve_positive_definite(hessian[np.ix_(free, free)], np.eye(free.size))
    covariance[np.ix_(free, free)] = 0.5 * (inverse + inverse.T)
    return covariance


def score_blocks(two_theta: FloatArray, width: float = 1.0) -> NDArray[np.int64]:
    """Return the first index of each block of `width` degrees for the cluster-robust covariance."""
    number = np.floor((two_theta - two_theta[0]) / width)
    starts: NDArray[np.int64] = np.flatnonzero(np.diff(number, prepend=-1.0)).astype(np.int64)
    return starts
