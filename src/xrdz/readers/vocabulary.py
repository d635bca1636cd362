"""From the words of file headers to the one metadata vocabulary of `recorded.py`, and from wavelengths to lines.

Headers name the same fact in many ways ("Anode material", "ANODE", "TargetName"); the table `HEADER_WORDS` is the one
place that knows them. Keys are compared in lower case with everything but letters and digits removed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from xrdz.errors import InputError
from xrdz.findings import Code, Finding, info
from xrdz.readers.recorded import METADATA_KEYS, NUMBER_KEYS
from xrdz.wavelength import EMISSION_LINES, Wavelength, wavelength_from_name

ANODES = {24: "Cr", 26: "Fe", 27: "Co", 29: "Cu", 42: "Mo", 47: "Ag"}
GRAPHITE_SPACING = 3.354
"""Interplanar spacing of graphite 002, angstrom."""

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_FRACTION = re.compile(r"(\d+)\s*/\s*(\d+)\s*(?:°|deg)", re.IGNORECASE)
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*(?:°|deg)", re.IGNORECASE)


def number_in(text: str) -> float | None:
    """Return the first number in a header value, or None; a lone decimal comma counts as a point."""
    found = _NUMBER.search(re.sub(r"(?<=\d),(?=\d)", ".", text) if text.count(",") == 1 else text)
    return float(found.group()) if found else None


def positive_in(text: str) -> float | None:
    """Return the first number in a header value if it is positive and finite, else None."""
    value = number_in(text)
    return value if value is not None and 0 < value < math.inf else None


def slit_degrees(text: str) -> float | None:
    """Return the opening in degrees that a slit's name states, such as 0.5 from `Fixed slit 1/2°`, or None."""
    fraction = _FRACTION.search(text)
    if fraction and float(fraction.group(2)) > 0:
        return float(fraction.group(1)) / float(fraction.group(2))
    degrees = _DEGREES.search(text)
    return float(degrees.group(1)) if degrees else None


def unquoted(value: str) -> str:
    """Return text without blanks around it and without one pair of quotes around it."""
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1].strip()
    return value


def _text(value: str) -> str | None:
    cleaned = " ".join(unquoted(value).split())
    return cleaned or None


def anode_symbol(value: str) -> str | None:
    """Return the chemical symbol of a tube anode from `Cu`, `COPPER` or `29`, or None if it is not a known anode."""
    word = value.strip().strip("'\"").lower()
    names = {"copper": "Cu", "cobalt": "Co", "chromium": "Cr", "iron": "Fe", "molybdenum": "Mo", "silver": "Ag"}
    if word.isdecimal() and len(word) < 4:
        return ANODES.get(int(word))
    symbol = names.get(word, word[:2].capitalize())
    return symbol if symbol in ANODES.values() else None


