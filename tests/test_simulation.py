"""Simulated scans: reproducible, of the stated amounts, read back as written, and recovered by the fit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xrdz
from xrdz.cli import main
from xrdz.commands.simulate import parse_values
from xrdz.errors import InputError
from xrdz.microstructure import voigt_breadth
from xrdz.reference import reference
from xrdz.simulation import SimulationSettings, mass_fractions, simulate, size_widths, write_truth, write_xy

SHORT = SimulationSettings(mass_ratio=0.5, two_theta=(28.0, 66.0), step=0.03, counts=2e5)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_same_seed_gives_the_same_counts() -> None:
    one, truth = simulate(SHORT, generator(3))
    again, same = simulate(SHORT, generator(3))
    other, _ = simulate(SHORT, generator(4))
    assert np.array_equal(one.intensity, again.intensity)
    assert truth == same
    assert not np.array_equal(one.intensity, other.intensity)


def test_counts_are_poisson_around_what_was_asked_for() -> None:
    scan, truth = simulate(SHORT, generator())
    assert np.array_equal(scan.intensity, np.round(scan.intensity))
    counts = truth["counts"]
    assert counts["peaks"] == pytest.approx(2e5)
    assert sum(phase["counts"] for phase in truth["phases"]) == pytest.approx(2e5)
    total = counts["peaks"] + counts["background"]
    assert scan.intensity.sum() == pytest.approx(total, abs=5.0 * math.sqrt(total))
    peak, truth = simulate(replace(SHORT, counts=5000.0, counts_of="peak", background=(0.0,)), generator())
    assert truth["counts"]["highest_expected"] == pytest.approx(5000.0)
    assert truth["counts"]["background"] == pytest.approx(0.0, abs=1e-6)
    assert peak.intensity.max() == pytest.approx(5000.0, abs=400.0)


def test_intensities_follow_the_mass_fractions() -> None:
    """Hill & Howard 1987: counts per phase are proportional to its mass, whatever else is in the specimen."""
    per_mass = []
    for ratio in (0.1, 1.0, 10.0):
        _, truth = simulate(replace(SHORT, mass_ratio=ratio), generator())
        fractions = truth["mass_fractions"]
        counts = {phase["id"]: phase["counts"] for phase in truth["phases"]}
        per_mass.append((counts["ni3sn4"] / fractions["ni3sn4"]) / (counts["sn"] / fractions["sn"]))
        assert truth["mass_ratio"] == {"numerator": "ni3sn4", "denominator": "sn", "value": pytest.approx(ratio)}
    assert per_mass == pytest.approx([per_mass[0]] * 3, rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mass_ratio": 3.0}, {"sn": 0.25, "ni3sn4": 0.75}),
        ({"mass_ratio": None}, {"sn": 0.5, "ni3sn4": 0.5}),
        ({"mass_ratio": 1.0, "impurities": {"ni": 0.02}}, {"sn": 0.49, "ni3sn4": 0.49, "ni": 0.02}),
        ({"mass_ratio": None, "mass_fractions": {"sn": 0.9, "ni3sn4": 0.1}}, {"sn": 0.9, "ni3sn4": 0.1}),
        ({"phases": ("corundum",), "mass_ratio": None}, {"corundum": 1.0}),
    ],
)
def test_fractions_come_from_a_ratio_or_as_given(changes: dict[str, Any], expected: Mapping[str, float]) -> None:
    found = mass_fractions(replace(SHORT, **changes), tuple(expected))
    assert found == pytest.approx(dict(expected))


@given(st.floats(1.0, 1000.0), st.floats(0.0, 0.74))
def test_size_widths_have_the_breadth_of_the_size(size: float, spread: float) -> None:
    """beta = lambda / (D_V cos theta), by the other direction's own function."""
    wavelength = 1.5405929
    gauss_squared, lorentz = size_widths(size, spread, wavelength)
    breadth = voigt_breadth(gauss_squared, lorentz)
    assert math.radians(breadth) == pytest.approx(0.1 * wavelength / size, rel=2e-3)  # 1 % term of its series at k > 5
    share = 0.5 * math.pi * lorentz / breadth
    assert share == pytest.approx(9.0 / 16.0 * math.exp(spread**2), rel=3e-3)


