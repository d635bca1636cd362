"""`xrdz method`: start a method file, check one, or print the JSON Schema an editor completes with."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xrdz.errors import InputError

if TYPE_CHECKING:
    from xrdz.method import Method

STARTER = """\
# Method file of xrdz. A line that starts with "#" is a comment; what is left out takes the default named here.
# Check it with: xrdz method check THIS_FILE.toml
name = "Sn-Ni powder, Cu K-alpha"
version = "1"                           # raise it with every change

phases = ["sn", "ni3sn4"]               # ids listed by `xrdz reference list`, or CIF paths relative to this file
# candidates = ["ni", "ni3sn2", "sno2", "graphite", "cu"]   # tried, and kept only on evidence
ratio = "ni3sn4/sn"                     # mass ratio to report, numerator/denominator
# two_theta = [20.0, 120.0]             # degrees 2theta, cut to what the scan holds; default all of it
# exclude = [[42.9, 43.7]]              # degrees 2theta, left out of the fit; default nothing
# instrument = "instrument.toml"        # path relative to this file, instead of the table below

[instrument]                            # everything here is optional: what is absent is refined or assumed
# name = "Philips PW3020"
# goniometer_radius_mm = 173.0          # mm
# wavelength = "CuKa"                   # CuKa CoKa MoKa CrKa AgKa FeKa, CuKa1, or [[1.5405929, 1.0], [1.5444274, 0.5]]
# monochromator_two_theta_deg = 26.6    # degrees 2theta, graphite for Cu K-alpha; leave it out without a monochromator
# soller_deg = 2.3                      # degrees, a hint for the axial divergence
# divergence_slit_deg = 1.0             # degrees, a fixed slit
# detector_opening_deg = 5.5            # degrees 2theta that a linear detector spans; leave it out for a point detector

# [particle_size_um]                    # for microabsorption: [value, standard uncertainty] in micrometres
# sn = [5.0, 2.0]

# [internal_standard]                   # for the amorphous part; its phase must also stand in phases
# phase = "corundum"
# mass_fraction = 0.20                  # of the spiked specimen, 0 to 1, or [value, standard uncertainty]

# [external_standard]                   # for absolute amounts without a spike: a pure phase on the same instrument
# k = [2.1e6, 3e4]                      # from xrdz.standards.k_factor: [value, standard uncertainty]
# time_per_step_s = 3.0                 # of the pure phase's scan, seconds
# composition = {Ni = 0.15, Sn = 0.85}  # mass fractions of the specimen, for its absorption; default the fitted phases

[decision]
rule = "non-binary"                     # "simple", "guard-band" or "non-binary" (ILAC-G8:09/2019), in ln Z
coverage = 0.95                         # probability of the coverage interval
# method_u_ln = 0.05                    # your laboratory's reproducibility of ln Z (0.05 is 5 %); absent: provisional

# [laboratory]                          # free texts for the report; any other key is printed under its own name
# name = "..."
# address = "..."
# contact = "..."
# accreditation = "..."                 # printed below the name, such as the number of the accreditation
# location = "..."                      # place of the test, where it is not the address
# logo = "logo.svg"                     # SVG, PNG or JPEG, its path relative to this file
# analyst = "..."                       # in the signature block "Analysed by"; absent: the sample sheet's operator
# authorised_by = "..."                 # in the signature block "Authorised by"
"""

EXAMPLE = """\
units: two_theta, exclude in degrees 2theta; goniometer_radius_mm in mm; particle_size_um in micrometres;
mass_fraction and coverage from 0 to 1; method_u_ln is a standard uncertainty of ln Z (0.05 is 5 % of Z)

example:
  xrdz method new sn-ni.toml
  xrdz method check sn-ni.toml
