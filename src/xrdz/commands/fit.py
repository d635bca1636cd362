"""`xrdz fit`: phase fractions, their mass ratio and the verdict on claim 2 from one scan or several."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xrdz.errors import FitError, InputError, XrdzError

if TYPE_CHECKING:
    from xrdz.analysis import Analysis
    from xrdz.diffractogram import Diffractogram
    from xrdz.method import Method
    from xrdz.sample_sheet import SampleSheet
    from xrdz.terminal import Style

DESCRIPTION = """\
Fit the whole pattern of one scan or several and print phase mass fractions, the mass ratio Z, its uncertainty by
source, detection limits and the verdict on the claims. Without a method: phases sn and ni3sn4, Z = ni3sn4/sn."""

EPILOG = """\
units: angles in degrees 2theta, wavelengths and cells in angstrom, sizes in nm, fractions 0 to 1 in JSON and mass % in
the table; su is the combined standard uncertainty, intervals hold 95 %

exit codes: 0 the analysis was made, whatever the verdict; 1 --require was not met; 2 bad usage or input (with several
scans the good ones are printed all the same); 3 a fit failed (its JSON is printed with status and findings)

example:
  xrdz fit scan.xrdml
  xrdz fit scan.xy --instrument diffractometer.toml --range 20:100 --exclude 42.9:43.7 --plot
  xrdz fit scan.raw --method sn-ni.toml --sample sheet.csv --json --require claim2
  xrdz fit *.xrdml --method sn-ni.toml --out results --report pdf,html
