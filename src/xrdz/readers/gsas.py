"""GSAS powder data: `BANK` lines and records STD, ESD, ALT, FXYE or FXY; angles in centidegrees.

STD holds ten (number of counters, intensity) pairs of 2 + 6 columns a line, the intensity being the mean of that many
counters; ESD five (intensity, su) pairs of 8 + 8; ALT four (position, intensity, su) triples of 8 + 7 + 5 with
positions in 1/32 centidegree; FXYE one (position, intensity, su) a line.
Source: Larson & Von Dreele 2004, GSAS manual, LAUR 86-748, "Powder data files".
"""

from __future__ import annotations

import re

import numpy as np

from xrdz.diffractogram import FloatArray
from xrdz.errors import InputError
from xrdz.readers.binary import checked_grid
from xrdz.readers.content import Content, decoded_text, head_text
from xrdz.readers.header import header_facts, header_pairs
from xrdz.readers.recorded import RecordedScan

_BANK = re.compile(r"^BANK\s+\d+\s+\d+", re.MULTILINE)
TYPES = ("STD", "ESD", "ALT", "FXYE", "FXY")


def sniff_gsas(head: bytes, name: str) -> bool:
    """Return whether a `BANK` line stands near the beginning."""
    del name
    text = head_text(head).replace("\r\n", "\n").replace("\r", "\n")
    # Finding a word is much faster than trying the pattern at every line.
    return "BANK" in text and _BANK.search(text) is not None


def read_gsas(content: Content) -> list[RecordedScan]:
    """Read every bank of a GSAS file.

    Raises
    ------
    InputError
        If a bank is not a constant-wavelength scan or its records are damaged.
    """
    lines = decoded_text(content.data, content.place).split("\n")
    starts = [index for index, line in enumerate(lines) if line.startswith("BANK")]
    header = tuple(line for line in lines[: starts[0]] if line.strip()) if starts else ()
    scans: list[RecordedScan] = []
    for number, start in enumerate(starts):
        end = starts[number + 1] if number + 1 < len(starts) else len(lines)
        scans.append(_bank(lines[start:end], start, header, content.place))
    if not scans:
        raise InputError(f"{content.place}: no BANK line; expected GSAS powder data")
    return scans


def _bank(lines: list[str], first_line: int, header: tuple[str, ...], place: str) -> RecordedScan:
    where = f"{place} line {first_line + 1}"
    words = lines[0].split()
    if len(words) < 5:
        raise InputError(f"{where}: {lines[0][:60]!r}; expected BANK number points records binning ...")
    try:
        points = int(words[2])
        coefficients = [float(word) for word in words[5:9] if re.fullmatch(r"[-+]?[\d.]+(?:[eE][-+]?\d+)?", word)]
    except ValueError:
        raise InputError(f"{where}: {lines[0][:60]!r}; expected whole numbers of points and records") from None
    binning = words[4].upper()
    kind = next((word.upper() for word in words[5:] if word.upper() in TYPES), "STD")
    label = f"bank {words[1]}, {kind}, {points} points"
    body = [(index, line) for index, line in enumerate(lines[1:], first_line + 2) if line.strip() and line[0] != "#"]
    metadata, wavelength, findings = header_facts(header, header_pairs(header), place)
    if header and "sample_id" not in metadata:
        metadata["sample_id"] = " ".join(header[0].split())[:80]
    if not binning.startswith("CONS") and kind != "ALT":
        return RecordedScan(
            position=np.arange(2.0),
            intensity=np.zeros(2),
            not_powder=f"the binning is {binning}, time of flight or another axis",
            label=label,
        )
    position, intensity, su = _records(kind, body, place)
    if position is None:
        if len(coefficients) < 2:
            raise InputError(f"{where}: no start and step after {binning}; expected centidegrees")
        position = checked_grid(coefficients[0] / 100, coefficients[1] / 100, max(intensity.size, points), where)
        surplus = intensity[points:]
        if surplus.size and not surplus.any():
            # The last line of fixed columns is filled with zeros.
            intensity, su = intensity[:points], None if su is None else su[:points]
        position = position[: intensity.size]
    if intensity.size > points:
        raise InputError(f"{where}: {points} points announced, {intensity.size} found; the bank is damaged")
    return RecordedScan(
        position=position,
        intensity=intensity,
        su=su,
        wavelength=wavelength,
        announced_points=points,
        step_time_s=metadata.get("step_time_s"),
        label=label,
        metadata=metadata,
        findings=findings,
    )


def _records(
    kind: str, body: list[tuple[int, str]], place: str
) -> tuple[FloatArray | None, FloatArray, FloatArray | None]:
    """Return positions in degrees (None where the step gives them), intensities, and uncertainties."""
    if kind in ("FXYE", "FXY"):
        width = 3 if kind == "FXYE" else 2
        rows = []
        for number, line in body:
            tokens = line.split()
            if len(tokens) != width:
                if number == body[-1][0]:
                    break  # a cut last row: the announced number of points reports it
                raise InputError(f"{place} line {number}: {len(tokens)} numbers; expected {width} of {kind}")
            rows.append([_number(token, place, number) for token in tokens])
        table = np.array(rows, dtype=np.float64).reshape(-1, width)
        return table[:, 0] / 100, table[:, 1].copy(), table[:, 2].copy() if width == 3 else None
    if kind == "ALT":
        triples = np.array(_fixed(body, (8, 7, 5), 4, place), dtype=np.float64).reshape(-1, 3)
        return triples[:, 0] / 3200, triples[:, 1].copy(), triples[:, 2].copy()
    if kind == "ESD":
        pairs = np.array(_fixed(body, (8, 8), 5, place), dtype=np.float64).reshape(-1, 2)
        return None, pairs[:, 0].copy(), pairs[:, 1].copy()
    pairs = np.array(_fixed(body, (2, 6), 10, place), dtype=np.float64).reshape(-1, 2)
    counters, intensity = np.maximum(pairs[:, 0], 1.0), pairs[:, 1].copy()
    if bool(np.all(counters == 1.0)):
        return None, intensity, None
    return None, intensity, np.sqrt(np.maximum(intensity, 1.0) / counters)


def _fixed(body: list[tuple[int, str]], widths: tuple[int, ...], repeats: int, place: str) -> list[float]:
    """Return the numbers of lines of fixed columns; an empty field of the number of counters is 0."""
    numbers: list[float] = []
    unit = sum(widths)
    for line_number, line in body:
        padded = line.rstrip()
        if len(padded) > unit * repeats:
            raise InputError(
                f"{place} line {line_number}: {len(padded)} columns; expected at most {unit * repeats}: it is damaged"
            )
        for start in range(0, len(padded), unit):
            cell = padded[start : start + unit]
            offset = 0
            for index, width in enumerate(widths):
                text = cell[offset : offset + width].strip()
                offset += width
                if not text and index == 0 and widths[0] == 2:
                    numbers.append(0.0)
                else:
                    numbers.append(_number(text, place, line_number))
    return numbers


def _number(text: str, place: str, line: int) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{place} line {line}: {text[:40]!r} is not a number; the record is damaged") from None
