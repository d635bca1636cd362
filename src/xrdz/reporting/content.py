"""What a report says about one scan, in words and rounded numbers: the same for paper and for the screen.

The result of `scan_content` is plain lists, texts and numbers, so that both the PDF's template and the pages' script
take it as data. Rounding happens here and nowhere else; every number comes from the analysis document.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from xrdz.claims import BY_NUMBER
from xrdz.features import FEATURES
from xrdz.numerals import at_decimals, interval_text, probability_text, significant, two_digits, value_with_su
from xrdz.reporting.item import Order, ReportItem

NOT_STATED = "not stated"

NO_CURVES = "The curves of this result were not stored, so there is no plot."
NO_FIT = "There is no fit to be plotted."

VERDICT_WORDS = {"met": "met", "not_met": "not met", "undecided": "undecided", "not_assessed": "not assessed"}

LEVELS = ("severe", "warning", "info")

UNITS: Mapping[str, tuple[float, str]] = {
    "nickel": (100.0, " mass %"),
    "porosity": (100.0, " %"),
    "density": (1.0, " g/cm³"),
}
"""Factor and unit in which a claim's value and limits are shown; a ratio has neither."""

RULES: Mapping[str, str] = {
    "simple acceptance": "met when the value lies within the limits, not met otherwise",
    "guard band": "met when the whole coverage interval lies within the limits, not met otherwise",
    "non-binary": "met when the whole coverage interval lies within the limits, not met when it lies wholly outside, "
    "undecided otherwise",
}
"""A decision rule by the words its name begins with, as a reader without ILAC-G8 at hand understands it."""

RISKS: Mapping[str, tuple[str, str]] = {
    "met": ("C", "C, the consumer's risk: that a claim reported as met does not hold"),
    "not_met": ("P", "P, the producer's risk: that a claim reported as not met does hold"),
}
"""Letter and meaning of the risk of a verdict."""

SPACES: Mapping[str, str] = {"ln": "the logarithm of a ratio", "logit": "the logit of a fraction"}

PROVISIONAL = "provisional"
REPRODUCIBILITY = "laboratory's own"
MISSING = "the sample sheet gives no "
NO_SHEET = "no value was given"
"""Why a claim on the electrode is not assessed where the scan has no row of a sample sheet."""

MISSING_WORDS: Mapping[str, str] = {
    "carbon_present, and no graphite was detected": "carbon (nor was graphite detected)",
    "carbon_ratio_s": "S",
    "powdered": "powder or not",
    "porosity_percent": "porosity",
    "apparent_density_g_cm3": "apparent density",
}
"""What a column of the sample sheet that is empty would have stated."""

STATED: Mapping[str, str] = {
    "carbon_present: yes": "carbon is stated",
    "carbon_present: no": "no carbon, as stated",
    "powdered: yes": "a powder, as stated",
    "powdered: no": "no powder, as stated",
    "carbon_ratio_s: ": "S: ",
    "porosity_percent: ": "porosity: ",
    "apparent_density_g_cm3: ": "density: ",
    "the value lies within the limits; no uncertainty is stated": "within the limits, uncertainty not stated",
    "the value lies outside the limits; no uncertainty is stated": "outside the limits, uncertainty not stated",
}
"""What a reason says of a column of the sample sheet, in words."""

KEPT = ("carbon_present: yes", "powdered: yes", "were both detected", "lies within the limits")
"""Ends of reasons that speak for a claim, so that they do not explain why it is not met."""

PRINTED_KEYS = frozenset(
    {"name", "address", "contact", "location", "accreditation", "logo", "analyst", "authorised_by"}
)
"""Keys of [laboratory] that have their own place in a report; all others are listed under their own name."""

UNEXPLAINED = "UNEXPLAINED_PEAK"
STATED_FEATURES = frozenset({"carbon_ratio", "porosity", "density"})
"""Features whose value a sample sheet states, which a report repeats as it stands."""

