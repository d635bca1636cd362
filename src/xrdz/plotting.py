"""The one door to matplotlib: the plot of an analysis, drawn without a display.

    upper axis   observed counts, calculated curve, each phase on the background, background
    between      tick marks of each phase's reflections (principal line)
    lower axis   (observed - calculated) / su, with the +-3 band in which 99.7 % of the points of a right model lie

Colours are those of Okabe & Ito 2008, which people with any kind of colour vision tell apart; phases differ in their
row of tick marks as well. Figures are made without pyplot, so nothing global changes and threads may draw.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xrdz.errors import InputError
from xrdz.files import write_whole
from xrdz.findings import Code
from xrdz.numerals import value_with_su

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xrdz.analysis import Analysis
    from xrdz.diffractogram import Diffractogram, FloatArray
    from xrdz.fit import FitResult

PHASE_COLOURS = ("#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#7F4FC9", "#8C6D1F")
"""Okabe & Ito's colours without black, yellow and the vermilion of the calculated curve, and two more; in turn."""

OBSERVED, CALCULATED, BACKGROUND, EXCLUDED, UNEXPLAINED = "#303030", "#D0300A", "#6E6E6E", "#B8B8B8", "#8A0F8A"
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")

SIZE_INCHES = (16.0, 10.0)
DOTS_PER_INCH = 100
GAP_STEPS = 5.0
"""Curves break where neighbouring points lie further apart than this many usual steps."""

BAND = 3.0
LONGEST_TITLE = 115
LABEL_SIZE = 12
LARGEST_DIFFERENCE = 12.0
"""The difference axis reaches at most this many su; what lies beyond is drawn as a triangle on its edge."""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, without pyplot; every figure of this package begins here."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure((width, height), dpi=DOTS_PER_INCH, layout=ConstrainedLayoutEngine(h_pad=0.02, hspace=0.0))


def analysis_figure(analysis: Analysis, square_root: bool = False) -> Figure:
    """Return the plot of an analysis as a matplotlib figure.

    Parameters
    ----------
    square_root : whether the intensity axis is in square-root scale, in which the noise is equal everywhere
    """
    figure = new_figure(*SIZE_INCHES)
    result = analysis.fit
    if result is None:
        axes = figure.add_subplot()
        _draw_observed(axes, analysis.diffractogram)
        _finish_intensity(axes, analysis, analysis.diffractogram.intensity, square_root)
        _label_angle(axes, analysis)
    else:
        rows = len(result.pattern.phases)
        upper, ticks, lower = figure.subplots(
            3, 1, sharex=True, height_ratios=[10.0, 0.35 + 0.38 * rows, 2.6], gridspec_kw={"hspace": 0.0}
        )
        _draw_intensity(upper, analysis, result, square_root)
        _draw_ticks(ticks, result)
        _draw_difference(lower, result)
        _label_angle(lower, analysis)
        for axes in (upper, ticks, lower):
            _shade_excluded(axes, analysis)
        _legend(upper)
    _title(figure, analysis)
    return figure


def save_figure(analysis: Analysis, path: str | Path, square_root: bool = False) -> Path:
    """Draw an analysis to a file, which appears whole or not at all; 1600 x 1000 pixels as .png.

    Raises
    ------
    InputError
        If the suffix is no format matplotlib can write, or the file cannot be written.
    """
    return write_figure(analysis_figure(analysis, square_root), path)


def scan_figure(diffractogram: Diffractogram) -> Figure:
    """Return the plot of a scan alone."""
    figure = new_figure(SIZE_INCHES[0], 0.6 * SIZE_INCHES[1])
    axes = figure.add_subplot()
    _draw_observed(axes, diffractogram, line=True)
    axes.set_xlabel("2θ / degrees")
    axes.set_ylabel(_intensity_label(diffractogram))
    axes.margins(x=0.0)
    axes.set_title(Path(diffractogram.source.path).name)
    return figure


def write_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure to a file in the format of its suffix, whole or not at all.

    Raises
    ------
    InputError
        If the suffix is no format matplotlib can write, or the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower().lstrip(".") or "png"
    known = sorted(figure.canvas.get_supported_filetypes())
    if suffix not in known:
        raise InputError(f"{path}: no plot format has the suffix {path.suffix!r}; expected one of {', '.join(known)}")
    stream = io.BytesIO()
    # No date or version inside: the same analysis gives the same bytes.
    metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(suffix)
    figure.savefig(stream, format=suffix, metadata=metadata)
    return write_whole(path, stream.getvalue())


def _draw_intensity(axes: Axes, analysis: Analysis, result: FitResult, square_root: bool) -> None:
    background = result.background
    x = result.pattern.two_theta
    _draw_observed(axes, analysis.diffractogram)
    axes.plot(*_broken(x, result.model), color=CALCULATED, linewidth=1.0, label="calculated", zorder=4)
    axes.plot(
        *_broken(x, background), color=BACKGROUND, linewidth=1.2, linestyle=(0, (5, 3)), label="background", zorder=5
    )
    for number, phase in enumerate(result.pattern.phases):
        angle, curve = _broken(x, background + result.phase_curve(number))
        axes.fill_between(angle, _broken(x, background)[1], curve, color=_colour(number), alpha=0.22, linewidth=0)
        axes.plot(angle, curve, color=_colour(number), linewidth=0.9, label=_share(analysis, phase.id), zorder=3)
    _finish_intensity(axes, analysis, np.maximum(analysis.diffractogram.intensity, result.model), square_root)
    _mark_unexplained(axes, analysis, result)
    axes.tick_params(labelbottom=False)


