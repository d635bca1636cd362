"""Where a fit begins: neighbouring points summed, combs of few nodes, the generic start moved to where its lines fit.

The first steps need direction rather than accuracy. What they need besides the counts (the compiled model, and its
patterns moved by every displacement that is tried) is the same for all scans on the same points with the same method
and is made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from xrdz.algebra import interpolate_moved
from xrdz.descent import try_patterns
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.errors import FitError
from xrdz.parameters import Parameter
from xrdz.pattern import InstrumentModel, PatternModel, compile_pattern, grid_of, parameter_table
from xrdz.profile import ROUGH
from xrdz.reference import Reference
from xrdz.solver import UNDETERMINED, Noise, smoothed

DISPLACEMENTS = np.linspace(-3.0, 3.0, 13)
"""Specimen displacements the fit may start from, in prior standard uncertainties."""

ROUGH_STEP_DEG = 0.06
"""Step to which neighbouring points are summed for the first part of a fit, about half a width."""


def starting_order(diffractogram: Diffractogram) -> int:
    """Return the number of Chebyshev terms a fit starts with: one per 9 degrees, six at least."""
    span = diffractogram.two_theta[-1] - diffractogram.two_theta[0]
    return int(np.clip(round(span / 9.0) + 2, 6, 14))


def rough_factor(two_theta: FloatArray) -> int:
    """Return how many neighbouring points are summed for the first part of a fit."""
    step = grid_of(two_theta.tobytes()).point_step
    return int(np.clip(ROUGH_STEP_DEG // step, 1, max(two_theta.size // 600, 1)))


@dataclass(frozen=True)
class _Generic:
    """What every fit of the same phases on the same points starts with, whatever was counted there.

    Parameters
    ----------
    pattern : the model of summed points, with combs of few nodes, at the generic start
    displacements : tried as a start, mm
    moved : (displacements phases, n) the phases' patterns, moved as they are by each displacement
    """

    pattern: PatternModel
    displacements: FloatArray
    moved: FloatArray


@dataclass(frozen=True)
class RoughProblem:
    """The problem of the first steps: the noise of the summed points, and what is generic."""

    noise: Noise
    generic: _Generic

    @property
    def pattern(self) -> PatternModel:
        """Model of the summed points."""
        return self.generic.pattern

    def displaced_start(self) -> FloatArray:
        """Return the generic start with the displacement at which its pattern, moved as it is, fits best.

        Lines that do not overlap the measured ones show a descent no way to them.
        """
        pattern, noise, generic = self.pattern, self.noise, self.generic
        heights = np.empty(generic.displacements.size)
        solved = try_patterns(
            generic.moved,
            pattern.background_columns,
            noise.observed,
            noise.gain,
            noise.fixed_su,
            noise.floor,
            pattern.linear_lower,
            np.full(pattern.n_linear, np.inf),
            smoothed(noise.observed),
            heights,
        )
        if not solved:
            raise FitError(UNDETERMINED)
        best = pattern.parameters.start.copy()
        best[pattern.parameters.index("displacement")] += generic.displacements[int(np.argmin(heights))]
        return best

    def annealed_start(self) -> FloatArray:
        """Return the generic start with widths broadened by about 0.3 deg, which widens each peak's basin."""
        table = self.pattern.parameters
        values = table.start.copy()
        for phase in self.pattern.phases:
            values[table.index(f"{phase.id}.size_gauss")] += 0.09
            values[table.index(f"{phase.id}.size_lorentz")] += 0.1
        return values


def rough_problem(
    diffractogram: Diffractogram,
    *,
    instrument: InstrumentModel,
    references: tuple[Reference, ...],
    humps: tuple[tuple[float, float], ...],
    texture_axes: Sequence[tuple[int, int, int] | None] | None,
    replaced: tuple[Parameter, ...],
) -> RoughProblem:
    """Return the problem a fit begins with; see `fit.fit`, `replaced` being its `parameters`.

    Raises
    ------
    FitError
        If no intensity is positive.
    InputError
        If a phase has no reflection in the range, or `replaced` names a parameter that does not exist.
    """
    factor = rough_factor(diffractogram.two_theta)
    binned = diffractogram if factor == 1 else diffractogram.binned(factor)
    covariance = instrument.prior_covariance
    generic = _generic(
        binned.two_theta.tobytes(),
        (float(diffractogram.two_theta[0]), float(diffractogram.two_theta[-1])),
        starting_order(diffractogram),
        replace(instrument, prior_covariance=None),
        None if covariance is None else covariance.tobytes(),
        references,
        humps,
        None if texture_axes is None else tuple(texture_axes),
        replaced,
    )
    return RoughProblem(Noise.of(binned), generic)


@lru_cache(maxsize=8)
def _generic(
    two_theta: bytes,
    domain: tuple[float, float],
    terms: int,
    instrument: InstrumentModel,
    prior_covariance: bytes | None,
    references: tuple[Reference, ...],
    humps: tuple[tuple[float, float], ...],
    texture_axes: tuple[tuple[int, int, int] | None, ...] | None,
    replaced: tuple[Parameter, ...],
) -> _Generic:
    """Return what is generic for the bytes of summed 2theta and of the instrument's joint prior covariance.

    The scans of a batch mostly share one.
    """
    x = np.frombuffer(two_theta)
    if prior_covariance is not None:
        size = len(instrument.parameters)
        instrument = replace(instrument, prior_covariance=np.frombuffer(prior_covariance).reshape(size, size))
    table = parameter_table(instrument, references, replaced=replaced)
    pattern = compile_pattern(
        Diffractogram(x, np.ones(x.size)),
        instrument=instrument,
        references=references,
        n_chebyshev=terms,
        humps=humps,
        domain=domain,
        texture_axes=texture_axes,
        parameters=table,
        accuracy=ROUGH,
    )
    displacements = table.prior_su[table.index("displacement")] * DISPLACEMENTS
    lever = 2.0 * np.degrees(1.0) / instrument.radius_mm * np.cos(np.radians(0.5 * x))
    moves = displacements[:, None] * lever
    moved = np.empty((displacements.size, len(references), x.size))
    one = np.empty(moves.shape)
    for number, block in enumerate(pattern.phase_columns(table.start, derivatives=False)):
        interpolate_moved(x, block.pattern, moves, one)
        moved[:, number] = one
    moved.setflags(write=False)
    return _Generic(pattern, displacements, moved.reshape(-1, x.size))
