"""Header lines of text exports: keys and values, the radiation, the radius and the monochromator."""

from __future__ import annotations

import re
from typing import Any

from xrdz.findings import Finding
from xrdz.readers.vocabulary import (
    line_named_in,
    metadata_of,
    stated_lines,
    unquoted,
    wavelength_of,
    wavelength_or_refuse,
    wavelength_values,
    with_monochromator_angle,
)
from xrdz.wavelength import Wavelength

MAX_KEY = 60
_KEY_END = re.compile(r"[:=,;\t]")
_EVA_PAIR = re.compile(r"""([A-Za-z][\w ]{0,30}?)\s*:\s*"([^"]*)\"""")
_PHILIPS_WORD = re.compile(
    r"\b(SampleIdent|DiffrType|GeneratorVoltage|TubeCurrent|Anode|Alpha1|Alpha2|Ratio|DivergenceSlit|ReceivingSlit"
    r"|MonochromatorUsed|MeasureDateTime|StepTime)\s+(\S+)"
)
"""Words and values side by side, as Philips' converters to RIET7 and XDD write them."""

_RADIUS = re.compile(r"\bR\s*=?\s*(\d+(?:\.\d+)?)\s*mm\b")
_MONOCHROMATOR = re.compile(r"\bmonochromator\s*[:=]\s*([^\n]*)", re.IGNORECASE)
_MONOCHROMATOR_ANGLE = re.compile(r"\b2theta_m\s*=?\s*(\d+(?:\.\d+)?)", re.IGNORECASE)
_POINTS_KEYS = re.compile(r"^(?:no\.?\s*of\s*points|number\s*of\s*points|points|npoints|n_points|step\s*count)$", re.I)


def header_pairs(header: tuple[str, ...]) -> dict[str, str]:
    """Return the keys and values of a header: `key: value`, `key = value`, `key,value`, and EVA's `Key: "value"`."""
    pairs: dict[str, str] = {}
    for line in header:
        words = _PHILIPS_WORD.findall(line)
        if len(words) >= 2:
            for key, value in words:
                pairs.setdefault(key, value)
            continue
        eva = _EVA_PAIR.findall(line) if '"' in line else []
        if len(eva) >= 2:
            for key, value in eva:
                pairs.setdefault(key, value)
            continue
        bare = line.lstrip(" \t#!;'%*/")
        end = _KEY_END.search(bare)
        if end and 0 < end.start() <= MAX_KEY and bare[end.end() :].strip():
            pairs.setdefault(unquoted(bare[: end.start()]), unquoted(bare[end.end() :].strip().rstrip(",;")))
    return pairs


def header_facts(
    header: tuple[str, ...], pairs: dict[str, str], place: str
) -> tuple[dict[str, Any], Wavelength | None, tuple[Finding, ...]]:
    """Return metadata, wavelength and findings from header lines and their keys."""
    metadata = metadata_of(pairs)
    text = "\n".join(header)
    radius = _RADIUS.search(text)
    if radius and "goniometer_radius_mm" not in metadata and float(radius.group(1)) > 0:
        metadata["goniometer_radius_mm"] = float(radius.group(1))
    monochromator = _MONOCHROMATOR.search(text)
    if monochromator and monochromator.group(1).strip():
        metadata["monochromator"] = monochromator.group(1).strip()
    angle = _MONOCHROMATOR_ANGLE.search(text)
    if angle and 0 < float(angle.group(1)) < 180:
        metadata["monochromator_two_theta_deg"] = float(angle.group(1))
    named = line_named_in(text)
    values = wavelength_values(pairs)
    if "beta" in values:
        metadata.setdefault("k_beta_angstrom", values["beta"])
    findings: tuple[Finding, ...] = ()
    wavelength = stated_lines(pairs)
    if wavelength is not None:
        pass
    elif named and not {"principal", "alpha1", "alpha2"} & set(values):
        wavelength = wavelength_or_refuse(named, place)
    else:
        wavelength, findings = wavelength_of(
            anode=metadata.get("anode") or (named[:2] or None),
            principal=values.get("principal"),
            alpha1=values.get("alpha1"),
            alpha2=values.get("alpha2"),
            ratio=values.get("ratio"),
            alpha1_only=named.endswith("1") and "alpha2" not in values,
            place=place,
        )
    if wavelength is not None and wavelength.anode:
        metadata.setdefault("anode", wavelength.anode)
    return with_monochromator_angle(metadata, wavelength), wavelength, findings


def announced_points(pairs: dict[str, str]) -> int | None:
    """Return the number of points that a header announces, or None."""
    for key, value in pairs.items():
        if _POINTS_KEYS.match(key.strip()) and re.fullmatch(r"\d{1,8}", value.strip()):
            return int(value)
    return None
