"""Phases nobody asked for: each candidate is weighed by one step, refined only on evidence, and never without a trace.

At the minimum of a fit, with c the candidate's pattern of unit scale, r the residual, J the Jacobian of the fit, C its
covariance and W the weights, everything else refined along,

    s = u / I,   u = c W r,   I = c W c - c W J C J W c,   z = u sqrt(1 / I) / n        Rao 1948, score test

c is the pattern at the instrument's prior widths, moved to the refined zero and displacement, for several relative
strains of the reference cell, of which the most probable counts; neighbouring points are summed to about half a width.
n >= 1 is the scatter of z at strains so large that no line of the phase can be where it is tried: the misfit of the
model passes for the candidate there as well, and has to be exceeded.

The scale has the posterior of a phase that is absent with odds of `PRIOR_ODDS` against one, or present with a half-
normal amount. What of it is not refined moves the masses by K s, K = -(d m / d theta) C J W c, and its mean square,
p E[s^2 | present] K K, is the budget row: it holds for a phase that was never seen, as far as it may have been missed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from xrdz.algebra import interpolate_moved
from xrdz.detection import chi_squared_quantile, effective_parameters, is_background
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.errors import FitError, InputError
from xrdz.findings import Code, Finding, info
from xrdz.fit import FitResult, Status, fit, posterior_covariance
from xrdz.pattern import InstrumentModel, compile_pattern, parameter_table
from xrdz.profile import ROUGH
from xrdz.quantify import COUNTING, MassEstimate, estimate_masses, mass_jacobian
from xrdz.reference import Reference

CANDIDATES = "candidate phases"
"""Budget row."""

STRAINS = (-0.004, -0.003, -0.002, -0.001, 0.0, 0.001, 0.002, 0.003, 0.004)
STRAIN_SU = 0.003
"""Relative strains of the reference cell that are tried, and their prior standard uncertainty."""

FALSE_STRAINS = (-0.04, -0.032, -0.025, -0.018, -0.012, 0.012, 0.018, 0.025, 0.032, 0.04)
"""Strains at which the candidate cannot be: their scores measure what misfit alone gives."""

ENTER_SIGNIFICANCE = 4.0
"""Significance from which a candidate is refined; noise gives it to one scan in two thousand with five candidates."""

LOUD_SCORE, LOUD_SIGNIFICANCE = 6.0, 2.5
"""A score over counting alone from which a lesser significance is enough to refine a candidate: where its lines are
broad or many a strained cell still meets them, and the scatter taken for the misfit's is partly its own."""

LEAST_GAIN = 16.0
"""Decrease of the objective, over the misfit, that a refined candidate must bring to be kept."""

CONSISTENT = 3.0
"""By how many standard uncertainties the amount without the strongest line may lie below the amount with it."""

PRIOR_ODDS, PRIOR_FRACTION = 0.25, 0.03
"""Odds that a candidate is there, and the standard deviation of its half-normal mass fraction then."""

MOST_KEPT = 3
LARGEST_STRAIN = 0.012


@dataclass(frozen=True)
class WeighedCandidate:
    """The evidence for one candidate at a minimum.

    Parameters
    ----------
    scale, su : by the one step
    strain : of the reference cell at which the evidence is strongest
    score : scale over its counting uncertainty, z n
    significance : scale over its standard uncertainty, widened by the misfit, z
    consistent : whether the other lines bear the strongest one out
    fraction, fraction_su : the same as a mass fraction
    variance : p E[s^2 | present], what is not known of the scale while it is left out
    shift : (p,) change of the masses per unit scale
    """

    reference: Reference
    scale: float
    su: float
    strain: float
    score: float
    significance: float
    consistent: bool
    fraction: float
    fraction_su: float
    variance: float
    shift: FloatArray


@dataclass(frozen=True)
class CandidateTrial:
    """A fit with the candidates that were kept, and the evidence for those left out.

    Parameters
    ----------
    result : the fit, with the kept candidates after the method's phases
    kept : ids of the kept candidates
    left_out : evidence at `result`
    masses_without : (phases of the method) masses of the fit without any candidate
    """

    result: FitResult
    kept: tuple[str, ...]
    left_out: tuple[WeighedCandidate, ...]
    masses_without: FloatArray


