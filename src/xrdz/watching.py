"""A watched inbox: files are analysed when they have stopped changing, for days, from network drives too.

The inbox is looked at every few seconds, which works on every file system. A file is ready when its size and time of
change have stayed the same for a while; an empty one gets longer, since instruments create the file when a scan begins.
The invariant: every state a file settles in becomes one row. The parts of the run are the memory: after a restart,
files whose size and time are those of their newest row are left alone, and all others are looked at again. What is kept
here is what is known of the files that lie in the inbox now, so memory does not grow with the days.
"""

from __future__ import annotations

import csv
import io
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xrdz.archive import Row
from xrdz.batching import MAX_CHUNK, Options, SampleIndex
from xrdz.errors import InputError
from xrdz.files import write_whole
from xrdz.inputs import QUARANTINE_NAME, ScanInput, fingerprint, scans_at, walked
from xrdz.pool import LocalPool, usable_cores
from xrdz.results import append_results, cell_text, write_results
from xrdz.run_folder import OutputError, RunFolder, now, stored_scans
from xrdz.worker import RETRIED, ChunkReport, ChunkTask, Reason, RunSpec

CYCLE_CHUNKS = 8
"""Chunks per worker that are begun before the inbox is looked at again."""

RETRY_SECONDS = 60.0
"""After this time an unreadable file, a full disk or a table held open by another program is tried again."""

Signature = tuple[int, int]
"""Size and time of change (ns) of a file; (-1, -1) when it cannot be asked."""


@dataclass(frozen=True)
class Patience:
    """How long to wait.

    Parameters
    ----------
    every_s : between looks at the inbox
    settle_s : a file must stay as it is
    empty_s : the same for an empty file
    """

    every_s: float = 5.0
    settle_s: float = 10.0
    empty_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Known:
    """The newest row of a scan: hash of its content, and how many contents it has had."""

    sha256: str
    revision: int


@dataclass
class Inbox:
    """The files that lie there: which are still changing, which have their rows.

    Parameters
    ----------
    folder : as the user named it
    leave_out : absolute paths that are not looked into, such as the run's own folder
    say : takes a line for the user
    """

    folder: str
    patience: Patience
    leave_out: frozenset[str]
    say: Callable[[str], None]
    done: dict[str, Signature] = field(default_factory=dict)
    changing: dict[str, tuple[Signature, float]] = field(default_factory=dict)
    again_at: dict[str, float] = field(default_factory=dict)
    problems: frozenset[str] = frozenset()

    def places(self) -> list[str] | None:
        """Return the files in the order of their names; None while the folder cannot be listed, as a lost drive."""
        found, problems = [], []
        for place, problem in walked(self.folder, self.leave_out, Counter()):
            if problem:
                problems.append(problem)
            else:
                found.append(place)
        for problem in problems:
            if problem not in self.problems:
                self.say(problem)
        self.problems = frozenset(problems)
        return None if problems and not os.path.isdir(self.folder) else found

    def ready(self) -> tuple[list[str], list[str]]:
        """Look at the folder and return the files that have settled in a new state, and those that have gone."""
        places = self.places()
        if places is None:
            return [], []
        moment = time.monotonic()
        settled = [place for place in places if self._has_settled(place, moment)]
        present = frozenset(places)
        gone = [place for place in {*self.done, *self.changing} if place not in present]
        for place in gone:
            self.done.pop(place, None)
            self.changing.pop(place, None)
            self.again_at.pop(place, None)
        return settled, gone

    def _has_settled(self, place: str, moment: float) -> bool:
        signature = signature_of(place)
        if self.done.get(place) == signature and moment < self.again_at.get(place, float("inf")):
            self.changing.pop(place, None)
            return False
        before, since = self.changing.get(place, (None, moment))
        if before != signature:
            self.changing[place] = (signature, moment)
            since = moment
        wait = self.patience.empty_s if signature[0] == 0 else self.patience.settle_s
        return moment - since >= wait

    def finish(self, place: str, signature: Signature, *, retry: bool) -> None:
        """Note that a file has its rows in the state it had settled in."""
        self.done[place] = signature
        self.changing.pop(place, None)
        self.again_at.pop(place, None)
        if retry:
            self.again_at[place] = time.monotonic() + RETRY_SECONDS


