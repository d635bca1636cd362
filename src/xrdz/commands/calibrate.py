"""`xrdz calibrate`: an instrument file from the scan of a standard."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xrdz.calibration import Calibration

DESCRIPTION = """\
Fit the scan of a standard and write an instrument file: Gaussian U, V, W, Lorentzian X, Y, axial divergence, zero and,
where the standard allows and the evidence asks for it, the intensity response over 2theta, all with their joint
covariance. Later fits take them as priors: `xrdz fit --instrument INSTRUMENT.toml`, or `instrument` in a method.

standards with a certified cell: lab6 (SRM 660c), srm660a srm660b srm660c, si (any SRM 640c to g), srm640c ... srm640g;
with a reference cell, on which zero rests less firmly: corundum, y2o3, any other reference id or CIF"""

EPILOG = """\
units: U V W in degrees^2, X Y and zero in degrees 2theta, axial as (S+H)/L, displacement in mm, cells in angstrom

example:
  xrdz calibrate lab6.xrdml --standard lab6 --out diffractometer.toml
  xrdz calibrate si.xy --standard srm640d --instrument known.toml --range 25:140 --out diffractometer.toml
"""

UNITS = {
    "u": "deg^2, Gaussian, tan^2(theta)",
    "v": "deg^2, Gaussian, tan(theta)",
    "w": "deg^2, Gaussian",
    "x": "deg, Lorentzian, tan(theta)",
    "y": "deg, Lorentzian, 1/cos(theta)",
    "axial": "(S+H)/L",
    "defocus": "deg^2, Gaussian, cot^2(theta)",
    "zero_deg": "deg",
}


def register(subparsers: Any) -> None:
    """Add `xrdz calibrate`."""
    parser = subparsers.add_parser(
        "calibrate",
        help="write an instrument file from the scan of a standard",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("scan_file", metavar="SCAN", help="scan of the standard")
    parser.add_argument("--standard", required=True, metavar="ID", help="standard, reference id or CIF file")
    parser.add_argument("--out", required=True, metavar="INSTRUMENT.toml", help="instrument file to write")
    parser.add_argument(
        "--instrument", metavar="START.toml", help="what is known: radius, wavelength, monochromator, Soller slits"
    )
    parser.add_argument("--range", metavar="LOW:HIGH", help="range to fit, degrees 2theta, such as 20:140")
    parser.add_argument("--scan", metavar="N|sum", help="which scan of a file with several: number from 1, or sum")
    parser.add_argument("--no-response", action="store_true", help="seek no intensity response")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Calibrate, write the instrument file, and print what was found."""
    from xrdz.calibration import calibrate
    from xrdz.instrument import read_instrument, write_instrument
    from xrdz.method import parse_range
    from xrdz.process import set_up
    from xrdz.readers import read

    set_up()
    calibration = calibrate(
        read(args.scan_file, scan=args.scan),
        args.standard,
        start=None if args.instrument is None else read_instrument(args.instrument),
        two_theta=None if args.range is None else parse_range(args.range),
        response=not args.no_response,
    )
    write_instrument(calibration.instrument, args.out)
    if args.json:
        sys.stdout.write(json.dumps(document(calibration), allow_nan=False) + "\n")
    else:
        sys.stdout.write(text(calibration))
    sys.stderr.write(f"wrote {args.out}\n")
    return 0


def document(calibration: Calibration) -> dict[str, Any]:
    """Return a calibration as a JSON object."""
    instrument = calibration.instrument
    return {
        "schema": "xrdz.calibration/1",
        "standard": calibration.standard.name,
        "status": calibration.result.status.value,
        "instrument": instrument.to_dict(),
        "displacement_mm": calibration.displacement_mm.to_json(),
        "cell": {
            name: {
                "expected": check.expected.to_json(),
                "scan_alone": None if check.measured is None else check.measured.to_json(),
            }
            for name, check in calibration.cell.items()
        },
        "agreement": vars(calibration.agreement),
        "findings": [finding.to_dict() for finding in calibration.findings],
    }


def text(calibration: Calibration) -> str:
    """Return a calibration as a table for people."""
    from xrdz.instrument import RESOLUTION_PARAMETERS
    from xrdz.numerals import value_with_su

    instrument, agreement = calibration.instrument, calibration.agreement
    source = calibration.result.diffractogram.source
    lines = [
        f"{Path(source.path).name}: {calibration.standard.name}",
        f"R_wp {agreement.rwp:.2f} %, expected {agreement.rexp:.2f} %, goodness of fit {agreement.gof:.2f}",
        "",
    ]
    for name in RESOLUTION_PARAMETERS:
        estimate = getattr(instrument.resolution, name)
        shown = "0, not kept" if estimate is None else value_with_su(estimate.value, estimate.su)
        lines.append(f"  {name:<9}{shown:<16}{UNITS[name]}")
    displacement = calibration.displacement_mm
    lines.append(
        f"  {'(specimen)':<9} {value_with_su(displacement.value, displacement.su):<14} mm, displacement, not kept"
    )
    response = instrument.intensity_response
    if response is None:
        lines.append("  intensity response: none, the evidence asks for none")
    else:
        coefficients = ", ".join(value_with_su(item.value, item.su) for item in response.ln_coefficients[1:])
        low, high = response.two_theta
        lines.append(f"  ln(response): Legendre {coefficients} from degree 1, {low:g} to {high:g} deg")
    for name, check in calibration.cell.items():
        alone = "-" if check.measured is None else value_with_su(check.measured.value, check.measured.su)
        expected = value_with_su(check.expected.value, check.expected.su)
        lines.append(f"  cell {name}: expected {expected}, the scan alone {alone} angstrom")
    if calibration.findings:
        lines.append("")
    for finding in calibration.findings:
        lines.append(f"{finding.level.value:<8} {finding.code.value}: {finding.message}")
        if finding.suggestion:
            lines.append(f"         -> {finding.suggestion}")
    return "\n".join(lines) + "\n"
