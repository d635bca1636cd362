"""The test report as PDF/A: one page for a clean scan, a summary and one page a scan for a run.

Fields after ISO/IEC 17025:2017, 7.8.2.1 and 7.8.6. Typst compiles the template `report.typ`; fonts are those inside
the typst wheel and matplotlib's, so the same input and date give the same bytes on any machine; the system's are added
only for scripts these cannot draw, such as Chinese.
The standards are PDF/A-3a (archival, with the result attached as JSON) and PDF/UA-1 (accessible); the compiler
refuses a document that breaks them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from xrdz import __version__
from xrdz.errors import InputError
from xrdz.reporting.content import (
    NOT_STATED,
    VERDICT_WORDS,
    answer,
    counted,
    formula_text,
    is_provisional,
    issued_text,
    percent,
    ratio_label,
    scan_content,
    unexplained_angles,
    worst_level,
)
from xrdz.reporting.drawing import RatioPoint, fit_drawing, ratio_drawing
from xrdz.reporting.item import ReportItem, canonical
from xrdz.reporting.names import printable

STATEMENT = "The results relate only to the items tested. Do not reproduce except in full."

TEMPLATE = Path(__file__).with_name("report.typ")

LEAST_HEIGHT, GREATEST_HEIGHT = 129.0, 330.0
"""Heights of the plot, points: it takes what the text of its page leaves, as long as it can be judged."""

USUAL_HEIGHT = 230.0
"""Height of a plot whose page goes on on a second one in any case."""

PLACEHOLDER = 100.0
"""Height of what stands for a plot while the text around it is measured."""


def report_id(items: Sequence[ReportItem], date: datetime) -> str:
    """Return the unique identification of a report: from the content of all its results and its date of issue."""
    digest = hashlib.sha256(date.isoformat().encode())
    for item in items:
        digest.update(item.sha256.encode())
        digest.update(repr(sorted(item.order.sample.items())).encode())
        digest.update(repr(sorted(item.order.laboratory.items())).encode())
    text = digest.hexdigest()[:12].upper()
    return f"XR-{text[:4]}-{text[4:8]}-{text[8:]}"


def pdf_report(items: Sequence[ReportItem], date: datetime, *, square_root: bool = False) -> bytes:
    """Return the report as the bytes of a PDF.

    Parameters
    ----------
    date : of issue, with its time zone
    square_root : scale of the intensity in the plots

    Raises
    ------
    InputError
        If there is nothing to report, or a logo is no image.
    """
    if not items:
        raise InputError("report: there is no result to report; expected at least one")
    data = report_data(items, date)
    rooms = measured_rooms(data)
    scans = [
        scan
        if item.curves is None
        else {**scan, "svg": plot_of(item, square_root=square_root, height=height_for(room))}
        for item, scan, room in zip(items, data["scans"], rooms, strict=True)
    ]
    return compiled({**data, "scans": scans})


def measured_rooms(data: Mapping[str, Any]) -> list[float]:
    """Return how high the plot of each scan may be, in points, for its text to stay on the same page."""
    bare = {**data, "measured": True, "placeholder": PLACEHOLDER, "summary": data["summary"] and {}, "attachments": []}
    compiler = _compiler(bare)
    try:
        rooms = compiler.query("<room>", field="value")
    except RuntimeError as error:
        raise _refused(error) from None
    return [float(room) for room in json.loads(rooms)]


def height_for(room: float) -> float:
    """Return the height of a plot, points, whose page has so much room for it; a point of it is left."""
    return USUAL_HEIGHT if room < LEAST_HEIGHT + 2.0 else math.floor(min(room - 1.0, GREATEST_HEIGHT))


def compiled(data: Mapping[str, Any]) -> bytes:
    """Return the PDF of the template filled with data.

    Raises
    ------
    InputError
        If the compiler refuses it, as for a logo that is no image.
    """
    compiler = _compiler({"measured": False, "placeholder": 0.0, **data})
    try:
        content = compiler.compile(
            format="pdf",
            pdf_standards=["a-3a", "ua-1"],
            timestamp=int(datetime(**data["date"], tzinfo=UTC).timestamp()),
        )
    except RuntimeError as error:
        raise _refused(error) from None
    assert isinstance(content, bytes)
    return content


def _compiler(data: Mapping[str, Any]) -> Any:
    """Return the compiler of the template filled with data, with fonts that draw all of them."""
    import typst

    inputs = json.dumps(_printable(data), ensure_ascii=False, allow_nan=False)
    fonts = _fonts(beyond_bundled_fonts(inputs))
    return typst.Compiler(
        TEMPLATE.read_bytes(), root=str(TEMPLATE.parent), font_paths=fonts, sys_inputs={"report": inputs}
    )


def _refused(error: RuntimeError) -> InputError:
    words = " ".join(str(getattr(error, "message", error)).split())
    return InputError(f"report: the PDF could not be made ({words}); check the laboratory's logo")


def beyond_bundled_fonts(text: str) -> bool:
    """Return whether a text holds characters of scripts that the bundled fonts cannot draw.

    They draw Latin, Greek, Cyrillic, Armenian, Hebrew, Arabic, Georgian, punctuation, symbols and arrows.
    """
    drawn = ((0x0000, 0x06FF), (0x10A0, 0x10FF), (0x1D00, 0x2BFF), (0xFB00, 0xFFFF))
    return not text.isascii() and any(
        not any(low <= ord(character) <= high for low, high in drawn) for character in set(text)
    )


@lru_cache(maxsize=2)
def _fonts(with_system_fonts: bool) -> Any:
    """Return the fonts of the typst wheel and matplotlib's, the same on every machine, and the system's on request."""
    import typst

    found = importlib.util.find_spec("matplotlib")
    folders = [] if found is None else [str(Path(place) / "mpl-data/fonts/ttf") for place in _places(found)]
    return typst.Fonts(include_system_fonts=with_system_fonts, include_embedded_fonts=True, font_paths=folders)


def _places(spec: Any) -> list[str]:
    return list(spec.submodule_search_locations or [])


def report_data(items: Sequence[ReportItem], date: datetime) -> dict[str, Any]:
    """Return everything the template places, as JSON values; an empty drawing stands for each plot."""
    letterhead = next((item.order for item in items if item.order.laboratory), items[0].order)
    laboratory = letterhead.laboratory
    identification = report_id(items, date)
    one = len(items) == 1
    scans = [_scan(number, item) for number, item in enumerate(items, 1)]
    utc = date.astimezone(UTC)
    return {
        "id": identification,
        "title": "Test report",
        "description": "Quantitative phase analysis by X-ray powder diffraction of "
        + (items[0].name if one else f"{len(items)} scans"),
        "date": {key: getattr(utc, key) for key in ("year", "month", "day", "hour", "minute", "second")},
        "issued": issued_text(date),
        "statement": STATEMENT,
        "laboratory": {
            "name": laboratory.get("name") or "Laboratory not stated",
            "address": laboratory.get("address") or "Address not stated",
            "contact": laboratory.get("contact") or "",
            "accreditation": laboratory.get("accreditation") or "",
        },
        "logo": None if letterhead.logo is None else _logo(letterhead.logo),
        "signatures": [
            {"role": "Analysed by", "name": laboratory.get("analyst") or _operator(items) or ""},
            {"role": "Authorised by", "name": laboratory.get("authorised_by") or ""},
        ],
        "scans": scans,
        "summary": None if one else _summary(items, scans),
        "attachments": [_attachment(items, identification)],
    }


def _operator(items: Sequence[ReportItem]) -> str:
    """Return the one operator of all scans, "" when there are several or none."""
    named = {str(item.order.sample.get("operator") or "") for item in items}
    return named.pop() if len(named) == 1 else ""


def _scan(number: int, item: ReportItem) -> dict[str, Any]:
    """Return what the template says of one scan."""
    svg, alt = None, ""
    if item.curves is not None:
        svg = ""
        labels = ", ".join(legend_label(item.document, phase.id) for phase in item.curves.phases)
        alt = (
            f"Diffractogram of {item.title}: observed and calculated intensity against 2 theta, "
            f"tick marks of {labels}, and the difference over its standard uncertainty"
        )
    return {"number": number, "svg": svg, "alt": alt, **scan_content(item)}


def plot_of(item: ReportItem, *, square_root: bool, height: float) -> str:
    """Return the plot of a scan that has curves, as SVG."""
    assert item.curves is not None
    kind = item.document.get("source", {}).get("count_kind")
    return fit_drawing(
        item.curves,
        [printable(legend_label(item.document, phase.id)) for phase in item.curves.phases],
        height=height,
        square_root=square_root,
        marked=unexplained_angles(item.document),
        intensity_label="counts" if kind in ("counts", "rate") else "intensity, arbitrary unit",
    )


def legend_label(document: Mapping[str, Any], phase: str) -> str:
    """Return formula and mass % of a phase."""
    found = next((row for row in document.get("phases") or () if row["id"] == phase), None)
    if found is None:
        return phase
    share = f"{percent(found['mass_fraction'])} mass %" if found.get("detected") else "not detected"
    return f"{formula_text(found['formula'])} {share}"


def _logo(content: bytes) -> dict[str, Any]:
    """Return a logo as the template takes it, its format recognised by its first bytes."""
    if content.startswith(b"\x89PNG\r\n"):
        return {"format": "png", "bytes": list(content)}
    if content.startswith(b"\xff\xd8\xff"):
        return {"format": "jpg", "bytes": list(content)}
    if b"<svg" in content[:2000]:
        return {"format": "svg", "text": content.decode("utf-8", "replace")}
    raise InputError("[laboratory] logo: not an SVG, PNG or JPEG image; convert it")


def _summary(items: Sequence[ReportItem], scans: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the first page of a run: what was tested, the verdicts, every scan in one table."""
    documents = [item.document for item in items]
    customers = list(dict.fromkeys(str(item.order.sample.get("customer") or NOT_STATED) for item in items))
    methods = list(dict.fromkeys(_method_text(document) for document in documents))
    hashes = list(dict.fromkeys(str(document.get("method", {}).get("sha256") or "") for document in documents))
    deviations = list(dict.fromkeys(text for item in items for text in item.order.deviations))
    labels = list(dict.fromkeys(filter(None, map(ratio_label, documents))))
    second = [_verdict(document, 2) for document in documents]
    counts = counted([{"verdict": verdict} for verdict in second], "verdict")
    codes = counted([finding for scan in scans for finding in scan["findings"]], "code")
    limits = next((_limits(document) for document in documents if _limits(document)), None)
    points = [_point(document, verdict) for document, verdict in zip(documents, second, strict=True)]
    label = labels[0] if len(labels) == 1 else "mass ratio"
    return {
        "size": f"{len(items)} scans",
        "facts": [
            ["Customer", "; ".join(customers)],
            ["Items tested", f"{len(items)}, listed below"],
            [
                "Received",
                "; ".join(dict.fromkeys(str(item.order.sample.get("received") or NOT_STATED) for item in items)),
            ],
        ],
        "method": [
            ["Method", "; ".join(methods)],
            ["Deviations", "; ".join(deviations) or "none"],
            ["Traceability", "SHA-256 of each raw file: on the page of its scan"],
        ],
        "counts": [[f"claim 2 {VERDICT_WORDS[key]}", str(counts[key])] for key in VERDICT_WORDS if key in counts],
        "findings": [[code, str(number)] for code, number in sorted(codes.items(), key=lambda pair: -pair[1])],
        "ratio": label,
        "svg": ratio_drawing(points, limits, label=f"{label}, 95 % intervals; dashed: limits of claim 2")
        if any(point.is_known for point in points)
        else None,
        "alt": f"{label} of all {len(items)} scans with 95 % intervals and the limits of claim 2",
        "provisional": list(dict.fromkeys(filter(None, (scan["provisional"] for scan in scans)))),
        "rows": [_row(item, scan) for item, scan in zip(items, scans, strict=True)],
        "trace": [
            *(
                ["SHA-256 of the method" if len(hashes) == 1 else f"SHA-256 of method {number}", text]
                for number, text in enumerate(hashes, 1)
            ),
            ["Software", f"xrdz {__version__}"],
        ],
    }


