"""The test report as PDF: its fields, its numbers, its standards, and names that are only ever text."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from report_items import (
    DATE,
    HOSTILE,
    LABORATORY,
    SAMPLE,
    clean_item,
    many_items,
    numbers_besides,
    renamed,
    unlike_items,
)
from xrdz.errors import InputError
from xrdz.numerals import two_digits
from xrdz.reporting import ReportItem, write_report
from xrdz.reporting.content import claims_content, grouped, in_shown_unit, percent_text, scan_content, why_text
from xrdz.reporting.drawing import RatioPoint, envelope, fit_drawing, nice_ticks, ratio_drawing, thinned
from xrdz.reporting.names import printable, safe_file_name
from xrdz.reporting.pdf import (
    GREATEST_HEIGHT,
    LEAST_HEIGHT,
    STATEMENT,
    beyond_bundled_fonts,
    height_for,
    legend_label,
    pdf_report,
    report_data,
    report_id,
)

needs_poppler = pytest.mark.skipif(
    shutil.which("pdftotext") is None, reason="pdftotext is not installed (apt-get install poppler-utils)"
)


@pytest.fixture(scope="module")
def item(sample_data: Path) -> ReportItem:
    return clean_item(sample_data)


@pytest.fixture(scope="module")
def pdf(item: ReportItem) -> bytes:
    return pdf_report([item], DATE)


def text_of(pdf: bytes, folder: Path) -> list[str]:
    """Return the text of each page as a reader selects it."""
    path = folder / "report.pdf"
    path.write_bytes(pdf)
    done = subprocess.run(["pdftotext", "-layout", str(path), "-"], capture_output=True, check=True)
    return done.stdout.decode().split("\f")[:-1]


def pages_of(pdf: bytes) -> int:
    """Return the number of pages of a PDF of this compiler."""
    found = re.search(rb"/Type\s*/Pages\s*/Count (\d+)", pdf)
    assert found is not None
    return int(found.group(1))


def squeezed(text: str) -> str:
    """Return a text without blanks and line breaks, which a page sets as it needs."""
    return re.sub(r"\s+", "", text)


def texts_in(value: object) -> list[str]:
    """Return all texts of the content of a report."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, entry in value.items() if key != "svg" for text in texts_in(entry)]
    return [text for entry in value for text in texts_in(entry)] if isinstance(value, list) else []


def test_it_is_archival_accessible_and_carries_its_result(pdf: bytes) -> None:
    """The compiler refuses what breaks PDF/A-3a or PDF/UA-1; the metadata name both."""
    metadata = pdf.decode("latin-1")
    assert pdf.startswith(b"%PDF-1.7")
    assert "<pdfaid:part>3</pdfaid:part>" in metadata
    assert "<pdfaid:conformance>A</pdfaid:conformance>" in metadata
    assert "<pdfuaid:part>1</pdfuaid:part>" in metadata
    assert b"/EmbeddedFile" in pdf


def test_the_same_input_and_date_give_the_same_bytes(item: ReportItem, pdf: bytes) -> None:
    slower = ReportItem({**item.document, "timing": {"fit_s": 99.0}}, item.curves, item.order)
    assert pdf_report([slower], DATE) == pdf
    assert report_id([item], DATE) != report_id([item], DATE + timedelta(seconds=1))
    changed = replace(item, order=replace(item.order, sample={"customer": "another"}))
    assert report_id([item], DATE) != report_id([changed], DATE)


@needs_poppler
def test_a_clean_scan_takes_one_page_with_the_fields_of_iso_17025(item: ReportItem, pdf: bytes, tmp_path: Path) -> None:
    pages = text_of(pdf, tmp_path)
    assert len(pages) == 1
    page = squeezed(pages[0])
    document = item.document
    identification = report_id([item], DATE)
    for text in (
        "Test report",
        identification,
        "Page 1 of 1",
        f"End of report {identification}",
        "Issued 2026-11-23 14:05",
        *LABORATORY.values(),
        *(SAMPLE.customer, SAMPLE.sample_id, SAMPLE.operator, SAMPLE.note),
        document["method"]["name"],
        document["method"]["sha256"],
        document["source"]["sha256"],
        document["references_sha256"],
        document["software"]["xrdz"],
        "Received",
        "Measured",
        "Deviations",
        "Authorised by",
        "Signature",
        "Decision rule",
        "are provisional",
        STATEMENT,
    ):
        assert squeezed(str(text)) in page, text


