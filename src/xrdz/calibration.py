"""What an instrument does to a line, from the scan of a standard, as priors for every later fit.

A standard's pattern is fitted as any other, with what its certificate says as priors: a tight cell, so that the angles
are an absolute scale and zero and displacement can be told from it, and its own small broadening. Then

    Gaussian     U, V, W            are the instrument's; size and strain have no Gaussian part, because by
                                    1 / cos^2 = 1 + tan^2 it could not be told from U and W
    Lorentzian   Y = L_size - L_standard,  X = L_strain - X_standard      never below zero
    axial        (S + H) / L = sqrt(kappa)
    zero         with the displacement of this specimen marginalised: the two are nearly degenerate, and the covariance
                 says how nearly
    response     ln R(2theta) = sum_k c_k P_k(t), Legendre polynomials over the range of the scan; the number of degrees
                 minimises objective + `evidence.ENTER_GAIN` x misfit x degrees, and may be none

Covariance: the posterior of the fit, C, plus what its cluster-robust estimate shows beyond counting (`fit`), plus the
standard's own broadening. The misfit part matters: standards are counted long enough for every peak shape to be wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from xrdz.conditions import Conditions, conditions_of
from xrdz.crystal import free_cell_names, free_cell_values
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.errors import FitError, InputError
from xrdz.evidence import ENTER_GAIN
from xrdz.fields import Estimate, nearest
from xrdz.findings import Code, Finding, info, warning
from xrdz.fit import FitResult, Status, bounds_that_matter, fit
from xrdz.instrument import Instrument, IntensityResponse, Resolution
from xrdz.method import is_cif, phase_id
from xrdz.parameters import Parameter
from xrdz.profile import DEGREE
from xrdz.reference import Reference, reference, reference_from_cif, reference_ids
from xrdz.residuals import Agreement, ResidualPeak, agreement_of, unexplained_peaks

CERTIFIED_AT_C = 22.5
"""Temperature of NIST's certified cells, degrees Celsius."""

UNKNOWN_TEMPERATURE_SU = 3.0
"""Standard uncertainty of a laboratory's temperature about the certificate's when the scan does not give it, K."""

GENERIC_CELL_SU = 3e-4
"""Relative standard uncertainty of the cell of a standard without a certificate."""

RESPONSE_SU = 0.1
"""Prior standard uncertainty of each response coefficient."""

STANDARD_ROUGHNESS_SU = 0.01
"""Of a standard, whose grains are small and round, against 0.03 of any specimen."""

MOST_DEGREES = 4
STRONG_CORRELATION = 0.9
IMPURITY_HEIGHT = 0.005
"""Height of an unexplained peak over the strongest, from which the standard is called impure."""

FOOT_SHARE, FOOT_REACH_DEG = 0.03, 0.6
"""An excess lower than this share of a line this near is the line's foot: tube tails (Bergmann, Kleeberg, Haase &
Breidenstein 2000, Mater. Sci. Forum 347, 303) reach that far and the peak shape does not hold them."""


@dataclass(frozen=True)
class Standard:
    """A line-shape or line-position standard.

    Parameters
    ----------
    name : as the instrument file names it
    certificate : where the cell comes from; empty without a certificate
    cell : free cell parameter -> (value, standard uncertainty) in angstrom at `CERTIFIED_AT_C`
    expansion : relative change of the cell per kelvin
    size_nm : crystallite size and its standard uncertainty
    strain : standard uncertainty of the apparent strain, whose mean is zero
    texture_su : standard uncertainty of ln r
    displacement : B per element with its standard uncertainty, angstrom^2, where better known than in the library
    response : whether its intensities are good enough for an intensity response: random orientation, low roughness
    """

    name: str
    certificate: str
    cell: Mapping[str, tuple[float, float]]
    expansion: float
    size_nm: tuple[float, float]
    strain: float
    texture_su: float
    response: bool
    displacement: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def _nist(a: float, expanded: float) -> dict[str, tuple[float, float]]:
    """Return a cubic cell with the standard uncertainty behind a certificate's expanded one (k = 2)."""
    return {"a": (a, 0.5 * expanded)}


