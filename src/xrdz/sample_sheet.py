"""The sample sheet: what a laboratory knows about each scan's sample besides the scan.

A CSV file with one row a scan, joined on the file name. `COLUMNS` is the whole vocabulary. Separators (comma,
semicolon, tab), decimal commas, and UTF-8, UTF-16 or Windows text are recognised; an unknown column is an error that
names the nearest known one. Percentages stay percentages here, as the sheet has them.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from xrdz.errors import InputError
from xrdz.fields import nearest
from xrdz.findings import Code, Finding, warning

ASSUMED_NI_U = 0.5
"""Standard uncertainty of a chemical nickel content that states none, mass %, in the nickel balance only."""

SUM_TOLERANCE = 2.0
"""By how much Ni + Sn may exceed 100 mass %."""


@dataclass(frozen=True)
class Sample:
    """One row of a sample sheet; None where a cell is empty or its column is missing.

    Parameters
    ----------
    file : name of the scan's file, or the end of its path
    customer : name, and how to reach them
    ni_mass_percent, sn_mass_percent : chemical analysis, mass %
    ni_u, sn_u, carbon_ratio_s_u, porosity_u, apparent_density_u : standard uncertainty of each, in its unit
    carbon_ratio_s : S = m(alloy) / m(carbon)
    porosity_percent : of the electrode layer, volume %
    powdered : whether the active material is a powder
    apparent_density_g_cm3 : of the electrode, g/cm^3
    received, sampled : dates, as the laboratory writes them
    condition : of the item when it was received
    """

    file: str = ""
    sample_id: str | None = None
    operator: str | None = None
    customer: str | None = None
    ni_mass_percent: float | None = None
    sn_mass_percent: float | None = None
    ni_u: float | None = None
    carbon_ratio_s: float | None = None
    carbon_present: bool | None = None
    porosity_percent: float | None = None
    powdered: bool | None = None
    apparent_density_g_cm3: float | None = None
    note: str | None = None
    received: str | None = None
    sampled: str | None = None
    condition: str | None = None
    sn_u: float | None = None
    carbon_ratio_s_u: float | None = None
    porosity_u: float | None = None
    apparent_density_u: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the filled cells by column, as the analysis document holds them."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class SampleSheet:
    """All rows of one sheet, in its order."""

    name: str
    samples: tuple[Sample, ...]

    def find(self, scan: str | PurePath) -> Sample | None:
        """Return the row of a scan, or None.

        A row matches when its file is the end of the scan's path, letter case aside; the longest match wins.
        """
        parts = _parts(str(scan))
        matches = [sample for sample in self.samples if parts[-len(_parts(sample.file)) :] == _parts(sample.file)]
        return max(matches, key=lambda sample: len(_parts(sample.file)), default=None)


def read_sample_sheet(path: str | Path) -> SampleSheet:
    """Return the rows of a sample sheet.

    Raises
    ------
    InputError
        If the file cannot be read, a column is unknown or doubled, a cell is not what its column expects, or two
        rows name the same file.
    """
    path = Path(path)
    lines = csv.reader(io.StringIO(_text_of(path), newline=""), delimiter=_separator(_text_of(path)))
    header = [name.strip().lower() for name in next(lines, [])]
    _check_header(header, path.name)
    samples: list[Sample] = []
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        if any(cell.strip() for cell in cells[len(header) :]):
            raise InputError(
                f"{path.name} line {lines.line_num}: {len(cells)} cells under {len(header)} columns; "
                "put a cell that holds the separator in double quotes"
            )
        samples.append(_sample(dict(zip(header, cells, strict=False)), f"{path.name} line {lines.line_num}"))
        if any(_parts(samples[-1].file) == _parts(sample.file) for sample in samples[:-1]):
            raise InputError(
                f"{path.name} line {lines.line_num}: file {samples[-1].file!r} stands in an earlier row too"
            )
    return SampleSheet(path.name, tuple(samples))


def nickel_by_chemistry(sample: Sample) -> tuple[float, float | None] | None:
    """Return Ni / (Ni + Sn) with its standard uncertainty, from either of the two when only one is given.

        w = Ni / (Ni + Sn),   u(w) = hypot(Sn u(Ni), Ni u(Sn)) / (Ni + Sn)^2

    With one of the uncertainties alone, u(Ni) / (Ni + Sn) or u(Sn) / (Ni + Sn): the other element is the rest.
    """
    ni, sn = sample.ni_mass_percent, sample.sn_mass_percent
    if ni is None and sn is None:
        return None
    total = 100.0 if ni is None or sn is None else ni + sn
    if total <= 0.0:
        return None
    value = (100.0 - (sn or 0.0) if ni is None else ni) / total
    if ni is not None and sn is not None and sample.ni_u is not None and sample.sn_u is not None:
        return value, math.hypot(sn * sample.ni_u, ni * sample.sn_u) / total**2
    u = sample.sn_u if ni is None or sample.ni_u is None else sample.ni_u
    return value, None if u is None else u / total


def nickel_balance(sample: Sample, ni_of_phases: float, su: float, *, coverage_factor: float = 2.0) -> Finding | None:
    """Return a finding when the chemical nickel and the nickel of the crystalline phases disagree.

        |Ni(chemistry) - Ni(phases)| > k sqrt(u(chemistry)^2 + u(phases)^2)

    Parameters
    ----------
    sample : chemistry in mass %; without a nickel content there is nothing to compare
    ni_of_phases, su : mass fraction of nickel in the alloy of the crystalline phases, and its standard uncertainty
    coverage_factor : k
    """
    if sample.ni_mass_percent is None:
        return None
    assumed = sample.ni_u is None
    found = nickel_by_chemistry(replace(sample, ni_u=ASSUMED_NI_U) if assumed else sample)
    if found is None:
        return None
    chemical, u_chemical = 100.0 * found[0], 100.0 * (found[1] or 0.0)
    difference = chemical - 100.0 * ni_of_phases
    allowed = coverage_factor * math.hypot(u_chemical, 100.0 * su)
    if abs(difference) <= allowed:
        return None
    meaning = (
        "nickel that is amorphous, unalloyed or in a phase not fitted"
        if difference > 0.0
        else "tin that is amorphous, oxidised or in a phase not fitted"
    )
    return warning(
        Code.AMORPHOUS_SUSPECTED,
        f"nickel by chemistry {chemical:.2f} mass %, by the crystalline phases {100.0 * ni_of_phases:.2f} mass %: "
        f"they differ by {abs(difference):.2f}, expected at most {allowed:.2f}"
        f"{f' ({ASSUMED_NI_U} mass % assumed for the chemistry)' if assumed else ''}; it points to {meaning}",
        where=sample.file,
        suggestion="add candidate phases (ni, ni3sn2, sno2) or an internal standard, and check the chemistry",
    )


def _text_of(path: Path) -> str:
    """Return a file's text: UTF-16 by its byte order mark, else UTF-8 with or without one, else Windows-1252."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a sample sheet in CSV") from error
    encodings = ("utf-16",) if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise InputError(f"{path}: not text in UTF-8, UTF-16 or Windows-1252; save the sheet as CSV in UTF-8")