HEADER_WORDS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "sample": ("sample_id", _text),
    "sampleid": ("sample_id", _text),
    "samplename": ("sample_id", _text),
    "sampleident": ("sample_id", _text),
    "sampleidentification": ("sample_id", _text),
    "id": ("sample_id", _text),
    "title": ("sample_id", _text),
    "filesample": ("sample_id", _text),
    "operator": ("operator", _text),
    "user": ("operator", _text),
    "author": ("operator", _text),
    "measuredby": ("operator", _text),
    "fileoperator": ("operator", _text),
    "date": ("start_time", _text),
    "datemeasured": ("start_time", _text),
    "measuredatetime": ("start_time", _text),
    "measurementdate": ("start_time", _text),
    "measurementdatetime": ("start_time", _text),
    "starttime": ("start_time", _text),
    "scandate": ("start_time", _text),
    "measscanstarttime": ("start_time", _text),
    "diffrtype": ("instrument", _text),
    "diffractometer": ("instrument", _text),
    "diffractometersystem": ("instrument", _text),
    "diffractometertype": ("instrument", _text),
    "instrument": ("instrument", _text),
    "gonio": ("instrument", _text),
    "hwgoniometername": ("instrument", _text),
    "anode": ("anode", anode_symbol),
    "anodematerial": ("anode", anode_symbol),
    "target": ("anode", anode_symbol),
    "tubeanode": ("anode", anode_symbol),
    "hwxgtargetname": ("anode", anode_symbol),
    "kv": ("tube_voltage_kv", positive_in),
    "voltage": ("tube_voltage_kv", positive_in),
    "tension": ("tube_voltage_kv", positive_in),
    "tubetension": ("tube_voltage_kv", positive_in),
    "generatorvoltage": ("tube_voltage_kv", positive_in),
    "meascondxgvoltage": ("tube_voltage_kv", positive_in),
    "ma": ("tube_current_ma", positive_in),
    "current": ("tube_current_ma", positive_in),
    "tubecurrent": ("tube_current_ma", positive_in),
    "generatorcurrent": ("tube_current_ma", positive_in),
    "meascondxgcurrent": ("tube_current_ma", positive_in),
    "timeperstep": ("step_time_s", positive_in),
    "timeperstepsec": ("step_time_s", positive_in),
    "timepersteps": ("step_time_s", positive_in),
    "steptime": ("step_time_s", positive_in),
    "steptimes": ("step_time_s", positive_in),
    "scansteptime": ("step_time_s", positive_in),
    "scansteptimes": ("step_time_s", positive_in),
    "countingtime": ("step_time_s", positive_in),
    "countingtimes": ("step_time_s", positive_in),
    "counttime": ("step_time_s", positive_in),
    "goniometerradius": ("goniometer_radius_mm", positive_in),
    "goniometerradiusmm": ("goniometer_radius_mm", positive_in),
    "radius": ("goniometer_radius_mm", positive_in),
    "radiusmm": ("goniometer_radius_mm", positive_in),
    "filter": ("filter", _text),
    "betafilter": ("filter", _text),
    "monochromator": ("monochromator", _text),
    "monochromatorused": ("monochromator", lambda word: {"YES": "diffracted beam", "NO": "none"}.get(word.upper())),
    "diffractedbeammonochromator": ("monochromator", _text),
    "incidentbeammonochromator": ("monochromator", _text),
    "soller": ("soller_deg", positive_in),
    "sollerdeg": ("soller_deg", positive_in),
    "divergenceslit": ("divergence_slit_deg", positive_in),
    "fixeddivslit": ("divergence_slit_deg", positive_in),
    "fixeddetslit": ("receiving_slit_mm", positive_in),
    "divergenceslitsize": ("divergence_slit_deg", positive_in),
    "receivingslit": ("receiving_slit_mm", positive_in),
    "receivingslitmm": ("receiving_slit_mm", positive_in),
    "receivingslitsizemm": ("receiving_slit_mm", positive_in),
    "detector": ("detector", _text),
    "detectorname": ("detector", _text),
    "hwcounterselectname": ("detector", _text),
    "scanaxis": ("scan_axis", _text),
    "scantype": ("scan_axis", _text),
    "drive": ("scan_axis", _text),
    "temperature": ("temperature_k", positive_in),
    "comment": ("comment", _text),
    "memo": ("comment", _text),
    "filecomment": ("comment", _text),
    "software": ("software", _text),
    "creator": ("software", _text),
}
"""Normalised header word -> (metadata key, conversion); a conversion returns None when the value says nothing."""

