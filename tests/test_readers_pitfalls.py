"""What real files do, one test per pitfall: the file, the finding or the message, and the values."""

from __future__ import annotations

import gzip
import io
import os
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import reader_files as files
from reader_files import counts, grid
from xrdz.diffractogram import Diffractogram
from xrdz.errors import InputError
from xrdz.findings import Code, Level
from xrdz.readers import read, read_all
from xrdz.readers.content import MAX_FILE_BYTES
from xrdz.readers.gate import MAX_MASKED_SHARE
from xrdz.readers.statistics import MeasuredGain
from xrdz.wavelength import wavelength_from_name

Reader = Callable[..., Diffractogram]


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    def _put(content: bytes | str, name: str = "scan.xy") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _put


def codes(scan: Diffractogram) -> list[Code]:
    return [finding.code for finding in scan.findings]


def table(y: np.ndarray, form: str, x: np.ndarray | None = None) -> str:
    x = grid(y.size) if x is None else x
    return "".join(form.format(a, v) + "\n" for a, v in zip(x, y, strict=True))


def comma(text: str) -> str:
    return text.replace(".", ",")


# Decimal commas and thousands separators -----------------------------------------------------------------------------


@pytest.mark.parametrize("separator", ["\t", ";", " ", "  "])
@pytest.mark.parametrize("form", ["{:.2f}", "{:.0f}"])
def test_decimal_commas_are_converted_and_said(put: Callable[..., Path], separator: str, form: str) -> None:
    y = counts()
    scan = read(put(comma(table(y, "{:.4f}" + separator + form)), "scan.txt"))
    np.testing.assert_array_equal(scan.intensity, y)
    np.testing.assert_allclose(scan.two_theta, grid(), atol=1e-12)
    assert codes(scan) == [Code.DECIMAL_COMMA]


def test_decimal_commas_with_dots_for_thousands(put: Callable[..., Path]) -> None:
    y = counts(level=3000.0)
    text = "".join(
        f"{comma(f'{a:.2f}')}\t{comma(f'{v:,.2f}').replace(',', '.', f'{v:,.2f}'.count(','))}\n"
        for a, v in zip(grid(), y, strict=True)
    )
    text = "".join(
        f"{a:.2f}".replace(".", ",") + "\t" + f"{v:,.2f}".translate(str.maketrans(",.", ".,")) + "\n"
        for a, v in zip(grid(), y, strict=True)
    )
    scan = read(put(text, "scan.txt"))
    np.testing.assert_array_equal(scan.intensity, y)
    assert codes(scan) == [Code.DECIMAL_COMMA]


@pytest.mark.parametrize("group", [",", "'"])
def test_thousands_separators(put: Callable[..., Path], group: str) -> None:
    y = counts(level=3000.0)
    text = "".join(f"{a:.2f}\t{f'{v:,.0f}'.replace(',', group)}\n" for a, v in zip(grid(), y, strict=True))
    scan = read(put(text, "scan.txt"))
    np.testing.assert_array_equal(scan.intensity, y)
    assert codes(scan) == [Code.READER_NOTE]
    assert "thousands" in scan.findings[0].message


@pytest.mark.parametrize(
    "form",
    [
        "{0},{1:.1f}",  # 20,02 862.0: comma or point?
        "{0}\t{1:,.0f}",  # 20,02 and 1,234: decimals or thousands?
        "{0},{1:.0f},29,0",  # commas between and within numbers
    ],
)
def test_ambiguous_commas_are_refused(put: Callable[..., Path], form: str) -> None:
    y = counts(level=900.0)
    text = "".join(form.format(comma(f"{a:.2f}"), v) + "\n" for a, v in zip(grid(), y, strict=True))
    with pytest.raises(InputError, match=r"scan.txt.*(ambiguous|could mark decimals or thousands|without names)"):
        read(put(text, "scan.txt"))


# Encodings, line ends, number forms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "utf-8"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(put: Callable[..., Path], encoding: str, line_end: str) -> None:
    text = "# Probe: Nickel-Zinn für Müller\n# Operator: J. Müller\n" + table(counts(), "{:.2f} {:.0f}")
    scan = read(put(text.replace("\n", line_end).encode(encoding)))
    np.testing.assert_array_equal(scan.intensity, counts())
    assert scan.metadata["operator"] == "J. Müller"
    assert codes(scan) == []


