"""Finding what a run analyses: files, globs, folders, manifests, and packs that hold many scans in one file.

The invariant: every `ScanInput` becomes exactly one row of the results. Its `name` is its identity in a run: the path
relative to the run's root with `/` between the parts, a pack counting as a folder, so that equal file names in
different folders stay apart and a run can move together with its data. Names are data: nothing is ever written under
a name found here, and what cannot be listed or read is an input too, with the reason in its place.
"""

from __future__ import annotations

import bz2
import csv
import glob
import gzip
import hashlib
import io
import json
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, cast

from xrdz.errors import InputError
from xrdz.files import is_run_folder
from xrdz.readers import FORMATS
from xrdz.readers.content import FREE_EXPANSION_BYTES, MAX_EXPANSION, MAX_FILE_BYTES

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
PACK_SUFFIXES = (".zip", *TAR_SUFFIXES)
HDF5_SUFFIXES = (".h5", ".hdf5", ".nxs", ".nx")
SCAN_SUFFIXES = tuple(sorted({suffix for scan_format in FORMATS for suffix in scan_format.suffixes}))

QUARANTINE_NAME = "xrdz-quarantine.csv"
"""List of unusable scans that `xrdz watch` keeps beside them; never a scan itself."""

SHADOW = "._"
"""How macOS begins the names of files that hold the attributes of another on foreign file systems."""

OPEN_PACKS = 4
"""Packs a worker keeps open."""


class UnreadableError(InputError):
    """The bytes of an input could not be had; another attempt may succeed."""


@dataclass(frozen=True, slots=True)
class ScanInput:
    """One scan to analyse, and one row of the results.

    Parameters
    ----------
    name : identity in the run
    place : how the user named it, for messages and as `source.path` of the analysis
    path : absolute path of the file, or of the pack
    member : its name inside a pack, "" for a plain file
    offset, size : where a member's bytes stand: the local header in a zip, the data in a tar
    problem : why it cannot be read, known since it was listed
    """

    name: str
    place: str
    path: str
    member: str = ""
    offset: int = -1
    size: int = -1
    problem: str = ""


@dataclass(frozen=True)
class Listing:
    """All inputs of a command, ordered by name, and what was passed over in folders."""

    root: str
    inputs: tuple[ScanInput, ...]
    ignored: Counter[str] = field(default_factory=Counter)

    def note(self) -> str:
        """Return what was passed over in one line, "" if nothing was."""
        shown = ", ".join(f"{count} {what}" for what, count in sorted(self.ignored.items()))
        return f"not taken from the folders: {shown}" if shown else ""


@dataclass(frozen=True)
class Raw:
    """The bytes of an input with what tells whether it changed."""

    data: bytes
    size: int
    mtime_ns: int


# --- listing ----------------------------------------------------------------------------------------------------------


def list_inputs(arguments: Sequence[str | Path], *, root: str | None = None, leave_out: Iterable[str] = ()) -> Listing:
    """Return the inputs that arguments of the command line name.

    Parameters
    ----------
    arguments : files, globs, folders (searched to the bottom for known suffixes), and `@FILE`: one path a line relative
        to that file's folder, or NUL-separated, a JSON manifest of `xrdz validate`, or a CSV with a column `file`
    root : folder names are relative to; None for the deepest folder that holds all arguments
    leave_out : absolute paths of files and folders that folders are searched without, such as the run's own

    Raises
    ------
    InputError
        If a pattern matches nothing, a manifest cannot be read, or nothing that was named exists.
    """
    named = [place for argument in arguments for place in _named(str(argument))]
    if named and not any(os.path.lexists(place) for place in named):
        more = f" and {len(named) - 1} more" if len(named) > 1 else ""
        raise InputError(f"{named[0]}: no such file or folder{more}; check the path")
    chosen_root = root if root is not None else common_root(named)
    ignored: Counter[str] = Counter()
    skipped = frozenset(os.path.abspath(path) for path in leave_out)
    found: dict[str, ScanInput] = {}
    for place in named:
        files = walked(place, skipped, ignored) if os.path.isdir(place) else [(place, "")]
        for file, problem in files:
            for scan in scans_at(file, problem, chosen_root):
                found.setdefault(scan.name, scan)
    return Listing(chosen_root, tuple(found[name] for name in sorted(found)), ignored)


