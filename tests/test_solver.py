"""The solver against scipy, against hand calculations, and the properties every fit must keep."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.linalg import solve_triangular
from scipy.optimize import lsq_linear, minimize
from scipy.special import xlogy

from small_patterns import instrument_model, phases, positions
from xrdz.algebra import (
    gram,
    interpolate_moved,
    solve_lower,
    solve_lower_transposed,
    sums_of_points,
    weighted_normal,
)
from xrdz.descent import NEARLY, SETTLED_SU
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.errors import FitError
from xrdz.fit import FitResult, Status, fit
from xrdz.parameters import Parameter
from xrdz.pattern import PatternModel, compile_pattern
from xrdz.quantify import mass_jacobian
from xrdz.reference import reference
from xrdz.solver import (
    PREDICTED_DECREASE,
    Noise,
    bounded_step,
    evaluate,
    minimise,
    smoothed,
    solve_linear,
    solve_positive_definite,
)
from xrdz.start import rough_problem

# --- the bounded quadratic step ---------------------------------------------------------------------------------------


@st.composite
def quadratics(draw: st.DrawFn) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return M (positive, condition to 1e8, rows of very different size), g, low <= 0 <= high, some infinite."""
    size = draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    root = rng.normal(size=(size + 3, size)) * 10.0 ** rng.uniform(-2.0, 0.0, size + 3)[:, None]
    scale = 10.0 ** rng.uniform(-3.0, 3.0, size)
    matrix = (root.T @ root + 1e-6 * np.eye(size)) * scale * scale[:, None]
    gradient = rng.normal(size=size) * np.sqrt(np.diag(matrix))
    low, high = -rng.exponential(size=size) / scale, rng.exponential(size=size) / scale
    kind = rng.integers(0, 6, size)
    low = np.where(kind == 0, -np.inf, np.where(kind == 1, 0.0, low))
    high = np.where(kind == 2, np.inf, np.where(kind == 3, 0.0, high))
    return matrix, gradient, low, high


def height(matrix: FloatArray, gradient: FloatArray, step: FloatArray) -> float:
    return float(0.5 * step @ matrix @ step - gradient @ step)


@given(quadratics())
@settings(max_examples=150)
def test_the_bounded_step_is_scipys(problem: tuple[FloatArray, FloatArray, FloatArray, FloatArray]) -> None:
    matrix, gradient, low, high = problem
    for array in problem:
        array.setflags(write=False)
    step, active = bounded_step(matrix, gradient, low, high)
    assert np.all((step >= low) & (step <= high))
    # d^T M d / 2 - g^T d = |L^T d - L^-1 g|^2 / 2 + constant, in variables of like size
    unit = 1.0 / np.sqrt(np.diag(matrix))
    factor = np.linalg.cholesky(matrix * unit * unit[:, None])
    right = np.linalg.solve(factor, gradient * unit)
    found = lsq_linear(factor.T, right, bounds=(low / unit, high / unit), method="bvls", tol=1e-13, max_iter=500)
    best = height(matrix, gradient, found.x * unit)
    assert height(matrix, gradient, step) <= best + 1e-8 * (1.0 + abs(best))
    # What is called active stands on a bound and would go further; the rest has no slope left.
    slope = (gradient - matrix @ step) * unit
    at_low, at_high = active & (step == low), active & (step == high)
    assert np.all(at_low | at_high | ~active)
    assert np.all(slope[at_low & ~at_high] <= 1e-7)
    assert np.all(slope[at_high & ~at_low] >= -1e-7)
    np.testing.assert_allclose(slope[~active], 0.0, atol=1e-6)


def test_a_step_that_may_not_move_does_not() -> None:
    matrix, gradient = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([1.0, -1.0])
    zero = np.zeros(2)
    step, active = bounded_step(matrix, gradient, zero, zero)
    np.testing.assert_array_equal(step, zero)
    assert active.all()


@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_a_badly_scaled_system_is_solved(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, 2 * size))
    scale = 10.0 ** rng.uniform(-8.0, 8.0, size)
    matrix = (root @ root.T) * scale * scale[:, None]
    expected = rng.normal(size=size) / scale
    solution = solve_positive_definite(matrix, matrix @ expected)
    # The condition of the scaled Gaussian matrix decides; 1e-6 leaves room for the worst of them.
    np.testing.assert_allclose(solution * scale, expected * scale, atol=1e-6)