def test_fortran_exponents_trailing_blanks_and_no_final_newline(put: Callable[..., Path]) -> None:
    text = table(counts(), "{:.6E}  {:.8E}   ").replace("E", "D").rstrip("\n")
    scan = read(put(text))
    np.testing.assert_array_equal(scan.intensity, counts())
    np.testing.assert_allclose(scan.two_theta, grid(), atol=1e-9)
    assert codes(scan) == []


def test_comments_blank_lines_and_a_footer(put: Callable[..., Path]) -> None:
    lines = table(counts(), "{:.2f} {:.0f}").split("\n")
    text = "\n".join([*lines[:700], "# a comment", "", *lines[700:-1], "", "end of scan"]) + "\n"
    np.testing.assert_array_equal(read(put(text)).intensity, counts())


# Layouts -------------------------------------------------------------------------------------------------------------


def test_an_index_column_is_recognised(put: Callable[..., Path]) -> None:
    text = "".join(f"{i} {a:.2f} {v:.0f}\n" for i, (a, v) in enumerate(zip(grid(), counts(), strict=True), 1))
    scan = read(put(text))
    np.testing.assert_array_equal(scan.intensity, counts())
    assert codes(scan) == [Code.INDEX_COLUMN_SKIPPED]


def test_pairs_of_columns_run_along_the_rows(put: Callable[..., Path]) -> None:
    y = counts(1500)
    cells = [f"{a:8.2f}{v:8.0f}" for a, v in zip(grid(1500), y, strict=True)]
    text = "\n".join("".join(cells[i : i + 4]) for i in range(0, 1500, 4)) + "\n"
    np.testing.assert_array_equal(read(put(text, "pairs.prn")).intensity, y)


def test_named_columns_are_found_by_name(put: Callable[..., Path]) -> None:
    y = counts()
    lines = ["2theta  calc  obs  background  esd"]
    lines += [f"{a:.2f}  7.5  {v:.0f}  3.25  {np.sqrt(max(v, 1)):.4f}" for a, v in zip(grid(), y, strict=True)]
    scan = read(put("\n".join(lines) + "\n", "named.dat"))
    np.testing.assert_array_equal(scan.intensity, y)
    assert scan.count_kind == "counts"


def test_unnamed_columns_beyond_three_are_refused(put: Callable[..., Path]) -> None:
    text = "".join(f"{a:.2f} {v:.0f} 1.5 2.5\n" for a, v in zip(grid(), counts(), strict=True))
    with pytest.raises(InputError, match="4 columns without names"):
        read(put(text))


def test_a_third_column_that_is_no_uncertainty_is_not_used(put: Callable[..., Path]) -> None:
    text = "".join(f"{a:.2f} {v:.0f} {-3.0 + a:.2f}\n" for a, v in zip(grid(), counts(), strict=True)).replace(
        "17.0", "-1"
    )
    text = "".join(f"{a:.2f} {v:.0f} {a - 30:.2f}\n" for a, v in zip(grid(), counts(), strict=True))
    scan = read(put(text))
    assert codes(scan) == [Code.READER_NOTE]
    assert scan.gain == 1.0


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("25.00 2x3", "2x3"),
        ("25.00 233 7", "3 numbers, but 2"),
        ("25.00", "1 numbers, but 2"),
        ("2a5.00 233", "2a5.00"),
    ],
)
def test_a_damaged_row_is_refused_with_its_line(put: Callable[..., Path], line: str, place: str) -> None:
    lines = table(counts(), "{:.2f} {:.0f}").split("\n")
    lines[250] = line
    with pytest.raises(InputError, match=f"line 251: .*{place}"):
        read(put("\n".join(lines)))


def test_a_cut_last_row_is_left_out_and_said(put: Callable[..., Path]) -> None:
    text = table(counts(), "{:8.3f}{:8.0f}")
    scan = read(put(text[:-6]))
    assert codes(scan) == [Code.TRUNCATED_FILE]
    np.testing.assert_array_equal(scan.intensity, counts()[:-1])


