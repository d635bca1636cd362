"""Writers: one table of formats, each a function from a diffractogram to the bytes of a file.

The invariant: reading the file back gives the same positions, the same intensities and the same metadata; the variance
law is kept as counts where the data are counts and as a standard uncertainty per point otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from xrdz import __version__
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.errors import InputError
from xrdz.files import write_whole
from xrdz.readers.nexus import nexus_bytes
from xrdz.readers.statistics import is_plain_counts, uncertainty


@dataclass(frozen=True)
class OutputFormat:
    """One row of the table: the usual suffix, what it holds, and the function that makes the bytes."""

    suffix: str
    holds: str
    to_bytes: Callable[[Diffractogram], bytes]


def write(diffractogram: Diffractogram, path: str | Path, name: str) -> Path:
    """Write a diffractogram whole: the file appears complete or not at all.

    Parameters
    ----------
    path : of the new file; an existing one is replaced, but never the file the diffractogram was read from
    name : a key of `OUTPUT_FORMATS`

    Raises
    ------
    InputError
        If the format is unknown or cannot hold the data, or the file cannot be written.
    """
    if name not in OUTPUT_FORMATS:
        raise InputError(f"--to {name!r} is not known; expected one of {', '.join(OUTPUT_FORMATS)}")
    path = Path(path)
    source = Path(diffractogram.source.path)
    if diffractogram.source.path and path.exists() and source.exists() and path.samefile(source):
        raise InputError(f"{path}: would replace the file that was read; choose another name with --out")
    content = OUTPUT_FORMATS[name].to_bytes(diffractogram)
    return write_whole(path, content)


def _line(value: object) -> str:
    return repr(value) if isinstance(value, float) else " ".join(str(value).split())


def _number(value: float) -> str:
    """Return the shortest decimal that reads back as the same number."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def _header(diffractogram: Diffractogram) -> list[str]:
    source = diffractogram.source
    origin = [f"source {Path(source.path).name} sha256 {source.sha256}"] if source.path else []
    return [f"written by xrdz {__version__}", *origin, *_facts(diffractogram)]


def _facts(diffractogram: Diffractogram) -> list[str]:
    """Return the wavelength and the metadata as lines `key: value`, which every reader here understands."""
    lines: list[str] = []
    wavelength = diffractogram.wavelength
    if wavelength is not None:
        stated = "; ".join(f"{_number(angstrom)} {_number(weight)}" for angstrom, weight in wavelength.lines)
        lines.append(f"wavelength_lines: {stated}")
        if wavelength.name:
            lines.append(f"wavelength_name: {wavelength.name}")
    lines += [f"{key}: {_line(value)}" for key, value in sorted(diffractogram.metadata.items())]
    return lines


def _columns(diffractogram: Diffractogram, separator: str) -> list[str]:
    su = uncertainty(diffractogram)
    names = ("two_theta_deg", "counts" if is_plain_counts(diffractogram) else "intensity", "su")
    rows = zip(diffractogram.two_theta.tolist(), diffractogram.intensity.tolist(), su.tolist(), strict=True)
    body = [separator.join((repr(angle), _number(value), repr(error))) for angle, value, error in rows]
    return [separator.join(names), *body]


def xye_bytes(diffractogram: Diffractogram) -> bytes:
    """Return three columns, 2theta in degrees, intensity and standard uncertainty, under a header of `# key: value`."""
    names, *rows = _columns(diffractogram, " ")
    return ("\n".join([*(f"# {line}" for line in _header(diffractogram)), f"# {names}", *rows]) + "\n").encode()


def csv_bytes(diffractogram: Diffractogram) -> bytes:
    """Return comma-separated columns with their names and units in one line, under a header of `# key: value`."""
    rows = _columns(diffractogram, ",")
    return ("\n".join([*(f"# {line}" for line in _header(diffractogram)), *rows]) + "\n").encode()


def _cif_text(value: str) -> str:
    """Return a CIF value: quoted, or as a text field where both quotes occur."""
    value = _line(value)
    for quote in ("'", '"'):
        if quote not in value:
            return f"{quote}{value}{quote}"
    return f"\n;{value}\n;"


def pdcif_bytes(diffractogram: Diffractogram) -> bytes:
    """Return a powder CIF with the measured profile in one loop."""
    metadata = diffractogram.metadata
    lines = ["#\\#CIF_1.1", "data_xrdz_scan", f"_audit_creation_method {_cif_text(f'xrdz {__version__}')}"]
    for key, item in PDCIF_ITEMS.items():
        if key in metadata:
            value = metadata[key]
            lines.append(f"{item} {_number(value) if isinstance(value, float) else _cif_text(value)}")
    lines += [f"_pd_meas_number_of_points {diffractogram.n_points}"]
    details = "\n".join(_facts(diffractogram))
    if details:
        lines += ["_pd_meas_special_details", f";{details}", ";"]
    if diffractogram.wavelength is not None:
        lines += ["loop_", "_diffrn_radiation_wavelength", "_diffrn_radiation_wavelength_wt"]
        lines += [f"{_number(angstrom)} {_number(weight)}" for angstrom, weight in diffractogram.wavelength.lines]
    rows = zip(diffractogram.two_theta.tolist(), diffractogram.intensity.tolist(), strict=True)
    if is_plain_counts(diffractogram):
        lines += ["loop_", "_pd_meas_2theta_scan", "_pd_meas_counts_total"]
        lines += [f"{angle!r} {_number(value)}" for angle, value in rows]
    else:
        lines += ["loop_", "_pd_meas_2theta_scan", "_pd_meas_intensity_total", "_pd_meas_intensity_total_su"]
        su = uncertainty(diffractogram).tolist()
        lines += [f"{angle!r} {_number(value)} {error!r}" for (angle, value), error in zip(rows, su, strict=True)]
    return ("\n".join(lines) + "\n").encode()