@needs_poppler
def test_all_of_the_content_is_on_the_page(item: ReportItem, pdf: bytes, tmp_path: Path) -> None:
    done = subprocess.run(["pdftotext", "-raw", "-", "-"], input=pdf, capture_output=True, check=True)
    page = squeezed(done.stdout.decode())
    content = scan_content(item)
    shown = [content["answer"]["value"], content["answer"]["interval"]]
    shown += [
        row[key] for row in content["phases"] for key in ("share", "interval", "size", "r_bragg", "detection_limit")
    ]
    shown += [row["text"] for row in content["budget"]["rows"] if row["drawn"]]
    shown += [row[key] for row in content["claims"] for key in ("text", "value", "limits", "words")]
    shown += [text for row in content["agreement"] for text in row[1:]]
    assert [text for text in shown if squeezed(text) not in page] == []


def test_every_number_is_one_of_the_result(item: ReportItem) -> None:
    """Each number a report prints is a number of the JSON, rounded; or stands in a text of the order or a claim."""
    assert [found for text in texts_in(scan_content(item)) for found in numbers_besides(text, item.document)] == []


@needs_poppler
@pytest.mark.parametrize("number", range(4))
def test_every_number_on_the_page_is_one_of_the_result(sample_data: Path, number: int, tmp_path: Path) -> None:
    """A page without the plot, whose axes have numbers of their own; its legend is asked separately."""
    chosen = unlike_items(sample_data)[number]
    pages = text_of(pdf_report([replace(chosen, curves=None)], DATE), tmp_path)
    assert [found for page in pages for found in numbers_besides(page, chosen.document)] == []
    legend = [legend_label(chosen.document, phase["id"]) for phase in chosen.document["phases"]]
    assert numbers_besides(" ".join(legend), chosen.document) == []


@needs_poppler
def test_every_number_of_a_runs_summary_is_one_of_its_results(sample_data: Path, tmp_path: Path) -> None:
    """Besides those of the results there are only how many scans there are, and how many have a verdict or finding."""
    items = [replace(each, curves=None) for each in unlike_items(sample_data)]
    content = pdf_report(items, DATE)
    summary = text_of(content, tmp_path)[0]
    in_plot = summary.index("scan, as numbered in the table")
    begin = summary.rindex("95 % intervals; dashed", 0, in_plot)
    text = summary[:begin] + summary[in_plot:]
    numbers = [item.document for item in items] + list(range(len(items) + 2))
    assert numbers_besides(text, {"all": numbers}) == []


def test_a_number_of_nowhere_would_be_seen(item: ReportItem) -> None:
    assert numbers_besides("Z is 7.7777 and 49.8, p > 0.999, 95 % interval; Page 3 of 4", item.document) == ["7.7777"]


def test_values_and_uncertainties_stand_in_their_own_place(item: ReportItem) -> None:
    content, document = scan_content(item), item.document

    def same(text: str, quantity: dict[str, float], factor: float = 1.0) -> None:
        whole, digits = re.fullmatch(r"([\d.]+)\((\d+)\)", text).groups()  # type: ignore[union-attr]
        last = 10.0 ** -len(whole.partition(".")[2])
        assert abs(float(whole) - factor * quantity["value"]) <= 0.51 * last
        assert abs(int(digits) * last - factor * quantity["su"]) <= 0.51 * last

    same(content["answer"]["value"], document["mass_ratio"])
    for row, phase in zip(content["phases"], document["phases"], strict=True):
        assert row["id"] == phase["id"]
        same(row["share"], phase["mass_fraction"], 100.0)
        same(row["size"], phase["size_nm"])
        same(row["texture"].partition(" ")[0], phase["texture"]["r"])
        same(row["cell"].split(" ")[1].rstrip(","), phase["cell"]["a"])
        for end, exact in zip(row["interval"].split(" to "), phase["mass_fraction"]["interval95"], strict=True):
            assert abs(float(end) - 100.0 * exact) <= 0.51 * 10.0 ** -len(end.partition(".")[2])


def test_the_result_inside_is_the_result(item: ReportItem) -> None:
    attached = report_data([item], DATE)["attachments"][0]
    expected = {key: value for key, value in item.document.items() if key != "timing"}
    assert json.loads(attached["text"]) == expected


