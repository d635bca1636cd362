"""The diffractometer: what a laboratory knows about it, read from and written to a TOML file.

`INSTRUMENT_FIELDS` is the whole vocabulary; reading, refusing and the JSON Schema come from it. Whatever a file
leaves out stays None, and is refined or assumed with a finding by the fit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from xrdz.errors import InputError
from xrdz.fields import (
    Estimate,
    Field,
    Kind,
    Place,
    ascending_pair,
    choice,
    document_schema,
    estimate,
    list_of,
    mapping_of,
    number,
    read_table,
    read_toml,
    refuse,
    table,
    text,
)
from xrdz.files import write_whole
from xrdz.wavelength import EMISSION_LINES, Wavelength, wavelength_from_name

RESOLUTION_PARAMETERS = ("u", "v", "w", "x", "y", "axial", "zero_deg", "defocus")


@dataclass(frozen=True)
class Resolution:
    """What the instrument alone does to a line, each value None when unknown.

    Gaussian fwhm^2 = u tan^2(theta) + v tan(theta) + w + defocus cot^2(theta) (the first three: Caglioti, Paoletti &
    Ricci 1958, Nucl. Instrum. 3, 223; the last: `profile`); Lorentzian fwhm = x tan(theta) + y / cos(theta).

    Parameters
    ----------
    u, v, w, defocus : degrees^2 of 2theta
    x, y : degrees of 2theta
    axial : (S + H) / L, half heights of sample and detector slit over the radius (Finger, Cox & Jephcoat 1994)
    zero_deg : zero of the 2theta circle, degrees
    parameters, covariance : joint covariance of the named parameters, as `xrdz calibrate` writes it, or empty
    """

    u: Estimate | None = None
    v: Estimate | None = None
    w: Estimate | None = None
    x: Estimate | None = None
    y: Estimate | None = None
    axial: Estimate | None = None
    zero_deg: Estimate | None = None
    defocus: Estimate | None = None
    parameters: tuple[str, ...] = ()
    covariance: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class IntensityResponse:
    """Slow variation of the instrument's intensity scale: ln(response) = sum_k c_k P_k(t), t in [-1, 1].

    Parameters
    ----------
    polynomial : which P_k
    two_theta : degrees that map to t = -1 and t = +1
    ln_coefficients : c_k with their standard uncertainties
    """

    polynomial: Literal["legendre", "chebyshev"]
    two_theta: tuple[float, float]
    ln_coefficients: tuple[Estimate, ...]


@dataclass(frozen=True)
class Instrument:
    """A diffractometer; whatever is None is refined or assumed with a finding.

    Parameters
    ----------
    goniometer_radius_mm : turns a sample displacement into a shift of the lines
    wavelength : used when the scan's file does not give one
    monochromator_two_theta_deg : diffraction angle of the monochromator crystal, None without one
    soller_deg : opening of the Soller slits, a hint for the axial divergence
    divergence_slit_deg : opening of a fixed divergence slit
    detector_opening_deg : angle a linear detector spans, as far as it is used; None for a point detector
    calibration : how the file came about (standard, scan, date), free text under free keys
    """

    name: str = ""
    goniometer_radius_mm: float | None = None
    wavelength: Wavelength | None = None
    monochromator_two_theta_deg: float | None = None
    soller_deg: float | None = None
    divergence_slit_deg: float | None = None
    detector_opening_deg: float | None = None
    resolution: Resolution | None = None
    intensity_response: IntensityResponse | None = None
    calibration: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what a TOML file would hold, without the keys that are absent."""
        content: dict[str, Any] = {
            "name": self.name or None,
            "goniometer_radius_mm": self.goniometer_radius_mm,
            "wavelength": None if self.wavelength is None else [list(line) for line in self.wavelength.lines],
            "monochromator_two_theta_deg": self.monochromator_two_theta_deg,
            "soller_deg": self.soller_deg,
            "divergence_slit_deg": self.divergence_slit_deg,
            "detector_opening_deg": self.detector_opening_deg,
            "resolution": None if self.resolution is None else _resolution_content(self.resolution),
            "intensity_response": None if self.intensity_response is None else _response(self.intensity_response),
            "calibration": dict(self.calibration) or None,
        }
        return {key: value for key, value in content.items() if value is not None}