def test_fewer_points_than_the_header_says(put: Callable[..., Path]) -> None:
    whole = files.highscore_csv(counts()).decode()
    scan = read(put("\n".join(whole.split("\n")[:-101]) + "\n", "cut.csv"))
    assert codes(scan) == [Code.TRUNCATED_FILE]
    assert "1501" in scan.findings[0].message
    assert "1401" in scan.findings[0].message
    with pytest.raises(InputError, match="announces 1501 points, the file holds 500"):
        read(put("\n".join(whole.split("\n")[: 500 + 15]) + "\n", "half.csv"))


# Uncertainties, counts, rates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("column", "word"), [("0.0", "zeros"), ("5.0", "constant 5")])
def test_a_sigma_column_of_zeros_or_constants_gives_way_to_poisson(
    put: Callable[..., Path], column: str, word: str
) -> None:
    text = "".join(f"{a:.2f} {v:.0f} {column}\n" for a, v in zip(grid(), counts(), strict=True))
    scan = read(put(text, "scan.xye"))
    assert codes(scan) == [Code.SIGMA_COLUMN_IGNORED]
    assert word in scan.findings[0].message
    assert (scan.gain, scan.su, scan.count_kind) == (1.0, None, "counts")


def test_a_sound_sigma_column_is_used(put: Callable[..., Path]) -> None:
    y = counts()
    su = np.sqrt(np.maximum(y, 1) * np.where(grid() < 30, 2.0, 0.5))
    generator = np.random.default_rng(5)
    y = np.abs(generator.normal(files.expected_counts(grid()), su))
    text = "".join(f"{a:.2f} {v:.4f} {s:.4f}\n" for a, v, s in zip(grid(), y, su, strict=True))
    scan = read(put(text, "scan.xye"))
    assert scan.su is not None
    np.testing.assert_allclose(scan.su, su, atol=1e-4)
    assert codes(scan) == [Code.NOT_COUNTS]
    assert scan.findings[0].level is Level.INFO


def test_sqrt_of_a_rate_is_never_taken_for_its_uncertainty(put: Callable[..., Path]) -> None:
    rate = counts(level=2000.0) / 50.0
    text = "".join(f"{a:.2f} {v:.4f} {np.sqrt(max(v, 0.1)):.4f}\n" for a, v in zip(grid(), rate, strict=True))
    scan = read(put(text, "scan.xye"))
    assert codes(scan) == [Code.SIGMA_COLUMN_IGNORED, Code.NOT_COUNTS]
    assert scan.gain == pytest.approx(1 / 50, rel=0.02)


def test_whole_numbers_are_counts(put: Callable[..., Path]) -> None:
    scan = read(put(table(counts(), "{:.2f} {:.1f}")))
    assert (scan.count_kind, scan.gain, codes(scan)) == ("counts", 1.0, [])


def test_a_rate_is_multiplied_by_the_time_per_step(put: Callable[..., Path]) -> None:
    y = counts()
    scan = read(put("# Time per step: 3 s\n2theta  cps\n" + table(y / 3.0, "{:.2f}  {:.6f}")))
    np.testing.assert_allclose(scan.intensity, y, rtol=1e-4, atol=1e-4)
    assert (scan.count_kind, scan.gain, codes(scan)) == ("rate", 1.0, [Code.NOT_COUNTS])
    assert "3 s" in scan.findings[0].message


def test_a_time_per_step_column_is_used(put: Callable[..., Path]) -> None:
    y = counts()
    time = np.where(grid() < 35, 2.0, 4.0)
    lines = ["Angle,TimePerStep,Intensity [cps]"]
    lines += [f"{a:.2f},{t:.1f},{v / t:.6f}" for a, t, v in zip(grid(), time, y, strict=True)]
    scan = read(put("\n".join(lines) + "\n", "scan.csv"))
    np.testing.assert_allclose(scan.intensity, y, atol=1e-4)
    assert scan.count_kind == "rate"


@pytest.mark.parametrize("time", [0.5, 3.0, 7.7, 60.0])
def test_a_rate_without_its_time_is_given_its_gain(put: Callable[..., Path], time: float) -> None:
    y = counts(level=2000.0)
    scan = read(put("2theta  cps\n" + table(y / time, "{:.2f}  {:.6f}")))
    assert scan.count_kind == "rate"
    assert codes(scan) == [Code.NOT_COUNTS]
    assert scan.gain == pytest.approx(1 / time, rel=0.01)


