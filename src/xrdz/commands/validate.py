"""`xrdz validate`: weighed mixtures, recovered against truth."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xrdz.validation import SampleResult, Validation

DESCRIPTION = """\
Analyse the scans of weighed mixtures and print each recovered mass fraction with its 95 % interval beside the truth,
the RMS and the worst error, and the share of truths inside their intervals. With --out the same as JSON and a plot."""

EPILOG = """\
units: mass fractions 0 to 1 in the manifest and the JSON, mass % in the table

manifest (paths relative to it; method and phases may be left out):
  {"samples": [{"scan": "mix_1.xrdml", "method": "mix.toml", "phases": ["corundum", "zincite"],
                "truth": {"corundum": 0.25, "zincite": 0.75}}]}

exit codes: 0 every sample was analysed, whatever its errors; 2 bad input, 3 failed fit (none was analysed);
4 some samples could not be analysed

example:
  xrdz validate mixtures.json
  xrdz validate mixtures.json --out results
"""


def register(subparsers: Any) -> None:
    """Add `xrdz validate`."""
    parser = subparsers.add_parser(
        "validate",
        help="compare recovered mass fractions with weighed ones",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("manifest", metavar="MANIFEST.json", help="scans, methods and weighed mass fractions")
    parser.add_argument("--out", metavar="DIR", help="write validation.json and validation.png there")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Validate, print, write what was asked for, and return the exit code."""
    from xrdz.files import make_folder, write_whole
    from xrdz.process import set_up
    from xrdz.validation import read_manifest, validate

    set_up()
    samples = read_manifest(args.manifest)
    folder = None if args.out is None else make_folder(args.out)
    width = max(len(sample.scan.name) for sample in samples)

    def show(result: SampleResult) -> None:
        if result.error:
            sys.stderr.write(f"xrdz: error: {' '.join(result.error.split())}\n")
        if not args.json:
            sys.stdout.write(rows(result, width))
            sys.stdout.flush()

    if not args.json:
        sys.stdout.write(HEADING.format("scan", width) + "\n")
    validation = validate(samples, show)
    if args.json:
        sys.stdout.write(json.dumps(validation.to_dict(), allow_nan=False) + "\n")
    else:
        sys.stdout.write("\n" + summary(validation))
    if folder is not None:
        written = [write_whole(folder / "validation.json", json.dumps(validation.to_dict(), indent=1) + "\n")]
        written += plots(validation, folder)
        for path in written:
            sys.stderr.write(f"wrote {path}\n")
    return validation.exit_code


HEADING = "{0:{1}}  phase         weighed     found    95 % interval     error  su"


def rows(result: SampleResult, width: int) -> str:
    """Return a sample's rows of the table, in mass %."""
    lines = []
    for item in result.fractions:
        low, high = 100.0 * item.low, 100.0 * item.high
        note = "" if item.inside else "  OUTSIDE"
        note += "" if item.detected else "  not detected"
        lines.append(
            f"{result.sample.scan.name:{width}}  {item.name:12s} {100.0 * item.truth:8.2f}  {100.0 * item.value:8.2f}  "
            f"{low:7.2f} {high:7.2f}  {100.0 * item.error:+7.2f}  {100.0 * item.su:.2f}{note}"
        )
    if result.error:
        lines.append(f"{result.sample.scan.name:{width}}  not analysed")
    return "".join(f"{line}\n" for line in lines)


def summary(validation: Validation) -> str:
    """Return the statistics as text."""
    count = len(validation.fractions)
    if validation.rms is None or validation.worst is None:
        return "no sample was analysed\n"
    lines = [
        f"RMS error {100.0 * validation.rms:.2f} mass %, worst {100.0 * validation.worst:.2f} mass %",
        f"inside their 95 % intervals: {validation.inside} of {count} ({100.0 * validation.inside / count:.0f} %)",
    ]
    failed = sum(bool(sample.exit_code) for sample in validation.samples)
    if failed:
        lines.append(f"not analysed: {failed} of {len(validation.samples)} samples")
    return "".join(f"{line}\n" for line in lines)


def plots(validation: Validation, folder: Path) -> list[Path]:
    """Write the plot of a validation; without a single fraction there is nothing to draw."""
    if not validation.fractions:
        return []
    from xrdz.plotting import write_figure
    from xrdz.validation_plot import validation_figure

    return [write_figure(validation_figure(validation), folder / "validation.png")]
