"""Philips UDF (text) and the PC-APD binaries RD ("V3RD") and SD ("V5RD").

RD and SD store v with counts = v^2 / 100, cut to a whole number as Philips' own converter does: the round-robin scans
exist both ways and agree in every point.
Offsets: xylib's description of the format; the largest v at byte 136 and the length of the file are checked.
"""

from __future__ import annotations

import math
import re

import numpy as np

from xrdz.errors import InputError
from xrdz.findings import Code, Finding, warning
from xrdz.readers.binary import checked_grid, field, fields, records, text_field
from xrdz.readers.content import Content, decoded_text, head_text
from xrdz.readers.recorded import RecordedScan
from xrdz.readers.vocabulary import anode_symbol, positive_in, slit_degrees, wavelength_of

DATA_START = {b"V3RD": 250, b"V5RD": 810}
RD_ANODES = {0: "Cu", 1: "Mo", 2: "Fe", 3: "Cr"}
RD_INSTRUMENTS = {0: "PW1800", 1: "PW1710", 2: "PW1840", 3: "PW3710", 5: "X'Pert MPD"}


def sniff_udf(head: bytes, name: str) -> bool:
    """Return whether the file begins with `SampleIdent,`."""
    del name
    return head_text(head[:64]).lstrip().startswith("SampleIdent,")


def sniff_rd(head: bytes, name: str) -> bool:
    """Return whether the file begins with one of the two signatures."""
    del name
    return head[:4] in DATA_START


def read_udf(content: Content) -> list[RecordedScan]:
    """Read a UDF file: `Key,value,/` lines, then `RawScan` and intensities until a slash.

    Raises
    ------
    InputError
        If the range or the step is missing or an intensity is damaged.
    """
    place = content.place
    lines = decoded_text(content.data, place).split("\n")
    keys: dict[str, str] = {}
    first = None
    for index, raw_line in enumerate(lines):
        line = raw_line.strip()
        if line.startswith("RawScan"):
            first = index + 1
            break
        key, _, value = line.partition(",")
        keys[key.strip()] = re.sub(r"\s*,?\s*/\s*$", "", value).strip()
    if first is None:
        raise InputError(f"{place}: no RawScan line; the file is cut before its intensities, copy it again")
    text = "\n".join(lines[first:])
    body, slash, after = text.partition("/")
    if slash and after.strip():
        raise InputError(f"{place}: text after the closing slash: {after.strip()[:30]!r}; the file is damaged")
    tokens = body.replace(",", " ").split()
    wrong = next((token for token in tokens if not re.fullmatch(r"\d+(?:\.\d*)?", token)), None)
    if wrong is not None:
        line_number = first + 1 + text[: text.index(wrong)].count("\n")
        raise InputError(f"{place} line {line_number}: {wrong[:40]!r} is not an intensity; the file is damaged")
    angles = re.findall(r"[-+]?\d+\.?\d*", keys.get("DataAngleRange", ""))
    step = positive_in(keys.get("ScanStepSize", ""))
    if len(angles) != 2 or step is None:
        raise InputError(
            f"{place}: DataAngleRange {keys.get('DataAngleRange')!r}, ScanStepSize {keys.get('ScanStepSize')!r};"
            " both are needed: export the scan again"
        )
    start, end = float(angles[0]), float(angles[1])
    announced = math.floor((end - start) / step + 0.5) + 1
    # The step is rounded in the header; the stated end fixes it when all points are there.
    exact = (end - start) / (announced - 1) if announced > 1 and len(tokens) == announced else step
    findings: list[Finding] = []
    if not slash:
        findings.append(
            warning(
                Code.TRUNCATED_FILE, "the closing slash after the intensities is missing", place, "copy the file again"
            )
        )
    slit = keys.get("DivergenceSlit", "")
    if slit.lower().startswith("auto"):
        findings.append(
            warning(
                Code.READER_NOTE,
                f"the divergence slit is automatic ({slit}): the irradiated area changes with 2theta",
                place,
                "use a fixed slit, or expect intensities that are low at low angles",
            )
        )
    anode = anode_symbol(keys.get("Anode", ""))
    wavelength, notes = wavelength_of(
        anode=anode,
        alpha1=positive_in(keys.get("LabdaAlpha1", "")),
        alpha2=positive_in(keys.get("LabdaAlpha2", "")),
        ratio=positive_in(keys.get("RatioAlpha21", "")),
        place=place,
    )
    fixed = slit.lower().startswith("fixed")
    used = keys.get("MonochromatorUsed", "").strip().upper()
    facts = {
        "sample_id": keys.get("SampleIdent", ""),
        "comment": "; ".join(keys[word] for word in ("Title1", "Title2") if keys.get(word)),
        "instrument": keys.get("DiffrType", "").replace("?", ""),
        "anode": anode,
        "tube_voltage_kv": positive_in(keys.get("GeneratorVoltage", "")),
        "tube_current_ma": positive_in(keys.get("TubeCurrent", "")),
        "start_time": keys.get("FileDateTime", ""),
        "step_time_s": positive_in(keys.get("ScanStepTime", "")),
        "divergence_slit_deg": (slit_degrees(slit + " deg") or positive_in(slit)) if fixed else None,
        "divergence_slit": slit if slit and not fixed else "",
        "receiving_slit_mm": positive_in(keys.get("ReceivingSlit", "")),
        "monochromator": {"YES": "diffracted beam", "NO": "none"}.get(used, ""),
    }
    return [
        RecordedScan(
            position=checked_grid(start, exact, len(tokens), place),
            intensity=np.array([float(token) for token in tokens], dtype=np.float64),
            step_time_s=positive_in(keys.get("ScanStepTime", "")),
            wavelength=wavelength,
            announced_points=announced,
            label=f"{start:g} to {end:g} deg, {len(tokens)} points",
            metadata={key: value for key, value in facts.items() if value not in (None, "")},
            findings=(*notes, *findings),
        )
    ]


