"""Findings of a fit: each where its cause is, none where it is not, and texts that name value, place and remedy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import xrdz
from xrdz.analysis import Analysis
from xrdz.findings import Code, Finding, Level
from xrdz.fit import FitResult, Status
from xrdz.instrument import Instrument
from xrdz.judgement import Thresholds, _unexplained, findings_of_fit
from xrdz.method import Method
from xrdz.reference import reference
from xrdz.residuals import ResidualPeak, agreement_of
from xrdz.simulation import SimulationSettings, simulate

COPPER = Instrument(goniometer_radius_mm=217.5, soller_deg=2.5)
BASE = SimulationSettings(two_theta=(24.0, 80.0), step=0.03, counts=1e6)
PLAIN = Method(instrument=COPPER, candidates=())


def analysis_of(**changes: object) -> Analysis:
    settings = replace(BASE, **changes)  # type: ignore[arg-type]
    return xrdz.analyse(simulate(settings, np.random.default_rng(1))[0], PLAIN)


def found(analysis: Analysis, code: Code) -> list[Finding]:
    return [finding for finding in analysis.findings if finding.code is code]


def result_of(analysis: Analysis) -> FitResult:
    assert analysis.fit is not None
    return analysis.fit


def test_a_right_model_gives_no_finding() -> None:
    assert analysis_of().findings == ()


def test_strong_texture_names_phase_value_and_axis() -> None:
    finding = found(analysis_of(texture_r={"sn": 0.6}, counts=2e6), Code.STRONG_TEXTURE)[0]
    assert finding.where == "sn"
    axis = " ".join(str(index) for index in reference("sn").texture_axes[0])
    assert f"[{axis}]" in finding.message
    assert float(finding.message.split("r = ")[1].split()[0]) == pytest.approx(0.6, abs=0.1)
    assert found(analysis_of(texture_r={"sn": 0.95}), Code.STRONG_TEXTURE) == []


def test_an_absent_phase_is_not_detected_with_its_limit() -> None:
    analysis = xrdz.analyse(simulate(replace(BASE, phases=("sn",)), np.random.default_rng(1))[0], PLAIN)
    finding = found(analysis, Code.PHASE_NOT_DETECTED)[0]
    assert finding.where == "ni3sn4"
    assert f"{100 * analysis.phases['ni3sn4'].detection_limit:.2g} mass %" in finding.message
    assert analysis.mass_ratio is not None
    assert analysis.mass_ratio.limit == "upper"


def test_a_short_range_names_how_few_lines_it_holds() -> None:
    short = simulate(BASE, np.random.default_rng(1))[0].cropped((43.2, 46.5))
    findings = found(xrdz.analyse(short, PLAIN), Code.RANGE_TOO_SHORT)
    assert "sn" in {finding.where for finding in findings}
    assert "strong reflections" in findings[0].message


def test_wrong_phases_are_a_severe_misfit() -> None:
    scan = simulate(replace(BASE, phases=("zincite", "corundum")), np.random.default_rng(1))[0]
    analysis = xrdz.analyse(scan, PLAIN)
    if analysis.status == "failed":
        assert [finding.level for finding in found(analysis, Code.NOT_CONVERGED)] == [Level.SEVERE]
    else:
        assert [finding.level for finding in found(analysis, Code.POOR_FIT)] == [Level.SEVERE]
        assert found(analysis, Code.UNEXPLAINED_PEAK)
    # Claims that ask nothing of the scan stay as they are; every other is left open.
    assert {claim.verdict.value for claim in analysis.claims} <= {"undecided", "not_assessed"}


def test_findings_come_most_serious_first() -> None:
    scan = simulate(replace(BASE, impurities={"zincite": 0.05}), np.random.default_rng(1))[0]
    result = result_of(xrdz.analyse(scan, PLAIN))
    stopped = replace(result, status=Status.NOT_CONVERGED, second_start=True)
    findings = findings_of_fit(stopped, dict(xrdz.analyse(scan, PLAIN).phases), agreement_of(result))
    levels = [finding.level for finding in findings]
    assert levels[0] is Level.SEVERE
    assert levels[-1] is Level.INFO
    assert sorted(levels, key=[Level.SEVERE, Level.WARNING, Level.INFO].index) == levels


# --- cells ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"), [({"ni3sn4": 0.002}, []), ({"ni3sn4": 0.005}, ["ni3sn4"]), ({"sn": 0.005}, [])]
)
def test_a_cell_may_move_by_what_is_known_of_the_phase(change: dict[str, float], expected: list[str]) -> None:
    findings = found(analysis_of(cell_change=change), Code.CELL_FAR_FROM_REFERENCE)
    assert [finding.where for finding in findings] == expected


def test_a_shifted_cell_of_ni3sn4_points_to_its_composition() -> None:
    finding = found(analysis_of(cell_change={"ni3sn4": 0.006}), Code.CELL_FAR_FROM_REFERENCE)[0]
    assert "a = 12.28" in finding.message
    assert "+0.6" in finding.message
    assert "nickel-rich Ni3+xSn4" in finding.suggestion


def test_cells_that_move_alike_point_to_the_alignment() -> None:
    both = found(analysis_of(cell_change={"sn": 0.008, "ni3sn4": 0.008}), Code.CELL_FAR_FROM_REFERENCE)
    assert [finding.where for finding in both] == ["sn", "ni3sn4"]
    assert all("wavelength, zero and displacement" in finding.suggestion for finding in both)


def test_an_approximate_cell_may_move_further() -> None:
    scan = simulate(
        replace(BASE, phases=("sn", "ni3sn2"), mass_fractions={"sn": 0.5, "ni3sn2": 0.5}, cell_change={"ni3sn2": 0.01}),
        np.random.default_rng(1),
    )[0]
    analysis = xrdz.analyse(scan, replace(PLAIN, phases=("sn", "ni3sn2"), ratio=None))
    assert found(analysis, Code.CELL_FAR_FROM_REFERENCE) == []


def test_thresholds_can_be_another_laboratory_s() -> None:
    analysis = analysis_of(cell_change={"sn": 0.002})
    result = result_of(analysis)
    strict = Thresholds(cell_relative=0.001)
    findings = findings_of_fit(result, dict(analysis.phases), agreement_of(result), strict)
    assert [finding.where for finding in findings if finding.code is Code.CELL_FAR_FROM_REFERENCE] == ["sn"]


# --- texts of unexplained peaks ---------------------------------------------------------------------------------------

PEAK = ResidualPeak(two_theta=28.643, significance=14.2, area=3.0, relative_height=0.0152, fwhm=0.14)


def test_a_peak_of_the_library_is_a_warning_with_the_best_names() -> None:
    finding = _unexplained(replace(PEAK, matches=(("sno2", 0.88), ("graphite", 0.5))))
    assert finding.level is Level.WARNING
    assert finding.where == "28.643"
    assert "1.5 % of the strongest" in finding.message
    assert "sno2 (88 %), graphite (50 %)" in finding.message
    assert "try sno2" in finding.suggestion


def test_a_tube_line_is_information() -> None:
    finding = _unexplained(replace(PEAK, tube_line="K-beta of the peak at 31.77 deg"))
    assert finding.level is Level.INFO
    assert finding.message.endswith("K-beta of the peak at 31.77 deg")
    both = _unexplained(replace(PEAK, tube_line="K-beta of the peak at 31.77 deg", matches=(("si", 0.5),)))
    assert "it could be si (50 %) too" in both.message


def test_a_peak_of_nothing_known_asks_for_a_structure() -> None:
    finding = _unexplained(PEAK)
    assert finding.level is Level.WARNING
    assert "none of the reference library" in finding.message
    assert "CIF" in finding.suggestion


def test_a_bound_that_matters_is_named_with_its_value() -> None:
    analysis = analysis_of()
    result = result_of(analysis)
    place = result.pattern.n_linear + result.pattern.parameters.index("displacement")
    active = result.minimum.active.copy()
    active[place] = True
    held = replace(result, minimum=replace(result.minimum, active=active))
    findings = findings_of_fit(held, dict(analysis.phases), agreement_of(result))
    assert [finding.where for finding in findings if finding.code is Code.AT_BOUND] == ["displacement"]


def test_references_say_what_is_known_of_their_cells() -> None:
    # The rules above rest on these flags of the library.
    assert "variable_composition" in reference("ni3sn4").flags
    assert "approximate_cell" in reference("ni3sn2").flags
    assert "variable_composition" not in reference("sn").flags
