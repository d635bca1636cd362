"""Pages of a run for the screen: static, offline, no server, and no request to anywhere.

`index.html` lists all scans, `scans/` holds a page per scan, `xrdz.js` and `xrdz.css` are shared by all of them. What a
page shows stands in it as a JSON data block, which no browser executes; the script only ever inserts it as text. The
content security policy allows the two shared files and nothing else.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from xrdz import __version__
from xrdz.diffractogram import FloatArray
from xrdz.errors import InputError
from xrdz.files import make_folder, write_whole
from xrdz.reporting.content import (
    answer,
    counted,
    findings,
    formula_text,
    instrument_name,
    is_provisional,
    issued_text,
    percent,
    provisional_text,
    ratio_label,
    sample_id,
    scan_content,
    status_text,
    unexplained_angles,
    worst_level,
)
from xrdz.reporting.control import RULES, ControlChart, Measurement, control_chart, seconds
from xrdz.reporting.drawing import colour
from xrdz.reporting.item import Curves, ReportItem
from xrdz.reporting.names import safe_file_name

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-src 'none'"
)

SHARED = ("xrdz.js", "xrdz.css")
SCANS = "scans"
PAGE_NAME = re.compile(r"\d{5,}-[A-Za-z0-9._-]+\.html")

BACKGROUND_STEPS = 12
"""Every how many points the background, which is smooth, is written; the page draws straight lines between."""

EVEN_GAIN = 0.01
"""Spread of variance over intensity up to which one gain stands for all points: a half percent of su."""

STEPS_PER_SU = 20.0
"""Calculated intensities are written in units of the smallest su over this: finer than any screen shows."""

VERDICT_LETTERS = {"met": "m", "not_met": "n", "undecided": "u", "not_assessed": "a", "": "-"}

MOST_PHASES, COMMON = 4, 0.2
"""Phases that have their own column in the table of a run: so many at most, each in this part of its fits."""


def write_pages(items: Iterable[ReportItem], directory: Path, date: datetime) -> Path:
    """Write the pages of a run and return the path of its index, which is written last.

    Items are taken one by one, so a run of any length needs little memory.

    Raises
    ------
    InputError
        If there is no item, or a file cannot be written.
    """
    folder = make_folder(directory / SCANS)
    rows: list[dict[str, Any]] = []
    first: ReportItem | None = None
    laboratory = ""
    previous = ""
    for number, (item, following) in enumerate(_with_next(items), 1):
        first = first or item
        laboratory = laboratory or item.order.laboratory.get("name", "")
        name = page_name(number, item)
        after = "" if following is None else page_name(number + 1, following)
        page = scan_page(item, number, previous=previous, following=after)
        _write(folder / name, page)
        rows.append(row_of(item, f"{SCANS}/{name}"))
        previous = name
    if first is None:
        raise InputError("report: there is no result to report; expected at least one")
    for name in SHARED:
        _write(directory / name, Path(__file__).with_name(name).read_text(encoding="utf-8"))
    _remove_others(folder, {row["href"].removeprefix(f"{SCANS}/") for row in rows})
    return write_whole(directory / "index.html", index_page(rows, first, date, laboratory))


def _with_next(items: Iterable[ReportItem]) -> Iterator[tuple[ReportItem, ReportItem | None]]:
    """Yield each item with the one after it, None after the last."""
    iterator = iter(items)
    current = next(iterator, None)
    while current is not None:
        following = next(iterator, None)
        yield current, following
        current = following


def _write(path: Path, text: str) -> None:
    """Write a page; the index, which leads to it, appears only when all are there."""
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); check the folder") from None


def _remove_others(folder: Path, written: set[str]) -> None:
    """Remove the pages of an earlier, longer run of the same folder, which no index leads to any more."""
    for path in folder.glob("*.html"):
        if PAGE_NAME.fullmatch(path.name) and path.name not in written:
            path.unlink(missing_ok=True)


def page_name(number: int, item: ReportItem) -> str:
    """Return the file name of a scan's page: its number in the run and what is left of its name."""
    return f"{number:05d}-{safe_file_name(item.name)}.html"


def page(title: str, kind: str, data: Mapping[str, Any], *, root: str) -> str:
    """Return a whole page.

    Parameters
    ----------
    title : data, escaped here
    kind : which part of the script fills the page, "run" or "scan"
    root : path from the page to the shared files
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="generator" content="xrdz {html.escape(__version__)}">
<title>{html.escape(whole(title))}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{root}xrdz.css">
</head>
<body data-page="{kind}">
<noscript><p>This page shows its results with a script of its own, {root}xrdz.js; allow it to run.</p></noscript>
<script type="application/json" id="data">{embedded(data)}</script>
<script src="{root}xrdz.js"></script>
</body>
</html>
"""


