"""How the cost of a model with its Jacobian, and of a cold fit, grows with points, phases and reflections.

    PYTHONPATH=src OPENBLAS_NUM_THREADS=1 python benchmarks/growth.py [--rounds 7] [--plot docs/growth.png]

Every pattern is simulated by the engine itself (`xrdz.simulation`), Poisson counts, seed 1. One size changes at a time:

points       Sn and Ni3Sn4, Cu K-alpha, 20 to 100 degrees, in steps of 0.08 to 0.004 degrees
phases       one to eight in equal parts, 4001 points; reflections grow with them
reflections  baddeleyite alone, 4001 points, one line of 2.2 to 0.57 angstrom

CPU time, in turn, every round one of each. A slope is that of ln(cost) against ln(size), by least squares over the
smallest times, which other work on the machine touches least: 1 or less is a cost that grows no faster than linear. The
slope of the upper half says more than the whole where a fixed cost hides the growth of small problems. A fit takes the
steps it needs, so its time grows in leaps; time per evaluation is free of that.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from xrdz.conditions import conditions_of
from xrdz.diffractogram import Diffractogram
from xrdz.files import write_whole
from xrdz.fit import fit
from xrdz.instrument import Instrument
from xrdz.pattern import InstrumentModel, PatternModel
from xrdz.plotting import PHASE_COLOURS, new_figure
from xrdz.process import keep_freed_memory
from xrdz.reference import Reference, reference
from xrdz.simulation import SimulationSettings, simulate

STEPS = (0.08, 0.04, 0.02, 0.008, 0.004)
PHASES = ("sn", "ni3sn4", "corundum", "fluorite", "zincite", "si", "ni", "sno2")
ANGSTROM = (2.2, 1.6, 1.2, 0.9, 0.7, 0.57)


@dataclass(frozen=True)
class Case:
    """One pattern of a series, the size it is plotted against, and its model at the solution."""

    series: str
    size: int
    scan: Diffractogram
    instrument: InstrumentModel
    references: tuple[Reference, ...]
    pattern: PatternModel
    values: Any
    evaluations: int

    @classmethod
    def of(cls, series: str, settings: SimulationSettings) -> Case:
        """Simulate and fit once."""
        scan, _ = simulate(settings, np.random.default_rng(1))
        geometry = Instrument(goniometer_radius_mm=settings.radius_mm, soller_deg=settings.soller_deg)
        instrument = conditions_of(scan, geometry).instrument
        references = tuple(reference(name) for name in settings.phases)
        result = fit(scan, instrument=instrument, references=references)
        reflections = sum(phase.theta.size for phase in result.pattern.phases)
        size = {"points": scan.n_points, "phases": len(references), "reflections": reflections}[series]
        return cls(series, size, scan, instrument, references, result.pattern, result.values, result.evaluations)

    def model(self) -> None:
        """Compute the pattern of every phase with its derivatives."""
        self.pattern.phase_columns(self.values)

    def fit(self) -> None:
        """Fit from the generic start."""
        fit(self.scan, instrument=self.instrument, references=self.references)


def cases() -> list[Case]:
    """Return all patterns."""
    found = [Case.of("points", SimulationSettings(mass_ratio=1.0, step=step)) for step in STEPS]
    for count in range(1, len(PHASES) + 1):
        names = PHASES[:count]
        found.append(
            Case.of("phases", SimulationSettings(phases=names, mass_fractions=dict.fromkeys(names, 1.0 / count)))
        )
    for angstrom in ANGSTROM:
        found.append(Case.of("reflections", SimulationSettings(phases=("baddeleyite",), wavelength=angstrom)))
    return found


def measured(items: Sequence[Case], rounds: int, many: int = 5) -> list[dict[str, Any]]:
    """Return the times of every case, ms; a model is computed `many` times for one clock reading."""
    models: list[list[float]] = [[] for _ in items]
    fits: list[list[float]] = [[] for _ in items]
    for _ in range(rounds):
        for case, of_model, of_fit in zip(items, models, fits, strict=True):
            moments = [time.process_time()]
            for _ in range(many):
                case.model()
            moments.append(time.process_time())
            case.fit()
            moments.append(time.process_time())
            of_model.append(1e3 * (moments[1] - moments[0]) / many)
            of_fit.append(1e3 * (moments[2] - moments[1]))
    rows = []
    for case, of_model, of_fit in zip(items, models, fits, strict=True):
        row: dict[str, Any] = {"series": case.series, "size": case.size, "points": case.scan.n_points}
        row["reflections"] = sum(phase.theta.size for phase in case.pattern.phases)
        row |= {"parameters": case.values.size + case.pattern.n_linear, "evaluations": case.evaluations}
        for name, times in (("model", of_model), ("fit", of_fit)):
            row[name] = {"median": median(times), "min": min(times), "max": max(times)}
        rows.append(row)
    return rows


def slope(rows: Sequence[dict[str, Any]], name: str) -> float:
    """Return the slope of the smallest times in log-log; "evaluation" is a fit's time over its evaluations."""
    times = [row["fit"]["min"] / row["evaluations"] if name == "evaluation" else row[name]["min"] for row in rows]
    return float(np.polyfit(np.log([row["size"] for row in rows]), np.log(times), 1)[0])


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw medians with smallest and largest, and a line of slope 1 through the largest problem."""
    figure = new_figure(15.0, 5.2)
    panels = figure.subplots(1, 3, sharey=True)
    for axes, series in zip(panels, ("points", "phases", "reflections"), strict=True):
        own = [row for row in rows if row["series"] == series]
        sizes = np.array([row["size"] for row in own], dtype=np.float64)
        for name, label, colour in (
            ("fit", "cold fit", PHASE_COLOURS[0]),
            ("model", "model + Jacobian", PHASE_COLOURS[2]),
        ):
            middle, low, high = (np.array([row[name][kind] for row in own]) for kind in ("median", "min", "max"))
            axes.errorbar(sizes, middle, (middle - low, high - middle), fmt="o-", color=colour, capsize=3, label=label)
            axes.plot(sizes, middle[-1] * sizes / sizes[-1], ":", color=colour)
        axes.plot([], [], ":", color="#303030", label="proportional to size")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sizes, [f"{size:.0f}" for size in sizes], rotation=40)
        axes.minorticks_off()
        axes.set_xlabel(series)
        axes.grid(color="#E4E4E4")
        axes.set_title(f"slope {slope(own, 'fit'):.2f} (fit), {slope(own, 'model'):.2f} (model)", fontsize=11)
    panels[0].set_ylabel("CPU / ms, median, smallest to largest")
    panels[0].legend(loc="upper left", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_whole(path, buffer.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--plot", type=Path, help="draw the plot here, such as docs/growth.png")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    args = parser.parse_args()
    keep_freed_memory()  # as the command line and the workers of a batch do
    rows = measured(cases(), args.rounds)
    print("series          size  points reflections parameters   model, ms      cold fit, ms (evaluations)")
    for row in rows:
        model, cold = row["model"], row["fit"]
        print(
            f"{row['series']:12s} {row['size']:7d} {row['points']:7d} {row['reflections']:11d} {row['parameters']:10d}"
            f" {model['median']:7.2f} ({model['min']:.2f}-{model['max']:.2f})"
            f" {cold['median']:8.1f} ({cold['min']:.1f}-{cold['max']:.1f}) ({row['evaluations']})"
        )
    print("slopes in log-log        model  cold fit  per evaluation   (upper half)")
    for series in ("points", "phases", "reflections"):
        own = [row for row in rows if row["series"] == series]
        whole, upper = (
            [slope(part, name) for name in ("model", "fit", "evaluation")] for part in (own, own[len(own) // 2 :])
        )
        print(
            f"{series:20s} {whole[0]:9.2f} {whole[1]:9.2f} {whole[2]:15.2f}   "
            f"({upper[0]:.2f}, {upper[1]:.2f}, {upper[2]:.2f})"
        )
    if args.plot:
        draw(rows, args.plot)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
