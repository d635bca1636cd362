"""The one door to numba: how every compiled function of this package is compiled.

Compiled code is cached on disk, beside the source or, where that is read-only, in the user's cache folder, so that
nobody waits for the compiler twice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])

FAST = {"reassoc", "contract", "arcp", "nsz"}
"""Floating-point freedoms granted to the compiler; NaN and infinity keep their meaning."""


def compiled(function: Function) -> Function:
    """Return the function compiled to machine code on its first call."""
    return cast(Function, numba.njit(cache=True, fastmath=FAST, error_model="numpy")(function))


def lean_numba() -> None:
    """Load numba without scipy.linalg, in a process that is ours alone.

    numba imports scipy's BLAS bindings only to learn whether np.cov could be compiled, which costs a quarter of a
    second and 30 MB at every start. Nothing here compiles linear algebra. A library must not decide this for its user,
    so only the command line and the workers of a batch call it.
    """
    bindings = "scipy.linalg.cython_blas"
    if bindings in sys.modules:
        return
    sys.modules[bindings] = None  # type: ignore[assignment]
    try:
        import numba.np.arraymath  # noqa: F401
    finally:
        del sys.modules[bindings]