@pytest.mark.parametrize("decimals", [2, 3, 5])
@pytest.mark.parametrize("level", [300.0, 5000.0])
def test_scaled_to_one_hundred(put: Callable[..., Path], decimals: int, level: float) -> None:
    """The gain is recovered: exactly where the digits show the steps of the counts, else from the scatter to 15 %."""
    y = counts(level=level)
    scale = 100.0 / y.max()
    scan = read(put(table(y * scale, f"{{:.2f}} {{:.{decimals}f}}")))
    assert scan.count_kind == "scaled"
    assert codes(scan) == [Code.NOT_COUNTS]
    assert scan.gain == pytest.approx(scale, rel=0.15)


def test_counts_multiplied_by_a_whole_number(put: Callable[..., Path]) -> None:
    scan = read(put(table(counts() * 12, "{:.2f} {:.0f}")))
    assert (scan.count_kind, scan.gain, codes(scan)) == ("scaled", 12.0, [Code.NOT_COUNTS])


def test_rounded_rates_that_look_like_counts_are_flagged(put: Callable[..., Path]) -> None:
    scan = read(put(table(np.rint(counts(level=20000.0) / 50), "{:.2f} {:.0f}")))
    assert codes(scan) == [Code.NOT_COUNTS]
    assert scan.findings[0].level is Level.WARNING
    assert scan.gain == 1.0


def test_smoothed_data_are_severe(put: Callable[..., Path]) -> None:
    y = np.convolve(counts(level=2000.0), np.ones(7) / 7, mode="same")
    scan = read(put(table(y, "{:.2f} {:.4f}")))
    assert codes(scan) == [Code.NOT_COUNTS]
    assert scan.findings[0].level is Level.SEVERE
    assert scan.count_kind == "unknown"


def test_a_subtracted_background_leaves_its_variance(put: Callable[..., Path]) -> None:
    """y = counts - 1000 with few negatives: the variance at zero is that of the 1000 counts taken away."""
    generator = np.random.default_rng(11)
    background = 1000.0
    peaks = files.expected_counts(grid(), level=400.0) - 400.0 * np.exp(-(grid() - 20) / 60) + 80.0
    y = generator.poisson(peaks + background) - background
    scan = read(put(table(y + 0.25, "{:.2f} {:.2f}")))
    assert codes(scan) == [Code.POINTS_MASKED, Code.NOT_COUNTS]
    assert scan.su is not None
    quiet = np.abs(np.interp(scan.two_theta, grid(), peaks) - 80.0) < 50
    assert np.median(scan.su[quiet]) == pytest.approx(np.sqrt(1080.0), rel=0.2)


@pytest.mark.parametrize("gain", [0.02, 1.0, 33.0])
def test_the_measured_gain_is_unbiased(gain: float) -> None:
    found = [MeasuredGain(gain * counts(seed=seed)).gain / gain for seed in range(20)]
    assert np.mean(found) == pytest.approx(1.0, abs=0.04)


# Positions -----------------------------------------------------------------------------------------------------------


def test_descending_positions_are_sorted_and_said(put: Callable[..., Path]) -> None:
    scan = read(put(table(counts()[::-1], "{:.2f} {:.0f}", grid()[::-1])))
    np.testing.assert_array_equal(scan.intensity, counts())
    assert codes(scan) == [Code.POSITIONS_SORTED]


def test_one_position_out_of_order_is_sorted_and_said(put: Callable[..., Path]) -> None:
    x = grid().copy()
    x[100] = 22.031
    scan = read(put(table(counts(), "{:.3f} {:.0f}", x)))
    assert codes(scan) == [Code.POSITIONS_SORTED]
    assert "22.02 after 22.031" in scan.findings[0].message


def test_duplicate_positions_are_averaged_with_their_variance(put: Callable[..., Path]) -> None:
    x, y = np.insert(grid(), 500, grid()[500]), np.insert(counts(), 500, counts()[500] + 4)
    scan = read(put(table(y, "{:.2f} {:.0f}", x)))
    assert codes(scan) == [Code.DUPLICATES_MERGED]
    assert scan.intensity[500] == counts()[500] + 2
    assert scan.gain[500] == 0.5
    assert np.delete(scan.gain, 500).tolist() == [1.0] * 1500


