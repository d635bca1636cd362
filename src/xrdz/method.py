"""The method: everything that decides a result besides the scan, read from a file a laboratory can lock and version.

`METHOD_FIELDS` is the whole vocabulary: reading, refusing and `schemas/method.schema.json` come from it. The
invariant: `Method.sha256` is the hash of what the method says (defaults written out, CIF files by their bytes,
comments and file names left out), so the same content has the same hash through every door.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from xrdz.errors import InputError
from xrdz.fields import (
    Estimate,
    Field,
    Kind,
    Place,
    choice,
    document_schema,
    estimate,
    list_of,
    mapping_of,
    nearest,
    number,
    read_table,
    read_toml,
    refuse,
    table,
    text,
)
from xrdz.instrument import (
    FREE_TEXT,
    INSTRUMENT_FIELDS,
    INSTRUMENT_TABLE,
    POSITIVE,
    TWO_THETA,
    Instrument,
    IntensityResponse,
    Resolution,
    read_instrument,
    write_instrument,
)

__all__ = [
    "Decision",
    "Estimate",
    "ExternalStandard",
    "Instrument",
    "IntensityResponse",
    "InternalStandard",
    "Method",
    "Resolution",
    "default_candidates",
    "default_method",
    "default_ratio",
    "is_cif",
    "method_schema",
    "parse_phases",
    "parse_range",
    "parse_ratio",
    "phase_id",
    "read_instrument",
    "read_method",
    "write_instrument",
]

DecisionRule = Literal["simple", "guard-band", "non-binary"]

UNSTATED: tuple[str, ...] = ("",)
"""Stands for candidates that a method does not name; the method then has its `default_candidates`."""

TIN_NICKEL_CANDIDATES = ("ni", "ni3sn2", "sno2", "graphite", "cu")
"""What tin-nickel powders hold besides: left-over and richer phases, oxide, the electrode's carbon, and its foil."""


@dataclass(frozen=True)
class InternalStandard:
    """A phase weighed into the specimen: its mass fraction of the spiked specimen and that weighing's su."""

    phase: str
    mass_fraction: float
    su: float = 0.0


@dataclass(frozen=True)
class ExternalStandard:
    """What a scan of a pure phase on the same instrument says about absolute amounts; see `standards`.

    Parameters
    ----------
    k, su : K factor of `standards.k_factor` and its standard uncertainty
    time_per_step_s : counting time of the standard's scan; None when it was that of the sample's scan
    composition : mass fraction per element of the specimen, for its absorption; that of the fitted phases when empty
    """

    k: float
    su: float = 0.0
    time_per_step_s: float | None = None
    composition: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """How a value and its uncertainty become a verdict (ILAC-G8:09/2019; JCGM 106:2012).

    Parameters
    ----------
    rule : simple acceptance, guard band w = U, or non-binary
    coverage : probability of the two-sided coverage interval behind U
    method_u_ln : the laboratory's own reproducibility of ln Z, one standard uncertainty; None when never determined
    """

    rule: DecisionRule = "non-binary"
    coverage: float = 0.95
    method_u_ln: float | None = None


