"""How long reports take: the PDF of 200 scans, and the index of 10 000 scans in a browser.

    PYTHONPATH=src python benchmarks/report_speed.py

Prints seconds, of the reports those of the clock and those of the processor, which a busy machine does not change as
much; the browser's are those until the page is ready and until it has sorted, filtered and opened a scan, each the
median of five. Without Chromium only the first two lines are printed.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import browser as webdriver  # noqa: E402
from report_items import DATE, clean_item, many_items  # noqa: E402
from xrdz.reporting.html import SHARED, index_page, row_of, write_pages  # noqa: E402
from xrdz.reporting.pdf import pdf_report  # noqa: E402


def seconds(run: Callable[[], object]) -> float:
    """Return how long a function takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def both(label: str, run: Callable[[], object]) -> None:
    began = time.process_time()
    clock = seconds(run)
    print(f"{label:40s} {clock:6.2f} s, processor {time.process_time() - began:6.2f} s")


def main() -> None:
    item = clean_item(ROOT / "sample_data")
    scans = [replace(each, curves=item.curves) for each in many_items(item, 200)]
    pdf_report(scans[:1], DATE)
    both("PDF of 200 scans with plots", lambda: pdf_report(scans, DATE))
    with tempfile.TemporaryDirectory() as folder:
        pages = Path(folder)
        both("pages of 200 scans with plots", lambda: write_pages(scans, pages, DATE))
        if webdriver.missing():
            print(webdriver.missing())
            return
        rows = [row_of(each, f"scans/{number}.html") for number, each in enumerate(many_items(item, 10_000), 1)]
        large = pages / "large.html"
        large.write_text(index_page(rows, item, DATE), encoding="utf-8")
        measure_browser(large, next(pages.glob("scans/00001-*")))
        assert all((pages / name).is_file() for name in SHARED)


def measure_browser(index: Path, scan: Path) -> None:
    with webdriver.browser() as window:
        ready = "document.body.dataset.ready === 'yes'"

        def opened(page: Path) -> Callable[[], None]:
            def run() -> None:
                window.open("about:blank")
                window.open(page.as_uri())
                window.wait(ready)

            return run

        report("10 000 rows: open", opened(index))
        report("10 000 rows: sort by name", lambda: window.run("document.querySelector('[data-sort=name]').click()"))
        report("10 000 rows: filter a verdict", lambda: window.run("document.querySelector('[data-verdict]').click()"))
        report("a scan with its plot: open", opened(scan))


def report(label: str, run: Callable[[], object]) -> None:
    print(f"{label:40s} {statistics.median(seconds(run) for _ in range(5)):6.2f} s")


if __name__ == "__main__":
    main()
