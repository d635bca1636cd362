"""Powder CIF: a measured or processed profile in a loop, with its angles in the loop or as a range.

Measured items go together and come first: `_pd_meas_*` intensities with `_pd_meas_*` angles, and `_pd_proc_*` with
`_pd_proc_*`. Uncertainties are those in brackets, an `_su` item, or `_pd_proc_ls_weight` = 1 / su^2.
Source: International Tables for Crystallography G (2005), chapter 3.3 and 4.2, pdCIF dictionary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xrdz.diffractogram import FloatArray
from xrdz.errors import InputError
from xrdz.findings import Code, Finding, severe
from xrdz.readers.content import Content, decoded_text, head_text
from xrdz.readers.recorded import RecordedScan, Unit
from xrdz.readers.vocabulary import (
    exact_metadata,
    key_values,
    line_named_in,
    positive_in,
    stated_lines,
    wavelength_of,
    wavelength_or_refuse,
    with_monochromator_angle,
)
from xrdz.wavelength import EMISSION_LINES, Wavelength

_TOKEN = re.compile(
    r"""(?:^|(?<=\n));(?P<field>.*?)\n;(?=\s|$)"""
    r"""|'(?P<single>(?:[^'\n]|'(?=\S))*)'(?=\s|$)"""
    r"""|"(?P<double>(?:[^"\n]|"(?=\S))*)"(?=\s|$)"""
    r"""|(?P<comment>\#[^\n]*)"""
    r"""|(?P<bare>[^\s]+)""",
    re.DOTALL,
)
_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?)(?:\((\d+)\))?\Z")
_CALCULATED = re.compile(r"(?:^|_)calc(?:_|$)", re.IGNORECASE)
"""Name of a block that holds the pattern of a model beside the measured one."""

MAX_PROFILES = 1000

MEASURED = (
    ("_pd_meas_counts_total", "counts"),
    ("_pd_meas_intensity_total", "unknown"),
    ("_pd_proc_intensity_total", "unknown"),
    ("_pd_proc_intensity_net", "unknown"),
)
ANGLES = {
    "_pd_meas": ("_pd_meas_2theta_scan", "_pd_meas_angle_2theta", "_pd_meas_2theta_corrected"),
    "_pd_proc": ("_pd_proc_2theta_corrected",),
}


@dataclass
class _Block:
    """One data block while it is read: single items, and loops as name -> column."""

    name: str
    items: dict[str, str] = field(default_factory=dict)
    loops: list[dict[str, list[str]]] = field(default_factory=list)


def sniff_pdcif(head: bytes, name: str) -> bool:
    """Return whether the file is a CIF: a `data_` block, or the suffix and a CIF comment."""
    text = head_text(head)
    # Finding a word is much faster than trying the pattern at every line.
    block = "data_" in text and re.search(r"^data_\S", text, re.MULTILINE) is not None
    return block or (name.endswith(".cif") and text.startswith("#"))


def read_pdcif(content: Content) -> list[RecordedScan]:
    """Read every profile of a powder CIF.

    Raises
    ------
    InputError
        If a loop is cut, or no block holds a profile: a CIF of a structure is not a scan.
    """
    blocks = _blocks(decoded_text(content.data, content.place), content.place)
    shared: dict[str, str] = {}
    for block in blocks:
        for key, value in block.items.items():
            shared.setdefault(key, value)
    lines = _radiation(blocks)
    scans: list[RecordedScan] = []
    measured = [block for block in blocks if not _CALCULATED.search(block.name)] or blocks
    for block in measured:
        for loop in block.loops:
            chosen = next(((name, unit) for name, unit in MEASURED if name in loop), None)
            if chosen is not None:
                scans.append(_profile(block, loop, chosen, shared, lines, content.place))
            if len(scans) > MAX_PROFILES:
                raise InputError(f"{content.place}: more than {MAX_PROFILES} profiles; give one scan a file")
    if not scans:
        raise InputError(
            f"{content.place}: a CIF without a powder profile (no loop of {MEASURED[0][0]} or the like);"
            " give a scan, and the structure with --cif"
        )
    return scans


def _canonical(name: str) -> str:
    """Return an item name in the spelling of the first dictionary: DDLm writes dots where DDL1 wrote underscores."""
    return name.lower().replace(".", "_")


