"""Scans for the batch tests: quick good ones, and everything a folder of a laboratory can hold besides.

`quick_scan` gives scans of 450 points that fit in some 30 ms. `mixed_folder` makes folders in which good scans lie
among empty, cut, huge and unreadable ones, under equal names in different folders and names made to break programs.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import xrdz as package
from xrdz.diffractogram import Diffractogram
from xrdz.simulation import SimulationSettings, simulate

HOSTILE_NAMES = (
    "=HYPERLINK(1).xy",
    "-rf.xy",
    "+1+1.xy",
    "@sum.xy",
    "'quoted'.xy",
    'double"quote.xy',
    "comma,semicolon;tab\t.xy",
    "new\nline.xy",
    "carriage\rreturn.xy",
    "$(touch owned).xy",
    "%s%n{0}.xy",
    "back\\slash.xy",
    "..xy.xy",
    "CON.xy",
    "Präparat Ni₃Sn₄ №7.xy",
    "粉末回折.xy",
    "🧪🔬.xy",
    "e\u0301 decomposed.xy",
    "é composed.xy",
    "\u202egnp.xy",
    "x" * 240 + ".xy",
)
"""File names that programs stumble over."""

if sys.platform == "linux":
    HOSTILE_NAMES += (os.fsdecode(b"latin-\xe9-\xff.xy"),)


@lru_cache(maxsize=4)
def pattern(mass_ratio: float) -> Diffractogram:
    settings = SimulationSettings(mass_ratio=mass_ratio, two_theta=(28.0, 46.0), step=0.04, counts=2e4)
    return simulate(settings, np.random.default_rng(7))[0]


def quick_scan(seed: int) -> bytes:
    """Return the text of a good scan, different for every seed."""
    scan = pattern((0.5, 1.0, 2.0)[seed % 3])
    counts = np.random.default_rng(seed).poisson(scan.intensity)
    rows = "".join(f"{x:.4f} {y}\n" for x, y in zip(scan.two_theta, counts, strict=True))
    return f"# anode: Cu\n# wavelength_lines: 1.5405929 1.0; 1.5444274 0.5\n{rows}".encode()


def good_folder(folder: Path, count: int, first_seed: int = 0) -> Path:
    """Make a folder with good scans only."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"scan_{number:04d}.xy").write_bytes(quick_scan(first_seed + number))
    return folder


@dataclass
class Mixed:
    """A folder of inputs: which names are good, and which reason the others have."""

    folder: Path
    good: list[str] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return sorted([*self.good, *self.bad])

    def put(self, name: str, content: bytes, reason: str = "") -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if reason:
            self.bad[name] = reason
        else:
            self.good.append(name)


def mixed_folder(folder: Path, count: int, *, good_share: float = 0.4) -> Mixed:
    """Make `count` inputs of every kind, of which a share are good."""
    mixed = Mixed(folder)
    for number, name in enumerate(HOSTILE_NAMES):
        mixed.put(f"hostile/{name}", quick_scan(number))
    for number in range(4):
        mixed.put(f"day_{number}/scan.xy", quick_scan(100 + number))
    mixed.put("day_0/scan.XY", quick_scan(110))
    mixed.put("packed/scan.xy.gz", gzip.compress(quick_scan(111)))
    _unreadable(mixed)
    wanted_good = max(round(good_share * count), len(mixed.good))
    number = 0
    while len(mixed.good) < wanted_good:
        mixed.put(f"good/{number % 7}/sample_{number:05d}.xy", quick_scan(1000 + number))
        number += 1
    kinds = _bad_contents()
    number = 0
    while len(mixed.good) + len(mixed.bad) < count:
        suffix, content, reason = kinds[number % len(kinds)]
        mixed.put(f"bad/{number % 5}/sample_{number:05d}{suffix}", content, reason)
        number += 1
    return mixed