@needs_poppler
@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_names_are_text(item: ReportItem, name: str, tmp_path: Path) -> None:
    """A name in every place where a name can stand is printed as it is, its invisible characters made visible."""
    done = pdf_report([renamed(item, name)], DATE)
    pages = text_of(done, tmp_path)
    everything = squeezed("".join(pages))
    if any("\u0590" <= character <= "\u06ff" for character in name):
        assert set(squeezed(name)) <= set(everything)  # a reader orders letters of both directions its own way
    else:
        assert squeezed(printable(name)) in everything
    written = write_report([renamed(item, name)], ["pdf"], tmp_path / "out", date=DATE)
    assert [path.name for path in written] == [path.name for path in (tmp_path / "out").iterdir()]
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,80}\.pdf", written[0].name)


@needs_poppler
def test_a_run_has_a_summary_and_a_page_per_scan(item: ReportItem, tmp_path: Path) -> None:
    items = list(many_items(item, 8))
    pages = text_of(pdf_report(items, DATE), tmp_path)
    assert len(pages) == 9
    summary = squeezed(pages[0])
    assert "8scans" in summary
    assert "strongtexture" in summary
    for number in range(8):
        assert f"{number:05d}.xrdml" in summary
        assert squeezed(f"Scan {number + 1}: ") in squeezed(pages[number + 1])
        assert f"Page{number + 2}of9" in squeezed(pages[number + 1])
    assert "Endofreport" in squeezed(pages[-1])
    assert not any("Endofreport" in squeezed(page) for page in pages[:-1])


def test_a_failed_fit_is_reported_too(item: ReportItem) -> None:
    document = {
        **item.document,
        "status": "failed",
        "phases": [],
        "mass_ratio": None,
        "budget": [],
        "elements": {},
        "agreement": None,
        "claims": [],
        "findings": [{"level": "severe", "code": "NOT_CONVERGED", "message": "no", "where": "", "suggestion": ""}],
    }
    document["source"] = {**item.document["source"], "wavelength": None, "two_theta": None}
    assert pdf_report([ReportItem(document)], DATE).startswith(b"%PDF")


def test_a_logo_is_placed_or_refused(item: ReportItem, pdf: bytes) -> None:
    square = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="M1 1h7v7z"/></svg>'
    with_logo = replace(item, order=replace(item.order, logo=square))
    assert pdf_report([with_logo], DATE) != pdf
    for content in (b"GIF89a", b"\x89PNG\r\n\x1a\n broken", b"<svg"):
        with pytest.raises(InputError, match="logo"):
            pdf_report([replace(item, order=replace(item.order, logo=content))], DATE)


