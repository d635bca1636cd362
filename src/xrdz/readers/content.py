"""The bytes of one file, taken in safely: size caps, gzip, encodings, XML without entities, archives without paths.

Every reader takes a `Content` and nothing else, so no reader opens a second file, and nothing is written or fetched.
"""

from __future__ import annotations

import hashlib
import io
import stat
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from xrdz.errors import InputError

MAX_FILE_BYTES = 64 * 1024 * 1024
"""Largest file, and largest decompressed content, that is taken in: a powder scan of a million points is 20 MB."""

MAX_EXPANSION = 300
"""Largest ratio of decompressed to compressed size above the first megabyte; real scans reach 20."""

FREE_EXPANSION_BYTES = 1024 * 1024
MAX_ARCHIVE_MEMBERS = 2000


@dataclass(frozen=True)
class Content:
    """What one file holds.

    Parameters
    ----------
    place : the path as the user gave it, for messages
    name : lower-case file name without `.gz`
    data : the bytes, decompressed
    sha256 : of the raw bytes of the file, before decompression
    """

    place: str
    name: str
    data: bytes
    sha256: str

    @property
    def suffix(self) -> str:
        """Lower-case suffix with its dot, or ""."""
        return Path(self.name).suffix


def content_of_file(path: str | Path) -> Content:
    """Read a file whole, decompressing `.gz`.

    Raises
    ------
    InputError
        If the path is not a regular file, is empty, is larger than `MAX_FILE_BYTES`, or does not decompress.
    """
    path = Path(path)
    place = str(path)
    if "\x00" in place:
        raise InputError("path: it holds a NUL character; give the name of a file")
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError(f"{place}: no such file; check the path") from None
    except OSError as error:
        raise InputError(f"{place}: cannot be opened ({error.strerror}); check the path and the permissions") from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{place}: not a regular file; give the path of one scan file")
    if status.st_size > MAX_FILE_BYTES:
        raise InputError(
            f"{place}: {status.st_size} bytes, but a scan file has at most {MAX_FILE_BYTES}; export the scan alone"
        )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{place}: cannot be read ({error.strerror}); check the permissions") from None
    return content_of_bytes(raw, place)


def content_of_bytes(raw: bytes, place: str) -> Content:
    """Return the content of raw bytes as if they stood in the file `place`; gzip is decompressed.

    Raises
    ------
    InputError
        If there is nothing, or a gzip stream is cut, damaged or expands beyond the caps.
    """
    if not raw:
        raise InputError(f"{place}: the file is empty; export the scan again")
    name = Path(place).name.lower()
    data = raw
    if raw[:2] == b"\x1f\x8b":
        data = _gunzipped(raw, place)
        name = name.removesuffix(".gz")
        if not data:
            raise InputError(f"{place}: the compressed file holds nothing; export the scan again")
    return Content(place, name, data, hashlib.sha256(raw).hexdigest())


def _expansion_limit(compressed: int) -> int:
    return min(MAX_FILE_BYTES, max(FREE_EXPANSION_BYTES, MAX_EXPANSION * compressed))


def _gunzipped(raw: bytes, place: str) -> bytes:
    limit = _expansion_limit(len(raw))
    parts: list[bytes] = []
    total = 0
    rest = raw
    while rest[:2] == b"\x1f\x8b":
        stream = zlib.decompressobj(wbits=31)
        try:
            part = stream.decompress(rest, limit + 1 - total)
        except zlib.error as error:
            raise InputError(f"{place}: the gzip stream is damaged ({error}); compress the file again") from None
        total += len(part)
        parts.append(part)
        if total > limit:
            raise InputError(
                f"{place}: expands from {len(raw)} to more than {limit} bytes, as no scan does; decompress it yourself"
            )
        if not stream.eof:
            raise InputError(f"{place}: the gzip stream is cut after {total} bytes of content; copy the file again")
        rest = stream.unused_data
    return b"".join(parts)


