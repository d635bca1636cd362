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
Curves and counts are stored without loss. Creating the thirty objects of an entry costs ten times as much as their
content, so entries of the same shape are copied from an empty skeleton in one call of the library and filled.
"""

from __future__ import annotations

import hashlib
import json
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from h5py import h5d, h5o, h5s

from xrdz import __version__
from xrdz.analysis import Analysis
from xrdz.diffractogram import Diffractogram, FloatArray, Source
from xrdz.errors import InputError
from xrdz.findings import Finding
from xrdz.parameters import UNITS
from xrdz.stored import (
    StoredFit,
    StoredMinimum,
    StoredParameters,
    StoredPattern,
    StoredPeaks,
    StoredPhase,
    built,
    from_plain,
    slimmed,
    to_plain,
    usual_weights,
    with_fit,
)

if TYPE_CHECKING:
    from xrdz.inputs import ScanInput
    from xrdz.method import Method

SCHEMA = "xrdz.archive/1"
LIBRARY_VERSIONS = ("v110", "v110")
"""HDF5 1.10 (2016) and newer read the parts; its compact groups halve the size of an entry."""

MAX_SKELETONS = 200
PARTS_REMEMBERED = 8
"""Parts whose documents and states are kept for the next row that is asked for."""

TEXT = h5py.string_dtype("utf-8")
PROCESS_ITEMS = ("program", "version", "date", "method", "method_sha256", "references_sha256")
CHANGING_METADATA = frozenset({"sample_id", "start_time", "comment", "temperature_k"})
"""Metadata that differ from scan to scan; the others are shared by the scans of a part."""

COVARIANCE_LAYOUT = "lower triangle, row by row: C[i, j] stands at i (i + 1) / 2 + j for j <= i"


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


# --- writing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PartHeader:
    """What all rows of a part rest on.

    Parameters
    ----------
    key : of method, references, version and options; rows of different keys never meet in one result
    curves : whether calculated curves and reflections are stored besides the scan and the parameters
    """

    key: str
    method: Method
    references_sha256: str
    created: str
    curves: bool = True


@dataclass(frozen=True)
class Item:
    """One dataset: text, a number or an array, with its attributes."""

    value: Any
    attributes: tuple[tuple[str, str], ...] = ()

    @property
    def shape_key(self) -> tuple[Any, ...]:
        """What of it decides whether two entries can share a skeleton."""
        if isinstance(self.value, np.ndarray):
            return (self.value.dtype, self.value.shape, self.attributes)
        return ("text", self.attributes)


@dataclass(frozen=True)
class Link:
    """A name for a dataset that exists: elsewhere in the file (absolute path), or in the same entry."""

    target: str


@dataclass(frozen=True)
class Shared:
    """A group that many entries have in common: `datasets` by name, and its attributes."""

    attributes: tuple[tuple[str, str], ...]
    datasets: tuple[tuple[str, Any], ...]


Layout = Mapping[str, Item | Link]

GROUPS: Mapping[str, Mapping[str, Any]] = {
    "data": {"NX_class": "NXdata", "signal": "data", "axes": ["polar_angle"]},
    "instrument": {"NX_class": "NXinstrument"},
    "instrument/detector": {"NX_class": "NXdetector"},
    "monitor": {"NX_class": "NXmonitor"},
    "sample": {"NX_class": "NXsample"},
    "metadata": {"NX_class": "NXcollection"},
    "process": {"NX_class": "NXprocess"},
    "fit": {"NX_class": "NXdata", "signal": "observed", "axes": ["polar_angle"]},
    "reflections": {"NX_class": "NXcollection"},
}
"""Groups of an entry, made where something stands in them, with their attributes."""

SOURCE = Shared((("NX_class", "NXsource"),), (("type", "Fixed Tube X-ray"), ("probe", "x-ray")))


class PartWriter:
    """Builds one part in memory, row by row; `image` gives the bytes of the file."""

    def __init__(self, header: PartHeader) -> None:
        self.header = header
        self._file = _memory_file()
        self._shared_at: dict[Shared, str] = {}
        self._rows: list[str] = []
        self._documents: list[str] = []
        self._states: list[str] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self,
        row: Row,
        document: Mapping[str, Any],
        analysis: Analysis | None = None,
        scan: Diffractogram | None = None,
    ) -> None:
        """Add one row, with its entry when there is an analysis.

        Parameters
        ----------
        document : what the JSON Lines of the run hold for it
        analysis : slim (see `stored.slimmed`) or fresh
        scan : the diffractogram before it was cropped to the method's range; None when that is the analysis's own
        """
        self._rows.append(json.dumps(replace(row, entry=analysis is not None).to_dict()))
        self._documents.append(json.dumps(document, allow_nan=False))
        state: Any = None
        if analysis is not None:
            analysis = slimmed(analysis)
            whole = analysis.diffractogram if scan is None else scan
            state = analysis_state(analysis, whole, curves=self.header.curves)
            layout = self._layout(row.file, analysis, whole)
            self._add_entry(b"scan_%04d" % len(self._rows), layout)
        self._states.append(json.dumps(state))

    def image(self) -> bytes:
        """Return the part as the bytes of an HDF5 file; the writer is spent."""
        file, header = self._file, self.header
        first = next((name for name in file if name.startswith("scan_")), "")
        file.attrs.update(
            {
                "NX_class": "NXroot",
                "schema": SCHEMA,
                "creator": f"xrdz {__version__}",
                "file_time": header.created,
                "key": header.key,
                "rows": len(self._rows),
                **({"default": first} if first else {}),
            }
        )
        run = file.create_group("run")
        run.attrs["NX_class"] = "NXcollection"
        for name, text in (
            ("method", json.dumps(header.method.to_dict())),
            ("method_state", json.dumps(to_plain(header.method))),
            ("method_sha256", header.method.sha256),
            ("references_sha256", header.references_sha256),
            ("date", header.created),
            ("program", "xrdz"),
            ("version", __version__),
            ("definition", "NXmonopd"),
            ("monitor_mode", "timer"),
        ):
            run[name] = text
        for name, lines in (("documents", self._documents), ("states", self._states), ("rows", self._rows)):
            content = np.frombuffer("\n".join(lines).encode("ascii"), dtype=np.uint8)
            chunk = (min(content.size, 1 << 20),)
            lines_data = file.create_dataset(name, data=content, chunks=chunk, compression="gzip", compression_opts=2)
            lines_data.attrs["content"] = "JSON Lines: bytes(dataset[()]).decode().splitlines()"
        file.flush()
        image: bytes = file.id.get_file_image()
        file.close()
        return image

    def _layout(self, name: str, analysis: Analysis, scan: Diffractogram) -> Layout:
        """Return what an entry holds, by path."""
        fit: object = analysis.fit
        layout: dict[str, Item | Link] = {
            "definition": Link("/run/definition"),
            "title": Item(printable(name)),
            **self._scan_layout(scan),
            **{f"process/{item}": Link(f"/run/{item}") for item in PROCESS_ITEMS},
            "process/source_sha256": Item(np.array(scan.source.sha256.encode(), dtype="S64")),
            "process/status": Item(np.array(analysis.status.encode(), dtype="S16")),
            "process/findings": Item("\n".join(_finding_line(finding) for finding in analysis.findings)),
        }
        fitted = analysis.diffractogram
        whole = fitted.n_points == scan.n_points
        if not whole:
            mask = np.isin(scan.two_theta, fitted.two_theta, assume_unique=True)
            layout["data/fitted"] = Item(mask.astype(np.uint8), (("long_name", "1 where the point was fitted"),))
        if analysis.phases:
            layout["phases"] = Item(_phase_table(analysis))
        if analysis.mass_ratio is not None:
            layout["mass_ratio"] = Item(_ratio_record(analysis))
        if isinstance(fit, StoredFit):
            layout |= _fit_layout(fit, whole, self._grid(fitted.two_theta), curves=self.header.curves)
        return layout

    def _scan_layout(self, scan: Diffractogram) -> dict[str, Item | Link]:
        """Return the raw data after NXmonopd, as they were read."""
        wavelength = scan.wavelength
        grid = self._grid(scan.two_theta)
        # The unit tells the reader of NeXus files whether the numbers are counts, which decides their variance.
        unit = "counts" if scan.count_kind in ("counts", "rate") else "arbitrary"
        layout: dict[str, Item | Link] = {
            "data/polar_angle": grid,
            "data/data": Item(_compact(scan.intensity), (("units", unit),)),
            "instrument/detector/polar_angle": grid,
            "instrument/detector/data": Link("data/data"),
            "instrument/source": self._shared(SOURCE),
            "sample/name": Link("title"),
            "monitor/mode": Link("/run/monitor_mode"),
            "monitor/preset": self._shared(
                Shared((("value.units", "s"),), (("value", float(scan.metadata.get("step_time_s") or 0.0)),)), "value"
            ),
        }
        if scan.su is not None:
            layout["data/errors"] = Item(scan.su)
        if isinstance(scan.gain, np.ndarray):
            layout["data/gain"] = Item(scan.gain, (("long_name", "variance over expected intensity"),))
        if wavelength is not None:
            columns = tuple(zip(*wavelength.lines, strict=True))
            lines = tuple(zip(("wavelength", "wavelength_weights"), columns, strict=True))
            attributes = (
                ("NX_class", "NXcrystal"),
                ("wavelength.units", "angstrom"),
                ("wavelength.name", wavelength.name),
            )
            layout["instrument/crystal"] = self._shared(Shared(attributes, lines))
        common = {key: value for key, value in scan.metadata.items() if key not in CHANGING_METADATA}
        for key in common:
            layout[f"metadata/{key}"] = self._shared(Shared((), (("value", common[key]),)), "value")
        for key in scan.metadata.keys() - common.keys():
            layout[f"metadata/{key}"] = Item(_metadata_value(scan.metadata[key]))
        return layout

    def _grid(self, two_theta: FloatArray) -> Link:
        """Return the link to a shared array of positions."""
        content = two_theta.tobytes()
        return self._shared(Shared((("polar_angle.units", "deg"),), (("polar_angle", content),)), "polar_angle")

    def _shared(self, shared: Shared, name: str = "") -> Link:
        """Return the link to a group, or one dataset of it, that is written once in the part."""
        if shared not in self._shared_at:
            # Named by its content, so that skeletons which point to it serve other parts too.
            path = f"/shared/{hashlib.sha256(repr(shared).encode()).hexdigest()[:16]}"
            group = self._file.create_group(path)
            for dataset, value in shared.datasets:
                group[dataset] = np.frombuffer(value) if isinstance(value, bytes) else _metadata_value(value)
            for attribute, value in shared.attributes:
                target, _, last = attribute.rpartition(".")
                (group[target] if target else group).attrs[last] = value
            self._shared_at[shared] = path
        return Link(f"{self._shared_at[shared]}/{name}" if name else self._shared_at[shared])

    def _add_entry(self, name: bytes, layout: Layout) -> None:
        skeletons = _skeletons()
        h5o.copy(skeletons.file.id, skeletons.name_for(layout), self._file.id, name)
        entry = h5py.h5g.open(self._file.id, name)
        for path, item in layout.items():
            if isinstance(item, Item):
                _fill(h5d.open(entry, path.encode()), item.value)


class Skeletons:
    """Empty entries by the shape of what they take, in a file that is never written to disk."""

    def __init__(self) -> None:
        self.file = _memory_file()
        self._names: dict[tuple[Any, ...], bytes] = {}

    def name_for(self, layout: Layout) -> bytes:
        """Return the name of the skeleton of a layout, made when it is the first of its shape."""
        key = tuple((path, item.shape_key if isinstance(item, Item) else item) for path, item in layout.items())
        if key not in self._names:
            if len(self._names) >= MAX_SKELETONS:
                self.file.close()
                self.file, self._names = _memory_file(), {}
            name = b"%d" % len(self._names)
            _make_skeleton(self.file.create_group(name.decode()), layout)
            self._names[key] = name
        return self._names[key]


@lru_cache(maxsize=1)
def _skeletons() -> Skeletons:
    """Return the skeletons of this process."""
    return Skeletons()


def _fill(dataset: h5d.DatasetID, value: Any) -> None:
    """Write all of a dataset; a table is written in its own type, which saves describing it again."""
    if isinstance(value, str):
        dataset.write(h5s.ALL, h5s.ALL, np.array(value, dtype=TEXT))
    elif value.dtype.names is not None:
        dataset.write(h5s.ALL, h5s.ALL, value, dataset.get_type())
    else:
        dataset.write(h5s.ALL, h5s.ALL, value)


def _memory_file() -> h5py.File:
    # Two open files of one name are refused, also when neither is on disk.
    name = uuid.uuid4().hex
    return h5py.File(name, "w", driver="core", backing_store=False, block_size=1 << 22, libver=LIBRARY_VERSIONS)


def _make_skeleton(entry: h5py.Group, layout: Layout) -> None:
    """Create the objects of an entry, still without their content."""
    entry.attrs["NX_class"] = "NXentry"
    entry.attrs["default"] = "fit" if "fit/observed" in layout else "data"
    for path, attributes in GROUPS.items():
        if any(item.startswith(f"{path}/") for item in layout):
            entry.require_group(path).attrs.update(attributes)
    shown = [path.removeprefix("fit/") for path in layout if path.startswith("fit/")]
    if "observed" in shown:
        entry["fit"].attrs["auxiliary_signals"] = [name for name in shown if name not in ("observed", "polar_angle")]
    for path, item in layout.items():
        if isinstance(item, Link):
            entry[path] = h5py.SoftLink(item.target) if item.target.startswith("/") else entry[item.target]
            continue
        if isinstance(item.value, str):
            created = entry.create_dataset(path, shape=(), dtype=TEXT)
        else:
            created = entry.create_dataset(path, shape=item.value.shape, dtype=item.value.dtype)
        created.attrs.update(dict(item.attributes))


def _metadata_value(value: Any) -> Any:
    """Return a number or an array as it is, anything else as text."""
    if isinstance(value, tuple):
        return np.array(value, dtype=np.float64)
    if isinstance(value, float | int) and not isinstance(value, bool):
        return np.array(float(value))
    return printable(str(value))


def _fit_layout(fit: StoredFit, whole: bool, grid: Link, *, curves: bool) -> dict[str, Item | Link]:
    """Return curves, parameters and reflections of a fit."""
    lower = np.tril_indices(fit.covariance.shape[0])
    layout: dict[str, Item | Link] = {
        "parameters": Item(_parameter_table(fit)),
        "covariance": Item(fit.covariance[lower], (("layout", COVARIANCE_LAYOUT),)),
    }
    if not curves:
        return layout
    observed = fit.diffractogram.intensity
    layout |= {
        "fit/polar_angle": grid,
        "fit/observed": Link("data/data") if whole else Item(_compact(observed)),
        "fit/calculated": Item(fit.model),
        "fit/background": Item(fit.background),
        "fit/residual": Item((observed - fit.model).astype(np.float32), (("long_name", "observed - calculated"),)),
    }
    if not np.array_equal(fit.minimum.weights, usual_weights(fit.diffractogram, fit.model)):
        layout["fit/weights"] = Item(fit.minimum.weights, (("long_name", "1 / variance"),))
    for number, phase in enumerate(fit.pattern.phases):
        layout[f"fit/phase_{phase.id}"] = Item(fit.phase_curve(number))
        layout[f"reflections/{phase.id}"] = Item(_reflection_table(phase))
    return layout


def _compact(intensity: FloatArray) -> Any:
    """Return whole numbers in the smallest unsigned type that holds them, others as they are."""
    if intensity.size and intensity.min() >= 0.0 and intensity.max() < 2.0**32 and not np.any(np.signbit(intensity)):
        for kind in (np.uint16, np.uint32):
            if intensity.max() <= np.iinfo(kind).max:
                whole = intensity.astype(kind)
                return whole if np.array_equal(whole, intensity) else intensity
    return intensity


def _unit(name: str) -> str:
    last = name.rpartition(".")[2]
    if ".B." in name:
        return "angstrom^2"
    return UNITS.get(last, "counts" if name.startswith(("background.", "hump.")) else "")


def _parameter_table(fit: StoredFit) -> Any:
    """Return one record per parameter; prior and bounds are NaN and infinite for the linear ones, which have none."""
    names, table = fit.names, fit.pattern.parameters
    n_linear = fit.linear.size
    longest = max(len(name.encode()) for name in names)
    records = np.zeros(
        len(names),
        dtype=[("name", f"S{longest}"), ("unit", "S16"), *((column, "f8") for column in PARAMETER_COLUMNS)],
    )
    records["name"] = [name.encode() for name in names]
    records["unit"] = [_unit(name).encode() for name in names]
    records["value"] = np.concatenate((fit.linear, fit.values))
    records["su"] = np.sqrt(np.maximum(np.diag(fit.covariance), 0.0))
    for column, missing in (("start", np.nan), ("prior_mean", np.nan), ("prior_su", np.nan), ("lower", -np.inf)):
        records[column] = np.concatenate((np.full(n_linear, missing), getattr(table, column)))
    records["upper"] = np.concatenate((np.full(n_linear, np.inf), table.upper))
    return records


PARAMETER_COLUMNS = ("value", "su", "start", "prior_mean", "prior_su", "lower", "upper")


def _reflection_table(phase: StoredPhase) -> Any:
    records = np.zeros(
        len(phase.hkl),
        dtype=[(name, "i2") for name in ("h", "k", "l", "multiplicity")]
        + [("two_theta", "f8"), ("fwhm", "f4"), ("intensity", "f4")],
    )
    records["h"], records["k"], records["l"] = phase.hkl.T
    records["multiplicity"] = phase.multiplicity
    records["two_theta"] = phase.peaks.centre
    records["fwhm"], records["intensity"] = phase.peaks.fwhm, phase.peaks.intensity
    return records


def _phase_table(analysis: Analysis) -> Any:
    records = np.zeros(
        len(analysis.phases),
        dtype=[("id", "S64"), ("detected", "i1"), *((c, "f8") for c in ("mass_fraction", "su", "low95", "high95"))],
    )
    for record, phase in zip(records, analysis.phases.values(), strict=True):
        fraction = phase.mass_fraction
        record["id"], record["detected"] = phase.id.encode()[:64], phase.detected
        record["mass_fraction"], record["su"] = fraction.value, fraction.su
        record["low95"], record["high95"] = fraction.interval95
    return records


def _ratio_record(analysis: Analysis) -> Any:
    ratio = analysis.mass_ratio
    assert ratio is not None
    record = np.zeros(
        (), dtype=[("ratio", "S128"), *((c, "f8") for c in ("value", "su_stat", "su", "low95", "high95"))]
    )
    record["ratio"] = f"{ratio.numerator}/{ratio.denominator}".encode()[:128]
    record["value"], record["su_stat"], record["su"] = ratio.value, ratio.su_stat, ratio.su
    record["low95"], record["high95"] = ratio.interval95
    return record


def _finding_line(finding: Finding) -> str:
    where = f" [{finding.where}]" if finding.where else ""
    return printable(" ".join(f"{finding.level.value} {finding.code.value}{where}: {finding.message}".split()))


def printable(text: str) -> str:
    """Return text that UTF-8 can hold: a file name that is no valid Unicode shows its bytes as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def analysis_state(analysis: Analysis, scan: Diffractogram, *, curves: bool = True) -> dict[str, Any]:
    """Return what the arrays of an entry do not hold of an analysis, as JSON values."""
    fit: object = analysis.fit if curves else None
    kept = {item.name: getattr(analysis, item.name) for item in fields(analysis)}
    for name in ("diffractogram", "method", "fit"):
        del kept[name]
    state = {name: to_plain(value) for name, value in kept.items()}
    gain = scan.gain
    state["~scan"] = {
        "gain": None if isinstance(gain, np.ndarray) else float(gain),
        **{
            name: to_plain(getattr(scan, name))
            for name in ("wavelength", "count_kind", "metadata", "findings", "source")
        },
    }
    if analysis.diffractogram.findings != scan.findings or analysis.diffractogram.source != scan.source:
        state["~fitted"] = to_plain((analysis.diffractogram.findings, analysis.diffractogram.source))
    if isinstance(fit, StoredFit):
        state["~fit"] = {
            "n_linear": int(fit.linear.size),
            "chi2_reduced": fit.chi2_reduced,
            "second_start": fit.second_start,
            "evaluations": fit.evaluations,
            "status": fit.status,
            "phases": [
                [p.id, to_plain(p.texture_axis), [float(x) for x in p.cell_parameters]] for p in fit.pattern.phases
            ],
        }
    return state