def embedded(data: Mapping[str, Any]) -> str:
    """Return data as JSON that can stand in a page: nothing in it can end its element or start another."""
    text = whole(json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def whole(text: str) -> str:
    """Return a text with the replacement sign for each half character, which no encoding can write."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def scan_page(item: ReportItem, number: int, *, previous: str, following: str) -> str:
    """Return the page of one scan."""
    content = scan_content(item)
    phases = {row["id"]: row for row in content["phases"]}
    curves = None if item.curves is None else curves_data(item.curves)
    if curves is not None:
        for place, entry in enumerate(curves["phases"]):
            row = phases.get(entry["id"], {})
            entry["label"] = row.get("formula", entry["id"])
            entry["share"] = row.get("share", "")
            entry["colour"] = colour(place)
    kind = item.document.get("source", {}).get("count_kind")
    data = {
        "number": number,
        "previous": previous,
        "next": following,
        "index": "../index.html",
        "intensity": "counts" if kind in ("counts", "rate") else "intensity",
        "marked": unexplained_angles(item.document),
        "curves": curves,
        **content,
    }
    return page(f"{item.title} - xrdz", "scan", data, root="../")


def curves_data(curves: Curves) -> dict[str, Any]:
    """Return the curves in few characters: whole numbers in a common unit, positions as first and step where even.

    The calculated curve is the sum of background and phases, and is summed by the page.
    """
    unit = max(float(np.min(curves.su)) / STEPS_PER_SU, 1e-9)
    unit = 10.0 ** math.floor(math.log10(unit))
    gain = curves.su**2 / np.maximum(curves.calculated, 1e-12)
    even = float(np.ptp(gain)) < EVEN_GAIN * float(np.mean(gain))
    places = np.unique(np.append(np.arange(0, curves.two_theta.size, BACKGROUND_STEPS), curves.two_theta.size - 1))
    return {
        "n": int(curves.two_theta.size),
        **positions_data(curves.two_theta),
        "unit": unit,
        "observed": _short(curves.observed),
        "background": {"places": places.tolist(), "values": _in_units(curves.background[places], unit)},
        "su": {"gain": float(f"{np.mean(gain):.6g}")}
        if even
        else {"values": [float(f"{value:.4g}") for value in curves.su]},
        "excluded": [list(interval) for interval in curves.excluded],
        "phases": [
            {
                "id": phase.id,
                "values": _in_units(phase.intensity, unit),
                "hkl": [" ".join(str(int(index)) for index in triple) for triple in phase.hkl],
                "positions": [round(float(position), 4) for position in phase.positions],
            }
            for phase in curves.phases
        ],
    }


def positions_data(two_theta: FloatArray) -> dict[str, Any]:
    """Return positions in degrees as first and step where they are even to 1e-5 deg, else one by one."""
    if two_theta.size > 1:
        step = float((two_theta[-1] - two_theta[0]) / (two_theta.size - 1))
        if np.max(np.abs(two_theta - two_theta[0] - step * np.arange(two_theta.size))) < 1e-5:
            return {"first": float(two_theta[0]), "step": step}
    return {"two_theta": [round(float(angle), 5) for angle in two_theta]}


def _in_units(values: FloatArray, unit: float) -> list[int]:
    return [int(value) for value in np.rint(values / unit)]


def _short(values: FloatArray) -> list[float | int]:
    return [int(value) if value == int(value) else float(f"{value:.6g}") for value in values.tolist()]


def row_of(item: ReportItem, href: str) -> dict[str, Any]:
    """Return a scan's row in the table of its run: texts to show and numbers to sort by."""
    document = item.document
    found, ratio = answer(document), document.get("mass_ratio") or {}
    low, high = ratio.get("interval95") or (None, None)
    agreement = document.get("agreement") or {}
    metadata = document.get("source", {}).get("metadata") or {}
    return {
        "href": href,
        "name": item.title,
        "sample": sample_id(item),
        "instrument": instrument_name(item),
        "measured": str(metadata.get("start_time") or ""),
        "ratio": ratio_label(document),
        "value": found["value"],
        "interval": found["interval"],
        "z": None if ratio.get("limit") else _digits(ratio.get("value")),
        "low": _digits(low),
        "high": _digits(high),
        "claims": {str(claim["claim"]): claim["verdict"] for claim in document.get("claims") or ()},
        "provisional_claims": [claim["claim"] for claim in document.get("claims") or () if is_provisional(claim)],
        "limits": next((c.get("limits") for c in document.get("claims") or () if c["claim"] == 2), None),
        "status": status_text(document),
        "rwp": _digits(agreement.get("rwp")),
        "gof": _digits(agreement.get("gof")),
        "provisional": provisional_text(document, item.order),
        "level": worst_level(document),
        "codes": counted(findings(document), "code"),
        "shares": {
            phase["id"]: [
                percent(phase["mass_fraction"]) if phase.get("detected") else "not detected",
                _digits(phase["mass_fraction"]["value"]),
                formula_text(phase["formula"]),
            ]
            for phase in document.get("phases") or ()
        },
    }


def _digits(value: float | None) -> float | None:
    """Return a number with seven significant digits, which is more than a table or a chart shows."""
    return None if value is None else float(f"{value:.7g}")


def index_page(rows: list[dict[str, Any]], first: ReportItem, date: datetime, laboratory: str = "") -> str:
    """Return the page of a run."""
    charts = control_charts(rows)
    shares = counted([{"id": phase} for row in rows for phase in row["shares"]], "id")
    fits = sum(bool(row["shares"]) for row in rows)
    common = [phase for phase in sorted(shares, key=lambda phase: -shares[phase]) if shares[phase] >= COMMON * fits]
    common = common[:MOST_PHASES]
    formulas = {phase: row["shares"][phase][2] for row in rows for phase in row["shares"] if phase in common}
    claimed = sorted({int(number) for row in rows for number, verdict in row["claims"].items() if verdict})
    method = first.document.get("method", {})
    data = {
        "laboratory": laboratory,
        "method": f"{method.get('name', '')}, version {method.get('version', '')}",
        "software": f"xrdz {__version__}",
        "issued": issued_text(date),
        "ratio": next((row["ratio"] for row in rows if row["ratio"]), "mass ratio"),
        "limits": next((row["limits"] for row in rows if row["limits"]), None),
        "phases": [[phase, formulas[phase]] for phase in common],
        "claims": claimed,
        "rules": RULES,
        "letters": {letter: verdict for verdict, letter in VERDICT_LETTERS.items()},
        "folder": f"{SCANS}/",
        "provisional": list(dict.fromkeys(filter(None, (row["provisional"] for row in rows)))),
        "charts": [chart_data(chart) for chart in charts],
        "rows": [_without_repeats(row, common) for row in rows],
    }
    return page(f"Run of {len(rows)} scans - xrdz", "run", data, root="")


def _without_repeats(row: Mapping[str, Any], common: list[str]) -> dict[str, Any]:
    """Return a row in few characters, as an index of thousands needs it: what is empty or usual is left out.

    Verdicts are one letter a claim (`VERDICT_LETTERS`), a capital when provisional; shares are those of the common
    phases in their order.
    """
    unused = ("ratio", "limits", "shares", "claims", "provisional", "provisional_claims")
    usual: tuple[object, ...] = ("", None, {}, "converged")
    kept = {key: value for key, value in row.items() if key not in unused and value not in usual}
    kept["href"] = row["href"].removeprefix(f"{SCANS}/")
    kept["shares"] = [row["shares"].get(phase, ["", None])[:2] for phase in common]
    letters = {number: VERDICT_LETTERS[row["claims"].get(str(number), "")] for number in range(1, 11)}
    marked = row["provisional_claims"]
    kept["claims"] = "".join(letter.upper() if number in marked else letter for number, letter in letters.items())
    return kept


def control_charts(rows: list[dict[str, Any]]) -> list[ControlChart]:
    """Return the control charts of a run, the longest first."""
    series: dict[tuple[str, str], list[Measurement]] = {}
    for place, row in sorted(enumerate(rows), key=lambda entry: natural_order(entry[1]["name"])):
        if row["z"] and row["sample"]:
            measurement = Measurement(place, math.log(row["z"]), seconds(row["measured"]))
            series.setdefault((row["instrument"], row["sample"]), []).append(measurement)
    charts = [control_chart(*names, measurements) for names, measurements in series.items()]
    return sorted((chart for chart in charts if chart is not None), key=lambda chart: -len(chart.places))


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Return the key by which names sort as people count: `c_2` before `c_10`."""
    parts = re.split(r"(\d+)", name.lower())
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def chart_data(chart: ControlChart) -> dict[str, Any]:
    """Return a control chart as the page takes it, in Z instead of ln Z."""
    return {
        "instrument": chart.instrument,
        "sample": chart.sample,
        "places": chart.places,
        "broken": chart.broken,
        "centre": math.exp(chart.centre),
        "sigma": chart.sigma,
        "by_time": chart.by_time,
    }
