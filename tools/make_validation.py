"""Write `docs/validation.md` and its plots: every figure the product is judged by, with what it is compared with.

    PYTHONPATH=src OPENBLAS_NUM_THREADS=1 python tools/make_validation.py --data ../shared/data --jobs 2

Measured scans are those of `--data`; where the folder is not there, the document says which sections were not measured.
Simulations are made here by the programs in `benchmarks/`. The numbers behind the document go to
`docs/validation/figures.json`, each section with the commit of the source it was measured with and its seeds.
`--quick` makes a tenth of the simulations, to try the tool out. With `--records FOLDER` each simulated scan's record is
kept there by commit, so that a stopped run goes on where it was. `--keep SECTION...` takes the numbers of those
sections from the last run's figures.json, `--keep all` writes the document anew without measuring anything.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))  # the benchmarks are programs, not a package

import false_detection  # noqa: E402
import fit_statistics  # noqa: E402
import population  # noqa: E402
import repeat_scans  # noqa: E402
import systematics  # noqa: E402

from xrdz.absorption import ABSORPTION  # noqa: E402
from xrdz.calibration import Calibration, calibrate  # noqa: E402
from xrdz.conditions import conditions_of  # noqa: E402
from xrdz.fit import FitResult, fit  # noqa: E402
from xrdz.instrument import Instrument, write_instrument  # noqa: E402
from xrdz.method import Method, read_method  # noqa: E402
from xrdz.numerals import value_with_su  # noqa: E402
from xrdz.parameters import Parameter  # noqa: E402
from xrdz.pipeline import analyse, analyse_diffractogram  # noqa: E402
from xrdz.plotting import write_figure  # noqa: E402
from xrdz.quantify import COVERAGE_FACTOR, estimate_masses  # noqa: E402
from xrdz.readers import read  # noqa: E402
from xrdz.reference import reference  # noqa: E402
from xrdz.validation import Recovered, Sample, validate  # noqa: E402
from xrdz.validation_plot import ratio_figure, validation_figure  # noqa: E402
from xrdz.wavelength import wavelength_from_name  # noqa: E402

CPD_METHOD = """\
name = "IUCr CPD"
version = "1"
phases = ["corundum", "fluorite", "zincite"]
two_theta = [15.0, 145.0]
[instrument]
goniometer_radius_mm = 173.0
wavelength = "CuKa"
monochromator_two_theta_deg = 26.6
"""
CPD_SAMPLES = ("cpd-1a.prn", "cpd-1c.prn", "cpd-1e.prn", "cpd-1g.prn")
PHILIPS = Instrument(
    name="Philips PW3020",
    goniometer_radius_mm=173.0,
    wavelength=wavelength_from_name("CuKa"),
    monochromator_two_theta_deg=26.6,
)
DARA_IDS = {"TiO2": "anatase", "ZnO": "zincite", "V2O5": "v2o5", "ZrO2": "baddeleyite", "NiO": "nio"}
DARA_WINDOWS: Mapping[str, Sequence[repeat_scans.Window]] = {
    "TiO2_0p4009-ZnO_0p6010": (
        *(
            (low, high, "anatase")
            for low, high in ((24.2, 26.6), (37.2, 38.5), (53.3, 54.5), (54.5, 55.8), (74.5, 75.8))
        ),
        *(
            (low, high, "zincite")
            for low, high in ((31.0, 33.0), (33.8, 35.2), (35.5, 37.0), (55.8, 57.6), (67.3, 68.5))
        ),
    ),
    "V2O5_0p8011-ZrO2_0p2012": (
        *((low, high, "v2o5") for low, high in ((19.2, 21.3), (21.4, 22.3), (25.6, 27.0), (40.8, 41.9))),
        *((low, high, "baddeleyite") for low, high in ((27.6, 29.2), (33.8, 35.1))),
    ),
}
"""Windows (deg) with strong peaks of one phase alone."""

MEASURED = ("cpd", "recipe", "dara", "simulated", "standards", "cost")
SECTIONS = (*MEASURED, "statistics", "systematics", "population", "false")
POPULATION_SEED, FALSE_SEED, STATISTICS_SEED = 30_000, 40_000, 50_000
"""First seeds; no constant of the program was chosen on them."""

CPD_IDS = ("corundum", "fluorite", "zincite")
RECIPES: Mapping[str, Mapping[str, float]] = {
    "all refined against their priors": {},
    "A = 0.80": {"polarization": 0.80},
    "A = 0.88": {"polarization": 0.88},
    "A = 0.43": {"polarization": 0.43},
}
"""What is held of the instrument where displacement parameters are frozen; with A also no roughness, no overspill."""

HELD_SU = 1e-4
SIZES_UM = (1.0, 2.0, 3.0, 4.0)

Figures = dict[str, Any]


# --- numbers ----------------------------------------------------------------------------------------------------------


def cpd_numbers(data: Path, plots: Path) -> Figures:
    """Return the four weighed mixtures of the round robin, without and with a calibrated instrument."""
    with tempfile.TemporaryDirectory() as folder:
        plain, calibrated = Path(folder) / "cpd.toml", Path(folder) / "cpd-calibrated.toml"
        plain.write_text(CPD_METHOD, encoding="utf-8")
        instrument = Path(folder) / "instrument.toml"
        found = calibrate(read(data / "cpd" / "CPD-Y2O3.PRN"), "y2o3", start=PHILIPS, two_theta=(15.0, 145.0))
        write_instrument(found.instrument, instrument)
        head, _, _ = CPD_METHOD.partition("[instrument]")
        calibrated.write_text(f'{head}instrument = "instrument.toml"\n', encoding="utf-8")
        both = {
            name: validate([Sample(data / "cpd" / scan, truth, method) for scan, truth in cpd_truth(data).items()])
            for name, method in (("plain", plain), ("calibrated", calibrated))
        }
    write_figure(validation_figure(both["plain"]), plots / "cpd.png")
    return {name: result.to_dict() for name, result in both.items()}


def cpd_truth(data: Path) -> dict[str, dict[str, float]]:
    """Return the weighed mass fractions of the four mixtures by scan."""
    truth = json.loads((data / "truth.json").read_text(encoding="utf-8"))["cpd"]
    return {
        scan: {phase: 0.01 * percent for phase, percent in truth[scan]["weights_percent"].items()}
        for scan in CPD_SAMPLES
    }


def held(name: str, value: float) -> Parameter:
    """Return a parameter that stays where it is."""
    return Parameter(name, value, value, HELD_SU, value - 1.0, value + 1.0)


def cpd_fit(data: Path, scan: str, phases: Iterable[str], parameters: Sequence[Parameter]) -> FitResult:
    """Return the fit of one of the round robin's scans with some parameters replaced."""
    diffractogram = read(data / "cpd" / scan)
    return fit(
        diffractogram.cropped((15.0, 145.0)),
        instrument=conditions_of(diffractogram, PHILIPS).instrument,
        references=[reference(phase) for phase in phases],
        parameters=parameters,
    )


