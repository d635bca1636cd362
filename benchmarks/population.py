"""Coverage of the combined 95 % interval of Z over a population that draws every nuisance at once.

Each scan draws a beta-Sn + Ni3Sn4 powder and an instrument, and is analysed by the path every user takes, with the
method a laboratory would write (radius, wavelength, Soller slits and monochromator stated, the usual candidates).

Drawn from the fit's own priors: zero, displacement, U, V, W, axial divergence, roughness, polarization, B per element,
ln r of texture. Drawn besides: Z log-uniform 0.05 to 20, counts log-uniform 1e5 to 1e7, background 20 to 70 %, curved,
cells uniform within +-0.3 %, sizes log-uniform 15 to 200 nm with a Gaussian share, strain up to 0.15 %.
Outside the model, each one a switch (`--only`, `--without`):

    axis          the texture axis is any of the catalogue's instead of its first
    anisotropy    ellipsoidal grains, axial ratio log-normal with sd 0.35, about any of the catalogue's axes
    impurity      each of Ni, Ni3Sn2 and SnO2 with probability 0.2, log-uniform 0.2 to 3 mass %
    hump          with probability 0.3, at 20 to 40 deg, 6 to 15 deg wide, 2 to 15 % of the counts
    composition   Ni3+xSn4 with x uniform from 0 to 0.2
    absorption    particles of log-normal diameter, median 2 um, sd of ln 0.7, the same for both phases

    PYTHONPATH=src OPENBLAS_NUM_THREADS=1 python benchmarks/population.py --scans 300 --out population.json
    ... --attribute      also: every switch alone and every switch left out
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from specimen import Part, Specimen, log_uniform, measure, nickel_rich, pick, scan_points, truncated_normal

from xrdz.analysis import Analysis
from xrdz.conditions import conditions_of
from xrdz.diffractogram import Diffractogram
from xrdz.errors import XrdzError
from xrdz.instrument import Instrument
from xrdz.method import Method
from xrdz.parameters import Parameter
from xrdz.pattern import phase_parameters
from xrdz.pipeline import analyse_diffractogram
from xrdz.reference import Reference, reference
from xrdz.wavelength import wavelength_from_name

SWITCHES = ("axis", "anisotropy", "impurity", "hump", "composition", "absorption")
CANDIDATES = ("ni", "ni3sn2", "sno2", "graphite", "cu")
IMPURITIES = ("ni", "ni3sn2", "sno2")
CELL_NAMES = ("a", "b", "c", "alpha", "beta", "gamma")


def draw_method(rng: np.random.Generator) -> Method:
    """Return the method of a laboratory that knows its diffractometer."""
    soller, monochromator = float(rng.choice([0.0, 2.3, 2.5, 4.1, 5.0])), float(rng.choice([0.0, 0.0, 26.6]))
    instrument = Instrument(
        goniometer_radius_mm=float(rng.choice([145.0, 173.0, 217.5, 240.0])),
        wavelength=wavelength_from_name("CuKa"),
        soller_deg=soller or None,
        monochromator_two_theta_deg=monochromator or None,
    )
    return Method(name="population", candidates=CANDIDATES, instrument=instrument)


def draw_specimen(rng: np.random.Generator, method: Method, switches: Sequence[str]) -> Specimen:
    """Return a specimen and its true instrument; every switch draws the same numbers whether it is on or off."""
    ratio = log_uniform(rng, 0.05, 20.0)
    model = conditions_of(Diffractogram(np.array([20.0, 100.0]), np.ones(2)), method.instrument).instrument
    widths = [prior for prior in model.priors if prior.name in ("u", "v", "w")]
    values = {prior.name: draw_prior(rng, prior) for prior in model.priors}
    while not _real_width(values):
        values |= {prior.name: draw_prior(rng, prior) for prior in widths}
    parts = [
        draw_part(rng, reference("sn"), 1.0, switches),
        draw_part(rng, reference("ni3sn4"), ratio, switches),
    ]
    excess = rng.uniform(0.0, 0.2)
    if "composition" in switches:
        parts[1] = replace(parts[1], reference=nickel_rich(parts[1].reference, excess))
    for identifier in IMPURITIES:
        present, share = rng.random() < 0.2, log_uniform(rng, 0.002, 0.03)
        extra = draw_part(rng, reference(identifier), share * (1.0 + ratio), switches)
        if present and "impurity" in switches:
            parts.append(extra)
    diameter = 2.0 * math.exp(rng.normal(0.0, 0.7))
    if "absorption" in switches:
        parts = [replace(part, diameter_um=diameter) for part in parts]
    hump = (rng.uniform(20.0, 40.0), rng.uniform(6.0, 15.0), log_uniform(rng, 0.02, 0.15))
    has_hump = rng.random() < 0.3 and "hump" in switches
    return Specimen(
        parts=tuple(parts),
        instrument=model,
        counts=log_uniform(rng, 1e5, 1e7),
        background_share=rng.uniform(0.2, 0.7),
        slope=rng.uniform(0.0, 1.0),
        curvature=rng.uniform(0.0, 0.1),
        humps=(hump,) if has_hump else (),
        values=values,
    )


def draw_part(rng: np.random.Generator, item: Reference, mass: float, switches: Sequence[str]) -> Part:
    """Return one phase with B and texture from their priors and everything else as the module's docstring says."""
    values = {}
    texture = 0.0
    for prior in phase_parameters(item):
        name = prior.name.partition(".")[2]
        if name in CELL_NAMES:
            scale = prior.prior_su if name in ("alpha", "beta", "gamma") else 0.003 * prior.prior_mean
            values[name] = prior.prior_mean + rng.uniform(-1.0, 1.0) * scale
        elif name.startswith("B."):
            values[name] = draw_prior(rng, prior)
        elif name == "ln_texture":
            texture = draw_prior(rng, prior)
    axes = item.texture_axes or ((0, 0, 1),)
    any_axis, grain_axis = pick(rng, axes), pick(rng, axes)
    elongation = math.exp(rng.normal(0.0, 0.35))
    return Part(
        item,
        mass,
        size_nm=log_uniform(rng, 15.0, 200.0),
        gauss_share=rng.uniform(0.0, 0.5),
        strain=rng.uniform(0.0, 0.0015),
        elongation=elongation if "anisotropy" in switches else 1.0,
        elongation_axis=grain_axis,
        ln_texture=texture,
        texture_axis=any_axis if "axis" in switches else axes[0],
        values=values,
    )


