"""One powder diffractogram: positions, intensities and what their variance is.

The invariant every reader and every later step keeps: `two_theta` is strictly increasing and finite, `intensity`
is finite, and the variance of each point is known: either `gain * expected intensity` (Poisson-like, gain 1 for
plain counts) or an explicit `su` per point.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xrdz.errors import InputError
from xrdz.findings import Finding
from xrdz.wavelength import Wavelength

FloatArray = NDArray[np.float64]
CountKind = Literal["counts", "scaled", "rate", "unknown"]


@dataclass(frozen=True)
class Source:
    """Where a diffractogram came from, so that a result can be traced to raw bytes."""

    path: str = ""
    sha256: str = ""
    format: str = ""
    scan: int = 0


@dataclass(frozen=True)
class Diffractogram:
    """A powder diffractogram as every later step takes it.

    Parameters
    ----------
    two_theta : shape (n,), degrees, strictly increasing
    intensity : shape (n,), in counts wherever that is known
    gain : variance of a point divided by its expected intensity; a number, or shape (n,); 1 for plain counts
    su : shape (n,) or None; an explicit standard uncertainty per point, used instead of `gain`
    wavelength : None when the file does not say
    count_kind : what the numbers in the file were
    metadata : the file's own facts in one vocabulary (keys in `docs/formats.md`)
    findings : what the reader did that a user should know
    """

    two_theta: FloatArray
    intensity: FloatArray
    gain: float | FloatArray = 1.0
    su: FloatArray | None = None
    wavelength: Wavelength | None = None
    count_kind: CountKind = "unknown"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        # A plain dict of its own: a read-only proxy of somebody else's cannot be sent to another process.
        object.__setattr__(self, "metadata", dict(self.metadata))
        two_theta, intensity = self.two_theta, self.intensity
        if two_theta.ndim != 1 or two_theta.shape != intensity.shape:
            raise InputError(f"diffractogram: {two_theta.shape} positions but {intensity.shape} intensities")
        if two_theta.size and not (np.all(np.isfinite(two_theta)) and np.all(np.diff(two_theta) > 0)):
            raise InputError("diffractogram: 2theta must be finite and strictly increasing")
        if not np.all(np.isfinite(intensity)):
            raise InputError("diffractogram: intensities must be finite; mask missing points before")
        if self.su is not None and (self.su.shape != two_theta.shape or not np.all(self.su > 0)):
            raise InputError("diffractogram: su must be positive and of the same length as two_theta")
        for array in (two_theta, intensity, self.su, self.gain):
            if isinstance(array, np.ndarray):
                array.setflags(write=False)

    @property
    def n_points(self) -> int:
        """Number of points."""
        return int(self.two_theta.size)

    def select(self, keep: NDArray[np.bool_]) -> Diffractogram:
        """Return the diffractogram with only the points where `keep` is true; masking equals cropping."""
        gain = self.gain[keep] if isinstance(self.gain, np.ndarray) else self.gain
        su = None if self.su is None else self.su[keep]
        return replace(self, two_theta=self.two_theta[keep], intensity=self.intensity[keep], gain=gain, su=su)

    def binned(self, factor: int) -> Diffractogram:
        """Return the sums of `factor` neighbouring points at their mean positions; a rest at the end is left out.

        The variance of a sum of Poisson counts is its expectation, so the gain stays what it was.
        """
        whole = self.n_points // factor * factor
        gain = self.gain[:whole].reshape(-1, factor).mean(axis=1) if isinstance(self.gain, np.ndarray) else self.gain
        su = None if self.su is None else np.sqrt((self.su[:whole] ** 2).reshape(-1, factor).sum(axis=1))
        return replace(
            self,
            two_theta=self.two_theta[:whole].reshape(-1, factor).mean(axis=1),
            intensity=self.intensity[:whole].reshape(-1, factor).sum(axis=1),
            gain=gain,
            su=su,
        )

    def cropped(
        self,
        two_theta_range: tuple[float, float] | None = None,
        exclude: Sequence[tuple[float, float]] = (),
    ) -> Diffractogram:
        """Return the points inside `two_theta_range` (degrees) and outside every `exclude` interval."""
        keep = np.ones(self.two_theta.shape, dtype=bool)
        if two_theta_range is not None:
            keep &= (self.two_theta >= two_theta_range[0]) & (self.two_theta <= two_theta_range[1])
        for low, high in exclude:
            keep &= (self.two_theta < low) | (self.two_theta > high)
        return self if bool(keep.all()) else self.select(keep)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's raw bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