CHEMISTRY = (("Ni", "ni_mass_percent", "ni_u"), ("Sn", "sn_mass_percent", "sn_u"))
"""Elements that a sample sheet states, with the columns of their content and its standard uncertainty."""

LONG_REASON = 30
"""Characters from which a reason is not repeated."""

MOST_BARS = 5
"""Rows of the budget that are drawn as bars; the others are named together."""

SMALLEST_PERCENT = 0.005
"""A row of the budget below this is shown as `< 0.01 %`."""


def scan_content(item: ReportItem) -> dict[str, Any]:
    """Return everything a report says about a scan."""
    document, order = item.document, item.order
    claims = claims_content(document)
    return {
        "name": item.title,
        "sample": sample_id(item),
        "status": status_text(document),
        "answer": answer(document),
        "headline": headline(document),
        "alarm": alarm_text(document),
        "item": item_facts(item),
        "measurement": measurement_facts(item),
        "phases": phase_rows(document),
        "notes": phase_notes(document),
        "budget": budget(document, order),
        "claims": claims,
        "unassessed": unassessed_text(document, claims),
        "rules": rules(document),
        "risks": risk_words(claims),
        "decided": decided_text(document, order),
        "provisional": provisional_text(document, order),
        "agreement": agreement(document),
        "findings": findings(document),
        "grouped": grouped(findings(document)),
        "trace": trace(document),
        "no_plot": "" if item.curves is not None else NO_CURVES if document.get("phases") else NO_FIT,
    }


def sample_id(item: ReportItem) -> str:
    """Return the identification of the item tested: from the sample sheet, else the file's own word, else ""."""
    metadata = item.document.get("source", {}).get("metadata") or {}
    return str(item.order.sample.get("sample_id") or metadata.get("sample_id") or "")


def status_text(document: Mapping[str, Any]) -> str:
    """Return how the fit ended, in words."""
    return str(document.get("status") or "failed").replace("_", " ")


def formula_text(formula: str) -> str:
    """Return a formula with its numbers as subscripts."""
    return formula.translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def ratio_label(document: Mapping[str, Any]) -> str:
    """Return `m(Ni₃Sn₄)/m(Sn)` with the formulas of the phases of the mass ratio, "" without one."""
    ratio = document.get("mass_ratio")
    if not ratio:
        return ""
    formulas = {phase["id"]: formula_text(phase["formula"]) for phase in document.get("phases") or ()}
    top, bottom = (formulas.get(ratio[key], ratio[key]) for key in ("numerator", "denominator"))
    return f"m({top})/m({bottom})"


def ratio_text(ratio: Mapping[str, Any]) -> str:
    """Return a mass ratio with its uncertainty, or the limit that is known of it."""
    low, high = ratio["interval95"]
    if ratio.get("limit") == "upper":
        return interval_text(None, high)
    if ratio.get("limit") == "lower":
        return interval_text(low, None)
    return value_with_su(ratio["value"], ratio["su"])


def answer(document: Mapping[str, Any]) -> dict[str, str]:
    """Return label, sign, value and interval of the mass ratio; empty texts without one."""
    ratio = document.get("mass_ratio")
    if not ratio:
        return {"label": "", "sign": "", "value": "", "interval": ""}
    limited = ratio.get("limit") is not None
    return {
        "label": ratio_label(document),
        "sign": "" if limited else "=",
        "value": ratio_text(ratio),
        "interval": "" if limited else interval_text(*ratio["interval95"]),
    }