def draw_prior(rng: np.random.Generator, prior: Parameter) -> float:
    """Return a value from a parameter's prior, inside its bounds; no displacement parameter is negative."""
    lower = max(prior.lower, 0.05) if ".B." in prior.name else prior.lower
    return truncated_normal(rng, prior.prior_mean, prior.prior_su, lower, prior.upper)


def _real_width(values: Mapping[str, float]) -> bool:
    """Return whether U, V, W give a real width of at least 0.02 degrees everywhere."""
    tangent = np.tan(np.radians(np.linspace(5.0, 60.0, 56)))
    return bool(np.min(values["u"] * tangent**2 + values["v"] * tangent + values["w"]) > 0.02**2)


def run_scan(seed: int, switches: Sequence[str]) -> dict[str, Any]:
    """Draw, measure and analyse one scan; return truth, answer and whether the interval holds the truth."""
    rng = np.random.default_rng(seed)
    method = draw_method(rng)
    specimen = draw_specimen(rng, method, switches)
    scan = measure(specimen, scan_points(rng.choice([90.0, 100.0, 120.0])), rng)
    truth = specimen.mass("ni3sn4") / specimen.mass("sn")
    record: dict[str, Any] = {"seed": seed, "truth": truth, "counts": specimen.counts, **facts_of(specimen)}
    began = time.process_time()
    try:
        analysis = analyse_diffractogram(scan, method)
    except XrdzError as error:
        return {**record, "error": str(error)}
    return {**record, "cpu_s": time.process_time() - began, **answer_of(analysis, truth)}


def facts_of(specimen: Specimen) -> dict[str, Any]:
    """Return what was drawn outside the fit's priors."""
    sn, ni3sn4 = specimen.parts[:2]
    total = sum(part.mass for part in specimen.parts)
    return {
        "hump": specimen.humps[0][2] if specimen.humps else 0.0,
        "impurity": sum(part.mass for part in specimen.parts[2:]) / total,
        "impurities": [part.reference.id for part in specimen.parts[2:]],
        "elongation": [sn.elongation, ni3sn4.elongation],
        "other_axis": [part.texture_axis != part.reference.texture_axes[0] for part in (sn, ni3sn4)],
        "size_nm": [sn.size_nm, ni3sn4.size_nm],
        "diameter_um": sn.diameter_um,
    }


def answer_of(analysis: Analysis, truth: float) -> dict[str, Any]:
    """Return what the analysis says of Z against the truth."""
    ratio = analysis.mass_ratio
    if ratio is None:
        return {"error": f"no mass ratio; status {analysis.status}"}
    low, high = ratio.interval95
    usable = 0.0 < ratio.value < math.inf and math.isfinite(ratio.su) and ratio.su > 0.0
    error = math.log(ratio.value / truth) if usable else math.nan
    return {
        "ratio": ratio.value,
        "low": low,
        "high": high,
        "ln_error": error,
        "u_ln": ratio.su / ratio.value if usable else math.inf,
        "u_stat": ratio.su_stat / ratio.value if usable else math.inf,
        "inside": bool(low <= truth <= high),
        "limit": ratio.limit,
        "status": analysis.status,
        "budget": dict(analysis.budget),
        "gof": analysis.agreement.gof if analysis.agreement else None,
        "findings": sorted({finding.code.value for finding in analysis.findings}),
    }


