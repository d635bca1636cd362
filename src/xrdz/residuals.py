"""What a fit leaves over: agreement indices and peaks no phase explains.

R_wp^2 = sum w (y - m)^2 / sum w y^2,  R_exp^2 = (N - P) / sum w y^2  (Young 1993, The Rietveld Method, table 1.3);
d = sum (r_i - r_(i-1))^2 / sum r_i^2 with r = sqrt(w) (y - m)  (Hill & Flack 1987, J. Appl. Cryst. 20, 356).

Unexplained peaks are sought by a matched filter and then tested: around each excess the residual is fitted,

    y - m  ~  s g(x - x_0) + c_0 + c_1 x + c_2 x^2 + sum_(k = 0..3) d_k P^(k)(x)

with g a peak of the local width and P the calculated peaks: a wrong area, position, width or asymmetry of a calculated
peak is a combination of P and its derivatives, a wrong tail or background a parabola. What is left for s is a peak of
its own, and its significance is s over its standard uncertainty, widened by the local misfit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdz.diffractogram import FloatArray
from xrdz.fit import FitResult
from xrdz.line_list import line_list
from xrdz.reference import Reference, load_library
from xrdz.wavelength import tube_lines

LEAST_SIGNIFICANCE = 6.0
"""Significance from which a peak is reported: less than one false peak in 1e5 scans of normal noise.

Poisson's skewness at few counts, and what misfit the local test leaves, need that reserve."""

WIDTH_FACTORS = (0.7, 1.0, 1.6)
"""Widths tried, in units of the narrowest phase's."""

WINDOW_WIDTHS = 6.0
"""Half width of the local test, in units of the width tried."""

LEAST_OF_CALCULATED = 0.25
"""A new peak is higher than this share of the calculated peaks it stands on; below, it is their misfit."""

LEAST_OF_NEIGHBOUR, NEIGHBOUR_WIDTHS = 0.006, 5.0
"""A new peak is higher than this share of any calculated peak this near: the feet of emission lines reach there."""

LEAST_SEEN = 0.5
"""Share of a fitted peak's height that the residual itself shows; less, and the height comes from compensation."""

LEAST_OF_REFLECTION, SAME_PLACE_WIDTHS = 0.3, 0.7
"""A reflection with this share of a new peak's area this close to it is taken as the one whose intensity is wrong."""

CELL_TOLERANCE, ANGLE_TOLERANCE_DEG = 0.004, 0.06
"""How far a reference's cell and the angles may be off when a peak is matched."""


LEAST_SCORE = 0.35
"""A reference is named from this score: a single line that nothing speaks against has 0.5, all lines of many have 1."""

GAUSS_AREA = 1.0645
"""Area of a Gaussian over height times full width."""


@dataclass(frozen=True)
class Agreement:
    """Agreement indices; R values in percent."""

    rwp: float
    rexp: float
    gof: float
    rwp_background_subtracted: float
    durbin_watson: float


@dataclass(frozen=True)
class ResidualPeak:
    """A peak no phase explains.

    Parameters
    ----------
    two_theta : deg
    significance : area over its standard uncertainty
    area : counts deg
    relative_height : relative to the strongest calculated peak
    fwhm : of the peak that fits best, deg
    tube_line : such as "K-beta of the peak at 31.77 deg", or ""
    matches : ids of references with a line there, best first, and the share of their visible lines that are present
    """

    two_theta: float
    significance: float
    area: float
    relative_height: float
    fwhm: float
    tube_line: str = ""
    matches: tuple[tuple[str, float], ...] = ()


def agreement_of(result: FitResult) -> Agreement:
    """Return the agreement indices of a fit."""
    y, m = result.diffractogram.intensity, result.model
    weights = result.minimum.weights
    misfit = float(np.sum(weights * (y - m) ** 2))
    whole = float(np.sum(weights * y**2))
    net = float(np.sum(weights * (y - result.background) ** 2))
    freedom = max(y.size - result.fisher.shape[0], 1)
    residual = np.sqrt(weights) * (y - m)
    return Agreement(
        rwp=100.0 * float(np.sqrt(misfit / whole)),
        rexp=100.0 * float(np.sqrt(freedom / whole)),
        gof=float(np.sqrt(misfit / freedom)),
        rwp_background_subtracted=100.0 * float(np.sqrt(misfit / net)) if net > 0 else 100.0,
        durbin_watson=float(np.sum(np.diff(residual) ** 2) / max(float(np.sum(residual**2)), 1e-300)),
    )


