"""Every format: the contract on files packed from its description, and the values of real files where they are here."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

import reader_files as files
from reader_contract import ReaderContract
from reader_files import counts, grid, shared_file
from xrdz.errors import InputError
from xrdz.findings import Code
from xrdz.readers import FORMATS, read, read_all


class TestXy(ReaderContract):
    format_name, file_name, cut_is_noticed = "text columns", "scan.xy", False

    def content(self) -> bytes:
        return files.xy(counts())


class TestCsv(ReaderContract):
    format_name, file_name, cut_is_noticed = "text columns", "scan.csv", False

    def content(self) -> bytes:
        return files.csv(counts())


class TestXye(ReaderContract):
    format_name, file_name, cut_is_noticed = "text columns", "scan.xye", False

    def content(self) -> bytes:
        return files.xye(counts())


class TestHighScoreCsv(ReaderContract):
    format_name, file_name = "text columns", "highscore.csv"
    principal, n_lines = 1.540598, 2
    metadata = {  # noqa: RUF012 - a constant of the class
        "sample_id": "tin 7",
        "operator": "A. Analyst",
        "anode": "Cu",
        "step_time_s": 3.5,
        "goniometer_radius_mm": 240.0,
        "instrument": "EMPYREAN",
        "scan_axis": "Gonio",
        "start_time": "2/3/2024 10:11:12",
    }

    def content(self) -> bytes:
        return files.highscore_csv(counts())


class TestEva(ReaderContract):
    format_name, file_name, cut_is_noticed = "text columns", "eva.xy", False
    principal, n_lines = 1.788996, 2
    metadata = {  # noqa: RUF012
        "sample_id": "tin 7",
        "operator": "A. Analyst",
        "anode": "Co",
        "step_time_s": 0.5,
        "scan_axis": "Coupled TwoTheta/Theta",
    }

    def content(self) -> bytes:
        return files.eva_xy(counts())


class TestStartStepStop(ReaderContract):
    format_name, file_name = "text columns", "fullprof.dat"
    finding_codes = (Code.READER_NOTE,)

    def content(self) -> bytes:
        return files.start_step_stop(counts())


class TestStartStopStep(ReaderContract):
    format_name, file_name = "text columns", "range.dat"
    finding_codes = (Code.READER_NOTE,)

    def content(self) -> bytes:
        return files.start_step_stop(counts(), order="stop")


class TestXdd(ReaderContract):
    format_name, file_name = "XFIT XDD", "scan.xdd"
    principal, n_lines = 1.5405929, 2
    finding_codes = (Code.READER_NOTE,)
    metadata = {"anode": "Cu"}  # noqa: RUF012

    def content(self) -> bytes:
        return files.xdd(counts())


class TestCpi(ReaderContract):
    format_name, file_name = "Sietronics CPI", "scan.cpi"
    principal, n_lines = 1.5405929, 2
    finding_codes = (Code.READER_NOTE,)
    metadata = {"anode": "Cu", "sample_id": "tin 7", "start_time": "1-2-1999"}  # noqa: RUF012

    def content(self) -> bytes:
        return files.cpi(counts())


class TestUdf(ReaderContract):
    format_name, file_name = "Philips UDF", "scan.udf"
    principal, n_lines = 1.54056, 2
    metadata = {  # noqa: RUF012
        "sample_id": "tin 7",
        "anode": "Cu",
        "divergence_slit_deg": 0.5,
        "receiving_slit_mm": 0.2,
        "monochromator": "diffracted beam",
        "tube_voltage_kv": 40.0,
        "step_time_s": 5.0,
        "instrument": "PW3710",
    }

    def content(self) -> bytes:
        return files.udf(counts())


class TestRd(ReaderContract):
    format_name, file_name = "Philips RD", "scan.rd"
    principal, n_lines = 1.54056, 2
    metadata = {"sample_id": "tin 7", "anode": "Cu", "instrument": "PW3710"}  # noqa: RUF012

    def content(self) -> bytes:
        return files.rd(counts())

    def counts(self) -> np.ndarray:
        return files.philips_counts(counts())


class TestSd(TestRd):
    file_name = "scan.sd"

    def content(self) -> bytes:
        return files.rd(counts(), version=b"V5RD")


class TestUxd(ReaderContract):
    format_name, file_name, cut_is_noticed = "Bruker UXD", "scan.uxd", False
    principal, n_lines = 1.5406, 2
    metadata = {  # noqa: RUF012
        "sample_id": "tin 7",
        "operator": "A. Analyst",
        "anode": "Cu",
        "goniometer_radius_mm": 217.5,
        "divergence_slit_deg": 0.6,
        "step_time_s": 2.0,
        "tube_voltage_kv": 40.0,
        "tube_current_ma": 30.0,
        "k_beta_angstrom": 1.39222,
        "scan_axis": "COUPLED",
    }

    def content(self) -> bytes:
        return files.uxd(counts())


class TestUxdPairs(TestUxd):
    def content(self) -> bytes:
        return files.uxd(counts(), pairs=True)


class TestRas(ReaderContract):
    format_name, file_name = "Rigaku RAS", "scan.ras"
    principal, n_lines = 1.540593, 2
    metadata = {  # noqa: RUF012
        "sample_id": "tin 7",
        "operator": "A. Analyst",
        "anode": "Cu",
        "goniometer_radius_mm": 300.0,
        "instrument": "SmartLab",
        "step_time_s": 0.6,
        "tube_voltage_kv": 40.0,
        "scan_axis": "TwoThetaTheta",
    }

    def content(self) -> bytes:
        return files.ras(counts())


class TestRasx(ReaderContract):
    format_name, file_name = "Rigaku RASX", "scan.rasx"
    principal, n_lines = 1.540593, 2
    metadata = {"sample_id": "tin 7", "operator": "A. Analyst", "anode": "Cu", "goniometer_radius_mm": 300.0}  # noqa: RUF012

    def content(self) -> bytes:
        return files.rasx(counts())


class TestAsc(ReaderContract):
    format_name, file_name = "Rigaku ASC", "scan.asc"
    principal, n_lines = 1.54056, 2
    metadata = {"sample_id": "tin 7", "anode": "Cu", "step_time_s": 2.0, "scan_axis": "2theta/theta"}  # noqa: RUF012

    def content(self) -> bytes:
        return files.asc(counts())


class TestGsasStd(ReaderContract):
    format_name, file_name = "GSAS", "scan.gsa"
    metadata = {"sample_id": "tin 7"}  # noqa: RUF012

    def content(self) -> bytes:
        return files.gsas_std(counts())


class TestGsasFxye(TestGsasStd):
    file_name = "scan.fxye"

    def content(self) -> bytes:
        return files.gsas_fxye(counts())


class TestGsasEsd(TestGsasStd):
    file_name = "scan.gda"

    def content(self) -> bytes:
        return files.gsas_esd(counts())


class TestGsasAlt(TestGsasStd):
    """ALT prints uncertainties with one decimal, a few percent of the smallest."""

    file_name = "scan.xra"

    def content(self) -> bytes:
        return files.gsas_alt(counts())


class TestBrukerRaw1(ReaderContract):
    format_name, file_name = "Bruker RAW", "v1.raw"
    principal, n_lines = 1.5406, 2
    metadata = {"sample_id": "tin 7", "anode": "Cu", "step_time_s": 4.0}  # noqa: RUF012

    def content(self) -> bytes:
        return files.raw1(counts())


class TestBrukerRaw2(ReaderContract):
    format_name, file_name = "Bruker RAW", "v2.raw"
    principal, n_lines = 1.5406, 2
    metadata = {"anode": "Cu", "step_time_s": 2.0, "start_time": "01-Feb-92"}  # noqa: RUF012

    def content(self) -> bytes:
        return files.raw2(counts())


class TestBrukerRaw3(ReaderContract):
    format_name, file_name = "Bruker RAW", "v3.raw"
    principal, n_lines = 1.5406, 2
    metadata = {  # noqa: RUF012
        "sample_id": "tin 7",
        "operator": "A. Analyst",
        "anode": "Cu",
        "goniometer_radius_mm": 217.5,
        "divergence_slit_deg": 1.0,
        "receiving_slit_mm": 0.2,
        "step_time_s": 2.0,
        "tube_voltage_kv": 40.0,
        "start_time": "02/01/03 10:11:12",
    }

    def content(self) -> bytes:
        return files.raw3(counts())


class TestBrukerRaw4(ReaderContract):
    format_name, file_name = "Bruker RAW", "v4.raw"
    principal, n_lines = 1.5406, 2
    metadata = {  # noqa: RUF012
        "sample_id": "tin 7",
        "operator": "A. Analyst",
        "anode": "Cu",
        "goniometer_radius_mm": 280.0,
        "divergence_slit_deg": 0.3,
        "soller_deg": 2.5,
        "step_time_s": 1.5,
        "scan_axis": "Locked Coupled",
    }

    def content(self) -> bytes:
        return files.raw4(counts())


class TestBrukerRaw4WideRecords(TestBrukerRaw4):
    def content(self) -> bytes:
        return files.raw4(counts(), stride=8)


class TestStoe(ReaderContract):
    format_name, file_name = "Stoe RAW", "stoe.raw"
    principal, n_lines = 1.54056, 1
    finding_codes = (Code.READER_NOTE,)
    metadata = {"sample_id": "tin 7", "operator": "Operator", "start_time": "22-Sep-20 17:18"}  # noqa: RUF012

    def content(self) -> bytes:
        return files.stoe(counts())


class TestXrdml(ReaderContract):
    format_name, file_name = "PANalytical XRDML", "scan.xrdml"
    principal, n_lines = 1.540598, 2
    metadata = {  # noqa: RUF012
        "sample_id": "tin 7",
        "operator": "A. Analyst",
        "instrument": "EMPYREAN",
        "anode": "Cu",
        "goniometer_radius_mm": 240.0,
        "soller_deg": 2.2918,
        "step_time_s": 39.27,
        "tube_voltage_kv": 45.0,
        "tube_current_ma": 40.0,
        "k_beta_angstrom": 1.39225,
        "scan_axis": "Gonio",
        "monochromator": "none",
    }

    def content(self) -> bytes:
        return files.xrdml(counts())


class TestPdcif(ReaderContract):
    format_name, file_name = "powder CIF", "scan.cif"
    principal, n_lines = 1.5405929, 2
    metadata = {"sample_id": "tin 7", "goniometer_radius_mm": 217.5, "anode": "Cu"}  # noqa: RUF012

    def content(self) -> bytes:
        return files.pdcif(counts())


class TestBrml(ReaderContract):
    format_name, file_name = "Bruker BRML", "scan.brml"
    principal, n_lines = 1.5406, 2
    metadata = {  # noqa: RUF012
        "sample_id": "tin 7",
        "operator": "A. Analyst",
        "anode": "Cu",
        "goniometer_radius_mm": 280.0,
        "step_time_s": 2.0,
        "tube_voltage_kv": 40.0,
    }

    def content(self) -> bytes:
        return files.brml(counts())


class TestNexus(ReaderContract):
    format_name, file_name = "NeXus", "scan.nxs"
    principal, n_lines = 1.5405929, 2
    finding_codes = (Code.READER_NOTE,)

    def content(self) -> bytes:
        return files.nexus(counts())


def test_the_table_has_one_row_per_format() -> None:
    names = [row.name for row in FORMATS]
    assert len(names) == len(set(names))
    assert names[-1] == "text columns"
    assert all(suffix.startswith(".") and suffix == suffix.lower() for row in FORMATS for suffix in row.suffixes)


# Attenuators ---------------------------------------------------------------------------------------------------------


def attenuated() -> tuple[np.ndarray, np.ndarray]:
    """Counts that a detector saw behind an attenuator of 8.3 at the strongest line, and the factor of each point."""
    factor = np.where(np.abs(grid() - 31.0) < 0.3, 8.3, 1.0)
    generator = np.random.default_rng(3)
    return generator.poisson(files.expected_counts(grid()) / factor).astype(float), factor


@pytest.mark.parametrize("name", ["scan.ras", "scan.rasx", "scan.xrdml", "applied.xrdml", "scan.brml"])
def test_attenuation_factors_are_applied_once_with_their_variance(tmp_path: Path, name: str) -> None:
    seen, factor = attenuated()
    content = {
        "scan.ras": lambda: files.ras(seen, factor=factor),
        "scan.rasx": lambda: files.rasx(seen, factor=factor),
        "scan.xrdml": lambda: files.xrdml(seen, scans=files.xrdml_scan(seen, factors=factor)),
        "applied.xrdml": lambda: files.xrdml(
            seen, scans=files.xrdml_scan(seen * factor, factors=factor, tag="intensities")
        ),
        "scan.brml": lambda: files.brml(seen * factor, factor=factor),
    }[name]()
    path = tmp_path / name
    path.write_bytes(content)
    scan = read(path)
    np.testing.assert_allclose(scan.intensity, seen * factor, rtol=1e-9)
    np.testing.assert_allclose(scan.gain, factor, rtol=1e-12)
    assert scan.count_kind == "counts"
    assert [finding.code for finding in scan.findings] == [Code.ATTENUATOR_APPLIED]


# Several ranges ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repeat_signature", [True, False])
def test_version_1_ranges_with_and_without_repeated_signature(tmp_path: Path, repeat_signature: bool) -> None:
    path = tmp_path / "ranges.raw"
    path.write_bytes(files.raw1(counts(), n_ranges=2, repeat_signature=repeat_signature))
    scans = read_all(path)
    assert [scan.source.scan for scan in scans] == [1, 2]
    assert scans[1].two_theta[0] == pytest.approx(60.0)
    np.testing.assert_array_equal(scans[1].intensity, counts())


def test_version_3_measured_angles(tmp_path: Path) -> None:
    path = tmp_path / "varying.raw"
    path.write_bytes(files.raw3(counts(), varying=True))
    scan = read(path)
    np.testing.assert_array_equal(scan.intensity, counts())
    expected = 20.0 + 0.02 * np.arange(scan.n_points) + 0.001 * np.sin(np.arange(scan.n_points))
    np.testing.assert_allclose(scan.two_theta, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("rocking.raw", files.raw3(counts(), scan_type=3), "rocking curve"),
        ("phi.raw", files.raw4(counts(), drive=b"Phi", scan_type=b"Phi"), "Phi"),
        ("phi.brml", files.brml(counts(), axis="Phi"), "not 2theta"),
        ("mesh.xrdml", files.xrdml(counts(), kind="Area measurement"), "area measurement"),
        ("omega.xrdml", files.xrdml(counts(), scans=files.xrdml_scan(counts(), axis="Omega")), "Omega"),
        ("tof.gsa", b"title\nBANK 1 100 10 SLOG 1000 2000 0.1 0 FXYE\n1 2 3\n", "time of flight"),
        ("cell.cif", b"data_x\n_cell_length_a 5.4\n", "without a powder profile"),
        ("phi.uxd", files.uxd(counts()).replace(b"COUPLED", b"PHI"), "pole figure"),
        ("phi.ras", files.ras(counts()).replace(b"TwoThetaTheta", b"Phi"), "pole figure"),
        ("beta.asc", files.asc(counts()).replace(b"2theta/theta", b"beta"), "pole figure"),
    ],
)
def test_what_is_no_powder_scan_is_refused_with_the_reason(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as refused:
        read(path)
    assert str(path) in str(refused.value)


def test_a_germanium_monochromator_leaves_one_line(tmp_path: Path) -> None:
    brml = tmp_path / "johansson.brml"
    brml.write_bytes(files.brml(counts(), optics='<InfoData LogicName="Johansson_Ge111" VisibleName="Ge111"/>'))
    assert read(brml).wavelength.lines == ((1.5406, 1.0),)
    rasx = tmp_path / "ka1.rasx"
    rasx.write_bytes(files.rasx(counts(), wave="Ka1"))
    assert read(rasx).wavelength.lines == ((1.540593, 1.0),)


def test_philips_stored_maximum_guards_the_offset(tmp_path: Path) -> None:
    content = bytearray(files.rd(counts()))
    struct.pack_into("<H", content, 136, 12345)
    path = tmp_path / "scan.rd"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"largest stored value .* header says 12345"):
        read(path)


def test_stoe_stored_extremes_guard_the_layout(tmp_path: Path) -> None:
    content = bytearray(files.stoe(counts()))
    struct.pack_into("<I", content, 0xA00 + 400, 7_000_000)
    path = tmp_path / "stoe.raw"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"7e\+06|7000000"):
        read(path)


def test_gsas_counters_average(tmp_path: Path) -> None:
    """With NCTR counters the mean has the variance y / NCTR."""
    y = counts()
    body = ["".join(f"{4:2d}{v:6.0f}" for v in y[i : i + 10]) for i in range(0, y.size, 10)]
    path = tmp_path / "multi.gsa"
    path.write_text(f"t\nBANK 1 {y.size} {len(body)} CONST 2000.0 2.0 0 0 STD\n" + "\n".join(body) + "\n")
    scan = read(path)
    np.testing.assert_array_equal(scan.intensity, y)
    assert Code.SIGMA_COLUMN_IGNORED in {finding.code for finding in scan.findings}


def test_udf_without_its_closing_slash_is_flagged(tmp_path: Path) -> None:
    path = tmp_path / "scan.udf"
    path.write_bytes(files.udf(counts()).rstrip(b"/\n"))
    assert [finding.code for finding in read(path).findings] == [Code.TRUNCATED_FILE]


def test_udf_automatic_slit_is_flagged(tmp_path: Path) -> None:
    path = tmp_path / "scan.udf"
    path.write_bytes(files.udf(counts()).replace(b"Fixed, 1/2", b"Automatic, 12"))
    scan = read(path)
    assert scan.metadata["divergence_slit"] == "Automatic, 12"
    assert "irradiated area" in scan.findings[0].message


# Real files ----------------------------------------------------------------------------------------------------------

REAL = [
    # name, format, points, first and last (2theta, intensity), principal wavelength, number of lines
    ("formats/D5000_1.RAW", "Bruker RAW", 3651, (2.0, 2230), (75.0, 89), 1.78897, 2),
    ("formats/D5000_2.RAW", "Bruker RAW", 3651, (2.0, 2334), (75.0, 140), 1.78897, 2),
    ("formats/D5000_1.xy", "text columns", 3651, (2.0, 2230), (75.0, 89), None, 0),
    ("formats/D5000_2.xy", "text columns", 3651, (2.0, 2334), (75.0, 140), None, 0),
    ("formats/bruker_raw1.raw", "Bruker RAW", 876, (4.98, 665), (39.98, 266), 1.5406, 2),
    ("formats/bruker_raw3_Cu3Au-1.raw", "Bruker RAW", 3901, (22.0, 48), (100.0, 11), 1.5406, 2),
    ("formats/bruker_raw4_v5converter.raw", "Bruker RAW", 4059, (37.0001, 7264), (120.00464352884, 7043), 1.5406, 2),
    ("formats/bruker_absorber.brml", "Bruker BRML", 2001, (44.0, 3), (48.0, 2), 1.5406, 1),
    ("formats/Cr-Ni.ras", "Rigaku RAS", 3001, (10.0, 26), (70.0, 20), 1.540593, 2),
    ("formats/rigaku_nims.ras", "Rigaku RAS", 3501, (25.0, 13), (60.0, 2), 1.540593, 2),
    ("formats/rigaku_zno_ald.rasx", "Rigaku RASX", 7001, (20.0, 253), (90.0, 15), 1.540593, 2),
    (
        "formats/TwoTheta_scan_powder.rasx",
        "Rigaku RASX",
        2726,
        (10.0, 170.55354309082),
        (119.0, 13.8521060943604),
        1.540593,
        1,
    ),
    ("formats/XRD-918-16_10.xrdml", "PANalytical XRDML", 5027, (4.00656514, 1305), (69.99936587, 171), 1.540598, 2),
    ("formats/attenuator_m54313.xrdml", "PANalytical XRDML", 1800, (26.025, 0), (79.995, 0), 1.540598, 2),
    ("formats/empyrean.xrdml", "PANalytical XRDML", 196, (30.05, 8), (41.75, 6), 1.540598, 2),
    ("formats/xrdml_918-16_10_ref.nxs", "NeXus", 5027, (4.00656514, 1305), (69.99936587, 171), 1.540598, 2),
    ("formats/gsas.raw", "GSAS", 4941, (16.0, 1163), (99.98, 1206), None, 0),
    ("formats/stoe.raw", "Stoe RAW", 5404, (10.0, 4213), (91.045, 1285), 1.20793, 1),
    ("formats/pdcif_1517474.cif", "powder CIF", 3296, (1.5, 5540), (166.25, 797), 2.0785, 1),
    ("formats/pdcif_nist_srm660c_100a.cif", "powder CIF", 5332, (20.3, 19), (150.908, 6.93), 1.5405929, 2),
    ("formats/LiMnO2.xy", "text columns", 9001, (10.0, 1943), (100.0, 1447), None, 0),
    ("formats/eva_or_plain_sample.xy", "text columns", 11900, (1.0, 0.0), (119.99, 0.07034), None, 0),
    ("formats/highscore_scanpoints.csv", "text columns", 7351, (3.0, 1643), (150.0, 748), None, 0),
    ("formats/MnSb_33_BM.xye", "text columns", 16548, (2.084, 42290), (68.312, 5706), None, 0),
    ("cpd/CPD-Y2O3.PRN", "text columns", 7251, (5.0, 484), (150.0, 316), None, 0),
    ("cpd/cpd-1e.prn", "text columns", 7251, (5.0, 177), (150.0, 130), None, 0),
    ("cpd/zincite.prn", "text columns", 7251, (5.0, 222), (150.0, 65), None, 0),
    ("simulated/dev_01.xy", "text columns", 4001, (20.0, 862), (100.0, 350), 1.5405929, 2),
]


@pytest.mark.parametrize(("name", "format_name", "n", "first", "last", "principal", "n_lines"), REAL)
def test_real_file(
    name: str,
    format_name: str,
    n: int,
    first: tuple[float, float],
    last: tuple[float, float],
    principal: float | None,
    n_lines: int,
) -> None:
    scan = read(shared_file(name))
    assert scan.source.format == format_name
    assert scan.n_points == n
    assert (scan.two_theta[0], scan.intensity[0]) == pytest.approx(first, abs=1e-9)
    assert (scan.two_theta[-1], scan.intensity[-1]) == pytest.approx(last, abs=1e-9)
    if principal is None:
        assert scan.wavelength is None
    else:
        assert scan.wavelength is not None
        assert scan.wavelength.principal == pytest.approx(principal, abs=1e-7)
        assert len(scan.wavelength.lines) == n_lines


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("formats/Rigaku_xrd_110.asc", "11 scans, none of a powder: .*beta"),
        ("formats/bruker.UXD", "68 scans, none of a powder: .*PHI"),
        ("formats/many_scans_mesh.xrdml", "101 scans, none of a powder: .*area measurement"),
        ("formats/bruker_raw4_scrambled.raw", "2320 negative of 7134"),
        ("formats/bruker_raw1_three_blocks.raw", "3 scans in the file"),
        ("formats/single.csv", "2 scans in the file: 1: 30.0031 to 66.0851, 1375 points .* 1675 points"),
        ("formats/csv_trap_1.csv", "first column is 'nm'"),
        ("formats/csv_trap_2.csv", "no rows of numbers"),
        ("formats/csv_trap_3.csv", "1 negative of 10"),
        ("formats/csv_trap_4.csv", "7 negative of 14"),
    ],
)
def test_real_file_that_is_refused(name: str, reason: str) -> None:
    path = shared_file(name)
    with pytest.raises(InputError, match=reason) as refused:
        read(path)
    assert str(path) in str(refused.value)


def test_every_file_of_the_folder_is_covered_here() -> None:
    folder = shared_file("formats")
    text = Path(__file__).read_text()
    missing = [path.name for path in folder.iterdir() if f"formats/{path.name}" not in text]
    assert missing == []


@pytest.mark.parametrize("number", [1, 2])
def test_d5000_raw_equals_xy_in_every_point(number: int) -> None:
    raw, xy = read(shared_file(f"formats/D5000_{number}.RAW")), read(shared_file(f"formats/D5000_{number}.xy"))
    np.testing.assert_allclose(raw.two_theta, xy.two_theta, atol=1e-9)
    np.testing.assert_array_equal(raw.intensity, xy.intensity)


def test_a_nexus_doublet_without_weights_is_two_to_one(tmp_path: Path) -> None:
    path = tmp_path / "scan.nxs"
    path.write_bytes(files.nexus(counts()))
    with h5py.File(path, "r+") as file:
        del file["entry/INSTRUMENT/crystal/wavelength"]
        file["entry/INSTRUMENT/crystal/wavelength"] = np.array([1.540593, 1.544427])
    wavelength = read(path).wavelength
    assert wavelength is not None
    assert wavelength.lines == ((1.540593, 1.0), (1.544427, 0.5))


def test_nexus_reference_equals_its_xrdml() -> None:
    nexus, xrdml = (
        read(shared_file("formats/xrdml_918-16_10_ref.nxs")),
        read(shared_file("formats/XRD-918-16_10.xrdml")),
    )
    np.testing.assert_allclose(nexus.two_theta, xrdml.two_theta, atol=1e-9)
    np.testing.assert_array_equal(nexus.intensity, xrdml.intensity)
    assert nexus.wavelength == xrdml.wavelength
    for key in ("anode", "tube_voltage_kv", "tube_current_ma", "step_time_s", "scan_axis"):
        assert nexus.metadata[key] == xrdml.metadata[key]


def test_real_attenuators() -> None:
    """xrdml: one point behind the 188-fold attenuator (1877 counts there); brml: 29 points, factor 8.3."""
    xrdml = read(shared_file("formats/attenuator_m54313.xrdml"))
    assert xrdml.intensity.max() == 1877 * 188
    assert np.count_nonzero(xrdml.gain == 188.0) == 1
    brml = read(shared_file("formats/bruker_absorber.brml"))
    assert np.count_nonzero(brml.gain == 8.3) == 29
    np.testing.assert_allclose(brml.intensity / brml.gain, np.rint(brml.intensity / brml.gain), atol=1e-6)


SECOND_READER = [
    "D5000_1.RAW",
    "bruker_raw3_Cu3Au-1.raw",
    "bruker_raw4_v5converter.raw",
    "bruker_absorber.brml",
    "rigaku_nims.ras",
    "rigaku_zno_ald.rasx",
    "XRD-918-16_10.xrdml",
    "attenuator_m54313.xrdml",
    "empyrean.xrdml",
    "gsas.raw",
    "pdcif_nist_srm660c_100a.cif",
    "highscore_scanpoints.csv",
    "LiMnO2.xy",
]


@pytest.mark.parametrize("name", SECOND_READER)
def test_equal_to_geddes_in_every_point(name: str) -> None:
    """geddes 1.0.1 is an independent reader (Rust); positions agree to the rounding of float sums."""
    geddes = pytest.importorskip("geddes")
    path = shared_file(f"formats/{name}")
    other, scan = geddes.read(str(path)), read(path)
    np.testing.assert_allclose(scan.two_theta, np.asarray(other.x), rtol=0, atol=1e-8)
    np.testing.assert_allclose(scan.intensity, np.asarray(other.y), rtol=1e-12)


def test_three_ranges_of_a_real_file() -> None:
    """Ranges 10-20 by 0.1, 30-35 by 0.2 and 40-45 by 0.1 deg, with 0.1, 0.2 and 0.1 s a step; geddes reads the same."""
    path = shared_file("formats/bruker_raw1_three_blocks.raw")
    first = read(path, scan=1)
    assert (first.n_points, first.intensity[0], first.intensity[-1]) == (101, 10, 9)
    assert read(path, scan="3").intensity[:4].tolist() == [4, 5, 3, 4]
    with pytest.raises(InputError, match="26 points; expected at least 50"):
        read(path, scan="2")
    joined = read(path, scan="sum")
    assert joined.n_points == 101 + 26 + 51
    np.testing.assert_allclose(joined.gain[101:127], 0.5)


def test_real_files_read_alike_compressed(tmp_path: Path) -> None:
    for name in ("formats/bruker_raw3_Cu3Au-1.raw", "formats/gsas.raw", "formats/XRD-918-16_10.xrdml"):
        path = shared_file(name)
        packed = tmp_path / (path.name + ".gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        np.testing.assert_array_equal(read(packed).intensity, read(path).intensity)


def test_no_spike_is_seen_in_the_scans_of_the_laboratories() -> None:
    folder = shared_file("cpd").parent
    scans = [*folder.glob("cpd/*"), *folder.glob("dara/*.xrdml"), *folder.glob("simulated/*.xy")]
    assert len(scans) >= 25
    for path in scans:
        codes = {finding.code for finding in read(path).findings}
        assert not codes, f"{path.name}: {codes}"


def test_the_error_of_an_unknown_binary_names_the_formats(tmp_path: Path) -> None:
    path = tmp_path / "unknown.bin"
    path.write_bytes(b"\x00\x01\x02\x03" * 100)
    with pytest.raises(InputError, match=re.escape("PANalytical XRDML, Bruker RAW")):
        read(path)


def test_uxd_positions_of_four_digits_are_made_exact(tmp_path: Path) -> None:
    """Above 100 deg the converter prints one decimal, fewer than the step has."""
    angles = 99.0 + 0.02 * np.arange(1501)
    listed = "".join(f"{float(f'{a:.4g}'):g}\t{v:.0f}\n" for a, v in zip(angles, counts(), strict=True))
    head = (
        files.uxd(counts(), pairs=True).decode().partition("_2THETACOUNTS\n")[0].replace("_START=20.0", "_START=99.0")
    )
    path = tmp_path / "rounded.uxd"
    path.write_text(head + "_2THETACOUNTS\n" + listed)
    scan = read(path)
    np.testing.assert_allclose(scan.two_theta, angles, atol=1e-9)
    np.testing.assert_array_equal(scan.intensity, counts())


def test_uxd_variable_slit_is_flagged(tmp_path: Path) -> None:
    path = tmp_path / "variable.uxd"
    path.write_bytes(files.uxd(counts()).replace(b"_COUNTS", b"_VARDIVERGENCE='V6'\n_COUNTS"))
    assert "irradiated area" in read(path).findings[0].message