def headline(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the verdicts on claims 1 and 2, which the scan itself decides; nothing where no claim was assessed."""
    claims = document.get("claims") or ()
    if all(claim["verdict"] == "not_assessed" for claim in claims):
        return []
    return [
        {
            "claim": claim["claim"],
            "verdict": claim["verdict"],
            "words": VERDICT_WORDS[claim["verdict"]],
            "provisional": is_provisional(claim),
        }
        for claim in claims
        if claim["claim"] in (1, 2)
    ]


def alarm_text(document: Mapping[str, Any]) -> str:
    """Return how many severe findings there are, "" without any; it stands beside the result."""
    severe = sum(finding.get("level") == "severe" for finding in document.get("findings") or ())
    return f"{severe} severe finding{'s' if severe > 1 else ''}, see below" if severe else ""


def item_facts(item: ReportItem) -> list[list[str]]:
    """Return label and text of what identifies the item tested and who ordered the test."""
    sample, laboratory = item.order.sample, item.order.laboratory
    rows = [
        ["Customer", str(sample.get("customer") or NOT_STATED)],
        ["Item tested", sample_id(item) or NOT_STATED],
        ["Received", str(sample.get("received") or NOT_STATED)],
    ]
    if sample.get("sampled"):
        rows[-1][1] += f", sampled {sample['sampled']}"
    for label, key in (("Condition", "condition"), ("Note", "note")):
        if sample.get(key):
            rows.append([label, str(sample[key])])
    if laboratory.get("location"):
        rows.append(["Place of test", laboratory["location"]])
    for key, text in laboratory.items():
        if key not in PRINTED_KEYS:
            rows.append([key.replace("_", " ").capitalize(), str(text)])
    return rows


def measurement_facts(item: ReportItem) -> list[list[str]]:
    """Return label and text of how the item was measured and evaluated."""
    document = item.document
    source, method = document.get("source", {}), document.get("method", {})
    metadata = source.get("metadata") or {}
    version = f", version {method['version']}" if method.get("version") else ""
    return [
        ["Raw file", item.title],
        ["Measured", str(metadata.get("start_time") or NOT_STATED)],
        ["Operator", str(item.order.sample.get("operator") or metadata.get("operator") or NOT_STATED)],
        ["Instrument", instrument_name(item) or NOT_STATED],
        ["Scan", scan_text(source)],
        ["Radiation", radiation_text(source.get("wavelength") or {})],
        ["Method", f"{method.get('name') or NOT_STATED}{version}"],
        ["Deviations", "; ".join(item.order.deviations) or "none"],
    ]


def instrument_name(item: ReportItem) -> str:
    """Return the diffractometer: as the method has it, else as the file has it, else ""."""
    metadata = item.document.get("source", {}).get("metadata") or {}
    return item.order.instrument or str(metadata.get("instrument") or "")


def scan_text(source: Mapping[str, Any]) -> str:
    """Return range and number of points of the fitted part."""
    if not source.get("two_theta"):
        return NOT_STATED
    low, high = source["two_theta"]
    counted = "" if source.get("count_kind") == "counts" else f", intensities: {source.get('count_kind')}"
    return f"{low:.2f} to {high:.2f}° 2θ, {source['n_points']} points{counted}"


def radiation_text(wavelength: Mapping[str, Any]) -> str:
    """Return the emission lines in angstrom, and where they were learnt from."""
    lines = wavelength.get("lines") or ()
    if not lines:
        return NOT_STATED
    origin = {"file": "from the file", "method": "from the method", "default": "assumed"}
    where = origin.get(str(wavelength.get("from")), str(wavelength.get("from")))
    return " + ".join(f"{angstrom:.5f}" for angstrom, _ in lines) + f" Å, {where}"


def phase_rows(document: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the cells of the table of phases, by column; of a phase that was not detected the share alone."""
    return [_phase_row(phase) for phase in document.get("phases") or ()]


def _phase_row(phase: Mapping[str, Any]) -> dict[str, str]:
    fraction, absolute = phase["mass_fraction"], phase.get("absolute_fraction")
    low, high = fraction["interval95"]
    detected = bool(phase.get("detected"))
    texture = phase.get("texture") or {}
    axis = " ".join(str(index) for index in texture.get("axis") or ())
    r = texture.get("r")
    return {
        "id": phase["id"],
        "alias": "" if phase["id"].lower() == phase["formula"].lower() else phase["id"],
        "formula": formula_text(phase["formula"]),
        "detected": "yes" if detected else "no",
        "share": percent(fraction) if detected else "not detected",
        "interval": interval_text(_times(low, 100), _times(high, 100)) if detected else _at_most(high),
        "absolute": "" if absolute is None else percent(absolute),
        "detection_limit": "" if phase.get("detection_limit") is None else two_digits(100 * phase["detection_limit"]),
        "cell": cell_text(phase.get("cell") or {}) if detected else "",
        "size": estimated(phase.get("size_nm")),
        "texture": f"{estimated(r)} [{axis}]" if r and detected else "",
        "r_bragg": f"{phase['r_bragg']:.1f}" if phase.get("r_bragg") is not None and detected else "",
    }


def phase_notes(document: Mapping[str, Any]) -> list[str]:
    """Return what the table of phases needs beside it: elements implied and by chemistry, what is not crystalline."""
    notes = []
    elements = document.get("elements") or {}
    if elements and any(phase.get("detected") for phase in document.get("phases") or ()):
        listed = ", ".join(f"{name} {percent(value)}" for name, value in elements.items())
        notes.append(f"Elements implied by the phases, mass %: {listed}.")
    sample = document.get("sample") or {}
    chemical = [
        f"{element} {value_with_su(sample[column], sample.get(su))}"
        for element, column, su in CHEMISTRY
        if sample.get(column) is not None
    ]
    if chemical:
        notes.append(f"By chemical analysis, mass %: {', '.join(chemical)}.")
    amorphous = document.get("amorphous")
    if amorphous:
        low, high = amorphous["interval95"]
        interval = interval_text(_times(low, 100), _times(high, 100))
        notes.append(f"Not crystalline, of the sample: {percent(amorphous)} mass %, 95 % interval {interval}.")
    return notes


def percent(quantity: Mapping[str, Any]) -> str:
    """Return a fraction with its combined uncertainty, in percent."""
    return value_with_su(_times(quantity["value"], 100), _times(quantity["su"], 100))


def estimated(quantity: Mapping[str, Any] | None) -> str:
    """Return a value with its standard uncertainty, "" for none."""
    return "" if quantity is None else value_with_su(quantity["value"], quantity["su"])


def cell_text(cell: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the refined cell: lengths in angstrom, angles in degrees."""
    greek = {"alpha": "α", "beta": "β", "gamma": "γ"}
    return ", ".join(
        f"{greek.get(name, name)} {estimated(value)}{'°' if name in greek else ''}" for name, value in cell.items()
    )


def _at_most(high: float | None) -> str:
    return "" if high is None else f"< {two_digits(100 * high)}"


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


def budget(document: Mapping[str, Any], order: Order) -> dict[str, Any]:
    """Return the uncertainty of ln Z by source, in percent of Z, largest first, and the combined one.

    The laboratory's own reproducibility stands apart: it is no part of the scan's budget, but of the decision.
    """
    rows = [(row["source"], 100.0 * row["u_ln"]) for row in document.get("budget") or () if row["u_ln"] is not None]
    rows.sort(key=lambda row: -row[1])
    ratio = document.get("mass_ratio") or {}
    combined = ""
    if rows and ratio.get("u_ln") is not None:
        combined = percent_text(100.0 * ratio["u_ln"])
    drawn, others = rows[:MOST_BARS], rows[MOST_BARS:]
    small = f"Others, each at most {percent_text(others[0][1])}: " if others else ""
    own = order.decision.get("method_u_ln")
    laboratory = [(REPRODUCIBILITY, 100.0 * own)] if rows and own else []
    return {
        "rows": [_bar(row, row in drawn) for row in rows],
        "others": small + ", ".join(source for source, _ in others),
        "combined": combined,
        "laboratory": [_bar(row, True) for row in laboratory],
    }


def _bar(row: tuple[str, float], drawn: bool) -> dict[str, Any]:
    source, value = row
    return {"source": source, "percent": value, "text": percent_text(value), "drawn": drawn}


def percent_text(value: float) -> str:
    """Return a share of Z in percent with two decimals, one from ten and none from a hundred percent."""
    decimals = 2 if value < 10.0 else 1 if value < 100.0 else 0
    return f"{at_decimals(value, decimals)} %" if value >= SMALLEST_PERCENT else "< 0.01 %"


def claims_content(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the cells of all claims; reasons name a severe finding by its code, its words stand among the findings."""
    severe = [finding for finding in findings(document) if finding["level"] == "severe"]
    words = "; ".join(f"{finding['code']}: {finding['message']}" for finding in severe)
    codes = ", ".join(dict.fromkeys(finding["code"] for finding in severe))
    without_sheet = not document.get("sample")
    rows = []
    for claim in document.get("claims") or ():
        why = str(claim.get("why", "")).replace(f"a severe finding ({words})", f"the severe finding {codes}")
        if without_sheet and claim["verdict"] == "not_assessed" and why.startswith(MISSING):
            why = NO_SHEET
        rows.append(claim_content({**claim, "why": why}))
    return shortened(rows)


def claim_content(claim: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cells of one claim."""
    number = int(claim["claim"])
    known = BY_NUMBER.get(number)
    features = known.features if known else ()
    shown = next((name for name in features if FEATURES[name].limits is not None), "")
    factor, unit = UNITS.get(shown, (1.0, ""))
    value, limits, p = claim.get("value"), claim.get("limits"), claim.get("probability")
    return {
        "claim": number,
        "text": known.text.replace("^3", "³").replace(" %", "\u00a0%") if known else "",
        "value": "" if value is None else f"{found_text(factor * value, shown)}{unit}",
        "limits": "" if not limits else f"{factor * limits[0]:g} to {factor * limits[1]:g}{unit}",
        "probability": probability_text(p),
        "verdict": claim["verdict"],
        "words": VERDICT_WORDS[claim["verdict"]],
        "provisional": is_provisional(claim),
        "why": in_shown_unit(why_text(str(claim.get("why", "")), claim["verdict"]), factor, unit),
        "risk": risk_text(claim),
    }


def found_text(value: float, feature: str) -> str:
    """Return a claim's value: what a sheet stated as it stands, what the scan gave with three digits."""
    return f"{value:.6g}" if feature in STATED_FEATURES else significant(value, 3)


def is_provisional(claim: Mapping[str, Any]) -> bool:
    """Return whether a claim's verdict holds only until the laboratory has stated its own reproducibility."""
    return PROVISIONAL in str(claim.get("why", ""))


def in_shown_unit(why: str, factor: float, unit: str) -> str:
    """Return a reason whose intervals and limits are in the unit in which the claim's value is shown."""
    if not unit:
        return why
    number = r"\d+(?:\.\d+)?(?:e-\d+)?"

    def scaled(match: re.Match[str]) -> str:
        words, low, high = match.groups()
        ends = [
            significant(factor * float(end), 4) if high else f"{factor * float(end):.4g}" for end in (low, high) if end
        ]
        return f"{words} {' to '.join(ends)}{unit}"

    return re.sub(rf"(% interval|lower limit|upper limit) ({number})(?: to ({number}))?", scaled, why)


def why_text(why: str, verdict: str) -> str:
    """Return what a verdict rests on, as short as it can be said.

    The remark about a provisional verdict is left out, it is printed once for all; so are the parents of a claim that
    is met or that its own features leave open; of a claim whose parents are not met, what speaks for it and what is
    missing; and what several parts begin with is said once.
    """
    parts = [part for part in why.split("; ") if not part.startswith(PROVISIONAL)]
    own = [part for part in parts if not part.startswith("claim ")]
    if verdict in ("met", "not_assessed") and own:
        parts = own
    decided = [part for part in parts if part.startswith("claim ") and part.endswith(": not met")]
    if verdict == "not_met" and decided:
        against = [part for part in own if not part.endswith(KEPT) and not part.startswith(MISSING)]
        parts = [*(against if against != ["no uncertainty is stated"] else []), *decided]
    missing = [part.removeprefix(MISSING) for part in parts if part.startswith(MISSING)]
    if missing:
        others = [part for part in parts if not part.startswith(MISSING)]
        parts = ["not stated: " + ", ".join(MISSING_WORDS.get(part, part) for part in missing), *others]
    text = "; ".join(parts)
    for column, words in STATED.items():
        text = text.replace(column, words)
    return text


def unassessed_text(document: Mapping[str, Any], claims: Sequence[Mapping[str, Any]]) -> str:
    """Return one sentence in the place of a table in which every claim is left open, "" when one was assessed."""
    if not claims or any(claim["verdict"] != "not_assessed" for claim in claims):
        return ""
    if not document.get("phases"):
        return "None of the claims was assessed: there is no fit."
    reasons = "; ".join(dict.fromkeys(claim["why"] for claim in claims[:2] if claim["why"]))
    return f"None of the claims was assessed: {reasons}."


def shortened(claims: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the claims with a reason that several give in full once, and as `as claim 5` afterwards."""
    first: dict[str, int] = {}
    for claim in claims:
        first.setdefault(claim["why"], claim["claim"])
    return [
        claim if first[claim["why"]] == claim["claim"] or len(claim["why"]) < LONG_REASON
        else {**claim, "why": f"as claim {first[claim['why']]}"}
        for claim in claims
    ]  # fmt: skip


def risk_text(claim: Mapping[str, Any]) -> str:
    """Return the specific risk of the decision behind the letter of its kind, "" where none is known."""
    risk = {"met": claim.get("consumer_risk"), "not_met": claim.get("producer_risk")}.get(claim["verdict"])
    return "" if risk is None else f"{RISKS[claim['verdict']][0]} {probability_text(risk)}"


def risk_words(claims: Sequence[Mapping[str, Any]]) -> str:
    """Return what the letters of the risks mean, for those that are shown."""
    shown = {claim["verdict"] for claim in claims if claim["risk"]}
    words = "; ".join(meaning for verdict, (_, meaning) in RISKS.items() if verdict in shown)
    return f"{words} (JCGM 106:2012), its parents included." if words else ""


def decided_text(document: Mapping[str, Any], order: Order) -> str:
    """Return how the intervals of the decision differ from those of the scan, "" when they do not."""
    own = order.decision.get("method_u_ln")
    if not own or not document.get("mass_ratio"):
        return ""
    return f"Intervals of the decision include the laboratory's own reproducibility of Z, {percent_text(100.0 * own)}."


def rules(document: Mapping[str, Any]) -> list[str]:
    """Return the decision rules that were applied, each once and in words."""
    found: dict[tuple[str, str], list[str]] = {}
    for claim in document.get("claims") or ():
        rule, _, space = str(claim.get("rule") or "").partition(", in ")
        words = next((text for start, text in RULES.items() if rule.startswith(start)), None)
        if words is not None and claim.get("verdict") != "not_assessed":
            spaces = found.setdefault((rule, words), [])
            spaces += [SPACES[space]] if space in SPACES and SPACES[space] not in spaces else []
    told = [
        f"{rule}: {words}{'; decided in ' if spaces else ''}{' and '.join(spaces)}."
        for (rule, words), spaces in found.items()
    ]
    return [text if number == 0 else text[0].upper() + text[1:] for number, text in enumerate(told)]


def provisional_text(document: Mapping[str, Any], order: Order) -> str:
    """Return in plain words why verdicts are provisional, "" when none is."""
    claims = [claim for claim in document.get("claims") or () if is_provisional(claim)]
    if not claims:
        return ""
    reasons = {
        part.partition(": ")[2]: None
        for claim in claims
        for part in str(claim["why"]).split("; ")
        if part.startswith(f"{PROVISIONAL}: ")
    }
    told = "; ".join(reasons) or "the laboratory's own uncertainty is not known"
    withheld = "" if order.decision.get("method_u_ln") else " Their uncertainty holds only what this one scan shows."
    return f"Verdicts marked † are provisional: {told}.{withheld}"


def agreement(document: Mapping[str, Any]) -> list[list[str]]:
    """Return label and text of the agreement indices and of how the fit ended."""
    found = document.get("agreement") or {}
    rows = [["Fit", status_text(document)]]
    for label, key, unit in (
        ("R_wp", "rwp", " %"),
        ("R_exp", "rexp", " %"),
        ("Goodness of fit", "gof", ""),
        ("R_wp after background", "rwp_background_subtracted", " %"),
        ("Durbin-Watson", "durbin_watson", ""),
    ):
        if found.get(key) is not None:
            rows.append([label, f"{at_decimals(found[key], 2)}{unit}"])
    return rows


def findings(document: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the findings, most serious first."""
    rows = [
        {key: str(finding.get(key) or "") for key in ("level", "code", "message", "where", "suggestion")}
        for finding in document.get("findings") or ()
    ]
    return sorted(rows, key=lambda row: LEVELS.index(row["level"]) if row["level"] in LEVELS else 0)


def grouped(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return the findings with those that share level, code and remedy as one entry of several messages."""
    groups: dict[tuple[str, str, str], list[Mapping[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["level"], row["code"], row["suggestion"]), []).append(row)
    return [
        {"level": level, "code": code, "suggestion": suggestion, "messages": messages_of(code, group)}
        for (level, code, suggestion), group in groups.items()
    ]


def messages_of(code: str, group: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the messages of findings with one remedy; of many peaks the first in full, the others by place."""
    others = [row["where"] for row in group[1:]]
    if code != UNEXPLAINED or len(others) < 2 or not all(map(is_number, others)):
        return [row["message"] for row in group]
    return [group[0]["message"], f"and {len(others)} more, at {', '.join(f'{float(at):.2f}' for at in others)} deg"]


def unexplained_angles(document: Mapping[str, Any]) -> list[float]:
    """Return where peaks stand that no phase explains, degrees 2theta."""
    places = (row["where"] for row in findings(document) if row["code"] == UNEXPLAINED)
    return [float(place) for place in places if is_number(place)]


def is_number(text: str) -> bool:
    """Return whether a text states a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def trace(document: Mapping[str, Any]) -> list[list[str]]:
    """Return label and text of what makes the result traceable to raw bytes."""
    software = ", ".join(f"{name} {version}" for name, version in (document.get("software") or {}).items())
    return [
        ["SHA-256 of the raw file", str(document.get("source", {}).get("sha256") or NOT_STATED)],
        ["SHA-256 of the method", str(document.get("method", {}).get("sha256") or NOT_STATED)],
        ["SHA-256 of the references", str(document.get("references_sha256") or NOT_STATED)],
        ["Software", software],
    ]


def issued_text(date: datetime) -> str:
    """Return a date of issue; its time where it has one."""
    zone = date.tzname() or "UTC"
    whole_day = (date.hour, date.minute, date.second) == (0, 0, 0)
    return f"{date:%Y-%m-%d}" if whole_day else f"{date:%Y-%m-%d %H:%M} {zone}"


def worst_level(document: Mapping[str, Any]) -> str:
    """Return the level of the most serious finding, "" without any."""
    present = {str(finding.get("level")) for finding in document.get("findings") or ()}
    return next((level for level in LEVELS if level in present), "")


def counted(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, int]:
    """Return how often each value of a key occurs, in the order first seen."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[str(row[key])] = counts.get(str(row[key]), 0) + 1
    return counts


def finite(value: float | None) -> float | None:
    """Return a number that exists, else None."""
    return value if value is not None and math.isfinite(value) else None