_LAB6 = Standard(
    name="NIST SRM 660c LaB6",
    certificate="NIST SRM 660c, Black et al. 2020, Powder Diffr. 35, 17",
    cell=_nist(4.156826, 0.00008),
    expansion=6.7e-6,
    size_nm=(700.0, 200.0),
    strain=2e-5,
    texture_su=0.02,
    response=True,
    displacement={"La": (0.355, 0.06), "B": (0.28, 0.1)},
)
_SILICON = Standard(
    name="NIST SRM 640f Si",
    certificate="NIST SRM 640f certificate",
    cell=_nist(5.431144, 0.00008),
    expansion=2.57e-6,
    size_nm=(1500.0, 700.0),
    strain=2e-5,
    texture_su=0.05,
    response=False,
)
_CORUNDUM = Standard(
    name="corundum",
    certificate="",
    cell={"a": (4.759091, GENERIC_CELL_SU * 4.759091), "c": (12.991779, GENERIC_CELL_SU * 12.991779)},
    expansion=5.2e-6,
    size_nm=(400.0, 250.0),
    strain=1e-4,
    texture_su=0.05,
    response=True,
    displacement={"Al": (0.25, 0.06), "O": (0.29, 0.06)},
)
_YTTRIA = Standard(
    name="Y2O3",
    certificate="",
    cell={"a": (10.604, GENERIC_CELL_SU * 10.604)},
    expansion=6.5e-6,
    size_nm=(700.0, 300.0),
    strain=5e-5,
    texture_su=0.02,
    response=True,
    displacement={"Y": (0.40, 0.1), "O": (0.45, 0.15)},
)
STANDARDS: Mapping[str, Standard] = {
    "lab6": _LAB6,
    "srm660c": _LAB6,
    "srm660b": replace(
        _LAB6, name="NIST SRM 660b LaB6", certificate="NIST SRM 660b certificate", cell=_nist(4.15691, 0.00008)
    ),
    "srm660a": replace(
        _LAB6, name="NIST SRM 660a LaB6", certificate="NIST SRM 660a certificate", cell=_nist(4.1569162, 0.0000097)
    ),
    "si": replace(
        # The batches lie within 0.00005 angstrom of each other; without its number a silicon may be any of them.
        _SILICON,
        name="Si",
        certificate="NIST SRM 640c to 640g certificates",
        cell={"a": (5.43117, 0.00005)},
    ),
    "srm640c": replace(
        _SILICON, name="NIST SRM 640c Si", certificate="NIST SRM 640c", cell=_nist(5.4311946, 0.0000092)
    ),
    "srm640d": replace(_SILICON, name="NIST SRM 640d Si", certificate="NIST SRM 640d", cell=_nist(5.43123, 0.00008)),
    "srm640e": replace(_SILICON, name="NIST SRM 640e Si", certificate="NIST SRM 640e", cell=_nist(5.431179, 0.00008)),
    "srm640f": _SILICON,
    "srm640g": replace(_SILICON, name="NIST SRM 640g Si", certificate="NIST SRM 640g", cell=_nist(5.431109, 0.00008)),
    "corundum": _CORUNDUM,
    "y2o3": _YTTRIA,
}
"""Standards by id; the reference structure is that of `STANDARD_PHASE`.

Certified cells at 22.5 C with the certificates' expanded uncertainties (k = 2). Corundum's is that of SRM 676a, which
is certified for its purity only and names other powders of the kind as well, hence the wider uncertainty; Y2O3 after
Paton & Maslen 1965. Expansion at room temperature: LaB6 Sirota et al. 1998 (J. Appl. Phys. 83, 883), Si Okada &
Tokumaru 1984 (J. Appl. Phys. 56, 314), the oxides Taylor 1984 (Trans. J. Br. Ceram. Soc. 83, 92). B: LaB6 as NIST
refined it with SRM 660c (mds2-2315), corundum Lewis, Schwarzenbach & Flack 1982 (Acta Cryst. A 38, 733).
"""


def standard_phase(identifier: str) -> str:
    """Return the reference id of a standard: `lab6` for srm660a to c, `si` for srm640c to g, else itself."""
    if identifier.startswith("srm660"):
        return "lab6"
    return "si" if identifier.startswith("srm640") else identifier


@dataclass(frozen=True)
class CellCheck:
    """A standard's cell parameter: what the certificate says, and what the scan says without it, in angstrom."""

    expected: Estimate
    measured: Estimate | None