# --- noise ------------------------------------------------------------------------------------------------------------


def noise_of(intensity: FloatArray, gain: float | FloatArray = 1.0, su: FloatArray | None = None) -> Noise:
    two_theta = np.arange(intensity.size, dtype=np.float64)
    return Noise.of(Diffractogram(two_theta, intensity, gain=gain, su=su))


def test_poisson_deviance_by_hand() -> None:
    noise = noise_of(np.array([0.0, 2.0, 10.0]))
    model = np.array([1.0, 2.0, 8.0])
    # 2 [1 + 0 + (8 - 10 + 10 ln(10/8))]
    assert noise.deviance(model) == pytest.approx(2.0 * (1.0 - 2.0 + 10.0 * math.log(1.25)), rel=1e-14)


@given(
    counts=arrays(np.float64, 7, elements=st.integers(0, 10**6).map(float)),
    model=arrays(np.float64, 7, elements=st.floats(0.3, 1e6)),
    gain=st.floats(0.01, 100.0),
)
def test_poisson_deviance_of_scaled_counts(counts: FloatArray, model: FloatArray, gain: float) -> None:
    assume(counts.max() > 0)
    expected = 2.0 * np.sum(model - counts + xlogy(counts, counts / model))
    scaled = noise_of(gain * counts, gain)
    assert scaled.deviance(gain * model) == pytest.approx(float(expected), rel=1e-9, abs=1e-6)
    assert scaled.deviance(gain * model) >= -1e-9
    np.testing.assert_allclose(scaled.weights(gain * model), 1.0 / (gain**2 * model), rtol=1e-12)


def test_explicit_uncertainties_give_chi_squared() -> None:
    noise = noise_of(np.array([5.0, 7.0]), su=np.array([2.0, 0.5]))
    assert noise.deviance(np.array([1.0, 8.0])) == pytest.approx(4.0 + 4.0)
    np.testing.assert_allclose(noise.weights(np.array([1.0, 8.0])), [0.25, 4.0])


@pytest.mark.parametrize("counts", [0.0, 1.0, 40.0])
def test_the_deviance_continues_smoothly_below_its_floor(counts: float) -> None:
    noise = noise_of(np.array([counts, 3.0]))
    places = noise.floor + np.array([-2e-6, -1e-6, 0.0, 1e-6, 2e-6])
    heights = np.array([noise.deviance(np.array([place, 3.0])) for place in places])
    slopes = np.diff(heights) / 1e-6
    # Neighbouring slopes differ by the curvature 2 y / floor^2 times 1e-6, at most 2e-3 here.
    assert np.all(np.abs(np.diff(slopes)) < 1e-2 * max(1.0, abs(float(slopes[0]))))
    lower, deepest = (noise.deviance(np.array([place, 3.0])) for place in (-1.0, -2.0))
    assert deepest > lower > heights[0] or counts == 0.0


def test_a_pattern_without_intensity_is_refused() -> None:
    with pytest.raises(FitError, match="no positive intensity"):
        noise_of(np.zeros(4))


# --- linear parameters ------------------------------------------------------------------------------------------------


def columns_and_counts(seed: int) -> tuple[FloatArray, Noise]:
    rng = np.random.default_rng(seed)
    x = np.linspace(-1.0, 1.0, 200)
    design = np.stack((np.exp(-((x - 0.2) ** 2) / 0.01), np.exp(-((x + 0.4) ** 2) / 0.02), np.ones(200), x))
    counts = rng.poisson(np.array([80.0, 0.5, 12.0, 4.0]) @ design).astype(np.float64)
    return design, noise_of(counts)


