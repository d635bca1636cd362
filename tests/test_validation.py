"""`xrdz validate`: manifests, what is compared with what, the statistics, and the command."""

from __future__ import annotations

import json
import math
import re
import sys
from importlib import import_module, util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from xrdz.absorption import ABSORPTION
from xrdz.candidates import CANDIDATES
from xrdz.cli import main
from xrdz.diffractogram import Diffractogram
from xrdz.errors import InputError
from xrdz.quantify import BACKGROUND, BROADENING_MODEL, COUNTING, MISFIT, PRIOR_GROUPS, TEXTURE_MODEL
from xrdz.simulation import SimulationSettings, simulate
from xrdz.validation import (
    Recovered,
    Sample,
    SampleResult,
    Validation,
    method_of,
    read_manifest,
    validate,
    validate_sample,
)

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "uncertainty.md"
METHOD = 'name = "mix"\nphases = ["sn", "ni3sn4"]\n[instrument]\nwavelength = "CuKa"\ngoniometer_radius_mm = 200.0\n'


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def manifest(folder: Path, *samples: dict[str, Any]) -> Path:
    return written(folder / "manifest.json", {"samples": list(samples)})


def recovered(truth: float, value: float, half: float = 0.01) -> Recovered:
    return Recovered("sn", truth, value, half / 2.0, half / 2.0, value - half, value + half)


def result(*fractions: Recovered, exit_code: int = 0) -> SampleResult:
    return SampleResult(Sample(Path("scan.xy"), {"sn": 1.0}), fractions, exit_code=exit_code)


# --- manifests --------------------------------------------------------------------------------------------------------


def test_paths_are_relative_to_the_manifest_and_ids_lower_case(tmp_path: Path) -> None:
    path = manifest(tmp_path, {"scan": "a.xy", "method": "m.toml", "phases": ["sn"], "truth": {"Sn": 1.0}})
    (sample,) = read_manifest(path)
    assert sample == Sample(tmp_path / "a.xy", {"sn": 1.0}, tmp_path / "m.toml", ("sn",))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "not JSON"),
        ("[]", "samples"),
        ({"samples": []}, "samples"),
        ({"samples": [{"scan": "a.xy", "truth": {"sn": 1.0}, "methode": "m"}]}, "the nearest is 'method'"),
        ({"samples": [{"truth": {"sn": 1.0}}]}, "scan"),
        ({"samples": [{"scan": "a.xy"}]}, "truth"),
        ({"samples": [{"scan": "a.xy", "truth": {}}]}, "truth"),
        ({"samples": [{"scan": "a.xy", "truth": {"sn": 30.0}}]}, "from 0 to 1"),
        ({"samples": [{"scan": "a.xy", "truth": {"sn": True}}]}, "from 0 to 1"),
        ({"samples": [{"scan": "a.xy", "truth": {"sn": 0.7, "ni3sn4": 0.5}}]}, "1.2000"),
        ({"samples": [{"scan": "a.xy", "truth": {"sn": 1.0}, "phases": "sn"}]}, "phases"),
        ({"samples": [{"scan": "a.xy", "truth": {"sn": 1.0}, "method": 3}]}, "method"),
        ({"samples": ["a.xy"]}, "sample 1"),
    ],
)
def test_a_wrong_manifest_is_refused_by_name(tmp_path: Path, content: Any, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        read_manifest(written(tmp_path / "manifest.json", content))


def test_a_missing_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.json"):
        read_manifest(tmp_path / "absent.json")


def test_phases_replace_those_of_the_method(tmp_path: Path) -> None:
    method = written(tmp_path / "m.toml", METHOD)
    chosen = method_of(Sample(Path("a.xy"), {"zincite": 1.0}, method, ("zincite", "corundum")))
    assert chosen.phase_ids == ("zincite", "corundum")
    assert chosen.name == "mix"


def test_a_truth_beside_the_phases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="corundum"):
        method_of(Sample(tmp_path / "a.xy", {"corundum": 1.0}, None, ("sn",)))


