"""Rigaku RAS (text), RASX (zip of text and XML) and the older ASC (text).

In RAS and RASX a row is `angle intensity factor`: the true intensity is intensity times the attenuator's factor. An ASC
group lists intensities alone, four to a line, from `*START` by `*STEP`.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from xrdz.diffractogram import FloatArray
from xrdz.errors import InputError
from xrdz.findings import Code, warning
from xrdz.readers.binary import checked_grid
from xrdz.readers.content import Content, archive_members, decoded_text, head_text, parsed_xml
from xrdz.readers.recorded import RecordedScan, Unit
from xrdz.readers.vocabulary import anode_symbol, metadata_of, number_in, positive_in, slit_degrees, wavelength_of

POWDER_AXES = ("twotheta", "twothetatheta", "twothetaomega", "2theta", "2theta/theta", "2theta/omega", "2θ", "2θ/θ")
ASC_POWDER_AXES = ("2theta", "2theta/theta", "theta/2theta", "2theta/omega", "twotheta")


def sniff_ras(head: bytes, name: str) -> bool:
    """Return whether the file begins with Rigaku's marker."""
    del name
    return head_text(head[:64]).lstrip().startswith("*RAS_")


def sniff_rasx(head: bytes, name: str) -> bool:
    """Return whether the file is a zip archive of SmartLab Studio II."""
    return head.startswith(b"PK\x03\x04") and (name.endswith(".rasx") or b"Data0/Profile" in head)


def sniff_asc(head: bytes, name: str) -> bool:
    """Return whether the file begins with `*TYPE`."""
    del name
    return head_text(head[:64]).lstrip().upper().startswith("*TYPE")


def read_ras(content: Content) -> list[RecordedScan]:
    """Read every scan of a RAS file.

    Raises
    ------
    InputError
        If a row is damaged or a scan has no rows.
    """
    scans: list[RecordedScan] = []
    keys: dict[str, str] = {}
    rows: list[list[float]] | None = None
    first_row = 0
    # Header texts of Japanese systems are Shift JIS; only their ASCII part is used.
    text = decoded_text(content.data, content.place)
    for number, raw_line in enumerate(text.split("\n"), 1):
        line = raw_line.strip()
        if not line:
            continue
        if line == "*RAS_HEADER_START":
            keys = {}
        elif line == "*RAS_INT_START":
            rows, first_row = [], number + 1
        elif line.startswith("*"):
            if rows is not None:
                scans.append(_scan(_columns(rows, content.place, first_row), keys, content.place, len(scans) + 1))
                rows = None
            match = re.match(r'\*(\S+)\s+"(.*)"?$', line)
            if match:
                keys[match.group(1)] = match.group(2).rstrip('"')
        elif rows is not None:
            try:
                rows.append([float(token) for token in line.replace(",", " ").split()])
            except ValueError:
                raise InputError(
                    f"{content.place} line {number}: {line[:40]!r} is not a row of numbers; export the scan again"
                ) from None
    if rows:
        cut = _scan(_columns(rows, content.place, first_row), keys, content.place, len(scans) + 1)
        scans.append(_without_end(cut, "*RAS_INT_END"))
    if not scans:
        raise InputError(f"{content.place}: no *RAS_INT_START block; the file is cut, copy it again")
    return scans


def _without_end(scan: RecordedScan, marker: str) -> RecordedScan:
    finding = warning(Code.TRUNCATED_FILE, f"the line {marker} after the rows is missing", "", "copy the file again")
    return replace(scan, findings=(*scan.findings, finding))


def read_rasx(content: Content) -> list[RecordedScan]:
    """Read every profile of a RASX archive.

    Raises
    ------
    InputError
        If the archive is cut or damaged, or holds no profile.
    """
    members = archive_members(content.data, content.place, (".txt", ".xml"))
    names = sorted(
        (name for name in members if re.search(r"Data\d+/Profile\d+\.txt$", name)),
        key=lambda name: [int(part) for part in re.findall(r"\d+", name)],
    )
    if not names:
        raise InputError(f"{content.place}: no Data*/Profile*.txt in the archive; export the scan as .ras or .xy")
    scans: list[RecordedScan] = []
    for name in names:
        place = f"{content.place}: {name}"
        conditions = re.sub(r"Profile(\d+)\.txt$", r"MesurementConditions\1.xml", name)
        keys = _conditions(parsed_xml(members[conditions], place)) if conditions in members else {}
        rows: list[list[float]] = []
        for number, line in enumerate(decoded_text(members[name], place).split("\n"), 1):
            if line.strip():
                try:
                    rows.append([float(token) for token in line.split()])
                except ValueError:
                    raise InputError(f"{place} line {number}: {line[:40]!r} is not a row of numbers") from None
        scans.append(_scan(_columns(rows, place, 1), keys, content.place, len(scans) + 1))
    return scans