def common_root(places: Sequence[str]) -> str:
    """Return the deepest folder that holds every place; "" where there is none, as on two drives."""
    folders = {os.path.abspath(place if os.path.isdir(place) else os.path.dirname(place) or ".") for place in places}
    try:
        return os.path.commonpath(folders)
    except ValueError:
        return ""


def input_name(path: str, root: str) -> str:
    """Return the identity of an absolute path: relative to the root, `/` between its parts."""
    try:
        relative = os.path.relpath(path, root) if root else path
    except ValueError:  # another drive
        relative = path
    return relative.replace(os.sep, "/") if os.sep != "/" else relative


def is_scan_name(name: str) -> bool:
    """Return whether a file found in a folder or pack is taken for a scan."""
    lower = name.rpartition("/")[2].lower()
    if lower.startswith(SHADOW) or lower == QUARANTINE_NAME:
        return False
    return lower.removesuffix(".gz").endswith(SCAN_SUFFIXES)


def is_pack_name(name: str) -> bool:
    """Return whether a file is a pack of scans by its suffix."""
    return name.lower().endswith(PACK_SUFFIXES)


def scans_at(place: str, problem: str = "", root: str = "") -> Iterator[ScanInput]:
    """Yield the scan that is a file, or the scans that are packed in it."""
    path = os.path.abspath(place)
    path = place if path == place else path  # one text in memory, where millions are listed
    name = input_name(path, root)
    if problem:
        yield ScanInput(name, place, path, problem=problem)
    elif is_pack_name(place) and os.path.isfile(path):
        yield from _packed(name, place, path)
    elif place.lower().endswith(HDF5_SUFFIXES) and os.path.isfile(path):
        yield from _entries(name, place, path)
    else:
        yield ScanInput(name, place, path)


def _named(argument: str) -> Iterator[str]:
    """Yield the files and folders that one argument names."""
    if argument.startswith("@") and not os.path.lexists(argument):
        yield from _of_manifest(argument[1:])
    elif argument.lower().endswith(".json") and os.path.isfile(argument):
        yield from _of_manifest(argument)
    elif glob.has_magic(argument) and not os.path.lexists(argument):
        matches = sorted(glob.glob(argument, recursive=True))
        if not matches:
            raise InputError(f"{argument}: the pattern matches no file; check it, and quote it as the shell needs")
        yield from matches
    else:
        yield argument


def _of_manifest(path: str) -> Iterator[str]:
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: the manifest cannot be read ({error.strerror}); expected one path a line") from None
    text = os.fsdecode(raw.removeprefix(b"\xef\xbb\xbf"))
    entries = _manifest_entries(text, path)
    if not entries:
        raise InputError(f"{path}: the manifest names no scan; expected one path a line")
    folder = os.path.dirname(path)
    for entry in entries:
        yield entry if os.path.isabs(entry) else os.path.join(folder, entry)


def _manifest_entries(text: str, path: str) -> list[str]:
    if "\0" in text:
        return [entry for entry in text.split("\0") if entry]
    if text.lstrip().startswith(("{", "[")):
        try:
            document = json.loads(text)
            samples = document["samples"] if isinstance(document, dict) else document
            return [str(sample["scan"] if isinstance(sample, dict) else sample) for sample in samples]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f'{path}: not a manifest ({error!r}); expected a list of paths or {{"samples": [{{"scan": "a.xy"}}]}}'
            ) from None
    if path.lower().endswith(".csv"):
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        if not rows or "file" not in rows[0]:
            raise InputError(f"{path}: a manifest in CSV needs a column 'file' and a row for every scan")
        return [row["file"] for row in rows if row["file"]]
    lines = (line.rstrip("\r") for line in text.split("\n"))
    return [line for line in lines if line.strip() and not line.startswith("#")]


