"""The folder of a run: what was asked for, the parts that exist, and who works in it.

    RUN/run.json                    method, options, root of the names, hash of what must not be mixed (`key`)
    RUN/parts/KEY/LABEL/*.h5        parts of the archive, each written whole and renamed; LABEL is "all" or a shard
    RUN/results.csv, ...            tables made from the parts; they can be made again at any time

The invariant: the parts are the only truth. A row is done when a part of the present key holds it with the input's
present hash, so a restart needs no log of what was running, and rows of different methods lie in different folders.
Where parts hold a file twice, as after a kill between writing and reporting, the newest row is the one that counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from xrdz import __version__
from xrdz.archive import StoredScan, part_rows
from xrdz.errors import InputError
from xrdz.files import RUN_FILE, make_folder, write_whole
from xrdz.method import Method

SCHEMA = "xrdz.run/1"
WHOLE = "all"
"""Label of the parts of a run that is not divided into shards."""

LOCK_POLL_SECONDS = 0.05


class OutputError(InputError):
    """Results cannot be stored; whatever is stored already stays valid."""


@dataclass(frozen=True)
class Shard:
    """Share `number` (from 1) of `count`, chosen by the hash of each name, so that new files change no other share."""

    number: int = 1
    count: int = 1

    @property
    def label(self) -> str:
        """Name of the folder of its parts."""
        return WHOLE if self.count == 1 else f"shard-{self.number}-of-{self.count}"

    def holds(self, name: str) -> bool:
        """Return whether an input belongs to this share."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
        return self.count == 1 or int.from_bytes(digest[:8], "big") % self.count == self.number - 1


def parse_shard(text: str) -> Shard:
    """Return the share that text such as `3/100` names.

    Raises
    ------
    InputError
        If it is not I/N with 1 <= I <= N.
    """
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise InputError(f"--shard {text!r}: expected I/N with I from 1 to N, such as 3/100")
    return Shard(int(number), int(count))


def run_key(method: Method, references_sha256: str, options: Mapping[str, Any]) -> str:
    """Return the hash of all that decides a row besides its input; rows of different keys are never mixed."""
    content = {
        "method": method.sha256,
        "references": references_sha256,
        "xrdz": __version__,
        **options,
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RunFolder:
    """One run's folder with the key rows are made under now."""

    path: Path
    key: str
    root: str

    def parts_folder(self, shard: Shard | None = None) -> Path:
        """Return the folder of the parts of one share, or of all."""
        folder = self.path / "parts" / self.key
        return folder if shard is None else folder / shard.label

    def new_part(self, shard: Shard) -> Path:
        """Return a path no part has, in the order of time."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        return self.parts_folder(shard) / f"{stamp}-{uuid.uuid4().hex[:12]}.h5"


def now() -> str:
    """Return the time in UTC to the microsecond, ISO 8601, which sorts as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def read_run(path: Path) -> dict[str, Any] | None:
    """Return what `run.json` says, None where there is no run yet.

    Raises
    ------
    InputError
        If the file is there but is none of ours.
    """
    file = path / RUN_FILE
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise InputError(f"{path}: a file, but the folder of a run was expected; choose another --out") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({error}); move the folder away or choose another --out") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InputError(f"{file}: not the record of a run (expected schema {SCHEMA!r}); choose another --out")
    return document


def open_run(
    path: str | Path,
    *,
    method: Method,
    references_sha256: str,
    root: str,
    options: Mapping[str, Any],
    table: Mapping[str, Any],
    every: bool = False,
) -> tuple[RunFolder, str]:
    """Make or continue a run and return it with a note on what changed since it was last worked on, "" for nothing.

    Parameters
    ----------
    options : what decides a row besides input, method, references and version
    table : what the columns of the tables follow from
    every : whether tables have a row for each content a file has had

    Raises
    ------
    InputError
        If the folder cannot be made or written, or holds something else.
    """
    folder = make_folder(path)
    before = read_run(folder)
    key = run_key(method, references_sha256, options)
    record = {
        "schema": SCHEMA,
        "key": key,
        "root": root,
        "method": method.to_dict(),
        "method_sha256": method.sha256,
        "references_sha256": references_sha256,
        "xrdz": __version__,
        "options": dict(options),
        "table": dict(table),
        "every": every,
        "started": now(),
    }
    with root_lock(folder):
        write_whole(folder / RUN_FILE, json.dumps(record, indent=1) + "\n")
    run = RunFolder(folder, key, root)
    make_folder(run.parts_folder())
    return run, _change_note(before, record)


def _change_note(before: Mapping[str, Any] | None, now_record: Mapping[str, Any]) -> str:
    if before is None or before.get("key") == now_record["key"]:
        return ""
    names = {
        "method_sha256": "the method",
        "references_sha256": "the reference library",
        "xrdz": "the version of xrdz",
        "options": "the options",
    }
    changed = [name for field, name in names.items() if before.get(field) != now_record[field]]
    return (
        f"{' and '.join(changed) or 'the run'} changed since this run was last worked on: every scan is analysed "
        f"again, and the earlier results stay apart in parts/{before.get('key')}"
    )


def stored_root(path: str | Path) -> str | None:
    """Return the root of the names of a run that exists and whose root is still there, else None."""
    record = read_run(Path(path))
    root = None if record is None else str(record.get("root", ""))
    return root if root and os.path.isdir(root) else None


class RunLock:
    """One process at a time works on a share of a run; the lock ends with its process, however that ends."""

    def __init__(self, run: RunFolder, shard: Shard) -> None:
        self.path = make_folder(run.parts_folder(shard)) / ".lock"
        self._stream: IO[str] | None = None

    def __enter__(self) -> RunLock:
        try:
            stream = self.path.open("a+", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}); choose another --out") from None
        if not _lock(stream):
            stream.seek(0)
            holder = stream.read().strip() or "another process"
            stream.close()
            raise InputError(f"{self.path.parent}: {holder} works on this run; wait for it, or choose another --out")
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        self._stream = stream
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()


