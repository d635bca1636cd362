"""`xrdz watch`: analyse scans as they arrive in a folder."""

from __future__ import annotations

import argparse
import os
from typing import Any

DESCRIPTION = """\
Watch a folder and analyse every scan that arrives, until stopped (Ctrl-C, SIGTERM). Files that are still being written
are waited for; a file that changes later is analysed again and both rows are kept (column revision). Scans without an
answer are listed in xrdz-quarantine.csv beside them and in RUN/quarantine.csv. A restart loses nothing."""

EPILOG = """\
units: times in seconds; angles in degrees 2theta; results.csv has the unit in each header, fractions 0 to 1

exit codes: 0 stopped; with --once 4 when scans have no answer; 2 bad usage, or the folder cannot be used

example:
  xrdz watch /data/inbox --out /data/run --method sn-ni.toml
  xrdz watch "Z:\\exports" --out C:\\xrd\\run --every 20 --settle 60
"""

SOME_FAILED = 4


def register(subparsers: Any) -> None:
    """Add `xrdz watch`."""
    from xrdz.commands.batch import add_run_options

    parser = subparsers.add_parser(
        "watch", help="analyse scans as they arrive in a folder", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("inbox", metavar="INBOX", help="folder to watch, with its subfolders")
    add_run_options(parser)
    parser.add_argument(
        "--every", metavar="SECONDS", type=float, default=5.0, help="time between looks at the folder (default: 5)"
    )
    parser.add_argument(
        "--settle", metavar="SECONDS", type=float, default=10.0, help="time a file must stay as it is (default: 10)"
    )
    parser.add_argument(
        "--settle-empty", metavar="SECONDS", type=float, default=600.0, help="the same for an empty file (default: 600)"
    )
    parser.add_argument("--once", action="store_true", help="end when everything there has settled and has its rows")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Watch until stopped."""
    from xrdz.batching import SampleIndex, locked, open_request
    from xrdz.commands.batch import requested, say, stop_on_signals
    from xrdz.errors import InputError
    from xrdz.results import parse_formats, require_libraries
    from xrdz.watching import Inbox, Patience, Watch, watch

    for option, seconds in (("--every", args.every), ("--settle", args.settle), ("--settle-empty", args.settle_empty)):
        if not seconds >= 0.0:
            raise InputError(f"{option} {seconds:g}: expected seconds, 0 or more")
    if not os.path.isdir(args.inbox):
        raise InputError(f"{args.inbox}: no such folder; make it, or check the path")
    formats = parse_formats(args.tables)
    require_libraries(formats)
    request, options = requested(args, [args.inbox], every=True)
    spec, note = open_request(request)
    assert spec.run is not None
    say(note)
    inbox = Inbox(
        args.inbox,
        Patience(max(args.every, 0.05), args.settle, args.settle_empty),
        frozenset((os.path.abspath(args.out), *(os.path.abspath(path) for path in request.leave_out))),
        say,
    )
    samples = None if request.sheet is None else SampleIndex(request.sheet)
    state = Watch(inbox, spec, spec.run, options, samples, formats)
    with stop_on_signals() as stop:
        lock = locked(spec)
        try:
            say(f"watching {args.inbox}; stop with Ctrl-C")
            watch(state, stop, once=args.once)
        finally:
            lock.__exit__()
    say(f"{state.analysed} scans analysed, {state.failed} of them without an answer; {args.out}/results.csv")
    return SOME_FAILED if args.once and state.failed else 0
