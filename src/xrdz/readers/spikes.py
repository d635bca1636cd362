"""Detector spikes: points that no line of any specimen on any laboratory diffractometer can make.

The rule is built to spare lines rather than to catch every spike: a line left out costs an analysis, a spike left in
costs a little of its agreement.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xrdz.diffractogram import FloatArray
from xrdz.findings import Code, Finding, warning
from xrdz.readers.order_statistics import median, quantile
from xrdz.readers.statistics import Statistics

NARROWEST_FWHM = 0.03
"""Degrees; the narrowest line a laboratory diffractometer makes."""

SPIKE_SIGNIFICANCE = 8.0
"""Standard deviations of counting by which a spike must stand above its surroundings."""

MARGIN = 5
"""Points on each side of a spike that are its surroundings; the nearest is its neighbour."""


def spike_mask(
    two_theta: FloatArray, statistics: Statistics, place: str
) -> tuple[NDArray[np.bool_] | None, list[Finding]]:
    """Return which points to keep (None: all) and the finding that lists the spikes.

    A spike is one to three points that stand `SPIKE_SIGNIFICANCE` standard deviations of counting above their
    surroundings while both neighbours are far lower than the narrowest line could leave them. A Gaussian line of full
    width w has, at the distance D from its maximum, the share exp(-4 ln2 (D / w)^2); real lines have wider feet, and
    K-alpha2. Half of that share, less three standard deviations, is required to be missing at both neighbours, so where
    the step is too coarse to tell, nothing is called a spike. w is half the width of the scan's own narrow lines, but
    at least `NARROWEST_FWHM`.
    """
    intensity = statistics.intensity
    n = intensity.size
    positive = np.maximum(intensity, 0.0)
    if statistics.su is None:
        unit = np.broadcast_to(np.asarray(statistics.gain, dtype=np.float64), (n,))
    else:
        unit = statistics.su**2 / np.maximum(positive, 1e-9 * max(float(positive.max()), 1e-300))
    line_width = max(NARROWEST_FWHM, 0.5 * _narrow_width(two_theta, intensity, unit * positive))
    # The same four points stand before a spike of any length.
    before = sum(
        (positive[offset : n - MARGIN + 1 + offset] for offset in range(1, MARGIN - 1)), positive[: n - MARGIN + 1]
    )
    spiked = np.zeros(n, dtype=bool)
    for length in (1, 2, 3):
        for start in _spikes_of(length, two_theta, positive, unit, line_width, before):
            spiked[start : start + length] = True
    if not spiked.any():
        return None, []
    at = two_theta[spiked]
    shown = ", ".join(f"{angle:.3f}" for angle in at[:10]) + (" ..." if at.size > 10 else "")
    finding = warning(
        Code.SPIKES_MASKED,
        f"{at.size} points narrower than a line can be were left out, at {shown} deg",
        place,
        "look at the scan; repeat it if they recur",
    )
    return ~spiked, [finding]


def _spikes_of(
    length: int,
    two_theta: FloatArray,
    intensity: FloatArray,
    unit: FloatArray,
    line_width: float,
    before: FloatArray,
) -> NDArray[np.intp]:
    """Return the first indices of spikes of `length` points; see `spike_mask`.

    `before` holds the sums of four neighbouring points, those that precede a spike and its neighbour.
    """
    margin = MARGIN
    n_starts = intensity.size - length - 2 * margin + 1
    if n_starts < 1:
        return np.zeros(0, dtype=np.intp)

    def shifted(offset: int) -> FloatArray:
        return intensity[margin + offset : margin + offset + n_starts]

    level = before[:n_starts]
    for offset in range(length + 1, length + margin):
        level = level + shifted(offset)
    level = level / (2 * (margin - 1))
    lowest = shifted(0)
    for offset in range(1, length):
        lowest = np.minimum(lowest, shifted(offset))
    scale = unit[margin : margin + n_starts]
    # The Anscombe transform makes Poisson counts normal with unit variance, also few of them.
    half_significance = np.sqrt(lowest / scale + 0.375) - np.sqrt(level / scale + 0.375)
    # Few points are that significant; the other conditions are worked out for them alone.
    starts: NDArray[np.intp] = np.flatnonzero(half_significance > SPIKE_SIGNIFICANCE / 2)
    if starts.size == 0:
        return starts
    level, lowest, scale = level[starts], lowest[starts], scale[starts]
    # A row for each offset, from the fifth point before the spike to the fifth after it.
    window = intensity[np.arange(length + 2 * margin)[:, None] + starts]
    left, spike, right = window[: margin - 1], window[margin : margin + length], window[margin + length + 1 :]
    # A line on one side lifts its mean: what the neighbours hold is measured above the quieter side.
    quiet = np.minimum(before[starts], sum(right[1:], right[0])) / (margin - 1)
    highest_around = np.maximum(left.max(axis=0), right.max(axis=0))
    highest = spike.max(axis=0)
    neighbour = np.maximum(window[margin - 1], window[margin + length])
    noise = np.sqrt(scale * np.maximum(level, scale))
    height = highest - level
    distance = 0.5 * (two_theta[margin + length + starts] - two_theta[margin - 1 + starts])
    share = np.exp(-4 * np.log(2.0) * (distance / line_width) ** 2)
    found = (
        (lowest - level >= 0.3 * height)
        & (highest_around - level <= 0.1 * height + 4 * noise)
        & (neighbour - quiet + 3 * noise < 0.5 * share * height)
    )
    first: NDArray[np.intp] = starts[found] + margin
    return first


def _narrow_width(two_theta: FloatArray, intensity: FloatArray, variance: FloatArray) -> float:
    """Return the lower quartile of the full widths at half maximum of the scan's strongest lines, deg; 0 without lines.

    The quartile rather than the median: lines that overlap look wide, and an underestimate only lets spikes pass.
    """
    level = median(intensity)
    inner = intensity[1:-1]
    peaks = np.flatnonzero((inner >= intensity[:-2]) & (inner > intensity[2:])) + 1
    noise = np.sqrt(np.maximum(variance[peaks], 1e-300))
    peaks = peaks[intensity[peaks] - level > 20 * noise]
    peaks = peaks[np.argsort(intensity[peaks])[::-1][:60]]
    widths: list[float] = []
    taken = np.zeros(intensity.size, dtype=bool)
    # One number at a time: `item` gives it without the overhead of an array's scalar.
    angle, height = two_theta.item, intensity.item
    last = intensity.size - 1
    for peak in peaks.tolist():
        if taken[peak]:
            continue
        half = 0.5 * (height(peak) + level)
        left = right = peak
        while left > 0 and height(left) > half:
            left -= 1
        while right < last and height(right) > half:
            right += 1
        taken[left : right + 1] = True
        low = _crossing(half, (height(left), angle(left)), (height(left + 1), angle(left + 1)))
        high = _crossing(-half, (-height(right - 1), angle(right - 1)), (-height(right), angle(right)))
        widths.append(high - low)
        if len(widths) == 20:
            break
    return quantile(np.array(widths), 0.25) if widths else 0.0


def _crossing(height: float, lower: tuple[float, float], upper: tuple[float, float]) -> float:
    """Return the angle at which the line between two points (height, angle) has a height; the nearer end outside."""
    (low, at_low), (high, at_high) = lower, upper
    if height >= high:
        return at_high
    if height <= low:
        return at_low
    return (at_high - at_low) / (high - low) * (height - low) + at_low
