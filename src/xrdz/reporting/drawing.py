"""Vector drawings of a report as SVG text: the fit of a scan, and the mass ratios of a run.

Lengths are typographic points. A drawing holds paths and text only, so that a PDF keeps both sharp and selectable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from xrdz.diffractogram import FloatArray
from xrdz.plotting import PHASE_COLOURS
from xrdz.reporting.item import Curves

FONT = "Libertinus Serif"
INK, FAINT, GRID, BAND_FILL = "#22262B", "#6B737C", "#E4E7EB", "#DCE9F2"
OBSERVED, CALCULATED, BACKGROUND, EXCLUDED = "#33383E", "#C1121F", "#6E6E6E", "#B8B8B8"
BAND = 3.0
"""The difference over su of a right model lies within this in 99.7 % of the points."""

MOST_DOTS = 6000
"""Observed points that are drawn one by one; of more, the lowest and highest of each part are drawn."""

HIDDEN = 0.45
"""Points of the page within which a dot, twice as wide, hides another."""

LEGEND_CHARACTERS, LEGEND_LINE = 112, 9.5
"""Characters of a line of the legend, and the height of another one in points."""

GAP_STEPS = 5.0
"""A curve breaks where neighbouring points lie further apart than this many usual steps."""


@dataclass(frozen=True)
class Axis:
    """A linear map from data to points along the page, and where its marks stand."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: FloatArray | float) -> FloatArray:
        """Return the place of a value in points."""
        slope = (self.end - self.start) / (self.high - self.low)
        place: FloatArray = self.start + (np.asarray(value, dtype=np.float64) - self.low) * slope
        return place


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most about `most` round values from `low` to `high`, 1, 2 or 5 times a power of ten apart."""
    if not high > low:
        return [low]
    raw = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= raw * (1.0 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first
    return [round((first + k) * step, 12) for k in range(count + 1)]


def root_ticks(top: float) -> list[float]:
    """Return about seven round values from zero to `top`, evenly spaced in their square roots."""
    ticks = [0.0]
    for fraction in np.linspace(0.0, 1.0, 8)[1:]:
        value = top * float(fraction) ** 2
        unit = 10.0 ** math.floor(math.log10(value))
        rounded = min((1.0, 2.0, 3.0, 5.0, 7.0, 10.0), key=lambda digit: abs(digit * unit - value)) * unit
        if ticks[-1] < rounded <= top:
            ticks.append(rounded)
    return ticks


def text(x: float, y: float, content: str, *, size: float = 7.5, anchor: str = "start", colour: str = INK) -> str:
    """Return a text element; `content` is data and is escaped."""
    return (
        f'<text x="{x:.2f}" y="{y:.2f}" font-family="{FONT}" font-size="{size:g}" text-anchor="{anchor}" '
        f'fill="{colour}">{escape(content)}</text>'
    )


def path(d: str, *, colour: str, width: float, extra: str = "") -> str:
    """Return a stroked path element."""
    return f'<path d="{d}" fill="none" stroke="{colour}" stroke-width="{width:g}"{extra}/>'


def polyline(x: FloatArray, y: FloatArray, breaks: Sequence[int] = ()) -> str:
    """Return the path through points, thinned to what a page can show, broken before each index of `breaks`."""
    pieces = []
    for begin, end in zip((0, *breaks), (*breaks, x.size), strict=True):
        pieces.append("M" + _numbered("%.2f,%.2f ", *thinned(x[begin:end], y[begin:end])))
    return "".join(pieces)


def noisy_line(x: FloatArray, y: FloatArray, breaks: Sequence[int] = ()) -> str:
    """Return the path through the points of noise, as `envelope` leaves them, broken before each index of `breaks`."""
    pieces = zip((0, *breaks), (*breaks, x.size), strict=True)
    return "".join("M" + _numbered("%.2f,%.2f ", *envelope(x[begin:end], y[begin:end])) for begin, end in pieces)


def thinned(x: FloatArray, y: FloatArray, tolerance: float = 0.06) -> tuple[FloatArray, FloatArray]:
    """Return a curve without points that its neighbours' chord passes close by; ends are kept.

    Every second point is tried in each of eight passes, whose tolerances sum to `tolerance`, in points of the page.
    """
    for share in 0.5 ** np.arange(8, 0, -1):
        if x.size < 3:
            break
        last = x.size - 1 - (x.size - 1) % 2
        slope = np.diff(y[: last + 1 : 2]) / np.diff(x[: last + 1 : 2])
        chord = y[:last:2] + slope * (x[1:last:2] - x[:last:2])
        keep = np.ones(x.size, dtype=bool)
        keep[1:last:2] = np.abs(y[1:last:2] - chord) > share * tolerance
        x, y = x[keep], y[keep]
    return x, y


def _numbered(pattern: str, x: FloatArray, y: FloatArray) -> str:
    """Return the pattern filled with each pair of coordinates in turn."""
    pairs = np.stack((x, y), axis=1).ravel().tolist()
    return (pattern * x.size) % tuple(pairs)


def dots(x: FloatArray, y: FloatArray) -> str:
    """Return one path of a dot per point; of points that hide each other one is drawn, and at most about `MOST_DOTS`.

    Of more than those, the extremes of each of half as many parts are drawn.
    """
    cells = np.floor(np.stack((x, y)) / HIDDEN).astype(np.int64)
    chosen = np.sort(np.unique(cells, axis=1, return_index=True)[1])
    x, y = x[chosen], y[chosen]
    if x.size > MOST_DOTS:
        parts = np.array_split(np.arange(x.size), MOST_DOTS // 2)
        ends = [int(index) for part in parts for index in {part[np.argmin(y[part])], part[np.argmax(y[part])]}]
        x, y = x[sorted(ends)], y[sorted(ends)]
    return _numbered("M%.2f %.2fh0", x, y)


def envelope(x: FloatArray, y: FloatArray, width: float = 0.4) -> tuple[FloatArray, FloatArray]:
    """Return the lowest and highest point of a noisy curve in each column of the page, in their order.

    A line of this width covers the same paper through these as through all points.
    """
    columns = np.floor(x / width)
    starts = np.flatnonzero(np.diff(columns, prepend=columns[:1] - 1.0))
    order = np.lexsort((y, columns))
    ends = np.append(starts[1:], x.size) - 1
    kept = np.unique(np.concatenate((order[starts], order[ends], [0, x.size - 1])))
    return x[kept], y[kept]


def gaps(two_theta: FloatArray) -> list[int]:
    """Return the indices before which a curve breaks, because points were left out there."""
    steps = np.diff(two_theta)
    if steps.size == 0:
        return []
    return [int(place) + 1 for place in np.flatnonzero(steps > GAP_STEPS * float(np.median(steps)))]


def fit_drawing(
    curves: Curves,
    labels: Sequence[str],
    *,
    width: float = 510.0,
    height: float = 225.0,
    square_root: bool = False,
    marked: Iterable[float] = (),
    intensity_label: str = "counts",
) -> str:
    """Return the drawing of a fit: observed, calculated, background, phases, tick marks and the difference over su.

    Parameters
    ----------
    labels : one per phase of the curves, for the legend
    width, height : points
    square_root : scale of the intensity; in square roots the noise is equal everywhere
    marked : angles of peaks no phase explains, degrees 2theta
    """
    left, right = 34.0, width - 4.0
    tick_row = 6.5
    difference_height = 38.0
    legend = _legend_lines(labels)
    top, bottom = 14.0 + LEGEND_LINE * (len(legend) - 1), height - 24.0
    split = bottom - difference_height
    ticks_top = split - 3.0 - tick_row * len(curves.phases)
    x = curves.two_theta
    horizontal = Axis(float(x[0]), float(x[-1]), left, right)
    scale = np.sqrt if square_root else np.asarray
    highest = 1.03 * max(float(np.max(curves.observed, initial=1.0)), float(np.max(curves.calculated, initial=1.0)))
    lowest = min(0.0, 0.0 if square_root else float(np.min(curves.observed, initial=0.0)))
    vertical = Axis(float(scale(lowest)), float(scale(highest)), ticks_top - 3.0, top)

    def place(intensity: FloatArray) -> FloatArray:
        return vertical.at(scale(np.maximum(intensity, 0.0)) if square_root else intensity)

    px = horizontal.at(x)
    breaks = gaps(x)
    parts = [_shade(curves, horizontal, top, bottom)]
    parts += _intensity_marks(vertical, highest, lowest, left, right, square_root)
    parts += _angle_marks(horizontal, top, bottom, height)
    parts.append(text(left, 8.5, intensity_label + (", square-root scale" if square_root else ""), colour=FAINT))
    parts.append(path(dots(px, place(curves.observed)), colour=OBSERVED, width=0.9, extra=' stroke-linecap="round"'))
    for number, phase in enumerate(curves.phases):
        curve = polyline(px, place(curves.background + phase.intensity), breaks)
        parts.append(path(curve, colour=colour(number), width=0.55, extra=' stroke-opacity="0.85"'))
    parts.append(
        path(
            polyline(px, place(curves.background), breaks),
            colour=BACKGROUND,
            width=0.7,
            extra=' stroke-dasharray="3 2"',
        )
    )
    parts.append(path(polyline(px, place(curves.calculated), breaks), colour=CALCULATED, width=0.65))
    parts += _peak_marks(marked, curves, horizontal, place, top + 12.0, ticks_top)
    parts += _tick_rows(curves, horizontal, ticks_top, tick_row)
    parts += _difference(curves, px, breaks, left, right, split, bottom)
    parts += _legend(legend, right)
    frame = f"M{left:.2f} {top:.2f}H{right:.2f}V{bottom:.2f}H{left:.2f}z"
    parts.append(path(frame, colour=INK, width=0.5))
    return _svg(width, height, parts)


def colour(number: int) -> str:
    """Return the colour of a phase; it is the same in every plot of the program."""
    return PHASE_COLOURS[number % len(PHASE_COLOURS)]


def _svg(width: float, height: float, parts: Iterable[str]) -> str:
    box = quoteattr(f"0 0 {width:g} {height:g}")
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox={box}>{"".join(parts)}</svg>'


def _shade(curves: Curves, horizontal: Axis, top: float, bottom: float) -> str:
    areas = []
    for low, high in curves.excluded:
        begin = float(horizontal.at(max(low, horizontal.low)))
        end = float(horizontal.at(min(high, horizontal.high)))
        areas.append(
            f'<rect x="{begin:.2f}" y="{top:.2f}" width="{end - begin:.2f}" height="{bottom - top:.2f}" '
            f'fill="{EXCLUDED}" fill-opacity="0.35"/>'
        )
    return "".join(areas)


def _intensity_marks(
    vertical: Axis, highest: float, lowest: float, left: float, right: float, square_root: bool
) -> list[str]:
    parts = []
    for value in root_ticks(highest) if square_root else nice_ticks(lowest, highest, 6):
        y = float(vertical.at(math.sqrt(value) if square_root else value))
        parts.append(path(f"M{left:.2f} {y:.2f}H{right:.2f}", colour=GRID, width=0.4))
        parts.append(text(left - 3.0, y + 2.4, f"{value:g}" if value < 1e5 else f"{value:.0e}", size=7, anchor="end"))
    return parts


def _angle_marks(horizontal: Axis, top: float, bottom: float, height: float) -> list[str]:
    parts = []
    for value in nice_ticks(horizontal.low, horizontal.high, 10):
        at = float(horizontal.at(value))
        parts.append(path(f"M{at:.2f} {top:.2f}V{bottom:.2f}", colour=GRID, width=0.4))
        parts.append(path(f"M{at:.2f} {bottom:.2f}v2.5", colour=INK, width=0.5))
        shown = f"{value:g}"
        within = min(at, horizontal.end + 4.0 - 2.0 * len(shown))
        parts.append(text(within, bottom + 10.0, shown, size=7, anchor="middle"))
    middle = 0.5 * (horizontal.start + horizontal.end)
    parts.append(text(middle, height - 3.0, "2θ / degrees", anchor="middle"))
    return parts


def _peak_marks(
    marked: Iterable[float],
    curves: Curves,
    horizontal: Axis,
    place: Callable[[FloatArray], FloatArray],
    highest: float,
    lowest: float,
) -> list[str]:
    """Return a mark above each peak that no phase explains; a label that would lie on another is left out."""
    parts: list[str] = []
    labels: list[tuple[float, float]] = []
    for angle in marked:
        at = float(horizontal.at(angle))
        near = np.abs(curves.two_theta - angle) < 0.3
        tip = float(place(np.array([float(np.max(curves.observed[near], initial=0.0))]))[0]) - 2.0
        tip = min(max(tip, highest), lowest)
        parts.append(f'<path d="M{at:.2f} {tip:.2f}l-2 -4h4z" fill="#AA00AA"/>')
        inside = min(max(at, horizontal.start + 11.0), horizontal.end - 11.0)
        if all(abs(other - inside) > 22.0 or abs(level - tip) > 7.0 for other, level in labels):
            labels.append((inside, tip))
            parts.append(text(inside, tip - 5.5, f"{angle:.2f}°", size=6.5, anchor="middle", colour="#AA00AA"))
    return parts


def _tick_rows(curves: Curves, horizontal: Axis, ticks_top: float, tick_row: float) -> list[str]:
    parts = []
    for number, phase in enumerate(curves.phases):
        begin = ticks_top + tick_row * number
        marks = "".join(f"M{at:.2f} {begin + 1.0:.2f}v{tick_row - 2.0:.2f}" for at in horizontal.at(phase.positions))
        if marks:
            parts.append(path(marks, colour=colour(number), width=0.6))
    return parts


def _difference(
    curves: Curves, px: FloatArray, breaks: Sequence[int], left: float, right: float, split: float, bottom: float
) -> list[str]:
    difference = curves.weighted_difference
    reach = float(np.clip(1.1 * np.max(np.abs(difference), initial=0.0), 4.5, 12.0))
    vertical = Axis(-reach, reach, bottom, split)
    upper, lower, zero = (float(vertical.at(value)) for value in (BAND, -BAND, 0.0))
    parts = [
        f'<rect x="{left:.2f}" y="{upper:.2f}" width="{right - left:.2f}" height="{lower - upper:.2f}" '
        f'fill="{BAND_FILL}"/>',
        path(f"M{left:.2f} {zero:.2f}H{right:.2f}", colour=FAINT, width=0.4),
        path(noisy_line(px, vertical.at(np.clip(difference, -reach, reach)), breaks), colour=OBSERVED, width=0.4),
        f'<rect x="{left:.2f}" y="{split:.2f}" width="84" height="9.5" fill="#FFF" fill-opacity="0.75"/>',
        text(left + 3.0, split + 7.0, "(observed − calculated) / su", size=6.5, colour=FAINT),
        path(f"M{left:.2f} {split:.2f}H{right:.2f}", colour=INK, width=0.5),
    ]
    marked = BAND if reach < 2.0 * BAND else 10.0
    for value in (-marked, 0.0, marked):
        parts.append(
            text(left - 3.0, float(vertical.at(value)) + 2.2, f"{value:+g}" if value else "0", size=6.5, anchor="end")
        )
    return parts


def _legend_lines(labels: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Return name and colour of what the plot shows, in lines that fit its width."""
    entries = [("observed", OBSERVED), ("calculated", CALCULATED), ("background", BACKGROUND)]
    entries += [(label, colour(number)) for number, label in enumerate(labels)]
    lines: list[list[tuple[str, str]]] = [[]]
    for entry in entries:
        if lines[-1] and sum(len(name) + 5 for name, _ in [*lines[-1], entry]) > LEGEND_CHARACTERS:
            lines.append([])
        lines[-1].append(entry)
    return lines