# --- statistics -------------------------------------------------------------------------------------------------------


def test_statistics_are_their_formulas() -> None:
    validation = Validation((result(recovered(0.5, 0.53), recovered(0.5, 0.49)), result(recovered(0.2, 0.2))))
    assert validation.rms == pytest.approx(math.sqrt((0.03**2 + 0.01**2) / 3.0), rel=1e-12)
    assert validation.worst == pytest.approx(0.03, rel=1e-12)
    assert validation.inside == 2
    summary = validation.to_dict()["summary"]
    assert summary["fractions"] == 3
    assert summary["inside_share"] == pytest.approx(2.0 / 3.0)


def test_nothing_analysed_has_no_statistics() -> None:
    validation = Validation((result(exit_code=3),))
    assert (validation.rms, validation.worst, validation.inside) == (None, None, 0)
    assert validation.to_dict()["summary"]["inside_share"] is None


@pytest.mark.parametrize(("codes", "expected"), [((0, 0), 0), ((2, 2), 2), ((3, 3), 3), ((0, 2), 4), ((3, 0), 4)])
def test_exit_code(codes: tuple[int, ...], expected: int) -> None:
    assert Validation(tuple(result(exit_code=code) for code in codes)).exit_code == expected


def test_an_open_interval_is_null_in_json() -> None:
    item = Recovered("a/b", 2.0, 3.0, math.nan, math.inf, 1.0, math.inf)
    assert item.inside
    assert item.to_dict()["interval95"] == [1.0, None]
    json.dumps(item.to_dict(), allow_nan=False)


# --- scans with known truth -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scan of 60 % tin and 40 % Ni3Sn4, its method, and a file that is no scan."""
    folder = tmp_path_factory.mktemp("mixture")
    scan = simulated(0.6, seed=5)
    np.savetxt(folder / "mix.xy", np.stack((scan.two_theta, scan.intensity), axis=1), fmt=("%.4f", "%d"))
    written(folder / "m.toml", METHOD)
    written(folder / "broken.xy", "this is not a scan\n")
    return folder


def simulated(tin: float, *, seed: int) -> Diffractogram:
    settings = SimulationSettings(mass_fractions={"sn": tin, "ni3sn4": 1.0 - tin}, radius_mm=200.0, counts=2e6)
    return simulate(settings, np.random.default_rng(seed))[0]


def entry(scan: str = "mix.xy", tin: float = 0.6) -> dict[str, Any]:
    return {"scan": scan, "method": "m.toml", "truth": {"sn": tin, "ni3sn4": 1.0 - tin}}


def test_recovers_a_simulated_mixture_with_its_ratio(mixture: Path) -> None:
    (sample,) = read_manifest(manifest(mixture, entry()))
    found = validate_sample(sample)
    assert found.status == "converged"
    # Two million counts give 1 % of Z; four times its su is allowed.
    assert all(abs(item.error) < 4.0 * item.su for item in found.fractions)
    assert found.ratio is not None
    assert found.ratio.name == "ni3sn4/sn"
    assert found.ratio.truth == pytest.approx(0.4 / 0.6)
    assert sum(item.value for item in found.fractions) == pytest.approx(1.0)


def test_a_bad_scan_does_not_cost_the_others_their_result(mixture: Path) -> None:
    samples = read_manifest(manifest(mixture, entry("broken.xy"), entry(), entry("absent.xy")))
    seen: list[SampleResult] = []
    validation = validate(samples, seen.append)
    assert [bool(found.error) for found in validation.samples] == [True, False, True]
    assert tuple(seen) == validation.samples
    assert validation.exit_code == 4


def test_a_truth_that_was_not_fitted_is_an_error_of_its_sample(mixture: Path) -> None:
    sample = Sample(mixture / "mix.xy", {"zincite": 1.0}, mixture / "m.toml")
    found = validate_sample(sample)
    assert found.exit_code == 2
    assert "zincite" in found.error


