"""Results for other programs: powder CIF with the quantitative items, and one table for a LIMS as CSV or XLSX.

Names in the CIF are those of the COMCIFS powder dictionary 2.5.0 (R factors as fractions, masses in percent, figures in
brackets are standard uncertainties). The tables have the columns of a run's results, behind those a LIMS joins on. A
cell is a number or a text, never a formula: a text that a spreadsheet would run gets an apostrophe in the CSV and is
stored as text in the XLSX.
"""

from __future__ import annotations

import csv
import io
import math
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from xrdz.reporting.content import instrument_name, sample_id
from xrdz.reporting.control import seconds
from xrdz.reporting.item import Curves, ReportItem
from xrdz.reporting.names import printable, safe_file_name
from xrdz.results import Column, TableShape, cell_text, columns_of

FORMATS = ("cif", "csv", "xlsx")

Cell = str | float | int | None

CELL_ITEMS = {
    "a": "_cell.length_a",
    "b": "_cell.length_b",
    "c": "_cell.length_c",
    "alpha": "_cell.angle_alpha",
    "beta": "_cell.angle_beta",
    "gamma": "_cell.angle_gamma",
}


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
    kept: list[ReportItem] = []
    for number, item in enumerate(items, 1):
        kept.append(replace(item, curves=None))
        if "cif" in formats:
            written.append(write_whole(folder / f"{number:05d}-{safe_file_name(item.name)}.cif", pdcif(item, date)))
    if not kept:
        raise InputError("export: there is no result; expected at least one")
    if "csv" in formats:
        written.append(write_whole(folder / "report.csv", csv_text(lims_table(kept))))
    if "xlsx" in formats:
        written.append(write_whole(folder / "report.xlsx", xlsx_bytes(lims_table(kept))))
    return written


# --- one table for a LIMS ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Headers with their units, and a row of cells per scan."""

    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


ORDER_COLUMNS: Mapping[str, Callable[[ReportItem], str]] = {
    "file": lambda item: item.title,
    "sample_id": sample_id,
    "customer": lambda item: _text(item.order.sample.get("customer")),
    "operator": lambda item: _text(item.order.sample.get("operator") or _metadata(item).get("operator")),
    "instrument": instrument_name,
    "measured": lambda item: _text(_metadata(item).get("start_time")),
    "method": lambda item: _text(item.document.get("method", {}).get("name")),
    "method_version": lambda item: _text(item.document.get("method", {}).get("version")),
}
"""What a LIMS joins on, before the columns of a run's table (`results.columns_of`)."""

OF_A_RUN = frozenset({"file", "revision", "reason", "message", "sample_id"})
"""Columns of a run's table that say nothing outside the run, or stand above."""


def lims_table(items: Sequence[ReportItem]) -> Table:
    """Return all scans with the columns of a run's table; a column of any scan is one of all."""
    columns = [column for column in columns_of(shape_of(items)) if column.name not in OF_A_RUN]
    rows = tuple(
        (*(of(item) for of in ORDER_COLUMNS.values()), *(_cell(column, item) for column in columns)) for item in items
    )
    return Table((*ORDER_COLUMNS, *(column.header for column in columns)), rows)


def shape_of(items: Sequence[ReportItem]) -> TableShape:
    """Return what the columns of these scans follow from: their phases with refined cell parameters, and elements."""
    phases: dict[str, dict[str, None]] = {}
    elements: dict[str, None] = {}
    for item in items:
        for phase in item.document.get("phases") or ():
            phases.setdefault(phase["id"], {}).update(dict.fromkeys(phase.get("cell") or {}))
        elements |= dict.fromkeys(item.document.get("elements") or {})
    return TableShape(tuple((id, tuple(cell)) for id, cell in phases.items()), tuple(sorted(elements)))


def _cell(column: Column, item: ReportItem) -> Cell:
    value = column.value(item.document)
    if value is None:
        return None
    if column.kind == "flag":
        return "true" if value else "false"
    return str(value) if column.kind == "text" else value if isinstance(value, int) else float(value)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _metadata(item: ReportItem) -> Mapping[str, Any]:
    return item.document.get("source", {}).get("metadata") or {}


def csv_text(table: Table) -> str:
    """Return the table as CSV (RFC 4180, UTF-8 with a byte order mark, as spreadsheets expect)."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow([cell_text(header) for header in table.headers])
    for row in table.rows:
        writer.writerow(
            ["" if cell is None else cell_text(cell) if isinstance(cell, str) else repr(cell) for cell in row]
        )
    return "\ufeff" + stream.getvalue()


def xlsx_bytes(table: Table) -> bytes:
    """Return the table as an Excel workbook (ECMA-376); the same table gives the same bytes."""
    lines = [_sheet_row(1, table.headers, style=' s="1"')]
    lines += [_sheet_row(number, row) for number, row in enumerate(table.rows, 2)]
    last = f"{_letters(len(table.headers))}{len(table.rows) + 1}"
    sheet = (
        f'{XML_HEAD}<worksheet xmlns="{SHEET_NAMESPACE}"><sheetViews><sheetView workbookViewId="0">'
        '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/></sheetView></sheetViews>'
        '<sheetFormatPr defaultRowHeight="15"/>'
        f'<cols><col min="1" max="{len(table.headers)}" width="18" customWidth="1"/></cols>'
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