@dataclass(frozen=True)
class Method:
    """What is fitted and how it is judged.

    Parameters
    ----------
    phases, candidates : ids of the reference library, or absolute paths of CIF files; candidates left out,
        `default_candidates` of the phases
    ratio : ids of numerator and denominator; left out, `default_ratio` of the phases
    two_theta : degrees, cut to what the scan holds; None for all of it
    exclude : degrees, ascending intervals that are left out
    particle_size_um : per phase id, for microabsorption
    laboratory : free text under free keys, for the report
    deviations : what the command line changed, for the report; no part of the hash
    directory : where relative paths start
    sha256 : of `to_dict()` as canonical JSON
    """

    name: str = "default"
    version: str = "1"
    phases: tuple[str, ...] = ("sn", "ni3sn4")
    candidates: tuple[str, ...] = UNSTATED
    ratio: tuple[str, str] | None = None
    two_theta: tuple[float, float] | None = None
    exclude: tuple[tuple[float, float], ...] = ()
    instrument: Instrument = field(default_factory=Instrument)
    particle_size_um: Mapping[str, Estimate] = field(default_factory=dict)
    internal_standard: InternalStandard | None = None
    external_standard: ExternalStandard | None = None
    decision: Decision = field(default_factory=Decision)
    laboratory: Mapping[str, str] = field(default_factory=dict)
    directory: Path = field(default_factory=Path.cwd)
    deviations: tuple[str, ...] = ()
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        if self.candidates is UNSTATED:
            object.__setattr__(self, "candidates", default_candidates(self.phase_ids))
        if self.ratio is None:
            standard = self.internal_standard.phase if self.internal_standard else ""
            object.__setattr__(self, "ratio", default_ratio(self.phase_ids, standard))
        _check_ids(self)
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        object.__setattr__(self, "sha256", hashlib.sha256(canonical.encode()).hexdigest())

    @property
    def phase_ids(self) -> tuple[str, ...]:
        """Ids of the phases, a CIF under its file stem in lower case."""
        return tuple(phase_id(entry) for entry in self.phases)

    @property
    def candidate_ids(self) -> tuple[str, ...]:
        """Ids of the candidate phases."""
        return tuple(phase_id(entry) for entry in self.candidates)

    def to_dict(self) -> dict[str, Any]:
        """Return what the method says, defaults written out: the content behind `sha256`."""
        standard, external = self.internal_standard, self.external_standard
        return {
            "name": self.name,
            "version": self.version,
            "phases": [_phase_content(entry) for entry in self.phases],
            "candidates": [_phase_content(entry) for entry in self.candidates],
            "ratio": None if self.ratio is None else "/".join(self.ratio),
            "two_theta": None if self.two_theta is None else [float(angle) for angle in self.two_theta],
            "exclude": [[float(angle) for angle in interval] for interval in self.exclude],
            "instrument": self.instrument.to_dict(),
            "particle_size_um": {phase: size.to_json() for phase, size in self.particle_size_um.items()},
            "internal_standard": None
            if standard is None
            else {"phase": standard.phase, "mass_fraction": [standard.mass_fraction, standard.su]},
            "external_standard": None
            if external is None
            else {
                "k": [external.k, external.su],
                "time_per_step_s": external.time_per_step_s,
                "composition": dict(external.composition),
            },
            "decision": {
                "rule": self.decision.rule,
                "coverage": self.decision.coverage,
                "method_u_ln": self.decision.method_u_ln,
            },
            "laboratory": dict(self.laboratory),
        }

    def with_options(
        self,
        *,
        phases: Sequence[str] | None = None,
        cifs: Sequence[str | Path] = (),
        ratio: tuple[str, str] | None = None,
        instrument: Instrument | str | Path | None = None,
        two_theta: tuple[float, float] | None = None,
        exclude: Sequence[tuple[float, float]] = (),
    ) -> Method:
        """Return the method with command-line options applied; without any, the method itself.

        Parameters
        ----------
        phases : replaces the method's phases; the ratio then falls back to the default if it no longer applies
        cifs : CIF files; each stands in for the phase of its id, or is added as one more phase
        instrument : replaces the method's instrument, a path is read
        two_theta : replaces the method's range, degrees
        exclude : is added to the method's excluded intervals, degrees

        Raises
        ------
        InputError
            If a file cannot be read, or the ratio names a phase that is not fitted.
        """
        changes: dict[str, Any] = {}
        deviations = []
        if phases is not None or cifs:
            entries = _with_cifs(self.phases if phases is None else _phase_entries(phases, Path.cwd()), cifs)
            ids = tuple(phase_id(entry) for entry in entries)
            candidates = tuple(entry for entry in self.candidates if phase_id(entry) not in ids)
            if self.candidates == default_candidates(self.phase_ids):
                candidates = default_candidates(ids)
            changes |= {"phases": entries, "candidates": candidates}
            if self.ratio is None or not set(self.ratio) <= {*ids, *map(phase_id, candidates)}:
                changes["ratio"] = None
            deviations.append(f"phases = {', '.join(ids)}")
        if ratio is not None:
            changes["ratio"] = ratio
            deviations.append(f"ratio = {'/'.join(ratio)}")
        if instrument is not None:
            read = instrument if isinstance(instrument, Instrument) else read_instrument(instrument)
            changes["instrument"] = read
            deviations.append(f"instrument = {read.name or 'unnamed'}")
        if two_theta is not None:
            changes["two_theta"] = two_theta
            deviations.append(f"two_theta = {two_theta[0]:g} to {two_theta[1]:g} deg")
        if exclude:
            changes["exclude"] = tuple(sorted({*self.exclude, *exclude}))
            deviations.append("exclude also " + ", ".join(f"{low:g} to {high:g} deg" for low, high in exclude))
        if not changes:
            return self
        return replace(self, **changes, deviations=(*self.deviations, *deviations))


