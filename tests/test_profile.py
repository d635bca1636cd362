"""What the geometry does to a line: depth, flat specimen and linear detector, against ray tracing and scipy."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import exponnorm

from xrdz.conditions import PACKING, UNSEEN_SU, conditions_of, transparency_prior
from xrdz.diffractogram import Diffractogram
from xrdz.fit import fit
from xrdz.instrument import Instrument
from xrdz.pattern import compile_pattern
from xrdz.profile import defocus_of, flat_specimen_error
from xrdz.reference import reference
from xrdz.wavelength import Wavelength

FWHM_SQUARED_PER_VARIANCE = 8.0 * math.log(2.0)


def traced_shifts(theta_deg: float, divergence_deg: float, detector_deg: float, seed: int = 1) -> np.ndarray:
    """Return recorded minus true 2theta (deg) of rays traced in the equatorial plane, radius 1.

    The source stands at (-cos w, sin w), a ray leaves it at the angle phi off the way to the centre and meets the flat
    specimen y = 0 at x; the detector's place is where the ray diffracted by 2theta crosses the circle, its centre
    having moved to 2 w, so that the place seen is psi off it.
    """
    rng = np.random.default_rng(seed)
    phi = np.radians(divergence_deg) * (rng.random(400_000) - 0.5)
    psi = np.radians(detector_deg) * (rng.random(phi.size) - 0.5)
    two_theta = 2.0 * math.radians(theta_deg)
    w = 0.5 * (two_theta - psi)
    source = np.stack((-np.cos(w), np.sin(w)))
    incidence = w + phi
    x = source[0] + source[1] / np.tan(incidence)
    leaving = two_theta - incidence
    direction = np.stack((np.cos(leaving), np.sin(leaving)))
    # |x + t d| = 1
    along = x * direction[0]
    t = -along + np.sqrt(along**2 - x**2 + 1.0)
    place = np.arctan2(t * direction[1], x + t * direction[0])
    return np.degrees(w + place - two_theta)


@pytest.mark.parametrize("theta_deg", [10.0, 20.0, 40.0])
@pytest.mark.parametrize(("divergence_deg", "detector_deg"), [(1.0, 0.0), (1.0, 5.542), (0.5, 3.0)])
def test_flat_specimen_and_defocus_are_what_rays_do(
    theta_deg: float, divergence_deg: float, detector_deg: float
) -> None:
    shifts = traced_shifts(theta_deg, divergence_deg, detector_deg)
    tangent = math.tan(math.radians(theta_deg))
    noise = float(shifts.std()) / math.sqrt(shifts.size)
    # The next order is smaller by phi / tan(theta) squared, 5 % at 10 degrees.
    assert shifts.mean() == pytest.approx(
        -flat_specimen_error(divergence_deg) / tangent, rel=0.02, abs=5.0 * noise + 1e-6
    )
    variance = defocus_of(divergence_deg, detector_deg) / FWHM_SQUARED_PER_VARIANCE / tangent**2
    assert shifts.var() == pytest.approx(variance, rel=0.06 if theta_deg == 10.0 else 0.02)


def test_flat_specimen_error_of_the_textbook() -> None:
    # Jenkins & Snyder 1996, Introduction to X-ray Powder Diffractometry: -alpha^2 cot(theta) / 343, in degrees.
    assert flat_specimen_error(1.0) == pytest.approx(1.0 / 343.0, rel=3e-3)
    assert flat_specimen_error(0.5) == pytest.approx(0.25 / 343.0, rel=3e-3)


def test_flat_specimen_error_moves_the_lines() -> None:
    two_theta = np.arange(25.0, 60.0, 0.02)
    blank = Diffractogram(two_theta, np.ones(two_theta.size))
    known = conditions_of(blank, Instrument(goniometer_radius_mm=200.0)).instrument
    centres = []
    for divergence in (0.0, 1.0):
        instrument = replace(known, divergence_deg=divergence)
        pattern = compile_pattern(blank, instrument=instrument, references=(reference("sn"),), n_chebyshev=3)
        phase = pattern.phases[0]
        centres.append(pattern.peak_state(phase, pattern.parameters.start).centre + phase.comb.mean_offset)
    np.testing.assert_allclose(centres[1] - centres[0], -1.0 / 343.8 / np.tan(phase.theta), rtol=1e-3)


@pytest.mark.parametrize(("transparency", "error"), [(0.01, 0.002), (0.05, 0.002), (0.2, 0.002), (0.6, 0.02)])
def test_depth_is_the_convolution_with_an_exponential(transparency: float, error: float) -> None:
    # One emission line, no axial divergence, no Lorentzian part: scipy's exponentially modified normal, mirrored.
    two_theta = np.arange(28.0, 46.0, 0.01)
    blank = Diffractogram(two_theta, np.ones(two_theta.size), wavelength=Wavelength(((1.2, 1.0),)))
    instrument = conditions_of(blank, Instrument(goniometer_radius_mm=200.0)).instrument
    ni = reference("ni")
    draft = compile_pattern(blank, instrument=instrument, references=(ni,), n_chebyshev=3)
    values = draft.parameters.start.copy()
    at = {"u": 0.0, "v": 0.0, "w": 0.02, "kappa": 0.0, "defocus": 0.0, "transparency": transparency}
    at |= {f"ni.{name}": 0.0 for name in ("size_lorentz", "strain_lorentz", "size_gauss", "strain_gauss")}
    for name, value in at.items():
        values[draft.parameters.index(name)] = value
    pattern = compile_pattern(blank, instrument=instrument, references=(ni,), n_chebyshev=3, at=values)
    phase = pattern.phases[0]
    state = pattern.peak_state(phase, values)
    expected = np.zeros(two_theta.size)
    for centre, gauss, area, theta in zip(state.centre, state.gauss_squared, state.intensity, phase.theta, strict=True):
        sigma = math.sqrt(gauss / FWHM_SQUARED_PER_VARIANCE)
        decay = transparency * math.sin(2.0 * theta)
        expected += area * exponnorm.pdf(-(two_theta - centre), decay / sigma, scale=sigma)
    found = pattern.phase_columns(values)[0].pattern
    np.testing.assert_allclose(found.sum(), expected.sum(), rtol=2e-4)
    # 0.1 % up to a depth of the width, 0.141 deg; at 2.7 widths, where ten pieces are all there are, 1.3 %.
    assert np.max(np.abs(found - expected)) < error * expected.max()


def test_transparency_of_corundum_by_hand() -> None:
    # mu/rho (Al) = 50.2, (O) = 11.5 cm^2/g at Cu K-alpha (International Tables C, 4.2.4.3), 52.9 and 47.1 mass %:
    # 32.0 x 3.987 = 127.5 /cm; half of it packed, R = 10 cm: 1 / (2 x 63.8 x 10) rad = 0.0449 deg.
    mean, su = transparency_prior((reference("corundum"),), 1.5406, 100.0)
    assert mean == pytest.approx(0.0449, rel=0.03)
    assert su == pytest.approx(0.3 * mean, rel=1e-6)
    assert PACKING == 0.5
    # Farther away the depth is a smaller angle, and what no line tells of decides how well it is known.
    assert transparency_prior((reference("corundum"),), 1.5406, 173.0) == pytest.approx((mean / 1.73, UNSEEN_SU))


def test_the_phases_of_the_claims_are_opaque() -> None:
    mean, _ = transparency_prior((reference("sn"), reference("ni3sn4")), 1.5406, 200.0)
    assert mean < 0.002


def test_a_light_powder_shows_its_depth() -> None:
    # Quartz and graphite grains, loosely packed: simulated with three times the expected depth, which the fit finds.
    two_theta = np.arange(15.0, 90.0, 0.02)
    blank = Diffractogram(two_theta, np.ones(two_theta.size))
    references = (reference("quartz"), reference("graphite"))
    instrument = conditions_of(blank, Instrument(goniometer_radius_mm=200.0), references).instrument
    draft = compile_pattern(blank, instrument=instrument, references=references, n_chebyshev=3)
    place = draft.parameters.index("transparency")
    values = draft.parameters.start.copy()
    values[place] *= 2.5
    pattern = compile_pattern(blank, instrument=instrument, references=references, n_chebyshev=3, at=values)
    columns = pattern.phase_columns(values)
    expected = 4e4 * columns[0].pattern + 1.5e4 * columns[1].pattern + 80.0
    counts = np.random.default_rng(4).poisson(expected).astype(np.float64)
    result = fit(Diffractogram(two_theta, counts), instrument=instrument, references=references)
    assert abs(result.value("transparency") - values[place]) < 4.0 * result.su("transparency")
    assert result.su("transparency") < 0.3 * float(draft.parameters.prior_su[place])
    for scale, truth in zip(result.scales, (4e4, 1.5e4), strict=True):
        assert scale == pytest.approx(truth, rel=0.03)
