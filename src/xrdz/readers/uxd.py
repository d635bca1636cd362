"""Siemens and Bruker UXD: keywords `_KEY=value`, then `_COUNTS`, `_CPS`, `_2THETACOUNTS` or `_2THETACPS` and numbers.

A new `_DRIVE` begins a new range; keywords before the first range hold for all. Comments start with a semicolon.
Source: DIFFRAC plus XCH manual, appendix "UXD format".
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from xrdz.diffractogram import FloatArray
from xrdz.errors import InputError
from xrdz.findings import Code, warning
from xrdz.readers.binary import checked_grid
from xrdz.readers.content import Content, decoded_text, head_text
from xrdz.readers.recorded import RecordedScan, Unit
from xrdz.readers.vocabulary import metadata_of, number_in, positive_in, wavelength_of

POWDER_DRIVES = (
    "COUPLED",
    "LOCKED COUPLED",
    "UNLOCKED COUPLED",
    "2THETA",
    "TWOTHETA",
    "TTCOUPLED",
    "2THETA/THETA",
    "PSD",
)
DATA_WORDS: Mapping[str, tuple[int, Unit]] = {
    "_COUNTS": (1, "counts"),
    "_COUNT": (1, "counts"),
    "_CPS": (1, "rate"),
    "_2THETACOUNTS": (2, "counts"),
    "_2THETACPS": (2, "rate"),
    "_2THETACOUNTSTIME": (3, "counts"),
}
"""Keyword before the numbers -> columns and unit; the third column of `_2THETACOUNTSTIME` is the time of the step."""

PEAK_LISTS = ("_D-I", "_2THETA-I")


def sniff_uxd(head: bytes, name: str) -> bool:
    """Return whether the first line that is no comment is `_FILEVERSION`, or the suffix says so and keywords follow."""
    del name
    text = head_text(head).replace("\r", "\n").lstrip()
    while text.startswith(";"):
        text = text.partition("\n")[2].lstrip()
    return text[:20].upper().startswith("_FILEVERSION")


def read_uxd(content: Content) -> list[RecordedScan]:
    """Read every range of a UXD file.

    Raises
    ------
    InputError
        If numbers stand where no keyword announces them, or a range has no start or step.
    """
    shared: dict[str, str] = {}
    scans: list[RecordedScan] = []
    keys = shared
    numbers: list[float] = []
    layout: tuple[int, Unit] | None = None
    skipping = False

    def finish() -> None:
        nonlocal numbers, layout
        if layout is not None:
            scans.append(_range(shared | keys, numbers, layout, f"{content.place} range {len(scans) + 1}"))
        numbers, layout = [], None

    for line_number, raw_line in enumerate(decoded_text(content.data, content.place).split("\n"), 1):
        line = raw_line.strip()
        if not line or line.startswith(";"):
            continue
        if line.startswith("_"):
            word, _, value = line.partition("=")
            word = word.strip().upper()
            if word == "_DRIVE":
                finish()
                keys = {}
            if word in DATA_WORDS:
                finish()
                layout, skipping = DATA_WORDS[word], False
            elif word in PEAK_LISTS:
                skipping = True
            else:
                keys[word] = value.strip().strip("'\"")
        elif not skipping:
            if layout is None:
                raise InputError(
                    f"{content.place} line {line_number}: {line[:30]!r} before _COUNTS or _2THETACOUNTS;"
                    " the file is damaged or no scan"
                )
            try:
                numbers.extend(map(float, line.replace(",", " ").split()))
            except ValueError:
                raise InputError(
                    f"{content.place} line {line_number}: {line[:30]!r} is not a row of numbers; export the scan again"
                ) from None
    finish()
    if not scans:
        raise InputError(f"{content.place}: keywords but no _COUNTS or _2THETACOUNTS; export the scan again")
    return scans


def _exact_positions(listed: FloatArray, keys: dict[str, str]) -> FloatArray:
    """Return start plus steps where the listed positions are those rounded to four digits, else what is listed.

    The converter prints 9.985, 10.00, 10.02: two decimals above 10 deg, one above 100, which is coarser than the step.
    """
    start, step = number_in(keys.get("_START", "")), number_in(keys.get("_STEPSIZE", ""))
    if start is None or step is None or not np.isfinite(start) or not 0 < abs(step) < 10:
        return listed
    index = np.arange(listed.size)
    grid: FloatArray = start + step * index.astype(np.float64)
    digits = np.floor(np.log10(np.maximum(np.abs(listed), 1.0)))
    rounding = 0.51 * 10.0 ** (digits - 3) + 5e-7 * index
    return grid if bool(np.all(np.abs(listed - grid) <= rounding)) else listed


def _range(keys: dict[str, str], numbers: list[float], layout: tuple[int, Unit], place: str) -> RecordedScan:
    columns, unit = layout
    if not numbers or len(numbers) % columns:
        raise InputError(
            f"{place}: {len(numbers)} numbers in rows of {columns}; the last row is cut, copy the file again"
        )
    values = np.array(numbers, dtype=np.float64).reshape(-1, columns)
    drive = keys.get("_DRIVE", "COUPLED").upper()
    time: float | FloatArray | None = positive_in(keys.get("_STEPTIME", ""))
    if columns == 1:
        start, step = number_in(keys.get("_START", keys.get("_2THETA", ""))), number_in(keys.get("_STEPSIZE", ""))
        if start is None or step is None:
            raise InputError(f"{place}: _START {start}, _STEPSIZE {step}; both are needed for counts without angles")
        position, intensity = checked_grid(start, step, values.shape[0], place), values[:, 0].copy()
    else:
        position, intensity = _exact_positions(values[:, 0].copy(), keys), values[:, 1].copy()
        if columns == 3:
            time = values[:, 2].copy()
    in_nanometre = keys.get("_WL_UNIT", "A").lower().startswith("n")
    lengths = [positive_in(keys.get(word, "")) for word in ("_WL1", "_WL2", "_WL3")]
    alpha1, alpha2, beta = (value if value is None or not in_nanometre else 10 * value for value in lengths)
    metadata = metadata_of({word.lstrip("_"): value for word, value in keys.items()})
    wavelength, findings = wavelength_of(
        anode=metadata.get("anode"),
        alpha1=alpha1,
        alpha2=alpha2,
        ratio=positive_in(keys.get("_WLRATIO", "")),
        place=place,
    )
    if beta is not None:
        metadata["k_beta_angstrom"] = beta
    metadata["scan_axis"] = drive
    if keys.get("_MONOCHROMATOR") == "0":
        metadata["monochromator"] = "none"
    else:
        metadata.pop("monochromator", None)
    variable = keys.get("_VARDIVERGENCE", "")
    if variable:
        metadata["divergence_slit"] = variable
        findings = (
            *findings,
            warning(
                Code.READER_NOTE,
                f"the divergence slit is variable ({variable}): the irradiated area changes with 2theta",
                place,
                "use a fixed slit, or expect intensities that are low at low angles",
            ),
        )
    announced = number_in(keys.get("_STEPCOUNT", keys.get("_STEPS", "")))
    return RecordedScan(
        position=position,
        intensity=intensity,
        step_time_s=time,
        unit=unit,
        wavelength=wavelength,
        announced_points=int(announced) if announced is not None and announced > 0 else None,
        not_powder="" if drive in POWDER_DRIVES else f"the range drives {drive}, as for a pole figure or rocking curve",
        label=f"{drive} {position[0]:g} to {position[-1]:g}, {position.size} points",
        metadata=metadata,
        findings=findings,
    )
