"""Files with several scans: choosing one, and adding them.

Scans on one grid add as counts. Ranges measured with different times are put on the time of the first: a point with
N counts in the time t, shown as N t1/t, has variance t1/t times its expectation.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.errors import InputError
from xrdz.findings import Code, Finding, info
from xrdz.readers.gate import MIN_POINTS
from xrdz.readers.recorded import RecordedScan

SAME_POSITION = 0.1
"""Share of a step within which two positions are the same."""


def chosen_index(scans: list[RecordedScan], scan: str | int | None, place: str) -> int:
    """Return the index of the scan that the user chose.

    Raises
    ------
    InputError
        If there are several and none was chosen, or the choice does not exist; the message lists the scans.
    """
    if scan is None or scan == "sum":
        if len(scans) == 1:
            return 0
        usable = [item for item in scans if not item.not_powder]
        if not usable:
            raise InputError(
                f"{place}: {len(scans)} scans, none of a powder: {scans[0].not_powder};"
                " expected intensity against 2theta of a powder"
            )
        raise InputError(
            f"{place}: {len(scans)} scans in the file: {listing(scans)}; choose with --scan N, --scan sum or --scan all"
        )
    text = str(scan).strip()
    if not text.isdecimal() or not (1 <= int(text) <= len(scans)):
        raise InputError(
            f"{place}: --scan {text!r}; the file holds {len(scans)}: {listing(scans)}; give a number, sum or all"
        )
    return int(text) - 1


def listing(scans: list[RecordedScan]) -> str:
    """Return the scans as one line, the first eight of many."""
    shown = [f"{number}: {item.label or f'{item.position.size} points'}" for number, item in enumerate(scans, 1)]
    return "; ".join(shown[:8]) + ("; ..." if len(shown) > 8 else "")


def chosen_note(diffractogram: Diffractogram, n_scans: int) -> Diffractogram:
    """Return the diffractogram with the finding that it is one of several."""
    if n_scans == 1:
        return diffractogram
    note = info(
        Code.MULTIPLE_SCANS, f"scan {diffractogram.source.scan} of {n_scans} in the file", diffractogram.source.path
    )
    return replace(diffractogram, findings=(note, *diffractogram.findings))


def summed(scans: list[Diffractogram], place: str) -> Diffractogram:
    """Return several scans as one: counts added where positions agree, points side by side where they do not.

    Raises
    ------
    InputError
        If the wavelengths differ, only some scans state their time per step, or there are too few points in all.
    """
    first = scans[0]
    for number, other in enumerate(scans[1:], 2):
        if (other.wavelength and other.wavelength.lines) != (first.wavelength and first.wavelength.lines):
            raise InputError(f"{place}: scans 1 and {number} have different wavelengths; choose one with --scan N")
    exposure, times_findings = _exposures(scans, place)
    position = np.concatenate([item.two_theta for item in scans])
    counts = np.concatenate([item.intensity for item in scans])
    variance_law = np.concatenate([_gain_of(item) for item in scans])
    time = np.concatenate([np.full(item.n_points, t) for item, t in zip(scans, exposure, strict=True)])
    order = np.argsort(position, kind="stable")
    position, counts, variance_law, time = position[order], counts[order], variance_law[order], time[order]
    step = float(np.median(np.concatenate([np.diff(item.two_theta) for item in scans])))
    new = np.concatenate([[True], np.diff(position) > SAME_POSITION * step])
    starts = np.flatnonzero(new)
    at = position[starts]
    if at.size < MIN_POINTS:
        raise InputError(
            f"{place}: {at.size} points in all scans; expected at least {MIN_POINTS}: is this a powder scan?"
        )
    total, total_time = np.add.reduceat(counts, starts), np.add.reduceat(time, starts)
    weighted = np.add.reduceat(variance_law * np.maximum(counts, 1e-300), starts)
    gain = weighted / np.maximum(total, 1e-300)
    uniform = bool(np.all(np.abs(total_time - total_time[0]) < 1e-6 * total_time[0]))
    scale = np.ones_like(total) if uniform else exposure[0] / total_time
    intensity, gain = total * scale, gain * scale
    findings = list(dict.fromkeys(finding for item in scans for finding in item.findings))
    note = info(Code.MULTIPLE_SCANS, f"the sum of {len(scans)} scans in the file", place)
    metadata = dict(first.metadata)
    if uniform and "step_time_s" in metadata:
        metadata["step_time_s"] = float(total_time[0])
    plain = bool(np.all(np.abs(gain - 1.0) < 1e-9))
    return replace(
        first,
        two_theta=at,
        intensity=intensity,
        gain=1.0 if plain else gain,
        su=None,
        metadata=metadata,
        findings=(note, *times_findings, *findings),
        source=replace(first.source, scan=0),
    )


def _gain_of(scan: Diffractogram) -> FloatArray:
    if scan.su is not None:
        return np.asarray(scan.su**2 / np.maximum(scan.intensity, 1e-300), dtype=np.float64)
    return np.broadcast_to(np.asarray(scan.gain, dtype=np.float64), scan.two_theta.shape).copy()


def _exposures(scans: list[Diffractogram], place: str) -> tuple[list[float], list[Finding]]:
    times = [item.metadata.get("step_time_s") for item in scans]
    known = [float(t) for t in times if t is not None]
    if len(known) == len(scans):
        return known, []
    if known:
        raise InputError(f"{place}: only some scans state their time per step; choose one with --scan N")
    return [1.0] * len(scans), [
        info(Code.READER_NOTE, "no time per step is stated; taken as equal in all scans", place)
    ]
