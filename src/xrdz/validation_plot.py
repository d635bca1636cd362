"""Plots of a validation: errors of mass fractions with their intervals, and errors of ln Z.

left    error of each fraction in mass % against the weighed fraction, the 95 % interval as a bar; squares
        where it does not hold the truth
right   sorted pulls error / su against the quantiles of the normal distribution; honest uncertainties lie on the line
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from xrdz.plotting import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xrdz.validation import Recovered, Validation

SIZE_INCHES = (9.0, 3.8)
FARTHEST = 20.0
"""A ratio that is off by more than this, or has no limit, is drawn at this factor."""

SIDE_STEP = 1.05
"""Factor between ratios of the same truth, so that their intervals do not hide each other."""

INSIDE, OUTSIDE, LINE = "#0072B2", "#D0300A", "#6E6E6E"


def validation_figure(validation: Validation) -> Figure:
    """Return the plot of a validation's mass fractions as a matplotlib figure."""
    figure = new_figure(*SIZE_INCHES)
    errors, pulls = figure.subplots(1, 2, width_ratios=[2.0, 1.0])
    _draw_errors(errors, validation.fractions)
    _draw_pulls(pulls, validation.fractions)
    return figure


def ratio_figure(ratios: tuple[Recovered, ...]) -> Figure:
    """Return the plot of mass ratios: error of ln Z in percent against Z, with the 95 % interval."""
    figure = new_figure(*SIZE_INCHES)
    axes = figure.add_subplot()
    for number, item in enumerate(ratios):
        # Equal truths stand side by side.
        beside = sum(math.isclose(item.truth, other.truth, rel_tol=0.02) for other in ratios[:number])
        ends = np.clip(np.array([item.low, item.value, item.high]) / item.truth, 1.0 / FARTHEST, FARTHEST)
        low, value, high = 100.0 * np.log(ends)
        axes.errorbar(item.truth * SIDE_STEP**beside, value, yerr=_lengths(low, value, high), capsize=2, **_style(item))
    axes.axhline(0.0, color=LINE, linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("true Z")
    axes.set_ylabel("error of ln Z / %")
    return figure


def _style(item: Recovered) -> dict[str, Any]:
    """Return colour and marker: a truth outside its interval is told without colour as well."""
    return {"color": INSIDE if item.inside else OUTSIDE, "marker": "o" if item.inside else "s", "markersize": 4}


def _lengths(low: float, value: float, high: float) -> list[list[float]]:
    """Return the lengths of an error bar; an interval of a limit need not hold the value."""
    return [[max(value - low, 0.0)], [max(high - value, 0.0)]]


def _draw_errors(axes: Axes, fractions: tuple[Recovered, ...]) -> None:
    for item in fractions:
        axes.errorbar(
            100.0 * item.truth,
            100.0 * item.error,
            yerr=_lengths(100.0 * item.low, 100.0 * item.value, 100.0 * item.high),
            capsize=2,
            linewidth=1.0,
            **_style(item),
        )
    axes.axhline(0.0, color=LINE, linewidth=0.8)
    axes.set_xlabel("weighed / mass %")
    axes.set_ylabel("error / mass %")


def _draw_pulls(axes: Axes, fractions: tuple[Recovered, ...]) -> None:
    pulls = sorted(item.error / item.su for item in fractions if item.su > 0.0)
    expected = [NormalDist().inv_cdf((rank + 0.5) / len(pulls)) for rank in range(len(pulls))]
    reach = max(3.0, *(abs(pull) for pull in pulls)) if pulls else 3.0
    axes.plot([-3.0, 3.0], [-3.0, 3.0], color=LINE, linewidth=0.8)
    axes.plot(expected, pulls, "o", color=INSIDE, markersize=4)
    axes.set_ylim(-1.1 * reach, 1.1 * reach)
    axes.set_xlabel("normal quantile")
    axes.set_ylabel("error / su")
