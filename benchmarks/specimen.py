"""Simulated specimens that break the fit's assumptions: what a real powder does and a model may not know.

    y = background + hump + sum_p m_p tau_p / (mass per scale)_p sum_hkl I_hkl(B, texture, roughness) P(x; widths_hkl)

Peaks come from the compiled pattern model itself, so that profile shape is no part of the question; on top of it stand

* anisotropic size: ellipsoids of revolution about an axis, whose column along a direction at the angle a to it is
  D(a) = D_perp / sqrt(sin^2 a + cos^2 a / q^2), q the ratio of the axes, averaged over the equivalents of a reflection;
* phases the method does not fit, and structures it does not have (nickel-rich Ni3+xSn4);
* amorphous humps;
* microabsorption, tau = exp(-1.5 (mu - mu_mean) R) for spheres of radius R (Brindley 1945, Phil. Mag. 36, 347, first
  term; 3R/2 is the mean path through a sphere weighted by volume).

Truth is the weighed mass of each phase.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from xrdz.crystal import inverse_d_squared, metric_tensor
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.kernel import GAUSS, WIDTH
from xrdz.pattern import InstrumentModel, PatternModel, PhaseColumns, PhaseModel, ReflectionState, compile_pattern
from xrdz.profile import DEGREE
from xrdz.reference import Reference
from xrdz.wavelength import Wavelength

Axis = tuple[int, int, int]


@dataclass(frozen=True)
class Part:
    """One phase of a specimen.

    Parameters
    ----------
    mass : weighed, in any unit common to all parts
    size_nm, gauss_share, strain : column length, share of the Gaussian in its width, and strain, of the mean direction
    elongation, elongation_axis : q and the axis of ellipsoidal grains; 1 for spheres
    ln_texture, texture_axis : March-Dollase ln r and axis
    diameter_um : of the particles that absorb, 0 for none
    values : other nonlinear parameters by the last part of their name, such as `a` or `B.Ni`
    """

    reference: Reference
    mass: float
    size_nm: float = 60.0
    gauss_share: float = 0.25
    strain: float = 0.0005
    elongation: float = 1.0
    elongation_axis: Axis = (0, 0, 1)
    ln_texture: float = 0.0
    texture_axis: Axis | None = None
    diameter_um: float = 0.0
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Specimen:
    """A specimen in an instrument.

    Parameters
    ----------
    parts : phases, those the method knows and others
    instrument : the true instrument; `values` replaces the means of its priors (zero, displacement, u, ...)
    counts : total of the scan
    background_share : of the total, without the humps
    slope, curvature : shape of the background, exp(-slope t) (1 + curvature cos(3 t)), t in [-1, 1]
    humps : (centre deg, full width deg, share of the total)
    tube : shares of other lines of the tube, (angstrom, share of K-alpha)
    """

    parts: tuple[Part, ...]
    instrument: InstrumentModel
    counts: float = 3e6
    background_share: float = 0.4
    slope: float = 0.5
    curvature: float = 0.05
    humps: tuple[tuple[float, float, float], ...] = ()
    tube: tuple[tuple[float, float], ...] = ()
    values: Mapping[str, float] = field(default_factory=dict)

    def mass(self, identifier: str) -> float:
        """Return the weighed mass of a phase, 0 if it is not there."""
        return sum(part.mass for part in self.parts if part.reference.id == identifier)


def size_width(size_nm: float) -> float:
    """Return the size broadening in degrees 2theta times cos(theta) (Scherrer 1918 with K = 0.9, Cu K-alpha)."""
    return 0.9 * 1.5406 / (10.0 * size_nm) * DEGREE


def nickel_rich(ni3sn4: Reference, x: float) -> Reference:
    """Return Ni3+xSn4: x nickel atoms a formula unit on the empty 2c site (0, 0, 1/2) of C2/m.

    The site has six tin neighbours at 2.30 to 2.50 angstrom; the other two-fold sites have tin at 1.5 to 1.6 angstrom.
    Ni3+xSn4 with 0 < x < 0.4 is known (physics.md); the cell is left as it is, its own prior follows it.
    """
    nickel = ni3sn4.groups.index("Ni")
    return replace(
        ni3sn4,
        atom_group=np.concatenate((ni3sn4.atom_group, [nickel, nickel])),
        atom_position=np.concatenate((ni3sn4.atom_position, [[0.0, 0.0, 0.5], [0.5, 0.5, 0.5]])),
        atom_occupancy=np.concatenate((ni3sn4.atom_occupancy, [x, x])),
    )


def expected_counts(specimen: Specimen, two_theta: FloatArray) -> FloatArray:
    """Return the expected counts of a specimen at each point."""
    peaks = peaks_at(specimen, two_theta, specimen.instrument)
    for angstrom, share in specimen.tube:
        other = replace(specimen.instrument, wavelength=Wavelength(((angstrom, 1.0),)))
        peaks += share * peaks_at(specimen, two_theta, other)
    t = np.linspace(-1.0, 1.0, two_theta.size)
    smooth = np.exp(-specimen.slope * t) * (1.0 + specimen.curvature * np.cos(3.0 * t))
    under = specimen.background_share * smooth / smooth.sum()
    for centre, width, share in specimen.humps:
        hump = np.exp(-4.0 * math.log(2.0) * ((two_theta - centre) / width) ** 2)
        under += share * hump / hump.sum()
    expected: FloatArray = specimen.counts * (under + (1.0 - under.sum()) * peaks / peaks.sum())
    return expected


def peaks_at(specimen: Specimen, two_theta: FloatArray, instrument: InstrumentModel) -> FloatArray:
    """Return what a specimen diffracts of the lines of an instrument, in units common to all of them."""
    blank = Diffractogram(two_theta, np.ones(two_theta.size))
    references = tuple(part.reference for part in specimen.parts)
    generic = compile_pattern(blank, instrument=instrument, references=references, n_chebyshev=1)
    values = true_values(specimen, generic)
    broadest = values.copy()
    for part in specimen.parts:
        # Windows must hold the broadest reflection of an anisotropic phase.
        place = generic.parameters.index(f"{part.reference.id}.size_lorentz")
        broadest[place] *= max(part.elongation, 1.0 / part.elongation) ** (2.0 / 3.0)
    axes = tuple(part.texture_axis for part in specimen.parts)
    pattern = compile_pattern(
        blank, instrument=instrument, references=references, n_chebyshev=1, at=broadest, texture_axes=axes
    )
    peaks = np.zeros(two_theta.size)
    for part, phase, absorption in zip(specimen.parts, pattern.phases, absorption_factors(specimen), strict=True):
        state = _anisotropic(pattern, phase, part, values)
        scale = part.mass * absorption / phase.mass_per_scale(values)
        peaks += scale * curve_of(pattern, phase, state, values)
    return peaks


def measure(specimen: Specimen, two_theta: FloatArray, rng: np.random.Generator) -> Diffractogram:
    """Return one scan of a specimen with Poisson noise."""
    counts = rng.poisson(expected_counts(specimen, two_theta)).astype(np.float64)
    return Diffractogram(two_theta, counts, count_kind="counts")


def true_values(specimen: Specimen, pattern: PatternModel) -> FloatArray:
    """Return the nonlinear parameters of a specimen in the order of the pattern's table."""
    table = pattern.parameters
    values = np.array(table.prior_mean)
    for name, value in specimen.values.items():
        values[table.index(name)] = value
    for part in specimen.parts:
        width, strain = size_width(part.size_nm), 4.0 * part.strain * DEGREE
        own = {
            "size_lorentz": (1.0 - part.gauss_share) * width,
            "size_gauss": (part.gauss_share * width) ** 2,
            "strain_lorentz": (1.0 - part.gauss_share) * strain,
            "strain_gauss": (part.gauss_share * strain) ** 2,
            "ln_texture": part.ln_texture,
            **part.values,
        }
        for name, value in own.items():
            values[table.index(f"{part.reference.id}.{name}")] = value
    return values


