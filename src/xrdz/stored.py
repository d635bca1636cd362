"""An analysis as it travels and lasts: small enough to cross processes, plain enough to be read in twenty years.

A fresh `FitResult` carries the Jacobian and the column blocks of its solver, some tens of megabytes. `slimmed` keeps
what a result, a plot and a report show: parameters with their covariance, curves, reflections. The invariant: a slimmed
analysis, one that crossed to another process and one reopened from an archive are equal to the last bit, and their
`to_dict()` is that of the fresh one.

`to_plain` writes any tree of this package's dataclasses as JSON values and `from_plain` builds it again without running
code of the file: it makes dataclasses and enums of `xrdz` and nothing else, ignores fields it does not know, and takes
the default for those that are missing. So a result outlives the version that wrote it.
"""

from __future__ import annotations

import base64
import copyreg
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.errors import InputError
from xrdz.solver import Noise

if TYPE_CHECKING:
    from xrdz.analysis import Analysis
    from xrdz.fit import FitResult

IntArray = NDArray[np.int64]
SmallFloatArray = NDArray[np.float32]
Cell = tuple[float, float, float, float, float, float]


def read_only(content: dict[str, Any]) -> MappingProxyType[str, Any]:
    """Return a read-only view; named so that pickle finds it."""
    return MappingProxyType(content)


copyreg.pickle(MappingProxyType, lambda proxy: (read_only, (dict(proxy),)))  # metadata of a scan may travel


@dataclass(frozen=True)
class StoredPeaks:
    """Reflections of one phase: centres of the principal line (deg 2theta), full widths (deg), areas at unit scale."""

    centre: FloatArray
    fwhm: SmallFloatArray
    intensity: SmallFloatArray


@dataclass(frozen=True)
class StoredPhase:
    """One phase of a stored fit; `cell_parameters` are a, b, c (angstrom), alpha, beta, gamma (deg)."""

    id: str
    hkl: IntArray
    multiplicity: IntArray
    peaks: StoredPeaks
    cell_parameters: Cell
    texture_axis: tuple[int, int, int]

    def cell(self, values: FloatArray) -> Cell:
        """Return the refined cell; `values` are those of the fit and not needed."""
        del values
        return self.cell_parameters


@dataclass(frozen=True)
class StoredParameters:
    """What is kept of the nonlinear parameters: names, starting values, priors and bounds, as parallel arrays."""

    names: tuple[str, ...]
    start: FloatArray
    prior_mean: FloatArray
    prior_su: FloatArray
    lower: FloatArray
    upper: FloatArray

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.names)

    def index(self, name: str) -> int:
        """Return the place of a parameter."""
        return self.names.index(name)


@dataclass(frozen=True)
class StoredPattern:
    """What is kept of a compiled pattern model."""

    two_theta: FloatArray
    phases: tuple[StoredPhase, ...]
    parameters: StoredParameters
    linear: tuple[str, ...]

    def linear_names(self) -> tuple[str, ...]:
        """Return the names of the linear parameters: scales first, then the background."""
        return self.linear

    def peak_state(self, phase: StoredPhase, values: FloatArray) -> StoredPeaks:
        """Return the reflections of a phase; `values` are those of the fit and not needed."""
        del values
        return phase.peaks


@dataclass(frozen=True)
class StoredMinimum:
    """What is kept of the minimiser: 1 / variance of every point."""

    weights: FloatArray


@dataclass(frozen=True)
class StoredFit:
    """A fit without the means by which it was made; it offers what plots and reports read of a `FitResult`.

    Parameters
    ----------
    linear, values : linear (scales, background) and nonlinear parameters
    covariance : of all parameters, linear first
    model, background : calculated intensities, shape (n,)
    phase_curves : contribution of each phase, shape (phases, n)
    """

    diffractogram: Diffractogram
    pattern: StoredPattern
    minimum: StoredMinimum
    status: str
    linear: FloatArray
    values: FloatArray
    covariance: FloatArray
    model: FloatArray
    background: FloatArray
    phase_curves: FloatArray
    chi2_reduced: float
    second_start: bool
    evaluations: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all parameters."""
        return (*self.pattern.linear, *self.pattern.parameters.names)

    @property
    def scales(self) -> FloatArray:
        """Refined scale of each phase."""
        return self.linear[: len(self.pattern.phases)]

    def phase_curve(self, number: int) -> FloatArray:
        """Return the calculated contribution of one phase."""
        curve: FloatArray = self.phase_curves[number]
        return curve

    def value(self, name: str) -> float:
        """Return a nonlinear parameter's value by name."""
        return float(self.values[self.pattern.parameters.index(name)])

    def su(self, name: str) -> float:
        """Return the posterior standard uncertainty of any parameter by name."""
        place = self.names.index(name)
        return float(np.sqrt(max(self.covariance[place, place], 0.0)))