def typical_width(result: FitResult) -> FloatArray:
    """Return the narrowest phase's full width at each measured point, deg."""
    x = result.pattern.two_theta
    widths = []
    for state in result.states:
        order = np.argsort(state.centre)
        widths.append(np.interp(x, state.centre[order], state.fwhm[order]))
    width: FloatArray = np.min(widths, axis=0)
    return width


def unexplained_peaks(
    result: FitResult, *, least_significance: float = LEAST_SIGNIFICANCE, most: int = 12
) -> list[ResidualPeak]:
    """Return peaks in the residual by decreasing significance, with what they could belong to."""
    excess = _Excess.of(result)
    reflections = _Reflections.of(result)
    found: list[ResidualPeak] = []
    for place, factor in excess.maxima(least_significance):
        peak = excess.test(place, factor)
        if peak is None or peak.significance < least_significance or reflections.own(peak):
            continue
        if all(abs(peak.two_theta - other.two_theta) > peak.fwhm + other.fwhm for other in found):
            found.append(peak)
    found = sorted(found, key=lambda peak: -peak.significance)[:most]
    return _named(result, excess, reflections, found) if found else []


@dataclass(frozen=True)
class _Excess:
    """The residual with everything the search needs, on the measured points."""

    two_theta: FloatArray
    residual: FloatArray
    weights: FloatArray
    calculated: FloatArray  # peaks without background
    hidden: FloatArray  # height below which a peak could be misfit of the calculated ones
    width: FloatArray
    step: float
    strongest: float

    @classmethod
    def of(cls, result: FitResult) -> _Excess:
        x = result.pattern.two_theta
        calculated = np.maximum(result.model - result.background, 0.0)
        width, step = typical_width(result), result.pattern.grid.point_step
        return cls(
            two_theta=x,
            residual=result.diffractogram.intensity - result.model,
            weights=result.minimum.weights,
            calculated=calculated,
            hidden=np.maximum(
                LEAST_OF_CALCULATED * _highest(calculated, 0.5 * width, step),
                LEAST_OF_NEIGHBOUR * _highest(calculated, NEIGHBOUR_WIDTHS * width, step),
            ),
            width=width,
            step=step,
            strongest=float(np.max(calculated, initial=0.0)),
        )

    @cached_property
    def derivatives(self) -> FloatArray:
        """Calculated peaks and their first three derivatives, each scaled to a maximum of 1, (4, n)."""
        rows = [self.calculated]
        for _ in range(3):
            rows.append(np.gradient(rows[-1], self.two_theta))
        return np.array([row / max(float(np.max(np.abs(row))), 1e-300) for row in rows])

    def maxima(self, least: float) -> list[tuple[int, float]]:
        """Return places, and widths in units of the typical one, where the matched filter stands highest."""
        best, height = np.zeros(self.two_theta.size), np.zeros(self.two_theta.size)
        which = np.ones(self.two_theta.size)
        centre = float(np.median(self.width))
        for factor in WIDTH_FACTORS:
            half = max(int(np.ceil(1.5 * factor * centre / self.step)), 1)
            shape = _gauss(np.arange(-half, half + 1) * self.step, factor * centre)
            signal = np.convolve(self.residual * self.weights, shape, mode="same")
            information = np.maximum(np.convolve(self.weights, shape**2, mode="same"), 1e-300)
            significance = signal / np.sqrt(information)
            better = significance > best
            best, which = np.where(better, significance, best), np.where(better, factor, which)
            height = np.where(better, signal / information, height)
        peak = (best > least) & (height > self.hidden)
        peak[1:-1] &= (best[1:-1] >= best[:-2]) & (best[1:-1] > best[2:])
        places = np.flatnonzero(peak)
        return [(int(place), float(which[place])) for place in places[np.argsort(-best[places])][:40]]

    def test(self, place: int, factor: float) -> ResidualPeak | None:
        """Fit a peak beside the misfit of the calculated ones; None when it does not stand out of them."""
        best: ResidualPeak | None = None
        for stretch in (factor, 1.5 * factor):
            fwhm = stretch * float(self.width[place])
            for offset in (-0.3, 0.0, 0.3):
                peak = self._test_at(float(self.two_theta[place]) + offset * fwhm, fwhm)
                if peak is not None and (best is None or peak.significance > best.significance):
                    best = peak
        return best

    def _test_at(self, centre: float, fwhm: float) -> ResidualPeak | None:
        reach = WINDOW_WIDTHS * fwhm
        first, last = np.searchsorted(self.two_theta, (centre - reach, centre + reach))
        here = slice(int(first), int(last))
        t = (self.two_theta[here] - centre) / reach
        shape = _gauss(t * reach, fwhm)
        if t.size < 20 or np.count_nonzero(shape > 0.5) < 3:
            return None
        rows = np.vstack((shape, np.ones_like(t), t, t * t, self.derivatives[:, here]))
        root = np.sqrt(self.weights[here])
        body = rows * root
        norm = np.sqrt(np.sum(body**2, axis=1))
        used = norm > 1e-9 * norm[0]
        body = body[used] / norm[used, None]
        inverse = np.linalg.inv(body @ body.T + 1e-9 * np.eye(len(body)))
        target = root * self.residual[here]
        solution = inverse @ (body @ target)
        left = target - solution @ body
        misfit = max(float(left @ left) / max(t.size - len(body), 1), 1.0)
        height = float(solution[0]) / float(norm[0])
        su = float(np.sqrt(inverse[0, 0] * misfit)) / float(norm[0])
        seen = float(body[0] @ target) / float(norm[0])
        place = int(np.clip(np.searchsorted(self.two_theta, centre), 0, self.two_theta.size - 1))
        if min(height, seen) <= self.hidden[place] or seen < LEAST_SEEN * height:
            return None
        return ResidualPeak(
            two_theta=centre,
            significance=height / su,
            area=height * fwhm * GAUSS_AREA,
            relative_height=height / self.strongest if self.strongest > 0.0 else 0.0,
            fwhm=fwhm,
        )

    def su_area(self, two_theta: float, fwhm: float) -> float:
        """Return the standard uncertainty of a peak's area, raised to what calculated peaks would hide."""
        near = slice(*np.searchsorted(self.two_theta, (two_theta - fwhm, two_theta + fwhm)))
        shape = _gauss(self.two_theta[near] - two_theta, fwhm)
        information = float(np.sum(self.weights[near] * shape**2))
        if information <= 0.0:
            return np.inf
        hidden = float(np.max(self.hidden[near]))
        return GAUSS_AREA * fwhm * float(np.hypot(1.0 / np.sqrt(information), hidden))