def phase_id(entry: str) -> str:
    """Return the id of a phase entry: itself in lower case, or the lower-case file stem of a CIF path."""
    return Path(entry).stem.lower() if is_cif(entry) else entry.lower()


def is_cif(entry: str) -> bool:
    """Return whether a phase entry is the path of a CIF file rather than an id of the reference library."""
    return entry.lower().endswith(".cif")


def default_ratio(phase_ids: Sequence[str], internal_standard: str = "") -> tuple[str, str] | None:
    """Return ni3sn4/sn when both are fitted, else the second phase over the first, else None.

    An internal standard is never part of the ratio.
    """
    if {"sn", "ni3sn4"} <= set(phase_ids):
        return "ni3sn4", "sn"
    weighed = [phase for phase in phase_ids if phase != internal_standard]
    return (weighed[1], weighed[0]) if len(weighed) > 1 else None


def default_candidates(phase_ids: Sequence[str]) -> tuple[str, ...]:
    """Return what is tried besides sn and ni3sn4 when they are all that is fitted, else nothing."""
    return TIN_NICKEL_CANDIDATES if set(phase_ids) == {"sn", "ni3sn4"} else ()


def default_method() -> Method:
    """Return the method used without a method file: Sn and Ni3Sn4, nothing known about the instrument."""
    return Method()


def read_method(path: str | Path) -> Method:
    """Return the method a TOML file describes.

    Raises
    ------
    InputError
        If the file cannot be read, holds an unknown key, or a value is not what its key expects.
    """
    path = Path(path)
    directory = path.resolve().parent
    values = read_table(read_toml(path), METHOD_FIELDS, Place(path.name))
    for key in ("phases", "candidates"):
        if key in values:
            values[key] = _phase_entries(values[key], directory)
    if "exclude" in values:
        values["exclude"] = tuple(sorted(set(values["exclude"])))
    if isinstance(values.get("instrument"), str):
        values["instrument"] = read_instrument(directory / values["instrument"])
    if "particle_size_um" in values:
        values["particle_size_um"] = {phase.lower(): size for phase, size in values["particle_size_um"].items()}
    try:
        method = Method(**values, directory=directory)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from error
    known = (*method.phase_ids, *method.candidate_ids)
    for phase in method.particle_size_um:
        if phase not in known:
            raise InputError(
                f"{path.name} [particle_size_um]: {phase!r} is no phase or candidate of this method; "
                f"the nearest is {nearest(phase, known)!r}"
            )
    return method


def parse_range(option_text: str, option: str = "--range") -> tuple[float, float]:
    """Return (low, high) in degrees 2theta from text such as `20:100`.

    Raises
    ------
    InputError
        If the text is not two ascending angles between 0 and 180.
    """
    try:
        low, high = (float(part) for part in option_text.split(":"))
    except ValueError:
        low, high = 0.0, 0.0
    if not 0.0 <= low < high <= 180.0:
        raise InputError(f"{option} {option_text!r}: expected LOW:HIGH in degrees 2theta, such as 20:100")
    return low, high


def parse_ratio(option_text: str, option: str = "--ratio") -> tuple[str, str]:
    """Return the ids (numerator, denominator) from text such as `ni3sn4/sn`.

    Raises
    ------
    InputError
        If the text is not two different ids with one slash between them.
    """
    parts = [part.strip().lower() for part in option_text.split("/")]
    if len(parts) != 2 or not all(parts) or parts[0] == parts[1]:
        raise InputError(f"{option} {option_text!r}: expected two different phase ids, such as ni3sn4/sn")
    return parts[0], parts[1]


