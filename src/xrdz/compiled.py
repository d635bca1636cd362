"""Functions that run as machine code: made once per machine, afterwards loaded without a compiler.

A function marked `compiled` is plain Python with loops over arrays, in the part of the language numba can translate. On
its first call on a machine `machine_code` translates it, with everything it calls, to one object file; every process
after that, and the one that made it, maps that file with llvmlite alone. So nobody waits for the compiler twice, no
process pays for importing it (300 ms and 70 MB), and the same digits come out whichever process came first.

Arguments go over by address, so they must be what the annotations say:

    FloatArray, FloatRows      one and two dimensions of float64         SingleArray, SingleRows     of float32
    IntArray, IntRows          of int64                                  BoolArray                   of bool

C-contiguous; plus float, int and bool. Results are numbers; arrays are written to in place.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import struct
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, update_wrapper
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from xrdz.errors import XrdzError
from xrdz.files import write_whole

Function = TypeVar("Function", bound=Callable[..., object])

FloatArray = NDArray[np.float64]
FloatRows = NDArray[np.float64]
SingleArray = NDArray[np.float32]
SingleRows = NDArray[np.float32]
IntArray = NDArray[np.int64]
IntRows = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

ARRAYS: dict[str, tuple[np.dtype[Any], int]] = {
    "FloatArray": (np.dtype(np.float64), 1),
    "FloatRows": (np.dtype(np.float64), 2),
    "SingleArray": (np.dtype(np.float32), 1),
    "SingleRows": (np.dtype(np.float32), 2),
    "IntArray": (np.dtype(np.int64), 1),
    "IntRows": (np.dtype(np.int64), 2),
    "BoolArray": (np.dtype(np.bool_), 1),
}
"""Element type and dimensions of each annotation."""

NUMBERS = {"float": float, "int": int, "bool": bool}

Entry = Callable[[Any, Any], None]


class CompiledFunction:
    """A function that runs as machine code; `python` is what it was written as."""

    def __init__(self, python: FunctionType) -> None:
        self.python = python
        update_wrapper(self, python)

    @property
    def parameters(self) -> list[str]:
        """Annotations of the parameters."""
        names = self.python.__code__.co_varnames[: self.python.__code__.co_argcount]
        return [self.python.__annotations__[name] for name in names]

    @cached_property
    def results(self) -> list[str]:
        """Annotations of the results, none for None."""
        text = str(self.python.__annotations__["return"])
        if text == "None":
            return []
        return [part.strip() for part in text.removeprefix("tuple[").removesuffix("]").split(",")]

    @property
    def name(self) -> str:
        """Name of its object file."""
        return f"{self.python.__module__.rpartition('.')[2]}.{self.python.__name__.strip('_')}"

    @cached_property
    def entry(self) -> Entry:
        """The machine code, called with a table of words and one of doubles."""
        return load(self)

    @cached_property
    def _kinds(self) -> list[tuple[np.dtype[Any] | None, int]]:
        return [ARRAYS.get(annotation, (None, annotation == "float")) for annotation in self.parameters]

    def __call__(self, *arguments: Any) -> Any:
        words: list[int] = []
        doubles: list[float] = []
        for (dtype, dimensions), argument in zip(self._kinds, arguments, strict=True):
            if dtype is None:
                if dimensions:
                    doubles.append(argument)
                else:
                    words.append(int(argument))
                continue
            if (argument.dtype is not dtype and argument.dtype != dtype) or argument.ndim != dimensions:
                raise TypeError(f"{self.name}: expected {dtype} of {dimensions} dimensions, not {argument.dtype}")
            if not argument.flags.c_contiguous:
                raise TypeError(f"{self.name}: expected an array in C order, got strides {argument.strides}")
            words.append(argument.__array_interface__["data"][0])
            words.extend(argument.shape)
        results = self.results
        table = (ctypes.c_double * (len(doubles) + len(results) + 1))(*doubles)
        self.entry((ctypes.c_int64 * len(words))(*words), table)
        if not table[-1]:
            raise MemoryError(f"{self.name}: there is no memory for its work")
        found = [NUMBERS[kind](value) for kind, value in zip(results, table[len(doubles) : -1], strict=True)]
        return None if not found else found[0] if len(found) == 1 else tuple(found)


def compiled(function: Function) -> Function:
    """Return the function as one that runs as machine code."""
    return cast(Function, CompiledFunction(cast(FunctionType, function)))


# --- arrays by address ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Primitive:
    """A function that only translated code has; `machine_code` knows it by its name."""

    name: str


doubles = cast(Callable[[IntArray], FloatArray], Primitive("doubles"))
double_rows = cast(Callable[[IntArray], FloatRows], Primitive("double_rows"))
integers = cast(Callable[[IntArray], IntArray], Primitive("integers"))
integer_rows = cast(Callable[[IntArray], IntRows], Primitive("integer_rows"))
"""The array that address, rows and columns stand for; see `entry_of`."""


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
    return array.__array_interface__["data"][0], rows, columns


Addressed = tuple[IntRows, tuple[NDArray[Any], ...]]
"""Rows of address, rows and columns, and the arrays they belong to, which stay alive with them."""


def addressed(*arrays: NDArray[Any]) -> Addressed:
    """Return arrays as compiled code takes them by address; see `entry_of`."""
    kept = tuple(np.ascontiguousarray(array) for array in arrays)
    return np.array([entry_of(array) for array in kept], dtype=np.int64), kept


# --- object files -----------------------------------------------------------------------------------------------------


def load(function: CompiledFunction) -> Entry:
    """Return the machine code of a function, made first where there is none for this processor and these sources."""
    name = file_name(function)
    for folder in folders():
        with contextlib.suppress(OSError):
            stored = unpacked((folder / name).read_bytes())
            if stored is not None:
                return _mapped(*stored)
    from xrdz import machine_code

    try:
        symbol, code = machine_code.object_file(function)
    except XrdzError:
        # A numba that builds its code in another way: its own linker then, and the wait in every process.
        return machine_code.in_process(function)
    for folder in folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / name, packed(symbol, code))
        except (OSError, XrdzError):
            continue
        break
    else:
        warnings.warn(
            f"compiled code could not be kept in {' or '.join(map(str, folders()))}, so every process waits for the "
            "compiler; let XDG_CACHE_HOME name a folder that can be written",
            RuntimeWarning,
            stacklevel=2,
        )
    return _mapped(symbol, code)


def file_name(function: CompiledFunction) -> str:
    """Return the name of a function's object file."""
    return f"{function.name}-{key()}.o"


