"""`xrdz watch`: half-written files, changes, restarts, quarantine lists, drives that go away, and flat memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from batch_inputs import ENVIRONMENT, good_folder, quick_scan, table, xrdz
from xrdz.archive import Row
from xrdz.batching import Options, Request, open_request
from xrdz.inputs import QUARANTINE_NAME
from xrdz.method import default_method
from xrdz.pool import LocalPool
from xrdz.watching import Inbox, Patience, Watch, analyse_settled, quarantine_text

QUICK = ["--every", "0.1", "--settle", "0.4", "--settle-empty", "1.5", "--jobs", "1"]


class Clock:
    """A clock that tests move on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("xrdz.watching.time.monotonic", clock)
    return clock


def inbox_of(folder: Path, said: list[str] | None = None) -> Inbox:
    lines = [] if said is None else said
    return Inbox(str(folder), Patience(every_s=5, settle_s=10, empty_s=600), frozenset(), lines.append)


def settled(inbox: Inbox) -> list[str]:
    return [os.path.relpath(place, inbox.folder) for place in inbox.ready()[0]]


def test_a_file_is_ready_when_it_has_stopped_changing(tmp_path: Path, clock: Clock) -> None:
    inbox = inbox_of(tmp_path)
    growing, still = tmp_path / "growing.xy", tmp_path / "sub" / "still.xy"
    still.parent.mkdir()
    still.write_bytes(b"12345")
    growing.write_bytes(b"1")
    assert settled(inbox) == []
    clock.now += 6
    growing.write_bytes(b"12")
    assert settled(inbox) == []
    clock.now += 6
    growing.write_bytes(b"123")
    assert settled(inbox) == ["sub/still.xy"]
    clock.now += 9
    assert settled(inbox) == ["sub/still.xy"]
    clock.now += 2
    assert settled(inbox) == ["growing.xy", "sub/still.xy"]


def test_an_empty_file_is_waited_for_longer_and_one_that_is_done_not_looked_at_again(
    tmp_path: Path, clock: Clock
) -> None:
    inbox = inbox_of(tmp_path)
    (tmp_path / "empty.xy").write_bytes(b"")
    (tmp_path / "full.xy").write_bytes(b"1")
    inbox.ready()
    clock.now += 20
    assert settled(inbox) == ["full.xy"]
    place = str(tmp_path / "full.xy")
    inbox.finish(place, inbox.changing[place][0], retry=False)
    assert settled(inbox) == []
    clock.now += 600
    assert settled(inbox) == ["empty.xy"]
    (tmp_path / "full.xy").write_bytes(b"22")
    assert settled(inbox) == ["empty.xy"]
    clock.now += 10
    assert settled(inbox) == ["empty.xy", "full.xy"]


def test_what_has_gone_is_forgotten_and_a_drive_that_is_away_forgets_nothing(tmp_path: Path, clock: Clock) -> None:
    said: list[str] = []
    folder = tmp_path / "drive"
    good_folder(folder, 3)
    inbox = inbox_of(folder, said)
    inbox.ready()
    clock.now += 11
    for place in inbox.ready()[0]:
        inbox.finish(place, inbox.changing[place][0], retry=False)
    assert len(inbox.done) == 3
    folder.rename(tmp_path / "away")
    assert inbox.ready() == ([], [])
    assert inbox.ready() == ([], [])
    assert len(inbox.done) == 3
    assert len(said) == 1, "said once, not at every look"
    (tmp_path / "away").rename(folder)
    assert inbox.ready() == ([], [])
    (folder / "scan_0001.xy").unlink()
    assert inbox.ready() == ([], [str(folder / "scan_0001.xy")])
    assert len(inbox.done) == 2


def test_an_unreadable_file_is_tried_again_after_a_while(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "a.xy").write_bytes(b"1")
    inbox = inbox_of(tmp_path)
    inbox.ready()
    clock.now += 11
    [place] = inbox.ready()[0]
    inbox.finish(place, inbox.changing[place][0], retry=True)
    clock.now += 59
    assert settled(inbox) == []
    clock.now += 2
    inbox.ready()
    clock.now += 11
    assert settled(inbox) == ["a.xy"]


def test_a_file_that_is_being_written_is_analysed_once_and_whole(tmp_path: Path, clock: Clock) -> None:
    folder, content = tmp_path / "inbox", quick_scan(50)
    folder.mkdir()
    spec, _ = open_request(Request([folder], default_method(), out=tmp_path / "run", every=True))
    assert spec.run is not None
    state = Watch(inbox_of(folder), spec, spec.run, Options(jobs=1))
    state.refresh()
    for share in (0.0, 0.3, 0.6, 1.0):
        (folder / "slow.xy").write_bytes(content[: round(share * len(content))])
        assert state.inbox.ready() == ([], [])
        clock.now += 9
        assert state.inbox.ready() == ([], [])
    clock.now += 1
    with LocalPool(1) as pool:
        analyse_settled(state, pool, state.inbox.ready()[0], 1)
    assert state.inbox.ready() == ([], [])
    [row] = table(tmp_path / "run")
    assert (row["file"], row["revision"], row["reason"]) == ("slow.xy", "1", "")
    assert int(row["points [1]"]) == content.count(b"\n") - 2


