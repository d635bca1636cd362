"""From a method's instrument and a scan's own metadata to the instrument model of a fit, with every assumption named.

The file is believed first, then the method; what neither says is assumed with a finding or refined against a weak
prior. What `xrdz calibrate` found enters as priors with their joint covariance, never as fixed values:

    u, v, w, zero, defocus  as they are
    axial = (S + H) / L  as kappa = axial^2, su(kappa) = 2 axial su(axial)
    x, y                 held; each phase's own Lorentzian widths stand on top of them
    ln(response)         as Legendre coefficients from the first degree on; degree 0 is part of the scales
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.errors import InputError
from xrdz.fields import Estimate
from xrdz.findings import Code, Finding, info, warning
from xrdz.instrument import Instrument, IntensityResponse, Resolution
from xrdz.parameters import Parameter
from xrdz.pattern import ASSUMED_RADIUS_MM, InstrumentModel
from xrdz.profile import DEGREE, defocus_of
from xrdz.reference import Reference
from xrdz.wavelength import SATELLITE_SHARE, Wavelength, wavelength_from_name

ZERO_SU_DEG = 0.02
DISPLACEMENT_SU_MM = 0.1
ROUGHNESS_SU = 0.03
"""Low angles lose up to some percent of their intensity on a rough or loosely packed surface (Suortti 1972).

The bound lies below zero: a bound at zero would make the estimate positive on average and pull the masses along."""

AXIAL_KAPPA = (0.0015, 0.0015)
"""Prior of kappa without any hint: Soller slits between none to speak of and 5 degrees."""

DEFOCUS_SU = 1e-4
"""Least su of the defocus (deg^2): a linear detector of 3 degrees behind a slit of 1 degree, which no file named."""

PACKING, PACKING_SU = 0.5, 0.3
"""Share of the solid in a loaded or pressed powder, and its relative standard uncertainty, an estimate: 0.3 to 0.7."""

UNSEEN_SU = 0.01
"""Least su of the transparency, deg: matter without lines, such as binder or carbon, thins the powder. An electrode of
as much carbon as alloy, half of it pores, has 0.006 on a goniometer of 200 mm, one of twenty times as much 0.08."""

OPAQUE = (0.002, UNSEEN_SU)
"""Prior of the transparency (deg) where no phase is known: that of tin."""

SMALLEST_EIGENVALUE = 1e-10
"""Of a calibration's correlation matrix; a smaller one is rounding or no covariance at all."""

RESOLUTION_NAMES = {"u": "u", "v": "v", "w": "w", "axial": "kappa", "zero_deg": "zero", "defocus": "defocus"}
"""Refined parameter of each calibrated one that is not held."""


@dataclass(frozen=True)
class Conditions:
    """The instrument model of one fit and what had to be assumed."""

    instrument: InstrumentModel
    findings: tuple[Finding, ...]


def conditions_of(
    diffractogram: Diffractogram, instrument: Instrument, references: Sequence[Reference] = ()
) -> Conditions:
    """Return the instrument model for a scan of a powder of some phases; see `transparency_prior` for those."""
    findings: list[Finding] = []
    wavelength = _wavelength(diffractogram, instrument, findings)
    metadata = diffractogram.metadata
    radius = instrument.goniometer_radius_mm or metadata.get("goniometer_radius_mm")
    if radius is None:
        radius = ASSUMED_RADIUS_MM
        findings.append(
            info(
                Code.RADIUS_ASSUMED,
                f"no goniometer radius is known; {ASSUMED_RADIUS_MM:g} mm was assumed, the displacement scales with it",
                suggestion="give goniometer_radius_mm in the method's instrument",
            )
        )
    monochromator = instrument.monochromator_two_theta_deg
    if monochromator is None:
        monochromator = metadata.get("monochromator_two_theta_deg")
    soller = instrument.soller_deg or metadata.get("soller_deg")
    divergence = instrument.divergence_slit_deg or metadata.get("divergence_slit_deg") or 0.0
    detector = instrument.detector_opening_deg or metadata.get("detector_opening_deg") or 0.0
    resolution = instrument.resolution or Resolution()
    lorentz = (
        resolution.x.value if resolution.x is not None else 0.0,
        resolution.y.value if resolution.y is not None else 0.0,
    )
    priors = global_priors(
        resolution,
        soller,
        None if monochromator is None else float(monochromator),
        defocus=defocus_of(float(divergence), float(detector)),
        transparency=transparency_prior(references, wavelength.principal, float(radius)),
    )
    response = response_priors(instrument.intensity_response)
    model = InstrumentModel(
        wavelength=wavelength,
        radius_mm=float(radius),
        priors=priors,
        lorentz=lorentz,
        response=response,
        response_domain=instrument.intensity_response.two_theta if instrument.intensity_response else (0.0, 180.0),
        divergence_deg=float(divergence),
        prior_covariance=joint_covariance((*priors, *response), resolution),
    )
    return Conditions(model, tuple(findings))


