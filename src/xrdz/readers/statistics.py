"""The one step that decides what the variance of every point is.

Poisson counts have variance equal to their expectation. If the file holds `y = s N`, then var(y) = s^2 <N> = s <y>: the
gain s is the variance divided by the expected intensity. Attenuation by a factor f is the same with s = f, a rate over
the time t has s = 1/t and is multiplied back to counts.

Where the file does not say, the gain is measured. Third differences annihilate any locally quadratic pattern and leave
20 times the variance of a point (1 + 9 + 9 + 1), so with the local mean m over the same four points

    gain = median(d3^2 / (20 m)) / median(chi2_1),     median(chi2_1) = 0.4549

Second differences (factor 6) give the same number for independent counts and a larger one for smoothed data, whose
neighbours are alike: that ratio recognises smoothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xrdz.diffractogram import CountKind, Diffractogram, FloatArray
from xrdz.findings import Code, Finding, info, severe, warning
from xrdz.readers.recorded import RecordedScan, Unit

CHI2_MEDIAN = 0.45493642311957283
"""Median of the chi-squared distribution with one degree of freedom."""

SMOOTHED_RATIO = 0.55
"""Third-difference variance over second-difference variance below which neighbouring points are not independent."""

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


@dataclass(frozen=True)
class MeasuredGain:
    """What the scatter of neighbouring points says: the gain, and how independent the points are."""

    gain: float
    independence: float


def measured_gain(intensity: FloatArray) -> MeasuredGain:
    """Return the gain that the scatter of smooth parts shows.

    Parameters
    ----------
    intensity : shape (n,), n >= 50, non-negative where counts are

    Returns
    -------
    gain : variance over expected intensity (robust, a few percent for 1000 points)
    independence : third- over second-difference variance; about 1 for independent points, below 0.5 for smoothed ones
    """
    third = intensity[3:] - 3 * intensity[2:-1] + 3 * intensity[1:-2] - intensity[:-3]
    second = intensity[2:-1] - 2 * intensity[1:-2] + intensity[:-3]
    level = 0.25 * (intensity[3:] + intensity[2:-1] + intensity[1:-2] + intensity[:-3])
    third_variance, second_variance = third**2 / 20.0, second**2 / 6.0
    # Steep flanks leak into the differences; the less intense three quarters hold nearly all of the smooth parts.
    smooth = level <= np.quantile(level, 0.75)
    floor = 1e-3 * max(float(np.abs(level).max()), 1e-300)
    positive = smooth & (level > floor)
    if np.count_nonzero(positive) < 20:
        positive = level > 0.0
    if not positive.any():
        return MeasuredGain(0.0, 1.0)
    gain = float(np.median(third_variance[positive] / level[positive])) / CHI2_MEDIAN
    second_median = float(np.median(second_variance[positive] / level[positive])) / CHI2_MEDIAN
    independence = gain / second_median if second_median > 0 else 1.0
    return MeasuredGain(gain, independence)


def variance_offset(intensity: FloatArray) -> float:
    """Return the variance at zero intensity, as a subtracted background leaves it; 0 when it is not significant.

    A line through the medians of ten bins of equal occupation, variance (of third differences) against level.
    """
    third = intensity[3:] - 3 * intensity[2:-1] + 3 * intensity[1:-2] - intensity[:-3]
    level = 0.25 * (intensity[3:] + intensity[2:-1] + intensity[1:-2] + intensity[:-3])
    third_variance = third**2 / 20.0
    order = np.argsort(level)
    bins = np.array_split(order, 10)
    levels = np.array([np.median(level[chosen]) for chosen in bins])
    variances = np.array([np.median(third_variance[chosen]) for chosen in bins]) / CHI2_MEDIAN
    if levels[0] > 0.2 * levels[-1]:
        return 0.0
    weight = 1.0 / np.maximum(variances, 1e-12 * max(float(variances.max()), 1e-300))
    mean_level, mean_variance = np.average(levels, weights=weight), np.average(variances, weights=weight)
    spread = np.average((levels - mean_level) ** 2, weights=weight)
    if spread <= 0:
        return 0.0
    slope = np.average((levels - mean_level) * (variances - mean_variance), weights=weight) / spread
    offset = float(mean_variance - slope * mean_level)
    return offset if offset > 0.3 * float(variances[0]) and offset > 0 else 0.0


def lattice_spacing(intensity: FloatArray) -> float:
    """Return the spacing of which all intensities are whole multiples (counts times a scale), or 0.

    Values written with few decimals are multiples of their last digit, which says nothing; the caller compares the
    spacing with the measured gain.
    """
    values = np.unique(intensity[intensity > 0])
    if values.size < 10:
        return 0.0
    differences = np.diff(values)
    spacing = float(differences[differences > 1e-9 * values[-1]].min(initial=np.inf))
    if not np.isfinite(spacing):
        return 0.0
    # The smallest difference carries the rounding of two printed values; refine it on the small multiples.
    multiples = np.rint(values / spacing)
    small = multiples <= 200
    if np.count_nonzero(small) < 5:
        return 0.0
    spacing = float(np.dot(values[small], multiples[small]) / np.dot(multiples[small], multiples[small]))
    deviation = np.abs(values[small] / spacing - np.rint(values[small] / spacing))
    return spacing if float(deviation.max()) < 0.1 else 0.0


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
    if unit == "rate" and time is not None and 0.4 < measured_gain(seen * time).gain < 2.5:
        counts = seen * time
        gain: float | FloatArray = 1.0 if attenuation is None else attenuation
        value = f"{time:g} s" if isinstance(time, float) else "the time of each step"
        findings.append(
            info(Code.NOT_COUNTS, f"the file holds counts per second; multiplied by {value} to give counts", place)
        )
        return Statistics(counts if attenuation is None else counts * attenuation, gain, None, "rate", tuple(findings))
    whole = bool(np.all(np.abs(seen - np.rint(seen)) <= 1e-6 * np.maximum(seen, 1.0)))
    if whole and unit != "rate":
        return _whole_numbers(seen, attenuation, findings, place)
    if unit == "counts":
        # Detectors that correct for dead time or flat field give fractions; the statistics stay those of counts.
        corrected = measured_gain(seen)
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
    typical = float(np.median(ratio)) if ratio.size else 0.0
    # Uncertainties are printed with few digits, so a few percent; attenuated points stand out by whole factors.
    proportional = ratio.size > 0 and float(np.max(np.abs(ratio / typical - 1.0))) < 0.1
    measured = measured_gain(intensity)
    whole = bool(np.all(np.abs(intensity - np.rint(intensity)) <= 1e-6 * np.maximum(intensity, 1.0)))
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
    measured = measured_gain(whole)
    gain = 1.0
    kind: CountKind = "counts"
    if divisor > 1 and 0.4 < measured.gain / divisor < 2.5:
        gain, kind = divisor, "scaled"
        findings.append(
            info(Code.NOT_COUNTS, f"all intensities are multiples of {divisor:g}: counts times {divisor:g}", place)
        )
    elif measured.gain > 3.0:
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
    elif measured.gain < 0.3 and float(np.median(whole)) >= 5.0:
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
    measured = measured_gain(seen)
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
    offset = variance_offset(seen)
    if offset > 0.0:
        su = np.sqrt(offset + measured.gain * np.maximum(seen, 0.0))
        findings.append(
            warning(
                Code.NOT_COUNTS,
                "the intensities are not counts and scatter at zero intensity, as after subtracting a background;"
                f" variance {offset:.3g} + {measured.gain:.3g} y from neighbouring points",
                place,
                "export the scan as it was measured, with its counts",
            )
        )
        factor = 1.0 if attenuation is None else attenuation
        return Statistics(seen * factor, 1.0, su * factor, "unknown", tuple(findings))
    spacing = lattice_spacing(seen)
    exact = spacing > 0 and 0.5 < measured.gain / spacing < 2.0
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
