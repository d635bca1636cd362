"""`xrdz simulate`: a scan with known truth from the engine's own pattern model, with Poisson counts."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xrdz.errors import InputError

if TYPE_CHECKING:
    from xrdz.simulation import SimulationSettings

DESCRIPTION = """\
Simulate a scan of known phases with Poisson counts and write it with its truth (STEM.truth.json beside it). Positions,
intensities and peak shapes are those of the fit's own model: such scans try out methods, counting times, ranges and
detection limits; they say nothing about the accuracy of the physics."""

EPILOG = """\
units: 2theta, range, step, zero, widths and openings in degrees; size in nm (volume-weighted column length); strain as
Delta d / d; B in angstrom^2; texture as March-Dollase r; displacement and radius in mm; fractions 0 to 1; humps are
relative to the height of the strongest peak

suffix of --out: .xy (text with a header that `xrdz fit` understands) or .xrdml

example:
  xrdz simulate --z 1.0 --seed 7 --out mixture.xy
  xrdz simulate --z 0.3 --size sn=50,ni3sn4=30 --texture sn=0.85 --impurity ni=0.02 --counts 1e5 --out hard.xy
  xrdz simulate --phases corundum,zincite --fractions corundum=0.4,zincite=0.6 --range 20:140 --out oxides.xrdml
"""

XY, XRDML = ".xy", ".xrdml"


def register(subparsers: Any) -> None:
    """Add `xrdz simulate`."""
    parser = subparsers.add_parser(
        "simulate", help="write a scan with known truth", description=DESCRIPTION, epilog=EPILOG
    )
    pairs = "ID=VALUE,..."
    specimen = parser.add_argument_group("specimen")
    amount = specimen.add_mutually_exclusive_group()
    amount.add_argument("--z", metavar="RATIO", type=float, help="mass ratio, ni3sn4/sn by default (default: 1)")
    amount.add_argument("--fractions", metavar=pairs, help="mass fractions that sum to 1, such as sn=0.5,ni3sn4=0.5")
    specimen.add_argument("--phases", metavar="ID,ID,...", help="ids of `xrdz reference list`, or CIF files")
    specimen.add_argument("--impurity", metavar=pairs, help="mass fraction of the whole, such as ni=0.02")
    specimen.add_argument("--size", metavar=pairs, help="volume-weighted column length, nm (default: 60)")
    specimen.add_argument("--size-spread", metavar="S", type=float, help="sd of ln(grain diameter) (default: 0.3)")
    specimen.add_argument("--strain", metavar=pairs, help="Delta d / d, such as ni3sn4=0.001 (default: 0)")
    specimen.add_argument("--texture", metavar=pairs, help="March-Dollase r, such as sn=0.85 (default: 1)")
    specimen.add_argument("--b", metavar=pairs, help="B in angstrom^2, such as sn=0.8 or ni3sn4.Ni=0.5")
    specimen.add_argument("--cell", metavar=pairs, help="relative change of the cell lengths, such as sn=0.001")
    specimen.add_argument("--displacement", metavar="MM", type=float, help="specimen displacement, mm (default: 0)")
    instrument = parser.add_argument_group("instrument")
    instrument.add_argument("--wavelength", metavar="NAME|A", help="CuKa, CoKa, CuKa1, ... or angstrom (default: CuKa)")
    instrument.add_argument("--radius", metavar="MM", type=float, help="goniometer radius, mm (default: 217.5)")
    instrument.add_argument(
        "--monochromator", metavar="DEG", type=float, help="its diffraction angle, degrees 2theta (default: none)"
    )
    instrument.add_argument("--soller", metavar="DEG", type=float, help="opening of Soller slits, deg (default: 2.5)")
    instrument.add_argument("--zero", metavar="DEG", type=float, help="zero of the circle, deg (default: 0)")
    measurement = parser.add_argument_group("measurement")
    measurement.add_argument("--range", metavar="LOW:HIGH", help="degrees 2theta (default: 20:100)")
    measurement.add_argument("--step", metavar="DEG", type=float, help="degrees 2theta (default: 0.02)")
    counts = measurement.add_mutually_exclusive_group()
    counts.add_argument("--counts", metavar="N", type=float, help="counts in all peaks together (default: 1e6)")
    counts.add_argument("--peak-counts", metavar="N", type=float, help="counts at the strongest peak instead")
    measurement.add_argument(
        "--background", metavar="C0,C1,...", help="Chebyshev terms, of the strongest peak (default: 0.02,-0.008,0.003)"
    )
    measurement.add_argument(
        "--hump",
        metavar="CENTRE,WIDTH,HEIGHT",
        action="append",
        default=[],
        help="amorphous hump: deg, deg, of the strongest peak; such as 31,8,0.05 (repeatable)",
    )
    measurement.add_argument("--seed", metavar="N", type=int, default=0, help="of the random counts (default: 0)")
    parser.add_argument("--out", metavar="FILE.xy", required=True, help="scan to write, .xy or .xrdml")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Simulate, and write the scan and its truth."""
    path = Path(args.out)
    if path.suffix.lower() not in (XY, XRDML):
        raise InputError(f"--out {args.out!r}: expected a file with the suffix {XY} or {XRDML}")
    if args.seed < 0:
        raise InputError(f"--seed {args.seed}: expected zero or a positive integer")
    settings = settings_of(args)

    import numpy as np

    from xrdz.simulation import simulate, write_truth, write_xy

    diffractogram, truth = simulate(settings, np.random.default_rng(args.seed))
    truth["seed"] = args.seed
    if path.suffix.lower() == XY:
        write_xy(diffractogram, path, f"seed {args.seed}, truth in {path.stem}.truth.json")
    else:
        from xrdz.writers import write

        write(diffractogram, path, "xrdml")
    beside = write_truth(truth, path)
    sys.stderr.write(f"wrote {path}\nwrote {beside}\n")
    return 0


