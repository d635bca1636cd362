"""PANalytical XRDML 1.x and 2.x.

`<intensities>` are already corrected for the beam attenuator, `<counts>` are not: true = counts x attenuation factors.
Namespaces differ between versions, so elements are found by their local names.
Source: XRDMeasurement schemas 1.0 to 2.3 (Malvern Panalytical).
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import Any

import numpy as np

from xrdz.diffractogram import FloatArray
from xrdz.errors import InputError
from xrdz.findings import Code, Finding, warning
from xrdz.readers.content import Content, head_text, parsed_xml
from xrdz.readers.recorded import RecordedScan, Unit
from xrdz.readers.vocabulary import (
    anode_symbol,
    exact_metadata,
    key_values,
    line_is_own,
    slit_degrees,
    stated_lines,
    wavelength_of,
    with_monochromator_angle,
)
from xrdz.wavelength import Wavelength

POWDER_AXES = ("gonio", "2theta-omega", "omega-2theta", "2theta-theta", "2theta")


def sniff_xrdml(head: bytes, name: str) -> bool:
    """Return whether the file is XRDML: its root element says so, or its suffix does and it is XML."""
    text = head_text(head)
    return "<xrdMeasurements" in text or (name.endswith(".xrdml") and text.lstrip().startswith("<"))


def read_xrdml(content: Content) -> list[RecordedScan]:
    """Read every scan of an XRDML file.

    Raises
    ------
    InputError
        If the XML is cut or damaged, holds no scan, or a scan's positions and intensities do not belong together.
    """
    root = parsed_xml(content.data, content.place)
    if _local(root) != "xrdMeasurements":
        raise InputError(f"{content.place}: root element {_local(root)!r}; expected xrdMeasurements: is this XRDML?")
    scans: list[RecordedScan] = []
    for measurement in _children(root, "xrdMeasurement"):
        scan_elements = list(_children(measurement, "scan"))
        shared, wavelength, findings = _optics(root, measurement, content.place)
        kind = measurement.get("measurementType", "Scan")
        for element in scan_elements:
            place = f"{content.place} scan {len(scans) + 1}"
            scans.append(_scan(element, kind, len(scan_elements), shared, wavelength, findings, place))
    if not scans:
        raise InputError(f"{content.place}: no <scan> in the file; export the measurement again")
    return scans


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _children(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (child for child in element if _local(child) == name)


def _child(element: ElementTree.Element | None, *names: str) -> ElementTree.Element | None:
    for name in names:
        if element is None:
            return None
        element = next(_children(element, name), None)
    return element


def _text(element: ElementTree.Element | None, *names: str) -> str:
    found = _child(element, *names)
    return "" if found is None or found.text is None else found.text.strip()


def _number(element: ElementTree.Element | None, *names: str) -> float | None:
    try:
        value = float(_text(element, *names))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _optics(
    root: ElementTree.Element, measurement: ElementTree.Element, place: str
) -> tuple[dict[str, Any], Wavelength | None, tuple[Finding, ...]]:
    """Return the metadata, the wavelength and the findings that all scans of a measurement share."""
    incident, diffracted = _child(measurement, "incidentBeamPath"), _child(measurement, "diffractedBeamPath")
    used = _child(measurement, "usedWavelength")
    tube = _child(incident, "xRayTube")
    anode = anode_symbol(_text(tube, "anodeMaterial"))
    incident_monochromator = _child(incident, "monochromator")
    alpha1_only = used is not None and used.get("intended") == "K-Alpha 1" and _removes_alpha2(incident_monochromator)
    wavelength, findings = wavelength_of(
        anode=anode,
        alpha1=_number(used, "kAlpha1"),
        alpha2=_number(used, "kAlpha2"),
        ratio=_number(used, "ratioKAlpha2KAlpha1"),
        alpha1_only=alpha1_only,
        place=place,
    )
    intended_beta = used is not None and used.get("intended") == "K-Beta"
    beta = _number(used, "kBeta")
    if intended_beta and beta is not None and 0.1 <= beta <= 5.0:
        wavelength = Wavelength(((beta, 1.0),), "", "file")
    soller = _first(_child(incident, "sollerSlit"), _child(diffracted, "sollerSlit"))
    opening = _number(soller, "opening")
    divergence = _child(incident, "divergenceSlit")
    diffracted_monochromator = _child(diffracted, "monochromator")
    comments = [entry.text or "" for holder in _children(root, "comment") for entry in _children(holder, "entry")]
    comments += [
        entry.text or "" for holder in _children(measurement, "comment") for entry in _children(holder, "entry")
    ]
    system = next((line.partition("=")[2] for line in comments if line.startswith("Diffractometer system=")), "")
    monochromators = [
        f"{side} beam: {element.get('name', 'monochromator')}"
        for side, element in (("incident", incident_monochromator), ("diffracted", diffracted_monochromator))
        if element is not None
    ]
    fixed = divergence is not None and "fixed" in _type_of(divergence).lower()
    facts: dict[str, Any] = {
        "sample_id": _text(root, "sample", "id") or _text(root, "sample", "name"),
        "instrument": system,
        "anode": anode,
        "tube_voltage_kv": _number(tube, "tension"),
        "tube_current_ma": _number(tube, "current"),
        "goniometer_radius_mm": _number(incident, "radius") or _number(diffracted, "radius"),
        "filter": _names((_child(incident, "filter"), _child(diffracted, "filter"))),
        "monochromator": "; ".join(monochromators) or ("" if incident is None else "none"),
        "soller_deg": None if opening is None else round(math.degrees(opening), 4),
        "divergence_slit_deg": slit_degrees(divergence.get("name", "")) if divergence is not None and fixed else None,
        "divergence_slit": divergence.get("name", "") if divergence is not None and not fixed else None,
        "receiving_slit_mm": _number(diffracted, "receivingSlit", "height"),
        "detector": _names((_child(diffracted, "detector"),)),
        "detector_opening_deg": _active_length(_child(diffracted, "detector", "activeLength")),
        "k_beta_angstrom": beta,
        "comment": "; ".join(
            line.strip()
            for line in comments
            if line.strip() and not line.startswith("Diffractometer system=") and not line_is_own(line)
        ),
    }
    if divergence is not None and not fixed:
        findings = (
            *findings,
            warning(
                Code.READER_NOTE,
                f"the divergence slit {divergence.get('name', '')!r} is not fixed: the irradiated area changes",
                place,
                "use a fixed slit, or expect intensities that are low at low angles",
            ),
        )
    metadata = {key: value for key, value in facts.items() if value not in (None, "")} | exact_metadata(comments)
    wavelength = stated_lines(key_values(comments)) or wavelength
    if diffracted_monochromator is not None:
        metadata = with_monochromator_angle(metadata, wavelength)
    return metadata, wavelength, findings


def _active_length(element: ElementTree.Element | None) -> float | None:
    """Return the length of a linear detector in use, deg 2theta; None where it is given in another unit."""
    if element is None or element.get("unit") != "deg":
        return None
    opening = _number(element)
    return opening if opening is not None and opening > 0.0 else None


def _first(*elements: ElementTree.Element | None) -> ElementTree.Element | None:
    return next((element for element in elements if element is not None), None)


def _type_of(element: ElementTree.Element) -> str:
    return next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == "type"), "")


def _names(elements: tuple[ElementTree.Element | None, ...]) -> str:
    return "; ".join(element.get("name", "") for element in elements if element is not None)


def _removes_alpha2(monochromator: ElementTree.Element | None) -> bool:
    """Return whether an incident-beam monochromator separates K-alpha1: a hybrid, Johansson or germanium crystal."""
    if monochromator is None:
        return False
    words = f"{monochromator.get('name', '')} {_text(monochromator, 'crystal')} {_type_of(monochromator)}".lower()
    return monochromator.get("hybrid") == "true" or any(
        word in words for word in ("johansson", "alpha 1", "alpha-1", "ge")
    )


def _scan(
    element: ElementTree.Element,
    kind: str,
    n_scans: int,
    shared: dict[str, Any],
    wavelength: Wavelength | None,
    findings: tuple[Finding, ...],
    place: str,
) -> RecordedScan:
    axis = element.get("scanAxis", "")
    points = _child(element, "dataPoints")
    header = _child(element, "header")
    metadata = dict(shared)
    for key, value in (
        ("scan_axis", axis),
        ("start_time", _text(header, "startTimeStamp")),
        ("operator", _text(header, "author", "name")),
        ("instrument", _text(header, "source", "instrumentControlSoftware")),
        ("software", _text(header, "source", "applicationSoftware")),
    ):
        if value and key not in metadata:
            metadata[key] = value
    not_powder = ""
    if kind == "Area measurement":
        not_powder = f"one of {n_scans} scans of an area measurement, a mesh in reciprocal space"
    elif axis.lower() not in POWDER_AXES:
        not_powder = f"the scan axis is {axis!r}, such as a rocking curve or a pole figure"
    if points is None:
        raise InputError(f"{place}: no <dataPoints>; the scan was not measured or the file is cut")
    values, unit, attenuation, applied = _intensities(points, place)
    two_theta, listed = _positions(points, values.size, place)
    if not not_powder and two_theta is None:
        not_powder = "no 2Theta positions"
    time = _times(points, values.size, place)
    if isinstance(time, float):
        metadata["step_time_s"] = time
    notes = list(findings)
    if axis.lower() == "2theta" and _fixed_omega(points) is not None and not not_powder:
        notes.append(
            warning(
                Code.READER_NOTE,
                f"a detector scan at fixed incidence ({_fixed_omega(points):g} deg), not Bragg-Brentano geometry",
                place,
                "expect wrong intensities unless the specimen is a capillary",
            )
        )
    status = element.get("status", "Completed")
    if status not in ("Completed", ""):
        notes.append(warning(Code.TRUNCATED_FILE, f"the file calls the scan {status!r}", place, "repeat the scan"))
    shown = "none" if two_theta is None or not two_theta.size else f"{two_theta[0]:g} to {two_theta[-1]:g} deg"
    return RecordedScan(
        position=np.arange(1.0, values.size + 1) if two_theta is None else two_theta,
        intensity=values,
        attenuation=attenuation,
        attenuation_applied=applied,
        step_time_s=time,
        unit=unit,
        axis="two_theta",
        wavelength=wavelength,
        announced_points=listed,
        not_powder=not_powder,
        label=f"{axis} {shown}, {values.size} points",
        metadata=metadata,
        findings=tuple(notes),
    )


def _numbers(element: ElementTree.Element, place: str) -> FloatArray:
    tokens = (element.text or "").split()
    try:
        return np.array([float(token) for token in tokens], dtype=np.float64)
    except ValueError:
        wrong = next(token for token in tokens if not _is_number(token))
        raise InputError(
            f"{place} <{_local(element)}>: {wrong[:40]!r} is not a number; the file is damaged, export it again"
        ) from None


def _is_number(token: str) -> bool:
    try:
        float(token)
    except ValueError:
        return False
    return True


def _intensities(points: ElementTree.Element, place: str) -> tuple[FloatArray, Unit, FloatArray | None, bool]:
    """Return the numbers, their unit, the attenuation factors, and whether the factors are already applied."""
    element = _first(_child(points, "counts"), _child(points, "intensities"))
    if element is None:
        raise InputError(f"{place}: neither <counts> nor <intensities>; export the scan again")
    values = _numbers(element, place)
    stated = element.get("unit", "counts").lower()
    unit: Unit = "counts" if stated == "counts" else "rate" if stated in ("cps", "counts/s") else "unknown"
    factors_element = _first(_child(points, "beamAttenuationFactors"), _child(points, "commonBeamAttenuationFactor"))
    if factors_element is None:
        return values, unit, None, False
    factors = _numbers(factors_element, place)
    if factors.size == 1:
        factors = np.full(values.size, factors[0])
    if factors.size != values.size:
        raise InputError(
            f"{place}: {factors.size} beamAttenuationFactors for {values.size} points; the file is cut, export it again"
        )
    return values, unit, factors, _local(element) == "intensities"


def _positions(points: ElementTree.Element, n_points: int, place: str) -> tuple[FloatArray | None, int | None]:
    """Return 2theta of every point (None without such an axis) and how many points a position list announces."""
    element = next((item for item in _children(points, "positions") if item.get("axis") == "2Theta"), None)
    if element is None:
        return None, None
    if element.get("unit", "deg") not in ("deg", "degree", "degrees"):
        raise InputError(f"{place}: 2Theta positions in {element.get('unit')!r}; expected deg: export the scan again")
    listed = _child(element, "listPositions")
    if listed is not None:
        positions = _numbers(listed, place)
        if positions.size != n_points:
            raise InputError(
                f"{place}: {positions.size} positions for {n_points} intensities; the file is cut, export it again"
            )
        return positions, positions.size
    start, end = _number(element, "startPosition"), _number(element, "endPosition")
    if start is None or end is None:
        return None, None
    if n_points < 2:
        return np.full(n_points, start), None
    return start + (end - start) * np.arange(n_points) / (n_points - 1), None


def _fixed_omega(points: ElementTree.Element) -> float | None:
    element = next((item for item in _children(points, "positions") if item.get("axis") == "Omega"), None)
    return None if element is None else _number(element, "commonPosition")


def _times(points: ElementTree.Element, n_points: int, place: str) -> float | FloatArray | None:
    common = _number(points, "commonCountingTime")
    if common is not None:
        return common if common > 0 else None
    listed = _child(points, "countingTimes")
    if listed is None:
        return None
    times = _numbers(listed, place)
    if times.size != n_points:
        raise InputError(
            f"{place}: {times.size} counting times for {n_points} points; the file is cut, export it again"
        )
    if bool(np.all(times == times[0])):
        return float(times[0])
    return times