def _lock(stream: IO[str]) -> bool:
    """Lock a file for this process; False when another holds it. Where a file system has no locks, work without."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def root_lock(folder: Path) -> Iterator[None]:
    """Let one process at a time write the files beside the parts, and remove what a killed one left half written.

    Where no lock can be taken, the write that follows fails with its reason or needs none.
    """
    try:
        stream = (folder / ".lock").open("a+", encoding="utf-8")
    except OSError:
        yield
        return
    with stream:
        while not _lock(stream):
            time.sleep(LOCK_POLL_SECONDS)
        for path in (*folder.glob(".results.*.part"), *folder.glob(f".{RUN_FILE}.*.part")):
            path.unlink(missing_ok=True)
        yield


def remove_partial(run: RunFolder, shard: Shard) -> int:
    """Remove what a killed process left half written of a share that this process has locked; return how many."""
    removed = 0
    for path in run.parts_folder(shard).glob(".*.part"):
        path.unlink(missing_ok=True)
        removed += 1
    return removed


def mark_finished(run: RunFolder, shard: Shard, *, finished: bool) -> bool:
    """Note whether a share of a run has a row for each of its inputs; return whether all shares have.

    Raises
    ------
    OutputError
        If the note cannot be written.
    """
    mark = make_folder(run.parts_folder(shard)) / ".finished"
    try:
        if finished:
            mark.touch()
        else:
            mark.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{mark}: cannot be written ({error.strerror}); check the folder") from None
    shares = (Shard(number, shard.count) for number in range(1, shard.count + 1))
    return all((run.parts_folder(share) / ".finished").exists() for share in shares)


def part_paths(run: RunFolder, shard: Shard | None = None) -> Iterator[Path]:
    """Yield the parts of a run under its present key, in the order of their names.

    Parameters
    ----------
    shard : leave out the other shares of the same division, which hold none of its inputs
    """
    others = "" if shard is None or shard.count == 1 else f"-of-{shard.count}"
    for label in sorted(folder for folder in run.parts_folder().glob("*") if folder.is_dir()):
        if shard is None or not others or label.name == shard.label or not label.name.endswith(others):
            yield from sorted(label.glob("*.h5"))


def rows_of_parts(
    run: RunFolder, notes: list[str] | None = None, shard: Shard | None = None, *, messages: bool = True
) -> Iterator[StoredScan]:
    """Yield every row of every part; a damaged part is set aside, which makes its inputs be analysed again.

    Parameters
    ----------
    notes : takes a message for each part that was set aside; None to raise instead
    shard : leave out the other shares of the same division
    messages : whether rows keep theirs, which take more memory than the rest
    """
    for path in part_paths(run, shard):
        try:
            rows = part_rows(path)
        except InputError as error:
            if notes is None:
                raise
            path.replace(path.with_suffix(".damaged"))
            notes.append(f"{error} (set aside as {path.with_suffix('.damaged').name})")
            continue
        for number, row in enumerate(rows):
            yield StoredScan(row if messages else replace(row, message=""), path, number)


def _age(scan: StoredScan) -> tuple[str, str]:
    return scan.row.finished, scan.part.name


def newest(scans: Iterable[StoredScan]) -> dict[str, StoredScan]:
    """Return the row that counts of each file: the one finished last."""
    chosen: dict[str, StoredScan] = {}
    for scan in scans:
        other = chosen.get(scan.name)
        if other is None or _age(scan) > _age(other):
            chosen[scan.name] = scan
    return chosen


def opened_since(closed: Mapping[str, str], rows: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Return the packs and folders that could not be read once and whose scans have rows since, in their place.

    Parameters
    ----------
    closed : inputs whose bytes could not be had, with the time of their row
    rows : name and time of every row
    """
    if not closed:
        return frozenset()
    return frozenset(
        folder for name, time in rows for folder in _folders(name) if folder in closed and time > closed[folder]
    )


def _folders(name: str) -> Iterator[str]:
    """Yield what a name lies in, the outermost first."""
    end = name.find("/")
    while end >= 0:
        yield name[:end]
        end = name.find("/", end + 1)


def existing_run(path: str | Path) -> RunFolder:
    """Return a run that exists, under the key it was last worked on.

    Raises
    ------
    InputError
        If the folder holds no run.
    """
    path = Path(path)
    record = read_run(path)
    if record is None:
        raise InputError(f"{path}: no run here (run.json is missing); expected the --out folder of xrdz batch or watch")
    return RunFolder(path, str(record["key"]), str(record.get("root", "")))


def stored_scans(path: str | Path, *, every: bool = False) -> list[StoredScan]:
    """Return the rows of a run ordered by name, each file once; with `every` each state of a file, oldest first."""
    run = existing_run(path)
    if every:
        return sorted(_states(rows_of_parts(run)), key=lambda scan: (scan.name, scan.row.finished))
    chosen = newest(rows_of_parts(run))
    closed = {name: scan.row.finished for name, scan in chosen.items() if not scan.row.sha256}
    opened = opened_since(closed, ((name, scan.row.finished) for name, scan in chosen.items()))
    return [chosen[name] for name in sorted(chosen) if name not in opened]


def _states(scans: Iterable[StoredScan]) -> Iterator[StoredScan]:
    """Yield the newest row of each content of each file."""
    chosen: dict[tuple[str, str], StoredScan] = {}
    for scan in scans:
        content = (scan.name, scan.row.sha256)
        other = chosen.get(content)
        if other is None or _age(scan) > _age(other):
            chosen[content] = scan
    yield from chosen.values()