def read_instrument(path: str | Path) -> Instrument:
    """Return the instrument a TOML file describes.

    Raises
    ------
    InputError
        If the file cannot be read, holds an unknown key, or a value is not what its key expects.
    """
    path = Path(path)
    return Instrument(**read_table(read_toml(path), INSTRUMENT_FIELDS, Place(path.name)))


def write_instrument(instrument: Instrument, path: str | Path) -> None:
    """Write an instrument as TOML, so that `read_instrument` returns it equal; the file is replaced as a whole."""
    content = instrument.to_dict()
    if instrument.wavelength is not None and instrument.wavelength.name in TUBES:
        content["wavelength"] = instrument.wavelength.name
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    lines = [f"{key} = {_toml(value)}" for key, value in content.items() if key not in tables]
    for name, entries in tables.items():
        lines += ["", f"[{name}]", *(f"{_toml_key(key)} = {_toml(value)}" for key, value in entries.items())]
    write_whole(path, "\n".join(lines) + "\n")


def instrument_schema() -> dict[str, Any]:
    """Return the JSON Schema of an instrument file, for editors."""
    return document_schema(INSTRUMENT_FIELDS, "xrdz instrument")


# The vocabulary of an instrument file.


def _resolution_content(resolution: Resolution) -> dict[str, Any]:
    estimates = {name: getattr(resolution, name) for name in RESOLUTION_PARAMETERS}
    content: dict[str, Any] = {name: value.to_json() for name, value in estimates.items() if value is not None}
    if resolution.parameters:
        content |= {
            "parameters": list(resolution.parameters),
            "covariance": [list(row) for row in resolution.covariance],
        }
    return content


def _response(response: IntensityResponse) -> dict[str, Any]:
    return {
        "polynomial": response.polynomial,
        "two_theta": list(response.two_theta),
        "ln_coefficients": [coefficient.to_json() for coefficient in response.ln_coefficients],
    }


