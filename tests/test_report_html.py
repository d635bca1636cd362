"""Pages of a run: what stands in them; in a browser that they work without a network, with any name, at any size."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import browser as webdriver
from browser import Browser
from report_items import DATE, HOSTILE, clean_item, many_items, numbers_besides, renamed, unlike_items
from xrdz.reporting import ReportItem, write_report
from xrdz.reporting.content import scan_content
from xrdz.reporting.control import Measurement, broken_rules, control_chart, seconds
from xrdz.reporting.html import SHARED, curves_data, index_page, natural_order, row_of, scan_page, whole

ASSETS = Path(__file__).resolve().parent.parent / "src" / "xrdz" / "reporting"

needs_browser = pytest.mark.skipif(bool(webdriver.missing()), reason=webdriver.missing() or "there is a browser")


@pytest.fixture(scope="module")
def item(sample_data: Path) -> ReportItem:
    return clean_item(sample_data)


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with webdriver.browser() as opened:
        yield opened


@pytest.fixture
def quiet(window: Browser) -> Iterator[Browser]:
    """The browser; at the end nothing may have been said in the console, and nothing asked for outside the files."""
    window.console(), window.requests()
    yield window
    assert window.console() == []
    assert [url for url in window.requests() if not url.startswith(("file://", "data:,"))] == []


@pytest.fixture(scope="module")
def small_run(item: ReportItem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of thirty scans: the first with curves, ten of a control sample."""
    folder = tmp_path_factory.mktemp("run")
    items = [item, *many_items(item, 29)]
    return write_report(items, ["html"], folder, date=DATE)[0]