def _columns(rows: list[list[float]], place: str, first_line: int) -> FloatArray:
    if not rows:
        raise InputError(f"{place} line {first_line}: a scan without rows; the file is cut, copy it again")
    width = len(rows[0])
    if width not in (2, 3):
        raise InputError(f"{place} line {first_line}: {width} numbers; expected angle, intensity and attenuator factor")
    wrong = next((index for index, row in enumerate(rows) if len(row) != width), None)
    if wrong is not None and wrong == len(rows) - 1:
        # The last row is cut; the announced number of points reports it.
        rows = rows[:-1]
    elif wrong is not None:
        raise InputError(
            f"{place} line {first_line + wrong}: {len(rows[wrong])} numbers, but {width} above; export it again"
        )
    return np.array(rows, dtype=np.float64)


def _conditions(root: ElementTree.Element) -> dict[str, str]:
    """Return the measurement conditions of a RASX profile under the names that RAS uses."""

    def text(*path: str) -> str:
        element: ElementTree.Element | None = root
        for name in path:
            element = None if element is None else element.find(name)
        return "" if element is None or element.text is None else element.text.strip()

    generator, general, scan = ("HWConfigurations", "XrayGenerator"), ("GeneralInformation",), ("ScanInformation",)
    keys = {
        "FILE_OPERATOR": text(*general, "Operator"),
        "FILE_SAMPLE": text(*general, "SampleName"),
        "FILE_COMMENT": text(*general, "Comment"),
        "HW_GONIOMETER_NAME": text(*general, "SystemName"),
        "HW_XG_TARGET_NAME": text(*generator, "TargetName"),
        "HW_XG_WAVE_LENGTH_ALPHA1": text(*generator, "WavelengthKalpha1"),
        "HW_XG_WAVE_LENGTH_ALPHA2": text(*generator, "WavelengthKalpha2"),
        "HW_XG_WAVE_LENGTH_BETA": text(*generator, "WavelengthKbeta"),
        "MEAS_COND_XG_WAVE_TYPE": text(*generator, "WaveType"),
        "MEAS_COND_XG_VOLTAGE": text(*generator, "Voltage"),
        "MEAS_COND_XG_CURRENT": text(*generator, "Current"),
        "MEAS_COND_OPT_ATTR": text("HWConfigurations", "Optics", "Attribute"),
        "MEAS_SCAN_AXIS_X_INTERNAL": text(*scan, "AxisName"),
        "MEAS_SCAN_UNIT_Y": text(*scan, "IntensityUnit"),
        "MEAS_SCAN_SPEED": text(*scan, "Speed"),
        "MEAS_SCAN_SPEED_UNIT": text(*scan, "SpeedUnit"),
        "MEAS_SCAN_STEP": text(*scan, "Step"),
        "MEAS_SCAN_START_TIME": text(*scan, "StartTime"),
        "MEAS_DATA_COUNT": text(*scan, "DataCount") or text(*scan, "PointCount"),
    }
    for distance in root.iter("Distance"):
        if distance.get("To") == "AttachmentStage" and distance.get("From") == "XrayGenerator":
            keys["HW_GONIOMETER_RADIUS"] = distance.get("Value", "")
    for category in root.iter("Category"):
        if category.get("Name") == "Detector":
            keys["HW_COUNTER_SELECT_NAME"] = category.get("SelectedUnit", "")
        if category.get("Name") == "DetectorMonochromator":
            keys["COUNTER_MONOCHROMATOR"] = category.get("SelectedUnit", "")
    for axis in root.iter("Axis"):
        name, position = axis.get("Name", ""), axis.get("Position", "")
        if name:
            keys[f"AXIS {name}"] = position
        if axis.get("State") == "Scan":
            keys.setdefault("SCANNED_AXIS", name)
    return {key: value for key, value in keys.items() if value}


def _axis_positions(keys: Mapping[str, str]) -> dict[str, str]:
    """Return the position of each named axis: slits, optics and monochromators are axes too."""
    positions = {key[5:]: value for key, value in keys.items() if key.startswith("AXIS ")}
    for key, name in keys.items():
        if key.startswith("MEAS_COND_AXIS_NAME_INTERNAL-"):
            number = key.rpartition("-")[2]
            positions.setdefault(name, keys.get(f"MEAS_COND_AXIS_POSITION-{number}", ""))
    return positions


