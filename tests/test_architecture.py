"""The straight line holds: imports point downward, each heavy package has one door, the fit path stays light.

A module's place is its row in `LAYERS`, the highest first. It may import modules of its own row and of rows below, at
its top; what it imports inside a function may lie higher only where `LAZY_UPWARD` says so.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "xrdz"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("commands",),
    ("batching", "watching", "validation", "validation_plot", "calibration", "simulation", "exports"),
    ("reporting", "results"),
    ("archive", "archive_writer", "hdf5_pack", "run_folder", "inputs", "stored", "pool", "worker", "cluster"),
    ("terminal", "plotting", "lmfit_problem"),
    ("pipeline",),
    ("analysis", "judgement", "tube_lines", "solid_solution"),
    ("candidates",),
    ("claims", "features", "decision", "sample_sheet", "method", "writers", "readers"),
    ("quantify", "detection", "residuals", "microstructure", "standards", "absorption", "crystallinity"),
    ("fit", "conditions"),
    ("evidence", "start", "line_list"),
    ("solver",),
    ("pattern", "phase_model"),
    ("descent",),
    ("algebra", "reflection"),
    ("profile", "anisotropy", "background", "kernel", "parameters", "instrument"),
    ("reference", "cif"),
    ("crystal", "charges", "scattering", "diffractogram", "fields"),
    ("compiled", "machine_code"),
    ("wavelength", "findings", "files", "numerals", "process"),
    ("errors",),
    ("__init__",),
)

LAZY_UPWARD = {
    ("__main__", "cli"),
    ("cli", "commands"),
    ("analysis", "plotting"),  # Analysis.plot()
    ("pipeline", "lmfit_problem"),  # the referee of --solver lmfit
    ("__init__", "readers"),  # the public names, imported on first use
    ("__init__", "pipeline"),
    ("__init__", "batching"),
}

DOORS: dict[str, set[str]] = {
    "lmfit": {"lmfit_problem"},
    "pymatgen": {"cif"},
    "matplotlib": {"plotting"},
    "plotly": {"reporting"},
    "typst": {"reporting"},
    "h5py": {"archive", "archive_writer", "hdf5_pack", "readers"},
    "distributed": {"cluster"},
    "dask": {"cluster"},
    "scipy": {"lmfit_problem"},
    "numba": {"machine_code"},
    "llvmlite": {"compiled", "machine_code"},
    "pandas": {"results"},
    "xraydb": set(),
    "gemmi": set(),
}
"""Which modules may import a heavy package, inside a function where the fit path does not need it."""

READERS_OF_HDF5 = {"readers.nexus"}


@dataclass(frozen=True)
class Import:
    """One import of a module: what it names, and whether it runs when the module is imported."""

    importer: str
    target: str
    at_top: bool
    line: int


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def unit(module: str) -> str:
    """Return the module or the package that has a place in the layers."""
    return module.partition(".")[0]


def is_for_types_only(node: ast.If) -> bool:
    test = node.test
    return (test.id if isinstance(test, ast.Name) else getattr(test, "attr", "")) == "TYPE_CHECKING"


def imports_in(tree: ast.AST, importer: str, at_top: bool) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and is_for_types_only(node):
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(importer, alias.name, at_top, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{importer} line {node.lineno}: imports are absolute in this package"
            module = node.module or ""
            names = [f"xrdz.{alias.name}" for alias in node.names] if module == "xrdz" else [module]
            for name in names:
                yield Import(importer, name, at_top, node.lineno)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports_in(node, importer, at_top and not inside)


@lru_cache(maxsize=1)
def all_imports() -> tuple[Import, ...]:
    found: list[Import] = []
    for path in sorted(SOURCE.rglob("*.py")):
        found += imports_in(ast.parse(path.read_text(encoding="utf-8")), module_name(path), True)
    return tuple(found)


def own(found: Import) -> str | None:
    """Return the unit of this package that is imported, or None for other packages and for names of `xrdz` itself."""
    parts = found.target.split(".")
    if parts[0] != "xrdz" or len(parts) < 2 or parts[1].startswith("__"):
        return None
    return parts[1]


PLACE = {name: row for row, names in enumerate(LAYERS) for name in names}


def test_every_module_has_a_place() -> None:
    modules = {unit(module_name(path)) for path in SOURCE.rglob("*.py")}
    assert modules <= set(PLACE), f"give {sorted(modules - set(PLACE))} a row in LAYERS"


def test_imports_point_downward() -> None:
    wrong = [
        f"{item.importer} line {item.line} imports {item.target}"
        for item in all_imports()
        if (target := own(item)) in PLACE
        and PLACE[target] < PLACE.get(unit(item.importer), len(LAYERS))
        and (item.at_top or (unit(item.importer), target) not in LAZY_UPWARD)
        and (unit(item.importer), target) != ("__main__", "cli")
    ]
    assert wrong == []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for item in all_imports():
        target = own(item)
        if target is not None and item.at_top and target != unit(item.importer):
            graph.setdefault(unit(item.importer), set()).add(target)
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for target in sorted(graph.get(name, ())):
                visit(target, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("package", sorted(DOORS))
def test_a_heavy_package_has_one_door(package: str) -> None:
    users = {item.importer for item in all_imports() if item.target.split(".")[0] == package}
    if package == "h5py":
        users -= READERS_OF_HDF5
        assert {name for name in users if name.startswith("readers")} == set()
    assert {unit(name) for name in users} <= DOORS[package], f"{package} is imported in {sorted(users)}"


@pytest.mark.parametrize("package", ["lmfit", "pymatgen", "matplotlib", "plotly", "h5py", "dask", "distributed"])
def test_heavy_packages_are_imported_when_needed(package: str) -> None:
    """Only inside functions, but for a door that exists for nothing else."""
    allowed = {"lmfit_problem", "archive", "archive_writer", "hdf5_pack"}
    at_top = {item.importer for item in all_imports() if item.at_top and item.target.split(".")[0] == package}
    assert at_top <= allowed


def test_the_fit_path_loads_nothing_heavy(sample_data: Path) -> None:
    code = (
        "import sys\n"
        "from xrdz.cli import main\n"
        "code = main(['fit', sys.argv[1], '--range', '28:50', '--json'])\n"
        "heavy = {'lmfit', 'pymatgen', 'matplotlib', 'pandas', 'h5py', 'plotly', 'typst', 'dask', 'scipy', 'numba'}"
        " & set(sys.modules)\n"
        "sys.stderr.write(','.join(sorted(heavy)))\n"
        "sys.exit(code)\n"
    )
    scan = sample_data / "snni_z2.00_low_counts.xy"
    # The first process may have to compile, which needs numba; the next one must not.
    for allowed in ({"", "numba", "scipy", "numba,scipy"}, {""}):
        done = subprocess.run([sys.executable, "-c", code, str(scan)], capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert done.stderr.rpartition("\n")[2] in allowed  # after the line that says it compiles


def test_every_import_exists() -> None:
    missing = [f"{i.importer} line {i.line}: {i.target}" for i in all_imports() if own(i) not in (None, *PLACE)]
    assert missing == []


def test_importing_the_package_is_instant() -> None:
    code = "import sys, xrdz; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_the_front_prints_and_only_boundaries_catch_everything() -> None:
    """No `print`, no bare `except`; `except Exception` stands only where a scan or a command must not stop the rest."""
    boundaries = {"cli", "commands.fit", "batching", "watching", "worker", "cluster"}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path} line {node.lineno}"
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path} line {node.lineno}: bare except"
                broad = isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
                assert not broad or module_name(path) in boundaries, f"{path} line {node.lineno}"