@dataclass
class Watch:
    """A run that is fed from an inbox.

    Parameters
    ----------
    samples : rows of the sample sheet, None without one
    formats : tables; CSV and JSON Lines grow with every row, the others are written when the watch begins and ends
    known : newest rows by file and scan, of the files that lie in the inbox
    unusable : scans without an answer by folder and file name
    """

    inbox: Inbox
    spec: RunSpec
    run: RunFolder
    options: Options
    samples: SampleIndex | None = None
    formats: tuple[str, ...] = ("csv",)
    known: dict[str, dict[str, Known]] = field(default_factory=dict)
    unusable: dict[str, dict[str, Row]] = field(default_factory=dict)
    analysed: int = 0
    failed: int = 0
    tables_stale_since: float | None = None

    def remember(self) -> None:
        """Take from the parts what is known of the files that lie in the inbox."""
        rows: dict[str, list[Row]] = {}
        for stored in stored_scans(self.run.path, every=True):
            rows.setdefault(stored.name, []).append(stored.row)
        for place in self.inbox.places() or ():
            scans = list(scans_at(place, root=self.run.root))
            newest = [rows[scan.name][-1] for scan in scans if scan.name in rows]
            for row in newest:
                self._note(place, row, revision=len({state.sha256 for state in rows[row.file]}))
            signature = signature_of(place)
            plain = len(scans) == 1 and not scans[0].member
            if plain and newest and (newest[0].size, newest[0].mtime_ns) == signature:
                self.inbox.finish(place, signature, retry=newest[0].reason in RETRIED)
        for folder in list(self.unusable):
            self._list_unusable(folder)

    def forget(self, places: Sequence[str]) -> None:
        """Drop what is known of files that have gone; their rows stay."""
        for place in places:
            self.known.pop(place, None)
            folder, name = os.path.split(place)
            if self.unusable.get(folder, {}).pop(name, None) is not None:
                self._list_unusable(folder)

    def _note(self, place: str, row: Row, *, revision: int) -> None:
        self.known.setdefault(place, {})[row.file] = Known(row.sha256, revision)
        folder, name = os.path.split(place)
        if row.reason:
            self.unusable.setdefault(folder, {})[name] = row
        elif folder in self.unusable:
            self.unusable[folder].pop(name, None)

    def is_new(self, place: str, scan: ScanInput) -> bool:
        """Return whether the content of a scan differs from its newest row."""
        known = self.known.get(place, {}).get(scan.name)
        if known is None:
            return True
        try:
            return fingerprint(scan) != known.sha256
        except InputError:
            # What could not be read before and cannot be now has its row.
            return known.sha256 != ""

    def take(self, report: ChunkReport, place_of: dict[str, str]) -> None:
        """Note the rows of a report, append them to the tables and keep the quarantine lists."""
        touched = set()
        for row in report.rows:
            place = place_of[row.file]
            before = self.known.get(place, {}).get(row.file, Known("", 0))
            revision = before.revision + (before.revision == 0 or before.sha256 != row.sha256)
            was_listed = os.path.basename(place) in self.unusable.get(os.path.dirname(place), {})
            self._note(place, row, revision=revision)
            if row.reason or was_listed:
                touched.add(os.path.dirname(place))
            if row.reason:
                self.inbox.say(f"{row.file}: {row.reason}: {row.message}")
        self.analysed += len(report.rows)
        self.failed += sum(bool(row.reason) for row in report.rows)
        for folder in sorted(touched):
            self._list_unusable(folder)
        revisions = {row.file: self.known[place_of[row.file]][row.file].revision for row in report.rows}
        if self.tables_stale_since is None:
            try:
                append_results(self.run.path, Path(report.part), revisions, self.formats)
            except InputError as error:
                self.tables_stale_since = time.monotonic()
                self.inbox.say(f"{error}; it is written later")
        self.inbox.say(f"{now()[:19]}Z {len(report.rows)} scans analysed, {self.analysed} since the start")

    def _list_unusable(self, folder: str) -> None:
        """Write the quarantine list of a folder, or remove it when nothing is left on it, and that of the run."""
        listed = self.unusable.get(folder, {})
        beside = Path(folder) / QUARANTINE_NAME
        try:
            if listed:
                write_whole(beside, quarantine_text(listed))
            else:
                self.unusable.pop(folder, None)
                beside.unlink(missing_ok=True)
        except (InputError, OSError) as error:
            self.inbox.say(f"{error}; the list in {self.run.path} has its scans all the same")
        whole = {row.file: row for rows in self.unusable.values() for row in rows.values()}
        try:
            write_whole(self.run.path / "quarantine.csv", quarantine_text(whole))
        except InputError as error:
            self.inbox.say(str(error))

    def refresh(self) -> None:
        """Write all tables anew, ordered by name."""
        try:
            write_results(self.run.path, self.formats)
            self.tables_stale_since = None
        except InputError as error:
            self.tables_stale_since = time.monotonic()
            self.inbox.say(str(error))

    def refresh_stale(self) -> None:
        """Write the tables that could not be written, some time after."""
        if self.tables_stale_since is not None and time.monotonic() - self.tables_stale_since > RETRY_SECONDS:
            self.refresh()


