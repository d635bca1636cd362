"""Atomic scattering: form factors, dispersion corrections, attenuation and masses of the elements.

    f(s, lambda) = f0(s) + f'(lambda) + i f''(lambda),    s = sin(theta) / lambda

The numbers live in `tables/scattering.npz`, written by `tools/build_scattering_tables.py`, which names every source.
The table holds points between which straight lines follow the source: f' against ln(energy) within 0.01 electrons,
ln f'' and both ln attenuations against ln(energy) within 0.2 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xrdz.errors import InputError
from xrdz.wavelength import HC_KEV_ANGSTROM

FloatArray = NDArray[np.float64]

_TABLE_FILE = Path(__file__).parent / "tables" / "scattering.npz"


@dataclass(frozen=True)
class _Curves:
    """Curves of all elements end to end: element i owns points `offsets[i]` to `offsets[i + 1]`."""

    offsets: NDArray[np.int32]
    log_energy: FloatArray
    values: NDArray[np.float32]

    def at(self, element: str, row: int, wavelength: float) -> float:
        """Return one curve of an element at a wavelength in angstrom, by linear interpolation."""
        number = _element_index(element)
        own = slice(int(self.offsets[number]), int(self.offsets[number + 1]))
        log_energy = self.log_energy[own]
        if log_energy.size == 0:
            raise InputError(f"element {element}: no dispersion correction is tabulated beyond uranium")
        here = np.log(HC_KEV_ANGSTROM / wavelength) if wavelength > 0 else np.nan
        if not (log_energy[0] <= here <= log_energy[-1]):
            raise InputError(
                f"wavelength {wavelength!r} angstrom is outside the scattering tables (0.1 to 5); give it in angstrom"
            )
        return float(np.interp(here, log_energy, self.values[row, own]))


@dataclass(frozen=True)
class _Tables:
    """The content of the table file."""

    index: dict[str, int]
    masses: FloatArray
    gaussians: FloatArray
    ions: dict[tuple[int, int], FloatArray]
    dispersion: _Curves
    attenuation: _Curves


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    with np.load(_TABLE_FILE, allow_pickle=False) as file:
        return _Tables(
            index={str(symbol): number for number, symbol in enumerate(file["symbols"])},
            masses=file["masses"],
            gaussians=file["gaussians"],
            ions={
                (int(element), int(charge)): row
                for element, charge, row in zip(
                    file["ion_elements"], file["ion_charges"], file["ion_gaussians"], strict=True
                )
            },
            dispersion=_Curves(file["dispersion_offsets"], file["dispersion_log_energy"], file["dispersion_curves"]),
            attenuation=_Curves(
                file["attenuation_offsets"], file["attenuation_log_energy"], file["attenuation_curves"]
            ),
        )


def _element_index(element: str) -> int:
    index = _tables().index
    if element in index:
        return index[element]
    nearest = get_close_matches(element, index, n=1, cutoff=0.4)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise InputError(f"element {element!r} is not known{hint} Give a chemical symbol from H to Cf, without a charge")


def tabulated_ion(element: str, formal: float) -> int:
    """Return the charge of the tabulated ion that stands for a formal charge.

    It is the smallest of the same sign that is no less, or the largest where all are less.

    Raises
    ------
    InputError
        If no ion of that sign is tabulated.
    """
    number = _element_index(element)
    known = sorted((ion for owner, ion in _tables().ions if owner == number and ion * formal > 0.0), key=abs)
    if not known:
        raise InputError(f"element {element}: no ion of charge {formal:+g} is tabulated; leave its formal charge out")
    return next((ion for ion in known if abs(ion) >= abs(formal)), known[-1])


def form_factor(element: str, *, s: FloatArray, charge: float = 0.0, formal: float = 0.0) -> FloatArray:
    """Return the form factor f0(s) = c + sum_i a_i exp(-b_i s^2) of an atom of any charge, electrons.

    f0 is linear in the charge, from the neutral atom to the tabulated ion of the formal charge: titanium of charge 2 in
    TiO2 is halfway to Ti4+ and not Ti2+. The free O2- is not bound; its tabulated form factor is that in the field of a
    crystal.

    Parameters
    ----------
    element : chemical symbol, H to Cf
    s : any shape, sin(theta)/lambda in 1/angstrom; the parametrization holds for 0 to 6
    charge, formal : elementary charges; a neutral atom needs neither

    Returns
    -------
    Shape of `s`, electrons.

    References
    ----------
    Waasmaier & Kirfel 1995, Acta Cryst. A51, 416, equation 2.
    """
    neutral = _gaussian_sum(_tables().gaussians[_element_index(element)], s)
    if charge == 0.0:
        return neutral
    f0: FloatArray = neutral + charge * form_factor_slope(element, s=s, formal=formal)
    return f0


def form_factor_slope(element: str, *, s: FloatArray, formal: float) -> FloatArray:
    """Return d f0 / d charge between the neutral atom and the ion of a formal charge, electrons per charge."""
    number, ion = _element_index(element), tabulated_ion(element, formal)
    tables = _tables()
    slope: FloatArray = (_gaussian_sum(tables.ions[number, ion], s) - _gaussian_sum(tables.gaussians[number], s)) / ion
    return slope


def _gaussian_sum(row: FloatArray, s: FloatArray) -> FloatArray:
    amplitudes, exponents, constant = row[:5], row[5:10], row[10]
    s_squared = np.square(np.asarray(s, dtype=np.float64))
    f0: FloatArray = constant + np.exp(-s_squared[..., None] * exponents) @ amplitudes
    return f0


@lru_cache(maxsize=1024)
def dispersion(element: str, *, wavelength: float) -> complex:
    """Return the dispersion correction f' + i f'' at a wavelength in angstrom, electrons.

    Raises
    ------
    InputError
        If the element is unknown or beyond uranium, or the wavelength outside 0.1 to 5 angstrom.

    References
    ----------
    Chantler 1995, J. Phys. Chem. Ref. Data 24, 71; Chantler 2000, J. Phys. Chem. Ref. Data 29, 597.
    """
    curves = _tables().dispersion
    return complex(curves.at(element, 0, wavelength), np.exp(curves.at(element, 1, wavelength)))


@lru_cache(maxsize=1024)
def mass_attenuation(element: str, *, wavelength: float) -> float:
    """Return the total mass attenuation coefficient mu/rho at a wavelength in angstrom, cm^2/g.

    It sums photoabsorption, coherent and incoherent scattering (Elam, Ravel & Sieber 2002, Radiat. Phys. Chem. 63,
    121).
    """
    return float(np.exp(_tables().attenuation.at(element, 0, wavelength)))


@lru_cache(maxsize=1024)
def photoabsorption(element: str, *, wavelength: float) -> float:
    """Return the photoabsorption part of the mass attenuation coefficient at a wavelength in angstrom, cm^2/g.

    Source: Elam, Ravel & Sieber 2002, Radiat. Phys. Chem. 63, 121.
    """
    return float(np.exp(_tables().attenuation.at(element, 1, wavelength)))


def atomic_mass(element: str) -> float:
    """Return the standard atomic mass of an element, dalton."""
    return float(_tables().masses[_element_index(element)])


def atomic_number(element: str) -> int:
    """Return the atomic number of an element."""
    return _element_index(element) + 1
