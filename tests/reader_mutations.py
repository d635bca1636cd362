"""Damage to files: what copying, editing and cutting do to real ones, seeded."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Iterator

import numpy as np

import reader_files as files
from reader_files import SHARED, counts
from xrdz.diffractogram import Diffractogram
from xrdz.errors import InputError
from xrdz.readers import content_of_bytes, read_content

PACKED: dict[str, Callable[[], bytes]] = {
    "scan.xy": lambda: files.xy(counts(400)),
    "scan.xye": lambda: files.xye(counts(400)),
    "highscore.csv": lambda: files.highscore_csv(counts(400)),
    "eva.xy": lambda: files.eva_xy(counts(400)),
    "fullprof.dat": lambda: files.start_step_stop(counts(400)),
    "scan.xdd": lambda: files.xdd(counts(400)),
    "scan.cpi": lambda: files.cpi(counts(400)),
    "scan.udf": lambda: files.udf(counts(400)),
    "scan.rd": lambda: files.rd(counts(400)),
    "scan.sd": lambda: files.rd(counts(400), version=b"V5RD"),
    "scan.uxd": lambda: files.uxd(counts(400)),
    "pairs.uxd": lambda: files.uxd(counts(400), pairs=True),
    "scan.ras": lambda: files.ras(counts(400)),
    "scan.rasx": lambda: files.rasx(counts(400)),
    "scan.asc": lambda: files.asc(counts(400)),
    "std.gsa": lambda: files.gsas_std(counts(400)),
    "esd.gda": lambda: files.gsas_esd(counts(400)),
    "alt.xra": lambda: files.gsas_alt(counts(400)),
    "scan.fxye": lambda: files.gsas_fxye(counts(400)),
    "v1.raw": lambda: files.raw1(counts(400), n_ranges=2),
    "v2.raw": lambda: files.raw2(counts(400)),
    "v3.raw": lambda: files.raw3(counts(400)),
    "varying.raw": lambda: files.raw3(counts(400), varying=True),
    "v4.raw": lambda: files.raw4(counts(400)),
    "stoe.raw": lambda: files.stoe(counts(400)),
    "scan.xrdml": lambda: files.xrdml(counts(400)),
    "scan.cif": lambda: files.pdcif(counts(400)),
    "scan.brml": lambda: files.brml(counts(400)),
    "scan.nxs": lambda: files.nexus(counts(400)),
    "scan.xy.gz": lambda: gzip.compress(files.xy(counts(400)), mtime=0),
}
"""One small file per layout, by name."""


def corpus(max_bytes: int = 200_000) -> dict[str, bytes]:
    """Return the packed files, and the real ones where they are installed."""
    found = {name: make() for name, make in PACKED.items()}
    for folder in ("formats", "cpd", "dara", "simulated"):
        for path in sorted((SHARED / folder).glob("*")) if (SHARED / folder).is_dir() else []:
            if path.suffix in (".toml", ".json", ".md") or path.stat().st_size > max_bytes:
                continue
            found[f"{folder}/{path.name}"] = path.read_bytes()
    return found


def mutated(data: bytes, generator: np.random.Generator) -> bytes:
    """Return the file with one to three pieces of damage."""
    for _ in range(int(generator.integers(1, 4))):
        data = MUTATIONS[int(generator.integers(len(MUTATIONS)))](data, generator)
        if not data:
            return b""
    return data


def _at(data: bytes, generator: np.random.Generator) -> int:
    """Return a position; half of them in the first kilobyte, where headers are."""
    end = min(len(data), 1024) if generator.random() < 0.5 else len(data)
    return int(generator.integers(max(end, 1)))


def _flip_bit(data: bytes, generator: np.random.Generator) -> bytes:
    changed = bytearray(data)
    changed[_at(data, generator)] ^= 1 << int(generator.integers(8))
    return bytes(changed)


def _random_byte(data: bytes, generator: np.random.Generator) -> bytes:
    changed = bytearray(data)
    changed[_at(data, generator)] = int(generator.integers(256))
    return bytes(changed)


def _delete(data: bytes, generator: np.random.Generator) -> bytes:
    at = _at(data, generator)
    return data[:at] + data[at + int(generator.integers(1, 9)) :]


def _insert(data: bytes, generator: np.random.Generator) -> bytes:
    at = _at(data, generator)
    return data[:at] + generator.bytes(int(generator.integers(1, 9))) + data[at:]


def _repeat(data: bytes, generator: np.random.Generator) -> bytes:
    at, length = _at(data, generator), int(generator.integers(1, 400))
    return data[: at + length] + data[at:]


def _truncate(data: bytes, generator: np.random.Generator) -> bytes:
    return data[: _at(data, generator)]


WORDS_32 = tuple(struct.pack("<I", word) for word in (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0x7F800000))
"""Zero, one, the largest whole numbers, and float32 NaN and infinity."""

TEXTS = ("nan", "inf", "-1", "1e308", "1e-308", "9" * 30, ",", ";", "#", "<", ">", "'", '"', "_", "0x1")
"""Words and marks that mean something to some parser."""


def _interesting_number(data: bytes, generator: np.random.Generator) -> bytes:
    at = _at(data, generator)
    return data[:at] + WORDS_32[int(generator.integers(len(WORDS_32)))] + data[at + 4 :]


def _word(data: bytes, generator: np.random.Generator) -> bytes:
    at = _at(data, generator)
    words = (*(text.encode() for text in TEXTS), b"\t", b"\n", b"\r", b"\x00")
    return data[:at] + words[int(generator.integers(len(words)))] + data[at:]


def _swap_lines(data: bytes, generator: np.random.Generator) -> bytes:
    lines = data.split(b"\n")
    first, second = (int(generator.integers(len(lines))) for _ in range(2))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def _drop_line(data: bytes, generator: np.random.Generator) -> bytes:
    lines = data.split(b"\n")
    del lines[int(generator.integers(len(lines)))]
    return b"\n".join(lines)


MUTATIONS = (
    _flip_bit,
    _random_byte,
    _delete,
    _insert,
    _repeat,
    _truncate,
    _interesting_number,
    _word,
    _swap_lines,
    _drop_line,
)


def outcome(name: str, data: bytes) -> list[Diffractogram] | InputError:
    """Return what reading makes of a file: its scans, or the one error that is allowed."""
    try:
        content = content_of_bytes(data, name)
        return [read_content(content, scan=None)]
    except InputError as error:
        return error


def check(scans: list[Diffractogram]) -> None:
    """Assert what must hold of anything that is returned, however damaged the file was."""
    for scan in scans:
        assert scan.n_points >= 40
        assert np.all(np.isfinite(scan.two_theta))
        assert np.all(np.diff(scan.two_theta) > 0)
        assert scan.two_theta[0] > 0
        assert scan.two_theta[-1] <= 180
        assert np.all(np.isfinite(scan.intensity))
        assert np.all(scan.intensity >= 0)
        assert scan.intensity.max() > 0
        gain = np.asarray(scan.gain)
        assert np.all(np.isfinite(gain))
        assert np.all(gain > 0)
        if scan.su is not None:
            assert np.all(np.isfinite(scan.su))
            assert np.all(scan.su > 0)


def layout_changes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield damage that changes which number is which: a row merged, a separator lost, a row or a block gone."""
    lines = data.split(b"\n")
    middle = len(lines) // 2
    yield "line end lost", b"\n".join([*lines[:middle], lines[middle] + b" " + lines[middle + 1], *lines[middle + 2 :]])
    yield "half a row lost", b"\n".join([*lines[:middle], lines[middle].split()[0], *lines[middle + 1 :]])
    yield "a letter in a number", b"\n".join([*lines[:middle], b"x" + lines[middle], *lines[middle + 1 :]])
    yield "cut in a row", data[: len(data) * 2 // 3]
