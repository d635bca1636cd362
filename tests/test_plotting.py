"""The plot of an analysis: what is on it, and that it comes out as a file without a display or global state."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import xrdz
from xrdz.analysis import Analysis
from xrdz.diffractogram import Diffractogram
from xrdz.errors import InputError
from xrdz.findings import Code, warning
from xrdz.method import default_method
from xrdz.plotting import answer, save_figure, scan_figure, write_figure
from xrdz.simulation import SimulationSettings, simulate
from xrdz.stored import slimmed

SETTINGS = SimulationSettings(mass_ratio=1.0, two_theta=(28.0, 66.0), step=0.03, counts=2e5)


@pytest.fixture(scope="module")
def scan() -> Diffractogram:
    return simulate(SETTINGS, np.random.default_rng(5))[0]


@pytest.fixture(scope="module")
def analysis(scan: Diffractogram) -> Analysis:
    found: Analysis = xrdz.analyse(scan, default_method().with_options(exclude=[(50.0, 51.0)]))
    return found


def test_it_shows_every_part_of_the_fit(analysis: Analysis) -> None:
    figure = analysis.plot()
    upper, ticks, lower = figure.axes
    labels = [text.get_text() for text in upper.get_legend().get_texts()]
    assert {"observed", "calculated", "background", "excluded"} <= set(labels)
    assert next(label for label in labels if label.startswith("sn ")).endswith("wt %")
    assert any(label.startswith("ni3sn4 ") and "(" in label for label in labels)
    lines = {line.get_label(): line for line in upper.get_lines()}
    observed = lines["observed"]
    assert np.array_equal(observed.get_ydata(), analysis.diffractogram.intensity)
    assert [label.get_text() for label in ticks.get_yticklabels()] == ["sn", "ni3sn4"]
    assert len(ticks.collections) == 2
    assert all(len(axes.patches) >= 1 for axes in figure.axes)  # the excluded range
    difference = lower.get_lines()[1].get_ydata()
    assert np.nanstd(difference) == pytest.approx(1.0, abs=0.1)
    assert lower.get_ylabel() == "difference / su"
    title = figure.get_suptitle()
    assert "Z = m(Ni₃Sn₄)/m(Sn) = " in title
    assert "claim 2 met" in title


def test_curves_break_where_points_are_missing(analysis: Analysis) -> None:
    upper = analysis.plot().axes[0]
    calculated = next(line for line in upper.get_lines() if line.get_label() == "calculated")
    assert int(np.isnan(calculated.get_ydata()).sum()) == 1


def test_the_square_root_scale_is_that(analysis: Analysis) -> None:
    upper = analysis.plot(square_root=True).axes[0]
    forward = upper.transData.transform([(30.0, 0.0), (30.0, 100.0), (30.0, 400.0)])[:, 1]
    assert forward[2] - forward[0] == pytest.approx(2.0 * (forward[1] - forward[0]))


def test_peaks_of_no_phase_are_marked_with_their_angle(analysis: Analysis) -> None:
    found = warning(Code.UNEXPLAINED_PEAK, "a peak", where="44.500")
    upper = replace(analysis, findings=(found,)).plot().axes[0]
    assert "44.50°" in [text.get_text() for text in upper.texts]
    assert "peak of no phase" in [text.get_text() for text in upper.get_legend().get_texts()]


def test_a_failed_fit_still_shows_the_scan(analysis: Analysis) -> None:
    failed = replace(analysis, fit=None, status="failed", mass_ratio=None, claims=(), agreement=None)
    (axes,) = failed.plot().axes
    assert axes.get_lines()[0].get_xdata().size == analysis.diffractogram.n_points
    assert answer(failed) == "fit failed"


def test_a_stored_fit_gives_the_same_picture(analysis: Analysis, tmp_path: Path) -> None:
    fresh = save_figure(analysis, tmp_path / "fresh.png").read_bytes()
    assert save_figure(slimmed(analysis), tmp_path / "stored.png").read_bytes() == fresh


def test_a_limit_stands_in_the_title(analysis: Analysis) -> None:
    assert analysis.mass_ratio is not None
    limit = replace(analysis.mass_ratio, interval95=(0.0, 0.0123), limit="upper")
    assert "≤ 0.0123" in answer(replace(analysis, mass_ratio=limit))


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_files_appear_whole_and_the_same_each_time(analysis: Analysis, tmp_path: Path, suffix: str) -> None:
    path = save_figure(analysis, tmp_path / f"plot{suffix}")
    assert path.stat().st_size > 10_000
    assert list(tmp_path.iterdir()) == [path]


def test_the_picture_has_1600_by_1000_points(analysis: Analysis, tmp_path: Path) -> None:
    header = save_figure(analysis, tmp_path / "plot.png").read_bytes()[16:24]
    assert (int.from_bytes(header[:4]), int.from_bytes(header[4:])) == (1600, 1000)


def test_what_cannot_be_written_is_an_input_error(scan: Diffractogram, tmp_path: Path) -> None:
    figure = scan_figure(scan)
    with pytest.raises(InputError, match="no plot format has the suffix"):
        write_figure(figure, tmp_path / "plot.docx")
    with pytest.raises(InputError, match="cannot be written"):
        write_figure(figure, tmp_path / "nowhere" / "plot.png")


def test_drawing_needs_no_display_and_leaves_pyplot_alone() -> None:
    code = (
        "import sys, numpy as np\n"
        "from xrdz.plotting import scan_figure\n"
        "from xrdz.diffractogram import Diffractogram\n"
        "x = np.linspace(20.0, 60.0, 200)\n"
        "scan_figure(Diffractogram(x, np.ones_like(x))).savefig(sys.argv[1])\n"
        "sys.exit('matplotlib.pyplot' in sys.modules)\n"
    )
    environment = {"MPLBACKEND": "TkAgg", "PYTHONPATH": str(Path(xrdz.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code, "/dev/null"], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
