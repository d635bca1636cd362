"""How long a fit takes: compiled against plain numpy, our solver against lmfit, and the parts of one analysis.

Every figure is CPU time (`time.process_time`), median with smallest and largest, of the same work in one process, so
that the ratios hold on a busy machine where the milliseconds do not.

    PYTHONPATH=src OPENBLAS_NUM_THREADS=1 python benchmarks/speed.py [SCAN METHOD.toml] [--repeats 9]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent))

import reference_kernel

from xrdz.conditions import conditions_of
from xrdz.fit import fit
from xrdz.lmfit_problem import refit
from xrdz.method import read_method
from xrdz.pipeline import analyse, references_of
from xrdz.readers import read

SAMPLE = Path(__file__).resolve().parents[1] / "sample_data" / "snni_z1.00_clean"


def timed(work: Callable[[], object], repeats: int) -> dict[str, float]:
    """Return median, smallest and largest CPU time of `work` in milliseconds, after one call that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(1e3 * (time.process_time() - began))
    return {"median_ms": median(times), "min_ms": min(times), "max_ms": max(times)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", nargs="?", default=f"{SAMPLE}.xy")
    parser.add_argument("method", nargs="?", default=f"{SAMPLE}.toml")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", help="write the figures here as JSON")
    args = parser.parse_args()

    method = read_method(args.method)
    diffractogram = read(args.scan).cropped(method.two_theta, method.exclude)
    conditions, references = conditions_of(diffractogram, method.instrument), references_of(method)
    result = fit(diffractogram, instrument=conditions.instrument, references=references)
    pattern, values = result.pattern, result.values

    def plain() -> None:
        for phase in pattern.phases:
            reference_kernel.phase_columns(pattern, phase, values)

    few = max(args.repeats // 3, 2)
    figures = {
        "model and Jacobian, compiled": timed(lambda: pattern.phase_columns(values), args.repeats),
        "model and Jacobian, plain numpy": timed(plain, few),
        "fit from the generic start": timed(
            lambda: fit(diffractogram, instrument=conditions.instrument, references=references), args.repeats
        ),
        "the same without direction-dependent terms": timed(
            lambda: fit(diffractogram, instrument=conditions.instrument, references=references, extend=False),
            args.repeats,
        ),
        "fit by lmfit of the compiled problem": timed(lambda: refit(result), few),
        "whole analysis with reading": timed(lambda: analyse(args.scan, method), args.repeats),
    }
    ratios = {
        "plain numpy / compiled": figures["model and Jacobian, plain numpy"]["median_ms"]
        / figures["model and Jacobian, compiled"]["median_ms"],
        "lmfit / fit": figures["fit by lmfit of the compiled problem"]["median_ms"]
        / figures["the same without direction-dependent terms"]["median_ms"],
    }
    print(
        f"{Path(args.scan).name}: {diffractogram.n_points} points, {len(references)} phases, "
        f"{sum(phase.theta.size for phase in pattern.phases)} reflections, {result.fisher.shape[0]} parameters, "
        f"{result.evaluations} evaluations"
    )
    for name, row in figures.items():
        print(f"{name:46s} {row['median_ms']:9.1f} ms   ({row['min_ms']:.1f} to {row['max_ms']:.1f})")
    for name, ratio in ratios.items():
        print(f"{name:46s} {ratio:9.1f}")
    if args.out:
        Path(args.out).write_text(json.dumps({"figures": figures, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()
