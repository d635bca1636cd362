"""What each imperfection of a real powder does to ln Z: before, when the fit ignores it, and after, by the product.

One row per cause, at Z = 0.1, 1 and 10. The scans are those of `specimen.py` with 3e6 counts and Poisson noise.

    before  B, texture, roughness and the instrument's intensity factors are held, at their true values but for the one
            of the row, which is held at what a plain program assumes; cells, widths, position, background are refined
    after   `xrdz fit` with the usual candidates and nothing known of the specimen

Given are the mean error of ln Z over the seeds, its standard uncertainty as the product states it, and in how many
scans the 95 % interval holds the truth.

    PYTHONPATH=src OPENBLAS_NUM_THREADS=1 python benchmarks/systematics.py --seeds 4 --out systematics.json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from specimen import Part, Specimen, measure, nickel_rich, scan_points, true_values

from xrdz.conditions import conditions_of
from xrdz.diffractogram import Diffractogram
from xrdz.errors import XrdzError
from xrdz.fields import Estimate
from xrdz.instrument import Instrument
from xrdz.method import Method
from xrdz.parameters import Parameter, ParameterTable
from xrdz.pattern import GLOBAL_NAMES, InstrumentModel, compile_pattern
from xrdz.pipeline import analyse_diffractogram
from xrdz.reference import reference
from xrdz.solver import Noise, minimise
from xrdz.wavelength import wavelength_from_name

RATIOS = (0.1, 1.0, 10.0)
CANDIDATES = ("ni", "ni3sn2", "sno2", "graphite", "cu")
LABORATORY = Instrument(
    goniometer_radius_mm=217.5,
    wavelength=wavelength_from_name("CuKa"),
    soller_deg=2.5,
    monochromator_two_theta_deg=26.6,
)
OPEN_SLITS = replace(LABORATORY, goniometer_radius_mm=173.0, soller_deg=5.0)
TERMS = 10
REFINED_GLOBALS = ("zero", "displacement", "u", "v", "w", "kappa")
"""What a plain program refines of the instrument; the other global parameters are held before."""

Change = Callable[[Specimen], Specimen]


@dataclass(frozen=True)
class Row:
    """One cause.

    Parameters
    ----------
    change : makes the perfect specimen imperfect
    assumed : parameters that a plain program holds at a wrong value, by name
    terms : Chebyshev terms of the plain program
    keep_texture : refine texture before, on the catalogue's first axis
    laboratory : the diffractometer, as the method states it
    sizes : particle diameters the method states after, micrometres
    """

    name: str
    change: Change
    assumed: Mapping[str, float]
    terms: int = TERMS
    keep_texture: bool = False
    laboratory: Instrument = LABORATORY
    sizes: Mapping[str, Estimate] = field(default_factory=dict)


def perfect(ratio: float, laboratory: Instrument) -> Specimen:
    """Return a powder without imperfections in a well aligned diffractometer."""
    blank = Diffractogram(np.array([20.0, 100.0]), np.ones(2))
    model = conditions_of(blank, laboratory).instrument
    parts = (
        Part(reference("sn"), 1.0, size_nm=80.0, strain=0.0003),
        Part(reference("ni3sn4"), ratio, size_nm=40.0, strain=0.0005),
    )
    # Three Chebyshev terms on a gentle slope, so that ten hold it.
    return Specimen(parts, model, slope=0.3, curvature=0.0, values={"roughness": 0.0, "displacement": 0.03})


def with_part(identifier: str, **changes: Any) -> Change:
    """Return a change of one phase's part."""

    def change(specimen: Specimen) -> Specimen:
        parts = tuple(replace(part, **changes) if part.reference.id == identifier else part for part in specimen.parts)
        return replace(specimen, parts=parts)

    return change


def both(first: Change, second: Change) -> Change:
    """Return two changes, one after the other."""
    return lambda specimen: second(first(specimen))


def with_b(identifier: str, more: float) -> Change:
    """Return a change of every B of a phase by `more`."""
    item = reference(identifier)
    values = {f"B.{group}": b + more for group, (b, _) in zip(item.groups, item.displacement, strict=True)}
    return with_part(identifier, values=values)


def held_b(*identifiers: str) -> dict[str, float]:
    """Return the library's B of phases, by parameter name."""
    return {
        f"{identifier}.B.{group}": b
        for identifier in identifiers
        for group, (b, _) in zip(reference(identifier).groups, reference(identifier).displacement, strict=True)
    }


