"""Reports: a PDF that somebody signs, and pages where people look at thousands of fits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from xrdz.errors import InputError
from xrdz.reporting.item import Curves, Order, PhaseCurve, ReportItem, item_of_analysis

if TYPE_CHECKING:
    from xrdz.analysis import Analysis
    from xrdz.sample_sheet import SampleSheet

__all__ = ["FORMATS", "Curves", "Order", "PhaseCurve", "ReportItem", "item_of_analysis", "write_report"]

FORMATS = ("pdf", "html")


def write_report(
    analyses: Iterable[Analysis | ReportItem],
    formats: Sequence[str],
    directory: str | Path,
    *,
    date: datetime | None = None,
    sheet: SampleSheet | None = None,
    square_root: bool = False,
) -> list[Path]:
    """Write one report of all analyses in each format and return the paths of the files to open.

    Parameters
    ----------
    analyses : fresh or stored ones, or items; for HTML alone they are taken one by one, in little memory
    formats : "pdf" and "html"
    directory : made where it does not exist; the PDF is `STEM.pdf` for one scan and `report.pdf` for several,
        the pages are `index.html` with what belongs to it
    date : of issue, with its time zone; now when left out. The same input and date give the same bytes
    sheet : sample sheet, for customer, item and operator of each scan
    square_root : scale of the intensity in the plots of the PDF

    Raises
    ------
    InputError
        If there is nothing to report, a format is unknown, or a file cannot be written.
    """
    from xrdz.files import make_folder, write_whole

    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise InputError(f"report format {', '.join(map(repr, unknown)) or 'missing'}: expected pdf, html or both")
    issued = (date or datetime.now(UTC)).replace(microsecond=0)
    issued = issued if issued.tzinfo else issued.replace(tzinfo=UTC)
    folder = make_folder(directory)
    items: Iterable[ReportItem] = (_item(entry, sheet) for entry in analyses)
    written = []
    if "pdf" in formats:
        from xrdz.reporting.names import safe_file_name
        from xrdz.reporting.pdf import pdf_report

        items = list(items)
        content = pdf_report(items, issued, square_root=square_root)
        stem = safe_file_name(items[0].name.rpartition(".")[0] or items[0].name) if len(items) == 1 else "report"
        written.append(write_whole(folder / f"{stem}.pdf", content))
    if "html" in formats:
        from xrdz.reporting.html import write_pages

        written.append(write_pages(items, folder, issued))
    return written


def _item(entry: Analysis | ReportItem, sheet: SampleSheet | None) -> ReportItem:
    if isinstance(entry, ReportItem):
        return entry
    sample = None if sheet is None else sheet.find(entry.diffractogram.source.path)
    return item_of_analysis(entry, sample)
