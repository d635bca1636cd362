"""The writing side of the archive: entries laid out as named arrays, made in memory and written as one part.

The layout of a part is in `archive`. Creating the thirty objects of an entry costs ten times as much as their content,
so entries of one shape share a skeleton: its datasets stay open and take the values of an entry, and one call of the
library copies it into the part, values and all.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from h5py import h5d, h5g, h5o, h5s, h5t

from xrdz import __version__
from xrdz.analysis import Analysis
from xrdz.archive import PARAMETER_COLUMNS, SCHEMA, Row
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.findings import Finding
from xrdz.parameters import UNITS
from xrdz.stored import StoredFit, StoredPhase, slimmed, to_plain, usual_weights

if TYPE_CHECKING:
    from xrdz.method import Method

LIBRARY_VERSIONS = ("v110", "v110")
"""HDF5 1.10 (2016) and newer read the parts; its compact groups halve the size of an entry."""

MAX_SKELETONS = 200

TEXT = h5py.string_dtype("utf-8")
PROCESS_ITEMS = ("program", "version", "date", "method", "method_sha256", "references_sha256")
CHANGING_METADATA = frozenset({"sample_id", "start_time", "comment", "temperature_k"})
"""Metadata that differ from scan to scan; the others are shared by the scans of a part."""

COVARIANCE_LAYOUT = "lower triangle, row by row: C[i, j] stands at i (i + 1) / 2 + j for j <= i"


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

PROCESS_LINKS: Layout = {f"process/{item}": Link(f"/run/{item}") for item in PROCESS_ITEMS}

GROUPS: Mapping[str, Mapping[str, Any]] = {
    "data": {"NX_class": "NXdata", "signal": "data", "axes": ["polar_angle"]},
    "instrument": {"NX_class": "NXinstrument"},
    "instrument/detector": {"NX_class": "NXdetector"},
    "sample": {"NX_class": "NXsample"},
    "metadata": {"NX_class": "NXcollection"},
    "process": {"NX_class": "NXprocess"},
    "fit": {"NX_class": "NXdata", "signal": "observed", "axes": ["polar_angle"]},
    "reflections": {"NX_class": "NXcollection"},
}
"""Groups of an entry, made where something stands in them, with their attributes."""

SOURCE = Shared((("NX_class", "NXsource"),), (("type", "Fixed Tube X-ray"), ("probe", "x-ray")))

NO_FINDINGS = Shared((), (("findings", ""),))


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
        line, state = json.dumps(document, allow_nan=False), "null"
        if analysis is not None:
            analysis = slimmed(analysis)
            whole = analysis.diffractogram if scan is None else scan
            state = json.dumps(analysis_state(analysis, whole, curves=self.header.curves))
            self._add_entry(b"scan_%04d" % (len(self) + 1), self._layout(row.file, analysis, whole))
        # Last, so that a row that cannot be stored leaves the three lists in step.
        self._rows.append(json.dumps({**row.to_dict(), "entry": analysis is not None}))
        self._documents.append(line)
        self._states.append(state)

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
        grid = self._grid(scan.two_theta)
        layout: dict[str, Item | Link] = {
            "definition": Link("/run/definition"),
            "title": Item(printable(name)),
            **self._scan_layout(scan, grid),
            **PROCESS_LINKS,
            "process/source_sha256": Item(np.array(scan.source.sha256.encode(), dtype="S64")),
            "process/status": self._shared(Shared((), (("status", analysis.status),)), "status"),
            "process/findings": Item("\n".join(_finding_line(finding) for finding in analysis.findings))
            if analysis.findings
            else self._shared(NO_FINDINGS, "findings"),
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
            fitted_grid = grid if whole else self._grid(fitted.two_theta)
            layout |= _fit_layout(fit, whole, fitted_grid, curves=self.header.curves)
        return layout

    def _scan_layout(self, scan: Diffractogram, grid: Link) -> dict[str, Item | Link]:
        """Return the raw data after NXmonopd, as they were read."""
        wavelength = scan.wavelength
        # The unit tells the reader of NeXus files whether the numbers are counts, which decides their variance.
        unit = "counts" if scan.count_kind in ("counts", "rate") else "arbitrary"
        layout: dict[str, Item | Link] = {
            "data/polar_angle": grid,
            "data/data": Item(_compact(scan.intensity), (("units", unit),)),
            "instrument/detector/polar_angle": grid,
            "instrument/detector/data": Link("data/data"),
            "instrument/source": self._shared(SOURCE),
            "sample/name": Link("title"),
            "monitor": self._shared(
                Shared(
                    (("NX_class", "NXmonitor"), ("preset.units", "s")),
                    (("mode", "timer"), ("preset", float(scan.metadata.get("step_time_s") or 0.0))),
                )
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
        skeleton = _skeletons().of(layout)
        skeleton.fill(layout)
        h5o.copy(skeleton.entry, b".", self._file.id, name)


class Skeleton:
    """An entry of one shape whose datasets stay open, to be filled and copied again and again."""

    def __init__(self, entry: h5py.Group, layout: Layout) -> None:
        _make_skeleton(entry, layout)
        self.entry: h5g.GroupID = entry.id
        # Handed over with each write, the types in memory need not be derived from the arrays again.
        self._datasets = [
            (
                h5d.open(self.entry, path.encode()),
                h5t.py_create(TEXT if isinstance(item.value, str) else item.value.dtype),
            )
            for path, item in layout.items()
            if isinstance(item, Item)
        ]

    def fill(self, layout: Layout) -> None:
        """Write the values of an entry of this shape over those of the one before."""
        values = (item.value for item in layout.values() if isinstance(item, Item))
        for (dataset, kind), value in zip(self._datasets, values, strict=True):
            array = np.array(value, dtype=TEXT) if isinstance(value, str) else value
            dataset.write(h5s.ALL, h5s.ALL, array, kind)


class Skeletons:
    """Skeletons by the shape of what they take, in a file that is never written to disk."""

    def __init__(self) -> None:
        self.file = _memory_file()
        self._by_shape: dict[tuple[Any, ...], Skeleton] = {}

    def of(self, layout: Layout) -> Skeleton:
        """Return the skeleton of a layout, made when it is the first of its shape."""
        shape = tuple((path, item.shape_key if isinstance(item, Item) else item) for path, item in layout.items())
        if shape not in self._by_shape:
            if len(self._by_shape) >= MAX_SKELETONS:
                self._by_shape = {}
                self.file.close()
                self.file = _memory_file()
            self._by_shape[shape] = Skeleton(self.file.create_group(str(len(self._by_shape))), layout)
        return self._by_shape[shape]


@lru_cache(maxsize=1)
def _skeletons() -> Skeletons:
    """Return the skeletons of this process."""
    return Skeletons()


def _memory_file() -> h5py.File:
    # Two open files of one name are refused, also when neither is on disk.
    name = uuid.uuid4().hex
    # Without blocks of their own, headers follow the data they describe and leave no gaps.
    return h5py.File(
        name,
        "w",
        driver="core",
        backing_store=False,
        block_size=1 << 22,
        meta_block_size=0,
        libver=LIBRARY_VERSIONS,
    )


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
    layout: dict[str, Item | Link] = {
        "parameters": Item(_parameter_table(fit)),
        "covariance": Item(fit.covariance[_lower_triangle(fit.covariance.shape[0])], (("layout", COVARIANCE_LAYOUT),)),
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
    # As integers, the bits of whatever has a sign are negative, those of minus zero too.
    if not intensity.size or intensity.view(np.int64).min() < 0 or not (highest := intensity.max()) < 2.0**32:
        return intensity
    whole = intensity.astype(np.uint16 if highest <= np.iinfo(np.uint16).max else np.uint32)
    return whole if np.array_equal(whole, intensity) else intensity


@lru_cache(maxsize=32)
def _lower_triangle(size: int) -> Any:
    """Return the mask of the lower triangle of a matrix, which selects it row by row."""
    return np.tri(size, dtype=np.bool_)


def _unit(name: str) -> str:
    last = name.rpartition(".")[2]
    if ".B." in name:
        return "angstrom^2"
    return UNITS.get(last, "counts" if name.startswith(("background.", "hump.")) else "")


def _parameter_table(fit: StoredFit) -> Any:
    """Return one record per parameter; prior and bounds are NaN and infinite for the linear ones, which have none."""
    table, n_linear = fit.pattern.parameters, fit.linear.size
    records = _named_parameters(fit.names).copy()
    linear, nonlinear = records[:n_linear], records[n_linear:]
    linear["value"], nonlinear["value"] = fit.linear, fit.values
    records["su"] = np.sqrt(np.maximum(fit.covariance.diagonal(), 0.0))
    for column, missing in (
        ("start", np.nan),
        ("prior_mean", np.nan),
        ("prior_su", np.nan),
        ("lower", -np.inf),
        ("upper", np.inf),
    ):
        linear[column], nonlinear[column] = missing, getattr(table, column)
    return records


@lru_cache(maxsize=32)
def _named_parameters(names: tuple[str, ...]) -> Any:
    """Return the records of parameters with names and units alone; the scans of a method have few sets of names."""
    longest = max(len(name.encode()) for name in names)
    records = np.zeros(
        len(names),
        dtype=[("name", f"S{longest}"), ("unit", "S16"), *((column, "f8") for column in PARAMETER_COLUMNS)],
    )
    records["name"] = [name.encode() for name in names]
    records["unit"] = [_unit(name).encode() for name in names]
    return records


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
