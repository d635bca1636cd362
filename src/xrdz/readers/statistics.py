"""The one step that decides what the variance of every point is.

Poisson counts have variance equal to their expectation. If the file holds `y = s N`, then var(y) = s^2 <N> = s <y>: the
gain s is the variance divided by the expected intensity. Attenuation by a factor f is the same with s = f, a rate over
the time t has s = 1/t and is multiplied back to counts.

Where the file does not say, the gain is measured. Third differences annihilate any locally quadratic pattern and leave
20 times the variance of a point (1 + 9 + 9 + 1), so with the local mean m over the same four points

    gain = median(d3^2 / (20 m)) / median(chi2_1),     median(chi2_1) = 0.4549

Points four apart give the same number for independent counts and a larger one for smoothed data, whose neighbours are
alike: that ratio recognises smoothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from xrdz.diffractogram import CountKind, Diffractogram, FloatArray
from xrdz.findings import Code, Finding, info, severe, warning
from xrdz.readers.order_statistics import median, quantile
from xrdz.readers.recorded import RecordedScan, Unit

CHI2_MEDIAN = 0.45493642311957283
"""Median of the chi-squared distribution with one degree of freedom."""

SMOOTHED_RATIO = 0.4
"""Scatter of neighbours over scatter of distant points below which the data were smoothed."""

SMOOTHING_REACH = 4
"""Points apart at which smoothing over a usual window no longer makes values alike."""

NOISE_FREE_GAIN = 1e-7
"""Measured gain relative to the largest intensity below which there is no counting noise at all: 10^7 counts."""

ASSUMED_PEAK_COUNTS = 1e4
"""Counts given to the strongest point of a pattern that carries no usable noise: a typical laboratory scan."""


@dataclass(frozen=True)
class Statistics:
    """Intensities with their variance law: `gain * expected intensity`, or `su**2` where `su` is not None."""

    intensity: FloatArray
    gain: float | FloatArray
    su: FloatArray | None
    count_kind: CountKind
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, eq=False)
class MeasuredGain:
    """What the scatter of neighbouring points says: the gain, and how independent the points are.

    Each number is worked out when it is first asked for.

    Parameters
    ----------
    intensity : shape (n,), n >= 50, non-negative where counts are
    """

    intensity: FloatArray

    @cached_property
    def gain(self) -> float:
        """Variance over expected intensity in the less intense three quarters (a few percent for 1000 points)."""
        return _gain(*self._near, 0.75)

    @cached_property
    def background(self) -> float:
        """The same in the background alone, where no line leaks into the differences but fewer points count."""
        return _gain(*self._near, self._background_share)

    @cached_property
    def independence(self) -> float:
        """Gain of neighbours over gain of points four apart; about 1 for counts, far below 1 for smoothed data.

        Distant points see the flanks of lines, so the two are compared in the background alone.
        """
        reference = _gain(*_scatter(self.intensity, SMOOTHING_REACH), self._background_share)
        return self.background / reference if reference > 0 else 1.0

    @cached_property
    def _near(self) -> tuple[FloatArray, FloatArray]:
        return _scatter(self.intensity, 1)

    @property
    def _background_share(self) -> float:
        return max(0.25, min(0.75, 150.0 / self.intensity.size))


def _gain(scatter: FloatArray, level: FloatArray, share: float) -> float:
    """Return the median of scatter over level among the `share` of points that are least intense but not empty."""
    floor = 1e-3 * max(float(np.abs(level).max()), 1e-300)
    smooth = (level <= quantile(level, share)) & (level > floor)
    if np.count_nonzero(smooth) < 20:
        smooth = level > 0.0
    return median(scatter[smooth] / level[smooth]) / CHI2_MEDIAN if smooth.any() else 0.0


def _scatter(intensity: FloatArray, stride: int) -> tuple[FloatArray, FloatArray]:
    """Return the squared third differences over 20 of points `stride` apart, and the means of their four points."""
    n = intensity.size - 3 * stride
    a, b, c, d = (intensity[k * stride : k * stride + n] for k in range(4))
    return (d - 3 * c + 3 * b - a) ** 2 / 20.0, 0.25 * (a + b + c + d)


def variance_line(intensity: FloatArray) -> tuple[float, float] | None:
    """Return variance at zero intensity and variance per intensity, as a subtracted background leaves them.

    None where the variance at zero is not significant, as for counts that were only scaled, or for too few points.

    A weighted line through the medians of twenty bins of equal occupation, variance against level. The median of m
    squared normal deviates has the relative standard error 2.3 / sqrt(m); third differences overlap, hence twice that.
    """
    near, level = _scatter(intensity, 1)
    if level.size < 20:
        return None
    bins = np.array_split(np.argsort(level), 20)
    levels = np.array([median(level[chosen]) for chosen in bins])
    variances = np.array([median(near[chosen]) for chosen in bins]) / CHI2_MEDIAN
    if levels[0] > 0.5 * levels[-1] or not np.all(variances > 0):
        return None
    relative = 4.6 / np.sqrt(min(chosen.size for chosen in bins))
    weight = 1.0 / (relative * variances) ** 2
    moments = np.array([[weight.sum(), weight @ levels], [weight @ levels, weight @ levels**2]])
    covariance = np.linalg.inv(moments)
    offset, slope = (float(v) for v in covariance @ np.array([weight @ variances, weight @ (levels * variances)]))
    significant = offset > 4 * np.sqrt(covariance[0, 0]) and offset > 0.3 * float(variances[0])
    return (offset, max(slope, 0.0)) if significant else None


def lattice_spacing(intensity: FloatArray) -> float:
    """Return the spacing of which all intensities are whole multiples (counts times a scale), or 0.

    The smallest difference of two values is one step of the counts, known to the rounding of the printed numbers; it is
    refined on ever larger multiples as long as they stay whole. Multiples of the last printed digit say nothing of the
    counts, so a power of ten is not taken.
    """
    values = np.unique(intensity[intensity > 0])
    if values.size < 20:
        return 0.0
    differences = np.diff(values)
    spacing = float(differences.min())
    if spacing < 1e-7 * values[-1]:
        return 0.0
    apart = np.abs(values - values[int(differences.argmin())])
    for reach in (3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 1e5):
        chosen = apart[(apart > 0) & (apart <= reach * spacing)]
        multiples = np.rint(chosen / spacing)
        if float(np.abs(chosen / spacing - multiples).max()) > 0.2:
            return 0.0
        spacing = float(chosen @ multiples / (multiples @ multiples))
    multiples = np.rint(values / spacing)
    if float(np.abs(values / spacing - multiples).max()) > 0.2 or multiples[-1] < 20:
        return 0.0
    spacing = float(values @ multiples / (multiples @ multiples))
    exponent = np.log10(spacing)
    return 0.0 if abs(exponent - round(float(exponent))) < 1e-4 else spacing


def statistics_of(recorded: RecordedScan, place: str) -> Statistics:
    """Return intensities and variance law of a recorded scan of 50 finite points or more.

    Order of evidence: a column of uncertainties that agrees with the scatter; a rate with its time; whole numbers,
    which are counts; else the gain is measured. All but plain counts and sound uncertainties leave a finding.
    """
    intensity, findings = recorded.intensity, []
    su, su_findings = _usable_su(recorded, place)
    findings += su_findings
    attenuation = recorded.attenuation
    if attenuation is not None and bool(np.all(attenuation == 1.0)):
        attenuation = None
    seen = intensity if attenuation is None or not recorded.attenuation_applied else intensity / attenuation
    if attenuation is not None:
        findings.append(_attenuation_finding(attenuation, recorded.attenuation_applied, place))
    unit: Unit = recorded.unit
    time = recorded.step_time_s
    if su is not None:
        return _with_su(recorded, su, attenuation, findings, place)
    if unit == "rate" and time is not None and 0.4 < MeasuredGain(seen * time).gain < 2.5:
        counts = seen * time
        gain: float | FloatArray = 1.0 if attenuation is None else attenuation
        value = f"{time:g} s" if isinstance(time, float) else "the time of each step"
        findings.append(
            info(Code.NOT_COUNTS, f"the file holds counts per second; multiplied by {value} to give counts", place)
        )
        return Statistics(counts if attenuation is None else counts * attenuation, gain, None, "rate", tuple(findings))
    # A header may speak of counts per second above whole numbers that scatter as counts do.
    if _whole(seen) and (unit != "rate" or 0.5 < MeasuredGain(seen).gain < 2.0):
        return _whole_numbers(seen, attenuation, findings, place)
    if unit == "counts":
        # Detectors that correct for dead time or flat field give fractions; the statistics stay those of counts.
        corrected = MeasuredGain(seen)
        if 0.5 <= corrected.gain <= 2.0:
            findings.append(
                info(
                    Code.NOT_COUNTS,
                    "the file says counts but holds fractions; they scatter as counts do and are used as such",
                    place,
                )
            )
            gain = 1.0 if attenuation is None else attenuation
            return Statistics(
                seen if attenuation is None else seen * attenuation, gain, None, "counts", tuple(findings)
            )
    return _scaled(seen, attenuation, unit, findings, place)


def _whole(intensity: FloatArray) -> bool:
    """Return whether all intensities are whole numbers to the rounding of float32."""
    off = np.abs(intensity - np.rint(intensity)) <= 1e-6 * np.maximum(intensity, 1.0)
    return bool(np.all(off)) and float(intensity.max()) >= 1.0


def _attenuation_finding(attenuation: FloatArray, applied: bool, place: str) -> Finding:
    levels = np.unique(attenuation)
    shown = ", ".join(f"{level:g}" for level in levels[:6]) + (" ..." if levels.size > 6 else "")
    done = "the file had applied them already; their variance was taken into account" if applied else "applied once"
    affected = int(np.count_nonzero(attenuation != 1.0))
    return info(Code.ATTENUATOR_APPLIED, f"attenuation factors {shown} at {affected} points: {done}", place)


def _usable_su(recorded: RecordedScan, place: str) -> tuple[FloatArray | None, list[Finding]]:
    su = recorded.su
    if su is None:
        return None, []
    positive = np.isfinite(su) & (su > 0)
    share = float(np.count_nonzero(positive)) / su.size
    if share < 0.5 or float(np.ptp(su[positive])) <= 1e-9 * float(su[positive].max()):
        what = "zeros or missing" if share < 0.5 else f"the constant {su[positive][0]:g}"
        return None, [
            warning(
                Code.SIGMA_COLUMN_IGNORED,
                f"the column of uncertainties holds {what}; counting statistics are used instead",
                place,
                "export the scan with its counts",
            )
        ]
    if share < 1.0:
        # Programs write 0 for a point without counts; the smallest stated uncertainty is that of about one count.
        su = np.where(positive, su, float(su[positive].min()))
    return su, []


def _with_su(
    recorded: RecordedScan, su: FloatArray, attenuation: FloatArray | None, findings: list[Finding], place: str
) -> Statistics:
    intensity = recorded.intensity
    if attenuation is not None and not recorded.attenuation_applied:
        intensity, su = intensity * attenuation, su * attenuation
    if recorded.unit == "rate" and recorded.step_time_s is not None:
        intensity, su = intensity * recorded.step_time_s, su * recorded.step_time_s
    positive = intensity > 0
    ratio = su[positive] ** 2 / intensity[positive]
    typical = median(ratio) if ratio.size else 0.0
    # Uncertainties are printed with few digits, so a few percent; attenuated points stand out by whole factors.
    proportional = ratio.size > 0 and float(np.max(np.abs(ratio / typical - 1.0))) < 0.1
    measured = MeasuredGain(intensity)
    whole = _whole(intensity)
    counted = whole or recorded.unit == "counts"
    kind: CountKind = "counts" if counted else "scaled" if recorded.unit != "rate" else "rate"
    if proportional and abs(typical - 1.0) < 0.02 and whole:
        return Statistics(intensity, 1.0, None, "counts", tuple(findings))
    agreement = measured.gain / typical if typical > 0 else 0.0
    if proportional and not (0.4 < agreement < 2.5):
        findings.append(
            warning(
                Code.SIGMA_COLUMN_IGNORED,
                f"the uncertainties are sqrt({typical:.3g} y), but neighbouring points scatter as"
                f" sqrt({measured.gain:.3g} y); the scatter is used instead",
                place,
                "export the scan with its counts",
            )
        )
        return _scaled(intensity, None, recorded.unit, findings, place)
    if not counted:
        findings.append(
            info(Code.NOT_COUNTS, "the intensities are not counts; the file's own uncertainties are used", place)
        )
    if not (0.25 < agreement < 4.0):
        findings.append(
            warning(
                Code.NOT_COUNTS,
                f"the stated uncertainties and the scatter of the points differ: variance ratio {agreement:.2g}",
                place,
                "check how the uncertainties were made",
            )
        )
    return Statistics(intensity, typical if proportional else 1.0, None if proportional else su, kind, tuple(findings))


def _whole_numbers(seen: FloatArray, attenuation: FloatArray | None, findings: list[Finding], place: str) -> Statistics:
    whole = np.rint(seen)
    divisor = float(np.gcd.reduce(whole.astype(np.int64)))
    measured = MeasuredGain(whole)
    gain = 1.0
    kind: CountKind = "counts"
    if divisor > 1 and 0.4 < measured.gain / divisor < 2.5:
        gain, kind = divisor, "scaled"
        findings.append(
            info(Code.NOT_COUNTS, f"all intensities are multiples of {divisor:g}: counts times {divisor:g}", place)
        )
    elif measured.gain > 3.0 and measured.background > 3.0:
        gain, kind = measured.gain, "scaled"
        findings.append(
            warning(
                Code.NOT_COUNTS,
                f"whole numbers, but neighbouring points scatter {np.sqrt(gain):.3g} times as much as counts do;"
                f" taken as counts times {gain:.3g}",
                place,
                "export the scan with its counts",
            )
        )
    elif measured.gain < 0.3 and median(whole) >= 5.0:
        findings.append(
            warning(
                Code.NOT_COUNTS,
                f"whole numbers, but neighbouring points scatter only {np.sqrt(max(measured.gain, 0.0)):.2g} times as"
                " much as counts do: rates or smoothed data; counting statistics of the numbers are used",
                place,
                "export the scan with its counts",
            )
        )
    if attenuation is None:
        return Statistics(whole, gain, None, kind, tuple(findings))
    return Statistics(whole * attenuation, gain * attenuation, None, kind, tuple(findings))


def _scaled(
    seen: FloatArray, attenuation: FloatArray | None, unit: Unit, findings: list[Finding], place: str
) -> Statistics:
    kind: CountKind = "rate" if unit == "rate" else "scaled"
    measured = MeasuredGain(seen)
    largest = float(seen.max())
    if measured.gain <= NOISE_FREE_GAIN * largest or measured.independence < SMOOTHED_RATIO:
        why = (
            "there is no counting noise: calculated or heavily smoothed"
            if measured.gain <= NOISE_FREE_GAIN * largest
            else "neighbouring points are alike: the data were smoothed or rebinned"
        )
        gain = max(largest / ASSUMED_PEAK_COUNTS, measured.gain)
        findings.append(
            severe(
                Code.NOT_COUNTS,
                f"the intensities are not counts and {why}; {ASSUMED_PEAK_COUNTS:g} counts at the strongest point are"
                " assumed and no uncertainty can be trusted",
                place,
                "export the scan as it was measured, with its counts",
            )
        )
        return _attenuated(seen, attenuation, gain, "unknown", findings)
    line = variance_line(seen)
    if line is not None:
        offset, slope = line
        su = np.sqrt(offset + slope * np.maximum(seen, 0.0))
        findings.append(
            warning(
                Code.NOT_COUNTS,
                "the intensities are not counts and scatter at zero intensity, as after subtracting a background;"
                f" variance {offset:.3g} + {slope:.3g} y from neighbouring points",
                place,
                "export the scan as it was measured, with its counts",
            )
        )
        factor = 1.0 if attenuation is None else attenuation
        return Statistics(seen * factor, 1.0, su * factor, "unknown", tuple(findings))
    spacing = lattice_spacing(seen)
    exact = spacing > 0 and 0.7 < measured.gain / spacing < 1.4
    gain = spacing if exact else measured.gain
    how = f"all are multiples of {gain:.6g}" if exact else "from the scatter of neighbouring points"
    what = "a rate without its time per step" if unit == "rate" else "not counts"
    findings.append(
        warning(
            Code.NOT_COUNTS,
            f"the intensities are {what}; variance {gain:.3g} times the intensity ({how})",
            place,
            "export the scan with its counts, or state the time per step",
        )
    )
    return _attenuated(seen, attenuation, gain, kind, findings)


def _attenuated(
    seen: FloatArray, attenuation: FloatArray | None, gain: float, kind: CountKind, findings: list[Finding]
) -> Statistics:
    if attenuation is None:
        return Statistics(seen, gain, None, kind, tuple(findings))
    return Statistics(seen * attenuation, gain * attenuation, None, kind, tuple(findings))


def uncertainty(diffractogram: Diffractogram) -> FloatArray:
    """Return the standard uncertainty of each point; a point without counts has that of one count."""
    if diffractogram.su is not None:
        return diffractogram.su
    gain = np.asarray(diffractogram.gain, dtype=np.float64)
    su: FloatArray = np.sqrt(gain * np.maximum(diffractogram.intensity, gain))
    return su


def is_plain_counts(diffractogram: Diffractogram) -> bool:
    """Return whether the variance of every point is its expected intensity."""
    return diffractogram.su is None and isinstance(diffractogram.gain, float) and diffractogram.gain == 1.0
