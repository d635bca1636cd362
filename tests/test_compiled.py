"""Machine code: made once, loaded without a compiler, the same digits from either; arguments that do not fit."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import xrdz
from xrdz import algebra, compiled
from xrdz.compiled import CompiledFunction, FloatArray, entry_of

SOURCE = Path(xrdz.__file__).resolve().parent


@compiled.compiled
def _halves(values: FloatArray, count: int, shift: float, upward: bool) -> tuple[float, int]:
    """Halve values in place and return a sum of them and a count."""
    memory = np.zeros(count)
    for i in range(count):
        values[i] *= 0.5
        memory[i] = values[i] + shift
    total = 0.0
    for i in range(count):
        total += memory[i]
    return (total if upward else -total), count + 1


def test_numbers_and_arrays_go_in_and_out() -> None:
    values = np.array([2.0, 4.0, 6.0])
    total, count = _halves(values, 2, 0.25, False)
    np.testing.assert_array_equal(values, [1.0, 2.0, 6.0])
    assert (total, count) == (-3.5, 3)
    assert isinstance(count, int)


def test_an_array_that_does_not_fit_is_refused_before_any_memory_is_touched() -> None:
    rows = np.arange(12.0).reshape(3, 4)
    product = np.empty((3, 3))
    with pytest.raises(TypeError, match=r"algebra\.gram: expected float64 of 2 dimensions, not float32"):
        algebra.gram(rows.astype(np.float32), product)
    with pytest.raises(TypeError, match="2 dimensions"):
        algebra.gram(rows[0], product)
    with pytest.raises(TypeError, match="C order"):
        algebra.gram(rows.T, product)
    with pytest.raises(ValueError, match="argument"):
        algebra.gram(rows)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="float32"):
        entry_of(np.zeros(3, dtype=np.float32))


def test_memory_that_cannot_be_had_is_a_memory_error() -> None:
    with pytest.raises(MemoryError, match="halves"):
        _halves(np.zeros(1), 1 << 58, 0.0, True)


SCRIPT = (
    "import sys, numpy as np\n"
    "from xrdz import algebra\n"
    "rows, product = np.arange(300.0).reshape(3, 100) ** 0.3, np.empty((3, 3))\n"
    "algebra.gram(rows, product)\n"
    "print(product.tobytes().hex(), 'numba' in sys.modules)\n"
)


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """A copy of the package that has compiled nothing yet."""
    shutil.copytree(SOURCE, tmp_path / "site" / "xrdz", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def environment_of(installation: Path) -> dict[str, str]:
    return {
        "PYTHONPATH": str(installation / "site"),
        "XDG_CACHE_HOME": str(installation / "cache"),
        "HOME": str(installation),
        "PATH": "",
    }


def run(installation: Path) -> tuple[str, bool]:
    """Return the result of the script and whether numba was imported."""
    environment = environment_of(installation)
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    digits, imported = done.stdout.split()
    return digits, imported == "True"


def test_the_process_that_compiles_and_those_that_load_agree_to_the_last_digit(installation: Path) -> None:
    first, compiled_here = run(installation)
    second, compiled_again = run(installation)
    assert compiled_here
    assert not compiled_again
    assert first == second
    assert len(list((installation / "site" / "xrdz" / "__pycache__").glob("algebra.gram-*.o"))) == 1


def test_a_read_only_installation_keeps_its_code_in_the_users_cache(installation: Path) -> None:
    # A file where the folder should be: root may write into folders that are read-only.
    (installation / "site" / "xrdz" / "__pycache__").write_text("")
    run(installation)
    assert not run(installation)[1]


def test_where_nothing_can_be_kept_a_warning_says_what_to_do(installation: Path) -> None:
    for folder in (installation / "site" / "xrdz" / "__pycache__", installation / "cache"):
        folder.write_text("")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment_of(installation), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "XDG_CACHE_HOME" in done.stderr


def test_a_user_without_a_home_has_the_folder_beside_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert compiled.folders() == [SOURCE / "__pycache__"]


def test_damaged_code_is_compiled_anew(installation: Path) -> None:
    run(installation)
    (stored,) = (installation / "site" / "xrdz" / "__pycache__").glob("algebra.gram-*.o")
    stored.write_bytes(stored.read_bytes()[:-100])
    assert run(installation)[1]
    assert not run(installation)[1]


def test_changed_sources_are_compiled_anew(installation: Path) -> None:
    run(installation)
    with (installation / "site" / "xrdz" / "algebra.py").open("a") as stream:
        stream.write("\n# changed\n")
    assert run(installation)[1]


def test_every_compiled_function_says_what_it_takes() -> None:
    """An annotation the caller does not know would pass an array as a number."""
    from xrdz import descent, kernel, profile, reflection

    known = {*compiled.ARRAYS, *compiled.NUMBERS}
    found = 0
    for module in (algebra, descent, kernel, profile, reflection):
        for item in vars(module).values():
            if isinstance(item, CompiledFunction):
                found += 1
                assert set(item.parameters) <= known, item.name
                assert set(item.results) <= set(compiled.NUMBERS), item.name
    assert found > 20


def innermost_loops(source: str) -> Iterator[tuple[ast.For, str]]:
    """Yield the loops without loops inside of every compiled function, each with the function's name."""
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef) or "compiled" not in map(ast.unparse, function.decorator_list):
            continue
        for loop in ast.walk(function):
            if isinstance(loop, ast.For) and sum(isinstance(node, ast.For) for node in ast.walk(loop)) == 1:
                yield loop, function.name


def sums_and_stores(loop: ast.For) -> bool:
    """Return whether a loop adds to a number and stores to an array at the loop's own place."""
    counter = ast.unparse(loop.target)
    sums = stores = False
    for node in ast.walk(loop):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
        )
        for target in targets:
            counting = isinstance(node.value, ast.Constant)
            sums |= isinstance(node, ast.AugAssign) and isinstance(target, ast.Name) and not counting
            if isinstance(target, ast.Subscript):
                names = {item.id for item in ast.walk(target.slice) if isinstance(item, ast.Name)}
                stores |= counter in names
    return sums and stores


def test_no_compiled_loop_both_sums_and_stores() -> None:
    """Its vectors would be given up where its arrays lie close together, and the sum be taken in another order."""
    mixed = (
        "@compiled\ndef f(a, b):\n    total = 0.0\n    for i in range(3):\n        b[i] = a[i]\n        total += b[i]\n"
    )
    assert [sums_and_stores(loop) for loop, _ in innermost_loops(mixed)] == [True]
    wrong = [
        f"{path.name}: {name}, line {loop.lineno}"
        for path in sorted(SOURCE.glob("*.py"))
        for loop, name in innermost_loops(path.read_text(encoding="utf-8"))
        if sums_and_stores(loop)
    ]
    assert wrong == []
