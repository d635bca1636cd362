"""Columns of numbers: .xy .dat .txt .csv .prn .xye, EVA and HighScore exports, with or without a header.

A file is a header, rows of equally many numbers, and perhaps a footer or a second scan. Decimal commas, thousands
separators, an index column, a column of uncertainties and the `start step stop` layout are recognised, each with a
finding; whatever can be read in two ways is refused. Rows are never skipped in silence: a line inside the data that is
not a row is an error with its number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from xrdz.diffractogram import FloatArray
from xrdz.errors import InputError
from xrdz.findings import Code, Finding, info, warning
from xrdz.readers.binary import checked_grid
from xrdz.readers.columns import columns_of, has_index, is_su_like, unit_in
from xrdz.readers.content import Content, decoded_text
from xrdz.readers.header import announced_points, header_facts, header_pairs
from xrdz.readers.numerals import (
    PLAIN_NUMBER,
    UNSIGNED_DECIMAL,
    Row,
    decimals_of,
    looks_numeric,
    number_format,
    refuse_split_decimals,
    tokens_of,
    value_of,
)
from xrdz.readers.recorded import RecordedScan

SIGNS_AND_EXPONENTS = b"+-eE"
CONTROL_CHARACTERS = bytes(byte for byte in range(32) if byte not in b"\t\n\v\f\r")
BEGINS_A_NUMBER = "0123456789+-."
COMMENT_STARTS = ("#", "!", "//", "%")
MAX_SCANS = 1000
SHORT_HEADER = 200
"""Lines within which the rows of most files begin."""

MIN_SECOND_SCAN = 50
"""Rows that a second run of positions must have to count as a scan rather than as damage."""


def sniff_text(head: bytes, name: str) -> bool:
    """Return whether the head is text; the last row of the table, so any text."""
    del name
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    sample = head[:2000]
    nul = sample.count(0)
    if nul and not (0.4 * len(sample) < nul <= 0.55 * len(sample)):
        return False
    control = len(sample) - len(sample.translate(None, CONTROL_CHARACTERS)) - nul
    return control <= 0.01 * len(sample)


@dataclass(frozen=True)
class Table:
    """One run of rows: the numbers, and where in the file they stand.

    Parameters
    ----------
    values : shape (n, columns)
    first_line : number of the first row in the file, from 1
    header : the lines above, since the last row before
    findings : what was converted
    """

    values: FloatArray
    first_line: int
    header: tuple[str, ...]
    findings: tuple[Finding, ...] = ()


def read_text(content: Content) -> list[RecordedScan]:
    """Read every scan of a text file.

    Raises
    ------
    InputError
        If a row is damaged, the number format is ambiguous, or the columns cannot be told apart.
    """
    return read_text_lines(decoded_text(content.data, content.place), content.place)


def read_text_lines(text: str, place: str, header: tuple[str, ...] = ()) -> list[RecordedScan]:
    """Read every scan of decoded text; `header` holds lines that stood elsewhere. See `read_text`."""
    counted = _intensities_after_range(text, place, header)
    if counted is not None:
        return [counted]
    scans: list[RecordedScan] = []
    tables = _tables(text, place)
    if len(tables) > MAX_SCANS:
        raise InputError(
            f"{place}: {len(tables)} runs of rows; expected at most {MAX_SCANS} scans: the file is damaged"
        )
    shared = (*header, *tables[0].header)
    for number, table in enumerate(tables):
        own = shared if number == 0 else (*shared, *table.header)
        scans += [_recorded(part, own, place) for part in _runs(table)]
    if len(scans) > 1:
        scans = [replace(scan, announced_points=None) for scan in scans]
    return scans


def _tables(text: str, place: str) -> list[Table]:
    # Most headers are short, and plain rows below them need not be split into lines.
    lines = text.split("\n", SHORT_HEADER)[:SHORT_HEADER]
    start = _first_row(lines)
    if start is None:
        lines = text.split("\n")
        start = _first_row(lines)
    if start is None:
        raise InputError(f"{place}: no rows of numbers found; expected columns of 2theta in degrees and intensity")
    header = [line for line in lines[:start] if line.strip()]
    below = text[sum(len(line) + 1 for line in lines[:start]) :]
    plain = _plain_rows(below)
    if plain is not None:
        return [Table(plain, start + 1, tuple(header))]
    return _tolerant_tables(below, start, header, place)


def _first_row(lines: list[str]) -> int | None:
    """Return the index of the first of three consecutive rows with equally many numbers, at least two."""
    run, width, began = 0, 0, 0
    for index, line in enumerate(lines):
        stripped = line.strip()
        if not stripped:
            continue
        tokens = tokens_of(stripped)
        if len(tokens) >= 2 and all(looks_numeric(token) for token in tokens):
            if len(tokens) != width:
                run, width, began = 0, len(tokens), index
            run += 1
            if run == 3:
                return began
        else:
            run, width = 0, 0
    return None


def _plain_rows(below: str) -> FloatArray | None:
    """Return the numbers when every line is a row of equally many plain ones or blank, else None: the fast path."""
    if not below.isascii() or _last_row_is_cut(below):
        return None
    block = below.encode("ascii")
    unusual = block.translate(None, UNSIGNED_DECIMAL)
    if unusual.translate(None, SIGNS_AND_EXPONENTS):
        return None
    characters = np.frombuffer(b"\n" + block.rstrip() + b"\n", dtype=np.uint8)
    blank = characters <= 32
    # Blank and not blank take turns, so each second change begins a token and the one after it ends that token.
    begins, ends = np.flatnonzero(blank[:-1] != blank[1:]).reshape(-1, 2).T
    width = _row_width(begins, ends, np.flatnonzero(characters == ord("\n")))
    if width is None:
        return None
    flat = None if unusual else decimals_of(block, characters, begins, ends)
    if flat is None:
        try:
            flat = np.fromiter(map(float, block.split()), dtype=np.float64, count=begins.size)
        except ValueError:
            return None
    return flat.reshape(-1, width)


def _row_width(begins: NDArray[np.intp], ends: NDArray[np.intp], line_ends: NDArray[np.intp]) -> int | None:
    """Return how many tokens each line that is not blank holds, or None if they are not equally many.

    Parameters
    ----------
    begins, ends : shape (t,), where tokens begin and end; t >= 1
    line_ends : shape (l + 1,), where the line before the first and all l lines end
    """
    width = int(np.searchsorted(begins, line_ends[1]))
    if width and begins.size == width * (line_ends.size - 1):
        # As many rows as lines: row k is all in line k, or some line holds more than another.
        within = (line_ends[:-1] <= begins[::width]) & (ends[width - 1 :: width] < line_ends[1:])
        return width if bool(within.all()) else None
    per_line = np.diff(np.searchsorted(begins, line_ends))
    per_line = per_line[per_line > 0]
    return int(per_line[0]) if bool(np.all(per_line == per_line[0])) else None


def _last_row_is_cut(below: str) -> bool:
    """Return whether a file of fixed-width rows ends without a line end inside its last row."""
    if not below[below.rfind("\n") + 1 :].strip():
        return False
    block = below.split("\n")
    usual = len(block[0])
    return len(block) >= 20 and len(block[-1]) < usual and all(len(line) == usual for line in block[:-1] if line)


@dataclass
class _Reading:
    """Where the tolerant reading stands: the rows of the table at hand, the lines that may head the next."""

    rows: list[Row]
    header: list[str]
    heading: list[str]
    finished: list[tuple[list[Row], list[str]]]

    def begin(self, row: Row) -> None:
        """Take a row after lines of text: they are the header of a new table."""
        if self.rows:
            self.finished.append((self.rows, self.header))
        self.rows, self.header, self.heading = [row], self.heading, []


def _tolerant_tables(below: str, start: int, header: list[str], place: str) -> list[Table]:
    """Return the tables of a file with comments, footers, several scans or other number formats."""
    reading = _Reading([], header, [], [])
    content = [(number, line.strip()) for number, line in enumerate(below.split("\n"), start + 1) if line.strip()]
    cut = _last_row_is_cut(below)
    cut_line = 0
    for number, line in content:
        row = Row(number, tokens_of(line))
        numeric = all(looks_numeric(token) for token in row.tokens)
        width = len(reading.rows[-1].tokens) if reading.rows else len(row.tokens)
        last = number == content[-1][0]
        if numeric and len(row.tokens) == width and not (last and cut):
            if reading.heading:
                reading.begin(row)
            else:
                reading.rows.append(row)
        elif last and len(reading.rows) > 3 and line[0] in BEGINS_A_NUMBER:
            cut_line = number
        elif numeric and len(row.tokens) >= 2 and reading.heading:
            reading.begin(row)
        elif line.startswith(COMMENT_STARTS):
            continue
        elif reading.rows and line[0] in BEGINS_A_NUMBER:
            _refuse_row(row, width, numeric, place)
        else:
            reading.heading.append(line)
    tables = [
        _table(rows, header, place) for rows, header in (*reading.finished, (reading.rows, reading.header)) if rows
    ]
    if cut_line:
        finding = warning(
            Code.TRUNCATED_FILE,
            f"the last row (line {cut_line}) is cut and was left out",
            f"{place} line {cut_line}",
            "copy or export the scan again",
        )
        tables[-1] = replace(tables[-1], findings=(*tables[-1].findings, finding))
    _refuse_damage_between(tables, place)
    return tables


def _refuse_row(row: Row, width: int, numeric: bool, place: str) -> None:
    if numeric:
        raise InputError(
            f"{place} line {row.line}: {len(row.tokens)} numbers, but {width} in the rows above;"
            " the row is damaged or cut: export the scan again"
        )
    wrong = next(token for token in row.tokens if not looks_numeric(token))
    raise InputError(f"{place} line {row.line}: {wrong[:40]!r} is not a number; correct it or export the scan again")


def _refuse_damage_between(tables: list[Table], place: str) -> None:
    """Refuse a line of text amid rows that simply go on: that is a damaged row, not the header of a second scan."""
    for before, after in pairwise(tables):
        if before.values.shape[1] != after.values.shape[1] or before.values.shape[0] < 2:
            continue
        step = before.values[-1, 0] - before.values[-2, 0]
        advance = after.values[0, 0] - before.values[-1, 0]
        if len(after.header) == 1 and step > 0 and 0 < advance < 3.5 * step:
            raise InputError(
                f"{place} line {after.first_line - 1}: {after.header[0][:40]!r} stands between two rows and is no row;"
                " correct it or export the scan again"
            )


def _table(rows: list[Row], header: list[str], place: str) -> Table:
    refuse_split_decimals(rows, place)
    convert, findings = number_format(rows, place)
    values = np.empty((len(rows), len(rows[0].tokens)), dtype=np.float64)
    for index, row in enumerate(rows):
        values[index] = [value_of(convert(token), place, row.line) for token in row.tokens]
    return Table(values, rows[0].line, tuple(header), findings)


def _runs(table: Table) -> list[Table]:
    """Return the table split where positions start again, and pairs of columns joined into one run."""
    values = table.values
    if values.shape[1] >= 4 and values.shape[1] % 2 == 0 and _is_pairs(values):
        joined = values.reshape(-1, 2)
        return [replace(table, values=joined)]
    column = 1 if has_index(values) else 0
    position = values[:, column]
    steps = np.diff(position)
    if steps.size == 0 or bool(np.all(steps > 0)) or bool(np.all(steps < 0)):
        return [table]
    typical = float(np.median(np.abs(steps)))
    direction = 1.0 if float(np.median(steps)) >= 0 else -1.0
    restarts = np.flatnonzero(direction * steps < -10 * typical) + 1
    if restarts.size == 0:
        return [table]
    parts = np.split(values, restarts)
    if min(part.shape[0] for part in parts) < MIN_SECOND_SCAN:
        return [table]
    lines = [table.first_line, *(table.first_line + int(index) for index in restarts)]
    return [replace(table, values=part, first_line=line) for part, line in zip(parts, lines, strict=True)]


def _is_pairs(values: FloatArray) -> bool:
    """Return whether the columns are position, intensity, position, intensity ... running along the rows."""
    positions = values[:, 0::2].reshape(-1)
    steps = np.diff(positions)
    return steps.size > 2 and bool(np.all(steps > 0)) and float(np.ptp(steps)) < 0.5 * float(np.median(steps))


def _recorded(table: Table, header: tuple[str, ...], place: str) -> RecordedScan:
    columns, findings = columns_of(table.values, header, place, table.first_line)
    pairs = header_pairs(header)
    metadata, wavelength, wavelength_findings = header_facts(header, pairs, place)
    values = table.values
    position: FloatArray = values[:, columns.position].copy()
    intensity: FloatArray = values[:, columns.intensity].copy()
    su: FloatArray | None = None if columns.su is None else values[:, columns.su].copy()
    if su is not None and not is_su_like(intensity, su):
        note = info(Code.READER_NOTE, "the third column is not an uncertainty of the second and was not used", place)
        findings, su = (*findings, note), None
    time: float | FloatArray | None = metadata.get("step_time_s")
    if columns.step_time is not None:
        times = values[:, columns.step_time].copy()
        time = float(times[0]) if bool(np.all(times == times[0])) else times
    return RecordedScan(
        position=position,
        intensity=intensity,
        su=su,
        step_time_s=time,
        unit=columns.unit,
        axis=columns.axis,
        wavelength=wavelength,
        announced_points=announced_points(pairs),
        label=f"{position[0]:g} to {position[-1]:g}, {position.size} points from line {table.first_line}",
        metadata=metadata,
        findings=(*table.findings, *findings, *wavelength_findings),
    )


def _intensities_after_range(text: str, place: str, outside: tuple[str, ...]) -> RecordedScan | None:
    """Return the scan of a file that states start, step and stop (or start, stop, step) and then intensities alone.

    Twice as many numbers as points are intensities and then their uncertainties, as of PSI's DMC and HRPT.
    """
    ranges = ((index, _range_in(line)) for index, line in enumerate(text.split("\n", 40)[:40]))
    first, found = next(((index, found) for index, found in ranges if found is not None), (0, None))
    if found is None:
        return None
    start, step, stop = found
    lines = text.split("\n")
    rest = [(index, line.split()) for index, line in enumerate(lines[first + 1 :], first + 2) if line.strip()]
    expected = round((stop - start) / step) + 1
    if not rest or expected < 2:
        return None
    width = max(len(tokens) for _, tokens in rest)
    if sum(len(tokens) < width for _, tokens in rest) > 2:
        return None
    n_found = sum(len(tokens) for _, tokens in rest)
    # Two or three columns whose first stays in the stated range are positions, and the line is only a header.
    if width in (2, 3) and n_found > 1.5 * expected:
        return None
    if n_found > expected + 20 and n_found != 2 * expected:
        return None
    if n_found < 0.3 * expected:
        if width in (2, 3):
            return None
        raise InputError(
            f"{place} line {first + 1}: start {start:g}, step {step:g}, stop {stop:g} give {expected} points, the file"
            f" holds {n_found}; copy or export the scan again"
        )
    values = np.array([value_of(token, place, line) for line, tokens in rest for token in tokens], dtype=np.float64)
    su: FloatArray | None = None
    if n_found == 2 * expected:
        values, su = values[:expected], values[expected:]
    elif n_found > expected:
        # Some programs fill the last line with zeros or end with a negative mark.
        if bool(np.any(values[expected:] > 0)):
            raise InputError(
                f"{place} line {first + 1}: start {start:g}, step {step:g}, stop {stop:g} give {expected} points,"
                f" the file holds {n_found}; correct the first line"
            )
        values = values[:expected]
    header = (*outside, *(line for line in lines[:first] if line.strip()))
    trailing = " ".join(lines[first].split()[3:])
    header_lines = (*header, trailing) if trailing else header
    metadata, wavelength, findings = header_facts(header_lines, header_pairs(header_lines), place)
    note = info(
        Code.READER_NOTE,
        f"start {start:g}, step {step:g}, stop {stop:g} deg and intensities alone",
        f"line {first + 1}",
    )
    return RecordedScan(
        position=checked_grid(start, step, values.size, place),
        intensity=values,
        su=su,
        step_time_s=metadata.get("step_time_s"),
        unit=unit_in("\n".join(header_lines)),
        axis="unnamed",
        wavelength=wavelength,
        announced_points=expected,
        metadata=metadata,
        findings=(note, *findings),
    )


def _range_in(line: str) -> tuple[float, float, float] | None:
    """Return start, step and stop when a line begins with three numbers that can be that in either order."""
    tokens = line.split()
    if len(tokens) < 3 or not all(PLAIN_NUMBER.match(token) for token in tokens[:3]):
        return None
    start, second, third = (float(token) for token in tokens[:3])
    for step, stop in ((second, third), (third, second)):
        points = (stop - start) / step + 1 if step > 1e-6 else 0.0
        if (
            0 <= start < stop <= 180
            and 0 < step <= 1.0
            and points >= 50
            and abs(points - round(points)) < 0.02 * points**0.5
        ):
            return start, step, stop
    return None
