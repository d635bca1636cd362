"""Exports for other programs: a CIF that a parser reads, tables that run no formula, the same numbers everywhere."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
import zipfile
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from report_items import DATE, HOSTILE, LABORATORY, SAMPLE, clean_item, many_items, renamed
from xrdz.cli import main
from xrdz.commands.report import items_of
from xrdz.errors import InputError
from xrdz.exports import Table, cif_text, csv_text, lims_table, pdcif, write_exports, xlsx_bytes
from xrdz.method import Instrument, Method, read_method
from xrdz.pipeline import analyse
from xrdz.reference import DALTON_PER_CUBIC_ANGSTROM, reference
from xrdz.reporting import ReportItem
from xrdz.reporting.content import scan_content
from xrdz.reporting.item import item_of_analysis, stored_order
from xrdz.reporting.names import printable
from xrdz.results import cell_text
from xrdz.sample_sheet import read_sample_sheet

SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


@pytest.fixture(scope="module")
def item(sample_data: Path) -> ReportItem:
    return clean_item(sample_data)


@pytest.fixture(scope="module")
def blocks(item: ReportItem) -> dict[str, gemmi.cif.Block]:
    return {block.name: block for block in gemmi.cif.read_string(pdcif(item, DATE))}


def number(text: str) -> tuple[float, float]:
    """Return value and standard uncertainty of a CIF number such as 49.84(16)."""
    return gemmi.cif.as_number(text), _su(text)


def _su(text: str) -> float:
    found = re.fullmatch(r"-?\d+(?:\.(\d+))?\((\d+)\)", text)
    return 0.0 if found is None else int(found[2]) * 10.0 ** -len(found[1] or "")


def cells_of(content: bytes) -> list[list[str]]:
    """Return the cells of the one sheet of a workbook as text, formulas as their text with a mark."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        sheet = ElementTree.fromstring(archive.read("xl/worksheets/sheet1.xml"))
    assert list(sheet.iter(f"{SHEET}f")) == []
    return [["".join(cell.itertext()) for cell in row] for row in sheet.iter(f"{SHEET}row")]


# --- powder CIF -------------------------------------------------------------------------------------------------------


def test_the_masses_of_a_cif_are_those_of_the_result(item: ReportItem, blocks: dict[str, gemmi.cif.Block]) -> None:
    block = blocks["diffractogram"]
    assert block.find_value("_pd_qpa_overall.method") == "ZMV"
    table = block.find(["_pd_phase_mass.phase_id", "_pd_phase_mass.percent"])
    found = {row.str(0): number(row[1]) for row in table}
    for phase in item.document["phases"]:
        value, su = found[phase["id"]]
        assert value == pytest.approx(100.0 * phase["mass_fraction"]["value"], abs=0.51 * su)
        assert su == pytest.approx(100.0 * phase["mass_fraction"]["su"], rel=0.1)
    agreement = item.document["agreement"]
    for tag, key in (("prof_wR_factor", "rwp"), ("prof_wR_expected", "rexp")):
        assert 100.0 * float(block.find_value(f"_pd_proc_ls.{tag}")) == pytest.approx(agreement[key], rel=1e-5)
    assert float(block.find_value("_refine_ls.goodness_of_fit_all")) == pytest.approx(agreement["gof"])


def test_the_phases_of_a_cif_are_complete(item: ReportItem, blocks: dict[str, gemmi.cif.Block]) -> None:
    for count, phase in enumerate(item.document["phases"], 1):
        block = blocks[f"phase_{count}"]
        assert gemmi.cif.as_string(block.find_value("_pd_phase.id")) == phase["id"]
        cell = gemmi.UnitCell(
            *(gemmi.cif.as_number(block.find_value(f"_cell.length_{name}")) for name in "abc"),
            *(gemmi.cif.as_number(block.find_value(f"_cell.angle_{name}")) for name in ("alpha", "beta", "gamma")),
        )
        assert cell.volume == pytest.approx(float(block.find_value("_cell.volume")), rel=1e-4)
        for name, value in phase["cell"].items():
            tag = f"_cell.length_{name}" if name in "abc" else f"_cell.angle_{name}"
            assert number(block.find_value(tag))[0] == pytest.approx(value["value"], rel=1e-4)
        mass = reference(phase["id"]).mass_per_cell
        assert float(block.find_value("_pd_qpa_calib_factor.ZMV")) == pytest.approx(mass * cell.volume, rel=1e-4)
        density = DALTON_PER_CUBIC_ANGSTROM * mass / cell.volume
        assert float(block.find_value("_exptl_crystal.density_diffrn")) == pytest.approx(density, rel=1e-4)


