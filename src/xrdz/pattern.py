"""The pattern model: what a scan of given phases on a given instrument should look like, with all derivatives.

    y(x) = background(x) + sum_p S_p sum_hkl m |F|^2 LP R O C P(x - x_hkl)

with the factors of a reflection in `phase_model` and its profile P in `profile` and `kernel`. `compile_pattern` freezes
every discrete decision at given parameter values; the fit compiles again at its solution until the frozen model
agrees with the refined one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from xrdz.anisotropy import Extension
from xrdz.background import chebyshev_columns, hump_columns
from xrdz.compiled import SingleRows
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.errors import InputError
from xrdz.kernel import PATTERN, add_whitened, sum_reflections
from xrdz.parameters import Parameter, ParameterTable
from xrdz.phase_model import (
    ASSUMED_RADIUS_MM,
    GLOBAL_NAMES,
    KAPPA,
    SATELLITE_SHARE,
    InstrumentModel,
    PhaseModel,
    ReflectionState,
    compile_phase,
    lorentz_polarization,
    phase_parameters,
)
from xrdz.profile import DEGREE, FINE, CombAccuracy
from xrdz.reference import Reference

__all__ = [
    "ASSUMED_RADIUS_MM",
    "GLOBAL_NAMES",
    "InstrumentModel",
    "PatternModel",
    "PhaseColumns",
    "PhaseModel",
    "ReflectionState",
    "compile_pattern",
    "lagrange_stencil",
    "lorentz_polarization",
    "parameter_table",
    "phase_parameters",
]

IntArray = NDArray[np.int64]

COARSE_FACTOR = 16
"""Step of the tail grid in steps of the scan."""

MOST_CHEBYSHEV = 26
"""The most background terms the choice of the order tries."""

DRIFT_ANGLE, DRIFT_LN_WIDTH, DRIFT_SHIFT = 0.02, 0.25, 0.05
"""How far angles (deg), widths and axial shifts may move before the model is compiled again."""


@dataclass(frozen=True)
class Grid:
    """The coarse grid of the tails, and how the measured points are interpolated from it; see `sum_reflections`.

    `point_step` is the median step of the measured points, `step` that of the grid, deg.
    """

    point_step: float
    step: float
    coarse: FloatArray
    run_first: IntArray
    run_cell: IntArray
    stencil: FloatArray


@dataclass(frozen=True)
class PhaseColumns:
    """One phase's pattern of unit scale (n,) and its derivatives by what moves it (rows, n).

    The pattern is what the objective is made of; of the derivatives, single precision changes no step that matters.
    """

    pattern: FloatArray
    slopes: SingleRows

    @classmethod
    def empty(cls, rows: int, points: int) -> PhaseColumns:
        """Return memory for columns."""
        return cls(np.empty(points), np.empty((rows, points), dtype=np.float32))


@dataclass(frozen=True, eq=False)
class TubePatterns:
    """What the phases of a fit diffract of the tube's other lines, for an emission as strong as that of K-alpha.

    Parameters
    ----------
    labels : of the lines
    parts : (lines, phases, n) counts at the scales of the fit
    """

    labels: tuple[str, ...] = ()
    parts: FloatArray = field(default_factory=lambda: np.empty((0, 0, 0)))


NO_TUBE_LINES = TubePatterns()


@dataclass(frozen=True)
class PatternModel:
    """A compiled pattern model; see the module's docstring.

    The background columns hold Chebyshev terms, humps, and one column for each other line of the tube.
    """

    two_theta: FloatArray
    background_columns: FloatArray
    background_domain: tuple[float, float]
    n_chebyshev: int
    instrument: InstrumentModel
    phases: tuple[PhaseModel, ...]
    parameters: ParameterTable
    grid: Grid
    frozen_kappa: float
    frozen_satellite: float
    tube: TubePatterns

    @property
    def n_linear(self) -> int:
        """Scales and background coefficients."""
        return len(self.phases) + int(self.background_columns.shape[0])

    @property
    def n_background(self) -> int:
        """Chebyshev terms and humps."""
        return int(self.background_columns.shape[0]) - len(self.tube.labels)

    def linear_names(self) -> tuple[str, ...]:
        """Return the names of the linear parameters: scales first, then the background."""
        return (
            *(f"{phase.id}.scale" for phase in self.phases),
            *(f"background.{k}" for k in range(self.n_chebyshev)),
            *(f"hump.{k}" for k in range(self.n_background - self.n_chebyshev)),
            *(f"tube.{label}" for label in self.tube.labels),
        )

    @cached_property
    def linear_lower(self) -> FloatArray:
        """Lower bounds of the linear parameters: scales, humps and lines of the tube cannot be negative."""
        n_positive = self.background_columns.shape[0] - self.n_chebyshev
        return np.concatenate((np.zeros(len(self.phases)), np.full(self.n_chebyshev, -np.inf), np.zeros(n_positive)))

    def phase_columns(self, values: FloatArray, *, derivatives: bool = True) -> list[PhaseColumns]:
        """Return the columns of every phase at parameter values, by `sum_reflections`; the pattern alone on request."""
        blocks = []
        for phase in self.phases:
            state, coefficient = phase.evaluate(values, derivatives=derivatives)
            block = PhaseColumns.empty(len(coefficient), self.two_theta.size)
            self._sum(phase, values, state, state.intensity, phase.basis[: len(coefficient)], coefficient, block)
            blocks.append(block)
        return blocks

    def design(self, columns: Sequence[PhaseColumns]) -> FloatArray:
        """Return the linear columns: one pattern per phase, then the background, shape (n_linear, n)."""
        return np.concatenate([[block.pattern for block in columns], self.background_columns])

    def jacobian(self, columns: Sequence[PhaseColumns], scales: FloatArray) -> FloatArray:
        """Return d y / d (linear, nonlinear parameters) at the given scales, shape (n_linear + n_nonlinear, n)."""
        return self.whitened(columns, scales, np.ones(self.two_theta.size))

    def whitened(self, columns: Sequence[PhaseColumns], scales: FloatArray, root: FloatArray) -> FloatArray:
        """Return the Jacobian times the root of the weights, `root` (n,); see `jacobian`."""
        n_linear = self.n_linear
        out = np.empty((n_linear + self.parameters.size, self.two_theta.size))
        written = np.zeros(len(out), dtype=np.bool_)
        for number, (phase, block, scale) in enumerate(zip(self.phases, columns, scales, strict=True)):
            np.multiply(block.pattern, root, out=out[number])
            add_whitened(block.slopes, float(scale), n_linear + phase.row_parameter, root, written, out)
        np.multiply(self.background_columns, root, out=out[len(self.phases) : n_linear])
        return out

    def peak_state(self, phase: PhaseModel, values: FloatArray) -> ReflectionState:
        """Return the reflections of a phase at parameter values (unit scale)."""
        return phase.evaluate(values, derivatives=False)[0]

    def extension_columns(self, number: int, extensions: Sequence[Extension], values: FloatArray) -> FloatArray:
        """Return d y / d (amplitude) of each extension of one phase at unit scale and zero amplitude, (e, n)."""
        phase = self.phases[number]
        basis, rows = phase.extension_rows(extensions, values)
        block = PhaseColumns.empty(basis.size, self.two_theta.size)
        state = self.peak_state(phase, values)
        self._sum(phase, values, state, np.zeros_like(state.intensity), basis, rows, block)
        result: FloatArray = block.slopes[0::2].astype(np.float64) + block.slopes[1::2]
        return result

    def charge_columns(self, number: int, values: FloatArray) -> FloatArray:
        """Return the change of y with one su of each uncertain charge of one phase at unit scale, (e, n)."""
        return self._area_columns(self.phases[number], values, self.phases[number].charge_rows(values))

    def excess_column(self, number: int, values: FloatArray) -> FloatArray:
        """Return the change of y with one atom in excess per formula unit of one phase at unit scale, (1, n)."""
        return self._area_columns(self.phases[number], values, self.phases[number].excess_row(values))

    def _area_columns(self, phase: PhaseModel, values: FloatArray, rows: FloatArray) -> FloatArray:
        """Return the change of y with changes of the areas (e, reflections), (e, n)."""
        block = PhaseColumns.empty(len(rows), self.two_theta.size)
        if len(rows):
            basis, state = np.full(len(rows), PATTERN, dtype=np.int64), self.peak_state(phase, values)
            self._sum(phase, values, state, np.zeros_like(state.intensity), basis, rows, block)
        result: FloatArray = block.slopes.astype(np.float64)
        return result

    def _sum(
        self,
        phase: PhaseModel,
        values: FloatArray,
        state: ReflectionState,
        area: FloatArray,
        basis: IntArray,
        coefficient: FloatArray,
        columns: PhaseColumns,
    ) -> None:
        comb = phase.comb
        sum_reflections(
            self.two_theta,
            self.grid.coarse,
            self.grid.run_first,
            self.grid.run_cell,
            self.grid.stencil,
            state.rows,
            float(values[KAPPA]),
            phase.half_window,
            phase.first,
            phase.last,
            phase.core_first,
            phase.core_last,
            comb.start,
            comb.nodes,
            comb.weight + (float(values[SATELLITE_SHARE]) - self.frozen_satellite) * comb.slope,
            comb.moments,
            area,
            basis,
            coefficient,
            columns.pattern,
            columns.slopes,
        )

    def drift(self, values: FloatArray) -> float:
        """Return how far the refined model has moved from where it was frozen, one being the most that is allowed.

        The largest of: Bragg angle over `DRIFT_ANGLE`, ln of the total width over `DRIFT_LN_WIDTH`, and the shifts by
        axial divergence and depth over the width and `DRIFT_SHIFT`.
        """
        worst = 0.0
        axial = abs(float(values[KAPPA]) - self.frozen_kappa)
        for phase in self.phases:
            state = self.peak_state(phase, values)
            angle = np.abs(state.bragg - 2.0 * DEGREE * phase.theta) / DRIFT_ANGLE
            width = np.abs(np.log(state.fwhm / phase.frozen_fwhm)) / DRIFT_LN_WIDTH
            deeper = np.abs(state.depth - phase.frozen_depth) * np.abs(phase.comb.mean_depth)
            shift = (axial * np.abs(phase.comb.mean_axial) + deeper) / state.fwhm / DRIFT_SHIFT
            worst = max(worst, float(np.max(angle)), float(np.max(width)), float(np.max(shift)))
        return worst


def compile_pattern(
    diffractogram: Diffractogram,
    *,
    instrument: InstrumentModel,
    references: Sequence[Reference],
    n_chebyshev: int,
    humps: Sequence[tuple[float, float]] = (),
    domain: tuple[float, float] | None = None,
    at: FloatArray | None = None,
    parameters: ParameterTable | None = None,
    texture_axes: Sequence[tuple[int, int, int] | None] | None = None,
    extensions: Sequence[Extension] = (),
    tube: TubePatterns = NO_TUBE_LINES,
    accuracy: CombAccuracy = FINE,
) -> PatternModel:
    """Compile the pattern model of `references` on the points of `diffractogram`.

    Parameters
    ----------
    at : nonlinear parameter values at which the discrete decisions are frozen; the table's starts when absent
    parameters : a table to use instead of the generic one, in the same order
    texture_axes : one axis per phase; the catalogue's first where absent
    extensions : direction-dependent terms to refine besides the basic model
    tube : patterns of the tube's other lines, whose shares are linear parameters
    accuracy : of the profile combs

    Raises
    ------
    InputError
        If there are fewer points than parameters, or a phase has no reflection in the range.
    """
    two_theta = diffractogram.two_theta
    domain = domain or (float(two_theta[0]), float(two_theta[-1]))
    table = parameters or parameter_table(instrument, references, extensions)
    values = table.start if at is None else at
    grid = grid_of(two_theta.tobytes())
    chebyshev = chebyshev_terms(two_theta.tobytes(), domain, max(n_chebyshev, MOST_CHEBYSHEV))[:n_chebyshev]
    background = np.concatenate((chebyshev, hump_columns(two_theta, humps))) if humps else chebyshev
    if tube.labels:
        background = np.concatenate((background, tube.parts.sum(axis=1)))
    phases = []
    begin = len(instrument.parameters)
    for number, reference in enumerate(references):
        count = len(phase_parameters(reference, extensions))
        axis = None if texture_axes is None else texture_axes[number]
        phases.append(
            compile_phase(
                reference,
                values,
                np.arange(begin, begin + count),
                instrument,
                two_theta,
                coarse_step=grid.step,
                axis=axis or (reference.texture_axes or ((0, 0, 1),))[0],
                extensions=extensions,
                accuracy=accuracy,
            )
        )
        begin += count
    return PatternModel(
        two_theta,
        background,
        domain,
        n_chebyshev,
        instrument,
        tuple(phases),
        table,
        grid,
        float(values[KAPPA]),
        float(values[SATELLITE_SHARE]),
        tube,
    )


def parameter_table(
    instrument: InstrumentModel,
    references: Sequence[Reference],
    extensions: Sequence[Extension] = (),
    replaced: Sequence[Parameter] = (),
) -> ParameterTable:
    """Return the nonlinear parameters of a model: the instrument's, then each phase's; `replaced` ones by name.

    Raises
    ------
    InputError
        If `replaced` names a parameter that does not exist.
    """
    generic = [
        *instrument.parameters,
        *(item for reference in references for item in phase_parameters(reference, extensions)),
    ]
    replacement = {item.name: item for item in replaced}
    unknown = set(replacement) - {item.name for item in generic}
    if unknown:
        raise InputError(f"parameters {', '.join(sorted(unknown))} do not exist in this model")
    return ParameterTable.of([replacement.get(item.name, item) for item in generic], instrument.prior_covariance)


@lru_cache(maxsize=8)
def grid_of(two_theta: bytes) -> Grid:
    """Return the grid for the bytes of measured 2theta; the scans of a batch mostly share one."""
    x = np.frombuffer(two_theta)
    point_step = float(np.median(np.diff(x)))
    step = min(COARSE_FACTOR * point_step, 0.5)
    count = int(np.ceil((x[-1] - x[0]) / step)) + 4
    coarse = x[0] + step * (np.arange(count) - 1.0)
    cell, weights = lagrange_stencil(x, coarse)
    begins = np.flatnonzero(np.diff(cell, prepend=-1))
    return Grid(
        point_step,
        step,
        coarse,
        np.append(begins, x.size).astype(np.int64),
        cell[begins],
        np.ascontiguousarray(weights.T),
    )


@lru_cache(maxsize=8)
def chebyshev_terms(two_theta: bytes, domain: tuple[float, float], terms: int) -> FloatArray:
    """Return Chebyshev terms at the bytes of measured 2theta; read-only, shared by every fit."""
    columns = chebyshev_columns(np.frombuffer(two_theta), domain=domain, terms=terms)
    columns.setflags(write=False)
    return columns


def lagrange_stencil(x: FloatArray, grid: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return first index and weights of the four-point Lagrange interpolation of `x` on a uniform `grid`."""
    step = grid[1] - grid[0]
    start = np.clip(np.floor((x - grid[0]) / step).astype(np.int64) - 1, 0, grid.size - 4)
    t = (x - grid[0]) / step - start
    weights = np.stack(
        (
            -(t - 1.0) * (t - 2.0) * (t - 3.0) / 6.0,
            t * (t - 2.0) * (t - 3.0) / 2.0,
            -t * (t - 1.0) * (t - 3.0) / 2.0,
            t * (t - 1.0) * (t - 2.0) / 6.0,
        ),
        axis=1,
    )
    return start, np.ascontiguousarray(weights)
