"""Shewhart control charts of the mass ratio: one per instrument and control sample, with Nelson's eight rules.

    x_i = ln Z_i,   centre = mean(x),   sigma = mean |x_i - x_(i-1)| / 1.128         (Shewhart 1931; ISO 7870-2:2013)

Rules: Nelson 1984, J. Qual. Technol. 16, 237. Rules 1, 5, 6 and, with eight points instead of nine, 2 are those of the
Western Electric handbook of 1956. A control sample is one that an instrument measured at least `LEAST_POINTS` times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from xrdz.diffractogram import FloatArray

LEAST_POINTS = 5
MEAN_RANGE_OF_TWO = 1.128
"""Expected range of two values of a normal distribution, in its standard deviations (d2)."""

RULES = (
    "1: one point beyond 3 sigma",
    "2: nine points in a row on one side of the centre",
    "3: six points in a row rising or falling",
    "4: fourteen points in a row alternating",
    "5: two of three points beyond 2 sigma on one side",
    "6: four of five points beyond 1 sigma on one side",
    "7: fifteen points in a row within 1 sigma",
    "8: eight points in a row beyond 1 sigma",
)


@dataclass(frozen=True)
class Measurement:
    """One scan on a control chart: its place in the run, ln Z, and when it was measured, in seconds, if known."""

    place: int
    ln_ratio: float
    time: float | None


@dataclass(frozen=True)
class ControlChart:
    """A control chart in ln Z; `broken` holds the rules each point breaks, by their numbers from 1.

    Parameters
    ----------
    places : of the scans in the run, in the order of the chart
    by_time : whether that order is the time of measurement, else the order in which they were given
    """

    instrument: str
    sample: str
    places: tuple[int, ...]
    ln_ratios: tuple[float, ...]
    centre: float
    sigma: float
    broken: tuple[tuple[int, ...], ...]
    by_time: bool


def control_chart(instrument: str, sample: str, measurements: Sequence[Measurement]) -> ControlChart | None:
    """Return the chart of one sample on one instrument, None with fewer than `LEAST_POINTS` measurements."""
    if len(measurements) < LEAST_POINTS:
        return None
    by_time = all(measurement.time is not None for measurement in measurements)
    ordered = sorted(measurements, key=lambda each: (each.time or 0.0, each.place)) if by_time else list(measurements)
    values = np.array([measurement.ln_ratio for measurement in ordered])
    centre = float(np.mean(values))
    sigma = float(np.mean(np.abs(np.diff(values)))) / MEAN_RANGE_OF_TWO
    return ControlChart(
        instrument,
        sample,
        tuple(measurement.place for measurement in ordered),
        tuple(values.tolist()),
        centre,
        sigma,
        broken_rules((values - centre) / sigma) if sigma > 0.0 else ((),) * len(ordered),
        by_time,
    )


def broken_rules(deviates: FloatArray) -> tuple[tuple[int, ...], ...]:
    """Return per point the numbers of Nelson's rules that are broken there, a pattern counting at its last point.

    Parameters
    ----------
    deviates : (x - centre) / sigma of each point in order
    """
    broken: list[tuple[int, ...]] = []
    for end in range(1, deviates.size + 1):
        found = []
        for number, (length, holds) in enumerate(_PATTERNS, 1):
            if end >= length and holds(deviates[end - length : end]):
                found.append(number)
        broken.append(tuple(found))
    return tuple(broken)


def _beyond(count: int, sigmas: float) -> Callable[[FloatArray], bool]:
    """Return the test whether `count` points, the last among them, lie beyond `sigmas` on one side."""

    def holds(window: FloatArray) -> bool:
        sides = (window > sigmas, window < -sigmas)
        return any(bool(side[-1]) and int(side.sum()) >= count for side in sides)

    return holds


def _alternating(window: FloatArray) -> bool:
    steps = np.sign(np.diff(window))
    return bool(np.all(steps[1:] * steps[:-1] < 0.0))


def _steady(window: FloatArray) -> bool:
    steps = np.diff(window)
    return bool(np.all(steps > 0.0) or np.all(steps < 0.0))


_PATTERNS: tuple[tuple[int, Callable[[FloatArray], bool]], ...] = (
    (1, lambda window: bool(abs(window[0]) > 3.0)),
    (9, _beyond(9, 0.0)),
    (6, _steady),
    (14, _alternating),
    (3, _beyond(2, 2.0)),
    (5, _beyond(4, 1.0)),
    (15, lambda window: bool(np.all(np.abs(window) < 1.0))),
    (8, lambda window: bool(np.all(np.abs(window) > 1.0))),
)
"""Per rule: how many points it looks at, and whether it is broken by them."""


def seconds(text: str) -> float | None:
    """Return a measurement's time as seconds since 1970 from ISO 8601 or a few usual forms; None when it is not clear.

    A time without a zone counts as UTC, which orders scans of one instrument all the same.
    """
    text = re.sub(r"\s+", " ", text.strip())
    moment = _parsed(text, "")
    for form in _FORMS:
        moment = moment or _parsed(text, form)
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


_FORMS = ("%d-%b-%Y %H:%M:%S", "%d-%b-%Y, %H:%M", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%Y/%m/%d %H:%M:%S")
"""Dates whose order of day and month is beyond doubt."""


def _parsed(text: str, form: str) -> datetime | None:
    """Return the moment a text states in a form, "" for ISO 8601; None when it is of another form."""
    try:
        return datetime.strptime(text, form) if form else datetime.fromisoformat(text)
    except ValueError:
        return None
