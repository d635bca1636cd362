"""The archive of a run: HDF5 parts after NeXus conventions, which h5py alone reads and xrdz opens again bit for bit.

    /                    NXroot; schema, key of method and references, `default`
    /run                 NXcollection: method, software and hashes the whole part rests on
    /shared/...          what many scans have in common: positions (deg 2theta), wavelengths, metadata
    /scan_0001           NXentry after NXmonopd: the scan as it was read (`data`), and what was made of it (`fit`,
                         `parameters`, `covariance`, `phases`, `reflections`, `process` with hashes and findings)
    /documents           one JSON document a row (`xrdz.analysis/1`), compressed JSON Lines
    /states              one line a row, from which `analysis_from_archive` builds the `Analysis` again
    /rows                one line a row: file, hashes, how it ended; rows without an entry hold a named reason

A part is made in memory by one process, written whole beside its place and renamed; after that it never changes.
Curves and counts are stored without loss. `archive_writer` makes the parts.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from xrdz.analysis import Analysis
from xrdz.diffractogram import Diffractogram
from xrdz.errors import InputError
from xrdz.stored import (
    StoredFit,
    StoredMinimum,
    StoredParameters,
    StoredPattern,
    StoredPeaks,
    StoredPhase,
    built,
    from_plain,
    usual_weights,
    with_fit,
)

SCHEMA = "xrdz.archive/1"
PARTS_REMEMBERED = 8
"""Parts whose documents and states are kept for the next row that is asked for."""

PARAMETER_COLUMNS = ("value", "su", "start", "prior_mean", "prior_su", "lower", "upper")


@dataclass(frozen=True, slots=True)
class Row:
    """How one input ended: the line of it that `rows` holds.

    Parameters
    ----------
    file : identity of the input in its run
    sha256 : of its bytes, "" when they could not be had
    reason : "" for an answer, else why there is none (`batching.Reason`)
    message : the reason in words
    status : of the fit, "" when there was none
    sample_sha256 : of its row of the sample sheet
    size, mtime_ns : of its file
    finished : UTC, ISO 8601
    seconds : that reading and fitting took
    entry : whether the part holds an entry of it
    """

    file: str
    sha256: str = ""
    reason: str = ""
    message: str = ""
    status: str = ""
    sample_sha256: str = ""
    size: int = -1
    mtime_ns: int = -1
    finished: str = ""
    seconds: float = 0.0
    entry: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the row."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Row:
        """Return the row a JSON object describes; fields it does not know are ignored."""
        return cls(**{name: stored[name] for name in cls.__slots__ if name in stored})


@dataclass(frozen=True, slots=True)
class StoredScan:
    """One row of a run and where it is stored: the part and the row's number in it, from 0."""

    row: Row
    part: Path
    number: int

    @property
    def name(self) -> str:
        """Identity of the input in its run."""
        return self.row.file


@dataclass(frozen=True)
class Archive:
    """The rows of a run, or of one part, ordered by name; each input once, in its newest state."""

    path: Path
    scans: tuple[StoredScan, ...]

    def __len__(self) -> int:
        return len(self.scans)

    def __iter__(self) -> Iterator[StoredScan]:
        return iter(self.scans)

    def documents(self) -> Iterator[dict[str, Any]]:
        """Yield the JSON document of every row, refused inputs among them."""
        for scan in self.scans:
            yield document_of(scan)

    def find(self, name: str) -> StoredScan:
        """Return a row by its name, or by the end of it when that is unique.

        Raises
        ------
        InputError
            If there is no such row, or several.
        """
        matches = [scan for scan in self.scans if scan.name == name] or [
            scan for scan in self.scans if scan.name.endswith(f"/{name}")
        ]
        if len(matches) != 1:
            found = ", ".join(scan.name for scan in matches[:3]) or "none"
            raise InputError(
                f"{self.path}: {len(matches)} scans are called {name!r} ({found}); give one by its full name"
            )
        return matches[0]

    def analyses(self) -> Iterator[Analysis]:
        """Yield the analysis of every row that has one."""
        for scan in self.scans:
            if scan.row.entry:
                yield analysis_from_archive(scan)