@dataclass(frozen=True)
class Calibration:
    """What a standard's scan says of an instrument.

    Parameters
    ----------
    instrument : as it is written, the start's own facts kept
    cell : of the standard by parameter name
    broadening_nm : crystallite size assumed for the standard
    displacement_mm : of this specimen, which later ones do not share
    """

    instrument: Instrument
    standard: Standard
    result: FitResult
    agreement: Agreement
    cell: Mapping[str, CellCheck]
    displacement_mm: Estimate
    findings: tuple[Finding, ...] = field(default=())


def standard_of(identifier: str, item: Reference) -> Standard:
    """Return a standard by id; any other phase is one without a certificate, of unknown broadening."""
    known = STANDARDS.get(identifier)
    if known is not None:
        return known
    names = free_cell_names(item.crystal_system)
    values = free_cell_values(item.crystal_system, item.cell)
    cell = {
        name: (value, GENERIC_CELL_SU * value)
        for name, value in zip(names, values, strict=True)
        if name in ("a", "b", "c")
    }
    return Standard(item.id, "", cell, 1e-5, (500.0, 400.0), 2e-4, 0.15, False)


def calibrate(
    diffractogram: Diffractogram,
    identifier: str,
    *,
    start: Instrument | None = None,
    two_theta: tuple[float, float] | None = None,
    response: bool = True,
) -> Calibration:
    """Fit a standard and return the instrument with its resolution, zero and intensity response.

    Parameters
    ----------
    identifier : of `STANDARDS`, of the reference library, or a CIF file
    start : what is known of the instrument: radius, wavelength, monochromator, Soller slits; its resolution is replaced
    two_theta : range to fit, degrees
    response : whether an intensity response is sought where the standard allows it

    Raises
    ------
    FitError
        If the fit does not converge.
    InputError
        If the standard is not known, or has no reflection in the range.
    """
    item = _reference_of(identifier)
    standard = standard_of(identifier.lower(), item)
    known = replace(start or Instrument(), resolution=None, intensity_response=None)
    conditions = conditions_of(diffractogram, known, (item,))
    cropped = diffractogram.cropped(two_theta)
    parameters = standard_parameters(standard, item, diffractogram.metadata.get("temperature_k"))
    result = _fitted(cropped, conditions, item, parameters, 0)
    if response and standard.response:
        result = _with_response(cropped, conditions, item, parameters, result)
    if result.status is Status.NOT_CONVERGED:
        raise FitError(f"{standard.name}: the fit did not converge; check wavelength, radius and range")
    covariance = honest_covariance(result)
    resolution = resolution_of(result, item, standard, covariance)
    instrument = replace(
        known,
        goniometer_radius_mm=known.goniometer_radius_mm or diffractogram.metadata.get("goniometer_radius_mm"),
        wavelength=known.wavelength or diffractogram.wavelength,
        monochromator_two_theta_deg=known.monochromator_two_theta_deg
        or diffractogram.metadata.get("monochromator_two_theta_deg"),
        divergence_slit_deg=known.divergence_slit_deg or diffractogram.metadata.get("divergence_slit_deg"),
        detector_opening_deg=known.detector_opening_deg or diffractogram.metadata.get("detector_opening_deg"),
        resolution=resolution,
        intensity_response=response_of(result, covariance),
        calibration=_record(diffractogram, standard),
    )
    cell = cell_checks(result, item, parameters)
    place = result.names.index("displacement")
    displacement = Estimate(result.value("displacement"), float(np.sqrt(covariance[place, place])))
    agreement = agreement_of(result)
    findings = (
        *diffractogram.findings,
        *conditions.findings,
        *_findings(result, standard, resolution, covariance, cell),
    )
    return Calibration(instrument, standard, result, agreement, cell, displacement, findings)


def _record(diffractogram: Diffractogram, standard: Standard) -> dict[str, str]:
    """Return what the instrument file says of its origin."""
    source = diffractogram.source
    record = {
        "standard": standard.name,
        "cell": standard.certificate or "reference cell, not certified",
        "scan": Path(source.path).name,
        "scan_sha256": source.sha256,
    }
    return {key: text for key, text in record.items() if text}


