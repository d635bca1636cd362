"""Columns of numbers: .xy .dat .txt .csv .prn .xye, EVA and HighScore exports, with or without a header.

A file is a header, rows of equally many numbers, and perhaps a footer or a second scan. Decimal commas, thousands
separators, an index column, a column of uncertainties and the `start step stop` layout are recognised, each with a
finding; whatever can be read in two ways is refused. Rows are never skipped in silence: a line inside the data that is
not a row is an error with its number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from xrdz.diffractogram import FloatArray
from xrdz.errors import InputError
from xrdz.findings import Code, Finding, info, warning
from xrdz.readers.binary import checked_grid
from xrdz.readers.content import Content, decoded_text, head_text
from xrdz.readers.recorded import Axis, RecordedScan, Unit
from xrdz.readers.vocabulary import (
    line_named_in,
    metadata_of,
    stated_lines,
    unquoted,
    wavelength_of,
    wavelength_or_refuse,
    wavelength_values,
    with_monochromator_angle,
)
from xrdz.wavelength import Wavelength

COMMENT_STARTS = ("#", "!", ";", "'", "//", "%", "*", "/*", "&", '"', "[", "_")
PLAIN_CHARACTERS = b"0123456789+-.eE \t\n"
CONTROL_CHARACTERS = bytes(byte for byte in range(32) if byte not in b"\t\n\v\f\r")
MIN_SECOND_SCAN = 50
"""Rows that a second run of positions must have to count as a scan rather than as damage."""

_PLAIN_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?\Z")
_FORTRAN_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+))[dD]([-+]?\d{1,3})\Z")
_NOT_A_VALUE = re.compile(r"[-+]?(?:nan|inf|infinity|n/a|na|null|1\.#\w+|-nan\(ind\))\Z", re.IGNORECASE)
_COMMA_NUMBER = re.compile(r"[-+]?[\d.,']*\d[\d.,']*(?:[eEdD][-+]?\d{1,3})?\Z")
_THOUSANDS_COMMA = re.compile(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?\Z")
_THOUSANDS_DOT = re.compile(r"[-+]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d*)?\Z")
_THOUSANDS_APOSTROPHE = re.compile(r"[-+]?[1-9]\d{0,2}(?:'\d{3})+(?:\.\d*)?\Z")
_KEY_VALUE = re.compile(r"""^\s*(?:[#!;'%*/]|//)*\s*([^:=,;\t]{1,60}?)\s*[:=,;\t]\s*(.*)$""")
_EVA_PAIR = re.compile(r"""([A-Za-z][\w ]{0,30}?)\s*:\s*"([^"]*)\"""")
_PHILIPS_WORD = re.compile(
    r"\b(SampleIdent|DiffrType|GeneratorVoltage|TubeCurrent|Anode|Alpha1|Alpha2|Ratio|DivergenceSlit|ReceivingSlit"
    r"|MonochromatorUsed|MeasureDateTime|StepTime)\s+(\S+)"
)
"""Words and values side by side, as Philips' converters to RIET7 and XDD write them."""

_RADIUS = re.compile(r"\bR\s*=?\s*(\d+(?:\.\d+)?)\s*mm\b")
_MONOCHROMATOR = re.compile(r"\bmonochromator\s*[:=]\s*([^\n]*)", re.IGNORECASE)
_MONOCHROMATOR_ANGLE = re.compile(r"\b2theta_m\s*=?\s*(\d+(?:\.\d+)?)", re.IGNORECASE)


def sniff_text(head: bytes, name: str) -> bool:
    """Return whether the head is text that holds at least one digit; the last row of the table, so any text."""
    del name
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    sample = head[:2000]
    nul = sample.count(0)
    if nul and not (0.4 * len(sample) < nul <= 0.55 * len(sample)):
        return False
    control = len(sample) - len(sample.translate(None, CONTROL_CHARACTERS)) - nul
    return control <= 0.01 * len(sample) and re.search(r"\d", head_text(head)) is not None


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
    lines = text.split("\n")
    counted = _intensities_after_range(lines, place, header)
    if counted is not None:
        return [counted]
    scans: list[RecordedScan] = []
    for table in _tables(lines, text, place):
        header += table.header
        for part in _runs(table):
            scans.append(_recorded(part, header, place))
    if len(scans) > 1:
        scans = [replace(scan, announced_points=None) for scan in scans]
    return scans


def _tables(lines: list[str], text: str, place: str) -> list[Table]:
    start = _first_row(lines)
    if start is None:
        raise InputError(f"{place}: no rows of numbers found; expected columns of 2theta in degrees and intensity")
    header = tuple(line for line in lines[:start] if line.strip())
    plain = _plain_rows(lines, start)
    if plain is not None:
        return [Table(plain, start + 1, header)]
    return _tolerant_tables(lines, start, text, place)


def _first_row(lines: list[str]) -> int | None:
    """Return the index of the first of three consecutive rows with equally many numbers, at least two."""
    run, width, began = 0, 0, 0
    for index, line in enumerate(lines):
        stripped = line.strip()
        if not stripped:
            continue
        tokens = _split(stripped)
        if len(tokens) >= 2 and all(_looks_numeric(token) for token in tokens):
            if len(tokens) != width:
                run, width, began = 0, len(tokens), index
            run += 1
            if run == 3:
                return began
        else:
            run, width = 0, 0
    return None


def _plain_rows(lines: list[str], start: int) -> FloatArray | None:
    """Return the numbers below `start` when every line is a row of plain numbers, else None: the fast path."""
    text = "\n".join(lines[start:])
    if not text.isascii():
        return None
    block = text.encode("ascii")
    if block.translate(None, PLAIN_CHARACTERS) or _last_row_is_cut(lines[start:]):
        return None
    characters = np.frombuffer(b"\n" + block + b"\n", dtype=np.uint8)
    blank = characters <= 32
    tokens_before = np.cumsum(blank[:-1] & ~blank[1:])
    line_ends = np.flatnonzero(characters == 10)
    per_line = np.diff(np.concatenate([[0], tokens_before[line_ends[1:] - 1]]))
    per_line = per_line[per_line > 0]
    width = int(per_line[0])
    if not bool(np.all(per_line == width)):
        return None
    try:
        flat = np.fromiter(map(float, block.split()), dtype=np.float64, count=width * per_line.size)
    except ValueError:
        return None
    return flat.reshape(-1, width)


def _last_row_is_cut(block: list[str]) -> bool:
    """Return whether a file of fixed-width rows ends without a line end inside its last row."""
    if not block or not block[-1].strip() or len(block) < 20:
        return False
    usual = len(block[0])
    return len(block[-1]) < usual and all(len(line) == usual for line in block[:-1] if line)


def _split(stripped: str) -> list[str]:
    """Return the tokens of a row: split at semicolons or tabs if there are any, else at blanks, else at commas."""
    if ";" in stripped:
        return [token.strip().strip('"') for token in stripped.rstrip(";").split(";")]
    if "\t" in stripped:
        return [token.strip().strip('"') for token in stripped.split("\t") if token.strip()]
    if "," in stripped:
        if " " not in stripped:
            return [token.strip('"') for token in stripped.rstrip(",").split(",")]
        if all(after in " " for after in re.findall(r",(.?)", stripped)) or re.search(r",\s", stripped):
            return [token.strip().strip('"') for token in stripped.rstrip(",").split(",")]
    return stripped.split()


def _looks_numeric(token: str) -> bool:
    return bool(
        _PLAIN_NUMBER.match(token)
        or _COMMA_NUMBER.match(token)
        or _FORTRAN_NUMBER.match(token)
        or _NOT_A_VALUE.match(token)
    )


@dataclass(frozen=True)
class _Row:
    line: int
    tokens: list[str]


def _tolerant_tables(lines: list[str], start: int, text: str, place: str) -> list[Table]:
    """Return the tables of a file with comments, footers, several scans or other number formats."""
    groups: list[tuple[list[_Row], list[str]]] = []
    rows: list[_Row] = []
    header = [line for line in lines[:start] if line.strip()]
    pending: list[tuple[int, str]] = []
    width = 0
    last_content = max(index for index, line in enumerate(lines) if line.strip())
    cut_row: int | None = None
    for index in range(start, len(lines)):
        stripped = lines[index].strip()
        if not stripped:
            continue
        tokens = _split(stripped)
        numeric = all(_looks_numeric(token) for token in tokens)
        cut = index == last_content and not text.endswith("\n")
        if numeric and len(tokens) == (width or len(tokens)) and not (cut and _last_row_is_cut(lines[start:])):
            width = width or len(tokens)
            if pending:
                if rows:
                    groups.append((rows, header))
                rows, header, pending = [], [line for _, line in pending], []
            rows.append(_Row(index + 1, tokens))
        elif index == last_content and len(rows) > 3 and stripped[0] in "0123456789+-.":
            cut_row = index + 1
        elif numeric and len(tokens) >= 2 and pending:
            # A header stands between: the next table may have another width.
            groups.append((rows, header))
            rows, header, pending, width = [_Row(index + 1, tokens)], [line for _, line in pending], [], len(tokens)
        elif numeric and rows:
            raise InputError(
                f"{place} line {index + 1}: {len(tokens)} numbers, but {width} in the rows above;"
                " the row is damaged or cut: export the scan again"
            )
        elif stripped.startswith(("#", "!", "//", "%")):
            continue
        elif stripped[0] in "0123456789+-." and rows:
            wrong = next(token for token in tokens if not _looks_numeric(token))
            raise InputError(
                f"{place} line {index + 1}: {wrong!r} is not a number; correct it or export the scan again"
            )
        else:
            pending.append((index + 1, stripped))
    groups.append((rows, header))
    tables = [_table(group_rows, group_header, place) for group_rows, group_header in groups if group_rows]
    if cut_row is not None:
        finding = warning(
            Code.TRUNCATED_FILE,
            f"the last row (line {cut_row}) is cut and was left out",
            f"{place} line {cut_row}",
            "copy or export the scan again",
        )
        tables[-1] = replace(tables[-1], findings=(*tables[-1].findings, finding))
    _refuse_damage_between(tables, place)
    return tables


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


def _table(rows: list[_Row], header: list[str], place: str) -> Table:
    findings: list[Finding] = []
    tokens = [row.tokens for row in rows]
    _refuse_split_decimals(rows, place)
    convert = _number_format(rows, place, findings)
    values = np.empty((len(rows), len(tokens[0])), dtype=np.float64)
    for index, row in enumerate(rows):
        values[index] = [_value(convert(token), place, row.line) for token in row.tokens]
    return Table(values, rows[0].line, tuple(header), tuple(findings))


def _refuse_split_decimals(rows: list[_Row], place: str) -> None:
    """Refuse `20,02,862`: the comma both marks decimals and separates columns, so whole numbers follow each other."""
    width = len(rows[0].tokens)
    if width >= 3 and all(row.tokens[0].isdecimal() for row in rows):
        split = next((row for row in rows if re.fullmatch(r"0\d*", row.tokens[1]) and len(row.tokens[1]) > 1), None)
        if split is not None:
            raise InputError(
                f"{place} line {split.line}: {','.join(split.tokens)!r} is ambiguous: the comma could mark decimals or"
                " separate columns; export with decimal points, or with semicolons between columns"
            )


def _value(token: str, place: str, line: int) -> float:
    if _PLAIN_NUMBER.match(token):
        return float(token)
    fortran = _FORTRAN_NUMBER.match(token)
    if fortran:
        return float(f"{fortran.group(1)}e{fortran.group(2)}")
    if _NOT_A_VALUE.match(token):
        return float("inf") if "inf" in token.lower() else float("nan")
    raise InputError(f"{place} line {line}: {token!r} is not a number; correct it or export the scan again")


def _number_format(rows: list[_Row], place: str, findings: list[Finding]) -> Any:
    """Return the conversion of one token to a plain number, judged from all tokens together."""
    flat = [token for row in rows for token in row.tokens if not _NOT_A_VALUE.match(token)]
    with_comma = [token for token in flat if "," in token]
    with_apostrophe = [token for token in flat if "'" in token]
    if with_apostrophe:
        _require_all(with_apostrophe, _THOUSANDS_APOSTROPHE, place, rows)
        findings.append(info(Code.READER_NOTE, f"apostrophes group thousands, as in {with_apostrophe[0]!r}", place))
    if not with_comma:
        return lambda token: token.replace("'", "")
    with_dot = [token for token in flat if "." in token]
    line = rows[0].line
    if not with_dot:
        columns = list(zip(*(row.tokens for row in rows), strict=True))
        mixed = any(
            any("," in token for token in column)
            and not all("," in token for token in column)
            and all(_THOUSANDS_COMMA.match(token) for token in column if "," in token)
            for column in columns[1:]
        )
        if mixed:
            raise InputError(
                f"{place} line {line}: {with_comma[0]!r} and {_first_without(flat)!r} in one file: the comma could mark"
                " decimals or thousands; export with decimal points"
            )
        findings.append(info(Code.DECIMAL_COMMA, f"decimal commas, as in {with_comma[0]!r}, were converted", place))
        return lambda token: token.replace("'", "").replace(",", ".")
    both = [token for token in with_dot if "," in token]
    if all(_THOUSANDS_DOT.match(token) for token in with_dot) and both and both[0].rfind(",") > both[0].rfind("."):
        findings.append(
            info(
                Code.DECIMAL_COMMA, f"decimal commas with dots for thousands, as in {both[0]!r}, were converted", place
            )
        )
        return lambda token: token.replace(".", "").replace(",", ".")
    if all(_THOUSANDS_COMMA.match(token) for token in with_comma):
        findings.append(info(Code.READER_NOTE, f"commas group thousands, as in {with_comma[0]!r}", place))
        return lambda token: token.replace(",", "")
    raise InputError(
        f"{place} line {line}: {with_comma[0]!r} and {with_dot[0]!r} in one file: which of comma and point marks the"
        " decimals is ambiguous; export with decimal points alone"
    )


def _first_without(tokens: list[str]) -> str:
    return next((token for token in tokens if "," not in token), "")


def _require_all(tokens: list[str], pattern: re.Pattern[str], place: str, rows: list[_Row]) -> None:
    wrong = next((token for token in tokens if not pattern.match(token)), None)
    if wrong is not None:
        raise InputError(f"{place} line {rows[0].line}: {wrong!r} is not a number; export with decimal points")


def _runs(table: Table) -> list[Table]:
    """Return the table split where positions start again, and pairs of columns joined into one run."""
    values = table.values
    if values.shape[1] >= 4 and values.shape[1] % 2 == 0 and _is_pairs(values):
        joined = values.reshape(-1, 2)
        return [replace(table, values=joined)]
    column = 1 if _has_index(values) else 0
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


def _has_index(values: FloatArray) -> bool:
    """Return whether the first of three or more columns only counts the rows while the second rises evenly."""
    if values.shape[1] < 3 or values.shape[0] < 10:
        return False
    index, position = values[:, 0], values[:, 1]
    if index[0] not in (0.0, 1.0) or not np.all(np.diff(index) == 1.0):
        return False
    steps = np.diff(position)
    even = bool(np.all(steps > 0)) and float(np.ptp(steps)) < 0.5 * float(np.median(steps))
    return bool(even and position[0] > 0 and position[-1] <= 180 and np.median(steps) < 1.0)


@dataclass(frozen=True)
class _Columns:
    position: int
    intensity: int
    su: int | None = None
    step_time: int | None = None
    unit: Unit = "unknown"
    axis: Axis = "unnamed"


_POSITION_WORDS = (
    (
        re.compile(r"2\s*-?\s*(?:theta|θ|th\b|tth)|two\s*-?_?theta|\btth\b|^angle|°2th|2thet", re.IGNORECASE),
        "two_theta",
    ),
    (re.compile(r"^q\b|\bq\s*[\[(]|scattering vector|momentum", re.IGNORECASE), "q"),
    (re.compile(r"^d\b|d-?\s*(?:spacing|value)|\bd\s*[\[(]", re.IGNORECASE), "d"),
)
_NOT_POSITION = re.compile(r"wave\s*length|energy|\btime\b|\bnm\b|\bkev\b|raman|wavenumber|cm-1", re.IGNORECASE)
_INTENSITY_WORD = re.compile(
    r"intens|counts?\b|cts\b|cps\b|^i\b|^y(?:_?obs)?\b|yobs|^obs\b|\bi\s*[\[(]|^int\b|psd", re.IGNORECASE
)
_SU_WORD = re.compile(r"\besd\b|sigma|\bsu\b|\berr(?:or)?\b|uncert|std|^e$|^s$|\bdev\b", re.IGNORECASE)
_TIME_WORD = re.compile(r"time\s*per\s*step|timeperstep|counting\s*time|step\s*time", re.IGNORECASE)
_RATE_WORD = re.compile(r"\bcps\b|counts?\s*(?:/|per)\s*s(?:ec)?|cts/s|c/s\b", re.IGNORECASE)
_COUNTS_WORD = re.compile(r"\bcounts?\b|\bcts\b", re.IGNORECASE)


def _column_labels(header: tuple[str, ...], width: int) -> list[str]:
    """Return the labels that the last header lines give the columns, or [] when none of them names that many."""
    for line in reversed(header[-3:]):
        bare = line.strip().lstrip("#!;'%*/& ").strip()
        for pattern in (r"\s*[,;\t|]\s*", r"\s{2,}", r"\s+"):
            labels = [label.strip().strip('"') for label in re.split(pattern, bare) if label.strip()]
            words = sum(
                bool(
                    _INTENSITY_WORD.search(label)
                    or _SU_WORD.search(label)
                    or any(p.search(label) for p, _ in _POSITION_WORDS)
                )
                for label in labels
            )
            if len(labels) == width and words >= 1:
                return labels
    return []


def _columns(values: FloatArray, header: tuple[str, ...], place: str, line: int) -> tuple[_Columns, list[Finding]]:
    width = values.shape[1]
    findings: list[Finding] = []
    labels = _column_labels(header, width)
    header_text = "\n".join(header)
    offset = 0
    if _has_index(values):
        offset = 1
        findings.append(info(Code.INDEX_COLUMN_SKIPPED, "the first column only counts the rows and was skipped", place))
    axis: Axis = "unnamed"
    unit: Unit = "unknown"
    if labels:
        named = [(index, kind) for index, label in enumerate(labels) for p, kind in _POSITION_WORDS if p.search(label)]
        position = named[0][0] if named else offset
        axis = named[0][1] if named else "unnamed"  # type: ignore[assignment]
        if not named and _NOT_POSITION.search(labels[offset]):
            raise InputError(f"{place} line {line}: the first column is {labels[offset]!r}; expected 2theta in degrees")
        if axis == "two_theta" and re.search(r"\brad(?:ian)?s?\b", labels[position], re.IGNORECASE):
            axis = "radian"
        su = next((i for i, label in enumerate(labels) if i != position and _SU_WORD.search(label)), None)
        time = next((i for i, label in enumerate(labels) if i != position and _TIME_WORD.search(label)), None)
        taken = {position, su, time}
        named_intensity = [i for i, label in enumerate(labels) if i not in taken and _INTENSITY_WORD.search(label)]
        observed = [i for i in named_intensity if re.search(r"obs|meas|exp|raw", labels[i], re.IGNORECASE)]
        rest = [i for i in range(width) if i not in taken and i >= offset]
        intensity = (observed or named_intensity or rest or [-1])[0]
        if intensity < 0:
            raise InputError(f"{place} line {line}: columns {labels}; none is an intensity: name one of them so")
        unit = _unit_in(labels[intensity])
        if unit == "unknown":
            unit = _unit_in(header_text)
        return _Columns(position, intensity, su, time, unit, axis), findings
    axis = _axis_in(header_text)
    unit = _unit_in(header_text)
    if width - offset > 3:
        raise InputError(
            f"{place} line {line}: {width} columns without names, and which holds the intensity is ambiguous;"
            " keep 2theta, intensity and its uncertainty, or name the columns in a header line"
        )
    su_column = offset + 2 if width - offset == 3 else None
    return _Columns(offset, offset + 1, su_column, None, unit, axis), findings


def _axis_in(header_text: str) -> Axis:
    if re.search(r"2\s*-?\s*(?:theta|θ|th\b)|two\s*-?theta|°2th", header_text, re.IGNORECASE):
        return "radian" if re.search(r"2\s*theta\D{0,12}\brad(?:ian)?s?\b", header_text, re.IGNORECASE) else "two_theta"
    if re.search(r"\bq\b[^\n]{0,6}(?:1/|Å|A\^?-1|nm)", header_text):
        return "q"
    if re.search(r"\bd\s*-?\s*spacing|\bd\s*[\[(]\s*(?:Å|A)", header_text):
        return "d"
    return "unnamed"


def _unit_in(text: str) -> Unit:
    if _RATE_WORD.search(text):
        return "rate"
    return "counts" if _COUNTS_WORD.search(text) else "unknown"


def _recorded(table: Table, header: tuple[str, ...], place: str) -> RecordedScan:
    columns, findings = _columns(table.values, header, place, table.first_line)
    pairs = header_pairs(header)
    metadata, wavelength, wavelength_findings = header_facts(header, pairs, place)
    values = table.values
    position: FloatArray = values[:, columns.position].copy()
    intensity: FloatArray = values[:, columns.intensity].copy()
    su: FloatArray | None = None if columns.su is None else values[:, columns.su].copy()
    if su is not None and not _is_su_like(intensity, su):
        findings.append(
            info(Code.READER_NOTE, "the third column is not an uncertainty of the second and was not used", place)
        )
        su = None
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
        announced_points=_announced(pairs),
        label=f"{position[0]:g} to {position[-1]:g}, {position.size} points from line {table.first_line}",
        metadata=metadata,
        findings=(*table.findings, *findings, *wavelength_findings),
    )


def _is_su_like(intensity: FloatArray, su: FloatArray) -> bool:
    """Return whether a column can be the uncertainty of the intensities: zeros and constants are judged later."""
    if not np.all(np.isfinite(su)) or bool(np.any(su < 0)):
        return False
    varied = (su > 0) & (intensity > 0)
    if np.count_nonzero(varied) < 0.5 * su.size or float(np.ptp(su[varied])) == 0.0:
        return True
    return (
        float(np.median(su[varied] / intensity[varied])) < 1.0
        and float(np.corrcoef(np.log(su[varied]), np.log(intensity[varied]))[0, 1]) > 0.2
    )


def header_pairs(header: tuple[str, ...]) -> dict[str, str]:
    """Return the keys and values of a header: `key: value`, `key = value`, `key,value`, and EVA's `Key: "value"`."""
    pairs: dict[str, str] = {}
    for line in header:
        words = _PHILIPS_WORD.findall(line)
        if len(words) >= 2:
            for key, value in words:
                pairs.setdefault(key, value)
            continue
        eva = _EVA_PAIR.findall(line)
        if len(eva) >= 2:
            for key, value in eva:
                pairs.setdefault(key, value)
            continue
        match = _KEY_VALUE.match(line)
        if match and match.group(2).strip():
            pairs.setdefault(unquoted(match.group(1)), unquoted(match.group(2).strip().rstrip(",;")))
    return pairs


def header_facts(
    header: tuple[str, ...], pairs: dict[str, str], place: str
) -> tuple[dict[str, Any], Wavelength | None, tuple[Finding, ...]]:
    """Return metadata, wavelength and findings from header lines and their keys."""
    metadata = metadata_of(pairs)
    text = "\n".join(header)
    radius = _RADIUS.search(text)
    if radius and "goniometer_radius_mm" not in metadata and float(radius.group(1)) > 0:
        metadata["goniometer_radius_mm"] = float(radius.group(1))
    monochromator = _MONOCHROMATOR.search(text)
    if monochromator and monochromator.group(1).strip():
        metadata["monochromator"] = monochromator.group(1).strip()
    angle = _MONOCHROMATOR_ANGLE.search(text)
    if angle and 0 < float(angle.group(1)) < 180:
        metadata["monochromator_two_theta_deg"] = float(angle.group(1))
    named = line_named_in(text)
    values = wavelength_values(pairs)
    if "beta" in values:
        metadata.setdefault("k_beta_angstrom", values["beta"])
    findings: tuple[Finding, ...] = ()
    wavelength = stated_lines(pairs)
    if wavelength is not None:
        pass
    elif named and not {"principal", "alpha1", "alpha2"} & set(values):
        wavelength = wavelength_or_refuse(named, place)
    else:
        wavelength, findings = wavelength_of(
            anode=metadata.get("anode") or (named[:2] or None),
            principal=values.get("principal"),
            alpha1=values.get("alpha1"),
            alpha2=values.get("alpha2"),
            ratio=values.get("ratio"),
            alpha1_only=named.endswith("1") and "alpha2" not in values,
            place=place,
        )
    if wavelength is not None and wavelength.anode:
        metadata.setdefault("anode", wavelength.anode)
    return with_monochromator_angle(metadata, wavelength), wavelength, findings


_POINTS_KEYS = re.compile(r"^(?:no\.?\s*of\s*points|number\s*of\s*points|points|npoints|n_points|step\s*count)$", re.I)


def _announced(pairs: dict[str, str]) -> int | None:
    for key, value in pairs.items():
        if _POINTS_KEYS.match(key.strip()) and re.fullmatch(r"\d{1,8}", value.strip()):
            return int(value)
    return None


def _intensities_after_range(lines: list[str], place: str, outside: tuple[str, ...]) -> RecordedScan | None:
    """Return the scan of a file that states start, step and stop (or start, stop, step) and then intensities alone.

    Twice as many numbers as points are intensities and then their uncertainties, as of PSI's DMC and HRPT.
    """
    first = next((index for index in range(min(len(lines), 40)) if _range_in(lines[index]) is not None), None)
    if first is None:
        return None
    found = _range_in(lines[first])
    if found is None:
        return None
    start, step, stop = found
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
    values = np.array([_value(token, place, line) for line, tokens in rest for token in tokens], dtype=np.float64)
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
        unit=_unit_in("\n".join(header_lines)),
        axis="unnamed",
        wavelength=wavelength,
        announced_points=expected,
        metadata=metadata,
        findings=(note, *findings),
    )


def _range_in(line: str) -> tuple[float, float, float] | None:
    """Return start, step and stop when a line begins with three numbers that can be that in either order."""
    tokens = line.split()
    if len(tokens) < 3 or not all(_PLAIN_NUMBER.match(token) for token in tokens[:3]):
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
