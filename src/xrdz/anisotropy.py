"""Direction-dependent terms a phase can have beyond its basic model: further texture axes, anisotropic size and strain.

An extension is one more nonlinear parameter with a prior at zero. It is not part of the basic model; the fit weighs
each one by its evidence (`evidence.py`) and refines those that pay.

Texture on a further axis multiplies the orientation factor by another March-Dollase factor. Anisotropic broadening
multiplies the Gaussian and the Lorentzian size (or strain) widths of a reflection by exp(a e(n)), n its direction.
The shape functions e are the invariants of the Laue group among the traceless second-rank tensors, n . M n, or, for
cubic crystals, where none exists, the fourth-rank cubic harmonic (Popa 1998, J. Appl. Cryst. 31, 176). They are
scaled to unit mean square over the sphere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xrdz.crystal import metric_tensor
from xrdz.diffractogram import FloatArray
from xrdz.parameters import Parameter
from xrdz.reference import Reference

IntArray = NDArray[np.int64]
Kind = Literal["texture", "size", "strain"]

PRIOR_SU = {"texture": 0.2, "size": 0.35, "strain": 0.35}
"""Standard uncertainty of ln r on a further axis, and of the amplitude a of anisotropic size and strain."""


@dataclass(frozen=True)
class Extension:
    """One direction-dependent term of one phase.

    Parameters
    ----------
    phase : id
    kind : what it modifies
    axis : texture axis hkl
    component : number of the shape function
    """

    phase: str
    kind: Kind
    axis: tuple[int, int, int] = (0, 0, 0)
    component: int = 0

    @property
    def name(self) -> str:
        """Name of its parameter."""
        if self.kind == "texture":
            return f"{self.phase}.texture_{''.join(str(index) for index in self.axis)}"
        return f"{self.phase}.{self.kind}_anisotropy_{self.component}"

    def parameter(self) -> Parameter:
        """Return the parameter: start and prior mean zero."""
        return Parameter(self.name, 0.0, 0.0, PRIOR_SU[self.kind], -2.3, 2.3)


def possible_extensions(reference: Reference, texture_axis: tuple[int, int, int]) -> tuple[Extension, ...]:
    """Return every extension worth trying for a phase whose basic model has texture on `texture_axis`."""
    # Texture has no first-order effect in cubic crystals; see `phase_model.phase_parameters`.
    cubic = reference.crystal_system == "cubic"
    axes = [] if cubic else [axis for axis in reference.texture_axes if axis != texture_axis]
    shapes = range(len(shape_tensors(reference))) or range(1)
    return (
        *(Extension(reference.id, "texture", axis=axis) for axis in axes),
        *(Extension(reference.id, "size", component=k) for k in shapes),
        *(Extension(reference.id, "strain", component=k) for k in shapes),
    )


@lru_cache(maxsize=256)
def shape_tensors(reference: Reference) -> tuple[FloatArray, ...]:
    """Return the traceless symmetric tensors (3, 3) the Laue group leaves invariant, orthonormal; none if cubic."""
    to_cartesian = _reciprocal_basis(reference)
    inverse = np.linalg.inv(to_cartesian)
    # h' = h R as rows; a Cartesian reciprocal vector is g = h B with rows of B the reciprocal axes.
    rotations = [inverse @ rotation @ to_cartesian for rotation in reference.rotations.astype(np.float64)]
    root = np.sqrt(0.5)
    basis = [
        np.diag([1.0, -1.0, 0.0]) * root,
        np.diag([-1.0, -1.0, 2.0]) / np.sqrt(6.0),
        root * np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
        root * np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]),
        root * np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]),
    ]
    projection = np.zeros((5, 5))
    for column, tensor in enumerate(basis):
        mean = sum(rotation @ tensor @ rotation.T for rotation in rotations) / len(rotations)
        for row, other in enumerate(basis):
            projection[row, column] = float(np.sum(other * mean))
    values, vectors = np.linalg.eigh(0.5 * (projection + projection.T))
    return tuple(
        sum((weight * tensor for weight, tensor in zip(vectors[:, k], basis, strict=True)), np.zeros((3, 3)))
        for k in np.flatnonzero(values > 0.5)
    )


def _reciprocal_basis(reference: Reference) -> FloatArray:
    """Return the reciprocal axes as rows in Cartesian coordinates, 1/angstrom."""
    direct = np.linalg.cholesky(metric_tensor(reference.cell))
    result: FloatArray = np.linalg.inv(direct).T
    return result


def shape_function(reference: Reference, hkl: IntArray, component: int) -> FloatArray:
    """Return e(n) of each reflection, of unit mean square over the sphere."""
    vectors = hkl @ _reciprocal_basis(reference)
    directions = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    tensors = shape_tensors(reference)
    if not tensors:
        # Cubic harmonic of fourth rank; its mean square over the sphere is 16/525 before scaling.
        fourth: FloatArray = (np.sum(directions**4, axis=1) - 0.6) * np.sqrt(525.0 / 16.0)
        return fourth
    # The mean square of n . M n for a traceless unit tensor is 2/15.
    second: FloatArray = np.einsum("ni,ij,nj->n", directions, tensors[component], directions) * np.sqrt(7.5)
    return second
