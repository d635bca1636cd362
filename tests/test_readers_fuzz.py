"""No damage ends in anything but scans that keep the invariant or in one `InputError`; seeded, about half a minute.

`tests/fuzz/fuzz_readers.py` runs the same for as long as one likes.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reader_files as files
from reader_files import counts
from reader_mutations import PACKED, check, corpus, layout_changes, mutated, outcome
from xrdz.errors import InputError
from xrdz.findings import Code

CORPUS = corpus(max_bytes=60_000)
MUTATIONS_A_FILE = 30

SIGNATURES = (
    b"",
    b"RAW ",
    b"RAW2",
    b"RAW1.01",
    b"RAW4.00",
    b"RAW_1.06Powdat",
    b"V3RD",
    b"V5RD",
    b"PK\x03\x04",
    b"\x89HDF\r\n\x1a\n",
    b"\x1f\x8b\x08",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"<xrdMeasurements>",
    b"*RAS_DATA_START\n*RAS_INT_START\n",
    b"*TYPE = Raw\n*BEGIN\n*START = 10\n*STEP = 0.1\n",
    b"_FILEVERSION=2\n_DRIVE='COUPLED'\n_START=10\n_STEPSIZE=0.1\n_COUNTS\n",
    b"SampleIdent,x,/\nDataAngleRange,5,10,/\nScanStepSize,0.1,/\nRawScan\n",
    b"SIETRONICS XRD SCAN\n5\n10\n0.1\nCu\n1.5406\n\n\n\nSCANDATA\n",
    b"title\nBANK 1 100 10 CONST 1000 2 0 0 STD\n",
    b"data_x\nloop_\n_pd_meas_2theta_scan\n_pd_meas_counts_total\n",
    b"/* x */ 10 0.1 20\n",
    b"10 0.1 20\n",
)


@pytest.mark.parametrize("name", CORPUS)
def test_mutations_end_in_scans_or_one_error(name: str) -> None:
    for number in range(MUTATIONS_A_FILE):
        generator = np.random.default_rng([20240601, number])
        result = outcome(name, mutated(CORPUS[name], generator))
        if isinstance(result, InputError):
            assert name in str(result)
            assert "\n" not in str(result)
        else:
            check(result)


@settings(max_examples=400, deadline=None)
@given(signature=st.sampled_from(SIGNATURES), body=st.binary(max_size=600))
def test_any_bytes(signature: bytes, body: bytes) -> None:
    result = outcome("any.bin", signature + body)
    if not isinstance(result, InputError):
        check(result)


NUMBERS = st.one_of(
    st.floats().map(str), st.integers(-5, 10**6).map(str), st.text("0123456789.,-+eEdD'nai ", max_size=8)
)


@settings(max_examples=300, deadline=None)
@given(
    signature=st.sampled_from(SIGNATURES[13:]),
    rows=st.lists(st.lists(NUMBERS, min_size=1, max_size=4), max_size=80),
    separator=st.sampled_from([" ", "\t", ",", ";"]),
)
def test_any_rows(signature: bytes, rows: list[list[str]], separator: str) -> None:
    text = "\n".join(separator.join(row) for row in rows)
    result = outcome("any.txt", signature + text.encode())
    if not isinstance(result, InputError):
        check(result)


TEXT_FORMATS = ("scan.xy", "scan.xye", "highscore.csv", "eva.xy", "pairs.uxd", "scan.ras", "scan.fxye", "scan.cif")


@pytest.mark.parametrize("name", TEXT_FORMATS)
def test_damage_that_moves_numbers_is_refused_or_flagged(name: str) -> None:
    for what, data in layout_changes(PACKED[name]()):
        result = outcome(name, data)
        if isinstance(result, list) and what != "cut in a row" and not result[0].findings:
            np.testing.assert_array_equal(result[0].intensity, counts(400), err_msg=what)
        if isinstance(result, list) and what == "cut in a row":
            whole = counts(400)[: result[0].n_points - 1]
            np.testing.assert_array_equal(result[0].intensity[:-1], whole)


COUNTED = ("fullprof.dat", "scan.xdd", "scan.cpi", "scan.udf", "scan.asc", "std.gsa", "esd.gda", "alt.xra", "scan.brml")


@pytest.mark.parametrize("name", COUNTED)
def test_a_lost_row_is_noticed_where_the_points_are_counted(name: str) -> None:
    data = PACKED[name]()
    if name == "scan.brml":
        rows = [
            files.BRML_ROW.format(time=2, factor=1, angle=20 + 0.02 * i, theta=10 + 0.01 * i, value=v)
            for i, v in enumerate(counts(400))
        ]
        del rows[100]
        raw = files.BRML.format(n=400, axis="TwoTheta", optics="", rows="".join(rows))
        data = files.zipped({"Experiment0/RawData0.xml": raw.encode()})
    else:
        lines = data.split(b"\n")
        del lines[-12]
        data = b"\n".join(lines)
    result = outcome(name, data)
    if isinstance(result, list):
        assert Code.TRUNCATED_FILE in {finding.code for finding in result[0].findings}


@pytest.mark.parametrize("name", sorted(set(PACKED) - {"scan.uxd", "scan.xrdml"}))
def test_nothing_wrong_is_read_in_silence(name: str) -> None:
    """Whatever passes without a finding has the counts of the undamaged file at all but the damaged points.

    Left out: UXD `_COUNTS` and XRDML, whose lists of counts carry no number of points, so that a lost count moves the
    rest unseen; the documentation of formats says so.
    """
    data = PACKED[name]()
    original = outcome(name, data)
    if isinstance(original, InputError):  # several ranges: an error without a choice
        return
    truth = dict(zip(np.round(original[0].two_theta, 4), original[0].intensity, strict=True))
    known_findings = {finding.code for finding in original[0].findings}
    for number in range(150):
        generator = np.random.default_rng([7, number])
        result = outcome(name, mutated(data, generator))
        if isinstance(result, InputError) or {f.code for f in result[0].findings} - known_findings:
            continue
        scan = result[0]
        wrong = sum(truth.get(a) != v for a, v in zip(np.round(scan.two_theta, 4), scan.intensity, strict=True))
        assert wrong <= 60, f"mutation {number}: {wrong} of {scan.n_points} points differ and nothing is said"


BODY = files.xy(counts()).decode()

PATHOLOGICAL = {
    "blanks": " " * 200_000 + "x\n" + BODY,
    "slashes": "/" * 200_000 + "\n" + BODY,
    "words": "# " + "a " * 100_000 + "\n" + BODY,
    "quotes": 'a: "' * 100_000 + "\n" + BODY,
    "one word": "a" * 200_000 + ': "x" b: "y"\n' + BODY,
    "digits": "1" * 500_000 + " 2\n" + BODY,
    "numbers": "# wavelength: " + "1," * 100_000 + "\n" + BODY,
    "radiation": "Cu K " * 50_000 + "\n" + BODY,
    "labels": "2theta " * 50_000 + "\n" + BODY,
    "tables": "a\n1 2\n1 2\n1 2\n" * 20_000,
    "thousands": "\n".join("20.00\t" + "1,111" * 3000 for _ in range(60)),
    "cif loops": "data_x\n" + "loop_\n_pd_meas_counts_total\n1\n" * 50_000,
    "cif quotes": "data_x\n" + "'" * 500_000,
    "comment": "/*" * 300_000,
    "udf": "SampleIdent," + "/" * 200_000 + "\nRawScan\n" + "1 " * 100_000 + "/",
}


@pytest.mark.parametrize("name", PATHOLOGICAL)
def test_no_text_takes_more_than_its_length_of_time(name: str) -> None:
    """Linear readers need well below a second for these; a quadratic one would need minutes."""
    start = time.process_time()
    result = outcome("a.txt", PATHOLOGICAL[name].encode())
    assert time.process_time() - start < 10.0
    if isinstance(result, InputError):
        assert len(str(result)) < 1000
