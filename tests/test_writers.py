"""Writers: a round trip through each format keeps counts, variance and metadata; files appear whole."""

from __future__ import annotations

import dataclasses
import json
import types
from pathlib import Path

import numpy as np
import pytest

import reader_files as files
from reader_files import counts, grid, shared_file
from xrdz.commands import read as read_command
from xrdz.diffractogram import Diffractogram, Source
from xrdz.errors import InputError
from xrdz.readers import content_of_bytes, read, read_content
from xrdz.readers.statistics import uncertainty
from xrdz.wavelength import Wavelength, wavelength_from_name
from xrdz.writers import OUTPUT_FORMATS, write

METADATA = types.MappingProxyType(
    {
        "sample_id": 'tin 7; 50 % O\'Neil "A"',
        "operator": "J. Müller",
        "start_time": "2024-02-01T10:11:12+01:00",
        "instrument": "EMPYREAN",
        "anode": "Cu",
        "tube_voltage_kv": 45.0,
        "tube_current_ma": 40.0,
        "step_time_s": 39.27,
        "goniometer_radius_mm": 240.0,
        "filter": "Ni <0.02 mm> & more",
        "monochromator": "none",
        "monochromator_two_theta_deg": 26.6,
        "soller_deg": 2.2918,
        "divergence_slit_deg": 0.5,
        "receiving_slit_mm": 0.1,
        "detector": "PIXcel1D",
        "k_beta_angstrom": 1.39225,
        "scan_axis": "Gonio",
        "temperature_k": 295.15,
        "comment": "first: a colon, a # and = signs",
        "software": "Data Collector",
    }
)


def scan(**changes: object) -> Diffractogram:
    base = Diffractogram(
        two_theta=grid() + 0.001 * np.sin(np.arange(grid().size)),
        intensity=counts(),
        wavelength=wavelength_from_name("CuKa", origin="file"),
        count_kind="counts",
        metadata=METADATA,
        source=Source("memory.xy", "0" * 64, "text columns", 1),
    )
    return dataclasses.replace(base, **changes)


def back(diffractogram: Diffractogram, name: str, folder: Path) -> Diffractogram:
    return read(write(diffractogram, folder / f"out{OUTPUT_FORMATS[name].suffix}", name))


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
def test_counts_positions_wavelength_and_metadata_come_back(name: str, tmp_path: Path) -> None:
    again = back(scan(), name, tmp_path)
    np.testing.assert_array_equal(again.two_theta, scan().two_theta)
    np.testing.assert_array_equal(again.intensity, scan().intensity)
    assert (again.count_kind, again.gain, again.su) == ("counts", 1.0, None)
    assert again.wavelength == scan().wavelength
    assert dict(again.metadata) == dict(METADATA)
    assert again.findings == ()


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
@pytest.mark.parametrize(
    "wavelength",
    [
        None,
        Wavelength(((0.41283, 1.0),), "", "file"),
        wavelength_from_name("CoKa1", origin="file"),
        Wavelength(((1.5405929, 1.0), (1.5444274, 0.48), (1.39225, 0.002)), "CuKa", "file"),
    ],
)
def test_any_wavelength_comes_back(name: str, wavelength: Wavelength | None, tmp_path: Path) -> None:
    metadata = {"sample_id": "tin"}
    again = back(scan(wavelength=wavelength, metadata=metadata), name, tmp_path)
    assert again.wavelength == wavelength


@pytest.mark.parametrize("name", ["xye", "csv", "pdcif", "nexus"])
def test_uncertainties_come_back(name: str, tmp_path: Path) -> None:
    su = np.sqrt(np.maximum(counts(), 1)) * np.where(grid() < 30, 2.0, 1.0)
    noisy = np.abs(np.random.default_rng(3).normal(files.expected_counts(grid()), su))
    before = scan(intensity=noisy, su=su, count_kind="scaled")
    again = back(before, name, tmp_path)
    assert again.su is not None
    np.testing.assert_allclose(again.su, su, rtol=1e-14)
    np.testing.assert_array_equal(again.intensity, before.intensity)


@pytest.mark.parametrize("name", ["xye", "csv", "pdcif", "nexus"])
def test_a_scale_comes_back_as_its_variance(name: str, tmp_path: Path) -> None:
    before = scan(intensity=0.037 * counts(level=900.0), gain=0.037, count_kind="scaled")
    again = back(before, name, tmp_path)
    np.testing.assert_array_equal(again.intensity, before.intensity)
    np.testing.assert_allclose(uncertainty(again), uncertainty(before), rtol=1e-9)


@pytest.mark.parametrize("name", ["nexus", "xrdml"])
def test_attenuated_counts_come_back_with_their_gain(name: str, tmp_path: Path) -> None:
    factor = np.where(np.abs(grid() - 31) < 0.3, 8.3, 1.0)
    before = scan(intensity=counts() * factor, gain=factor)
    again = back(before, name, tmp_path)
    np.testing.assert_allclose(again.intensity, before.intensity, rtol=1e-12)
    np.testing.assert_array_equal(again.gain, factor)