def test_no_size_is_no_broadening() -> None:
    assert size_widths(0.0, 0.3, 1.54) == (0.0, 0.0)


def test_peaks_stand_where_the_cell_puts_them() -> None:
    """Bragg's law with displacement and zero, by hand for Sn 200 at 30.6 deg."""
    settings = SimulationSettings(
        phases=("sn",), wavelength="CuKa1", cell_change={"sn": 0.002}, displacement_mm=0.1, zero_deg=0.02,
        radius_mm=200.0, two_theta=(29.0, 31.4), step=0.005, counts=1e7, soller_deg=0.0, background=(0.0,),
    )  # fmt: skip
    scan, truth = simulate(settings, generator())
    a = reference("sn").cell[0] * 1.002
    assert truth["phases"][0]["cell"][0] == pytest.approx(a)
    theta = math.asin(1.5405929 / a)  # d(200) = a / 2
    expected = 2.0 * math.degrees(theta) + 0.02 - math.degrees(2.0 * 0.1 * math.cos(theta) / 200.0)
    centroid = float(np.sum(scan.two_theta * scan.intensity) / np.sum(scan.intensity))
    assert centroid == pytest.approx(expected, abs=0.004)  # the cut Lorentzian tails are not quite symmetric


def test_texture_is_the_march_dollase_factor() -> None:
    """Sn 200 (30.6 deg) over Sn 101 (32.0 deg) with axis [100]: O = mean of (r^2 cos^2 + sin^2 / r)^(-3/2), by hand."""
    settings = replace(SHORT, phases=("sn",), mass_ratio=None, background=(0.0,), counts=1e7, default_size_nm=1000.0)

    def ratio(r: float) -> float:
        scan, truth = simulate(replace(settings, texture_r={"sn": r}), generator())
        assert truth["phases"][0]["texture"] == {"axis": [1, 0, 0], "r": r}
        x, y = scan.two_theta, scan.intensity
        return float(y[(x > 29.9) & (x < 31.3)].sum() / y[(x > 31.3) & (x < 32.7)].sum())

    def factor(cos_squared: list[float], r: float) -> float:
        return float(np.mean([(r * r * c + (1.0 - c) / r) ** -1.5 for c in cos_squared]))

    a, _, c = reference("sn").cell[:3]
    for r in (0.8, 1.3):
        expected = factor([1.0, 0.0], r) / factor([c * c / (a * a + c * c), 0.0], r)
        assert ratio(r) / ratio(1.0) == pytest.approx(expected, rel=0.01)  # tails of one line under the other


def test_a_scan_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    settings = replace(SHORT, monochromator_two_theta_deg=26.6, radius_mm=173.0, wavelength="CoKa")
    scan, truth = simulate(settings, generator())
    path = write_xy(scan, tmp_path / "scan.xy")
    write_truth(truth, path)
    back = xrdz.read(path)
    assert np.array_equal(back.two_theta, scan.two_theta)
    assert np.array_equal(back.intensity, scan.intensity)
    assert back.count_kind == "counts"
    assert back.wavelength == scan.wavelength
    assert dict(back.metadata) == dict(scan.metadata)
    assert back.findings == ()
    assert json.loads((tmp_path / "scan.truth.json").read_text()) == json.loads(json.dumps(truth))