def _legend(lines: Sequence[Sequence[tuple[str, str]]], right: float) -> list[str]:
    """Return the legend above the plot, right-aligned; phases have the colour of their curve and ticks."""
    parts = []
    for number, line in enumerate(lines):
        pieces = "<tspan>   </tspan>".join(
            f'<tspan fill="{shade}">{"●" if name == "observed" else "—"} {escape(name)}</tspan>' for name, shade in line
        )
        y = 8.5 + LEGEND_LINE * number
        parts.append(
            f'<text x="{right:.2f}" y="{y:.2f}" font-family="{FONT}" font-size="7.5" text-anchor="end">{pieces}</text>'
        )
    return parts


VERDICT_MARKS = {
    "met": ("met", "#146C43"),
    "not_met": ("not met", "#A4161A"),
    "undecided": ("undecided", "#B07D00"),
    "not_assessed": ("not assessed", "#5B636C"),
}
"""Word and colour of a verdict; each has its own shape too, for print without colours."""


@dataclass(frozen=True)
class RatioPoint:
    """The mass ratio of one scan: value (None where only a limit is known), ends of its interval, and the verdict."""

    value: float | None
    low: float | None
    high: float | None
    verdict: str

    @property
    def is_known(self) -> bool:
        """Whether there is anything to draw."""
        return any(end is not None and end > 0.0 for end in (self.value, self.low, self.high))