def recipe_numbers(data: Path) -> Figures:
    """Return the mixtures with displacement parameters frozen from the pure phases, and with stated grain sizes."""
    recipes = {name: recipe(data, instrument) for name, instrument in RECIPES.items()}
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES_UM:
            method = Path(folder) / f"{size:g}.toml"
            table = "".join(f"{phase} = [{size:g}, {0.3 * size:g}]\n" for phase in CPD_IDS)
            method.write_text(f"{CPD_METHOD}[particle_size_um]\n{table}", encoding="utf-8")
            samples = [Sample(data / "cpd" / scan, truth, method) for scan, truth in cpd_truth(data).items()]
            sizes[f"{size:g}"] = validate(samples).to_dict()["summary"]
    return {"recipes": recipes, "sizes_um": sizes}


def recipe(data: Path, instrument: Mapping[str, float]) -> Figures:
    """Return what freezing the displacement parameters gives with an instrument's intensity factors held or not.

    Absolute scales are S V^2 mu of the pure scans over that of corundum, one where all intensities are right.
    """
    still = {"roughness": 0.0, "overspill": 0.02, **instrument} if instrument else {}
    shared = [held(name, value) for name, value in still.items()]
    displacement: dict[str, float] = {}
    absolute: dict[str, float] = {}
    pure_deviance = 0.0
    for phase in CPD_IDS:
        item = reference(phase)
        names = [f"{phase}.B.{group}" for group in item.groups]
        free = [Parameter(name, b, b, 1.0, -1.0, 15.0) for name, (b, _) in zip(names, item.displacement, strict=True)]
        result = cpd_fit(data, f"{phase}.prn", (phase,), [*shared, *free])
        displacement |= {name: result.value(name) for name in names}
        attenuation = item.linear_attenuation(PHILIPS.wavelength.principal if PHILIPS.wavelength else 1.5406)
        absolute[phase] = float(estimate_masses(result).masses[0]) * attenuation / item.density
        pure_deviance += result.minimum.point.deviance
    frozen = [held(name, value) for name, value in displacement.items()]
    errors, deviance, relative = [], 0.0, {}
    for scan, truth in cpd_truth(data).items():
        result = cpd_fit(data, scan, CPD_IDS, [*shared, *frozen])
        weighed = np.array([truth[phase] for phase in CPD_IDS])
        found = estimate_masses(result).fractions
        errors += list(found - weighed)
        deviance += result.minimum.point.deviance
        relative[scan] = dict(zip(CPD_IDS, (found / weighed / (found[0] / weighed[0])).tolist(), strict=True))
    return {
        "displacement": displacement,
        "absolute": {phase: value / absolute["corundum"] for phase, value in absolute.items()},
        "pure_deviance": pure_deviance,
        "deviance": deviance,
        "errors": [float(error) for error in errors],
        "rms": float(np.sqrt(np.mean(np.square(errors)))),
        "worst": float(np.max(np.abs(errors))),
        "relative": relative,
    }


def dara_numbers(data: Path, plots: Path) -> Figures:
    """Return the weighed oxide mixtures measured for 2 and 8 minutes."""
    truth = json.loads((data / "truth.json").read_text(encoding="utf-8"))["dara"]
    samples = []
    for scan, facts in truth.items():
        weights = {DARA_IDS.get(formula): 0.01 * percent for formula, percent in facts["weights_percent"].items()}
        known = {phase: weight for phase, weight in weights.items() if phase is not None}
        if len(known) == len(weights):
            samples.append(Sample(data / "dara" / scan, known, None, tuple(known)))
    result = validate(samples)
    write_figure(validation_figure(result), plots / "dara.png")
    repeats = {
        mixture: repeat_scans.compare(
            *(read(data / "dara" / f"{mixture}--{time}.xrdml") for time in ("2min", "8min")), windows
        )
        for mixture, windows in DARA_WINDOWS.items()
    }
    return {**result.to_dict(), "repeats": repeats}


def simulated_numbers(data: Path, plots: Path) -> Figures:
    """Return the simulated Sn + Ni3Sn4 scans of another program."""
    box = data / "simulated"
    truth = json.loads((box / "truth.json").read_text(encoding="utf-8"))
    scans, ratios = [], []
    for name, facts in sorted(truth.items()):
        analysis = analyse(box / facts["file"], box / f"{name}.toml")
        ratio = analysis.mass_ratio
        if ratio is None:
            scans.append({"name": name, "error": analysis.status})
            continue
        item = Recovered(name, facts["Z"], ratio.value, ratio.su_stat, ratio.su, *ratio.interval95)
        ratios.append(item)
        gof = analysis.agreement.gof if analysis.agreement else None
        contrast = analysis.budget.get(ABSORPTION, 0.0)
        u_ln = math.sqrt(max((ratio.su / ratio.value) ** 2 - contrast**2, 0.0))
        scans.append(
            {
                **item.to_dict(),
                "gof": gof,
                "status": analysis.status,
                "u_without_contrast": u_ln,
                "inside_without_contrast": abs(math.log(ratio.value / facts["Z"])) <= COVERAGE_FACTOR * u_ln,
            }
        )
    write_figure(ratio_figure(tuple(ratios)), plots / "simulated.png")
    errors = [math.log(item.value / item.truth) for item in ratios]
    return {
        "scans": scans,
        "mean_ln_error": float(np.mean(errors)),
        "mean_ln_error_su": float(np.sqrt(np.sum([(i.su_stat / i.value) ** 2 for i in ratios])) / len(ratios)),
        "inside_without_contrast": sum(scan.get("inside_without_contrast", False) for scan in scans),
        "median_abs_ln_error": float(np.median(np.abs(errors))),
        "worst_ln_error": float(np.max(np.abs(errors))),
        "inside": sum(item.inside for item in ratios),
        "pull_rms": float(np.sqrt(np.mean([(e * i.value / i.su) ** 2 for e, i in zip(errors, ratios, strict=True)]))),
    }


