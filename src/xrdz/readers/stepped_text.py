"""Texts that list intensities after a range: Sietronics CPI, XFIT and Koalariet XDD (FullProf `.dat` is `text.py`'s).

CPI is nine fixed lines (start, end, step, anode, wavelength, date, speed, comment) and `SCANDATA`; XDD is an optional
comment between `/*` and `*/`, then `start step end` and the intensities; FullProf (INSTRM = 0) and DBWS the same
without the comment. Without such a line they are columns, which `text.py` reads.
"""

from __future__ import annotations

import re

import numpy as np

from xrdz.errors import InputError
from xrdz.readers.binary import checked_grid
from xrdz.readers.content import Content, decoded_text, head_text
from xrdz.readers.recorded import RecordedScan
from xrdz.readers.text import read_text_lines
from xrdz.readers.vocabulary import anode_symbol, number_in, positive_in, wavelength_of


def sniff_cpi(head: bytes, name: str) -> bool:
    """Return whether the file begins with the words of Sietronics."""
    del name
    return head_text(head[:64]).lstrip().upper().startswith("SIETRONICS XRD SCAN")


def read_cpi(content: Content) -> list[RecordedScan]:
    """Read a Sietronics CPI file.

    Raises
    ------
    InputError
        If the fixed header is damaged or an intensity is not a number.
    """
    place = content.place
    lines = [line.strip() for line in decoded_text(content.data, place).split("\n")]
    marker = next((index for index, line in enumerate(lines[:60]) if line.upper() == "SCANDATA"), None)
    if marker is None or marker < 4:
        raise InputError(f"{place}: no SCANDATA line; the file is cut before its intensities, copy it again")
    start, end, step = (number_in(line) for line in lines[1:4])
    if start is None or end is None or step is None or step <= 0 or end <= start:
        raise InputError(f"{place} line 2: start {start}, end {end}, step {step}; expected degrees in lines 2 to 4")
    numbers: list[float] = []
    for number, line in enumerate(lines[marker + 1 :], marker + 2):
        if line:
            try:
                numbers.append(float(line.split(",")[0]))
            except ValueError:
                raise InputError(
                    f"{place} line {number}: {line[:30]!r} is not an intensity; export the scan again"
                ) from None
    header = lines[4:marker]
    anode = anode_symbol(header[0]) if header else None
    wavelength, findings = wavelength_of(
        anode=anode, principal=positive_in(header[1]) if len(header) > 1 else None, place=place
    )
    facts = {
        "anode": anode,
        "start_time": header[2] if len(header) > 2 else "",
        "sample_id": header[4] if len(header) > 4 else "",
    }
    return [
        RecordedScan(
            position=checked_grid(start, step, len(numbers), place) if numbers else np.zeros(0),
            intensity=np.array(numbers, dtype=np.float64),
            wavelength=wavelength,
            announced_points=round((end - start) / step) + 1,
            label=f"{start:g} to {end:g} deg, {len(numbers)} points",
            metadata={key: value for key, value in facts.items() if value},
            findings=findings,
        )
    ]


def sniff_xdd(head: bytes, name: str) -> bool:
    """Return whether the file is text that begins with a comment between `/*` and `*/`, or is named .xdd."""
    return 0 not in head[:512] and (name.endswith(".xdd") or head_text(head[:64]).lstrip().startswith("/*"))


def read_xdd(content: Content) -> list[RecordedScan]:
    """Read an XDD file: with its comment removed it is a range and intensities, or columns.

    Raises
    ------
    InputError
        If the comment does not end or what follows is neither layout.
    """
    text = decoded_text(content.data, content.place)
    comments = re.findall(r"/\*(.*?)\*/", text, re.DOTALL)
    # Line numbers in messages stay those of the file: a comment is replaced by its line ends.
    bare = re.sub(r"/\*.*?\*/", lambda match: "\n" * match.group().count("\n"), text, flags=re.DOTALL)
    if "/*" in bare:
        raise InputError(f"{content.place}: the comment after /* does not end; close it with */")
    header = tuple(line.strip() for comment in comments for line in comment.split("\n") if line.strip())
    return read_text_lines(bare, content.place, header)