def test_the_profile_of_a_cif_is_that_of_the_fit(item: ReportItem, blocks: dict[str, gemmi.cif.Block]) -> None:
    curves = item.curves
    assert curves is not None
    columns = {
        "_pd_meas.2theta_scan": curves.two_theta,
        "_pd_meas.counts_total": curves.observed,
        "_pd_calc.intensity_total": curves.calculated,
        "_pd_proc.intensity_bkg_calc": curves.background,
        "_pd_proc.ls_weight": curves.su**-2,
    }
    for tag, values in columns.items():
        found = np.array([float(text) for text in blocks["diffractogram"].find_values(tag)])
        assert np.allclose(found, values, rtol=1e-4), tag


def test_a_cif_without_curves_takes_the_cell_from_the_library(item: ReportItem) -> None:
    bare = {block.name: block for block in gemmi.cif.read_string(pdcif(replace(item, curves=None), DATE))}
    assert bare["diffractogram"].find_values("_pd_calc.intensity_total").tag is None
    assert bare["phase_1"].find_value("_cell.length_b") == bare["phase_1"].find_value("_cell.length_a")
    assert float(bare["phase_2"].find_value("_cell.angle_gamma")) == 90.0


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_names_in_a_cif_are_values(item: ReportItem, name: str) -> None:
    document = gemmi.cif.read_string(pdcif(renamed(item, name), DATE))
    assert [block.name for block in document] == ["phase_1", "phase_2", "diffractogram"]
    assert gemmi.cif.as_string(document[0].find_value("_pd_phase.id")) == printable(name)
    assert gemmi.cif.as_string(document[2].find_value("_pd_spec.description")) == printable(name)


@given(st.text(st.characters(), max_size=80))
def test_any_text_is_one_value_of_a_cif(text: str) -> None:
    block = gemmi.cif.read_string(f"data_x\n_a {cif_text(text)}\n_b 1\n").sole_block()
    expected = printable(text)
    found = block.find_value("_a")
    assert (gemmi.cif.as_string(found) if expected else found) == (expected or "?")
    assert block.find_value("_b") == "1"


def test_a_failed_fit_has_a_cif_too(item: ReportItem) -> None:
    document = {**item.document, "status": "failed", "phases": [], "mass_ratio": None, "agreement": None}
    document["source"] = {**item.document["source"], "wavelength": None, "two_theta": None}
    block = gemmi.cif.read_string(pdcif(ReportItem(document), DATE)).sole_block()
    assert block.find_value("_pd_proc_ls.prof_wR_factor") == "?"


# --- tables -----------------------------------------------------------------------------------------------------------


def csv_cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


def test_a_row_holds_the_numbers_of_the_result(item: ReportItem) -> None:
    table = lims_table([item])
    row = dict(zip(table.headers, table.rows[0], strict=True))
    document = item.document
    assert row["mass_ratio [1]"] == document["mass_ratio"]["value"]
    assert row["mass_ratio_low95 [1]"] == document["mass_ratio"]["interval95"][0]
    for phase in document["phases"]:
        assert row[f"{phase['id']}.mass_fraction [1]"] == phase["mass_fraction"]["value"]
        assert row[f"{phase['id']}.detected"] == "true"
        assert row[f"{phase['id']}.a [angstrom]"] == phase["cell"]["a"]["value"]
    assert [row[f"claim_{claim['claim']}"] for claim in document["claims"]] == [
        c["verdict"] for c in document["claims"]
    ]
    assert (row["file"], row["customer"], row["sample_id"]) == (SAMPLE.file, SAMPLE.customer, SAMPLE.sample_id)
    assert row["sha256"] == document["source"]["sha256"]


