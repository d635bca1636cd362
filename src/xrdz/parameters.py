"""The nonlinear parameters of a pattern: names, starting values, Gaussian priors and bounds, as parallel arrays.

Every nonlinear parameter has a prior; a weak one keeps an undetermined parameter at a sensible place and lets all
parameters be refined at once from a generic start. Units stand in the name table below.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from xrdz.diffractogram import FloatArray

UNITS: Mapping[str, str] = {
    "zero": "deg",
    "displacement": "mm",
    "u": "deg^2",
    "v": "deg^2",
    "w": "deg^2",
    "kappa": "((S+H)/L)^2",
    "roughness": "1",
    "polarization": "1",
    "satellite": "1",
    "overspill": "sin(theta)",
    "defocus": "deg^2",
    "transparency": "deg",
    "a": "angstrom",
    "b": "angstrom",
    "c": "angstrom",
    "alpha": "deg",
    "beta": "deg",
    "gamma": "deg",
    "size_lorentz": "deg",
    "strain_lorentz": "deg",
    "size_gauss": "deg^2",
    "strain_gauss": "deg^2",
    "ln_texture": "ln(r)",
    "response": "ln(intensity)",
}
"""Unit of each parameter by the last part of its name; displacement parameters `B.<element>` are in angstrom^2."""


@dataclass(frozen=True)
class Parameter:
    """One nonlinear parameter: starting value, prior mean and su, and bounds."""

    name: str
    start: float
    prior_mean: float
    prior_su: float
    lower: float = -np.inf
    upper: float = np.inf


@dataclass(frozen=True)
class ParameterTable:
    """All nonlinear parameters of one pattern model as arrays in a fixed order."""

    names: tuple[str, ...]
    start: FloatArray
    prior_mean: FloatArray
    prior_su: FloatArray
    lower: FloatArray
    upper: FloatArray
    prior_precision: FloatArray

    @classmethod
    def of(cls, parameters: Iterable[Parameter], joint_covariance: FloatArray | None = None) -> ParameterTable:
        """Return the table of a sequence of parameters, keeping its order.

        Parameters
        ----------
        joint_covariance : prior covariance of the first parameters, in place of their independent priors
        """
        items = tuple(parameters)

        def column(name: str) -> FloatArray:
            values = np.array([getattr(item, name) for item in items], dtype=np.float64)
            values.setflags(write=False)
            return values

        precision = np.diag([item.prior_su**-2.0 for item in items]).reshape(len(items), len(items))
        if joint_covariance is not None:
            count = joint_covariance.shape[0]
            precision[:count, :count] = np.linalg.inv(joint_covariance)
        precision.setflags(write=False)
        return cls(
            tuple(item.name for item in items),
            column("start"),
            column("prior_mean"),
            column("prior_su"),
            column("lower"),
            column("upper"),
            precision,
        )

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.names)

    def index(self, name: str) -> int:
        """Return the place of a parameter."""
        return self.names.index(name)

    def starting_at(self, values: FloatArray) -> ParameterTable:
        """Return the same table with other starting values."""
        return replace(self, start=np.array(values, dtype=np.float64))