def _highest(curve: FloatArray, reach: FloatArray, step: float) -> FloatArray:
    """Return the highest value of a curve within +-`reach` (its median, deg) of each point."""
    half = max(int(np.ceil(float(np.median(reach)) / step)), 1)
    highest = np.pad(curve, half, mode="edge")
    covered, window = 1, 2 * half + 1
    while covered < window:
        # The highest of twice as many points, or of as many as are still wanted.
        more = min(covered, window - covered)
        highest = np.maximum(highest[:-more], highest[more:])
        covered += more
    return highest


def _gauss(offset: NDArray[np.floating[Any]], fwhm: float) -> FloatArray:
    """Return a Gaussian of unit height."""
    shape: FloatArray = np.exp(-4.0 * np.log(2.0) * (offset / fwhm) ** 2)
    return shape


def _named(
    result: FitResult, excess: _Excess, reflections: _Reflections, peaks: Sequence[ResidualPeak]
) -> list[ResidualPeak]:
    """Return the peaks matched against the tube's other lines and against the reference library."""
    fitted = {phase.id for phase in result.pattern.phases}
    library = [item for item in load_library().values() if item.id not in fitted]
    scores = {item.id: _match(result, excess, peaks, item) for item in library}
    answer = []
    for peak in peaks:
        matching = [(id, found[peak.two_theta]) for id, found in scores.items() if peak.two_theta in found]
        answer.append(
            replace(
                peak,
                tube_line=_tube_line(result, excess, reflections, peaks, peak),
                matches=tuple(sorted(matching, key=lambda match: -match[1])[:3]),
            )
        )
    return answer


@dataclass(frozen=True)
class _Reflections:
    """The calculated reflections of all phases: Bragg angle and position (deg), area, and height of each."""

    bragg: FloatArray
    centre: FloatArray
    area: FloatArray
    height: FloatArray

    @classmethod
    def of(cls, result: FitResult) -> _Reflections:
        states = result.states
        area = np.concatenate([scale * state.intensity for state, scale in zip(states, result.scales, strict=True)])
        return cls(
            bragg=np.concatenate([state.bragg for state in states]),
            centre=np.concatenate([state.centre for state in states]),
            area=area,
            height=area / (GAUSS_AREA * np.concatenate([state.fwhm for state in states])),
        )

    def own(self, peak: ResidualPeak) -> bool:
        """Return whether a peak is rather the misfit of one calculated reflection, as texture leaves it."""
        near = np.abs(self.centre - peak.two_theta) < SAME_PLACE_WIDTHS * peak.fwhm
        return bool(np.any(near & (self.area > LEAST_OF_REFLECTION * peak.area)))

    def moved(self, angstrom: float, principal: float) -> FloatArray:
        """Return where the reflections stand at another wavelength, deg."""
        sine = np.sin(np.radians(0.5 * self.bragg)) * angstrom / principal
        moved: FloatArray = self.centre - self.bragg + 2.0 * np.degrees(np.arcsin(np.minimum(sine, 1.0)))
        return moved