@pytest.mark.parametrize("seed", range(4))
def test_linear_parameters_are_those_of_maximum_likelihood(seed: int) -> None:
    design, noise = columns_and_counts(seed)
    lower, upper = np.array([0.0, 0.0, -np.inf, -np.inf]), np.full(4, np.inf)
    linear, model = solve_linear(design, noise, lower, upper, smoothed(noise.observed), 30)
    np.testing.assert_allclose(model, linear @ design)

    def negative_log_likelihood(p: FloatArray) -> float:
        expected = np.maximum(p @ design, 1e-9)
        return float(np.sum(expected - xlogy(noise.observed, expected)))

    found = minimize(
        negative_log_likelihood,
        np.array([60.0, 1.0, 15.0, 0.1]),
        bounds=[(0, None), (0, None), (None, None), (None, None)],
        method="L-BFGS-B",
        options={"ftol": 1e-14, "gtol": 1e-9, "maxiter": 2000},
    )
    # L-BFGS-B stops within some 1e-4 of a parameter; the objective is the sharper test.
    assert negative_log_likelihood(linear) <= found.fun + 1e-6
    np.testing.assert_allclose(linear, found.x, atol=0.02)


def test_a_linear_parameter_stops_at_its_bound() -> None:
    design, noise = columns_and_counts(0)
    lower, upper = np.array([0.0, 5.0, -np.inf, -np.inf]), np.full(4, np.inf)
    linear, _ = solve_linear(design, noise, lower, upper, smoothed(noise.observed), 10)
    assert linear[1] == 5.0


# --- the minimiser on a small pattern ---------------------------------------------------------------------------------


TRUTH = {"zero": 0.01, "displacement": -0.04, "sn.a": 5.838, "ni3sn4.b": 4.066, "sn.size_lorentz": 0.09}


@lru_cache(maxsize=8)
def expected_pattern(peak_counts: float = 4e4, ratio: float = 1.0) -> tuple[FloatArray, PatternModel, FloatArray]:
    """Return the expected counts of a pattern of known mass ratio, its model and its nonlinear values."""
    blank = Diffractogram(positions(), np.ones(positions().size))
    draft = compile_pattern(blank, instrument=instrument_model(), references=phases(), n_chebyshev=3)
    values = draft.parameters.start.copy()
    for name, value in TRUTH.items():
        values[draft.parameters.index(name)] = value
    pattern = compile_pattern(blank, instrument=instrument_model(), references=phases(), n_chebyshev=3, at=values)
    tin, compound = (block.pattern for block in pattern.phase_columns(values, derivatives=False))
    masses = [phase.mass_per_scale(values) for phase in pattern.phases]
    peaks = tin / masses[0] + ratio * compound / masses[1]
    background = 0.01 * peak_counts * (1.0 - 0.3 * (positions() - 38.0) / 10.0)
    expected: FloatArray = peak_counts * peaks / peaks.max() + background
    return expected, pattern, values


def counted(seed: int, peak_counts: float = 4e4, ratio: float = 1.0) -> Diffractogram:
    counts = np.random.default_rng(seed).poisson(expected_pattern(peak_counts, ratio)[0])
    return Diffractogram(positions(), counts.astype(np.float64))


def fitted(diffractogram: Diffractogram, **arguments: Any) -> FitResult:
    given: dict[str, Any] = {"instrument": instrument_model(), "references": phases()} | arguments
    return fit(diffractogram, **given)


def ln_ratio(result: FitResult) -> tuple[float, float]:
    """Return ln(m_ni3sn4 / m_sn) and its posterior su, whatever the order of the phases."""
    masses, jacobian = mass_jacobian(result)
    order = [phase.id for phase in result.pattern.phases]
    top, bottom = order.index("ni3sn4"), order.index("sn")
    gradient = jacobian[top] / masses[top] - jacobian[bottom] / masses[bottom]
    return math.log(masses[top] / masses[bottom]), math.sqrt(gradient @ result.covariance @ gradient)


