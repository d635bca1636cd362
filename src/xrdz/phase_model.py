"""One phase of a pattern: from its reference and the refined parameters to reflections and derivative coefficients.

    x_hkl = 2 asin(lambda / 2d) + zero - (2 s cos(theta) / R) 180/pi               s: displacement, R: goniometer radius
    |F|^2 = sum_{k<=l} P_kl exp(-(B_k + B_l) / (4 d^2))                            B per element of each phase
    LP    = (1 + A cos^2 2theta) / (sin^2 theta cos theta)                         A: polarization of the monochromator
    R     = exp(-q (1 / sin theta - 1))                                            q: roughness, Suortti 1972
    F     = (1 + (sin theta_c / sin theta)^6)^(-1/6), a smooth min(1, sin theta / sin theta_c)
                                                                                   footprint longer than the specimen
    O     = product over axes of the mean over equivalents of (r^2 cos^2 a + sin^2 a / r)^(-3/2)
                                                                                   March 1932; Dollase 1986
    C     = exp(sum_k c_k P_k(t)),  t in -1..1 over the calibrated range           intensity response, Legendre P_k

Everything discrete (reflections, windows, quadrature nodes), and the angles at which LP, the widths and the damping are
taken, is frozen when a phase is compiled; between two compilations a reflection is a smooth function of the
parameters, and the coefficients here are its exact derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdz.anisotropy import Extension, shape_function
from xrdz.compiled import Addressed, addressed
from xrdz.crystal import (
    AxisAngles,
    Reflections,
    cell_from_free,
    cell_volume,
    charge_slope,
    excess_slope,
    free_cell_names,
    free_cell_values,
    full_cell,
    group_pairs,
    march_dollase_geometry,
    pair_products,
    reflections,
)
from xrdz.descent import reflect_phase
from xrdz.diffractogram import FloatArray
from xrdz.errors import InputError
from xrdz.kernel import (
    AREA,
    AXIAL,
    BRAGG,
    CENTRE,
    DEPTH,
    DEPTH_SCALE,
    GAUSS,
    GAUSS_SQUARED,
    LORENTZ,
    N_STATE_ROWS,
    PATTERN,
    POSITION,
    SATELLITE,
    WIDTH,
)
from xrdz.parameters import Parameter
from xrdz.profile import DEGREE, NO_COMB, Comb, CombAccuracy, flat_specimen_error, profile_comb, total_width
from xrdz.reference import Reference
from xrdz.reflection import inverse_d_squared_and_jacobian
from xrdz.wavelength import Wavelength, emission_profile

IntArray = NDArray[np.int64]

ASSUMED_RADIUS_MM = 200.0

CORE_WIDTHS, CORE_SPREADS, CORE_DEPTHS = 4.5, 3.0, 4.0
"""Half range in which a comb itself is summed, in widths, in standard deviations of its nodes and in mean depths, whose
exponential reaches further than its standard deviation tells."""

WINDOW_REACHES = 2.0
"""Least half width of a window in core ranges."""

CELL_RELATIVE_SU = 0.003
CELL_ANGLE_SU = 0.3
GLOBAL_NAMES = (
    "zero",
    "displacement",
    "u",
    "v",
    "w",
    "kappa",
    "roughness",
    "polarization",
    "satellite",
    "overspill",
    "defocus",
    "transparency",
)
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
    response : Legendre coefficients of ln(intensity response), from the first degree on; none without a calibration
    response_domain : degrees 2theta that map to t = -1 and t = +1
    divergence_deg : of the beam in the equator, for the flat-specimen error of the positions; 0 where unknown
    prior_covariance : joint prior covariance of `priors` then `response`; independent when absent
    """

    wavelength: Wavelength
    radius_mm: float
    priors: tuple[Parameter, ...]
    lorentz: tuple[float, float] = (0.0, 0.0)
    response: tuple[Parameter, ...] = ()
    response_domain: tuple[float, float] = (0.0, 180.0)
    divergence_deg: float = 0.0
    prior_covariance: FloatArray | None = None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All global parameters."""
        return (*self.priors, *self.response)


@dataclass(frozen=True)
class TextureAxis:
    """Angles of the equivalents of each reflection to one axis, ragged by `offset`."""

    axis: tuple[int, int, int]
    cos_squared: FloatArray
    weight: FloatArray
    offset: IntArray


@dataclass(frozen=True)
class Shape:
    """One anisotropic broadening term: which width it modifies, and its shape function at each reflection."""

    kind: str
    values: FloatArray


@dataclass(frozen=True)
class ReflectionState:
    """Reflections of one phase at given parameter values; `rows` (6, reflections) as `kernel` names them."""

    rows: FloatArray

    def _row(self, number: int) -> FloatArray:
        row: FloatArray = self.rows[number]
        return row

    @property
    def centre(self) -> FloatArray:
        """Centres of the principal line, deg."""
        return self._row(CENTRE)

    @property
    def bragg(self) -> FloatArray:
        """Bragg angles, deg 2theta."""
        return self._row(BRAGG)

    @property
    def gauss_squared(self) -> FloatArray:
        """Squared Gaussian widths, deg^2."""
        return self._row(GAUSS)

    @property
    def lorentz(self) -> FloatArray:
        """Lorentzian widths, deg."""
        return self._row(WIDTH)

    @property
    def intensity(self) -> FloatArray:
        """Areas at unit scale."""
        return self._row(AREA)

    @property
    def depth(self) -> FloatArray:
        """Mean shift by the depth the beam enters to, deg."""
        return self._row(DEPTH_SCALE)

    @property
    def fwhm(self) -> FloatArray:
        """Full width at half maximum of each Voigt function, deg."""
        return total_width(gauss_squared=self.gauss_squared, lorentz=self.lorentz)


@dataclass(frozen=True)
class PhaseModel:
    """One phase compiled for one scan: per reflection everything that does not depend on the refined parameters."""

    reference: Reference
    instrument: InstrumentModel
    parameter_index: IntArray  # places of the phase's own parameters: cell, widths, B, ln_texture, extensions
    n_cell: int
    n_displacement: int
    listed: Reflections
    inside: IntArray  # which of the listed reflections these are
    hkl: IntArray
    multiplicity: FloatArray
    theta: FloatArray  # frozen Bragg angle of the principal line, rad
    pair_intensity: FloatArray  # (reflections, pairs): sum over lines of m P_kl LP w_l, normalised
    pair_first: IntArray
    pair_second: IntArray
    s_squared: FloatArray  # frozen 1 / (4 d^2)
    textures: tuple[TextureAxis, ...]
    shapes: tuple[Shape, ...]
    legendre: FloatArray  # (degrees, reflections) of the intensity response
    frozen_fwhm: FloatArray
    frozen_depth: FloatArray
    frozen_polarization: float
    half_window: FloatArray
    first: IntArray
    last: IntArray
    core_first: IntArray
    core_last: IntArray
    comb: Comb
    basis: IntArray  # which basis function each slope is a multiple of
    row_parameter: IntArray  # which parameter each slope belongs to
    normalisation: float

    @property
    def id(self) -> str:
        """Identifier of the phase."""
        return self.reference.id

    @cached_property
    def indices(self) -> FloatArray:
        """Miller indices as the compiled code takes them."""
        return np.ascontiguousarray(self.hkl, dtype=np.float64)

    @property
    def n_rows(self) -> int:
        """Slopes of the phase: one or two per parameter."""
        return int(self.basis.size)

    @property
    def width_rows(self) -> int:
        """First slope of the four widths."""
        return len(self.instrument.parameters) + self.n_cell

    @property
    def texture_axis(self) -> tuple[int, int, int]:
        """Axis of the basic model's texture."""
        return self.textures[0].axis

    def cell(self, values: FloatArray) -> tuple[float, ...]:
        """Return a, b, c (angstrom), alpha, beta, gamma (deg) at parameter values."""
        free = values[self.parameter_index[: self.n_cell]]
        return full_cell(self.reference.crystal_system, free.tolist())

    def mass_per_scale(self, values: FloatArray) -> float:
        """Return mass of the phase per unit of its refined scale: (Z M V) / normalisation (Hill & Howard 1987)."""
        volume = cell_volume(self.cell(values))
        return self.reference.mass_per_cell * volume / self.normalisation

    @cached_property
    def reflecting(self) -> Addressed:
        """The arrays that make reflections of parameters, the first rows of `table`; windows and combs play no part."""
        sine = np.sin(self.theta)
        polarized = np.cos(2.0 * self.theta) ** 2
        angles = np.stack(
            (
                np.tan(self.theta),
                1.0 / np.cos(self.theta),
                1.0 / sine,
                polarized,
                1.0 / (1.0 + self.frozen_polarization * polarized),
            )
        )
        begins = np.cumsum([0, *(axis.cos_squared.size for axis in self.textures[:-1])])
        return addressed(
            self.indices,
            cell_from_free(self.reference.crystal_system),
            np.array(full_cell(self.reference.crystal_system, [0.0] * self.n_cell)),
            angles,
            np.array(self.instrument.lorentz),
            self.pair_intensity,
            self.pair_first,
            self.pair_second,
            self.s_squared,
            np.concatenate([axis.cos_squared for axis in self.textures]),
            np.concatenate([axis.weight for axis in self.textures]),
            np.array([begin + axis.offset for begin, axis in zip(begins, self.textures, strict=True)]),
            np.array([shape.kind == "size" for shape in self.shapes], dtype=np.int64),
            np.array([shape.values for shape in self.shapes]).reshape(len(self.shapes), self.theta.size),
            self.legendre,
            self.parameter_index,
        )

    @cached_property
    def table(self) -> Addressed:
        """Addresses and sizes of the arrays the compiled descent reads, (fields, 3), and the arrays themselves."""
        rows, kept = self.reflecting
        comb = self.comb
        more_rows, more = addressed(
            self.half_window,
            self.first,
            self.last,
            self.core_first,
            self.core_last,
            comb.start,
            comb.nodes,
            comb.moments,
            self.basis,
            self.row_parameter,
        )
        return np.concatenate((rows, more_rows)), (*kept, *more)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: addresses of this process's arrays are no part of it."""
        return {name: value for name, value in vars(self).items() if name not in ("table", "reflecting")}

    def evaluate(self, values: FloatArray, *, derivatives: bool = True) -> tuple[ReflectionState, FloatArray]:
        """Return the reflections and the coefficient of each slope, (rows, reflections), none without derivatives."""
        state = np.empty((N_STATE_ROWS, self.theta.size))
        rows = np.empty((self.n_rows if derivatives else 0, self.theta.size))
        instrument = self.instrument
        reflect_phase(
            self.reflecting[0],
            values,
            len(instrument.parameters),
            instrument.wavelength.principal,
            instrument.radius_mm,
            state,
            rows,
        )
        return ReflectionState(state), rows

    def extension_rows(self, extensions: Sequence[Extension], values: FloatArray) -> tuple[IntArray, FloatArray]:
        """Return basis and coefficients of each extension's two rows at zero amplitude, (2 e,), (2 e, reflections)."""
        state, coefficient = self.evaluate(values)
        size_lorentz, strain_lorentz, size_gauss, strain_gauss = (
            values[self.parameter_index[self.n_cell + k]] * coefficient[self.width_rows + k] for k in range(4)
        )
        basis, rows = [], []
        for extension in extensions:
            if extension.kind == "texture":
                slope = untextured_slope(self.reference, self.listed, extension.axis)[self.inside]
                basis += [PATTERN, PATTERN]
                rows += [state.intensity * slope, np.zeros_like(slope)]
                continue
            shape = listed_shape(self.reference, self.listed, extension.component)[self.inside]
            is_size = extension.kind == "size"
            basis += [LORENTZ, GAUSS_SQUARED]
            rows += [
                shape * (size_lorentz if is_size else strain_lorentz),
                2.0 * shape * (size_gauss if is_size else strain_gauss),
            ]
        return np.array(basis, dtype=np.int64), np.array(rows)

    @property
    def uncertain_charges(self) -> tuple[int, ...]:
        """Displacement groups whose charge has an uncertainty."""
        return tuple(group for group, (_, su, _) in enumerate(self.reference.charges) if su > 0.0)

    def charge_rows(self, values: FloatArray) -> FloatArray:
        """Return the change of each reflection's area with one su of each uncertain charge, (e, reflections)."""
        state, _ = self.evaluate(values, derivatives=False)
        B = values[self.parameter_index[self.n_cell + 4 : self.n_cell + 4 + self.n_displacement]]
        slopes = [
            self.reference.charges[group][1]
            * charge_slope(
                self.reference,
                self.listed,
                group,
                wavelength=self.instrument.wavelength.principal,
                displacement=B,
            )[self.inside]
            for group in self.uncertain_charges
        ]
        rows: FloatArray = state.intensity * np.array(slopes).reshape(len(slopes), self.theta.size)
        return rows

    def excess_row(self, values: FloatArray) -> FloatArray:
        """Return the change of each reflection's area with one atom in excess per formula unit, (1, reflections)."""
        state, _ = self.evaluate(values, derivatives=False)
        slope = excess_slope(
            self.reference,
            self.listed,
            wavelength=self.instrument.wavelength.principal,
            displacement=values[self.parameter_index[self.n_cell + 4 : self.n_cell + 4 + self.n_displacement]],
        )
        row: FloatArray = state.intensity * slope[None, self.inside]
        return row