"""


def register(subparsers: Any) -> None:
    """Add `xrdz method` with its actions."""
    parser = subparsers.add_parser(
        "method", help="start or check a method file", description="Start or check a method file.", epilog=EXAMPLE
    )
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)

    new = actions.add_parser(
        "new",
        help="write a commented method file to start from",
        description="Write a commented method file to start from; the comments give every key and its unit.",
        epilog="example:\n  xrdz method new sn-ni.toml",
    )
    target = new.add_mutually_exclusive_group()
    target.add_argument("path", nargs="?", metavar="METHOD.toml", help="file to write, must be new; default: stdout")
    target.add_argument("--out", metavar="METHOD.toml", help="the same as an option")
    new.set_defaults(run=run_new)

    check = actions.add_parser(
        "check",
        help="print what a method file is understood to say, and its SHA-256",
        description="Print what a method file is understood to say (degrees 2theta, mm, micrometres), and its SHA-256.",
        epilog="example:\n  xrdz method check sn-ni.toml",
    )
    check.add_argument("method", metavar="METHOD.toml", help="the method file")
    check.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    check.set_defaults(run=run_check)

    schema = actions.add_parser(
        "schema",
        help="print the JSON Schema of a method or instrument file",
        description="Print the JSON Schema with which an editor completes and checks a file; units are in its texts.",
        epilog="example:\n  xrdz method schema > method.schema.json\n  xrdz method schema --instrument",
    )
    schema.add_argument("--instrument", action="store_true", help="the schema of an instrument file instead")
    schema.set_defaults(run=run_schema)


def run_new(args: argparse.Namespace) -> int:
    """Write the starter to stdout or to a new file."""
    path = args.path or args.out
    if path is None:
        sys.stdout.write(STARTER)
        return 0
    try:
        with Path(path).open("x", encoding="utf-8") as stream:
            stream.write(STARTER)
    except FileExistsError as error:
        raise InputError(f"{path}: exists already; choose another name, nothing was written") from error
    sys.stderr.write(f"wrote {path}\n")
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Print what was understood; every phase is looked up in the reference library, and the logo is opened."""
    from xrdz.method import is_cif, read_method
    from xrdz.reference import reference
    from xrdz.reporting.item import order_of

    method = read_method(args.method)
    order_of(method)
    for entry in (*method.phases, *method.candidates):
        if not is_cif(entry):
            reference(entry)
    if args.json:
        document = {"schema": "xrdz.method/1", "sha256": method.sha256, **method.to_dict()}
        sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
    else:
        sys.stdout.write("".join(f"{label:20s} {text}\n" for label, text in summary(method)))
    return 0


def run_schema(args: argparse.Namespace) -> int:
    """Print a JSON Schema."""
    from xrdz.instrument import instrument_schema
    from xrdz.method import method_schema

    schema = instrument_schema() if args.instrument else method_schema()
    sys.stdout.write(json.dumps(schema, indent=2) + "\n")
    return 0


def summary(method: Method) -> list[tuple[str, str]]:
    """Return what a method says as (label, text) rows, with units."""
    return [
        ("method", f"{method.name}, version {method.version}"),
        ("sha256", method.sha256),
        ("phases", ", ".join(method.phase_ids)),
        ("candidates", ", ".join(method.candidate_ids) or "none"),
        ("ratio", "/".join(method.ratio) if method.ratio else "none (one phase)"),
        ("two_theta", "all of the scan" if method.two_theta is None else _interval(method.two_theta)),
        ("exclude", ", ".join(map(_interval, method.exclude)) or "nothing"),
        *_instrument_rows(method),
        (
            "particle_size_um",
            ", ".join(
                f"{phase} {size.value:g} +- {size.su or 0.0:g} um" for phase, size in method.particle_size_um.items()
            )
            or "not given",
        ),
        ("internal_standard", _standard(method)),
        ("external_standard", _external(method)),
        ("decision", _decision(method)),
        *((f"laboratory {key}", text) for key, text in method.laboratory.items()),
    ]


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:g} to {interval[1]:g} deg"


def _instrument_rows(method: Method) -> list[tuple[str, str]]:
    instrument = method.instrument
    wavelength = instrument.wavelength
    lines = (
        "" if wavelength is None else ", ".join(f"{angstrom:g} A ({weight:g})" for angstrom, weight in wavelength.lines)
    )
    radius, monochromator = instrument.goniometer_radius_mm, instrument.monochromator_two_theta_deg
    return [
        ("instrument", instrument.name or "unnamed"),
        ("  radius", "not given, assumed with a finding" if radius is None else f"{radius:g} mm"),
        ("  wavelength", lines or "from the scan's file, else Cu K-alpha with a finding"),
        ("  monochromator", "none" if monochromator is None else f"{monochromator:g} deg 2theta"),
        ("  soller", _degrees(instrument.soller_deg)),
        ("  divergence slit", _degrees(instrument.divergence_slit_deg)),
        ("  linear detector", _degrees(instrument.detector_opening_deg)),
        ("  resolution", "refined" if instrument.resolution is None else "from calibration"),
    ]


def _degrees(opening: float | None) -> str:
    return "not given" if opening is None else f"{opening:g} deg"


def _standard(method: Method) -> str:
    standard = method.internal_standard
    if standard is None:
        return "none"
    return f"{standard.phase}, mass fraction {standard.mass_fraction:g} +- {standard.su:g} of the spiked specimen"


def _external(method: Method) -> str:
    external = method.external_standard
    if external is None:
        return "none"
    time = "" if external.time_per_step_s is None else f", {external.time_per_step_s:g} s per step"
    parts = ", ".join(f"{element} {fraction:g}" for element, fraction in external.composition.items())
    return f"K = {external.k:g} +- {external.su:g}{time}; composition {parts or 'of the fitted phases'}"


def _decision(method: Method) -> str:
    decision = method.decision
    if decision.method_u_ln is None:
        return f"{decision.rule}, coverage {decision.coverage:g}; provisional, method_u_ln is not given"
    return f"{decision.rule}, coverage {decision.coverage:g}, method_u_ln {decision.method_u_ln:g}"
