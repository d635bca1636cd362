"""False detections and detection limits: what the program says of a phase that is not there, or hardly.

Scans of one phase (beta-Sn or Ni3Sn4) are fitted as two, nuisances drawn as in `population.py`. Counted are

    absent     the other phase called detected although there is none of it (target <= 1 %), and
               limits that are no mass fraction between 0 and 1
    at limit   with as much of the phase as the detection limit the absent scan reported: how often it is detected and
               how often the 95 % interval holds the truth
    below, twice, four times    the same at half, twice and four times the limit

The contents are given to the first `--with-content` scans. The limit is the amount that is detected with 95 % where
counting alone decides; what else the specimen holds (other texture axes, humps, impurities) is not in it.

    PYTHONPATH=src OPENBLAS_NUM_THREADS=1 python benchmarks/false_detection.py --scans 500 --out false_detection.json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from population import SWITCHES, draw_method, draw_specimen
from specimen import Specimen, measure, scan_points

from xrdz.diffractogram import Diffractogram
from xrdz.errors import XrdzError
from xrdz.method import Method
from xrdz.pipeline import analyse_diffractogram

PHASES = ("sn", "ni3sn4")
SHARES = {"absent": 0.0, "below": 0.5, "at limit": 1.0, "twice": 2.0, "four times": 4.0}
"""Content of the weak phase in units of the detection limit the scan without it reported."""


def run_seed(seed: int, switches: Sequence[str], contents: bool) -> list[dict[str, Any]]:
    """Return the record of the absent phase, and one per content; even seeds leave Ni3Sn4 out, odd ones beta-Sn."""
    rng = np.random.default_rng(seed)
    method = draw_method(rng)
    specimen = draw_specimen(rng, method, switches)
    two_theta = scan_points(rng.choice([90.0, 100.0, 120.0]))
    weak = PHASES[1 - seed % 2]
    records: list[dict[str, Any]] = []
    limit = 0.0
    for label, share in SHARES.items():
        holding = with_fraction(specimen, weak, share * limit)
        if share == 0.0:
            # The pattern is built with a vanishing amount, so that every content shares its reflections and noise seed.
            holding = with_fraction(specimen, weak, 1e-12)
        scan = measure(holding, two_theta, np.random.default_rng([seed, len(records)]))
        record = analysed(scan, method, weak, share * limit)
        records.append({"seed": seed, "weak": weak, "content": label, "counts": specimen.counts, **record})
        if "error" in record or not contents:
            break
        limit = limit or record["detection_limit"]
    return records


def with_fraction(specimen: Specimen, weak: str, fraction: float) -> Specimen:
    """Return the specimen with this mass fraction of a phase among the two fitted ones."""
    other = PHASES[1 - PHASES.index(weak)]
    mass = specimen.mass(other) * fraction / (1.0 - fraction)
    parts = tuple(replace(part, mass=mass) if part.reference.id == weak else part for part in specimen.parts)
    return replace(specimen, parts=parts)


def analysed(scan: Diffractogram, method: Method, weak: str, truth: float) -> dict[str, Any]:
    """Return what the analysis says of the weak phase."""
    try:
        analysis = analyse_diffractogram(scan, method)
    except XrdzError as error:
        return {"error": str(error)}
    phase = analysis.phases[weak]
    low, high = phase.mass_fraction.interval95
    return {
        "truth": truth,
        "detected": phase.detected,
        "value": phase.mass_fraction.value,
        "low": low,
        "high": high,
        "detection_limit": phase.detection_limit,
        "inside": bool(low <= truth <= high),
        "usable_limit": bool(0.0 < phase.detection_limit < 1.0 and high > 0.0),
        "status": analysis.status,
    }


def summary_of(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the statistics of each content, over all scans and by the phase left out."""
    summary: dict[str, Any] = {"errors": sum("error" in record for record in records)}
    for label in SHARES:
        for weak in ("", *PHASES):
            chosen = [
                record
                for record in records
                if record["content"] == label and "error" not in record and weak in ("", record["weak"])
            ]
            if not chosen:
                continue
            scans = len(chosen)
            detected = sum(record["detected"] for record in chosen)
            inside = sum(record["inside"] for record in chosen)
            summary[f"{label} {weak}".strip()] = {
                "scans": scans,
                "detected": detected,
                "detected_share": detected / scans,
                "detected_upper95": _upper(detected, scans),
                "inside_share": inside / scans,
                "inside_su": math.sqrt(max(inside * (scans - inside), 1) / scans**3),
                "truth_above": sum(record["truth"] > record["high"] for record in chosen),
                "truth_below": sum(record["truth"] < record["low"] for record in chosen),
                "unusable": sum(not record["usable_limit"] for record in chosen),
                "median_limit": float(np.median([record["detection_limit"] for record in chosen])),
            }
    return summary


def _upper(events: int, trials: int) -> float:
    """Return the one-sided 95 % upper limit of a probability (Clopper & Pearson 1934, Biometrika 26, 404)."""
    low, high = events / trials, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = sum(
            math.exp(
                math.lgamma(trials + 1)
                - math.lgamma(k + 1)
                - math.lgamma(trials - k + 1)
                + k * math.log(max(middle, 1e-300))
                + (trials - k) * math.log1p(-min(middle, 1.0 - 1e-15))
            )
            for k in range(events + 1)
        )
        low, high = (middle, high) if below > 0.05 else (low, middle)
    return high


def _run(switches: tuple[str, ...], seed: int, contents: bool) -> list[dict[str, Any]]:
    return run_seed(seed, switches, contents)


def run_all(seeds: Sequence[int], switches: Sequence[str], with_content: int, jobs: int) -> list[dict[str, Any]]:
    """Return the records of all seeds."""
    task = partial(_run, tuple(switches))
    contents = [place < with_content for place in range(len(seeds))]
    if jobs == 1:
        groups = list(map(task, seeds, contents))
    else:
        with ProcessPoolExecutor(jobs) as pool:
            groups = list(pool.map(task, seeds, contents, chunksize=4))
    return [record for group in groups for record in group]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scans and print their statistics; the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=500, help="number of pure scans (default 500)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first scan (default 0)")
    parser.add_argument("--with-content", type=int, default=100, help="scans that get contents too (default 100)")
    parser.add_argument("--only", nargs="*", choices=SWITCHES, help="only these nuisances outside the priors; none: no")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes (default 1)")
    parser.add_argument("--out", type=Path, help="write summary and every record here as JSON")
    options = parser.parse_args(arguments)
    switches = SWITCHES if options.only is None else tuple(options.only)
    seeds = range(options.first_seed, options.first_seed + options.scans)
    records = run_all(seeds, switches, options.with_content, options.jobs)
    summary = summary_of(records)
    json.dump(summary, sys.stdout, indent=1)
    sys.stdout.write("\n")
    if options.out is not None:
        text = json.dumps({"switches": switches, "summary": summary, "scans": records}, indent=1)
        options.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