def read_rd(content: Content) -> list[RecordedScan]:
    """Read an RD or SD file.

    Raises
    ------
    InputError
        If the range in the header and the length of the file disagree, or the largest value is not the one it states.
    """
    data, place = content.data, content.place
    step, start, end = fields(data, "3d", 214, place, "the range header")
    if not (math.isfinite(step) and math.isfinite(start) and math.isfinite(end)) or step <= 0 or end <= start:
        raise InputError(f"{place}: the header gives {start:g} to {end:g} by {step:g} deg; it is damaged")
    if (end - start) / step > 1e6:
        raise InputError(f"{place}: the header gives a step of {step:g} deg; it is damaged")
    points = round((end - start) / step) + 1
    first = DATA_START[data[:4]]
    packed = records(data, first, points, 2, "u2", place)
    extra = len(data) - first - 2 * points
    if extra and data[first + 2 * points :].strip(b"\x00\x1a"):
        raise InputError(
            f"{place}: {start:g} to {end:g} by {step:g} deg are {points} points, but {extra} bytes follow them;"
            " the file is damaged or of another layout: export it as .udf"
        )
    stated = field(data, "H", 136, place, "the file header")
    if data[:4] == b"V3RD" and stated and stated != int(packed.max()):
        raise InputError(
            f"{place}: the largest stored value is {packed.max():g}, but the header says {stated}; the file is damaged"
        )
    alpha1, alpha2, ratio = fields(data, "3d", 94, place, "the wavelengths")
    anode = RD_ANODES.get(data[85])
    wavelength, notes = wavelength_of(
        anode=anode,
        alpha1=alpha1 if math.isfinite(alpha1) and alpha1 > 0 else None,
        alpha2=alpha2 if math.isfinite(alpha2) and alpha2 > 0 else None,
        ratio=ratio if math.isfinite(ratio) and 0 < ratio <= 1 else None,
        place=place,
    )
    facts = {
        "sample_id": text_field(data, 146, 20) or text_field(data, 138, 8),
        "instrument": RD_INSTRUMENTS.get(data[84], ""),
        "anode": anode,
    }
    return [
        RecordedScan(
            position=checked_grid(start, step, points, place),
            intensity=np.floor_divide(packed.astype(np.int64) ** 2, 100).astype(np.float64),
            unit="counts",
            wavelength=wavelength,
            label=f"{start:g} to {end:g} deg, {points} points",
            metadata={key: value for key, value in facts.items() if value},
            findings=notes,
        )
    ]