def is_made(function: Callable[..., object]) -> bool:
    """Return whether the machine code of a compiled function is there already."""
    assert isinstance(function, CompiledFunction)
    return any((folder / file_name(function)).is_file() for folder in folders())


def folders() -> list[Path]:
    """Return where object files are kept: beside the sources, or where that is read-only in the user's cache."""
    beside = Path(__file__).resolve().parent / "__pycache__"
    named = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else None)
    if named:
        return [beside, Path(named) / "xrdz"]
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home, as services and containers have
        return [beside]
    return [beside, home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "xrdz"]


@cache
def key() -> str:
    """Return a hash of what the machine code depends on: sources, translators and the processor."""
    from importlib.metadata import version

    import llvmlite.binding as llvm

    digest = hashlib.sha256()
    for path in sorted(Path(__file__).resolve().parent.glob("*.py")):
        content = path.read_bytes()
        if b"@compiled" in content or path.name in ("compiled.py", "machine_code.py"):
            digest.update(content)
    for text in (version("numba"), version("llvmlite"), version("numpy"), sys.version, sys.platform):
        digest.update(text.encode())
    digest.update(llvm.get_host_cpu_name().encode())
    digest.update(llvm.get_host_cpu_features().flatten().encode())
    return digest.hexdigest()[:16]


HEAD = struct.Struct(">H32s")
"""An object file is stored behind the length of its entry's name, the SHA-256 of what follows, and that name."""


def packed(symbol: str, code: bytes) -> bytes:
    """Return an object file as it is stored."""
    content = symbol.encode() + code
    return HEAD.pack(len(symbol), hashlib.sha256(content).digest()) + content


def unpacked(stored: bytes) -> tuple[str, bytes] | None:
    """Return the name of the entry and the object file, None where what was stored is damaged."""
    if len(stored) < HEAD.size:
        return None
    length, digest = HEAD.unpack_from(stored)
    content = stored[HEAD.size :]
    if hashlib.sha256(content).digest() != digest:
        return None
    return content[:length].decode(), content[length:]


@cache
def _engine() -> Any:
    """Return the linker of this process: it only maps object files, nothing is compiled with it."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def _mapped(symbol: str, code: bytes) -> Entry:
    """Return the entry of an object file, mapped into this process."""
    import llvmlite.binding as llvm

    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    prototype = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(ctypes.c_double))
    return cast(Entry, prototype(engine.get_function_address(symbol)))
