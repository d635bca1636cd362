"""NeXus: NXmonopd, NXxrd_pan, and the archive this package writes (NXmonopd entries).

Every NXentry with a two-theta axis and an intensity of the same length is a scan. Nothing outside the file is opened:
external links, external storage and virtual datasets are refused before anything is read through them. The writer of
NXmonopd entries stands here too, beside the reader that must understand them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from xrdz import __version__
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.errors import InputError
from xrdz.findings import Code, Finding, warning
from xrdz.readers.binary import field
from xrdz.readers.content import MAX_FILE_BYTES, Content
from xrdz.readers.recorded import METADATA_KEYS, NUMBER_KEYS, RecordedScan, Unit
from xrdz.readers.statistics import is_plain_counts, uncertainty
from xrdz.readers.vocabulary import anode_symbol, wavelength_of
from xrdz.wavelength import Wavelength

if TYPE_CHECKING:
    import h5py

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_DEPTH = 8
MAX_OBJECTS = 20_000

ANGLE_NAMES = ("two_theta", "polar_angle", "2theta", "twotheta", "ttheta")
INTENSITY_NAMES = ("counts", "intensity", "data", "intensities")


def sniff_nexus(head: bytes, name: str) -> bool:
    """Return whether the file is HDF5."""
    del name
    return head.startswith(SIGNATURE)


def read_nexus(content: Content) -> list[RecordedScan]:
    """Read every entry of a NeXus file.

    Raises
    ------
    InputError
        If the file is cut or damaged, points outside itself, or holds no powder scan.
    """
    import h5py

    surplus = _surplus_finding(content)
    try:
        with h5py.File(io.BytesIO(content.data), "r") as file:
            groups = [file[name] for name in _entry_names(file, content.place)]
            scans = [scan for group in groups for scan in scans_of_entry(group, content.place)]
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        # The HDF5 library reports damage under all of these names.
        raise InputError(f"{content.place}: the HDF5 file is cut or damaged ({error}); copy the file again") from None
    if not scans:
        raise InputError(
            f"{content.place}: no entry with two_theta and counts; expected NXmonopd, NXxrd_pan or a run archive"
        )
    return [replace(scan, findings=(*scan.findings, *surplus)) for scan in scans]


def _surplus_finding(content: Content) -> tuple[Finding, ...]:
    """Return the finding that the file is not as long as its superblock says: HDF5 itself checks no numbers."""
    data = content.data
    at = {0: 40, 1: 44, 2: 28, 3: 28}.get(data[8] if len(data) > 60 else 255)
    if at is None:
        return ()
    end = int(field(data, "Q", at, content.place, "the superblock"))
    if end == len(data):
        return ()
    message = f"the file has {len(data)} bytes, but its header says {end}: it is damaged or was not closed"
    return (warning(Code.TRUNCATED_FILE, message, content.place, "copy the file again"),)


def _entry_names(file: h5py.File, place: str) -> list[str]:
    names = []
    for name in file:
        _refuse_external(file, name, place)
        if file.get(name, getclass=True) is not None and hasattr(file[name], "keys"):
            names.append(name)
    return names


def _refuse_external(group: h5py.Group, name: str, place: str) -> None:
    import h5py

    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        raise InputError(f"{place}: {group.name}/{name} points to another file; only data inside the file are read")


def scans_of_entry(entry: h5py.Group, place: str) -> Iterator[RecordedScan]:
    """Yield the scan of one NXentry, as NXmonopd (also our archive) or NXxrd_pan lay it out; none if it holds none."""
    datasets = dict(_datasets(entry, place))
    angle_path = _best(datasets, ANGLE_NAMES)
    if angle_path is None:
        return
    angle = _array(datasets[angle_path], place)
    holder = angle_path.rpartition("/")[0]
    candidates = [path for path, dataset in datasets.items() if dataset.shape == angle.shape and angle.size > 1]
    intensity_path = _best({path: datasets[path] for path in candidates}, INTENSITY_NAMES, near=holder)
    if intensity_path is None:
        return
    intensity = _array(datasets[intensity_path], place)
    holder = intensity_path.rpartition("/")[0]
    su_path = next(
        (p for p in (f"{holder}/errors", f"{intensity_path}_errors", f"{holder}/su") if p in candidates), None
    )
    gain_path = next((p for p in (f"{holder}/gain",) if p in candidates), None)
    metadata, wavelength, findings = _facts(datasets, place)
    time = metadata.get("step_time_s")
    units = str(datasets[angle_path].attrs.get("units", "deg")).lower()
    stated = str(datasets[intensity_path].attrs.get("units", "")).lower()
    unit: Unit = "rate" if stated in ("cps", "counts/s", "1/s") else "unknown"
    if stated == "counts" or (not stated and intensity_path.endswith("/counts")):
        unit = "counts"
    attenuation = _array(datasets[gain_path], place) if gain_path else None
    yield RecordedScan(
        position=angle,
        intensity=intensity,
        su=_array(datasets[su_path], place) if su_path else None,
        attenuation=attenuation,
        attenuation_applied=True,
        step_time_s=time,
        unit=unit,
        axis="radian" if units.startswith("rad") else "two_theta",
        wavelength=wavelength,
        label=f"entry {entry.name.strip('/')}, {angle.size} points",
        metadata=metadata,
        findings=findings,
    )


def _datasets(entry: h5py.Group, place: str) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield (path, dataset) of a group, following soft links inside the file, without visiting a group twice."""
    import h5py

    pending: list[tuple[str, h5py.Group, int]] = [("", entry, 0)]
    seen = {entry.id}
    count = 0
    while pending:
        path, group, depth = pending.pop()
        for name in group:
            count += 1
            if count > MAX_OBJECTS:
                raise InputError(f"{place}: more than {MAX_OBJECTS} objects in {entry.name}; a scan has a few dozen")
            _refuse_external(group, name, place)
            item = group.get(name)
            if isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise InputError(f"{place}: {item.name} keeps its data in another file; only data inside are read")
                yield f"{path}/{name}", item
            elif isinstance(item, h5py.Group) and depth < MAX_DEPTH and item.id not in seen:
                seen.add(item.id)
                pending.append((f"{path}/{name}", item, depth + 1))


