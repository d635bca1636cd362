"""The pattern model: what a scan of given phases on a given instrument should look like, with all derivatives.

    y(x) = background(x) + sum_p S_p sum_hkl m |F|^2 LP R O(hkl) sum_lines w_l P(x - x_hkl,l)

    x_hkl,l = 2 asin(lambda_l / 2d) + zero - (2 s cos(theta) / R) 180/pi          s: displacement, R: goniometer radius
    |F|^2   = sum_{k<=l} P_kl exp(-(B_k + B_l) / (4 d^2))                          B per element of each phase
    LP      = (1 + A cos^2 2theta) / (sin^2 theta cos theta)                       A = cos^2(2theta_monochromator) or 1, refined
    R       = exp(-q (1 / sin theta - 1))                                         q: roughness, Suortti 1972
    O(hkl)  = mean over equivalents of (r^2 cos^2 a + sin^2 a / r)^(-3/2)          March 1932; Dollase 1986

`compile_pattern` freezes every discrete decision at given parameter values: the reflection list, windows, quadrature
nodes, and the angles at which LP, the widths and the displacement factors are taken. Between two compilations the
model is a smooth function of its parameters, and its derivatives are exact. The fit compiles again at its solution
until the frozen angles agree with the refined ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from xrdz.background import chebyshev_columns, hump_columns
from xrdz.crystal import (
    cell_volume,
    free_cell_names,
    free_cell_values,
    full_cell,
    group_pairs,
    inverse_d_squared_and_jacobian,
    march_dollase_geometry,
    pair_products,
    reflections,
)
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.errors import InputError
from xrdz.kernel import AXIAL, GAUSS_SQUARED, LORENTZ, PATTERN, POSITION, SATELLITE, sum_reflections
from xrdz.parameters import Parameter, ParameterTable
from xrdz.profile import DEGREE, FINE, Comb, CombAccuracy, floored_gauss_squared, profile_comb, total_width
from xrdz.reference import Reference
from xrdz.wavelength import Wavelength, emission_profile

IntArray = NDArray[np.int64]

ASSUMED_RADIUS_MM = 200.0
COARSE_FACTOR = 16
"""Step of the tail grid in steps of the scan."""

WINDOW_COARSE_STEPS = 8.0
"""Least half width of a core window in coarse steps, so that the taper is resolved by the tail grid."""

CORE_WIDTHS, CORE_SPREADS = 4.5, 3.0
"""Half range in which a comb itself is summed, in widths and in standard deviations of its nodes."""

WINDOW_REACHES = 1.2
"""Least half width of a window in core ranges."""

DRIFT_ANGLE, DRIFT_LN_WIDTH, DRIFT_AXIAL = 0.02, 0.25, 0.05
"""How far angles (deg), widths and axial shifts may move before the model is compiled again."""

CELL_RELATIVE_SU = 0.003
CELL_ANGLE_SU = 0.3
GLOBAL_NAMES = ("zero", "displacement", "u", "v", "w", "kappa", "roughness", "polarization", "satellite")
KAPPA = GLOBAL_NAMES.index("kappa")
POLARIZATION = GLOBAL_NAMES.index("polarization")
SATELLITE_SHARE = GLOBAL_NAMES.index("satellite")
WIDTH_NAMES = ("size_lorentz", "strain_lorentz", "size_gauss", "strain_gauss")


@dataclass(frozen=True)
class InstrumentModel:
    """What the pattern model needs to know of the instrument, with priors for what is refined.

    Parameters
    ----------
    wavelength : emission lines
    radius_mm : goniometer radius
    priors : one `Parameter` per global nonlinear parameter, in the order of `GLOBAL_NAMES`
    lorentz : instrument's Lorentzian X tan(theta), Y / cos(theta) in degrees, held
    """

    wavelength: Wavelength
    radius_mm: float
    priors: tuple[Parameter, ...]
    lorentz: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class PhaseModel:
    """One phase compiled for one scan: per peak everything that does not depend on the refined parameters."""

    reference: Reference
    parameter_index: IntArray  # places of the phase's own parameters in the table: cell, widths, B, ln_texture
    n_cell: int
    n_displacement: int
    hkl: IntArray
    multiplicity: FloatArray
    theta: FloatArray  # frozen Bragg angle of the principal line, rad
    pair_intensity: FloatArray  # (reflections, pairs): sum over lines of m P_kl LP w_l, normalised
    pair_first: IntArray
    pair_second: IntArray
    s_squared: FloatArray  # frozen 1 / (4 d^2)
    texture_cos_squared: FloatArray
    texture_weight: FloatArray
    texture_offset: IntArray
    frozen_fwhm: FloatArray
    half_window: FloatArray
    first: IntArray
    last: IntArray
    core_first: IntArray
    core_last: IntArray
    comb: Comb
    basis: IntArray  # which basis function each column is a multiple of
    normalisation: float
    texture_axis: tuple[int, int, int]

    @property
    def id(self) -> str:
        """Identifier of the phase."""
        return self.reference.id

    @property
    def n_rows(self) -> int:
        """Rows of the phase's column block: pattern, positions, intensities, widths, kappa."""
        return int(self.basis.size)

    def cell(self, values: FloatArray) -> tuple[float, float, float, float, float, float]:
        """Return a, b, c (angstrom), alpha, beta, gamma (deg) at parameter values."""
        free = values[self.parameter_index[: self.n_cell]]
        return full_cell(self.reference.crystal_system, free)

    def mass_per_scale(self, values: FloatArray) -> float:
        """Return mass of the phase per unit of its refined scale: (Z M V) / normalisation (Hill & Howard 1987)."""
        volume = cell_volume(self.cell(values))
        return self.reference.mass_per_cell * volume / self.normalisation


