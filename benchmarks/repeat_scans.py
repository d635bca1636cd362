"""Whether two scans of one specimen are the same pattern, asked without a model of it.

In a window that holds peaks of one phase alone, a short scan y is a long one, summed over the steps of the short and
moved by a small shift, times one ratio r on a straight background,

    y(x) = r Y(x + shift) + a + b (x - mean x),    var(y) = r Y (1 + r)

by least squares. If the scans differ by counting alone, every window of a phase has the same r, and the ratio of two
phases' r is one. What is found beyond that is in the scans, not in their analysis.

    PYTHONPATH=src python benchmarks/repeat_scans.py SHORT LONG 24.2:26.6=anatase 55.8:57.6=zincite ...
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline

from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.readers import read

Window = tuple[float, float, str]

SHIFTS = np.arange(-0.04, 0.0401, 0.001)
"""Shifts tried, deg: the displacement of a specimen that was taken out and put back."""


def window_ratio(short: Diffractogram, long: Diffractogram, low: float, high: float) -> tuple[float, float, float]:
    """Return r, its standard uncertainty, and chi^2 over the degrees of freedom, in one window (deg)."""
    step = float(np.median(np.diff(long.two_theta)))
    wide = float(np.median(np.diff(short.two_theta)))
    edges = np.append(long.two_theta - 0.5 * step, long.two_theta[-1] + 0.5 * step)
    total = CubicSpline(edges, np.append(0.0, np.cumsum(long.intensity)))
    inside = (short.two_theta > low) & (short.two_theta < high)
    x, y = short.two_theta[inside], short.intensity[inside]
    start = float(y.sum() / (total(high) - total(low)))

    def fitted(shift: float) -> tuple[float, float, float]:
        template = total(x + shift + 0.5 * wide) - total(x + shift - 0.5 * wide)
        ratio, su, chi2 = start, 0.0, math.inf
        for _ in range(3):
            root = 1.0 / np.sqrt(np.maximum(ratio * template, 1.0) * (1.0 + ratio))
            design = np.stack((template, np.ones(x.size), x - x.mean()), axis=1) * root[:, None]
            solution = np.linalg.lstsq(design, y * root, rcond=None)[0]
            ratio = float(solution[0])
            su = float(np.sqrt(np.linalg.inv(design.T @ design)[0, 0]))
            chi2 = float(np.sum((y * root - design @ solution) ** 2))
        return chi2, ratio, su

    chi2, ratio, su = min(fitted(float(shift)) for shift in SHIFTS)
    return ratio, su, chi2 / (x.size - 4)


def compare(short: Diffractogram, long: Diffractogram, windows: Sequence[Window]) -> dict[str, Any]:
    """Return the ratio of every window, and of every phase the mean and the scatter about it."""
    rows = []
    for low, high, phase in windows:
        ratio, su, chi2 = window_ratio(short, long, low, high)
        rows.append({"window": [low, high], "phase": phase, "ratio": ratio, "su": su, "chi2_reduced": chi2})
    phases = {}
    for phase in dict.fromkeys(phase for *_, phase in windows):
        ratio = np.array([row["ratio"] for row in rows if row["phase"] == phase])
        weight: FloatArray = np.array([row["su"] for row in rows if row["phase"] == phase]) ** -2.0
        mean = float(weight @ ratio / weight.sum())
        phases[phase] = {
            "ratio": mean,
            "su": float(weight.sum() ** -0.5),
            "chi2": float(weight @ (ratio - mean) ** 2),
            "freedom": ratio.size - 1,
        }
    return {"windows": rows, "phases": phases}


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare two scans and print the ratios; the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("short", help="scan with fewer counts")
    parser.add_argument("long", help="scan of the same specimen with more")
    parser.add_argument("windows", nargs="+", help="LOW:HIGH=PHASE, degrees 2theta")
    options = parser.parse_args(arguments)
    windows = []
    for text in options.windows:
        limits, _, phase = text.partition("=")
        low, _, high = limits.partition(":")
        windows.append((float(low), float(high), phase))
    found = compare(read(options.short), read(options.long), windows)
    for row in found["windows"]:
        low, high = row["window"]
        sys.stdout.write(
            f"{low:7.2f} to {high:6.2f} deg  {row['phase']:14s} r {row['ratio']:.5f} su {row['su']:.5f}  "
            f"chi2 {row['chi2_reduced']:.2f}\n"
        )
    for phase, row in found["phases"].items():
        sys.stdout.write(
            f"{phase:14s} r {row['ratio']:.5f} su {row['su']:.5f}, windows about it: chi2 {row['chi2']:.1f} of "
            f"{row['freedom']}\n"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
