"""`xrdz reference`: list, show and add reference structures, and recompile the shipped library."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xrdz.line_list import Line
    from xrdz.reference import Reference

EXAMPLE = """\
units: cells in angstrom and degrees, B in angstrom^2, density in g/cm^3, attenuation in 1/cm, 2theta in degrees

example:
  xrdz reference list
  xrdz reference show ni3sn4
  xrdz reference add my_phase.cif --id my_phase
"""

STRONGEST_LINES = 10


def register(subparsers: Any) -> None:
    """Add `xrdz reference` with its actions."""
    parser = subparsers.add_parser(
        "reference",
        help="list, show and add reference structures",
        description="List, show and add the reference structures a fit can use.",
        epilog=EXAMPLE,
    )
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)

    listing = actions.add_parser(
        "list",
        help="one line per reference",
        description="Print id, formula, space group, density (g/cm^3), strongest line (degrees 2theta, Cu K-alpha1).",
        epilog="example:\n  xrdz reference list\n  xrdz reference list --json",
    )
    listing.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    listing.set_defaults(run=run_list)

    show = actions.add_parser(
        "show",
        help="everything about one reference",
        description=(
            "Print citation, cell (angstrom, degrees), B priors (angstrom^2), texture axes (hkl), density (g/cm^3), "
            "linear attenuation (1/cm), I/Ic and the strongest lines at Cu K-alpha1 (degrees 2theta)."
        ),
        epilog="example:\n  xrdz reference show ni3sn4\n  xrdz reference show sn --json",
    )
    show.add_argument("id", metavar="ID", help="an id of `xrdz reference list`, or a CIF file")
    show.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    show.set_defaults(run=run_show)

    add = actions.add_parser(
        "add",
        help="compile a CIF into your own library",
        description=(
            "Compile a CIF into your own library: the folder $XRDZ_REFERENCES, or the data folder of your account. "
            "B (angstrom^2) is taken from the CIF or a generic prior; the cell must be in angstrom and degrees."
        ),
        epilog="example:\n  xrdz reference add my_phase.cif --id my_phase",
    )
    add.add_argument("cif", metavar="FILE.cif", help="the crystal structure")
    add.add_argument("--id", metavar="ID", help="name in methods and results; default: the file's stem in lower case")
    add.set_defaults(run=run_add)

    build = actions.add_parser(
        "build",
        help="recompile the shipped library (for developers)",
        description=(
            "Recompile reference_patterns/compiled.json from the CIFs (angstrom, degrees) and phases.toml "
            "(B in angstrom^2) beside it. Needed only after one of them changed."
        ),
        epilog="example:\n  xrdz reference build",
    )
    build.set_defaults(run=run_build)


def run_list(args: argparse.Namespace) -> int:
    """Print one line, or one JSON object, per reference."""
    from xrdz.reference import library_sha256, load_library

    library = load_library()
    if args.json:
        document = {
            "schema": "xrdz.reference_list/1",
            "sha256": library_sha256(),
            "references": [_summary(phase) for phase in library.values()],
        }
        sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
        return 0
    width = max(len(id) for id in library)
    sys.stdout.write(f"{'id':{width}s}  {'formula':10s}  {'space group':12s}  g/cm^3  strongest line, Cu K-alpha1\n")
    for phase in library.values():
        line = _strongest(phase)
        sys.stdout.write(
            f"{phase.id:{width}s}  {phase.formula:10s}  {phase.space_group:12s}  {phase.density:6.3f}  "
            f"{line.two_theta:7.3f} deg  {_indices(line)}\n"
        )
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Print one reference."""
    phase = _phase(args.id)
    if args.json:
        document = {"schema": "xrdz.reference/1", **_summary(phase), **_details(phase)}
        sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
        return 0
    details = _details(phase)
    rows = [
        ("id", phase.id),
        ("name", phase.name),
        ("formula", f"{phase.formula}, {phase.formula_units} in the cell"),
        ("source", phase.source),
        ("space group", f"{phase.space_group} (No. {phase.space_group_number}), {phase.crystal_system}"),
        ("cell", "  ".join(f"{name} {value:g}" for name, value in details["cell"].items()) + "  (angstrom, degrees)"),
        ("volume", f"{phase.volume:.3f} angstrom^3"),
        ("density", f"{phase.density:.3f} g/cm^3"),
        ("attenuation", f"{details['linear_attenuation_per_cm']:.1f} 1/cm at Cu K-alpha1"),
        ("composition", ", ".join(f"{symbol} {100 * w:.2f} %" for symbol, w in phase.composition.items()) + " by mass"),
        (
            "B priors",
            ", ".join(
                f"{group} {value:g} +- {su:g}"
                for group, (value, su) in zip(phase.groups, phase.displacement, strict=True)
            )
            + " angstrom^2",
        ),
        (
            "charges",
            ", ".join(
                f"{group} {value:+g} +- {su:.2g}"
                for group, (value, su, formal) in zip(phase.groups, phase.charges, strict=True)
                if formal
            )
            or "neutral atoms",
        ),
        ("texture axes", "  ".join(f"[{h} {k} {l}]" for h, k, l in phase.texture_axes)),  # noqa: E741
        ("flags", ", ".join(phase.flags) or "none"),
        ("I/Ic", f"{details['i_over_ic']:.2f} calculated; measured cards run 3 to 8 % lower"),
        ("sha256", phase.sha256),
    ]
    sys.stdout.write("".join(f"{label:13s} {text}\n" for label, text in rows))
    sys.stdout.write("\n  2theta/deg   d/angstrom    m      I/%  hkl\n")
    for line in details["lines"]:
        indices = " + ".join(" ".join(map(str, hkl)) for hkl in line["hkl"])
        sys.stdout.write(
            f"  {line['two_theta']:10.3f}  {line['d']:11.4f}  {line['multiplicity']:3d}  "
            f"{100 * line['relative_intensity']:7.1f}  {indices}\n"
        )
    return 0