def ratio_drawing(
    points: Sequence[RatioPoint],
    limits: tuple[float, float] | None,
    *,
    label: str,
    width: float = 510.0,
    height: float = 150.0,
) -> str:
    """Return the mass ratios of a run in their order, on a logarithmic axis, with 95 % intervals and limits.

    Where only a limit is known an arrow leads from it to where the ratio lies.

    Parameters
    ----------
    limits : of the claim, drawn as dashed lines
    """
    left, right, top, bottom = 34.0, width - 4.0, 12.0, height - 22.0
    ends = [end for point in points for end in (point.value, point.low, point.high) if end is not None and end > 0.0]
    ends += list(limits or ())
    low, high = (min(ends) / 1.15, max(ends) * 1.15) if ends else (0.1, 10.0)
    vertical = Axis(math.log(low), math.log(high), bottom, top)
    horizontal = Axis(0.0, len(points) + 1.0, left, right)
    parts = []
    for value in _log_ticks(low, high):
        y = float(vertical.at(math.log(value)))
        parts.append(path(f"M{left:.2f} {y:.2f}H{right:.2f}", colour=GRID, width=0.4))
        parts.append(text(left - 3.0, y + 2.4, f"{value:g}", size=7, anchor="end"))
    for value in limits or ():
        y = float(vertical.at(math.log(value)))
        parts.append(path(f"M{left:.2f} {y:.2f}H{right:.2f}", colour=INK, width=0.7, extra=' stroke-dasharray="4 2"'))
    size = min(max(0.35 * (right - left) / (len(points) + 1.0), 0.5), 2.2)
    for number, point in enumerate(points, 1):
        if point.is_known:
            parts += _ratio_mark(point, float(horizontal.at(float(number))), vertical, size)
    for value in nice_ticks(1.0, float(len(points)), 10):
        if value == int(value) and value >= 1.0:
            parts.append(text(float(horizontal.at(value)), bottom + 9.5, f"{value:g}", size=7, anchor="middle"))
    parts.append(text(0.5 * (left + right), height - 3.0, "scan, as numbered in the table", anchor="middle"))
    parts.append(text(left, 8.0, label, colour=FAINT))
    at = right
    for verdict, (word, shade) in reversed(VERDICT_MARKS.items()):
        if any(point.verdict == verdict and point.is_known for point in points):
            at -= 3.6 * len(word)
            parts += [text(at, 8.0, word, colour=shade), verdict_mark(verdict, at - 5.0, 5.6, 2.2)]
            at -= 16.0
    parts.append(path(f"M{left:.2f} {top:.2f}H{right:.2f}V{bottom:.2f}H{left:.2f}z", colour=INK, width=0.5))
    return _svg(width, height, parts)