def _blocks(text: str, place: str) -> list[_Block]:
    """Return the data blocks; comments are dropped, values are text."""
    blocks: list[_Block] = []
    pending: str | None = None
    names: list[str] = []
    values: list[str] = []
    in_loop = in_values = False

    def close_loop() -> None:
        nonlocal in_loop, in_values, names, values
        if in_loop and names and values:
            if len(values) % len(names):
                raise InputError(
                    f"{place}: the loop of {names[0]} has {len(values)} values for {len(names)} items; it is cut or"
                    " a value is missing, copy or export it again"
                )
            if blocks:
                blocks[-1].loops.append({name: values[i :: len(names)] for i, name in enumerate(names)})
        in_loop = in_values = False
        names, values = [], []

    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "comment":
            continue
        token = match.group(kind) if kind else ""
        if kind == "bare":
            lower = token.lower()
            if lower.startswith("data_"):
                close_loop()
                blocks.append(_Block(token[5:]))
                pending = None
                continue
            if lower == "loop_":
                close_loop()
                in_loop = True
                continue
            if token.startswith("_"):
                if in_loop and not in_values:
                    names.append(_canonical(token))
                else:
                    close_loop()
                    pending = _canonical(token)
                continue
        if in_loop:
            in_values = True
            values.append(token)
        elif pending is not None and blocks:
            blocks[-1].items.setdefault(pending, token.strip())
            pending = None
    close_loop()
    return blocks


def _numbers(texts: list[str], name: str, place: str) -> tuple[FloatArray, FloatArray | None]:
    """Return values and the uncertainties in brackets (None when no value has one); `.` and `?` are missing."""
    values, su = np.full(len(texts), np.nan), np.full(len(texts), np.nan)
    for index, text in enumerate(texts):
        if text in (".", "?"):
            continue
        match = _NUMBER.match(text)
        if match is None:
            raise InputError(
                f"{place}: {name} row {index + 1} is {text[:40]!r}, not a number; correct it or export again"
            )
        digits = match.group(1)
        values[index] = float(digits.replace("d", "e").replace("D", "e"))
        if match.group(2):
            mantissa, _, exponent = digits.lower().replace("d", "e").partition("e")
            decimals = len(mantissa.partition(".")[2])
            su[index] = float(match.group(2)) * 10.0 ** (int(exponent or 0) - decimals)
    return values, su if bool(np.isfinite(su).any()) else None


def _profile(
    block: _Block,
    loop: Mapping[str, list[str]],
    chosen: tuple[str, str],
    shared: Mapping[str, str],
    lines: tuple[tuple[float, float], ...],
    place: str,
) -> RecordedScan:
    name, unit_word = chosen
    where = f"{place} block {block.name}"
    items = {**shared, **block.items}
    intensity, su = _numbers(loop[name], name, where)
    position, announced, not_powder = _positions(block, loop, name, intensity.size, where)
    if f"{name}_su" in loop:
        su, _ = _numbers(loop[f"{name}_su"], f"{name}_su", where)
    elif su is None and "_pd_proc_ls_weight" in loop:
        weight, _ = _numbers(loop["_pd_proc_ls_weight"], "_pd_proc_ls_weight", where)
        if np.count_nonzero(weight > 0) > 0.5 * weight.size:
            with np.errstate(divide="ignore", invalid="ignore"):
                su = np.where(weight > 0, 1.0 / np.sqrt(weight), 0.0)
    unit: Unit = "counts" if unit_word == "counts" else "unknown"
    metadata, wavelength, findings = _facts(items, lines, where)
    return RecordedScan(
        position=position,
        intensity=intensity,
        su=None if unit == "counts" else su,
        step_time_s=metadata.get("step_time_s"),
        unit=unit,
        wavelength=wavelength,
        announced_points=announced,
        not_powder=not_powder,
        label=f"block {block.name}, {name}, {intensity.size} points",
        metadata=metadata,
        findings=findings,
    )


def _positions(
    block: _Block, loop: Mapping[str, list[str]], intensity_name: str, n_points: int, place: str
) -> tuple[FloatArray, int | None, str]:
    """Return 2theta in degrees, the announced number of points, and why this is no 2theta scan (or "")."""
    own, other = ("_pd_meas", "_pd_proc") if intensity_name.startswith("_pd_meas") else ("_pd_proc", "_pd_meas")
    for family in (own, other):
        for name in ANGLES[family]:
            if name in loop:
                return _numbers(loop[name], name, place)[0], _announced(block, family), ""
        limits = [positive_in(block.items.get(f"{family}_2theta_range_{word}", "")) for word in ("min", "max", "inc")]
        low, high, step = limits
        if low is not None and high is not None:
            grid = np.linspace(low, high, n_points) if n_points > 1 else np.array([low])
            expected = _announced(block, family)
            if step is not None:
                expected = expected or round((high - low) / step) + 1
                if expected != n_points:
                    grid = low + step * np.arange(n_points)
            return grid, expected, ""
    return np.arange(float(n_points)), None, "the profile has no 2theta, only d, time of flight or point numbers"