def _best(datasets: dict[str, h5py.Dataset], names: tuple[str, ...], near: str = "") -> str | None:
    """Return the path of the first of `names` among one-dimensional numbers, in `near` or else nearest to the top."""
    usable = [
        path
        for path, dataset in datasets.items()
        if dataset.dtype.kind in "fiu" and len(dataset.shape) == 1 and dataset.size > 1
    ]
    for name in names:
        found = [path for path in usable if path.rpartition("/")[2].lower() == name]
        if found:
            return min(found, key=lambda path: (path.rpartition("/")[0] != near, path.count("/"), path))
    return None


def _array(dataset: h5py.Dataset, place: str) -> FloatArray:
    if dataset.size * dataset.dtype.itemsize > MAX_FILE_BYTES:
        raise InputError(f"{place}: {dataset.name} expands to {dataset.size} numbers, which no scan has")
    return np.asarray(dataset[()], dtype=np.float64).reshape(-1)


def _scalar(datasets: dict[str, h5py.Dataset], *names: str) -> Any:
    """Return the value of the first dataset of one element with one of these last names: text or number, or None."""
    for name in names:
        for path, dataset in datasets.items():
            if path.rpartition("/")[2] == name and dataset.size == 1:
                value = dataset[()]
                if isinstance(value, np.ndarray):
                    value = value.reshape(-1)[0]
                return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value
    return None


def _float(value: Any) -> float | None:
    if isinstance(value, (int, float, np.number)) and np.isfinite(value) and value > 0:
        return float(value)
    return None