def with_impurity(identifier: str, share: float) -> Change:
    """Return a change that adds a phase the method does not name."""

    def change(specimen: Specimen) -> Specimen:
        total = sum(part.mass for part in specimen.parts)
        extra = Part(reference(identifier), total * share / (1.0 - share), size_nm=40.0)
        return replace(specimen, parts=(*specimen.parts, extra))

    return change


def with_grains(diameter_um: float) -> Change:
    """Return a change of both phases' particle diameter."""
    return both(with_part("sn", diameter_um=diameter_um), with_part("ni3sn4", diameter_um=diameter_um))


def with_composition(excess: float) -> Change:
    """Return a change of Ni3Sn4 to Ni3+xSn4."""
    return with_part("ni3sn4", reference=nickel_rich(reference("ni3sn4"), excess))


def with_hump(specimen: Specimen) -> Specimen:
    """Return the specimen with a hump of 30 % of the counts at 32 degrees, 10 degrees wide."""
    return replace(specimen, humps=((32.0, 10.0, 0.3),), background_share=0.3)


def with_values(**values: float) -> Change:
    """Return a change of the instrument's true values."""
    return lambda specimen: replace(specimen, values={**specimen.values, **values})


def rows() -> tuple[Row, ...]:
    """Return all causes, in the order of the table in physics.md, and some of the instrument."""
    r = math.log(0.8)
    axes = {identifier: reference(identifier).texture_axes for identifier in ("sn", "ni3sn4")}
    table = [Row("none (control)", lambda specimen: specimen, {})]
    table += [
        Row(f"texture of {name}, r = 0.8", with_part(name, ln_texture=r, texture_axis=axes[name][0]), {})
        for name in axes
    ]
    table += [
        Row(
            f"texture of {name} on its second axis, r = 0.8",
            with_part(name, ln_texture=r, texture_axis=axes[name][1]),
            {},
            keep_texture=True,
        )
        for name in axes
    ]
    table += [
        Row("B of sn 0.5 higher", with_b("sn", 0.5), held_b("sn")),
        Row("B of ni3sn4 0.5 higher", with_b("ni3sn4", 0.5), held_b("ni3sn4")),
        Row("B of both 0.5 higher", both(with_b("sn", 0.5), with_b("ni3sn4", 0.5)), held_b("sn", "ni3sn4")),
    ]
    table += [
        Row(f"grains of {name} four times as long", with_part(name, elongation=4.0, elongation_axis=axes[name][0]), {})
        for name in ("ni3sn4", "sn")
    ]
    table += [
        Row(f"{100 * share:g} % of {name}", with_impurity(name, share), {})
        for name in ("ni", "ni3sn2")
        for share in (0.01, 0.03)
    ]
    table += [Row(f"microabsorption, {size:g} um", with_grains(size), {}) for size in (1.0, 5.0, 20.0)]
    known = {name: Estimate(20.0, 4.0) for name in axes}
    table += [Row("microabsorption, 20 um, size stated after", with_grains(20.0), {}, sizes=known)]
    table += [Row(f"hump of 30 %, {terms} terms", with_hump, {}, terms=terms) for terms in (4, 6, 8, 10, 14)]
    table += [Row(f"Ni3+xSn4, x = {excess:g}", with_composition(excess), {}) for excess in (0.2, 0.4)]
    table += [
        Row("displacement 0.1 mm held at 0", with_values(displacement=0.1), {"displacement": 0.0, "zero": 0.0}),
        Row(
            "axial divergence of 5 deg slits left out", lambda specimen: specimen, {"kappa": 0.0}, laboratory=OPEN_SLITS
        ),
        Row("polarization 1 instead of 0.80", lambda specimen: specimen, {"polarization": 1.0}),
        Row("transparency 0.06 deg left out", with_values(transparency=0.06), {"transparency": 0.0}),
        Row("K-beta of 2 % left out", lambda specimen: replace(specimen, tube=((1.39225, 0.02),)), {}),
    ]
    return tuple(table)


