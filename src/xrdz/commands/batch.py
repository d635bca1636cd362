"""`xrdz batch`: many scans, one method, one row each; resumed by the same command."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from xrdz.archive import Row
    from xrdz.batching import Counts, Options, Request

DESCRIPTION = """\
Analyse many scans with one method. Every input ends in exactly one row of RUN/results.csv: an answer, or the reason why
there is none. The same command again goes on where it was interrupted and analyses again what changed. Each fit is
stored in RUN/parts (HDF5) and can be reopened."""

EPILOG = """\
inputs:
  files, globs, folders (searched to the bottom), packs (.zip .tar .tar.gz, HDF5 with many scans), and @LIST: one path a
  line relative to the list's folder, a JSON manifest of xrdz validate, or a CSV with a column "file"

units: angles in degrees 2theta; results.csv has the unit in each header, fractions 0 to 1

exit codes: 0 every scan was analysed, whatever the verdicts; 4 some scans have no answer, results.csv says why; 2 bad
usage, or results cannot be stored; 130 interrupted, the same command goes on

example:
  xrdz batch scans --out run
  xrdz batch scans "more/*.xrdml" @list.txt --out run --method sn-ni.toml --sample sheet.csv --tables parquet,xlsx
  xrdz batch scans --out run --shard $SLURM_ARRAY_TASK_ID/100
  xrdz batch scans --out run --dask tcp://scheduler:8786
"""

SOME_FAILED, INTERRUPTED = 4, 130
LINE_SECONDS = 10.0
"""How often a line is printed where stderr is no terminal."""

DRAW_SECONDS = 0.2


def register(subparsers: Any) -> None:
    """Add `xrdz batch`."""
    parser = subparsers.add_parser(
        "batch", help="analyse many scans, one row each, resumable", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="file, glob, folder, pack or @LIST")
    add_run_options(parser)
    parser.add_argument("--dask", metavar="ADDRESS", help="use this Dask scheduler, such as tcp://host:8786")
    parser.add_argument(
        "--shard", metavar="I/N", help="only share I of N, for job arrays; the same folder RUN takes all shares"
    )
    parser.add_argument("--force", action="store_true", help="analyse again what is done")
    parser.add_argument(
        "--trust-times",
        action="store_true",
        help="take files of the same size and time for unchanged, without reading them",
    )
    parser.add_argument("--json", action="store_true", help="print each JSON document as it is ready, one a line")
    parser.set_defaults(run=run)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options `xrdz batch` and `xrdz watch` share."""
    several: dict[str, Any] = {"action": "append", "default": []}
    parser.add_argument("--out", metavar="RUN", required=True, help="folder of the run, made if it does not exist")
    parser.add_argument("--method", metavar="METHOD.toml", help="method file; default: phases sn and ni3sn4")
    parser.add_argument("--phases", metavar="ID,ID,...", help="phases to fit, instead of the method's")
    parser.add_argument("--cif", metavar="FILE.cif", **several, help="one more phase from a CIF file (repeatable)")
    parser.add_argument("--ratio", metavar="ID/ID", help="mass ratio to report, such as ni3sn4/sn")
    parser.add_argument("--instrument", metavar="FILE.toml", help="instrument file, instead of the method's")
    parser.add_argument("--range", metavar="LOW:HIGH", help="range to fit, degrees 2theta, such as 20:100")
    parser.add_argument(
        "--exclude", metavar="LOW:HIGH", **several, help="leave out, degrees 2theta, such as 42.5:44 (repeatable)"
    )
    parser.add_argument("--scan", metavar="N|sum", help="of files with several scans: number from 1, or their sum")
    parser.add_argument("--sample", metavar="SHEET.csv", help="sample sheet for claims 3-10, joined on the file name")
    parser.add_argument("--jobs", metavar="N", type=int, default=0, help="worker processes; default: usable cores")
    parser.add_argument("--chunk", metavar="N", type=int, default=0, help="scans of a chunk; default: by their number")
    parser.add_argument(
        "--time-limit", metavar="SECONDS", type=float, help="seconds one scan may take; default: no limit"
    )
    parser.add_argument("--tables", metavar="jsonl,parquet,xlsx", default="", help="tables besides results.csv")
    parser.add_argument(
        "--no-curves",
        action="store_true",
        help="store scans, parameters and results without curves (about a quarter of the size)",
    )
    parser.add_argument(
        "--warm",
        action="store_true",
        help="start each fit from the solution of the scan before it: faster for scans alike; numbers then depend on "
        "the order, by a few hundredths of their standard uncertainty",
    )


def run(args: argparse.Namespace) -> int:
    """Analyse what is not done yet, write the tables, and return the exit code."""
    from xrdz.results import parse_formats, require_libraries, write_results
    from xrdz.run_folder import Shard, parse_shard

    formats = parse_formats(args.tables)
    require_libraries(formats)
    shard = Shard() if args.shard is None else parse_shard(args.shard)
    request, options = requested(args, args.inputs, shard=shard)
    with stop_on_signals() as stop:
        counts, total, all_shares = analyse(request, options, stop, as_json=args.json)
        written = write_results(args.out, formats) if all_shares or shard.count == 1 else []
    _conclude(args.out, counts, total, written, shard.label if shard.count > 1 else "")
    if counts.answered + counts.failed < total:
        return INTERRUPTED
    return SOME_FAILED if counts.failed else 0


