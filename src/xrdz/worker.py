"""What one process does: a chunk of inputs, one row each, stored in parts.

`run_chunk` is the one function behind the local pool, every shard and every Dask worker. The invariant: each input of
a chunk ends in exactly one row, an answer or a reason with its words, and the rows of a part become visible together
with their archive, by one rename. Whatever goes wrong with one scan stays with that scan.

`serve` is the body of a worker of the local pool: tasks come in on stdin, reports go out on stdout, both as pickles
behind their length. It is a fresh interpreter, so a caller needs no `if __name__ == "__main__"`, the number of threads
of its linear algebra is set before numpy is loaded, and a crash of one worker touches no other process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import queue
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import IO, Any

import numpy as np

from xrdz import __version__
from xrdz.analysis import Analysis
from xrdz.archive import Row
from xrdz.archive_writer import PartHeader, PartWriter
from xrdz.claims import check_claims
from xrdz.diffractogram import Diffractogram, Source
from xrdz.errors import FitError, InputError, XrdzError
from xrdz.files import make_folder, write_whole
from xrdz.findings import Code, severe
from xrdz.fit import FitResult
from xrdz.hdf5_pack import read_entry
from xrdz.inputs import ScanInput, UnreadableError, is_entry, read_raw, stat_of
from xrdz.method import Method, default_method
from xrdz.pipeline import analyse_diffractogram, software_versions
from xrdz.process import set_up
from xrdz.readers import content_of_bytes, read_content
from xrdz.run_folder import OutputError, RunFolder, Shard, now
from xrdz.sample_sheet import Sample
from xrdz.stored import slimmed
from xrdz.wavelength import wavelength_from_name

PART_SECONDS = 15.0
"""A part is written at the latest after this time, so that a kill costs no more work than that."""

PART_BYTES = 64 * 1024 * 1024
"""A part is written when its scans and curves reach about this size, whatever the chunk."""


class Reason(StrEnum):
    """Why an input has no answer; the empty one is an answer."""

    ANSWERED = ""
    UNREADABLE = "UNREADABLE"  # the bytes could not be had: gone, no permission, a damaged pack
    REFUSED = "REFUSED"  # the file was read, but is no scan that can be used
    FIT_FAILED = "FIT_FAILED"  # the fit could not be carried out; its document has the findings
    OUT_OF_MEMORY = "OUT_OF_MEMORY"  # the scan needs more memory than there is
    WORKER_DIED = "WORKER_DIED"  # every process that tried it ended
    TIME_LIMIT = "TIME_LIMIT"  # it took longer than the time limit
    INTERNAL_ERROR = "INTERNAL_ERROR"  # a defect of xrdz; please report it


KEPT_WITHOUT_RESULT = ("schema", "source", "sample", "method", "software", "references_sha256")
"""Of the document of an answer that cannot be stored."""

RETRIED = frozenset({Reason.UNREADABLE, Reason.OUT_OF_MEMORY, Reason.WORKER_DIED})
"""Reasons that may be gone at the next start, when the input is tried again."""


@dataclass(frozen=True)
class RunSpec:
    """What is the same for all chunks of a run.

    Parameters
    ----------
    number : which scan of files with several: a number from 1, or "sum"
    sheet : name of the sample sheet; "" when samples play no part
    run, shard : where parts go; without a run, analyses are handed back instead
    curves : whether parts hold curves and reflections
    warm : whether a fit starts from the solution of the scan before it
    """

    method: Method
    references_sha256: str
    number: str | None = None
    sheet: str = ""
    run: RunFolder | None = None
    shard: Shard = field(default_factory=Shard)
    curves: bool = True
    warm: bool = False
    part_seconds: float = PART_SECONDS
    version: str = __version__


@dataclass(frozen=True)
class ChunkTask:
    """Inputs for one worker, each with its row of the sample sheet.

    Parameters
    ----------
    blamed : inputs not to be tried, by name, with the reason and its words
    """

    spec: RunSpec
    inputs: tuple[ScanInput, ...]
    samples: tuple[Sample | None, ...]
    blamed: Mapping[str, tuple[Reason, str]] = field(default_factory=dict)

    def without(self, done: set[str]) -> ChunkTask:
        """Return the task with only the inputs that are not in `done`."""
        kept = [(scan, sample) for scan, sample in zip(self.inputs, self.samples, strict=True) if scan.name not in done]
        return replace(self, inputs=tuple(scan for scan, _ in kept), samples=tuple(sample for _, sample in kept))


@dataclass(frozen=True)
class ChunkReport:
    """Rows that are safe now: in the part of this path, or with their analyses when the run stores none."""

    rows: tuple[Row, ...]
    part: str = ""
    analyses: tuple[Analysis, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How one input ended: its row, its document, and for an answer the analysis and the scan before cropping."""

    row: Row
    document: dict[str, Any]
    analysis: Analysis
    scan: Diffractogram | None = None


