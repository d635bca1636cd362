"""One analysis as text for people: the table `xrdz fit` prints without `--json`.

Values carry their combined standard uncertainty in brackets (see `numerals`); masses and their limits are in mass %.
All of it is ASCII but for names the user chose, so any terminal, file and printer shows the same; colour is added only
for a terminal.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from xrdz.claims import BY_NUMBER, ClaimResult
from xrdz.decision import Verdict
from xrdz.numerals import UNKNOWN, interval_text, su_decimals, value_with_su

if TYPE_CHECKING:
    from xrdz.analysis import Analysis, MassRatio, PhaseAnalysis
    from xrdz.findings import Finding

NARROWEST, WIDEST = 80, 100
NEGLIGIBLE_SHARE = 0.01
"""Rows of the budget below this share of the combined variance are named together."""

STATUS = {
    "converged": "converged",
    "at_bound": "converged, with a parameter on its bound (see findings)",
    "not_converged": "NOT converged: the numbers below are not a result",
    "failed": "FAILED",
}


@dataclass(frozen=True)
class Style:
    """How wide text may be, and whether a terminal shows colours."""

    width: int = WIDEST
    colour: bool = False

    def paint(self, text: str, code: str) -> str:
        """Return text in an ANSI colour, or as it is."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and text else text

    def bold(self, text: str) -> str:
        """Return text in bold."""
        return self.paint(text, "1")


VERDICT_COLOUR = {Verdict.MET: "32", Verdict.NOT_MET: "31", Verdict.UNDECIDED: "33"}
LEVEL_COLOUR = {"severe": "31", "warning": "33", "info": "36"}


def style_for(columns: int, *, is_terminal: bool, colour: bool) -> Style:
    """Return the style of a stream: its width kept between 80 and 100 columns."""
    return Style(min(max(columns, NARROWEST), WIDEST), is_terminal and colour)


def analysis_text(analysis: Analysis, style: Style | None = None) -> str:
    """Return everything about one analysis that a user at a terminal wants to see, with a final newline."""
    style = style or Style()
    blocks = [
        _heading(analysis, style),
        _phase_table(list(analysis.phases.values()), style),
        _ratio_lines(analysis, style),
        _claim_lines(analysis, style),
        _finding_lines(analysis.findings, style),
    ]
    return "\n".join("\n".join(block) + "\n" for block in blocks if block)


def _heading(analysis: Analysis, style: Style) -> list[str]:
    scan, source, wavelength = analysis.diffractogram, analysis.diffractogram.source, analysis.wavelength
    lines = [style.bold(source.path or "diffractogram")]
    span = f"{scan.n_points} points, {scan.two_theta[0]:.2f} to {scan.two_theta[-1]:.2f} deg 2theta"
    named = wavelength.name or f"{wavelength.principal:.5f} angstrom"
    origin = "assumed" if wavelength.origin == "default" else f"from the {wavelength.origin}"
    facts = [
        ("scan", f"{source.format + ', ' if source.format else ''}{span}, {scan.count_kind}, {named} ({origin})"),
        ("method", f"{analysis.method.name}, version {analysis.method.version}, sha256 {analysis.method.sha256[:12]}"),
    ]
    if analysis.method.deviations:
        facts.append(("changed", "; ".join(analysis.method.deviations)))
    fit = STATUS[analysis.status]
    if analysis.agreement is not None:
        values = analysis.agreement
        fit += (
            f"; R_wp {values.rwp:.2f} %, expected {values.rexp:.2f} %, goodness of fit {values.gof:.2f}, "
            f"R_wp after background {values.rwp_background_subtracted:.2f} %"
        )
    facts.append(("fit", fit))
    for label, text in facts:
        lines += _wrapped(text, f"  {label:<8}", style)
    return lines


def _phase_table(phases: Sequence[PhaseAnalysis], style: Style) -> list[str]:
    """Return masses first, then what the peaks say about grains and cells."""
    if not phases:
        return []
    masses = [["phase", "formula", "mass %", "95 % interval", "detection limit", "R_Bragg"]]
    grains = [["", "size/nm", "strain/%", "texture r", "density/(g/cm3)"]]
    cells = [["", "cell in angstrom and degrees"]]
    for phase in phases:
        fraction = phase.mass_fraction
        low, high = fraction.interval95
        decimals = max(su_decimals(100.0 * fraction.su), 0) if fraction.su > 0.0 else None
        masses.append(
            [
                phase.id,
                phase.formula,
                value_with_su(100.0 * fraction.value, 100.0 * fraction.su) if phase.detected else "not detected",
                interval_text(100.0 * low, 100.0 * high, decimals=decimals),
                _two_digits(100.0 * phase.detection_limit),
                UNKNOWN if phase.r_bragg is None else f"{phase.r_bragg:.1f} %",
            ]
        )
        axis = " ".join(map(str, phase.texture_axis))
        grains.append(
            [
                phase.id,
                UNKNOWN if phase.size_nm is None else value_with_su(*phase.size_nm),
                UNKNOWN if phase.strain is None else value_with_su(100.0 * phase.strain[0], 100.0 * phase.strain[1]),
                f"{value_with_su(*phase.texture_r)} [{axis}]",
                f"{phase.density:.3f}",
            ]
        )
        cells.append([phase.id, "  ".join(f"{name} {value_with_su(*value)}" for name, value in phase.cell.items())])
    if any(phase.absolute_fraction is not None for phase in phases):
        masses[0].insert(3, "% of all")
        for row, phase in zip(masses[1:], phases, strict=True):
            whole = phase.absolute_fraction
            row.insert(3, UNKNOWN if whole is None else value_with_su(100.0 * whole.value, 100.0 * whole.su))
    head, *body = _aligned(masses)
    return [style.bold(head), *body, *_aligned(grains), *_aligned(cells)]


