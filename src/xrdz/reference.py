"""The reference library: crystal structures with displacement priors and texture axes, compiled to one JSON file.

`reference_patterns/*.cif` hold the structures, `reference_patterns/phases.toml` what a CIF cannot say, and
`compiled.json` both, expanded by symmetry: loading it needs neither pymatgen nor the CIFs. A laboratory's own
references lie, compiled in the same way, in a user folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdz.charges import Charge, assumed_charge, usual_charges
from xrdz.crystal import cell_volume
from xrdz.errors import InputError
from xrdz.files import write_whole
from xrdz.scattering import atomic_mass, mass_attenuation

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SCHEMA = "xrdz.references/2"
"""Changes whenever the compiled form does, so that stale caches are not read."""

DALTON_PER_CUBIC_ANGSTROM = 1.66053906892
"""Density of one dalton in one cubic angstrom, g/cm^3 (CODATA 2022)."""

_TEXTURE_AXES: Mapping[str, tuple[tuple[int, int, int], ...]] = {
    "cubic": ((1, 1, 1), (1, 0, 0), (1, 1, 0)),
    "tetragonal": ((0, 0, 1), (1, 0, 0), (1, 1, 0), (1, 0, 1)),
    "hexagonal": ((0, 0, 1), (1, 0, 0), (1, 1, 0)),
    "trigonal": ((0, 0, 1), (1, 0, 0), (1, 1, 0), (1, 0, 4)),
    "orthorhombic": ((0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 0)),
    "monoclinic": ((0, 1, 0), (1, 0, 0), (0, 0, 1), (1, 1, 0)),
    "triclinic": ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
}
"""Axes to try when nothing is known of a phase's habit: the low-index faces of its crystal system."""


@dataclass(frozen=True, eq=False)
class ExcessSite:
    """A site the structure leaves empty and atoms in excess of the formula go to.

    Parameters
    ----------
    group : displacement group of the excess element
    positions : all of the conventional cell, fractional
    su : prior standard uncertainty of the atoms per formula unit, about none
    most : atoms per formula unit
    present : atoms per formula unit in this very structure
    origin : the structure without any, None for that itself
    """

    group: int
    positions: tuple[tuple[float, float, float], ...]
    su: float
    most: float
    present: float = 0.0
    origin: Reference | None = None


