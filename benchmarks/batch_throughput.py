"""What a batch does in a second and what it costs: workers, CPU a scan, memory, archive, Dask against the local pool.

    PYTHONPATH=src OPENBLAS_NUM_THREADS=1 python benchmarks/batch_throughput.py [--scans 200] [--memory 100,1000,10000]

Scans are simulated with the engine's own model: 4001 points from 20 to 100 deg and both phases for throughput, 301
points for memory. Each is its own file with its own counts or comment. Throughput is that of the whole command, its
start included; with several repeats the fastest one counts, local pool and Dask in turn, as other work on the machine
only ever slows them down. CPU is that of the command and all its workers, so it holds on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import xrdz
from xrdz.archive import Row
from xrdz.archive_writer import PartHeader, PartWriter
from xrdz.files import write_whole
from xrdz.method import default_method
from xrdz.pipeline import analyse_diffractogram
from xrdz.readers import content_of_bytes, read_content
from xrdz.simulation import SimulationSettings, simulate, write_xy

RATIOS = (0.2, 0.5, 1.0, 2.0, 3.0)
DIFFERENT = 40
"""Scans of different counts; more are copies of them that differ in a comment."""

WHOLE = {"two_theta": (20.0, 100.0), "step": 0.02, "counts": 1e6}
SMALL = {"two_theta": (28.0, 46.0), "step": 0.06, "counts": 1e5}

ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(xrdz.__file__).resolve().parents[1])}
COMMAND = (
    "import sys\n"
    "from xrdz.cli import main\n"
    "code = main(sys.argv[1:])\n"
    "print(*[line for line in open('/proc/self/status') if line.startswith('VmHWM')])\n"
    "sys.exit(code)\n"
)
"""The command line, followed by the largest memory its main process had (Linux), kB."""


def scans_in(folder: Path, count: int, settings: dict[str, Any]) -> Path:
    """Make a folder of scans."""
    folder.mkdir()
    texts = []
    for seed in range(min(count, DIFFERENT)):
        ratio = RATIOS[seed % len(RATIOS)]
        scan, _ = simulate(SimulationSettings(mass_ratio=ratio, **settings), np.random.default_rng(seed))
        texts.append(write_xy(scan, folder / "one.xy").read_text())
    (folder / "one.xy").unlink()
    for number in range(count):
        (folder / f"scan_{number:05d}.xy").write_text(f"# comment: {number}\n{texts[number % len(texts)]}")
    return folder


def batch(scans: Path, run: Path, *options: str) -> dict[str, float]:
    """Run `xrdz batch` and return seconds, CPU seconds of all its processes, and memory of the main one, MB."""
    shutil.rmtree(run, ignore_errors=True)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "batch", str(scans), "--out", str(run), *options],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"xrdz batch ended with {done.returncode}:\n{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu_seconds": cpu, "main_mb": int(done.stdout.split()[-2]) / 1024}


def archive_bytes(run: Path) -> int:
    """Return the size of all parts of a run."""
    return sum(part.stat().st_size for part in run.glob("parts/*/*/*.h5"))


def stages(scans: Path, folder: Path, passes: int = 3) -> dict[str, float]:
    """Return the CPU milliseconds a scan costs in each stage, in one process: best of some passes, median of scans."""
    method = default_method()
    best: dict[str, dict[Path, float]] = {}

    def note(name: str, path: Path, milliseconds: float) -> None:
        of_stage = best.setdefault(name, {})
        of_stage[path] = min(milliseconds, of_stage.get(path, float("inf")))

    for _ in range(passes):
        writer = PartWriter(PartHeader("key", method, "", "2000-01-01T00:00:00Z"))
        paths = sorted(scans.iterdir())[:50]
        for path in paths:
            moments = [time.process_time()]
            scan = read_content(content_of_bytes(path.read_bytes(), str(path)))
            moments.append(time.process_time())
            analysis = analyse_diffractogram(scan, method)
            moments.append(time.process_time())
            document = analysis.to_dict()
            writer.add(Row(path.name), document, analysis, scan)
            moments.append(time.process_time())
            reading, analysing, storing = (1e3 * (b - a) for a, b in pairwise(moments))
            note("reading", path, reading)
            note("fit", path, analysing * analysis.timing["fit_s"] / analysis.timing["total_s"])
            note("fit, quantities, limits, findings", path, analysing)
            note("document and archive entry", path, storing)
        began = time.process_time()
        write_whole(folder / "part.h5", writer.image())
        note("part written", folder, 1e3 * (time.process_time() - began) / len(paths))
    return {name: median(times.values()) for name, times in best.items()}


@contextmanager
def dask_cluster(folder: Path, workers: int) -> Iterator[str]:
    """Give the address of a scheduler with single-threaded workers on loopback, all in processes of their own."""
    file = folder / "scheduler.json"
    quiet: dict[str, Any] = {"cwd": folder, "env": ENVIRONMENT, "stdout": subprocess.DEVNULL}
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1"]
    log = (folder / "dask.log").open("w")
    processes = [subprocess.Popen([*scheduler, "--no-dashboard", "--scheduler-file", str(file)], **quiet, stderr=log)]
    try:
        while not file.exists():
            time.sleep(0.1)
        processes += [subprocess.Popen([*worker, "--no-dashboard"], **quiet, stderr=log) for _ in range(workers)]
        yield address_in(file)
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()
        log.close()


def address_in(file: Path) -> str:
    """Return the address a scheduler wrote, once it is written whole."""
    while True:
        try:
            return str(json.loads(file.read_text())["address"])
        except ValueError:
            time.sleep(0.1)


def throughput(folder: Path, count: int, repeats: int, *, with_dask: bool) -> dict[str, Any]:
    """Return scans per second and CPU per scan of 1 and 2 workers, and of Dask with 2 workers beside the local pool."""
    scans = scans_in(folder / "whole", count, WHOLE)
    batch(scans, folder / "run", "--jobs", "2")  # compiles
    found: dict[str, Any] = {"archive_bytes_per_scan": archive_bytes(folder / "run") / count}
    found["stages_ms"] = stages(scans, folder)
    runs: dict[str, list[dict[str, float]]] = {"1 worker": [], "2 workers": [], "Dask, 2 workers": []}

    def local_and(address: str | None) -> None:
        for _ in range(repeats):
            runs["1 worker"].append(batch(scans, folder / "run", "--jobs", "1"))
            runs["2 workers"].append(batch(scans, folder / "run", "--jobs", "2"))
            if address is not None:
                runs["Dask, 2 workers"].append(batch(scans, folder / "run", "--dask", address))

    if with_dask:
        with dask_cluster(folder, 2) as address:
            batch(scans, folder / "run", "--dask", address)  # its workers load everything
            local_and(address)
    else:
        local_and(None)
    for name, several in runs.items():
        if several:
            best = min(several, key=lambda run: run["seconds"])
            found[name] = {"scans_per_s": count / best["seconds"]}
            if "Dask" not in name:  # its workers are no children of the command
                found[name]["cpu_ms_per_scan"] = 1e3 * min(run["cpu_seconds"] for run in several) / count
    if with_dask:
        found["dask_over_local"] = found["Dask, 2 workers"]["scans_per_s"] / found["2 workers"]["scans_per_s"]
    return found


def memory(folder: Path, counts: list[int]) -> dict[str, float]:
    """Return the largest memory of the main process, MB, by number of scans."""
    found = {}
    for count in counts:
        scans = scans_in(folder / f"small_{count}", count, SMALL)
        found[str(count)] = batch(scans, folder / "run_small", "--jobs", "2")["main_mb"]
        shutil.rmtree(scans)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=200, help="scans of a throughput run (default: 200)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind; the fastest counts (default: 3)")
    parser.add_argument("--memory", default="100,1000,10000", help="numbers of scans; empty for none")
    parser.add_argument("--no-dask", action="store_true")
    parser.add_argument("--out", help="write the figures here as JSON")
    args = parser.parse_args()

    found: dict[str, Any] = {"machine": platform.machine(), "cores": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory(prefix="xrdz-batch-") as name:
        folder = Path(name)
        if args.scans:
            found |= throughput(folder, args.scans, args.repeats, with_dask=not args.no_dask)
        found["main_process_mb"] = memory(folder, [int(count) for count in args.memory.split(",") if count])
    print(json.dumps(found, indent=1))
    if args.out:
        Path(args.out).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
