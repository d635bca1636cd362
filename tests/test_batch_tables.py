"""Tables of a run: stable columns with units, one row a scan, nothing a spreadsheet would execute."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_inputs import documents, good_folder, quick_scan, table, xrdz
from xrdz.errors import InputError
from xrdz.method import default_method
from xrdz.reference import reference
from xrdz.results import (
    cell_text,
    columns_of,
    frame,
    parse_formats,
    require_libraries,
    rows,
    shape_of_run,
    table_shape,
    write_results,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    good_folder(folder / "scans", 4)
    (folder / "scans" / "=cmd|' !A1.xy").write_bytes(quick_scan(9))
    (folder / "scans" / "bad\n.xy").write_bytes(b"nothing")
    done = xrdz("batch", "scans", "--out", "run", "--tables", "jsonl,parquet,xlsx", cwd=folder)
    assert done.returncode == 4, done.stderr
    return folder / "run"


def test_columns_follow_from_the_method_alone_and_carry_their_units(run: Path) -> None:
    method = default_method()
    shape = table_shape([reference(id) for id in (*method.phase_ids, *method.candidate_ids)])
    assert shape_of_run(run) == shape
    headers = [column.header for column in columns_of(shape)]
    assert len(set(headers)) == len(headers)
    assert list(table(run)[0]) == headers
    assert headers[:5] == ["file", "revision", "status", "reason", "message"]
    for wanted in (
        "mass_ratio [1]", "mass_ratio_su [1]", "sn.mass_fraction [1]", "ni3sn4.beta [deg]", "sn.a [angstrom]",
        "ni3sn4.size [nm]", "rwp [%]", "claim_2", "findings", "sha256", "Ni.mass_fraction_su [1]",
    ):  # fmt: skip
        assert wanted in headers
    unitless = {"text", "flag"}
    assert all(column.unit or column.kind in unitless or column.name == "revision" for column in columns_of(shape))


def test_numbers_have_all_their_digits(run: Path) -> None:
    found = documents(run)
    for row in table(run):
        name = json.loads(f'"{row["file"].removeprefix(chr(39))}"'.replace("\\x0a", "\\n"))
        document = found[name]
        if document["mass_ratio"] is None:
            assert row["mass_ratio [1]"] == ""
            assert row["reason"] == "REFUSED"
            continue
        assert float(row["mass_ratio [1]"]) == document["mass_ratio"]["value"]
        assert float(row["sn.mass_fraction_su [1]"]) == document["phases"][0]["mass_fraction"]["su"]
        assert float(row["ni3sn4.beta [deg]"]) == document["phases"][1]["cell"]["beta"]["value"]
        assert row["findings"].split() == list(dict.fromkeys(f["code"] for f in document["findings"]))
        assert row["claim_2"] == document["claims"][1]["verdict"]


def test_names_are_cells_not_formulas_and_lines_stay_lines(run: Path) -> None:
    text = (run / "results.csv").read_text()
    assert len(text.splitlines()) == 1 + 6
    assert [row["file"] for row in table(run)][:2] == ["'=cmd|' !A1.xy", "bad\\x0a.xy"]
    assert {"=cmd|' !A1.xy", "bad\n.xy"} <= set(documents(run))


@given(st.text())
def test_no_text_is_a_formula_or_breaks_a_line(text: str) -> None:
    cell = cell_text(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    stream = io.StringIO()
    csv.writer(stream).writerow([cell, "x"])
    assert len(stream.getvalue().split("\r\n")) == 2
    assert next(csv.reader([stream.getvalue().removesuffix("\r\n")]))[0] == cell
    assert cell.encode("utf-8").decode("utf-8") == cell


def test_a_frame_in_one_call(run: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table_of_run = frame(run)
    assert len(table_of_run) == 6
    assert table_of_run["mass_ratio [1]"].dtype == "float64"
    assert table_of_run["sn.detected"].dtype == "boolean"
    good = table_of_run[table_of_run["status"] == "converged"]
    assert len(good) == 5
    assert good["mass_ratio [1]"].between(0.3, 3.0).all()
    read = pandas.read_csv(run / "results.csv")
    assert (read["mass_ratio [1]"].dropna().to_numpy() == good["mass_ratio [1]"].to_numpy()).all()


def test_parquet_and_xlsx_hold_the_same_table(run: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    openpyxl = pytest.importorskip("openpyxl")
    expected = list(rows(run))
    parquet = pandas.read_parquet(run / "results.parquet")
    assert list(parquet.columns) == list(expected[0])
    values = [row["mass_ratio [1]"] for row in expected]
    assert [None if value != value else value for value in parquet["mass_ratio [1]"]] == values
    assert parquet["file"].tolist() == [row["file"] for row in expected]
    sheet = openpyxl.load_workbook(run / "results.xlsx").active
    lines = [list(line) for line in sheet.iter_rows(values_only=True)]
    assert lines[0] == list(expected[0])
    column = lines[0].index("mass_ratio [1]")
    # The library writes 16 digits, one less than a double can need.
    cells = [line[column] for line in lines[1:]]
    assert [cell is None for cell in cells] == [value is None for value in values]
    kept = [(cell, value) for cell, value in zip(cells, values, strict=True) if value is not None]
    assert all(abs(cell / value - 1.0) < 5e-16 for cell, value in kept)
    assert lines[1][0] == "'=cmd|' !A1.xy"
    assert all(cell.data_type != "f" for row in sheet.iter_rows() for cell in row if cell.value is not None)


def test_a_missing_library_is_said_before_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=re.escape("pip install 'xrdz[tables]'")):
        require_libraries(["parquet"])
    with pytest.raises(InputError, match="pyarrow is not installed"):
        write_results(run, ["parquet"])
    assert not list(run.glob("*.part"))
    assert not list(run.glob(".*.part"))


def test_formats_are_read_with_csv_always_first() -> None:
    assert parse_formats("") == ("csv",)
    assert parse_formats("XLSX, jsonl") == ("csv", "xlsx", "jsonl")
    with pytest.raises(InputError, match="'pdf' is not known"):
        parse_formats("pdf")


def test_a_folder_without_a_run_has_no_table(tmp_path: Path) -> None:
    for call in (frame, write_results, shape_of_run):
        with pytest.raises(InputError, match="no run here"):
            call(tmp_path)


def test_every_value_of_a_table_is_plain(run: Path) -> None:
    kinds: tuple[Any, ...] = (str, int, float, bool, type(None))
    assert all(type(value) in kinds for row in rows(run) for value in row.values())