def settings_of(args: argparse.Namespace) -> SimulationSettings:
    """Return the settings the options describe; what is not given keeps its default."""
    from xrdz.method import parse_phases, parse_range
    from xrdz.simulation import SimulationSettings

    fractions = parse_values(args.fractions, "--fractions")
    phases = tuple(fractions) or None if args.phases is None else parse_phases(args.phases)
    given: dict[str, Any] = {
        "phases": phases,
        "mass_ratio": args.z,
        "mass_fractions": fractions,
        "impurities": parse_values(args.impurity, "--impurity"),
        "size_nm": parse_values(args.size, "--size"),
        "size_spread": args.size_spread,
        "strain": parse_values(args.strain, "--strain"),
        "texture_r": parse_values(args.texture, "--texture"),
        "displacement_parameters": parse_values(args.b, "--b"),
        "cell_change": parse_values(args.cell, "--cell"),
        "displacement_mm": args.displacement,
        "wavelength": None if args.wavelength is None else _wavelength(args.wavelength),
        "radius_mm": args.radius,
        "monochromator_two_theta_deg": args.monochromator,
        "soller_deg": args.soller,
        "zero_deg": args.zero,
        "two_theta": None if args.range is None else parse_range(args.range),
        "step": args.step,
        "counts": args.counts if args.peak_counts is None else args.peak_counts,
        "counts_of": None if args.peak_counts is None else "peak",
        "background": None if args.background is None else _numbers(args.background, "--background"),
        "humps": tuple(_hump(text) for text in args.hump),
    }
    return SimulationSettings(**{name: value for name, value in given.items() if value is not None})


def parse_values(text: str | None, option: str) -> dict[str, float]:
    """Return numbers by phase id (or `phase.Element`) from text such as `sn=50,ni3sn4=30`.

    Raises
    ------
    InputError
        If a part is not ID=NUMBER, or an id stands twice.
    """
    values: dict[str, float] = {}
    for part in (text or "").split(",") if text is not None else ():
        name, equals, number = (word.strip() for word in part.partition("="))
        phase, dot, element = name.partition(".")
        key = phase.lower() + dot + element.capitalize()
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not (equals and phase and value == value) or key in values:
            raise InputError(f"{option} {text!r}: expected each phase once as ID=NUMBER, such as sn=0.5,ni3sn4=0.5")
        values[key] = value
    return values


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text!r}: expected numbers separated by commas") from None


def _hump(text: str) -> tuple[float, float, float]:
    numbers = _numbers(text, "--hump")
    if len(numbers) != 3:
        raise InputError(f"--hump {text!r}: expected CENTRE,WIDTH,HEIGHT, such as 31,8,0.05")
    return numbers


def _wavelength(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text
