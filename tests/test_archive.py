"""The archive: read by h5py alone, reopened to the last bit, never torn, and what it costs."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xrdz as package
from batch_inputs import good_folder, numbers_of, quick_scan, xrdz
from xrdz.analysis import Analysis
from xrdz.archive import (
    Row,
    StoredScan,
    analysis_from_archive,
    diffractogram_from_archive,
    is_archive,
    open_archive,
    part_rows,
)
from xrdz.archive_writer import PartHeader, PartWriter
from xrdz.diffractogram import Diffractogram
from xrdz.errors import InputError
from xrdz.findings import Code, Level, info
from xrdz.method import Method
from xrdz.pipeline import analyse_diffractogram
from xrdz.plotting import analysis_figure
from xrdz.readers import content_of_bytes, read, read_content
from xrdz.reporting.item import canonical, item_of_analysis
from xrdz.stored import StoredFit, from_plain, slimmed, to_plain
from xrdz.wavelength import Wavelength


def archived_diffractograms(part: Path) -> list[Diffractogram]:
    """Return every scan of a part as it was read, in the order of its entries."""
    rows = [StoredScan(row, part, number) for number, row in enumerate(part_rows(part))]
    return [diffractogram_from_archive(scan) for scan in rows if scan.row.entry]


CROPPED = Method(name="cropped", two_theta=(29.0, 45.0), exclude=((38.0, 38.5),))


def same(first: Any, second: Any, path: str = "analysis") -> None:
    """Assert that two trees are equal to the last bit: types, order, arrays, NaN at the same places."""
    if isinstance(first, np.ndarray):
        assert first.dtype == second.dtype, path
        assert np.array_equal(first, second, equal_nan=first.dtype.kind == "f"), path
    elif dataclasses.is_dataclass(first):
        assert type(first) is type(second), path
        for item in dataclasses.fields(first):
            same(getattr(first, item.name), getattr(second, item.name), f"{path}.{item.name}")
    elif isinstance(first, Mapping):
        assert list(first) == list(second), path
        for key in first:
            same(first[key], second[key], f"{path}[{key!r}]")
    elif isinstance(first, tuple):
        assert len(first) == len(second), path
        for number, (one, other) in enumerate(zip(first, second, strict=True)):
            same(one, other, f"{path}[{number}]")
    else:
        assert first == second or (first != first and second != second), path


def scans() -> Iterator[tuple[str, Diffractogram]]:
    """Yield scans of every kind of variance, with and without a wavelength and metadata."""
    scan = read_content(content_of_bytes(quick_scan(3), "dir/quick.xy"))
    yield "counts", scan
    yield "no wavelength", dataclasses.replace(scan, wavelength=None)
    yield "one line", dataclasses.replace(scan, wavelength=Wavelength(((1.5405929, 1.0),), "CuKa1", "file"))
    attenuated = np.where(scan.two_theta > 30, 1.0, 7.3)
    yield "attenuated", dataclasses.replace(scan, intensity=scan.intensity * attenuated, gain=attenuated)
    yield "scaled", dataclasses.replace(scan, intensity=scan.intensity * 0.37, gain=0.37, count_kind="scaled")
    yield "uncertainties", dataclasses.replace(scan, su=np.sqrt(scan.intensity + 1.5), count_kind="unknown")
    metadata = {"sample_id": "Nr. 7 µ", "step_time_s": 0.1 + 0.2, "operator": "é" * 40, "comment": "two\nlines"}
    yield "metadata", dataclasses.replace(scan, metadata=MappingProxyType(metadata))
    many = dataclasses.replace(scan, findings=(info(Code.DECIMAL_COMMA, "commas"), info(Code.READER_NOTE, "x [y]")))
    yield "findings", many
    yield "large", dataclasses.replace(scan, intensity=scan.intensity * 2.0**20, gain=2.0**20)


KINDS = [name for name, _ in scans()]


def stored(path: Path, analyses: list[tuple[Analysis, Diffractogram]], method: Method, *, curves: bool = True) -> Path:
    writer = PartWriter(PartHeader("key", method, "references", "2026-11-23T00:00:00Z", curves))
    for number, (analysis, scan) in enumerate(analyses):
        writer.add(Row(f"folder/{number}.xy", status=analysis.status), analysis.to_dict(), analysis, scan)
    path.write_bytes(writer.image())
    return path


@pytest.fixture(scope="module")
def fresh() -> list[tuple[Analysis, Diffractogram]]:
    return [(analyse_diffractogram(scan, CROPPED), scan) for _, scan in scans()]


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory, fresh: list[tuple[Analysis, Diffractogram]]) -> Path:
    return stored(tmp_path_factory.mktemp("archive") / "part.h5", fresh, CROPPED)


@pytest.mark.parametrize("number", range(len(KINDS)), ids=KINDS)
def test_an_analysis_is_reopened_to_the_last_bit(
    part: Path, fresh: list[tuple[Analysis, Diffractogram]], number: int
) -> None:
    analysis, scan = fresh[number]
    reopened = analysis_from_archive(part, number + 1)
    assert reopened.to_dict() == analysis.to_dict()
    same(slimmed(analysis), reopened)
    same(scan, archived_diffractograms(part)[number], "scan")
    assert analysis.fit is not None
    assert reopened.fit is not None
    assert np.array_equal(reopened.fit.model, analysis.fit.model)
    assert np.array_equal(reopened.fit.covariance, analysis.fit.covariance)
    assert np.array_equal(reopened.fit.phase_curve(1), analysis.fit.phase_curve(1))
    assert reopened.fit.su("sn.a") == analysis.fit.su("sn.a")
    assert reopened.method.sha256 == CROPPED.sha256


def test_what_crosses_processes_is_the_same_and_small(fresh: list[tuple[Analysis, Diffractogram]]) -> None:
    for analysis, _ in fresh:
        slim = slimmed(analysis)
        content = pickle.dumps(slim)
        assert len(content) < 100_000, "450 points; the solver's blocks alone are ten times that"
        same(slim, pickle.loads(content))
        assert slimmed(slim) is slim


def test_plots_and_reports_of_a_reopened_analysis_are_those_of_the_fresh_one(
    part: Path, fresh: list[tuple[Analysis, Diffractogram]]
) -> None:
    analysis, _ = fresh[0]
    reopened = analysis_from_archive(part, 1)
    one, other = item_of_analysis(analysis), item_of_analysis(reopened)
    assert canonical(one.document) == canonical(other.document)
    assert one.curves is not None
    assert other.curves is not None
    for name in ("two_theta", "observed", "calculated", "background", "su"):
        assert np.array_equal(getattr(one.curves, name), getattr(other.curves, name)), name
    for phase, again in zip(one.curves.phases, other.curves.phases, strict=True):
        same(dataclasses.asdict(phase), dataclasses.asdict(again))
    figure = analysis_figure(reopened)
    assert len(figure.axes) == 3


def test_h5py_alone_reads_everything_after_nexus_conventions(
    part: Path, fresh: list[tuple[Analysis, Diffractogram]]
) -> None:
    analysis, scan = fresh[0]
    fit = analysis.fit
    assert fit is not None
    with h5py.File(part, "r") as file:
        assert file.attrs["NX_class"] == "NXroot"
        entry = file[file.attrs["default"]]
        assert (entry.attrs["NX_class"], entry["definition"][()].decode()) == ("NXentry", "NXmonopd")
        assert entry["title"][()].decode() == "folder/0.xy"
        assert np.array_equal(entry["data/data"][()], scan.intensity)
        assert np.array_equal(entry["instrument/detector/data"][()], scan.intensity)
        assert np.array_equal(entry["data/polar_angle"][()], scan.two_theta)
        assert entry["data/polar_angle"].attrs["units"] == "deg"
        assert entry["instrument/crystal/wavelength"][()].tolist() == [1.5405929, 1.5444274]
        assert entry["instrument/source/probe"][()].decode() == "x-ray"
        assert entry["data/fitted"][()].sum() == analysis.diffractogram.n_points
        plotted = entry["fit"]
        assert plotted.attrs["NX_class"] == "NXdata"
        assert set(plotted.attrs["auxiliary_signals"]) <= set(plotted)
        assert plotted[plotted.attrs["signal"]].shape == plotted["polar_angle"].shape
        assert np.array_equal(plotted["calculated"][()], fit.model)
        residual = (plotted["observed"][()] - plotted["calculated"][()]).astype(np.float32)
        assert np.array_equal(plotted["residual"][()], residual)
        total = plotted["background"][()] + plotted["phase_sn"][()] + plotted["phase_ni3sn4"][()]
        assert np.allclose(total, plotted["calculated"][()], rtol=1e-10)
        table = entry["parameters"][()]
        names = [name.decode() for name in table["name"]]
        assert names == list(fit.names)
        assert table["value"][names.index("sn.a")] == fit.value("sn.a")
        assert table["unit"][names.index("sn.a")] == b"angstrom"
        lower = np.tril_indices(len(names))
        assert np.array_equal(entry["covariance"][()], fit.covariance[lower])
        assert entry["reflections/sn"].dtype.names[:3] == ("h", "k", "l")
        process = entry["process"]
        assert process.attrs["NX_class"] == "NXprocess"
        assert process["program"][()] == b"xrdz"
        assert process["source_sha256"][()] == scan.source.sha256.encode()
        assert process["method_sha256"][()].decode() == CROPPED.sha256
        assert json.loads(process["method"][()])["two_theta"] == [29.0, 45.0]
        listed = process["findings"][()].decode().splitlines()
        assert len(listed) == len(analysis.findings)
        documents = [json.loads(line) for line in bytes(file["documents"][()]).decode().splitlines()]
        assert documents[0] == analysis.to_dict()
        assert entry["mass_ratio"][()]["value"] == analysis.mass_ratio.value  # type: ignore[union-attr]


def test_entries_of_one_skeleton_hold_nothing_of_each_other(part: Path) -> None:
    """Entries are copied from one that is filled again; a field left as it was would show a neighbour's content."""
    analyses = [analysis_from_archive(part, number + 1) for number in range(len(KINDS))]
    for number, analysis in enumerate(analyses):
        again = analysis_from_archive(part, number + 1)
        assert again.diffractogram.metadata == analysis.diffractogram.metadata
    with h5py.File(part, "r") as file:
        for number in range(len(KINDS)):
            assert file[f"scan_{number + 1:04d}/title"][()].decode() == f"folder/{number}.xy"
        assert "gain" in file["scan_0004/data"]
        assert "gain" not in file["scan_0001/data"]
        assert "errors" in file["scan_0006/data"]
        assert file["scan_0007/metadata/sample_id"][()].decode() == "Nr. 7 µ"