def parse_phases(option_text: str, option: str = "--phases") -> tuple[str, ...]:
    """Return phase ids from text such as `sn,ni3sn4,cu`.

    Raises
    ------
    InputError
        If an id between two commas is empty.
    """
    parts = tuple(part.strip() for part in option_text.split(","))
    if not all(parts):
        raise InputError(f"{option} {option_text!r}: expected phase ids separated by commas, such as sn,ni3sn4")
    return parts


def method_schema() -> dict[str, Any]:
    """Return the JSON Schema of a method file, for editors."""
    return document_schema(METHOD_FIELDS, "xrdz method")


def _phase_entries(entries: Sequence[str], directory: Path) -> tuple[str, ...]:
    """Return ids in lower case and CIF paths made absolute from `directory`."""
    return tuple(str((directory / entry).resolve()) if is_cif(entry) else entry.lower() for entry in entries)


def _with_cifs(entries: tuple[str, ...], cifs: Sequence[str | Path]) -> tuple[str, ...]:
    """Return the entries with each CIF in the place of the entry of its id, or at the end."""
    paths = {phase_id(path): path for path in (str(Path(cif).resolve()) for cif in cifs)}
    for path in paths.values():
        if not is_cif(path):
            raise InputError(f"--cif {path}: expected a file with the suffix .cif")
    replaced = tuple(paths.pop(phase_id(entry), entry) for entry in entries)
    return (*replaced, *paths.values())


def _phase_content(entry: str) -> str | list[str]:
    """Return what identifies a phase: its id, with the hash of its CIF if it comes from one."""
    if not is_cif(entry):
        return entry
    try:
        return [phase_id(entry), hashlib.sha256(Path(entry).read_bytes()).hexdigest()]
    except OSError as error:
        raise InputError(f"phase {entry!r}: the CIF file cannot be read ({error.strerror})") from error


def _check_ids(method: Method) -> None:
    """Raise InputError when a phase is named twice, or ratio or internal standard name one that is not fitted."""
    ids = (*method.phase_ids, *method.candidate_ids)
    if not method.phases:
        raise InputError("phases = []: expected at least one phase id or CIF path")
    for phase in ids:
        if ids.count(phase) > 1:
            raise InputError(f"phase {phase!r} is named twice in phases and candidates; name it once")
    standard = method.internal_standard
    if standard is not None and standard.phase not in method.phase_ids:
        raise InputError(
            f"internal_standard phase {standard.phase!r} is not fitted; "
            f"add it to phases, now {', '.join(method.phase_ids)}"
        )
    for phase in method.ratio or ():
        if phase not in ids:
            raise InputError(f"ratio names {phase!r}, which is not fitted; the nearest is {nearest(phase, ids)!r}")


# The vocabulary of a method file.


def _instrument(value: Any, place: Place) -> Instrument | str:
    if isinstance(value, str):
        return value
    converted: Instrument = INSTRUMENT_TABLE.convert(value, place)
    return converted


def _ratio(value: Any, place: Place) -> tuple[str, str]:
    if not isinstance(value, str):
        raise refuse(place, value, _RATIO.expected)
    return parse_ratio(value, str(place))


def _build_standard(values: dict[str, Any], _place: Place) -> InternalStandard:
    weighed: Estimate = values["mass_fraction"]
    return InternalStandard(values["phase"].lower(), weighed.value, weighed.su or 0.0)


def _build_external(values: dict[str, Any], place: Place) -> ExternalStandard:
    factor: Estimate = values["k"]
    composition: dict[str, float] = values.get("composition", {})
    total = sum(composition.values())
    if composition and abs(total - 1.0) > 0.02:
        raise InputError(f"{place} composition: the mass fractions sum to {total:g}; expected 1")
    return ExternalStandard(factor.value, factor.su or 0.0, values.get("time_per_step_s"), composition)


