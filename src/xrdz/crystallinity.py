"""What of each phase does not diffract: surface layers, disorder, remains of its making.

A fraction is measured by what diffracts and compared with what was weighed. In any finely divided solid a disordered
surface layer, and what amorphous material there is besides, can amount to several percent of the mass; the purest
alumina powder there is was certified with 99.02 +- 1.11 % (NIST SRM 676a; Cline, Von Dreele, Winburn, Stephens &
Filliben 2011, Acta Cryst. A67, 357). The share of each phase is taken as rectangular between nothing and
`LARGEST_SHARE` (JCGM 100:2008, 4.3.7). Its mean is the same for all phases and cancels in every fraction; what stays is
the spread, half of the range over sqrt(3), of the logarithm of each mass.

Phases of one alloy (flag `alloy`) share their grains and so what is disordered at the surface: their ratio has none.
Absolute amounts by a standard are amounts of what diffracts, and have none either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xrdz.diffractogram import FloatArray
from xrdz.quantify import MassEstimate
from xrdz.reference import Reference

CRYSTALLINITY = "crystallinity"
"""Budget row."""

LARGEST_SHARE = 0.05
"""Of a phase's mass that may not diffract."""


def crystallinity_spread(references: Sequence[Reference]) -> FloatArray:
    """Return the covariance of the logarithms of the masses, (p, p)."""
    alloy = np.array(["alloy" in item.flags for item in references])
    together = np.logical_or(np.eye(alloy.size, dtype=bool), np.logical_and.outer(alloy, alloy))
    spread: FloatArray = (0.5 * LARGEST_SHARE / math.sqrt(3.0)) ** 2 * together
    return spread


def with_crystallinity(estimate: MassEstimate, references: Sequence[Reference]) -> MassEstimate:
    """Return the estimate with the row of what does not diffract."""
    masses = estimate.masses
    row = np.outer(masses, masses) * crystallinity_spread(references)
    return replace(estimate, sources={**estimate.sources, CRYSTALLINITY: row})