def _tube_line(
    result: FitResult,
    excess: _Excess,
    reflections: _Reflections,
    peaks: Sequence[ResidualPeak],
    peak: ResidualPeak,
) -> str:
    """Return which other line of the tube, diffracted by a calculated peak, stands at a peak, or "".

    The same line of the strongest peak must then be there as well, unless it would be hidden.
    """
    wavelength = result.pattern.instrument.wavelength
    x = result.pattern.two_theta
    for line in tube_lines(wavelength):
        there = reflections.moved(line.angstrom, wavelength.principal)
        near = np.abs(there - peak.two_theta) < 0.5 * peak.fwhm + 0.03
        parents = np.flatnonzero(near & (peak.area < line.largest_share * reflections.area))
        if parents.size == 0:
            continue
        parent = parents[np.argmax(reflections.area[parents])]
        share = peak.area / reflections.area[parent]
        seen = (there > x[0]) & (there < x[-1])
        strongest = int(np.argmax(np.where(seen, reflections.area, 0.0)))
        expected = share * float(reflections.area[strongest])
        present = any(
            abs(other.two_theta - there[strongest]) < other.fwhm and other.area > 0.3 * expected for other in peaks
        )
        if present or expected < LEAST_SIGNIFICANCE * excess.su_area(float(there[strongest]), peak.fwhm):
            return f"{line.label} of the peak at {reflections.centre[parent]:.2f} deg"
    return ""


@lru_cache(maxsize=128)
def _lines(reference: Reference, wavelength: float, two_theta: tuple[float, float]) -> tuple[FloatArray, FloatArray]:
    """Return angles (deg) and relative intensities of a reference's lines that have at least 5 % of the strongest."""
    lines = line_list(reference, wavelength=wavelength, two_theta=two_theta)
    angle = np.array([line.two_theta for line in lines])
    intensity = np.array([line.intensity for line in lines])
    strong = intensity > 0.05 * np.max(intensity, initial=0.0)
    return angle[strong], intensity[strong] / np.max(intensity, initial=1e-300)


def _match(
    result: FitResult, excess: _Excess, peaks: Sequence[ResidualPeak], reference: Reference
) -> dict[float, float]:
    """Return, by the position of each peak a reference has a line at, how much of its pattern is there.

    If the peak is that line, every other line has a known area. Those that would be seen count with their intensities:
    the share of them that are found, times a factor that grows with their number.
    """
    x = result.pattern.two_theta
    low, high = max(float(x[0]), 1.0), min(float(x[-1]), 179.0)
    angle, intensity = _lines(reference, result.pattern.instrument.wavelength.principal, (low, high))
    if angle.size == 0:
        return {}
    # Zero and displacement shift a peak of this scan as they shift its neighbours.
    shift = np.zeros(angle.size)
    for state in result.states:
        order = np.argsort(state.bragg)
        shift = np.interp(angle, state.bragg[order], (state.centre - state.bragg)[order])
    expected = angle + shift
    tolerance = np.degrees(2.0 * np.tan(np.radians(0.5 * angle)) * CELL_TOLERANCE) + ANGLE_TOLERANCE_DEG
    positions = np.array([peak.two_theta for peak in peaks])
    distance = np.abs(positions[None, :] - expected[:, None]) / tolerance[:, None]
    nearest = np.argmin(distance, axis=1)
    present = distance[np.arange(angle.size), nearest] < 1.0
    scores: dict[float, float] = {}
    for line in np.flatnonzero(present):
        peak = peaks[int(nearest[line])]
        scale = peak.area / intensity[line]
        seen = [
            bool(present[k]) or scale * intensity[k] > 2.0 * LEAST_SIGNIFICANCE * excess.su_area(expected[k], peak.fwhm)
            for k in range(angle.size)
        ]
        visible = float(np.sum(intensity[seen]))
        found = float(np.sum(intensity[present]))
        score = found / max(visible, 1e-9) * (1.0 - 0.5 ** int(present.sum()))
        if score > scores.get(peak.two_theta, LEAST_SCORE):
            scores[peak.two_theta] = score
    return scores
