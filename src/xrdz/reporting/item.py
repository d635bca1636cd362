"""What a report is made of: the JSON document of an analysis, its curves where they exist, and who ordered it.

The invariant: every number of a report is a number of `ReportItem.document`; curves are only drawn. So a fresh
analysis, a stored result and an archive all give the same report.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xrdz.analysis import SCHEMA
from xrdz.diffractogram import FloatArray
from xrdz.errors import InputError

if TYPE_CHECKING:
    from xrdz.analysis import Analysis
    from xrdz.method import Method
    from xrdz.sample_sheet import Sample, SampleSheet

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class PhaseCurve:
    """One phase's share of the calculated curve, and where its reflections stand.

    Parameters
    ----------
    intensity : shape (n,), without background
    hkl : shape (m, 3)
    positions : shape (m,), degrees 2theta of the principal line
    cell : a, b, c in angstrom, alpha, beta, gamma in degrees; None when only the document's free ones are known
    """

    id: str
    intensity: FloatArray
    hkl: IntArray
    positions: FloatArray
    cell: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Curves:
    """What a plot shows: all arrays of shape (n,), intensities as the fit took them.

    Parameters
    ----------
    two_theta : degrees
    su : standard uncertainty of each observed intensity under the model
    excluded : intervals of 2theta that were left out, degrees
    """

    two_theta: FloatArray
    observed: FloatArray
    calculated: FloatArray
    background: FloatArray
    su: FloatArray
    phases: tuple[PhaseCurve, ...]
    excluded: tuple[tuple[float, float], ...] = ()

    @property
    def weighted_difference(self) -> FloatArray:
        """(observed - calculated) / su."""
        result: FloatArray = (self.observed - self.calculated) / self.su
        return result


@dataclass(frozen=True)
class Order:
    """What a report says besides the result: whose laboratory, which method in full, whose sample.

    Parameters
    ----------
    laboratory : free texts of the method file: name, address, contact, location, accreditation, logo, analyst,
        authorised_by, and any other, which is printed under its own key
    logo : bytes of the laboratory's logo (SVG, PNG, JPEG), None without one
    deviations : what the command line changed of the method
    decision : rule, coverage and method_u_ln, where known
    instrument : name of the diffractometer as the method has it
    sample : the scan's row of the sample sheet, by column
    """

    laboratory: Mapping[str, str] = field(default_factory=dict)
    logo: bytes | None = None
    deviations: tuple[str, ...] = ()
    decision: Mapping[str, Any] = field(default_factory=dict)
    instrument: str = ""
    sample: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportItem:
    """One scan of a report."""

    document: Mapping[str, Any]
    curves: Curves | None = None
    order: Order = field(default_factory=Order)

    @property
    def path(self) -> str:
        """Path of the raw file as the analysis was given it."""
        return str(self.document.get("source", {}).get("path") or "")

    @property
    def name(self) -> str:
        """File name of the scan, of a path of either system."""
        return PurePath(self.path.replace("\\", "/")).name or "diffractogram"

    @property
    def title(self) -> str:
        """Name of the scan in its run, which tells equal file names of different folders apart; else its file name."""
        return str((self.document.get("batch") or {}).get("file") or self.name)

    @property
    def sha256(self) -> str:
        """Hash of the document without what differs from run to run; hexadecimal."""
        return hashlib.sha256(canonical(self.document).encode()).hexdigest()


def canonical(document: Mapping[str, Any]) -> str:
    """Return a document as JSON that depends on its content alone: without `timing`, and `batch` of a run."""
    kept = {key: value for key, value in document.items() if key not in ("timing", "batch")}
    return json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def item_of_analysis(analysis: Analysis, sample: Sample | None = None) -> ReportItem:
    """Return the report item of a fresh analysis, with its curves unless the fit failed."""
    document = analysis.to_dict()
    stored = document.get("sample")
    return ReportItem(document, curves_of_analysis(analysis), order_of(analysis.method, sample, stored))


def curves_of_analysis(analysis: Analysis) -> Curves | None:
    """Return the curves of a fit, None when there is none."""
    result = analysis.fit
    if result is None:
        return None
    pattern = result.pattern
    x = pattern.two_theta
    phases = []
    for number, phase in enumerate(pattern.phases):
        centre = pattern.peak_state(phase, result.values).centre
        inside = (centre >= x[0]) & (centre <= x[-1])
        phases.append(
            PhaseCurve(
                phase.id, result.phase_curve(number), phase.hkl[inside], centre[inside], phase.cell(result.values)
            )
        )
    return Curves(
        two_theta=x,
        observed=result.diffractogram.intensity,
        calculated=result.model,
        background=result.background,
        su=1.0 / np.sqrt(result.minimum.weights),
        phases=tuple(phases),
        excluded=tuple((low, high) for low, high in analysis.method.exclude if high > x[0] and low < x[-1]),
    )


def order_of(method: Method, sample: Sample | None = None, stored: Mapping[str, Any] | None = None) -> Order:
    """Return what a method file and a row of the sample sheet say for a report.

    Parameters
    ----------
    stored : the row as a result document holds it, when there is no sheet at hand
    """
    decision = method.decision
    return Order(
        laboratory=dict(method.laboratory),
        logo=_logo(method),
        deviations=method.deviations,
        decision={"rule": decision.rule, "coverage": decision.coverage, "method_u_ln": decision.method_u_ln},
        instrument=method.instrument.name or "",
        sample=row_of_sheet(sample, stored),
    )


def _logo(method: Method) -> bytes | None:
    """Return the laboratory's logo, a file beside the method."""
    entry = method.laboratory.get("logo")
    if not entry:
        return None
    path = method.directory / entry
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"[laboratory] logo = {entry!r}: {path} cannot be read ({error.strerror}); "
            "expected an SVG, PNG or JPEG file, its path relative to the method file"
        ) from None