WAVELENGTH_WORDS: Mapping[str, str] = {
    "wavelength": "principal",
    "wavelengtha": "principal",
    "wavelengthangstrom": "principal",
    "lambda": "principal",
    "usedlambda": "principal",
    "usedwavelength": "principal",
    "rangewl": "principal",
    "kalpha1": "alpha1",
    "kalpha1wavelength": "alpha1",
    "kalpha1wavelengtha": "alpha1",
    "kalpha1a": "alpha1",
    "ka1": "alpha1",
    "alpha1": "alpha1",
    "wl1": "alpha1",
    "wavelength1": "alpha1",
    "hwxgwavelengthalpha1": "alpha1",
    "kalpha2": "alpha2",
    "kalpha2wavelength": "alpha2",
    "kalpha2wavelengtha": "alpha2",
    "kalpha2a": "alpha2",
    "ka2": "alpha2",
    "alpha2": "alpha2",
    "wl2": "alpha2",
    "wavelength2": "alpha2",
    "hwxgwavelengthalpha2": "alpha2",
    "ratiokalpha2kalpha1": "ratio",
    "kalpha2kalpha1ratio": "ratio",
    "ka2ka1ratio": "ratio",
    "ka2ka1": "ratio",
    "wlratio": "ratio",
    "ratio": "ratio",
    "kbeta": "beta",
    "kbetawavelength": "beta",
    "kbetawavelengtha": "beta",
    "kbetaa": "beta",
    "wl3": "beta",
    "hwxgwavelengthbeta": "beta",
}


def normalised(key: str) -> str:
    """Return a header key in lower case without blanks, units in brackets and punctuation."""
    bare = re.sub(r"[\[(].*?[\])]", "", key).lower().replace("α", "alpha").replace("β", "beta").replace("λ", "lambda")
    return re.sub(r"[^a-z0-9]", "", bare)


def metadata_of(pairs: Mapping[str, str]) -> dict[str, Any]:
    """Return metadata in the one vocabulary from header keys and values; the first word for a fact wins."""
    metadata: dict[str, Any] = {}
    for key, value in pairs.items():
        bare = key.strip()
        if bare in METADATA_KEYS:
            name: str = bare
            convert: Callable[[str], Any] = positive_in if bare in NUMBER_KEYS else _text
        else:
            entry = HEADER_WORDS.get(normalised(key))
            if entry is None:
                continue
            name, convert = entry
        if name in metadata:
            continue
        converted = convert(value)
        if converted is not None:
            metadata[name] = converted
    return metadata


def exact_metadata(lines: Iterable[str]) -> dict[str, Any]:
    """Return metadata from lines `key: value` whose key is a word of the vocabulary itself, as our writers do."""
    return metadata_of({key: value for key, value in key_values(lines).items() if key in METADATA_KEYS})


def key_values(lines: Iterable[str]) -> dict[str, str]:
    """Return the keys and values of lines `key: value`; other lines are left out."""
    split = (line.strip().partition(":") for line in lines)
    return {key.strip(): value.strip() for key, colon, value in split if colon}


def line_is_own(line: str) -> bool:
    """Return whether a line is one that our writers leave, rather than a comment of the laboratory."""
    return line.partition(":")[0].strip() in METADATA_KEYS | {"wavelength_lines", "wavelength_name"}


def stated_lines(pairs: Mapping[str, str]) -> Wavelength | None:
    """Return the emission lines of `wavelength_lines: angstrom weight; angstrom weight`, as our writers leave them."""
    numbers = [part.split() for part in pairs.get("wavelength_lines", "").split(";")]
    if not all(len(pair) == 2 and all(_NUMBER.fullmatch(number) for number in pair) for pair in numbers):
        return None
    lines = tuple((float(angstrom), float(weight)) for angstrom, weight in numbers)
    if not all(0.1 <= angstrom <= 5.0 and weight > 0 for angstrom, weight in lines):
        return None
    return Wavelength(lines, pairs.get("wavelength_name", "").strip(), "file")


def wavelength_values(pairs: Mapping[str, str]) -> dict[str, float]:
    """Return the wavelengths in angstrom and the doublet ratio that header keys name: principal, alpha1, alpha2, ..."""
    values: dict[str, float] = {}
    for key, text in pairs.items():
        word = WAVELENGTH_WORDS.get(normalised(key))
        value = positive_in(text) if word else None
        if word and value is not None and word not in values:
            in_nanometre = word != "ratio" and re.search(r"\bnm\b", f"{key} {text}", re.IGNORECASE)
            values[word] = 10 * value if in_nanometre else value
    return values


