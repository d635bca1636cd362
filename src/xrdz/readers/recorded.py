"""What a reader hands to the gate: the numbers as the file holds them, and the file's own words about them.

A reader interprets a layout and nothing more: it does not sort, mask, scale or judge. `gate.py` does, once for all.

Metadata vocabulary
-------------------
All readers use these keys and no others; absent means the file does not say.

========================== =======================================================================================
sample_id                  name or number of the specimen
operator                   who measured
start_time                 when the scan began, as the file writes it
instrument                 diffractometer
anode                      tube anode, chemical symbol
tube_voltage_kv            kV
tube_current_ma            mA
step_time_s                counting time per step, s
goniometer_radius_mm       mm
filter                     beta filter
monochromator              text; "none" when the file says there is none
monochromator_two_theta_deg diffraction angle of the monochromator crystal, deg
soller_deg                 opening of the Soller slits, deg
divergence_slit_deg        fixed divergence slit, deg
divergence_slit            text, for slits that are not fixed
receiving_slit_mm          mm
detector                   text
detector_opening_deg       angle a linear detector spans, deg 2theta
k_beta_angstrom            K-beta wavelength the file states, angstrom
scan_axis                  the axis the file says was driven
temperature_k              K
comment                    free text
software                   program that wrote the file
========================== =======================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from xrdz.diffractogram import FloatArray
from xrdz.findings import Finding
from xrdz.wavelength import Wavelength

Axis = Literal["two_theta", "radian", "q", "d", "unnamed"]
Unit = Literal["counts", "rate", "unknown"]

METADATA_KEYS = frozenset(
    {
        "sample_id",
        "operator",
        "start_time",
        "instrument",
        "anode",
        "tube_voltage_kv",
        "tube_current_ma",
        "step_time_s",
        "goniometer_radius_mm",
        "filter",
        "monochromator",
        "monochromator_two_theta_deg",
        "soller_deg",
        "divergence_slit_deg",
        "divergence_slit",
        "receiving_slit_mm",
        "detector",
        "detector_opening_deg",
        "k_beta_angstrom",
        "scan_axis",
        "temperature_k",
        "comment",
        "software",
    }
)

NUMBER_KEYS = frozenset(
    key for key in METADATA_KEYS if key.endswith(("_kv", "_ma", "_s", "_mm", "_deg", "_angstrom", "_k"))
)
"""Keys whose values are numbers; all others are text."""


@dataclass(frozen=True)
class RecordedScan:
    """One scan as a file holds it.

    Parameters
    ----------
    position : shape (n,), in the unit of `axis`, any order
    intensity : shape (n,), in the unit of `unit`
    su : shape (n,) or None; a column of standard uncertainties
    attenuation : shape (n,) or None; true intensity divided by what the detector saw
    attenuation_applied : whether `intensity` is already multiplied by `attenuation`
    step_time_s : counting time per point in seconds, a number or shape (n,), or None
    unit : what the file says the intensities are; "unknown" when it does not
    axis : what the file says the positions are; "unnamed" when it does not
    announced_points : number of points the header promises, or None
    not_powder : why this is no one-dimensional powder scan, or ""
    label : how the scan is listed when there are several
    """

    position: FloatArray
    intensity: FloatArray
    su: FloatArray | None = None
    attenuation: FloatArray | None = None
    attenuation_applied: bool = False
    step_time_s: float | FloatArray | None = None
    unit: Unit = "unknown"
    axis: Axis = "two_theta"
    wavelength: Wavelength | None = None
    announced_points: int | None = None
    not_powder: str = ""
    label: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
