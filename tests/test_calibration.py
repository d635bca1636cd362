"""Calibration: a standard simulated with known values, the measured standards, and what later fits make of it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from xrdz.calibration import (
    CERTIFIED_AT_C,
    STANDARDS,
    Calibration,
    calibrate,
    standard_of,
    standard_parameters,
    standard_phase,
)
from xrdz.cli import main
from xrdz.conditions import RESOLUTION_NAMES, conditions_of, response_priors
from xrdz.diffractogram import Diffractogram, FloatArray
from xrdz.errors import InputError
from xrdz.fields import Estimate
from xrdz.findings import Code
from xrdz.instrument import Instrument, IntensityResponse, Resolution, read_instrument, write_instrument
from xrdz.method import Method
from xrdz.parameters import Parameter
from xrdz.pattern import compile_pattern
from xrdz.phase_model import GLOBAL_NAMES
from xrdz.pipeline import analyse
from xrdz.readers import read
from xrdz.reference import reference, reference_ids
from xrdz.wavelength import wavelength_from_name

KNOWN = Instrument(name="simulated", goniometer_radius_mm=217.5, wavelength=wavelength_from_name("CuKa"))
PHILIPS = Instrument(
    name="Philips PW3020",
    goniometer_radius_mm=173.0,
    wavelength=wavelength_from_name("CuKa"),
    monochromator_two_theta_deg=26.6,
)
TRUE_GLOBALS = {
    "zero": 0.012,
    "displacement": -0.06,
    "u": 0.0025,
    "v": -0.0022,
    "w": 0.0021,
    "kappa": 0.0012,
    "roughness": 0.0,
    "polarization": 1.0,
    "overspill": 0.12,
    "defocus": 2e-4,
    "transparency": 0.002,
}
TRUE_X, TRUE_Y = 0.01, 0.012
TRUE_RESPONSE = (-0.06, 0.04)


def simulated_standard(
    *,
    seed: int,
    total: float = 3e7,
    response: tuple[float, ...] = (),
    impurity: tuple[float, float] | None = None,
) -> Diffractogram:
    """Return a scan of LaB6 with known resolution; an impurity is (2theta, share of the strongest peak's height)."""
    two_theta = np.round(np.arange(18.0, 150.0, 0.02), 6)
    blank = Diffractogram(two_theta, np.ones(two_theta.size))
    model = conditions_of(blank, KNOWN).instrument
    model = dataclasses.replace(
        model,
        response=tuple(Parameter(f"response.{k}", 0.0, 0.0, 0.1) for k in range(1, len(response) + 1)),
        response_domain=(float(two_theta[0]), float(two_theta[-1])),
    )
    references = (reference("lab6"),)
    table = compile_pattern(blank, instrument=model, references=references, n_chebyshev=1).parameters
    values = table.start.copy()
    standard = STANDARDS["lab6"]
    own = 0.9 * 0.15406 / standard.size_nm[0] * 180.0 / math.pi
    truth = {
        **TRUE_GLOBALS,
        **{f"response.{k}": value for k, value in enumerate(response, start=1)},
        "lab6.a": standard.cell["a"][0],
        "lab6.size_lorentz": TRUE_Y + own,
        "lab6.strain_lorentz": TRUE_X,
        "lab6.size_gauss": 0.0,
        "lab6.strain_gauss": 0.0,
        "lab6.B.La": standard.displacement["La"][0],
        "lab6.B.B": standard.displacement["B"][0],
        "lab6.ln_texture": 0.0,
    }
    for name, value in truth.items():
        values[table.index(name)] = value
    pattern = compile_pattern(blank, instrument=model, references=references, n_chebyshev=1, at=values)
    peaks = pattern.phase_columns(values, derivatives=False)[0].pattern
    t = np.linspace(-1.0, 1.0, two_theta.size)
    under = np.exp(-0.6 * t)
    expected = 0.8 * peaks / peaks.sum() + 0.2 * under / under.sum()
    if impurity is not None:
        centre, share = impurity
        expected += share * float(np.max(peaks / peaks.sum())) * np.exp(-0.5 * ((two_theta - centre) / 0.04) ** 2)
    counts = np.random.default_rng(seed).poisson(total * expected).astype(np.float64)
    return Diffractogram(two_theta, counts, count_kind="counts")


@pytest.fixture(scope="module")
def simulated() -> Calibration:
    return calibrate(simulated_standard(seed=1), "lab6", start=KNOWN)


@pytest.fixture(scope="module")
def with_response() -> Calibration:
    return calibrate(simulated_standard(seed=2, response=TRUE_RESPONSE), "lab6", start=KNOWN)


def true_resolution() -> dict[str, float]:
    return {
        "u": TRUE_GLOBALS["u"],
        "v": TRUE_GLOBALS["v"],
        "w": TRUE_GLOBALS["w"],
        "x": TRUE_X,
        "y": TRUE_Y,
        "axial": math.sqrt(TRUE_GLOBALS["kappa"]),
        "zero_deg": TRUE_GLOBALS["zero"],
        "defocus": TRUE_GLOBALS["defocus"],
    }


def covariance_of(resolution: Resolution) -> FloatArray:
    return np.array(resolution.covariance)


# --- a standard whose truth is known ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(true_resolution()))
def test_recovers_what_was_simulated(simulated: Calibration, name: str) -> None:
    assert simulated.instrument.resolution is not None
    estimate = getattr(simulated.instrument.resolution, name)
    # Four standard uncertainties: one false alarm in 16 000 for each parameter of one fixed seed.
    assert abs(estimate.value - true_resolution()[name]) < 4.0 * estimate.su


def test_uncertainties_are_useful(simulated: Calibration) -> None:
    """They are far below the priors of an instrument nobody calibrated: U, V, W 0.01, zero 0.02, kappa 100 %."""
    resolution = simulated.instrument.resolution
    assert resolution is not None
    assert resolution.u is not None
    assert resolution.u.su is not None
    assert resolution.u.su < 1e-3
    assert resolution.axial is not None
    assert resolution.axial.su is not None
    assert resolution.axial.su < 0.02 * resolution.axial.value
    assert resolution.zero_deg is not None
    assert resolution.zero_deg.su is not None
    assert resolution.zero_deg.su < 0.005


def test_joint_truth_lies_within_the_joint_covariance(simulated: Calibration) -> None:
    resolution = simulated.instrument.resolution
    assert resolution is not None
    difference = np.array([getattr(resolution, name).value - true_resolution()[name] for name in resolution.parameters])
    distance = float(difference @ np.linalg.solve(covariance_of(resolution), difference))
    # chi^2 of 8 degrees of freedom exceeds 31.8 once in 10 000.
    assert distance < 31.8


def test_covariance_is_symmetric_positive_and_agrees_with_the_uncertainties(simulated: Calibration) -> None:
    resolution = simulated.instrument.resolution
    assert resolution is not None
    covariance = covariance_of(resolution)
    assert np.array_equal(covariance, covariance.T)
    scale = np.sqrt(np.diag(covariance))
    assert np.min(np.linalg.eigvalsh(covariance / scale / scale[:, None])) > 0.0
    assert scale == pytest.approx([getattr(resolution, name).su for name in resolution.parameters], rel=1e-12)


def test_zero_and_displacement_are_told_apart_only_within_their_covariance(simulated: Calibration) -> None:
    codes = [(finding.code, finding.where) for finding in simulated.findings]
    assert (Code.READER_NOTE, "zero") in codes
    assert abs(simulated.displacement_mm.value - TRUE_GLOBALS["displacement"]) < 4.0 * (
        simulated.displacement_mm.su or 0
    )


def test_a_flat_response_is_not_refined(simulated: Calibration) -> None:
    assert simulated.instrument.intensity_response is None


def test_recovers_the_intensity_response(with_response: Calibration) -> None:
    response = with_response.instrument.intensity_response
    assert response is not None
    assert response.polynomial == "legendre"
    assert response.ln_coefficients[0] == Estimate(0.0, 0.0)
    found = [*response.ln_coefficients[1:], *[Estimate(0.0, 0.1)] * 2][:2]
    for estimate, truth in zip(found, TRUE_RESPONSE, strict=True):
        assert estimate.su is not None
        assert abs(estimate.value - truth) < 4.0 * estimate.su


def test_response_can_be_left_out() -> None:
    calibration = calibrate(simulated_standard(seed=2, response=TRUE_RESPONSE), "lab6", start=KNOWN, response=False)
    assert calibration.instrument.intensity_response is None


def test_an_impurity_is_named() -> None:
    calibration = calibrate(simulated_standard(seed=3, impurity=(34.5, 0.02)), "lab6", start=KNOWN, response=False)
    found = [finding for finding in calibration.findings if finding.code is Code.STANDARD_NOT_PURE]
    assert [round(float(finding.where), 1) for finding in found] == [34.5]


def test_a_pure_standard_is_called_pure(simulated: Calibration, with_response: Calibration) -> None:
    for calibration in (simulated, with_response):
        assert Code.STANDARD_NOT_PURE not in {finding.code for finding in calibration.findings}


def test_the_start_instrument_keeps_its_facts_and_is_not_changed(simulated: Calibration) -> None:
    instrument = simulated.instrument
    assert KNOWN.resolution is None
    assert (instrument.name, instrument.goniometer_radius_mm) == (KNOWN.name, KNOWN.goniometer_radius_mm)
    assert instrument.wavelength == KNOWN.wavelength
    assert instrument.calibration["standard"] == "NIST SRM 660c LaB6"


def test_the_instrument_file_reads_back_equal(with_response: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "instrument.toml"
    write_instrument(with_response.instrument, path)
    read_back = read_instrument(path)
    assert read_back.resolution == with_response.instrument.resolution
    assert read_back.intensity_response == with_response.instrument.intensity_response


# --- standards --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("identifier", sorted(STANDARDS))
def test_every_standard_has_a_reference_with_its_cell_and_elements(identifier: str) -> None:
    standard, item = STANDARDS[identifier], reference(standard_phase(identifier))
    cell = dict(zip("abc", item.cell[:3], strict=True))
    for name, (value, su) in standard.cell.items():
        assert value == pytest.approx(cell[name], rel=5e-4)  # batches of one material differ by less
        assert 0.0 < su < 1e-3 * value
    assert set(standard.displacement) <= set(item.groups)


def test_certified_cell_follows_the_temperature() -> None:
    standard, item = STANDARDS["lab6"], reference("lab6")

    def cell(kelvin: float | None) -> Parameter:
        return {p.name: p for p in standard_parameters(standard, item, kelvin)}["lab6.a"]

    at_certificate = cell(CERTIFIED_AT_C + 273.15)
    assert at_certificate.prior_mean == pytest.approx(4.156826, abs=1e-9)
    # NIST states 4.156780 angstrom for its own scan at 20.85 C (mds2-2315).
    assert cell(294.0).prior_mean == pytest.approx(4.156780, abs=5e-6)
    assert cell(None).prior_su > 1.5 * at_certificate.prior_su


def test_any_reference_can_be_a_standard() -> None:
    for identifier in reference_ids():
        standard = standard_of(identifier, reference(identifier))
        assert set(standard.cell) <= {"a", "b", "c"}
        assert standard.response is False or identifier in STANDARDS


def test_an_unknown_standard_is_refused() -> None:
    with pytest.raises(InputError, match=r"lab7.*did you mean .lab6.*srm660c"):
        calibrate(simulated_standard(seed=1, total=1e5), "lab7", start=KNOWN)


# --- what later fits are told -----------------------------------------------------------------------------------------


def conditions(instrument: Instrument) -> Mapping[str, Parameter]:
    scan = Diffractogram(np.array([20.0, 100.0]), np.ones(2))
    return {item.name: item for item in conditions_of(scan, instrument).instrument.parameters}


def test_calibrated_values_become_priors_with_their_covariance(simulated: Calibration) -> None:
    scan = Diffractogram(np.array([20.0, 100.0]), np.ones(2))
    model = conditions_of(scan, simulated.instrument).instrument
    resolution = simulated.instrument.resolution
    assert resolution is not None
    assert resolution.axial is not None
    assert model.prior_covariance is not None
    priors = {prior.name: (place, prior) for place, prior in enumerate(model.priors)}
    scale = {"kappa": 2.0 * resolution.axial.value}
    covariance = covariance_of(resolution)
    for row, first in enumerate(resolution.parameters):
        for column, second in enumerate(resolution.parameters):
            if first not in RESOLUTION_NAMES or second not in RESOLUTION_NAMES:
                continue
            names = RESOLUTION_NAMES[first], RESOLUTION_NAMES[second]
            expected = covariance[row, column] * scale.get(names[0], 1.0) * scale.get(names[1], 1.0)
            assert model.prior_covariance[priors[names[0]][0], priors[names[1]][0]] == pytest.approx(expected)
    assert priors["kappa"][1].prior_mean == pytest.approx(resolution.axial.value**2)
    assert model.lorentz == (resolution.x.value if resolution.x else 0, resolution.y.value if resolution.y else 0)
    held = priors["displacement"][0]
    assert model.prior_covariance[held, held] == pytest.approx(model.priors[held].prior_su ** 2)


def test_without_a_calibration_nothing_is_joint() -> None:
    scan = Diffractogram(np.array([20.0, 100.0]), np.ones(2))
    model = conditions_of(scan, KNOWN).instrument
    assert model.prior_covariance is None
    assert model.response == ()
    assert tuple(prior.name for prior in model.priors) == GLOBAL_NAMES


def test_a_covariance_that_is_none_is_refused() -> None:
    resolution = Resolution(
        u=Estimate(0.01, 0.001),
        w=Estimate(0.01, 0.001),
        parameters=("u", "w"),
        covariance=((1e-6, 2e-6), (2e-6, 1e-6)),
    )
    with pytest.raises(InputError, match="covariance"):
        conditions(dataclasses.replace(KNOWN, resolution=resolution))


def test_a_chebyshev_response_is_the_same_curve() -> None:
    coefficients = (Estimate(0.1, 0.01), Estimate(-0.2, 0.02), Estimate(0.05, 0.01), Estimate(0.03, 0.01))
    priors = response_priors(IntensityResponse("chebyshev", (20.0, 120.0), coefficients))
    t = np.linspace(-1.0, 1.0, 41)
    chebyshev = np.polynomial.chebyshev.chebval(t, [item.value for item in coefficients])
    legendre = np.polynomial.legendre.legval(t, [0.0, *(prior.prior_mean for prior in priors)])
    # Degree 0 belongs to the scales, so the two differ by a constant; both are exact polynomials, hence 1e-12.
    assert np.ptp(chebyshev - legendre) < 1e-12
    assert all(prior.prior_su > 0.0 for prior in priors)


# --- measured standards -----------------------------------------------------------------------------------------------


def test_srm_660c_gives_its_certified_cell(shared_data: Path) -> None:
    """NIST's certification scan; its own refinement gave 4.156780 angstrom and a displacement of -0.0788 mm."""
    scan = read(shared_data / "formats" / "pdcif_nist_srm660c_100a.cif")
    calibration = calibrate(scan, "lab6")
    measured = calibration.cell["a"].measured
    assert measured is not None
    assert measured.value == pytest.approx(4.156780, abs=5e-5)  # 12 ppm: half the certificate's expanded uncertainty
    zero = calibration.instrument.resolution
    assert zero is not None
    assert zero.zero_deg is not None
    assert zero.zero_deg.su is not None
    assert abs(zero.zero_deg.value) < 3.0 * zero.zero_deg.su  # NIST's goniometer is zeroed
    displacement = calibration.displacement_mm
    assert displacement.su is not None
    assert abs(displacement.value + 0.07877) < 3.0 * displacement.su
    assert Code.STANDARD_NOT_PURE not in {finding.code for finding in calibration.findings}
    assert calibration.instrument.goniometer_radius_mm == 217.5


@pytest.fixture(scope="module")
def philips(shared_data: Path) -> Calibration:
    return calibrate(read(shared_data / "cpd" / "CPD-Y2O3.PRN"), "y2o3", start=PHILIPS, two_theta=(15.0, 145.0))


def test_the_round_robin_s_yttria_is_pure_and_its_cell_is_near_the_reference(philips: Calibration) -> None:
    assert Code.STANDARD_NOT_PURE not in {finding.code for finding in philips.findings}
    measured = philips.cell["a"].measured
    assert measured is not None
    assert measured.value == pytest.approx(10.604, rel=3e-4)


def test_a_calibration_changes_no_answer_and_sharpens_what_it_should(philips: Calibration, shared_data: Path) -> None:
    scan = shared_data / "cpd" / "cpd-1g.prn"
    method = Method(phases=("corundum", "fluorite", "zincite"), two_theta=(15.0, 145.0), instrument=PHILIPS)
    plain = analyse(scan, method)
    calibrated = analyse(scan, dataclasses.replace(method, instrument=philips.instrument))
    assert plain.status == calibrated.status == "converged"
    for name, phase in plain.phases.items():
        other = calibrated.phases[name]
        assert abs(other.mass_fraction.value - phase.mass_fraction.value) < 0.5 * phase.mass_fraction.su
        assert other.mass_fraction.su_stat < phase.mass_fraction.su_stat
        assert other.cell["a"][1] < phase.cell["a"][1]
    assert plain.fit is not None
    assert calibrated.fit is not None
    for name in ("zero", "displacement", "u", "v", "kappa"):
        assert calibrated.fit.su(name) < plain.fit.su(name)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scan = simulated_standard(seed=4, total=1e7)
    path = tmp_path_factory.mktemp("scan") / "lab6.xy"
    np.savetxt(path, np.stack((scan.two_theta, scan.intensity), axis=1), fmt=("%.4f", "%d"))
    return path


def test_command_writes_an_instrument_file_that_fit_takes(
    scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, out = tmp_path / "start.toml", tmp_path / "out.toml"
    write_instrument(KNOWN, start)
    code = main(
        [
            *("calibrate", str(scan_file), "--standard", "lab6", "--instrument", str(start)),
            *("--out", str(out), "--range", "18:145", "--no-response"),
        ]
    )
    printed = capsys.readouterr()
    assert code == 0
    assert "NIST SRM 660c LaB6" in printed.out
    assert "axial" in printed.out
    assert f"wrote {out}" in printed.err
    assert read_instrument(out).resolution is not None


def test_command_prints_json(scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.toml"
    assert main(["calibrate", str(scan_file), "--standard", "lab6", "--out", str(out), "--no-response", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "xrdz.calibration/1"
    assert document["instrument"]["resolution"]["parameters"][0] == "u"
    assert {finding["code"] for finding in document["findings"]} >= {"WAVELENGTH_ASSUMED", "RADIUS_ASSUMED"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--standard", "lab7"], "lab7"),
        (["--standard", "lab6", "--range", "50:40"], "--range"),
        (["--standard", "lab6", "--instrument", "absent.toml"], "absent.toml"),
    ],
)
def test_command_refuses_in_one_line(
    scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    out = tmp_path / "out.toml"
    assert main(["calibrate", str(scan_file), "--out", str(out), *arguments]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert not out.exists()