@dataclass(frozen=True)
class PeakState:
    """Reflections of one phase at given parameter values: centres and areas (unit scale) of the principal line."""

    centre: FloatArray
    bragg: FloatArray
    gauss_squared: FloatArray
    lorentz: FloatArray
    intensity: FloatArray

    @property
    def fwhm(self) -> FloatArray:
        """Full width at half maximum of each Voigt function, deg."""
        return total_width(gauss_squared=self.gauss_squared, lorentz=self.lorentz)


@dataclass(frozen=True)
class PatternModel:
    """A compiled pattern model; see the module's docstring."""

    two_theta: FloatArray
    background_columns: FloatArray
    background_domain: tuple[float, float]
    n_chebyshev: int
    instrument: InstrumentModel
    phases: tuple[PhaseModel, ...]
    parameters: ParameterTable
    coarse: FloatArray
    stencil_start: IntArray
    stencil_weight: FloatArray
    frozen_kappa: float
    frozen_polarization: float
    frozen_satellite: float

    @property
    def n_linear(self) -> int:
        """Scales and background coefficients."""
        return len(self.phases) + self.background_columns.shape[0]

    def linear_names(self) -> tuple[str, ...]:
        """Return the names of the linear parameters: scales first, then the background."""
        n_humps = self.background_columns.shape[0] - self.n_chebyshev
        return (
            *(f"{phase.id}.scale" for phase in self.phases),
            *(f"background.{k}" for k in range(self.n_chebyshev)),
            *(f"hump.{k}" for k in range(n_humps)),
        )

    @cached_property
    def linear_lower(self) -> FloatArray:
        """Lower bounds of the linear parameters: scales and humps cannot be negative."""
        n_humps = self.background_columns.shape[0] - self.n_chebyshev
        return np.concatenate(
            (np.zeros(len(self.phases)), np.full(self.n_chebyshev, -np.inf), np.zeros(n_humps))
        )

    def phase_columns(self, values: FloatArray, *, derivatives: bool = True) -> list[FloatArray]:
        """Return per phase the pattern of unit scale and its derivatives, each (rows, n); see `kernel.sum_reflections`."""
        return [self._columns_of(phase, values, derivatives) for phase in self.phases]

    def design(self, columns: Sequence[FloatArray]) -> FloatArray:
        """Return the linear columns: one pattern per phase, then the background, shape (n_linear, n)."""
        return np.concatenate([block[:1] for block in columns] + [self.background_columns])

    def jacobian(self, columns: Sequence[FloatArray], scales: FloatArray, out: FloatArray | None = None) -> FloatArray:
        """Return d y / d (linear, nonlinear parameters) at the given scales, shape (n_linear + n_nonlinear, n)."""
        n_linear = self.n_linear
        if out is None:
            out = np.empty((n_linear + self.parameters.size, self.two_theta.size))
        for row, block in enumerate(columns):
            out[row] = block[0]
        out[len(self.phases) : n_linear] = self.background_columns
        shared = out[n_linear : n_linear + len(GLOBAL_NAMES)]
        for number, (phase, block, scale) in enumerate(zip(self.phases, columns, scales, strict=True)):
            n_own = phase.parameter_index.size
            for target, row in zip(shared, block[1 : 1 + len(GLOBAL_NAMES)], strict=True):
                if number == 0:
                    np.multiply(row, scale, out=target)
                else:
                    target += scale * row
            np.multiply(block[-n_own:], scale, out=out[n_linear + phase.parameter_index[0] :][:n_own])
        return out

    def peak_state(self, phase: PhaseModel, values: FloatArray) -> PeakState:
        """Return the peaks of a phase at parameter values (unit scale)."""
        return self._peaks(phase, values)[0]

    def _peaks(self, phase: PhaseModel, values: FloatArray) -> tuple[PeakState, FloatArray]:
        """Return the reflections and the coefficient matrix of the phase's columns, (rows, reflections)."""
        zero, displacement, u, v, w, _, roughness, polarization, _ = values[: len(GLOBAL_NAMES)]
        own = values[phase.parameter_index]
        n_cell = phase.n_cell
        cell = own[:n_cell]
        size_lorentz, strain_lorentz, size_gauss, strain_gauss = own[n_cell : n_cell + 4]
        B = own[n_cell + 4 : -1]
        radius = self.instrument.radius_mm
        wavelength = self.instrument.wavelength.principal

        q, q_by_cell = inverse_d_squared_and_jacobian(phase.hkl, phase.reference.crystal_system, cell)
        sine = np.minimum(0.5 * wavelength * np.sqrt(q), 0.99999)
        theta = np.arcsin(sine)
        cosine = np.sqrt(1.0 - sine * sine)
        bragg = 2.0 * DEGREE * theta
        lever = 2.0 * DEGREE / radius
        centre = bragg + zero - lever * displacement * cosine
        # d centre / d (2theta_bragg in deg): the displacement shift itself moves with the angle.
        centre_by_bragg = 1.0 + displacement / radius * sine
        bragg_by_q = DEGREE * wavelength**2 / (4.0 * sine * cosine)

        tangent = np.tan(phase.theta)
        secant = 1.0 / np.cos(phase.theta)
        raw = (u + strain_gauss) * tangent**2 + v * tangent + w + size_gauss * secant**2
        gauss_squared, floor_slope = floored_gauss_squared(raw)
        instrument_x, instrument_y = self.instrument.lorentz
        lorentz = (strain_lorentz + instrument_x) * tangent + (size_lorentz + instrument_y) * secant

        damping = np.exp(-(B[phase.pair_first] + B[phase.pair_second])[None, :] * phase.s_squared[:, None])
        depth = 1.0 / np.sin(phase.theta) - 1.0
        # Both factors relative to their frozen value 1: LP was frozen with the polarization of the compilation.
        polarized = np.cos(2.0 * phase.theta) ** 2
        relative = (1.0 + polarization * polarized) / (1.0 + self.frozen_polarization * polarized)
        surface = np.exp(-roughness * depth) * relative
        pairs = phase.pair_intensity * (damping * surface[:, None])
        untextured = pairs.sum(axis=1)
        orientation, orientation_slope = march_dollase(
            own[-1], phase.texture_cos_squared, phase.texture_weight, phase.texture_offset
        )
        intensity = untextured * orientation

        coefficient = np.empty((phase.n_rows, q.size))
        coefficient[0] = intensity
        coefficient[1] = intensity
        coefficient[2] = -lever * cosine * intensity
        coefficient[3] = floor_slope * tangent**2 * intensity
        coefficient[4] = floor_slope * tangent * intensity
        coefficient[5] = floor_slope * intensity
        coefficient[6] = intensity
        coefficient[7] = -depth * intensity
        coefficient[9] = intensity
        coefficient[8] = polarized / (1.0 + polarization * polarized) * intensity
        row = 1 + len(GLOBAL_NAMES)
        coefficient[row : row + n_cell] = (centre_by_bragg * bragg_by_q * intensity) * q_by_cell.T
        row += n_cell
        coefficient[row] = secant * intensity
        coefficient[row + 1] = tangent * intensity
        coefficient[row + 2] = floor_slope * secant**2 * intensity
        coefficient[row + 3] = coefficient[3]
        row += len(WIDTH_NAMES)
        for k in range(phase.n_displacement):
            involved = (phase.pair_first == k).astype(np.float64) + (phase.pair_second == k)
            coefficient[row + k] = -phase.s_squared * (pairs @ involved) * orientation
        coefficient[-1] = untextured * orientation_slope
        return PeakState(centre, bragg, gauss_squared, lorentz, intensity), coefficient

    def _columns_of(self, phase: PhaseModel, values: FloatArray, derivatives: bool) -> FloatArray:
        state, coefficient = self._peaks(phase, values)
        rows = phase.n_rows if derivatives else 1
        columns = np.empty((rows, self.two_theta.size))
        comb = phase.comb
        sum_reflections(
            self.two_theta,
            self.coarse,
            self.stencil_start,
            self.stencil_weight,
            state.centre,
            state.gauss_squared,
            state.lorentz,
            float(values[KAPPA]),
            phase.half_window,
            phase.first,
            phase.last,
            phase.core_first,
            phase.core_last,
            comb.start,
            comb.offset,
            comb.axial,
            comb.gauss,
            comb.lorentz,
            comb.weight + (float(values[SATELLITE_SHARE]) - self.frozen_satellite) * comb.slope,
            comb.slope,
            comb.mean_offset,
            comb.mean_axial,
            comb.mean_lorentz,
            comb.variance,
            phase.basis[:rows],
            coefficient[:rows],
            columns,
        )
        return columns

    def drift(self, values: FloatArray) -> float:
        """Return how far the refined model has moved from where it was frozen, one being the most that is allowed.

        The largest of: Bragg angle over `DRIFT_ANGLE`, ln of the total width over `DRIFT_LN_WIDTH`, and axial
        shift over the width and `DRIFT_AXIAL`.
        """
        worst = 0.0
        axial = abs(float(values[KAPPA]) - self.frozen_kappa)
        for phase in self.phases:
            state = self.peak_state(phase, values)
            angle = np.abs(state.bragg - 2.0 * DEGREE * phase.theta) / DRIFT_ANGLE
            width = np.abs(np.log(state.fwhm / phase.frozen_fwhm)) / DRIFT_LN_WIDTH
            shift = axial * np.abs(phase.comb.mean_axial) / state.fwhm / DRIFT_AXIAL
            worst = max(worst, float(np.max(angle)), float(np.max(width)), float(np.max(shift)))
        return worst


