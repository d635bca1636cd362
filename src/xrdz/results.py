"""Tables of a run, made from its parts: CSV, JSON Lines, Parquet, XLSX, and a pandas frame.

One row a scan, ordered by name, so that a run gives the same file on any number of workers. `columns_of` is the whole
table: which columns there are follows from the method alone, so they are the same for every run of it. Units stand in
the header; fractions are 0 to 1; numbers have all their digits (16 in XLSX); what does not exist is empty.

A cell that a spreadsheet would take for a formula begins with an apostrophe, and so does one that began with an
apostrophe. Control characters, and bytes of a file name that are no text, are shown as escapes. JSON Lines hold every
name exactly.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import unicodedata
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

from xrdz.archive import part_documents, part_lines
from xrdz.crystal import free_cell_names
from xrdz.errors import InputError
from xrdz.files import whole_file
from xrdz.reference import Reference
from xrdz.run_folder import RunFolder, existing_run, opened_since, read_run, root_lock, rows_of_parts

FORMATS = ("csv", "jsonl", "parquet", "xlsx")
XLSX_ROWS = 1_048_575
"""Rows a sheet of a spreadsheet program holds below the header."""

PARTS_IN_MEMORY = 4
ROWS_AT_ONCE = 1000
CLAIMS = tuple(range(1, 11))
ANGLES = ("alpha", "beta", "gamma")

Kind = Literal["text", "number", "flag"]
Document = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column: its name, unit ("" for none), kind, and where its value stands in a document."""

    name: str
    unit: str
    kind: Kind
    value: Callable[[Document], Any]

    @property
    def header(self) -> str:
        """Name with the unit in brackets."""
        return f"{self.name} [{self.unit}]" if self.unit else self.name


@dataclass(frozen=True)
class TableShape:
    """What the columns of a run follow from: its phases with their free cell parameters, and its elements."""

    phases: tuple[tuple[str, tuple[str, ...]], ...]
    elements: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what `run.json` holds of it."""
        return {"phases": [[id, list(cell)] for id, cell in self.phases], "elements": list(self.elements)}


def table_shape(references: Sequence[Reference]) -> TableShape:
    """Return the shape of the table of a method's phases and candidates."""
    phases = tuple((item.id, tuple(free_cell_names(item.crystal_system))) for item in references)
    return TableShape(phases, tuple(sorted({element for item in references for element in item.composition})))


def shape_of_run(path: str | Path) -> TableShape:
    """Return the shape of the table of a run that exists.

    Raises
    ------
    InputError
        If there is no run.
    """
    record = read_run(Path(path))
    if record is None:
        raise InputError(f"{path}: no run here (run.json is missing); expected the --out folder of xrdz batch or watch")
    stored = record.get("table", {})
    phases = tuple((str(id), tuple(cell)) for id, cell in stored.get("phases", ()))
    return TableShape(phases, tuple(stored.get("elements", ())))


# --- columns ----------------------------------------------------------------------------------------------------------


def _at(*keys: str | int) -> Callable[[Document], Any]:
    """Return the function that follows keys into a document, None where one is missing."""

    def value(document: Document) -> Any:
        found: Any = document
        for key in keys:
            if isinstance(key, int):
                found = found[key] if isinstance(found, list | tuple) and len(found) > key else None
            else:
                found = found.get(key) if isinstance(found, Mapping) else None
        return found

    return value


def _phase(id: str, *keys: str | int) -> Callable[[Document], Any]:
    inside = _at(*keys)

    def value(document: Document) -> Any:
        return next((inside(phase) for phase in document.get("phases", ()) if phase.get("id") == id), None)

    return value


def _claim(number: int, key: str) -> Callable[[Document], Any]:
    def value(document: Document) -> Any:
        return next((claim.get(key) for claim in document.get("claims", ()) if claim.get("claim") == number), None)

    return value


def _codes(document: Document) -> str:
    return " ".join(dict.fromkeys(str(finding.get("code")) for finding in document.get("findings", ())))


def _sample_id(document: Document) -> Any:
    """Return the item tested: from the sample sheet, else the file's own word, as reports print it."""
    return _at("sample", "sample_id")(document) or _at("source", "metadata", "sample_id")(document)


def _ratio_name(document: Document) -> str | None:
    ratio = document.get("mass_ratio")
    return None if not ratio else f"{ratio['numerator']}/{ratio['denominator']}"


