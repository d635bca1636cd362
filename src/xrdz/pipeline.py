"""The straight line from a scan to an analysis; command line, batch, watch, cluster and notebooks all call it.

diffractogram -> cropped -> fit -> masses -> ratio, fractions, claims -> Analysis
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from xrdz import __version__
from xrdz.absorption import (
    AbsorptionContrast,
    absorption_contrast,
    absorption_findings,
    widened,
    with_absorption,
)
from xrdz.analysis import Analysis, MassRatio, PhaseAnalysis
from xrdz.candidates import (
    LEAST_GAIN,
    CandidateTrial,
    candidate_findings,
    try_candidates,
    weigh_candidates,
    with_candidates,
)
from xrdz.claims import check_claims, claimed_ratio
from xrdz.conditions import Conditions, conditions_of
from xrdz.crystal import free_cell_names
from xrdz.crystallinity import crystallinity_spread, with_crystallinity
from xrdz.detection import WeakPhase, at_least_the_limit, detection_limits, is_weak, profile_weak_phase
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.errors import FitError, InputError
from xrdz.fields import Estimate
from xrdz.findings import Code, Finding, severe
from xrdz.fit import FitResult, fit
from xrdz.judgement import findings_of_fit
from xrdz.method import Method, default_method, is_cif, phase_id, read_method
from xrdz.microstructure import r_bragg, size_nm, strain
from xrdz.phase_model import PhaseModel
from xrdz.quantify import (
    MassEstimate,
    Quantity,
    element_fractions,
    estimate_masses,
    fraction_quantity,
    ratio_quantity,
)
from xrdz.reference import DALTON_PER_CUBIC_ANGSTROM, Reference, library_sha256, reference, reference_from_cif
from xrdz.residuals import agreement_of
from xrdz.sample_sheet import Sample, nickel_balance
from xrdz.solid_solution import ENTER_GAIN, composition_findings, with_composition, with_solid_solutions
from xrdz.standards import (
    AbsoluteAmounts,
    alloy_nickel,
    amounts_by_external_standard,
    amounts_by_internal_standard,
    hump_finding,
)
from xrdz.tube_lines import tube_findings, with_tube_lines

CLAIMED_PHASES = frozenset(("sn", "ni3sn4"))
"""The phases the claims are about."""


def analyse(
    scan: str | Path | Diffractogram,
    method: Method | str | Path | None = None,
    *,
    number: str | int | None = None,
    sample: Sample | None = None,
    solver: str = "normal",
) -> Analysis:
    """Read, fit and quantify one scan.

    Parameters
    ----------
    scan : a file of any known format, or a diffractogram
    method : a method, its TOML file, or None for Sn and Ni3Sn4
    number : which scan of a file that holds several: its number from 1, or "sum"
    sample : the scan's row of the sample sheet, for the claims
    solver : "normal" for the compiled solver, "lmfit" for the referee

    Raises
    ------
    InputError
        If the scan or the method cannot be used. A fit that fails is an analysis with status `failed`.
    """
    began = time.perf_counter()
    chosen = method if isinstance(method, Method) else default_method() if method is None else read_method(method)
    if isinstance(scan, Diffractogram):
        diffractogram = scan
    else:
        from xrdz.readers import read

        diffractogram = read(scan, scan=number)
    return analyse_diffractogram(
        diffractogram, chosen, sample=sample, read_s=time.perf_counter() - began, solver=solver
    )


def analyse_diffractogram(
    diffractogram: Diffractogram,
    method: Method,
    *,
    sample: Sample | None = None,
    read_s: float = 0.0,
    solver: str = "normal",
    near: FitResult | None = None,
) -> Analysis:
    """Fit and quantify one diffractogram; see `analyse`, and `fit.fit` for `near`."""
    began = time.perf_counter()
    conditions = conditions_of(diffractogram, method.instrument, references_of(method))
    cropped = diffractogram.cropped(method.two_theta, method.exclude)
    if cropped.n_points < 50:
        raise InputError(
            f"{diffractogram.source.path or 'diffractogram'}: {cropped.n_points} points are left in the range "
            f"{method.two_theta}; the scan covers {diffractogram.two_theta[0]:.2f} to "
            f"{diffractogram.two_theta[-1]:.2f} deg; widen the range"
        )
    try:
        trial = _solve(cropped, conditions, method, solver, near)
    except FitError as error:
        return _failed(cropped, method, conditions, sample, str(error), read_s, time.perf_counter() - began)
    fitted = time.perf_counter()
    analysis = analysis_of_trial(trial, method, conditions, sample)
    done = time.perf_counter()
    timing = {"read_s": read_s, "fit_s": fitted - began, "total_s": read_s + done - began}
    return replace(analysis, timing=timing)


def references_of(method: Method) -> tuple[Reference, ...]:
    """Return the crystal structures of a method's phases, from the library or from CIF files."""
    return _references(method.phases)