def test_positions_with_too_few_decimals_are_refused(put: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"positions are repeated.*more decimals"):
        read(put(table(counts(), "{:.1f} {:.0f}")))


def test_jumbled_positions_are_refused(put: Callable[..., Path]) -> None:
    order = np.random.default_rng(0).permutation(grid().size)
    with pytest.raises(InputError, match=r"2theta decreases \d+ times"):
        read(put(table(counts()[order], "{:.2f} {:.0f}", grid()[order])))


def test_gaps_and_variable_steps_stay_as_listed(put: Callable[..., Path]) -> None:
    keep = (grid() < 28) | (grid() > 33)
    scan = read(put(table(counts()[keep], "{:.2f} {:.0f}", grid()[keep])))
    np.testing.assert_array_equal(scan.two_theta, grid()[keep])
    assert "1 gaps" in scan.findings[0].message
    coarse = np.concatenate([grid()[:700], grid()[700::3]])
    values = np.concatenate([counts()[:700], counts()[700::3]])
    scan = read(put(table(values, "{:.2f} {:.0f}", coarse)))
    np.testing.assert_array_equal(scan.two_theta, coarse)


Q = 4 * np.pi * np.sin(np.radians(grid() / 2)) / 1.5405929
D = 1.5405929 / (2 * np.sin(np.radians(grid() / 2)))


@pytest.mark.parametrize(
    ("axis", "position", "header"),
    [
        ("q", Q, "Q (1/A)  Intensity"),
        ("d", D, "d (A)  Intensity"),
        ("radian", np.radians(grid()), "2theta (rad)  Intensity"),
    ],
)
def test_q_d_and_radians(put: Callable[..., Path], axis: str, position: np.ndarray, header: str) -> None:
    body = table(counts(), "{:.8f}  {:.0f}", position)
    with pytest.raises(InputError, match=r"--axis q\|d\|radian\|two_theta"):
        read(put(body))
    named = read(put(body), axis=axis, wavelength=wavelength_from_name("CuKa"))  # type: ignore[arg-type]
    np.testing.assert_allclose(named.two_theta, grid(), atol=1e-5)
    np.testing.assert_array_equal(named.intensity, counts())
    assert named.wavelength is None or named.wavelength.name == "CuKa"
    by_header = read(put(f"# wavelength: CuKa\n{header}\n{body}"))
    np.testing.assert_allclose(by_header.two_theta, grid(), atol=1e-5)
    assert "converted to 2theta" in by_header.findings[0].message or by_header.findings[1].message


def test_q_without_a_wavelength_is_refused(put: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="positions are q and no wavelength is known"):
        read(put("Q (1/A)  Intensity\n" + table(counts(), "{:.8f}  {:.0f}", Q)))


@pytest.mark.parametrize(("shift", "shown"), [(-25.0, "-5 to 25"), (160.0, "180 to 210")])
def test_a_range_that_cannot_be_2theta_is_refused(put: Callable[..., Path], shift: float, shown: str) -> None:
    with pytest.raises(InputError, match=f"positions from {shown} cannot be 2theta.*--axis"):
        read(put(table(counts(), "{:.2f} {:.0f}", grid() + shift)))


# Missing, infinite, negative -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["nan", "NaN", "inf", "-3", "NA", "1.#QNAN"])
def test_a_few_bad_intensities_are_masked_and_said(put: Callable[..., Path], token: str) -> None:
    lines = table(counts(), "{:.2f} {:.0f}").split("\n")
    for index in (10, 400, 401):
        lines[index] = f"{lines[index].split()[0]} {token}"
    scan = read(put("\n".join(lines)))
    assert Code.POINTS_MASKED in codes(scan)
    np.testing.assert_array_equal(scan.intensity, np.delete(counts(), [10, 400, 401]))
    assert "3 " in scan.findings[0].message


def test_too_many_bad_intensities_are_refused(put: Callable[..., Path]) -> None:
    y = counts()
    y[: int(MAX_MASKED_SHARE * y.size) + 2] = -1
    with pytest.raises(InputError, match="17 negative of 1501 intensities, first at 20"):
        read(put(table(y, "{:.2f} {:.0f}")))