def slimmed(analysis: Analysis) -> Analysis:
    """Return the analysis with its fit reduced to a `StoredFit`; one that is slim already, or failed, as it is."""
    fit: object = analysis.fit
    if fit is None or isinstance(fit, StoredFit):
        return analysis
    return with_fit(analysis, stored_fit(cast("FitResult", fit)))


def with_fit(analysis: Analysis, fit: StoredFit) -> Analysis:
    """Return the analysis with a stored fit in the place of its own, whose reading interface it has."""
    return replace(analysis, fit=cast("FitResult", fit))


def stored_fit(fit: FitResult) -> StoredFit:
    """Return what is kept of a fit."""
    pattern, values = fit.pattern, fit.values
    phases = []
    for phase, state in zip(pattern.phases, fit.states, strict=True):
        phases.append(
            StoredPhase(
                phase.id,
                phase.hkl.astype(np.int64),
                phase.multiplicity.astype(np.int64),
                StoredPeaks(state.centre, state.fwhm.astype(np.float32), state.intensity.astype(np.float32)),
                cast("Cell", phase.cell(values)),
                phase.texture_axis,
            )
        )
    table = pattern.parameters
    parameters = StoredParameters(table.names, table.start, table.prior_mean, table.prior_su, table.lower, table.upper)
    curves = [fit.phase_curve(number) for number in range(len(phases))]
    return StoredFit(
        diffractogram=fit.diffractogram,
        pattern=StoredPattern(pattern.two_theta, tuple(phases), parameters, pattern.linear_names()),
        minimum=StoredMinimum(fit.minimum.weights),
        status=str(fit.status.value),
        linear=fit.linear,
        values=values,
        covariance=fit.covariance,
        model=fit.model,
        background=fit.background,
        phase_curves=np.array(curves).reshape(len(phases), -1),
        chi2_reduced=float(fit.chi2_reduced),
        second_start=bool(fit.second_start),
        evaluations=int(fit.evaluations),
    )


def usual_weights(diffractogram: Diffractogram, model: FloatArray) -> FloatArray:
    """Return 1 / variance of every point as the solver defines it, so that it need not be stored."""
    return Noise.of(diffractogram).weights(model)


# --- trees of dataclasses as JSON -------------------------------------------------------------------------------------


def to_plain(value: Any) -> Any:
    """Return a tree of dataclasses, enums, mappings, tuples, arrays and scalars as JSON values.

    A tuple is a JSON array, a mapping with plain text keys a JSON object; everything else is an object with a key that
    begins with `~`. Floats keep every bit; NaN and infinities are written as Python's json module does.

    Raises
    ------
    TypeError
        If a value is of another type.
    """
    return _writer(value.__class__)(value)


@lru_cache(maxsize=256)
def _writer(cls: type[Any]) -> Callable[[Any], Any]:
    """Return the function that writes values of exactly this class, found once for the class."""
    if cls in (float, str, int, bool, type(None)):
        return _as_it_is
    if issubclass(cls, Enum):
        name = _class_name(cls)
        return lambda value: {"~enum": name, "value": value.value}
    for base, written in WRITERS:
        if issubclass(cls, base):
            return written
    if dataclasses.is_dataclass(cls):
        return _dataclass_writer(cls)
    raise TypeError(f"a result cannot hold {cls.__qualname__}; use a dataclass, number, text, tuple or mapping")