def _wavelength(diffractogram: Diffractogram, instrument: Instrument, findings: list[Finding]) -> Wavelength:
    stated, given = diffractogram.wavelength, instrument.wavelength
    if stated is not None:
        if given is not None and abs(given.principal / stated.principal - 1.0) > 1e-3:
            findings.append(
                warning(
                    Code.READER_NOTE,
                    f"the file states {stated.principal:.5f} angstrom, the method {given.principal:.5f}; "
                    "the file was believed",
                    suggestion="correct the method, or the file's header",
                )
            )
        return replace(stated, origin="file")
    if given is not None:
        return replace(given, origin="method")
    findings.append(
        warning(
            Code.WAVELENGTH_ASSUMED,
            "neither the file nor the method names a wavelength; the Cu K-alpha doublet was assumed",
            suggestion='give wavelength = "CuKa" (or what it was) in the method\'s instrument',
        )
    )
    return wavelength_from_name("CuKa", origin="default")


def global_priors(
    resolution: Resolution,
    soller_deg: float | None,
    monochromator_two_theta_deg: float | None,
    *,
    defocus: float = 0.0,
    transparency: tuple[float, float] = OPAQUE,
) -> tuple[Parameter, ...]:
    """Return the priors of the global parameters, in the order of `phase_model.GLOBAL_NAMES`.

    Overspill is sin(theta_c), below which the footprint R delta / sin(theta) of the beam is longer than the specimen:
    0.12 for 1 deg slits on a goniometer of 200 mm and a specimen of 25 mm; small holders reach 0.3.

    Soller slits of full opening S pass axial angles with a triangular transmission of half width S/2, so that
    kappa = S^2 / 2 (S in rad) where the slits alone limit the divergence (see `profile`); sample and slit lengths
    reduce it, which the standard uncertainty of 40 % allows for.

    The polarization A is 1 without a monochromator. With one, a mosaic crystal gives cos^2(2 theta_m) and a perfect one
    |cos(2 theta_m)| (Azaroff 1955, Acta Cryst. 8, 701); real graphite lies between, so the prior is centred on the
    former with half the difference as its standard uncertainty.

    The defocus is that of the stated openings, good to a half: a detector may use less of its length, and a specimen
    less of the beam. `transparency` is its mean and su, deg.
    """

    def prior(name: str, estimate: Estimate | None, mean: float, su: float, low: float, high: float) -> Parameter:
        if estimate is not None:
            width = estimate.su if estimate.su else 0.1 * abs(estimate.value) + 1e-5
            return Parameter(name, estimate.value, estimate.value, width, low, high)
        return Parameter(name, mean, mean, su, low, high)

    axial = None
    if resolution.axial is not None:
        value = resolution.axial.value
        su = resolution.axial.su if resolution.axial.su else 0.05 * value
        axial = Estimate(value**2, max(2.0 * value * su, 1e-5))
    polarization, polarization_su = 1.0, 1e-3
    if monochromator_two_theta_deg is not None:
        cosine = abs(math.cos(math.radians(monochromator_two_theta_deg)))
        polarization, polarization_su = cosine**2, max(0.5 * (cosine - cosine**2), 1e-3)
    kappa, kappa_su = AXIAL_KAPPA
    if soller_deg:
        kappa = 0.5 * math.radians(soller_deg) ** 2
        kappa_su = 0.4 * kappa
    return (
        prior("zero", resolution.zero_deg, 0.0, ZERO_SU_DEG, -1.5, 1.5),
        Parameter("displacement", 0.0, 0.0, DISPLACEMENT_SU_MM, -5.0, 5.0),
        prior("u", resolution.u, 0.002, 0.002, -1.0, 1.0),
        prior("v", resolution.v, -0.002, 0.006, -1.0, 1.0),
        prior("w", resolution.w, 0.005, 0.006, -1.0, 1.0),
        prior("kappa", axial, kappa, kappa_su, 0.0, 0.05),
        Parameter("roughness", 0.0, 0.0, ROUGHNESS_SU, -0.15, 0.5),
        Parameter("polarization", polarization, polarization, polarization_su, 0.0, 1.5),
        Parameter("satellite", SATELLITE_SHARE[0], SATELLITE_SHARE[0], SATELLITE_SHARE[1], 1e-4, 0.04),
        Parameter("overspill", 0.2, 0.12, 0.1, 0.02, 0.7),
        prior("defocus", resolution.defocus, defocus, math.hypot(0.5 * defocus, DEFOCUS_SU), 0.0, 0.05),
        Parameter("transparency", transparency[0], *transparency, 0.0, 2.0),
    )


