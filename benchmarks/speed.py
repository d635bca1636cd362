"""How long everything takes, in one table: the model, a fit, an analysis, a process, a batch.

    PYTHONPATH=src OPENBLAS_NUM_THREADS=1 python benchmarks/speed.py [SCAN METHOD.toml] [--repeats 15]
        [--rietx /path/to/python] [--batch 200] [--out FILE.json]

Every figure but a batch's is CPU time: `time.process_time` for work in this process, that of the child for a whole
process. Works are taken in turn, every round one of each, so that the ratios hold on a busy machine where the
milliseconds do not. Nothing is counted before everything is compiled and cached. A ratio is how much more the same work
costs elsewhere: in the plain numpy kernel of `reference_kernel.py`, with lmfit's solver on our compiled model, and in
rietx where `--rietx` names the Python of an environment that has it (`rietx_side_by_side.py` says what is compared). A
batch is timed by the clock, start included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import reference_kernel
from batch_throughput import COMMAND, throughput
from rietx_side_by_side import child, side_by_side

from xrdz.conditions import conditions_of
from xrdz.fit import fit
from xrdz.instrument import Instrument
from xrdz.lmfit_problem import refit
from xrdz.method import read_method
from xrdz.pipeline import analyse, references_of
from xrdz.process import keep_freed_memory
from xrdz.readers import read
from xrdz.reference import clear_caches, reference
from xrdz.simulation import SimulationSettings, simulate

SAMPLE = Path(__file__).resolve().parents[1] / "sample_data" / "snni_z1.00_clean"
FIVE = ("sn", "ni3sn4", "sno2", "ni", "corundum")
SELDOM = 3
"""What is slow is done every third round."""

Works = Mapping[str, tuple[Callable[[], float], int]]


def spent(work: Callable[[], object]) -> Callable[[], float]:
    """Return a function that does the work and returns its CPU time, ms."""

    def timed() -> float:
        began = time.process_time()
        work()
        return 1e3 * (time.process_time() - began)

    return timed


def process(*arguments: str) -> Callable[[], float]:
    """Return a function that runs the command line in a process of its own and returns its CPU time, ms."""
    return lambda: 1e3 * child([sys.executable, "-m", "xrdz", *arguments])[0]


def peak_mb(*arguments: str) -> float:
    """Return the largest memory of the command line in a process of its own, MB."""
    return int(child([sys.executable, "-c", COMMAND, *arguments])[1].split()[-2]) / 1024


def in_turn(works: Works, rounds: int) -> dict[str, dict[str, float]]:
    """Return median, smallest and largest of every work, ms, after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, (work, every) in works.items():
            if turn == 0:
                work()
            elif turn % every == 0 or turn == 1:
                times[name].append(work())
    return {name: {"median": median(each), "min": min(each), "max": max(each)} for name, each in times.items()}


def load_reference(refill: Callable[[], object]) -> Callable[[], float]:
    """Return a function that loads one compiled structure as a fresh process does, and then fills the caches again."""
    load = spent(lambda: reference("ni3sn4"))

    def timed() -> float:
        clear_caches()
        milliseconds = load()
        refill()
        return milliseconds

    return timed


def measure(scan: str, method_file: str, rounds: int) -> tuple[str, dict[str, dict[str, float]]]:
    """Return what was fitted, and the times of everything but rietx and batches."""
    method = read_method(method_file)
    diffractogram = read(scan).cropped(method.two_theta, method.exclude)
    references = references_of(method)
    instrument = conditions_of(diffractogram, method.instrument, references).instrument
    base = fit(diffractogram, instrument=instrument, references=references, extend=False)
    pattern, values = base.pattern, base.values
    settings = SimulationSettings(phases=FIVE, mass_fractions=dict.fromkeys(FIVE, 0.2))
    mixture, _ = simulate(settings, np.random.default_rng(1))
    geometry = Instrument(goniometer_radius_mm=settings.radius_mm, soller_deg=settings.soller_deg)
    five = {
        "instrument": conditions_of(mixture, geometry).instrument,
        "references": tuple(reference(name) for name in FIVE),
    }

    def plain() -> None:
        for phase in pattern.phases:
            reference_kernel.phase_columns(pattern, phase, values)

    def two(**options: Any) -> Callable[[], object]:
        return lambda: fit(diffractogram, instrument=instrument, references=references, **options)

    works: dict[str, tuple[Callable[[], float], int]] = {
        "model + Jacobian": (spent(lambda: pattern.phase_columns(values)), 1),
        "model + Jacobian, plain numpy": (spent(plain), SELDOM),
        "cold fit, two phases": (spent(two()), 1),
        "cold fit, without direction-dependent terms": (spent(two(extend=False)), 1),
        "the same by lmfit": (spent(lambda: refit(base)), SELDOM),
        "warm fit, two phases": (spent(two(start=values)), 1),
        "cold fit, five phases": (spent(lambda: fit(mixture, **five)), 1),
        "whole analysis, reading included": (spent(lambda: analyse(scan, method)), 1),
        "the same with --solver lmfit": (spent(lambda: analyse(scan, method, solver="lmfit")), SELDOM),
        "load a compiled reference": (load_reference(lambda: analyse(scan, method)), 1),
        "process `xrdz fit SCAN --json`": (process("fit", scan, "--method", method_file, "--json"), SELDOM),
        "process with --solver lmfit": (
            process("fit", scan, "--method", method_file, "--json", "--solver", "lmfit"),
            SELDOM,
        ),
        "process `xrdz --help`": (process("--help"), SELDOM),
    }
    figures = in_turn(works, rounds)
    what = (
        f"{Path(scan).name}: {diffractogram.n_points} points, {len(references)} phases, "
        f"{sum(phase.theta.size for phase in pattern.phases)} reflections, {base.fisher.shape[0]} parameters; "
        f"five phases ({', '.join(FIVE)}): {mixture.n_points} points"
    )
    return what, figures