def test_what_cannot_be_reported_is_refused(item: ReportItem, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no result"):
        write_report([], ["pdf"], tmp_path)
    with pytest.raises(InputError, match="'docx': expected pdf, html or both"):
        write_report([item], ["docx"], tmp_path)


def test_a_date_without_a_zone_is_utc(item: ReportItem, tmp_path: Path) -> None:
    paths = [
        write_report([item], ["pdf"], tmp_path / str(k), date=date)[0]
        for k, date in enumerate((DATE, datetime(2026, 11, 23, 14, 5)))
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_what_a_severe_finding_does_stands_beside_the_result(sample_data: Path) -> None:
    *others, wrong = map(scan_content, unlike_items(sample_data))
    assert [content["alarm"] for content in others] == [""] * 3
    assert re.fullmatch(r"\d severe findings, see below", wrong["alarm"])
    groups = [(row["level"], row["code"], row["suggestion"]) for row in wrong["grouped"]]
    assert len(groups) == len(set(groups)) < len(wrong["findings"])
    told = " ".join(text for row in wrong["grouped"] for text in row["messages"])
    for row in wrong["findings"]:  # of many peaks with one remedy, the first in full and the others by their place
        place = f"{float(row['where']):.2f}" if row["code"] == "UNEXPLAINED_PEAK" else ""
        assert row["message"] in told or f" {place}" in told, row
    assert not any("R_wp" in claim["why"] for claim in wrong["claims"])


def test_nickel_by_chemistry_stands_beside_nickel_of_the_phases(sample_data: Path) -> None:
    clean, stated, *_ = map(scan_content, unlike_items(sample_data))
    assert "By chemical analysis, mass %: Ni 13.40(20)." in stated["notes"]
    assert not any("chemical" in note for note in clean["notes"])


def test_provisional_verdicts_are_called_so_beside_the_result(sample_data: Path) -> None:
    clean, stated, *_ = map(scan_content, unlike_items(sample_data))
    assert [row["provisional"] for row in clean["headline"]] == [True, True]
    assert [row["provisional"] for row in stated["headline"]] == [False, False]
    assert "5.00 %" in stated["decided"]
    assert clean["decided"] == ""


def test_risks_have_the_letter_of_their_side(sample_data: Path) -> None:
    _, stated, rejected, _ = map(scan_content, unlike_items(sample_data))
    assert stated["claims"][1]["risk"] == "C < 0.001"
    assert rejected["claims"][1]["risk"] == "P < 0.001"
    assert stated["claims"][7]["risk"] == ""  # a density without an uncertainty
    assert stated["risks"].startswith("C, the consumer's risk")


def test_each_scan_of_a_run_has_one_page_whatever_was_found(sample_data: Path) -> None:
    items = unlike_items(sample_data)
    assert pages_of(pdf_report(items, DATE)) == 1 + len(items)
    assert all(pages_of(pdf_report([item], DATE)) == 1 for item in items[:3])


@given(st.floats(-500.0, 800.0))
def test_a_plot_takes_what_its_page_leaves(room: float) -> None:
    height = height_for(room)
    assert LEAST_HEIGHT <= height <= GREATEST_HEIGHT
    assert height < room or room < LEAST_HEIGHT + 2.0


def test_scans_of_one_name_are_told_apart_by_their_folder(item: ReportItem) -> None:
    items = [
        replace(item, document={**item.document, "batch": {"file": f"{day}/a.xy"}}) for day in ("monday", "tuesday")
    ]
    data = report_data(items, DATE)
    assert [row["name"] for row in data["summary"]["rows"]] == ["monday/a.xy", "tuesday/a.xy"]
    assert [scan["name"] for scan in data["scans"]] == ["monday/a.xy", "tuesday/a.xy"]


def test_many_peaks_with_one_remedy_are_listed_by_their_place() -> None:
    peak = {"level": "warning", "code": "UNEXPLAINED_PEAK", "suggestion": "look", "message": "a peak at 40.10 deg"}
    rows = [{**peak, "where": where} for where in ("40.100", "41.200", "42.300")]
    assert grouped(rows)[0]["messages"] == ["a peak at 40.10 deg", "and 2 more, at 41.20, 42.30 deg"]
    assert grouped(rows[:2])[0]["messages"] == ["a peak at 40.10 deg"] * 2
    assert len(grouped([*rows, {**peak, "where": "holder"}])[0]["messages"]) == 4


def test_a_reason_names_a_severe_finding_and_leaves_its_words_to_the_findings() -> None:
    finding = {"level": "severe", "code": "POOR_FIT", "message": "R_wp is 76 % (goodness of fit 3.9); no"}
    why = f"withheld because of a severe finding (POOR_FIT: {finding['message']}); claim 1: undecided"
    claim = {"claim": 2, "verdict": "undecided", "value": 16.77541, "limits": [0.2, 3.0], "why": why}
    shown = claims_content({"claims": [claim], "findings": [finding]})[0]
    assert shown["why"] == "withheld because of the severe finding POOR_FIT; claim 1: undecided"
    assert shown["value"] == "16.8"


def test_intervals_are_in_the_unit_of_the_value() -> None:
    why = "the phases: the 95 % interval 0.04512 to 0.1409 reaches over the lower limit 0.05"
    expected = "the phases: the 95 % interval 4.512 to 14.09 mass % reaches over the lower limit 5 mass %"
    assert in_shown_unit(why, 100.0, " mass %") == expected
    assert in_shown_unit(why, 1.0, "") == why


def test_numbers_without_exponents() -> None:
    assert [two_digits(x) for x in (0.0041, 0.47, 9.96, 99.4, 99.6, 100.0)] == [
        "0.0041",
        "0.47",
        "10",
        "99",
        "100",
        "100",
    ]
    assert [percent_text(x) for x in (0.001, 0.45, 9.991, 56.51, 165.3)] == [
        "< 0.01 %",
        "0.45 %",
        "9.99 %",
        "56.5 %",
        "165 %",
    ]


def test_reasons_are_said_once() -> None:
    provisional = "provisional: the method gives no method_u_ln"
    assert why_text(f"within; {provisional}", "met") == "within"
    missing = "the sample sheet gives no powdered; the sample sheet gives no porosity_percent; claim 3: met"
    assert why_text(missing, "not_assessed") == "not stated: powder or not, porosity"
    assert why_text("the sample sheet gives no a; claim 1 or 2: not met; provisional as its parent is", "not_met") == (
        "claim 1 or 2: not met"
    )


# --- drawings ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.integers(0, 2**32 - 1), st.floats(0.01, 1.0))
def test_an_envelope_has_the_ends_of_every_column(size: int, seed: int, step: float) -> None:
    random = np.random.default_rng(seed)
    x = np.cumsum(random.uniform(0.5 * step, 1.5 * step, size))
    y = random.normal(0.0, 1.0, size)
    kept_x, kept_y = envelope(x, y, 0.4)
    assert np.all(np.diff(kept_x) > 0.0)
    assert (kept_x[0], kept_x[-1]) == (x[0], x[-1])
    for column in np.unique(np.floor(x / 0.4)):
        all_of, left = y[np.floor(x / 0.4) == column], kept_y[np.floor(kept_x / 0.4) == column]
        assert (left.min(), left.max()) == (all_of.min(), all_of.max())
        assert left.size <= 4


def test_a_drawing_is_svg_whatever_the_names(item: ReportItem) -> None:
    assert item.curves is not None
    for name in HOSTILE:
        drawn = fit_drawing(item.curves, [printable(name)] * len(item.curves.phases), marked=[40.1], square_root=True)
        assert ElementTree.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"
        assert printable(name) in "".join(ElementTree.fromstring(drawn).itertext())


def test_a_long_legend_takes_more_lines(item: ReportItem) -> None:
    assert item.curves is not None
    phases = item.curves.phases * 3
    drawn = fit_drawing(replace(item.curves, phases=phases), [f"Phase{k} 16.7(3) mass %" for k in range(6)])
    lines = [each for each in ElementTree.fromstring(drawn) if each.get("text-anchor") == "end" and len(each) > 1]
    assert len(lines) == 2
    assert all(len("".join(line.itertext())) < 130 for line in lines)


def test_a_drawing_of_ratios_takes_limits_and_missing_values() -> None:
    unknown = RatioPoint(None, None, None, "not_assessed")
    points = [
        RatioPoint(1.0, 0.9, 1.1, "met"),
        unknown,
        RatioPoint(None, 0.0, 0.2, "not_met"),
        RatioPoint(None, 4.0, None, "undecided"),
    ]
    drawing = ratio_drawing(points, (0.2, 3.0), label="m(a)/m(b)")
    assert [word in drawing for word in ("met", "not met", "undecided", "not assessed")] == [True] * 3 + [False]
    assert "</svg>" in ratio_drawing([unknown], None, label="mass ratio")


@given(st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_a_thinned_curve_stays_within_its_tolerance(size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = np.cumsum(random.uniform(0.05, 0.2, size))
    y = np.cumsum(random.normal(0.0, 0.05, size))
    kept_x, kept_y = thinned(x, y, 0.06)
    assert (kept_x[0], kept_x[-1]) == (x[0], x[-1])
    assert np.all(np.abs(np.interp(x, kept_x, kept_y) - y) <= 0.06 + 1e-12)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 12))
def test_ticks_are_round_and_inside(low: float, span: float, most: int) -> None:
    ticks = nice_ticks(low, low + span, most)
    assert len(ticks) <= most + 1
    assert all(low - 1e-6 * span <= tick <= low + span * (1.0 + 1e-6) for tick in ticks)


# --- names ------------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(), max_size=200))
def test_a_file_name_is_harmless(text: str) -> None:
    name = safe_file_name(text)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,59}", name)
    assert not name.endswith(".")
    assert safe_file_name(text) == name


@given(st.text(st.characters(), max_size=60), st.text(st.characters(), max_size=60))
def test_different_texts_have_different_file_names(first: str, second: str) -> None:
    assert (safe_file_name(first) == safe_file_name(second)) == (first == second)


@pytest.mark.parametrize("name", ["con", "NUL.txt", "aux", "LPT1.xy", "", "..", "-rf"])
def test_names_of_devices_and_folders_are_changed(name: str) -> None:
    assert safe_file_name(name).partition(".")[0].lower() not in {"con", "nul", "aux", "lpt1", ""}


@given(st.text(st.characters(), max_size=200))
def test_a_printable_text_has_nothing_invisible(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    shown.encode()


@pytest.mark.parametrize(
    ("text", "beyond"), [("Ni₃Sn₄ β 49.8 µm – “x” ≤ ✓", False), ("שלום мир Δ", False), ("样品", True)]
)
def test_the_bundled_fonts_are_left_only_for_other_scripts(text: str, beyond: bool) -> None:
    assert beyond_bundled_fonts(text) is beyond
