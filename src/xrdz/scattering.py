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
    dispersion: _Curves
    attenuation: _Curves


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    with np.load(_TABLE_FILE, allow_pickle=False) as file:
        return _Tables(
            index={str(symbol): number for number, symbol in enumerate(file["symbols"])},
            masses=file["masses"],
            gaussians=file["gaussians"],
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


OXIDE_ION = "O2-"
"""Oxygen in oxides. The free ion is not bound; its form factor is that in the field of a crystal."""

_OXIDE_GAUSSIANS = np.array(
    [
        *(3.990247, 2.300563, 0.607200, 1.907882, 1.167080),
        *(16.639956, 5.636819, 0.108493, 47.299709, 0.379984),
        0.025429,
    ]
)


def form_factor(element: str, *, s: FloatArray) -> FloatArray:
    """Return the form factor f0(s) = c + sum_i a_i exp(-b_i s^2) of the neutral atom or of `O2-`, electrons.

    Parameters
    ----------
    element : chemical symbol, H to Cf, or `O2-`
    s : any shape, sin(theta)/lambda in 1/angstrom; the parametrization holds for 0 to 6

    Returns
    -------
    Shape of `s`, electrons.

    References
    ----------
    Waasmaier & Kirfel 1995, Acta Cryst. A51, 416, equation 2.
    """
    row = _OXIDE_GAUSSIANS if element == OXIDE_ION else _tables().gaussians[_element_index(element)]
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
