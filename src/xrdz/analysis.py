"""One analysis: what is stored, reported and batched; `to_dict` is the JSON document `xrdz.analysis/1`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xrdz.claims import ClaimResult
from xrdz.diffractogram import Diffractogram
from xrdz.findings import Finding
from xrdz.method import Method
from xrdz.quantify import Quantity
from xrdz.residuals import Agreement
from xrdz.sample_sheet import Sample
from xrdz.wavelength import Wavelength

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xrdz.fit import FitResult

SCHEMA = "xrdz.analysis/1"

Estimated = tuple[float, float]
"""A value and its standard uncertainty."""


@dataclass(frozen=True)
class PhaseAnalysis:
    """What was found about one phase; lengths in angstrom, sizes in nm, strain as Delta d / d."""

    id: str
    formula: str
    detected: bool
    mass_fraction: Quantity
    detection_limit: float
    cell: Mapping[str, Estimated]
    density: float
    size_nm: Estimated | None
    strain: Estimated | None
    texture_axis: tuple[int, int, int]
    texture_r: Estimated
    displacement: Mapping[str, Estimated]
    r_bragg: float | None
    absolute_fraction: Quantity | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the analysis document."""
        return {
            "id": self.id,
            "formula": self.formula,
            "detected": self.detected,
            "mass_fraction": quantity_dict(self.mass_fraction),
            "absolute_fraction": None if self.absolute_fraction is None else quantity_dict(self.absolute_fraction),
            "detection_limit": number(self.detection_limit),
            "cell": {name: estimated_dict(value) for name, value in self.cell.items()},
            "density": number(self.density),
            "size_nm": estimated_dict(self.size_nm),
            "strain": estimated_dict(self.strain),
            "texture": {"axis": list(self.texture_axis), "r": estimated_dict(self.texture_r)},
            "displacement_parameters": {name: estimated_dict(value) for name, value in self.displacement.items()},
            "r_bragg": number(self.r_bragg),
        }


@dataclass(frozen=True)
class MassRatio:
    """The mass ratio of two phases; `limit` says which side is open when one of them was not detected."""

    numerator: str
    denominator: str
    value: float
    su_stat: float
    su: float
    interval95: tuple[float, float]
    limit: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the analysis document."""
        quantity = Quantity(self.value, self.su_stat, self.su, self.interval95)
        return {
            "numerator": self.numerator,
            "denominator": self.denominator,
            **quantity_dict(quantity),
            "u_ln": number(self.su / self.value) if 0.0 < self.value < math.inf else None,
            "limit": self.limit,
        }


@dataclass(frozen=True)
class Analysis:
    """Everything one scan and one method gave; a failed fit has the same type, without quantities.

    `sample` is the row of the sample sheet the claims were judged with.
    """

    diffractogram: Diffractogram
    method: Method
    wavelength: Wavelength
    status: str
    phases: Mapping[str, PhaseAnalysis]
    mass_ratio: MassRatio | None
    budget: Mapping[str, float]
    elements: Mapping[str, Estimated]
    claims: tuple[ClaimResult, ...]
    agreement: Agreement | None
    findings: tuple[Finding, ...]
    references_sha256: str
    software: Mapping[str, str]
    timing: Mapping[str, float] = field(default_factory=dict)
    amorphous: Quantity | None = None
    sample: Sample | None = None
    fit: FitResult | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document; no value is NaN or infinite, `None` stands for what does not exist."""
        scan, source = self.diffractogram, self.diffractogram.source
        two_theta = scan.two_theta
        return {
            "schema": SCHEMA,
            "source": {
                "path": source.path,
                "sha256": source.sha256,
                "format": source.format,
                "scan": source.scan,
                "n_points": scan.n_points,
                "two_theta": [float(two_theta[0]), float(two_theta[-1])] if scan.n_points else None,
                "count_kind": scan.count_kind,
                "wavelength": {
                    "lines": [[angstrom, weight] for angstrom, weight in self.wavelength.lines],
                    "from": self.wavelength.origin,
                },
                "metadata": {key: plain(value) for key, value in scan.metadata.items()},
            },
            "sample": None if self.sample is None else self.sample.to_dict(),
            "method": method_dict(self.method),
            "software": dict(self.software),
            "references_sha256": self.references_sha256,
            "status": self.status,
            "phases": [phase.to_dict() for phase in self.phases.values()],
            "amorphous": None if self.amorphous is None else quantity_dict(self.amorphous),
            "mass_ratio": None if self.mass_ratio is None else self.mass_ratio.to_dict(),
            "budget": [{"source": source, "u_ln": number(u)} for source, u in self.budget.items()],
            "elements": {name: estimated_dict(value) for name, value in self.elements.items()},
            "claims": [claim.to_dict() for claim in self.claims],
            "agreement": None
            if self.agreement is None
            else {name: number(value) for name, value in vars(self.agreement).items()},
            "findings": [finding.to_dict() for finding in self.findings],
            "timing": {name: number(value) for name, value in self.timing.items()},
        }

    def plot(self, *, square_root: bool = False) -> Figure:
        """Return observed, calculated, background and difference curves with tick marks as a matplotlib figure."""
        from xrdz.plotting import analysis_figure

        return analysis_figure(self, square_root=square_root)


def method_dict(method: Method) -> dict[str, Any]:
    """Return what the document says of its method: how to identify it, and what of it a report prints."""
    return {
        "name": method.name,
        "version": method.version,
        "sha256": method.sha256,
        "instrument": method.instrument.name,
        "decision": dict(vars(method.decision)),
        "deviations": list(method.deviations),
        "laboratory": dict(method.laboratory),
    }


def number(value: float | None) -> float | None:
    """Return a finite float, or None for what JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else float(value)


def plain(value: Any) -> Any:
    """Return a metadata value as JSON holds it."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value)


def estimated_dict(value: Estimated | None) -> dict[str, float | None] | None:
    """Return value and su as a JSON object."""
    return None if value is None else {"value": number(value[0]), "su": number(value[1])}


def quantity_dict(quantity: Quantity) -> dict[str, Any]:
    """Return a quantity as a JSON object; an open side of the interval is None."""
    return {
        "value": number(quantity.value),
        "su_stat": number(quantity.su_stat),
        "su": number(quantity.su),
        "interval95": [number(quantity.interval95[0]), number(quantity.interval95[1])],
    }