class Page(HTMLParser):
    """The elements and the data block of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self._inside = tag if tag != "script" or dict(attributes).get("id") == "data" else "other"

    def handle_data(self, data: str) -> None:
        self.texts[self._inside] = self.texts.get(self._inside, "") + data

    @property
    def data(self) -> Any:
        return json.loads(self.texts["script"])


# --- without a browser ------------------------------------------------------------------------------------------------


def test_a_page_asks_for_its_two_shared_files_alone(small_run: Path) -> None:
    pages = [small_run, *sorted(small_run.parent.glob("scans/*.html"))]
    assert len(pages) == 31
    assert sorted(path.name for path in small_run.parent.iterdir()) == sorted(("index.html", "scans", *SHARED))
    for path in pages:
        page = Page(path.read_text(encoding="utf-8"))
        asked = [
            value for _, attributes in page.elements for key, value in attributes.items() if key in ("src", "href")
        ]
        assert sorted(Path(str(value)).name for value in asked) == ["data:,", "xrdz.css", "xrdz.js"]
        policy = next(
            found["content"] for _, found in page.elements if found.get("http-equiv") == "Content-Security-Policy"
        )
        assert "default-src 'none'" in str(policy)
        assert "unsafe" not in str(policy)
        assert not any(key.startswith("on") or key == "style" for _, found in page.elements for key in found)


def test_the_shared_files_name_no_address_and_make_no_markup() -> None:
    for name in SHARED:
        text = (ASSETS / name).read_text(encoding="utf-8")
        assert re.search(r"https?:|//cdn|@import|url\(", text) is None
    script = (ASSETS / "xrdz.js").read_text(encoding="utf-8")
    assert re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script) is None


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_cannot_leave_its_place_in_a_page(item: ReportItem, name: str) -> None:
    usual = [tag for tag, _ in Page(scan_page(item, 1, previous="", following="")).elements]
    page = Page(scan_page(renamed(item, name), 1, previous="", following=""))
    assert [tag for tag, _ in page.elements] == usual
    assert page.data["name"] == whole(renamed(item, name).name)
    rows = [row_of(renamed(item, name), "scans/1.html")]
    assert Page(index_page(rows, item, DATE)).data["rows"][0]["sample"] == whole(name)


def test_the_same_input_and_date_give_the_same_pages(item: ReportItem, small_run: Path, tmp_path: Path) -> None:
    write_report([item, *many_items(item, 29)], ["html"], tmp_path, date=DATE)
    for path in small_run.parent.rglob("*.*"):
        assert (tmp_path / path.relative_to(small_run.parent)).read_bytes() == path.read_bytes()


def test_pages_of_an_earlier_run_go_and_other_files_stay(item: ReportItem, tmp_path: Path) -> None:
    write_report(many_items(item, 3), ["html"], tmp_path, date=DATE)
    (tmp_path / "scans" / "notes.html").touch()
    write_report(many_items(item, 2), ["html"], tmp_path, date=DATE)
    names = sorted(path.name for path in (tmp_path / "scans").iterdir())
    assert names == ["00001-00000.xrdml.html", "00002-00001.xrdml.html", "notes.html"]


def test_a_page_says_what_the_report_says(item: ReportItem) -> None:
    data = Page(scan_page(item, 1, previous="", following="")).data
    content = scan_content(item)
    assert {key: data[key] for key in content} == content


def test_curves_come_back_finer_than_a_screen_shows(item: ReportItem) -> None:
    curves = item.curves
    assert curves is not None
    packed = curves_data(curves)
    places = np.array(packed["background"]["places"])
    background = np.interp(np.arange(packed["n"]), places, packed["unit"] * np.array(packed["background"]["values"]))
    summed = background + sum(packed["unit"] * np.array(phase["values"]) for phase in packed["phases"])
    assert np.max(np.abs(summed - curves.calculated) / curves.su) < 0.1
    assert np.allclose(packed["first"] + packed["step"] * np.arange(packed["n"]), curves.two_theta, atol=1e-5)
    assert np.allclose(packed["su"]["gain"] * curves.calculated, curves.su**2, rtol=0.01)
    assert packed["observed"] == curves.observed.tolist()


# --- control charts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "deviates"),
    [
        (1, [0.5, -0.5, 3.1]),
        (2, [-1.5, *[0.5, 0.9, 0.2] * 3]),
        (3, [0.2, -1.4, -0.8, -0.1, 0.4, 0.9, 1.2]),
        (4, [0.6, -0.6] * 7),
        (5, [0.1, 2.2, -0.3, 2.1]),
        (6, [0.1, 1.2, 1.3, -0.2, 1.4, 1.1]),
        (7, [0.5, 0.4, -0.5, -0.3, 0.6] * 3),
        (8, [1.2, -1.3, -1.1, 1.4, 1.6, -1.2, -1.5, 1.3]),
    ],
)
def test_each_rule_of_nelson_is_seen_at_its_last_point_and_not_before(rule: int, deviates: list[float]) -> None:
    broken = broken_rules(np.array(deviates))
    assert rule in broken[-1]
    assert all(rule not in each for each in broken[:-1])


def test_names_sort_as_people_count() -> None:
    names = ["day2/c_1.xy", "day10/c_1.xy", "day2/c_10.xy", "day2/c_9.xy", "day2/C_2.xy", "", "7"]
    assert sorted(names, key=natural_order) == [
        "", "7", "day2/c_1.xy", "day2/C_2.xy", "day2/c_9.xy", "day2/c_10.xy", "day10/c_1.xy",
    ]  # fmt: skip


def test_centre_and_sigma_are_those_of_the_moving_range() -> None:
    values = [0.10, 0.12, 0.09, 0.11, 0.13]
    chart = control_chart("D8", "control", [Measurement(k, value, None) for k, value in enumerate(values)])
    assert chart is not None
    assert chart.centre == pytest.approx(0.11)
    assert chart.sigma == pytest.approx((0.02 + 0.03 + 0.02 + 0.02) / 4 / 1.128)
    assert not chart.by_time
    timed = [Measurement(k, value, 100.0 - k) for k, value in enumerate(values)]
    reverse = control_chart("D8", "control", timed)
    assert reverse is not None
    assert reverse.places == (4, 3, 2, 1, 0)
    assert control_chart("D8", "control", timed[:4]) is None
    still = control_chart("D8", "control", [Measurement(k, 0.1, None) for k in range(9)])
    assert still is not None
    assert still.broken == ((),) * 9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05", 1767323045.0),
        ("2026-01-02T03:04:05+01:00", 1767319445.0),
        ("02-Jan-2026 03:04:05", 1767323045.0),
        ("02.01.2026  03:04:05", 1767323045.0),
        ("01/02/2026", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_times_are_understood_where_they_are_clear(text: str, expected: float | None) -> None:
    assert seconds(text) == expected


# --- in a browser -----------------------------------------------------------------------------------------------------


def rows_shown(window: Browser) -> list[str]:
    """Return the names in the table, in order."""
    names: list[str] = window.run("return [...document.querySelectorAll('#rows a')].map(a => a.textContent)")
    return names


def ratios_shown(window: Browser) -> list[float]:
    """Return the mass ratios in the table, in order."""
    texts = window.run("return [...document.querySelectorAll('#rows td:nth-child(4)')].map(e => e.textContent)")
    return [float(text.partition("(")[0]) for text in texts]


@needs_browser
def test_a_run_sorts_filters_and_opens_a_scan(quiet: Browser, small_run: Path) -> None:
    quiet.open(small_run.as_uri())
    quiet.wait("document.body.dataset.ready === 'yes'")
    everything = rows_shown(quiet)
    assert len(everything) == 30
    quiet.click("[data-sort=z]")
    assert ratios_shown(quiet) == sorted(ratios_shown(quiet))
    assert quiet.run("return document.querySelector('th[aria-sort=ascending]').textContent").startswith("m(")
    quiet.click("[data-sort=z]")
    assert ratios_shown(quiet) == sorted(ratios_shown(quiet), reverse=True)

    quiet.click("[data-verdict=undecided]")
    undecided = rows_shown(quiet)
    assert len(undecided) == 10
    assert quiet.run("return document.getElementById('count').textContent").startswith("10 of 30 scans")
    quiet.run("const box = document.getElementById('filter-code'); box.value = 'STRONG_TEXTURE';"
              "box.dispatchEvent(new Event('change'))")  # fmt: skip
    assert set(rows_shown(quiet)) == {"00000.xrdml", "00021.xrdml"}
    quiet.click("#clear")
    quiet.type("#search", "00013")
    quiet.wait("document.querySelectorAll('#rows a').length === 1")
    assert "query=00013" in quiet.run("return location.hash")
    quiet.click("#rows a")
    quiet.wait("document.body.dataset.page === 'scan' && document.body.dataset.ready === 'yes'")
    assert quiet.run("return document.querySelector('h1').textContent") == "00013.xrdml"
    quiet.click("#next")
    quiet.wait("document.querySelector('h1')?.textContent === '00014.xrdml'")


@needs_browser
def test_provisional_verdicts_are_marked_in_the_table(quiet: Browser, sample_data: Path, tmp_path: Path) -> None:
    clean, stated, rejected, _ = unlike_items(sample_data)
    quiet.open(write_report([clean, stated, rejected], ["html"], tmp_path, date=DATE)[0].as_uri())
    quiet.wait("document.body.dataset.ready === 'yes'")
    verdicts = "return [...document.querySelectorAll('td[data-label=\"Claim 2\"]')].map(cell => cell.textContent)"
    assert quiet.run(verdicts) == ["met †", "met", "not met †"]
    assert "Verdicts marked † are provisional" in quiet.run("return document.body.innerText")


@needs_browser
def test_a_filter_is_kept_in_the_address(quiet: Browser, small_run: Path) -> None:
    quiet.open(f"{small_run.as_uri()}#verdict=undecided&sort=name&order=down")
    quiet.wait("document.body.dataset.ready === 'yes'")
    names = rows_shown(quiet)
    assert len(names) == 10
    assert names == sorted(names, reverse=True)


@needs_browser
def test_a_control_chart_is_read_and_opened_by_keys(quiet: Browser, item: ReportItem, tmp_path: Path) -> None:
    index = write_report(many_items(item, 60), ["html"], tmp_path, date=DATE)[0]
    quiet.open(index.as_uri())
    quiet.wait("document.body.dataset.ready === 'yes'")
    assert quiet.run("return document.getElementById('control-pick').textContent") == "D8: CONTROL (6)"
    quiet.type("#control-chart", "\ue014\ue014")  # the right arrow, twice
    said = quiet.run("return document.getElementById('control-chart-readout').textContent")
    assert said.startswith("00010.xrdml, 2026-01-01T10:00:00: m(Ni₃Sn₄)/m(Sn) ")
    quiet.type("#ratio-chart", "\ue014\ue014\ue014")
    assert "3: 00002.xrdml" in quiet.run("return document.getElementById('ratio-chart-readout').textContent")
    quiet.type("#control-chart", "\ue007")  # the key Enter
    quiet.wait("document.querySelector('h1')?.textContent === '00010.xrdml'")


@needs_browser
def test_a_plot_zooms_by_drag_wheel_and_keys_and_names_reflections(quiet: Browser, small_run: Path) -> None:
    quiet.open(next(small_run.parent.glob("scans/00001-*.html")).as_uri())
    quiet.wait("document.body.dataset.ready === 'yes'")

    def view() -> tuple[float, float]:
        low, high = quiet.wait("document.getElementById('plot').dataset.view").split()
        return float(low), float(high)

    whole = view()
    assert whole == (20.0, 100.0)
    left, top, width = quiet.run(
        "const plot = document.getElementById('plot'); plot.scrollIntoView();"
        "const box = plot.getBoundingClientRect(); return [box.left, box.top, box.width]"
    )
    x = [round(left + share * width) for share in (0.3, 0.5)]
    y = round(top + 120)
    quiet.pointer(
        [
            {"type": "pointerMove", "x": x[0], "y": y, "duration": 0},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerMove", "x": x[1], "y": y, "duration": 20},
            {"type": "pointerUp", "button": 0},
        ]
    )
    dragged = view()
    assert 20.0 < dragged[0] < dragged[1] < 100.0
    assert dragged[1] - dragged[0] == pytest.approx(0.2 * width / (width - 72) * 80.0, rel=0.05)
    quiet.wheel(x[0], y, -200)
    assert view()[1] - view()[0] < dragged[1] - dragged[0]
    quiet.click("#plot-reset")
    assert view() == whole
    quiet.run("document.getElementById('plot').focus()")
    quiet.type("#plot", "++")
    assert view()[1] - view()[0] == pytest.approx(20.0)
    quiet.type("#plot", "\ue011")  # the key Home
    assert view() == whole

    quiet.type("#plot", "]")
    said = quiet.run("return document.getElementById('plot-readout').textContent")
    assert re.search(r"observed \d+ +calculated \d+", said)
    assert re.search(r"reflections: (Sn|Ni₃Sn₄) -?\d -?\d -?\d at \d+\.\d+°", said)
    for scale in ("sqrt", "log", "linear"):
        quiet.click(f"input[value={scale}]")
    quiet.click("[data-curve=calculated]")
    quiet.click("[data-curve=phase-0]")
    assert view() == whole


@needs_browser
def test_what_a_page_shows_is_the_content(quiet: Browser, small_run: Path, item: ReportItem) -> None:
    quiet.open(next(small_run.parent.glob("scans/00001-*.html")).as_uri())
    quiet.wait("document.body.dataset.ready === 'yes'")
    text = re.sub(r"\s+", "", quiet.run("return document.body.innerText"))
    content = scan_content(item)
    shown = [content["answer"]["value"], content["answer"]["interval"], content["provisional"], *content["rules"]]
    shown += [
        row[key] for row in content["phases"] for key in ("share", "interval", "cell", "size", "texture", "r_bragg")
    ]
    shown += [row["text"] for row in content["budget"]["rows"]]
    shown += [
        row[key] for row in content["claims"] for key in ("text", "value", "limits", "probability", "words", "why")
    ]
    shown += [row[1] for key in ("agreement", "item", "measurement", "trace") for row in content[key]]
    assert [each for each in shown if re.sub(r"\s+", "", each) not in text] == []


@needs_browser
def test_every_number_on_the_pages_is_one_of_the_result(quiet: Browser, sample_data: Path, tmp_path: Path) -> None:
    items = unlike_items(sample_data)
    index = write_report(items, ["html"], tmp_path, date=DATE)[0]
    quiet.open(index.as_uri())
    quiet.wait("document.body.dataset.ready === 'yes'")
    cells = (
        "return [...document.querySelectorAll('#rows tr')].map(tr => [...tr.cells].slice(1).map(e => e.textContent))"
    )
    for row, item in zip(quiet.run(cells), items, strict=True):
        assert numbers_besides(" ".join(row), item.document) == []
    for path, item in zip(sorted(tmp_path.glob("scans/*.html")), items, strict=True):
        quiet.open(path.as_uri())
        quiet.wait("document.body.dataset.ready === 'yes'")
        assert numbers_besides(quiet.run("return document.body.innerText"), item.document) == []


@needs_browser
def test_hostile_names_are_text(quiet: Browser, item: ReportItem, tmp_path: Path) -> None:
    items = [renamed(item, name) for name in HOSTILE]
    index = write_report(items, ["html"], tmp_path, date=DATE)[0]
    quiet.open(index.as_uri())
    quiet.wait("document.body.dataset.ready === 'yes'")
    assert rows_shown(quiet) == [whole(each.name) for each in items]
    assert quiet.run("return document.querySelectorAll('b b, img, iframe').length") == 0
    for number, each in enumerate(items, 1):
        path = next(tmp_path.glob(f"scans/{number:05d}-*.html"))
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,80}", path.name)
        quiet.open(path.as_uri())
        quiet.wait("document.body.dataset.ready === 'yes'")
        assert quiet.run("return document.querySelector('h1').textContent") == whole(each.name)
        assert quiet.run("return document.querySelectorAll('img, script').length") == 2


@needs_browser
def test_themes_and_a_phone(quiet: Browser, small_run: Path) -> None:
    scan = next(small_run.parent.glob("scans/00001-*.html")).as_uri()
    for url in (small_run.as_uri(), scan):
        quiet.open(url)
        quiet.wait("document.body.dataset.ready === 'yes'")
        grounds = set()
        for _ in range(3):
            quiet.click("#theme")
            grounds.add(quiet.run("return getComputedStyle(document.body).backgroundColor"))
        assert len(grounds) == 2
        with quiet.phone(360):
            quiet.open(url)
            quiet.wait("document.body.dataset.ready === 'yes'")
            assert quiet.run("return document.documentElement.scrollWidth") <= 360


@needs_browser
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext is not installed (apt-get poppler-utils)")
def test_paper_has_tables_and_not_the_cards_of_a_phone(quiet: Browser, small_run: Path, tmp_path: Path) -> None:
    for place, headings in (
        (small_run, ["Scan", "Claim 1", "GoF"]),
        (next(small_run.parent.glob("scans/00001-*")), ["No.", "Verdict", "Why"]),
    ):
        quiet.open(place.as_uri())
        quiet.wait("document.querySelector('td')")
        (tmp_path / "page.pdf").write_bytes(quiet.printed())
        text = subprocess.run(
            ["pdftotext", "-layout", tmp_path / "page.pdf", "-"], capture_output=True, check=True
        ).stdout
        assert any(all(heading in line for heading in headings) for line in text.decode().splitlines()), headings


@needs_browser
def test_ten_thousand_rows(quiet: Browser, item: ReportItem, tmp_path: Path) -> None:
    """How long they take is measured by benchmarks/report_speed.py; a busy machine fails no test."""
    rows = [row_of(each, f"scans/{number}.html") for number, each in enumerate(many_items(item, 10_000), 1)]
    page = tmp_path / "index.html"
    page.write_text(index_page(rows, item, DATE), encoding="utf-8")
    for name in SHARED:
        (tmp_path / name).write_bytes((ASSETS / name).read_bytes())
    quiet.open(page.as_uri())
    quiet.wait("document.body.dataset.ready === 'yes'")
    assert len(rows_shown(quiet)) == 100
    for action in (lambda: quiet.click("[data-sort=name]"), lambda: quiet.click("#page-on"),
                   lambda: quiet.click("[data-verdict=undecided]")):  # fmt: skip
        action()
        assert len(rows_shown(quiet)) == 100
    assert quiet.run("return document.getElementById('count').textContent").startswith("3334 of 10000 scans")
    charts = quiet.run("return JSON.parse(document.getElementById('data').textContent).charts")
    assert [(chart["instrument"], chart["sample"], len(chart["places"])) for chart in charts] == [
        ("D8", "CONTROL", 1000)
    ]
    assert charts[0]["by_time"]
    broken = sum(bool(each) for each in charts[0]["broken"])
    assert f"{broken} of 1000 scans break a rule" in quiet.run("return document.body.textContent")