def _quantity(name: str, unit: str, get: Callable[..., Callable[[Document], Any]], *keys: str | int) -> list[Column]:
    """Return the columns of a value with its standard uncertainty and 95 % interval."""
    return [
        Column(name, unit, "number", get(*keys, "value")),
        Column(f"{name}_su", unit, "number", get(*keys, "su")),
        Column(f"{name}_low95", unit, "number", get(*keys, "interval95", 0)),
        Column(f"{name}_high95", unit, "number", get(*keys, "interval95", 1)),
    ]


def _estimate(name: str, unit: str, get: Callable[..., Callable[[Document], Any]], *keys: str | int) -> list[Column]:
    return [Column(name, unit, "number", get(*keys, "value")), Column(f"{name}_su", unit, "number", get(*keys, "su"))]


def columns_of(shape: TableShape) -> tuple[Column, ...]:
    """Return all columns of a run's table, in their order."""
    columns = [
        Column("file", "", "text", _at("batch", "file")),
        Column("revision", "", "number", _at("batch", "revision")),
        Column("status", "", "text", _at("status")),
        Column("reason", "", "text", _at("batch", "reason")),
        Column("message", "", "text", _at("batch", "message")),
        Column("sample_id", "", "text", _sample_id),
        Column("ratio", "", "text", _ratio_name),
        *_quantity("mass_ratio", "1", _at, "mass_ratio"),
        Column("mass_ratio_limit", "", "text", _at("mass_ratio", "limit")),
    ]
    for id, cell in shape.phases:
        columns += _phase_columns(id, cell)
    for element in shape.elements:
        columns += _estimate(f"{element}.mass_fraction", "1", _at, "elements", element)
    columns += _estimate("amorphous", "1", _at, "amorphous")
    columns += [Column(f"claim_{number}", "", "text", _claim(number, "verdict")) for number in CLAIMS]
    columns += [
        Column("claim_2_probability", "1", "number", _claim(2, "probability")),
        Column("rwp", "%", "number", _at("agreement", "rwp")),
        Column("rexp", "%", "number", _at("agreement", "rexp")),
        Column("gof", "1", "number", _at("agreement", "gof")),
        Column("findings", "", "text", _codes),
        Column("points", "1", "number", _at("source", "n_points")),
        Column("two_theta_min", "deg", "number", _at("source", "two_theta", 0)),
        Column("two_theta_max", "deg", "number", _at("source", "two_theta", 1)),
        Column("wavelength", "angstrom", "number", _at("source", "wavelength", "lines", 0, 0)),
        Column("format", "", "text", _at("source", "format")),
        Column("sha256", "", "text", _at("source", "sha256")),
        Column("method_sha256", "", "text", _at("method", "sha256")),
        Column("references_sha256", "", "text", _at("references_sha256")),
        Column("xrdz", "", "text", _at("software", "xrdz")),
    ]
    return tuple(columns)


def _phase_columns(id: str, cell: Sequence[str]) -> list[Column]:
    def inside(*keys: str | int) -> Callable[[Document], Any]:
        return _phase(id, *keys)

    return [
        Column(f"{id}.detected", "", "flag", inside("detected")),
        *_quantity(f"{id}.mass_fraction", "1", inside, "mass_fraction"),
        *_estimate(f"{id}.absolute_fraction", "1", inside, "absolute_fraction"),
        Column(f"{id}.detection_limit", "1", "number", inside("detection_limit")),
        *(
            column
            for name in cell
            for column in _estimate(f"{id}.{name}", "deg" if name in ANGLES else "angstrom", inside, "cell", name)
        ),
        Column(f"{id}.density", "g/cm3", "number", inside("density")),
        *_estimate(f"{id}.size", "nm", inside, "size_nm"),
        *_estimate(f"{id}.strain", "1", inside, "strain"),
        *_estimate(f"{id}.texture_r", "1", inside, "texture", "r"),
        Column(f"{id}.r_bragg", "%", "number", inside("r_bragg")),
    ]


# --- rows -------------------------------------------------------------------------------------------------------------