def lorentz_polarization(theta: FloatArray, *, polarization: float) -> FloatArray:
    """Return (1 + A cos^2 2theta) / (sin^2 theta cos theta) for Bragg-Brentano geometry; theta in rad."""
    factor: FloatArray = (1.0 + polarization * np.cos(2.0 * theta) ** 2) / (np.sin(theta) ** 2 * np.cos(theta))
    return factor


def legendre_columns(two_theta: FloatArray, *, domain: tuple[float, float], degrees: int) -> FloatArray:
    """Return P_1 .. P_degrees at `two_theta` on `domain` (degrees), shape (degrees, n)."""
    t = 2.0 * (two_theta - domain[0]) / (domain[1] - domain[0]) - 1.0
    columns: FloatArray = np.asarray(np.polynomial.legendre.legvander(t, degrees).T[1:], dtype=np.float64)
    return columns


@lru_cache(maxsize=512)
def _angles(reference: Reference, listed: Reflections, axis: tuple[int, int, int]) -> AxisAngles:
    return march_dollase_geometry(reference, listed, axis)


@lru_cache(maxsize=512)
def _products(reference: Reference, listed: Reflections, wavelength: float) -> FloatArray:
    return pair_products(reference, listed, wavelength=wavelength)


@lru_cache(maxsize=512)
def untextured_slope(reference: Reference, listed: Reflections, axis: tuple[int, int, int]) -> FloatArray:
    """Return d O / d ln r of each listed reflection at r = 1, -(3/2) sum_e weight_e (3 cos^2 a_e - 1)."""
    angles = _angles(reference, listed, axis)
    mean: FloatArray = np.add.reduceat(angles.weights * angles.cos_squared, angles.offsets[:-1])
    return -1.5 * (3.0 * mean - 1.0)