def test_both_tables_hold_the_same_cells(item: ReportItem) -> None:
    items = list(many_items(item, 5))
    failed = ReportItem({"schema": item.document["schema"], "source": {"path": "x.xy"}, "status": "failed"})
    table = lims_table([*items, failed])
    read, sheet = csv_cells(csv_text(table)), cells_of(xlsx_bytes(table))
    assert read[0] == list(table.headers) == sheet[0]
    for row, cells, filled in zip(table.rows, read[1:], sheet[1:], strict=True):
        assert cells == ["" if cell is None else str(cell) for cell in row]
        assert filled == [cell for cell in cells if cell]
    assert len({len(row) for row in table.rows}) == 1


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_no_name_is_a_formula(item: ReportItem, name: str) -> None:
    table = lims_table([renamed(item, name)])
    for line in csv_cells(csv_text(table)):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in line)
    assert printable(name) in cells_of(xlsx_bytes(table))[1]


@given(st.text(st.characters(), max_size=40))
def test_any_text_survives_both_tables(text: str) -> None:
    table = Table(("name", "value"), ((text, 1.5),))
    assert csv_cells(csv_text(table))[1] == [cell_text(text), "1.5"]
    assert cells_of(xlsx_bytes(table))[1] == ([printable(text)] if text else []) + ["1.5"]


def test_a_workbook_is_the_same_each_time_and_openpyxl_reads_it(item: ReportItem) -> None:
    table = lims_table(list(many_items(item, 30)))
    content = xlsx_bytes(table)
    assert xlsx_bytes(table) == content
    openpyxl = pytest.importorskip(
        "openpyxl", reason="openpyxl is not installed; the workbook's own parts were checked"
    )
    sheet = openpyxl.load_workbook(io.BytesIO(content)).active
    assert tuple(cell.value for cell in sheet[1]) == table.headers
    assert tuple(cell.value or "" for cell in sheet[2]) == tuple(cell or "" for cell in table.rows[0])
    assert all(cell.data_type != "f" for line in sheet.iter_rows() for cell in line)


def test_all_exports_are_written(item: ReportItem, tmp_path: Path) -> None:
    written = write_exports([renamed(item, name) for name in HOSTILE[:3]], ["cif", "csv", "xlsx"], tmp_path, date=DATE)
    assert len(written) == 5
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,80}", path.name) for path in written)
    with pytest.raises(InputError, match="'xml': expected cif, csv, xlsx"):
        write_exports([item], ["xml"], tmp_path, date=DATE)
    with pytest.raises(InputError, match="no result"):
        write_exports([], ["csv"], tmp_path, date=DATE)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_reports_a_stored_result(
    item: ReportItem, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "result.json"
    result.write_text(json.dumps(item.document))
    options = ["--date", "2026-11-23", "--out", str(tmp_path / "out")]
    assert main(["report", str(result), "--pdf", "--html", "--cif", "--csv", "--xlsx", *options]) == 0
    written = [Path(line.removeprefix("wrote ")) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in written] == [
        "snni_z1.00_clean.pdf", "index.html", "00001-snni_z1.00_clean.xy.cif", "report.csv", "report.xlsx"
    ]  # fmt: skip
    assert all(path.is_file() for path in written)


def test_the_command_reads_json_lines_and_takes_method_and_sheet(
    item: ReportItem, sample_data: Path, tmp_path: Path
) -> None:
    lines = tmp_path / "results.jsonl"
    lines.write_text("\n".join(json.dumps(item.document) for _ in range(3)) + "\n")
    method = tmp_path / "lab.toml"
    stated = "\n".join(f"{key} = {json.dumps(text)}" for key, text in LABORATORY.items())
    method.write_text((sample_data / "snni_z1.00_clean.toml").read_text() + f"\n[laboratory]\n{stated}\n")
    sheet = tmp_path / "sheet.csv"
    sheet.write_text(f"file,customer\n{SAMPLE.file},{SAMPLE.customer}\n")
    arguments = ["report", str(lines), "--csv", "--sample", str(sheet), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--method", str(method)]) == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/report.csv").read_text("utf-8-sig"))))
    assert [row["customer"] for row in rows] == [SAMPLE.customer] * 3