def open_archive(path: str | Path) -> Archive:
    """Return the rows of a run folder or of one of its parts.

    Raises
    ------
    InputError
        If it is neither.
    """
    path = Path(path)
    if path.is_dir():
        from xrdz.run_folder import stored_scans

        return Archive(path, tuple(stored_scans(path)))
    scans = [StoredScan(row, path, number) for number, row in enumerate(part_rows(path))]
    return Archive(path, tuple(sorted(scans, key=lambda scan: scan.name)))


def analysis_from_archive(scan: StoredScan | str | Path, name: str | int | None = None) -> Analysis:
    """Return an analysis as it was made, equal to the last bit to the one `xrdz.batch` yielded.

    Parameters
    ----------
    scan : a row of an `Archive`, or the path of a run folder or part
    name : with a path: the row's file, or its number from 1; not needed when there is one row

    Raises
    ------
    InputError
        If there is no such row, or it was refused and has no analysis.
    """
    if not isinstance(scan, StoredScan):
        scan = _chosen(open_archive(scan), name)
    state = _state(scan)
    with reading(scan.part) as file:
        entry = file[f"scan_{scan.number + 1:04d}"]
        whole, mask = _stored_scan(entry, state["~scan"])
        fitted = whole if mask is None else whole.select(mask)
        if "~fitted" in state:
            findings, source = from_plain(state["~fitted"])
            fitted = replace(fitted, findings=findings, source=source)
        values = {key: from_plain(value) for key, value in state.items() if not key.startswith("~")}
        method = from_plain(json.loads(file["run/method_state"][()]))
        analysis: Analysis = built(
            "analysis:Analysis", {**values, "diffractogram": fitted, "method": method, "fit": None}
        )
        return with_fit(analysis, _stored_fit(entry, state["~fit"], fitted)) if "~fit" in state else analysis


def _state(scan: StoredScan) -> dict[str, Any]:
    state: dict[str, Any] | None = json.loads(_line(scan.part, "states", scan.number))
    if state is None:
        raise InputError(f"{scan.name}: there is no analysis: {scan.row.message or 'the input was refused'}")
    return state


def _chosen(archive: Archive, name: str | int | None) -> StoredScan:
    if name is None:
        if len(archive) == 1:
            return archive.scans[0]
        raise InputError(f"{archive.path}: {len(archive)} scans; name one")
    if isinstance(name, str):
        return archive.find(name)
    if not 1 <= name <= len(archive):
        raise InputError(f"{archive.path}: scan {name} of {len(archive)}; give a number from 1 to {len(archive)}")
    return archive.scans[name - 1]


def diffractogram_from_archive(scan: StoredScan) -> Diffractogram:
    """Return the scan of a row as it was read, before the method's range was applied, bit for bit."""
    state = _state(scan)
    with reading(scan.part) as file:
        return _stored_scan(file[f"scan_{scan.number + 1:04d}"], state["~scan"])[0]


def _stored_scan(entry: h5py.Group, state: Mapping[str, Any]) -> tuple[Diffractogram, Any]:
    """Return the whole scan of an entry and the mask of the points that were fitted, None for all."""
    data = entry["data"]
    scan = Diffractogram(
        two_theta=data["polar_angle"][()],
        intensity=data["data"][()].astype(np.float64),
        gain=data["gain"][()] if "gain" in data else float(state["gain"]),
        su=data["errors"][()] if "errors" in data else None,
        **{name: from_plain(state[name]) for name in ("wavelength", "count_kind", "metadata", "findings", "source")},
    )
    return scan, data["fitted"][()].astype(bool) if "fitted" in data else None


