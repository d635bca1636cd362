"""Results for other programs: powder CIF with the quantitative items, and one table for a LIMS as CSV or XLSX.

Names in the CIF are those of the COMCIFS powder dictionary 2.5.0 (R factors as fractions, masses in percent, figures in
brackets are standard uncertainties). A cell of the tables is a number or a text, never a formula: a text that a
spreadsheet would run gets an apostrophe in the CSV and is stored as text in the XLSX.
"""

from __future__ import annotations

import csv
import io
import math
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from xrdz import __version__
from xrdz.crystal import cell_volume, full_cell
from xrdz.errors import InputError
from xrdz.files import make_folder, write_whole
from xrdz.numerals import at_decimals, value_with_su
from xrdz.reference import DALTON_PER_CUBIC_ANGSTROM, reference
from xrdz.reporting.control import seconds
from xrdz.reporting.item import Curves, ReportItem
from xrdz.reporting.names import printable, safe_file_name

FORMATS = ("cif", "csv", "xlsx")

Cell = str | float | int | None

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # also the full-width forms Excel takes
"""A text that begins so could run as a formula when a spreadsheet opens a CSV file (OWASP, CSV injection)."""

CELL_ITEMS = {
    "a": "_cell.length_a",
    "b": "_cell.length_b",
    "c": "_cell.length_c",
    "alpha": "_cell.angle_alpha",
    "beta": "_cell.angle_beta",
    "gamma": "_cell.angle_gamma",
}

CLAIM_NUMBERS = range(1, 11)


def write_exports(
    items: Iterable[ReportItem], formats: Sequence[str], directory: Path, *, date: datetime
) -> list[Path]:
    """Write the results in each format and return the paths: `report.csv`, `report.xlsx`, and a CIF per scan.

    Raises
    ------
    InputError
        If there is no result, a format is unknown, or a file cannot be written.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise InputError(f"export format {', '.join(map(repr, unknown))}: expected {', '.join(FORMATS)}")
    folder = make_folder(directory)
    written: list[Path] = []
    rows: list[dict[str, Cell]] = []
    for number, item in enumerate(items, 1):
        rows.append(table_row(item))
        if "cif" in formats:
            written.append(write_whole(folder / f"{number:05d}-{safe_file_name(item.name)}.cif", pdcif(item, date)))
    if not rows:
        raise InputError("export: there is no result; expected at least one")
    if "csv" in formats:
        written.append(write_whole(folder / "report.csv", csv_text(rows)))
    if "xlsx" in formats:
        written.append(write_whole(folder / "report.xlsx", xlsx_bytes(rows)))
    return written


# --- one table for a LIMS ---------------------------------------------------------------------------------------------


def table_row(item: ReportItem) -> dict[str, Cell]:
    """Return a scan's row by column; the columns name their unit, numbers are not rounded."""
    document, sample = item.document, item.order.sample
    source, method = document.get("source", {}), document.get("method", {})
    metadata = source.get("metadata") or {}
    ratio, agreement = document.get("mass_ratio") or {}, document.get("agreement") or {}
    low, high = ratio.get("interval95") or (None, None)
    row: dict[str, Cell] = {
        "file": item.name,
        "sample_id": _text(sample.get("sample_id") or metadata.get("sample_id")),
        "customer": _text(sample.get("customer")),
        "operator": _text(sample.get("operator") or metadata.get("operator")),
        "instrument": _text(item.order.instrument or metadata.get("instrument")),
        "measured": _text(metadata.get("start_time")),
        "status": _text(document.get("status")),
        "mass_ratio_of": f"{ratio['numerator']}/{ratio['denominator']}" if ratio else "",
        "mass_ratio": ratio.get("value"),
        "mass_ratio_su": ratio.get("su"),
        "mass_ratio_low95": low,
        "mass_ratio_high95": high,
        "mass_ratio_limit": _text(ratio.get("limit")),
    }
    for phase in document.get("phases") or ():
        row |= _phase_cells(phase)
    claims = {claim["claim"]: claim for claim in document.get("claims") or ()}
    for number in CLAIM_NUMBERS:
        claim = claims.get(number, {})
        row[f"claim{number}"] = _text(claim.get("verdict"))
        row[f"claim{number}_probability"] = claim.get("probability")
    row |= {
        "rwp_percent": agreement.get("rwp"),
        "goodness_of_fit": agreement.get("gof"),
        "findings": " ".join(f"{each['level']}:{each['code']}" for each in document.get("findings") or ()),
        "method": _text(method.get("name")),
        "method_version": _text(method.get("version")),
        "method_sha256": _text(method.get("sha256")),
        "raw_sha256": _text(source.get("sha256")),
        "references_sha256": _text(document.get("references_sha256")),
        "xrdz": _text((document.get("software") or {}).get("xrdz")),
    }
    return row


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _phase_cells(phase: Mapping[str, Any]) -> dict[str, Cell]:
    name = phase["id"]
    fraction, absolute = phase["mass_fraction"], phase.get("absolute_fraction")
    low, high = fraction["interval95"]
    cells: dict[str, Cell] = {
        f"{name}_mass_percent": _percent(fraction["value"]),
        f"{name}_mass_percent_su": _percent(fraction["su"]),
        f"{name}_mass_percent_low95": _percent(low),
        f"{name}_mass_percent_high95": _percent(high),
        f"{name}_detected": "yes" if phase.get("detected") else "no",
        f"{name}_detection_limit_mass_percent": _percent(phase.get("detection_limit")),
    }
    if absolute is not None:
        cells[f"{name}_of_sample_mass_percent"] = _percent(absolute["value"])
        cells[f"{name}_of_sample_mass_percent_su"] = _percent(absolute["su"])
    return cells