def documents(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON document of every row of a run, ordered by name; `batch.revision` counts the contents of a file.

    A run of `xrdz watch` has a row for each content a file has had, any other the newest one alone.

    Raises
    ------
    InputError
        If there is no run, or a part is damaged.
    """
    run = existing_run(path)
    record = read_run(run.path) or {}
    places = _places(run, every=bool(record.get("every")))
    labels = len({place.part.parent for place in places})
    held: OrderedDict[Path, list[str]] = OrderedDict()
    for place in places:
        if place.part not in held:
            held[place.part] = part_lines(place.part)
            if len(held) > max(PARTS_IN_MEMORY, 2 * labels):
                held.popitem(last=False)
        held.move_to_end(place.part)
        document = json.loads(held[place.part][place.number])
        yield {**document, "batch": {**document["batch"], "revision": place.revision}}


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    """Where the document of a row stands; ten thousand of them take three megabytes."""

    name: str
    finished: str
    part: Path
    number: int
    content: bytes
    revision: int = 1


def _places(run: RunFolder, *, every: bool) -> list[_Place]:
    """Return the newest row of each content of each file, or of each file, ordered by name and time."""
    newest: dict[tuple[str, bytes], _Place] = {}
    for scan in rows_of_parts(run):
        content = bytes.fromhex(scan.row.sha256[:32])
        place = _Place(scan.row.file, scan.row.finished, scan.part, scan.number, content)
        other = newest.get((place.name, content))
        if other is None or place > other:
            newest[place.name, content] = place
    chosen: list[_Place] = []
    revisions: Counter[str] = Counter()
    for place in sorted(newest.values()):
        revisions[place.name] += 1
        if not every and chosen and chosen[-1].name == place.name:
            chosen.pop()
        chosen.append(replace(place, revision=revisions[place.name]) if revisions[place.name] > 1 else place)
    if every:
        return chosen
    closed = {place.name: place.finished for place in chosen if not place.content}
    opened = opened_since(closed, ((place.name, place.finished) for place in chosen))
    return [place for place in chosen if place.name not in opened] if opened else chosen


def rows(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the table of a run as mappings from header to value, None where there is none."""
    columns = columns_of(shape_of_run(path))
    for document in documents(path):
        yield {column.header: column.value(document) for column in columns}


def frame(path: str | Path) -> Any:
    """Return the table of a run as a pandas data frame, one row a scan, units in the column names.

    Raises
    ------
    InputError
        If there is no run, or pandas is not installed.
    """
    pandas = _needed("pandas")
    columns = columns_of(shape_of_run(path))
    table = pandas.DataFrame(list(rows(path)), columns=[column.header for column in columns])
    kinds = {"number": "float64", "flag": "boolean", "text": "string"}
    return table.astype({column.header: kinds[column.kind] for column in columns})


# --- files ------------------------------------------------------------------------------------------------------------


def parse_formats(text: str) -> tuple[str, ...]:
    """Return the formats that text such as `csv,parquet` names; CSV is always among them.

    Raises
    ------
    InputError
        If one is not known.
    """
    named = [part.strip().lower() for part in text.split(",") if part.strip()]
    for name in named:
        if name not in FORMATS:
            raise InputError(f"--tables {text!r}: {name!r} is not known; expected some of {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(("csv", *named)))


def require_libraries(formats: Sequence[str]) -> None:
    """Find out before a long run whether its tables can be written.

    Raises
    ------
    InputError
        If the library of a format is not installed.
    """
    for name, library in (("parquet", "pyarrow"), ("xlsx", "openpyxl")):
        if name in formats:
            _needed(library)


def write_results(path: str | Path, formats: Sequence[str] = ("csv",)) -> list[Path]:
    """Write the tables of a run into its folder, each whole, and return their paths.

    Raises
    ------
    InputError
        If there is no run, a part is damaged, a file cannot be written or a library is missing.
    """
    path = Path(path)
    shape = shape_of_run(path)
    columns = columns_of(shape)
    written = []
    with root_lock(path):
        for name in formats:
            target = path / f"results.{name}"
            with whole_file(target, remedy="the parts stay valid: make room and start again") as stream:
                WRITERS[name](stream, columns, documents(path))
            written.append(target)
    return written


def append_results(
    path: str | Path, part: Path, revisions: Mapping[str, int], formats: Sequence[str] = ("csv",)
) -> None:
    """Append the rows of one part to the tables that can grow, CSV and JSON Lines.

    Parameters
    ----------
    revisions : which content of its file each row is, counted from 1

    Raises
    ------
    InputError
        If a table cannot be written; it is then to be written anew.
    """
    path = Path(path)
    columns = columns_of(shape_of_run(path))
    rows_of = [
        {**document, "batch": {**document["batch"], "revision": revisions[document["batch"]["file"]]}}
        for document in part_documents(part)
    ]
    for name in formats:
        if name not in APPENDERS:
            continue
        target = path / f"results.{name}"
        lines = io.BytesIO()
        APPENDERS[name](lines, columns, iter(rows_of))
        try:
            # In one call, so that a reader or a kill in between finds whole lines.
            with target.open("ab", buffering=0) as stream:
                if stream.write(lines.getbuffer()) < lines.tell():
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise InputError(f"{target}: cannot be written ({error.strerror})") from None


def _write_csv(stream: IO[bytes], columns: Sequence[Column], rows_of: Iterator[Document]) -> None:
    _csv_lines(stream, [[cell_text(column.header) for column in columns]])
    _append_csv(stream, columns, rows_of)


def _append_csv(stream: IO[bytes], columns: Sequence[Column], rows_of: Iterator[Document]) -> None:
    _csv_lines(stream, ([_csv_cell(column, column.value(document)) for column in columns] for document in rows_of))


def _csv_lines(stream: IO[bytes], lines: Iterable[Sequence[str]]) -> None:
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
    csv.writer(text, lineterminator="\n").writerows(lines)
    text.flush()
    text.detach()


def _csv_cell(column: Column, value: Any) -> str:
    if value is None:
        return ""
    if column.kind == "text":
        return cell_text(str(value))
    if column.kind == "flag":
        return "true" if value else "false"
    return repr(value)


def cell_text(text: str) -> str:
    """Return text as a cell that no spreadsheet takes for a formula and no line-based tool cuts in two."""
    shown = "".join(_visible(letter) for letter in text)
    return f"'{shown}" if shown[:1] in ("=", "+", "-", "@", "'") else shown


def _visible(letter: str) -> str:
    if letter.isprintable() or unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp"):
        return letter
    return f"\\x{ord(letter):02x}" if ord(letter) < 0x100 else f"\\u{ord(letter):04x}"


def _write_jsonl(stream: IO[bytes], columns: Sequence[Column], rows_of: Iterator[Document]) -> None:
    del columns
    for document in rows_of:
        stream.write(json.dumps(document, allow_nan=False).encode("ascii") + b"\n")


def _write_parquet(stream: IO[bytes], columns: Sequence[Column], rows_of: Iterator[Document]) -> None:
    pyarrow = _needed("pyarrow")
    _needed("pyarrow.parquet")
    types = {"text": pyarrow.string(), "number": pyarrow.float64(), "flag": pyarrow.bool_()}
    schema = pyarrow.schema([(column.header, types[column.kind]) for column in columns])
    with pyarrow.parquet.ParquetWriter(stream, schema) as table:
        for some in _batches(rows_of):
            cells = [[_typed_cell(column, column.value(document)) for document in some] for column in columns]
            arrays = [pyarrow.array(values, types[column.kind]) for values, column in zip(cells, columns, strict=True)]
            table.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))


