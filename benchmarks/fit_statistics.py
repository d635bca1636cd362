"""Statistics of the whole fit on its own model: honest uncertainties, the same minimum always, the cost.

Each trial draws a specimen and an instrument, computes the expected pattern with the compiled model, adds Poisson noise
and fits from the generic start. Drawn are

    Z log-uniform 0.05 to 20; total counts log-uniform 1e5 to 1e7, 20 to 80 % of them background;
    grain sizes log-uniform 10 to 200 nm, split between the Gaussian and the Lorentzian width; strain 0 to 0.2 %;
    cells uniform within +-0.3 %; everything else from its own prior, cut at its bounds.

Reported are the pulls (ln Z - true ln Z) / su with three uncertainties: `counting` alone (honest only with `--nuisance
mean`, where the truth of B, texture and instrument is the mean of its prior), `posterior` (counting and priors; the
target is mean 0 +- 0.1 and sd 0.95 to 1.05) and `combined` (with background flexibility and misfit, never smaller).
Pulls count where su(ln Z) < 0.1: nearer the detection limit ln Z is not normal and the program gives a limit instead.

A fit has reached the minimum found from the truth when its ln Z agrees with that of a fit started at the true values
within 0.1 posterior su, when its values cost less than 0.5 in the objective of that fit, or when its objective is the
lower one. Where the two chose different models (background order, extensions), which evidence may leave undecided, the
generic fit's own compiled model is minimised from the truth instead.

    PYTHONPATH=src OPENBLAS_NUM_THREADS=1 python benchmarks/fit_statistics.py --trials 300 --out statistics.json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xrdz.conditions import conditions_of
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.errors import XrdzError
from xrdz.fit import FitResult, fit
from xrdz.instrument import Instrument
from xrdz.parameters import ParameterTable
from xrdz.pattern import InstrumentModel, PatternModel, compile_pattern
from xrdz.profile import DEGREE
from xrdz.quantify import BACKGROUND, COUNTING, MISFIT, MassEstimate, estimate_masses
from xrdz.reference import Reference, reference
from xrdz.solver import Noise, evaluate, minimise
from xrdz.wavelength import wavelength_from_name

NUMERATOR, DENOMINATOR = "ni3sn4", "sn"
INFORMATIVE_SU = 0.1
"""Largest su(ln Z) of a trial whose pull and convergence count."""

SAME_MINIMUM_SU = 0.1
"""Two fits hold the same minimum when their ln Z differ by less than this many posterior su."""

SAME_MINIMUM_COST = 0.5
"""... or when one's values cost less than this in the other's objective; both are compiled where they ended."""


@dataclass(frozen=True)
class Simulation:
    """One drawn pattern with its truth: nonlinear values and the mass ratio."""

    diffractogram: Diffractogram
    instrument: InstrumentModel
    references: tuple[Reference, ...]
    truth: FloatArray
    names: tuple[str, ...]
    ln_ratio: float
    facts: Mapping[str, float | str]


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a number whose logarithm is uniform between those of `low` and `high`."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def draw_instrument(rng: np.random.Generator) -> tuple[InstrumentModel, dict[str, float | str]]:
    """Return an instrument whose file states wavelength and radius, and sometimes Soller slits or a monochromator."""
    radius = float(rng.choice([145.0, 173.0, 217.5, 240.0]))
    soller = float(rng.choice([0.0, 2.3, 2.5, 4.1, 5.0]))
    monochromator = float(rng.choice([0.0, 26.6]))
    instrument = Instrument(
        goniometer_radius_mm=radius,
        wavelength=wavelength_from_name("CuKa"),
        soller_deg=soller or None,
        monochromator_two_theta_deg=monochromator or None,
    )
    nothing = Diffractogram(np.array([20.0, 100.0]), np.zeros(2))
    model = conditions_of(nothing, instrument).instrument
    return model, {"radius_mm": radius, "soller_deg": soller, "monochromator_deg": monochromator}


def draw_values(
    rng: np.random.Generator, table: ParameterTable, references: Sequence[Reference], *, nuisance: str
) -> tuple[FloatArray, dict[str, float]]:
    """Return true nonlinear values: cells and widths as the module's docstring says, the rest from their priors.

    With `nuisance` "mean" the rest stands at the mean of its prior.
    """
    values = np.array(table.prior_mean)
    facts = {}
    if nuisance == "drawn":
        for place in range(table.size):
            values[place] = _truncated_normal(rng, table, place)
        while not _positive_gauss_squared(table, values):
            for name in ("u", "v", "w"):
                values[table.index(name)] = _truncated_normal(rng, table, table.index(name))
    for item in references:
        size_nm = log_uniform(rng, 10.0, 200.0)
        gauss_share = rng.uniform(0.0, 0.5)
        strain = rng.uniform(0.0, 0.002)
        # Scherrer 1918 with K = 0.9 and Stokes & Wilson 1944, full widths in degrees 2theta.
        size_width = 0.9 * 1.5406 / (10.0 * size_nm) * DEGREE
        strain_width = 4.0 * strain * DEGREE
        values[table.index(f"{item.id}.size_lorentz")] = (1.0 - gauss_share) * size_width
        values[table.index(f"{item.id}.size_gauss")] = (gauss_share * size_width) ** 2
        values[table.index(f"{item.id}.strain_lorentz")] = (1.0 - gauss_share) * strain_width
        values[table.index(f"{item.id}.strain_gauss")] = (gauss_share * strain_width) ** 2
        facts[f"size_nm.{item.id}"] = size_nm
        facts[f"gauss_share.{item.id}"] = gauss_share
        for name in ("a", "b", "c", "alpha", "beta", "gamma"):
            full = f"{item.id}.{name}"
            if full in table.names:
                place = table.index(full)
                scale = table.prior_su[place] if name in ("alpha", "beta", "gamma") else 0.003 * table.prior_mean[place]
                values[place] = table.prior_mean[place] + rng.uniform(-1.0, 1.0) * scale
    return values, facts


def _truncated_normal(rng: np.random.Generator, table: ParameterTable, place: int) -> float:
    while True:
        value = float(rng.normal(table.prior_mean[place], table.prior_su[place]))
        if table.lower[place] <= value <= table.upper[place]:
            return value


def _positive_gauss_squared(table: ParameterTable, values: FloatArray) -> bool:
    """Return whether U, V, W give a real width of at least 0.02 degrees everywhere."""
    u, v, w = (values[table.index(name)] for name in ("u", "v", "w"))
    tangent = np.tan(np.radians(np.linspace(5.0, 60.0, 56)))
    return bool(np.min(u * tangent**2 + v * tangent + w) > 0.02**2)


def simulate(seed: int, *, nuisance: str) -> Simulation:
    """Return the pattern of one seed."""
    rng = np.random.default_rng(seed)
    references = (reference(DENOMINATOR), reference(NUMERATOR))
    instrument, facts = draw_instrument(rng)
    n_points = round(float(rng.choice([70.0, 80.0, 100.0])) / 0.02) + 1
    two_theta = 20.0 + 0.02 * np.arange(n_points, dtype=np.float64)
    blank = Diffractogram(two_theta, np.ones(two_theta.size))
    generic = compile_pattern(blank, instrument=instrument, references=references, n_chebyshev=6)
    truth, drawn = draw_values(rng, generic.parameters, references, nuisance=nuisance)
    pattern = compile_pattern(blank, instrument=instrument, references=references, n_chebyshev=6, at=truth)
    ratio, total = log_uniform(rng, 0.05, 20.0), log_uniform(rng, 1e5, 1e7)
    background_share = rng.uniform(0.2, 0.8)
    curves = [block.pattern for block in pattern.phase_columns(truth, derivatives=False)]
    masses = dict(zip((DENOMINATOR, NUMERATOR), (1.0, ratio), strict=True))
    peaks = sum(
        masses[phase.id] / phase.mass_per_scale(truth) * curve
        for phase, curve in zip(pattern.phases, curves, strict=True)
    )
    t = np.linspace(-1.0, 1.0, two_theta.size)
    background = np.exp(-rng.uniform(0.0, 1.0) * t) * (1.0 + rng.uniform(0.0, 0.15) * np.cos(rng.uniform(2, 4) * t))
    expected = total * (
        background_share * background / background.sum() + (1.0 - background_share) * peaks / np.sum(peaks)
    )
    counts = rng.poisson(expected).astype(np.float64)
    facts |= {"ratio": ratio, "counts": total, "background_share": background_share, **drawn}
    return Simulation(
        Diffractogram(two_theta, counts, count_kind="counts"),
        instrument,
        references,
        truth,
        pattern.parameters.names,
        math.log(ratio),
        facts,
    )


def ln_ratio_and_su(estimate: MassEstimate) -> tuple[float, dict[str, float]]:
    """Return ln Z and its uncertainty by counting, posterior and combined; infinite where a phase is absent."""
    numerator, denominator = estimate.ids.index(NUMERATOR), estimate.ids.index(DENOMINATOR)
    if not (estimate.masses[numerator] > 0.0 and estimate.masses[denominator] > 0.0):
        return math.nan, dict.fromkeys(("counting", "posterior", "combined"), math.inf)
    value = math.log(estimate.masses[numerator] / estimate.masses[denominator])
    variances = estimate.variances(estimate.ln_ratio_gradient(numerator, denominator))
    posterior = sum(part for name, part in variances.items() if name not in (BACKGROUND, MISFIT))
    return value, {
        "counting": math.sqrt(variances[COUNTING]),
        "posterior": math.sqrt(posterior),
        "combined": math.sqrt(sum(variances.values())),
    }


def objective_at(pattern: PatternModel, diffractogram: Diffractogram, values: FloatArray, model: FloatArray) -> float:
    """Return the objective at nonlinear `values` with the linear parameters solved."""
    return evaluate(pattern, Noise.of(diffractogram), values, model).objective


def run_trial(seed: int, nuisance: str) -> dict[str, Any]:
    """Simulate, fit from the generic start and from the truth, and return what is to be known of it."""
    simulation = simulate(seed, nuisance=nuisance)
    record: dict[str, Any] = {"seed": seed, **simulation.facts}
    try:
        began = time.process_time()
        generic = _fit(simulation, None)
        record["cpu_s"] = time.process_time() - began
        from_truth = _fit(simulation, simulation.truth)
    except XrdzError as error:
        return {**record, "error": f"{type(error).__name__}: {error}"}
    except (ArithmeticError, ValueError, np.linalg.LinAlgError):  # a defect of the engine: kept with its place
        return {**record, "error": traceback.format_exc()}
    ln_ratio, su = ln_ratio_and_su(estimate_masses(generic))
    reference_ln_ratio, reference_su = ln_ratio_and_su(estimate_masses(from_truth))
    record |= {
        "ln_ratio_true": simulation.ln_ratio,
        "ln_ratio": ln_ratio,
        "su": su,
        "ln_ratio_from_truth": reference_ln_ratio,
        "su_from_truth": reference_su,
        "status": generic.status.value,
        "second_start": generic.second_start,
        "evaluations": generic.evaluations,
        "chi2_reduced": generic.chi2_reduced,
        "terms": generic.pattern.n_chebyshev,
        "terms_from_truth": from_truth.pattern.n_chebyshev,
        "objective": generic.minimum.point.objective,
        "objective_from_truth": from_truth.minimum.point.objective,
        # Both in the model compiled at the truth's minimum, so that nothing discrete differs.
        "excess": objective_at(
            from_truth.pattern, simulation.diffractogram, values_in(from_truth, generic), from_truth.model
        )
        - from_truth.minimum.point.objective,
        "extensions": [extension.name for extension in generic.extensions],
        "informative": reference_su["posterior"] < INFORMATIVE_SU,
        "truth_in_prior_su": prior_units(simulation, generic.pattern.parameters),
    }
    record["reached"] = _reached(record) or (
        (record["terms"] != record["terms_from_truth"] or generic.extensions != from_truth.extensions)
        and _reached_in_its_own_model(simulation, generic, su["posterior"])
    )
    if not record["reached"]:
        record["differs"] = _differences(simulation, generic, from_truth)
    return record


def prior_units(simulation: Simulation, table: ParameterTable) -> dict[str, float]:
    """Return how many prior su each true value lies from the mean of its prior."""
    return {
        name: float((value - table.prior_mean[table.index(name)]) / table.prior_su[table.index(name)])
        for name, value in zip(simulation.names, simulation.truth, strict=True)
    }


def values_in(result: FitResult, other: FitResult) -> FloatArray:
    """Return the nonlinear values of `other` in the order of `result`; unrefined ones stand at their start."""
    values = np.array(result.pattern.parameters.start)
    for place, name in enumerate(result.pattern.parameters.names):
        if name in other.pattern.parameters.names:
            values[place] = other.value(name)
    return values


def _fit(simulation: Simulation, start: FloatArray | None) -> FitResult:
    return fit(
        simulation.diffractogram,
        instrument=simulation.instrument,
        references=simulation.references,
        start=start,
    )


def _reached(record: Mapping[str, Any]) -> bool:
    if not math.isfinite(record["ln_ratio"]):
        return not math.isfinite(record["ln_ratio_from_truth"])
    distance = abs(record["ln_ratio"] - record["ln_ratio_from_truth"])
    if record["excess"] < SAME_MINIMUM_COST:
        return True
    lower = record["objective"] < record["objective_from_truth"] and record["terms"] == record["terms_from_truth"]
    return bool(distance < SAME_MINIMUM_SU * record["su_from_truth"]["posterior"] or lower)


def _reached_in_its_own_model(simulation: Simulation, generic: FitResult, su: float) -> bool:
    """Return whether the generic fit's own compiled model leads from the truth to the same ln Z."""
    start = np.array(generic.pattern.parameters.start)
    for name, value in zip(simulation.names, simulation.truth, strict=True):
        start[generic.pattern.parameters.index(name)] = value
    found = minimise(generic.pattern, Noise.of(simulation.diffractogram), start, first_model=generic.model)
    masses = {
        phase.id: scale * phase.mass_per_scale(found.point.values)
        for phase, scale in zip(generic.pattern.phases, found.point.linear, strict=False)
    }
    ours = {
        phase.id: scale * phase.mass_per_scale(generic.values)
        for phase, scale in zip(generic.pattern.phases, generic.scales, strict=True)
    }
    if min(*masses.values(), *ours.values()) <= 0.0:
        return False
    distance = math.log(masses[NUMERATOR] / masses[DENOMINATOR]) - math.log(ours[NUMERATOR] / ours[DENOMINATOR])
    lower = generic.minimum.point.objective < found.point.objective
    return bool(abs(distance) < SAME_MINIMUM_SU * su or lower)


