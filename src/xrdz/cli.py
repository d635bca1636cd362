"""The command line's front: one row per command, one line per error, and the exit codes.

0 the analysis was made, 1 `--require` was not met, 2 bad usage or input, 3 the fit failed, 4 some of a batch's scans
ended in 2 or 3. The invariant: building the parser imports no numpy, and no traceback reaches a user without
`--debug`. A command is a module of `xrdz.commands` with `register(subparsers)`; it imports what is heavy in its
`run(args)`.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import io
import os
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from xrdz import __version__
from xrdz.errors import InputError, XrdzError

COMMANDS = (
    "fit",
    "batch",
    "watch",
    "report",
    "reference",
    "simulate",
    "calibrate",
    "validate",
    "claims",
    "method",
    "read",
)
"""Modules of `xrdz.commands`, in the order `xrdz --help` lists them."""

ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
INTERRUPTED = 130
BROKEN_PIPE = 141

EXAMPLE = """\
example:
  xrdz fit scan.xrdml --json
  xrdz fit scan.xy --instrument diffractometer.toml --range 20:100
  xrdz COMMAND --help    each command's options, units and an example
"""


class UsageError(InputError):
    """The command line could not be understood."""


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose errors are exceptions, that takes no abbreviations and keeps an epilog's lines."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError` where argparse would print its usage."""
        raise UsageError(f"{message}; see '{self.prog} --help'")


def build_parser() -> CommandParser:
    """Return the parser of the whole command line."""
    parser = CommandParser(
        prog="xrdz",
        description="Phase fractions and the Ni3Sn4/Sn mass ratio from X-ray powder diffractograms.",
        epilog=EXAMPLE,
    )
    parser.add_argument("--version", action="version", version=f"xrdz {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error (with any command)")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f"xrdz.commands.{name}").register(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    argv : the arguments after the program's name; None for those of this process
    """
    arguments, debug = _without_debug(sys.argv[1:] if argv is None else argv)
    _never_fail_on_encoding()
    try:
        args = build_parser().parse_args(arguments)
        code = int(args.run(args))
        sys.stdout.flush()
    except SystemExit as finished:  # argparse after --help and --version
        return finished.code if isinstance(finished.code, int) else 0
    except KeyboardInterrupt:
        return _report("interrupted", INTERRUPTED, debug)
    except BrokenPipeError:  # the reader of stdout has gone, as in `xrdz ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the last flush would fail again
        return BROKEN_PIPE
    except XrdzError as error:
        return _report(str(error), error.exit_code, debug)
    except OSError as error:
        return _report(f"{error.filename or 'file'}: {error.strerror or error}", InputError.exit_code, debug)
    except Exception as error:  # noqa: BLE001 - the last boundary: a user gets one line, a developer --debug
        message = f"internal error, {type(error).__name__}: {error}; please report it with the output of --debug"
        return _report(message, 3, debug)
    return code


def entry() -> NoReturn:
    """Run one command and leave the process: what the console script and `python -m xrdz` call.

    Taking the interpreter down with a compiler loaded costs a quarter of a short run, so once everything registered
    for the end has run, the process ends where it is. With threads still at work it ends the usual way.
    """
    # Matrices here have some tens of rows: threads of linear algebra cost more than they give. Before numpy is loaded.
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")
    code = main()
    if threading.active_count() > 1:
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # whoever read it has gone
            stream.flush()
    os._exit(code)


def _without_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Return the arguments without `--debug`, which may stand before or after the command, and whether it was there."""
    options = list(arguments)
    end = options.index("--") if "--" in options else len(options)
    kept = [option for option in options[:end] if option != "--debug"]
    return kept + options[end:], len(kept) < end


def _never_fail_on_encoding() -> None:
    """Make a terminal that lacks a character print its escape instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _report(message: str, code: int, debug: bool) -> int:
    """Print one line about the exception being handled, after its traceback with `--debug`, and return the code."""
    if debug:
        import traceback

        traceback.print_exc()
    sys.stderr.write(f"xrdz: error: {' '.join(message.split())}\n")
    return code
