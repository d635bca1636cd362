"""The charge of the atoms in ionic crystals, which form factors depend on at low angles.

    f0(s; q) = f0(s; 0) + (q / q_ion) [f0(s; q_ion) - f0(s; 0)]

Anions are the ions of the crystal: O2-, F-, Cl-. Their form factor differs from the neutral atom's by up to 20 % below
s = 0.25/angstrom, and neutral atoms give displacement parameters of oxygen near zero where neutron diffraction has 0.3
to 0.6 angstrom^2. Of a cation it is known that its charge lies between zero and the formal one: what it gives away
stays in part within its reach. That is a rectangular distribution (JCGM 100:2008, 4.3.7): the mean is half of the
formal charge, the standard uncertainty the formal charge over sqrt(12).

The certified relative intensities and I/Ic of NIST's corundum, zincite and rutile powders (SRM 674; International
Tables C, 2006, table 5.2.11.1) agree: over their standard uncertainties, chi^2 of the eight figures is 12 with half the
formal charge, 18 with none, 16 with all of it, and 73 with neutral oxygen. For corundum, Ida 2023 (Powder Diffr. 38,
abstract) finds the certified intensities of SRM 676a no closer to calculated electron densities than to ions.

In hydroxides, carbonates and the like the anion is bound covalently, and all atoms are taken as neutral.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from xrdz.errors import InputError
from xrdz.scattering import tabulated_ion

Charge = tuple[float, float, float]
"""Charge in the form factor, its standard uncertainty, and the formal charge, elementary charges."""

NEUTRAL: Charge = (0.0, 0.0, 0.0)

ANIONS = {"O": -2.0, "F": -1.0, "Cl": -1.0}
COVALENT = frozenset(("H", "C", "N"))
"""Elements that hold the anions of their compounds by covalent bonds."""

CATION_SHARE, CATION_SHARE_SU = 0.5, 1.0 / math.sqrt(12.0)
"""Of the formal charge: mean and standard deviation of a rectangular distribution from none to all of it."""


def assumed_charge(element: str, formal: float) -> Charge:
    """Return the charge an atom of a formal charge is taken to have.

    Raises
    ------
    InputError
        If no ion of that element and sign is tabulated.
    """
    if formal == 0.0:
        return NEUTRAL
    tabulated_ion(element, formal)
    if formal < 0.0:
        return formal, 0.0, formal
    return CATION_SHARE * formal, CATION_SHARE_SU * formal, formal


def usual_charges(elements: Sequence[str], counts: Sequence[float]) -> tuple[Charge, ...]:
    """Return what can be known of the charges of a crystal from its formula alone.

    An oxide, fluoride or chloride has its anions, and its cation where it has one kind only: that one is charged as
    neutrality asks. Where no ion of it is tabulated, and in all other compounds, atoms are neutral.
    """
    if COVALENT & set(elements):
        return tuple(NEUTRAL for _ in elements)
    anions = sum(count * ANIONS.get(element, 0.0) for element, count in zip(elements, counts, strict=True))
    cations = [element for element in elements if element not in ANIONS]
    charges = []
    for element, count in zip(elements, counts, strict=True):
        formal = ANIONS.get(element, -anions / count if len(cations) == 1 else 0.0)
        try:
            charges.append(assumed_charge(element, round(formal, 3) if cations else 0.0))
        except InputError:
            charges.append(NEUTRAL)
    return tuple(charges)