def _write_xlsx(stream: IO[bytes], columns: Sequence[Column], rows_of: Iterator[Document]) -> None:
    openpyxl = _needed("openpyxl")
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("results")
    sheet.freeze_panes = "B2"
    sheet.append([cell_text(column.header) for column in columns])
    for number, document in enumerate(rows_of):
        if number >= XLSX_ROWS:
            raise InputError(f"results.xlsx: a sheet holds {XLSX_ROWS} rows and the run has more; use csv or parquet")
        cells = [_typed_cell(column, column.value(document)) for column in columns]
        sheet.append([cell_text(value) if isinstance(value, str) else value for value in cells])
    book.save(stream)


def _typed_cell(column: Column, value: Any) -> Any:
    """Return a value as its column's type; text that is no valid Unicode as escapes."""
    if value is None:
        return None
    if column.kind == "number":
        return float(value)
    if column.kind == "flag":
        return bool(value)
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _batches(rows_of: Iterator[Document]) -> Iterator[list[Document]]:
    some: list[Document] = []
    for document in rows_of:
        some.append(document)
        if len(some) == ROWS_AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def _needed(library: str) -> Any:
    from importlib import import_module

    try:
        return import_module(library)
    except ImportError:
        raise InputError(
            f"{library.partition('.')[0]} is not installed; install it with: pip install 'xrdz[tables]'"
        ) from None


WRITERS: Mapping[str, Callable[[IO[bytes], Sequence[Column], Iterator[Document]], None]] = {
    "csv": _write_csv,
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
    "xlsx": _write_xlsx,
}

APPENDERS = {"csv": _append_csv, "jsonl": _write_jsonl}
"""Tables to which rows can be added without writing them anew."""
