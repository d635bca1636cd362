"""Small dense algebra of the solver, compiled: scaled Cholesky solutions and the bounded quadratic step.

    minimise  d^T M d / 2 - g^T d   subject to   low <= d <= high

by the primal active-set method (Nocedal & Wright 2006, Numerical Optimization, chapter 16.5): from a feasible point
towards the minimum of the free variables as far as the first bound in the way, which becomes active; one whose
multiplier points inwards is released. The quadratic falls at every move, so no set of bounds comes back. Matrices here
have some tens of rows, where the cost of calling a library exceeds that of the arithmetic.
"""

from __future__ import annotations

import math

import numpy as np

from xrdz.compiled import BoolArray, FloatArray, FloatRows, IntArray, compiled


@compiled
def factorise(matrix: FloatRows, ridge: float) -> bool:
    """Overwrite the lower triangle with the Cholesky factor of `matrix + ridge * 1`; False if it is not positive."""
    size = matrix.shape[0]
    for j in range(size):
        row = matrix[j]
        pivot = row[j] + ridge
        for k in range(j):
            pivot -= row[k] * row[k]
        if not pivot > 1e-15:
            return False
        root = math.sqrt(pivot)
        row[j] = root
        inverse = 1.0 / root
        for i in range(j + 1, size):
            other = matrix[i]
            total = other[j]
            for k in range(j):
                total -= other[k] * row[k]
            other[j] = total * inverse
    return True


@compiled
def weighted_normal(
    design: FloatRows, weights: FloatArray, observed: FloatArray, normal: FloatRows, right: FloatArray
) -> None:
    """Set D W D^T and D W y of a design D (k, n), weights W and observations y (n,)."""
    size, n = design.shape
    normal[:, :] = 0.0
    right[:] = 0.0
    chunk = 512
    weighted = np.empty(chunk)
    for begin in range(0, n, chunk):
        count = min(chunk, n - begin)
        w, y = weights[begin : begin + count], observed[begin : begin + count]
        for a in range(size):
            row = design[a, begin : begin + count]
            # A loop that stores and sums would add in another order where its arrays lie close together in memory.
            for i in range(count):
                weighted[i] = row[i] * w[i]
            total = 0.0
            for i in range(count):
                total += weighted[i] * y[i]
            right[a] += total
            for b in range(a + 1):
                other = design[b, begin : begin + count]
                total = 0.0
                for i in range(count):
                    total += weighted[i] * other[i]
                normal[a, b] += total
    for a in range(size):
        for b in range(a):
            normal[b, a] = normal[a, b]


@compiled
def gram(rows: FloatRows, result: FloatRows) -> None:
    """Set R R^T of rows R (k, n), two by two rows in pieces that stay in the processor's cache."""
    size, n = rows.shape
    result[:, :] = 0.0
    chunk = 256
    for begin in range(0, n, chunk):
        end = min(begin + chunk, n)
        count = end - begin
        for p in range(0, size - 1, 2):
            upper, lower = rows[p, begin:end], rows[p + 1, begin:end]
            for q in range(0, p + 1, 2):
                left, right = rows[q, begin:end], rows[q + 1, begin:end]
                a = b = c = d = 0.0
                for i in range(count):
                    a += upper[i] * left[i]
                    b += upper[i] * right[i]
                    c += lower[i] * left[i]
                    d += lower[i] * right[i]
                result[p, q] += a
                result[p, q + 1] += b
                result[p + 1, q] += c
                result[p + 1, q + 1] += d
        if size % 2 == 1:
            last = rows[size - 1, begin:end]
            for q in range(size):
                other = rows[q, begin:end]
                a = 0.0
                for i in range(count):
                    a += last[i] * other[i]
                result[size - 1, q] += a
    for p in range(size):
        for q in range(p):
            result[q, p] = result[p, q]


@compiled
def set_sums_of_points(rows: FloatRows, multiplier: FloatArray, factor: int, out: FloatRows) -> None:
    """Set the sums over every `factor` neighbouring points of rows (k, n) times `multiplier` (n,)."""
    for row in range(rows.shape[0]):
        for i in range(out.shape[1]):
            total = 0.0
            for k in range(i * factor, (i + 1) * factor):
                total += rows[row, k] * multiplier[k]
            out[row, i] = total