def _stored_fit(entry: h5py.Group, state: Mapping[str, Any], fitted: Diffractogram) -> StoredFit:
    table = entry["parameters"][()]
    names = tuple(name.decode() for name in table["name"])
    n_linear = state["n_linear"]
    size = len(names)
    covariance = np.zeros((size, size))
    covariance[np.tril_indices(size)] = entry["covariance"][()]
    covariance += np.tril(covariance, -1).T
    curves = entry["fit"]
    model = curves["calculated"][()]
    phases = []
    for id, axis, cell in state["phases"]:
        lines = entry["reflections"][id][()]
        hkl = np.stack([lines[index] for index in "hkl"], axis=1).astype(np.int64)
        peaks = StoredPeaks(lines["two_theta"].copy(), lines["fwhm"].copy(), lines["intensity"].copy())
        phases.append(
            StoredPhase(id, hkl, lines["multiplicity"].astype(np.int64), peaks, tuple(cell), from_plain(axis))
        )
    weights = curves["weights"][()] if "weights" in curves else usual_weights(fitted, model)
    columns = [table[column][n_linear:].copy() for column in PARAMETER_COLUMNS[2:]]
    parameters = StoredParameters(names[n_linear:], *columns)
    return StoredFit(
        diffractogram=fitted,
        pattern=StoredPattern(fitted.two_theta, tuple(phases), parameters, names[:n_linear]),
        minimum=StoredMinimum(weights),
        status=state["status"],
        linear=table["value"][:n_linear].copy(),
        values=table["value"][n_linear:].copy(),
        covariance=covariance,
        model=model,
        background=curves["background"][()],
        phase_curves=np.array([curves[f"phase_{phase.id}"][()] for phase in phases]).reshape(len(phases), -1),
        chi2_reduced=state["chi2_reduced"],
        second_start=state["second_start"],
        evaluations=state["evaluations"],
    )


def is_archive(path: str | Path) -> bool:
    """Return whether a file is a part of a run's archive."""
    try:
        with opened(path) as file:
            return bool(file.attrs.get("schema") == SCHEMA)
    except OSError:
        return False


def part_rows(path: Path) -> list[Row]:
    """Return the rows of a part.

    Raises
    ------
    InputError
        If the file is damaged or no part of an archive.
    """
    with reading(path) as file:
        return [Row.of(json.loads(line)) for line in _lines(file, "rows")]


def part_lines(path: Path) -> list[str]:
    """Return the JSON documents of a part as text, one a row.

    Raises
    ------
    InputError
        If the file is damaged or no part of an archive.
    """
    with reading(path) as file:
        return _lines(file, "documents")


def part_documents(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON documents of a part, one a row.

    Raises
    ------
    InputError
        If the file is damaged or no part of an archive.
    """
    for line in part_lines(path):
        yield json.loads(line)


def document_of(scan: StoredScan) -> dict[str, Any]:
    """Return the JSON document of one row."""
    document: dict[str, Any] = json.loads(_line(scan.part, "documents", scan.number))
    return document


def opened(path: str | Path) -> h5py.File:
    """Return an HDF5 file open for reading, also on a file system without locks.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if "lock" not in str(error):
            raise
        return h5py.File(path, "r", locking=False)


@contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """Open a part, and report damage as an InputError that names it."""
    try:
        with opened(path) as file:
            schema = file.attrs.get("schema")
            if schema != SCHEMA:
                raise InputError(f"{path}: no part of an xrdz archive (schema {schema!r}, expected {SCHEMA!r})")
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, zlib.error) as error:
        raise InputError(f"{path}: the part is damaged ({error}); delete it and start the run again") from None


def _lines(file: h5py.File, name: str) -> list[str]:
    return bytes(file[name][()]).decode("ascii").split("\n") if file[name].size else []


@lru_cache(maxsize=PARTS_REMEMBERED)
def _remembered(path: Path, name: str, mtime_ns: int) -> list[str]:
    del mtime_ns  # part of the key
    with reading(path) as file:
        return _lines(file, name)


def _line(path: Path, name: str, number: int) -> str:
    try:
        return _remembered(path, name, path.stat().st_mtime_ns)[number]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); start the run again") from None