@dataclass(frozen=True, eq=False)
class Reference:
    """One crystal structure as the fit takes it; compared and hashed by identity.

    Parameters
    ----------
    id : name in methods and results
    name, formula : for people; `formula` is one formula unit
    source : literature citation of the structure
    sha256 : of the CIF's text and its entry in `phases.toml`
    space_group, space_group_number : Hermann-Mauguin symbol and number of the International Tables
    crystal_system : cubic, hexagonal, trigonal (hexagonal axes), tetragonal, orthorhombic, monoclinic (b unique) or
        triclinic
    cell : a, b, c in angstrom, alpha, beta, gamma in degrees
    formula_units : in the conventional cell
    groups : displacement groups, one per element, labelled by its symbol
    displacement : prior B and its su in angstrom^2, one pair per group
    charges : charge of the atoms in the form factor, its su, and the formal charge, elementary charges, per group
    atom_group, atom_position, atom_occupancy : all atoms of the conventional cell, shapes (n,), (n, 3) fractional, (n,)
    rotations : shape (m, 3, 3), Laue class; it acts on indices as row vectors, h' = h @ R
    texture_axes : hkl of plane normals worth trying, best first
    flags : short facts about the phase, see `reference_patterns/phases.toml`
    excess : where more atoms of an element go if the composition varies
    """

    id: str
    name: str
    formula: str
    source: str
    sha256: str
    space_group: str
    space_group_number: int
    crystal_system: str
    cell: tuple[float, ...]
    formula_units: int
    groups: tuple[str, ...]
    displacement: tuple[tuple[float, float], ...]
    charges: tuple[Charge, ...]
    atom_group: IntArray
    atom_position: FloatArray
    atom_occupancy: FloatArray
    rotations: IntArray
    texture_axes: tuple[tuple[int, int, int], ...]
    flags: tuple[str, ...]
    excess: ExcessSite | None = None

    def __post_init__(self) -> None:
        for array in (self.atom_group, self.atom_position, self.atom_occupancy, self.rotations):
            array.setflags(write=False)

    @cached_property
    def group_counts(self) -> tuple[float, ...]:
        """Atoms of each group in the conventional cell, occupancies summed."""
        counts = np.bincount(self.atom_group, weights=self.atom_occupancy, minlength=len(self.groups))
        return tuple(float(count) for count in counts)

    @cached_property
    def mass_per_cell(self) -> float:
        """Mass of the conventional cell, dalton."""
        return float(
            sum(count * atomic_mass(group) for group, count in zip(self.groups, self.group_counts, strict=True))
        )

    @cached_property
    def volume(self) -> float:
        """Volume of the conventional cell, angstrom^3."""
        return cell_volume(self.cell)

    @property
    def density(self) -> float:
        """Crystal density, g/cm^3."""
        return DALTON_PER_CUBIC_ANGSTROM * self.mass_per_cell / self.volume

    @cached_property
    def composition(self) -> dict[str, float]:
        """Mass fraction of each element."""
        return {
            group: count * atomic_mass(group) / self.mass_per_cell
            for group, count in zip(self.groups, self.group_counts, strict=True)
        }

    def linear_attenuation(self, wavelength: float) -> float:
        """Return the linear attenuation coefficient mu = rho sum_i w_i (mu/rho)_i, 1/cm; `wavelength` in angstrom."""
        return self.density * sum(
            fraction * mass_attenuation(element, wavelength=wavelength)
            for element, fraction in self.composition.items()
        )

    def to_entry(self) -> dict[str, Any]:
        """Return the JSON object the library stores; `reference_from_entry` reads it back."""
        return {
            "id": self.id,
            "name": self.name,
            "formula": self.formula,
            "source": self.source,
            "sha256": self.sha256,
            "space_group": self.space_group,
            "space_group_number": self.space_group_number,
            "crystal_system": self.crystal_system,
            "cell": list(self.cell),
            "formula_units": self.formula_units,
            "groups": list(self.groups),
            "displacement": [list(prior) for prior in self.displacement],
            "charges": [list(charge) for charge in self.charges],
            "atoms": [
                [int(group), *(round(float(x), 8) for x in position), float(occupancy)]
                for group, position, occupancy in zip(
                    self.atom_group, self.atom_position, self.atom_occupancy, strict=True
                )
            ],
            "rotations": ["".join("-0+"[int(x) + 1] for x in rotation.ravel()) for rotation in self.rotations],
            "texture_axes": [list(axis) for axis in self.texture_axes],
            "flags": list(self.flags),
            **({} if self.excess is None else {"excess": _excess_entry(self.excess)}),
        }


def _excess_entry(site: ExcessSite) -> dict[str, Any]:
    positions = [list(position) for position in site.positions]
    return {"group": site.group, "positions": positions, "su": site.su, "most": site.most}


def _excess_site(entry: Mapping[str, Any] | None) -> ExcessSite | None:
    if entry is None:
        return None
    positions = tuple((float(x), float(y), float(z)) for x, y, z in entry["positions"])
    return ExcessSite(int(entry["group"]), positions, float(entry["su"]), float(entry["most"]))


def _hkl(axis: Sequence[int]) -> tuple[int, int, int]:
    h, k, l = axis  # noqa: E741 - Miller's own letters
    return int(h), int(k), int(l)


