"""The pattern model a second time, in plain numpy and scipy: slow, and short enough to be checked by reading.

    y(x) = sum_j I_j sum_n w_n V(x - x_j - o_n - kappa d_n + a_j t_n; G_j^2 + g_n, L_j + l_n)

with V the Voigt function of scipy's Faddeeva function at every point: no window, no tail grid, no series. Structure
factors are summed over atoms, texture over equivalents. Only the profile is differentiated by hand; how its centre,
widths and area depend on a parameter is taken by central differences.

What the engine freezes when it compiles is part of its model and is taken from the compiled phase: the reflection list,
the angles at which the intensity factors and the width laws are evaluated, the normalisation, and, unless `dense`, the
nodes of the profiles.

`python benchmarks/reference_kernel.py` compares both on Sn and Ni3Sn4, and their speed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import wofz

from xrdz import kernel
from xrdz.anisotropy import shape_function
from xrdz.conditions import conditions_of
from xrdz.crystal import full_cell, metric_tensor
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.instrument import Instrument
from xrdz.pattern import PatternModel, PhaseModel, compile_pattern
from xrdz.reference import reference
from xrdz.reflection import OVERSPILL_POWER, WIDTH_FLOOR
from xrdz.scattering import dispersion, form_factor
from xrdz.wavelength import emission_profile, wavelength_from_name

DEGREE = 180.0 / math.pi
FWHM_SQUARED_PER_VARIANCE = 8.0 * math.log(2.0)


@dataclass(frozen=True)
class Peaks:
    """Reflections of a phase at parameter values: centre, Gaussian fwhm^2, Lorentzian fwhm, area, depth; deg, deg^2."""

    centre: FloatArray
    gauss_squared: FloatArray
    lorentz: FloatArray
    area: FloatArray
    depth: FloatArray


@dataclass(frozen=True)
class Nodes:
    """A reflection's profile: offset (deg), shift per kappa (deg) and per depth, extra fwhm^2, extra width, share."""

    offset: FloatArray
    axial: FloatArray
    depth: FloatArray
    gauss: FloatArray
    lorentz: FloatArray
    weight: FloatArray


