"""The one door to numba: how every compiled function of this package is compiled.

Compiled code is cached on disk, beside the source or, where that is read-only, in the user's cache folder, so that
nobody waits for the compiler twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])

FAST = {"reassoc", "contract", "arcp", "nsz"}
"""Floating-point freedoms granted to the compiler; NaN and infinity keep their meaning."""


def compiled(function: Function) -> Function:
    """Return the function compiled to machine code on its first call.

    Inner functions are always inlined: left to the linker, the process that compiles and those that load its code from
    disk may resolve them to copies that differ in the last digit.
    """
    return cast(Function, numba.njit(cache=True, forceinline=True, fastmath=FAST, error_model="numpy")(function))