RATIOS = (
    ("model + Jacobian", "numpy", "model + Jacobian, plain numpy"),
    ("cold fit, without direction-dependent terms", "lmfit", "the same by lmfit"),
    ("whole analysis, reading included", "lmfit", "the same with --solver lmfit"),
    ("process `xrdz fit SCAN --json`", "lmfit", "process with --solver lmfit"),
)
THEIR_PARTS = {
    "cold fit, two phases": "fit, again",
    "whole analysis, reading included": "reading to quantities, again",
    "process `xrdz fit SCAN --json`": "whole process",
}


def table(figures: Mapping[str, Mapping[str, float]], ratios: Mapping[str, Mapping[str, float]]) -> str:
    """Return the table in Markdown."""
    lines = ["| CPU, ms | median | min - max | numpy | lmfit | rietx |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for name, row in figures.items():
        cells = [f"{ratios[name][other]:.1f}" if other in ratios.get(name, {}) else "" for other in OTHERS]
        digits = 2 if row["median"] < 10.0 else 1 if row["median"] < 100.0 else 0
        spread = f"{row['min']:.{digits}f} - {row['max']:.{digits}f}"
        lines.append(f"| {name} | {row['median']:.{digits}f} | {spread} | {' | '.join(cells)} |")
    return "\n".join(lines)


OTHERS = ("numpy", "lmfit", "rietx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", nargs="?", default=f"{SAMPLE}.xy", help="Sn and Ni3Sn4")
    parser.add_argument("method", nargs="?", default=f"{SAMPLE}.toml")
    parser.add_argument("--repeats", type=int, default=15, help="rounds; slow works every third (default: 15)")
    parser.add_argument("--rietx", metavar="PYTHON", help="the Python of an environment that has rietx")
    parser.add_argument(
        "--batch", type=int, default=0, metavar="N", help="also the throughput of N scans, which is long"
    )
    parser.add_argument("--out", help="write the figures here as JSON")
    args = parser.parse_args()

    keep_freed_memory()  # as the command line and the workers of a batch do
    what, figures = measure(args.scan, args.method, args.repeats)
    ratios: dict[str, dict[str, float]] = {}
    for name, other, slower in RATIOS:
        ratios.setdefault(name, {})[other] = figures[slower]["median"] / figures[name]["median"]
    found: dict[str, Any] = {
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "what": what,
        "cpu_ms": figures,
        "peak_mb": peak_mb("fit", args.scan, "--method", args.method, "--json"),
    }
    if args.rietx:
        radius = read_method(args.method).instrument.goniometer_radius_mm or 217.5
        found["rietx"] = side_by_side(args.rietx, args.scan, args.method, radius, max(args.repeats // 3, 1))
        for name, part in THEIR_PARTS.items():
            ratios.setdefault(name, {})["rietx"] = found["rietx"]["ratios"][part]
    found["ratios"] = ratios
    print(f"{found['date']}, {found['machine']}, Python {found['python']}\n{what}\n")
    print(table(figures, ratios))
    print(f"\nlargest memory of `xrdz fit SCAN --json`: {found['peak_mb']:.0f} MB")
    if args.rietx:
        for name, row in found["rietx"]["seconds"].items():
            print(f"{name}: {row['median']:.3f} s ({row['min']:.3f} - {row['max']:.3f})")
    if args.batch:
        with tempfile.TemporaryDirectory(prefix="xrdz-speed-") as folder:
            found["batch"] = throughput(Path(folder), args.batch, 2, with_dask=False)
        for name in ("1 worker", "2 workers"):
            row = found["batch"][name]
            print(
                f"batch of {args.batch}, {name}: {row['scans_per_s']:.1f} scans/s by the clock, "
                f"{row['cpu_ms_per_scan']:.1f} ms CPU a scan"
            )
    if args.out:
        Path(args.out).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