def _english(value: str) -> str:
    """Return the English half of `Japanese|English`."""
    return value.rpartition("|")[2].strip()


def _scan(values: FloatArray, keys: Mapping[str, str], place: str, number: int) -> RecordedScan:
    positions = _axis_positions(keys)
    axis = keys.get("MEAS_SCAN_AXIS_X_INTERNAL") or keys.get("SCANNED_AXIS") or keys.get("MEAS_SCAN_AXIS_X", "")
    metadata = metadata_of({key: _english(value) for key, value in keys.items() if value.strip()})
    metadata |= _optics(keys, positions)
    if axis:
        metadata["scan_axis"] = axis
    wave_type = keys.get("MEAS_COND_XG_WAVE_TYPE", "").lower()
    wavelength, findings = wavelength_of(
        anode=metadata.get("anode"),
        alpha1=positive_in(keys.get("HW_XG_WAVE_LENGTH_ALPHA1", "")),
        alpha2=positive_in(keys.get("HW_XG_WAVE_LENGTH_ALPHA2", "")),
        alpha1_only=wave_type in ("ka1", "kalpha1"),
        place=place,
    )
    beta = positive_in(keys.get("HW_XG_WAVE_LENGTH_BETA", ""))
    if beta is not None:
        metadata["k_beta_angstrom"] = beta
    stated = keys.get("MEAS_SCAN_UNIT_Y", "").lower()
    unit: Unit = "counts" if stated == "counts" else "rate" if stated in ("cps", "counts/sec") else "unknown"
    time = _step_time(keys)
    if time is not None:
        metadata["step_time_s"] = time
    announced = number_in(keys.get("MEAS_DATA_COUNT", ""))
    is_powder = not axis or axis.lower() in POWDER_AXES
    return RecordedScan(
        position=values[:, 0].copy(),
        intensity=values[:, 1].copy(),
        attenuation=values[:, 2].copy() if values.shape[1] == 3 else None,
        step_time_s=time,
        unit=unit,
        wavelength=wavelength,
        announced_points=int(announced) if announced is not None and announced > 0 else None,
        not_powder=""
        if is_powder
        else f"the scan axis is {axis}, as for a rocking curve, pole figure or in-plane scan",
        label=f"scan {number}: {axis} {values[0, 0]:g} to {values[-1, 0]:g}, {values.shape[0]} points",
        metadata=metadata,
        findings=findings,
    )


def _optics(keys: Mapping[str, str], positions: Mapping[str, str]) -> dict[str, Any]:
    radius = positive_in(keys.get("HW_GONIOMETER_RADIUS", ""))
    if radius is None:
        # The list of distances has the one from the source to the specimen third or, on SmartLab, fourth.
        listed = [positive_in(keys.get(f"HW_GONIOMETER_RADIUS-{index}", "")) for index in (3, 2)]
        radius = next((value for value in listed if value is not None), None)
    monochromator = keys.get("COUNTER_MONOCHROMATOR") or positions.get("CounterMonochromatorKind", "")
    incident = positions.get("IncidentMonochromator", "")
    sollers = [slit_degrees(positions.get(name, "")) for name in ("ReceivingSollerSlit", "IncidentSollerSlit")]
    facts: dict[str, Any] = {
        "goniometer_radius_mm": radius,
        "monochromator": _monochromator_text(incident, monochromator),
        "soller_deg": next((value for value in sollers if value), None),
        "filter": "" if positions.get("Filter", "").lower() == "none" else positions.get("Filter", ""),
    }
    return {key: value for key, value in facts.items() if value not in (None, "")}


def _monochromator_text(incident: str, diffracted: str) -> str:
    parts = [
        f"{side} beam: {value}"
        for side, value in (("incident", incident), ("diffracted", diffracted))
        if value and value.lower() not in ("none", "virtual", "no_unit", "0") and "adaptor" not in value.lower()
    ]
    if parts:
        return "; ".join(parts)
    return "none" if diffracted.lower() in ("none", "no_unit") else ""


def _step_time(keys: Mapping[str, str]) -> float | None:
    """Return the counting time of a step in seconds: stated, or the step divided by the speed of a continuous scan."""
    speed, unit = positive_in(keys.get("MEAS_SCAN_SPEED", "")), keys.get("MEAS_SCAN_SPEED_UNIT", "").lower()
    step = positive_in(keys.get("MEAS_SCAN_STEP", ""))
    if speed is None:
        return None
    if unit in ("sec", "s", "sec/step", "sec./step"):
        return speed
    if unit == "deg/min" and step is not None:
        return round(60 * step / speed, 9)
    return None