def _dataclass_writer(cls: type[Any]) -> Callable[[Any], Any]:
    class_name, names = _class_name(cls), tuple(item.name for item in dataclasses.fields(cls))

    def written(value: Any) -> Any:
        plain: dict[str, Any] = {"~type": class_name}
        for name in names:
            item = getattr(value, name)
            plain[name] = _writer(item.__class__)(item)
        return plain

    return written


def _as_it_is(value: Any) -> Any:
    return value


def _plain_items(value: Iterable[Any]) -> list[Any]:
    return [_writer(item.__class__)(item) for item in value]


def _plain_mapping(value: Mapping[Any, Any]) -> Any:
    if all(type(key) is str and not key.startswith("~") for key in value):
        return {key: _writer(item.__class__)(item) for key, item in value.items()}
    return {"~map": [[to_plain(key), to_plain(item)] for key, item in value.items()]}


def _plain_array(value: NDArray[Any]) -> Any:
    if value.dtype.kind not in "fiub":
        raise TypeError(f"a result cannot hold an array of {value.dtype}; use one of numbers")
    content = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode("ascii")
    return {"~array": content, "dtype": value.dtype.str, "shape": list(value.shape)}


WRITERS: tuple[tuple[type[Any] | tuple[type[Any], ...], Callable[[Any], Any]], ...] = (
    (str, str),
    ((float, np.floating), float),
    (np.bool_, bool),
    ((int, np.integer), int),
    (tuple, _plain_items),
    (Mapping, _plain_mapping),
    (list, lambda value: {"~list": _plain_items(value)}),
    (Path, lambda value: {"~path": str(value)}),
    (np.ndarray, _plain_array),
)
"""How subclasses of each base are written; the first that fits."""


def from_plain(value: Any) -> Any:
    """Return the tree that `to_plain` wrote.

    Raises
    ------
    InputError
        If it names a class that this version does not have.
    """
    if isinstance(value, list):
        return tuple(from_plain(item) for item in value)
    if not isinstance(value, dict):
        return value
    if "~type" in value:
        return built(value["~type"], {key: from_plain(item) for key, item in value.items() if key != "~type"})
    if "~enum" in value:
        return _class(value["~enum"])(value["value"])
    if "~map" in value:
        return {from_plain(key): from_plain(item) for key, item in value["~map"]}
    if "~list" in value:
        return [from_plain(item) for item in value["~list"]]
    if "~path" in value:
        return Path(value["~path"])
    if "~array" in value:
        flat = np.frombuffer(base64.b64decode(value["~array"]), dtype=np.dtype(value["dtype"]))
        return flat.reshape(value["shape"])
    return {key: from_plain(item) for key, item in value.items()}


def built(name: str, values: Mapping[str, Any]) -> Any:
    """Return a dataclass of this package with the given field values, as it was stored.

    Its checks are not run again: a method's hash must not depend on CIF files that were deleted since.
    """
    cls = _class(name)
    instance = object.__new__(cls)
    for item in dataclasses.fields(cls):
        if item.name in values:
            object.__setattr__(instance, item.name, values[item.name])
        elif item.default is not dataclasses.MISSING:
            object.__setattr__(instance, item.name, item.default)
        elif item.default_factory is not dataclasses.MISSING:
            object.__setattr__(instance, item.name, item.default_factory())
        else:
            raise InputError(f"the stored {name} has no {item.name!r}; open it with the version that wrote it")
    return instance


def _class_name(cls: type[Any]) -> str:
    package, _, module = cls.__module__.partition(".")
    if package != "xrdz":
        raise TypeError(f"a result cannot hold {cls.__qualname__} of {cls.__module__}")
    return f"{module}:{cls.__qualname__}"


@lru_cache(maxsize=256)
def _class(name: str) -> type[Any]:
    module, _, qualname = name.partition(":")
    try:
        found = getattr(import_module(f"xrdz.{module}"), qualname)
    except (ImportError, AttributeError, ValueError):
        found = None
    if not isinstance(found, type) or not (dataclasses.is_dataclass(found) or issubclass(found, Enum)):
        raise InputError(f"the stored result holds {name!r}, which this version does not know; open it with its own")
    return found