def test_the_minimum_has_no_slope_left() -> None:
    diffractogram = counted(1)
    _, pattern, values = expected_pattern()
    noise = Noise.of(diffractogram)
    start = values + 0.2 * pattern.parameters.prior_su
    found = minimise(pattern, noise, start)
    assert found.converged
    free = ~found.active
    hessian = found.normal.copy()
    hessian[pattern.n_linear :, pattern.n_linear :] += pattern.parameters.prior_precision
    # Widths in squared degrees beside scales of thousands: with a unit diagonal the inverse keeps its digits.
    scale = 1.0 / np.sqrt(np.diag(hessian))
    inverse = scale * np.linalg.inv(scale * hessian * scale[:, None]) * scale[:, None]
    step = np.linalg.solve(hessian[np.ix_(free, free)], found.gradient[free])
    # What a step to the bottom of the parabola would gain, and how far it would move the scales, in su: a gain of g
    # moves nothing by more than sqrt(g).
    gain, moved = float(found.gradient[free] @ step), np.abs(step[:2]) / np.sqrt(np.diag(inverse)[:2])
    assert gain < PREDICTED_DECREASE or (gain < NEARLY and np.all(moved < SETTLED_SU))
    assert np.all(moved < math.sqrt(PREDICTED_DECREASE))
    assert found.point.objective <= evaluate(pattern, noise, values, smoothed(noise.observed)).objective


def test_neither_start_nor_data_are_changed() -> None:
    diffractogram = counted(2)
    _, pattern, values = expected_pattern()
    start = values.copy()
    start.setflags(write=False)
    counts = diffractogram.intensity.copy()
    minimise(pattern, Noise.of(diffractogram), start)
    np.testing.assert_array_equal(diffractogram.intensity, counts)


def test_exact_data_give_the_truth_back() -> None:
    expected, pattern, values = expected_pattern()
    table = replace(pattern.parameters, prior_mean=values)
    exact = replace(pattern, parameters=table)
    noise = Noise.of(Diffractogram(positions(), expected))
    found = minimise(exact, noise, values + 0.1 * table.prior_su)
    assert found.point.objective < NEARLY
    np.testing.assert_allclose(found.point.model, expected, rtol=2e-3)
    su = np.sqrt(np.linalg.inv(found.normal[:2, :2]).diagonal())
    truth = evaluate(exact, noise, values, expected).linear[:2]
    # The su of a scale with everything else held is the smallest there is; the others allow a few of it.
    np.testing.assert_allclose(found.point.linear[:2], truth, atol=float(np.max(su)))


def test_held_parameters_and_a_held_scale_stay() -> None:
    diffractogram = counted(3)
    _, pattern, values = expected_pattern()
    noise = Noise.of(diffractogram)
    held = np.zeros(values.size, dtype=np.bool_)
    held[[0, 7]] = True
    found = minimise(pattern, noise, values, held=held)
    np.testing.assert_array_equal(found.point.values[held], values[held])
    free = minimise(pattern, noise, values)
    scale = 0.9 * float(free.point.linear[1])
    fixed = minimise(pattern, noise, values, fixed_scale=(1, scale))
    assert fixed.point.linear[1] == pytest.approx(scale, rel=1e-12)
    assert fixed.point.objective > free.point.objective


def test_a_start_outside_its_bounds_is_brought_in() -> None:
    _, pattern, values = expected_pattern()
    start = values.copy()
    start[pattern.parameters.index("sn.size_lorentz")] = -1.0
    found = minimise(pattern, Noise.of(counted(4)), start)
    assert found.converged
    assert np.all(found.point.values >= pattern.parameters.lower)


def test_too_few_points_are_refused() -> None:
    x = positions()[80:100]
    with pytest.raises(FitError, match="20 points cannot determine"):
        fitted(Diffractogram(x, np.full(20, 100.0)), references=phases()[:1])


# --- properties of a whole fit ----------------------------------------------------------------------------------------

SAME_SU = 0.02
"""Standard uncertainties two fits of one minimum may differ by: each stops within `SETTLED_SU` = 0.005 of it, and the
model is compiled where the last step but one ended."""


@pytest.fixture(scope="module")
def plain() -> FitResult:
    return fitted(counted(11))


def test_the_small_pattern_is_fitted(plain: FitResult) -> None:
    value, su = ln_ratio(plain)
    assert plain.status is Status.CONVERGED
    assert 0.005 < su < 0.1
    assert abs(value) < 4.0 * su
    assert 0.8 < plain.chi2_reduced < 1.2