def walked(folder: str, skipped: frozenset[str], ignored: Counter[str]) -> Iterator[tuple[str, str]]:
    """Yield (place, problem) of every scan below a folder in the order of names; links to folders are not followed.

    The folder of a run that is searched gives the scans of its archive, one found on the way nothing.
    """
    pending = [(os.path.join(folder, "parts") if is_run_folder(folder) else folder, True)]
    while pending:
        place, is_folder = pending.pop()
        if not is_folder:
            yield place, ""
            continue
        try:
            with os.scandir(place) as entries:
                inside = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            yield place, f"{place}: the folder cannot be listed ({error.strerror}); check the permissions"
            continue
        for entry in inside:
            if not (skipped and os.path.abspath(entry.path) in skipped) and _is_wanted(entry, ignored):
                pending.append((entry.path, entry.is_dir(follow_symlinks=False)))


def _is_wanted(entry: os.DirEntry[str], ignored: Counter[str]) -> bool:
    """Return whether a folder is searched, or a file taken; what is not is counted by its kind."""
    if entry.is_dir(follow_symlinks=False):
        if entry.name.startswith("."):
            ignored["hidden folders"] += 1
            return False
        if is_run_folder(entry.path):
            ignored["folders of runs"] += 1
            return False
        return True
    if entry.is_symlink() and entry.is_dir():
        ignored["links to folders"] += 1
        return False
    if is_scan_name(entry.name) or is_pack_name(entry.name):
        return True
    if entry.name.lower() != QUARANTINE_NAME:
        ignored[os.path.splitext(entry.name)[1].lower() or "without suffix"] += 1
    return False


# --- packs ------------------------------------------------------------------------------------------------------------