def sums_of_points(rows: FloatRows, multiplier: FloatArray, factor: int) -> FloatRows:
    """Return the sums over every `factor` neighbouring points of rows (k, n) times `multiplier` (n,)."""
    out = np.empty((rows.shape[0], rows.shape[1] // factor))
    set_sums_of_points(rows, multiplier, factor, out)
    return out


@compiled
def interpolate_moved(x: FloatArray, values: FloatArray, moves: FloatRows, out: FloatRows) -> None:
    """Set out[k] = values(x + moves[k]) by linear interpolation, constant beyond the ends; x + moves ascends."""
    last = x.size - 1
    for k in range(moves.shape[0]):
        place = 0
        for i in range(x.size):
            at = x[i] + moves[k, i]
            while place < last - 1 and x[place + 1] < at:
                place += 1
            share = (at - x[place]) / (x[place + 1] - x[place])
            share = min(max(share, 0.0), 1.0)
            out[k, i] = values[place] + share * (values[place + 1] - values[place])


@compiled
def solve_lower(factor: FloatRows, solution: FloatArray) -> None:
    """Solve L x = right in place."""
    for i in range(solution.size):
        total = solution[i]
        for k in range(i):
            total -= factor[i, k] * solution[k]
        solution[i] = total / factor[i, i]


@compiled
def solve_lower_transposed(factor: FloatRows, solution: FloatArray) -> None:
    """Solve L^T x = right in place, with the leading block of L of the size of `solution`."""
    for i in range(solution.size - 1, -1, -1):
        solution[i] /= factor[i, i]
        for k in range(i):
            solution[k] -= factor[i, k] * solution[i]


@compiled
def solve_leading(factor: FloatRows, half: FloatArray, ends: IntArray, out: FloatRows) -> None:
    """Set each row of `out` to the solution of L^T x = half over a leading block of the size in `ends`, zero behind."""
    for row in range(ends.size):
        end = ends[row]
        out[row, :end] = half[:end]
        out[row, end:] = 0.0
        solve_lower_transposed(factor, out[row, :end])


@compiled
def solve_factorised(factor: FloatRows, solution: FloatArray) -> None:
    """Solve L L^T x = right in place."""
    solve_lower(factor, solution)
    solve_lower_transposed(factor, solution)


@compiled
def solve_scaled(matrix: FloatRows, right: FloatArray, solution: FloatArray) -> bool:
    """Solve a symmetric positive system scaled to a unit diagonal; a tiny ridge saves a singular one.

    Returns
    -------
    solved : False when no ridge up to 1e-3 made the matrix positive
    """
    size = right.size
    scale = np.empty(size)
    for i in range(size):
        scale[i] = 1.0 / math.sqrt(max(matrix[i, i], 1e-300))
    ridge = 0.0
    for _ in range(12):
        work = np.empty((size, size))
        for i in range(size):
            for k in range(i + 1):
                work[i, k] = matrix[i, k] * scale[i] * scale[k]
        if factorise(work, ridge):
            for i in range(size):
                solution[i] = right[i] * scale[i]
            solve_factorised(work, solution)
            for i in range(size):
                solution[i] *= scale[i]
            return True
        ridge = max(10.0 * ridge, 1e-13)
    return False


@compiled
def bounded_step(
    matrix: FloatRows, gradient: FloatArray, low: FloatArray, high: FloatArray, step: FloatArray, active: BoolArray
) -> bool:
    """Set the bounded minimiser of the quadratic and which bounds are active; return whether there was a solution."""
    size = gradient.size
    for i in range(size):
        step[i] = min(max(0.0, low[i]), high[i])
        blocked = (low[i] >= 0.0 and gradient[i] < 0.0) or (high[i] <= 0.0 and gradient[i] > 0.0)
        active[i] = blocked or low[i] == high[i]
    free = np.empty(size, dtype=np.int64)
    for _ in range(6 * size + 6):
        count = 0
        for i in range(size):
            if not active[i]:
                free[count] = i
                count += 1
        blocking = -1
        if count > 0:
            reduced = np.empty((count, count))
            right = np.empty(count)
            for a in range(count):
                i = free[a]
                total = gradient[i]
                for k in range(size):
                    if active[k]:
                        total -= matrix[i, k] * step[k]
                right[a] = total
                for b in range(a + 1):
                    reduced[a, b] = matrix[i, free[b]]
            solution = np.empty(count)
            if not solve_scaled(reduced, right, solution):
                return False
            # Go towards the free minimum as far as the first bound in the way; the quadratic falls all along.
            reach = 1.0
            for a in range(count):
                i = free[a]
                bound = low[i] if solution[a] < low[i] else high[i]
                if solution[a] < low[i] or solution[a] > high[i]:
                    share = (bound - step[i]) / (solution[a] - step[i])
                    if share < reach:
                        reach, blocking = share, i
            reach = max(reach, 0.0)
            for a in range(count):
                i = free[a]
                step[i] += reach * (solution[a] - step[i])
            if blocking >= 0:
                step[blocking] = (
                    low[blocking]
                    if step[blocking] - low[blocking] < high[blocking] - step[blocking]
                    else high[blocking]
                )
                active[blocking] = True
                continue
        # Multipliers: release the bound whose slope points inwards most.
        worst, worst_slope = -1, 1e-9
        for i in range(size):
            if active[i] and high[i] > low[i]:
                slope = gradient[i]
                for k in range(size):
                    slope -= matrix[i, k] * step[k]
                slope /= math.sqrt(max(matrix[i, i], 1e-300))
                if step[i] <= low[i] and slope > worst_slope:
                    worst, worst_slope = i, slope
                elif step[i] >= high[i] and -slope > worst_slope:
                    worst, worst_slope = i, -slope
        if worst < 0:
            break
        active[worst] = False
    return True