@lru_cache(maxsize=512)
def listed_shape(reference: Reference, listed: Reflections, component: int) -> FloatArray:
    """Return a shape function of anisotropic broadening at each listed reflection; see `anisotropy`."""
    return shape_function(reference, listed.hkl, component)


def texture_axis(
    reference: Reference, listed: Reflections, inside: IntArray, axis: tuple[int, int, int]
) -> TextureAxis:
    """Return the angles of the equivalents of the chosen reflections to an axis."""
    angles = _angles(reference, listed, axis)
    counts = np.diff(angles.offsets)[inside]
    offset = np.concatenate(([0], np.cumsum(counts)))
    member = np.repeat(angles.offsets[inside] - offset[:-1], counts) + np.arange(offset[-1])
    return TextureAxis(axis, angles.cos_squared[member], angles.weights[member], offset)


def phase_parameters(reference: Reference, extensions: Sequence[Extension] = ()) -> list[Parameter]:
    """Return the nonlinear parameters of a phase: cell, widths, displacement parameters, texture, extensions."""
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
    # The mean of cos^2 over cubic equivalents is 1/3 for every axis: there is no first-order effect, and ln r = 0 is a
    # saddle no descent leaves. A cubic phase is taken as untextured.
    texture_su = 1e-3 if reference.crystal_system == "cubic" else 0.15
    parameters.append(Parameter(f"{identifier}.ln_texture", 0.0, 0.0, texture_su, -2.3, 2.3))
    parameters += [extension.parameter() for extension in own_extensions(reference, extensions)]
    return parameters