def reference_from_entry(entry: Mapping[str, Any]) -> Reference:
    """Return the reference that one JSON object of the library describes."""
    atoms = np.array(entry["atoms"], dtype=np.float64).reshape(-1, 5)
    signs = {"-": -1, "0": 0, "+": 1}
    rotations = np.array([[signs[x] for x in text] for text in entry["rotations"]], dtype=np.int64)
    return Reference(
        id=entry["id"],
        name=entry["name"],
        formula=entry["formula"],
        source=entry["source"],
        sha256=entry["sha256"],
        space_group=entry["space_group"],
        space_group_number=entry["space_group_number"],
        crystal_system=entry["crystal_system"],
        cell=tuple(float(x) for x in entry["cell"]),
        formula_units=entry["formula_units"],
        groups=tuple(entry["groups"]),
        displacement=tuple((float(value), float(su)) for value, su in entry["displacement"]),
        charges=tuple((float(value), float(su), float(formal)) for value, su, formal in entry["charges"]),
        atom_group=atoms[:, 0].astype(np.int64),
        atom_position=atoms[:, 1:4].copy(),
        atom_occupancy=atoms[:, 4].copy(),
        rotations=rotations.reshape(-1, 3, 3),
        texture_axes=tuple(_hkl(axis) for axis in entry["texture_axes"]),
        flags=tuple(entry["flags"]),
        excess=_excess_site(entry.get("excess")),
    )


# --- where files live -------------------------------------------------------------------------------------------------