def test_the_archive_of_a_run_gives_the_report_of_a_fresh_analysis(tmp_path: Path, sample_data: Path) -> None:
    """Customer, laboratory, decision and risks come back from the run's own files, without method or sheet at hand."""
    scan = tmp_path / SAMPLE.file
    shutil.copy(sample_data / SAMPLE.file, scan)
    method = tmp_path / "lab.toml"
    decision = "[decision]\nmethod_u_ln = 0.05\n[laboratory]\nname = 'Lab'\nsampling_plan = 'SP-9'\n"
    method.write_text((sample_data / "snni_z1.00_clean.toml").read_text() + decision)
    sheet = tmp_path / "sheet.csv"
    sheet.write_text(f"file,customer,received,porosity_percent\n{SAMPLE.file},{SAMPLE.customer},2026-11-16,51.5\n")
    options = ["--method", str(method), "--sample", str(sheet), "--out", str(tmp_path / "run")]
    assert main(["batch", str(scan), *options, "--jobs", "1"]) == 0
    (stored,) = items_of([tmp_path / "run"], None, None)
    (row,) = read_sample_sheet(sheet).samples
    fresh = item_of_analysis(analyse(scan, read_method(method), sample=row))
    assert scan_content(stored) == scan_content(fresh)
    assert ["Customer", SAMPLE.customer] in scan_content(stored)["item"]
    assert stored.sha256 == fresh.sha256


def test_a_method_gives_its_letterhead_and_only_the_right_one_its_decision(item: ReportItem) -> None:
    document = item.document
    right = Method(laboratory=LABORATORY, instrument=Instrument(name="D8"))
    for method in (right, replace(right, laboratory={})):
        made = {**document, "method": {**document["method"], "sha256": method.sha256}}
        assert stored_order(made, right, None).instrument == "D8"
        assert stored_order(made, right, None).decision["rule"] == "non-binary"
    other = stored_order(document, right, None)
    assert (other.laboratory, other.instrument, dict(other.decision)) == (
        LABORATORY,
        "",
        document["method"]["decision"],
    )
    assert stored_order({**document, "sample": {"customer": "C", "note": None}}, None, None).sample == {"customer": "C"}


def test_the_command_takes_a_folder_of_results(item: ReportItem, tmp_path: Path) -> None:
    for name in ("b", "a"):
        document = {**item.document, "source": {**item.document["source"], "path": f"{name}.xy"}}
        (tmp_path / f"{name}.json").write_text(json.dumps(document, indent=1))
    (tmp_path / "a.truth.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("no result")
    assert main(["report", str(tmp_path), "--csv"]) == 0
    lines = (tmp_path / "report" / "report.csv").read_text(encoding="utf-8-sig").splitlines()
    assert [line.split(",")[0] for line in lines] == ["file", "a.xy", "b.xy"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "schema None; expected 'xrdz.analysis/1'"),
        ("nonsense", "not JSON"),
        ("", "not JSON"),
        ('{"schema": "xrdz.claims/1"}', "schema 'xrdz.claims/1'"),
        ("[1, 2]", "schema None"),
        ('{"schema": "xrdz.analysis/1"}', "'source' is missing or no dict"),
        (
            '{"schema": "xrdz.analysis/1", "source": {}, "method": {}, "status": "", "findings": [], "phases": [1]}',
            "'phases' is no list of entries with formula, id, mass_fraction",
        ),
    ],
)
def test_what_is_no_result_is_refused(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    assert main(["report", str(path)]) == 2
    assert message in capsys.readouterr().err
    assert main(["report", str(tmp_path / "absent.json")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / "empty")]) == 2
    assert "nor one with results" in capsys.readouterr().err
    assert not any((tmp_path / "empty").iterdir())
    assert main(["report", str(path), "--date", "tomorrow"]) == 2
    assert "expected a date" in capsys.readouterr().err