def march_dollase(
    ln_texture: float, cos_squared: FloatArray, weight: FloatArray, offset: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Return the March-Dollase factor of each reflection and its derivative by ln r.

    O = sum_e weight_e (r^2 cos^2 a_e + sin^2 a_e / r)^(-3/2), W. A. Dollase 1986, J. Appl. Cryst. 19, 267, eq. 5.
    """
    r = np.exp(ln_texture)
    inner = r * r * cos_squared + (1.0 - cos_squared) / r
    power = weight * inner**-1.5
    slope = -1.5 * power / inner * (2.0 * r * r * cos_squared - (1.0 - cos_squared) / r)
    return np.add.reduceat(power, offset[:-1]), np.add.reduceat(slope, offset[:-1])


def lorentz_polarization(theta: FloatArray, *, polarization: float) -> FloatArray:
    """Return (1 + A cos^2 2theta) / (sin^2 theta cos theta) for Bragg-Brentano geometry; theta in rad."""
    return (1.0 + polarization * np.cos(2.0 * theta) ** 2) / (np.sin(theta) ** 2 * np.cos(theta))


def phase_parameters(reference: Reference) -> list[Parameter]:
    """Return the nonlinear parameters of a phase: cell, widths, displacement parameters, texture."""
    parameters = []
    names = free_cell_names(reference.crystal_system)
    for name, value in zip(names, free_cell_values(reference.crystal_system, reference.cell), strict=True):
        su = CELL_ANGLE_SU if name in ("alpha", "beta", "gamma") else CELL_RELATIVE_SU * value
        parameters.append(Parameter(f"{reference.id}.{name}", value, value, su, value - 8 * su, value + 8 * su))
    identifier = reference.id
    parameters += [
        Parameter(f"{identifier}.size_lorentz", 0.06, 0.08, 0.3, 0.0, 8.0),
        Parameter(f"{identifier}.strain_lorentz", 0.04, 0.05, 0.2, 0.0, 8.0),
        Parameter(f"{identifier}.size_gauss", 0.001, 0.002, 0.03, 0.0, 8.0),
        Parameter(f"{identifier}.strain_gauss", 0.001, 0.002, 0.03, 0.0, 8.0),
    ]
    for group, (value, su) in zip(reference.groups, reference.displacement, strict=True):
        parameters.append(Parameter(f"{identifier}.B.{group}", value, value, su, -1.0, 15.0))
    parameters.append(Parameter(f"{identifier}.ln_texture", 0.0, 0.0, 0.15, -2.3, 2.3))
    return parameters


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
    accuracy: CombAccuracy = FINE,
) -> PatternModel:
    """Compile the pattern model of `references` on the points of `diffractogram`.

    Parameters
    ----------
    at : nonlinear parameter values at which the discrete decisions are frozen; the table's starts when absent
    parameters : a table to use instead of the generic one, in the same order
    texture_axes : one axis per phase; the catalogue's first where absent
    accuracy : of the profile combs

    Raises
    ------
    InputError
        If there are fewer points than parameters, or a phase has no reflection in the range.
    """
    two_theta = diffractogram.two_theta
    domain = domain or (float(two_theta[0]), float(two_theta[-1]))
    table = parameters or ParameterTable.of(
        [*instrument.priors, *(item for reference in references for item in phase_parameters(reference))]
    )
    values = table.start if at is None else at
    step = float(np.median(np.diff(two_theta)))
    coarse_step = min(COARSE_FACTOR * step, 0.5)
    n_coarse = int(np.ceil((two_theta[-1] - two_theta[0]) / coarse_step)) + 4
    coarse = two_theta[0] + coarse_step * (np.arange(n_coarse) - 1.0)
    stencil_start, stencil_weight = lagrange_stencil(two_theta, coarse)
    background = np.concatenate(
        (chebyshev_columns(two_theta, domain=domain, terms=n_chebyshev), hump_columns(two_theta, humps))
    )
    phases = []
    begin = len(GLOBAL_NAMES)
    for number, reference in enumerate(references):
        count = len(phase_parameters(reference))
        axis = None if texture_axes is None else texture_axes[number]
        phases.append(
            _compile_phase(
                reference,
                values,
                np.arange(begin, begin + count),
                instrument,
                two_theta,
                coarse_step,
                axis or (reference.texture_axes or ((0, 0, 1),))[0],
                accuracy,
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
        coarse,
        stencil_start,
        stencil_weight,
        float(values[KAPPA]),
        float(values[POLARIZATION]),
        float(values[SATELLITE_SHARE]),
    )


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


def _compile_phase(
    reference: Reference,
    values: FloatArray,
    parameter_index: IntArray,
    instrument: InstrumentModel,
    two_theta: FloatArray,
    coarse_step: float,
    texture_axis: tuple[int, int, int],
    accuracy: CombAccuracy,
) -> PhaseModel:
    system = reference.crystal_system
    n_cell = len(free_cell_names(system))
    n_displacement = len(reference.groups)
    cell = values[parameter_index[:n_cell]]
    lines = instrument.wavelength.lines
    profile = emission_profile(instrument.wavelength)
    # Peaks a little outside the range still reach into it with their tails and may move in.
    margin = 2.0
    low = max(float(two_theta[0]) - margin, 0.1)
    high = min(float(two_theta[-1]) + margin, 178.0)
    longest = max(wavelength for wavelength, _ in lines)
    shortest = min(wavelength for wavelength, _ in lines)
    d_min = shortest / (2.0 * np.sin(np.radians(high / 2.0))) * 0.99
    d_max = longest / (2.0 * np.sin(np.radians(low / 2.0))) * 1.01
    listed = reflections(reference, d_min=round(d_min, 3), d_max=round(d_max, 2))
    q, _ = inverse_d_squared_and_jacobian(listed.hkl, system, cell)
    sine = 0.5 * profile[0].angstrom * np.sqrt(q)
    longest_line = max(line.angstrom for line in profile) / profile[0].angstrom
    angle = 2.0 * DEGREE * np.arcsin(np.minimum(sine, 1.0))
    inside = np.flatnonzero((sine * longest_line < 0.9998) & (angle >= low) & (angle <= high))
    if inside.size == 0:
        raise InputError(
            f"phase {reference.id}: no reflection between {two_theta[0]:.2f} and {two_theta[-1]:.2f} deg 2theta; "
            "widen the range or leave the phase out"
        )
    inside = inside[np.argsort(q[inside], kind="stable")]
    q = q[inside]
    theta = np.arcsin(0.5 * profile[0].angstrom * np.sqrt(q))
    pairs = group_pairs(n_displacement)
    products = [pair_products(reference, listed, wavelength=wavelength)[inside] for wavelength, _ in lines]
    expected = np.exp(
        -0.25 * q[:, None] * values[parameter_index[n_cell + 4 : -1]][pairs].sum(axis=1)[None, :]
    )
    zero, displacement, u, v, w, kappa, _, _, satellite = values[: len(GLOBAL_NAMES)]
    pair_intensity = np.zeros_like(products[0])
    line_offset, line_lorentz, line_weight, line_slope = np.empty((4, len(profile), q.size))
    with_satellite = any(line.satellite for line in profile)
    listed_share = sum(line.weight for line in profile if line.satellite)
    for number, line in enumerate(profile):
        line_theta = np.arcsin(0.5 * line.angstrom * np.sqrt(q))
        # The satellite share is refined; the listed lines divide the rest among them.
        if with_satellite:
            weight = satellite if line.satellite else line.weight * (1.0 - satellite) / (1.0 - listed_share)
            slope = 1.0 if line.satellite else -line.weight / (1.0 - listed_share)
        else:
            weight, slope = line.weight, 0.0
        factor = weight * listed.multiplicity[inside]
        factor *= lorentz_polarization(line_theta, polarization=float(values[POLARIZATION]))
        share = products[line.principal] * factor[:, None]
        pair_intensity += share
        line_offset[number] = 2.0 * DEGREE * (line_theta - theta)
        line_lorentz[number] = 2.0 * DEGREE * line.fwhm / line.angstrom * np.tan(line_theta)
        line_weight[number] = (share * expected).sum(axis=1)
        line_slope[number] = line_weight[number] * (slope / weight if weight > 0.0 else 0.0)
    # Areas relative to their sum keep the scale near the counts it stands for.
    normalisation = float(pair_intensity.sum())
    pair_intensity = np.ascontiguousarray(pair_intensity / normalisation)

    size_lorentz, strain_lorentz, size_gauss, strain_gauss = values[parameter_index[n_cell : n_cell + 4]]
    tangent, secant = np.tan(theta), 1.0 / np.cos(theta)
    raw = (u + strain_gauss) * tangent**2 + v * tangent + w + size_gauss * secant**2
    fwhm = total_width(
        gauss_squared=floored_gauss_squared(raw)[0],
        lorentz=(strain_lorentz + instrument.lorentz[0]) * tangent + (size_lorentz + instrument.lorentz[1]) * secant,
    )
    comb = profile_comb(
        theta=theta,
        fwhm=fwhm,
        kappa=kappa,
        line_offset=line_offset,
        line_lorentz=line_lorentz,
        line_weight=line_weight,
        line_slope=line_slope,
        accuracy=accuracy,
    )
    centre = 2.0 * DEGREE * theta + zero - 2.0 * DEGREE / instrument.radius_mm * displacement * np.cos(theta)
    centre += comb.mean_offset + kappa * comb.mean_axial
    # The tail stands for the whole comb at its mean and variance; that holds a few standard deviations away.
    reach = CORE_WIDTHS * fwhm + CORE_SPREADS * np.sqrt(comb.variance)
    half_window = np.maximum(WINDOW_REACHES * reach, WINDOW_COARSE_STEPS * coarse_step)
    first, last, core_first, core_last = (
        np.searchsorted(two_theta, edge).astype(np.int64)
        for edge in (centre - half_window, centre + half_window, centre - reach, centre + reach)
    )
    angles = march_dollase_geometry(reference, listed, texture_axis)
    member = np.concatenate([np.arange(angles.offsets[k], angles.offsets[k + 1]) for k in inside])
    counts = np.diff(angles.offsets)[inside]
    basis = [PATTERN, POSITION, POSITION, GAUSS_SQUARED, GAUSS_SQUARED, GAUSS_SQUARED, AXIAL, PATTERN, PATTERN, SATELLITE]
    basis += [POSITION] * n_cell + [LORENTZ, LORENTZ, GAUSS_SQUARED, GAUSS_SQUARED] + [PATTERN] * (n_displacement + 1)
    return PhaseModel(
        reference=reference,
        parameter_index=parameter_index,
        n_cell=n_cell,
        n_displacement=n_displacement,
        hkl=listed.hkl[inside],
        multiplicity=listed.multiplicity[inside],
        theta=theta,
        pair_intensity=pair_intensity,
        pair_first=np.ascontiguousarray(pairs[:, 0]),
        pair_second=np.ascontiguousarray(pairs[:, 1]),
        s_squared=0.25 * q,
        texture_cos_squared=angles.cos_squared[member],
        texture_weight=angles.weights[member],
        texture_offset=np.concatenate(([0], np.cumsum(counts))),
        frozen_fwhm=fwhm,
        half_window=half_window,
        first=first,
        last=last,
        core_first=core_first,
        core_last=core_last,
        comb=comb,
        basis=np.array(basis, dtype=np.int64),
        normalisation=normalisation,
        texture_axis=texture_axis,
    )