def nothing(_: str) -> None:
    """Take note of nothing."""


def never() -> bool:
    """Say that nothing asks to stop."""
    return False


def run_chunk(
    task: ChunkTask, begin: Callable[[str], None] = nothing, stopped: Callable[[], bool] = never
) -> Iterator[ChunkReport]:
    """Analyse the inputs of a chunk and yield their rows as they are safe.

    Parameters
    ----------
    begin : is told the name of each input before it is tried, and "" before a part is written
    stopped : asked between inputs; when it says so, what is done is stored and the rest left

    Raises
    ------
    OutputError
        If a part cannot be written.
    InputError
        If this process runs another version of xrdz than the one that gave the task.
    """
    spec = task.spec
    if spec.version != __version__:
        raise InputError(
            f"this worker runs xrdz {__version__}, but the run was started with {spec.version}; "
            "install the same version everywhere"
        )
    part = _Part(spec)
    near: FitResult | None = None
    for scan, sample in zip(task.inputs, task.samples, strict=True):
        if stopped():
            break
        begin(scan.name)
        blame = task.blamed.get(scan.name)
        if blame is None:
            outcome = analyse_input(scan, sample, spec, near)
        else:
            outcome = refusal(scan, spec, *blame, sample=sample)
        if spec.warm and outcome.analysis.status == "converged" and outcome.analysis.fit is not None:
            near = outcome.analysis.fit
        if spec.run is None:
            yield ChunkReport((outcome.row,), analyses=(slimmed(outcome.analysis),))
            continue
        part.add(outcome)
        if part.is_due():
            begin("")
            yield part.written()
            part = _Part(spec)
    if len(part):
        begin("")
        yield part.written()