def curve_of(pattern: PatternModel, phase: PhaseModel, state: ReflectionState, values: FloatArray) -> FloatArray:
    """Return the pattern of unit scale that a phase's reflections give, with whatever widths `state` holds."""
    columns = PhaseColumns.empty(0, pattern.two_theta.size)
    none = np.empty((0, state.intensity.size))
    pattern._sum(phase, values, state, state.intensity, np.empty(0, dtype=np.int64), none, columns)
    return columns.pattern


def _anisotropic(pattern: PatternModel, phase: PhaseModel, part: Part, values: FloatArray) -> ReflectionState:
    """Return the reflections with the widths of ellipsoidal grains of the same volume."""
    state = pattern.peak_state(phase, values)
    if part.elongation == 1.0:
        return state
    relative = relative_breadth(phase, part)
    secant = 1.0 / np.cos(phase.theta)
    width = size_width(part.size_nm)
    lorentz = (1.0 - part.gauss_share) * width * (relative - 1.0) * secant
    gauss = (part.gauss_share * width) ** 2 * (relative**2 - 1.0) * secant**2
    rows = state.rows.copy()
    rows[WIDTH] += lorentz
    rows[GAUSS] += gauss
    return replace(state, rows=rows)


def relative_breadth(phase: PhaseModel, part: Part) -> FloatArray:
    """Return each reflection's size breadth over that of spheres of the same volume, mean over its equivalents."""
    reference = part.reference
    reciprocal = np.linalg.inv(metric_tensor(reference.cell))
    axis = np.array(part.elongation_axis, dtype=np.float64)
    members = np.einsum("hi,rij->hrj", phase.hkl.astype(np.float64), reference.rotations)
    dot = members @ reciprocal @ axis
    norm = inverse_d_squared(members.reshape(-1, 3), reference.cell).reshape(dot.shape) * (axis @ reciprocal @ axis)
    cosine_squared = np.clip(dot**2 / norm, 0.0, 1.0)
    q = part.elongation
    breadth: FloatArray = q ** (1.0 / 3.0) * np.sqrt(1.0 - cosine_squared + cosine_squared / q**2).mean(axis=1)
    return breadth


def scan_points(end: float) -> FloatArray:
    """Return 2theta from 20 degrees to `end` in steps of 0.02."""
    points: FloatArray = np.round(np.arange(20.0, end + 0.005, 0.02), 6)
    return points


def absorption_factors(specimen: Specimen) -> list[float]:
    """Return tau of each part; the mean attenuation is that of the solids by volume."""
    wavelength = specimen.instrument.wavelength.principal
    attenuation = [part.reference.linear_attenuation(wavelength) for part in specimen.parts]
    volumes = [part.mass / part.reference.density for part in specimen.parts]
    mean = sum(mu * volume for mu, volume in zip(attenuation, volumes, strict=True)) / sum(volumes)
    return [
        math.exp(-1.5 * (mu - mean) * 0.5e-4 * part.diameter_um)
        for mu, part in zip(attenuation, specimen.parts, strict=True)
    ]


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a number whose logarithm is uniform between those of `low` and `high`."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def truncated_normal(rng: np.random.Generator, mean: float, su: float, lower: float, upper: float) -> float:
    """Return a normal number, drawn again until it lies between its bounds."""
    while True:
        value = float(rng.normal(mean, su))
        if lower <= value <= upper:
            return value


def pick(rng: np.random.Generator, axes: Sequence[Axis]) -> Axis:
    """Return one of the axes."""
    return axes[int(rng.integers(len(axes)))]
