"""The compiled descent to a minimum: one call from a start to where the next step is small.

A phase comes as rows (address, rows, columns) of its arrays in the order named below, so that one compiled function
serves any number of phases of any size; `phase_model.PhaseModel.table` makes them and keeps the arrays alive. What is
minimised, and how, stands in `solver`; this module is its loop, with nothing in it that a step would wait for.
"""

from __future__ import annotations

import math

import numpy as np

from xrdz.algebra import bounded_step, factorise, gram, solve_factorised, weighted_normal
from xrdz.compiled import (
    BoolArray,
    FloatArray,
    FloatRows,
    IntArray,
    IntRows,
    SingleRows,
    compiled,
    double_rows,
    doubles,
    integer_rows,
    integers,
)
from xrdz.kernel import AREA, N_STATE_ROWS, NODE_SLOPE, NODE_WEIGHT, add_whitened, poisson_deviance, sum_reflections
from xrdz.reflection import reflect

N_FIELDS = 26
(
    HKL,
    CHAIN,
    CELL_CONSTANT,
    ANGLES,
    INSTRUMENT_LORENTZ,
    PAIR_INTENSITY,
    PAIR_FIRST,
    PAIR_SECOND,
    S_SQUARED,
    TEXTURE_COS_SQUARED,
    TEXTURE_WEIGHT,
    TEXTURE_OFFSET,
    SHAPE_IS_SIZE,
    SHAPE_VALUES,
    LEGENDRE,
    PARAMETER_INDEX,
    HALF_WINDOW,
    FIRST,
    LAST,
    CORE_FIRST,
    CORE_LAST,
    NODE_START,
    NODES,
    MOMENTS,
    BASIS,
    ROW_PARAMETER,
) = range(N_FIELDS)
"""Arrays of a phase in the order of the rows of its table, which `phase_model.PhaseModel.table` makes; those up to the
places of its parameters are all that `reflect_phase` reads."""

KAPPA, SATELLITE_SHARE = 5, 8
"""Places of two of `phase_model.GLOBAL_NAMES`."""

NOT_CONVERGED, CONVERGED, SINGULAR = range(3)
"""How a descent ended."""

NEARLY, SETTLED_SU = 0.05, 0.005
"""Below a predicted decrease of `NEARLY` it is enough that every scale would move by less than `SETTLED_SU` su."""

TRUST_SU = 1.5
"""No parameter moves by more than this many prior standard uncertainties in one step."""

LINEAR_SWEEPS = 2

ROUNDING = 3e-7
"""Relative rounding of a calculated intensity; twice its root mean square times the root of all counts is what the
objective cannot tell from zero."""

SWINGING = 5.0
"""Predicted decrease below which a step that mostly takes the last one back is shortened.

Where the objective is steeper than the parabola, each step takes a share s of the last one back and they swing about
the minimum; all that would follow add up to step / (1 + s) (Aitken 1926, Proc. R. Soc. Edinb. 46, 289)."""


@compiled
def reflect_phase(
    entry: IntRows,
    values: FloatArray,
    n_common: int,
    wavelength: float,
    radius: float,
    state: FloatRows,
    rows: FloatRows,
) -> None:
    """Set the state of every reflection of one phase and the coefficient of each slope; see `reflection.reflect`."""
    chain, places = double_rows(entry[CHAIN]), integers(entry[PARAMETER_INDEX])
    constant = doubles(entry[CELL_CONSTANT])
    own, cell = np.empty(places.size), np.empty(6)
    for k in range(places.size):
        own[k] = values[places[k]]
    for k in range(6):
        cell[k] = constant[k]
        for free in range(chain.shape[1]):
            cell[k] += chain[k, free] * own[free]
    reflect(
        double_rows(entry[HKL]),
        cell,
        chain,
        wavelength,
        radius,
        double_rows(entry[ANGLES]),
        doubles(entry[INSTRUMENT_LORENTZ]),
        double_rows(entry[PAIR_INTENSITY]),
        integers(entry[PAIR_FIRST]),
        integers(entry[PAIR_SECOND]),
        doubles(entry[S_SQUARED]),
        doubles(entry[TEXTURE_COS_SQUARED]),
        doubles(entry[TEXTURE_WEIGHT]),
        integer_rows(entry[TEXTURE_OFFSET]),
        integers(entry[SHAPE_IS_SIZE]),
        double_rows(entry[SHAPE_VALUES]),
        double_rows(entry[LEGENDRE]),
        values[:n_common],
        own,
        state,
        rows,
    )


