"""Weighed mixtures against what the program recovers from their scans: accuracy, and whether the intervals hold.

    error_i = w_i - truth_i,   RMS = sqrt(mean error_i^2),   inside: low_i <= truth_i <= high_i

A truth that adds up to less than one is of the whole specimen, amorphous part included: it is compared with the
absolute fractions where the method gives them. Errors are mass fractions here and mass % where people read them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xrdz.analysis import Analysis, number
from xrdz.errors import FitError, InputError, XrdzError
from xrdz.fields import nearest
from xrdz.method import Method, default_method, read_method
from xrdz.pipeline import analyse

SCHEMA = "xrdz.validation/1"
KEYS = ("scan", "method", "phases", "truth", "number")
WHOLE = 0.995
"""A truth that sums to less is of a specimen with an amorphous part."""


@dataclass(frozen=True)
class Sample:
    """One entry of a manifest, its paths made absolute.

    Parameters
    ----------
    method : None for the default method
    phases : replaces the method's phases; None keeps them
    truth : weighed mass fraction, 0 to 1, by phase id
    number : which scan of a file with several
    """

    scan: Path
    truth: Mapping[str, float]
    method: Path | None = None
    phases: tuple[str, ...] | None = None
    number: str | None = None


@dataclass(frozen=True)
class Recovered:
    """One quantity beside its truth: a mass fraction, or the mass ratio of two phases."""

    name: str
    truth: float
    value: float
    su_stat: float
    su: float
    low: float
    high: float
    detected: bool = True

    @property
    def error(self) -> float:
        """Value less truth."""
        return self.value - self.truth

    @property
    def inside(self) -> bool:
        """Whether the 95 % interval holds the truth."""
        return self.low <= self.truth <= self.high

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "name": self.name,
            "truth": self.truth,
            "value": number(self.value),
            "su_stat": number(self.su_stat),
            "su": number(self.su),
            "interval95": [number(self.low), number(self.high)],
            "error": number(self.error),
            "inside": self.inside,
            "detected": self.detected,
        }


@dataclass(frozen=True)
class SampleResult:
    """What one sample gave; one that could not be read or fitted has the same type, with its error.

    Parameters
    ----------
    ratio : the method's mass ratio, where the truth holds both of its phases
    exit_code : of the error, 0 without one
    """

    sample: Sample
    fractions: tuple[Recovered, ...] = ()
    ratio: Recovered | None = None
    status: str = "failed"
    gof: float | None = None
    findings: tuple[str, ...] = ()
    error: str = ""
    exit_code: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "scan": self.sample.scan.name,
            "method": None if self.sample.method is None else self.sample.method.name,
            "status": self.status,
            "gof": number(self.gof),
            "fractions": [item.to_dict() for item in self.fractions],
            "mass_ratio": None if self.ratio is None else self.ratio.to_dict(),
            "findings": list(self.findings),
            "error": self.error or None,
        }


@dataclass(frozen=True)
class Validation:
    """All samples of a manifest with their statistics."""

    samples: tuple[SampleResult, ...]

    @property
    def fractions(self) -> tuple[Recovered, ...]:
        """Every recovered mass fraction."""
        return tuple(item for sample in self.samples for item in sample.fractions)

    @property
    def ratios(self) -> tuple[Recovered, ...]:
        """Every recovered mass ratio."""
        return tuple(sample.ratio for sample in self.samples if sample.ratio is not None)

    @property
    def rms(self) -> float | None:
        """Root mean square error of the mass fractions, None without any."""
        return float(np.sqrt(np.mean([item.error**2 for item in self.fractions]))) if self.fractions else None

    @property
    def worst(self) -> float | None:
        """Largest absolute error of the mass fractions."""
        return max((abs(item.error) for item in self.fractions), default=None)

    @property
    def inside(self) -> int:
        """Number of true mass fractions inside their intervals."""
        return sum(item.inside for item in self.fractions)

    @property
    def exit_code(self) -> int:
        """0 when every sample was analysed, the error's code when none was, 4 when some were not."""
        codes = [sample.exit_code for sample in self.samples]
        if not any(codes):
            return 0
        return codes[0] if all(codes) else 4

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {
            "schema": SCHEMA,
            "samples": [sample.to_dict() for sample in self.samples],
            "summary": {
                "fractions": len(self.fractions),
                "rms": number(self.rms),
                "worst": number(self.worst),
                "inside": self.inside,
                "inside_share": self.inside / len(self.fractions) if self.fractions else None,
                "failed": sum(bool(sample.exit_code) for sample in self.samples),
            },
        }