def test_all_zero_and_too_few_points_are_refused(put: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="every intensity is 0"):
        read(put(table(0 * counts(), "{:.2f} {:.0f}")))
    with pytest.raises(InputError, match="49 points; expected at least 50"):
        read(put(table(counts()[:49], "{:.2f} {:.0f}", grid()[:49])))


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty"), (b"no numbers here\n", "no rows of numbers|unknown format")]
)
def test_nothing_to_read(put: Callable[..., Path], content: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read(put(content))


# Spikes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("height", [600, 5000, 100_000])
def test_spikes_are_masked_and_listed(put: Callable[..., Path], width: int, height: int) -> None:
    y = counts()
    y[900 : 900 + width] += height
    scan = read(put(table(y, "{:.2f} {:.0f}")))
    assert codes(scan) == [Code.SPIKES_MASKED]
    assert f"{grid()[900]:.3f}" in scan.findings[0].message
    np.testing.assert_array_equal(scan.two_theta, np.delete(grid(), np.arange(900, 900 + width)))


def test_a_spike_among_few_counts(put: Callable[..., Path]) -> None:
    y = counts(level=2.0)
    y[900] = 60
    scan = read(put(table(y, "{:.2f} {:.0f}")))
    assert codes(scan) == [Code.SPIKES_MASKED]


@pytest.mark.parametrize("fwhm", [0.03, 0.04, 0.06, 0.1])
@pytest.mark.parametrize("step", [0.01, 0.02, 0.03, 0.05])
@pytest.mark.parametrize("alpha2", [False, True])
def test_narrow_lines_are_no_spikes(put: Callable[..., Path], fwhm: float, step: float, alpha2: bool) -> None:
    """Gaussian lines, the narrowest feet there are, at random places, weak to very strong, alone or with K-alpha2."""
    generator = np.random.default_rng(17)
    x = np.arange(15.0, 110.0, step)
    y = np.full(x.size, 40.0)
    for centre, height in zip(generator.uniform(16, 109, 60), 10 ** generator.uniform(1.5, 5, 60), strict=True):
        y += height * np.exp(-4 * np.log(2) * ((x - centre) / fwhm) ** 2)
        if alpha2:
            shift = np.degrees(2 * 0.00249 * np.tan(np.radians(centre / 2)))
            y += 0.5 * height * np.exp(-4 * np.log(2) * ((x - centre - shift) / fwhm) ** 2)
    scan = read(put(table(generator.poisson(y).astype(float), "{:.3f} {:.0f}", x)))
    assert Code.SPIKES_MASKED not in codes(scan)


# Several scans -------------------------------------------------------------------------------------------------------


def two_scans() -> str:
    return (
        "first scan\n"
        + table(counts(seed=1), "{:.2f} {:.0f}")
        + "second scan\n"
        + table(counts(seed=2), "{:.2f} {:.0f}")
    )


def test_two_scans_in_one_text_are_an_error_that_lists_them(put: Callable[..., Path]) -> None:
    path = put(two_scans())
    with pytest.raises(InputError, match=r"2 scans in the file: 1: 20 to 50.*2: 20 to 50.*--scan N, --scan sum"):
        read(path)
    np.testing.assert_array_equal(read(path, scan="2").intensity, counts(seed=2))
    assert codes(read(path, scan=1)) == [Code.MULTIPLE_SCANS]
    assert [scan.source.scan for scan in read_all(path)] == [1, 2]
    with pytest.raises(InputError, match="--scan '3'; the file holds 2"):
        read(path, scan=3)


def test_the_same_without_headers_between(put: Callable[..., Path]) -> None:
    path = put(table(counts(seed=1), "{:.2f} {:.0f}") + table(counts(seed=2), "{:.2f} {:.0f}"))
    assert len(read_all(path)) == 2


def test_scans_on_one_grid_add_as_counts(put: Callable[..., Path]) -> None:
    total = read(put(two_scans()), scan="sum")
    np.testing.assert_array_equal(total.intensity, counts(seed=1) + counts(seed=2))
    assert (total.gain, total.source.scan) == (1.0, 0)
    assert Code.MULTIPLE_SCANS in codes(total)


def test_ranges_with_different_times_join_on_one_time(put: Callable[..., Path]) -> None:
    path = put(files.raw3(counts(), n_ranges=2, times=(2.0, 8.0)), "ranges.raw")
    total = read(path, scan="sum")
    assert total.n_points == 2 * counts().size
    np.testing.assert_allclose(total.intensity[:1501], counts())
    np.testing.assert_allclose(total.intensity[1501:], counts() / 4)
    np.testing.assert_allclose(total.gain[:1501], 1.0)
    np.testing.assert_allclose(total.gain[1501:], 0.25)


def test_overlapping_scans_on_other_positions_stand_side_by_side(put: Callable[..., Path]) -> None:
    text = table(counts(seed=1), "{:.3f} {:.0f}") + table(counts(seed=2), "{:.3f} {:.0f}", grid() + 0.007)
    total = read(put(text), scan="sum")
    np.testing.assert_array_equal(total.intensity[0::2], counts(seed=1))
    np.testing.assert_array_equal(total.intensity[1::2], counts(seed=2))
    assert total.gain == 1.0


# Radiation -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "name", "lines"),
    [
        ("# anode: Co", "CoKa", ((1.788996, 1.0), (1.792835, 0.5))),
        ("# Anode: Mo\n# wavelength: 0.70931", "MoKa", ((0.70931715, 1.0), (0.713607, 0.5))),
        ("# CrKa, graphite monochromator", "CrKa", ((2.289726, 1.0), (2.293651, 0.5))),
        ("# Radiation: Ag K-alpha", "AgKa", ((0.55942178, 1.0), (0.5638131, 0.5))),
        ("# radiation Cu Ka1", "CuKa1", ((1.5405929, 1.0),)),
        ("# Cu Kalpha1 and Kalpha2", "CuKa", ((1.5405929, 1.0), (1.5444274, 0.5))),
        ("# wavelength: 1.5418", "CuKa", ((1.5405929, 1.0), (1.5444274, 0.5))),
        ("# wavelength: 0.15406 nm", "CuKa", ((1.5405929, 1.0), (1.5444274, 0.5))),
        ("# wavelength = 0.82701", "", ((0.82701, 1.0),)),
        (
            "# K-Alpha1: 1.540598\n# K-Alpha2: 1.544426\n# K-Alpha2/K-Alpha1 ratio: 0.5",
            "CuKa",
            ((1.540598, 1.0), (1.544426, 0.5)),
        ),
    ],
)
def test_wavelength_of_the_header(
    put: Callable[..., Path], header: str, name: str, lines: tuple[tuple[float, float], ...]
) -> None:
    scan = read(put(f"{header}\n" + table(counts(), "{:.2f} {:.0f}")))
    assert scan.wavelength is not None
    assert (scan.wavelength.name, scan.wavelength.lines) == (name, lines)
    assert scan.wavelength.origin == "file"