def with_monochromator_angle(metadata: dict[str, Any], wavelength: Wavelength | None) -> dict[str, Any]:
    """Return the metadata with the angle of a graphite monochromator that is named without its angle, deg."""
    text = str(metadata.get("monochromator", "")).lower()
    if "graphite" in text and "monochromator_two_theta_deg" not in metadata and wavelength is not None:
        sine = wavelength.principal / (2 * GRAPHITE_SPACING)
        return metadata | {"monochromator_two_theta_deg": round(2 * math.degrees(math.asin(sine)), 2)}
    return metadata


def wavelength_of(
    *,
    anode: str | None = None,
    principal: float | None = None,
    alpha1: float | None = None,
    alpha2: float | None = None,
    ratio: float | None = None,
    alpha1_only: bool = False,
    place: str = "",
) -> tuple[Wavelength | None, tuple[Finding, ...]]:
    """Return the emission lines from what a file states, angstrom.

    A tube gives a doublet: a lone number that is the K-alpha1 or the mean K-alpha of a tube stands for both lines
    unless the file says that K-alpha2 was removed (`alpha1_only`). Any other lone number is monochromatic radiation.

    Returns
    -------
    the wavelength (None when the file states none), and a finding where a lone number was taken as a doublet
    """
    first = next((value for value in (alpha1, principal) if value is not None and 0.1 <= value <= 5.0), None)
    if first is None:
        if anode is None or f"{anode}Ka" not in EMISSION_LINES:
            return None, ()
        return wavelength_from_name(f"{anode}Ka1" if alpha1_only else f"{anode}Ka", origin="file"), ()
    if alpha1_only:
        return Wavelength(((first, 1.0),), _tube_name(first, "1"), "file"), ()
    if alpha2 is not None and first < alpha2 < 1.01 * first:
        weight = ratio if ratio is not None and 0.0 < ratio <= 1.0 else 0.5
        return Wavelength(((first, 1.0), (alpha2, weight)), _tube_name(first, ""), "file"), ()
    tube = _tube_of_lone(first)
    if tube:
        note = info(
            Code.READER_NOTE,
            f"the file states {first:g} angstrom alone; taken as the {tube} doublet, as a tube emits both lines",
            place,
            f'name "{tube}1" in the method if K-alpha2 was removed by a monochromator',
        )
        return wavelength_from_name(tube, origin="file"), (note,)
    return Wavelength(((first, 1.0),), "", "file"), ()


def _tube_name(angstrom: float, suffix: str) -> str:
    for name, lines in EMISSION_LINES.items():
        if abs(lines[0][0] - angstrom) < 3e-4 * angstrom:
            return name + suffix
    return ""


def _tube_of_lone(angstrom: float) -> str:
    for name, lines in EMISSION_LINES.items():
        mean = (2 * lines[0][0] + lines[1][0]) / 3
        if min(abs(lines[0][0] - angstrom), abs(mean - angstrom)) < 2e-4 * angstrom:
            return name
    return ""


_LINE_NAME = re.compile(r"\b(Cr|Fe|Co|Cu|Mo|Ag)[\s_-]*K[\s_-]*(?:alpha|α|a)[\s_-]*(1?)(?![0-9])", re.IGNORECASE)


def line_named_in(text: str) -> str:
    """Return `CuKa` or `CuKa1` when free text names the radiation of a tube, else ""; both lines named is a doublet."""
    found = [(match.group(1).capitalize(), match.group(2)) for match in _LINE_NAME.finditer(text)]
    anodes = {anode for anode, _ in found}
    if len(anodes) != 1:
        return ""
    only_first = all(suffix == "1" for _, suffix in found) and not re.search(
        r"K[\s_-]*(?:alpha|α|a)[\s_-]*2", text, re.I
    )
    return f"{anodes.pop()}Ka{'1' if only_first else ''}"


def wavelength_or_refuse(name: str, place: str) -> Wavelength:
    """Return the lines of a tube by name, or refuse naming the file."""
    try:
        return wavelength_from_name(name, origin="file")
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
