"""`xrdz fit` as a user and as a program meets it: table, JSON lines, files, exit codes."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xrdz.analysis import Analysis
from xrdz.cli import main
from xrdz.commands.fit import stems
from xrdz.errors import FitError
from xrdz.simulation import SimulationSettings, simulate, write_xy
from xrdz.terminal import Style, analysis_text, budget_text, ratio_text

DOCUMENT_KEYS = {
    "schema", "source", "method", "software", "references_sha256", "status", "phases", "amorphous", "mass_ratio",
    "budget", "elements", "claims", "agreement", "findings", "timing",
}  # fmt: skip
PHASE_KEYS = {
    "id", "formula", "detected", "mass_fraction", "absolute_fraction", "detection_limit", "cell", "density", "size_nm",
    "strain", "texture", "r_bragg",
}  # fmt: skip
RATIO_KEYS = {"numerator", "denominator", "value", "su_stat", "su", "interval95", "limit"}
CLAIM_KEYS = {"claim", "verdict", "probability", "value", "limits", "rule", "why"}
FINDING_KEYS = {"level", "code", "message", "where", "suggestion"}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three quick scans: Z = 1, Z = 0.1 (outside claim 2), and one without a header."""
    folder = tmp_path_factory.mktemp("scans")
    quick: dict[str, Any] = {"two_theta": (28.0, 66.0), "step": 0.03, "counts": 2e5}
    for name, ratio, seed in (("one.xy", 1.0, 1), ("tenth.xy", 0.1, 2)):
        diffractogram, _ = simulate(SimulationSettings(mass_ratio=ratio, **quick), np.random.default_rng(seed))
        write_xy(diffractogram, folder / name)
    rows = (folder / "one.xy").read_text().splitlines()
    (folder / "bare.xy").write_text("\n".join(row for row in rows if not row.startswith("#")) + "\n")
    return folder