def _method_text(document: Mapping[str, Any]) -> str:
    method = document.get("method", {})
    return f"{method.get('name') or NOT_STATED}, version {method.get('version') or NOT_STATED}"


def _verdict(document: Mapping[str, Any], claim: int) -> str:
    return next((str(row["verdict"]) for row in document.get("claims") or () if row["claim"] == claim), "not_assessed")


def _limits(document: Mapping[str, Any]) -> tuple[float, float] | None:
    found = next((row.get("limits") for row in document.get("claims") or () if row["claim"] == 2), None)
    return None if not found else (float(found[0]), float(found[1]))


def _point(document: Mapping[str, Any], verdict: str) -> RatioPoint:
    ratio = document.get("mass_ratio") or {}
    low, high = ratio.get("interval95") or (None, None)
    return RatioPoint(None if ratio.get("limit") else ratio.get("value"), low, high, verdict)


def _row(item: ReportItem, scan: Mapping[str, Any]) -> dict[str, Any]:
    document = item.document
    found = answer(document)
    codes = counted(scan["findings"], "code")
    listed = ", ".join(f"{code} {number}" if number > 1 else code for code, number in codes.items())
    claims = {row["claim"]: row for row in document.get("claims") or ()}
    judged = [claims.get(number, {"verdict": "not_assessed"}) for number in (1, 2)]
    return {
        "number": scan["number"],
        "sample": scan["sample"],
        "name": item.title,
        "value": found["value"] or ("none" if document.get("phases") else scan["status"]),
        "interval": found["interval"],
        "verdicts": [
            {"verdict": row["verdict"], "words": VERDICT_WORDS[row["verdict"]], "provisional": is_provisional(row)}
            for row in judged
        ],
        "findings": listed.replace("_", " ").lower() if worst_level(document) else "none",
    }


def _attachment(items: Sequence[ReportItem], identification: str) -> dict[str, str]:
    """Return the results as a file inside the PDF: one JSON document, or one a line."""
    text = "\n".join(canonical(item.document) for item in items) + "\n"
    many = len(items) > 1
    return {
        "name": f"{identification}.{'jsonl' if many else 'json'}",
        "text": text,
        "mime": "application/x-ndjson" if many else "application/json",
        "description": "The results of this report, xrdz.analysis/1, without timing",
    }


def _printable(value: Any) -> Any:
    """Return the data with every text made printable, but for drawings and attachments, which are files."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_printable(entry) for entry in value]
    if isinstance(value, dict):
        return {
            key: entry if key in ("svg", "text") and _is_file(value) else _printable(entry)
            for key, entry in value.items()
        }
    return value


def _is_file(value: Mapping[str, Any]) -> bool:
    return "svg" in value or "mime" in value or "format" in value