@pytest.mark.parametrize("factor", [0.001, 3.7, 1e6])
def test_scaled_counts_of_known_gain_leave_the_ratio(plain: FitResult, factor: float) -> None:
    diffractogram = plain.diffractogram
    scaled = Diffractogram(diffractogram.two_theta, factor * diffractogram.intensity, gain=factor)
    other = fitted(scaled)
    value, su = ln_ratio(plain)
    there, su_there = ln_ratio(other)
    assert abs(there - value) < SAME_SU * su
    assert su_there == pytest.approx(su, rel=1e-2)
    np.testing.assert_allclose(other.scales, factor * plain.scales, rtol=SAME_SU * su)


def test_more_counts_leave_the_ratio_of_exact_data() -> None:
    # Without noise only the priors can pull; their pull fades with the counts and stays below a tenth of the su.
    few, many = (fitted(Diffractogram(positions(), expected_pattern(counts)[0])) for counts in (4e4, 4e5))
    su = ln_ratio(few)[1]
    assert abs(ln_ratio(few)[0]) < 0.5 * su
    assert abs(ln_ratio(many)[0]) < abs(ln_ratio(few)[0]) + 0.1 * su
    assert abs(ln_ratio(many)[0] - ln_ratio(few)[0]) < 0.5 * su


def test_the_order_of_the_phases_is_irrelevant(plain: FitResult) -> None:
    other = fitted(plain.diffractogram, references=phases()[::-1])
    assert abs(other.minimum.point.objective - plain.minimum.point.objective) < 2.0 * NEARLY
    assert abs(ln_ratio(other)[0] - ln_ratio(plain)[0]) < SAME_SU * ln_ratio(plain)[1]


def test_scans_on_the_same_points_share_what_is_generic_and_others_do_not() -> None:
    def generic(diffractogram: Diffractogram, **arguments: Any) -> object:
        given: dict[str, Any] = {"instrument": instrument_model(), "references": tuple(phases())} | arguments
        return rough_problem(diffractogram, humps=(), texture_axes=None, replaced=(), **given).generic

    scan, x = counted(12), positions()
    first = generic(scan)
    assert generic(counted(13)) is first
    assert generic(Diffractogram(x[:-3], scan.intensity[:-3])) is not first
    instrument = instrument_model()
    assert generic(scan, instrument=replace(instrument, radius_mm=2.0 * instrument.radius_mm)) is not first
    covariance = np.diag([2.0 * item.prior_su**2 for item in instrument.parameters])
    joint = generic(scan, instrument=replace(instrument, prior_covariance=covariance))
    assert joint is not first
    assert joint is not generic(scan, instrument=replace(instrument, prior_covariance=2.0 * covariance))
    assert generic(scan, references=tuple(phases()[::-1])) is not first


@settings(max_examples=4)
@given(low=st.floats(28.0, 29.5), high=st.floats(45.5, 47.9), hole=st.floats(34.0, 42.0))
def test_a_mask_is_a_crop(low: float, high: float, hole: float) -> None:
    whole = counted(12)
    x = whole.two_theta
    keep = (x >= low) & (x <= high) & ((x < hole) | (x > hole + 0.7))
    masked = fitted(whole.select(keep))
    cropped = fitted(whole.cropped((low, high), [(hole, hole + 0.7)]))
    alone = fitted(Diffractogram(x[keep], whole.intensity[keep]))
    for other in (cropped, alone):
        np.testing.assert_array_equal(other.values, masked.values)
        np.testing.assert_array_equal(other.covariance, masked.covariance)


@pytest.mark.parametrize("shift", [-0.3, 0.07])
def test_a_shift_of_the_scan_moves_the_zero_and_nothing_else(plain: FitResult, shift: float) -> None:
    table = plain.pattern.parameters
    place = table.index("zero")
    moved_zero = Parameter(
        "zero",
        float(table.start[place]) + shift,
        float(table.prior_mean[place]) + shift,
        float(table.prior_su[place]),
        -1.5,
        1.5,
    )
    scan = Diffractogram(plain.diffractogram.two_theta + shift, plain.diffractogram.intensity)
    other = fitted(scan, parameters=[moved_zero])
    assert abs(ln_ratio(other)[0] - ln_ratio(plain)[0]) < SAME_SU * ln_ratio(plain)[1]
    expected = plain.values.copy()
    expected[place] += shift
    su = np.array(
        [max(plain.su(name), 1e-3 * float(prior)) for name, prior in zip(table.names, table.prior_su, strict=True)]
    )
    # The reflections near the ends of the range differ, since their list is cut at whole angles.
    np.testing.assert_array_less(np.abs(other.values - expected) / su, 0.1)