def test_no_wavelength_is_left_to_the_method(put: Callable[..., Path]) -> None:
    assert read(put(files.xy(counts()))).wavelength is None


def test_the_header_of_the_simulated_scans(put: Callable[..., Path]) -> None:
    header = "# CuKa, step 0.02 deg, Bragg-Brentano R 217.5 mm, monochromator: graphite, 2theta_m = 26.6 deg"
    scan = read(put(f"{header}\n# 2theta_deg counts\n" + table(counts(), "{:.2f} {:.0f}")))
    assert scan.wavelength.name == "CuKa"
    assert scan.metadata["goniometer_radius_mm"] == 217.5
    assert scan.metadata["monochromator_two_theta_deg"] == 26.6
    assert scan.metadata["monochromator"].startswith("graphite")


# Safety --------------------------------------------------------------------------------------------------------------


def test_an_oversized_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.xy"
    with path.open("wb") as stream:
        stream.truncate(10_000_000_000)  # sparse: takes no space
    tracemalloc.start()
    with pytest.raises(InputError, match=f"10000000000 bytes.*at most {MAX_FILE_BYTES}"):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_gzip_bomb_is_refused(put: Callable[..., Path]) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(b"\n" * 1_000_000) for _ in range(300)) + packer.flush()
    assert len(bomb) < 400_000
    tracemalloc.start()
    with pytest.raises(InputError, match="expands from"):
        read(put(bomb, "bomb.xy.gz"))
    assert tracemalloc.get_traced_memory()[1] < 300_000_000
    tracemalloc.stop()