def standards_numbers(data: Path) -> Figures:
    """Return what three measured standards give."""

    def facts(calibration: Calibration) -> Figures:
        resolution = calibration.instrument.resolution
        assert resolution is not None
        return {
            "resolution": {name: getattr(resolution, name).to_json() for name in resolution.parameters},
            "displacement_mm": calibration.displacement_mm.to_json(),
            "cell": {
                name: [check.expected.to_json(), check.measured.to_json() if check.measured else None]
                for name, check in calibration.cell.items()
            },
            "response": calibration.instrument.to_dict().get("intensity_response"),
            "gof": calibration.agreement.gof,
        }

    cpd = data / "cpd"
    return {
        "SRM 660c LaB6, NIST's certification scan": facts(
            calibrate(read(data / "formats" / "pdcif_nist_srm660c_100a.cif"), "lab6")
        ),
        "Y2O3, round robin": facts(
            calibrate(read(cpd / "CPD-Y2O3.PRN"), "y2o3", start=PHILIPS, two_theta=(15.0, 145.0))
        ),
        "corundum, round robin": facts(
            calibrate(read(cpd / "corundum.prn"), "corundum", start=PHILIPS, two_theta=(15.0, 145.0))
        ),
    }


def cost_numbers(data: Path) -> Figures:
    """Return the CPU time of fits with and without candidates, on the simulated scans."""
    box = data / "simulated"
    times: dict[str, list[float]] = {"plain": [], "candidates": []}
    for path in sorted(box.glob("dev_*.toml")):
        scan, method = read(path.with_suffix(".xy")), read_method(path)
        for name, candidates in (("plain", ()), ("candidates", systematics.CANDIDATES)):
            chosen = Method(phases=method.phases, candidates=candidates, instrument=method.instrument)
            analyse_diffractogram(scan, chosen)
            began = time.process_time()
            analyse_diffractogram(scan, chosen)
            times[name].append(time.process_time() - began)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    ratio = float(np.median(np.array(times["candidates"]) / np.array(times["plain"])))
    return {**medians, "ratio": ratio}