def voigt_and_derivatives(
    u: FloatArray, gauss_squared: float, lorentz: float
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return the Voigt function of unit area at distance `u` and its derivatives by centre, G^2 and L.

    V = Re w(z) / (sigma sqrt(2 pi)), z = (u + i gamma) / (sigma sqrt 2), sigma^2 = G^2 / (8 ln 2), gamma = L / 2, and
    w' = -2 z w + 2 i / sqrt(pi).
    """
    sigma = math.sqrt(gauss_squared / FWHM_SQUARED_PER_VARIANCE)
    scale = sigma * math.sqrt(2.0)
    z = (u + 0.5j * lorentz) / scale
    w = wofz(z)
    slope = -2.0 * z * w + 2.0j / math.sqrt(math.pi)
    amplitude = 1.0 / (sigma * math.sqrt(2.0 * math.pi))
    value = amplitude * w.real
    by_centre = -amplitude * slope.real / scale
    # d/d sigma of  w(z(sigma)) / sigma  with dz/d sigma = -z / sigma, then d sigma / d G^2 = sigma / (2 G^2)
    by_gauss_squared = -amplitude * (w + z * slope).real / (2.0 * gauss_squared)
    by_lorentz = amplitude * (0.5j * slope).real / scale
    return value, by_centre, by_gauss_squared, by_lorentz


def inverse_d_squared(phase: PhaseModel, free_cell: FloatArray) -> FloatArray:
    """Return 1/d^2 = h . G* . h at free cell parameters (angstrom, deg), 1/angstrom^2."""
    reciprocal = np.linalg.inv(metric_tensor(full_cell(phase.reference.crystal_system, free_cell)))
    q: FloatArray = np.einsum("ji,ik,jk->j", phase.hkl, reciprocal, phase.hkl)
    return q


def structure_factor_squared(phase: PhaseModel, displacement: Mapping[str, float], angstrom: float) -> FloatArray:
    """Return |F|^2, the mean over h and -h, summed atom by atom at the frozen angles of the compiled phase."""
    item = phase.reference
    s = np.sin(phase.theta) / emission_principal(phase)
    # The engine takes f0 at the reference cell: it moves with s much less than the temperature factor does.
    reciprocal = np.linalg.inv(metric_tensor(item.cell))
    s_reference = 0.5 * np.sqrt(np.einsum("ji,ik,jk->j", phase.hkl, reciprocal, phase.hkl))
    squared = np.zeros(s.size)
    for sign in (1, -1):
        total = np.zeros(s.size, dtype=complex)
        for group, position, occupancy in zip(item.atom_group, item.atom_position, item.atom_occupancy, strict=True):
            element = item.groups[int(group)]
            charge, _, formal = item.charges[int(group)]
            f0 = form_factor(element, s=s_reference, charge=charge, formal=formal)
            f = f0 + dispersion(element, wavelength=angstrom)
            phase_angle = 2.0 * math.pi * sign * (phase.hkl @ position)
            total += occupancy * f * np.exp(-displacement[element] * s**2) * np.exp(1j * phase_angle)
        squared += 0.5 * np.abs(total) ** 2
    return squared


def emission_principal(phase: PhaseModel) -> float:
    """Return the wavelength the frozen angles of a phase belong to, from sin(theta) = lambda sqrt(s^2) (angstrom)."""
    return float(np.mean(np.sin(phase.theta) / np.sqrt(phase.s_squared)))


def march_dollase(phase: PhaseModel, texture_axis: tuple[int, int, int], ln_texture: float) -> FloatArray:
    """Return the mean of (r^2 cos^2 a + sin^2 a / r)^(-3/2) over all images of each reflection under the Laue class."""
    r = math.exp(ln_texture)
    reciprocal = np.linalg.inv(metric_tensor(phase.reference.cell))
    axis = np.asarray(texture_axis, dtype=np.float64)
    factors = []
    for hkl in phase.hkl:
        images = np.array([hkl @ rotation for rotation in phase.reference.rotations], dtype=np.float64)
        norms = np.einsum("ei,ij,ej->e", images, reciprocal, images) * (axis @ reciprocal @ axis)
        cos_squared = (images @ reciprocal @ axis) ** 2 / norms
        factors.append(np.mean((r**2 * cos_squared + (1.0 - cos_squared) / r) ** -1.5))
    return np.array(factors)


def named(pattern: PatternModel, values: FloatArray) -> dict[str, float]:
    """Return the nonlinear values by name."""
    return {name: float(value) for name, value in zip(pattern.parameters.names, values, strict=True)}


def peaks_of(pattern: PatternModel, phase: PhaseModel, values: FloatArray) -> Peaks:
    """Return the reflections of a phase at unit scale."""
    by_name = named(pattern, values)
    identifier = phase.id
    instrument = pattern.instrument

    q = inverse_d_squared(phase, values[phase.parameter_index[: phase.n_cell]])
    theta = np.arcsin(0.5 * instrument.wavelength.principal * np.sqrt(q))
    centre = DEGREE * (2.0 * theta - 2.0 * by_name["displacement"] * np.cos(theta) / instrument.radius_mm)
    centre += by_name["zero"]

    size, strain = 1.0 / np.cos(phase.theta), np.tan(phase.theta)
    g = by_name["u"] * strain**2 + by_name["v"] * strain + by_name["w"] + by_name["defocus"] / strain**2
    x, y = instrument.lorentz
    lorentz = x * strain + y * size
    size, strain = size * anisotropy(phase, by_name, "size"), strain * anisotropy(phase, by_name, "strain")
    g += by_name[f"{identifier}.strain_gauss"] * strain**2 + by_name[f"{identifier}.size_gauss"] * size**2
    gauss_squared = 0.5 * (g + np.sqrt(g**2 + 4.0 * WIDTH_FLOOR**4))
    lorentz += by_name[f"{identifier}.strain_lorentz"] * strain + by_name[f"{identifier}.size_lorentz"] * size

    # The satellite moves intensity within a profile, not its area, which the engine freezes.
    shares = line_areas(pattern, phase, by_name, pattern.frozen_satellite)
    area: FloatArray = np.sum(shares, axis=0) / phase.normalisation
    sine = np.sin(phase.theta)
    area *= np.exp(-by_name["roughness"] * (1.0 / sine - 1.0))
    area *= (1.0 + (by_name["overspill"] / sine) ** OVERSPILL_POWER) ** (-1.0 / OVERSPILL_POWER)
    low, high = instrument.response_domain
    t = 2.0 * (2.0 * DEGREE * phase.theta - low) / (high - low) - 1.0
    for degree, item in enumerate(instrument.response, start=1):
        area *= np.exp(by_name[item.name] * np.polynomial.legendre.Legendre.basis(degree)(t))
    area *= march_dollase(phase, phase.texture_axis, by_name[f"{identifier}.ln_texture"])
    for name, value in by_name.items():
        if name.startswith(f"{identifier}.texture_"):
            axis = next(item.axis for item in phase.textures if name.endswith("_" + "".join(map(str, item.axis))))
            area *= march_dollase(phase, axis, value)
    return Peaks(centre, gauss_squared, lorentz, area, by_name["transparency"] * np.sin(2.0 * phase.theta))


def anisotropy(phase: PhaseModel, by_name: Mapping[str, float], kind: str) -> FloatArray:
    """Return the factor exp(sum_k a_k e_k) on a phase's size or strain widths."""
    exponent = np.zeros(phase.theta.size)
    for name, value in by_name.items():
        stem, _, number = name.rpartition("_")
        if stem == f"{phase.id}.{kind}_anisotropy":
            exponent += value * shape_function(phase.reference, phase.hkl, int(number))
    factor: FloatArray = np.exp(exponent)
    return factor


def line_areas(
    pattern: PatternModel, phase: PhaseModel, by_name: Mapping[str, float], satellite: float
) -> list[FloatArray]:
    """Return m |F|^2 LP w_l of every Lorentzian of the emission profile, before texture and surface."""
    wavelength = pattern.instrument.wavelength
    displacement = {group: by_name[f"{phase.id}.B.{group}"] for group in phase.reference.groups}
    profile = emission_profile(wavelength)
    main = sum(line.weight for line in profile if not line.satellite)
    areas = []
    for line in profile:
        weight = line.weight
        if main < 1.0 - 1e-9:
            weight = satellite if line.satellite else line.weight / main * (1.0 - satellite)
        sine = np.sin(phase.theta) * line.angstrom / wavelength.principal
        theta = np.arcsin(sine)
        lp = (1.0 + by_name["polarization"] * np.cos(2.0 * theta) ** 2) / (sine**2 * np.cos(theta))
        squared = structure_factor_squared(phase, displacement, wavelength.lines[line.principal][0])
        areas.append(weight * phase.multiplicity * squared * lp)
    return areas


def compiled_nodes(pattern: PatternModel, phase: PhaseModel, values: FloatArray) -> list[Nodes]:
    """Return the nodes the engine froze, with the weights of the present satellite share."""
    comb = phase.comb
    weight = comb.weight + (named(pattern, values)["satellite"] - pattern.frozen_satellite) * comb.slope
    parts = [slice(int(a), int(b)) for a, b in zip(comb.start[:-1], comb.start[1:], strict=True)]
    rows = (kernel.NODE_OFFSET, kernel.NODE_AXIAL, kernel.NODE_DEPTH, kernel.NODE_GAUSS, kernel.NODE_LORENTZ)
    return [Nodes(*(comb.nodes[row, k] for row in rows), weight[k]) for k in parts]


def dense_nodes(pattern: PatternModel, phase: PhaseModel, values: FloatArray, order: int = 8) -> list[Nodes]:
    """Return one node per emission Lorentzian, pair of axial angles and depth, without merging and moment matching.

    With tan-weighted terms of profile.py: shift / kappa = (t'^2 tan(theta) - t^2 cot(theta)) / 4, where t / sqrt 2 has
    the cubic B-spline density on [0, 1]; two Gauss-Legendre rules of `order` points cover its two pieces.
    """
    points, weights = np.polynomial.legendre.leggauss(order)
    half = np.concatenate((0.25 * (points + 1.0), 0.25 * (points + 1.0) + 0.5))
    v = 2.0 * half
    density = np.where(v < 1.0, 4.0 - 6.0 * v**2 + 3.0 * v**3, (2.0 - v) ** 3)
    share = density * np.concatenate((weights, weights))
    share /= share.sum()
    t_squared = 2.0 * half**2
    pairs = np.outer(share, share).ravel()
    profile = emission_profile(pattern.instrument.wavelength)
    principal = pattern.instrument.wavelength.principal
    by_name = named(pattern, values)
    areas = np.array(line_areas(pattern, phase, by_name, by_name["satellite"]))
    areas /= areas.sum(axis=0)
    depth, depth_share = np.polynomial.laguerre.laggauss(order)
    flat = (math.radians(pattern.instrument.divergence_deg)) ** 2 / 6.0 * DEGREE
    result = []
    for j, theta in enumerate(phase.theta):
        shift = 0.25 * DEGREE * (np.tan(theta) * t_squared[None, :] - t_squared[:, None] / np.tan(theta)).ravel()
        line_theta = [math.asin(math.sin(theta) * line.angstrom / principal) for line in profile]
        offsets = [2.0 * DEGREE * (angle - theta) - flat / math.tan(theta) for angle in line_theta]
        widths = [
            2.0 * DEGREE * line.fwhm / line.angstrom * math.tan(angle)
            for line, angle in zip(profile, line_theta, strict=True)
        ]
        result.append(
            Nodes(
                np.repeat(offsets, shift.size * order),
                np.tile(np.repeat(shift, order), len(profile)),
                np.tile(-depth, shift.size * len(profile)),
                np.zeros(shift.size * order * len(profile)),
                np.repeat(widths, shift.size * order),
                np.multiply.outer(areas[:, j, None] * pairs, depth_share).ravel(),
            )
        )
    return result


def phase_columns(pattern: PatternModel, phase: PhaseModel, values: FloatArray, *, dense: bool = False) -> FloatArray:
    """Return the pattern of unit scale, then its derivative by every nonlinear parameter, (1 + parameters, n).

    Parameters
    ----------
    dense : sum the profiles over all lines and many axial angles instead of the compiled nodes
    """
    names = pattern.parameters.names
    kappa, satellite = names.index("kappa"), names.index("satellite")
    peaks = peaks_of(pattern, phase, values)
    nodes = (dense_nodes if dense else compiled_nodes)(pattern, phase, values)
    node_slopes = weight_slopes(pattern, phase, values, satellite, dense)
    slopes = [peak_slopes(pattern, phase, values, place) for place in range(len(names))]

    x = pattern.two_theta
    columns = np.zeros((1 + len(names), x.size))
    for j, own in enumerate(nodes):
        shape, by_centre, by_gauss, by_lorentz, by_kappa, by_satellite, by_depth = np.zeros((7, x.size))
        for k in range(own.weight.size):
            value, slope, gauss_slope, lorentz_slope = voigt_and_derivatives(
                x - (peaks.centre[j] + own.offset[k] + values[kappa] * own.axial[k] + peaks.depth[j] * own.depth[k]),
                peaks.gauss_squared[j] + own.gauss[k],
                peaks.lorentz[j] + own.lorentz[k],
            )
            shape += own.weight[k] * value
            by_centre += own.weight[k] * slope
            by_gauss += own.weight[k] * gauss_slope
            by_lorentz += own.weight[k] * lorentz_slope
            by_kappa += own.weight[k] * own.axial[k] * slope
            by_depth += own.weight[k] * own.depth[k] * slope
            by_satellite += node_slopes[j][k] * value
        columns[0] += peaks.area[j] * shape
        for place, by in enumerate(slopes):
            columns[1 + place] += by.area[j] * shape + peaks.area[j] * (
                by.centre[j] * by_centre
                + by.gauss_squared[j] * by_gauss
                + by.lorentz[j] * by_lorentz
                + by.depth[j] * by_depth
            )
        columns[1 + kappa] += peaks.area[j] * by_kappa
        columns[1 + satellite] += peaks.area[j] * by_satellite
    return columns


def weight_slopes(
    pattern: PatternModel, phase: PhaseModel, values: FloatArray, satellite: int, dense: bool
) -> list[FloatArray]:
    """Return the derivative of every node's weight by the share of the satellite, in which weights are linear."""
    shift = np.zeros(values.size)
    shift[satellite] = 1e-3
    upper, lower = (
        (dense_nodes if dense else compiled_nodes)(pattern, phase, place) for place in (values + shift, values - shift)
    )
    return [(above.weight - below.weight) / 2e-3 for above, below in zip(upper, lower, strict=True)]


def peak_slopes(pattern: PatternModel, phase: PhaseModel, values: FloatArray, place: int) -> Peaks:
    """Return the derivatives of centre, widths and area by one parameter, by central differences.

    The functions are smooth on the scale of a prior su; a step of 1e-4 of it leaves errors of some 1e-9.
    """
    step = 1e-4 * float(pattern.parameters.prior_su[place])
    shift = np.zeros(values.size)
    shift[place] = step
    upper, lower = peaks_of(pattern, phase, values + shift), peaks_of(pattern, phase, values - shift)
    width = 2.0 * step
    return Peaks(
        (upper.centre - lower.centre) / width,
        (upper.gauss_squared - lower.gauss_squared) / width,
        (upper.lorentz - lower.lorentz) / width,
        (upper.area - lower.area) / width,
        (upper.depth - lower.depth) / width,
    )


def main() -> None:
    """Compare the compiled engine with this one on 28 to 46 degrees of Sn and Ni3Sn4 and print errors and times."""
    instrument = Instrument(goniometer_radius_mm=217.5, wavelength=wavelength_from_name("CuKa"), soller_deg=4.0)
    two_theta = np.round(np.arange(28.0, 46.0, 0.02), 6)
    blank = Diffractogram(two_theta, np.ones(two_theta.size))
    model = conditions_of(blank, instrument).instrument
    pattern = compile_pattern(blank, instrument=model, references=(reference("sn"), reference("ni3sn4")), n_chebyshev=4)
    values = pattern.parameters.start
    compiled = pattern.phase_columns(values)
    began = time.perf_counter()
    for _ in range(20):
        compiled = pattern.phase_columns(values)
    fast = (time.perf_counter() - began) / 20
    for dense in (False, True):
        began = time.perf_counter()
        plain = [phase_columns(pattern, phase, values, dense=dense) for phase in pattern.phases]
        slow = time.perf_counter() - began
        for number, (phase, theirs) in enumerate(zip(pattern.phases, plain, strict=True)):
            unit = np.eye(len(pattern.phases))[number]
            ours = np.concatenate(
                (compiled[number].pattern[None], pattern.jacobian(compiled, unit)[pattern.n_linear :])
            )
            largest = np.max(np.abs(theirs), axis=1)
            errors = np.max(np.abs(ours - theirs), axis=1)[largest > 0.0] / largest[largest > 0.0]
            nodes = "dense nodes" if dense else "same nodes"
            print(f"{phase.id}, {nodes}: pattern {errors[0]:.1e} of its peak, worst derivative {errors[1:].max():.1e}")
        print(f"  {1e3 * fast:.2f} ms compiled, {1e3 * slow:.0f} ms plain")


if __name__ == "__main__":
    main()