def test_a_fit_repeats_exactly(plain: FitResult) -> None:
    again = fitted(plain.diffractogram)
    np.testing.assert_array_equal(again.values, plain.values)
    np.testing.assert_array_equal(again.linear, plain.linear)
    np.testing.assert_array_equal(again.covariance, plain.covariance)


def test_a_start_at_the_solution_ends_there(plain: FitResult) -> None:
    again = fitted(plain.diffractogram, start=plain.values)
    assert abs(ln_ratio(again)[0] - ln_ratio(plain)[0]) < SAME_SU * ln_ratio(plain)[1]


def test_the_gram_matrix_is_numpys() -> None:
    """Odd and even numbers of rows, lengths that no piece divides; the referent is numpy's product."""
    generator = np.random.default_rng(5)
    for rows, points in ((1, 3), (2, 256), (7, 1000), (44, 513)):
        matrix = generator.normal(size=(rows, points))
        product = np.empty((len(matrix), len(matrix)))
        gram(matrix, product)
        np.testing.assert_allclose(product, matrix @ matrix.T, rtol=1e-12, atol=1e-12)


def test_the_weighted_normal_equations_are_numpys() -> None:
    generator = np.random.default_rng(6)
    design, weights, observed = generator.normal(size=(5, 700)), generator.uniform(0.1, 2.0, 700), np.arange(700.0)
    normal, right = np.empty((len(design), len(design))), np.empty(len(design))
    weighted_normal(design, weights, observed, normal, right)
    np.testing.assert_allclose(normal, (design * weights) @ design.T, rtol=1e-12)
    np.testing.assert_allclose(right, design @ (weights * observed), rtol=1e-12)


def test_triangular_solutions_are_scipys() -> None:
    generator = np.random.default_rng(7)
    factor = np.tril(generator.normal(size=(9, 9))) + 4.0 * np.eye(9)
    right = generator.normal(size=9)
    solution = right.copy()
    solve_lower(factor, solution)
    np.testing.assert_allclose(solution, solve_triangular(factor, right, lower=True), rtol=1e-12)
    for size in (9, 4):
        expected = solve_triangular(factor[:size, :size].T, right[:size])
        solution = right[:size].copy()
        solve_lower_transposed(factor, solution)
        np.testing.assert_allclose(solution, expected, rtol=1e-12)


def test_points_are_summed_and_moved() -> None:
    rows, multiplier = np.arange(14.0).reshape(2, 7), np.array([1.0, 2.0, 3.0, 1.0, 1.0, 1.0, 9.0])
    np.testing.assert_array_equal(sums_of_points(rows, multiplier, 3), [[0 + 2 + 6, 3 + 4 + 5], [7 + 16 + 27, 33]])
    x = np.array([0.0, 1.0, 2.5, 3.0, 5.0])
    values = np.array([1.0, 3.0, 2.0, 2.0, 8.0])
    moves = np.array([[0.0] * 5, [0.4] * 5, [-0.7] * 5, [9.0] * 5])
    moved = np.empty((4, 5))
    interpolate_moved(x, values, moves, moved)
    np.testing.assert_allclose(moved, [np.interp(x + move, x, values) for move in moves], rtol=1e-14)


def test_many_counts_alone_do_not_make_a_model_hopeless() -> None:
    """With the noise taken for fifty times less than it is chi^2 is far above one, and yet the model is this scan's."""
    plain = fitted(counted(3))
    certain = fitted(replace(plain.diffractogram, gain=0.02))
    assert certain.chi2_reduced > 15.0
    assert not certain.is_hopeless
    other = fitted(replace(plain.diffractogram, gain=0.02), references=(reference("corundum"),))
    assert other.is_hopeless
