"""The pattern model: what a scan of given phases on a given instrument should look like, with all derivatives.

    y(x) = background(x) + sum_p S_p sum_hkl m |F|^2 LP O(hkl) sum_lines w_l P(x - x_hkl,l)

    x_hkl,l = 2 asin(lambda_l / 2d) + zero - (2 s cos(theta) / R) 180/pi          s: displacement, R: goniometer radius
    |F|^2   = sum_{k<=l} P_kl exp(-(B_k + B_l) / (4 d^2))                          B per element of each phase
    LP      = (1 + A cos^2 2theta) / (sin^2 theta cos theta)                       A = cos^2(2theta_monochromator) or 1
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
from xrdz.kernel import sum_peaks
from xrdz.parameters import Parameter, ParameterTable
from xrdz.profile import DEGREE, axial_nodes, pseudo_voigt_width
from xrdz.reference import Reference
from xrdz.wavelength import Wavelength

IntArray = NDArray[np.int64]

ASSUMED_RADIUS_MM = 200.0
COARSE_FACTOR = 16
"""Step of the tail grid in steps of the scan."""

WINDOW_COARSE_STEPS = 8.0
"""Least half width of a core window in coarse steps, so that the taper is resolved by the tail grid."""

WINDOW_WIDTHS = 5.0
"""Least half width of a core window in peak widths."""

CELL_RELATIVE_SU = 0.003
CELL_ANGLE_SU = 0.3
GLOBAL_NAMES = ("zero", "displacement", "u", "v", "w", "kappa")
WIDTH_NAMES = ("size_lorentz", "strain_lorentz", "size_gauss", "strain_gauss")


@dataclass(frozen=True)
class InstrumentModel:
    """What the pattern model needs to know of the instrument, with priors for what is refined.

    Parameters
    ----------
    wavelength : emission lines
    radius_mm : goniometer radius
    monochromator_two_theta_deg : None without a monochromator
    priors : one `Parameter` per global nonlinear parameter, in the order of `GLOBAL_NAMES`
    lorentz : instrument's Lorentzian X tan(theta), Y / cos(theta) in degrees, held
    """

    wavelength: Wavelength
    radius_mm: float
    monochromator_two_theta_deg: float | None
    priors: tuple[Parameter, ...]
    lorentz: tuple[float, float] = (0.0, 0.0)

    @property
    def polarization(self) -> float:
        """A of the Lorentz-polarization factor."""
        angle = self.monochromator_two_theta_deg
        return 1.0 if angle is None else float(np.cos(np.radians(angle)) ** 2)


@dataclass(frozen=True)
class PhaseModel:
    """One phase compiled for one scan: per peak everything that does not depend on the refined parameters."""

    reference: Reference
    parameter_index: IntArray  # places of the phase's own parameters in the table: cell, widths, B, ln_texture
    n_cell: int
    n_displacement: int
    hkl: IntArray
    multiplicity: FloatArray
    peak_reflection: IntArray
    peak_wavelength: FloatArray
    theta: FloatArray  # frozen Bragg angle of each peak, rad
    pair_intensity: FloatArray  # (peaks, pairs): m P_kl LP w_l / normalisation
    pair_first: IntArray
    pair_second: IntArray
    s_squared: FloatArray  # frozen 1 / (4 d^2) per peak
    texture_cos_squared: FloatArray
    texture_weight: FloatArray
    texture_offset: IntArray
    half_window: FloatArray
    first: IntArray
    last: IntArray
    node_offset: IntArray
    node_shift: FloatArray
    node_weight: FloatArray
    mean_shift: FloatArray
    normalisation: float
    texture_axis: tuple[int, int, int]

    @property
    def id(self) -> str:
        """Identifier of the phase."""
        return self.reference.id

    @property
    def n_rows(self) -> int:
        """Rows of the phase's column block: pattern, positions, intensities, widths, kappa."""
        return 1 + (2 + self.n_cell) + (self.n_displacement + 1) + (3 + len(WIDTH_NAMES)) + 1

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
    """Peaks of one phase at given parameter values: centres, widths and areas, before the kernel."""

    centre: FloatArray
    bragg: FloatArray
    fwhm: FloatArray
    eta: FloatArray
    intensity: FloatArray


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
        """Return per phase the pattern of unit scale and its derivatives, each (rows, n); see `kernel.sum_peaks`."""
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
            n_cell, n_intensity = phase.n_cell, phase.n_displacement + 1
            widths = 3 + n_cell + n_intensity
            # Rows of the block: 0 pattern; 1, 2 zero, displacement; cell; B; ln r; u, v, w; phase widths; kappa.
            shared_rows = np.array([1, 2, widths, widths + 1, widths + 2, block.shape[0] - 1])
            own_rows = np.concatenate(
                (
                    np.arange(3, 3 + n_cell),
                    np.arange(widths + 3, widths + 3 + len(WIDTH_NAMES)),
                    np.arange(3 + n_cell, widths),
                )
            )
            for target, row in zip(shared, shared_rows, strict=True):
                if number == 0:
                    np.multiply(block[row], scale, out=target)
                else:
                    target += scale * block[row]
            for place, row in zip(phase.parameter_index, own_rows, strict=True):
                np.multiply(block[row], scale, out=out[n_linear + place])
        return out

    def peak_state(self, phase: PhaseModel, values: FloatArray) -> PeakState:
        """Return the peaks of a phase at parameter values (unit scale)."""
        return self._peaks(phase, values)[0]

    def _peaks(
        self, phase: PhaseModel, values: FloatArray
    ) -> tuple[PeakState, FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return peaks, and coefficient matrices by position, intensity, fwhm and eta."""
        zero, displacement, u, v, w, _ = values[: len(GLOBAL_NAMES)]
        own = values[phase.parameter_index]
        n_cell = phase.n_cell
        cell = own[:n_cell]
        size_lorentz, strain_lorentz, size_gauss, strain_gauss = own[n_cell : n_cell + 4]
        B = own[n_cell + 4 : -1]
        ln_texture = own[-1]
        radius = self.instrument.radius_mm

        q, q_by_cell = inverse_d_squared_and_jacobian(phase.hkl, phase.reference.crystal_system, cell)
        peak = phase.peak_reflection
        sine = np.minimum(0.5 * phase.peak_wavelength * np.sqrt(q)[peak], 0.99999)
        theta = np.arcsin(sine)
        cosine = np.sqrt(1.0 - sine * sine)
        bragg = 2.0 * DEGREE * theta
        lever = 2.0 * DEGREE / radius
        centre = bragg + zero - lever * displacement * cosine
        # d centre / d (2theta_bragg in deg): the displacement shift itself moves with the angle.
        centre_by_bragg = 1.0 + displacement / radius * sine
        bragg_by_q = DEGREE * phase.peak_wavelength**2 / (4.0 * sine * cosine)
        position = np.empty((2 + n_cell, peak.size))
        position[0] = 1.0
        position[1] = -lever * cosine
        position[2:] = (centre_by_bragg * bragg_by_q) * q_by_cell.T[:, peak]

        tangent = np.tan(phase.theta)
        secant = 1.0 / np.cos(phase.theta)
        gauss_squared = (u + strain_gauss) * tangent**2 + v * tangent + w + size_gauss * secant**2
        instrument_x, instrument_y = self.instrument.lorentz
        lorentz = (strain_lorentz + instrument_x) * tangent + (size_lorentz + instrument_y) * secant
        fwhm, eta, H_g, H_l, eta_g, eta_l = pseudo_voigt_width(gauss_squared=gauss_squared, lorentz=lorentz)

        damping = np.exp(-(B[phase.pair_first] + B[phase.pair_second])[None, :] * phase.s_squared[:, None])
        pairs = phase.pair_intensity * damping
        untextured = pairs.sum(axis=1)
        orientation, orientation_slope = march_dollase(
            ln_texture, phase.texture_cos_squared, phase.texture_weight, phase.texture_offset
        )
        intensity = untextured * orientation[peak]

        by_intensity = np.empty((phase.n_displacement + 1, peak.size))
        for k in range(phase.n_displacement):
            involved = (phase.pair_first == k).astype(np.float64) + (phase.pair_second == k)
            by_intensity[k] = -phase.s_squared * (pairs @ involved) * orientation[peak]
        by_intensity[-1] = untextured * orientation_slope[peak]

        width_terms = (tangent**2, tangent, np.ones_like(tangent))
        by_fwhm = np.empty((3 + len(WIDTH_NAMES), peak.size))
        by_eta = np.empty_like(by_fwhm)
        for row, term in enumerate(width_terms):
            by_fwhm[row], by_eta[row] = H_g * term, eta_g * term
        for row, (term, to_h, to_eta) in enumerate(
            ((secant, H_l, eta_l), (tangent, H_l, eta_l), (secant**2, H_g, eta_g), (tangent**2, H_g, eta_g)), start=3
        ):
            by_fwhm[row], by_eta[row] = to_h * term, to_eta * term

        state = PeakState(centre, bragg, fwhm, eta, intensity)
        return state, position * intensity, by_intensity, by_fwhm * intensity, by_eta * intensity

    def _columns_of(self, phase: PhaseModel, values: FloatArray, derivatives: bool) -> FloatArray:
        state, position, by_intensity, by_fwhm, by_eta = self._peaks(phase, values)
        columns = np.empty((phase.n_rows, self.two_theta.size))
        sum_peaks(
            self.two_theta,
            self.coarse,
            self.stencil_start,
            self.stencil_weight,
            state.centre,
            state.fwhm,
            state.eta,
            state.intensity,
            phase.half_window,
            phase.first,
            phase.last,
            phase.node_offset,
            phase.node_shift,
            phase.node_weight,
            phase.mean_shift,
            float(values[len(GLOBAL_NAMES) - 1]),
            position,
            by_intensity,
            by_fwhm,
            by_eta,
            derivatives,
            columns,
        )
        return columns

    def angle_drift(self, values: FloatArray) -> float:
        """Return the largest difference (deg 2theta) between frozen and refined Bragg angles."""
        drifts = [
            float(np.max(np.abs(self.peak_state(phase, values).bragg - 2.0 * DEGREE * phase.theta)))
            for phase in self.phases
            if phase.theta.size
        ]
        return max(drifts, default=0.0)


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
) -> PatternModel:
    """Compile the pattern model of `references` on the points of `diffractogram`.

    Parameters
    ----------
    at : nonlinear parameter values at which the discrete decisions are frozen; the table's starts when absent
    parameters : a table to use instead of the generic one, in the same order
    texture_axes : one axis per phase; the catalogue's first where absent

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
) -> PhaseModel:
    system = reference.crystal_system
    n_cell = len(free_cell_names(system))
    n_displacement = len(reference.groups)
    cell = values[parameter_index[:n_cell]]
    lines = instrument.wavelength.lines
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
    pairs = group_pairs(n_displacement)
    reflection_number, wavelengths, pair_rows = [], [], []
    total_weight = sum(weight for _, weight in lines)
    for wavelength, weight in lines:
        sine = 0.5 * wavelength * np.sqrt(q)
        angle = np.where(sine < 0.9998, 2.0 * DEGREE * np.arcsin(np.minimum(sine, 1.0)), np.inf)
        inside = np.flatnonzero((angle >= low) & (angle <= high))
        products = pair_products(reference, listed, wavelength=wavelength)[inside]
        theta = np.radians(angle[inside] / 2.0)
        factor = listed.multiplicity[inside] * lorentz_polarization(theta, polarization=instrument.polarization)
        pair_rows.append(products * (factor * (weight / total_weight))[:, None])
        reflection_number.append(inside)
        wavelengths.append(np.full(inside.size, wavelength))
    peak = np.concatenate(reflection_number)
    peak_wavelength = np.concatenate(wavelengths)
    pair_intensity = np.concatenate(pair_rows)
    if peak.size == 0:
        raise InputError(
            f"phase {reference.id}: no reflection between {two_theta[0]:.2f} and {two_theta[-1]:.2f} deg 2theta; "
            "widen the range or leave the phase out"
        )
    order = np.argsort(peak_wavelength * np.sqrt(q[peak]), kind="stable")
    peak, peak_wavelength, pair_intensity = peak[order], peak_wavelength[order], pair_intensity[order]
    theta = np.arcsin(0.5 * peak_wavelength * np.sqrt(q[peak]))
    # Areas relative to their sum keep the scale near the counts it stands for.
    normalisation = float(pair_intensity.sum())
    pair_intensity = np.ascontiguousarray(pair_intensity / normalisation)

    own = values[parameter_index]
    size_lorentz, strain_lorentz, size_gauss, strain_gauss = own[n_cell : n_cell + 4]
    zero, displacement, u, v, w, kappa = values[: len(GLOBAL_NAMES)]
    tangent, secant = np.tan(theta), 1.0 / np.cos(theta)
    fwhm = pseudo_voigt_width(
        gauss_squared=(u + strain_gauss) * tangent**2 + v * tangent + w + size_gauss * secant**2,
        lorentz=(strain_lorentz + instrument.lorentz[0]) * tangent + (size_lorentz + instrument.lorentz[1]) * secant,
    )[0]
    nodes = axial_nodes(theta=theta, fwhm=fwhm, kappa=1.3 * kappa)
    half_window = np.maximum(WINDOW_WIDTHS * fwhm, WINDOW_COARSE_STEPS * coarse_step)
    centre = 2.0 * DEGREE * theta + zero - 2.0 * DEGREE / instrument.radius_mm * displacement * np.cos(theta)
    first = np.searchsorted(two_theta, centre - half_window).astype(np.int64)
    last = np.searchsorted(two_theta, centre + half_window).astype(np.int64)
    angles = march_dollase_geometry(reference, listed, texture_axis)
    return PhaseModel(
        reference=reference,
        parameter_index=parameter_index,
        n_cell=n_cell,
        n_displacement=n_displacement,
        hkl=listed.hkl,
        multiplicity=listed.multiplicity,
        peak_reflection=peak,
        peak_wavelength=peak_wavelength,
        theta=theta,
        pair_intensity=pair_intensity,
        pair_first=np.ascontiguousarray(pairs[:, 0]),
        pair_second=np.ascontiguousarray(pairs[:, 1]),
        s_squared=0.25 * q[peak],
        texture_cos_squared=angles.cos_squared,
        texture_weight=angles.weights,
        texture_offset=angles.offsets,
        half_window=half_window,
        first=first,
        last=last,
        node_offset=nodes.offset.astype(np.int64),
        node_shift=nodes.shift,
        node_weight=nodes.weight,
        mean_shift=nodes.mean_shift,
        normalisation=normalisation,
        texture_axis=texture_axis,
    )