def read_asc(content: Content) -> list[RecordedScan]:
    """Read every group of an ASC file.

    Raises
    ------
    InputError
        If a row is damaged or a group does not state its start and step.
    """
    shared: dict[str, str] = {}
    group: dict[str, str] | None = None
    numbers: list[float] = []
    scans: list[RecordedScan] = []
    for number, raw_line in enumerate(decoded_text(content.data, content.place).split("\n"), 1):
        line = raw_line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("*"):
            word, _, value = line[1:].partition("=")
            word = word.strip().upper()
            if word == "BEGIN":
                group, numbers = {}, []
            elif word in ("END", "EOF"):
                if group is not None:
                    scans.append(_group(shared | group, numbers, f"{content.place} group {len(scans) + 1}"))
                group = None
            elif group is None:
                shared.setdefault(word, value.strip())
            else:
                group.setdefault(word, value.strip())
        elif group is not None and "COUNT" in group:
            try:
                numbers.extend(map(float, line.replace(",", " ").split()))
            except ValueError:
                raise InputError(
                    f"{content.place} line {number}: {line[:40]!r} is not a row of numbers; export the scan again"
                ) from None
        else:
            raise InputError(
                f"{content.place} line {number}: {line[:40]!r} before *COUNT or after *END; the file is damaged"
            )
    if group is not None and numbers:
        scans.append(_without_end(_group(shared | group, numbers, f"{content.place} group {len(scans) + 1}"), "*END"))
    if not scans:
        raise InputError(f"{content.place}: no *BEGIN group; the file is cut, copy it again")
    return scans


def _group(keys: dict[str, str], numbers: list[float], place: str) -> RecordedScan:
    start, step, count = (number_in(keys.get(word, "")) for word in ("START", "STEP", "COUNT"))
    if start is None or step is None or not numbers:
        raise InputError(f"{place}: *START {start}, *STEP {step}, {len(numbers)} intensities; all are needed")
    intensity = np.array(numbers, dtype=np.float64)
    stop, last = number_in(keys.get("STOP", "")), start + step * (intensity.size - 1)
    if stop is not None and count == intensity.size and abs(last - stop) > 1.5 * abs(step):
        raise InputError(
            f"{place}: *START {start:g} by *STEP {step:g} ends at {last:g} after {count:g} points, but *STOP is"
            f" {stop:g}; the header is damaged"
        )
    axis = keys.get("SCAN_AXIS", "")
    is_powder = axis.lower().replace(" ", "") in ("", *ASC_POWDER_AXES) and keys.get("CLASS", "").lower() != "polefig"
    unit_words = keys.get("YUNIT", "").lower()
    unit: Unit = "counts" if unit_words.startswith("count") else "rate" if unit_words.startswith("cps") else "unknown"
    speed, dimension = positive_in(keys.get("SPEED", "")), keys.get("SPEED_DIM", "").lower()
    time = speed if "sec" in dimension else 60 * step / speed if speed and "deg" in dimension else None
    anode = anode_symbol(keys.get("TARGET", ""))
    wavelength, findings = wavelength_of(
        anode=anode,
        alpha1=positive_in(keys.get("WAVE_LENGTH1", "")),
        alpha2=positive_in(keys.get("WAVE_LENGTH2", "")),
        alpha1_only=False,
        place=place,
    )
    words = {
        key: value for key, value in keys.items() if key in ("SAMPLE", "COMMENT", "DATE", "COUNTER", "MEMO", "KV", "MA")
    }
    metadata = metadata_of({("detector" if key == "COUNTER" else key): value for key, value in words.items()})
    facts = {
        "anode": anode,
        "scan_axis": axis,
        "step_time_s": time,
        "instrument": keys.get("GONIO", ""),
        "monochromator": keys.get("C_MONOCHRO", ""),
    }
    metadata |= {key: value for key, value in facts.items() if value}
    return RecordedScan(
        position=checked_grid(start, step, intensity.size, place),
        intensity=intensity,
        step_time_s=time,
        unit=unit,
        wavelength=wavelength,
        announced_points=int(count) if count is not None and count > 0 else None,
        not_powder="" if is_powder else f"the scan axis is {axis} ({keys.get('CLASS', '')}), as for a pole figure",
        label=f"{axis} {start:g} to {start + step * (intensity.size - 1):g}, {intensity.size} points",
        metadata=metadata,
        findings=findings,
    )
