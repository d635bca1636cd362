"""Stoe WinXPOW binary, "RAW_1.06Powdat": blocks of 512 bytes; one range header in front of its intensities.

No description is published. Used here, all little-endian, and consistent on real files: K-alpha1 and K-alpha2 at 0x142
(float32, angstrom), blocks of intensities and blocks in all at 0x1DA (uint16); before the intensities at D: number of
points at D-0x1DE (uint16), start, step and end of 2theta and theta from D-0x1D4 (float32), smallest and largest
intensity at D-0x188 (uint32), which are checked.
"""

from __future__ import annotations

import numpy as np

from xrdz.errors import InputError
from xrdz.findings import Code, warning
from xrdz.readers.binary import checked_grid, decimal_of, field, fields, records, text_field
from xrdz.readers.content import Content
from xrdz.readers.recorded import RecordedScan
from xrdz.readers.vocabulary import wavelength_of

BLOCK = 512


def sniff_stoe(head: bytes, name: str) -> bool:
    """Return whether the file begins with the signature of Stoe powder data."""
    del name
    return head.startswith(b"RAW_1.06Powdat")


def read_stoe(content: Content) -> list[RecordedScan]:
    """Read the range of a Stoe file.

    Raises
    ------
    InputError
        If the header does not lead to intensities that agree with the range and the extremes it states.
    """
    data, place = content.data, content.place
    data_blocks, total_blocks = fields(data, "HH", 0x1DA, place, "the file header")
    if len(data) != total_blocks * BLOCK:
        raise InputError(
            f"{place}: the header announces {total_blocks} blocks of {BLOCK} bytes, the file holds"
            f" {len(data) / BLOCK:g}; copy the file again"
        )
    first = (total_blocks - data_blocks) * BLOCK
    if first < 2 * BLOCK:
        raise InputError(f"{place}: {data_blocks} of {total_blocks} blocks hold intensities; the header is damaged")
    points = field(data, "H", first - 0x1DE, place, "the range header")
    start, _, end, _, step, _ = fields(data, "6f", first - 0x1D4, place, "the range header")
    lowest, highest = fields(data, "II", first - 0x188, place, "the range header")
    counts = records(data, first, points, 4, "u4", place)
    two_theta = checked_grid(decimal_of(start), decimal_of(step), points, place)
    if abs(two_theta[-1] - end) > max(2e-5, 0.01 * abs(step)):
        raise InputError(
            f"{place}: {points} points from {start:g} by {step:g} end at {two_theta[-1]:g}, but the header says {end:g}"
            " deg; the file is damaged or of another layout: export it as .xy"
        )
    if highest > 0 and (int(counts.min()), int(counts.max())) != (lowest, highest):
        raise InputError(
            f"{place}: intensities run from {counts.min():g} to {counts.max():g}, but the header says {lowest} to"
            f" {highest}; the file is damaged or of another layout: export it as .xy"
        )
    alpha1, alpha2 = fields(data, "ff", 0x142, place, "the wavelengths")
    stated = decimal_of(alpha1) if np.isfinite(alpha1) and 0.1 <= alpha1 <= 5.0 else None
    wavelength, findings = wavelength_of(alpha1=stated, alpha1_only=True, place=place)
    if wavelength is not None:
        findings = (
            *findings,
            warning(
                Code.READER_NOTE,
                f"taken as K-alpha1 alone ({wavelength.principal:g} angstrom), as behind the usual germanium"
                f" monochromator; the file also states {alpha2:g}",
                place,
                "name the wavelength in the method if the instrument has no incident-beam monochromator",
            ),
        )
    facts = {
        "start_time": text_field(data, first - 0x200, 16),
        "sample_id": text_field(data, 0x20, 0x60),
        "operator": text_field(data, 0x600, 0x20),
        "anode": "" if wavelength is None else wavelength.anode,
    }
    return [
        RecordedScan(
            position=two_theta,
            intensity=counts,
            wavelength=wavelength,
            label=f"{two_theta[0]:g} to {two_theta[-1]:g} deg, {points} points",
            metadata={key: value for key, value in facts.items() if value},
            findings=findings,
        )
    ]