def _separator(text: str) -> str:
    """Return the separator that stands most often in the header line, a comma when none does."""
    header = text.splitlines()[0] if text else ""
    return max((",", ";", "\t"), key=header.count)


def _check_header(header: list[str], file: str) -> None:
    for name in header:
        if name and name not in COLUMNS:
            raise InputError(
                f"{file} line 1: unknown column {name!r}; the nearest known column is {nearest(name, COLUMNS)!r}. "
                f"Known: {', '.join(COLUMNS)}"
            )
        if name and header.count(name) > 1:
            raise InputError(f"{file} line 1: column {name!r} stands twice; keep one")
    if "file" not in header:
        raise InputError(f"{file} line 1: column 'file' is missing; it joins a row with its scan")


def _sample(cells: dict[str, str], place: str) -> Sample:
    if cells.pop("", "").strip():
        raise InputError(f"{place}: a cell stands under a column without a name; name the column")
    filled = {name: cell.strip() for name, cell in cells.items() if cell.strip()}
    if "file" not in filled:
        raise InputError(f"{place}: the column 'file' is empty; name the scan the row belongs to")
    sample = Sample(**{name: COLUMNS[name](cell, f"{place} {name}") for name, cell in filled.items()})
    total = (sample.ni_mass_percent or 0.0) + (sample.sn_mass_percent or 0.0)
    if total > 100.0 + SUM_TOLERANCE:
        raise InputError(f"{place}: Ni and Sn sum to {total:g} mass %; expected at most 100")
    return sample


def _parts(file: str) -> tuple[str, ...]:
    """Return the parts of a path of either system in lower case."""
    return tuple(part.lower() for part in PureWindowsPath(file).parts)


def _text(cell: str, _place: str) -> str:
    return cell


def _number(expected: str, low: float, high: float) -> Callable[[str, str], float]:
    def read(cell: str, place: str) -> float:
        text = cell.replace(",", ".") if cell.count(",") == 1 and "." not in cell else cell
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise InputError(f"{place} = {cell!r}: expected {expected}")
        return value

    return read


def _yes_no(cell: str, place: str) -> bool:
    words = {**dict.fromkeys(("yes", "y", "true", "1"), True), **dict.fromkeys(("no", "n", "false", "0"), False)}
    if cell.lower() not in words:
        raise InputError(f"{place} = {cell!r}: expected yes or no")
    return words[cell.lower()]


_PERCENT = _number("a number from 0 to 100 (percent)", 0.0, 100.0)
_UNCERTAINTY = _number("a standard uncertainty in mass %, from 0 to 100", 0.0, 100.0)

COLUMNS: dict[str, Callable[[str, str], Any]] = {
    "file": _text,
    "sample_id": _text,
    "operator": _text,
    "customer": _text,
    "ni_mass_percent": _PERCENT,
    "sn_mass_percent": _PERCENT,
    "ni_u": _UNCERTAINTY,
    "carbon_ratio_s": _number("a mass ratio m(alloy)/m(carbon), zero or more", 0.0, 1e6),
    "carbon_present": _yes_no,
    "porosity_percent": _PERCENT,
    "powdered": _yes_no,
    "apparent_density_g_cm3": _number("a density in g/cm^3, from 0 to 30", 0.0, 30.0),
    "note": _text,
    "received": _text,
    "sampled": _text,
    "condition": _text,
    "sn_u": _UNCERTAINTY,
    "carbon_ratio_s_u": _number("a standard uncertainty of the ratio, zero or more", 0.0, 1e6),
    "porosity_u": _number("a standard uncertainty in volume %, from 0 to 100", 0.0, 100.0),
    "apparent_density_u": _number("a standard uncertainty in g/cm^3, from 0 to 30", 0.0, 30.0),
}
