"""Bruker BRML: a zip archive with one `RawData*.xml` a measurement, whose `Datum` rows the `DataViews` explain.

Counts behind an automatic absorber are stored already multiplied by the absorption factor of their row, which is kept
for the variance. A row that a measurement left blank holds the blanking value and is masked.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from xrdz.diffractogram import FloatArray
from xrdz.errors import InputError
from xrdz.readers.content import Content, archive_members, parsed_xml
from xrdz.readers.recorded import RecordedScan, Unit
from xrdz.readers.vocabulary import anode_symbol, number_in, positive_in, slit_degrees, wavelength_of

MAX_COLUMNS = 64

_CRYSTAL = re.compile(r"onochromator|Johansson|^Ge\d")
_REMOVES_ALPHA2 = re.compile(r"Johansson|^Ge\d")
"""Logic names of incident-beam optics behind which only K-alpha1 is left."""


def sniff_brml(head: bytes, name: str) -> bool:
    """Return whether the file is a zip archive of Bruker: by its suffix or a member name in the first bytes."""
    return head.startswith(b"PK\x03\x04") and (name.endswith(".brml") or b"Experiment0/" in head)


def read_brml(content: Content) -> list[RecordedScan]:
    """Read every measurement of a BRML archive.

    Raises
    ------
    InputError
        If the archive is cut or damaged, or holds no measured profile.
    """
    members = archive_members(content.data, content.place, (".xml",))
    names = sorted(
        (name for name in members if re.search(r"RawData\d+\.xml$", name)),
        key=lambda name: [int(part) for part in re.findall(r"\d+", name)],
    )
    if not names:
        raise InputError(f"{content.place}: no RawData*.xml in the archive; expected a measurement: export it again")
    operator, sample = _measurement_info(members, content.place)
    scans: list[RecordedScan] = []
    for name in names:
        place = f"{content.place}: {name}"
        root = parsed_xml(members[name], place)
        metadata = _instrument(root) | {key: value for key, value in operator.items() if value} | sample
        for route in _measured_routes(root):
            scans.append(_scan(route, root, metadata, place))
    if not scans:
        raise InputError(f"{content.place}: the archive holds no measured data route; repeat or export the measurement")
    return scans


def _measurement_info(members: dict[str, bytes], place: str) -> tuple[dict[str, str], dict[str, str]]:
    for name, data in members.items():
        if name.endswith("DataContainer.xml"):
            root = parsed_xml(data, f"{place}: {name}")
            info = next(root.iter("MeasurementInfo"), None)
            if info is not None:
                return {"operator": info.get("UserName", "")}, {
                    key: value
                    for key, value in (("sample_id", info.get("SampleName", "")), ("comment", info.get("Comment", "")))
                    if value
                }
    return {}, {}


def _measured_routes(root: ElementTree.Element) -> list[ElementTree.Element]:
    routes = [route for route in root.iter("DataRoute") if next(route.iter("Datum"), None) is not None]
    measured = [route for route in routes if route.get("RouteFlag", "Measured") in ("Measured", "Final")]
    return measured or routes


def _value(root: ElementTree.Element, tag: str) -> str:
    found = next(root.iter(tag), None)
    if found is None:
        return ""
    return found.get("Value") or (found.text or "").strip()


def _instrument(root: ElementTree.Element) -> dict[str, Any]:
    items = {item.get("Name", ""): item.get("Value", "") for item in root.iter("InfoItem")}
    soller = next((slit_degrees(e.get("VisibleName", "")) for e in _optics(root) if "oller" in _kind(e)), None)
    divergence = next((_slit(e) for e in _optics(root) if "Divergence" in e.get("LogicName", "")), None)
    crystals = [e.get("VisibleName", "") for e in _optics(root) if _CRYSTAL.search(e.get("LogicName", "") + _kind(e))]
    detector = next((e.get("VisibleName", "") for d in root.iter("Detectors") for e in d.iter("InfoData")), "")
    facts: dict[str, Any] = {
        "sample_id": items.get("SampleName"),
        "operator": items.get("User"),
        "comment": items.get("Comment"),
        "start_time": _value(root, "TimeStampStarted"),
        "anode": anode_symbol(_value(root, "TubeMaterial")),
        "tube_voltage_kv": positive_in(_value(root, "Voltage")),
        "tube_current_ma": positive_in(_value(root, "Current")),
        "goniometer_radius_mm": _radius(root),
        "soller_deg": soller,
        "divergence_slit_deg": divergence,
        "monochromator": "; ".join(crystals),
        "detector": detector,
        "k_beta_angstrom": positive_in(_value(root, "WaveLengthBeta")),
    }
    return {key: value for key, value in facts.items() if value not in (None, "")}


def _optics(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    return (element for mounted in root.iter("MountedOptics") for element in mounted.iter("InfoData"))


def _alpha2_removed(root: ElementTree.Element) -> bool:
    primary = (element for track in root.iter("PrimaryTracks") for element in track.iter("InfoData"))
    return any(_REMOVES_ALPHA2.search(element.get("LogicName", "")) for element in primary)


def _kind(element: ElementTree.Element) -> str:
    return next((value for key, value in element.attrib.items() if key.endswith("}type")), "")


def _slit(element: ElementTree.Element) -> float | None:
    for tag in ("Opening", "SlitOpening", "OpeningAngle"):
        found = next(element.iter(tag), None)
        if found is not None and found.get("Unit") == "°":
            return positive_in(found.get("Value", ""))
    return None


def _radius(root: ElementTree.Element) -> float | None:
    """Return the radius on the detector's side, mm: sources behind long optics stand farther away."""
    tracks = [*root.iter("SecondaryTracks"), *root.iter("PrimaryTracks")]
    found = (radius for track in tracks for radius in track.iter("Radius"))
    return next((value for radius in found if (value := positive_in(radius.get("Value", "")))), None)