def own_extensions(reference: Reference, extensions: Sequence[Extension]) -> list[Extension]:
    """Return a phase's extensions, textures before shapes, the order of its parameters."""
    own = [extension for extension in extensions if extension.phase == reference.id]
    return sorted(own, key=lambda extension: extension.kind != "texture")


def compile_phase(
    reference: Reference,
    values: FloatArray,
    parameter_index: IntArray,
    instrument: InstrumentModel,
    two_theta: FloatArray,
    *,
    coarse_step: float,
    axis: tuple[int, int, int],
    extensions: Sequence[Extension],
    accuracy: CombAccuracy,
) -> PhaseModel:
    """Compile one phase at parameter values; see `pattern.compile_pattern`.

    Raises
    ------
    InputError
        If no reflection of the phase lies in the range.
    """
    system = reference.crystal_system
    n_cell, n_displacement = len(free_cell_names(system)), len(reference.groups)
    lines = instrument.wavelength.lines
    profile = emission_profile(instrument.wavelength)
    # Reflections a little outside the range still reach into it with their tails and may move in.
    margin = 2.0
    low = max(float(two_theta[0]) - margin, 0.1)
    high = min(float(two_theta[-1]) + margin, 178.0)
    longest = max(line.angstrom for line in profile)
    d_min = 0.99 * min(line.angstrom for line in profile) / (2.0 * np.sin(np.radians(high / 2.0)))
    d_max = 1.01 * longest / (2.0 * np.sin(np.radians(low / 2.0)))
    listed = reflections(reference, d_min=round(d_min, 3), d_max=round(d_max, 2))
    q, _ = inverse_d_squared_and_jacobian(listed.hkl, system, values[parameter_index[:n_cell]])
    sine = 0.5 * profile[0].angstrom * np.sqrt(q)
    angle = 2.0 * DEGREE * np.arcsin(np.minimum(sine, 1.0))
    inside = np.flatnonzero((sine * longest / profile[0].angstrom < 0.9998) & (angle >= low) & (angle <= high))
    if inside.size == 0:
        raise InputError(
            f"phase {reference.id}: no reflection between {two_theta[0]:.2f} and {two_theta[-1]:.2f} deg 2theta; "
            "widen the range or leave the phase out"
        )
    inside = inside[np.argsort(q[inside], kind="stable")]
    q, hkl = q[inside], listed.hkl[inside]
    theta = np.arcsin(0.5 * profile[0].angstrom * np.sqrt(q))

    pairs = group_pairs(n_displacement)
    products = [_products(reference, listed, wavelength)[inside] for wavelength, _ in lines]
    B = values[parameter_index[n_cell + 4 : n_cell + 4 + n_displacement]]
    expected = np.exp(-0.25 * q[:, None] * B[pairs].sum(axis=1)[None, :])
    zero, displacement, _, _, _, kappa, _, polarization, satellite, _, _, _ = values[: len(GLOBAL_NAMES)]
    # The satellite share is refined; the listed lines divide the rest among them.
    satellites = np.array([line.satellite for line in profile])
    weight = np.array([line.weight for line in profile])
    slope = np.zeros(len(profile))
    if satellites.any():
        main = weight / (1.0 - weight[satellites].sum())
        weight = np.where(satellites, satellite, main * (1.0 - satellite))
        slope = np.where(satellites, 1.0, -main)
    angstrom = np.array([line.angstrom for line in profile])[:, None]
    line_theta = np.arcsin(0.5 * angstrom * np.sqrt(q))
    factor = listed.multiplicity[inside] * lorentz_polarization(line_theta, polarization=float(polarization))
    principal = np.array([line.principal for line in profile])
    weighted = weight[:, None] * factor
    pair_intensity = sum(
        (product * weighted[principal == k].sum(axis=0)[:, None] for k, product in enumerate(products)),
        np.zeros_like(products[0]),
    )
    bare = np.array([(product * expected).sum(axis=1) for product in products])[principal] * factor
    line_offset = 2.0 * DEGREE * (line_theta - theta) - flat_specimen_error(instrument.divergence_deg) / np.tan(theta)
    line_lorentz = 2.0 * DEGREE * np.array([line.fwhm for line in profile])[:, None] / angstrom * np.tan(line_theta)
    line_weight, line_slope = bare * weight[:, None], bare * slope[:, None]
    # Areas relative to their sum keep the scale near the counts it stands for.
    normalisation = float(pair_intensity.sum())

    textures = [
        axis,
        *(extension.axis for extension in own_extensions(reference, extensions) if extension.kind == "texture"),
    ]
    shapes = [
        Shape(extension.kind, listed_shape(reference, listed, extension.component)[inside])
        for extension in own_extensions(reference, extensions)
        if extension.kind != "texture"
    ]
    n_global = len(instrument.parameters)
    own = parameter_index
    row_parameter = [*range(n_global), *own[: own.size - len(shapes)], *np.repeat(own[own.size - len(shapes) :], 2)]
    basis = [
        POSITION,
        POSITION,
        GAUSS_SQUARED,
        GAUSS_SQUARED,
        GAUSS_SQUARED,
        AXIAL,
        PATTERN,
        PATTERN,
        SATELLITE,
    ]
    basis += [PATTERN, GAUSS_SQUARED, DEPTH]  # overspill, defocus, transparency
    basis += [PATTERN] * len(instrument.response) + [POSITION] * n_cell
    basis += [LORENTZ, LORENTZ, GAUSS_SQUARED, GAUSS_SQUARED] + [PATTERN] * (n_displacement + len(textures))
    basis += [LORENTZ, GAUSS_SQUARED] * len(shapes)
    blank = PhaseModel(
        reference=reference,
        instrument=instrument,
        parameter_index=own,
        n_cell=n_cell,
        n_displacement=n_displacement,
        listed=listed,
        inside=inside,
        hkl=hkl,
        multiplicity=listed.multiplicity[inside],
        theta=theta,
        pair_intensity=np.ascontiguousarray(pair_intensity / normalisation),
        pair_first=np.ascontiguousarray(pairs[:, 0]),
        pair_second=np.ascontiguousarray(pairs[:, 1]),
        s_squared=0.25 * q,
        textures=tuple(texture_axis(reference, listed, inside, item) for item in textures),
        shapes=tuple(shapes),
        legendre=legendre_columns(
            2.0 * DEGREE * theta, domain=instrument.response_domain, degrees=len(instrument.response)
        ),
        frozen_fwhm=np.empty(0),
        frozen_depth=np.empty(0),
        frozen_polarization=float(polarization),
        half_window=np.empty(0),
        first=np.empty(0, dtype=np.int64),
        last=np.empty(0, dtype=np.int64),
        core_first=np.empty(0, dtype=np.int64),
        core_last=np.empty(0, dtype=np.int64),
        comb=NO_COMB,
        basis=np.array(basis, dtype=np.int64),
        row_parameter=np.array(row_parameter, dtype=np.int64),
        normalisation=normalisation,
    )
    expected_state = blank.evaluate(values, derivatives=False)[0]
    fwhm, depth = expected_state.fwhm, expected_state.depth
    comb = profile_comb(
        theta=theta,
        fwhm=fwhm,
        kappa=float(kappa),
        depth=depth,
        line_offset=line_offset,
        line_lorentz=line_lorentz,
        line_weight=line_weight,
        line_slope=line_slope,
        accuracy=accuracy,
    )
    centre = 2.0 * DEGREE * theta + zero - 2.0 * DEGREE / instrument.radius_mm * displacement * np.cos(theta)
    centre += comb.mean_offset + kappa * comb.mean_axial + depth * comb.mean_depth
    # The tail stands for the whole comb at its mean and variance; that holds a few standard deviations away.
    reach = CORE_WIDTHS * fwhm + CORE_SPREADS * np.sqrt(comb.variance) + CORE_DEPTHS * depth
    half_window = np.maximum(WINDOW_REACHES * reach, accuracy.window_steps * coarse_step)
    first, last, core_first, core_last = (
        np.searchsorted(two_theta, edge).astype(np.int64)
        for edge in (centre - half_window, centre + half_window, centre - reach, centre + reach)
    )
    done = replace(
        blank,
        frozen_fwhm=fwhm,
        frozen_depth=depth,
        half_window=half_window,
        first=first,
        last=last,
        core_first=core_first,
        core_last=core_last,
        comb=comb,
    )
    # What makes reflections does not depend on windows or combs: it is worked out once.
    vars(done)["reflecting"] = blank.reflecting
    return done