def test_quarantine_lists_hold_no_formula() -> None:
    text = quarantine_text({"=a.xy": Row("sub/=a.xy", reason="REFUSED", message="=1+1")})
    assert text.splitlines()[1].startswith("'=a.xy,REFUSED,'=1+1,")


# --- the whole command ------------------------------------------------------------------------------------------------


def watching(place: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "xrdz", "watch", "inbox", "--out", "run", *QUICK, *more],
        cwd=place,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )


def put(path: Path, content: bytes) -> None:
    """Make a file whole in one step, so that no test rests on how fast it is written."""
    beside = path.with_suffix(".writing")
    beside.write_bytes(content)
    beside.replace(path)


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def rows(place: Path) -> dict[tuple[str, str], str]:
    """Return the reason of each (file, revision) of the table, none while it is being replaced."""
    try:
        return {(row["file"], row["revision"]): row["reason"] for row in table(place / "run")}
    except (FileNotFoundError, KeyError):
        return {}


def test_scans_are_analysed_as_they_come_and_a_restart_loses_nothing(tmp_path: Path) -> None:
    inbox = good_folder(tmp_path / "inbox", 2)
    process = watching(tmp_path)
    try:
        wait_for(lambda: len(rows(tmp_path)) == 2)
        put(inbox / "late.xy", quick_scan(50))
        (inbox / "sub").mkdir()
        put(inbox / "sub" / "bad.xy", b"no scan")
        wait_for(lambda: len(rows(tmp_path)) == 4)
        assert rows(tmp_path)["late.xy", "1"] == ""
        assert rows(tmp_path)["sub/bad.xy", "1"] == "REFUSED"
        wait_for(lambda: (inbox / "sub" / QUARANTINE_NAME).exists())
        assert "bad.xy,REFUSED" in (inbox / "sub" / QUARANTINE_NAME).read_text()
        assert not (inbox / QUARANTINE_NAME).exists()
        process.kill()  # as a power cut does
        process.communicate()
        put(inbox / "meanwhile.xy", quick_scan(51))
        put(inbox / "sub" / "bad.xy", quick_scan(52))
        process = watching(tmp_path)
        wait_for(lambda: len(rows(tmp_path)) == 6)
        found = rows(tmp_path)
        assert found["sub/bad.xy", "1"] == "REFUSED"
        assert found["sub/bad.xy", "2"] == ""
        assert found["meanwhile.xy", "1"] == ""
        wait_for(lambda: not (inbox / "sub" / QUARANTINE_NAME).exists())
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
        assert "2 scans analysed, 0 of them without an answer" in errors
        files = [row["file"] for row in table(tmp_path / "run")]
        assert files == sorted(files)
        assert len(files) == 6
    finally:
        process.kill()
        process.communicate()


def test_once_ends_when_everything_has_its_row_and_again_does_nothing(tmp_path: Path) -> None:
    inbox = good_folder(tmp_path / "inbox", 3)
    (inbox / "empty.xy").write_bytes(b"")
    done = xrdz("watch", "inbox", "--out", "run", "--once", *QUICK, cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert len(rows(tmp_path)) == 4
    before = (tmp_path / "run" / "results.csv").read_bytes()
    again = xrdz("watch", "inbox", "--out", "run", "--once", *QUICK, cwd=tmp_path)
    assert again.returncode == 0
    assert "0 scans analysed" in again.stderr
    assert (tmp_path / "run" / "results.csv").read_bytes() == before
    os.utime(inbox / "scan_0000.xy")
    touched = xrdz("watch", "inbox", "--out", "run", "--once", *QUICK, cwd=tmp_path)
    assert "0 scans analysed" in touched.stderr, "the same bytes are the same scan"


def test_a_run_inside_the_inbox_is_not_its_own_input(tmp_path: Path) -> None:
    inbox = good_folder(tmp_path / "inbox", 2)
    done = xrdz("watch", "inbox", "--out", "inbox/run", "--once", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(table(inbox / "run")) == 2


def test_a_folder_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    done = xrdz("watch", "inbox", "--out", "run", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no such folder" in done.stderr


def test_what_is_remembered_is_bounded_by_what_lies_in_the_inbox(tmp_path: Path, clock: Clock) -> None:
    """A thousand files come and go; what is kept at the end is what is kept of the last one."""
    inbox = inbox_of(tmp_path)
    for number in range(1000):
        file = tmp_path / f"{number}.xy"
        file.write_bytes(b"1")
        inbox.ready()
        clock.now += 11
        [place], _ = inbox.ready()
        inbox.finish(place, inbox.changing[place][0], retry=number % 3 == 0)
        file.unlink()
    inbox.ready()
    assert (len(inbox.done), len(inbox.changing), len(inbox.again_at)) == (0, 0, 0)
    assert threading.active_count() < 10
