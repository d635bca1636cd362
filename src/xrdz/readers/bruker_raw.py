"""Siemens and Bruker RAW, versions 1 ("RAW "), 2 ("RAW2"), 3 ("RAW1.01") and 4 ("RAW4.00"); several ranges each.

Layouts: DIFFRAC-AT and DIFFRAC plus XCH manuals (appendix "raw data file format") as quoted by xylib; version 4 has no
published description and was checked against `geddes` and real files: a chain of segments of (kind, length), a range
being a header of 160 bytes, a chain of drive records, and the points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from xrdz.diffractogram import FloatArray
from xrdz.errors import InputError
from xrdz.findings import Finding
from xrdz.readers.binary import checked_grid, decimal_of, field, fields, records, text_field
from xrdz.readers.content import Content
from xrdz.readers.recorded import RecordedScan, Unit
from xrdz.readers.vocabulary import anode_symbol, wavelength_of
from xrdz.wavelength import Wavelength

MAX_RANGES = 4096
UNKNOWN = 9999.0
"""What the programs write into a field whose value they do not know."""

COUPLED_TYPES_V3 = {0: "locked coupled", 1: "unlocked coupled", 2: "detector scan", 20: "coupled"}
OTHER_TYPES_V3 = {3: "rocking curve", 4: "chi scan", 5: "phi scan", 6: "x scan", 7: "y scan", 8: "z scan"}
TWO_THETA_TYPES_V4 = ("lockedcoupled", "unlockedcoupled", "unlockedcoupledhrxrd", "detectorscan", "psdfastscan")

V3_FILE_HEADER = 712
V4_FILE_HEADER = 61
V4_RANGE_HEADER = 160
V4_TEXT, V4_HARDWARE, V4_DRIVE = 10, 30, 50


def sniff_bruker_raw(head: bytes, name: str) -> bool:
    """Return whether the file begins with one of the four signatures; `RAW_` is Stoe."""
    del name
    return head.startswith((b"RAW1.01", b"RAW4.00", b"RAW2")) or (head.startswith(b"RAW ") and b"\x00" in head[:64])


def read_bruker_raw(content: Content) -> list[RecordedScan]:
    """Read every range of a RAW file.

    Raises
    ------
    InputError
        If the header and the length of the file contradict each other.
    """
    data = content.data
    if data.startswith(b"RAW1.01"):
        return _version_3(data, content.place)
    if data.startswith(b"RAW4.00"):
        return _version_4(data, content.place)
    if data.startswith(b"RAW2"):
        return _version_2(data, content.place)
    return _version_1(data, content.place)


def _known(value: float, low: float, high: float) -> float | None:
    """Return a header value rounded from float32, or None where it is unknown or outside what is possible."""
    return round(float(value), 6) if math.isfinite(value) and low <= value <= high else None


def _facts(**facts: Any) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if value not in (None, "")}


def _scan(
    two_theta: FloatArray,
    counts: FloatArray,
    time: float | None,
    wavelength: tuple[Wavelength | None, tuple[Finding, ...]],
    metadata: Mapping[str, Any],
    not_powder: str = "",
    unit: Unit = "unknown",
) -> RecordedScan:
    return RecordedScan(
        position=two_theta,
        intensity=counts,
        step_time_s=time,
        unit=unit,
        wavelength=wavelength[0],
        not_powder=not_powder,
        label=f"{two_theta[0]:g} to {two_theta[-1]:g} deg, {two_theta.size} points",
        metadata=metadata,
        findings=wavelength[1],
    )


def _version_1(data: bytes, place: str) -> list[RecordedScan]:
    scans: list[RecordedScan] = []
    offset, following = 0, 1
    while following > 0:
        where = f"{place} range {len(scans) + 1}"
        # Early programs did not repeat the signature on the second and later ranges.
        start_of_header = offset + 4 if data[offset : offset + 4] == b"RAW " else offset
        steps, time, step, _, _, start = fields(data, "IffIIf", start_of_header, where, "the range header")
        alpha1, alpha2 = fields(data, "ff", start_of_header + 68, where, "the wavelengths")
        following = field(data, "I", start_of_header + 148, where, "the range header")
        counts = records(data, start_of_header + 152, steps, 4, "f4", where)
        two_theta = checked_grid(decimal_of(start), decimal_of(step), steps, where)
        wavelength = wavelength_of(alpha1=_known(alpha1, 0.1, 5.0), alpha2=_known(alpha2, 0.1, 5.0), place=where)
        seconds = _known(time, 1e-6, 1e7)
        metadata = _facts(sample_id=text_field(data, start_of_header + 36, 32), step_time_s=seconds)
        if wavelength[0] is not None:
            metadata |= _facts(anode=wavelength[0].anode)
        scans.append(_scan(two_theta, counts, seconds, wavelength, metadata))
        offset = start_of_header + 152 + 4 * steps
        if len(scans) >= MAX_RANGES:
            raise InputError(f"{place}: more than {MAX_RANGES} ranges; the header is damaged")
    _refuse_surplus(data, offset, len(scans), place)
    return scans


def _refuse_surplus(data: bytes, offset: int, n_ranges: int, place: str) -> None:
    """Refuse bytes after the last range other than padding: the header and the ranges do not belong together."""
    if data[offset:].strip(b"\x00\x1a"):
        raise InputError(
            f"{place}: {len(data) - offset} bytes follow the {n_ranges} ranges the header announces; it is damaged or"
            " of another layout: export it again"
        )


def _version_2(data: bytes, place: str) -> list[RecordedScan]:
    n_ranges = field(data, "H", 4, place, "the file header")
    if not (0 < n_ranges <= MAX_RANGES):
        raise InputError(f"{place}: the header announces {n_ranges} ranges; expected 1 to {MAX_RANGES}: it is damaged")
    alpha1, alpha2, ratio = fields(data, "fff", 190, place, "the wavelengths")
    anode = anode_symbol(text_field(data, 188, 2))
    wavelength = wavelength_of(
        anode=anode,
        alpha1=_known(alpha1, 0.1, 5.0),
        alpha2=_known(alpha2, 0.1, 5.0),
        ratio=_known(ratio, 0.0, 1.0),
        place=place,
    )
    scans: list[RecordedScan] = []
    offset = 256
    for number in range(1, n_ranges + 1):
        where = f"{place} range {number}"
        header, steps, _, time, step, start = fields(data, "HHIfff", offset, where, "the range header")
        if header < 48:
            raise InputError(f"{where}: a range header of {header} bytes; expected 48 or more: it is damaged")
        counts = records(data, offset + header, steps, 4, "f4", where)
        seconds = _known(time, 1e-6, 1e7)
        metadata = _facts(anode=anode, start_time=text_field(data, 168, 20), step_time_s=seconds)
        two_theta = checked_grid(decimal_of(start), decimal_of(step), steps, where)
        scans.append(_scan(two_theta, counts, seconds, wavelength, metadata))
        offset += header + 4 * steps
    _refuse_surplus(data, offset, n_ranges, place)
    return scans


def _version_3(data: bytes, place: str) -> list[RecordedScan]:
    n_ranges = field(data, "I", 12, place, "the file header")
    if not (0 < n_ranges <= MAX_RANGES):
        raise InputError(f"{place}: the header announces {n_ranges} ranges; expected 1 to {MAX_RANGES}: it is damaged")
    shared, wavelength = _header_3(data, place)
    scans: list[RecordedScan] = []
    offset = V3_FILE_HEADER
    for number in range(1, n_ranges + 1):
        where = f"{place} range {number}"
        header, steps = fields(data, "II", offset, where, "the range header")
        if not (260 <= header <= 1_048_576):
            raise InputError(f"{where}: a range header of {header} bytes; expected 304: it is damaged")
        start = field(data, "d", offset + 16, where, "the range header")
        step = field(data, "d", offset + 176, where, "the range header")
        time, scan_type = fields(data, "fI", offset + 192, where, "the range header")
        voltage, current = fields(data, "II", offset + 224, where, "the range header")
        varying, stride, extra = fields(data, "III", offset + 248, where, "the range header")
        if stride != 4 + 8 * varying.bit_count() or extra > 1_048_576:
            raise InputError(
                f"{where}: {stride} bytes a point for varying parameters {varying:#x}; the header is damaged"
            )
        first = offset + header + extra
        counts = records(data, first, steps, stride, "f4", where)
        two_theta = checked_grid(start, step, steps, where)
        if varying & 1:
            # A measured angle follows each intensity when the first bit of the mask is set.
            two_theta = records(data + b"\x00" * 4, first + 4, steps, stride, "f8", where)
        seconds = _known(time, 1e-6, 1e7)
        metadata = shared | _facts(
            step_time_s=seconds,
            tube_voltage_kv=_known(voltage, 1.0, 200.0),
            tube_current_ma=_known(current, 0.1, 500.0),
            scan_axis=COUPLED_TYPES_V3.get(scan_type, OTHER_TYPES_V3.get(scan_type, f"scan type {scan_type}")),
        )
        not_powder = "" if scan_type in COUPLED_TYPES_V3 else f"the range is a {metadata['scan_axis']}"
        scans.append(_scan(two_theta, counts, seconds, wavelength, metadata, not_powder))
        offset = first + steps * stride
    _refuse_surplus(data, offset, n_ranges, place)
    return scans


def _header_3(data: bytes, place: str) -> tuple[dict[str, Any], tuple[Wavelength | None, tuple[Finding, ...]]]:
    radius, divergence = fields(data, "ff", 564, place, "the file header")
    detector_slit = field(data, "f", 588, place, "the file header")
    secondary_monochromator = field(data, "I", 604, place, "the file header")
    _, alpha1, alpha2, beta, ratio = fields(data, "5d", 616, place, "the wavelengths")
    unit = text_field(data, 656, 4)
    scale = 10.0 if unit.lower() == "nm" else 1.0
    anode = anode_symbol(text_field(data, 608, 4))
    wavelength = wavelength_of(
        anode=anode,
        alpha1=_known(scale * alpha1, 0.1, 5.0),
        alpha2=_known(scale * alpha2, 0.1, 5.0),
        ratio=_known(ratio, 0.0, 1.0),
        place=place,
    )
    metadata = _facts(
        sample_id=text_field(data, 326, 60),
        operator=text_field(data, 36, 72),
        comment=text_field(data, 386, 160),
        start_time=f"{text_field(data, 16, 10)} {text_field(data, 26, 10)}".strip(),
        anode=anode,
        goniometer_radius_mm=_known(radius, 20.0, 2000.0),
        divergence_slit_deg=_known(divergence, 0.001, 20.0),
        receiving_slit_mm=_known(detector_slit, 0.001, 50.0),
        monochromator="none" if secondary_monochromator == 0 else None,
        k_beta_angstrom=_known(scale * beta, 0.1, 5.0),
    )
    return metadata, wavelength


def _version_4(data: bytes, place: str) -> list[RecordedScan]:
    date, time = text_field(data, 12, 12), text_field(data, 24, 10)
    shared: dict[str, Any] = _facts(start_time=f"{date} {time}".strip())
    wavelength: tuple[Wavelength | None, tuple[Finding, ...]] = (None, ())
    scans: list[RecordedScan] = []
    offset = V4_FILE_HEADER
    while offset + 4 <= len(data):
        kind = field(data, "I", offset, place, "a segment")
        if kind in (0, V4_RANGE_HEADER):
            if not data[offset:].strip(b"\x00"):
                break
            scan, offset = _range_4(data, offset, shared, wavelength, f"{place} range {len(scans) + 1}")
            scans.append(scan)
            if len(scans) > MAX_RANGES:
                raise InputError(f"{place}: more than {MAX_RANGES} ranges; the file is damaged")
            continue
        length = _segment_length(data, offset, len(data), place)
        if kind == V4_TEXT and length >= 36:
            word, value = text_field(data, offset + 12, 24), text_field(data, offset + 36, length - 36)
            key = {"USER": "operator", "SAMPLEID": "sample_id", "COMMENT": "comment", "CREATOR": "software"}.get(word)
            if key and value:
                shared[key] = value
        elif kind == V4_HARDWARE and length >= 120:
            hardware, wavelength = _hardware_4(data, offset, place)
            shared |= hardware
        offset += length
    if not scans:
        raise InputError(f"{place}: the RAW4.00 header is there but no range; the file is cut, copy it again")
    return scans


def _segment_length(data: bytes, offset: int, end: int, place: str) -> int:
    kind, length = fields(data, "II", offset, place, "a segment")
    if length < 8 or offset + length > end:
        raise InputError(
            f"{place} byte {offset}: a segment of kind {kind} states {length} bytes and {end - offset} are left;"
            " the file is cut or damaged, copy it again"
        )
    return int(length)


def _hardware_4(
    data: bytes, offset: int, place: str
) -> tuple[dict[str, Any], tuple[Wavelength | None, tuple[Finding, ...]]]:
    diameter = field(data, "f", offset + 24, place, "the hardware segment")
    divergence = field(data, "f", offset + 36, place, "the hardware segment")
    soller = field(data, "f", offset + 44, place, "the hardware segment")
    _, alpha1, alpha2, beta, ratio = fields(data, "5d", offset + 72, place, "the hardware segment")
    anode = anode_symbol(text_field(data, offset + 116, 4))
    wavelength = wavelength_of(
        anode=anode,
        alpha1=_known(alpha1, 0.1, 5.0),
        alpha2=_known(alpha2, 0.1, 5.0),
        ratio=_known(ratio, 0.0, 1.0),
        place=place,
    )
    metadata = _facts(
        anode=anode,
        goniometer_radius_mm=_known(diameter / 2, 50.0, 2000.0),
        divergence_slit_deg=_known(divergence, 0.001, 20.0),
        soller_deg=_known(soller, 0.1, 20.0),
        k_beta_angstrom=_known(beta, 0.1, 5.0),
    )
    return metadata, wavelength


def _range_4(
    data: bytes,
    offset: int,
    shared: dict[str, Any],
    wavelength: tuple[Wavelength | None, tuple[Finding, ...]],
    place: str,
) -> tuple[RecordedScan, int]:
    """Return the scan of the range at `offset`, and where the next segment begins."""
    scan_type = text_field(data, offset + 32, 24)
    start, step, steps, time = fields(data, "ddIf", offset + 72, place, "the range header")
    voltage, current = fields(data, "ff", offset + 100, place, "the range header")
    stride, drives = fields(data, "II", offset + 136, place, "the range header")
    first = offset + V4_RANGE_HEADER + drives
    if first > len(data):
        raise InputError(f"{place}: {drives} bytes of drive records, and the file ends before; copy the file again")
    if stride % 4:
        raise InputError(f"{place}: the header states {stride} bytes a point; expected a multiple of 4: it is damaged")
    scanned = _scanned_drives(data, offset + V4_RANGE_HEADER, first, start, place)
    counts = records(data, first, steps, stride, "f4", place)
    two_theta = checked_grid(start, step, steps, place)
    bare_type = scan_type.lower().replace(" ", "").replace("_", "").replace("-", "")
    if "2Theta" in scanned or (not scanned and bare_type in TWO_THETA_TYPES_V4):
        not_powder = ""
    else:
        not_powder = f"a {scan_type or 'scan'!s} along {', '.join(scanned) or 'an unnamed axis'}, not along 2theta"
    seconds = _known(time, 1e-6, 1e7)
    metadata = shared | _facts(
        scan_axis=scan_type,
        step_time_s=seconds,
        tube_voltage_kv=_known(voltage, 1.0, 200.0),
        tube_current_ma=_known(current, 0.1, 500.0),
    )
    return _scan(two_theta, counts, seconds, wavelength, metadata, not_powder), first + steps * stride


def _scanned_drives(data: bytes, offset: int, end: int, start: float, place: str) -> list[str]:
    """Return the names of the drives that the header marks and that stand at the start of the range."""
    names: list[str] = []
    while offset < end:
        kind = field(data, "I", offset, place, "a drive record")
        length = _segment_length(data, offset, end, place)
        if kind == V4_DRIVE and length >= 64:
            flag = field(data, "I", offset + 8, place, "a drive record")
            position = field(data, "d", offset + 56, place, "a drive record")
            if flag and np.isfinite(position) and abs(position - start) <= 1e-6 + 1e-5 * abs(start):
                names.append(text_field(data, offset + 12, 24))
        offset += length
    return names
