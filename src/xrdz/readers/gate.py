"""The sanity gate behind every reader: what leaves it is a `Diffractogram` that keeps the invariant, or an error.

In this order: is it a powder scan, are there points, are they finite and not negative, is the axis 2theta, are
positions sorted and single, is there any intensity, what is the variance (`statistics.py`), are there spikes.
Whatever is changed leaves a finding; nothing is repaired in silence.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdz.diffractogram import Diffractogram, FloatArray, Source
from xrdz.errors import InputError
from xrdz.findings import Code, Finding, info, warning
from xrdz.readers.order_statistics import median
from xrdz.readers.recorded import METADATA_KEYS, Axis, RecordedScan
from xrdz.readers.spikes import spike_mask
from xrdz.readers.statistics import Statistics, statistics_of
from xrdz.wavelength import Wavelength

MIN_POINTS = 50
"""Fewer points hold no profile and no background."""

MIN_PART_POINTS = 20
"""Fewer points of a range that is joined with others do not show their statistics."""

MAX_MASKED_SHARE = 0.01
"""Share of missing, infinite or negative intensities above which a scan is refused."""

MIN_TOP_TWO_THETA = 12.0
"""Degrees; an unnamed axis that ends below is more likely q, d or radians than a powder scan in 2theta."""

MAX_OUT_OF_ORDER_SHARE = 0.01
MAX_DUPLICATE_SHARE = 0.2

NO_INTENSITY = 1e-12
"""Largest intensity that is nothing: below it are the denormal floats of a shifted binary file."""


def diffractogram_from_recorded(
    recorded: RecordedScan,
    *,
    source: Source,
    axis: Axis | None = None,
    wavelength: Wavelength | None = None,
    least_points: int = MIN_POINTS,
) -> Diffractogram:
    """Return the diffractogram of a recorded scan, or refuse it.

    Parameters
    ----------
    recorded : what a reader understood
    source : of the file
    axis : what the positions are, when the user says so; overrules the file
    wavelength : to convert positions in q or d when the file states none
    least_points : fewer are refused; a range that is one of several to be joined may be shorter

    Raises
    ------
    InputError
        If the scan is no powder scan or cannot be used; the message names the value, the expectation and the remedy.
    """
    place = source.path if not recorded.label else f"{source.path} ({recorded.label})"
    if recorded.not_powder:
        raise InputError(f"{place}: {recorded.not_powder}; expected intensity against 2theta of a powder")
    findings = list(recorded.findings)
    findings += _truncation(recorded, place)
    recorded, masked = _masked(recorded, place)
    findings += masked
    recorded, converted = _in_two_theta(recorded, place, source.path, axis, wavelength)
    findings += converted
    recorded, ordered = _ordered(recorded, place)
    findings += ordered
    _refuse_unusable(recorded, place, least_points)
    recorded, weight, merged = _single(recorded, place)
    findings += merged
    findings += _step_findings(recorded.position, place)
    statistics = statistics_of(recorded, place)
    if weight is not None:
        statistics = _merged_variance(statistics, weight)
    keep, spikes = spike_mask(recorded.position, statistics, place)
    findings += [*statistics.findings, *spikes]
    diffractogram = Diffractogram(
        two_theta=recorded.position.copy(),
        intensity=statistics.intensity.astype(np.float64, copy=True),
        gain=statistics.gain if isinstance(statistics.gain, float) else statistics.gain.copy(),
        su=None if statistics.su is None else statistics.su.copy(),
        wavelength=recorded.wavelength,
        count_kind=statistics.count_kind,
        metadata=_metadata(recorded, place),
        findings=tuple(findings),
        source=source,
    )
    return diffractogram if keep is None else diffractogram.select(keep)


def _metadata(recorded: RecordedScan, place: str) -> dict[str, Any]:
    unknown = set(recorded.metadata) - METADATA_KEYS
    if unknown:
        raise InputError(f"{place}: metadata {sorted(unknown)} is not in the vocabulary of recorded.py; report this")
    metadata = dict(recorded.metadata)
    time = recorded.step_time_s
    if time is not None and "step_time_s" not in metadata:
        metadata["step_time_s"] = float(np.median(time))
    return dict(sorted(metadata.items()))


def _chosen(recorded: RecordedScan, keep: NDArray[Any]) -> RecordedScan:
    """Return the recorded scan with the points (and their order) that a mask or an index array selects."""
    time = recorded.step_time_s
    return replace(
        recorded,
        position=recorded.position[keep],
        intensity=recorded.intensity[keep],
        su=None if recorded.su is None else recorded.su[keep],
        attenuation=None if recorded.attenuation is None else recorded.attenuation[keep],
        step_time_s=time[keep] if isinstance(time, np.ndarray) else time,
    )


def _truncation(recorded: RecordedScan, place: str) -> list[Finding]:
    announced, found = recorded.announced_points, recorded.position.size
    if announced is None or announced == found:
        return []
    if found < 0.5 * announced:
        raise InputError(
            f"{place}: the header announces {announced} points, the file holds {found}; copy or export the scan again"
        )
    return [
        warning(
            Code.TRUNCATED_FILE,
            f"the header announces {announced} points, the file holds {found}",
            place,
            "copy or export the scan again",
        )
    ]


def _masked(recorded: RecordedScan, place: str) -> tuple[RecordedScan, list[Finding]]:
    intensity, position = recorded.intensity, recorded.position
    if position.size == 0:
        raise InputError(f"{place}: no points; expected at least {MIN_POINTS}: export the scan again")
    if not np.all(np.isfinite(position)):
        bad = int(np.flatnonzero(~np.isfinite(position))[0])
        raise InputError(f"{place}: position {bad + 1} is {position[bad]}; expected 2theta in degrees in every row")
    with np.errstate(invalid="ignore"):
        # NaN is neither.
        bad_points = ~((intensity >= 0) & (intensity < np.inf))
    for factors, name in ((recorded.attenuation, "attenuation factor"), (recorded.step_time_s, "time per step")):
        if factors is None:
            continue
        values = np.atleast_1d(np.asarray(factors, dtype=np.float64))
        wrong = ~(np.isfinite(values) & (values > 0) & (values < 1e9))
        if wrong.any():
            raise InputError(f"{place}: {name} {values[wrong][0]:g}; expected a positive number: export the scan again")
    if not bad_points.any():
        if float(intensity.max()) > 1e15:
            raise InputError(f"{place}: intensity {intensity.max():g} is no count; the numbers are damaged")
        return recorded, []
    with np.errstate(invalid="ignore"):
        reasons = {"missing": np.isnan(intensity), "infinite": np.isinf(intensity), "negative": intensity < 0}
    what = ", ".join(f"{np.count_nonzero(mask)} {name}" for name, mask in reasons.items() if mask.any())
    share = float(np.count_nonzero(bad_points)) / intensity.size
    first = position[np.flatnonzero(bad_points)[0]]
    if share > MAX_MASKED_SHARE:
        remedy = "export the counts without subtracting a background" if reasons["negative"].any() else "export again"
        raise InputError(
            f"{place}: {what} of {intensity.size} intensities, first at {first:g};"
            f" at most {100 * MAX_MASKED_SHARE:g} % can be left out: {remedy}"
        )
    kept = _chosen(recorded, ~bad_points)
    if float(kept.intensity.max(initial=0.0)) > 1e15:
        raise InputError(f"{place}: intensity {kept.intensity.max():g} is no count; the numbers are damaged")
    return kept, [
        warning(Code.POINTS_MASKED, f"left out {what} of {intensity.size} intensities, first at {first:g}", place)
    ]


def _in_two_theta(
    recorded: RecordedScan, place: str, path: str, axis: Axis | None, wavelength: Wavelength | None
) -> tuple[RecordedScan, list[Finding]]:
    position = recorded.position
    low, high = float(position.min()), float(position.max())
    stated = axis or recorded.axis
    remedy = f"name the axis: xrdz read {path} --axis q|d|radian|two_theta [--wavelength CuKa] --to xye --out FILE.xye"
    if stated in ("q", "d", "radian"):
        lines = recorded.wavelength or wavelength
        if stated != "radian" and lines is None:
            raise InputError(f"{place}: positions are {stated} and no wavelength is known; {remedy}")
        angle = _angle_from(stated, position, lines.principal if lines else 1.0)
        if not np.all(np.isfinite(angle)):
            raise InputError(
                f"{place}: positions {low:g} to {high:g} as {stated} give no angle at this wavelength; {remedy}"
            )
        note = info(
            Code.READER_NOTE,
            f"positions {low:g} to {high:g} are {stated}; converted to 2theta {angle.min():.4f} to {angle.max():.4f}",
            place,
        )
        _refuse_impossible(angle, place, remedy)
        return replace(recorded, position=angle, axis="two_theta", wavelength=lines), [note]
    _refuse_impossible(position, place, remedy)
    if stated == "unnamed" and high < MIN_TOP_TWO_THETA:
        raise InputError(
            f"{place}: positions {low:g} to {high:g} without a unit could be q, d, radians or degrees; {remedy}"
        )
    return recorded, []


def _angle_from(axis: str, position: FloatArray, angstrom: float) -> FloatArray:
    """Return 2theta in degrees from q in 1/angstrom (4 pi sin(theta) / lambda), d in angstrom, or 2theta in radians."""
    if axis == "radian":
        return np.degrees(position)
    with np.errstate(invalid="ignore", divide="ignore"):
        sine = angstrom * position / (4 * np.pi) if axis == "q" else angstrom / (2 * position)
        angle: FloatArray = 2 * np.degrees(np.arcsin(sine))
    return angle


def _refuse_impossible(position: FloatArray, place: str, remedy: str) -> None:
    low, high = float(position.min()), float(position.max())
    if low <= 0 or high > 180:
        raise InputError(
            f"{place}: positions from {low:g} to {high:g} cannot be 2theta (above 0, up to 180 deg); {remedy}"
        )


def _ordered(recorded: RecordedScan, place: str) -> tuple[RecordedScan, list[Finding]]:
    position = recorded.position
    steps = np.diff(position)
    if position.size < 2 or bool(np.all(steps >= 0)):
        return recorded, []
    if bool(np.all(steps <= 0)):
        return _chosen(recorded, np.arange(position.size)[::-1]), [
            info(Code.POSITIONS_SORTED, f"positions run down from {position[0]:g} to {position[-1]:g}; sorted", place)
        ]
    falls = int(np.count_nonzero(steps < 0))
    first = int(np.flatnonzero(steps < 0)[0])
    where = f"{position[first + 1]:g} after {position[first]:g} at point {first + 2}"
    if falls > max(1.0, MAX_OUT_OF_ORDER_SHARE * position.size):
        raise InputError(
            f"{place}: 2theta decreases {falls} times ({where}); sort the file or check for two scans in it"
        )
    order = np.argsort(position, kind="stable")
    return _chosen(recorded, order), [
        warning(
            Code.POSITIONS_SORTED,
            f"2theta decreases {falls} times ({where}); sorted",
            place,
            "check the file for a damaged position or two scans",
        )
    ]


def _single(recorded: RecordedScan, place: str) -> tuple[RecordedScan, FloatArray | None, list[Finding]]:
    """Return the scan with repeated positions averaged, and how often each was measured (None: all once)."""
    position = recorded.position
    rises = np.diff(position) > 0
    if bool(rises.all()):
        return recorded, None, []
    new = np.append(True, rises)
    repeats = int(np.count_nonzero(~new))
    first = float(position[np.flatnonzero(~new)[0]])
    if repeats > MAX_DUPLICATE_SHARE * position.size:
        raise InputError(
            f"{place}: {repeats} of {position.size} positions are repeated, first {first:g} deg;"
            " write positions with more decimals, or check for two scans"
        )
    starts = np.flatnonzero(new)
    weight = np.diff(np.append(starts, position.size)).astype(np.float64)

    def mean(values: FloatArray) -> FloatArray:
        averaged: FloatArray = np.add.reduceat(values, starts) / weight
        return averaged

    time = recorded.step_time_s
    merged = replace(
        recorded,
        position=position[starts],
        intensity=mean(recorded.intensity),
        su=None if recorded.su is None else mean(recorded.su),
        attenuation=None if recorded.attenuation is None else mean(recorded.attenuation),
        step_time_s=mean(time) if isinstance(time, np.ndarray) else time,
    )
    return (
        merged,
        weight,
        [
            warning(
                Code.DUPLICATES_MERGED,
                f"{repeats} repeated positions were averaged, first at {first:g} deg",
                place,
                "check the file for two scans or positions with too few decimals",
            )
        ],
    )


def _merged_variance(statistics: Statistics, weight: FloatArray) -> Statistics:
    """Return the statistics of points that are means of `weight` measurements."""
    if statistics.su is not None:
        return replace(statistics, su=statistics.su / np.sqrt(weight))
    return replace(statistics, gain=statistics.gain / weight)


def _refuse_unusable(recorded: RecordedScan, place: str, least_points: int) -> None:
    if recorded.position.size < least_points:
        raise InputError(
            f"{place}: {recorded.position.size} points; expected at least {least_points}: is this a powder scan?"
        )
    if float(recorded.intensity.max()) < NO_INTENSITY:
        raise InputError(
            f"{place}: every intensity is 0; check that the shutter was open and the right column exported"
        )
    span = float(recorded.position[-1] - recorded.position[0])
    if span < 1.0:
        raise InputError(
            f"{place}: the scan covers {span:.3g} deg from {recorded.position[0]:g}; expected 1 deg or more of a powder"
        )


def _step_findings(position: FloatArray, place: str) -> list[Finding]:
    steps = np.diff(position)
    typical = median(steps)
    if typical > 1.0:
        raise InputError(f"{place}: the step is {typical:g} deg; expected less than 1 deg: peaks are not resolved")
    gaps = np.flatnonzero(steps > 10 * typical)
    if gaps.size and not _is_smoothly_variable(steps):
        first = int(gaps[0])
        return [
            info(
                Code.READER_NOTE,
                f"{gaps.size} gaps in 2theta, first from {position[first]:g} to {position[first + 1]:g} deg;"
                f" the usual step is {typical:.4g}",
                place,
            )
        ]
    return []


def _is_smoothly_variable(steps: FloatArray) -> bool:
    """Return whether the step grows or shrinks by at most a fifth from point to point, as in converted axes."""
    return bool(np.all(np.abs(np.diff(steps)) <= 0.2 * steps[:-1]))