@pytest.mark.parametrize("mass_ratio", [0.2, 1.0, 4.0])
def test_the_fit_recovers_the_truth(mass_ratio: float) -> None:
    settings = SimulationSettings(
        mass_ratio=mass_ratio, size_nm={"sn": 80.0, "ni3sn4": 35.0}, strain={"ni3sn4": 0.0008}, counts=1e6,
        cell_change={"sn": 0.001, "ni3sn4": -0.0015}, displacement_mm=0.06,
    )  # fmt: skip
    scan, _ = simulate(settings, generator(11))
    found = xrdz.analyse(scan)
    assert found.status == "converged"
    assert abs(math.log(found.mass_ratio.value / mass_ratio)) < 3.5 * found.mass_ratio.su / found.mass_ratio.value
    assert found.agreement.gof == pytest.approx(1.0, abs=0.06)
    size, su = found.phases["ni3sn4"].size_nm
    assert abs(size - 35.0) < 3.5 * su


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phases": ("sn", "unobtainium")}, "unobtainium"),
        ({"phases": ("sn", "sn")}, "named once"),
        ({"phases": ()}, "at least one"),
        ({"phases": ("sn", "ni3sn4", "ni")}, "give all mass fractions"),
        ({"mass_ratio": 0.0}, "positive number"),
        ({"mass_ratio": math.nan}, "positive number"),
        ({"mass_fractions": {"sn": 0.4, "ni3sn4": 0.4}}, "sum to 1"),
        ({"mass_fractions": {"sn": 1.0}}, "one per phase"),
        ({"mass_fractions": {"sn": 1.5, "ni3sn4": -0.5}}, "from 0 to 1"),
        ({"impurities": {"ni": 1.2}}, "between 0 and 1"),
        ({"size_nm": {"tin": 50.0}}, "nearest is 'sn'"),
        ({"size_nm": {"sn": -1.0}}, "outside"),
        ({"size_spread": 2.0}, "outside"),
        ({"texture_r": {"sn": 0.0}}, "outside"),
        ({"displacement_parameters": {"sn.Ni": 0.5}}, "not simulated"),
        ({"counts": 0.0}, "outside"),
        ({"counts": math.nan}, "outside"),
        ({"two_theta": (60.0, 40.0)}, "low < high"),
        ({"two_theta": (20.0, 21.0)}, "points in the range"),
        ({"step": 0.0}, "step > 0"),
        ({"wavelength": "CuKb"}, "not known"),
        ({"background": (-0.1,)}, "negative"),
        ({"humps": ((30.0, 0.0, 0.1),)}, "positive width"),
        ({"phases": ("sn",), "mass_ratio": None, "two_theta": (10.0, 14.0)}, "no reflection"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate(replace(SHORT, **changes), generator())


def test_values_are_read_per_phase() -> None:
    assert parse_values("Sn=50, ni3sn4.ni=0.5", "--b") == {"sn": 50.0, "ni3sn4.Ni": 0.5}
    assert parse_values(None, "--b") == {}
    for text in ("sn", "sn=x", "=3", "sn=1,sn=2", "sn=nan", ""):
        with pytest.raises(InputError, match="--size"):
            parse_values(text, "--size")


@pytest.mark.parametrize("suffix", ["xy", "xrdml"])
def test_the_command_writes_a_scan_with_its_truth(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"mixture.{suffix}"
    options = ["--z", "0.5", "--seed", "7", "--range", "28:66", "--step", "0.03", "--counts", "2e5"]
    options += ["--size", "sn=50,ni3sn4=30", "--impurity", "ni=0.02", "--hump", "31,8,0.05", "--b", "sn=0.9"]
    assert main(["simulate", *options, "--out", str(path)]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"wrote {path}\nwrote {tmp_path / 'mixture.truth.json'}\n"
    truth = json.loads((tmp_path / "mixture.truth.json").read_text())
    assert truth["seed"] == 7
    assert truth["mass_ratio"]["value"] == pytest.approx(0.5)
    assert truth["mass_fractions"]["ni"] == pytest.approx(0.02)
    assert truth["phases"][0]["displacement_parameters"] == {"Sn": 0.9}
    first = xrdz.read(path)
    assert first.count_kind == "counts"
    assert main(["simulate", *options, "--out", str(path)]) == 0
    assert np.array_equal(xrdz.read(path).intensity, first.intensity)


@pytest.mark.parametrize(
    "options",
    [["--out", "a.txt"], ["--out", "a.xy", "--seed", "-1"], ["--out", "a.xy", "--z", "1", "--fractions", "sn=1"],
     ["--out", "a.xy", "--hump", "3"], ["--out", "a.xy", "--background", "x"], ["--out", "nowhere/a.xy"], []],
)  # fmt: skip
def test_bad_options_are_one_line(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", *options]) == 2
    assert capsys.readouterr().err.count("\n") == 1