def try_candidates(result: FitResult, references: Sequence[Reference]) -> CandidateTrial:
    """Weigh candidate phases at a fit, refine those the data ask for, and keep those the refinement confirms."""
    weighed = weigh_candidates(result, references)
    kept: tuple[str, ...] = ()
    refused: set[str] = set()
    best = result
    while len(kept) < MOST_KEPT:
        asking = [item for item in weighed if item.reference.id not in refused and _asks(item)]
        if not asking:
            break
        first = max(asking, key=lambda item: item.score)
        refused.add(first.reference.id)
        refined = _refined(best, [*_last(best, len(kept)), first.reference], {first.reference.id: first.strain})
        if refined is None or not _confirmed(best, refined):
            continue
        # Two candidates share a strong line: what the first took for itself may have been the second's.
        still = [item for number, item in _numbered(refined, len(kept) + 1) if _is_present(refined, number)]
        if len(still) <= len(kept):
            fewer = _refined(best, still, {}, without=kept)
            if fewer is None:
                continue
            refined = fewer
        best, kept = refined, tuple(item.id for item in still)
        weighed = weigh_candidates(best, [item for item in references if item.id not in kept])
    return CandidateTrial(best, kept, weighed, estimate_of(result))


def _numbered(result: FitResult, count: int) -> list[tuple[int, Reference]]:
    """Return number and reference of the last phases of a fit."""
    phases = result.pattern.phases
    return [(number, phases[number].reference) for number in range(len(phases) - count, len(phases))]


def _last(result: FitResult, count: int) -> list[Reference]:
    return [reference for _, reference in _numbered(result, count)]


def _is_present(result: FitResult, number: int) -> bool:
    return presence(result, number) > ENTER_SIGNIFICANCE


def estimate_of(result: FitResult) -> FloatArray:
    """Return the masses of a fit, without their uncertainty."""
    return mass_jacobian(result)[0]


def _asks(item: WeighedCandidate) -> bool:
    loud = item.score > LOUD_SCORE and item.significance > LOUD_SIGNIFICANCE
    return (item.significance > ENTER_SIGNIFICANCE or loud) and item.consistent


def weigh_candidates(result: FitResult, references: Sequence[Reference]) -> tuple[WeighedCandidate, ...]:
    """Return the evidence for each candidate that has lines in the range."""
    if not references:
        return ()
    masses, jacobian = mass_jacobian(result)
    total = float(masses.sum())
    if total <= 0.0:
        return ()
    coarse = result.summed
    strains = np.array([*STRAINS, *FALSE_STRAINS])
    # A strained cell moves a line by -2 tan(theta) strain.
    x = coarse.two_theta
    lever = np.degrees(2.0 * np.tan(np.radians(0.5 * x)))
    instrument = replace(result.pattern.instrument, prior_covariance=None)
    displaced = 2.0 * math.degrees(1.0) / instrument.radius_mm * result.value("displacement")
    moves = lever * strains[:, None] - (result.value("zero") - displaced * np.cos(np.radians(0.5 * x)))
    found = []
    points = x.tobytes()
    for reference in references:
        nominal = nominal_pattern(reference, instrument, points)
        if nominal is None:
            continue
        unit, per_scale = nominal
        columns = np.empty(moves.shape)
        interpolate_moved(x, unit, moves, columns)
        columns *= coarse.factor * coarse.root
        cross = columns @ coarse.whitened.T
        responses = -cross @ result.covariance
        own = np.einsum("kn,kn->k", columns, columns)
        information = own + np.einsum("kp,kp->k", cross, responses)
        # A pattern the fit can make from what it has carries no information of its own.
        seen = information > 1e-6 * own
        information = np.where(seen, information, 1.0)
        scores = np.where(seen, columns @ coarse.residual / np.sqrt(information), 0.0)
        tried = slice(0, len(STRAINS))
        noise = max(1.4826 * float(np.median(np.abs(scores[len(STRAINS) :]))), 1.0)
        signed = np.sign(scores[tried]) * (scores[tried] / noise) ** 2 - (strains[tried] / STRAIN_SU) ** 2
        row = int(np.argmax(np.where(seen[tried], signed, -np.inf)))
        if not seen[row]:
            continue
        scale, su = float(scores[row]) / math.sqrt(information[row]), noise / math.sqrt(information[row])
        free = columns[row] + responses[row] @ coarse.whitened
        mass = max(scale, 0.0) * per_scale
        found.append(
            WeighedCandidate(
                reference=reference,
                scale=scale,
                su=su,
                strain=float(strains[row]),
                score=noise * scale / su,
                significance=scale / su,
                consistent=bears_out(x, free * coarse.residual, free * columns[row], noise),
                fraction=mass / (total + mass),
                fraction_su=su * per_scale * total / (total + mass) ** 2,
                variance=unseen_variance(scale, su, PRIOR_FRACTION * total / per_scale),
                shift=jacobian @ responses[row],
            )
        )
    return tuple(sorted(found, key=lambda item: -item.significance))