def _bad_contents() -> list[tuple[str, bytes, str]]:
    """Return (suffix, content, reason) of files that are no scan, or none that can be used."""
    scan = quick_scan(5)
    rng = np.random.default_rng(0)
    zeros = "".join(f"{20 + 0.02 * k:.2f} 0\n" for k in range(600)).encode()
    return [
        (".xy", b"", "REFUSED"),
        (".xy", b"\n\n\n", "REFUSED"),
        (".xy", b"not a scan at all\n" * 30, "REFUSED"),
        (".raw", rng.bytes(5000), "REFUSED"),
        (".xrdml", b"<?xml version='1.0'?><xrdMeasurements><scan>", "REFUSED"),
        (".xrdml", b"<!DOCTYPE a [<!ENTITY b 'bbbb'>]><a>&b;&b;</a>", "REFUSED"),
        (".xy.gz", gzip.compress(scan)[:400], "REFUSED"),
        (".xy", zeros, "REFUSED"),
        (".xy", b"20.0 10\n20.02 12\n", "REFUSED"),
        (".nxs", b"\x89HDF\r\n\x1a\n" + rng.bytes(300), "REFUSED"),
        (".brml", b"PK\x03\x04" + rng.bytes(200), "REFUSED"),
        (".zip", b"PK\x03\x04" + rng.bytes(200), "UNREADABLE"),
        (".csv", b"file;sample_id\na.xy;7\n", "REFUSED"),
        (".xy", b"2theta,counts\n" + b"\xff\xfe\x00\x01" * 100, "REFUSED"),
    ]


def _unreadable(mixed: Mixed) -> None:
    """Add a 10 GB file, a link to nowhere and a pipe."""
    odd = mixed.folder / "odd"
    odd.mkdir(parents=True)
    with (odd / "huge.xy").open("wb") as stream:
        stream.truncate(10 * 1024**3)
    mixed.bad["odd/huge.xy"] = "REFUSED"
    (odd / "nowhere.xy").symlink_to(odd / "gone.xy")
    mixed.bad["odd/nowhere.xy"] = "UNREADABLE"
    if hasattr(os, "mkfifo"):
        os.mkfifo(odd / "pipe.xy")
        mixed.bad["odd/pipe.xy"] = "REFUSED"
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        locked = odd / "locked.xy"
        locked.write_bytes(quick_scan(1))
        locked.chmod(0)
        mixed.bad["odd/locked.xy"] = "UNREADABLE"


ENVIRONMENT = {
    **os.environ,
    **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "PYTHONPATH": os.pathsep.join((str(Path(package.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", ""))),
}
"""One thread for linear algebra, and this checkout whatever folder a command runs in."""


def xrdz(*arguments: str | Path, cwd: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "xrdz", *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
        timeout=timeout,
        cwd=cwd,
        env=ENVIRONMENT,
    )


class DaskCluster:
    """A scheduler on loopback and its workers, each in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._settings: dict[str, Any] = {
            "cwd": folder, "env": ENVIRONMENT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL,
        }  # fmt: skip
        self.workers: list[subprocess.Popen[bytes]] = []
        file = folder / "scheduler.json"
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
        self.scheduler = self._started("distributed.cli.dask_scheduler", *options)
        self.address = self._address(file)

    def _started(self, *module_and_options: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", *module_and_options], **self._settings)

    @staticmethod
    def _address(file: Path) -> str:
        for _ in range(1200):
            # The file exists for a moment before its content does.
            with contextlib.suppress(FileNotFoundError, ValueError):
                return str(json.loads(file.read_text())["address"])
            time.sleep(0.1)
        raise AssertionError("the scheduler did not start")

    def add_worker(self, *options: str) -> subprocess.Popen[bytes]:
        command = ["distributed.cli.dask_worker", self.address, "--nthreads", "1", "--no-dashboard", *options]
        self.workers.append(self._started(*command))
        return self.workers[-1]

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.terminate()
        for process in (*self.workers, self.scheduler):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def table(run: Path) -> list[dict[str, str]]:
    """Return the rows of results.csv."""
    with (run / "results.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def documents(run: Path) -> dict[str, dict[str, Any]]:
    """Return the documents of results.jsonl by file."""
    with (run / "results.jsonl").open(encoding="utf-8") as stream:
        found = [json.loads(line) for line in stream]
    by_file = {document["batch"]["file"]: document for document in found}
    assert len(by_file) == len(found), "a file has two rows"
    return by_file


def numbers_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document without what differs from run to run: times and its place in a run."""
    return {key: value for key, value in document.items() if key not in ("timing", "batch")}