def documents(stdout: str) -> list[dict[str, Any]]:
    """Return the JSON documents, one a line; NaN and Infinity are errors."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in the JSON")

    return [json.loads(line, parse_constant=refuse) for line in stdout.splitlines()]


def codes_of(document: dict[str, Any]) -> list[str]:
    return [finding["code"] for finding in document["findings"]]


def test_json_holds_what_the_contract_names(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(scans / "one.xy"), "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    (document,) = documents(shown.out)
    assert set(document) >= DOCUMENT_KEYS
    assert document["schema"] == "xrdz.analysis/1"
    assert document["status"] == "converged"
    assert [phase["id"] for phase in document["phases"]] == ["sn", "ni3sn4"]
    for phase in document["phases"]:
        assert set(phase) >= PHASE_KEYS
        assert 0.0 < phase["mass_fraction"]["value"] < 1.0
        low, high = phase["mass_fraction"]["interval95"]
        assert low < phase["mass_fraction"]["value"] < high
    assert set(document["mass_ratio"]) >= RATIO_KEYS
    assert document["mass_ratio"]["interval95"][0] < 1.0 < document["mass_ratio"]["interval95"][1]
    assert document["mass_ratio"]["su"] >= document["mass_ratio"]["su_stat"] > 0.0
    total = math.sqrt(sum(row["u_ln"] ** 2 for row in document["budget"]))
    assert total == pytest.approx(document["mass_ratio"]["su"] / document["mass_ratio"]["value"], rel=1e-6)
    assert [claim["claim"] for claim in document["claims"]] == list(range(1, 11))
    assert all(set(claim) >= CLAIM_KEYS for claim in document["claims"])
    assert set(document["agreement"]) == {"rwp", "rexp", "gof", "rwp_background_subtracted", "durbin_watson"}
    assert set(document["timing"]) == {"read_s", "fit_s", "total_s"}
    assert document["source"]["wavelength"]["from"] == "file"
    assert document["method"]["sha256"]
    assert all(set(finding) == FINDING_KEYS for finding in document["findings"])


def test_a_bare_scan_is_fitted_with_an_assumed_wavelength(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(scans / "bare.xy"), "--json"]) == 0
    (document,) = documents(capsys.readouterr().out)
    assert "WAVELENGTH_ASSUMED" in codes_of(document)
    assert document["source"]["wavelength"]["from"] == "default"


def test_an_instrument_file_gives_the_wavelength(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    instrument = tmp_path / "instrument.toml"
    instrument.write_text('goniometer_radius_mm = 217.5\nwavelength = "CuKa"\n')
    assert main(["fit", str(scans / "bare.xy"), "--json", "--instrument", str(instrument)]) == 0
    (document,) = documents(capsys.readouterr().out)
    assert "WAVELENGTH_ASSUMED" not in codes_of(document)
    assert document["source"]["wavelength"]["from"] == "method"


def test_several_scans_are_lines_in_the_order_given(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = [str(scans / name) for name in ("tenth.xy", "one.xy")]
    assert main(["fit", *order, "--json"]) == 0
    found = documents(capsys.readouterr().out)
    assert [document["source"]["path"] for document in found] == order
    alone = main(["fit", order[1], "--json"])
    assert alone == 0
    (again,) = documents(capsys.readouterr().out)
    assert again | {"timing": None} == found[1] | {"timing": None}


def test_a_bad_scan_among_good_ones_is_one_line_and_exit_2(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(scans / "nowhere.xy")
    assert main(["fit", missing, str(scans / "one.xy"), "--json"]) == 2
    shown = capsys.readouterr()
    assert len(documents(shown.out)) == 1
    assert shown.err == f"xrdz: error: {missing}: no such file; check the path\n"


def test_an_internal_error_of_one_scan_does_not_cost_the_others(
    scans: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import xrdz.pipeline

    analyse = xrdz.pipeline.analyse_diffractogram

    def sometimes(diffractogram: Any, *rest: Any, **options: Any) -> Analysis:
        if diffractogram.source.path.endswith("tenth.xy"):
            raise ZeroDivisionError("float division")
        return analyse(diffractogram, *rest, **options)

    monkeypatch.setattr("xrdz.pipeline.analyse_diffractogram", sometimes)
    assert main(["fit", str(scans / "tenth.xy"), str(scans / "one.xy"), "--json"]) == 3
    shown = capsys.readouterr()
    assert len(documents(shown.out)) == 1
    assert shown.err.count("\n") == 1
    assert "tenth.xy: internal error, ZeroDivisionError" in shown.err


@pytest.mark.parametrize(
    "options",
    [
        ["--range", "40"],
        ["--exclude", "44:42"],
        ["--phases", "sn,unobtainium"],
        ["--ratio", "sn"],
        ["--ratio", "quartz/sn"],
        ["--require", "claim11"],
        ["--method", "nowhere.toml"],
        ["--instrument", "nowhere.toml"],
        ["--sample", "nowhere.csv"],
        ["--cif", "nowhere.cif"],
        ["--report", "docx"],
        ["--solver", "magic"],
        ["--range", "100:120"],
        ["--scan", "7"],
    ],
)
def test_bad_input_is_one_line_and_exit_2(options: list[str], scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(scans / "one.xy"), *options]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("xrdz: error: ")


def test_without_a_scan_the_help_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--exclude", "40:41"]) == 2
    assert "xrdz fit --help" in capsys.readouterr().err


def test_a_failed_fit_prints_its_json_and_exits_with_3(
    scans: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise FitError("no points carry information")

    monkeypatch.setattr("xrdz.pipeline.fit", fail)
    assert main(["fit", str(scans / "one.xy"), "--json"]) == 3
    (document,) = documents(capsys.readouterr().out)
    assert document["status"] == "failed"
    assert document["mass_ratio"] is None
    assert "no points carry information" in document["findings"][-1]["message"]
    assert main(["fit", str(scans / "one.xy")]) == 3
    assert "FAILED" in capsys.readouterr().out


def test_require_decides_between_0_and_1(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(scans / "one.xy"), "--require", "claim2", "--json"]) == 0
    assert main(["fit", str(scans / "tenth.xy"), "--json"]) == 0
    assert main(["fit", str(scans / "tenth.xy"), "--require", "claim2", "--json"]) == 1
    assert main(["fit", str(scans / "one.xy"), "--require", "claim2,claim5", "--json"]) == 1  # not assessed is not met
    verdicts = [document["claims"][1]["verdict"] for document in documents(capsys.readouterr().out)]
    assert verdicts == ["met", "not_met", "not_met", "met"]


def test_a_sample_sheet_judges_the_electrode(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("file,carbon_ratio_s,powdered,porosity_percent\none.xy,1.2,yes,45\n")
    assert main(["fit", str(scans / "one.xy"), "--sample", str(sheet), "--require", "claim7", "--json"]) == 0
    assert main(["fit", str(scans / "tenth.xy"), "--sample", str(sheet), "--json"]) == 2
    assert "sheet.csv has no row for it" in capsys.readouterr().err


def test_options_reach_the_fit(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--range", "29:60", "--exclude", "33:34", "35:36", "--ratio", "sn/ni3sn4", "--phases", "ni3sn4,sn"]
    assert main(["fit", *options, "--json", "--", str(scans / "one.xy")]) == 0
    (document,) = documents(capsys.readouterr().out)
    assert document["source"]["two_theta"] == pytest.approx([29.0, 60.0], abs=0.03)
    assert (document["mass_ratio"]["numerator"], document["mass_ratio"]["denominator"]) == ("sn", "ni3sn4")
    assert [phase["id"] for phase in document["phases"]] == ["ni3sn4", "sn"]


def test_a_scan_may_stand_behind_an_option_that_takes_several(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--json", "--exclude", "33:34", "35:36", str(scans / "one.xy")]) == 0
    (document,) = documents(capsys.readouterr().out)
    assert document["source"]["path"] == str(scans / "one.xy")


def test_files_are_written_whole_beside_each_other(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made" / "results"
    assert main(["fit", str(scans / "one.xy"), "--json", "--out", str(out), "--plot"]) == 0
    shown = capsys.readouterr()
    assert sorted(path.name for path in out.iterdir()) == ["one.json", "one.png"]
    assert json.loads((out / "one.json").read_text()) == documents(shown.out)[0]
    assert (out / "one.png").read_bytes().startswith(b"\x89PNG")
    assert shown.err == f"wrote {out / 'one.json'}\nwrote {out / 'one.png'}\n"


def test_a_report_is_written_for_all_scans_together(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(scans / "one.xy"), str(scans / "tenth.xy")]
    assert main(["fit", *paths, "--json", "--report", "html", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert len(documents(shown.out)) == 2
    assert f"wrote {tmp_path / 'index.html'}\n" in shown.err
    assert "tenth" in (tmp_path / "index.html").read_text()


def test_the_plot_goes_to_the_current_folder_without_out(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", str(scans / "one.xy"), "--plot"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["one.png"]
    assert capsys.readouterr().out.endswith("wrote one.png\n")


def test_every_scan_of_a_file_gets_its_own_document(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (scans / "one.xy").read_text()
    double = tmp_path / "double.xy"
    double.write_text(rows + "".join(line + "\n" for line in rows.splitlines() if not line.startswith("#")))
    assert main(["fit", str(double), "--json"]) == 2
    assert "--scan" in capsys.readouterr().err
    assert main(["fit", str(double), "--scan", "all", "--json", "--out", str(tmp_path / "out")]) == 0
    assert [document["source"]["scan"] for document in documents(capsys.readouterr().out)] == [1, 2]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["double.scan1.json", "double.scan2.json"]


def test_the_table_says_what_people_ask(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(scans / "one.xy"), str(scans / "tenth.xy")]) == 0
    text = capsys.readouterr().out
    assert text.isascii()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert re.search(r"^sn +Sn +\d\d\.\d+\(\d+\) +\d\d\.\d+ to \d\d\.\d+ ", text, re.MULTILINE)
    assert re.search(r"^Z = m\(ni3sn4\)/m\(sn\) = [\d.]+\(\d+\)   95 % interval [\d.]+ to [\d.]+$", text, re.MULTILINE)
    assert "uncertainty of ln Z" in text
    assert re.search(r"^claim 2  met ", text, re.MULTILINE)
    assert re.search(r"^claim 2  not met ", text, re.MULTILINE)
    assert "claims 3-10 not assessed" in text


@pytest.fixture(scope="module")
def analysis(scans: Path) -> Analysis:
    import xrdz

    found: Analysis = xrdz.analyse(scans / "bare.xy")
    return found


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_keeps_to_its_width(analysis: Analysis, width: int) -> None:
    assert max(map(len, analysis_text(analysis, Style(width)).splitlines())) <= width


def test_colour_changes_nothing_but_the_colour(analysis: Analysis) -> None:
    coloured = analysis_text(analysis, Style(colour=True))
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[\d*m", "", coloured) == analysis_text(analysis, Style())


def test_limits_are_said_in_words(analysis: Analysis) -> None:
    from dataclasses import replace

    assert analysis.mass_ratio is not None
    upper = replace(analysis.mass_ratio, value=0.0, interval95=(0.0, 0.0123), limit="upper")
    assert ratio_text(upper) == "Z = m(ni3sn4)/m(sn): at most 0.0123 (95 %), as ni3sn4 was not detected"
    lower = replace(analysis.mass_ratio, value=math.inf, su=math.nan, interval95=(45.6, math.inf), limit="lower")
    assert ratio_text(lower) == "Z = m(ni3sn4)/m(sn): at least 45.6 (95 %), as sn was not detected"


def test_the_budget_names_what_counts() -> None:
    text = budget_text({"texture": 0.0001, "counting": 0.03, "cell": 0.0, "misfit": 0.04})
    assert text == "misfit 4.0 %, counting 3.0 %, all others 0.01 %; together 5.0 %"


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a.xy", "b.xrdml.gz"], ["a", "b"]),
        (["x/a.xy", "y/a.xrdml"], ["a_xy", "a_xrdml"]),
        (["x/a.xy", "y/a.xy"], ["a_xy", "a_xy_2"]),
    ],
)
def test_no_two_scans_write_the_same_file(paths: list[str], expected: list[str]) -> None:
    assert stems(paths) == expected


def test_json_is_alone_on_stdout_of_the_process(sample_data: Path) -> None:
    name = "snni_z2.00_low_counts"
    command = [sys.executable, "-m", "xrdz", "fit", str(sample_data / f"{name}.xy"), "--json"]
    command += ["--method", str(sample_data / f"{name}.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    (document,) = documents(done.stdout)
    low, high = document["mass_ratio"]["interval95"]
    assert low < 2.0 < high


def test_an_internal_standard_adds_the_share_of_all_and_the_amorphous_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SimulationSettings(
        phases=("sn", "ni3sn4", "corundum"),
        mass_fractions={"sn": 0.4, "ni3sn4": 0.4, "corundum": 0.2},
        two_theta=(24.0, 70.0),
        step=0.03,
        counts=3e5,
    )
    write_xy(simulate(settings, np.random.default_rng(3))[0], tmp_path / "spiked.xy")
    (tmp_path / "spiked.toml").write_text(
        'phases = ["sn", "ni3sn4", "corundum"]\n[internal_standard]\nphase = "corundum"\nmass_fraction = 0.2\n'
    )
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ["fit", str(tmp_path / "spiked.xy"), "--method", str(tmp_path / "spiked.toml")]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert re.search(r"^phase +formula +mass % +% of all ", text, re.MULTILINE)
    assert re.search(r"^  amorphous or unseen  -?[\d.]+\(\d+\) mass % of all, 95 % interval ", text, re.MULTILINE)
    table = [line for line in text.splitlines() if not line.startswith("/")]
    assert max(map(len, table)) <= 80