@cache
def library_folder() -> Path:
    """Return the folder of the shipped references: inside the package, or beside `src` in a source checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "reference_patterns", package.parents[1] / "reference_patterns"):
        if folder.is_dir():
            return folder
    raise InputError(f"no folder reference_patterns in {package} or two levels above; reinstall xrdz")


def _platform_folder(*, xdg_variable: str, xdg_default: str, mac: str, windows: str) -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "xrdz" / windows
    if sys.platform == "darwin":
        return Path.home() / "Library" / mac / "xrdz" / windows
    return Path(os.environ.get(xdg_variable) or Path.home() / xdg_default) / "xrdz" / windows


def user_folder() -> Path:
    """Return the folder of a laboratory's own compiled references: `$XRDZ_REFERENCES`, or the user's data folder."""
    chosen = os.environ.get("XRDZ_REFERENCES")
    if chosen:
        return Path(chosen)
    return _platform_folder(
        xdg_variable="XDG_DATA_HOME", xdg_default=".local/share", mac="Application Support", windows="references"
    )


def _cache_folder() -> Path:
    return _platform_folder(xdg_variable="XDG_CACHE_HOME", xdg_default=".cache", mac="Caches", windows="cif")


# --- the library ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _shipped_entries(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "compiled.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: the compiled reference library is missing; run `xrdz reference build`") from None
    if document.get("schema") != SCHEMA:
        raise InputError(f"{path}: schema {document.get('schema')!r}, expected {SCHEMA!r}; run `xrdz reference build`")
    return {entry["id"]: entry for entry in document["references"]}


@lru_cache(maxsize=4)
def _user_entries(folder: Path) -> dict[str, dict[str, Any]]:
    entries = {}
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            schema, entry = document["schema"], document["reference"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a compiled reference ({error}); delete it and add the CIF again") from None
        if schema != SCHEMA:
            raise InputError(f"{path}: schema {schema!r}, expected {SCHEMA!r}; add the CIF again")
        entries[entry["id"]] = entry
    return entries


def _entries() -> dict[str, dict[str, Any]]:
    """Return the entries of the user folder and, over them, the shipped ones."""
    return {**_user_entries(user_folder()), **_shipped_entries(library_folder())}


@lru_cache(maxsize=256)
def _reference(id: str, sha256: str) -> Reference:
    entry = _entries()[id]
    if entry["sha256"] != sha256:
        raise InputError(f"reference {id!r} changed while the program ran; start again")
    return reference_from_entry(entry)


def reference(id: str) -> Reference:
    """Return a reference by its id, always the same object for the same id.

    Raises
    ------
    InputError
        If there is none; the message names the nearest known id.
    """
    shipped = _shipped_entries(library_folder())
    if id in shipped:
        return _reference(id, shipped[id]["sha256"])
    entries = _entries()
    if id in entries:
        return _reference(id, entries[id]["sha256"])
    nearest = get_close_matches(id.lower(), entries, n=1, cutoff=0.4)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise InputError(
        f"reference {id!r} is not known{hint} Known: {', '.join(sorted(entries))}. Give a CIF with --cif, or add one "
        "with `xrdz reference add FILE.cif`"
    )


def reference_ids() -> tuple[str, ...]:
    """Return the ids of all references, shipped ones first, in the order of `phases.toml`."""
    shipped = _shipped_entries(library_folder())
    return (*shipped, *(id for id in _user_entries(user_folder()) if id not in shipped))


def load_library() -> dict[str, Reference]:
    """Return all references by id."""
    return {id: reference(id) for id in reference_ids()}


def library_sha256() -> str:
    """Return one hash over the ids and hashes of all references, for the record of an analysis."""
    return _library_sha256(user_folder(), library_folder())


@lru_cache(maxsize=4)
def _library_sha256(user: Path, shipped: Path) -> str:
    lines = sorted(f"{id} {entry['sha256']}" for id, entry in (_user_entries(user) | _shipped_entries(shipped)).items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


# --- compiling --------------------------------------------------------------------------------------------------------


def _text_hash(text: str, entry: Mapping[str, Any] | None = None) -> str:
    """Return the SHA-256 of a CIF's text, with line ends normalised, and of its entry in `phases.toml`."""
    normalised = text.replace("\r\n", "\n").replace("\r", "\n")
    return hashlib.sha256((normalised + json.dumps(entry, sort_keys=True)).encode()).hexdigest()


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def compile_cif(path: Path, *, id: str, entry: Mapping[str, Any] | None = None) -> Reference:
    """Return the reference that a CIF and its entry in `phases.toml` describe; this is what needs pymatgen.

    Parameters
    ----------
    entry : a table of `phases.toml`; None for a CIF of the user, whose displacement priors and texture axes are generic
    """
    from xrdz.cif import generic_displacement, read_cif

    text = _read_text(path)
    crystal = read_cif(text, where=path.name)
    table = dict(entry or {})
    priors = []
    for element in crystal.elements:
        if entry is None:
            priors.append(crystal.displacement.get(element) or generic_displacement(element))
            continue
        try:
            value, su = table["displacement"][element]["b"]
        except KeyError:
            raise InputError(f"phases.toml: [{id}] has no displacement.{element}.b = [value, su]") from None
        stated = crystal.displacement.get(element)
        if stated is not None and abs(stated[0] - value) > 5e-3:
            raise InputError(
                f"{path.name}: B({element}) = {stated[0]:.3f}, but phases.toml says {value}; make them agree"
            )
        priors.append((float(value), float(su)))
    counts: FloatArray = np.bincount(
        crystal.atom_element, weights=crystal.atom_occupancy, minlength=len(crystal.elements)
    ).astype(float)
    return Reference(
        id=id,
        name=table.get("name", crystal.name or id),
        formula=table.get("formula", crystal.formula),
        source=crystal.source or path.name,
        sha256=_text_hash(text, entry),
        space_group=crystal.space_group,
        space_group_number=crystal.space_group_number,
        crystal_system=crystal.crystal_system,
        cell=crystal.cell,
        formula_units=table.get("formula_units", crystal.formula_units),
        groups=crystal.elements,
        displacement=tuple(priors),
        charges=_charges(crystal.elements, counts, table, id),
        atom_group=crystal.atom_element,
        atom_position=crystal.atom_position,
        atom_occupancy=crystal.atom_occupancy,
        rotations=crystal.rotations,
        texture_axes=tuple(_hkl(axis) for axis in table.get("texture_axes", _TEXTURE_AXES[crystal.crystal_system])),
        flags=tuple(table.get("flags", ())),
        excess=_stated_excess(crystal.elements, table, id),
    )


def _stated_excess(elements: Sequence[str], table: Mapping[str, Any], id: str) -> ExcessSite | None:
    """Return the site of `phases.toml` that atoms in excess go to."""
    stated = table.get("excess")
    if stated is None:
        return None
    if stated["element"] not in elements:
        raise InputError(f"phases.toml: [{id}.excess] names {stated['element']}, which is not in the structure")
    return _excess_site({**stated, "group": elements.index(stated["element"])})