def _announced(block: _Block, family: str) -> int | None:
    text = block.items.get(f"{family}_number_of_points", "")
    return int(text) if re.fullmatch(r"\d{1,8}", text) else None


def _radiation(blocks: list[_Block]) -> tuple[tuple[float, float], ...]:
    """Return the wavelengths of the file with their weights, the first of all blocks that state any."""
    for block in blocks:
        for loop in block.loops:
            if "_diffrn_radiation_wavelength" in loop:
                values = [positive_in(text) for text in loop["_diffrn_radiation_wavelength"]]
                weights = [
                    positive_in(text) for text in loop.get("_diffrn_radiation_wavelength_wt", ["1"] * len(values))
                ]
                pairs = [
                    (v, w or 1.0) for v, w in zip(values, weights, strict=True) if v is not None and 0.1 <= v <= 5.0
                ]
                if pairs:
                    return tuple(sorted(pairs, key=lambda pair: -pair[1]))
        single = positive_in(block.items.get("_diffrn_radiation_wavelength", ""))
        if single is not None and 0.1 <= single <= 5.0:
            return ((single, 1.0),)
    return ()


def _facts(
    items: Mapping[str, str], lines: tuple[tuple[float, float], ...], place: str
) -> tuple[dict[str, Any], Wavelength | None, tuple[Finding, ...]]:
    def known(*names: str) -> str:
        return next((items[name] for name in names if items.get(name, "?").strip() not in ("?", ".", "")), "")

    findings: tuple[Finding, ...] = ()
    details = known("_pd_meas_special_details")
    wavelength = stated_lines(key_values(details.split("\n")))
    named = line_named_in(known("_diffrn_radiation_type").replace("\\a", "a").replace("~", ""))
    if wavelength is not None:
        pass
    elif len(lines) > 1:
        tube = next((n for n, known_lines in EMISSION_LINES.items() if abs(known_lines[0][0] - lines[0][0]) < 5e-4), "")
        wavelength = Wavelength(lines, tube if len(lines) == 2 else "", "file")
    elif lines:
        wavelength, findings = wavelength_of(principal=lines[0][0], alpha1_only=named.endswith("1"), place=place)
    elif named:
        wavelength = wavelength_or_refuse(named, place)
    if known("_diffrn_radiation_probe").lower().startswith(("neutron", "electron")):
        findings = (
            *findings,
            severe(
                Code.READER_NOTE,
                f"measured with {known('_diffrn_radiation_probe')}s, not with X-rays",
                place,
                "give an X-ray scan",
            ),
        )
    own = exact_metadata(details.split("\n"))
    temperature = positive_in(known("_diffrn_ambient_temperature", "_pd_meas_temperature"))
    facts: dict[str, Any] = {
        "sample_id": known("_pd_spec_description", "_pd_phase_name", "_pd_block_id"),
        "operator": known("_pd_meas_info_author_name", "_pd_proc_info_author_name"),
        "start_time": known("_pd_meas_datetime_initiated"),
        "instrument": known("_diffrn_measurement_device_type", "_pd_instr_location"),
        "anode": wavelength.anode if wavelength else "",
        "tube_voltage_kv": positive_in(known("_diffrn_source_voltage")),
        "tube_current_ma": positive_in(known("_diffrn_source_current")),
        "step_time_s": positive_in(known("_pd_meas_step_count_time")),
        "goniometer_radius_mm": positive_in(known("_pd_instr_dist_spec/detc", "_pd_instr_dist_spec_detc")),
        "monochromator": known("_diffrn_radiation_monochromator", "_pd_instr_monochr_post_spec"),
        "filter": known("_diffrn_radiation_filter_edge"),
        "detector": known("_diffrn_detector_type", "_diffrn_detector"),
        "temperature_k": temperature,
        "scan_axis": known("_pd_meas_scan_method"),
        "comment": "" if own else details[:200],
        # Our own writer's mark says nothing of where the data came from.
        "software": "" if known("_audit_creation_method").startswith("xrdz ") else known("_audit_creation_method"),
    }
    metadata = {key: value for key, value in facts.items() if value not in (None, "")} | own
    return with_monochromator_angle(metadata, wavelength), wavelength, findings