def _legend(axes: Axes) -> None:
    """Draw the legend with lines thick enough to tell their colours."""
    legend = axes.legend(loc="upper right", framealpha=0.92, edgecolor="#D0D0D0", fontsize=13)
    legend.set_zorder(10)
    for line in legend.get_lines():
        line.set_linewidth(max(line.get_linewidth(), 2.0))


def _draw_observed(axes: Axes, diffractogram: Diffractogram, *, line: bool = False) -> None:
    x, y = diffractogram.two_theta, diffractogram.intensity
    if line:
        axes.plot(*_broken(x, y), color=OBSERVED, linewidth=0.6, label="observed")
    else:
        axes.plot(x, y, linestyle="none", marker=".", markersize=3.2, color=OBSERVED, label="observed", zorder=2)


def _finish_intensity(axes: Axes, analysis: Analysis, highest: FloatArray, square_root: bool) -> None:
    """Set scale, limits and labels of the intensity axis."""
    lowest = min(0.0, float(np.min(analysis.diffractogram.intensity, initial=0.0)))
    top = 1.04 * float(np.max(highest, initial=1.0))
    if square_root:
        axes.set_yscale("function", functions=(_signed_root, _signed_square))
        axes.set_yticks(_root_ticks(top))
        axes.minorticks_off()
    axes.set_ylim(lowest, top)
    scale = ", square-root scale" if square_root else ""
    axes.set_ylabel(_intensity_label(analysis.diffractogram) + scale, fontsize=LABEL_SIZE)
    axes.tick_params(labelsize=LABEL_SIZE - 1)
    axes.margins(x=0.0)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_ticks(axes: Axes, result: FitResult) -> None:
    """Draw a row of reflection marks per phase, its name at the left edge."""
    x = result.pattern.two_theta
    count = len(result.pattern.phases)
    for number, phase in enumerate(result.pattern.phases):
        centre = result.pattern.peak_state(phase, result.values).centre
        centre = centre[(centre >= x[0]) & (centre <= x[-1])]
        level = count - 1 - number
        axes.vlines(centre, level + 0.14, level + 0.86, color=_colour(number), linewidth=0.9)
    axes.set_ylim(0, count)
    axes.set_yticks([count - 0.5 - number for number in range(count)])
    axes.set_yticklabels([phase.id for phase in result.pattern.phases], fontsize=11)
    for number, label in enumerate(axes.get_yticklabels()):
        label.set_color(_colour(number))
    axes.tick_params(labelbottom=False, bottom=False, left=False)


def _draw_difference(axes: Axes, result: FitResult) -> None:
    x = result.pattern.two_theta
    difference = np.sqrt(result.minimum.weights) * (result.diffractogram.intensity - result.model)
    reach = float(np.clip(1.15 * np.max(np.abs(difference), initial=0.0), 4.5, LARGEST_DIFFERENCE))
    axes.axhspan(-BAND, BAND, color="#DCE9F2", zorder=0, linewidth=0)
    axes.axhline(0.0, color="#808080", linewidth=0.7)
    axes.plot(*_broken(x, np.clip(difference, -reach, reach)), color=OBSERVED, linewidth=0.6)
    for sign, marker in ((1.0, "^"), (-1.0, "v")):
        beyond = sign * difference > reach
        axes.plot(
            x[beyond], np.full(int(beyond.sum()), 0.94 * sign * reach), linestyle="none", marker=marker, markersize=4,
            color=CALCULATED,
        )  # fmt: skip
    axes.set_ylim(-reach, reach)
    axes.set_ylabel("difference / su", fontsize=LABEL_SIZE)
    axes.tick_params(labelsize=LABEL_SIZE - 1)
    axes.set_yticks([-BAND, 0.0, BAND] if reach < 9.5 else [-9.0, -BAND, 0.0, BAND, 9.0])


def _mark_unexplained(axes: Axes, analysis: Analysis, result: FitResult) -> None:
    """Mark the peaks no phase explains with an arrow and their angle, inside the axis."""
    x, y = result.pattern.two_theta, result.diffractogram.intensity
    angles = [float(finding.where) for finding in analysis.findings if finding.code is Code.UNEXPLAINED_PEAK]
    low, high = axes.get_ylim()
    for angle in angles:
        height = float(np.max(y[np.abs(x - angle) < 0.3], initial=low))
        place = (angle - x[0]) / (x[-1] - x[0])
        axes.annotate(
            f"{angle:.2f}°",
            xy=(angle, height),
            xytext=(0, 34),
            textcoords="offset points",
            ha="left" if place < 0.02 else "right" if place > 0.98 else "center",
            fontsize=11,
            color=UNEXPLAINED,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
            arrowprops={"arrowstyle": "-|>", "color": UNEXPLAINED, "linewidth": 1.2, "shrinkB": 5.0},
            zorder=6,
        )
    if angles:
        axes.set_ylim(low, 1.09 * high)
        axes.plot([], [], linestyle="none", marker="v", markersize=7, color=UNEXPLAINED, label="peak of no phase")