def _differences(simulation: Simulation, generic: FitResult, from_truth: FitResult) -> dict[str, list[float]]:
    """Return truth, value from the generic start, value from the truth and su of every parameter that moved."""
    table = {}
    for place, name in enumerate(simulation.names):
        su = max(from_truth.su(name), 1e-12)
        if abs(generic.value(name) - from_truth.value(name)) > 0.5 * su:
            table[name] = [float(simulation.truth[place]), generic.value(name), from_truth.value(name), float(su)]
    return table


def summary_of(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the statistics of all trials."""
    fitted = [record for record in records if "error" not in record]
    informative = [record for record in fitted if record["informative"]]
    reached = [record for record in informative if record["reached"]]
    cpu = np.array([record["cpu_s"] for record in fitted])
    result: dict[str, Any] = {
        "trials": len(records),
        "errors": len(records) - len(fitted),
        "informative": len(informative),
        "reached": len(reached),
        "reached_share": len(reached) / max(len(informative), 1),
        "reached_all": sum(record["reached"] for record in fitted),
        "cpu_ms": {
            "median": 1e3 * float(np.median(cpu)),
            "mean": 1e3 * float(cpu.mean()),
            "p95": 1e3 * float(np.quantile(cpu, 0.95)),
            "max": 1e3 * float(cpu.max()),
        },
        "extended": sum(bool(record["extensions"]) for record in fitted),
        "evaluations": float(np.mean([record["evaluations"] for record in fitted])),
        "second_start": sum(record["second_start"] for record in fitted),
        "status": {name: sum(record["status"] == name for record in fitted) for name in {r["status"] for r in fitted}},
        "failed_seeds": sorted(record["seed"] for record in informative if not record["reached"]),
        "error_seeds": sorted(record["seed"] for record in records if "error" in record),
    }
    for kind in ("counting", "posterior", "combined"):
        pulls = np.array([(record["ln_ratio"] - record["ln_ratio_true"]) / record["su"][kind] for record in reached])
        result[f"pull_{kind}"] = {
            "mean": float(pulls.mean()),
            "sd": float(pulls.std(ddof=1)),
            "mean_se": float(pulls.std(ddof=1) / math.sqrt(pulls.size)),
            "sd_se": float(pulls.std(ddof=1) / math.sqrt(2.0 * pulls.size)),
            "inside95": float(np.mean(np.abs(pulls) < 1.96)),
            "worst": float(np.max(np.abs(pulls))),
        }
    return result


def _json(value: Any) -> Any:
    """Return `value` with numbers JSON has no word for as null."""
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials and print their statistics; the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300, help="number of simulated patterns (default 300)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first trial (default 0)")
    parser.add_argument("--seeds", type=int, nargs="*", help="run exactly these seeds instead")
    parser.add_argument("--nuisance", choices=("drawn", "mean"), default="drawn", help="see above (default drawn)")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes (default 1)")
    parser.add_argument("--out", type=Path, help="write summary and every record here as JSON")
    options = parser.parse_args(arguments)
    seeds = options.seeds or range(options.first_seed, options.first_seed + options.trials)
    kinds = [options.nuisance] * len(seeds)
    # The first call of a process compiles and loads the kernel, which belongs to no trial.
    if options.jobs == 1:
        run_trial(seeds[0], options.nuisance)
        records = [run_trial(seed, options.nuisance) for seed in seeds]
    else:
        with ProcessPoolExecutor(options.jobs, initializer=run_trial, initargs=(seeds[0], options.nuisance)) as pool:
            records = list(pool.map(run_trial, seeds, kinds, chunksize=4))
    summary = summary_of(records)
    document = _json({"nuisance": options.nuisance, "summary": summary, "trials": records})
    if options.out is not None:
        options.out.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    json.dump(_json(summary), sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
