"""`xrdz read`: what the reader understood of a scan file, and conversion to another format."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xrdz.diffractogram import Diffractogram

DESCRIPTION = """\
Show what the reader understood of a scan file: format, points, range and step in degrees 2theta, wavelength in angstrom
and where it comes from, whether the numbers are counts, the metadata, and everything the reader did (findings).
Formats: text columns (.xy .dat .txt .csv .prn .xye), PANalytical .xrdml, Bruker .raw .brml .uxd, Rigaku .ras .rasx
.asc, Philips .udf .rd .sd, GSAS, FullProf .dat, .cpi, .xdd, Stoe .raw, powder CIF, NeXus; each also as .gz."""

EPILOG = """\
units:
  2theta in degrees, wavelength and d in angstrom, q in 1/angstrom, time in seconds, lengths in millimetres;
  gain is the variance of a point divided by its expected intensity (1 for plain counts)

example:
  xrdz read scan.xrdml
  xrdz read ranges.raw --scan 2 --json
  xrdz read scan.raw --to xye --out scan.xye
"""

OUTPUT_WORDS = ("xye", "csv", "pdcif", "nexus", "xrdml")
AXIS_WORDS = ("two_theta", "radian", "q", "d")


def register(subparsers: Any) -> None:
    """Add `xrdz read`."""
    parser = subparsers.add_parser(
        "read", help="show what the reader understood of a scan, or convert it", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("scan_file", metavar="SCAN", help="the scan file")
    parser.add_argument(
        "--scan", metavar="N|sum|all", help="which scan of a file with several: number from 1, sum or all"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document a scan, one a line")
    parser.add_argument("--plot", metavar="FILE.png", help="write a plot of intensity against 2theta (deg)")
    parser.add_argument("--to", choices=OUTPUT_WORDS, help="convert to this format; needs --out")
    parser.add_argument("--out", metavar="FILE", help="the file to write with --to")
    parser.add_argument("--axis", choices=AXIS_WORDS, help="what the positions are, where the file does not say")
    parser.add_argument(
        "--wavelength", metavar="NAME|ANGSTROM", help="to convert q or d: CuKa, CoKa1, ..., or a number in angstrom"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what was understood; write the plot or the converted file that was asked for."""
    from xrdz.errors import InputError
    from xrdz.readers import read, read_all
    from xrdz.writers import write

    if (args.to is None) != (args.out is None):
        raise InputError("--to and --out belong together: give the format and the file, as in --to xye --out scan.xye")
    wavelength = None if args.wavelength is None else _wavelength(args.wavelength)
    if args.scan == "all":
        if args.to is not None or args.plot is not None:
            raise InputError("--scan all with --to or --plot: one file holds one scan; choose one with --scan N")
        diffractograms = read_all(args.scan_file, axis=args.axis, wavelength=wavelength)
    else:
        diffractograms = [read(args.scan_file, scan=args.scan, axis=args.axis, wavelength=wavelength)]
    if args.to is not None:
        write(diffractograms[0], args.out, args.to)
    if args.plot is not None:
        from xrdz.plotting import scan_figure, write_figure

        write_figure(scan_figure(diffractograms[0]), args.plot)
    for diffractogram in diffractograms:
        if args.json:
            sys.stdout.write(json.dumps(document(diffractogram), allow_nan=False) + "\n")
        else:
            sys.stdout.write(summary(diffractogram))
    return 0


def _wavelength(text: str) -> Any:
    from xrdz.errors import InputError
    from xrdz.wavelength import Wavelength, wavelength_from_name

    try:
        angstrom = float(text)
    except ValueError:
        return wavelength_from_name(text)
    try:
        return Wavelength(((angstrom, 1.0),), "", "method")
    except InputError as error:
        raise InputError(f"--wavelength {text}: {error}") from None


def document(diffractogram: Diffractogram) -> dict[str, Any]:
    """Return the JSON document of one scan; its `source` is that of an analysis."""
    import numpy as np

    source, wavelength = diffractogram.source, diffractogram.wavelength
    steps = np.diff(diffractogram.two_theta)
    gain = np.asarray(diffractogram.gain, dtype=np.float64)
    return {
        "schema": "xrdz.read/1",
        "source": {
            "path": source.path,
            "sha256": source.sha256,
            "format": source.format,
            "scan": source.scan,
            "n_points": diffractogram.n_points,
            "two_theta": [float(diffractogram.two_theta[0]), float(diffractogram.two_theta[-1])],
            "count_kind": diffractogram.count_kind,
            "wavelength": None
            if wavelength is None
            else {"lines": [list(line) for line in wavelength.lines], "from": wavelength.origin},
            "metadata": dict(diffractogram.metadata),
        },
        "step": [float(steps.min()), float(np.median(steps)), float(steps.max())],
        "intensity": [float(diffractogram.intensity.min()), float(diffractogram.intensity.max())],
        "first": [float(diffractogram.two_theta[0]), float(diffractogram.intensity[0])],
        "last": [float(diffractogram.two_theta[-1]), float(diffractogram.intensity[-1])],
        "gain": None if diffractogram.su is not None else [float(gain.min()), float(gain.max())],
        "findings": [finding.to_dict() for finding in diffractogram.findings],
    }


def summary(diffractogram: Diffractogram) -> str:
    """Return the lines that a user reads."""
    facts = document(diffractogram)
    source = facts["source"]
    wavelength = diffractogram.wavelength
    if wavelength is None:
        lines_text = "not in the file"
    else:
        shown = ", ".join(f"{angstrom:g} (weight {weight:g})" for angstrom, weight in wavelength.lines)
        lines_text = f"{wavelength.name} {shown} angstrom, from the {wavelength.origin}".strip()
    low, typical, high = facts["step"]
    step = (
        f"{typical:.6g} deg" if high - low < 0.01 * typical else f"{low:.6g} to {high:.6g}, usually {typical:.6g} deg"
    )
    if diffractogram.su is not None:
        variance = "a standard uncertainty per point"
    elif facts["gain"][0] == facts["gain"][1]:
        variance = f"{facts['gain'][0]:.4g} times the expected intensity"
    else:
        variance = f"{facts['gain'][0]:.4g} to {facts['gain'][1]:.4g} times the expected intensity"
    rows = [
        ("file", f"{source['path']} (sha256 {source['sha256'][:16]}...)"),
        ("format", f"{source['format']}, scan {source['scan'] or 'sum'}"),
        ("points", f"{source['n_points']}, {source['two_theta'][0]:.6g} to {source['two_theta'][1]:.6g} deg 2theta"),
        ("step", step),
        ("intensity", f"{facts['intensity'][0]:g} to {facts['intensity'][1]:g} ({source['count_kind']})"),
        ("variance", variance),
        ("wavelength", lines_text),
        *((key, f"{value:g}" if isinstance(value, float) else str(value)) for key, value in source["metadata"].items()),
    ]
    width = max(len(name) for name, _ in rows)
    text = [f"{name:<{width}}  {value}" for name, value in rows]
    text += [f"{f['level']:<{width}}  {f['code']}: {f['message']}" for f in facts["findings"]]
    return "\n".join(text) + "\n"