def _shade_excluded(axes: Axes, analysis: Analysis) -> None:
    x = analysis.diffractogram.two_theta
    label: str | None = "excluded"
    for low, high in analysis.method.exclude:
        if high > x[0] and low < x[-1]:
            axes.axvspan(max(low, x[0]), min(high, x[-1]), color=EXCLUDED, alpha=0.35, linewidth=0, label=label)
            label = None


def _label_angle(axes: Axes, analysis: Analysis) -> None:
    axes.set_xlabel("2θ / degrees" + _wavelength_text(analysis), fontsize=LABEL_SIZE)
    axes.set_xlim(float(analysis.diffractogram.two_theta[0]), float(analysis.diffractogram.two_theta[-1]))
    axes.minorticks_on()


def _wavelength_text(analysis: Analysis) -> str:
    wavelength = analysis.wavelength
    name = wavelength.name or f"{wavelength.principal:.5f} Å"
    return f"   ({name}, {'assumed' if wavelength.origin == 'default' else f'from the {wavelength.origin}'})"


def _title(figure: Figure, analysis: Analysis) -> None:
    """Put the sample and the answer above the plot."""
    source = Path(analysis.diffractogram.source.path).name or "diffractogram"
    sample = analysis.diffractogram.metadata.get("sample_id")
    named = f"{source} ({sample})" if sample and sample not in source else source
    line = f"{named}     {answer(analysis)}"
    figure.suptitle(line if len(line) < LONGEST_TITLE else f"{named}\n{answer(analysis)}", fontsize=16)


def answer(analysis: Analysis) -> str:
    """Return the mass ratio, the verdict of claim 2 and the agreement in one line, or how the fit ended."""
    ratio = analysis.mass_ratio
    parts = []
    if ratio is not None:
        ids = (ratio.numerator, ratio.denominator)
        formulas = [analysis.phases[name].formula.translate(SUBSCRIPTS) for name in ids if name in analysis.phases]
        names = formulas if len(set(formulas)) == 2 else list(ids)
        value = {
            "upper": f"≤ {ratio.interval95[1]:.3g}",
            "lower": f"≥ {ratio.interval95[0]:.3g}",
        }.get(ratio.limit or "", f"= {value_with_su(ratio.value, ratio.su)}")
        parts.append(f"Z = m({names[0]})/m({names[1]}) {value}")
    parts += [
        f"claim 2 {claim.verdict.value.replace('_', ' ')}"
        for claim in analysis.claims
        if claim.claim == 2 and claim.verdict.value != "not_assessed"
    ]
    if analysis.agreement is not None:
        parts.append(f"Rwp {analysis.agreement.rwp:.2f} % (expected {analysis.agreement.rexp:.2f} %)")
    if analysis.status != "converged":
        parts.append(f"fit {analysis.status.replace('_', ' ')}")
    return "     ".join(parts)


def _share(analysis: Analysis, phase: str) -> str:
    found = analysis.phases[phase]
    if not found.detected:
        return f"{phase}: not detected, < {100.0 * found.mass_fraction.interval95[1]:.2g} wt %"
    fraction = found.mass_fraction
    return f"{phase}  {value_with_su(100.0 * fraction.value, 100.0 * fraction.su)} wt %"


def _colour(number: int) -> str:
    return PHASE_COLOURS[number % len(PHASE_COLOURS)]


def _broken(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the curve with a gap wherever points are missing, such as in an excluded range."""
    steps = np.diff(x)
    if steps.size == 0:
        return x, y
    breaks = np.flatnonzero(steps > GAP_STEPS * float(np.median(steps))) + 1
    return np.insert(x, breaks, np.nan), np.insert(y, breaks, np.nan)


def _intensity_label(diffractogram: Diffractogram) -> str:
    return "counts" if diffractogram.count_kind in ("counts", "rate") else "intensity (arbitrary unit)"


def _signed_root(y: Any) -> Any:
    return np.sign(y) * np.sqrt(np.abs(y))


def _signed_square(y: Any) -> Any:
    return np.sign(y) * np.square(y)


def _root_ticks(top: float) -> list[float]:
    """Return about eight round values from zero to `top`, evenly spaced in their square roots."""
    ticks = [0.0]
    for fraction in np.linspace(0.0, 1.0, 9)[1:]:
        value = top * fraction**2
        unit = 10.0 ** math.floor(math.log10(value))
        rounded = min((1.0, 2.0, 3.0, 5.0, 7.0, 10.0), key=lambda digit: abs(digit * unit - value)) * unit
        if rounded <= top and rounded > ticks[-1]:
            ticks.append(rounded)
    return ticks