def test_a_cut_gzip_is_refused(put: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"gzip stream is (cut|damaged)"):
        read(put(gzip.compress(files.xy(counts()))[:-500], "cut.xy.gz"))


def test_a_zip_bomb_is_refused(put: Callable[..., Path]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Experiment0/RawData0.xml", b"<a>" + b" " * 400_000_000)
    tracemalloc.start()
    with pytest.raises(InputError, match="expands beyond"):
        read(put(buffer.getvalue(), "bomb.brml"))
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["../outside.xml", "/etc/passwd.xml", "C:\\x.xml", "a/../../b.xml"])
def test_archive_names_that_point_outside_are_refused(put: Callable[..., Path], name: str) -> None:
    content = files.zipped({"Experiment0/RawData0.xml": b"<a/>", name: b"<a/>"})
    with pytest.raises(InputError, match="points outside the archive"):
        read(put(content, "scan.brml"))


BOMB = """<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<xrdMeasurements>&b;</xrdMeasurements>"""
EXTERNAL = """<?xml version="1.0"?><!DOCTYPE x [<!ENTITY file SYSTEM "file:///etc/hostname">]>
<xrdMeasurements>&file;</xrdMeasurements>"""


@pytest.mark.parametrize("text", [BOMB, EXTERNAL])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_xml_entities_are_refused(put: Callable[..., Path], text: str, encoding: str) -> None:
    with pytest.raises(InputError, match="<!DOCTYPE"):
        read(put(text.encode(encoding), "bomb.xrdml"))


def test_entities_inside_archives_are_refused(put: Callable[..., Path]) -> None:
    content = files.zipped({"Experiment0/RawData0.xml": BOMB.encode()})
    with pytest.raises(InputError, match="<!DOCTYPE"):
        read(put(content, "scan.brml"))


def test_hdf5_that_points_outside_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["counts"] = counts()
    linked = tmp_path / "linked.nxs"
    with h5py.File(linked, "w") as file:
        entry = file.create_group("entry")
        entry["two_theta"] = grid()
        entry["counts"] = h5py.ExternalLink(str(secret), "/counts")
    with pytest.raises(InputError, match="points to another file"):
        read(linked)
    virtual = tmp_path / "virtual.nxs"
    with h5py.File(virtual, "w") as file:
        entry = file.create_group("entry")
        entry["two_theta"] = grid()
        layout = h5py.VirtualLayout(shape=grid().shape, dtype="f8")
        layout[:] = h5py.VirtualSource(str(secret), "counts", shape=grid().shape)
        entry.create_virtual_dataset("counts", layout)
    with pytest.raises(InputError, match="keeps its data in another file"):
        read(virtual)


def test_a_folder_a_pipe_and_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a regular file"):
        read(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "absent.xy")
    pipe = tmp_path / "pipe.xy"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="not a regular file"):
        read(pipe)


def test_a_monochromator_makes_one_line_only_when_it_can(put: Callable[..., Path]) -> None:
    """PANalytical writes intended="K-Alpha 1" into plain scans too; only incident-beam optics remove K-alpha2."""
    plain = read(put(files.xrdml(counts()), "plain.xrdml"))
    assert len(plain.wavelength.lines) == 2
    hybrid = '<monochromator name="Hybrid monochr. 2xGe(220)" hybrid="true"/>'
    assert len(read(put(files.xrdml(counts(), incident=hybrid), "hybrid.xrdml")).wavelength.lines) == 1
    johansson = '<monochromator name="Inc. Beam Johansson 1xGe111 Cu"/>'
    assert len(read(put(files.xrdml(counts(), incident=johansson), "johansson.xrdml")).wavelength.lines) == 1
    graphite = read(put(files.xrdml(counts(), diffracted='<monochromator name="Graphite"/>'), "graphite.xrdml"))
    assert len(graphite.wavelength.lines) == 2
    assert graphite.metadata["monochromator_two_theta_deg"] == pytest.approx(26.6, abs=0.1)