class _Part:
    """Rows on their way into one part."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.rows: list[Row] = []
        self.began = time.monotonic()
        self.bytes = 0
        header = PartHeader(
            spec.run.key if spec.run is not None else "", spec.method, spec.references_sha256, now(), spec.curves
        )
        self.writer = PartWriter(header)

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, outcome: Outcome) -> None:
        """Add a row; one that cannot be stored becomes the row that says so."""
        entry = outcome.scan is not None
        try:
            self.writer.add(outcome.row, outcome.document, outcome.analysis if entry else None, outcome.scan)
        except (TypeError, ValueError, RuntimeError, OSError) as error:
            outcome = _unstored(outcome, error)
            self.writer.add(outcome.row, outcome.document)
        self.rows.append(replace(outcome.row, entry=outcome.scan is not None))
        if outcome.scan is not None:
            self.bytes += outcome.scan.n_points * 8 * (5 + len(outcome.analysis.phases))

    def is_due(self) -> bool:
        """Return whether the part should be written before the next scan."""
        return self.bytes > PART_BYTES or time.monotonic() - self.began > self.spec.part_seconds

    def written(self) -> ChunkReport:
        """Write the part whole and return its rows."""
        assert self.spec.run is not None
        path = self.spec.run.new_part(self.spec.shard)
        try:
            make_folder(path.parent)
            write_whole(path, self.writer.image())
        except InputError as error:
            raise OutputError(
                f"{error}; what is stored already stays valid: make room or restore the folder, then start again"
            ) from None
        return ChunkReport(tuple(self.rows), str(path))


def analyse_input(scan: ScanInput, sample: Sample | None, spec: RunSpec, near: FitResult | None = None) -> Outcome:
    """Return how one input ends; nothing an input holds makes this raise. `near` is a fit to start from."""
    began = time.perf_counter()
    sha256 = ""
    size, mtime_ns = stat_of(scan)
    try:
        if is_entry(scan):
            diffractogram = read_entry(scan)
            sha256 = diffractogram.source.sha256
        else:
            raw = read_raw(scan)
            sha256 = hashlib.sha256(raw.data).hexdigest()
            size, mtime_ns = raw.size, raw.mtime_ns
            diffractogram = read_content(content_of_bytes(raw.data, scan.place), scan=spec.number)
        if spec.sheet and sample is None:
            raise InputError(
                f"{scan.place}: {spec.sheet} has no row for it; "
                "expected one whose column 'file' is the scan's file name"
            )
        read_s = time.perf_counter() - began
        analysis = analyse_diffractogram(diffractogram, spec.method, sample=sample, read_s=read_s, near=near)
        failed = analysis.status == "failed"
        message = next((finding.message for finding in reversed(analysis.findings)), "") if failed else ""
        row = Row(
            file=scan.name,
            sha256=sha256,
            reason=Reason.FIT_FAILED.value if failed else Reason.ANSWERED.value,
            message=" ".join(message.split()),
            status=analysis.status,
            sample_sha256=sample_sha256(sample),
            size=size,
            mtime_ns=mtime_ns,
            finished=now(),
            seconds=time.perf_counter() - began,
        )
        return Outcome(row, _document(analysis, row), analysis, diffractogram)
    except UnreadableError as error:
        reason, text = Reason.UNREADABLE, str(error)
    except InputError as error:
        reason, text = Reason.REFUSED, str(error)
    except FitError as error:
        reason, text = Reason.FIT_FAILED, str(error)
    except MemoryError:
        reason, text = Reason.OUT_OF_MEMORY, f"{scan.place}: not enough memory for this scan; split it"
    except Exception as error:  # noqa: BLE001 - the batch boundary: a defect must not stop the other scans
        reason = Reason.INTERNAL_ERROR
        text = f"{scan.place}: internal error, {type(error).__name__}: {error}; please report it with the file"
    refused = refusal(scan, spec, reason, text, sample=sample, sha256=sha256, seconds=time.perf_counter() - began)
    return replace(refused, row=replace(refused.row, size=size, mtime_ns=mtime_ns))


def refusal(
    scan: ScanInput,
    spec: RunSpec,
    reason: Reason,
    message: str,
    *,
    sample: Sample | None = None,
    sha256: str = "",
    seconds: float = 0.0,
) -> Outcome:
    """Return the outcome of an input without an answer; its row of the sample sheet says whose it is all the same."""
    message = " ".join(message.split())
    size, mtime_ns = stat_of(scan)
    row = Row(
        file=scan.name,
        sha256=sha256,
        reason=reason.value,
        message=message,
        status="failed",
        sample_sha256=sample_sha256(sample),
        size=size,
        mtime_ns=mtime_ns,
        finished=now(),
        seconds=seconds,
    )
    analysis = refused_analysis(scan, spec, row, sample)
    document = _document(analysis, row)
    document["source"]["wavelength"] = None
    return Outcome(row, document, analysis)


def refused_analysis(scan: ScanInput, spec: RunSpec, row: Row, sample: Sample | None = None) -> Analysis:
    """Return the analysis of an input that has none: failed, without points, its reason as a severe finding."""
    finding = severe(Code.READER_NOTE, row.message, where=scan.place)
    source = Source(path=scan.place, sha256=row.sha256)
    empty = np.zeros(0)
    return Analysis(
        diffractogram=Diffractogram(empty, empty.copy(), metadata=MappingProxyType({}), source=source),
        method=spec.method,
        wavelength=spec.method.instrument.wavelength or wavelength_from_name("CuKa", origin="default"),
        status="failed",
        phases={},
        mass_ratio=None,
        budget={},
        elements={},
        claims=check_claims(
            mass_ratio=None, both_detected=None, sample=sample, decision=spec.method.decision, findings=[finding]
        ),
        agreement=None,
        findings=(finding,),
        references_sha256=spec.references_sha256,
        software=software_versions(),
        timing={"read_s": row.seconds, "fit_s": 0.0, "total_s": row.seconds},
        sample=sample,
    )


def _document(analysis: Analysis, row: Row) -> dict[str, Any]:
    """Return the JSON document of a row: that of its analysis, and which row of which run it is."""
    batch = {"file": row.file, "reason": row.reason or None, "message": row.message or None, "finished": row.finished}
    return {**analysis.to_dict(), "batch": batch}


def _unstored(outcome: Outcome, error: Exception) -> Outcome:
    """Return the outcome as one without an answer, because its answer cannot be stored."""
    message = f"the result cannot be stored ({type(error).__name__}: {error}); please report it with the file"
    row = replace(outcome.row, reason=Reason.INTERNAL_ERROR.value, message=message, status="failed")
    document = {key: outcome.document[key] for key in KEPT_WITHOUT_RESULT}
    batch = {"file": row.file, "reason": row.reason, "message": message, "finished": row.finished}
    return Outcome(row, {**document, "status": "failed", "findings": [], "batch": batch}, outcome.analysis)


def sample_sha256(sample: Sample | None) -> str:
    """Return the hash of a sample sheet's filled cells, by which a change is noticed; "" without a row."""
    if sample is None:
        return ""
    return hashlib.sha256(json.dumps(sample.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


# --- a worker of the local pool ---------------------------------------------------------------------------------------

LENGTH = struct.Struct(">Q")


@dataclass(frozen=True)
class Began:
    """A worker tries the input of this name now; "" when it writes."""

    name: str


@dataclass(frozen=True)
class Finished:
    """A worker is ready for its first, or next, task."""


@dataclass(frozen=True)
class Failed:
    """A chunk ended because of something that is not the fault of an input."""

    error: XrdzError


def send(stream: IO[bytes], message: object) -> None:
    """Write one message behind its length."""
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(LENGTH.pack(len(content)) + content)
    stream.flush()


def received(stream: IO[bytes]) -> Any:
    """Return the next message.

    Raises
    ------
    EOFError
        If the other side has gone.
    """
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    (length,) = LENGTH.unpack(head)
    content = stream.read(length)
    if len(content) < length:
        raise EOFError
    return pickle.loads(content)


def serve() -> None:
    """Work on the chunks that come in until the other side goes."""
    # What a library prints must not get between the messages.
    requests, reports = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tasks: queue.SimpleQueue[ChunkTask] = queue.SimpleQueue()
    stop = threading.Event()

    def listen() -> None:
        try:
            while True:
                message = received(requests)
                if isinstance(message, ChunkTask):
                    tasks.put(message)
                else:
                    stop.set()
        except (EOFError, OSError):
            # Nobody is left to report to: what is not stored yet is analysed again at the next start.
            os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    set_up()
    _compile()
    with contextlib.suppress(BrokenPipeError):
        while True:
            send(reports, Finished())
            _work(tasks.get(), reports, stop)


def _compile() -> None:
    """Fit sixty points of noise: the compiler, which a fresh installation waits for, must not cost a scan its time."""
    two_theta = np.linspace(28.0, 46.0, 60)
    counts = np.random.default_rng(0).poisson(50.0, two_theta.size).astype(np.float64)
    analyse_diffractogram(Diffractogram(two_theta, counts), default_method())


def _work(task: ChunkTask, reports: IO[bytes], stop: threading.Event) -> None:
    try:
        for report in run_chunk(task, lambda name: send(reports, Began(name)), stop.is_set):
            send(reports, report)
    except BrokenPipeError:
        raise
    except XrdzError as error:
        send(reports, Failed(error))
    except Exception as error:  # noqa: BLE001 - the process boundary: the other side must hear of it
        text = (
            f"internal error in a worker, {type(error).__name__}: {error}; please report it with the output of --debug"
        )
        send(reports, Failed(XrdzError(text)))


def main() -> None:
    """Serve; a worker that cannot start says why in one line."""
    try:
        serve()
    except KeyboardInterrupt:
        sys.exit(130)