def decoded_text(data: bytes, place: str) -> str:
    """Return text in UTF-8 or UTF-16 (with or without byte order mark) or Latin-1, with `\\n` line ends.

    Raises
    ------
    InputError
        If the bytes are binary rather than text.
    """
    text = _unmarked_text(data, place)
    if "\x00" in text:
        line = text.count("\n", 0, text.index("\x00")) + 1
        raise InputError(f"{place} line {line}: a NUL byte in what should be text; the file is binary or damaged")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def _unmarked_text(data: bytes, place: str) -> str:
    encoding = ""
    if data.startswith(b"\xef\xbb\xbf"):
        data, encoding = data[3:], "utf-8"
    elif data.startswith(b"\xff\xfe"):
        data, encoding = data[2:], "utf-16-le"
    elif data.startswith(b"\xfe\xff"):
        data, encoding = data[2:], "utf-16-be"
    else:
        head = data[:400]
        # ASCII text in UTF-16 has a NUL in every second byte.
        if len(head) >= 4 and head[1::2].count(0) > 0.9 * len(head[1::2]) and 0 not in head[0::2]:
            encoding = "utf-16-le"
        elif len(head) >= 4 and head[0::2].count(0) > 0.9 * len(head[0::2]) and 0 not in head[1::2]:
            encoding = "utf-16-be"
    if encoding.startswith("utf-16"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{place} byte {error.start}: not valid {encoding.upper()} text; save the file as UTF-8"
            ) from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        # Latin-1 maps every byte, so this cannot fail; instrument programs of the 1990s write it.
        return data.decode("latin-1")


def head_text(head: bytes) -> str:
    """Return the first bytes of a file as text for a sniffer, lossy and never failing."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return head[: len(head) // 2 * 2].decode("utf-16", errors="replace")
    return head.removeprefix(b"\xef\xbb\xbf").replace(b"\x00", b"").decode("latin-1")


def parsed_xml(data: bytes, place: str) -> ElementTree.Element:
    """Return the root element of XML that has no document type and no entity, so nothing expands or is fetched.

    Raises
    ------
    InputError
        If the bytes are not well-formed XML or declare a document type or an entity.
    """
    text = _unmarked_text(data, place)
    prolog = text[:200].lstrip()
    if prolog.startswith("<?xml") and 'encoding="' in prolog.split("?>")[0].lower():
        declared = prolog.lower().split('encoding="')[1].split('"')[0]
        if declared not in ("utf-8", "utf8", "utf-16", "us-ascii", "ascii", "iso-8859-1", "windows-1252"):
            raise InputError(
                f"{place}: XML encoding {declared!r}; expected UTF-8, UTF-16 or ISO-8859-1: save it as UTF-8"
            )
    for forbidden in ("<!DOCTYPE", "<!ENTITY"):
        if forbidden in text:
            raise InputError(
                f"{place}: the XML holds {forbidden}, which measurement files never need; export the scan again"
            )
    try:
        return ElementTree.fromstring(text.lstrip())
    except ElementTree.ParseError as error:
        line, column = error.position
        raise InputError(
            f"{place} line {line} column {column}: the XML is cut or damaged ({error}); copy or export the file again"
        ) from None


def archive_members(data: bytes, place: str, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """Return the members of a zip archive whose lower-case names end with one of `wanted`, by name.

    Nothing is written to disk; sizes are checked both as the archive states them and as they come out.

    Raises
    ------
    InputError
        If the archive is cut, encrypted or damaged, or a member is too large or has a name outside the archive.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
        raise InputError(f"{place}: the archive is cut or damaged ({error}); copy the file again") from None
    entries = archive.infolist()
    if len(entries) > MAX_ARCHIVE_MEMBERS:
        raise InputError(f"{place}: {len(entries)} members; a scan archive has at most {MAX_ARCHIVE_MEMBERS}")
    for entry in entries:
        name = entry.filename
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or ":" in name:
            raise InputError(f"{place}: member {name!r} points outside the archive; the file is not trusted")
    limit = _expansion_limit(len(data))
    members: dict[str, bytes] = {}
    total = 0
    for entry in entries:
        if not entry.filename.lower().endswith(wanted):
            continue
        if entry.flag_bits & 0x1:
            raise InputError(f"{place}: member {entry.filename!r} is encrypted; export the scan without a password")
        if total + entry.file_size > limit:
            raise InputError(f"{place}: member {entry.filename!r} expands beyond {limit} bytes, which no scan does")
        try:
            with archive.open(entry) as stream:
                member = stream.read(limit - total + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError) as error:
            raise InputError(f"{place}: member {entry.filename!r} is damaged ({error}); copy the file again") from None
        total += len(member)
        if total > limit:
            raise InputError(f"{place}: member {entry.filename!r} expands beyond {limit} bytes, which no scan does")
        members[entry.filename] = member
    return members