_FRACTION = number("a fraction between 0 and 1", above=0.0, below=1.0)
_IDS = list_of(text("a phase id or CIF path in quotes"), 'a list of phase ids or CIF paths, such as ["sn", "ni3sn4"]')
_RATIO = Kind('two phase ids, such as "ni3sn4/sn"', _ratio, {"type": "string", "pattern": "^[^/]+/[^/]+$"})

_STANDARD_FIELDS = (
    Field("phase", text("a phase id in quotes"), "Id of the weighed phase; it must be one of phases.", required=True),
    Field(
        "mass_fraction",
        estimate(_FRACTION),
        "Mass fraction of the spiked specimen, 0 to 1; value or [value, su].",
        required=True,
    ),
)
_EXTERNAL_FIELDS = (
    Field(
        "k",
        estimate(POSITIVE),
        "K factor of a pure phase's scan on the same instrument, from xrdz.standards.k_factor; value or [value, su].",
        required=True,
    ),
    Field(
        "time_per_step_s",
        POSITIVE,
        "Counting time per step of the pure phase's scan, s; left out, that of the sample's scan.",
    ),
    Field(
        "composition",
        mapping_of(_FRACTION, "a table of mass fractions per element, such as {Ni = 0.15, Sn = 0.85}"),
        "Mass fraction per element of the specimen, for its absorption; left out, that of the fitted phases.",
    ),
)
_DECISION_FIELDS = (
    Field(
        "rule",
        choice("simple", "guard-band", "non-binary"),
        "Decision rule after ILAC-G8:09/2019, in ln Z; default non-binary.",
    ),
    Field(
        "coverage",
        number("a probability such as 0.95, from 0.5 to below 1", at_least=0.5, below=1.0),
        "Coverage probability of the expanded uncertainty, default 0.95.",
    ),
    Field(
        "method_u_ln",
        number("a standard uncertainty of ln Z, zero or more, such as 0.05", at_least=0.0, at_most=2.0),
        "The laboratory's own reproducibility of ln Z; absent: verdicts are provisional.",
    ),
)
METHOD_FIELDS = (
    Field("name", text(), "Name of the method, as reports print it."),
    Field("version", text('text in quotes, such as "1"'), "Version of the method; raise it with every change."),
    Field("phases", _IDS, 'Phases to fit: reference ids or CIF paths relative to this file; default ["sn", "ni3sn4"].'),
    Field(
        "candidates",
        _IDS,
        "Phases that are tried and kept only on evidence; default ni, ni3sn2, sno2, graphite, cu "
        "beside sn and ni3sn4 alone, else none.",
    ),
    Field("ratio", _RATIO, "Mass ratio to report, numerator/denominator; default ni3sn4/sn."),
    Field("two_theta", TWO_THETA, "Range to fit, degrees 2theta, cut to what the scan holds; default all."),
    Field(
        "exclude",
        list_of(TWO_THETA, "a list of [low, high] in degrees 2theta, such as [[42.9, 43.7]]"),
        "Intervals to leave out, degrees 2theta.",
    ),
    Field(
        "instrument",
        Kind(
            INSTRUMENT_TABLE.expected,
            _instrument,
            {"anyOf": [{"type": "string", "minLength": 1}, dict(INSTRUMENT_TABLE.schema)]},
            INSTRUMENT_FIELDS,
        ),
        "Path of an instrument file relative to this file, or an inline table.",
    ),
    Field(
        "particle_size_um",
        mapping_of(estimate(POSITIVE), "a table of sizes per phase id"),
        "Particle size per phase, micrometres, for microabsorption; value or [value, su].",
    ),
    Field(
        "internal_standard",
        table(_STANDARD_FIELDS, _build_standard, "a table with phase and mass_fraction"),
        "A phase weighed into the specimen, for the amorphous part.",
    ),
    Field(
        "external_standard",
        table(_EXTERNAL_FIELDS, _build_external, "a table with k"),
        "A pure phase measured on the same instrument, for absolute amounts without a spike.",
    ),
    Field(
        "decision",
        table(_DECISION_FIELDS, lambda values, _place: Decision(**values), "a table"),
        "How a value and its uncertainty become a verdict.",
    ),
    Field("laboratory", FREE_TEXT, "Free texts for the report, such as name and address."),
)