def before(specimen: Specimen, scan: Diffractogram, row: Row) -> float:
    """Return ln Z of the plain program."""
    references = (reference("sn"), reference("ni3sn4"))
    instrument: InstrumentModel = specimen.instrument
    generic = compile_pattern(scan, instrument=instrument, references=references, n_chebyshev=row.terms)
    known = replace(
        specimen, parts=tuple(replace(part, reference=reference(part.reference.id)) for part in specimen.parts[:2])
    )
    truth = true_values(known, generic)
    table = generic.parameters
    parameters = []
    for place, name in enumerate(table.names):
        old = Parameter(
            name,
            *(
                float(column[place])
                for column in (table.start, table.prior_mean, table.prior_su, table.lower, table.upper)
            ),
        )
        last = name.rpartition(".")[2]
        is_global = name in GLOBAL_NAMES
        texture = last == "ln_texture"
        held = name in row.assumed or (is_global and name not in REFINED_GLOBALS) or ".B." in name
        if held or (texture and not row.keep_texture):
            value = row.assumed.get(name, 0.0 if texture else float(truth[place]))
            old = replace(old, start=value, prior_mean=value, prior_su=1e-6, lower=value, upper=value)
        parameters.append(old)
    plain = ParameterTable.of(parameters)
    noise, values = Noise.of(scan), plain.start
    for _ in range(3):
        pattern = compile_pattern(
            scan, instrument=instrument, references=references, n_chebyshev=row.terms, at=values, parameters=plain
        )
        minimum = minimise(pattern, noise, values)
        values = minimum.point.values
    masses = [
        float(scale) * phase.mass_per_scale(values)
        for scale, phase in zip(minimum.point.linear[:2], pattern.phases, strict=True)
    ]
    return math.log(masses[1] / masses[0]) if min(masses) > 0.0 else math.nan


def run_case(number: int, ratio: float, seed: int) -> dict[str, Any]:
    """Return before and after of one row, ratio and seed."""
    row = rows()[number]
    specimen = row.change(perfect(ratio, row.laboratory))
    scan = measure(specimen, scan_points(110.0), np.random.default_rng([seed, round(1000.0 * ratio)]))
    truth = math.log(specimen.mass("ni3sn4") / specimen.mass("sn"))
    record: dict[str, Any] = {"row": row.name, "ratio": ratio, "seed": seed}
    try:
        record["before"] = before(specimen, scan, row) - truth
        analysis = analyse_diffractogram(
            scan, Method(candidates=CANDIDATES, instrument=row.laboratory, particle_size_um=row.sizes)
        )
    except XrdzError as error:
        return {**record, "error": str(error)}
    found = analysis.mass_ratio
    if found is None or not found.value > 0.0:
        return {**record, "error": "no mass ratio"}
    low, high = found.interval95
    return {
        **record,
        "after": math.log(found.value) - truth,
        "u": found.su / found.value,
        "inside": bool(low <= math.exp(truth) <= high),
        "findings": sorted({finding.code.value for finding in analysis.findings}),
    }


def summary_of(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry per row and ratio: means over the seeds."""
    table = []
    for row in rows():
        for ratio in RATIOS:
            chosen = [
                record
                for record in records
                if record["row"] == row.name and record["ratio"] == ratio and "error" not in record
            ]
            if not chosen:
                continue
            table.append(
                {
                    "row": row.name,
                    "ratio": ratio,
                    "scans": len(chosen),
                    "before": float(np.mean([record["before"] for record in chosen])),
                    "after": float(np.mean([record["after"] for record in chosen])),
                    "u": float(np.mean([record["u"] for record in chosen])),
                    "inside": sum(record["inside"] for record in chosen),
                }
            )
    return table


def run_all(seeds: Sequence[int], jobs: int, only: str = "") -> list[dict[str, Any]]:
    """Return the records of every row, ratio and seed."""
    cases = [
        (number, ratio, seed)
        for number, row in enumerate(rows())
        if only in row.name
        for ratio in RATIOS
        for seed in seeds
    ]
    if jobs == 1:
        return [run_case(*case) for case in cases]
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(partial(_unpacked, run_case), cases, chunksize=4))


def _unpacked(function: Callable[..., dict[str, Any]], case: tuple[int, float, int]) -> dict[str, Any]:
    return function(*case)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the table and print it; the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4, help="scans per row and Z (default 4)")
    parser.add_argument("--only", default="", help="only rows whose name holds this text")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes (default 1)")
    parser.add_argument("--out", type=Path, help="write table and records here as JSON")
    options = parser.parse_args(arguments)
    records = run_all(range(options.seeds), options.jobs, options.only)
    table = summary_of(records)
    for entry in table:
        sys.stdout.write(
            f"{entry['row']:44s} Z {entry['ratio']:5g}  before {100 * entry['before']:+7.2f} %  "
            f"after {100 * entry['after']:+7.2f} %  u {100 * entry['u']:5.2f} %  "
            f"{entry['inside']} of {entry['scans']}\n"
        )
    if options.out is not None:
        options.out.write_text(json.dumps({"table": table, "records": records}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
