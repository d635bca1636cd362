"""The one door to numba: how every compiled function of this package is compiled.

Compiled code is cached on disk, beside the source or, where that is read-only, in the user's cache folder, so that
nobody waits for the compiler twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., object])
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FAST = {"reassoc", "contract", "arcp", "nsz"}
"""Floating-point freedoms granted to the compiler; NaN and infinity keep their meaning."""


def compiled(function: Function) -> Function:
    """Return the function compiled to machine code on its first call.

    Inner functions are always inlined: left to the linker, the process that compiles and those that load its code from
    disk may resolve them to copies that differ in the last digit.
    """
    return cast(Function, numba.njit(cache=True, forceinline=True, fastmath=FAST, error_model="numpy")(function))


def spelled_out(function: Function) -> Function:
    """Return a compiled function that stands in its callers as if written there, so that it is compiled once less."""
    options: dict[str, Any] = {"cache": True, "inline": "always", "fastmath": FAST, "error_model": "numpy"}
    return cast(Function, numba.njit(**options)(function))


# --- arrays by address ------------------------------------------------------------------------------------------------


def entry_of(array: NDArray[Any]) -> tuple[int, int, int]:
    """Return address, rows and columns of an array that the caller keeps alive; one of one dimension has no columns.

    Raises
    ------
    TypeError
        If it does not hold doubles or 64 bit integers in C order.
    """
    if array.dtype not in (np.float64, np.int64) or not array.flags.c_contiguous:
        raise TypeError(f"an array of {array.dtype} in {array.strides} cannot be passed by its address")
    rows, columns = array.shape if array.ndim == 2 else (array.size, 0)
    return array.ctypes.data, rows, columns


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typing_context: Any, address: Any) -> Any:
    """Return the pointer that an integer is."""
    del typing_context, address

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.voidptr(types.int64), code


@compiled
def doubles(entry: IntArray) -> FloatArray:
    """Return the array of doubles that address and size stand for; see `entry_of`."""
    return numba.carray(_pointer(entry[0]), (entry[1],), np.float64)  # type: ignore[no-any-return]


@compiled
def double_rows(entry: IntArray) -> FloatArray:
    """Return the array of rows of doubles that address, rows and columns stand for."""
    return numba.carray(_pointer(entry[0]), (entry[1], entry[2]), np.float64)  # type: ignore[no-any-return]


@compiled
def integers(entry: IntArray) -> IntArray:
    """Return the array of integers that address and size stand for."""
    return numba.carray(_pointer(entry[0]), (entry[1],), np.int64)  # type: ignore[no-any-return]


@compiled
def integer_rows(entry: IntArray) -> IntArray:
    """Return the array of rows of integers that address, rows and columns stand for."""
    return numba.carray(_pointer(entry[0]), (entry[1], entry[2]), np.int64)  # type: ignore[no-any-return]