@dataclass(frozen=True)
class Simulations:
    """How simulated scans are run: in how many processes, and where their records are kept, if anywhere."""

    jobs: int
    folder: Path | None
    quick: bool

    def size(self, full: int) -> int:
        """Return the number of scans: all, or a tenth."""
        return max(full // 10, 1) if self.quick else full

    def records(self, name: str, function: Callable[..., Any], cases: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Return function(*case) of each case, from the folder where it was there before."""
        known: dict[str, Any] = {}
        path = None if self.folder is None else self.folder / f"{name}-{commit()}.jsonl"
        if path is not None and path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            known = {line["case"]: line["record"] for line in map(json.loads, lines)}
        missing = [case for case in cases if str(case) not in known]
        if not missing:
            return [known[str(case)] for case in cases]
        with ProcessPoolExecutor(self.jobs) if self.jobs > 1 else nullcontext() as pool:
            columns = zip(*missing, strict=True)
            found = map(function, *columns) if pool is None else pool.map(function, *columns, chunksize=4)
            for case, record in zip(missing, found, strict=True):
                text = json.dumps({"case": str(case), "record": record}, default=lambda value: value.item())
                known[str(case)] = json.loads(text)["record"]
                if path is not None:
                    with path.open("a", encoding="utf-8") as stream:
                        stream.write(f"{text}\n")
        return [known[str(case)] for case in cases]


def statistics_numbers(simulations: Simulations) -> Figures:
    """Return pulls and convergence on the engine's own model."""
    seeds = range(STATISTICS_SEED, STATISTICS_SEED + simulations.size(300))
    records = simulations.records("statistics", fit_statistics.run_trial, [(seed, "drawn") for seed in seeds])
    return {**fit_statistics.summary_of(records), "seeds": [seeds[0], seeds[-1]]}


def systematics_numbers(simulations: Simulations) -> list[Figures]:
    """Return before and after of every row, at every ratio."""
    cases = [
        (number, ratio, seed)
        for seed in range(simulations.size(4))
        for number in range(len(systematics.rows()))
        for ratio in systematics.RATIOS
    ]
    return systematics.summary_of(simulations.records("systematics", systematics.run_case, cases))


def population_numbers(simulations: Simulations) -> Figures:
    """Return the coverage over the population: all nuisances, the priors alone, and each other nuisance alone."""
    cases = {"all nuisances": population.SWITCHES, "the fit's own priors alone": ()}
    cases |= {f"and {switch}": (switch,) for switch in population.SWITCHES}
    numbers = {}
    for name, switches in cases.items():
        # The first carries the claim; the others only show where it comes from.
        count = simulations.size(300 if switches == population.SWITCHES else 40)
        seeds = range(POPULATION_SEED, POPULATION_SEED + count)
        records = simulations.records("population", population.run_scan, [(seed, switches) for seed in seeds])
        numbers[name] = {**population.summary_of(records), "seeds": [seeds[0], seeds[-1]]}
        if switches == population.SWITCHES:
            numbers[name]["parts"] = {part: coverage_of(records, of) for part, of in POPULATION_PARTS.items()}
    return numbers


POPULATION_PARTS: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "grains to 5 um": lambda record: record["diameter_um"] <= 5.0,
    "grains above 5 um": lambda record: record["diameter_um"] > 5.0,
    "grains to 5 um, no unnamed phase": lambda record: record["diameter_um"] <= 5.0 and not record["impurities"],
    "grains to 5 um, unnamed phases": lambda record: record["diameter_um"] <= 5.0 and bool(record["impurities"]),
}


def coverage_of(records: Sequence[Mapping[str, Any]], of: Callable[[Mapping[str, Any]], bool]) -> Figures:
    """Return in how many of the scans a statement holds for, the truth is inside, below and above the interval."""
    chosen = [record for record in records if "error" not in record and of(record)]
    return {
        "scans": len(chosen),
        "inside": sum(record["inside"] for record in chosen),
        "truth_below": sum(record["truth"] < record["low"] for record in chosen),
        "truth_above": sum(record["truth"] > record["high"] for record in chosen),
    }


def false_numbers(simulations: Simulations) -> Figures:
    """Return detections of absent and weak phases; the first scans get contents as well.

    The fit's own priors alone show whether it is the method or the nuisances that the intervals do not hold.
    """
    seeds = range(FALSE_SEED, FALSE_SEED + simulations.size(500))
    weak = simulations.size(60)

    def summary(cases: Sequence[tuple[int, tuple[str, ...], bool]]) -> Figures:
        groups = simulations.records("false", false_detection.run_seed, cases)
        return false_detection.summary_of([record for group in groups for record in group])

    everything = summary([(seed, population.SWITCHES, place < weak) for place, seed in enumerate(seeds)])
    alone = {"the fit's own priors alone": summary([(seed, (), True) for seed in seeds[: max(weak // 3, 1)]])}
    return {**everything, "seeds": [seeds[0], seeds[-1]], "alone": alone}


# --- text -------------------------------------------------------------------------------------------------------------


def prose(text: str) -> str:
    """Return paragraphs with their lines filled to 120 characters, a blank line before and after."""
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    filled = [textwrap.fill(part, 120, break_long_words=False, break_on_hyphens=False) for part in paragraphs]
    return "\n" + "\n\n".join(filled) + "\n\n"


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; every column but the first is aligned right."""
    lines = [" | ".join(heading), " | ".join(["---", *["---:"] * (len(heading) - 1)])]
    lines += [" | ".join(row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def fraction_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return one row per recovered fraction, in mass %."""
    rows = []
    for sample in result["samples"]:
        if sample["error"]:
            rows.append([sample["scan"], sample["error"], "", "", "", "", ""])
        for item in sample["fractions"]:
            low, high = (100.0 * end for end in item["interval95"])
            rows.append(
                [
                    sample["scan"].replace(".xrdml", ""),
                    item["name"],
                    f"{100.0 * item['truth']:.2f}",
                    value_with_su(100.0 * item["value"], 100.0 * item["su"]),
                    f"{low:.2f} to {high:.2f}",
                    f"{100.0 * item['error']:+.2f}",
                    "yes" if item["inside"] else "**no**",
                ]
            )
    return rows


FRACTION_HEADING = ("scan", "phase", "weighed", "found", "95 % interval", "error", "inside")


def summary_line(result: Mapping[str, Any]) -> str:
    """Return RMS, worst error and coverage of a validation as text."""
    summary = result["summary"]
    return (
        f"RMS error **{100.0 * summary['rms']:.2f}** mass %, worst **{100.0 * summary['worst']:.2f}** mass %, "
        f"{summary['inside']} of {summary['fractions']} truths inside their 95 % intervals"
    )


def head_text(figures: Figures) -> str:
    """Return title and the table of requirements, of what was measured."""
    rows = [*_rows_of_mixtures(figures), *_rows_of_simulations(figures)]
    body = [[name, target, found, "yes" if met else "**no**"] for name, target, found, met in rows]
    return (
        prose(
            """# Validation

            Every figure here is made by `tools/make_validation.py` from measured scans of weighed mixtures and from
            simulations; the numbers behind it are in [`validation/figures.json`](validation/figures.json). Fractions
            are in mass % of the crystalline phases fitted; brackets hold the combined standard uncertainty, whose
            making is in [`uncertainty.md`](uncertainty.md). What misses its target is printed as it is."""
        )
        + table(("figure", "target", "found", "met"), body)
        + prose(_provenance(figures))
    )


Requirement = tuple[str, str, str, bool]


def _rows_of_mixtures(figures: Figures) -> list[Requirement]:
    rows: list[Requirement] = []
    if "cpd" in figures:
        cpd = figures["cpd"]["plain"]["summary"]
        rows += [
            ("round robin, RMS", "<= 0.30 mass %", f"{100 * cpd['rms']:.2f} mass %", cpd["rms"] <= 0.0030),
            ("round robin, worst", "<= 0.8 mass %", f"{100 * cpd['worst']:.2f} mass %", cpd["worst"] <= 0.008),
            _inside_row("round robin", cpd),
        ]
    if "dara" in figures:
        dara = figures["dara"]
        near = sum(
            abs(item["error"]) <= 0.03 or item["inside"] for sample in dara["samples"] for item in sample["fractions"]
        )
        count = dara["summary"]["fractions"]
        rows += [
            ("oxide mixtures, within 3 mass % or inside", "all", f"{near} of {count}", near == count),
            _inside_row("oxide mixtures", dara["summary"]),
        ]
    return rows


def _inside_row(name: str, summary: Mapping[str, Any]) -> Requirement:
    """Return the row of coverage; of so few fractions one may be outside."""
    inside, count = summary["inside"], summary["fractions"]
    return f"{name}, truths inside", "95 %", f"{inside} of {count}", inside >= 0.95 * count - 0.5


def _rows_of_simulations(figures: Figures) -> list[Requirement]:
    rows: list[Requirement] = []
    if "simulated" in figures:
        simulated = figures["simulated"]
        mean, inside, count = simulated["mean_ln_error"], simulated["inside"], len(simulated["scans"])
        rows += [
            ("independent simulator, mean error of ln Z", "< 0.005", f"{mean:+.4f}", abs(mean) < 0.005),
            (
                "independent simulator, truths inside",
                ">= 95 %",
                f"{inside} of {count}",
                inside >= 0.95 * count - 0.5,
            ),
        ]
    if "population" in figures:
        everything = figures["population"]["all nuisances"]
        coverage, su = 100 * everything["coverage"], 100 * everything["coverage_su"]
        rows.append(("population, coverage of Z", ">= 93 %", f"{coverage:.1f} +- {su:.1f} %", coverage >= 93.0))
    if "false" in figures:
        absent = figures["false"]["absent"]
        found = f"{absent['detected']} of {absent['scans']}"
        rows.append(("absent phase called detected", "<= 1 %", found, absent["detected_share"] <= 0.01))
    if "cost" in figures:
        ratio = figures["cost"]["ratio"]
        rows.append(("cost of candidates", "<= 4 x", f"{ratio:.1f} x", ratio <= 4.0))
    return rows


def _provenance(figures: Figures) -> str:
    """Return with which source each section was measured."""
    commits: dict[str, list[str]] = {}
    for name, commit in figures.get("commits", {}).items():
        if name in figures:
            commits.setdefault(commit, []).append(f"`{name}`")
    made = "; ".join(f"{', '.join(names)} at `{commit}`" for commit, names in commits.items())
    text = f"Source of the figures, by section of figures.json: {made}."
    missing = [name for name in MEASURED if name not in figures]
    if missing:
        text += f"\n\nNot measured, because the scans were not there: {', '.join(missing)}."
    left = [name for name in SECTIONS if name not in figures and name not in MEASURED]
    return f"{text}\n\nNot simulated: {', '.join(left)}." if left else text


def cpd_text(figures: Figures) -> str:
    """Return the section of the round robin."""
    plain, calibrated = figures["plain"], figures["calibrated"]
    others = [
        ["expert participant of 1998, GSAS", "24", "1.27", "2.45"],
        ["rietx 1.10 with dispersion", "24", "0.72", "1.41"],
        ["rietx 1.10 without dispersion", "24", "2.26", "-"],
        ["GSAS-II, displacement parameters frozen from the pure phases", "24", "0.25", "0.61"],
    ]
    for name, result in (("xrdz, method above", plain), ("xrdz, instrument calibrated on Y2O3", calibrated)):
        summary = result["summary"]
        others.append([name, str(summary["fractions"]), f"{100 * summary['rms']:.2f}", f"{100 * summary['worst']:.2f}"])
    return (
        prose(
            """## IUCr round robin: corundum, fluorite, zincite

            Referent: weighed masses of samples 1a, 1c, 1e, 1g (Madsen et al. 2001, J. Appl. Cryst. 34, 409). The other
            programs' figures are those of all eight samples 1a to 1h (24 fractions), published with the data or
            measured by others; these four are the samples that may be looked at during development.

            One method file for all:"""
        )
        + f"```toml\n{CPD_METHOD}```\n\n"
        + table(FRACTION_HEADING, fraction_rows(plain))
        + prose(
            f"""{summary_line(plain)}. With the instrument calibrated on the round robin's Y2O3 scan:
            {summary_line(calibrated)}."""
        )
        + "![errors of the round robin's fractions](validation/cpd.png)\n\n"
        + table(("program", "fractions", "RMS", "worst"), others)
    )


RECIPE_HEADING = (
    "held",
    "RMS",
    "worst",
    "deviance, mixtures",
    "deviance, pure",
    "scale of fluorite, pure",
    "of zincite",
    "fluorite, mixed",
    "zincite, mixed",
)


def recipe_text(figures: Figures) -> str:
    """Return what is known about the error that the round robin's mixtures keep."""
    recipes, sizes = figures["recipes"], figures["sizes_um"]
    rows = [
        [
            name,
            f"{100 * found['rms']:.2f}",
            f"{100 * found['worst']:.2f}",
            f"{found['deviance']:.0f}",
            f"{found['pure_deviance']:.0f}",
            *(f"{found['absolute'][phase]:.3f}" for phase in CPD_IDS[1:]),
            *(f"{_mean_relative(found, phase):.3f}" for phase in CPD_IDS[1:]),
        ]
        for name, found in recipes.items()
    ]
    with_sizes = [
        [
            f"{size} um",
            f"{100 * found['rms']:.2f}",
            f"{100 * found['worst']:.2f}",
            f"{found['inside']} of {found['fractions']}",
        ]
        for size, found in sizes.items()
    ]
    return (
        prose(
            """### Why the error is not smaller

            The best published recipe freezes the displacement parameters at their values in the pure phases. The table
            holds the same done with this engine, for several polarization ratios A of the Lorentz-polarization factor:
            a graphite monochromator has 0.80 (mosaic) to 0.89 (perfect); 0.43 is the value of a polarization fraction
            of 0.7. *Scale, pure* is S V^2 mu of the pure phase's scan over that of corundum's, *mixed* is found over
            weighed over the same of corundum, mean of 1e and 1g; both would be one if everything were right."""
        )
        + table(RECIPE_HEADING, rows)
        + prose(_recipe_findings(recipes["A = 0.80"], recipes["A = 0.43"]))
        + table(("grains", "RMS", "worst", "inside"), with_sizes)
        + prose(
            """These sizes are not fitted: they show what stating one would do. A stated size leaves less room for what
            is not absorption."""
        )
    )


def _recipe_findings(graphite: Figures, other: Figures) -> str:
    """Return what the table shows and what it does not."""

    def low(found: Mapping[str, float], phase: str) -> str:
        return f"{100 * (1 - found[phase]):.1f}"

    def moved(phase: str) -> str:
        return f"{100 * (other['absolute'][phase] / graphite['absolute'][phase] - 1):+.1f}"

    mixed = {phase: _mean_relative(graphite, phase) for phase in CPD_IDS}
    within_1a = graphite["relative"]["cpd-1a.prn"]
    alike = 100 * (1 - within_1a["zincite"] / within_1a["fluorite"])
    worse = {name: f"{other[name] - graphite[name]:.0f}" for name in ("deviance", "pure_deviance")}
    return f"""Measured: with A = 0.43 the RMS is {100 * other["rms"]:.2f} instead of {100 * graphite["rms"]:.2f} (which
        polarization the published recipe used we do not know), but the deviance is {worse["deviance"]} larger than
        with A = 0.80 in the mixtures, and {worse["pure_deviance"]} in the pure scans. So the scans
        reject that A. It moves the scales of fluorite and zincite by {moved("fluorite")} and {moved("zincite")} %
        against corundum, and happens to cancel part of what is left. xrdz does not use it.

        Measured: with the monochromator's A = 0.80, zincite over corundum is {low(graphite["absolute"], "zincite")} %
        low between the pure scans and {low(mixed, "zincite")} % low in the mixtures, fluorite
        {low(graphite["absolute"], "fluorite")} and {low(mixed, "fluorite")} %.

        Inferred: what mixing adds has the sign of the absorption contrast of grains (126/cm of corundum against 277/cm
        of zincite and 302/cm of fluorite). This table is without the correction for it, which the default makes as for
        grains of 1 to 5 micrometres: 3 to 4 % of both. It cannot be all: in 1a zincite is {alike:.1f} % low against
        fluorite, which absorbs alike. Powders of zincite often hold some percent that does not diffract, which the
        budget's row of crystallinity allows for; the scans cannot tell.

        Rejected by the pure scans, where no weighed mass is involved: extinction (Sabine 1988, Acta Cryst. A44, 368;
        blocks of 1 micrometre raise the deviance of zincite by 33 and of Y2O3 by 210, of corundum they lower it by 10),
        dead time (1 microsecond raises it by 231, 11 and 5 in Y2O3, zincite and fluorite), other coordinates of
        corundum (0.0005 of z raises it by 125 or more). An intensity response of three degrees with a prior of 2 %
        brings the displacement parameters of corundum, fluorite and zincite to their published values and changes no
        error of the mixtures by more than 0.05 mass %.

        The sizes of these powders are not with the data. With `particle_size_um` of the method stated, the same for all
        three phases, with a standard uncertainty of 30 %:"""


def _mean_relative(found: Mapping[str, Any], phase: str) -> float:
    """Return found over weighed of a phase against corundum, where there is enough of all three."""
    return float(np.mean([found["relative"][scan][phase] for scan in ("cpd-1e.prn", "cpd-1g.prn")]))


def dara_text(result: Mapping[str, Any]) -> str:
    """Return the section of the oxide mixtures, with the agreement of 2 and 8 minutes."""
    by_scan = {sample["scan"]: sample for sample in result["samples"]}
    pairs = []
    for scan, long in by_scan.items():
        short = by_scan.get(scan.replace("--8min", "--2min"))
        if "--8min" not in scan or short is None:
            continue
        for first, second in zip(short["fractions"], long["fractions"], strict=True):
            difference = first["value"] - second["value"]
            su = math.hypot(first["su_stat"], second["su_stat"])
            pairs.append(
                [
                    scan.partition("--")[0],
                    first["name"],
                    f"{100 * difference:+.2f}",
                    f"{100 * su:.2f}",
                    f"{difference / su:+.1f}" if su > 0.0 else "-",
                ]
            )
    textured = [
        sample["scan"].replace(".xrdml", "") for sample in result["samples"] if "STRONG_TEXTURE" in sample["findings"]
    ]
    return (
        prose(
            """## Oxide mixtures on a benchtop diffractometer

            Referent: weighed masses in the file names (github CederGroupHub/dara, MIT licence). Anatase, zincite,
            baddeleyite and platy V2O5; PANalytical Aeris, specimens 0.05 to 0.12 deg off. No method file:
            `xrdz fit SCAN --phases ID,ID`. Plain fits by other programs are off by 2 to 6 mass % where V2O5 is
            textured. The mixture with La(OH)3 is left out: it takes up CO2 and water, so its weighed mass is no truth,
            and its structure is not in the library."""
        )
        + table(FRACTION_HEADING, fraction_rows(result))
        + prose(
            f"""{summary_line(result)}. `STRONG_TEXTURE` is found in: {", ".join(textured) or "none"}.

            The same specimens, 2 minutes less 8 minutes, against the counting uncertainty of the difference:"""
        )
        + table(("mixture", "phase", "difference", "su_stat", "ratio"), pairs)
        + repeats_text(result["repeats"])
        + "\n![errors of the oxide mixtures' fractions](validation/dara.png)\n"
    )


def repeats_text(repeats: Mapping[str, Any]) -> str:
    """Return how the scans of 2 and 8 minutes differ without a model of them."""
    rows, sentences = [], []
    for mixture, found in repeats.items():
        for phase, row in found["phases"].items():
            rows.append(
                [
                    mixture,
                    phase,
                    f"{row['ratio']:.4f}({round(1e4 * row['su'])})",
                    f"{row['chi2']:.1f} of {row['freedom']}",
                ]
            )
        first, second = found["phases"].values()
        difference = math.log(first["ratio"] / second["ratio"])
        su = math.hypot(first["su"] / first["ratio"], second["su"] / second["ratio"])
        sentences.append(f"{100 * difference:+.1f} +- {100 * su:.1f} % in {mixture}")
    return prose(
        f"""Not all of the difference is the analysis's. `benchmarks/repeat_scans.py` asks without a model of the
        pattern whether the two scans differ by counting alone: in windows with peaks of one phase, counts in 2 minutes
        over those in 8, by least squares. One phase should have one ratio in all its windows (chi^2 about its degrees
        of freedom), and both phases the same. The phases' ratios differ by {" and ".join(sentences)}; the windows of
        one phase differ among themselves more than counting allows. So the two scans of a specimen are not the same
        pattern to within their counts. Texture, roughness and footprint may take up a part of that, as for V2O5; the
        rest stays between the answers."""
    ) + table(("mixture", "phase", "2 min over 8 min", "chi^2 of its windows"), rows)


def simulated_text(figures: Figures) -> str:
    """Return the section of the independent simulator."""
    rows = []
    for item in figures["scans"]:
        if "error" in item and "value" not in item:
            rows.append([item["name"], item["error"], *[""] * 7])
            continue
        low, high = item["interval95"]
        error = 100.0 * math.log(item["value"] / item["truth"])
        rows.append(
            [
                item["name"],
                f"{item['truth']:.4g}",
                value_with_su(item["value"], item["su"]),
                f"{low:.4g} to {'inf' if high is None else f'{high:.4g}'}",
                f"{error:+.2f}",
                f"{100.0 * item['su_stat'] / item['value']:.2f}",
                f"{100.0 * item['u_without_contrast']:.2f}",
                f"{100.0 * item['su'] / item['value']:.2f}",
                "yes" if item["inside"] else "**no**",
            ]
        )
    mean_su = 100 * figures["mean_ln_error_su"]
    return (
        prose(
            """## Tin and Ni3Sn4 from an independent simulator

            Referent: the truth of a fundamental-parameters simulator that shares no code with xrdz (Hoelzer's emission
            profile, tube tails, Cheary-Coelho axial divergence, log-normal grains, thermal diffuse scattering),
            Poisson counts; each scan with the method file that comes with it. No measured scan of this mixture with
            known weights is public. Other programs: rietx misses Z by 9 to 19 % with a library's B, by -2.9 to +10.8 %
            with the true B; GSAS-II by +0.7 to +7.5 % from the true B and sizes."""
        )
        + table(
            (
                "scan",
                "true Z",
                "found",
                "95 % interval",
                "error of ln Z, %",
                "u, counting, %",
                "u, no grains, %",
                "u, %",
                "inside",
            ),
            rows,
        )
        + prose(
            f"""Mean error of ln Z **{100 * figures["mean_ln_error"]:+.2f} %**, +- {mean_su:.2f} %
            (its counting uncertainty), median of its size {100 * figures["median_abs_ln_error"]:.2f} %, worst
            {100 * figures["worst_ln_error"]:.2f} %; {figures["inside"]} of {len(figures["scans"])} inside. These
            specimens have no absorption contrast, which a method without particle sizes cannot know. *No grains* leaves
            that row of the budget out: then {figures["inside_without_contrast"]} of {len(figures["scans"])} are
            inside."""
        )
        + "![errors of ln Z](validation/simulated.png)\n"
    )


def standards_text(figures: Figures) -> str:
    """Return the section of the instrument standards."""
    rows = []
    for name, facts in figures.items():
        for parameter, (expected, measured) in facts["cell"].items():
            found = "-" if measured is None else value_with_su(*measured)
            change = "-" if measured is None else f"{1e6 * (measured[0] / expected[0] - 1.0):+.0f}"
            rows.append([name, parameter, value_with_su(*expected), found, change])
    widths = [
        [
            name,
            *(value_with_su(*facts["resolution"][key]) for key in ("u", "v", "w", "axial", "zero_deg")),
            value_with_su(*facts["displacement_mm"]),
            f"{facts['gof']:.2f}",
        ]
        for name, facts in figures.items()
    ]
    return (
        prose(
            """## Instrument standards

            Referent of LaB6: the certificate of SRM 660c at the scan's temperature (NIST's own refinement of this scan
            gave 4.156780 angstrom, and a displacement of -0.0788 mm with the zero held); of the other two: reference
            cells. *The scan alone* is the cell without its prior, zero and displacement refined."""
        )
        + table(("standard", "cell", "expected, angstrom", "the scan alone", "ppm"), rows)
        + "\n"
        + table(("standard", "U", "V", "W", "(S+H)/L", "zero, deg", "displacement, mm", "goodness of fit"), widths)
    )


def statistics_text(figures: Figures) -> str:
    """Return the section of the engine on its own model."""
    rows = []
    for kind, name in (("posterior", "counting and priors"), ("combined", "with background and misfit")):
        pull = figures[f"pull_{kind}"]
        rows.append(
            [
                name,
                f"{pull['mean']:+.3f} +- {pull['mean_se']:.3f}",
                f"{pull['sd']:.3f} +- {pull['sd_se']:.3f}",
                f"{100 * pull['inside95']:.1f}",
            ]
        )
    return (
        prose(
            f"""## The fit on its own model

            Referent: the truth of own simulations whose nuisances come from the fit's priors
            (`benchmarks/fit_statistics.py`, seeds {figures["seeds"][0]} to {figures["seeds"][1]}). Pulls are (ln Z -
            true ln Z) / u of the {figures["reached"]} scans where u is below 0.1. They should have mean 0 and standard
            deviation 1."""
        )
        + table(("uncertainty", "mean pull", "sd of pulls", "inside 1.96 u, %"), rows)
        + prose(
            f"""The generic start led to the minimum that a start at the truth finds in {figures["reached_all"]} of
            {figures["trials"]} scans."""
        )
    )


def systematics_text(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of physics.md, before and after."""
    rows = []
    names = list(dict.fromkeys(entry["row"] for entry in entries))
    for name in names:
        cells = [name]
        by_ratio = {entry["ratio"]: entry for entry in entries if entry["row"] == name}
        for ratio in systematics.RATIOS:
            entry = by_ratio.get(ratio)
            if entry is None:
                cells += ["-", "-", "-"]
                continue
            cells += [
                f"{100 * entry['before']:+.1f}",
                f"{100 * entry['after']:+.1f} ({100 * entry['u']:.1f})",
                f"{entry['inside']}/{entry['scans']}",
            ]
        rows.append(cells)
    inside, scans = sum(entry["inside"] for entry in entries), sum(entry["scans"] for entry in entries)
    seeds = max(entry["scans"] for entry in entries)
    heading = ["cause", *(text for z in systematics.RATIOS for text in (f"Z = {z:g}: before", "after (u)", "inside"))]
    return (
        prose(
            """## Each systematic on its own, before and after

            Referent: the truth of own simulations (`benchmarks/systematics.py`, 3e6 counts, 20 to 110 deg, seeds 0 to
            LAST). *Before* is a fit that ignores the cause (held at what a plain program assumes, everything else of
            its kind at the truth), *after* the product with the usual candidates and nothing known of the specimen.
            Errors are 100 times that of ln Z, means over the scans; the mean standard uncertainty stands in brackets. A
            column's scans share the seeds and so part of their noise, which the control row shows. Grains of 20
            micrometres without a stated size are more than the row of absorption contrast allows for, and no finding
            says so.""".replace("LAST", str(seeds - 1))
        )
        + table(heading, rows)
        + f"\n{inside} of {scans} intervals hold the truth.\n"
    )


def population_text(figures: Figures) -> str:
    """Return coverage over the population."""
    rows = [
        [
            name,
            str(summary["answered"]),
            f"{100 * summary['coverage']:.1f} +- {100 * summary['coverage_su']:.1f}",
            f"{summary['pull_rms']:.2f}",
            f"{100 * summary['median_abs_ln_error']:.1f}",
            f"{100 * summary['median_u_ln']:.1f}",
            f"{summary['seeds'][0]} to {summary['seeds'][1]}",
        ]
        for name, summary in figures.items()
    ]
    parts = figures["all nuisances"].get("parts", {})
    shares = [
        [
            name,
            str(part["scans"]),
            f"{100 * part['inside'] / max(part['scans'], 1):.1f}",
            f"{part['truth_below']} / {part['truth_above']}",
        ]
        for name, part in parts.items()
    ]
    return (
        prose(
            """## All nuisances at once

            Referent: the truth of own simulations that draw every nuisance at once, from the fit's priors and from
            outside its model (`benchmarks/population.py` says how): further texture axes, ellipsoidal grains, unnamed
            phases, humps, Ni3+xSn4, microabsorption by grains of unknown size. Coverage is the share of scans whose
            95 % interval of Z holds the truth, over all of them, also where Z is only a limit; errors and u are of the
            scans with u below 0.5."""
        )
        + table(
            (
                "population",
                "scans",
                "coverage, %",
                "rms of error/su",
                "median error of ln Z, %",
                "median u, %",
                "seeds",
            ),
            rows,
        )
        + prose(
            """The same scans with all nuisances, by what was in them; *below / above* are the truths under and over the
            interval. No method stated a grain size, so nothing was corrected: tin, the stronger absorber, comes out
            low, and Z high."""
        )
        + table(("with all nuisances", "scans", "coverage, %", "below / above"), shares)
    )


def false_text(figures: Figures) -> str:
    """Return detection of absent and weak phases."""
    names = {
        "absent": "absent",
        "below": "at half the reported limit",
        "at limit": "at the reported limit",
        "twice": "at twice the limit",
        "four times": "at four times the limit",
    }
    rows = []
    for key, name in names.items():
        for phase in ("", "sn", "ni3sn4"):
            entry = figures.get(f"{key} {phase}".strip())
            if entry is None:
                continue
            rows.append(
                [
                    f"{name}, {phase}" if phase else f"**{name}**",
                    str(entry["scans"]),
                    f"{entry['detected']} ({100 * entry['detected_share']:.1f} %)",
                    f"{100 * entry['detected_upper95']:.1f} %",
                    f"{100 * entry['inside_share']:.1f} +- {100 * entry['inside_su']:.1f}",
                    f"{entry['truth_below']} / {entry['truth_above']}",
                    f"{100 * entry['median_limit']:.2g}",
                ]
            )
    return (
        prose(
            """## Phases that are not there, or hardly

            Referent: own simulations of one phase fitted as two (`benchmarks/false_detection.py`), nuisances as above.
            *Not more than* is the 95 % upper limit of the detection probability; *inside* the share of scans whose
            95 % interval of the weak phase's fraction holds its true content, *below / above* the truths under and over
            it. At the limit 95 % would be detected if counting alone decided."""
        )
        + table(
            ("content", "scans", "detected", "not more than", "inside, %", "below / above", "median limit, mass %"),
            rows,
        )
        + prose(
            f"""Seeds {figures["seeds"][0]} to {figures["seeds"][1]}. All contents together, and the same
            without the nuisances from outside the fit's priors:"""
        )
        + table(
            ("nuisances", "scans", "inside, %", "detected at the limit, %", "at twice the limit, %"),
            _weak_rows(figures),
        )
        + prose(_weak_phases(figures))
    )


def _contents(figures: Figures) -> tuple[int, float, float]:
    """Return scans of all contents, the share inside and its standard uncertainty."""
    entries = [figures[key] for key in ("below", "at limit", "twice", "four times") if key in figures]
    scans = sum(entry["scans"] for entry in entries)
    inside = sum(entry["inside_share"] * entry["scans"] for entry in entries) / max(scans, 1)
    return scans, inside, math.sqrt(inside * (1.0 - inside) / max(scans, 1))


def _weak_rows(figures: Figures) -> list[list[str]]:
    """Return coverage and detection of the contents for each population of nuisances."""
    rows = []
    for name, found in {"all nuisances": figures, **figures.get("alone", {})}.items():
        scans, inside, su = _contents(found)
        rows.append(
            [
                name,
                str(scans),
                f"{100 * inside:.1f} +- {100 * su:.1f}",
                *(f"{100 * found[key]['detected_share']:.0f}" for key in ("at limit", "twice") if key in found),
            ]
        )
    return rows


def _weak_phases(figures: Figures) -> str:
    """Return what the table says of the detection limit and of intervals near it."""
    entries = [key for key in ("at limit", "twice") if key in figures]
    _, inside, _ = _contents(figures)
    limit, twice = (100 * figures[key]["detected_share"] if key in figures else 0.0 for key in ("at limit", "twice"))
    if not entries or (inside >= 0.93 and limit >= 93.0):
        return ""
    return f"""{limit:.0f} % are detected at the reported limit and {twice:.0f} % at twice the limit, and
        {100 * inside:.0f} % of the intervals of all contents hold the truth. So read the detection limit as one of
        counting, for a phase with lines as wide as the heaviest phase's: the simulated weak phases have grains of 15 to
        200 nm, whatever the other has, and of those with the smallest grains only half pass. Double it for a powder of
        which nothing else is known.

        Three false detections of seeds 40000 to 40499: in one (40276) the absent phase described a hump, with 19
        mass %; the other two (40101, 40157) have 0.7 and 1.1 mass %.

        Of the intervals that miss, most lie below the truth. Without noise and without nuisances from outside the model
        the amounts are right; noise makes the lines of a weak phase narrower than they are, because narrow lines fit
        noise better than the true broad ones, and an unnamed phase on its lines takes a part of it (40050: nickel under
        the strongest lines of Ni3Sn4 takes 13 %, noise 20 %)."""


def cost_text(figures: Figures) -> str:
    """Return the cost of the default method."""
    return prose(
        f"""## Cost

            CPU time of one analysis of the twelve simulated scans above, reading left out: two phases
            {1e3 * figures["plain"]:.0f} ms, with five candidates {1e3 * figures["candidates"]:.0f} ms (medians); median
            of the ratio **{figures["ratio"]:.1f}**, target at most 4."""
    )


TEXTS: tuple[tuple[str, Callable[[Any], str]], ...] = (
    ("cpd", cpd_text),
    ("recipe", recipe_text),
    ("dara", dara_text),
    ("simulated", simulated_text),
    ("standards", standards_text),
    ("statistics", statistics_text),
    ("systematics", systematics_text),
    ("population", population_text),
    ("false", false_text),
    ("cost", cost_text),
)
"""Sections of the document in their order."""


def document(figures: Figures) -> str:
    """Return the whole document, of the sections that were measured."""
    parts = [head_text(figures), *(text(figures[name]) for name, text in TEXTS if name in figures)]
    return "".join(parts).lstrip("\n")


MEASURING = ("src", "benchmarks", "reference_patterns")
"""What the figures depend on; this program only arranges them."""


def commit() -> str:
    """Return the last commit of what the figures depend on, with a plus where files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments, "--", *MEASURING]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return (git("log", "-1", "--format=%h") or "unknown") + ("+" if git("status", "--porcelain") else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything and write the document; the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of measured scans")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder to write to (default docs)")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes of the simulations (default 1)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the simulations")
    parser.add_argument("--records", type=Path, help="folder that keeps the record of each simulated scan")
    parser.add_argument(
        "--keep", nargs="*", choices=("all", *SECTIONS), default=[], help="sections to take from the last run"
    )
    options = parser.parse_args(arguments)
    plots = options.out / "validation"
    plots.mkdir(parents=True, exist_ok=True)
    stored = plots / "figures.json"
    figures: Figures = json.loads(stored.read_text(encoding="utf-8")) if options.keep else {}
    kept = set(SECTIONS if "all" in options.keep else options.keep)
    if not options.data.is_dir():
        sys.stderr.write(f"{options.data}: no such folder; the sections {', '.join(MEASURED)} are not measured\n")
        kept |= set(MEASURED)
    if options.records is not None:
        options.records.mkdir(parents=True, exist_ok=True)
    simulations = Simulations(options.jobs, options.records, options.quick)
    for name, make in makers(options.data, plots, simulations).items():
        if name in kept:
            continue
        began = time.perf_counter()
        figures[name] = make()
        figures.setdefault("commits", {})[name] = commit()
        sys.stderr.write(f"{name}: {time.perf_counter() - began:.0f} s\n")
        stored.write_text(json.dumps(rounded(figures), indent=1) + "\n", encoding="utf-8")
    (options.out / "validation.md").write_text(document(rounded(figures)), encoding="utf-8")
    return 0


def makers(data: Path, plots: Path, simulations: Simulations) -> dict[str, Callable[[], Any]]:
    """Return what measures each section."""
    return {
        "cpd": lambda: cpd_numbers(data, plots),
        "recipe": lambda: recipe_numbers(data),
        "dara": lambda: dara_numbers(data, plots),
        "simulated": lambda: simulated_numbers(data, plots),
        "standards": lambda: standards_numbers(data),
        "cost": lambda: cost_numbers(data),
        "statistics": lambda: statistics_numbers(simulations),
        "systematics": lambda: systematics_numbers(simulations),
        "population": lambda: population_numbers(simulations),
        "false": lambda: false_numbers(simulations),
    }


def rounded(value: Any) -> Any:
    """Return a JSON value with six significant digits, so that figures.json stays small and comparable."""
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


if __name__ == "__main__":
    raise SystemExit(main())
