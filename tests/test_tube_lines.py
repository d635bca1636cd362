"""Other lines of the tube: calculated intensities by the line list, recovered shares, and none where there are none."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from xrdz.candidates import try_candidates
from xrdz.conditions import conditions_of
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.findings import Code
from xrdz.fit import FitResult, fit
from xrdz.instrument import Instrument
from xrdz.line_list import line_list
from xrdz.method import Method
from xrdz.pipeline import analyse
from xrdz.reference import reference
from xrdz.simulation import SimulationSettings, simulate
from xrdz.tube_lines import tube_findings, tube_patterns, with_tube_lines
from xrdz.wavelength import TUBE_LINES, TubeLine, Wavelength, tube_lines, wavelength_from_name

COPPER = Instrument(goniometer_radius_mm=217.5, soller_deg=2.5, wavelength=wavelength_from_name("CuKa"))
K_BETA, W_L_ALPHA = TUBE_LINES["Cu"]
PHASES = ("sn", "ni3sn4")


def fitted(diffractogram: Diffractogram) -> FitResult:
    references = tuple(reference(name) for name in PHASES)
    instrument = conditions_of(diffractogram, COPPER, references).instrument
    return fit(diffractogram, instrument=instrument, references=references)


@lru_cache(maxsize=8)
def clean(seed: int = 1) -> FitResult:
    settings = SimulationSettings(counts=2e6, two_theta=(20.0, 90.0), step=0.02)
    return fitted(simulate(settings, np.random.default_rng(seed))[0])


def areas_at(result: FitResult, number: int, angstrom: float) -> tuple[FloatArray, FloatArray]:
    """Return place (deg) and area (counts deg) of a phase's lines, for an emission as strong as K-alpha.

    By the line list: m |F|^2 LP at either wavelength, with displacement parameters at their priors.
    """
    item = reference(PHASES[number])
    state = result.states[number]
    ours = line_list(item, wavelength=1.5405929, two_theta=(15.0, 92.0))
    theirs = {hkl: line for line in line_list(item, wavelength=angstrom, two_theta=(10.0, 92.0)) for hkl in line.hkl}
    places, areas = [], []
    for line in ours:
        if line.hkl[0] not in theirs:
            continue
        # Families of one spacing are one line of the list.
        families = {tuple(hkl) for hkl in line.hkl}
        own = [tuple(int(index) for index in hkl) in families for hkl in result.pattern.phases[number].hkl]
        other = theirs[line.hkl[0]]
        places.append(other.two_theta)
        areas.append(result.scales[number] * float(state.intensity[own].sum()) * other.intensity / line.intensity)
    return np.array(places), np.array(areas)


def with_line(share: float, angstrom: float, seed: int = 1) -> FitResult:
    """Return the fit of the clean scan with a tube line's reflections added as Gaussian peaks."""
    base = clean(seed)
    x = base.diffractogram.two_theta
    added = np.zeros(x.size)
    for number in range(len(PHASES)):
        fwhm = float(np.median(base.states[number].fwhm))
        for place, area in zip(*areas_at(base, number, angstrom), strict=True):
            height = share * area / (1.0645 * fwhm)
            added += height * np.exp(-4.0 * np.log(2.0) * ((x - place) / fwhm) ** 2)
    counts = base.diffractogram.intensity + np.random.default_rng(seed + 100).poisson(added)
    return fitted(replace(base.diffractogram, intensity=counts))


@pytest.mark.parametrize("line", [K_BETA, W_L_ALPHA])
def test_intensities_agree_with_the_line_list(line: TubeLine) -> None:
    result = clean()
    tube = tube_patterns(result, [line])
    x = result.pattern.two_theta
    for number in range(len(PHASES)):
        places, areas = areas_at(result, number, line.angstrom)
        # Beyond, a line's own K-alpha lies outside the scan.
        inside, within = (places > 21.0) & (places < 80.0), (x > 21.0) & (x < 80.0)
        total = float(np.trapezoid(tube.parts[0, number, within], x[within]))
        # Tails over the ends; B refined against B at its prior.
        assert total == pytest.approx(float(areas[inside].sum()), rel=0.02)


@pytest.mark.parametrize(("share", "line"), [(0.01, K_BETA), (0.003, K_BETA), (0.006, W_L_ALPHA)])
def test_a_line_is_found_with_its_share(share: float, line: TubeLine) -> None:
    before = with_line(share, line.angstrom)
    after = with_tube_lines(before)
    assert after.pattern.tube.labels == (line.label,)
    su = after.su(f"tube.{line.label}")
    assert abs(float(after.tube_shares[0]) - share) < 4.0 * su + 0.05 * share
    assert su < 0.2 * share
    assert after.chi2_reduced < before.chi2_reduced
    finding = tube_findings(after)[0]
    assert finding.code is Code.TUBE_LINE_FITTED
    assert line.label in finding.message


def test_the_amounts_come_back_to_what_they_are_without_the_line() -> None:
    truth = clean()
    before = with_line(0.1, K_BETA.angstrom)
    after = with_tube_lines(before)
    su = truth.su("sn.scale")
    assert abs(after.scales[0] - truth.scales[0]) < 3.0 * su
    assert abs(after.scales[0] - truth.scales[0]) < abs(before.scales[0] - truth.scales[0])


def test_the_curves_add_up_and_the_background_stays_smooth() -> None:
    before = with_line(0.01, K_BETA.angstrom)
    after = with_tube_lines(before)
    phases = [after.phase_curve(number) for number in range(len(PHASES))]
    np.testing.assert_allclose(after.background + sum(phases), after.model, rtol=1e-9)
    assert np.max(np.abs(np.diff(after.background, 2))) < 0.01 * float(after.background.max())


@pytest.mark.parametrize("seed", range(1, 9))
def test_a_clean_scan_has_no_other_line(seed: int) -> None:
    result = clean(seed)
    assert with_tube_lines(result) is result
    assert tube_findings(result) == []


def test_candidates_are_tried_beside_a_fitted_line() -> None:
    after = with_tube_lines(with_line(0.01, K_BETA.angstrom))
    trial = try_candidates(after, [reference("cu"), reference("graphite")])
    assert trial.kept == ()
    assert trial.result.pattern.tube.labels == ("K-beta",)


def test_lines_a_scan_lists_itself_are_not_looked_for() -> None:
    assert tube_lines(wavelength_from_name("CuKa")) == (K_BETA, W_L_ALPHA)
    assert tube_lines(Wavelength(((1.5405929, 1.0), (1.5444274, 0.5), (1.39225, 0.01)))) == (W_L_ALPHA,)
    assert tube_lines(Wavelength(((0.41326, 1.0),))) == ()


def test_the_weighed_mixtures_of_one_instrument_show_one_share(shared_data: Path) -> None:
    # The graphite monochromator in the diffracted beam lets a thousandth through.
    philips = Instrument(
        goniometer_radius_mm=173.0, monochromator_two_theta_deg=26.6, wavelength=wavelength_from_name("CuKa")
    )
    phases = ("corundum", "fluorite", "zincite")
    method = Method(phases=phases, ratio=None, instrument=philips, two_theta=(15.0, 145.0))
    shares = []
    for name in ("cpd-1a.prn", "cpd-1c.prn", "cpd-1g.prn"):
        analysis = analyse(shared_data / "cpd" / name, method)
        assert analysis.fit is not None
        assert analysis.fit.pattern.tube.labels == ("K-beta",)
        shares.append(float(analysis.fit.tube_shares[0]))
    assert max(shares) < 1.5 * min(shares)
    assert 5e-4 < min(shares) < 1.5e-3