def _ratio_lines(analysis: Analysis, style: Style) -> list[str]:
    ratio = analysis.mass_ratio
    if ratio is None:
        return []
    lines = [style.bold(ratio_text(ratio))]
    if analysis.budget and ratio.value > 0.0:
        lines += _wrapped(budget_text(analysis.budget), "  uncertainty of ln Z  ", style)
    if analysis.amorphous is not None:
        amorphous = analysis.amorphous
        share = value_with_su(100.0 * amorphous.value, 100.0 * amorphous.su)
        low, high = (100.0 * limit for limit in amorphous.interval95)
        lines.append(f"  amorphous or unseen  {share} mass % of all, 95 % interval {interval_text(low, high)}")
    if analysis.elements:
        shown = ", ".join(
            f"{name} {value_with_su(100.0 * value, 100.0 * su)}" for name, (value, su) in analysis.elements.items()
        )
        lines += _wrapped(f"{shown} mass %, implied by the crystalline phases", "  elements  ", style)
    return lines


def ratio_text(ratio: MassRatio) -> str:
    """Return the mass ratio with its 95 % interval, or its limit when a phase was not detected."""
    name = f"Z = m({ratio.numerator})/m({ratio.denominator})"
    low, high = ratio.interval95
    if ratio.limit is not None:
        missing = ratio.numerator if ratio.limit == "upper" else ratio.denominator
        bound = f"at most {high:.3g}" if ratio.limit == "upper" else f"at least {low:.3g}"
        return f"{name}: {bound} (95 %), as {missing} was not detected"
    usable = math.isfinite(ratio.su) and ratio.su > 0.0
    interval = interval_text(low, high, decimals=su_decimals(ratio.su) + 1 if usable else None)
    return f"{name} = {value_with_su(ratio.value, ratio.su)}   95 % interval {interval}"


def budget_text(budget: Mapping[str, float]) -> str:
    """Return the sources of the uncertainty of ln Z in percent, the largest first, and their root sum of squares."""
    items = sorted(budget.items(), key=lambda item: -item[1])
    total = math.sqrt(sum(u * u for _, u in items))
    shown = [(name, u) for name, u in items if u * u > NEGLIGIBLE_SHARE * total * total]
    rest = math.sqrt(sum(u * u for _, u in items[len(shown) :]))
    parts = [f"{name} {_percent(u)}" for name, u in shown]
    if rest > 0.0:
        parts.append(f"all others {_percent(rest)}")
    return f"{', '.join(parts)}; together {_percent(total)}"


def _claim_lines(analysis: Analysis, style: Style) -> list[str]:
    """Return a verdict in words for each claim that could be judged, and what the others need."""
    judged = [claim for claim in analysis.claims if claim.verdict is not Verdict.NOT_ASSESSED]
    lines = []
    for claim in judged:
        label = f"claim {claim.claim:<2} {claim.verdict.value.replace('_', ' '):<9} "
        text = BY_NUMBER[claim.claim].text + _probability(claim)
        lines += _wrapped(text, label, style, VERDICT_COLOUR[claim.verdict])
        lines += _wrapped(claim.why, " " * len(label), style)
    others = [claim.claim for claim in analysis.claims if claim not in judged]
    if judged and others:
        lines += _wrapped(
            f"claims {_ranges(others)} not assessed: the electrode's values come from --sample SHEET.csv", "", style
        )
    return lines


def _probability(claim: ClaimResult) -> str:
    if claim.probability is None:
        return ""
    p = claim.probability
    return f"; probability {'above 0.999' if p > 0.999 else 'below 0.001' if p < 0.001 else f'{p:.3f}'}"


def _finding_lines(findings: Sequence[Finding], style: Style) -> list[str]:
    """Return the findings; several with one code and suggestion share the suggestion's line."""
    lines: list[str] = []
    for (level, code, suggestion), group in groupby(findings, lambda f: (f.level.value, f.code.value, f.suggestion)):
        for number, finding in enumerate(group):
            text = finding.message if number else f"{code}: {finding.message}"
            lines += _wrapped(text, f"{'' if number else level:<9}", style, LEVEL_COLOUR[level])
        if suggestion:
            lines += _wrapped(f"-> {suggestion}", " " * 9, style)
    return lines


def _percent(u_ln: float) -> str:
    percent = 100.0 * u_ln
    return f"{percent:.2f} %" if percent < 1.0 else f"{percent:.1f} %"


def _two_digits(value: float) -> str:
    if not (math.isfinite(value) and value > 0.0):
        return UNKNOWN
    return f"{value:.{max(1 - math.floor(math.log10(value)), 0)}f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines with columns two blanks apart."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _wrapped(text: str, label: str, style: Style, label_colour: str = "") -> list[str]:
    """Return text wrapped to the width, indented under its label."""
    kept = text.replace(" %", "\xa0%")  # a number and its percent sign stay on one line
    wrapped = textwrap.wrap(
        kept, width=style.width, initial_indent=label, subsequent_indent=" " * len(label), break_long_words=False
    )
    lines = [line.replace("\xa0", " ") for line in wrapped] or [label.rstrip()]
    if label_colour:
        lines[0] = style.paint(label, label_colour) + lines[0][len(label) :]
    return lines


def _ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as `3-10` or `3, 5-7`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
