"""`xrdz batch` and `xrdz.batch`: what counts as an input, what is done already, what ends how."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

import xrdz as package
from batch_inputs import ENVIRONMENT, documents, good_folder, numbers_of, quick_scan, table, xrdz
from xrdz.archive import StoredScan, open_archive
from xrdz.batching import LEAST_CHUNK, Options, Request, SampleIndex, batch, chunks, open_request, plan_batch
from xrdz.commands.batch import Progress
from xrdz.errors import InputError
from xrdz.inputs import ScanInput, common_root, list_inputs
from xrdz.method import Method
from xrdz.pool import LocalPool
from xrdz.reporting import ReportItem
from xrdz.reporting.content import scan_content
from xrdz.reporting.item import stored_order
from xrdz.run_folder import Shard, parse_shard, stored_scans
from xrdz.sample_sheet import Sample, SampleSheet
from xrdz.simulation import SimulationSettings, simulate
from xrdz.worker import ChunkTask, Reason, RunSpec, analyse_input, run_chunk

# --- inputs -----------------------------------------------------------------------------------------------------------


def names(*arguments: str | Path) -> list[str]:
    return [scan.name for scan in list_inputs(arguments).inputs]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a laboratory has it, with file names that come twice and files that are no scans."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("a.xy", "b/a.xy", "b/c/deep.XRDML", "b/list.txt", "z.xy.gz", ".hidden.xy"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"1")
    for name in ("readme.md", "._a.xy", "xrdz-quarantine.csv", ".git/x.xy"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"1")
    return folder


def test_a_folder_is_searched_to_the_bottom_for_known_suffixes(tree: Path) -> None:
    listing = list_inputs([tree])
    assert [scan.name for scan in listing.inputs] == [
        ".hidden.xy", "a.xy", "b/a.xy", "b/c/deep.XRDML", "b/list.txt", "z.xy.gz",
    ]  # fmt: skip
    assert ".md" in listing.note()
    assert "hidden folders" in listing.note()


def test_names_are_relative_to_the_deepest_folder_that_holds_all(tree: Path) -> None:
    assert names(tree / "a.xy", tree / "b") == ["a.xy", "b/a.xy", "b/c/deep.XRDML", "b/list.txt"]
    assert names(tree / "b" / "c") == ["deep.XRDML"]
    assert common_root([str(tree / "b" / "a.xy")]) == str(tree / "b")


def test_an_input_named_twice_is_one(tree: Path) -> None:
    assert names(tree, tree / "a.xy", f"{tree}/*.xy").count("a.xy") == 1


def test_globs_match_and_names_with_brackets_are_taken_as_they_are(tree: Path, tmp_path: Path) -> None:
    assert names(f"{tree}/**/*.xy") == ["a.xy", "b/a.xy"]
    (tmp_path / "a[1].xy").write_bytes(b"1")
    assert names(tmp_path / "a[1].xy") == ["a[1].xy"]
    with pytest.raises(InputError, match="matches no file"):
        list_inputs([f"{tree}/*.nothing"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "# comment\na.xy\n\nb/a.xy\r\n"),
        ("list.txt", "\ufeffa.xy\nb/a.xy"),
        ("list", "a.xy\0b/a.xy\0"),
        ("manifest.json", '{"samples": [{"scan": "a.xy", "truth": {}}, {"scan": "b/a.xy"}]}'),
        ("list.json", '["a.xy", "b/a.xy"]'),
        ("sheet.csv", "file,note\na.xy,x\nb/a.xy,\n"),
    ],
)
def test_manifests_of_every_kind_are_relative_to_themselves(tree: Path, name: str, text: str) -> None:
    manifest = tree / f"m-{name}"
    manifest.write_text(text, encoding="utf-8")
    try:
        assert names(f"@{manifest}") == ["a.xy", "b/a.xy"]
        if name.endswith(".json"):
            assert names(manifest) == ["a.xy", "b/a.xy"]
    finally:
        manifest.unlink()


def test_the_tables_and_parts_of_a_run_are_no_scans(run: Path, scans: Path, tmp_path: Path) -> None:
    """A run that lies among the scans is passed over; one that is named gives the scans of its archive alone."""
    shutil.copytree(scans, tmp_path / "scans")
    shutil.copytree(run, tmp_path / "scans" / "earlier")
    listing = list_inputs([tmp_path / "scans"])
    assert sorted(scan.name for scan in listing.inputs) == sorted(path.name for path in scans.iterdir())
    assert listing.ignored["folders of runs"] == 1
    assert {Path(scan.path).suffix for scan in list_inputs([tmp_path / "scans" / "earlier"]).inputs} == {".h5"}


def test_a_folder_cannot_be_input_and_run_at_once(scans: Path) -> None:
    done = xrdz("batch", str(scans), "--out", str(scans))
    assert done.returncode == 2
    assert "an input and the folder of the run at once" in done.stderr
    assert not (scans / "run.json").exists()
    file = next(scans.iterdir())
    done = xrdz("batch", str(scans), "--out", str(file))
    assert done.returncode == 2
    assert "a file, but the folder of a run was expected" in done.stderr


@pytest.mark.parametrize("text", ["", "# nothing\n", '{"samples": 3}', "{"])
def test_a_manifest_that_says_nothing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(InputError, match=r"list\.json"):
        list_inputs([f"@{tmp_path / 'list.json'}"])


def test_what_does_not_exist_is_a_row_beside_others_and_an_error_alone(tree: Path) -> None:
    assert names(tree / "a.xy", tree / "gone.xy") == ["a.xy", "gone.xy"]
    with pytest.raises(InputError, match="no such file or folder"):
        list_inputs([tree / "gone.xy"])


def test_a_folder_that_cannot_be_listed_is_a_row(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may list every folder")
    (tmp_path / "a.xy").write_bytes(b"1")
    (tmp_path / "closed").mkdir(mode=0)
    listing = list_inputs([tmp_path])
    assert [scan.name for scan in listing.inputs] == ["a.xy", "closed"]
    assert "cannot be listed" in listing.inputs[1].problem


def test_links_to_folders_are_not_followed_and_said(tree: Path) -> None:
    link = tree / "loop"
    link.symlink_to(tree)
    try:
        listing = list_inputs([tree])
        assert "1 links to folders" in listing.note()
        assert not any(scan.name.startswith("loop") for scan in listing.inputs)
    finally:
        link.unlink()


# --- shards and chunks ------------------------------------------------------------------------------------------------


def test_every_name_belongs_to_exactly_one_share() -> None:
    shares = [Shard(number, 7) for number in range(1, 8)]
    counts = [sum(share.holds(f"scan_{k}.xy") for share in shares) for k in range(500)]
    assert counts == [1] * 500
    sizes = [sum(share.holds(f"scan_{k}.xy") for k in range(7000)) for share in shares]
    assert min(sizes) > 800, "shares are of about the same size"


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected I/N"):
        parse_shard(text)


def test_short_runs_are_divided_among_all_workers_and_long_ones_end_in_small_chunks(tmp_path: Path) -> None:
    good_folder(tmp_path, 16)
    request = Request([tmp_path], Method())
    plan = plan_batch(request, open_request(request)[0], Options())
    with_parts = replace(plan, spec=replace(plan.spec, run=open_request(replace(request, out=tmp_path / "run"))[0].run))
    assert [len(task.inputs) for task in chunks(with_parts, Options(), 2)] == [2] * 8
    assert [len(task.inputs) for task in chunks(with_parts, Options(chunk=7), 2)] == [7, 7, 2]
    many = replace(with_parts, todo=with_parts.todo * 100)
    sizes = [len(task.inputs) for task in chunks(many, Options(), 2)]
    assert sum(sizes) == 1600
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 100
    assert set(sizes[-3:-1]) == {LEAST_CHUNK}, "all workers end at about the same time"


# --- the whole command ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_folder(tmp_path_factory.mktemp("batch") / "scans", 6)


@pytest.fixture(scope="module")
def run(scans: Path) -> Path:
    """A finished run of six scans with all tables."""
    folder = scans.parent / "run"
    done = xrdz("batch", "scans", "--out", "run", "--tables", "jsonl,parquet,xlsx", cwd=scans.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "6 of 6 scans have an answer; run/results.csv" in done.stderr
    return folder


def copied(run: Path, scans: Path, tmp_path: Path) -> Path:
    """Return a folder with copies of the scans and the run."""
    shutil.copytree(scans, tmp_path / "scans")
    shutil.copytree(run, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**record, "root": str(tmp_path / "scans")}))
    return tmp_path


def analysed(done: subprocess.CompletedProcess[str]) -> int:
    """Return how many scans a command said it had analysed."""
    lines = [line for line in done.stderr.splitlines() if "scans/s" in line and line.startswith("xrdz: ")]
    return int(lines[-1].split()[1]) if lines else 0


def test_the_same_command_again_does_nothing_and_gives_the_same_table(run: Path, scans: Path) -> None:
    before = (run / "results.csv").read_bytes()
    done = xrdz("batch", "scans", "--out", "run", cwd=scans.parent)
    assert (done.returncode, analysed(done)) == (0, 0)
    assert "6 of 6 scans are done already" in done.stderr
    assert (run / "results.csv").read_bytes() == before


def test_only_changed_and_new_inputs_are_analysed_again_and_never_mixed(run: Path, scans: Path, tmp_path: Path) -> None:
    place = copied(run, scans, tmp_path)
    changed, stat = place / "scans" / "scan_0002.xy", (place / "scans" / "scan_0002.xy").stat()
    content = bytearray(changed.read_bytes())
    content[-3] = ord("1") if content[-3] != ord("1") else ord("2")
    changed.write_bytes(bytes(content))
    os.utime(changed, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the same size and time: only the hash tells
    (place / "scans" / "new.xy").write_bytes(quick_scan(77))
    os.utime(place / "scans" / "scan_0003.xy")  # touched, but the same bytes
    done = xrdz("batch", "scans", "--out", "run", cwd=place)
    assert (done.returncode, analysed(done)) == (0, 2), done.stderr
    rows = {row["file"]: row for row in table(place / "run")}
    assert sorted(rows) == sorted([*(f"scan_{k:04d}.xy" for k in range(6)), "new.xy"])
    assert rows["scan_0002.xy"]["revision"] == "2"
    assert {row["revision"] for name, row in rows.items() if name != "scan_0002.xy"} == {"1"}
    import hashlib

    assert rows["scan_0002.xy"]["sha256"] == hashlib.sha256(bytes(content)).hexdigest()


def test_another_method_redoes_all_and_the_first_one_comes_back_at_once(run: Path, scans: Path, tmp_path: Path) -> None:
    place = copied(run, scans, tmp_path)
    before = (place / "run" / "results.csv").read_bytes()
    other = xrdz("batch", "scans", "--out", "run", "--range", "29:46", cwd=place)
    assert (other.returncode, analysed(other)) == (0, 6)
    assert "the method changed" in other.stderr
    rows = table(place / "run")
    assert len(rows) == 6
    assert len({row["method_sha256"] for row in rows}) == 1
    assert {float(row["two_theta_min [deg]"]) for row in rows} == {29.0}
    back = xrdz("batch", "scans", "--out", "run", cwd=place)
    assert (back.returncode, analysed(back)) == (0, 0)
    assert (place / "run" / "results.csv").read_bytes() == before


def test_force_redoes_all_and_a_changed_row_of_the_sheet_its_scan_alone(scans: Path, run: Path, tmp_path: Path) -> None:
    place = copied(run, scans, tmp_path)
    done = xrdz("batch", "scans", "--out", "run", "--force", cwd=place)
    assert (done.returncode, analysed(done)) == (0, 6)
    sheet = place / "sheet.csv"
    lines = [f"scan_{k:04d}.xy,{20 + k}" for k in range(5)]
    sheet.write_text("\n".join(["file,ni_mass_percent", *lines]))
    done = xrdz("batch", "scans", "--out", "sheeted", "--sample", "sheet.csv", "--tables", "jsonl", cwd=place)
    assert (done.returncode, analysed(done)) == (4, 6)
    found = documents(place / "sheeted")
    assert found["scan_0005.xy"]["batch"]["reason"] == "REFUSED"
    assert "has no row for it" in found["scan_0005.xy"]["batch"]["message"]
    assert found["scan_0004.xy"]["sample"] == {"file": "scan_0004.xy", "ni_mass_percent": 24.0}
    sheet.write_text("\n".join(["file,ni_mass_percent", *lines[:-1], "scan_0004.xy,50", "scan_0005.xy,20"]))
    done = xrdz("batch", "scans", "--out", "sheeted", "--sample", "sheet.csv", cwd=place)
    assert (done.returncode, analysed(done)) == (0, 2)


def test_a_refused_scan_keeps_whose_it_is(tmp_path: Path) -> None:
    """Its row of the sample sheet stands in its document, its tables, its report, and in what Python gets."""
    folder = tmp_path / "scans"
    folder.mkdir()
    (folder / "empty.xy").write_bytes(b"")
    (tmp_path / "sheet.csv").write_text("file,sample_id,customer,porosity_percent\nempty.xy,S-7,ACME,45\n")
    done = xrdz("batch", "scans", "--out", "run", "--sample", "sheet.csv", "--tables", "jsonl", cwd=tmp_path)
    assert done.returncode == 4
    document = documents(tmp_path / "run")["empty.xy"]
    assert document["sample"] == {
        "file": "empty.xy", "sample_id": "S-7", "customer": "ACME", "porosity_percent": 45.0,
    }  # fmt: skip
    assert [row["sample_id"] for row in table(tmp_path / "run")] == ["S-7"]
    content = scan_content(ReportItem(document, None, stored_order(document, None, None)))
    assert ["Customer", "ACME"] in content["item"]
    assert ["Item tested", "S-7"] in content["item"]
    for _ in range(2):  # fresh, and reopened from the run
        (analysis,) = batch(folder, out=tmp_path / "again", sample=tmp_path / "sheet.csv", jobs=1)
        assert analysis.sample is not None
        assert analysis.sample.customer == "ACME"


def test_packs_give_a_row_for_every_member_with_the_digits_of_the_file(run: Path, scans: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pack.zip", "w", zipfile.ZIP_DEFLATED) as pack:
        for path in sorted(scans.iterdir()):
            pack.write(path, f"inner/{path.name}")
        pack.writestr("../../outside.xy", (scans / "scan_0001.xy").read_bytes())
        pack.writestr("notes.md", "no scan")
        with pytest.warns(UserWarning, match="Duplicate name"):
            pack.writestr("inner/scan_0000.xy", (scans / "scan_0002.xy").read_bytes())
    for kind, suffix in (("w", "tar"), ("w:gz", "tar.gz"), ("w:xz", "txz")):
        with tarfile.open(tmp_path / f"pack.{suffix}", kind) as tar:  # type: ignore[call-overload]
            for path in sorted(scans.iterdir()):
                tar.add(path, path.name)
    (tmp_path / "torn.zip").write_bytes((tmp_path / "pack.zip").read_bytes()[:-50])
    (tmp_path / "torn.tgz").write_bytes((tmp_path / "pack.tar.gz").read_bytes()[:2000])
    done = xrdz("batch", ".", "--out", "run", "--tables", "jsonl", cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    found = documents(tmp_path / "run")
    assert len(found) == 8 + 3 * 6 + 2
    reference = documents(run)
    for k in range(6):
        name = f"scan_{k:04d}.xy"
        for member in (f"pack.zip/inner/{name}", f"pack.tar/{name}", f"pack.tar.gz/{name}", f"pack.txz/{name}"):
            assert found[member]["mass_ratio"] == reference[name]["mass_ratio"]
            assert found[member]["source"]["sha256"] == reference[name]["source"]["sha256"]
    assert found["pack.zip/inner/scan_0000.xy#2"]["mass_ratio"] == reference["scan_0002.xy"]["mass_ratio"]
    assert found["pack.zip/../../outside.xy"]["mass_ratio"] == reference["scan_0001.xy"]["mass_ratio"]
    assert not (tmp_path.parent.parent / "outside.xy").exists()
    assert found["torn.zip"]["batch"]["reason"] == found["torn.tgz"]["batch"]["reason"] == "UNREADABLE"
    again = xrdz("batch", ".", "--out", "run", cwd=tmp_path)
    assert analysed(again) == 2, "the torn packs alone are tried again"


def test_a_pack_that_is_made_whole_has_the_rows_of_its_scans_in_place_of_its_own(scans: Path, tmp_path: Path) -> None:
    pack = tmp_path / "scans" / "pack.zip"
    pack.parent.mkdir()
    (pack.parent / "alone.xy").write_bytes((scans / "scan_0002.xy").read_bytes())
    with zipfile.ZipFile(pack, "w") as target:
        for name in ("scan_0000.xy", "scan_0001.xy"):
            target.write(scans / name, name)
    whole = pack.read_bytes()
    pack.write_bytes(whole[:-40])
    done = xrdz("batch", "scans", "--out", "run", cwd=tmp_path)
    assert done.returncode == 4
    assert [row["file"] for row in table(tmp_path / "run")] == ["alone.xy", "pack.zip"]
    pack.write_bytes(whole)
    done = xrdz("batch", "scans", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = ["alone.xy", "pack.zip/scan_0000.xy", "pack.zip/scan_0001.xy"]
    assert [row["file"] for row in table(tmp_path / "run")] == names
    assert [scan.name for scan in stored_scans(tmp_path / "run")] == names


def test_hdf5_with_many_scans_gives_a_row_each(tmp_path: Path, scans: Path) -> None:
    with h5py.File(tmp_path / "many.nxs", "w") as file:
        for k in range(3):
            columns = np.loadtxt(scans / f"scan_{k:04d}.xy")
            entry = file.create_group(f"measurement {k}")
            entry.attrs["NX_class"] = "NXentry"
            entry["data/two_theta"], entry["data/counts"] = columns.T
            entry["instrument/wavelength"] = np.array([1.5405929, 1.5444274])
        file.create_group("broken").attrs["NX_class"] = "NXentry"
    analyses = {a.diffractogram.source.path: a for a in package.batch(tmp_path / "many.nxs", jobs=1)}
    assert len(analyses) == 4
    assert analyses[f"{tmp_path}/many.nxs/broken"].status == "failed"
    single = package.analyse(scans / "scan_0001.xy")
    assert analyses[f"{tmp_path}/many.nxs/measurement 1"].diffractogram.n_points == single.diffractogram.n_points


def test_json_gives_one_document_a_line_also_for_what_is_done(run: Path, scans: Path, tmp_path: Path) -> None:
    place = copied(run, scans, tmp_path)
    (place / "scans" / "empty.xy").write_bytes(b"")
    done = xrdz("batch", "scans", "--out", "run", "--json", cwd=place)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(document["batch"]["file"] for document in found) == sorted(os.listdir(place / "scans"))
    refused = next(document for document in found if document["batch"]["file"] == "empty.xy")
    assert refused["schema"] == "xrdz.analysis/1"
    assert (refused["status"], refused["batch"]["reason"]) == ("failed", "REFUSED")
    assert refused["source"]["wavelength"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "--out", "r"], "no such file"),
        (["scans", "--out", "r", "--method", "no.toml"], "no.toml"),
        (["scans", "--out", "r", "--phases", "sn,unobtainium"], "unobtainium"),
        (["scans", "--out", "r", "--shard", "3/2"], "expected I/N"),
        (["scans", "--out", "r", "--tables", "pdf"], "csv, jsonl, parquet, xlsx"),
        (["scans", "--out", "r", "--scan", "all"], "each input gives one row"),
        (["scans", "--out", "r", "--jobs", "-1"], "--jobs"),
        (["scans", "--out", "r", "--time-limit", "0"], "--time-limit"),
        (["scans", "--out", "r", "--dask", "tcp://127.0.0.1:9"], "cannot be reached"),
        (["scans"], "--out"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_code_2(scans: Path, arguments: list[str], words: str) -> None:
    done = xrdz("batch", *arguments, cwd=scans.parent)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_two_commands_do_not_work_on_one_run_at_the_same_time(run: Path, scans: Path) -> None:
    import fcntl

    lock = next((run / "parts").glob("*/all/.lock"))
    with lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        done = xrdz("batch", "scans", "--out", "run", cwd=scans.parent)
    assert done.returncode == 2
    assert "works on this run" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_finishes_cleanly_and_the_same_command_goes_on(tmp_path: Path, number: int) -> None:
    good_folder(tmp_path / "scans", 40)
    command = [sys.executable, "-m", "xrdz", "batch", "scans", "--out", "run", "--jobs", "1", "--chunk", "40"]
    process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "parts").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (0, 130), errors
    if process.returncode == 130:
        assert "were not reached, the same command goes on with them" in errors
        assert len(table(tmp_path / "run")) < 40
    assert "Traceback" not in errors
    done = xrdz(*command[3:], cwd=tmp_path)
    assert done.returncode == 0
    assert len(table(tmp_path / "run")) == 40
    assert analysed(done) < 40 or process.returncode == 130


def test_progress_is_plain_lines_with_rate_and_time_left_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from xrdz.archive import Row
    from xrdz.batching import Counts

    moments = iter((1000.0, 1020.0))
    monkeypatch.setattr("xrdz.commands.batch.time", SimpleNamespace(monotonic=lambda: next(moments)))
    stream = io.StringIO()
    progress = Progress(100, 0, stream)
    rows = [Row(f"{k}.xy") for k in range(25)]
    progress.advance(rows, Counts(25, {"REFUSED": 2}))
    line = stream.getvalue()
    assert line == "25 of 100 scans, 1.25 scans/s, 60 s left, 2 without an answer\n"


# --- Python -----------------------------------------------------------------------------------------------------------


def test_the_generator_yields_every_input_once_and_stores_nothing(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.xy").write_bytes(b"nothing")
    analyses = list(package.batch([scans, tmp_path / "bad.xy"], jobs=2))
    paths = [Path(analysis.diffractogram.source.path).name for analysis in analyses]
    assert sorted(paths) == sorted(["bad.xy", *os.listdir(scans)])
    by_name = dict(zip(paths, analyses, strict=True))
    assert by_name["bad.xy"].status == "failed"
    assert by_name["bad.xy"].mass_ratio is None
    assert [finding.level.value for finding in by_name["bad.xy"].findings] == ["severe"]
    single = package.analyse(scans / "scan_0000.xy")
    assert numbers_of(by_name["scan_0000.xy"].to_dict()) == numbers_of(single.to_dict())
    assert os.listdir(tmp_path) == ["bad.xy"]


def test_the_generator_resumes_and_a_loop_left_early_ends_its_workers(scans: Path, tmp_path: Path) -> None:
    before = threading.active_count()
    for analysis in package.batch(scans, out=tmp_path / "run", jobs=1, chunk=1):
        assert analysis.status == "converged"
        break
    assert threading.active_count() <= before
    stored = len(stored_scans(tmp_path / "run"))
    assert stored >= 1
    analyses = list(package.batch(scans, out=tmp_path / "run", jobs=1))
    assert len(analyses) == 6
    assert len({analysis.diffractogram.source.path for analysis in analyses}) == 6
    assert len(open_archive(tmp_path / "run")) == 6


def test_a_script_without_a_main_guard_works(scans: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import xrdz\nprint(sum(1 for _ in xrdz.batch({str(scans)!r}, jobs=2)))\n")
    done = subprocess.run([sys.executable, script], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "6\n"), done.stderr


# --- one worker -------------------------------------------------------------------------------------------------------


def spec() -> RunSpec:
    return RunSpec(method=Method(), references_sha256="")


def scan_input(path: Path) -> ScanInput:
    return ScanInput(path.name, str(path), str(path))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), Reason.OUT_OF_MEMORY),
        (RecursionError("too deep"), Reason.INTERNAL_ERROR),
        (ZeroDivisionError("float division"), Reason.INTERNAL_ERROR),
        (InputError("phase sn: no reflection"), Reason.REFUSED),
    ],
)
def test_whatever_one_scan_does_is_its_own_row(
    scans: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: Reason
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("xrdz.worker.analyse_diffractogram", fail)
    outcome = analyse_input(scan_input(scans / "scan_0000.xy"), None, spec())
    assert outcome.row.reason == reason
    assert outcome.row.sha256
    assert outcome.document["batch"]["reason"] == reason.value


def test_a_worker_has_compiled_everything_before_its_first_scan(scans: Path) -> None:
    """Else the compiler, a minute in a fresh installation, would count against the time limit of a scan."""
    script = (
        "from xrdz import analyse, compiled, worker\n"
        "worker._compile()\n"
        "def load(function):\n"
        "    raise AssertionError(f'{function.name} was not loaded before')\n"
        "compiled.load = load\n"
        f"analyse({str(scans / 'scan_0000.xy')!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_a_worker_did_before_leaves_no_trace(scans: Path, tmp_path: Path) -> None:
    """Scans of other grids, ranges and wavelengths in every order, in one process, give what each gives alone."""
    coarse = tmp_path / "coarse.xy"
    rows = (scans / "scan_0004.xy").read_text().splitlines()
    coarse.write_text("\n".join([*rows[:2], *rows[2::2]]))
    cobalt = tmp_path / "cobalt.xy"
    cobalt.write_text("# anode: Co\n" + "\n".join(rows[2:]))
    cropped, three = Method(name="cropped", two_theta=(29.0, 45.0)), Method(phases=("sn", "ni3sn4", "ni"))
    files = [scans / "scan_0000.xy", scans / "scan_0001.xy", coarse, cobalt]
    cases = [(path, method) for path in files for method in (Method(), cropped, three)]
    found: dict[int, list[dict[str, Any]]] = {}
    for order in (range(len(cases)), reversed(range(len(cases)))):
        for number in order:
            path, method = cases[number]
            outcome = analyse_input(scan_input(path), None, replace(spec(), method=method))
            found.setdefault(number, []).append(numbers_of(outcome.document))
    assert all(first == second for first, second in found.values())
    assert {documents[0]["status"] for documents in found.values()} >= {"converged"}
    done = xrdz("fit", "--json", coarse)
    assert numbers_of(json.loads(done.stdout)) == found[6][0]


def test_a_task_of_another_version_is_refused(scans: Path) -> None:
    task = ChunkTask(replace(spec(), version="9.9"), (scan_input(scans / "scan_0000.xy"),), (None,))
    with pytest.raises(InputError, match="install the same version everywhere"):
        list(run_chunk(task))


def test_a_chunk_stops_between_scans_and_stores_what_is_done(scans: Path, tmp_path: Path) -> None:
    request = Request([scans], Method(), out=tmp_path / "run")
    run_spec, _ = open_request(request)
    plan = plan_batch(request, run_spec, Options())
    task = next(chunks(plan, Options(chunk=6), 1))
    tried: list[str] = []
    reports = list(run_chunk(task, tried.append, lambda: len(tried) == 2))
    assert [row.file for report in reports for row in report.rows] == tried[:2]
    assert [scan.name for scan in stored_scans(tmp_path / "run")] == tried[:2]


def test_an_input_that_kills_every_worker_becomes_a_row_and_costs_no_other(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that ends its process when the name of the input says so stands in for a crash of a library."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, os\n"
        "def hook(event, args):\n"
        "    if event == 'open' and str(args[0]).endswith('deadly.xy'):\n"
        "        os.kill(os.getpid(), 9)\n"
        "    if event == 'open' and str(args[0]).endswith('endless.xy'):\n"
        "        import time; time.sleep(60)\n"
        "sys.addaudithook(hook) if 'xrdz' in ' '.join(sys.orig_argv) else None\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    inputs = [scan_input(path) for path in sorted(scans.iterdir())]
    for name in ("deadly.xy", "endless.xy"):
        (tmp_path / name).write_bytes(quick_scan(3))
        inputs.insert(2, scan_input(tmp_path / name))
    task = ChunkTask(spec(), tuple(inputs), (None,) * len(inputs))
    with LocalPool(2, time_limit=10.0) as pool:
        rows = [row for report in pool.run(iter([task])) for row in report.rows]
    assert sorted(row.file for row in rows) == sorted(scan.name for scan in inputs)
    reasons = {row.file: row.reason for row in rows if row.reason}
    assert reasons == {"deadly.xy": "WORKER_DIED", "endless.xy": "TIME_LIMIT"}
    assert "SIGKILL" in next(row.message for row in rows if row.file == "deadly.xy")


def test_the_index_of_a_sheet_finds_what_the_sheet_finds() -> None:
    sheet = SampleSheet("s", (Sample("a.xy"), Sample("day1/a.xy"), Sample("B.XY"), Sample(r"day2\c.xy")))
    index = SampleIndex(sheet)
    for place in ("x/a.xy", "x/day1/a.xy", "b.xy", "/data/day2/c.xy", "d.xy", "/data/day3/c.xy"):
        scan = ScanInput(place, place, place)
        assert index.find(scan) == sheet.find(place)


def test_stored_rows_name_their_part(run: Path) -> None:
    scan = stored_scans(run)[0]
    assert isinstance(scan, StoredScan)
    assert scan.part.is_file()


@pytest.fixture(autouse=True)
def _no_leftover_threads() -> Iterator[None]:
    """Workers end with the loop that started them."""
    before = threading.active_count()
    yield
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before


def test_a_warm_start_changes_no_answer_by_more_than_a_twentieth_of_its_uncertainty(tmp_path: Path) -> None:
    """Scans alike, as a batch has them."""
    first, _ = simulate(SimulationSettings(two_theta=(28.0, 66.0), counts=3e5), np.random.default_rng(4))
    fitted = package.analyse(first).fit
    assert fitted is not None
    rng = np.random.default_rng(5)
    folder = tmp_path / "alike"
    folder.mkdir()
    for number in range(6):
        counts = rng.poisson(fitted.model)
        lines = [f"{x:.4f} {y}" for x, y in zip(first.two_theta, counts, strict=True)]
        (folder / f"scan_{number}.xy").write_text("\n".join(lines))
    cold, warm = (
        {analysis.diffractogram.source.path: analysis for analysis in batch(folder, jobs=1, chunk=6, warm=warm)}
        for warm in (False, True)
    )
    assert len(cold) == len(warm) == 6
    moved = 0
    for path, analysis in cold.items():
        other = warm[path].mass_ratio
        assert analysis.mass_ratio is not None
        assert other is not None
        assert abs(other.value - analysis.mass_ratio.value) < 0.05 * analysis.mass_ratio.su
        moved += other.value != analysis.mass_ratio.value
    assert moved >= 4, "no fit started from the one before it"