def test_fit_reads_counts_of_a_part_back_with_the_same_answer(part: Path, tmp_path: Path) -> None:
    method = tmp_path / "m.toml"
    method.write_text('name = "cropped"\ntwo_theta = [29.0, 45.0]\nexclude = [[38.0, 38.5]]\n')
    done = xrdz("fit", part, "--scan", "1", "--method", method, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    reopened = analysis_from_archive(part, 1).to_dict()
    assert document["mass_ratio"] == reopened["mass_ratio"]
    assert document["phases"] == reopened["phases"]


def test_a_part_is_itself_an_input_whose_scans_come_back_bit_for_bit(part: Path) -> None:
    again = {a.diffractogram.source.path: a for a in package.batch(part, CROPPED, jobs=1)}
    assert len(again) == 1, "all entries here come from one source file"
    for scan, stored_scan in zip([scan for _, scan in scans()], archived_diffractograms(part), strict=True):
        same(scan, stored_scan)


def test_without_curves_parameters_and_results_stay(
    tmp_path: Path, fresh: list[tuple[Analysis, Diffractogram]]
) -> None:
    small = stored(tmp_path / "small.h5", fresh, CROPPED, curves=False)
    large = stored(tmp_path / "large.h5", fresh, CROPPED)
    assert small.stat().st_size < 0.75 * large.stat().st_size
    reopened = analysis_from_archive(small, 1)
    assert reopened.to_dict() == fresh[0][0].to_dict()
    assert reopened.fit is None
    with h5py.File(small, "r") as file:
        assert "fit" not in file["scan_0001"]
        assert file["scan_0001/parameters"].size > 20


def test_a_failed_fit_keeps_its_scan_and_its_findings(tmp_path: Path) -> None:
    flat = read_content(content_of_bytes(quick_scan(3), "flat.xy"))
    from xrdz.conditions import conditions_of
    from xrdz.pipeline import _failed

    failed = _failed(flat, Method(), conditions_of(flat, Method().instrument), None, "singular", 0.1, 0.2)
    path = stored(tmp_path / "failed.h5", [(failed, flat)], Method())
    reopened = analysis_from_archive(path, 1)
    assert reopened.to_dict() == failed.to_dict()
    assert reopened.fit is None
    same(flat, reopened.diffractogram)


def test_a_refused_input_has_a_row_and_no_analysis(tmp_path: Path) -> None:
    writer = PartWriter(PartHeader("key", Method(), "r", "now"))
    writer.add(Row("bad.xy", reason="REFUSED", message="no rows of numbers"), {"status": "failed"})
    (tmp_path / "p.h5").write_bytes(writer.image())
    assert [row.reason for row in part_rows(tmp_path / "p.h5")] == ["REFUSED"]
    with pytest.raises(InputError, match="no rows of numbers"):
        analysis_from_archive(tmp_path / "p.h5")
    assert list(open_archive(tmp_path / "p.h5").analyses()) == []


@pytest.mark.parametrize("where", ["document", "state"])
def test_a_row_that_cannot_be_stored_leaves_the_others_in_step(
    where: str, tmp_path: Path, fresh: list[tuple[Analysis, Diffractogram]]
) -> None:
    writer = PartWriter(PartHeader("key", CROPPED, "references", "2026-11-23T00:00:00Z"))
    (first, scan), (second, other) = fresh[:2]
    document = {"x": math.nan} if where == "document" else {}
    broken = first if where == "document" else dataclasses.replace(first, software={"x": object()})  # type: ignore[dict-item]
    with pytest.raises((ValueError, TypeError)):
        writer.add(Row("0"), document, broken, scan)
    writer.add(Row("0", reason="INTERNAL_ERROR"), {"row": 0})
    writer.add(Row("1"), {"row": 1}, second, other)
    path = tmp_path / "part.h5"
    path.write_bytes(writer.image())
    archive = open_archive(path)
    assert [scan.row.entry for scan in archive] == [False, True]
    assert list(archive.documents()) == [{"row": 0}, {"row": 1}]
    same(slimmed(second), analysis_from_archive(path, "1"))


def test_scans_are_found_by_name_and_by_number(part: Path) -> None:
    archive = open_archive(part)
    assert archive.find("folder/2.xy").number == 2
    assert archive.find("2.xy").number == 2
    assert analysis_from_archive(part, "3.xy").to_dict() == analysis_from_archive(part, 4).to_dict()
    with pytest.raises(InputError, match="0 scans are called"):
        archive.find("nothing.xy")
    with pytest.raises(InputError, match="name one"):
        analysis_from_archive(part)
    with pytest.raises(InputError, match="from 1 to"):
        analysis_from_archive(part, 99)


def test_what_is_no_archive_is_refused(tmp_path: Path, part: Path) -> None:
    (tmp_path / "x.h5").write_bytes(b"nothing")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = 1
    torn = tmp_path / "torn.h5"
    torn.write_bytes(part.read_bytes()[:-100])
    for path in (tmp_path / "x.h5", tmp_path / "other.h5", torn):
        with pytest.raises(InputError, match=path.name):
            open_archive(path)
    with pytest.raises(InputError, match="no run here"):
        open_archive(tmp_path)
    assert is_archive(part)
    assert not is_archive(tmp_path / "other.h5")
    assert not is_archive(tmp_path / "gone.h5")


def test_size_and_cost_per_scan_stay_what_the_documentation_says(
    tmp_path: Path, fresh: list[tuple[Analysis, Diffractogram]]
) -> None:
    many = stored(tmp_path / "many.h5", fresh[:1] * 60, CROPPED)
    n, phases = fresh[0][1].n_points, 2
    per_point = 8 * (2 + phases) + 4 + 2  # calculated, background and phases; residual; counts
    assert many.stat().st_size / 60 < per_point * n + 25_000


def test_names_that_are_no_text_and_hostile_ones_are_stored_as_data(tmp_path: Path) -> None:
    folder = good_folder(tmp_path / "scans", 1)
    for name in ("a\nb.xy", "..\\..\\x.xy", "\u202ereversed.xy"):
        (folder / name).write_bytes(quick_scan(1))
    analyses = list(package.batch(folder, out=tmp_path / "run", jobs=1))
    assert len(analyses) == 4
    assert {scan.name for scan in open_archive(tmp_path / "run")} == {path.name for path in folder.iterdir()}
    for scan in open_archive(tmp_path / "run"):
        assert isinstance(scan, StoredScan)
        single = package.analyse(folder / scan.name)
        assert numbers_of(analysis_from_archive(scan).to_dict()) == numbers_of(single.to_dict())


# --- trees as JSON ----------------------------------------------------------------------------------------------------

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([*Level, *Code])
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner).map(tuple)
        | st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.sampled_from(["~type", "~"]), inner, max_size=4)
        | st.dictionaries(st.integers(), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(TREES)
def test_any_tree_survives_as_json(tree: Any) -> None:
    again = from_plain(json.loads(json.dumps(to_plain(tree))))
    assert repr(again) == repr(tree), "repr tells -0.0, NaN, tuple and list apart"
    assert type(again) is type(tree)


def test_a_result_of_another_version_is_opened_with_defaults_and_unknown_classes_are_refused() -> None:
    wavelength = to_plain(Wavelength(((1.5, 1.0),), "x", "file"))
    del wavelength["name"]
    wavelength["added_later"] = 7
    assert from_plain(wavelength) == Wavelength(((1.5, 1.0),), "", "file")
    del wavelength["lines"]
    with pytest.raises(InputError, match="has no 'lines'"):
        from_plain(wavelength)
    for name in ("wavelength:Nothing", "os:system", "nowhere:X", "wavelength:wavelength_from_name", ":", "..os:system"):
        with pytest.raises(InputError, match="does not know"):
            from_plain({"~type": name})
    with pytest.raises(TypeError, match="cannot hold"):
        to_plain({"a": object()})


def test_a_method_is_reopened_when_its_cif_is_gone(tmp_path: Path, sample_data: Path) -> None:
    del sample_data
    source = Path(package.__file__).resolve().parents[2] / "reference_patterns" / "sn.cif"
    cif = tmp_path / "mine.cif"
    cif.write_bytes(source.read_bytes())
    method = Method(phases=(str(cif), "ni3sn4"))
    plain = json.dumps(to_plain(method))
    cif.unlink()
    assert from_plain(json.loads(plain)) == method


def test_the_stored_fit_offers_what_a_fit_offers(fresh: list[tuple[Analysis, Diffractogram]]) -> None:
    fit: Any = fresh[0][0].fit
    slim: Any = slimmed(fresh[0][0]).fit
    assert isinstance(slim, StoredFit)
    assert slim.names == fit.names
    assert math.isclose(slim.value("sn.a"), fit.value("sn.a"), rel_tol=0)
    for phase, again in zip(fit.pattern.phases, slim.pattern.phases, strict=True):
        assert phase.id == again.id
        assert phase.cell(fit.values) == again.cell(slim.values)
        peaks, kept = fit.pattern.peak_state(phase, fit.values), slim.pattern.peak_state(again, slim.values)
        assert np.array_equal(peaks.centre, kept.centre)
        assert np.allclose(peaks.fwhm, kept.fwhm, rtol=1e-6)
    assert np.array_equal(slim.minimum.weights, fit.minimum.weights)
    assert np.array_equal(slim.scales, fit.scales)


def test_reading_needs_no_method_or_library(part: Path) -> None:
    assert read(part, scan=1).n_points == archived_diffractograms(part)[0].n_points
