"""Settings every test shares: property tests draw the same examples each run and have no time limit of their own."""

from __future__ import annotations

import os
from pathlib import Path

from xrdz.cli import ONE_THREAD

# Tests compare digits with those of `xrdz`, whose processes have one thread: BLAS adds in another order with more. This
# stands before hypothesis, which loads numpy.
os.environ.update(dict.fromkeys(ONE_THREAD, "1"))

import pytest
from hypothesis import settings

settings.register_profile("xrdz", derandomize=True, deadline=None)
settings.load_profile("xrdz")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The simulated scans that are part of the project."""
    return ROOT / "sample_data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Scans measured by others, which stay outside the project."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the development data are not at {folder}")
    return folder
