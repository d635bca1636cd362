"""Fields of little-endian binary files, with an error that names the place instead of a traceback."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from xrdz.diffractogram import FloatArray
from xrdz.errors import InputError

MAX_POINTS = 10_000_000
"""More points than any scan has: a larger number is a damaged header."""


def fields(data: bytes, layout: str, offset: int, place: str, what: str) -> tuple[Any, ...]:
    """Return the values at an offset.

    Parameters
    ----------
    layout : as `struct` takes it, without the byte order, which is little-endian
    what : for the message, such as "the range header"

    Raises
    ------
    InputError
        If the file ends before.
    """
    layout = "<" + layout
    needed = struct.calcsize(layout)
    if offset < 0 or offset + needed > len(data):
        raise InputError(
            f"{place} byte {offset}: the file ends inside {what} (it has {len(data)} bytes, {offset + needed} are"
            " needed); copy the file again"
        )
    return struct.unpack_from(layout, data, offset)


def field(data: bytes, layout: str, offset: int, place: str, what: str) -> Any:
    """Return one value at an offset; see `fields`."""
    return fields(data, layout, offset, place, what)[0]


def text_field(data: bytes, offset: int, length: int) -> str:
    """Return a NUL-padded text field in Latin-1, stripped; what lies beyond the end of the file is empty."""
    return data[offset : offset + length].split(b"\x00")[0].decode("latin-1").strip()


def records(data: bytes, offset: int, count: int, stride: int, kind: str, place: str) -> FloatArray:
    """Return the first number of each of `count` records of `stride` bytes as float64.

    Raises
    ------
    InputError
        If the header's count is impossible or the file ends before the last record; the message names both numbers.
    """
    size = np.dtype(kind).itemsize
    if not (0 < count <= MAX_POINTS):
        raise InputError(f"{place}: the header announces {count} points; expected 1 to {MAX_POINTS}: it is damaged")
    if stride < size or stride > 4096:
        raise InputError(f"{place}: the header states {stride} bytes a point; expected {size} or more: it is damaged")
    available = max(0, (len(data) - offset) // stride)
    if available < count:
        raise InputError(
            f"{place}: the header announces {count} points, the file holds {available}; copy or export the scan again"
        )
    table = np.frombuffer(data, dtype=np.uint8, count=count * stride, offset=offset).reshape(count, stride)
    first = np.ascontiguousarray(table[:, :size]).view(np.dtype(kind).newbyteorder("<"))
    with np.errstate(invalid="ignore"):  # a signalling NaN in a damaged file is a NaN like any other
        values: FloatArray = first.reshape(-1).astype(np.float64)
    return values


def decimal_of(value: float) -> float:
    """Return a float32 as the decimal number that was stored in it: 0.02 rather than 0.0199999996."""
    return float(str(np.float32(value)))


def checked_grid(start: float, step: float, count: int, place: str) -> FloatArray:
    """Return `start + step i`, degrees.

    Raises
    ------
    InputError
        If start or step are no angles: not finite, no step, or beyond a full turn.
    """
    span = step * (count - 1) if np.isfinite(step) else np.inf
    if not np.isfinite(start) or step == 0 or not (abs(start) <= 360 and abs(span) <= 360):
        raise InputError(
            f"{place}: the header gives start {start:g} and step {step:g} deg for {count} points; it is damaged"
        )
    grid: FloatArray = start + step * np.arange(count, dtype=np.float64)
    return grid