def analyse(
    request: Request, options: Options, stop: threading.Event, *, as_json: bool = False
) -> tuple[Counts, int, bool]:
    """Work on a request and return how its rows ended, how many it has, and whether all shares of the run are done."""
    from xrdz.archive import document_of
    from xrdz.batching import Counts, execute, locked, open_request, plan_batch
    from xrdz.commands.fit import say_if_compiling
    from xrdz.run_folder import mark_finished, remove_partial

    spec, note = open_request(request)
    run = spec.run
    assert run is not None
    counts = Counts()
    lock = locked(spec)
    try:
        mark_finished(run, request.shard, finished=False)
        plan = plan_batch(request, spec, options)
        for line in (note, *plan.notes):
            say(line)
        counts.add(scan.row for scan in plan.kept)
        if as_json:
            for stored in plan.kept:
                _print(document_of(stored))
        if plan.todo and options.dask is None:
            say_if_compiling()
        progress = Progress(plan.total, len(plan.kept), sys.stderr)
        for report in execute(plan, options, stop):
            counts.add(report.rows)
            progress.advance(report.rows, counts)
            if as_json:
                _print_documents(report.part)
        progress.end()
        complete = counts.answered + counts.failed == plan.total
        if complete:
            remove_partial(run, request.shard)
        return counts, plan.total, mark_finished(run, request.shard, finished=complete)
    finally:
        lock.__exit__()


def requested(args: argparse.Namespace, inputs: list[str], **more: Any) -> tuple[Request, Options]:
    """Return what a command line asks for.

    Raises
    ------
    InputError
        If an option or a file it names cannot be used.
    """
    from xrdz.batching import Options, Request
    from xrdz.commands.fit import chosen_method
    from xrdz.errors import InputError
    from xrdz.sample_sheet import read_sample_sheet

    if args.jobs < 0 or args.chunk < 0:
        raise InputError("--jobs and --chunk: expected a number from 1, or 0 to let xrdz choose")
    if args.time_limit is not None and not args.time_limit > 0:
        raise InputError(f"--time-limit {args.time_limit:g}: expected seconds, above 0")
    if args.time_limit is not None and getattr(args, "dask", None) is not None:
        raise InputError("--time-limit works with local processes, not with --dask; leave one of them out")
    if args.scan is not None and args.scan != "sum" and not args.scan.isdecimal():
        raise InputError(f"--scan {args.scan!r}: expected a number from 1, or sum; each input gives one row")
    request = Request(
        inputs=inputs,
        method=chosen_method(args),
        out=Path(args.out),
        sheet=None if args.sample is None else read_sample_sheet(args.sample),
        number=args.scan,
        curves=not args.no_curves,
        warm=getattr(args, "warm", False),
        leave_out=[path for path in (args.sample, args.method, args.instrument) if path is not None],
        **more,
    )
    options = Options(
        jobs=args.jobs,
        chunk=args.chunk,
        force=getattr(args, "force", False),
        trust_times=getattr(args, "trust_times", False),
        time_limit=args.time_limit,
        dask=getattr(args, "dask", None),
    )
    return request, options


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C, or the SIGTERM of a batch system or service, into a request to stop; a second one ends."""
    stop = threading.Event()

    def ask(number: int, frame: object) -> None:
        del frame
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()
        say("stopping: the scans in progress are finished and stored; press Ctrl-C again to stop at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say(line: str) -> None:
    """Write a line to stderr, nothing for an empty one."""
    if line:
        sys.stderr.write(f"xrdz: {line}\n")
        sys.stderr.flush()


class Progress:
    """Scans done, rate and time left: one line that is drawn over on a terminal, else a line now and then."""

    def __init__(self, total: int, done: int, stream: TextIO) -> None:
        self.total, self.done, self.before = total, done, done
        self.stream = stream
        self.began = self.shown = time.monotonic()
        self.is_terminal = stream.isatty()
        if done:
            say(f"{done} of {total} scans are done already")

    def advance(self, rows: Iterable[Row], counts: Counts) -> None:
        """Count rows and show where the run is."""
        self.done += sum(1 for _ in rows)
        now = time.monotonic()
        if now - self.shown >= (DRAW_SECONDS if self.is_terminal else LINE_SECONDS):
            self.shown = now
            self._show(self.line(counts, now))

    def line(self, counts: Counts, now: float) -> str:
        """Return where the run is in words."""
        rate = (self.done - self.before) / max(now - self.began, 1e-3)
        left = (self.total - self.done) / rate if rate > 0 else float("inf")
        failed = f", {counts.failed} without an answer" if counts.failed else ""
        return f"{self.done} of {self.total} scans, {rate:.3g} scans/s, {_duration(left)} left{failed}"

    def _show(self, text: str) -> None:
        self.stream.write(f"\r\x1b[2K{text}" if self.is_terminal else f"{text}\n")
        self.stream.flush()

    def end(self) -> None:
        """Leave the terminal's line and say how fast it was."""
        if self.is_terminal:
            self.stream.write("\r\x1b[2K")
        seconds = time.monotonic() - self.began
        fresh = self.done - self.before
        if fresh:
            what = "1 scan" if fresh == 1 else f"{fresh} scans"
            say(f"{what} in {_duration(seconds)}, {fresh / max(seconds, 1e-3):.3g} scans/s")


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "unknown time"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _print_documents(part: str) -> None:
    from xrdz.archive import part_documents

    for document in part_documents(Path(part)):
        _print(document)


def _print(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
    sys.stdout.flush()


def _conclude(out: str, counts: Counts, total: int, written: list[Path], share: str) -> None:
    """Say what came of it in one or two lines."""
    missing = total - counts.answered - counts.failed
    what = f"{counts.answered} of {total} scans have an answer"
    if counts.failed:
        what += f"; without one: {counts.words()} (see the columns reason and message)"
    if missing:
        what += f"; {missing} were not reached, the same command goes on with them"
    where = ", ".join(map(str, written)) or f"{share} is stored; the last share to finish writes {out}/results.csv"
    say(f"{what}; {where}")