def transparency_prior(references: Sequence[Reference], wavelength: float, radius_mm: float) -> tuple[float, float]:
    """Return mean and su of 1 / (2 mu R) in deg, mu being the attenuation of the packed powder.

    The amounts are not known yet: mu is `PACKING` times the mean of the phases' linear attenuation coefficients, and
    their spread adds to its uncertainty, and so does what no line tells of.
    """
    if not references:
        return OPAQUE
    attenuation = np.array([item.linear_attenuation(wavelength) for item in references])
    mean = DEGREE / (2.0 * PACKING * float(attenuation.mean()) * 0.1 * radius_mm)
    return mean, max(mean * math.hypot(PACKING_SU, float(np.std(np.log(attenuation)))), UNSEEN_SU)


def response_priors(response: IntensityResponse | None) -> tuple[Parameter, ...]:
    """Return the priors of a calibrated intensity response as Legendre coefficients from the first degree on."""
    if response is None:
        return ()
    values = np.array([coefficient.value for coefficient in response.ln_coefficients])
    su = np.array([coefficient.su or 0.0 for coefficient in response.ln_coefficients])
    if response.polynomial == "chebyshev":
        to_legendre = np.stack([_chebyshev_in_legendre(k, values.size) for k in range(values.size)], axis=1)
        values, su = to_legendre @ values, np.sqrt(to_legendre**2 @ su**2)
    # A coefficient without an uncertainty is taken as good to a tenth of itself.
    widths = np.where(su > 0.0, su, 0.1 * np.abs(values) + 1e-4)
    return tuple(
        Parameter(f"response.{k}", float(values[k]), float(values[k]), float(widths[k]), -3.0, 3.0)
        for k in range(1, values.size)
    )


def _chebyshev_in_legendre(degree: int, size: int) -> FloatArray:
    """Return T_degree as coefficients of the first `size` Legendre polynomials."""
    coefficients = np.polynomial.legendre.poly2leg(np.polynomial.chebyshev.cheb2poly(np.eye(degree + 1)[degree]))
    padded: FloatArray = np.concatenate((coefficients, np.zeros(size - coefficients.size)))
    return padded


def joint_covariance(priors: tuple[Parameter, ...], resolution: Resolution) -> FloatArray | None:
    """Return the prior covariance of all global parameters, None where no calibration gives one.

    The block of the calibrated parameters is theirs; x and y are held, so the rest is taken with them left out.

    Raises
    ------
    InputError
        If the calibrated covariance is singular or not positive.
    """
    places = {prior.name: place for place, prior in enumerate(priors)}
    known = [
        (row, places[RESOLUTION_NAMES[name]])
        for row, name in enumerate(resolution.parameters)
        if name in RESOLUTION_NAMES
    ]
    if len(known) < 2:
        return None
    rows, columns = (np.array(index) for index in zip(*known, strict=True))
    slope = np.array(
        [
            2.0 * resolution.axial.value if name == "axial" and resolution.axial is not None else 1.0
            for name in (resolution.parameters[row] for row in rows)
        ]
    )
    block = np.array(resolution.covariance)[np.ix_(rows, rows)] * slope * slope[:, None]
    scale = np.sqrt(np.maximum(np.diag(block), 0.0))
    if not np.all(scale > 0.0) or np.min(np.linalg.eigvalsh(block / scale / scale[:, None])) < SMALLEST_EIGENVALUE:
        raise InputError(
            "instrument resolution.covariance: an eigenvalue of its correlation matrix is "
            "not positive; write the file again with `xrdz calibrate`, or leave parameters and covariance out"
        )
    covariance = np.diag([prior.prior_su**2 for prior in priors])
    covariance[np.ix_(columns, columns)] = block
    return covariance
