"""What a fit leaves over: agreement indices by hand, and peaks that are found, named, or rightly not seen."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from xrdz.conditions import conditions_of
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.fit import FitResult, fit
from xrdz.instrument import Instrument
from xrdz.line_list import line_list
from xrdz.readers import read
from xrdz.reference import reference
from xrdz.residuals import agreement_of, unexplained_peaks
from xrdz.simulation import SimulationSettings, simulate
from xrdz.wavelength import TUBE_LINES, wavelength_from_name

COPPER = Instrument(goniometer_radius_mm=217.5, soller_deg=2.5, wavelength=wavelength_from_name("CuKa"))
PHILIPS = Instrument(
    goniometer_radius_mm=173.0, monochromator_two_theta_deg=26.6, wavelength=wavelength_from_name("CuKa")
)


def fitted(diffractogram: Diffractogram, phases: tuple[str, ...], instrument: Instrument = COPPER) -> FitResult:
    return fit(
        diffractogram,
        instrument=conditions_of(diffractogram, instrument).instrument,
        references=[reference(name) for name in phases],
    )


@lru_cache(maxsize=4)
def scan(seed: int = 1, counts: float = 1e6) -> Diffractogram:
    settings = SimulationSettings(counts=counts, two_theta=(24.0, 80.0), step=0.03)
    return simulate(settings, np.random.default_rng(seed))[0]


@lru_cache(maxsize=4)
def clean(seed: int = 1) -> FitResult:
    return fitted(scan(seed), ("sn", "ni3sn4"))


def with_peaks(positions: list[float], heights: list[float], fwhm: float = 0.15, seed: int = 5) -> FitResult:
    """Return the fit of the clean scan with Gaussian peaks of these heights (counts) added."""
    base = scan()
    x = base.two_theta
    added = np.zeros_like(x)
    for position, height in zip(positions, heights, strict=True):
        added += height * np.exp(-4.0 * np.log(2.0) * ((x - position) / fwhm) ** 2)
    counts = base.intensity + np.random.default_rng(seed).poisson(added)
    return fitted(replace(base, intensity=counts), ("sn", "ni3sn4"))


def strongest(result: FitResult) -> float:
    return float(np.max(result.model - result.background))


# --- agreement --------------------------------------------------------------------------------------------------------


def test_agreement_indices_by_hand() -> None:
    result = clean()
    y, m, w = result.diffractogram.intensity, result.model, result.minimum.weights
    agreement = agreement_of(result)
    assert agreement.rwp == pytest.approx(100.0 * np.sqrt((w * (y - m) ** 2).sum() / (w * y**2).sum()))
    assert agreement.gof == pytest.approx(agreement.rwp / agreement.rexp)
    # A right model leaves independent residuals: chi^2 = 1 and d = 2, within 5 su of their scatter over 1867 points.
    assert agreement.gof == pytest.approx(1.0, abs=0.05)
    assert agreement.durbin_watson == pytest.approx(2.0, abs=0.25)
    assert agreement.rwp_background_subtracted > agreement.rwp


# --- no false alarms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_right_model_leaves_no_peak(seed: int) -> None:
    assert unexplained_peaks(clean(seed)) == []


def test_wrong_intensities_are_no_new_peaks() -> None:
    # Texture along another axis than the model's leaves many standard uncertainties on the lines themselves.
    settings = SimulationSettings(texture_r={"sn": 0.5}, counts=2e6, two_theta=(24.0, 80.0), step=0.03)
    textured = simulate(settings, np.random.default_rng(3))[0]
    result = fit(
        textured,
        instrument=conditions_of(textured, COPPER).instrument,
        references=[reference("sn"), reference("ni3sn4")],
        texture_axes=[(1, 0, 1), None],
        extend=False,
    )
    assert agreement_of(result).gof > 1.2
    assert unexplained_peaks(result) == []


def test_wrong_widths_are_no_new_peaks() -> None:
    settings = SimulationSettings(
        size_nm={"sn": 15.0}, strain={"ni3sn4": 0.004}, counts=2e6, two_theta=(24.0, 80.0), step=0.03
    )
    broad = simulate(settings, np.random.default_rng(4))[0]
    assert unexplained_peaks(fitted(broad, ("sn", "ni3sn4"))) == []


# --- peaks that are there ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("position", "share"), [(26.6, 0.01), (36.8, 0.01), (50.4, 0.01), (68.0, 0.02)])
def test_a_free_peak_of_one_percent_is_found_where_it_stands(position: float, share: float) -> None:
    height = share * strongest(clean())
    peaks = unexplained_peaks(with_peaks([position], [height]))
    assert len(peaks) == 1
    assert peaks[0].two_theta == pytest.approx(position, abs=0.06)
    assert peaks[0].significance > 6.0
    assert peaks[0].relative_height == pytest.approx(share, rel=0.5)


def test_peaks_come_by_significance_and_not_more_than_asked() -> None:
    height = strongest(clean())
    result = with_peaks([26.6, 36.8, 50.4, 68.0], [0.02 * height, 0.05 * height, 0.03 * height, 0.04 * height])
    peaks = unexplained_peaks(result)
    assert {round(peak.two_theta, 0) for peak in peaks} == {27.0, 37.0, 50.0, 68.0}
    assert [peak.significance for peak in peaks] == sorted((peak.significance for peak in peaks), reverse=True)
    assert len(unexplained_peaks(result, most=2)) == 2


def impurity(name: str, share: float, seed: int) -> Diffractogram:
    settings = SimulationSettings(
        counts=2e6, impurities={name: share}, cell_change={name: 0.001}, two_theta=(24.0, 80.0), step=0.03
    )
    return simulate(settings, np.random.default_rng(seed))[0]


@pytest.mark.parametrize(("name", "share"), [("sno2", 0.01), ("zincite", 0.02), ("nio", 0.03)])
def test_an_impurity_is_named(name: str, share: float) -> None:
    peaks = unexplained_peaks(fitted(impurity(name, share, 7), ("sn", "ni3sn4")))
    assert peaks
    lines = [line.two_theta for line in line_list(reference(name), wavelength=1.5405929, two_theta=(24.0, 80.0))]
    for peak in peaks:
        # A cell 0.1 % larger moves a line at 80 degrees by 0.1 degree.
        assert min(abs(peak.two_theta - line) for line in lines) < 0.16
    best = [peak.matches[0][0] for peak in peaks if peak.matches]
    assert best.count(name) >= len(peaks) - 1


def test_the_other_lines_of_the_tube_are_named() -> None:
    base = clean()
    instrument = base.pattern.instrument
    tin = base.pattern.phases[0]
    state = base.pattern.peak_state(tin, base.values)
    top = int(np.argmax(state.intensity))
    label, angstrom = TUBE_LINES["Cu"][0].label, TUBE_LINES["Cu"][0].angstrom
    sine = np.sin(np.radians(0.5 * state.bragg)) * angstrom / instrument.wavelength.principal
    places: FloatArray = 2.0 * np.degrees(np.arcsin(sine))
    heights = 0.03 * base.scales[0] * state.intensity / (1.06 * state.fwhm)
    inside = places > 24.0
    peaks = unexplained_peaks(with_peaks(list(places[inside]), list(heights[inside])))
    assert peaks
    named = [peak.tube_line for peak in peaks]
    assert f"{label} of the peak at {state.centre[top]:.2f} deg" in named
    assert all(name.startswith(label) for name in named)


def test_a_peak_where_a_tube_line_could_be_is_no_tube_line_without_that_of_the_strongest() -> None:
    base = clean()
    tin = base.pattern.phases[0]
    state = base.pattern.peak_state(tin, base.values)
    # K-beta of tin 301 at 55.3: as high as a fifth of its parent, so the strongest would show its own far higher.
    parent = int(np.argmin(np.abs(state.centre - 55.3)))
    sine = np.sin(np.radians(0.5 * state.bragg[parent])) * 1.39225 / base.pattern.instrument.wavelength.principal
    place = float(2.0 * np.degrees(np.arcsin(sine)))
    height = 0.2 * float(base.scales[0] * state.intensity[parent] / (1.06 * state.fwhm[parent]))
    peaks = unexplained_peaks(with_peaks([place], [height]))
    assert [peak.tube_line for peak in peaks] == [""]


# --- measured scans ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cpd-1a.prn", "cpd-1e.prn", "cpd-1g.prn"])
def test_weighed_mixtures_hold_nothing_unexplained(shared_data: Path, name: str) -> None:
    # Samples 1 of the IUCr round robin are mixed from three pure powders; their misfit of profiles is no impurity.
    measured = read(shared_data / "cpd" / name).cropped((15.0, 120.0))
    assert unexplained_peaks(fitted(measured, ("corundum", "fluorite", "zincite"), PHILIPS)) == []


def test_k_beta_of_zincite_is_seen_through_the_monochromator(shared_data: Path) -> None:
    # Graphite passes some thousandths of K-beta: 100 at 31.77 gives 28.64, 101 at 36.25 gives 32.66 degrees.
    measured = read(shared_data / "cpd" / "zincite.prn").cropped((20.0, 100.0))
    peaks = unexplained_peaks(fitted(measured, ("zincite",), PHILIPS))
    assert {round(peak.two_theta, 1) for peak in peaks} == {28.6, 32.7}
    assert all(peak.tube_line.startswith("K-beta") for peak in peaks)
