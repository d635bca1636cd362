"""What one scan costs here and in rietx (PyPI), both in the same run, turn by turn.

    python3 -m venv /tmp/rietx-venv && /tmp/rietx-venv/bin/pip install rietx
    PYTHONPATH=src OPENBLAS_NUM_THREADS=1 python benchmarks/rietx_side_by_side.py /tmp/rietx-venv/bin/python

Both read the same scan and the same CIF files of Sn and Ni3Sn4. rietx runs as its documentation begins: a
Bragg-Brentano instrument, its default background and its default plan `mccusker_default`, without its telemetry. Here
it is the method file as it is. The two do not refine the same parameters: rietx's default plan holds B and the axial
divergence, so the fractions of both are printed with the cost. All is CPU time: of the child process for a whole
process, of `time.process_time` for its parts. Nothing is counted until bytecode and compiled code are cached. `again`
is a second scan in the same process, which is what a scan of a long series costs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import xrdz

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "sample_data" / "snni_z1.00_clean"
ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(xrdz.__file__).resolve().parents[1])}
ENVIRONMENT.pop("PYTHONDONTWRITEBYTECODE", None)

THEIRS = """
import json, sys, time
from importlib.metadata import version
moments = [time.process_time()]
import rietx as rx
moments.append(time.process_time())
scan, radius, *cifs = sys.argv[1:]
for _ in range(2):
    data = rx.read_pattern(scan)
    phases = [phase for cif in cifs for phase in rx.Structure.from_cif(cif).phases]
    instrument = rx.Instrument.bragg_brentano(radiation="CuKa", goniometer_radius_mm=float(radius))
    refinement = rx.Refinement(rx.Structure(phases=phases), instrument)
    moments.append(time.process_time())
    result = refinement.fit(data, telemetry=False)
    moments.append(time.process_time())
    if ONCE:
        break
fractions = {phase.name: phase.weight_fraction for phase in result.qpa.phases}
peak = next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"moments": moments, "version": version("rietx"), "status": result.status, "fractions": fractions,
                  "peak_mb": peak, "points": len(data.two_theta)}))
"""

OURS = """
import json, sys, time
moments = [time.process_time()]
from xrdz.process import set_up
set_up()
from xrdz.conditions import conditions_of
from xrdz.fit import fit
from xrdz.method import read_method
from xrdz.pipeline import analyse, references_of
from xrdz.readers import read
moments.append(time.process_time())
scan, file = sys.argv[1:]
method = read_method(file)
for _ in range(2):
    cropped = read(scan).cropped(method.two_theta, method.exclude)
    references = references_of(method)
    conditions = conditions_of(cropped, method.instrument, references)
    moments.append(time.process_time())
    fit(cropped, instrument=conditions.instrument, references=references)
    moments.append(time.process_time())
analyse(scan, method)
began = time.process_time()
analysis = analyse(scan, method)
whole = time.process_time() - began
fractions = {name: phase.mass_fraction.value for name, phase in analysis.phases.items()}
print(json.dumps({"moments": moments, "status": analysis.status, "fractions": fractions, "analysis": whole}))
"""


def child(command: Sequence[str]) -> tuple[float, str]:
    """Run a process and return its CPU seconds with those of its children, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])} ended with {done.returncode}:\n{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def side_by_side(python: str, scan: str, method: str, radius_mm: float, repeats: int) -> dict[str, Any]:
    """Return CPU seconds of the parts of one scan in both programs, every repeat one run of each in turn."""
    cifs = [str(ROOT / "reference_patterns" / name) for name in ("sn.cif", "ni3sn4.cif")]
    their_once = [python, "-c", "ONCE = True\n" + THEIRS, scan, str(radius_mm), *cifs]
    their_twice = [python, "-c", "ONCE = False\n" + THEIRS, scan, str(radius_mm), *cifs]
    our_process = [sys.executable, "-m", "xrdz", "fit", scan, "--method", method, "--json"]
    our_parts = [sys.executable, "-c", OURS, scan, method]
    seconds: dict[str, list[float]] = {}
    found: dict[str, Any] = {}
    for turn in range(repeats + 1):
        whole, _ = child(our_process)
        parts = json.loads(child(our_parts)[1])
        their_whole, _ = child(their_once)
        theirs = json.loads(child(their_twice)[1])
        if turn == 0:  # compiles and caches
            continue
        a, b = parts["moments"], theirs["moments"]
        for name, value in (
            ("xrdz whole process", whole),
            ("rietx whole process", their_whole),
            ("xrdz imports", a[1] - a[0]),
            ("rietx imports", b[1] - b[0]),
            ("xrdz fit, first", a[3] - a[2]),
            ("rietx fit, first", b[3] - b[2]),
            ("xrdz fit, again", a[5] - a[4]),
            ("rietx fit, again", b[5] - b[4]),
            ("xrdz reading to quantities, again", parts["analysis"]),
            ("rietx reading to quantities, again", b[5] - b[3]),
        ):
            seconds.setdefault(name, []).append(value)
        found = {
            "rietx_version": theirs["version"],
            "points": theirs["points"],
            "rietx": {"status": theirs["status"], "fractions": theirs["fractions"], "peak_mb": theirs["peak_mb"]},
            "xrdz": {"status": parts["status"], "fractions": parts["fractions"]},
        }
    found["seconds"] = {
        name: {"median": median(several), "min": min(several), "max": max(several)} for name, several in seconds.items()
    }
    found["ratios"] = {
        part: found["seconds"][f"rietx {part}"]["median"] / found["seconds"][f"xrdz {part}"]["median"]
        for part in ("whole process", "fit, first", "fit, again", "reading to quantities, again")
    }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", help="the Python of an environment that has rietx")
    parser.add_argument("scan", nargs="?", default=f"{SAMPLE}.xy", help="Sn and Ni3Sn4, Cu K-alpha")
    parser.add_argument("method", nargs="?", default=f"{SAMPLE}.toml")
    parser.add_argument("--radius", type=float, default=217.5, help="goniometer radius for rietx, mm (default: 217.5)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", help="write the figures here as JSON")
    args = parser.parse_args()
    found = side_by_side(args.python, args.scan, args.method, args.radius, args.repeats)
    print(f"{Path(args.scan).name}: {found['points']} points, rietx {found['rietx_version']}, CPU seconds")
    for name, row in found["seconds"].items():
        print(f"{name:36s} {row['median']:8.3f}   ({row['min']:.3f} to {row['max']:.3f})")
    for part, ratio in found["ratios"].items():
        print(f"rietx / xrdz, {part:40s} {ratio:6.1f}")
    for name in ("xrdz", "rietx"):
        fractions = ", ".join(f"{phase} {100.0 * value:.1f} %" for phase, value in found[name]["fractions"].items())
        print(f"{name}: {found[name]['status']}, {fractions}")
    if args.out:
        Path(args.out).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