@lru_cache(maxsize=64)
def nominal_pattern(
    reference: Reference, instrument: InstrumentModel, two_theta: bytes
) -> tuple[FloatArray, float] | None:
    """Return a phase's pattern of unit scale at the instrument's priors and its mass per scale, None without lines.

    It depends on nothing that is refined, so the scans of a batch share it.
    """
    table = parameter_table(instrument, [reference])
    x = np.frombuffer(two_theta)
    empty = Diffractogram(x, np.ones(x.size))
    with contextlib.suppress(InputError):
        pattern = compile_pattern(
            empty, instrument=instrument, references=[reference], n_chebyshev=1, parameters=table, accuracy=ROUGH
        )
        unit = pattern.phase_columns(table.start, derivatives=False)[0].pattern
        unit.setflags(write=False)
        return unit, pattern.phases[0].mass_per_scale(table.start)
    return None


def bears_out(x: FloatArray, score: FloatArray, information: FloatArray, noise: float) -> bool:
    """Return whether the amount without the two degrees that speak loudest for it agrees with the amount of all."""
    block = np.floor((x - x[0]) / 2.0).astype(np.int64)
    scores, informations = np.bincount(block, score), np.bincount(block, information)
    loudest = int(np.argmax(scores))
    rest = float(informations.sum() - informations[loudest])
    if rest <= 0.0:
        return True
    scale = float(scores.sum() / informations.sum())
    without = float(scores.sum() - scores[loudest]) / rest
    return (scale - without) * math.sqrt(rest) < CONSISTENT * noise


def unseen_variance(scale: float, su: float, prior_scale: float) -> float:
    """Return p E[s^2 | present] of a scale estimated as `scale` +- `su`.

    p follows from `PRIOR_ODDS` and the Bayes factor of a half-normal amount of standard deviation `prior_scale` against
    none, 2 sqrt(v) / prior_scale Phi(m / sqrt(v)) exp(m^2 / 2v), with v and m the variance and mean of the posterior
    normal; E[s^2] is that of the normal cut at zero.
    """
    variance = 1.0 / (su**-2 + prior_scale**-2)
    spread = math.sqrt(variance)
    mean = scale * variance / su**2
    t = mean / spread
    tail, _, mean_square = cut_normal(t)
    log_factor = math.log(2.0 * spread / prior_scale) + 0.5 * t * t + (math.log(tail) if tail > 0.0 else -math.inf)
    log_odds = min(log_factor + math.log(PRIOR_ODDS), 60.0)
    probability = 1.0 / (1.0 + math.exp(-log_odds)) if log_odds > -60.0 else 0.0
    return probability * variance * mean_square


def cut_normal(t: float) -> tuple[float, float, float]:
    """Return Phi(t), and mean and mean square of a normal of mean t and standard deviation 1 cut at zero.

    E[x] = t + h, E[x^2] = 1 + t (t + h) with h = phi(t) / Phi(t); far below zero what is left beyond it falls like an
    exponential of mean 1 / |t|, and Phi is taken as zero.
    """
    if t < -30.0:
        return 0.0, -1.0 / t, 2.0 / t**2
    tail = 0.5 * math.erfc(-t / math.sqrt(2.0))
    hazard = math.exp(-0.5 * t * t) / math.sqrt(2.0 * math.pi) / tail
    return tail, t + hazard, max(1.0 + t * (t + hazard), 0.0)