def test_xrdml_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="XRDML holds counts, and these are scaled"):
        write(scan(count_kind="scaled", gain=0.5), tmp_path / "out.xrdml", "xrdml")
    assert list(tmp_path.iterdir()) == []


def test_the_file_that_was_read_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "scan.xy"
    path.write_bytes(files.xy(counts()))
    with pytest.raises(InputError, match="would replace the file that was read"):
        write(read(path), path, "xye")
    assert path.read_bytes() == files.xy(counts())


def test_an_unknown_format_and_an_absent_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected one of xye, csv"):
        write(scan(), tmp_path / "out", "docx")
    with pytest.raises(InputError, match="cannot be written"):
        write(scan(), tmp_path / "absent" / "out.xye", "xye")


def test_writing_is_deterministic() -> None:
    for name, row in OUTPUT_FORMATS.items():
        if name != "nexus":  # HDF5 may stamp object times
            assert row.to_bytes(scan()) == row.to_bytes(scan())
        again = read_content(content_of_bytes(row.to_bytes(scan()), f"out{row.suffix}"))
        np.testing.assert_array_equal(again.intensity, scan().intensity)


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
@pytest.mark.parametrize(
    "source", ["dara/V2O5_0p8011-ZrO2_0p2012--2min.xrdml", "simulated/dev_03.xy", "formats/rigaku_nims.ras"]
)
def test_real_scans_come_back(name: str, source: str, tmp_path: Path) -> None:
    before = read(shared_file(source))
    again = back(before, name, tmp_path)
    np.testing.assert_array_equal(again.two_theta, before.two_theta)
    np.testing.assert_array_equal(again.intensity, before.intensity)
    assert again.wavelength == before.wavelength
    assert {key: again.metadata.get(key) for key in before.metadata} == dict(before.metadata)


# xrdz read -----------------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    from xrdz.cli import CommandParser

    parser = CommandParser(prog="xrdz")
    read_command.register(parser.add_subparsers(required=True))
    args = parser.parse_args(["read", *arguments])
    assert args.run(args) == 0
    return capsys.readouterr().out


def test_read_shows_what_was_understood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scan.xrdml"
    path.write_bytes(files.xrdml(counts()))
    text = run(capsys, str(path))
    for part in (
        "PANalytical XRDML",
        "1501, 20 to 50 deg 2theta",
        "0.02 deg",
        "1.5406",
        "from the file",
        "counts",
        "A. Analyst",
    ):
        assert part in text


def test_read_json_is_one_document_a_scan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ranges.raw"
    path.write_bytes(files.raw3(counts(), n_ranges=2))
    documents = [json.loads(line) for line in run(capsys, str(path), "--scan", "all", "--json").splitlines()]
    assert [document["source"]["scan"] for document in documents] == [1, 2]
    source = documents[0]["source"]
    assert set(source) == {
        "path",
        "sha256",
        "format",
        "scan",
        "n_points",
        "two_theta",
        "count_kind",
        "wavelength",
        "metadata",
    }
    assert source["wavelength"] == {"lines": [[1.5406, 1.0], [1.54439, 0.5]], "from": "file"}
    assert documents[1]["first"] == [60.0, counts()[0]]


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
def test_read_converts(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scan.raw"
    path.write_bytes(files.raw4(counts()))
    out = tmp_path / f"scan{OUTPUT_FORMATS[name].suffix}"
    run(capsys, str(path), "--to", name, "--out", str(out))
    np.testing.assert_array_equal(read(out).intensity, counts())


def test_read_converts_q(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    q = 4 * np.pi * np.sin(np.radians(grid() / 2)) / 1.5405929
    path = tmp_path / "q.dat"
    path.write_text("".join(f"{a:.9f} {v:.0f}\n" for a, v in zip(q, counts(), strict=True)))
    out = tmp_path / "converted.xye"
    run(capsys, str(path), "--axis", "q", "--wavelength", "CuKa", "--to", "xye", "--out", str(out))
    converted = read(out)
    np.testing.assert_allclose(converted.two_theta, grid(), atol=1e-5)
    assert converted.wavelength.name == "CuKa"


def test_read_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scan.xy"
    path.write_bytes(files.xy(counts()))
    run(capsys, str(path), "--plot", str(tmp_path / "scan.png"))
    assert (tmp_path / "scan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--to", "xye"), "--to and --out belong together"),
        (("--scan", "all", "--to", "xye", "--out", "x.xye"), "one file holds one scan"),
        (("--axis", "q", "--wavelength", "0.001"), "outside 0.1 to 5"),
        (("--wavelength", "CuKx"), "did you mean 'CuKa'"),
    ],
)
def test_read_refuses_what_makes_no_sense(
    arguments: tuple[str, ...], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scan.xy"
    path.write_bytes(files.xy(counts()))
    with pytest.raises(InputError, match=reason):
        run(capsys, str(path), *arguments)