def _reference_of(identifier: str) -> Reference:
    if is_cif(identifier):
        return replace(reference_from_cif(Path(identifier)), id=phase_id(identifier))
    phase = standard_phase(identifier.lower())
    if phase not in reference_ids():
        close = nearest(identifier.lower(), (*STANDARDS, *reference_ids()))
        raise InputError(
            f"standard {identifier!r} is not known; did you mean {close!r}? Standards: {', '.join(STANDARDS)}; any "
            "reference id of `xrdz reference list` or a CIF file is one without a certificate"
        )
    return reference(phase)


def standard_parameters(standard: Standard, item: Reference, temperature_k: float | None) -> list[Parameter]:
    """Return what is known of a standard as priors: cell at the scan's temperature, own broadening, no texture."""
    temperature = CERTIFIED_AT_C if temperature_k is None else float(temperature_k) - 273.15
    temperature_su = UNKNOWN_TEMPERATURE_SU if temperature_k is None else 0.5
    parameters = []
    for name, (certified, su) in standard.cell.items():
        value = certified * (1.0 + standard.expansion * (temperature - CERTIFIED_AT_C))
        total = math.hypot(su, standard.expansion * value * temperature_su)
        parameters.append(Parameter(f"{item.id}.{name}", value, value, total, value - 0.05, value + 0.05))
    size, strain = _own_widths(standard, item)
    parameters += [
        # The total Lorentzian widths are the instrument's and the standard's together, so their priors stay wide.
        Parameter(f"{item.id}.size_lorentz", size.value + 0.02, size.value + 0.02, 0.05, 0.0, 8.0),
        Parameter(f"{item.id}.strain_lorentz", 0.01, 0.01, 0.05 + (strain.su or 0.0), 0.0, 8.0),
        Parameter(f"{item.id}.size_gauss", 0.0, 0.0, 1e-6, 0.0, 0.0),
        Parameter(f"{item.id}.strain_gauss", 0.0, 0.0, 1e-6, 0.0, 0.0),
        Parameter(f"{item.id}.ln_texture", 0.0, 0.0, standard.texture_su, -2.3, 2.3),
        Parameter("roughness", 0.0, 0.0, STANDARD_ROUGHNESS_SU, -0.15, 0.5),
        *(
            Parameter(f"{item.id}.B.{element}", value, value, su, -1.0, 15.0)
            for element, (value, su) in standard.displacement.items()
        ),
    ]
    return parameters


def _own_widths(standard: Standard, item: Reference) -> tuple[Estimate, Estimate]:
    """Return the standard's own Lorentzian Y and X in degrees (Scherrer 1918 with K = 0.9; Stokes & Wilson 1944).

    At Cu K-alpha; the wavelength changes a width of a hundredth of a degree by less than its uncertainty.
    """
    del item
    size, su = standard.size_nm
    width = 0.9 * 0.15406 / size * DEGREE
    return Estimate(width, width * su / size), Estimate(0.0, 4.0 * standard.strain * DEGREE)


def _fitted(
    diffractogram: Diffractogram, conditions: Conditions, item: Reference, parameters: list[Parameter], degrees: int
) -> FitResult:
    """Return the fit with `degrees` degrees of intensity response.

    It is made twice, the second time with combs and windows frozen where the first ended: a standard's counts tell
    models apart that were frozen at different places, which is no evidence for a response.
    """
    instrument = replace(
        conditions.instrument,
        response=tuple(Parameter(f"response.{k}", 0.0, 0.0, RESPONSE_SU, -3.0, 3.0) for k in range(1, degrees + 1)),
        response_domain=(float(diffractogram.two_theta[0]), float(diffractogram.two_theta[-1])),
    )
    known: dict[str, Any] = {"instrument": instrument, "references": (item,), "parameters": parameters, "extend": False}
    return fit(diffractogram, **known, near=fit(diffractogram, **known))


def _with_response(
    diffractogram: Diffractogram,
    conditions: Conditions,
    item: Reference,
    parameters: list[Parameter],
    plain: FitResult,
) -> FitResult:
    """Return the fit with as many degrees of response as the evidence asks for, the plain one where it asks for none.

    Polarization and overspill are held at the means of their priors meanwhile: the response is what comes on top of
    them, and all three together could not be told apart.
    """
    held = [
        Parameter(prior.name, prior.prior_mean, prior.prior_mean, 1e-6, prior.prior_mean, prior.prior_mean)
        for prior in conditions.instrument.priors
        if prior.name in ("polarization", "overspill")
    ]
    best, lowest = plain, plain.minimum.point.objective
    for degrees in range(1, MOST_DEGREES + 1):
        tried = _fitted(diffractogram, conditions, item, [*parameters, *held], degrees)
        reached = tried.minimum.point.objective + ENTER_GAIN * degrees * max(tried.chi2_reduced, 1.0)
        if tried.minimum.converged and reached < lowest:
            best, lowest = tried, reached
    return best