def run_add(args: argparse.Namespace) -> int:
    """Compile a CIF into the user folder."""
    from xrdz.reference import add_reference

    phase, target = add_reference(Path(args.cif), id=args.id)
    sys.stderr.write(f"wrote {target}\n")
    sys.stdout.write(f"{phase.id}  {phase.formula}  {phase.space_group}  {phase.density:.3f} g/cm^3\n")
    return 0


def run_build(args: argparse.Namespace) -> int:  # noqa: ARG001 - every command takes its arguments
    """Recompile the shipped library in place."""
    from xrdz.files import write_whole
    from xrdz.reference import clear_caches, compile_library, library_folder, reference_ids

    target = library_folder() / "compiled.json"
    text = compile_library(target.parent)
    write_whole(target, text)
    clear_caches()
    sys.stderr.write(f"wrote {target}\n")
    sys.stdout.write(f"{len(reference_ids())} references\n")
    return 0


def _phase(name: str) -> Reference:
    """Return the reference of an id or, for a name that ends in .cif, of a file."""
    from xrdz.reference import reference, reference_from_cif

    return reference_from_cif(Path(name)) if name.lower().endswith(".cif") else reference(name)


def _copper_k_alpha1() -> float:
    from xrdz.wavelength import EMISSION_LINES

    return EMISSION_LINES["CuKa"][0][0]


def _strongest(phase: Reference) -> Line:
    from xrdz.line_list import line_list

    return max(line_list(phase, wavelength=_copper_k_alpha1()), key=lambda line: line.intensity)


def _indices(line: Line) -> str:
    return " + ".join(" ".join(map(str, hkl)) for hkl in line.hkl)


def _summary(phase: Reference) -> dict[str, Any]:
    line = _strongest(phase)
    return {
        "id": phase.id,
        "name": phase.name,
        "formula": phase.formula,
        "space_group": phase.space_group,
        "density": phase.density,
        "strongest_line": {"two_theta": line.two_theta, "hkl": [list(hkl) for hkl in line.hkl]},
        "sha256": phase.sha256,
    }


def _details(phase: Reference) -> dict[str, Any]:
    from xrdz.crystal import CELL_NAMES
    from xrdz.line_list import line_list, reference_intensity_ratio
    from xrdz.reference import reference

    wavelength = _copper_k_alpha1()
    lines = sorted(line_list(phase, wavelength=wavelength), key=lambda line: -line.intensity)[:STRONGEST_LINES]
    return {
        "source": phase.source,
        "space_group_number": phase.space_group_number,
        "crystal_system": phase.crystal_system,
        "cell": dict(zip(CELL_NAMES, phase.cell, strict=True)),
        "formula_units": phase.formula_units,
        "volume": phase.volume,
        "composition": phase.composition,
        "displacement": {
            group: {"value": value, "su": su}
            for group, (value, su) in zip(phase.groups, phase.displacement, strict=True)
        },
        "charges": {
            group: {"value": value, "su": su, "formal": formal}
            for group, (value, su, formal) in zip(phase.groups, phase.charges, strict=True)
        },
        "texture_axes": [list(axis) for axis in phase.texture_axes],
        "flags": list(phase.flags),
        "linear_attenuation_per_cm": phase.linear_attenuation(wavelength),
        "i_over_ic": reference_intensity_ratio(phase, corundum=reference("corundum"), wavelength=wavelength),
        "wavelength": wavelength,
        "lines": [
            {
                "two_theta": line.two_theta,
                "d": line.d,
                "hkl": [list(hkl) for hkl in line.hkl],
                "multiplicity": line.multiplicity,
                "relative_intensity": line.intensity / lines[0].intensity,
            }
            for line in lines
        ],
    }