def summary_of(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return coverage and accuracy of a set of scans."""
    answered = [record for record in records if "error" not in record]
    sharp = [record for record in answered if record["u_ln"] < 0.5]
    inside = sum(record["inside"] for record in answered)
    errors = np.array([record["ln_error"] for record in sharp])
    u = np.array([record["u_ln"] for record in sharp])
    share = inside / max(len(answered), 1)
    return {
        "scans": len(records),
        "answered": len(answered),
        "inside": inside,
        "coverage": share,
        # Where none or all are inside, as much as one scan more or less.
        "coverage_su": math.sqrt(max(inside * (len(answered) - inside), 1) / max(len(answered), 1) ** 3),
        "rms_ln_error": _round(np.sqrt(np.mean(errors**2))),
        "median_abs_ln_error": _round(np.median(np.abs(errors))),
        "mean_ln_error": _round(np.mean(errors)),
        "median_u_ln": _round(np.median(u)),
        "pull_rms": _round(np.sqrt(np.mean((errors / u) ** 2))),
        "pull_robust": _round(1.4826 * np.median(np.abs(errors / u))),
        "not_converged": sum(record["status"] != "converged" for record in answered),
        "cpu_s": _round(np.median([record["cpu_s"] for record in answered])),
        "worst_seeds": [
            record["seed"] for record in sorted(sharp, key=lambda record: -abs(record["ln_error"] / record["u_ln"]))[:8]
        ],
    }


def _round(value: Any) -> float:
    return float(f"{float(value):.4g}")


def run_population(seeds: Sequence[int], switches: Sequence[str], jobs: int) -> list[dict[str, Any]]:
    """Return the records of all seeds; the first call of a process compiles the kernel and belongs to no scan."""
    task = partial(run_scan, switches=tuple(switches))
    if jobs == 1:
        task(seeds[0])
        return [task(seed) for seed in seeds]
    with ProcessPoolExecutor(jobs, initializer=task, initargs=(seeds[0],)) as pool:
        return list(pool.map(task, seeds, chunksize=4))


def table_line(label: str, summary: Mapping[str, Any]) -> str:
    """Return one line of the printed table."""
    return (
        f"{label:24s} coverage {100 * summary['coverage']:5.1f} +- {100 * summary['coverage_su']:.1f} %  "
        f"pull rms {summary['pull_rms']:5.2f} (robust {summary['pull_robust']:4.2f})  "
        f"|dlnZ| median {100 * summary['median_abs_ln_error']:5.2f} % rms {100 * summary['rms_ln_error']:6.2f} %  "
        f"u median {100 * summary['median_u_ln']:5.2f} %  {1e3 * summary['cpu_s']:5.0f} ms\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the population and print its coverage; the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=300, help="number of scans (default 300)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first scan (default 0)")
    parser.add_argument("--seeds", type=int, nargs="*", help="run exactly these seeds instead")
    parser.add_argument(
        "--only", nargs="*", choices=SWITCHES, help="only these outside nuisances; none: the priors alone"
    )
    parser.add_argument("--without", nargs="*", choices=SWITCHES, default=[], help="all but these")
    parser.add_argument("--attribute", action="store_true", help="also every switch alone and every switch left out")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes (default 1)")
    parser.add_argument("--out", type=Path, help="write summaries and every record here as JSON")
    options = parser.parse_args(arguments)
    seeds = options.seeds or list(range(options.first_seed, options.first_seed + options.scans))
    chosen = SWITCHES if options.only is None else tuple(options.only)
    chosen = tuple(switch for switch in chosen if switch not in options.without)
    cases = {"all" if chosen == SWITCHES else " ".join(chosen) or "priors alone": chosen}
    if options.attribute:
        cases |= {"priors alone": ()} | {f"only {switch}": (switch,) for switch in SWITCHES}
        cases |= {f"without {switch}": tuple(s for s in SWITCHES if s != switch) for switch in SWITCHES}
    document: dict[str, dict[str, Any]] = {}
    for label, switches in cases.items():
        records = run_population(seeds, switches, options.jobs)
        document[label] = {"summary": summary_of(records), "scans": records}
        sys.stdout.write(table_line(label, document[label]["summary"]))
        sys.stdout.flush()
    if options.out is not None:
        options.out.write_text(json.dumps(_json(document), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def _json(value: Any) -> Any:
    """Return `value` with numbers JSON has no word for as null."""
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


if __name__ == "__main__":
    raise SystemExit(main())