def _packed(name: str, place: str, path: str) -> Iterator[ScanInput]:
    """Yield the scans of a zip or tar; a pack that cannot be read is one input with its problem."""
    try:
        members = list(_zip_members(path) if place.lower().endswith(".zip") else _tar_members(path))
    except (OSError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        yield ScanInput(name, place, path, problem=f"{place}: the pack cannot be read ({why}); make it again")
        return
    if not members:
        yield ScanInput(
            name, place, path, problem=f"{place}: the pack holds no scan; expected files such as .xy, .xrdml"
        )
    seen: Counter[str] = Counter()
    for member, offset, size in members:
        seen[member] += 1
        # A pack may hold one name twice; both are scans.
        unique = member if seen[member] == 1 else f"{member}#{seen[member]}"
        yield ScanInput(f"{name}/{unique}", f"{place}/{unique}", path, unique, offset, size)


def _zip_members(path: str) -> Iterator[tuple[str, int, int]]:
    with zipfile.ZipFile(path) as pack:
        for item in pack.infolist():
            if not item.is_dir() and is_scan_name(item.filename) and not item.filename.startswith("__MACOSX/"):
                yield item.filename, item.header_offset, item.file_size


def _tar_members(path: str) -> Iterator[tuple[str, int, int]]:
    largest = FREE_EXPANSION_BYTES + MAX_EXPANSION * os.path.getsize(path)
    with _tar_stream(path) as stream, tarfile.open(fileobj=stream, mode="r:") as pack:
        for item in pack:
            if item.offset_data + item.size > largest:
                raise ValueError(f"it expands beyond {largest} bytes")
            if item.isfile() and not item.issparse() and is_scan_name(item.name):
                yield item.name, item.offset_data, item.size


def _tar_stream(path: str) -> IO[bytes]:
    """Return the uncompressed tar as a file in which one can seek; going back in a compressed one starts it again."""
    lower = path.lower()
    if lower.endswith((".gz", ".tgz")):
        return cast(IO[bytes], gzip.open(path))
    if lower.endswith((".bz2", ".tbz2")):
        return bz2.open(path)
    if lower.endswith((".xz", ".txz")):
        return lzma.open(path)
    return open(path, "rb")


def _entries(name: str, place: str, path: str) -> Iterator[ScanInput]:
    """Yield the scans of an HDF5 file: itself when it holds one, else each entry."""
    from xrdz.hdf5_pack import entry_names

    entries = entry_names(path)
    if len(entries) < 2:
        yield ScanInput(name, place, path)
        return
    for number, entry in enumerate(entries):
        yield ScanInput(f"{name}/{entry}", f"{place}/{entry}", path, entry, offset=number)


# --- reading ----------------------------------------------------------------------------------------------------------


def is_entry(scan: ScanInput) -> bool:
    """Return whether an input is an entry of an HDF5 file rather than bytes."""
    return bool(scan.member) and not is_pack_name(scan.path)


def read_raw(scan: ScanInput) -> Raw:
    """Return the bytes of an input.

    Raises
    ------
    UnreadableError
        If they cannot be had.
    InputError
        If it is no regular file, or larger than any scan.
    """
    if scan.problem:
        raise UnreadableError(scan.problem)
    try:
        status = os.stat(scan.path)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{scan.place}: not a regular file; give the path of one scan file")
        size = scan.size if scan.member else status.st_size
        if size > MAX_FILE_BYTES:
            raise InputError(
                f"{scan.place}: {size} bytes, but a scan file has at most {MAX_FILE_BYTES}; export the scan alone"
            )
        data = _member(scan, status) if scan.member else Path(scan.path).read_bytes()
    except FileNotFoundError:
        raise UnreadableError(f"{scan.place}: no such file; check the path") from None
    except OSError as error:
        raise UnreadableError(
            f"{scan.place}: cannot be read ({error.strerror or error}); check the permissions"
        ) from None
    except ValueError:
        raise UnreadableError(f"{scan.place!r}: not the name of a file; check the path") from None
    return Raw(data, size, status.st_mtime_ns)


def _member(scan: ScanInput, status: os.stat_result) -> bytes:
    """Return the bytes of a member of a zip or tar, which are checked against the size that was listed."""
    pack = _open_pack(scan.path, status.st_size, status.st_mtime_ns)
    try:
        if isinstance(pack, ZipPack):
            data = pack.read(scan)
        else:
            pack.seek(scan.offset)
            data = pack.read(scan.size)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{scan.place}: the member is damaged or encrypted ({error}); pack it again") from None
    if len(data) != scan.size:
        raise InputError(f"{scan.place}: {len(data)} bytes where the pack announces {scan.size}; pack it again")
    return data


class ZipPack:
    """An open zip with its members by the offset of their headers, which tells two of one name apart."""

    def __init__(self, path: str) -> None:
        self.pack = zipfile.ZipFile(path)
        self.members = {item.header_offset: item for item in self.pack.infolist()}

    def read(self, scan: ScanInput) -> bytes:
        """Return the bytes of a member, no more than were announced."""
        item = self.members.get(scan.offset)
        if item is None:
            raise InputError(f"{scan.place}: the pack changed while it was read; start again")
        if scan.size > max(FREE_EXPANSION_BYTES, MAX_EXPANSION * item.compress_size):
            raise InputError(
                f"{scan.place}: expands from {item.compress_size} to {scan.size} bytes, which no scan does"
            )
        with self.pack.open(item) as stream:
            return stream.read(scan.size + 1)


@lru_cache(maxsize=OPEN_PACKS)
def _open_pack(path: str, size: int, mtime_ns: int) -> ZipPack | IO[bytes]:
    """Return an open pack; size and time of change are part of the key, so a pack that changed is opened again."""
    del size, mtime_ns
    return ZipPack(path) if path.lower().endswith(".zip") else _tar_stream(path)


def fingerprint(scan: ScanInput) -> str:
    """Return the SHA-256 by which a change of an input is noticed: of its bytes, or of an entry's numbers.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    if is_entry(scan):
        from xrdz.hdf5_pack import entry_fingerprint

        return entry_fingerprint(scan)
    return hashlib.sha256(read_raw(scan).data).hexdigest()


def stat_of(scan: ScanInput) -> tuple[int, int]:
    """Return size and time of change (ns) of the file of an input; -1 where it is gone."""
    try:
        status = os.stat(scan.path)
    except (OSError, ValueError):
        return -1, -1
    return status.st_size, status.st_mtime_ns