def _percent(fraction: float | None) -> float | None:
    """Return a fraction in percent, without the digits that only the multiplication made."""
    return None if fraction is None else float(f"{100.0 * fraction:.15g}")


def columns_of(rows: Sequence[Mapping[str, Cell]]) -> list[str]:
    """Return the columns of all rows: each in the place of the first row that has it, after its neighbour there."""
    columns: list[str] = []
    for row in rows:
        place = 0
        for name in row:
            if name in columns:
                place = columns.index(name) + 1
            else:
                columns.insert(place, name)
                place += 1
    return columns


def csv_text(rows: Sequence[Mapping[str, Cell]]) -> str:
    """Return the table as CSV (RFC 4180, UTF-8 with a byte order mark, as spreadsheets expect)."""
    columns = columns_of(rows)
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow([harmless(name) for name in columns])
    for row in rows:
        writer.writerow([_csv_cell(row.get(name)) for name in columns])
    return "\ufeff" + stream.getvalue()


def _csv_cell(cell: Cell) -> str:
    if cell is None:
        return ""
    return harmless(cell) if isinstance(cell, str) else repr(cell)


def harmless(text: str) -> str:
    """Return a text that no spreadsheet runs: with an apostrophe in front where it begins as a formula could."""
    whole = text.encode("utf-8", "replace").decode()
    return f"'{whole}" if whole.lstrip(" ").startswith(FORMULA_STARTS) else whole


def xlsx_bytes(rows: Sequence[Mapping[str, Cell]]) -> bytes:
    """Return the table as an Excel workbook (ECMA-376); the same rows give the same bytes."""
    columns = columns_of(rows)
    lines = [_sheet_row(1, columns, style=' s="1"')]
    lines += [_sheet_row(number, [row.get(name) for name in columns]) for number, row in enumerate(rows, 2)]
    last = f"{_letters(len(columns))}{len(rows) + 1}"
    sheet = (
        f'{XML_HEAD}<worksheet xmlns="{SHEET_NAMESPACE}"><sheetViews><sheetView workbookViewId="0">'
        '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/></sheetView></sheetViews>'
        '<sheetFormatPr defaultRowHeight="15"/>'
        f'<cols><col min="1" max="{len(columns)}" width="18" customWidth="1"/></cols>'
        f'<sheetData>{"".join(lines)}</sheetData><autoFilter ref="A1:{last}"/></worksheet>'
    )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (*WORKBOOK_PARTS.items(), ("xl/worksheets/sheet1.xml", sheet)):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def _sheet_row(number: int, cells: Sequence[Cell], style: str = "") -> str:
    return f'<row r="{number}">{"".join(_sheet_cell(number, k, cell, style) for k, cell in enumerate(cells, 1))}</row>'