def _facts(datasets: dict[str, h5py.Dataset], place: str) -> tuple[dict[str, Any], Wavelength | None, Any]:
    anode = anode_symbol(str(_scalar(datasets, "xray_tube_material", "anode_material", "target_material") or ""))
    time = next((dataset for path, dataset in datasets.items() if path.endswith("/count_time")), None)
    facts: dict[str, Any] = {
        "anode": anode,
        "tube_voltage_kv": _float(_scalar(datasets, "xray_tube_voltage")),
        "tube_current_ma": _float(_scalar(datasets, "xray_tube_current")),
        "scan_axis": _scalar(datasets, "scan_axis"),
        "start_time": _scalar(datasets, "start_time"),
        "sample_id": _scalar(datasets, "sample_id", "sample_name"),
        "k_beta_angstrom": _float(_scalar(datasets, "kbeta", "k_beta")),
        "step_time_s": _float(float(_array(time, place)[0])) if time is not None and time.size else None,
    }
    for path, dataset in datasets.items():
        name = path.rpartition("/")[2]
        if "/metadata/" in path and name in METADATA_KEYS and dataset.size == 1:
            value = _scalar({path: dataset}, name)
            facts[name] = _float(value) if name in NUMBER_KEYS else str(value)
    metadata = {key: value for key, value in facts.items() if value not in (None, "")}
    wavelengths = next((d for p, d in datasets.items() if p.endswith("/wavelength") and d.dtype.kind == "f"), None)
    if wavelengths is not None and 0 < wavelengths.size <= 20:
        weights = next(
            (d for p, d in datasets.items() if p.endswith(("/wavelength_weights", "/wavelength_weight"))), None
        )
        values = _array(wavelengths, place)
        if weights is not None and weights.size == values.size:
            shares = _array(weights, place)
        else:
            # Two lines without weights are a K-alpha doublet, whose second has half the intensity of the first.
            shares = np.array([1.0, 0.5]) if values.size == 2 else np.ones_like(values)
        if values.size > 1 and bool(np.all((values >= 0.1) & (values <= 5.0))) and bool(np.all(shares > 0)):
            name = str(wavelengths.attrs.get("name", ""))
            return metadata, Wavelength(tuple(zip(values.tolist(), shares.tolist(), strict=True)), name, "file"), ()
        only = str(wavelengths.attrs.get("name", "")) != ""
        wavelength, findings = wavelength_of(principal=_float(values[0]), alpha1_only=only, place=place)
        return metadata, wavelength, findings
    wavelength, findings = wavelength_of(
        anode=anode,
        alpha1=_float(_scalar(datasets, "k_alpha_one")),
        alpha2=_float(_scalar(datasets, "k_alpha_two")),
        ratio=_float(_scalar(datasets, "ratio_k_alphatwo_k_alphaone")),
        place=place,
    )
    return metadata, wavelength, findings


def nexus_bytes(diffractogram: Diffractogram) -> bytes:
    """Return a NeXus file with one NXentry after NXmonopd."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", track_order=True) as file:
        file.attrs["default"] = "entry"
        file.attrs["creator"] = f"xrdz {__version__}"
        entry = file.create_group("entry")
        entry.attrs["NX_class"], entry.attrs["default"] = "NXentry", "data"
        entry["definition"] = "NXmonopd"
        data = entry.create_group("data")
        data.attrs["NX_class"], data.attrs["signal"], data.attrs["axes"] = "NXdata", "counts", "two_theta"
        angle = data.create_dataset("two_theta", data=diffractogram.two_theta)
        angle.attrs["units"] = "deg"
        counts = data.create_dataset("counts", data=diffractogram.intensity)
        counts.attrs["units"] = "counts" if diffractogram.count_kind in ("counts", "rate") else "arbitrary"
        if diffractogram.su is None and isinstance(diffractogram.gain, np.ndarray):
            data.create_dataset("gain", data=diffractogram.gain)
        elif not is_plain_counts(diffractogram):
            data.create_dataset("errors", data=uncertainty(diffractogram))
        instrument = entry.create_group("instrument")
        instrument.attrs["NX_class"] = "NXinstrument"
        if diffractogram.wavelength is not None:
            crystal = instrument.create_group("crystal")
            crystal.attrs["NX_class"] = "NXcrystal"
            lines = np.array(diffractogram.wavelength.lines, dtype=np.float64)
            stated = crystal.create_dataset("wavelength", data=lines[:, 0])
            stated.attrs["units"], stated.attrs["name"] = "angstrom", diffractogram.wavelength.name
            crystal.create_dataset("wavelength_weights", data=lines[:, 1])
        collection = entry.create_group("metadata")
        collection.attrs["NX_class"] = "NXcollection"
        for key, value in diffractogram.metadata.items():
            collection[key] = value if isinstance(value, float) else str(value)
    return buffer.getvalue()