def signature_of(place: str) -> Signature:
    """Return size and time of change of a file."""
    try:
        status = os.stat(place)
    except (OSError, ValueError):
        return -1, -1
    return status.st_size, status.st_mtime_ns


def quarantine_text(listed: dict[str, Row]) -> str:
    """Return the list of scans without an answer as CSV."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "reason", "message", "finished (UTC)", "sha256"])
    for name in sorted(listed):
        row = listed[name]
        table.writerow([cell_text(cell) for cell in (name, row.reason, row.message, row.finished, row.sha256)])
    return text.getvalue()


def watch(state: Watch, stop: threading.Event, *, once: bool = False) -> None:
    """Analyse what comes into the inbox until asked to stop.

    Parameters
    ----------
    once : end when everything that lies there has settled and has its rows

    Raises
    ------
    XrdzError
        If the run cannot be read at the start, or workers cannot start.
    """
    jobs = state.options.jobs or usable_cores()
    state.remember()
    state.refresh()
    with LocalPool(jobs, time_limit=state.options.time_limit, stop=stop) as pool:
        while not stop.is_set():
            settled, gone = state.inbox.ready()
            state.forget(gone)
            if settled:
                try:
                    analyse_settled(state, pool, settled[: CYCLE_CHUNKS * MAX_CHUNK * jobs], jobs)
                except OutputError as error:
                    state.inbox.say(f"{error} (tried again in {RETRY_SECONDS:g} s)")
                    pool.close()
                    stop.wait(RETRY_SECONDS)
            elif once and not state.inbox.changing:
                break
            else:
                stop.wait(state.inbox.patience.every_s)
            state.refresh_stale()
    state.refresh()


def analyse_settled(state: Watch, pool: LocalPool, settled: list[str], jobs: int) -> None:
    """Analyse files that have settled; what is stored is done, whatever interrupts the rest."""
    signatures = {place: state.inbox.changing[place][0] for place in settled}
    scans: list[ScanInput] = []
    place_of: dict[str, str] = {}
    missing: dict[str, int] = dict.fromkeys(settled, 0)
    for place in settled:
        for scan in scans_at(place, root=state.run.root):
            if state.is_new(place, scan):
                scans.append(scan)
                place_of[scan.name] = place
                missing[place] += 1
    retried = set()
    for report in pool.run(iter(chunked(state, scans, jobs))):
        state.take(report, place_of)
        for row in report.rows:
            missing[place_of[row.file]] -= 1
            if row.reason == Reason.UNREADABLE.value:
                retried.add(place_of[row.file])
    for place in settled:
        if missing[place] <= 0:
            state.inbox.finish(place, signatures[place], retry=place in retried)


def chunked(state: Watch, scans: Sequence[ScanInput], jobs: int) -> list[ChunkTask]:
    """Return scans in chunks, one for each worker at least."""
    size = state.options.chunk or max(1, min(MAX_CHUNK, -(-len(scans) // jobs)))
    tasks = []
    for start in range(0, len(scans), size):
        some = tuple(scans[start : start + size])
        samples = tuple(None if state.samples is None else state.samples.find(scan) for scan in some)
        tasks.append(ChunkTask(state.spec, some, samples))
    return tasks