def read_manifest(path: str | Path) -> tuple[Sample, ...]:
    """Return the samples of a manifest; paths in it are relative to it.

    Raises
    ------
    InputError
        If the file is no JSON, has an unknown key, or a truth that is no set of mass fractions.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); expected a manifest of `xrdz validate`") from None
    samples = content.get("samples") if isinstance(content, dict) else None
    if not isinstance(samples, list) or not samples:
        raise InputError(f'{path.name}: expected {{"samples": [...]}} with at least one sample')
    return tuple(_sample(entry, f"{path.name} sample {k}", path.parent) for k, entry in enumerate(samples, start=1))


def _sample(entry: Any, where: str, folder: Path) -> Sample:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected an object with scan and truth, found {entry!r}")
    for key in entry:
        if key not in KEYS:
            raise InputError(f"{where}: unknown key {key!r}; the nearest is {nearest(key, KEYS)!r}")
    scan, truth, phases = entry.get("scan"), entry.get("truth"), entry.get("phases")
    if not isinstance(scan, str):
        raise InputError(f"{where}: scan is {scan!r}; expected a file name")
    if not isinstance(truth, dict) or not truth:
        raise InputError(f"{where}: truth is {truth!r}; expected mass fractions by phase id")
    for phase, value in truth.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
            raise InputError(f"{where}: truth of {phase!r} is {value!r}; expected a mass fraction from 0 to 1")
    if sum(truth.values()) > 1.001:
        raise InputError(
            f"{where}: the truths add up to {sum(truth.values()):.4f}; expected mass fractions that sum to 1 at most"
        )
    if phases is not None and not (isinstance(phases, list) and all(isinstance(item, str) for item in phases)):
        raise InputError(f"{where}: phases is {phases!r}; expected a list of phase ids")
    method, which = entry.get("method"), entry.get("number")
    if method is not None and not isinstance(method, str):
        raise InputError(f"{where}: method is {method!r}; expected a file name")
    return Sample(
        scan=folder / scan,
        truth={phase.lower(): float(value) for phase, value in truth.items()},
        method=None if method is None else folder / method,
        phases=None if phases is None else tuple(phases),
        number=None if which is None else str(which),
    )


def validate(samples: Sequence[Sample], progress: Callable[[SampleResult], None] | None = None) -> Validation:
    """Analyse every sample and compare it with its truth.

    Parameters
    ----------
    progress : called with each result as it is ready
    """
    results = []
    for sample in samples:
        result = validate_sample(sample)
        if progress is not None:
            progress(result)
        results.append(result)
    return Validation(tuple(results))


def validate_sample(sample: Sample) -> SampleResult:
    """Return one sample's comparison; an error of input or fit is part of the result."""
    try:
        return compared(analyse(sample.scan, method_of(sample), number=sample.number), sample)
    except XrdzError as error:
        return SampleResult(sample, error=str(error), exit_code=error.exit_code)


def method_of(sample: Sample) -> Method:
    """Return the method of a sample, with its own phases where it names them."""
    method = default_method() if sample.method is None else read_method(sample.method)
    if sample.phases is None:
        return method
    if not set(sample.truth) <= {phase.lower() for phase in sample.phases}:
        missing = sorted(set(sample.truth) - {phase.lower() for phase in sample.phases})
        raise InputError(f"{sample.scan.name}: the truth names {', '.join(missing)}, which phases does not")
    kept = method.with_options(phases=sample.phases)
    return replace(kept, deviations=())


def compared(analysis: Analysis, sample: Sample) -> SampleResult:
    """Return an analysis beside its truth."""
    findings = tuple(dict.fromkeys(finding.code.value for finding in analysis.findings))
    if analysis.status == "failed":
        why = next((finding.message for finding in analysis.findings if finding.level.value == "severe"), "failed")
        return SampleResult(sample, findings=findings, error=why, exit_code=FitError.exit_code)
    missing = sorted(set(sample.truth) - set(analysis.phases))
    if missing:
        raise InputError(
            f"{sample.scan.name}: the truth names {', '.join(missing)}, which was not fitted; "
            f"fitted were {', '.join(analysis.phases)}"
        )
    whole = sum(sample.truth.values()) >= WHOLE
    fractions = []
    for name, truth in sample.truth.items():
        phase = analysis.phases[name]
        quantity = phase.mass_fraction if whole or phase.absolute_fraction is None else phase.absolute_fraction
        low, high = quantity.interval95
        fractions.append(
            Recovered(name, truth, quantity.value, quantity.su_stat, quantity.su, low, high, phase.detected)
        )
    return SampleResult(
        sample,
        tuple(fractions),
        _ratio(analysis, sample),
        analysis.status,
        analysis.agreement.gof if analysis.agreement else None,
        findings,
    )


def _ratio(analysis: Analysis, sample: Sample) -> Recovered | None:
    ratio = analysis.mass_ratio
    if ratio is None or not {ratio.numerator, ratio.denominator} <= set(sample.truth):
        return None
    denominator = sample.truth[ratio.denominator]
    truth = sample.truth[ratio.numerator] / denominator if denominator > 0.0 else math.inf
    return Recovered(
        f"{ratio.numerator}/{ratio.denominator}",
        truth,
        ratio.value,
        ratio.su_stat,
        ratio.su,
        *ratio.interval95,
        detected=ratio.limit is None,
    )
