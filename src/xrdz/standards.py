"""Absolute amounts and the nickel of the alloy: what the masses of the crystalline phases mean outside the pattern."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from xrdz.detection import WeakPhase
from xrdz.diffractogram import FloatArray
from xrdz.quantify import COUNTING, COVERAGE_FACTOR, MassEstimate, Quantity
from xrdz.reference import Reference


def logit_quantity(value: float, variances: Mapping[str, float]) -> Quantity:
    """Return a fraction with its variances by source and an interval made in ln(x / (1 - x))."""
    su_stat, su = math.sqrt(variances[COUNTING]), math.sqrt(sum(variances.values()))
    if not 0.0 < value < 1.0:
        return Quantity(value, su_stat, su, (max(value - 2.0 * su, 0.0), min(value + 2.0 * su, 1.0)))
    centre, half = math.log(value / (1.0 - value)), min(COVERAGE_FACTOR * su / (value * (1.0 - value)), 700.0)
    return Quantity(value, su_stat, su, (_logistic(centre - half), _logistic(centre + half)))


def _logistic(x: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * x))


def alloy_nickel(
    estimate: MassEstimate, references: Iterable[Reference], weak: Mapping[int, WeakPhase]
) -> Quantity | None:
    """Return the mass fraction Ni / (Ni + Sn) over all fitted phases, None when they hold no tin or no nickel.

    The interval is made in the logit, and reaches as far as the interval of any weak phase carries it.
    """
    compositions = [item.composition for item in references]
    nickel, tin = (np.array([composition.get(name, 0.0) for composition in compositions]) for name in ("Ni", "Sn"))
    if not (nickel.any() and tin.any()):
        return None

    def share(masses: FloatArray) -> float:
        return float(nickel @ masses / ((nickel + tin) @ masses))

    alloy = float((nickel + tin) @ estimate.masses)
    if alloy <= 0.0:
        return None
    value = share(estimate.masses)
    quantity = logit_quantity(value, estimate.variances((nickel - value * (nickel + tin)) / alloy))
    ends = [*quantity.interval95]
    ends += [share(masses) for profile in weak.values() for masses in (profile.masses_low, profile.masses_high)]
    return replace(quantity, interval95=(min(ends), max(ends)))