"""

NOT_MET, BAD_INPUT, FIT_FAILED = 1, InputError.exit_code, FitError.exit_code

Report = Callable[[Sequence["Analysis"]], Sequence[Path]]


def register(subparsers: Any) -> None:
    """Add `xrdz fit`."""
    parser = subparsers.add_parser(
        "fit", help="fit scans and print fractions, Z and verdicts", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("scans", nargs="*", metavar="SCAN", help="scan file of any known format, also as .gz")
    parser.add_argument("--method", metavar="METHOD.toml", help="method file; default: phases sn and ni3sn4")
    parser.add_argument("--phases", metavar="ID,ID,...", help="phases to fit, instead of the method's")
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    parser.add_argument("--cif", metavar="FILE.cif", **several, help="more phases from CIF files (repeatable)")
    parser.add_argument("--ratio", metavar="ID/ID", help="mass ratio to report, such as ni3sn4/sn")
    parser.add_argument("--instrument", metavar="FILE.toml", help="instrument file, instead of the method's")
    parser.add_argument("--range", metavar="LOW:HIGH", help="range to fit, degrees 2theta, such as 20:100")
    parser.add_argument(
        "--exclude", metavar="LOW:HIGH", **several, help="leave out, degrees 2theta, such as 42.5:44 (repeatable)"
    )
    parser.add_argument(
        "--scan", metavar="N|sum|all", help="of a file with several scans: number from 1, their sum, or each of them"
    )
    parser.add_argument("--out", metavar="DIR", help="write STEM.json of each scan (and plots and reports) there")
    parser.add_argument("--json", action="store_true", help="print one JSON document per scan, one a line")
    parser.add_argument("--plot", action="store_true", help="write STEM.png, in --out or the current folder")
    parser.add_argument("--report", metavar="pdf,html", help="write a report, in --out or the current folder")
    parser.add_argument("--sample", metavar="SHEET.csv", help="sample sheet for claims 3-10, joined on the file name")
    parser.add_argument("--require", metavar="claim2", help="exit with 1 unless these claims are met, such as claim2")
    parser.add_argument(
        "--solver",
        choices=("normal", "lmfit"),
        default="normal",
        help="normal: the compiled solver; lmfit: the independent referee, slower (default: normal)",
    )
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Scan:
    """One diffractogram of one file, how long reading took (s), and the stem of the files made from it."""

    diffractogram: Diffractogram
    read_s: float
    stem: str


def say_if_compiling() -> None:
    """Tell the user of a new installation what its first fit waits for."""
    from xrdz.compiled import is_made
    from xrdz.descent import descend

    if not is_made(descend):
        sys.stderr.write("xrdz: compiling for this machine, once, for about a minute\n")
        sys.stderr.flush()


def run(args: argparse.Namespace) -> int:
    """Fit every scan, print it, write what was asked for, and return the exit code."""
    from xrdz.claims import parse_requirement
    from xrdz.files import make_folder
    from xrdz.process import set_up

    set_up()
    args = with_all_scans(args)
    required = () if args.require is None else parse_requirement(args.require)
    method, sheet = chosen_method(args), chosen_sheet(args)
    report = None if args.report is None else report_writer(args.report, Path(args.out or "."), method, sheet)
    folder = None if args.out is None else make_folder(args.out)
    style = terminal_style()
    kept: list[Analysis] = []
    codes: list[int] = []
    for path, stem in zip(args.scans, stems(args.scans), strict=True):
        try:
            for scan in scans_of(path, args.scan, stem):
                say_if_compiling()
                analysis = analyse_scan(scan, method, sheet, args.solver)
                if codes and not args.json:
                    sys.stdout.write("\n" + "-" * style.width + "\n\n")
                show(analysis, style if not args.json else None)
                for written in write_files(analysis, scan.stem, folder, plot=args.plot):
                    _say_written(written, as_json=args.json)
                if report is not None:
                    kept.append(_kept(analysis))
                codes.append(exit_code(analysis, required))
        except Exception as error:  # one scan's failure must not cost the others their result
            if len(args.scans) == 1:
                raise
            codes.append(_say_failed(path, error))
    if report is not None and kept:
        for written in report(kept):
            _say_written(written, as_json=args.json)
    return next((code for code in (BAD_INPUT, FIT_FAILED, NOT_MET) if code in codes), 0)


def with_all_scans(args: argparse.Namespace) -> argparse.Namespace:
    """Return the arguments with the scans that stand behind `--exclude` or `--cif`, which take several values.

    Raises
    ------
    InputError
        If there is no scan at all.
    """
    cifs = [text for text in args.cif if text.lower().endswith(".cif")]
    excluded = [text for text in args.exclude if not any(letter.isalpha() for letter in text)]
    behind = [text for text in (*args.cif, *args.exclude) if text not in cifs and text not in excluded]
    scans = [*args.scans, *behind]
    if not scans:
        raise InputError("the scan is missing; see 'xrdz fit --help'")
    return argparse.Namespace(**{**vars(args), "scans": scans, "cif": cifs, "exclude": excluded})


def chosen_method(args: argparse.Namespace) -> Method:
    """Return the method of the command line: its file or the default, with the options applied."""
    from xrdz.method import default_method, parse_phases, parse_range, parse_ratio, read_method

    method = default_method() if args.method is None else read_method(args.method)
    return method.with_options(
        phases=None if args.phases is None else parse_phases(args.phases),
        cifs=args.cif,
        ratio=None if args.ratio is None else parse_ratio(args.ratio),
        instrument=args.instrument,
        two_theta=None if args.range is None else parse_range(args.range),
        exclude=[parse_range(text, "--exclude") for text in args.exclude],
    )


def chosen_sheet(args: argparse.Namespace) -> SampleSheet | None:
    """Return the sample sheet of the command line, if one was given."""
    from xrdz.sample_sheet import read_sample_sheet

    return None if args.sample is None else read_sample_sheet(args.sample)


def scans_of(path: str, which: str | None, stem: str) -> Iterator[Scan]:
    """Yield the scans of one file that were asked for."""
    from xrdz.readers import read, read_all

    began = time.perf_counter()
    if which == "all":
        found = read_all(path)
        share = (time.perf_counter() - began) / len(found)
        for diffractogram in found:
            numbered = f"{stem}.scan{diffractogram.source.scan}" if len(found) > 1 else stem
            yield Scan(diffractogram, share, numbered)
    else:
        diffractogram = read(path, scan=which)
        yield Scan(diffractogram, time.perf_counter() - began, stem)


def analyse_scan(scan: Scan, method: Method, sheet: SampleSheet | None, solver: str) -> Analysis:
    """Return the analysis of one scan with its row of the sample sheet.

    Raises
    ------
    InputError
        If the sheet has no row for the scan, or the scan cannot be used.
    """
    from xrdz.pipeline import analyse_diffractogram

    sample = None
    if sheet is not None:
        sample = sheet.find(scan.diffractogram.source.path)
        if sample is None:
            raise InputError(
                f"{scan.diffractogram.source.path}: {sheet.name} has no row for it; "
                "expected one whose column 'file' is the scan's file name"
            )
    return analyse_diffractogram(scan.diffractogram, method, sample=sample, read_s=scan.read_s, solver=solver)


def show(analysis: Analysis, style: Style | None) -> None:
    """Print an analysis as text, or as one line of JSON without a style."""
    from xrdz.terminal import analysis_text

    if style is None:
        sys.stdout.write(json.dumps(analysis.to_dict(), allow_nan=False) + "\n")
    else:
        sys.stdout.write(analysis_text(analysis, style))
    sys.stdout.flush()


def write_files(analysis: Analysis, stem: str, folder: Path | None, *, plot: bool) -> list[Path]:
    """Write STEM.json into the folder and, where asked for, STEM.png there or in the current folder."""
    from xrdz.files import write_whole

    written = []
    if folder is not None:
        document = json.dumps(analysis.to_dict(), allow_nan=False, indent=1) + "\n"
        written.append(write_whole(folder / f"{stem}.json", document))
    if plot:
        from xrdz.plotting import save_figure

        written.append(save_figure(analysis, (folder or Path()) / f"{stem}.png"))
    return written


def stems(paths: Sequence[str]) -> list[str]:
    """Return a different file stem per path: its own stem, with its suffix or a number where two would be the same."""
    taken: set[str] = set()
    result = []
    plain = [Path(path.removesuffix(".gz")).stem for path in paths]
    for path, stem in zip(paths, plain, strict=True):
        wanted = stem if plain.count(stem) == 1 else Path(path).name.replace(".", "_")
        unique, number = wanted, 1
        while unique in taken:
            number += 1
            unique = f"{wanted}_{number}"
        taken.add(unique)
        result.append(unique)
    return result


def report_writer(text: str, folder: Path, method: Method, sheet: SampleSheet | None) -> Report:
    """Return the function that writes reports in the formats a user named; a missing logo is noticed before the fit.

    Raises
    ------
    InputError
        If a format is unknown, the logo cannot be read, or this installation has no reports.
    """
    try:
        from xrdz.reporting import FORMATS, write_report
        from xrdz.reporting.item import order_of
    except ImportError as error:
        raise InputError(f"--report: this installation of xrdz cannot write reports ({error}); leave it out") from error

    formats = tuple(part.strip().lower() for part in text.split(","))
    if not set(formats) <= set(FORMATS):
        raise InputError(f"--report {text!r}: expected {' or '.join(FORMATS)}, or both as {','.join(FORMATS)}")
    order_of(method)

    def write(analyses: Sequence[Analysis]) -> Sequence[Path]:
        return write_report(analyses, formats, folder, sheet=sheet)

    return write


def exit_code(analysis: Analysis, required: Sequence[int]) -> int:
    """Return 3 for a failed fit, 1 when a required claim's verdict is not "met", else 0."""
    if analysis.status == "failed":
        return FIT_FAILED
    verdicts = {claim.claim: claim.verdict.value for claim in analysis.claims}
    return 0 if all(verdicts.get(number) == "met" for number in required) else NOT_MET


def terminal_style() -> Style:
    """Return the style of stdout: colours for a terminal, unless NO_COLOR is set (https://no-color.org)."""
    from xrdz.terminal import style_for

    columns = shutil.get_terminal_size((100, 24)).columns
    wanted = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return style_for(columns, is_terminal=sys.stdout.isatty(), colour=wanted)


def _say_failed(path: str, error: Exception) -> int:
    """Name a scan's error in one line on stderr and return its exit code."""
    sys.stdout.flush()
    if isinstance(error, XrdzError):
        code, message = error.exit_code, str(error)
    else:
        code = FIT_FAILED
        message = f"{path}: internal error, {type(error).__name__}: {error}; fit it alone with --debug and report it"
    sys.stderr.write(f"xrdz: error: {' '.join(message.split())}\n")
    return code


def _kept(analysis: Analysis) -> Analysis:
    """Return an analysis without the tens of megabytes its solver needed, for a report at the end."""
    from xrdz.stored import slimmed

    return slimmed(analysis)


def _say_written(path: Path, *, as_json: bool) -> None:
    """Name a file that was written: below the table, or on stderr where stdout holds JSON alone."""
    (sys.stderr if as_json else sys.stdout).write(f"wrote {path}\n")
