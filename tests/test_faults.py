"""Kills, full disks and read-only folders: after a restart no row is lost, none doubled, no file torn.

Every kill comes at a seeded random moment. The reference is one undisturbed run: whatever happened on the way, the
finished run has its very bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest

from batch_inputs import ENVIRONMENT, DaskCluster, good_folder, table, xrdz

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kills and mounts as Linux has them")

SCANS = 40
KILLS = 22
COMMAND = [sys.executable, "-m", "xrdz", "batch", "scans", "--jobs", "2", "--chunk", "5", "--out"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A folder with `scans` and the undisturbed run `reference`, and how long that took, seconds."""
    folder = tmp_path_factory.mktemp("faults")
    good_folder(folder / "scans", SCANS)
    (folder / "scans" / "bad.xy").write_bytes(b"")
    began = time.monotonic()
    done = xrdz(*COMMAND[3:], "reference", cwd=folder)
    assert done.returncode == 4, done.stderr
    return folder, time.monotonic() - began


@pytest.fixture(scope="module")
def place(reference: tuple[Path, float]) -> Path:
    return reference[0]


@pytest.fixture(scope="module")
def seconds(reference: tuple[Path, float]) -> float:
    return reference[1]


def parts(run: Path) -> list[Path]:
    return sorted(run.glob("parts/*/*/*.h5"))


def children(pid: int) -> list[int]:
    try:
        return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def started(run: str, place: Path, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, run, *more],
        cwd=place,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def whole(run: Path) -> None:
    """Check that every part can be read to the end and that nothing half written is left."""
    for part in parts(run):
        with h5py.File(part, "r") as file:
            rows = bytes(file["rows"][()]).decode().splitlines()
            assert len(rows) == file.attrs["rows"]
            entries = [name for name in file if name.startswith("scan_")]
            assert len(entries) == sum(json.loads(row)["entry"] for row in rows)
            for name in entries:
                assert file[name]["fit/calculated"][()].size == file[name]["data/data"][()].size
    assert not list(run.rglob("*.part"))
    assert not list(run.rglob("*.damaged"))


def finished_as_the_reference(place: Path, run: str, *more: str) -> None:
    done = xrdz(*COMMAND[3:], run, *more, cwd=place)
    assert done.returncode == 4, done.stderr
    assert (place / run / "results.csv").read_bytes() == (place / "reference" / "results.csv").read_bytes()
    assert len(table(place / run)) == SCANS + 1
    whole(place / run)