def _sheet_cell(row: int, column: int, cell: Cell, style: str) -> str:
    place = f"{_letters(column)}{row}"
    if cell is None or cell == "":
        return ""
    if isinstance(cell, str):
        text = escape(printable(cell)[:MOST_CELL_CHARACTERS])
        return f'<c r="{place}"{style} t="inlineStr"><is><t xml:space="preserve">{text}</t></is></c>'
    return f'<c r="{place}"{style}><v>{cell!r}</v></c>'


def _letters(column: int) -> str:
    """Return the letters of a column, 1 being A."""
    letters = ""
    while column:
        column, digit = divmod(column - 1, 26)
        letters = chr(65 + digit) + letters
    return letters


MOST_CELL_CHARACTERS = 32767
XML_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
SHEET_NAMESPACE = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
CONTENT = "application/vnd.openxmlformats-officedocument.spreadsheetml"

WORKBOOK_PARTS = {
    "[Content_Types].xml": f'{XML_HEAD}<Types xmlns="{PACKAGE}/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{CONTENT}.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{CONTENT}.worksheet+xml"/>'
    f'<Override PartName="/xl/styles.xml" ContentType="{CONTENT}.styles+xml"/></Types>',
    "_rels/.rels": f'{XML_HEAD}<Relationships xmlns="{PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{OFFICE}/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'{XML_HEAD}<workbook xmlns="{SHEET_NAMESPACE}" xmlns:r="{OFFICE}/relationships">'
    '<sheets><sheet name="results" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'{XML_HEAD}<Relationships xmlns="{PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{OFFICE}/relationships/worksheet" Target="worksheets/sheet1.xml"/>'
    f'<Relationship Id="rId2" Type="{OFFICE}/relationships/styles" Target="styles.xml"/></Relationships>',
    "xl/styles.xml": f'{XML_HEAD}<styleSheet xmlns="{SHEET_NAMESPACE}">'
    '<fonts count="2"><font><sz val="11"/><name val="Calibri"/></font>'
    '<font><b/><sz val="11"/><name val="Calibri"/></font></fonts>'
    '<fills count="2"><fill><patternFill patternType="none"/></fill>'
    '<fill><patternFill patternType="gray125"/></fill></fills>'
    '<borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders>'
    '<cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs>'
    '<cellXfs count="2"><xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/>'
    '<xf numFmtId="0" fontId="1" fillId="0" borderId="0" xfId="0" applyFont="1"/></cellXfs>'
    '<cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles></styleSheet>',
}
"""Everything of a workbook but its one sheet."""


# --- powder CIF -------------------------------------------------------------------------------------------------------


def pdcif(item: ReportItem, date: datetime) -> str:
    """Return a powder CIF: a block per phase, then the block of the diffractogram with masses, agreement and profile.

    Parameters
    ----------
    date : of writing, with its time zone
    """
    document = item.document
    lines = ["#\\#CIF_2.0"]
    names = {phase["id"]: cif_text(phase["id"]) for phase in document.get("phases") or ()}
    for number, phase in enumerate(document.get("phases") or (), 1):
        lines += ["", f"data_phase_{number}", *_phase_block(phase, names[phase["id"]], item.curves)]
    lines += ["", "data_diffractogram", *_overall(item, date), *_masses(document, names), *_texture(document, names)]
    if item.curves is not None:
        lines += _profile(item.curves, counts=document.get("source", {}).get("count_kind") in ("counts", "rate"))
    return "\n".join(lines) + "\n"


def cif_text(value: Any) -> str:
    """Return a CIF value: quoted, or a text field where no quote serves; `?` for nothing."""
    text = printable(str(value)) if value is not None else ""
    if not text:
        return "?"
    for quote in ("'", '"'):
        if quote not in text:
            return f"{quote}{text}{quote}"
    return f"\n;{text}\n;"


def _number(value: float | None, su: float | None = None) -> str:
    if value is None or not math.isfinite(value):
        return "?"
    return value_with_su(value, su) if su else f"{value:.8g}"