@dataclass(frozen=True)
class _Views:
    """Which columns of a `Datum` row hold what."""

    two_theta: int
    counts: int
    absorption: int | None
    time: int | None
    blank: float | None
    unit: Unit


def _views(route: ElementTree.Element, place: str) -> _Views | str:
    """Return the columns of a data route, or why it is no powder profile."""
    two_theta: int | None = None
    counts: list[tuple[int, ElementTree.Element]] = []
    absorption = time = None
    axes: list[str] = []
    for view in route.iter("RawDataView"):
        start, length = number_in(view.get("Start", "")), number_in(view.get("Length", ""))
        if start is None or length is None or not (0 <= start < MAX_COLUMNS):
            continue
        first = int(start)
        name = view.get("LogicName", "")
        if name == "AbsorptionFactor":
            absorption = first
        elif name == "MeasuredTime":
            time = first
        for index, axis in enumerate(view.iter("FieldDefinitions")):
            axes.append(axis.get("FieldName", ""))
            if axis.get("FieldName") == "TwoTheta" or axis.get("AxisId") == "TwoTheta":
                two_theta = first + index
        recording = next(view.iter("Recording"), None)
        if recording is not None:
            if length != 1:
                return f"each point holds {length:g} detector channels, not one intensity"
            counts.append((first, recording))
    if not counts:
        raise InputError(f"{place}: no recorded column among the data views; export the scan as .xy")
    if two_theta is None:
        return f"the scan moves {', '.join(dict.fromkeys(axes)) or 'no axis'}, not 2theta"
    column, recording = counts[0]
    base = next((unit.get("Base", "") for unit in recording.iter("Unit")), "")
    unit: Unit = "counts" if base == "Counts" else "rate" if base in ("Cps", "CountsPerSecond") else "unknown"
    blank = number_in((recording.findtext("BlankingValue") or "").strip())
    return _Views(two_theta, column, absorption, time, blank, unit)


def _rows(route: ElementTree.Element, place: str) -> FloatArray:
    texts = [datum.text or "" for datum in route.iter("Datum")]
    width = texts[0].count(",") + 1
    if width > MAX_COLUMNS * 100 or any(text.count(",") + 1 != width for text in texts):
        wrong = next((i for i, text in enumerate(texts, 1) if text.count(",") + 1 != width), 1)
        raise InputError(f"{place}: Datum {wrong} has not the {width} columns of the first; the file is damaged")
    try:
        flat = np.array([float(token) for text in texts for token in text.split(",")], dtype=np.float64)
    except ValueError as error:
        raise InputError(f"{place}: a Datum row is damaged ({error}); export the measurement again") from None
    return flat.reshape(-1, width)


def _scan(route: ElementTree.Element, root: ElementTree.Element, metadata: dict[str, Any], place: str) -> RecordedScan:
    info = next(route.iter("ScanInformation"), None)
    scan_axis = "" if info is None else info.get("VisibleName", "").strip() or info.get("ScanName", "")
    announced = None if info is None else number_in(info.findtext("MeasurementPoints") or "")
    seconds = None if info is None else positive_in(info.findtext("TimePerStep") or "")
    values = _rows(route, place)
    views = _views(route, place)
    metadata = metadata | {key: v for key, v in (("scan_axis", scan_axis), ("step_time_s", seconds)) if v}
    wavelength, findings = wavelength_of(
        anode=metadata.get("anode"),
        alpha1=positive_in(_value(root, "WaveLengthAlpha1")),
        alpha2=positive_in(_value(root, "WaveLengthAlpha2")),
        ratio=positive_in(_value(root, "WaveLengthRatio")),
        alpha1_only=_alpha2_removed(root),
        place=place,
    )
    if isinstance(views, str):
        return RecordedScan(
            position=np.arange(values.shape[0], dtype=np.float64),
            intensity=values[:, -1].copy(),
            not_powder=views,
            label=f"{scan_axis}, {values.shape[0]} points",
            metadata=metadata,
        )
    if max(views.two_theta, views.counts) >= values.shape[1]:
        raise InputError(
            f"{place}: the data views name column {max(views.two_theta, views.counts) + 1}, a row has"
            f" {values.shape[1]}; the file is damaged, export the measurement again"
        )
    two_theta, counts = values[:, views.two_theta].copy(), values[:, views.counts].copy()
    if views.blank is not None:
        counts[counts == views.blank] = math.nan
    absorption = None
    if views.absorption is not None and views.absorption < values.shape[1]:
        absorption = values[:, views.absorption].copy()
    return RecordedScan(
        position=two_theta,
        intensity=counts,
        attenuation=absorption,
        attenuation_applied=True,
        step_time_s=seconds,
        unit=views.unit,
        wavelength=wavelength,
        announced_points=int(announced) if announced is not None and 0 < announced < 1e8 else None,
        label=f"{scan_axis} {two_theta[0]:g} to {two_theta[-1]:g} deg, {two_theta.size} points",
        metadata=metadata,
        findings=findings,
    )