@compiled
def _phase_columns(
    entry: IntRows,
    values: FloatArray,
    n_common: int,
    wavelength: float,
    radius: float,
    frozen_satellite: float,
    x: FloatArray,
    coarse: FloatArray,
    run_first: IntArray,
    run_cell: IntArray,
    stencil: FloatRows,
    pattern: FloatArray,
    slopes: SingleRows,
) -> None:
    """Set the pattern of unit scale of one phase, and its slopes."""
    n_reflections = doubles(entry[S_SQUARED]).size
    state, rows = np.empty((N_STATE_ROWS, n_reflections)), np.empty((slopes.shape[0], n_reflections))
    reflect_phase(entry, values, n_common, wavelength, radius, state, rows)
    nodes = double_rows(entry[NODES])
    moved = values[SATELLITE_SHARE] - frozen_satellite
    weight = np.empty(nodes.shape[1])
    for k in range(weight.size):
        weight[k] = nodes[NODE_WEIGHT, k] + moved * nodes[NODE_SLOPE, k]
    sum_reflections(
        x,
        coarse,
        run_first,
        run_cell,
        stencil,
        state,
        values[KAPPA],
        doubles(entry[HALF_WINDOW]),
        integers(entry[FIRST]),
        integers(entry[LAST]),
        integers(entry[CORE_FIRST]),
        integers(entry[CORE_LAST]),
        integers(entry[NODE_START]),
        nodes,
        weight,
        double_rows(entry[MOMENTS]),
        state[AREA],
        integers(entry[BASIS]),
        rows,
        pattern,
        slopes,
    )


@compiled
def set_weights(model: FloatArray, gain: FloatArray, su: FloatArray, floor: float, weights: FloatArray) -> None:
    """Set 1 / variance at the expected intensities `model`, or 1 / su^2 where `su` is not empty."""
    if su.size > 0:
        for i in range(weights.size):
            weights[i] = 1.0 / (su[i] * su[i])
    else:
        for i in range(weights.size):
            weights[i] = 1.0 / (gain[i] * (model[i] if model[i] > floor else floor))


@compiled
def deviance(observed: FloatArray, model: FloatArray, gain: FloatArray, su: FloatArray, floor: float) -> float:
    """Return the Poisson deviance of `model`, or chi^2 where `su` is not empty."""
    if su.size == 0:
        return poisson_deviance(observed, model, gain, floor)
    total = 0.0
    for i in range(su.size):
        pull = (observed[i] - model[i]) / su[i]
        total += pull * pull
    return total


@compiled
def solve_linear(
    design: FloatRows,
    observed: FloatArray,
    gain: FloatArray,
    su: FloatArray,
    floor: float,
    lower: FloatArray,
    upper: FloatArray,
    sweeps: int,
    weights: FloatArray,
    model: FloatArray,
    linear: FloatArray,
) -> bool:
    """Set the linear parameters of maximum likelihood and the model they give; weights start from `model`."""
    size = linear.size
    normal, right, active = np.empty((size, size)), np.empty(size), np.empty(size, dtype=np.bool_)
    for _ in range(sweeps):
        set_weights(model, gain, su, floor, weights)
        weighted_normal(design, weights, observed, normal, right)
        if not bounded_step(normal, right, lower, upper, linear, active):
            return False
        model[:] = 0.0
        for row in range(linear.size):
            height, source = linear[row], design[row]
            for i in range(model.size):
                model[i] += height * source[i]
        if su.size > 0:
            break
    return True


@compiled
def try_patterns(
    patterns: FloatRows,
    background: FloatRows,
    observed: FloatArray,
    gain: FloatArray,
    su: FloatArray,
    floor: float,
    lower: FloatArray,
    upper: FloatArray,
    guess: FloatArray,
    heights: FloatArray,
) -> bool:
    """Set the deviance of each trial with its linear parameters solved once from `guess`.

    Parameters
    ----------
    patterns : (trials phases, n), the patterns of a trial one after the other
    background : (terms, n)
    heights : (trials,) output

    Returns
    -------
    solved : False where the normal equations of a trial were singular
    """
    n_linear = lower.size
    n_phases = n_linear - background.shape[0]
    design, linear = np.empty((n_linear, observed.size)), np.empty(n_linear)
    design[n_phases:] = background
    model, weights = np.empty(observed.size), np.empty(observed.size)
    for trial in range(heights.size):
        design[:n_phases] = patterns[trial * n_phases : (trial + 1) * n_phases]
        model[:] = guess
        if not solve_linear(design, observed, gain, su, floor, lower, upper, 1, weights, model, linear):
            return False
        heights[trial] = deviance(observed, model, gain, su, floor)
    return True


@compiled
def _scales_settled(n_phases: int, hessian: FloatRows, step: FloatArray) -> bool:
    """Return whether no scale would move by more than `SETTLED_SU` of its standard uncertainty.

    A flat valley of the width parameters may still promise a little decrease that no mass depends on.
    """
    size = step.size
    scale, work, unit = np.empty(size), np.empty((size, size)), np.empty(size)
    for i in range(size):
        scale[i] = 1.0 / math.sqrt(max(hessian[i, i], 1e-300))
        for k in range(i + 1):
            work[i, k] = hessian[i, k] * scale[i] * scale[k]
    if not factorise(work, 1e-10):
        return False
    for phase in range(n_phases):
        unit[:] = 0.0
        unit[phase] = 1.0
        solve_factorised(work, unit)
        if abs(step[phase]) > SETTLED_SU * math.sqrt(max(unit[phase], 1e-300)) * scale[phase]:
            return False
    return True