def _phase_block(phase: Mapping[str, Any], name: str, curves: Curves | None) -> Iterator[str]:
    yield f"_pd_phase.id {name}"
    yield f"_pd_phase.name {cif_text(phase['formula'])}"
    spaced = re.sub(r"(?<=[A-Za-z0-9])(?=[A-Z])", " ", phase["formula"])
    yield f"_chemical_formula.sum {cif_text(spaced)}"
    refined, cell = phase.get("cell") or {}, whole_cell(phase, curves)
    for key, tag in CELL_ITEMS.items():
        same = "a" if key in ("b", "c") and key not in refined else key  # a dependent length has the su of its source
        if same in refined:
            yield f"{tag} {_number(refined[same]['value'], refined[same]['su'])}"
        elif cell is not None:
            yield f"{tag} {_number(cell[list(CELL_ITEMS).index(key)])}"
    yield f"_exptl_crystal.density_diffrn {_number(phase.get('density'))}"
    if cell is not None:
        volume = cell_volume(cell)
        yield f"_cell.volume {volume:.4f}"
        if phase.get("density"):
            yield f"_pd_qpa_calib_factor.ZMV {phase['density'] / DALTON_PER_CUBIC_ANGSTROM * volume**2:.7g}"
            yield "_pd_qpa_calib_factor.special_details 'Z M V of the conventional cell, dalton angstrom^3'"


def whole_cell(phase: Mapping[str, Any], curves: Curves | None) -> Sequence[float] | None:
    """Return a, b, c, alpha, beta, gamma of a phase: of the fit, else completed by the library's crystal system."""
    fitted = next((curve.cell for curve in curves.phases if curve.id == phase["id"]), None) if curves else None
    if fitted is not None:
        return fitted
    try:
        system = reference(phase["id"]).crystal_system
        return full_cell(system, [value["value"] for value in (phase.get("cell") or {}).values()])
    except (InputError, IndexError, ValueError):  # a phase of the user's own CIF: its symmetry is not in the document
        return None


def _overall(item: ReportItem, date: datetime) -> Iterator[str]:
    """Yield what concerns the whole diffractogram."""
    document = item.document
    source, agreement = document.get("source", {}), document.get("agreement") or {}
    metadata, sample = source.get("metadata") or {}, item.order.sample
    yield "_audit.schema Custom"
    yield f"_audit.creation_method {cif_text(f'xrdz {__version__}')}"
    yield f"_audit.creation_date {date.date().isoformat()}"
    yield f"_pd_diffractogram.id {cif_text(item.name)}"
    yield f"_pd_spec.description {cif_text(sample.get('sample_id') or metadata.get('sample_id'))}"
    started = str(metadata.get("start_time") or "")
    if re.match(r"\d{4}-\d{2}-\d{2}", started) and seconds(started) is not None:
        yield f"_pd_meas.datetime_initiated {cif_text(started)}"
    operator = sample.get("operator") or metadata.get("operator")
    if operator:
        yield f"_pd_meas_info_author.name {cif_text(operator)}"
    yield "_diffrn_radiation.probe x-ray"
    yield from ("loop_", "_diffrn_radiation_wavelength.id", "_diffrn_radiation_wavelength.value")
    yield "_diffrn_radiation_wavelength.wt"
    lines = (source.get("wavelength") or {}).get("lines") or [["?", "?"]]
    yield from (f"{number} {angstrom} {weight}" for number, (angstrom, weight) in enumerate(lines, 1))
    yield "_pd_calc.method 'Rietveld Refinement'"
    if source.get("two_theta"):
        yield f"_pd_proc.2theta_range_min {source['two_theta'][0]!r}"
        yield f"_pd_proc.2theta_range_max {source['two_theta'][1]!r}"
        yield f"_pd_proc.number_of_points {source['n_points']}"
    if item.curves is not None and item.curves.excluded:
        left_out = ", ".join(f"{low:g} to {high:g} degrees" for low, high in item.curves.excluded)
        yield f"_pd_proc.info_excluded_regions {cif_text(left_out)}"
    yield f"_pd_proc.info_datetime {cif_text(date.isoformat())}"
    yield f"_pd_proc_ls.prof_wR_factor {_fraction(agreement.get('rwp'))}"
    yield f"_pd_proc_ls.prof_wR_expected {_fraction(agreement.get('rexp'))}"
    yield f"_refine_ls.goodness_of_fit_all {_number(agreement.get('gof'))}"
    yield "_pd_proc_ls.background_function 'Chebyshev polynomial, its order chosen by evidence'"
    yield "_pd_proc_ls.profile_function 'Voigt on a comb of emission lines and axial shifts'"
    yield from _details(document)


