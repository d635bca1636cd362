"""What a process that is ours alone decides for itself: the command line and the workers of a batch call it first.

A library must not decide these for its user, so nothing here happens on import.
"""

from __future__ import annotations

import ctypes
import sys

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Parameters of glibc's mallopt."""

KEEP_BYTES = 1 << 30


def set_up() -> None:
    """Keep the memory one fit frees for the next."""
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Have glibc keep freed memory instead of returning every array to the system.

    A fit allocates some arrays of a megabyte again and again; the page faults of fresh ones cost a quarter of its time.
    The peak does not grow by it. Elsewhere than on glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, KEEP_BYTES)
        mallopt(TRIM_THRESHOLD, KEEP_BYTES)
