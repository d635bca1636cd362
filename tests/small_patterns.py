"""A small pattern of tin and Ni3Sn4 that a fit takes some tens of milliseconds for."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from xrdz.conditions import conditions_of
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.instrument import Instrument
from xrdz.pattern import InstrumentModel
from xrdz.reference import Reference, reference
from xrdz.wavelength import wavelength_from_name


@lru_cache(maxsize=1)
def instrument_model() -> InstrumentModel:
    nothing = Diffractogram(np.array([20.0, 30.0]), np.zeros(2))
    copper = Instrument(goniometer_radius_mm=200.0, wavelength=wavelength_from_name("CuKa"), soller_deg=2.5)
    return conditions_of(nothing, copper).instrument


@lru_cache(maxsize=1)
def phases() -> tuple[Reference, Reference]:
    return reference("sn"), reference("ni3sn4")


def positions() -> FloatArray:
    """Return 28 to 48 degrees: ten reflections of tin, thirty of Ni3Sn4."""
    return 28.0 + 0.03 * np.arange(667, dtype=np.float64)