def honest_covariance(result: FitResult) -> FloatArray:
    """Return the posterior covariance plus what the cluster-robust estimate shows beyond counting, never less.

    C + [C (S - F) C]_+ with S = sum_b s_b s_b^T; the positive part is taken in the eigenvectors of the difference,
    scaled to a unit diagonal of C.
    """
    posterior = result.covariance
    counting = posterior @ result.fisher @ posterior
    scores = result.block_scores @ posterior
    excess = scores.T @ scores - counting
    scale = np.sqrt(np.maximum(np.diag(posterior), 1e-300))
    values, vectors = np.linalg.eigh(excess / scale / scale[:, None])
    positive = (vectors * np.maximum(values, 0.0)) @ vectors.T * scale * scale[:, None]
    total: FloatArray = posterior + positive
    return total


def resolution_of(result: FitResult, item: Reference, standard: Standard, covariance: FloatArray) -> Resolution:
    """Return the instrument's part of the fitted widths, with the joint covariance of all of it."""
    size, strain = _own_widths(standard, item)
    kappa = result.value("kappa")
    if kappa <= 0.0:
        raise FitError(
            "the axial divergence ended at zero, so the low angles say nothing of it; start the range at a lower angle"
        )
    axial = math.sqrt(kappa)
    names: tuple[str, ...] = ("u", "v", "w", "x", "y", "axial", "zero_deg", "defocus")
    fitted: tuple[str, ...] = (
        "u",
        "v",
        "w",
        f"{item.id}.strain_lorentz",
        f"{item.id}.size_lorentz",
        "kappa",
        "zero",
        "defocus",
    )
    slope = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.5 / axial, 1.0, 1.0])
    if result.su("defocus") == 0.0:
        # On its bound it has no covariance: the geometry's prior stands in later fits.
        names, fitted, slope = names[:-1], fitted[:-1], slope[:-1]
    places = [result.names.index(name) for name in fitted]
    joint = covariance[np.ix_(places, places)] * slope * slope[:, None]
    joint[3, 3] += (strain.su or 0.0) ** 2
    joint[4, 4] += (size.su or 0.0) ** 2
    values = np.array([result.value(name) for name in fitted])
    values[3] = max(values[3] - strain.value, 0.0)
    values[4] = max(values[4] - size.value, 0.0)
    values[5] = axial
    estimates = {
        name: Estimate(float(value), math.sqrt(float(variance)))
        for name, value, variance in zip(names, values, np.diag(joint), strict=True)
    }
    # A parameter on its bound is correlated with nothing; what rounding leaves of it is no number to write down.
    scale = np.sqrt(np.diag(joint))
    joint[np.abs(joint) < 1e-12 * scale * scale[:, None]] = 0.0
    rows = tuple(tuple(float(entry) for entry in row) for row in 0.5 * (joint + joint.T))
    return Resolution(**estimates, parameters=names, covariance=rows)


def response_of(result: FitResult, covariance: FloatArray) -> IntensityResponse | None:
    """Return the refined intensity response, None where the evidence asked for none."""
    instrument = result.pattern.instrument
    if not instrument.response:
        return None
    coefficients = [Estimate(0.0, 0.0)]
    for parameter in instrument.response:
        place = result.names.index(parameter.name)
        coefficients.append(Estimate(result.value(parameter.name), math.sqrt(float(covariance[place, place]))))
    return IntensityResponse("legendre", instrument.response_domain, tuple(coefficients))


