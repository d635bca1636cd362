"""Which column holds what: by the labels above, by an index that only counts, by the unit the header names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

import numpy as np

from xrdz.diffractogram import FloatArray
from xrdz.errors import InputError
from xrdz.findings import Code, Finding, info
from xrdz.readers.recorded import Axis, Unit


@dataclass(frozen=True)
class Columns:
    """The indices of the columns that are used, and what the header says of their units."""

    position: int
    intensity: int
    su: int | None = None
    step_time: int | None = None
    unit: Unit = "unknown"
    axis: Axis = "unnamed"


_POSITION_WORDS = (
    (
        re.compile(r"2\s*-?\s*(?:theta|θ|th\b|tth)|two\s*-?_?theta|\btth\b|^angle|°2th|2thet", re.IGNORECASE),
        "two_theta",
    ),
    (re.compile(r"^q\b|\bq\s*[\[(]|scattering vector|momentum", re.IGNORECASE), "q"),
    (re.compile(r"^d\b|d-?\s*(?:spacing|value)|\bd\s*[\[(]", re.IGNORECASE), "d"),
)
_NOT_POSITION = re.compile(r"wave\s*length|energy|\btime\b|\bnm\b|\bkev\b|raman|wavenumber|cm-1", re.IGNORECASE)
_INTENSITY_WORD = re.compile(
    r"intens|counts?\b|cts\b|cps\b|^i\b|^y(?:_?obs)?\b|yobs|^obs\b|\bi\s*[\[(]|^int\b|psd", re.IGNORECASE
)
_SU_WORD = re.compile(r"\besd\b|sigma|\bsu\b|\berr(?:or)?\b|uncert|std|^e$|^s$|\bdev\b", re.IGNORECASE)
_TIME_WORD = re.compile(r"time\s*per\s*step|timeperstep|counting\s*time|step\s*time", re.IGNORECASE)
_RATE_WORD = re.compile(r"\bcps\b|counts?\s*(?:/|per)\s*s(?:ec)?|cts/s|c/s\b", re.IGNORECASE)
_COUNTS_WORD = re.compile(r"\bcounts?\b|\bcts\b", re.IGNORECASE)


def columns_of(
    values: FloatArray, header: tuple[str, ...], place: str, line: int
) -> tuple[Columns, tuple[Finding, ...]]:
    """Return which column is what.

    Raises
    ------
    InputError
        If a label says the positions are no angles, no label is an intensity, or four columns or more have no labels.
    """
    width = values.shape[1]
    labels = _labels(header, width)
    offset = 0
    findings: tuple[Finding, ...] = ()
    if has_index(values):
        offset = 1
        findings = (info(Code.INDEX_COLUMN_SKIPPED, "the first column only counts the rows and was skipped", place),)
    where = f"{place} line {line}"
    if labels:
        return _labelled(labels, offset, "\n".join(header), where), findings
    if width - offset > 3:
        raise InputError(
            f"{where}: {width} columns without names, and which holds the intensity is ambiguous;"
            " keep 2theta, intensity and its uncertainty, or name the columns in a header line"
        )
    text = "\n".join(header)
    su = offset + 2 if width - offset == 3 else None
    return Columns(offset, offset + 1, su, None, unit_in(text), _axis_in(text)), findings


def _labelled(labels: list[str], offset: int, header_text: str, where: str) -> Columns:
    def first(pattern: re.Pattern[str], taken: set[int | None]) -> int | None:
        return next((i for i, label in enumerate(labels) if i not in taken and pattern.search(label)), None)

    named = [
        (index, kind) for index, label in enumerate(labels) for words, kind in _POSITION_WORDS if words.search(label)
    ]
    position, axis = named[0] if named else (offset, "unnamed")
    if not named and _NOT_POSITION.search(labels[offset]):
        raise InputError(f"{where}: the first column is {labels[offset][:40]!r}; expected 2theta in degrees")
    if axis == "two_theta" and re.search(r"\brad(?:ian)?s?\b", labels[position], re.IGNORECASE):
        axis = "radian"
    su, time = first(_SU_WORD, {position}), first(_TIME_WORD, {position})
    taken = {position, su, time}
    candidates = [i for i, label in enumerate(labels) if i not in taken and _INTENSITY_WORD.search(label)]
    observed = [i for i in candidates if re.search(r"obs|meas|exp|raw", labels[i], re.IGNORECASE)]
    rest = [i for i in range(offset, len(labels)) if i not in taken]
    chosen = next(iter(observed or candidates or rest), None)
    if chosen is None:
        raise InputError(f"{where}: columns {labels}; none is an intensity: name one of them so")
    unit = unit_in(labels[chosen])
    return Columns(position, chosen, su, time, unit if unit != "unknown" else unit_in(header_text), cast(Axis, axis))


def _labels(header: tuple[str, ...], width: int) -> list[str]:
    """Return the labels that the last header lines give the columns, or [] when none of them names that many."""
    for line in reversed(header[-3:]):
        bare = line.strip().lstrip("#!;'%*/& ").strip()
        for pattern in (r"\s*[,;\t|]\s*", r"\s{2,}", r"\s+"):
            labels = [label.strip().strip('"') for label in re.split(pattern, bare) if label.strip()]
            words = sum(
                bool(
                    _INTENSITY_WORD.search(label)
                    or _SU_WORD.search(label)
                    or any(p.search(label) for p, _ in _POSITION_WORDS)
                )
                for label in labels
            )
            if len(labels) == width and words >= 1:
                return labels
    return []


def _axis_in(header_text: str) -> Axis:
    if re.search(r"2\s*-?\s*(?:theta|θ|th\b)|two\s*-?theta|°2th", header_text, re.IGNORECASE):
        return "radian" if re.search(r"2\s*theta\D{0,12}\brad(?:ian)?s?\b", header_text, re.IGNORECASE) else "two_theta"
    if re.search(r"\bq\b[^\n]{0,6}(?:1/|Å|A\^?-1|nm)", header_text):
        return "q"
    if re.search(r"\bd\s*-?\s*spacing|\bd\s*[\[(]\s*(?:Å|A)", header_text):
        return "d"
    return "unnamed"


def unit_in(text: str) -> Unit:
    """Return the unit of the intensities that a label or a header names."""
    if _RATE_WORD.search(text):
        return "rate"
    return "counts" if _COUNTS_WORD.search(text) else "unknown"


def has_index(values: FloatArray) -> bool:
    """Return whether the first of three or more columns only counts the rows while the second rises evenly."""
    if values.shape[1] < 3 or values.shape[0] < 10:
        return False
    index, position = values[:, 0], values[:, 1]
    if index[0] not in (0.0, 1.0) or not np.all(np.diff(index) == 1.0):
        return False
    steps = np.diff(position)
    even = bool(np.all(steps > 0)) and float(np.ptp(steps)) < 0.5 * float(np.median(steps))
    return bool(even and position[0] > 0 and position[-1] <= 180 and np.median(steps) < 1.0)


def is_su_like(intensity: FloatArray, su: FloatArray) -> bool:
    """Return whether a column can be the uncertainty of the intensities: zeros and constants are judged later."""
    if not np.all(np.isfinite(su)) or bool(np.any(su < 0)):
        return False
    varied = (su > 0) & (intensity > 0) & np.isfinite(intensity)
    if np.count_nonzero(varied) < 0.5 * su.size or float(np.ptp(su[varied])) == 0.0:
        return True
    return (
        float(np.median(su[varied] / intensity[varied])) < 1.0
        and float(np.corrcoef(np.log(su[varied]), np.log(intensity[varied]))[0, 1]) > 0.2
    )
