"""Phases whose composition varies: atoms of an excess element on a site the reference leaves empty, found on evidence.

With x the atoms in excess per formula unit, the scattering of a phase is linear in x for its structure factors and its
mass per cell is M + x dM. At the minimum of a fit, with c = d y / d x at a fixed number of cells, r the residual and W
the weights, everything else refined along (score test, Rao 1948; a prior x ~ N(0, su), x >= 0),

    u = c W r,   I = c W c - c W J C J W c,   x - x0 = (u / n^2 - x0 / su^2) / (I / n^2 + 1 / su^2)

n^2 >= 1 being the misfit chi^2 of the fit. Where u^2 / I exceeds `ENTER_GAIN` n^2 the phase is fitted again with its
structure at x, to a hundredth, until the step is less than that. What remains unknown of x moves the masses by

    K = d m / d x = (d m / d theta) (-C J W c) + m dM / M

and its row of the budget is K K^T E[(x - x0)^2], E over the normal posterior cut at zero: it is there for a phase that
shows no excess as well, as far as some may have been missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from xrdz.algebra import sums_of_points
from xrdz.candidates import cut_normal
from xrdz.diffractogram import FloatArray
from xrdz.errors import FitError
from xrdz.findings import Code, Finding, info
from xrdz.fit import FitResult, Status, fit
from xrdz.numerals import value_with_su
from xrdz.quantify import MassEstimate, mass_jacobian
from xrdz.reference import Reference
from xrdz.scattering import atomic_mass

STRUCTURE = "composition of the phases"
"""Budget row."""

ENTER_GAIN = 12.0
"""Decrease of the objective over the misfit from which an excess is refined, as for a texture or a broadening term."""

GRID = 0.01
"""Steps of x a structure is made for, far below its uncertainty, so that the scans of a batch share them."""

MOST_ROUNDS = 3


@dataclass(frozen=True)
class Excess:
    """What a fit says of the excess of one phase.

    Parameters
    ----------
    number : the phase
    present : x of the structure in the fit
    best, su : of the posterior, not yet cut at zero
    gain : decrease of the objective over the misfit that one step from `present` promises, 0 towards less than none
    shift : (p,) change of the masses per unit x
    """

    number: int
    present: float
    best: float
    su: float
    gain: float
    shift: FloatArray

    @property
    def mean_square(self) -> float:
        """E[(x - present)^2] over the normal posterior cut at zero."""
        _, mean, square = cut_normal(self.best / self.su)
        return self.su**2 * square - 2.0 * self.present * self.su * mean + self.present**2


@lru_cache(maxsize=256)
def with_excess(reference: Reference, hundredths: int) -> Reference:
    """Return a reference with so many hundredths of an excess atom per formula unit, itself for none."""
    site = reference.excess
    if site is None or hundredths == 0:
        return reference
    x = GRID * hundredths
    occupancy = x * reference.formula_units / len(site.positions)
    count = len(site.positions)
    return replace(
        reference,
        atom_group=np.append(reference.atom_group, np.full(count, site.group)),
        atom_position=np.concatenate((reference.atom_position, np.array(site.positions))),
        atom_occupancy=np.append(reference.atom_occupancy, np.full(count, occupancy)),
        excess=replace(site, present=x, origin=reference),
    )


def with_solid_solutions(result: FitResult) -> FitResult:
    """Return a fit whose phases have the excess their scan asks for, the fit itself where it asks for none."""
    best = result
    for _ in range(MOST_ROUNDS):
        moves = {}
        for number in _variable(best):
            item = weigh_excess(best, number)
            site = best.pattern.phases[number].reference.excess
            if item is None or site is None:
                continue
            x = min(max(item.best, 0.0), site.most)
            if (item.gain > ENTER_GAIN or item.present > 0.0) and abs(x - item.present) >= GRID:
                moves[number] = round(x / GRID)
        if not moves:
            break
        refined = _refined(best, moves)
        if refined is None or refined.minimum.point.objective > best.minimum.point.objective:
            break
        best = refined
    gain = result.minimum.point.objective - best.minimum.point.objective
    return best if gain > ENTER_GAIN * max(best.chi2_reduced, 1.0) else result


def weigh_excess(result: FitResult, number: int) -> Excess | None:
    """Return what a fit says of one phase's excess, None where it has no such site or no lines left."""
    phase = result.pattern.phases[number]
    site = phase.reference.excess
    if site is None or not result.scales[number] > 0.0:
        return None
    coarse = result.summed
    change = result.scales[number] * result.pattern.excess_column(number, result.values)
    column = coarse.root * sums_of_points(change, np.ones(change.shape[1]), coarse.factor)[0]
    response = -result.covariance @ (coarse.whitened @ column)
    free = column + response @ coarse.whitened
    noise = max(result.chi2_reduced, 1.0)
    information = max(float(column @ free), 0.0) / noise
    score = float(column @ coarse.residual) / noise
    precision = information + site.su**-2
    best = site.present + (score - site.present / site.su**2) / precision
    masses, jacobian = mass_jacobian(result)
    shift = jacobian @ response
    per_atom = phase.reference.formula_units * atomic_mass(phase.reference.groups[site.group])
    shift[number] += masses[number] * per_atom / phase.reference.mass_per_cell
    gain = score**2 / information if score > 0.0 < information else 0.0
    return Excess(number, site.present, best, precision**-0.5, gain, shift)


def with_composition(estimate: MassEstimate, result: FitResult) -> MassEstimate:
    """Return the masses with the row of what is not known of the phases' excess."""
    items = [item for number in _variable(result) if (item := weigh_excess(result, number)) is not None]
    if not items:
        return estimate
    spread = sum(item.mean_square * np.outer(item.shift, item.shift) for item in items)
    return replace(estimate, sources={**estimate.sources, STRUCTURE: np.asarray(spread)})


def composition_findings(result: FitResult) -> list[Finding]:
    """Return `COMPOSITION_FITTED` for each phase that was fitted with an excess."""
    findings = []
    for number in _variable(result):
        reference = result.pattern.phases[number].reference
        site = reference.excess
        if site is None or site.present == 0.0 or (item := weigh_excess(result, number)) is None:
            continue
        findings.append(
            info(
                Code.COMPOSITION_FITTED,
                f"{reference.id} holds {value_with_su(site.present, item.su)} {reference.groups[site.group]} more per "
                f"formula unit than {reference.formula}: its intensities ask for it, and its mass is with it",
                where=reference.id,
                suggestion="nothing, if the phase may hold more; else look for a phase that is missing",
            )
        )
    return findings


def _variable(result: FitResult) -> list[int]:
    return [number for number, phase in enumerate(result.pattern.phases) if phase.reference.excess is not None]


def _refined(result: FitResult, moves: dict[int, int]) -> FitResult | None:
    """Return the fit with some phases' structures at other hundredths, None where it fails."""
    phases = result.pattern.phases
    references: Sequence[Reference] = [
        with_excess(phase.reference.excess.origin or phase.reference, moves[number])
        if number in moves and phase.reference.excess is not None
        else phase.reference
        for number, phase in enumerate(phases)
    ]
    try:
        refined = fit(
            result.diffractogram,
            instrument=result.pattern.instrument,
            references=references,
            texture_axes=[phase.texture_axis for phase in phases],
            near=result,
            tube=result.pattern.tube,
        )
    except FitError:
        return None
    return None if refined.status is Status.NOT_CONVERGED is not result.status else refined