def _references(entries: Sequence[str]) -> tuple[Reference, ...]:
    return tuple(
        replace(reference_from_cif(Path(entry)), id=phase_id(entry)) if is_cif(entry) else reference(entry)
        for entry in entries
    )


def _solve(
    diffractogram: Diffractogram, conditions: Conditions, method: Method, solver: str, near: FitResult | None
) -> CandidateTrial:
    """Fit the phases of a method, and the lines of the tube and the candidates the data ask for."""
    result = fit(diffractogram, instrument=conditions.instrument, references=references_of(method), near=near)
    trial = _with_what_the_scan_asks_for(result, _references(method.candidates))
    if solver == "lmfit":
        from xrdz.lmfit_problem import refit

        return replace(trial, result=refit(trial.result))
    return trial


def _with_what_the_scan_asks_for(result: FitResult, candidates: Sequence[Reference]) -> CandidateTrial:
    """Refine lines of the tube, excess atoms and candidate phases on evidence.

    A phase nobody asked for and an excess can stand for each other. Where an excess is found without any candidate, the
    candidates are tried without it as well, then an excess beside those that were kept, and the lower cost decides.
    """
    if result.is_hopeless:
        # The model is not this scan's: what it leaves over is evidence for nothing.
        return try_candidates(result, candidates)
    rich = with_solid_solutions(result)
    trial = try_candidates(with_tube_lines(rich), candidates)
    if rich is result or not candidates:
        return trial
    other = try_candidates(with_tube_lines(result), candidates)
    if not other.kept:
        return trial
    both = with_solid_solutions(other.result)
    if both is not other.result:
        left_out = weigh_candidates(both, [item for item in candidates if item.id not in other.kept])
        other = replace(other, result=both, left_out=left_out)
    misfit = max(min(item.result.chi2_reduced for item in (trial, other)), 1.0)
    return min(trial, other, key=lambda item: _cost(item, misfit))


def _cost(trial: CandidateTrial, misfit: float) -> float:
    """Return the objective over the misfit plus what each addition had to bring."""
    excesses = sum(
        phase.reference.excess.present > 0.0 for phase in trial.result.pattern.phases if phase.reference.excess
    )
    objective = trial.result.minimum.point.objective
    return objective / misfit + LEAST_GAIN * len(trial.kept) + ENTER_GAIN * excesses


def analysis_of_trial(
    trial: CandidateTrial, method: Method, conditions: Conditions, sample: Sample | None = None
) -> Analysis:
    """Quantify a fit and judge it."""
    result = trial.result
    references = [phase.reference for phase in result.pattern.phases]
    fitted = with_composition(with_candidates(estimate_masses(result), trial.left_out), result)
    claimed = method.ratio if method.ratio is not None and set(method.ratio) == CLAIMED_PHASES else None
    contrast = absorption_contrast(
        fitted,
        references,
        wavelength=result.pattern.instrument.wavelength.principal,
        sizes=method.particle_size_um,
        ratio=claimed,
    )
    crystalline = with_absorption(fitted, contrast)
    estimate = with_crystallinity(crystalline, references)
    remaining = replace(contrast, ln_spread=contrast.ln_spread + crystallinity_spread(references))
    total = float(fitted.masses.sum())
    # Whether a phase is there does not depend on how much its grains absorb: that only scales its mass.
    limits = detection_limits(result, fitted)
    weak = {
        number: widened(at_least_the_limit(profile, limits[number] * total), fitted.masses, remaining)
        for number, profile in weak_phases(result, fitted).items()
    }
    phases = _phases(result, estimate, weak, limits, contrast)
    agreement = agreement_of(result)
    ratio, budget = _ratio(method, estimate, weak)
    nickel = alloy_nickel(estimate, references, weak)
    amounts = _amounts(result, method, crystalline)
    findings = [
        *result.diffractogram.findings,
        *conditions.findings,
        *findings_of_fit(result, phases, agreement),
        *tube_findings(result),
        *composition_findings(result),
        *candidate_findings(trial, estimate, ratio=method.ratio),
        *absorption_findings(contrast, estimate, ratio=method.ratio),
        *(() if amounts is None else amounts.findings),
        *_amorphous_signs(result, sample, nickel),
    ]
    both: bool | None = None
    if set(phases) >= CLAIMED_PHASES:
        both = all(phases[name].detected for name in CLAIMED_PHASES)
    others = [item for item in references if item.id not in CLAIMED_PHASES]
    from_ratio = not any({"Ni", "Sn"} & set(item.composition) for item in others)
    claims = check_claims(
        mass_ratio=None if ratio is None else claimed_ratio(ratio.numerator, ratio.denominator, ratio),
        both_detected=both,
        nickel=None if from_ratio else nickel,
        sample=sample,
        graphite_detected="graphite" in phases and phases["graphite"].detected,
        decision=method.decision,
        findings=findings,
    )
    absolute = {} if amounts is None else amounts.fractions
    return Analysis(
        diffractogram=result.diffractogram,
        method=method,
        wavelength=conditions.instrument.wavelength,
        status=result.status.value,
        phases={name: replace(phase, absolute_fraction=absolute.get(name)) for name, phase in phases.items()},
        mass_ratio=ratio,
        budget=budget,
        elements=element_fractions(result, estimate),
        claims=claims,
        agreement=agreement,
        findings=tuple(findings),
        references_sha256=library_sha256(),
        software=software_versions(),
        amorphous=None if amounts is None else amounts.amorphous,
        sample=sample,
        fit=result,
    )