def _ratio_mark(point: RatioPoint, at: float, vertical: Axis, size: float) -> list[str]:
    """Return the interval of a mass ratio and its mark, or the arrow from a limit to where the ratio lies."""
    shade = VERDICT_MARKS[point.verdict][1]
    begin = float(vertical.at(math.log(point.low))) if point.low else vertical.start
    end = float(vertical.at(math.log(point.high))) if point.high else vertical.end
    parts = [path(f"M{at:.2f} {begin:.2f}V{end:.2f}", colour=shade, width=min(size, 0.8))]
    if point.value:
        return [*parts, verdict_mark(point.verdict, at, float(vertical.at(math.log(point.value))), size)]
    tip, known, back = (end, begin, size) if point.low else (begin, end, -size)
    arrow = f"M{at - size:.2f} {tip + 1.5 * back:.2f}L{at:.2f} {tip:.2f}L{at + size:.2f} {tip + 1.5 * back:.2f}"
    arrow += f"M{at - size:.2f} {known:.2f}h{2.0 * size:.2f}"
    return [*parts, path(arrow, colour=shade, width=0.8)]


def verdict_mark(verdict: str, x: float, y: float, size: float) -> str:
    """Return the mark of a verdict: a disc, a square, a triangle, or a ring, of this radius in points."""
    shade = VERDICT_MARKS[verdict][1]
    if verdict == "not_met":
        half = 0.9 * size
        return (
            f'<path d="M{x - half:.2f} {y - half:.2f}h{2 * half:.2f}v{2 * half:.2f}h{-2 * half:.2f}z" fill="{shade}"/>'
        )
    if verdict == "undecided":
        half = 1.2 * size
        return f'<path d="M{x:.2f} {y - half:.2f}l{half:.2f} {2 * half:.2f}h{-2 * half:.2f}z" fill="{shade}"/>'
    if verdict == "not_assessed":
        return f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{size:.2f}" fill="none" stroke="{shade}" stroke-width="0.7"/>'
    return f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{size:.2f}" fill="{shade}"/>'


def _log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2, 5 times powers of ten inside the range; powers alone where the range is wide."""
    decades = math.log10(high / low)
    digits = (1.0, 2.0, 5.0) if decades < 3.5 else (1.0,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
