"""The straight line from a scan to an analysis: the same numbers through every door, a document that always holds."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xrdz
from xrdz.absorption import ABSORPTION
from xrdz.analysis import Analysis
from xrdz.candidates import CANDIDATES
from xrdz.diffractogram import Diffractogram
from xrdz.errors import FitError, InputError
from xrdz.fields import Estimate
from xrdz.findings import Code, Level
from xrdz.instrument import Instrument
from xrdz.method import InternalStandard, Method
from xrdz.pipeline import analyse_diffractogram
from xrdz.sample_sheet import Sample
from xrdz.simulation import SimulationSettings, simulate, write_xy

COPPER = Instrument(goniometer_radius_mm=217.5, soller_deg=2.5)
METHOD = Method(instrument=COPPER)
PLAIN = Method(instrument=COPPER, candidates=())
BASE = SimulationSettings(two_theta=(24.0, 80.0), step=0.03, counts=1e6)


def scan(seed: int = 1, **changes: Any) -> Diffractogram:
    return simulate(replace(BASE, **changes), np.random.default_rng(seed))[0]


@lru_cache(maxsize=1)
def usual() -> Analysis:
    return xrdz.analyse(scan(), METHOD)


def numbers(document: Any) -> Iterator[float]:
    if isinstance(document, dict):
        for value in document.values():
            yield from numbers(value)
    elif isinstance(document, list):
        for value in document:
            yield from numbers(value)
    elif isinstance(document, float):
        yield document


def without_timing(analysis: Analysis) -> dict[str, Any]:
    return {key: value for key, value in analysis.to_dict().items() if key != "timing"}


# --- the same numbers -------------------------------------------------------------------------------------------------


def test_the_same_scan_and_method_give_the_same_document() -> None:
    assert without_timing(xrdz.analyse(scan(), METHOD)) == without_timing(usual())


def test_a_file_and_a_diffractogram_give_the_same_numbers(tmp_path: Path) -> None:
    path = write_xy(scan(), tmp_path / "scan.xy")
    toml = tmp_path / "method.toml"
    toml.write_text("[instrument]\ngoniometer_radius_mm = 217.5\nsoller_deg = 2.5\n", encoding="utf-8")
    read = without_timing(xrdz.analyse(path, toml))
    for key in ("phases", "mass_ratio", "budget", "agreement"):
        assert read[key] == without_timing(usual())[key]


def test_an_analysis_survives_a_process_boundary() -> None:
    assert without_timing(pickle.loads(pickle.dumps(usual()))) == without_timing(usual())


def test_the_order_of_phases_does_not_matter() -> None:
    turned = xrdz.analyse(scan(), replace(PLAIN, phases=("ni3sn4", "sn"), ratio=("ni3sn4", "sn")))
    straight = xrdz.analyse(scan(), PLAIN)
    assert turned.mass_ratio is not None
    assert straight.mass_ratio is not None
    # Both end within the stopping rule: a predicted decrease of the objective of 1e-3, some hundredths of an su.
    assert abs(math.log(turned.mass_ratio.value / straight.mass_ratio.value)) < 0.1 * straight.mass_ratio.su


# --- the document -----------------------------------------------------------------------------------------------------


def test_the_document_has_no_nan_and_every_key_of_the_contract() -> None:
    document = usual().to_dict()
    json.dumps(document, allow_nan=False)
    assert all(math.isfinite(value) for value in numbers(document))
    assert set(document) == {
        "schema", "source", "method", "software", "references_sha256", "status", "phases", "amorphous", "mass_ratio",
        "budget", "elements", "claims", "agreement", "findings", "timing", "sample",
    }  # fmt: skip
    assert document["status"] == "converged"
    assert [phase["id"] for phase in document["phases"]] == ["sn", "ni3sn4"]


def test_the_budget_adds_up_to_the_combined_uncertainty() -> None:
    ratio = usual().mass_ratio
    assert ratio is not None
    budget = usual().budget
    assert {ABSORPTION, CANDIDATES, "counting", "displacement parameters", "model misfit"} <= set(budget)
    assert math.sqrt(sum(u * u for u in budget.values())) == pytest.approx(ratio.su / ratio.value)
    assert budget["counting"] == pytest.approx(ratio.su_stat / ratio.value)
    low, high = ratio.interval95
    assert low < 1.0 < high


def test_stated_sizes_correct_the_ratio_and_shrink_its_row() -> None:
    sized = xrdz.analyse(
        scan(), replace(METHOD, particle_size_um={"sn": Estimate(4.0, 0.5), "ni3sn4": Estimate(4.0, 0.5)})
    )
    before, after = usual().mass_ratio, sized.mass_ratio
    assert before is not None
    assert after is not None
    # 0.95 % per micrometre: tin absorbs more and was seen too weak.
    assert math.log(after.value / before.value) == pytest.approx(-0.038, abs=0.003)
    assert sized.budget[ABSORPTION] < 0.4 * usual().budget[ABSORPTION]
    assert sized.phases["sn"].mass_fraction.value > usual().phases["sn"].mass_fraction.value


# --- candidates -------------------------------------------------------------------------------------------------------


def test_the_default_method_finds_what_nobody_asked_for() -> None:
    analysis = xrdz.analyse(scan(impurities={"ni": 0.03}), METHOD)
    assert list(analysis.phases) == ["sn", "ni3sn4", "ni"]
    assert [item.where for item in analysis.findings if item.code is Code.CANDIDATE_KEPT] == ["ni"]
    ratio = analysis.mass_ratio
    assert ratio is not None
    assert ratio.interval95[0] < 1.0 < ratio.interval95[1]
    # Nickel outside Ni3Sn4: the alloy's nickel is that of all phases, no longer that of Z.
    nickel = analysis.claims[0]
    assert nickel.value == pytest.approx(0.97 * 0.2705 / 2.0 + 0.03, abs=0.01)
    without = xrdz.analyse(scan(impurities={"ni": 0.03}), PLAIN)
    assert list(without.phases) == ["sn", "ni3sn4"]


# --- claims -----------------------------------------------------------------------------------------------------------


def test_the_ratio_the_other_way_round_is_judged_too() -> None:
    turned = xrdz.analyse(scan(mass_ratio=2.0), replace(PLAIN, ratio=("sn", "ni3sn4")))
    claim = turned.claims[1]
    assert turned.mass_ratio is not None
    assert claim.value == pytest.approx(1.0 / turned.mass_ratio.value)
    assert claim.verdict.value == "met"


def test_other_phases_are_not_judged() -> None:
    analysis = xrdz.analyse(
        scan(phases=("corundum", "fluorite"), mass_fractions={"corundum": 0.5, "fluorite": 0.5}),
        Method(phases=("corundum", "fluorite"), instrument=COPPER),
    )
    assert analysis.claims[1].verdict.value == "not_assessed"
    assert analysis.mass_ratio is not None


def test_chemistry_that_disagrees_points_to_an_amorphous_part() -> None:
    analysis = xrdz.analyse(scan(), PLAIN, sample=Sample(file="scan.xy", ni_mass_percent=22.0, ni_u=0.2))
    assert Code.AMORPHOUS_SUSPECTED in {finding.code for finding in analysis.findings}
    agreeing = xrdz.analyse(scan(), PLAIN, sample=Sample(file="scan.xy", ni_mass_percent=13.5, ni_u=0.2))
    assert Code.AMORPHOUS_SUSPECTED not in {finding.code for finding in agreeing.findings}


# --- weak and absent phases -------------------------------------------------------------------------------------------


def test_an_absent_phase_gives_a_limit_and_open_claims() -> None:
    analysis = xrdz.analyse(scan(phases=("sn",)), PLAIN)
    ratio = analysis.mass_ratio
    assert ratio is not None
    assert ratio.limit == "upper"
    assert ratio.interval95[0] == 0.0
    absent = analysis.phases["ni3sn4"]
    assert not absent.detected
    assert absent.mass_fraction.interval95[0] == 0.0
    assert 0.0 < absent.mass_fraction.interval95[1] < 0.05
    assert 0.0 < absent.detection_limit < 0.05
    assert analysis.claims[0].verdict.value in ("undecided", "not_met")
    json.dumps(analysis.to_dict(), allow_nan=False)


def test_a_weak_phase_has_an_interval_that_holds_it() -> None:
    analysis = xrdz.analyse(scan(mass_ratio=0.02, counts=3e6), PLAIN)
    weak = analysis.phases["ni3sn4"].mass_fraction
    assert weak.interval95[0] < 0.02 / 1.02 < weak.interval95[1]
    tin = analysis.phases["sn"].mass_fraction
    assert tin.interval95[0] == pytest.approx(1.0 - weak.interval95[1])


def test_the_other_phase_absent_gives_a_lower_limit() -> None:
    analysis = xrdz.analyse(scan(phases=("ni3sn4",)), PLAIN)
    assert analysis.mass_ratio is not None
    assert analysis.mass_ratio.limit == "lower"
    document = analysis.to_dict()
    json.dumps(document, allow_nan=False)
    assert document["mass_ratio"]["interval95"][1] is None


def test_an_internal_standard_that_is_not_there_gives_no_amounts() -> None:
    method = Method(
        phases=("sn", "ni3sn4", "corundum"), instrument=COPPER, internal_standard=InternalStandard("corundum", 0.2)
    )
    analysis = xrdz.analyse(scan(), method)
    assert not analysis.phases["corundum"].detected
    if analysis.amorphous is not None:
        # A trace of noise stands for the spike: the amounts are as uncertain as it is.
        assert analysis.amorphous.su > 0.3
    json.dumps(analysis.to_dict(), allow_nan=False)


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_fit_that_fails_is_an_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_arguments: object, **_options: object) -> None:
        raise FitError("the normal equations are singular")

    monkeypatch.setattr("xrdz.pipeline.fit", fails)
    analysis = xrdz.analyse(scan(), METHOD)
    assert analysis.status == "failed"
    assert analysis.phases == {}
    assert [finding.level for finding in analysis.findings][-1] is Level.SEVERE
    assert "singular" in analysis.findings[-1].message
    assert {claim.verdict.value for claim in analysis.claims[:2]} == {"undecided"}
    document = analysis.to_dict()
    json.dumps(document, allow_nan=False)
    assert document["mass_ratio"] is None
    # A method that never asked about tin and Ni3Sn4 has nothing left open.
    other = xrdz.analyse(scan(), Method(phases=("corundum",), instrument=COPPER))
    assert {claim.verdict.value for claim in other.claims} == {"not_assessed"}


def test_a_range_without_points_is_refused_with_what_the_scan_holds() -> None:
    with pytest.raises(InputError, match=r"points are left .* 24.00 to 79.98 deg"):
        analyse_diffractogram(scan(), replace(METHOD, two_theta=(90.0, 120.0)))


# --- scans of an independent program ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["snni_z1.00_clean", "snni_z2.00_low_counts"])
def test_the_sample_scans_hold_their_truth_and_nothing_else(sample_data: Path, name: str) -> None:
    truth = json.loads((sample_data / "truth.json").read_text(encoding="utf-8"))[name]["mass_fractions_crystalline"]
    analysis = xrdz.analyse(sample_data / f"{name}.xy", sample_data / f"{name}.toml")
    assert list(analysis.phases) == ["sn", "ni3sn4"]
    assert analysis.mass_ratio is not None
    low, high = analysis.mass_ratio.interval95
    assert low < truth["Ni3Sn4"] / truth["Sn"] < high
    assert Code.UNEXPLAINED_PEAK not in {finding.code for finding in analysis.findings}


def test_a_hump_is_said(sample_data: Path) -> None:
    name = "snni_z1.00_fine_grains_hump"
    analysis = xrdz.analyse(sample_data / f"{name}.xrdml", sample_data / f"{name}.toml")
    messages = [item.message for item in analysis.findings if item.code is Code.AMORPHOUS_SUSPECTED]
    assert len(messages) == 1
    assert "hump" in messages[0]
