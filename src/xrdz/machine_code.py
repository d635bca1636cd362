"""The one door to numba: from a compiled function to an object file that needs neither numba nor Python.

    function -> its callees, inlined -> an entry that unpacks its arguments -> LLVM -> the runtime's part -> object file

What numba's code asks of its runtime is memory, which `MEMORY` gives from malloc, and ways to raise exceptions, which
no function here does: those are closed off. An array that cannot be had ends the entry before its last word, which
`compiled.CompiledFunction` notices. Everything is inlined, so one object file holds all that its function needs.
"""

from __future__ import annotations

import re
from types import FunctionType
from typing import Any, cast

import llvmlite.binding as llvm
import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

from xrdz.compiled import ARRAYS, CompiledFunction, Entry, Primitive
from xrdz.errors import XrdzError

FAST = {"reassoc", "contract", "arcp", "nsz"}
"""Floating-point freedoms granted to the compiler; NaN and infinity keep their meaning."""

OPTIONS: dict[str, Any] = {"fastmath": FAST, "error_model": "numpy", "nopython": True}

LIBRARY = {
    *("malloc", "free", "memcpy", "memset", "memmove", "sqrt", "cbrt", "ceil", "floor"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "exp", "log", "pow"),
}
"""What the C library gives; a name with an f behind is the same in single precision."""

MEMORY = """
declare ptr @malloc(i64)
declare void @free(ptr)

define ptr @NRT_MemInfo_alloc_aligned(i64 %size, i32 %align) {
  %a = zext i32 %align to i64
  %with = add i64 %size, %a
  %total = add i64 %with, 64
  %base = call ptr @malloc(i64 %total)
  %none = icmp eq ptr %base, null
  br i1 %none, label %end, label %fill
fill:
  store i64 1, ptr %base
  %dtor = getelementptr i8, ptr %base, i64 8
  store ptr null, ptr %dtor
  %info = getelementptr i8, ptr %base, i64 16
  store ptr null, ptr %info
  %start = ptrtoint ptr %base to i64
  %reach = add i64 %start, 63
  %past = add i64 %reach, %a
  %mask = sub i64 0, %a
  %aligned = and i64 %past, %mask
  %data = getelementptr i8, ptr %base, i64 24
  store i64 %aligned, ptr %data
  %length = getelementptr i8, ptr %base, i64 32
  store i64 %size, ptr %length
  %other = getelementptr i8, ptr %base, i64 40
  store ptr null, ptr %other
  br label %end
end:
  ret ptr %base
}

define void @NRT_MemInfo_call_dtor(ptr %block) {
  call void @free(ptr %block)
  ret void
}
"""
"""numba's memory blocks: count of references, destructor and its data, address, size, allocator."""

MEMORY_TYPES = {"NRT_MemInfo_alloc_aligned": "ptr (i64, i32)", "NRT_MemInfo_call_dtor": "void (ptr)"}

CLOSED = re.compile(r"^(Py|_Py|numba_|NRT_)")
"""What only exceptions use."""

_translated: dict[CompiledFunction, Any] = {}


def object_file(function: CompiledFunction) -> tuple[str, bytes]:
    """Return the name of a function's entry and its object file.

    Raises
    ------
    XrdzError
        If the translators installed do not work as this module knows them.
    """
    entry = _compiled_entry(function)
    library = entry._library
    module = llvm.parse_assembly(str(library._final_module))
    _close(module)
    return str(entry._wrapper_name), bytes(library._codegen._tm.emit_object(module))


def in_process(function: CompiledFunction) -> Entry:
    """Return the entry of a function as numba itself links it, for this process alone."""
    entry = _compiled_entry(function)
    _kept.append(entry)
    return cast(Entry, entry.ctypes)


_kept: list[Any] = []
"""Entries that numba would take back."""


def _compiled_entry(function: CompiledFunction) -> Any:
    words, numbers = types.CPointer(types.int64), types.CPointer(types.float64)  # type: ignore[attr-defined]
    return numba.cfunc(types.void(words, numbers), **OPTIONS)(_entry(function))