def stored_order(document: Mapping[str, Any], method: Method | None, sheet: SampleSheet | None) -> Order:
    """Return what can be said of a stored result: from a method file and sheet given now, else from the document.

    A method whose hash is not that of the result, with or without its laboratory, gives the letterhead alone.
    """
    source, named = document.get("source", {}), document.get("method", {})
    sample = None if sheet is None else sheet.find(str(source.get("path", "")))
    stored = Order(
        laboratory=named.get("laboratory") or {},
        deviations=tuple(named.get("deviations") or ()),
        decision=named.get("decision") or {},
        instrument=str(named.get("instrument") or ""),
        sample=row_of_sheet(sample, document.get("sample")),
    )
    if method is None:
        return stored
    given = order_of(method, sample, document.get("sample"))
    if named.get("sha256") in (method.sha256, replace(method, laboratory={}).sha256):
        return given
    return replace(stored, laboratory=given.laboratory, logo=given.logo)


def row_of_sheet(sample: Sample | None, stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the filled cells of a row of the sample sheet, or of the row a document holds."""
    row = dict(stored or {}) if sample is None else sample.to_dict()
    return {key: value for key, value in row.items() if value is not None}


def read_documents(path: Path) -> Iterable[Mapping[str, Any]]:
    """Yield the analysis documents of a JSON file (one document) or JSON Lines file (one a line).

    Raises
    ------
    InputError
        If the file cannot be read, or a line is no analysis document.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            if path.suffix.lower() == ".jsonl":
                for number, line in enumerate(stream, 1):
                    if line.strip():
                        yield checked(_parsed(line, f"{path} line {number}"), f"{path} line {number}")
            else:
                text = stream.read()
                lines = [line for line in text.splitlines() if line.strip()]
                if len(lines) > 1 and lines[1].lstrip().startswith('{"schema"'):
                    for number, line in enumerate(lines, 1):
                        yield checked(_parsed(line, f"{path} document {number}"), f"{path} document {number}")
                else:
                    yield checked(_parsed(text, str(path)), str(path))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"{path}: cannot be read ({why}); expected the JSON of `xrdz fit --json`") from None


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(
            f"{place}: not JSON ({error}); expected the output of `xrdz fit --json`. "
            "A scan is analysed first: xrdz fit, xrdz batch"
        ) from None


def checked(document: Any, place: str) -> Mapping[str, Any]:
    """Return a document if it is an analysis.

    Raises
    ------
    InputError
        If it has another schema, or a part of an analysis is missing or of another kind.
    """
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise InputError(f"{place}: schema {schema!r}; expected {SCHEMA!r}, as `xrdz fit --json` writes it")
    found: Mapping[str, Any] = document
    for key, kind in NEEDED.items():
        if not isinstance(found.get(key), kind):
            raise InputError(f"{place}: {key!r} is missing or no {kind.__name__}; expected a whole {SCHEMA} document")
    for key, keys in LISTED.items():
        entries = found.get(key, [])
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and keys <= entry.keys() for entry in entries
        ):
            listed = ", ".join(sorted(keys))
            raise InputError(
                f"{place}: {key!r} is no list of entries with {listed}; expected a whole {SCHEMA} document"
            )
    return found


NEEDED: Mapping[str, type] = {"source": dict, "method": dict, "status": str, "findings": list}
LISTED: Mapping[str, frozenset[str]] = {
    "phases": frozenset({"id", "formula", "mass_fraction"}),
    "claims": frozenset({"claim", "verdict"}),
    "findings": frozenset({"level", "code"}),
}
"""What a document must hold for a report, and what the entries of its lists must."""
