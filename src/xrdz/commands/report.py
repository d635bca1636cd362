"""`xrdz report`: a signed-off PDF and pages for the screen from results that exist; nothing is analysed again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xrdz.errors import InputError
from xrdz.files import is_run_folder, make_folder

if TYPE_CHECKING:
    from xrdz.analysis import Analysis
    from xrdz.method import Method
    from xrdz.reporting import ReportItem
    from xrdz.sample_sheet import SampleSheet

DESCRIPTION = """\
Write reports of results that exist: the folder of a batch run, its results.jsonl or one of its archive parts, the JSON
of `xrdz fit --json`, or a folder of such files, as `xrdz fit --out` writes it. Numbers come from the result; plots need
the curves that a run's archive holds."""

EPILOG = """\
formats: --pdf a test report after ISO/IEC 17025, PDF/A-3 with the result inside, one page a scan; --html pages for the
screen (index.html), offline; --cif powder CIF with the quantitative items, a file a scan; --csv and --xlsx a table for
a LIMS, a row a scan. Without any: --pdf and --html. Masses are in mass %, angles in degrees 2theta.

example:
  xrdz report RUN --pdf --html
  xrdz report result.json --pdf --method sn-ni.toml --sample sheet.csv --out reports
  xrdz report RUN/results.jsonl --xlsx --date 2026-11-23
"""

FORMATS = ("pdf", "html", "cif", "csv", "xlsx")
RESULTS = "results.jsonl"
SCHEMA_FAMILY = b'"xrdz.analysis/'
"""What the first line of a result holds."""


def register(subparsers: Any) -> None:
    """Add `xrdz report`."""
    parser = subparsers.add_parser(
        "report", help="write reports of results that exist", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("results", nargs="+", metavar="RUN_OR_RESULT", help="run folder, part, JSON, or folder of them")
    parser.add_argument("--pdf", action="store_true", help="test report as PDF/A")
    parser.add_argument("--html", action="store_true", help="pages for the screen, offline")
    parser.add_argument("--cif", action="store_true", help="powder CIF with phase fractions, one file a scan")
    parser.add_argument("--csv", action="store_true", help="table for a LIMS, comma-separated")
    parser.add_argument("--xlsx", action="store_true", help="table for a LIMS, Excel")
    parser.add_argument("--out", metavar="DIR", help="where to write; default: RUN/report, or beside the result")
    parser.add_argument(
        "--method", metavar="METHOD.toml", help="method of the result, for the laboratory's name and logo"
    )
    parser.add_argument("--sample", metavar="SHEET.csv", help="sample sheet, for customer, item and operator")
    parser.add_argument("--date", metavar="YYYY-MM-DD[THH:MM]", help="date of issue, UTC; default: now")
    parser.add_argument("--sqrt", action="store_true", help="square-root scale of the intensity in the PDF's plots")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the reports asked for and name each file."""
    from xrdz.exports import write_exports
    from xrdz.method import read_method
    from xrdz.reporting import write_report
    from xrdz.sample_sheet import read_sample_sheet

    wanted = [name for name in FORMATS if getattr(args, name)] or ["pdf", "html"]
    date = datetime.now(UTC) if args.date is None else parse_date(args.date)
    method = None if args.method is None else read_method(args.method)
    sheet = None if args.sample is None else read_sample_sheet(args.sample)
    paths = [path for text in args.results for path in result_files(Path(text))]
    folder = make_folder(args.out or default_folder(Path(args.results[0])))
    pages = [name for name in wanted if name in ("pdf", "html")]
    tables = [name for name in wanted if name not in pages]
    written: list[Path] = []
    if pages:
        items = items_of(paths, method, sheet)
        written += write_report(items, pages, folder, date=date, square_root=args.sqrt)
    if tables:
        written += write_exports(items_of(paths, method, sheet), tables, folder, date=date)
    for path in written:
        sys.stdout.write(f"wrote {path}\n")
    return 0


def parse_date(text: str, option: str = "--date") -> datetime:
    """Return a moment from ISO 8601 text; without a zone it is UTC.

    Raises
    ------
    InputError
        If the text is no date.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{option} {text!r}: expected a date such as 2026-11-23 or 2026-11-23T14:05") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def default_folder(path: Path) -> Path:
    """Return where reports of a result go: the folder `report` in a folder of results, or beside a file."""
    return path / "report" if path.is_dir() else path.parent


def items_of(paths: Sequence[Path], method: Method | None, sheet: SampleSheet | None) -> Iterator[ReportItem]:
    """Yield the items of all results, in their order.

    Raises
    ------
    InputError
        If a path is no result.
    """
    from xrdz.analysis import Analysis
    from xrdz.reporting.item import ReportItem, item_of_analysis, stored_order

    for path in paths:
        for entry, name in entries(path):
            if isinstance(entry, Analysis):
                sample = None if sheet is None else sheet.find(entry.diffractogram.source.path)
                item = item_of_analysis(entry, sample)
                item = replace(item, document={**item.document, "batch": {"file": name}})
                yield item if method is None else replace(item, order=stored_order(item.document, method, sheet))
            else:
                yield ReportItem(entry, None, stored_order(entry, method, sheet))


def entries(path: Path) -> Iterator[tuple[Analysis | Mapping[str, Any], str]]:
    """Yield the analyses of a run folder or archive part, and the documents of inputs without one or of other files.

    Beside an analysis stands its name in the run.
    """
    from xrdz.reporting.item import read_documents

    folder = path.parent if path.name == RESULTS else path
    if is_run_folder(folder) or is_part(path):
        from xrdz.archive import analysis_from_archive, document_of, open_archive

        for scan in open_archive(folder if is_run_folder(folder) else path):
            yield (analysis_from_archive(scan) if scan.row.entry else document_of(scan)), scan.name
    else:
        for document in read_documents(path):
            yield document, ""


def result_files(path: Path) -> list[Path]:
    """Return the results that an argument names: itself, or those in a folder that is no run.

    Raises
    ------
    InputError
        If there is nothing, or a folder without results.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected the folder of a run, or the JSON of `xrdz fit`")
    if not path.is_dir() or is_run_folder(path):
        return [path]
    if (path / RESULTS).is_file():
        return [path / RESULTS]
    found = sorted(file for file in path.iterdir() if is_part(file) or is_result(file))
    if not found:
        raise InputError(
            f"{path}: neither the folder of a run (run.json is missing) nor one with results; "
            "expected JSON of `xrdz fit --out` or parts of an archive. Scans are analysed first: xrdz fit, xrdz batch"
        )
    return found


def is_result(path: Path) -> bool:
    """Return whether a file is the JSON of an analysis, by its suffix and its first characters."""
    if path.suffix.lower() not in (".json", ".jsonl") or not path.is_file():
        return False
    with path.open("rb") as stream:
        return SCHEMA_FAMILY in stream.read(100)


def is_part(path: Path) -> bool:
    """Return whether a file is a part of a run's archive; looking into it costs h5py, so the suffix is asked first."""
    if path.suffix.lower() not in (".h5", ".hdf5", ".nxs") or not path.is_file():
        return False
    from xrdz.archive import is_archive

    return is_archive(path)