def _fraction(percent: float | None) -> str:
    return "?" if percent is None else f"{percent / 100.0:.6g}"


def _details(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield how the masses were found and what they rest on, as one text field."""
    ratio = document.get("mass_ratio")
    method, source = document.get("method", {}), document.get("source", {})
    text = [f"status: {document.get('status')}"]
    if ratio:
        low, high = ratio["interval95"]
        text.append(
            f"mass ratio {printable(ratio['numerator'])}/{printable(ratio['denominator'])}: "
            f"{value_with_su(ratio['value'], ratio['su'])}, 95 % interval {_number(low)} to {_number(high)}"
        )
    for each in document.get("claims") or ():
        text.append(f"claim {each['claim']}: {each['verdict']}")
    for finding in document.get("findings") or ():
        text.append(f"finding {finding['level']} {finding['code']}: {printable(finding['message'])}")
    text.append(f"method: {printable(str(method.get('name')))}, SHA-256 {method.get('sha256')}")
    text.append(f"raw file SHA-256 {source.get('sha256')}, references SHA-256 {document.get('references_sha256')}")
    yield "_pd_qpa_overall.method ZMV"
    yield "_pd_qpa_overall.special_details"
    yield ";Uncertainties are combined, statistical and systematic; masses of the crystalline phases fitted."
    yield from (f" {line}"[:MOST_LINE_CHARACTERS] for line in text)
    yield ";"


MOST_LINE_CHARACTERS = 2048


def _masses(document: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[str]:
    phases = document.get("phases") or ()
    if not phases:
        return
    absolute = any(phase.get("absolute_fraction") for phase in phases)
    yield from ("loop_", "_pd_phase_mass.phase_id", "_pd_phase_mass.percent")
    if absolute:
        yield "_pd_phase_mass.absolute"
    for phase in phases:
        cells = [names[phase["id"]], _mass(phase["mass_fraction"])]
        if absolute:
            cells.append(_mass(phase.get("absolute_fraction")))
        yield " ".join(cells)


def _mass(fraction: Mapping[str, Any] | None) -> str:
    if fraction is None or fraction["value"] is None:
        return "?"
    value, su = 100.0 * fraction["value"], fraction["su"]
    return value_with_su(value, 100.0 * su) if su else at_decimals(value, 4)


def _texture(document: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[str]:
    textured = [phase for phase in document.get("phases") or () if (phase.get("texture") or {}).get("r")]
    if not textured:
        return
    group = "_pd_pref_orient_March_Dollase"
    yield from ("loop_", *(f"{group}.{name}" for name in ("id", "phase_id", "index_h", "index_k", "index_l", "r")))
    for number, phase in enumerate(textured, 1):
        texture = phase["texture"]
        indices = " ".join(str(index) for index in texture["axis"])
        yield f"{number} {names[phase['id']]} {indices} {_number(texture['r']['value'], texture['r']['su'])}"


def _profile(curves: Curves, *, counts: bool) -> Iterator[str]:
    """Yield the profile: what was measured, what was calculated, and the weight of each point."""
    measured = "_pd_meas.counts_total" if counts else "_pd_meas.intensity_total"
    yield from ("loop_", "_pd_data.point_id", "_pd_meas.2theta_scan", measured, "_pd_calc.intensity_total")
    yield from ("_pd_proc.intensity_bkg_calc", "_pd_proc.ls_weight")
    weights = 1.0 / np.square(curves.su)
    columns = (curves.two_theta, curves.observed, curves.calculated, curves.background, weights)
    for number, row in enumerate(zip(*(column.tolist() for column in columns), strict=True), 1):
        angle, observed, calculated, background, weight = row
        yield f"{number} {angle:.8g} {observed:.10g} {calculated:.7g} {background:.7g} {weight:.5g}"