def _refined(
    result: FitResult,
    added: Sequence[Reference],
    strains: Mapping[str, float],
    without: Sequence[str] = (),
) -> FitResult | None:
    """Return the joint fit of a fit's phases, less some, with more after them; None where it fails.

    Parameters
    ----------
    added : all candidates in the new fit
    strains : where to start the cells of new ones
    """
    before = [phase for phase in result.pattern.phases if phase.id not in {*without, *(item.id for item in added)}]
    references = (*(phase.reference for phase in before), *added)
    instrument = result.pattern.instrument
    table = parameter_table(instrument, references)
    start = table.start.copy()
    known = result.pattern.parameters
    stretched = {f"{id}.{edge}": 1.0 + strain for id, strain in strains.items() for edge in "abc"}
    for place, name in enumerate(table.names):
        start[place] = result.value(name) if name in known.names else start[place] * stretched.get(name, 1.0)
    try:
        return fit(
            result.diffractogram,
            instrument=instrument,
            references=references,
            texture_axes=[*(phase.texture_axis for phase in before), *(None for _ in added)],
            start=start,
            tube=result.pattern.tube,
        )
    except FitError:
        return None


def _confirmed(before: FitResult, after: FitResult) -> bool:
    """Return whether the last phase of a fit is there: gain, as for any phase that is detected, cell and widths."""
    if after.status is Status.NOT_CONVERGED:
        return False
    number = len(after.pattern.phases) - 1
    phase = after.pattern.phases[number]
    gain = before.minimum.point.objective - after.minimum.point.objective
    if gain < max(LEAST_GAIN * max(after.chi2_reduced, 1.0), _detection_gain(after, number)):
        return False
    cell = np.array(phase.cell(after.values)[:3]) / np.array(phase.reference.cell[:3])
    if float(np.max(np.abs(cell - 1.0))) > LARGEST_STRAIN:
        return False
    if is_background(after, number):
        return False
    return _is_present(after, number)


def _detection_gain(result: FitResult, number: int) -> float:
    """Return what the absence of a phase must cost for it to count as detected; see `detection`."""
    estimate = estimate_masses(result)
    own = np.zeros(estimate.masses.size)
    own[number] = 1.0
    variances = estimate.variances(own)
    widening = min(sum(variances.values()) / variances[COUNTING], 25.0) if variances[COUNTING] > 0.0 else 1.0
    return widening * chi_squared_quantile(effective_parameters(result, number))


def presence(result: FitResult, number: int) -> float:
    """Return a phase's scale over its standard uncertainty with its own cell, widths and texture held, misfit included.

    What scales with the mass (its texture, its displacement parameters) makes the amount uncertain, not the presence.
    """
    pattern = result.pattern
    own = np.zeros_like(result.minimum.active)
    own[pattern.n_linear + pattern.phases[number].parameter_index] = True
    hessian = result.fisher.copy()
    hessian[pattern.n_linear :, pattern.n_linear :] += pattern.parameters.prior_precision
    variance = posterior_covariance(hessian, result.minimum.active | own)[number, number]
    scale = float(result.scales[number])
    return scale / math.sqrt(variance * max(result.chi2_reduced, 1.0)) if scale > 0.0 < variance else 0.0


def with_candidates(estimate: MassEstimate, left_out: Sequence[WeighedCandidate]) -> MassEstimate:
    """Return the masses with the row of the candidates that were left out."""
    size = estimate.masses.size
    spread = np.zeros((size, size))
    for item in left_out:
        spread += item.variance * np.outer(item.shift, item.shift)
    return replace(estimate, sources={**estimate.sources, CANDIDATES: spread})


def candidate_findings(
    trial: CandidateTrial, estimate: MassEstimate, *, ratio: tuple[str, str] | None
) -> list[Finding]:
    """Return `CANDIDATE_KEPT` for each kept candidate, with what they did to the ratio."""
    if not trial.kept:
        return []
    effect = ""
    before = dict(zip(estimate.ids, trial.masses_without, strict=False))
    after = dict(zip(estimate.ids, estimate_of(trial.result), strict=True))
    if ratio is not None and set(ratio) <= set(before) and min(before[name] * after[name] for name in ratio) > 0.0:
        change = after[ratio[0]] / after[ratio[1]] / (before[ratio[0]] / before[ratio[1]]) - 1.0
        effect = f"; with all kept candidates {'/'.join(ratio)} changed by {100.0 * change:+.2g} %"
    findings = []
    for name in trial.kept:
        number = estimate.ids.index(name)
        level = presence(trial.result, number)
        findings.append(
            info(
                Code.CANDIDATE_KEPT,
                f"{name} was tried and kept: {100.0 * float(estimate.fractions[number]):.2g} mass %, "
                f"significance {level:.1f}{effect}",
                where=name,
                suggestion="add it to the phases of the method if it is expected",
            )
        )
    return findings