PDCIF_ITEMS: Mapping[str, str] = MappingProxyType(
    {
        "sample_id": "_pd_spec_description",
        "operator": "_pd_meas_info_author_name",
        "start_time": "_pd_meas_datetime_initiated",
        "instrument": "_diffrn_measurement_device_type",
        "tube_voltage_kv": "_diffrn_source_voltage",
        "tube_current_ma": "_diffrn_source_current",
        "step_time_s": "_pd_meas_step_count_time",
        "goniometer_radius_mm": "_pd_instr_dist_spec/detc",
        "monochromator": "_diffrn_radiation_monochromator",
        "detector": "_diffrn_detector_type",
        "temperature_k": "_diffrn_ambient_temperature",
        "scan_axis": "_pd_meas_scan_method",
    }
)
"""Metadata key -> item of the powder dictionary; all keys stand once more in the special details."""


def xrdml_bytes(diffractogram: Diffractogram) -> bytes:
    """Return XRDML 2.1 with listed positions, counts and, where counts were attenuated, their factors.

    Raises
    ------
    InputError
        If the data are not counts: the format has no place for a scale or an uncertainty.
    """
    if diffractogram.su is not None or diffractogram.count_kind not in ("counts", "rate"):
        raise InputError(
            f"{diffractogram.source.path}: XRDML holds counts, and these are {diffractogram.count_kind};"
            " choose --to xye, csv, pdcif or nexus"
        )
    wavelength, metadata = diffractogram.wavelength, diffractogram.metadata
    factors = np.broadcast_to(np.asarray(diffractogram.gain, dtype=np.float64), diffractogram.two_theta.shape)
    counts = diffractogram.intensity / factors
    rounded = np.rint(counts)
    counts = np.where(np.abs(counts - rounded) < 1e-9 * np.maximum(rounded, 1.0), rounded, counts)
    entries = _facts(diffractogram)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<xrdMeasurements xmlns="http://www.xrdml.com/XRDMeasurement/2.1" status="Completed">',
        "<comment>",
        *(f"<entry>{escape(entry)}</entry>" for entry in entries),
        "</comment>",
        f'<sample type="To be analyzed"><id>{escape(str(metadata.get("sample_id", "")))}</id></sample>',
        '<xrdMeasurement measurementType="Scan" status="Completed">',
    ]
    if wavelength is not None:
        alpha1_only = len(wavelength.lines) == 1
        lines.append(f"<usedWavelength intended={quoteattr('K-Alpha 1' if alpha1_only else 'K-Alpha')}>")
        lines.append(f'<kAlpha1 unit="Angstrom">{_number(wavelength.principal)}</kAlpha1>')
        if not alpha1_only:
            second, weight = wavelength.lines[1]
            lines.append(f'<kAlpha2 unit="Angstrom">{_number(second)}</kAlpha2>')
            lines.append(f"<ratioKAlpha2KAlpha1>{_number(weight / wavelength.lines[0][1])}</ratioKAlpha2KAlpha1>")
        lines.append("</usedWavelength>")
        if alpha1_only:
            lines.append('<incidentBeamPath><monochromator name="K-Alpha 1" hybrid="true"/></incidentBeamPath>')
    time = metadata.get("step_time_s")
    lines += [
        f'<scan appendNumber="0" scanAxis={quoteattr(_xrdml_axis(metadata))} status="Completed"><dataPoints>',
        '<positions axis="2Theta" unit="deg">',
        f"<listPositions>{_listed(diffractogram.two_theta)}</listPositions></positions>",
    ]
    if bool(np.any(factors != 1.0)):
        lines.append(f"<beamAttenuationFactors>{_listed(factors)}</beamAttenuationFactors>")
    if isinstance(time, float):
        lines.append(f'<commonCountingTime unit="seconds">{time!r}</commonCountingTime>')
    lines += [
        f'<counts unit="counts">{_listed(counts)}</counts>',
        "</dataPoints></scan></xrdMeasurement></xrdMeasurements>",
    ]
    return ("\n".join(lines) + "\n").encode()


def _xrdml_axis(metadata: Mapping[str, object]) -> str:
    axis = str(metadata.get("scan_axis", "Gonio"))
    return axis if axis in ("Gonio", "2Theta-Omega", "2Theta") else "Gonio"


def _listed(values: FloatArray) -> str:
    return " ".join(_number(value) for value in values.tolist())


OUTPUT_FORMATS: Mapping[str, OutputFormat] = MappingProxyType(
    {
        "xye": OutputFormat(".xye", "2theta (deg), intensity, standard uncertainty", xye_bytes),
        "csv": OutputFormat(".csv", "the same, comma-separated, with names and units", csv_bytes),
        "pdcif": OutputFormat(".cif", "powder CIF", pdcif_bytes),
        "nexus": OutputFormat(".nxs", "NeXus NXmonopd (HDF5)", nexus_bytes),
        "xrdml": OutputFormat(".xrdml", "PANalytical XRDML 2.1; counts only", xrdml_bytes),
    }
)
"""All output formats by the word that `--to` takes."""
