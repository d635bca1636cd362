"""Simulated diffractograms with known truth, from the engine's own pattern model.

    y(x) ~ Poisson(background(x) + sum_p S_p pattern_p(x)),     S_p proportional to w_p / (Z M V)_p (Hill & Howard 1987)

Positions, intensities and shapes are those of `pattern.compile_pattern`: a fit of such a scan tests statistics,
convergence and bookkeeping, never the physics. For that, scans of an independent program are needed (`sample_data`).

Sizes. Spheres of log-normally distributed diameter (spread s, the standard deviation of ln D) have column lengths with
D_V / D_S = 9/8 exp(s^2) (Krill & Birringer 1998, Phil. Mag. A 77, 621), and a Voigt function of integral breadth beta
with Lorentzian part beta_L has D_V / D_S = 2 beta_L / beta (Balzar & Ledbetter 1993, J. Appl. Cryst. 26, 97), so that

    beta = lambda / (D_V cos theta),   beta_L / beta = 9/16 exp(s^2),   beta = beta_G exp(-k^2) / erfc(k),
    k = beta_L / (sqrt(pi) beta_G)

which is the same volume-weighted column length D_V that an analysis reports. Strain is Gaussian, e = beta / (4 tan).
The invariant: the same settings and the same generator state give the same counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from xrdz import __version__
from xrdz.background import chebyshev_columns, hump_columns
from xrdz.conditions import conditions_of
from xrdz.crystal import full_cell
from xrdz.diffractogram import Diffractogram, FloatArray, Source
from xrdz.errors import InputError
from xrdz.fields import nearest
from xrdz.files import write_whole
from xrdz.instrument import Instrument
from xrdz.method import default_ratio, is_cif, phase_id
from xrdz.pattern import PatternModel, PhaseModel, compile_pattern
from xrdz.reference import Reference, reference, reference_from_cif
from xrdz.wavelength import Wavelength, wavelength_from_name

TRUTH_SCHEMA = "xrdz.simulation/1"
LARGEST_SPREAD = 0.74
"""Spread of ln D from which size broadening is broader in its tails than a Lorentzian: 9/16 exp(s^2) = 0.97."""

FRACTION_TOLERANCE = 1e-6
MAX_POINTS = 1_000_000


@dataclass(frozen=True)
class SimulationSettings:
    """What is simulated; mappings are keyed by phase id, and a phase that is left out takes the default.

    Parameters
    ----------
    phases : ids of the reference library, or CIF paths
    mass_ratio : Z of the ratio `method.default_ratio` gives (ni3sn4/sn), where two phases are simulated
    mass_fractions : instead of `mass_ratio`; they sum to 1
    impurities : mass fractions of further phases of the whole; the others share the rest
    size_nm : volume-weighted column length, nm; 0 for no size broadening
    size_spread : standard deviation of ln D of the grain diameters
    strain : Delta d / d
    displacement_parameters : B in angstrom^2, by `phase` or `phase.element`; else the library's
    texture_r : March-Dollase r along the phase's first texture axis
    cell_change : relative change of all cell lengths from the reference's, such as 0.001
    wavelength : tube such as "CuKa", or angstrom
    radius_mm, displacement_mm, zero_deg : goniometer radius, specimen displacement, zero of the circle
    monochromator_two_theta_deg : diffracted beam; None without one
    soller_deg : opening of both Soller slits, 0 for no axial divergence
    resolution : U, V, W of the instrument, deg^2
    background : Chebyshev coefficients on the range, relative to the height of the strongest peak
    humps : (centre deg, full width deg, height relative to the strongest peak) of broad amorphous humps
    counts : what `counts_of` says
    counts_of : "total", the diffracted counts of all peaks, or "peak", the height of the strongest one
    two_theta : first and last position, degrees
    step : degrees
    """

    phases: tuple[str, ...] = ("sn", "ni3sn4")
    mass_ratio: float | None = None
    mass_fractions: Mapping[str, float] = field(default_factory=dict)
    impurities: Mapping[str, float] = field(default_factory=dict)
    size_nm: Mapping[str, float] = field(default_factory=dict)
    default_size_nm: float = 60.0
    size_spread: float = 0.3
    strain: Mapping[str, float] = field(default_factory=dict)
    displacement_parameters: Mapping[str, float] = field(default_factory=dict)
    texture_r: Mapping[str, float] = field(default_factory=dict)
    cell_change: Mapping[str, float] = field(default_factory=dict)
    wavelength: str | float = "CuKa"
    radius_mm: float = 217.5
    displacement_mm: float = 0.0
    zero_deg: float = 0.0
    monochromator_two_theta_deg: float | None = None
    soller_deg: float = 2.5
    resolution: tuple[float, float, float] = (0.003, -0.002, 0.005)
    background: tuple[float, ...] = (0.02, -0.008, 0.003)
    humps: tuple[tuple[float, float, float], ...] = ()
    counts: float = 1e6
    counts_of: Literal["total", "peak"] = "total"
    two_theta: tuple[float, float] = (20.0, 100.0)
    step: float = 0.02


def simulate(settings: SimulationSettings, rng: np.random.Generator) -> tuple[Diffractogram, dict[str, Any]]:
    """Return a simulated diffractogram with Poisson counts, and its truth as a JSON document.

    Raises
    ------
    InputError
        If a setting cannot be used: an unknown phase, fractions that do not sum to 1, a value outside its range.
    """
    references = _references(settings)
    fractions = mass_fractions(settings, tuple(item.id for item in references))
    _check(settings, references)
    wavelength = _wavelength(settings.wavelength)
    two_theta = _positions(settings)
    empty = Diffractogram(two_theta, np.zeros_like(two_theta), wavelength=wavelength)
    instrument = conditions_of(
        empty,
        Instrument(
            goniometer_radius_mm=settings.radius_mm,
            monochromator_two_theta_deg=settings.monochromator_two_theta_deg,
            soller_deg=settings.soller_deg or None,
        ),
        references,
    ).instrument
    draft = compile_pattern(empty, instrument=instrument, references=references, n_chebyshev=1)
    values = _values(draft, settings, wavelength)
    pattern = compile_pattern(empty, instrument=instrument, references=references, n_chebyshev=1, at=values)
    expected, net = _expected(pattern, values, fractions, settings)
    diffractogram = Diffractogram(
        two_theta,
        rng.poisson(expected).astype(np.float64),
        wavelength=wavelength,
        count_kind="counts",
        metadata=_metadata(settings, wavelength),
        source=Source(format="simulated", scan=1),
    )
    return diffractogram, _truth(pattern, values, fractions, settings, expected, net)


def mass_fractions(settings: SimulationSettings, ids: tuple[str, ...]) -> dict[str, float]:
    """Return the mass fraction of every simulated phase, impurities included.

    Raises
    ------
    InputError
        If they are not determined, not positive, or do not sum to 1.
    """
    main = tuple(phase_id(entry) for entry in settings.phases)
    impurity = sum(settings.impurities.values())
    if not all(0.0 < value < 1.0 for value in settings.impurities.values()) or impurity >= 1.0:
        raise InputError(f"impurities {dict(settings.impurities)}: expected mass fractions between 0 and 1 in sum")
    if settings.mass_fractions:
        given = {name: settings.mass_fractions.get(name, math.nan) for name in main}
        total = math.fsum(given.values())
        if set(settings.mass_fractions) != set(main) or not abs(total - 1.0) <= FRACTION_TOLERANCE:
            raise InputError(
                f"mass fractions {dict(settings.mass_fractions)}: expected one per phase ({', '.join(main)}) that "
                "sum to 1"
            )
    elif len(main) == 1:
        given = {main[0]: 1.0}
    else:
        ratio = default_ratio(main)
        if len(main) > 2 or ratio is None:
            raise InputError(f"{len(main)} phases: one mass ratio does not determine them; give all mass fractions")
        mass_ratio = 1.0 if settings.mass_ratio is None else settings.mass_ratio
        if not (0.0 < mass_ratio < math.inf):
            raise InputError(f"mass ratio {mass_ratio!r}: expected a positive number, such as 1.0")
        given = {ratio[0]: mass_ratio / (1.0 + mass_ratio), ratio[1]: 1.0 / (1.0 + mass_ratio)}
    if not all(0.0 <= value <= 1.0 for value in given.values()):
        raise InputError(f"mass fractions {given}: expected values from 0 to 1")
    whole = {name: value * (1.0 - impurity) for name, value in given.items()}
    whole |= {phase_id(entry): value for entry, value in settings.impurities.items()}
    return {name: whole[name] for name in ids}


def size_widths(size_nm: float, spread: float, wavelength: float) -> tuple[float, float]:
    """Return the Gaussian fwhm^2 (deg^2) and the Lorentzian fwhm (deg) of a size, both before 1/cos(theta).

    Parameters
    ----------
    size_nm : volume-weighted column length D_V, nm; 0 for no broadening
    spread : standard deviation of ln D of log-normal spheres
    wavelength : angstrom
    """
    if size_nm == 0.0:
        return 0.0, 0.0
    breadth = math.degrees(0.1 * wavelength / size_nm)
    share = 9.0 / 16.0 * math.exp(spread * spread)
    k = _root_of(lambda x: math.sqrt(math.pi) * x * math.exp(x * x) * math.erfc(x) - share, 0.0, 20.0)
    gauss = breadth * share / (math.sqrt(math.pi) * k)
    return gauss * gauss * 4.0 * math.log(2.0) / math.pi, breadth * share * 2.0 / math.pi


def write_xy(diffractogram: Diffractogram, path: str | Path, comment: str = "") -> Path:
    """Write positions (degrees) and counts as text with the header lines our text reader understands."""
    wavelength = diffractogram.wavelength
    header = [f"simulated by xrdz {__version__}, not measured" + (f"; {comment}" if comment else "")]
    if wavelength is not None:
        lines = "; ".join(f"{angstrom!r} {weight!r}" for angstrom, weight in wavelength.lines)
        header.append(f"wavelength_lines: {lines}")
        if wavelength.name:
            header.append(f"wavelength_name: {wavelength.name}")
    header += [f"{key}: {value}" for key, value in diffractogram.metadata.items()]
    header.append("two_theta_deg counts")
    rows = zip(diffractogram.two_theta.tolist(), diffractogram.intensity.tolist(), strict=True)
    text = [*(f"# {line}" for line in header), *(f"{angle:.6f} {count:.0f}" for angle, count in rows)]
    return write_whole(path, "\n".join(text) + "\n")


def write_truth(truth: Mapping[str, Any], scan: str | Path) -> Path:
    """Write the truth beside its scan as STEM.truth.json."""
    path = Path(scan)
    return write_whole(path.with_name(f"{path.stem}.truth.json"), json.dumps(truth, indent=1, allow_nan=False) + "\n")


def _references(settings: SimulationSettings) -> tuple[Reference, ...]:
    entries = (*settings.phases, *settings.impurities)
    ids = [phase_id(entry) for entry in entries]
    if not settings.phases or len(set(ids)) != len(ids):
        raise InputError(f"phases {', '.join(ids)}: expected at least one, each named once")
    return tuple(
        replace(reference_from_cif(Path(entry)), id=phase_id(entry)) if is_cif(entry) else reference(entry)
        for entry in entries
    )


def _check(settings: SimulationSettings, references: tuple[Reference, ...]) -> None:
    """Raise InputError for a value outside its range, or one given for a phase that is not simulated."""
    ids = {item.id for item in references}
    with_elements = ids | {f"{item.id}.{group}" for item in references for group in item.groups}
    limits: tuple[tuple[str, Mapping[str, float], float, float, set[str]], ...] = (
        ("size in nm", settings.size_nm, 0.0, 1e5, ids),
        ("strain", settings.strain, 0.0, 0.1, ids),
        ("texture r", settings.texture_r, 0.1, 10.0, ids),
        ("cell change", settings.cell_change, -0.05, 0.05, ids),
        ("B in angstrom^2", settings.displacement_parameters, 0.0, 15.0, with_elements),
    )
    for what, given, low, high, known in limits:
        for name, value in given.items():
            if name not in known:
                raise InputError(f"{what}: {name!r} is not simulated; the nearest is {nearest(name, known)!r}")
            if not low <= value <= high:
                raise InputError(f"{what} of {name}: {value!r} is outside {low:g} to {high:g}")
    single: tuple[tuple[str, float, float, float], ...] = (
        ("counts", settings.counts, 1.0, 1e12),
        ("radius in mm", settings.radius_mm, 10.0, 2000.0),
        ("displacement in mm", settings.displacement_mm, -5.0, 5.0),
        ("zero in degrees", settings.zero_deg, -1.5, 1.5),
        ("soller in degrees", settings.soller_deg, 0.0, 15.0),
        ("spread of ln size", settings.size_spread, 0.0, LARGEST_SPREAD),
        ("monochromator in degrees 2theta", settings.monochromator_two_theta_deg or 0.0, 0.0, 179.0),
    )
    for what, value, low, high in single:
        if not low <= value <= high:
            raise InputError(f"{what}: {value!r} is outside {low:g} to {high:g}")


def _wavelength(given: str | float) -> Wavelength:
    if isinstance(given, str):
        return wavelength_from_name(given, origin="file")
    return Wavelength(((given, 1.0),), "", "file")


def _positions(settings: SimulationSettings) -> FloatArray:
    low, high = settings.two_theta
    if not (0.0 < low < high < 180.0 and settings.step > 0.0):
        raise InputError(
            f"range {low:g} to {high:g} deg in steps of {settings.step:g}: expected 0 < low < high < 180, step > 0"
        )
    count = math.floor((high - low) / settings.step + 1e-6) + 1
    if not 50 <= count <= MAX_POINTS:
        raise InputError(f"{count} points in the range: expected 50 to {MAX_POINTS}; change the step")
    positions: FloatArray = np.round(low + settings.step * np.arange(count), 6)
    return positions


def _values(pattern: PatternModel, settings: SimulationSettings, wavelength: Wavelength) -> FloatArray:
    """Return the nonlinear parameters of the settings."""
    table = pattern.parameters
    values = np.array(table.start)

    def put(name: str, value: float) -> None:
        values[table.index(name)] = value

    u, v, w = settings.resolution
    axial = 0.5 * math.radians(settings.soller_deg) ** 2
    for name, value in (("u", u), ("v", v), ("w", w), ("kappa", axial), ("roughness", 0.0)):
        put(name, value)
    put("zero", settings.zero_deg)
    put("displacement", settings.displacement_mm)
    for phase in pattern.phases:
        name = phase.id
        for place in phase.parameter_index[: phase.n_cell]:
            if not table.names[place].endswith(("alpha", "beta", "gamma")):
                values[place] *= 1.0 + settings.cell_change.get(name, 0.0)
        size = settings.size_nm.get(name, settings.default_size_nm)
        gauss, lorentz = size_widths(size, settings.size_spread, wavelength.principal)
        put(f"{name}.size_gauss", gauss)
        put(f"{name}.size_lorentz", lorentz)
        breadth = math.degrees(4.0 * settings.strain.get(name, 0.0))
        put(f"{name}.strain_gauss", breadth * breadth * 4.0 * math.log(2.0) / math.pi)
        put(f"{name}.strain_lorentz", 0.0)
        put(f"{name}.ln_texture", math.log(settings.texture_r.get(name, 1.0)))
        given = settings.displacement_parameters
        for group, (usual, _) in zip(phase.reference.groups, phase.reference.displacement, strict=True):
            put(f"{name}.B.{group}", given.get(f"{name}.{group}", given.get(name, usual)))
    return values


def _expected(
    pattern: PatternModel, values: FloatArray, fractions: Mapping[str, float], settings: SimulationSettings
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Return the expected counts, and each phase's part of them."""
    columns = pattern.phase_columns(values, derivatives=False)
    net = {
        phase.id: fractions[phase.id] / phase.mass_per_scale(values) * block.pattern
        for phase, block in zip(pattern.phases, columns, strict=True)
    }
    diffracted = np.sum(list(net.values()), axis=0)
    reached = float(diffracted.sum() if settings.counts_of == "total" else diffracted.max())
    if not reached > 0.0:
        raise InputError("no phase diffracts in the range; widen it")
    scale = settings.counts / reached
    net = {name: scale * curve for name, curve in net.items()}
    diffracted = scale * diffracted
    x = pattern.two_theta
    strongest = float(diffracted.max())
    coefficients = np.array(settings.background, dtype=np.float64)
    background = coefficients @ chebyshev_columns(x, domain=(x[0], x[-1]), terms=coefficients.size) * strongest
    for centre, fwhm, height in settings.humps:
        if not (fwhm > 0.0 and height >= 0.0):
            raise InputError(f"hump at {centre:g} deg: expected a positive width and a height of zero or more")
        background = background + strongest * height * hump_columns(x, [(centre, fwhm)])[0]
    if float(np.min(background)) < 0.0:
        raise InputError(f"background {settings.background}: it is negative somewhere; raise its first coefficient")
    return diffracted + background, net


