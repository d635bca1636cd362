"""`xrdz claims`: what the measured values of a sample sheet alone, without a scan, say about claims 1 to 10."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict
from typing import Any

from xrdz.errors import InputError

DESCRIPTION = """\
Judge claims 1 to 10 from the measured values of a sample sheet alone, without a scan. Without a scan both phases and
the mass ratio Z follow from the chemical nickel content, as if all nickel sat in Ni3Sn4; such verdicts are marked
provisional."""

EPILOG = """\
columns of the sheet (CSV; comma, semicolon or tab; only file is required):
  file, sample_id, operator, customer, note     text
  received, sampled, condition                  text, for a report: two dates, and the item's state on receipt
  ni_mass_percent, sn_mass_percent              mass %
  carbon_ratio_s                                S = m(alloy)/m(carbon), a ratio
  carbon_present, powdered                      yes or no
  porosity_percent                              volume %
  apparent_density_g_cm3                        g/cm^3
  ni_u, sn_u, carbon_ratio_s_u, porosity_u,     standard uncertainty of each, in its unit; a value without one is
  apparent_density_u                            compared with the limits as it stands

example:
  xrdz claims --sheet samples.csv
  xrdz claims --sheet samples.csv --method sn-ni.toml --json
"""


def register(subparsers: Any) -> None:
    """Add `xrdz claims`."""
    parser = subparsers.add_parser(
        "claims", help="judge claims 1-10 from measured values alone", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("--sheet", metavar="SHEET.csv", required=True, help="sample sheet, one row a sample")
    parser.add_argument("--method", metavar="METHOD.toml", help="method whose [decision] applies; default: non-binary")
    parser.add_argument("--json", action="store_true", help="print one JSON document a row, one a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a table, or a JSON document, per row of the sheet."""
    from xrdz.claims import check_sheet, to_text
    from xrdz.method import default_method, read_method
    from xrdz.sample_sheet import read_sample_sheet

    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    method = default_method() if args.method is None else read_method(args.method)
    sheet = read_sample_sheet(args.sheet)
    if not sheet.samples:
        raise InputError(f"{args.sheet}: no row below the header; expected one row a sample")
    for sample in sheet.samples:
        results = check_sheet(sample, method.decision)
        if args.json:
            document = {
                "schema": "xrdz.claims/1",
                "sample": asdict(sample),
                "method": {"name": method.name, "sha256": method.sha256},
                "claims": [result.to_dict() for result in results],
            }
            sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
        else:
            sys.stdout.write(f"{sample.file} {sample.sample_id or ''}".rstrip() + f"\n{to_text(results, width)}\n")
    return 0