def cell_checks(result: FitResult, item: Reference, parameters: list[Parameter]) -> dict[str, CellCheck]:
    """Return each cell parameter as expected and as the scan alone gives it.

    The posterior x, C of a Gaussian prior m, s^2 rests on the data alone as (x / C - m / s^2) / (1 / C - 1 / s^2).
    """
    priors = {parameter.name: parameter for parameter in parameters}
    checks = {}
    for name in free_cell_names(item.crystal_system):
        prior = priors.get(f"{item.id}.{name}")
        if prior is None:
            continue
        value, variance = result.value(prior.name), result.su(prior.name) ** 2
        information = 1.0 / variance - prior.prior_su**-2
        measured = None
        # Below a thousandth of the prior's own information the difference is rounding.
        if information > 1e-3 * prior.prior_su**-2:
            centre = (value / variance - prior.prior_mean / prior.prior_su**2) / information
            measured = Estimate(centre, information**-0.5)
        checks[name] = CellCheck(Estimate(prior.prior_mean, prior.prior_su), measured)
    return checks


def impurity_peaks(result: FitResult) -> list[ResidualPeak]:
    """Return the peaks of something else: high enough, not of the tube, and not the foot of a line of the standard."""
    phase = result.pattern.phases[0]
    state = result.pattern.peak_state(phase, result.values)
    height = state.intensity / state.fwhm
    found = []
    for peak in unexplained_peaks(result):
        near = np.abs(state.centre - peak.two_theta) < FOOT_REACH_DEG
        neighbour = float(np.max(height[near], initial=0.0) / np.max(height))
        least = max(IMPURITY_HEIGHT, FOOT_SHARE * neighbour)
        if peak.relative_height >= least and not peak.tube_line:
            found.append(peak)
    return found


def _findings(
    result: FitResult,
    standard: Standard,
    resolution: Resolution,
    covariance: FloatArray,
    cell: Mapping[str, CellCheck],
) -> list[Finding]:
    findings = []
    for peak in impurity_peaks(result):
        named = ", ".join(identifier for identifier, _ in peak.matches)
        what = f", perhaps of {named}" if named else ""
        findings.append(
            warning(
                Code.STANDARD_NOT_PURE,
                f"{standard.name}: a peak at {peak.two_theta:.2f} deg, {100 * peak.relative_height:.1f} % of the "
                f"strongest, is not the standard's{what}",
                where=f"{peak.two_theta:.3f}",
                suggestion="use a pure standard, or exclude the range if it is the holder",
            )
        )
    table = result.pattern.parameters
    held = {name for name, low, high in zip(table.names, table.lower, table.upper, strict=True) if low == high}
    for name in set(bounds_that_matter(result.pattern, result.minimum.active)) - held:
        findings.append(warning(Code.AT_BOUND, f"{name} ended on its bound", where=name))
    zero, displacement = (result.names.index(name) for name in ("zero", "displacement"))
    zero_su, displacement_su = math.sqrt(covariance[zero, zero]), math.sqrt(covariance[displacement, displacement])
    correlation = covariance[zero, displacement] / (zero_su * displacement_su)
    if abs(correlation) > STRONG_CORRELATION:
        findings.append(
            info(
                Code.READER_NOTE,
                f"zero and displacement are correlated by {correlation:+.3f}: zero = {result.value('zero'):.4f} deg "
                f"holds only within its uncertainty of {zero_su:.4f} deg",
                where="zero",
            )
        )
    if not standard.certificate:
        findings.append(
            info(
                Code.READER_NOTE,
                f"the cell of {standard.name} is a reference, not a certificate; zero rests on it",
                suggestion="calibrate with LaB6 or Si of a known batch",
            )
        )
    for name, check in cell.items():
        measured = check.measured
        if measured is None or not measured.su or not check.expected.su:
            continue
        pull = (measured.value - check.expected.value) / math.hypot(measured.su, check.expected.su)
        change = measured.value / check.expected.value - 1.0
        if abs(pull) > 4.0 and abs(change) > 1e-4:
            findings.append(
                warning(
                    Code.CELL_FAR_FROM_REFERENCE,
                    f"{standard.name}: the scan alone gives {name} = {measured.value:.5f} angstrom, expected "
                    f"{check.expected.value:.5f} ({1e6 * change:+.0f} ppm, {pull:+.1f} su)",
                    where=name,
                    suggestion="check wavelength, goniometer radius and the goniometer's gears",
                )
            )
    if resolution.x is not None and resolution.x.value == 0.0:
        findings.append(info(Code.READER_NOTE, "no Lorentzian X tan(theta) of the instrument is seen", where="x"))
    return findings
