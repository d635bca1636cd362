"""Settings every test shares: property tests draw the same examples each run and have no time limit of their own."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("xrdz", derandomize=True, deadline=None)
settings.load_profile("xrdz")
