"""Everything at once: a mixed folder gives exactly one row each, and the same digits through every door.

`XRDZ_BATCH_SCANS=2000` runs the full number; the default keeps the suite short.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_inputs import DaskCluster, Mixed, documents, mixed_folder, numbers_of, table, xrdz

COUNT = int(os.environ.get("XRDZ_BATCH_SCANS", "120"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Mixed:
    return mixed_folder(tmp_path_factory.mktemp("mixed") / "scans", COUNT)


@pytest.fixture(scope="module")
def one_worker(mixed: Mixed) -> Path:
    """A run on one worker, with every table."""
    run = mixed.folder.parent / "one"
    done = xrdz("batch", "scans", "--out", run, "--jobs", "1", "--tables", "jsonl", cwd=run.parent, timeout=3000)
    assert done.returncode == 4, done.stderr
    return run


def test_every_input_has_exactly_one_row_with_its_answer_or_reason(mixed: Mixed, one_worker: Path) -> None:
    assert len(mixed.names) == COUNT
    found = documents(one_worker)
    assert sorted(found) == mixed.names
    assert len(table(one_worker)) == COUNT
    reasons = {name: document["batch"]["reason"] for name, document in found.items()}
    assert {name: reason for name, reason in reasons.items() if reason} == mixed.bad
    for name in mixed.bad:
        assert found[name]["batch"]["message"].count("; ") >= 1, "the message says what to do"


def test_the_table_has_one_line_a_scan_and_no_formula(mixed: Mixed, one_worker: Path) -> None:
    lines = (one_worker / "results.csv").read_bytes().split(b"\n")
    assert len(lines) == COUNT + 2, "header, rows, end of file"
    assert not any(line.startswith((b"=", b"+", b"-", b"@")) for line in lines)


def test_good_scans_are_those_of_fit_one_by_one_to_the_last_digit(mixed: Mixed, one_worker: Path) -> None:
    found = documents(one_worker)
    names = mixed.good[:: max(1, len(mixed.good) // 60)] if COUNT <= 200 else mixed.good
    for start in range(0, len(names), 100):
        some = names[start : start + 100]
        done = xrdz("fit", "--json", "--", *(f"scans/{name}" for name in some), cwd=one_worker.parent, timeout=3000)
        fitted = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(fitted) == len(some), done.stderr
        for name, document in zip(some, fitted, strict=True):
            assert numbers_of(found[name]) == numbers_of(document), name


def same(mixed: Mixed, one_worker: Path, run: Path) -> None:
    assert (run / "results.csv").read_bytes() == (one_worker / "results.csv").read_bytes()
    first, second = documents(one_worker), documents(run)
    assert sorted(second) == mixed.names
    assert all(numbers_of(first[name]) == numbers_of(second[name]) for name in mixed.names)


def test_two_workers_give_the_same_file(mixed: Mixed, one_worker: Path) -> None:
    run = one_worker.with_name("two")
    done = xrdz(
        "batch", "scans", "--out", run, "--jobs", "2", "--chunk", "7", "--tables", "jsonl", cwd=run.parent, timeout=3000
    )
    assert done.returncode == 4, done.stderr
    same(mixed, one_worker, run)


def test_shards_give_the_same_file_and_the_last_one_writes_it(mixed: Mixed, one_worker: Path) -> None:
    run = one_worker.with_name("shards")
    for number in (2, 3, 1):
        assert not (run / "results.csv").exists()
        done = xrdz(
            "batch", "scans", "--out", run, "--shard", f"{number}/3", "--tables", "jsonl", cwd=run.parent, timeout=3000
        )
        assert done.returncode in (0, 4), done.stderr
    same(mixed, one_worker, run)


def test_dask_over_tcp_gives_the_same_file(mixed: Mixed, one_worker: Path, dask_address: str) -> None:
    run = one_worker.with_name("dask")
    done = xrdz(
        "batch", "scans", "--out", run, "--dask", dask_address, "--tables", "jsonl", cwd=run.parent, timeout=3000
    )
    assert done.returncode == 4, done.stderr
    same(mixed, one_worker, run)


@pytest.fixture(scope="module")
def dask_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler and two workers on loopback, in processes of their own."""
    pytest.importorskip("distributed")
    cluster = DaskCluster(tmp_path_factory.mktemp("dask"))
    try:
        cluster.add_worker()
        cluster.add_worker()
        yield cluster.address
    finally:
        cluster.close()