def _amounts(result: FitResult, method: Method, estimate: MassEstimate) -> AbsoluteAmounts | None:
    """Return the absolute amounts by the method's standard; a spike in the specimen goes before a K factor."""
    internal, external = method.internal_standard, method.external_standard
    if internal is not None:
        return amounts_by_internal_standard(
            estimate, phase=internal.phase, mass_fraction=internal.mass_fraction, su=internal.su
        )
    if external is None:
        return None
    time = result.diffractogram.metadata.get("step_time_s")
    return amounts_by_external_standard(
        estimate,
        [phase.reference for phase in result.pattern.phases],
        k=Estimate(external.k, external.su),
        wavelength=result.pattern.instrument.wavelength.principal,
        composition=external.composition,
        time_ratio=float(time) / external.time_per_step_s if time and external.time_per_step_s else 1.0,
    )


def _amorphous_signs(result: FitResult, sample: Sample | None, nickel: Quantity | None) -> list[Finding]:
    """Return what speaks for an amorphous part besides a standard: a hump, and the nickel of the chemistry."""
    signs = [hump_finding(result)]
    if sample is not None and nickel is not None:
        signs.append(nickel_balance(sample, nickel.value, nickel.su))
    return [sign for sign in signs if sign is not None]


def weak_phases(result: FitResult, estimate: MassEstimate) -> dict[int, WeakPhase]:
    """Return the profile-likelihood treatment of every phase near or below its detection limit."""
    if len(estimate.ids) == 1:
        return {}
    return {
        number: profile_weak_phase(result, estimate, number)
        for number in range(len(estimate.ids))
        if is_weak(result, estimate, number)
    }


def _phases(
    result: FitResult,
    estimate: MassEstimate,
    weak: dict[int, WeakPhase],
    limits: FloatArray,
    contrast: AbsorptionContrast,
) -> dict[str, PhaseAnalysis]:
    """Return what was found about each phase; `limits` are those of the uncorrected masses."""
    phases = {}
    total = float(estimate.masses.sum())
    uncorrected = float((estimate.masses * contrast.tau).sum())
    for number, phase in enumerate(result.pattern.phases):
        quantity = fraction_quantity(estimate, number)
        for other, profile in weak.items():
            if other == number or len(estimate.ids) == 2:
                quantity = replace(quantity, interval95=_fraction_interval(profile, number))
        cell = {
            name: (result.value(f"{phase.id}.{name}"), result.su(f"{phase.id}.{name}"))
            for name in free_cell_names(phase.reference.crystal_system)
        }
        axis, texture_r = _texture(result, phase)
        detected = number not in weak or weak[number].detected
        volume = phase.mass_per_scale(result.values) * phase.normalisation / phase.reference.mass_per_cell
        limit = float(limits[number] * uncorrected / (contrast.tau[number] * total))
        phases[phase.id] = PhaseAnalysis(
            id=phase.id,
            formula=phase.reference.formula,
            detected=detected,
            mass_fraction=quantity,
            detection_limit=min(limit, 1.0),
            cell=cell,
            density=DALTON_PER_CUBIC_ANGSTROM * phase.reference.mass_per_cell / volume,
            size_nm=size_nm(result, phase) if detected else None,
            strain=strain(result, phase) if detected else None,
            texture_axis=axis,
            texture_r=texture_r,
            displacement={
                group: (result.value(f"{phase.id}.B.{group}"), result.su(f"{phase.id}.B.{group}"))
                for group in phase.reference.groups
            },
            r_bragg=r_bragg(result, number),
        )
    return phases


