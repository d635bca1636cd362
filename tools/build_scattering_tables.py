"""Write `src/xrdz/tables/scattering.npz` from the public-domain tables that xraydb distributes.

    python tools/build_scattering_tables.py

Sources, all through xraydb (https://github.com/xraypy/XrayDB, data in the public domain):

* f0: Waasmaier & Kirfel 1995, Acta Cryst. A51, 416 (neutral atoms and ions, five Gaussians and a constant);
* f', f'': Chantler 1995, J. Phys. Chem. Ref. Data 24, 71 and 2000, ibid. 29, 597, f' with the relativistic
  correction of the 3/5 Cromer-Liberman rule and the nuclear Thomson term;
* mass attenuation: Elam, Ravel & Sieber 2002, Radiat. Phys. Chem. 63, 121 (total and photoabsorption). Chantler's own
  attenuation lies 3-4 % below measured values for copper and nickel at Cu K-alpha, Elam's agrees;
* atomic masses: IUPAC standard atomic weights.

Every curve keeps only the points that straight lines need to follow the source within `TOLERANCE`.
"""

from __future__ import annotations

import json
import re
import sqlite3
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import xraydb
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

ENERGY_KEV = (2.4, 125.0)
"""Range of the tables; it covers every wavelength `xrdz.wavelength` accepts, 0.1 to 5 angstrom."""

TOLERANCE = np.array([1e-2, 2e-3])
"""Largest error of linear interpolation: f' in electrons; logarithms of f'' and of both attenuations (0.2 %)."""

ELEMENTS = 98
TARGET = Path(__file__).resolve().parents[1] / "src" / "xrdz" / "tables" / "scattering.npz"


def kept_points(x: NDArray[np.float64], curves: NDArray[np.float64], tolerance: NDArray[np.float64]) -> list[int]:
    """Return the points straight lines need to follow every row of `curves` within `tolerance` (Douglas & Peucker)."""
    kept, spans = {0, x.size - 1}, [(0, x.size - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        inside = slice(first + 1, last)
        error = np.zeros(last - first - 1)
        for curve, allowed in zip(curves, tolerance, strict=True):
            line = np.interp(x[inside], x[[first, last]], curve[[first, last]])
            error = np.maximum(error, np.abs(curve[inside] - line) / allowed)
        worst = first + 1 + int(np.argmax(error))
        if error[worst - first - 1] > 1.0:
            kept.add(worst)
            spans += [(first, worst), (worst, last)]
    return sorted(kept)


def dispersion_curves(row: tuple[str, str, str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ln(energy/keV), shape (n,), and rows f' and ln f'', shape (2, n).

    The source steps by 1 %, too coarse for straight lines through f' near an edge: a monotone cubic subdivides it.
    """
    energy, f_prime, f_double_prime = (np.array(json.loads(text)) for text in row)
    energy = energy / 1000.0
    first, last = np.searchsorted(energy, ENERGY_KEV) + np.array([-1, 1])
    log_energy = np.log(energy[first:last])
    steps = np.arange(8) / 8
    fine = np.append((log_energy[:-1, None] + np.diff(log_energy)[:, None] * steps).ravel(), log_energy[-1])
    curves = np.array([f_prime[first:last], np.log(f_double_prime[first:last])])
    return fine, PchipInterpolator(log_energy, curves, axis=1)(fine)


def attenuation_curves(nodes: NDArray[np.float64], symbol: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ln(energy/keV), shape (n,), and rows ln(total) and ln(photoabsorption) in cm^2/g, shape (2, n).

    Some of Elam's `nodes` (eV) are absorption edges: a point a millionth below and above each keeps the step sharp.
    """
    low, high = 0.99 * 1000 * ENERGY_KEV[0], 1.01 * 1000 * ENERGY_KEV[1]
    nodes = nodes[(nodes > low) & (nodes < high)]
    energy = np.unique(np.concatenate([np.geomspace(low, high, 1500), nodes * (1 - 1e-6), nodes * (1 + 1e-6)]))
    total = xraydb.mu_elam(symbol, energy, kind="total")
    photoabsorption = xraydb.mu_elam(symbol, energy, kind="photo")
    return np.log(energy / 1000.0), np.log(np.array([total, photoabsorption]))


def build() -> dict[str, NDArray[np.generic]]:
    """Return the arrays of the table file."""
    folder = Path(next(iter(find_spec("xraydb").submodule_search_locations)))
    database = sqlite3.connect(folder / "xraydb.sqlite")
    masses = dict(database.execute("select element, molar_mass from elements").fetchall())
    symbols = [row[0] for row in database.execute("select element from elements order by atomic_number")][:ELEMENTS]

    gaussians = np.zeros((ELEMENTS, 11))
    ions = []
    for number, ion, offset, scale, exponents in database.execute(
        "select atomic_number, ion, offset, scale, exponents from Waasmaier"
    ):
        if number > ELEMENTS:
            continue
        row = [*json.loads(scale), *json.loads(exponents), offset]
        if ion == symbols[number - 1]:
            gaussians[number - 1] = row
        elif found := re.fullmatch(rf"{symbols[number - 1]}(\d)([+-])", ion):
            ions.append((number - 1, int(found[2] + found[1]), row))
    ions.sort()

    tables: dict[str, NDArray[np.generic]] = {
        "symbols": np.array(symbols, dtype="U2"),
        "masses": np.array([masses[symbol] for symbol in symbols], dtype=np.float64),
        "gaussians": gaussians,
        "ion_elements": np.array([element for element, _, _ in ions], dtype=np.int32),
        "ion_charges": np.array([charge for _, charge, _ in ions], dtype=np.int32),
        "ion_gaussians": np.array([row for _, _, row in ions]),
        "source": np.array(f"xraydb {version('xraydb')}"),
    }
    for kind in ("dispersion", "attenuation"):
        offsets, positions, blocks = [0], [], []
        for symbol in symbols:
            if kind == "dispersion":
                row = database.execute("select energy, f1, f2 from Chantler where element=?", (symbol,)).fetchone()
                if row is None:  # Chantler's tables end at uranium
                    offsets.append(offsets[-1])
                    continue
                x, curves = dispersion_curves(row)
                tolerance = TOLERANCE
            else:
                (nodes,) = database.execute(
                    "select log_energy from photoabsorption where element=?", (symbol,)
                ).fetchone()
                x, curves = attenuation_curves(np.exp(json.loads(nodes)), symbol)
                tolerance = TOLERANCE[[1, 1]]
            kept = kept_points(x, curves, tolerance)
            positions.append(x[kept])
            blocks.append(curves[:, kept])
            offsets.append(offsets[-1] + len(kept))
        tables[f"{kind}_offsets"] = np.array(offsets, dtype=np.int32)
        tables[f"{kind}_log_energy"] = np.concatenate(positions)
        tables[f"{kind}_curves"] = np.hstack(blocks).astype(np.float32)
    return tables


if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    np.savez(TARGET, **build())
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB")
