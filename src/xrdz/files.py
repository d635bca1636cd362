"""Files appear whole or not at all: written beside their place, flushed to disk, then renamed over it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from xrdz.errors import InputError

RUN_FILE = "run.json"
"""What makes a folder that of a run."""


def write_whole(path: str | Path, content: bytes | str) -> Path:
    """Write a file so that no reader ever sees part of it; an existing file is replaced in one step.

    Parameters
    ----------
    content : bytes, or text that is written as UTF-8

    Raises
    ------
    InputError
        If the folder does not exist or the file cannot be written; nothing is left behind.
    """
    path = Path(path)
    with whole_file(path) as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)
    return path


@contextlib.contextmanager
def whole_file(target: Path, *, remedy: str = "check the folder") -> Iterator[IO[bytes]]:
    """Give a file to write to that takes its name when it is complete.

    Parameters
    ----------
    remedy : what a user can do when it cannot be written

    Raises
    ------
    InputError
        If it cannot be written; nothing is left behind.
    """
    partial = None
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
        partial = Path(name)
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.chmod(0o644)
        partial.replace(target)
        partial = None
    except PermissionError as error:
        raise InputError(
            f"{target}: cannot be written ({error.strerror}); close it in other programs, or check the folder"
        ) from None
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); {remedy}") from None
    finally:
        if partial is not None:
            with contextlib.suppress(OSError):
                partial.unlink()


def is_run_folder(path: str | Path) -> bool:
    """Return whether a folder is that of a run of `xrdz batch` or `xrdz watch`."""
    return os.path.isfile(os.path.join(path, RUN_FILE))


def make_folder(path: str | Path) -> Path:
    """Return a folder that exists, made with its parents where it did not.

    Raises
    ------
    InputError
        If it cannot be made, such as where a file has its name.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: the folder cannot be made ({error.strerror}); choose another --out") from None
    return path