# --- reading ----------------------------------------------------------------------------------------------------------


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


# --- HDF5 files as packs of scans -------------------------------------------------------------------------------------


def entry_names(path: str) -> list[str]:
    """Return the entries of an HDF5 file that may hold a scan each; none if it cannot be read."""
    try:
        with opened(path) as file:
            groups = [name for name in file if file.get(name, getclass=True) is h5py.Group]
            entries = [name for name in groups if _class_of(file[name]) == "NXentry"]
            return entries or groups
    except (OSError, RuntimeError, KeyError, ValueError):
        return []


def _class_of(group: h5py.Group) -> str:
    stated = group.attrs.get("NX_class", "")
    return stated.decode("utf-8", "replace") if isinstance(stated, bytes) else str(stated)


def read_entry(scan: ScanInput) -> Diffractogram:
    """Return the scan of one entry of an HDF5 file; one of a run's archive bit for bit as it was read then.

    Raises
    ------
    InputError
        If the entry holds no scan, or the file is damaged.
    """
    from xrdz.readers.gate import diffractogram_from_recorded
    from xrdz.readers.nexus import scans_of_entry

    try:
        with opened(scan.path) as file:
            own = file.attrs.get("schema") == SCHEMA
            recorded = [] if own else list(scans_of_entry(file[scan.member], scan.place))
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{scan.place}: the entry cannot be read ({error}); copy the file again") from None
    if own:
        number = int(scan.member.rpartition("_")[2]) - 1
        return diffractogram_from_archive(StoredScan(Row(scan.name), Path(scan.path), number))
    if len(recorded) != 1:
        raise InputError(f"{scan.place}: {len(recorded)} scans in the entry; expected one with two_theta and counts")
    content = hashlib.sha256()
    for array in (recorded[0].position, recorded[0].intensity, recorded[0].su, recorded[0].attenuation):
        content.update(b"" if array is None else array.tobytes())
    content.update(repr((sorted(recorded[0].metadata.items()), recorded[0].wavelength, recorded[0].unit)).encode())
    source = Source(path=scan.place, sha256=content.hexdigest(), format="NeXus", scan=scan.offset + 1)
    return diffractogram_from_recorded(recorded[0], source=source)


def entry_fingerprint(scan: ScanInput) -> str:
    """Return the hash by which a change of an entry's numbers is noticed."""
    return read_entry(scan).source.sha256


def archived_diffractograms(path: str | Path) -> Sequence[Diffractogram]:
    """Return every scan of a part of the archive as it was read, in the order of its entries."""
    path = Path(path)
    rows = [StoredScan(row, path, number) for number, row in enumerate(part_rows(path))]
    return [diffractogram_from_archive(scan) for scan in rows if scan.row.entry]