def _charges(elements: Sequence[str], counts: FloatArray, table: Mapping[str, Any], id: str) -> tuple[Charge, ...]:
    """Return the charge of each element: by the formal charges of `phases.toml` where it states them, else by rule."""
    formal = table.get("formal_charge")
    if formal is None:
        return usual_charges(elements, counts.tolist())
    unknown = set(formal) - set(elements)
    if unknown:
        raise InputError(f"phases.toml: [{id}] formal_charge names {', '.join(sorted(unknown))}, not in the structure")
    return tuple(assumed_charge(element, float(formal.get(element, 0.0))) for element in elements)


def compile_library(folder: Path) -> str:
    """Return the text of `compiled.json` for a folder with `phases.toml` and one CIF per id."""
    phases_text = _read_text(folder / "phases.toml")
    try:
        phases = tomllib.loads(phases_text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{folder / 'phases.toml'}: {error}") from None
    entries = [compile_cif(folder / f"{id}.cif", id=id, entry=entry).to_entry() for id, entry in phases.items()]
    lines = ",\n".join(json.dumps(entry, separators=(",", ":"), ensure_ascii=False) for entry in entries)
    head = json.dumps({"schema": SCHEMA, "phases_sha256": _text_hash(phases_text)})
    return f'{head[:-1]}, "references": [\n{lines}\n]}}\n'


def clear_caches() -> None:
    """Forget what was loaded, after the library or the user folder changed on disk."""
    _shipped_entries.cache_clear()
    _user_entries.cache_clear()
    _library_sha256.cache_clear()
    _reference.cache_clear()


def add_reference(path: Path, *, id: str | None = None) -> tuple[Reference, Path]:
    """Compile a CIF into the user folder and return the reference and the file written.

    Raises
    ------
    InputError
        If the CIF cannot be used, the id is one that ships with xrdz, or the folder cannot be written.
    """
    id = _checked_id(id if id is not None else path.stem.lower())
    if id in _shipped_entries(library_folder()):
        raise InputError(f"reference {id!r} ships with xrdz; choose another name with --id")
    compiled = compile_cif(path, id=id)
    target = user_folder() / f"{id}.json"
    try:
        _store(target, compiled)
    except (OSError, InputError) as error:
        raise InputError(f"{target}: cannot be written; set XRDZ_REFERENCES to a folder that can be") from error
    clear_caches()
    return reference(id), target


def _checked_id(id: str) -> str:
    if not id or not all(letter.isalnum() or letter in "_-.+" for letter in id):
        raise InputError(f"reference id {id!r}: use letters, digits, '_', '-', '.' and '+'; give one with --id")
    return id


def _store(target: Path, compiled: Reference) -> None:
    """Write a compiled reference so that a reader never sees half of it; its folder is made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, json.dumps({"schema": SCHEMA, "reference": compiled.to_entry()}))


@lru_cache(maxsize=64)
def _reference_from_text(path: Path, id: str, sha256: str) -> Reference:
    cached = _cache_folder() / f"{sha256}.json"
    try:
        document = json.loads(cached.read_text(encoding="utf-8"))
        if document["schema"] == SCHEMA:
            return reference_from_entry({**document["reference"], "id": id})
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no cache, or one that is damaged: compile again
    compiled = compile_cif(path, id=id)
    with suppress(OSError, InputError):  # a read-only home costs a second at every start, not the analysis
        _store(cached, compiled)
    return compiled


def reference_from_cif(path: Path) -> Reference:
    """Return the reference a user's CIF describes; its id is the file stem in lower case.

    The compiled form is cached by the hash of the text, so that pymatgen is imported for a new CIF only. Displacement
    priors are those of the CIF (su 0.3 angstrom^2) or generic, texture axes those of the crystal system.

    Raises
    ------
    InputError
        If the file cannot be read or holds no usable crystal structure.
    """
    return _reference_from_text(path, _checked_id(path.stem.lower()), _text_hash(_read_text(path)))