def test_kills_at_random_moments_lose_and_double_nothing(place: Path, seconds: float) -> None:
    rng = random.Random(20261123)
    victims = ["main", "worker"] * (KILLS // 2)
    rng.shuffle(victims)
    number = 0
    while victims:
        number += 1
        run = f"killed_{number}"
        process = started(run, place)
        while victims:
            workers = workers_at(process, rng.uniform(0.0, 0.5 * seconds))
            if process.poll() is not None:
                break
            if victims[-1] == "main":
                process.kill()
                process.wait()
                victims.pop()
                process = started(run, place)
            elif workers and killed(rng.choice(workers)):
                victims.pop()
        process.wait(300)
        finished_as_the_reference(place, run)


def workers_at(process: subprocess.Popen[bytes], delay: float) -> list[int]:
    """Return the workers of a run some time after it has any; none when it has ended, or at its very start."""
    if delay < 0.02:
        return []
    deadline = time.monotonic() + 60
    while not children(process.pid) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(delay)
    return children(process.pid)


def killed(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_main_process_leaves_no_worker_behind(place: Path) -> None:
    process = started("orphans", place)
    deadline = time.monotonic() + 60
    while len(workers := children(process.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 120
    while any(_is_worker(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_is_worker(pid) for pid in workers)
    finished_as_the_reference(place, "orphans")


def _is_worker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"xrdz.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def test_a_table_left_half_written_goes_at_the_next_start(place: Path) -> None:
    shutil.copytree(place / "reference", place / "half")
    for name in ("results.csv", "run.json"):
        (place / "half" / f".{name}.6npe5kxu.part").write_text("half")
    finished_as_the_reference(place, "half")


def test_a_part_cut_short_is_set_aside_and_its_scans_done_again(place: Path) -> None:
    shutil.copytree(place / "reference", place / "cut")
    torn = parts(place / "cut")[0]
    torn.write_bytes(torn.read_bytes()[:-2000])
    done = xrdz(*COMMAND[3:], "cut", cwd=place)
    assert done.returncode == 4
    assert "set aside" in done.stderr
    assert (place / "cut" / "results.csv").read_bytes() == (place / "reference" / "results.csv").read_bytes()
    assert [path.suffix for path in torn.parent.iterdir() if path.stem == torn.stem] == [".damaged"]


@contextlib.contextmanager
def limited_files(size: int) -> Iterator[None]:
    """Let no file of child processes grow beyond a size, as a quota does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_quota_stops_the_run_with_one_clear_line_and_a_restart_finishes(place: Path) -> None:
    with limited_files(60_000):
        done = xrdz(*COMMAND[3:], "quota", cwd=place)
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("xrdz: error: quota/")
    assert "start again" in line
    assert "Traceback" not in done.stderr
    assert not list((place / "quota").rglob("*.part"))
    finished_as_the_reference(place, "quota")


def in_namespace(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a user namespace of its own, where it may mount."""
    return subprocess.run(
        ["unshare", "-rm", "sh", "-ec", script],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def may_mount(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("mount")
    (folder / "disk").mkdir()
    if shutil.which("unshare") is None or in_namespace("mount -t tmpfs -o size=1m tmpfs disk", folder).returncode:
        pytest.skip("this machine gives no user namespace to mount in")


@pytest.mark.usefixtures("may_mount")
def test_a_full_disk_stops_the_run_with_one_clear_line_and_a_restart_with_room_finishes(place: Path) -> None:
    (place / "disk").mkdir()
    command = " ".join([*COMMAND, "disk/run"])
    script = (
        "mount -t tmpfs -o size=700k tmpfs disk\n"
        f"{command} 2> first.log && exit 9 || test $? -eq 2\n"
        "find disk -name '*.part' | grep -q . && exit 8 || true\n"
        "ls disk/run/parts/*/all/*.h5 | wc -l > stored.log\n"
        "mount -o remount,size=200m disk\n"
        f"{command} 2> second.log || test $? -eq 4\n"
        "cp disk/run/results.csv full.csv\n"
    )
    done = in_namespace(script, place)
    first = (place / "first.log").read_text() if (place / "first.log").exists() else ""
    assert done.returncode == 0, (done.stdout, done.stderr, first)
    line = first.strip().splitlines()[-1]
    assert "No space left on device" in line
    assert "start again" in line
    assert "Traceback" not in first
    assert int((place / "stored.log").read_text()) >= 1
    assert "are done already" in (place / "second.log").read_text()
    assert (place / "full.csv").read_bytes() == (place / "reference" / "results.csv").read_bytes()


@pytest.mark.usefixtures("may_mount")
def test_a_read_only_output_is_refused_in_one_line_before_any_scan(place: Path) -> None:
    (place / "fixed").mkdir()
    command = " ".join([*COMMAND, "fixed/run"])
    script = f"mount --bind fixed fixed\nmount -o remount,ro,bind fixed\n{command} 2> readonly.log || test $? -eq 2\n"
    began = time.monotonic()
    done = in_namespace(script, place)
    assert done.returncode == 0, done.stderr
    log = (place / "readonly.log").read_text()
    assert log.count("\n") == 1
    assert log.startswith("xrdz: error: fixed/run: ")
    assert "Read-only file system" in log
    assert time.monotonic() - began < 60


def test_an_output_that_is_a_file_is_refused_in_one_line(place: Path) -> None:
    (place / "taken").write_text("mine")
    done = xrdz(*COMMAND[3:], "taken", cwd=place)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert (place / "taken").read_text() == "mine"


def test_a_killed_dask_worker_loses_and_doubles_nothing(place: Path) -> None:
    pytest.importorskip("distributed")
    rng = random.Random(6)
    cluster = DaskCluster(place)
    try:
        cluster.add_worker("--no-nanny"), cluster.add_worker("--no-nanny")
        process = started("dask", place, "--dask", cluster.address)
        for number in range(3):
            time.sleep(rng.uniform(2.0, 5.0))
            cluster.workers[number].kill()
            cluster.add_worker("--no-nanny")
        assert process.wait(300) == 4
        assert (place / "dask" / "results.csv").read_bytes() == (place / "reference" / "results.csv").read_bytes()
        whole(place / "dask")
    finally:
        cluster.close()