def translated(function: CompiledFunction, *, spelled_out: bool = False) -> Any:
    """Return what numba makes of a function, its callees translated first.

    Parameters
    ----------
    spelled_out : as if it stood in its caller, so that it is compiled once less
    """
    if function in _translated and not spelled_out:
        return _translated[function]
    python = function.python
    scope = dict(python.__globals__)
    for name in python.__code__.co_names:
        found = scope.get(name)
        if isinstance(found, CompiledFunction):
            scope[name] = translated(found)
        elif isinstance(found, Primitive):
            scope[name] = PRIMITIVES[found.name]
    copy = FunctionType(python.__code__, scope, python.__name__, python.__defaults__, python.__closure__)
    how: dict[str, Any] = {"inline": "always"} if spelled_out else {"forceinline": True}
    dispatcher = numba.njit(fastmath=FAST, error_model="numpy", **how)(copy)
    if not spelled_out:
        _translated[function] = dispatcher
    return dispatcher


@intrinsic  # type: ignore[untyped-decorator]
def pointer(typing_context: Any, address: Any) -> Any:
    """Return the pointer that an integer is."""
    del typing_context, address

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.voidptr(types.int64), code


def _view(dtype: type, dimensions: int) -> Any:
    """Return the function that makes an array of address, rows and columns."""
    if dimensions == 1:
        return numba.njit(forceinline=True)(lambda entry: numba.carray(pointer(entry[0]), (entry[1],), dtype))
    return numba.njit(forceinline=True)(lambda entry: numba.carray(pointer(entry[0]), (entry[1], entry[2]), dtype))


PRIMITIVES = {
    "doubles": _view(np.float64, 1),
    "double_rows": _view(np.float64, 2),
    "integers": _view(np.int64, 1),
    "integer_rows": _view(np.int64, 2),
}


def _entry(function: CompiledFunction) -> FunctionType:
    """Return the entry of a function: it takes its arguments from two tables and puts its results into the second."""
    scope = {
        "call": translated(function, spelled_out=True),
        "carray": numba.carray,
        "pointer": pointer,
        **{f"type_{dtype.name}": dtype.type for dtype, _ in ARRAYS.values()},
    }
    word = number = 0
    arguments = []
    for annotation in function.parameters:
        if annotation in ARRAYS:
            dtype, dimensions = ARRAYS[annotation]
            shape = ", ".join(f"w[{word + 1 + k}]" for k in range(dimensions))
            arguments.append(f"carray(pointer(w[{word}]), ({shape},), type_{dtype.name})")
            word += 1 + dimensions
        elif annotation == "float":
            arguments.append(f"d[{number}]")
            number += 1
        else:
            arguments.append(f"w[{word}]" if annotation == "int" else f"w[{word}] != 0")
            word += 1
    count = len(function.results)
    results = ", ".join(f"d[{number + k}]" for k in range(count))
    lines = ["def entry(words, doubles):"]
    lines += [f"    w = carray(words, ({max(word, 1)},))", f"    d = carray(doubles, ({number + count + 1},))"]
    lines += [f"    {results + ' = ' if count else ''}call({', '.join(arguments)})", f"    d[{number + count}] = 1.0"]
    exec(compile("\n".join(lines), f"<entry of {function.name}>", "exec"), scope)
    made = scope["entry"]
    assert isinstance(made, FunctionType)
    return made


def _close(module: Any) -> None:
    """Give a module what it asks of numba's runtime, so that it asks for nothing but the C library."""
    wanted = {item.name: str(item.global_value_type) for item in module.functions if item.is_declaration}
    wanted = {name: kind for name, kind in wanted.items() if not name.startswith("llvm.")}
    data = {item.name: str(item.global_value_type) for item in module.global_variables if item.is_declaration}
    parts = []
    for name, kind in wanted.items():
        if name in MEMORY_TYPES:
            if kind != MEMORY_TYPES[name]:
                raise XrdzError(f"numba {numba.__version__} asks for memory in another way ({name} is {kind})")
        elif CLOSED.match(name):
            result, _, parameters = kind.partition(" (")
            value = "" if result == "void" else " null" if result == "ptr" else " 0"
            parts.append(f'define {result} @"{name}"({parameters} {{\n  ret {result}{value}\n}}')
        elif name not in LIBRARY and name.removesuffix("f") not in LIBRARY:
            raise XrdzError(f"numba {numba.__version__} asks for {name}, which no C library has")
    parts += [f'@"{name}" = global {kind} zeroinitializer' for name, kind in data.items()]
    given = llvm.parse_assembly("\n\n".join([MEMORY if set(wanted) & set(MEMORY_TYPES) else "", *parts]))
    given.triple = module.triple
    given.data_layout = module.data_layout
    own = [item.name for item in (*given.functions, *given.global_variables) if not item.is_declaration]
    module.link_in(given)
    for item in (*module.functions, *module.global_variables):
        if item.name in own:
            item.linkage = "internal"