@compiled
def descend(
    x: FloatArray,
    coarse: FloatArray,
    run_first: IntArray,
    run_cell: IntArray,
    stencil: FloatRows,
    table: IntRows,
    n_common: int,
    wavelength: float,
    radius: float,
    frozen_satellite: float,
    background: FloatRows,
    observed: FloatArray,
    gain: FloatArray,
    su: FloatArray,
    floor: float,
    prior: FloatRows,
    prior_precision: FloatRows,
    bounds: FloatRows,
    held: BoolArray,
    tolerance: float,
    max_steps: int,
    values: FloatArray,
    linear: FloatArray,
    model: FloatArray,
    patterns: FloatRows,
    weights: FloatArray,
    whitened: FloatRows,
    normal: FloatRows,
    gradient: FloatArray,
    active: BoolArray,
) -> tuple[float, float, int, int]:
    """Minimise the objective from nonlinear `values`, in place; see `solver.minimise`.

    Parameters
    ----------
    table : (phases fields, 3), the rows of all phases one after the other
    n_common, wavelength, radius, frozen_satellite : shared by the phases
    background : (terms, n); observed, gain, su : (n,), `su` empty for counts
    prior, prior_precision, held : mean and su (2, k), precision (k, k) of the nonlinear parameters, and which stay
    bounds : (2, parameters) lower and upper ones of linear, then nonlinear parameters
    values, model : start on entry, `model` being a guess of the expected intensities
    linear, patterns, weights, whitened, normal, gradient, active : output, as in `solver.Minimum`

    Returns
    -------
    deviance, prior term, steps, ending : one of `NOT_CONVERGED`, `CONVERGED`, `SINGULAR`
    """
    n_phases, n = patterns.shape
    n_linear = linear.size
    size = n_linear + values.size
    prior_mean, prior_su, lower, upper = prior[0], prior[1], bounds[0], bounds[1]
    row_start = np.zeros(n_phases + 1, dtype=np.int64)
    for phase in range(n_phases):
        row_start[phase + 1] = row_start[phase] + table[phase * N_FIELDS + BASIS, 1]
    slopes = np.empty((row_start[n_phases], n), dtype=np.float32)
    design = np.empty((n_linear, n))
    design[n_phases:] = background
    trial_values, trial_linear, trial_model = values.copy(), np.empty(n_linear), np.empty(n)
    root, scratch = np.empty(n), np.empty(n)
    hessian, damped = np.empty((size, size)), np.empty((size, size))
    low, high, place = np.empty(size), np.empty(size), np.empty(size)
    last_step, on_bound = np.zeros(size), np.zeros(size, dtype=np.bool_)
    has_last = False
    damping, length, decrease, expected, predicted, blur = 1e-4, 1.0, 0.0, 0.0, 0.0, 0.0
    height = pull_height = math.inf
    steps = tries = 0
    ending = NOT_CONVERGED
    step = np.zeros(size)
    slope = 0.0
    first = True
    while True:
        # The model at the trial values, its linear parameters solved.
        for phase in range(n_phases):
            _phase_columns(
                table[phase * N_FIELDS : (phase + 1) * N_FIELDS],
                trial_values,
                n_common,
                wavelength,
                radius,
                frozen_satellite,
                x,
                coarse,
                run_first,
                run_cell,
                stencil,
                design[phase],
                slopes[row_start[phase] : row_start[phase + 1]],
            )
        for i in range(n):
            trial_model[i] = model[i] if first or model[i] > floor else floor
        if not solve_linear(
            design,
            observed,
            gain,
            su,
            floor,
            lower[:n_linear],
            upper[:n_linear],
            LINEAR_SWEEPS,
            scratch,
            trial_model,
            trial_linear,
        ):
            return height, pull_height, steps, SINGULAR
        trial_prior = 0.0
        for a in range(values.size):
            pull = 0.0
            for b in range(values.size):
                pull += prior_precision[a, b] * (trial_values[b] - prior_mean[b])
            trial_prior += pull * (trial_values[a] - prior_mean[a])
        trial_height = deviance(observed, trial_model, gain, su, floor)

        if not first:
            decrease = height + pull_height - trial_height - trial_prior
            if not (decrease > -blur or expected < tolerance) and tries < 7:
                # Where the parabola through both objectives with the slope at the start has its minimum.
                tries += 1
                length *= min(max(0.5 * slope * length / (slope * length - decrease), 0.1), 0.5)
                for k in range(values.size):
                    moved = values[k] + length * step[n_linear + k]
                    trial_values[k] = min(max(moved, lower[n_linear + k]), upper[n_linear + k])
                continue
            steps += 1
            if decrease <= -blur:
                # No downhill step is left within rounding: this is the minimum as far as it can be resolved.
                ending = CONVERGED if expected < 100.0 * tolerance else NOT_CONVERGED
                break
            ratio = decrease / max(expected, 1e-300)
            if ratio > 0.5:
                damping *= 0.1
            elif ratio < 0.2:
                damping = max(damping * 10.0, 1e-3)
            damping = max(damping, 1e-9)
            for k in range(size):
                last_step[k] = length * step[k]
            has_last = True

        # The trial is the new place: linearise there.
        values[:], linear[:], model[:] = trial_values, trial_linear, trial_model
        patterns[:] = design[:n_phases]
        height, pull_height = trial_height, trial_prior
        set_weights(model, gain, su, floor, weights)
        for i in range(n):
            root[i] = math.sqrt(weights[i])
            scratch[i] = root[i] * (observed[i] - model[i])
        written = np.zeros(size, dtype=np.bool_)
        for row in range(n_linear):
            source, sink = design[row], whitened[row]
            for i in range(n):
                sink[i] = source[i] * root[i]
        for phase in range(n_phases):
            target = integers(table[phase * N_FIELDS + ROW_PARAMETER]) + n_linear
            part = slopes[row_start[phase] : row_start[phase + 1]]
            add_whitened(part, linear[phase], target, root, written, whitened)
        gram(whitened, normal)
        for k in range(size):
            source = whitened[k]
            total = 0.0
            for i in range(n):
                total += source[i] * scratch[i]
            gradient[k] = total
        hessian[:] = normal
        for a in range(values.size):
            pull = 0.0
            for b in range(values.size):
                pull += prior_precision[a, b] * (values[b] - prior_mean[b])
            gradient[n_linear + a] -= pull
            for b in range(values.size):
                hessian[n_linear + a, n_linear + b] += prior_precision[a, b]
        if first:
            total = 0.0
            for i in range(n):
                total += weights[i] * model[i] * model[i]
            blur = 2.0 * ROUNDING * math.sqrt(total)
            first = False

        # The step within the bounds and the trusted region.
        for k in range(size):
            place[k] = linear[k] if k < n_linear else values[k - n_linear]
            low[k], high[k] = min(lower[k] - place[k], 0.0), max(upper[k] - place[k], 0.0)
            if k >= n_linear:
                box = TRUST_SU * prior_su[k - n_linear]
                low[k], high[k] = max(low[k], -box), min(high[k], box)
                if held[k - n_linear]:
                    low[k] = high[k] = 0.0
        settled = False
        for attempt in range(2):
            # First the Newton step, which says whether this is the minimum, then the damped one, which is taken.
            damped[:] = hessian
            if attempt == 1:
                for k in range(size):
                    damped[k, k] += damping * hessian[k, k]
            if not bounded_step(damped, gradient, low, high, step, on_bound):
                return height, pull_height, steps, SINGULAR
            expected = _promise(hessian, gradient, step)
            if attempt == 0:
                active[:] = on_bound
                predicted = expected
                settled = predicted < tolerance or (
                    predicted < NEARLY * max(tolerance / 1e-3, 1.0) and _scales_settled(n_phases, hessian, step)
                )
                if settled or steps >= max_steps:
                    break
        if settled or steps >= max_steps:
            ending = CONVERGED if settled else NOT_CONVERGED
            break
        slope = 0.0
        for k in range(size):
            slope += 2.0 * gradient[k] * step[k]
        length, tries = 1.0, 0
        if has_last and predicted < SWINGING:
            back = -_product(last_step, hessian, step) / _product(last_step, hessian, last_step)
            length = 1.0 / (1.0 + min(max(back, 0.0), 2.0))
        for k in range(values.size):
            moved = values[k] + length * step[n_linear + k]
            trial_values[k] = min(max(moved, lower[n_linear + k]), upper[n_linear + k])
    return height, pull_height, steps, ending


@compiled
def _product(left: FloatArray, matrix: FloatRows, right: FloatArray) -> float:
    """Return l^T M r."""
    total = 0.0
    for a in range(left.size):
        row = 0.0
        for b in range(right.size):
            row += matrix[a, b] * right[b]
        total += left[a] * row
    return total


@compiled
def _promise(hessian: FloatRows, gradient: FloatArray, step: FloatArray) -> float:
    """Return the decrease that the parabola promises, 2 g^T d - d^T H d."""
    total = 0.0
    for k in range(step.size):
        total += gradient[k] * step[k]
    return 2.0 * total - _product(step, hessian, step)