def _fraction_interval(profile: WeakPhase, number: int) -> tuple[float, float]:
    """Return a phase's mass fractions at the ends of a weak phase's interval; all from 0 to 1 without any mass."""
    ends = [
        float(masses[number] / masses.sum())
        for masses in (profile.masses_low, profile.masses_high)
        if masses.sum() > 0.0
    ]
    return (min(ends), max(ends)) if len(ends) == 2 else (0.0, 1.0)


def _texture(result: FitResult, phase: PhaseModel) -> tuple[tuple[int, int, int], tuple[float, float]]:
    """Return the axis along which a phase's texture is strongest, and its March-Dollase r with su."""
    found = [(phase.texture_axis, f"{phase.id}.ln_texture")]
    found += [(item.axis, item.name) for item in result.extensions if item.phase == phase.id and item.kind == "texture"]
    axis, name = max(found, key=lambda item: abs(result.value(item[1])))
    r = float(np.exp(result.value(name)))
    return axis, (r, r * result.su(name))


def _ratio(
    method: Method, estimate: MassEstimate, weak: dict[int, WeakPhase]
) -> tuple[MassRatio | None, dict[str, float]]:
    """Return the mass ratio and its budget in ln Z."""
    if method.ratio is None or not set(method.ratio) <= set(estimate.ids):
        return None, {}
    numerator, denominator = (estimate.ids.index(name) for name in method.ratio)
    if all(number in weak and not weak[number].detected for number in (numerator, denominator)):
        return None, {}  # two upper limits say nothing about a ratio
    masses = estimate.masses
    if masses[numerator] > 0 and masses[denominator] > 0:
        quantity, variances = ratio_quantity(estimate, numerator, denominator)
        budget = {name: float(np.sqrt(value)) for name, value in variances.items()}
    else:
        value = 0.0 if masses[denominator] > 0 else float("inf")
        quantity, budget = Quantity(value, float("nan"), float("nan"), (0.0, float("inf"))), {}
    low, high = quantity.interval95
    limit = None
    for number, is_numerator in ((numerator, True), (denominator, False)):
        if number not in weak:
            continue
        profile = weak[number]
        at_low, at_high = (
            float(ends[numerator] / ends[denominator]) if ends[denominator] > 0 else float("inf")
            for ends in (profile.masses_low, profile.masses_high)
        )
        low, high = (at_low, at_high) if is_numerator else (at_high, at_low)
        if not profile.detected:
            limit = "upper" if is_numerator else "lower"
    return MassRatio(*method.ratio, quantity.value, quantity.su_stat, quantity.su, (low, high), limit), budget


def _failed(
    diffractogram: Diffractogram,
    method: Method,
    conditions: Conditions,
    sample: Sample | None,
    why: str,
    read_s: float,
    fit_s: float,
) -> Analysis:
    finding = severe(Code.NOT_CONVERGED, f"the fit could not be carried out: {why}", suggestion="see `xrdz read`")
    return Analysis(
        diffractogram=diffractogram,
        method=method,
        wavelength=conditions.instrument.wavelength,
        status="failed",
        phases={},
        mass_ratio=None,
        budget={},
        elements={},
        # A scan that was to show both phases leaves the question open; another method never asked it.
        claims=check_claims(
            mass_ratio=None,
            both_detected=False if set(method.phase_ids) >= CLAIMED_PHASES else None,
            decision=method.decision,
            sample=sample,
            findings=[finding],
        ),
        agreement=None,
        findings=(*diffractogram.findings, *conditions.findings, finding),
        references_sha256=library_sha256(),
        software=software_versions(),
        timing={"read_s": read_s, "fit_s": fit_s, "total_s": read_s + fit_s},
        sample=sample,
    )


@lru_cache(maxsize=1)
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("xrdz", __version__), ("python", platform.python_version())]
    for package in ("numpy", "numba"):
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            found.append((package, "unknown"))
    return tuple(found)


def software_versions() -> dict[str, str]:
    """Return the versions a result rests on."""
    return dict(_versions())
