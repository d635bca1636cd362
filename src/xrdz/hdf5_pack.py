"""HDF5 files as packs of scans: a scan in each NXentry, as another program or a run's archive wrote them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import h5py

from xrdz.archive import SCHEMA, Row, StoredScan, diffractogram_from_archive, opened
from xrdz.diffractogram import Diffractogram, Source
from xrdz.errors import InputError

if TYPE_CHECKING:
    from xrdz.inputs import ScanInput


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