# --- the command ------------------------------------------------------------------------------------------------------


def test_command_prints_truth_beside_what_was_found(mixture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(manifest(mixture, entry()))]) == 0
    printed = capsys.readouterr().out
    assert "60.00" in printed
    assert "RMS error" in printed
    assert "of 2" in printed


def test_command_writes_json_and_a_plot(mixture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results"
    assert main(["validate", str(manifest(mixture, entry())), "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema"] == "xrdz.validation/1"
    assert json.loads((out / "validation.json").read_text(encoding="utf-8")) == printed
    assert (out / "validation.png").read_bytes().startswith(b"\x89PNG")


def test_command_exit_codes(mixture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(manifest(mixture, entry("broken.xy")))]) == 2
    assert main(["validate", str(manifest(mixture, entry("broken.xy"), entry()))]) == 4
    assert main(["validate", str(tmp_path / "absent.json")]) == 2
    errors = capsys.readouterr().err
    assert "broken.xy" in errors
    assert "Traceback" not in errors


def test_a_wrong_truth_is_outside(mixture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(manifest(mixture, entry(tin=0.3)))]) == 0
    assert "OUTSIDE" in capsys.readouterr().out


# --- docs/uncertainty.md ----------------------------------------------------------------------------------------------


def test_the_document_states_the_constants_of_the_code() -> None:
    stated = re.findall(r"`(\w+)\.([A-Z_]+)`\s+=\s+([\d.e+-]*\d)", DOCUMENT.read_text(encoding="utf-8"))
    assert len(stated) > 10
    for module, name, value in stated:
        assert getattr(import_module(f"xrdz.{module}"), name) == float(value), f"{module}.{name}"


def test_the_document_explains_every_row_of_the_budget() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = {COUNTING, MISFIT, BACKGROUND, TEXTURE_MODEL, BROADENING_MODEL, CANDIDATES, ABSORPTION, "intensity response"}
    for row in rows | set(PRIOR_GROUPS.values()):
        assert f"**{row}**" in text, row


# --- docs/validation.md -----------------------------------------------------------------------------------------------


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return `tools/make_validation.py`, which is a program and no module of the package."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = util.spec_from_file_location("make_validation", ROOT / "tools" / "make_validation.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "make_validation", module)
    spec.loader.exec_module(module)
    return module


def test_the_document_is_the_generated_one(generator: ModuleType) -> None:
    figures = json.loads((ROOT / "docs" / "validation" / "figures.json").read_text(encoding="utf-8"))
    assert generator.document(figures) == (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")


def test_without_the_scans_the_document_says_what_was_not_measured(generator: ModuleType, tmp_path: Path) -> None:
    stored = ROOT / "docs" / "validation" / "figures.json"
    kept = {name: item for name, item in json.loads(stored.read_text(encoding="utf-8")).items() if name != "cpd"}
    folder = tmp_path / "validation"
    folder.mkdir()
    written(folder / "figures.json", kept)
    arguments = ["--data", str(tmp_path / "nowhere"), "--out", str(tmp_path), "--keep", "all"]
    assert generator.main(arguments) == 0
    text = (tmp_path / "validation.md").read_text(encoding="utf-8")
    assert "because the scans were not there: cpd." in text
    assert "IUCr round robin" not in text


def test_simulated_scans_go_on_where_they_were_stopped(generator: ModuleType, tmp_path: Path) -> None:
    calls = []

    def square(number: int) -> int:
        calls.append(number)
        return number**2

    simulations = generator.Simulations(jobs=1, folder=tmp_path, quick=False)
    assert simulations.records("squares", square, [(1,), (2,)]) == [1, 4]
    assert simulations.records("squares", square, [(1,), (2,), (3,)]) == [1, 4, 9]
    assert simulations.records("squares", square, [(1,), (3,)]) == [1, 9]
    assert calls == [1, 2, 3]