def _toml(value: Any) -> str:
    """Return a TOML value: text, a finite number, or a list of them."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(float(value))


def _toml_key(key: str) -> str:
    bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if bare else _toml(key)


def _wavelength(value: Any, place: Place) -> Wavelength:
    if isinstance(value, list):
        lines = LINES.convert(value, place)
    elif isinstance(value, str):
        lines = ()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        lines = ((float(value), 1.0),)
    else:
        raise refuse(place, value, WAVELENGTH.expected)
    try:
        return Wavelength(lines, origin="method") if lines else wavelength_from_name(value)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def _line(value: Any, place: Place) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise refuse(place, value, LINE.expected)
    return POSITIVE.convert(value[0], place.at(0)), POSITIVE.convert(value[1], place.at(1))


def _build_resolution(values: dict[str, Any], place: Place) -> Resolution:
    parameters, covariance = values.get("parameters", ()), values.get("covariance", ())
    size = len(parameters)
    if any(values.get(name) is None for name in parameters) or len(set(parameters)) != size:
        expected = f"names among {', '.join(RESOLUTION_PARAMETERS)} that have a value here, each once"
        raise refuse(Place(place.file, place.table, "parameters"), list(parameters), expected)
    square = len(covariance) == size and all(len(row) == size for row in covariance)
    if not square or any(
        abs(covariance[i][j] - covariance[j][i]) > 1e-9 * abs(covariance[i][j]) or covariance[i][i] < 0.0
        for i in range(size)
        for j in range(size)
    ):
        raise InputError(f"{place} covariance: expected a symmetric {size} x {size} matrix in the order of parameters")
    return Resolution(**values)


POSITIVE = number("a positive number", above=0.0)
LINE = Kind(
    "[wavelength in angstrom, relative weight]",
    _line,
    {"type": "array", "items": dict(POSITIVE.schema), "minItems": 2, "maxItems": 2},
)
LINES = list_of(LINE, "lines such as [[1.5405929, 1.0], [1.5444274, 0.5]]", at_least=1)
TUBES = [*EMISSION_LINES, *(f"{tube}1" for tube in EMISSION_LINES)]
WAVELENGTH = Kind(
    'a tube such as "CuKa", or lines such as [[1.5405929, 1.0], [1.5444274, 0.5]] in angstrom',
    _wavelength,
    {"anyOf": [{"enum": TUBES}, dict(POSITIVE.schema), dict(LINES.schema)]},
)
ANGLE = number("an angle from 0 to 180 degrees", at_least=0.0, at_most=180.0)
SIGNED = estimate(number("a finite number"))
TWO_THETA = ascending_pair(ANGLE, "[low, high] in degrees 2theta, such as [20.0, 120.0]")
FREE_TEXT = mapping_of(text(), "a table of texts")

RESOLUTION_FIELDS = (
    Field("u", SIGNED, "Gaussian width, tan^2(theta) term, degrees^2; value or [value, su]."),
    Field("v", SIGNED, "Gaussian width, tan(theta) term, degrees^2; value or [value, su]."),
    Field("w", SIGNED, "Gaussian width, constant term, degrees^2; value or [value, su]."),
    Field("x", SIGNED, "Lorentzian width, tan(theta) term, degrees; value or [value, su]."),
    Field("y", SIGNED, "Lorentzian width, 1/cos(theta) term, degrees; value or [value, su]."),
    Field("axial", SIGNED, "Axial divergence (S+H)/L, dimensionless; value or [value, su]."),
    Field("zero_deg", SIGNED, "Zero of the 2theta circle, degrees; value or [value, su]."),
    Field("defocus", SIGNED, "Gaussian width, cot^2(theta) term, degrees^2; value or [value, su]."),
    Field(
        "parameters",
        list_of(choice(*RESOLUTION_PARAMETERS), "a list of resolution parameters"),
        "Order of the rows of covariance.",
    ),
    Field(
        "covariance",
        list_of(list_of(number("a finite number"), "a row of numbers"), "a matrix of numbers"),
        "Joint covariance of the parameters, as `xrdz calibrate` writes it.",
    ),
)
RESPONSE_FIELDS = (
    Field("polynomial", choice("legendre", "chebyshev"), "The family of polynomials.", required=True),
    Field("two_theta", TWO_THETA, "Degrees 2theta mapped to [-1, 1].", required=True),
    Field(
        "ln_coefficients",
        list_of(SIGNED, "a list of coefficients, each a value or [value, su]", at_least=1),
        "Coefficients of ln(response) from order 0; value or [value, su].",
        required=True,
    ),
)
INSTRUMENT_FIELDS = (
    Field("name", text(), "The diffractometer, as the report names it."),
    Field("goniometer_radius_mm", number("a radius in mm", above=10.0, at_most=2000.0), "Goniometer radius, mm."),
    Field("wavelength", WAVELENGTH, 'Tube such as "CuKa" or "CuKa1", a wavelength, or lines; angstrom.'),
    Field(
        "monochromator_two_theta_deg",
        number("an angle between 0 and 180 degrees", above=0.0, below=180.0),
        "Diffraction angle of the monochromator, degrees 2theta (26.6: graphite for Cu K-alpha); absent: none.",
    ),
    Field(
        "soller_deg",
        number("an opening in degrees between 0 and 20", above=0.0, at_most=20.0),
        "Opening of the Soller slits, degrees; a hint for the axial divergence.",
    ),
    Field(
        "divergence_slit_deg",
        number("an opening in degrees between 0 and 10", above=0.0, at_most=10.0),
        "Opening of a fixed divergence slit, degrees; with the detector's, a hint for the widths at low angles.",
    ),
    Field(
        "detector_opening_deg",
        number("an angle in degrees between 0 and 30", above=0.0, at_most=30.0),
        "Angle a linear detector spans, degrees 2theta; absent: a point detector.",
    ),
    Field(
        "resolution",
        table(RESOLUTION_FIELDS, _build_resolution, "a table of resolution parameters"),
        "Line widths of the instrument alone, written by `xrdz calibrate`.",
    ),
    Field(
        "intensity_response",
        table(RESPONSE_FIELDS, lambda values, _place: IntensityResponse(**values), "a table"),
        "Slow variation of the intensity scale with 2theta.",
    ),
    Field("calibration", FREE_TEXT, "How this file came about: standard, scan, date."),
)
INSTRUMENT_TABLE = table(
    INSTRUMENT_FIELDS,
    lambda values, _place: Instrument(**values),
    "the path of an instrument file in quotes, or an [instrument] table",
)
