"""A batch: many inputs, one method, one row each, resumed where it was interrupted.

    inputs -> what is not done yet -> chunks -> local pool or Dask cluster -> parts -> tables

`plan_batch` compares the inputs with the rows that the parts hold. An input is done when a row of the present key has
the hash of its present bytes and of its present row of the sample sheet. The invariant: the rows of a finished run are
those of `xrdz fit` one by one, to the last digit, on any number of workers, shards or machines.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath

from xrdz.analysis import Analysis
from xrdz.archive import Row, StoredScan, analysis_from_archive, document_of, part_rows
from xrdz.errors import InputError
from xrdz.inputs import Listing, ScanInput, common_root, fingerprint, list_inputs, stat_of
from xrdz.method import Method, default_method, is_cif, read_method
from xrdz.pipeline import references_of
from xrdz.pool import LocalPool, usable_cores
from xrdz.reference import library_sha256
from xrdz.results import table_shape
from xrdz.run_folder import (
    RunFolder,
    RunLock,
    Shard,
    newest,
    open_run,
    parse_shard,
    remove_partial,
    rows_of_parts,
    stored_root,
)
from xrdz.sample_sheet import Sample, SampleSheet, read_sample_sheet
from xrdz.worker import RETRIED, ChunkReport, ChunkTask, Reason, RunSpec, refused_analysis, sample_sha256

MAX_CHUNK = 100
"""Scans of a local chunk; larger ones save nothing, smaller ones cost a part each."""

LEAST_CHUNK = 10
"""Scans of the last chunks of a run; a part of fewer costs more than it saves waiting."""

CHUNKS_PER_WORKER = 4
"""A chunk is this share of what each worker still has to do, so that all of them end at about the same time."""


@dataclass(frozen=True)
class Options:
    """How a batch is worked on; none of it changes a number.

    Parameters
    ----------
    jobs : processes of this machine, 0 for as many as it may use
    chunk : scans of a chunk, 0 for a size that suits their number
    force : analyse again what is done
    trust_times : take a file of the same size and time of change for unchanged, without reading it
    time_limit : seconds a scan may take, None for any
    dask : address of a Dask scheduler instead of local processes
    """

    jobs: int = 0
    chunk: int = 0
    force: bool = False
    trust_times: bool = False
    time_limit: float | None = None
    dask: str | None = None


@dataclass(frozen=True)
class Plan:
    """What there is to do.

    Parameters
    ----------
    todo : inputs to analyse, ordered by name
    kept : rows of inputs that are done, with where they are stored
    notes : what a user should know before it begins
    """

    spec: RunSpec
    listing: Listing
    todo: tuple[ScanInput, ...]
    kept: tuple[StoredScan, ...] = ()
    notes: tuple[str, ...] = ()
    samples: SampleIndex | None = None

    @property
    def total(self) -> int:
        """Inputs of this share of the run."""
        return len(self.todo) + len(self.kept)


class SampleIndex:
    """The rows of a sample sheet by file name, so that ten thousand scans find theirs at once."""

    def __init__(self, sheet: SampleSheet) -> None:
        self.sheet = sheet
        self._by_name: dict[str, list[Sample]] = {}
        for sample in sheet.samples:
            self._by_name.setdefault(PureWindowsPath(sample.file).name.lower(), []).append(sample)

    def find(self, scan: ScanInput) -> Sample | None:
        """Return the row of an input, as `SampleSheet.find` does."""
        candidates = self._by_name.get(PureWindowsPath(scan.place).name.lower())
        return None if candidates is None else SampleSheet(self.sheet.name, tuple(candidates)).find(scan.place)


@dataclass(frozen=True)
class Request:
    """What is asked for: inputs, method and where results go.

    Parameters
    ----------
    inputs : files, globs, folders, packs, manifests; see `inputs.list_inputs`
    out : folder of the run; None to hand analyses back and store nothing
    number : which scan of files with several
    leave_out : files that folders are searched without, such as the sample sheet
    warm : whether a fit starts from the solution of the scan before it
    every : whether the tables keep a row for each content a file has had
    """

    inputs: Sequence[str | Path]
    method: Method
    out: Path | None = None
    sheet: SampleSheet | None = None
    number: str | None = None
    shard: Shard = field(default_factory=Shard)
    curves: bool = True
    warm: bool = False
    leave_out: Sequence[str | Path] = ()
    every: bool = False


def open_request(request: Request) -> tuple[RunSpec, str]:
    """Make or continue the run of a request, checking the method before any scan.

    Raises
    ------
    InputError
        If a phase is unknown, a CIF cannot be used, or the folder cannot be written.
    """
    method = request.method
    phases = [*references_of(method)]
    if method.candidates:
        candidates = Method(phases=method.candidates, directory=method.directory)
        phases += references_of(candidates)
    references = library_sha256()
    spec = RunSpec(
        method=method,
        references_sha256=references,
        number=request.number,
        sheet="" if request.sheet is None else request.sheet.name,
        shard=request.shard,
        curves=request.curves,
        warm=request.warm,
    )
    if request.out is None:
        return spec, ""
    for path in request.inputs:
        if os.path.isdir(path) and os.path.realpath(path) == os.path.realpath(request.out):
            raise InputError(f"{request.out}: an input and the folder of the run at once; choose another --out")
    root = stored_root(request.out) or common_root([str(path) for path in request.inputs])
    run, note = open_run(
        request.out,
        method=method,
        references_sha256=references,
        root=root,
        options={
            "scan": request.number,
            "sample_sheet": request.sheet is not None,
            **({"warm": True} if request.warm else {}),
        },
        table=table_shape(phases).to_dict(),
        every=request.every,
    )
    return replace(spec, run=run), note


def plan_batch(request: Request, spec: RunSpec, options: Options) -> Plan:
    """Return what there is to do of a request.

    Raises
    ------
    InputError
        If nothing that was named exists, or holds a scan.
    """
    run = spec.run
    cifs = [entry for entry in (*request.method.phases, *request.method.candidates) if is_cif(entry)]
    left_out = [*map(str, request.leave_out), *cifs, *([] if run is None else [str(run.path)])]
    listing = list_inputs(request.inputs, root=None if run is None else run.root, leave_out=left_out)
    if not listing.inputs:
        note = listing.note()
        named = ", ".join(str(argument) for argument in request.inputs[:3]) or "the inputs"
        raise InputError(f"{named}: no scan found{f' ({note})' if note else ''}; expected files such as .xy or .xrdml")
    notes = [note for note in (listing.note(),) if note]
    mine = [scan for scan in listing.inputs if request.shard.holds(scan.name)]
    samples = None if request.sheet is None else SampleIndex(request.sheet)
    known: Mapping[str, StoredScan] = {}
    if run is not None and not options.force:
        known = newest(rows_of_parts(run, notes, request.shard, messages=False))
    todo: list[ScanInput] = []
    kept: list[StoredScan] = []
    changed = 0
    for scan in mine:
        stored = known.get(scan.name)
        sample = None if samples is None else samples.find(scan)
        if stored is not None and is_done(scan, stored.row, sample, trust_times=options.trust_times):
            kept.append(stored)
        else:
            todo.append(scan)
            changed += stored is not None and stored.row.reason not in RETRIED
    if changed:
        what = "file" if samples is None else "file or row of the sample sheet"
        notes.append(f"scans to be analysed again, because their {what} changed: {changed}")
    return Plan(spec, listing, tuple(todo), tuple(kept), tuple(notes), samples)


def is_done(scan: ScanInput, row: Row, sample: Sample | None, *, trust_times: bool = False) -> bool:
    """Return whether a stored row still says what this input would give."""
    if row.reason in RETRIED or row.sample_sha256 != sample_sha256(sample):
        return False
    if trust_times and row.sha256 and (row.size, row.mtime_ns) == stat_of(scan):
        return True
    try:
        return row.sha256 == fingerprint(scan)
    except InputError:
        # It cannot be read now; a row of bytes that were refused for their size has no hash and stays.
        return row.sha256 == "" and (row.size, row.mtime_ns) == stat_of(scan)


def chunks(plan: Plan, options: Options, workers: int) -> Iterator[ChunkTask]:
    """Yield the inputs to analyse in chunks, in their order; they become smaller towards the end (guided scheduling).

    Polychronopoulos & Kuck 1987, IEEE Trans. Comput. C-36, 1425.
    """
    start, total = 0, len(plan.todo)
    least = max(1, min(LEAST_CHUNK, total // (CHUNKS_PER_WORKER * workers)))
    while start < total:
        size = options.chunk or max(least, min(MAX_CHUNK, (total - start) // (CHUNKS_PER_WORKER * workers)))
        if plan.spec.run is None:
            size = min(size, 10) if options.dask or plan.spec.warm else 1
        inputs = plan.todo[start : start + size]
        samples = tuple(None if plan.samples is None else plan.samples.find(scan) for scan in inputs)
        yield ChunkTask(plan.spec, inputs, samples)
        start += size


def execute(plan: Plan, options: Options, stop: threading.Event | None = None) -> Iterator[ChunkReport]:
    """Yield the rows of a plan as they are safe, on local processes or on a Dask cluster.

    Raises
    ------
    XrdzError
        If results cannot be stored, workers cannot start or the cluster cannot be reached.
    """
    if not plan.todo:
        return
    stop = stop or threading.Event()
    if options.dask is not None:
        from xrdz.cluster import run_on_cluster

        yield from run_on_cluster(lambda workers: chunks(plan, options, workers), options.dask, stop=stop)
        return
    jobs = options.jobs or usable_cores()
    with LocalPool(jobs, time_limit=options.time_limit, stop=stop) as pool:
        yield from pool.run(chunks(plan, options, jobs))


def locked(spec: RunSpec) -> RunLock:
    """Return the lock of a share of a run, taken; what a killed process left half written is removed.

    Raises
    ------
    InputError
        If another process works on it.
    """
    assert spec.run is not None
    lock = RunLock(spec.run, spec.shard).__enter__()
    remove_partial(spec.run, spec.shard)
    return lock


def batch(
    paths: str | Path | Iterable[str | Path],
    method: Method | str | Path | None = None,
    *,
    out: str | Path | None = None,
    jobs: int = 0,
    scan: str | int | None = None,
    sample: SampleSheet | str | Path | None = None,
    shard: str | None = None,
    dask: str | None = None,
    force: bool = False,
    chunk: int = 0,
    time_limit: float | None = None,
    curves: bool = True,
    warm: bool = False,
) -> Iterator[Analysis]:
    """Analyse many scans and yield their analyses as they finish; a bad scan never stops the rest.

    Every input gives exactly one analysis. One that could not be read or used has `status` "failed", no phases, and a
    severe finding with the reason; `analysis.diffractogram.source.path` says which it is.

    Parameters
    ----------
    paths : files, globs, folders, packs (.zip, .tar, HDF5) and manifests (`@list.txt`), one or many
    method : a method, its TOML file, or None for Sn and Ni3Sn4
    out : folder of the run. With it every analysis is stored, scans that are done already are yielded from there, and
        an interrupted loop goes on where it was; without it nothing is written
    jobs : worker processes, 0 for as many as this machine may use
    scan : which scan of files that hold several: its number from 1, or "sum"
    sample : a sample sheet, for the claims
    shard : "I/N", the share of this process among N
    dask : address of a Dask scheduler, instead of local processes
    force : analyse again what is done
    chunk : scans of a chunk, 0 for a size that suits their number
    time_limit : seconds one scan may take
    curves : whether the archive holds curves and reflections
    warm : start each fit from the solution of the scan before it: faster for scans alike, but the numbers then depend
        on the order, by a few hundredths of their standard uncertainty

    Raises
    ------
    InputError
        If the method or the folder cannot be used, or nothing that was named exists.
    """
    arguments = [paths] if isinstance(paths, str | Path) else list(paths)
    chosen = method if isinstance(method, Method) else default_method() if method is None else read_method(method)
    sheet = read_sample_sheet(sample) if isinstance(sample, str | Path) else sample
    request = Request(
        inputs=arguments,
        method=chosen,
        out=None if out is None else Path(out),
        sheet=sheet,
        number=None if scan is None else str(scan),
        shard=Shard() if shard is None else parse_shard(shard),
        curves=curves,
        warm=warm,
        leave_out=[sample] if isinstance(sample, str | Path) else [],
    )
    options = Options(jobs=jobs, chunk=chunk, force=force, time_limit=time_limit, dask=dask)
    spec, _ = open_request(request)
    if spec.run is None:
        plan = plan_batch(request, spec, options)
        for report in execute(plan, options):
            yield from report.analyses
        return
    lock = locked(spec)
    try:
        plan = plan_batch(request, spec, options)
        places = {item.name: item for item in plan.listing.inputs}
        for stored in plan.kept:
            yield _reopened(stored, places, plan)
        for report in execute(plan, options):
            for number, row in enumerate(part_rows(Path(report.part))):
                yield _reopened(StoredScan(row, Path(report.part), number), places, plan)
    finally:
        lock.__exit__()


def _reopened(stored: StoredScan, places: Mapping[str, ScanInput], plan: Plan) -> Analysis:
    """Return the analysis of a stored row, or the failed one of an input without."""
    if stored.row.entry:
        return analysis_from_archive(stored)
    message = document_of(stored)["batch"]["message"] or ""
    scan = places[stored.name]
    sample = None if plan.samples is None else plan.samples.find(scan)
    return refused_analysis(scan, plan.spec, replace(stored.row, message=message), sample)


@dataclass
class Counts:
    """How many rows ended how, for progress, the last line and the exit code."""

    answered: int = 0
    without: dict[str, int] = field(default_factory=dict)

    def add(self, rows: Iterable[Row]) -> None:
        """Count rows."""
        for row in rows:
            if row.reason:
                self.without[row.reason] = self.without.get(row.reason, 0) + 1
            else:
                self.answered += 1

    @property
    def failed(self) -> int:
        """Rows without an answer."""
        return sum(self.without.values())

    def words(self) -> str:
        """Return the reasons with their numbers, "" when all have an answer."""
        return ", ".join(f"{count} {reason}" for reason, count in sorted(self.without.items()))


__all__ = ["Counts", "Options", "Plan", "Reason", "Request", "RunFolder", "batch", "execute", "plan_batch"]