def _metadata(settings: SimulationSettings, wavelength: Wavelength) -> dict[str, Any]:
    angle = settings.monochromator_two_theta_deg
    facts: dict[str, Any] = {
        "anode": wavelength.anode or None,
        "goniometer_radius_mm": settings.radius_mm,
        "monochromator": "none" if angle is None else "diffracted beam",
        "monochromator_two_theta_deg": angle,
        "soller_deg": settings.soller_deg or None,
    }
    return {key: value for key, value in facts.items() if value is not None}


def _truth(
    pattern: PatternModel,
    values: FloatArray,
    fractions: Mapping[str, float],
    settings: SimulationSettings,
    expected: FloatArray,
    net: Mapping[str, FloatArray],
) -> dict[str, Any]:
    ratio = default_ratio(tuple(phase_id(entry) for entry in settings.phases))
    ratio_truth = None
    if ratio is not None and fractions[ratio[1]] > 0.0:
        ratio_truth = {
            "numerator": ratio[0],
            "denominator": ratio[1],
            "value": fractions[ratio[0]] / fractions[ratio[1]],
        }
    peaks, total = float(np.sum(list(net.values()))), float(expected.sum())
    return {
        "schema": TRUTH_SCHEMA,
        "software": {"xrdz": __version__, "numpy": np.__version__},
        "how": "the pattern model of xrdz itself with Poisson counts; not measured, no independent physics",
        "mass_fractions": dict(fractions),
        "mass_ratio": ratio_truth,
        "phases": [_phase_truth(pattern, phase, values, settings, net) for phase in pattern.phases],
        "counts": {"peaks": peaks, "background": total - peaks, "highest_expected": float(expected.max())},
        # What a perfect model reaches: sum of weights times variances over sum of weights times y^2, weights 1/y.
        "rwp_expected_percent": 100.0 * math.sqrt(expected.size / total),
        "settings": asdict(settings),
    }


def _phase_truth(
    pattern: PatternModel,
    phase: PhaseModel,
    values: FloatArray,
    settings: SimulationSettings,
    net: Mapping[str, FloatArray],
) -> dict[str, Any]:
    table = pattern.parameters
    own = values[phase.parameter_index]
    cell = full_cell(phase.reference.crystal_system, own[: phase.n_cell])
    return {
        "id": phase.id,
        "formula": phase.reference.formula,
        "cell": [float(value) for value in cell],
        "size_nm": settings.size_nm.get(phase.id, settings.default_size_nm),
        "strain": settings.strain.get(phase.id, 0.0),
        "texture": {"axis": list(phase.texture_axis), "r": settings.texture_r.get(phase.id, 1.0)},
        "displacement_parameters": {
            group: float(values[table.index(f"{phase.id}.B.{group}")]) for group in phase.reference.groups
        },
        "counts": float(net[phase.id].sum()),
    }


def _root_of(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where an increasing function crosses zero, by bisection."""
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if function(middle) < 0.0 else (low, middle)
    return 0.5 * (low + high)
