"""The sample sheet: separators, encodings and decimals of real spreadsheets, and the nickel balance."""

from __future__ import annotations

from pathlib import Path

import pytest

from xrdz.errors import InputError
from xrdz.findings import Code, Level
from xrdz.sample_sheet import COLUMNS, Sample, SampleSheet, nickel_balance, read_sample_sheet

ROW = {
    "file": "scan 1.xrdml",
    "sample_id": "S-1",
    "operator": "A. Müller",
    "customer": "Werk",
    "ni_mass_percent": "15.2",
    "sn_mass_percent": "84.8",
    "ni_u": "0.2",
    "carbon_ratio_s": "1.5",
    "carbon_present": "yes",
    "porosity_percent": "45",
    "powdered": "TRUE",
    "apparent_density_g_cm3": "4.1",
    "note": "first, of two",
}
SAMPLE = Sample(
    "scan 1.xrdml", "S-1", "A. Müller", "Werk", 15.2, 84.8, 0.2, 1.5, True, 45.0, True, 4.1, "first, of two"
)


def text_of(separator: str, decimal: str = ".", end: str = "\n") -> str:
    cells = [cell.replace(".", decimal) if cell[0].isdigit() else cell for cell in ROW.values()]
    quoted = [f'"{cell}"' if separator in cell else cell for cell in cells]
    return separator.join(ROW) + end + separator.join(quoted) + end


def sheet(folder: Path, text: str, encoding: str = "utf-8") -> SampleSheet:
    path = folder / "sheet.csv"
    path.write_bytes(text.encode(encoding))
    return read_sample_sheet(path)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_spreadsheets_csv_is_read(tmp_path: Path, separator: str, decimal: str, encoding: str, end: str) -> None:
    assert sheet(tmp_path, text_of(separator, decimal, end), encoding).samples == (SAMPLE,)


def test_columns_are_those_of_the_contract() -> None:
    """Those the contract names, three more that a report prints, and the other standard uncertainties."""
    more = ["received", "sampled", "condition", "sn_u", "carbon_ratio_s_u", "porosity_u", "apparent_density_u"]
    assert list(COLUMNS) == [*ROW, *more] == list(Sample.__dataclass_fields__)


def test_empty_cells_missing_columns_and_blank_rows_are_none(tmp_path: Path) -> None:
    found = sheet(tmp_path, "file,ni_mass_percent,powdered,,\n a.xy ,,no,,\n,,,,\nb.xy\n").samples
    assert found == (Sample("a.xy", powdered=False), Sample("b.xy"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,ni_mass_pct\na.xy,3\n", ["line 1", "'ni_mass_pct'", "'ni_mass_percent'"]),
        ("sample_id\nS-1\n", ["'file' is missing"]),
        ("", ["'file' is missing"]),
        ("file,note,note\na.xy,1,2\n", ["'note' stands twice"]),
        ("file,ni_mass_percent\na.xy,abc\n", ["line 2", "ni_mass_percent = 'abc'", "0 to 100"]),
        ("file,ni_mass_percent\na.xy,150\n", ["ni_mass_percent = '150'"]),
        ("file,ni_mass_percent\na.xy,nan\n", ["ni_mass_percent = 'nan'"]),
        ("file,apparent_density_g_cm3\na.xy,5000\n", ["'5000'", "g/cm^3"]),
        ("file,powdered\na.xy,maybe\n", ["powdered = 'maybe'", "yes or no"]),
        ("file,note\na.xy,1,2\n", ["line 2", "3 cells under 2 columns", "double quotes"]),
        ("file,,note\na.xy,1,2\n", ["column without a name"]),
        ("file,note\n,lost\n", ["line 2", "'file' is empty"]),
        ("file\na.xy\nA.XY\n", ["line 3", "'A.XY'", "earlier row"]),
        ("file,ni_mass_percent,sn_mass_percent\na.xy,30,80\n", ["sum to 110"]),
    ],
)
def test_what_cannot_be_used_is_refused_with_place_value_and_remedy(tmp_path: Path, text: str, said: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        sheet(tmp_path, text)
    for part in ("sheet.csv", *said):
        assert part in str(refused.value)


def test_a_missing_file_and_one_that_is_not_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_sample_sheet(tmp_path / "none.csv")
    (tmp_path / "odd.csv").write_bytes(b"\xff\xfeabc")
    with pytest.raises(InputError, match="not text"):
        read_sample_sheet(tmp_path / "odd.csv")


def test_a_scan_finds_its_row_by_the_end_of_its_path(tmp_path: Path) -> None:
    found = sheet(tmp_path, "file,note\nA.xy,any\nday2/a.xy,second day\n..\\b.xy,windows\n")
    assert found.find("/data/day1/a.xy").note == "any"  # type: ignore[union-attr]
    assert found.find(Path("/data/day2/a.xy")).note == "second day"  # type: ignore[union-attr]
    assert found.find("ba.xy") is None
    assert found.find("c.xy") is None


def test_a_nickel_balance_within_its_uncertainty_is_silent() -> None:
    assert nickel_balance(Sample("a.xy"), 0.15, 0.001) is None
    assert nickel_balance(Sample("a.xy", ni_mass_percent=15.3, ni_u=0.2), 0.15, 0.001) is None
    assert nickel_balance(Sample("a.xy", ni_mass_percent=7.5, sn_mass_percent=42.5, ni_u=0.2), 0.15, 0.001) is None


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (
            Sample("a.xy", ni_mass_percent=17.0, ni_u=0.2),
            ["17.00", "15.00", "differ by 2.00", "nickel that is amorphous"],
        ),
        (Sample("a.xy", ni_mass_percent=13.0, ni_u=0.2), ["13.00", "tin that is amorphous"]),
        (Sample("a.xy", ni_mass_percent=17.0), ["0.5 mass % assumed"]),
        (Sample("a.xy", ni_mass_percent=8.5, sn_mass_percent=41.5, ni_u=0.1), ["17.00"]),
    ],
)
def test_a_nickel_balance_that_fails_is_a_finding(sample: Sample, said: list[str]) -> None:
    finding = nickel_balance(sample, 0.15, 0.001)
    assert finding is not None
    assert finding.code is Code.AMORPHOUS_SUSPECTED
    assert finding.level is Level.WARNING
    for part in said:
        assert part in finding.message
