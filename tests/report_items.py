"""What the tests of reports share: one analysis, hostile names, and where a number of a report stands in the JSON."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from xrdz.claims import CLAIMS
from xrdz.method import Decision, Method, read_method
from xrdz.pipeline import analyse
from xrdz.reporting.item import Order, ReportItem, item_of_analysis
from xrdz.sample_sheet import Sample

DATE = datetime(2026, 11, 23, 14, 5, tzinfo=UTC)

SAMPLE = Sample(
    file="snni_z1.00_clean.xy",
    sample_id="SN-2026-0117",
    operator="M. Muster",
    customer="Acme Anodes GmbH",
    carbon_ratio_s=1.25,
    carbon_present=True,
    porosity_percent=51.5,
    powdered=True,
    apparent_density_g_cm3=3.75,
    note="Powder, sieved",
)

LABORATORY = {
    "name": "Institute for Powder Diffraction",
    "address": "Beispielweg 12, 76131 Karlsruhe",
    "contact": "xrd@example.org",
    "accreditation": "D-PL-00000-01-00",
    "authorised_by": "Dr. E. Example",
    "sampling_plan": "SP-9",
}

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\"quotes' & <b>bold</b>",
    '#include "/etc/passwd" #image("x") $x^2$ *b* _i_ `r` @ref <label> // \\ [x] {y}',
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "evil\u202eyx.exe",
    "A" * 300,
    "=1+1|cmd' /C calc'!A0",
    "../../etc/passwd",
    "bell\x07 half\udc80 \u6837\u54c1 \U0001f600",
)


@lru_cache(maxsize=1)
def clean_item(root: Path) -> ReportItem:
    """Return the item of one clean scan, with a laboratory and a row of the sample sheet."""
    method = read_method(root / "snni_z1.00_clean.toml")
    analysis = analyse(root / "snni_z1.00_clean.xy", replace(method, laboratory=LABORATORY), sample=SAMPLE)
    return item_of_analysis(analysis, SAMPLE)


@lru_cache(maxsize=1)
def unlike_items(root: Path) -> tuple[ReportItem, ...]:
    """Return items whose reports differ in kind: clean, all of it stated, rejected, and a fit of the wrong phases."""
    clean = read_method(root / "snni_z1.00_clean.toml")
    stated = replace(clean, laboratory=LABORATORY, decision=Decision(method_u_ln=0.05))
    strict = replace(clean, name="strict", decision=Decision("guard-band", 0.99))
    sample = replace(
        SAMPLE, received="2026-11-16", sampled="2026-11-12", condition="dry", ni_mass_percent=13.4, ni_u=0.2
    )
    wrong = Method(phases=("ni3sn4", "corundum"), candidates=(), exclude=((50.0, 51.5),))
    analyses = (
        analyse(root / "snni_z1.00_clean.xy", clean),
        analyse(root / "snni_z1.00_clean.xy", stated, sample=sample),
        analyse(root / "snni_z0.10_little_ni3sn4.xy", strict, sample=SAMPLE),
        analyse(root / "snni_z1.00_clean.xy", wrong),
    )
    return tuple(map(item_of_analysis, analyses))


def renamed(item: ReportItem, name: str) -> ReportItem:
    """Return an item with one name in every place where a name can stand."""
    document: dict[str, Any] = copy.deepcopy(dict(item.document))
    document["source"]["path"] = "/data/" + name.replace("/", "\u2215")
    document["source"]["metadata"] = {"operator": name, "instrument": name, "start_time": name}
    document["method"]["name"] = name
    document["phases"][0]["id"] = name
    document["findings"] = [
        {"level": "severe", "code": "UNEXPLAINED_PEAK", "message": name, "where": "40.100", "suggestion": name}
    ]
    curves = item.curves
    if curves is not None:
        first, *others = curves.phases
        curves = replace(curves, phases=(replace(first, id=name), *others))
    sample = {"sample_id": name, "customer": name, "operator": name, "note": name}
    return ReportItem(document, curves, Order(laboratory={"name": name, "address": name}, sample=sample))


def many_items(item: ReportItem, count: int) -> Iterator[ReportItem]:
    """Yield items that differ in name, sample, ratio and findings; one sample in ten is a control."""
    for number in range(count):
        document: dict[str, Any] = copy.deepcopy(dict(item.document))
        document["source"]["path"] = f"/data/{number:05d}.xrdml"
        document["source"]["metadata"] = {
            "start_time": f"2026-01-{1 + number // 24 % 28:02d}T{number % 24:02d}:00:00",
            "instrument": "D8",
        }
        factor = math.exp(0.02 * math.sin(12.9898 * number))
        ratio = document["mass_ratio"]
        ratio["value"] *= factor
        ratio["interval95"] = [end * factor for end in ratio["interval95"]]
        if number % 3 == 0:
            document["claims"][1]["verdict"] = "undecided"
        if number % 7 == 0:
            document["findings"] = [
                {
                    "level": "warning",
                    "code": "STRONG_TEXTURE",
                    "message": "r = 0.7",
                    "where": "sn",
                    "suggestion": "grind",
                }
            ]
        sample = {"sample_id": "CONTROL" if number % 10 == 0 else f"S-{number:05d}"}
        yield ReportItem(document, None, replace(item.order, sample=sample))


NO_RESULTS = {
    "identification of the report": r"XR(-[0-9A-F]{4}){3}",
    "date of issue": r"2026-11-23( 14:05 UTC)?",
    "page of pages": r"Page \d+ of \d+",
    "documents and their clauses": r"ILAC-G8:09/2019( \d+(\.\d+)*)?|JCGM 106:2012",
    "the coverage of interval95": r"95 % intervals?",
    "words": r"claims 1 to 10|claim 1 or 2|SHA-256|[Cc]laim 2",
    "more or less than can be told": r"[<>] 0\.\d+( %)?",
    "hashes": r"\b[0-9a-f]{64}\b",
    "wording of the claims": "|".join(
        re.escape(claim.text.replace("^3", "³")).replace(r"\ ", r"\s+")
        for claim in CLAIMS
        if re.search(r"\d", claim.text)
    ),
}
"""What holds numbers on a page without being a result, as regular expressions; every other number must be one."""


def numbers_besides(text: str, document: Mapping[str, Any]) -> list[str]:
    """Return the numbers of a text that are neither of `NO_RESULTS` nor a number of the document, rounded.

    A wrong number of three digits is found in nineteen of twenty cases, one of four or more in ninety-nine of a
    hundred; of two digits seldom, because some number of the document often has the same.
    """
    plain = " ".join(text.replace("\u00a0", " ").split())
    for pattern in NO_RESULTS.values():
        plain = re.sub(pattern, " ", plain)
    numbers = list(numbers_in(document))
    return [
        f"{value:.{decimals}f}"
        for value, decimals, digits in shown_numbers(plain)
        if not is_rounded_from(value, decimals, digits, numbers)
    ]


def numbers_in(value: Any) -> Iterator[float]:
    """Yield every number of a JSON value, those inside its texts included."""
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        yield float(value)
    elif isinstance(value, str):
        yield from (float(token) for token in re.findall(r"\d+(?:\.\d+)?", value))
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from numbers_in(entry)
    else:
        for entry in value:
            yield from numbers_in(entry)


def shown_numbers(text: str) -> Iterator[tuple[float, int, int]]:
    """Yield (value, decimals, significant digits) of each number of a text; of `49.84(16)` the value and the su."""
    for whole, bracket in re.findall(r"(?<![\w.])[-+]?(\d+(?:\.\d+)?)(?:\((\d+)\))?", text):
        decimals = len(whole.partition(".")[2])
        yield float(whole), decimals, len(whole.replace(".", "").lstrip("0"))
        if bracket:
            su = int(bracket) * (10.0**-decimals if decimals else 1.0)
            yield su, decimals, len(bracket)


def is_rounded_from(value: float, decimals: int, digits: int, numbers: list[float]) -> bool:
    """Return whether a shown number is one of the numbers, as it is or in percent, at its decimals or digits."""
    for number in numbers:
        for factor in (1.0, 100.0):
            exact = abs(factor * number)
            if abs(value - exact) <= 0.5000001 * 10.0**-decimals:
                return True
            if exact and f"{exact:.{max(digits, 1)}g}" == f"{value:.{max(digits, 1)}g}":
                return True
            if exact and value >= 10 and abs(value - exact) < 0.051 * exact and digits <= 2:  # a rounded su in tens
                return True
    return False
