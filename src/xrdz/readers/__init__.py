"""Readers: one table of formats, one way in, one gate behind them all.

A format is a name, its suffixes, a sniffer that looks at the first bytes, and a reader. The first format whose sniffer
says yes reads the file; if it cannot, that is the error, and no other reader is tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from xrdz.diffractogram import Diffractogram, Source
from xrdz.errors import InputError
from xrdz.readers.brml import read_brml, sniff_brml
from xrdz.readers.bruker_raw import read_bruker_raw, sniff_bruker_raw
from xrdz.readers.content import Content, content_of_bytes, content_of_file
from xrdz.readers.gate import MIN_PART_POINTS, MIN_POINTS, diffractogram_from_recorded
from xrdz.readers.gsas import read_gsas, sniff_gsas
from xrdz.readers.nexus import read_nexus, sniff_nexus
from xrdz.readers.pdcif import read_pdcif, sniff_pdcif
from xrdz.readers.philips import read_rd, read_udf, sniff_rd, sniff_udf
from xrdz.readers.recorded import Axis, RecordedScan
from xrdz.readers.rigaku import read_asc, read_ras, read_rasx, sniff_asc, sniff_ras, sniff_rasx
from xrdz.readers.several import chosen_index, chosen_note, summed
from xrdz.readers.stepped_text import read_cpi, read_xdd, sniff_cpi, sniff_xdd
from xrdz.readers.stoe import read_stoe, sniff_stoe
from xrdz.readers.text import read_text, sniff_text
from xrdz.readers.uxd import read_uxd, sniff_uxd
from xrdz.readers.xrdml import read_xrdml, sniff_xrdml
from xrdz.wavelength import Wavelength

HEAD_BYTES = 4096
"""How many bytes a sniffer sees."""


@dataclass(frozen=True)
class Format:
    """One row of the table.

    Parameters
    ----------
    name : as findings and results show it
    suffixes : lower case, for listings and for folders of scans
    sniff : (first bytes, lower-case file name without .gz) -> whether this is the format
    read : content -> what the file holds, before the gate
    """

    name: str
    suffixes: tuple[str, ...]
    sniff: Callable[[bytes, str], bool]
    read: Callable[[Content], list[RecordedScan]]


FORMATS: tuple[Format, ...] = (
    Format("PANalytical XRDML", (".xrdml",), sniff_xrdml, read_xrdml),
    Format("Bruker RAW", (".raw",), sniff_bruker_raw, read_bruker_raw),
    Format("Stoe RAW", (".raw",), sniff_stoe, read_stoe),
    Format("Bruker BRML", (".brml",), sniff_brml, read_brml),
    Format("Rigaku RASX", (".rasx",), sniff_rasx, read_rasx),
    Format("NeXus", (".nxs", ".h5", ".hdf5", ".nx"), sniff_nexus, read_nexus),
    Format("Philips RD", (".rd", ".sd"), sniff_rd, read_rd),
    Format("Philips UDF", (".udf",), sniff_udf, read_udf),
    Format("Bruker UXD", (".uxd",), sniff_uxd, read_uxd),
    Format("Rigaku RAS", (".ras",), sniff_ras, read_ras),
    Format("Rigaku ASC", (".asc",), sniff_asc, read_asc),
    Format("Sietronics CPI", (".cpi",), sniff_cpi, read_cpi),
    Format("GSAS", (".gsa", ".gda", ".gsas", ".raw", ".fxye", ".xra"), sniff_gsas, read_gsas),
    Format("powder CIF", (".cif",), sniff_pdcif, read_pdcif),
    Format("XFIT XDD", (".xdd",), sniff_xdd, read_xdd),
    Format("text columns", (".xy", ".xye", ".dat", ".txt", ".csv", ".prn", ".asc"), sniff_text, read_text),
)
"""All formats, the most particular first; plain text, which any text is, last."""


def format_of(content: Content) -> Format:
    """Return the format of a file.

    Raises
    ------
    InputError
        If no sniffer recognises it.
    """
    head = content.data[:HEAD_BYTES]
    for candidate in FORMATS:
        if candidate.sniff(head, content.name):
            return candidate
    shown = head[:12]
    raise InputError(
        f"{content.place}: unknown format (the file begins with {shown!r}); expected one of"
        f" {', '.join(candidate.name for candidate in FORMATS)}: export the scan as .xy or .xrdml"
    )


def recorded_scans(content: Content) -> tuple[Format, list[RecordedScan]]:
    """Return the format and the scans of a file before the gate."""
    chosen = format_of(content)
    scans = chosen.read(content)
    if not scans:
        raise InputError(f"{content.place}: {chosen.name} without a scan; export the measurement again")
    return chosen, scans


def read(
    path: str | Path,
    *,
    scan: str | int | None = None,
    axis: Axis | None = None,
    wavelength: Wavelength | None = None,
) -> Diffractogram:
    """Read one diffractogram.

    Parameters
    ----------
    path : of the file; any format of the table, also as .gz
    scan : which one when the file holds several: its number from 1, or "sum"
    axis : what the positions are when the file does not say: "two_theta", "radian", "q" (1/angstrom) or "d" (angstrom)
    wavelength : to convert q or d when the file states none

    Raises
    ------
    InputError
        If the file cannot be read or used, or holds several scans and `scan` is not given; the message lists them.
    """
    return read_content(content_of_file(path), scan=scan, axis=axis, wavelength=wavelength)


def read_content(
    content: Content,
    *,
    scan: str | int | None = None,
    axis: Axis | None = None,
    wavelength: Wavelength | None = None,
) -> Diffractogram:
    """Read one diffractogram from bytes already taken in; see `read`."""
    chosen, scans = recorded_scans(content)
    if scan == "sum" and len(scans) > 1:
        parts = [
            _gated(content, chosen, item, number, axis, wavelength, MIN_PART_POINTS)
            for number, item in enumerate(scans, 1)
        ]
        return summed(parts, content.place)
    index = chosen_index(scans, scan, content.place)
    diffractogram = _gated(content, chosen, scans[index], index + 1, axis, wavelength)
    return chosen_note(diffractogram, len(scans))


def read_all(
    path: str | Path, *, axis: Axis | None = None, wavelength: Wavelength | None = None
) -> list[Diffractogram]:
    """Read every diffractogram of a file, for `--scan all`; see `read`."""
    content = content_of_file(path)
    chosen, scans = recorded_scans(content)
    return [_gated(content, chosen, item, number, axis, wavelength) for number, item in enumerate(scans, 1)]


def _gated(
    content: Content,
    chosen: Format,
    recorded: RecordedScan,
    number: int,
    axis: Axis | None,
    wavelength: Wavelength | None,
    least_points: int = MIN_POINTS,
) -> Diffractogram:
    source = Source(path=content.place, sha256=content.sha256, format=chosen.name, scan=number)
    return diffractogram_from_recorded(
        recorded, source=source, axis=axis, wavelength=wavelength, least_points=least_points
    )


__all__ = [
    "FORMATS",
    "Content",
    "Format",
    "content_of_bytes",
    "content_of_file",
    "format_of",
    "read",
    "read_all",
    "read_content",
    "recorded_scans",
]
