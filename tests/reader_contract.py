"""What every reader promises, inherited by one test class per format."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from reader_files import counts, grid
from xrdz.diffractogram import Diffractogram
from xrdz.errors import InputError
from xrdz.findings import Code
from xrdz.readers import read


class ReaderContract:
    """Values as packed, strictly increasing, read-only, hashed, deterministic, alike from gzip, cuts noticed."""

    format_name: ClassVar[str]
    file_name: ClassVar[str]
    cut_is_noticed: ClassVar[bool] = True
    finding_codes: ClassVar[tuple[Code, ...]] = ()
    metadata: ClassVar[dict[str, object]] = {}
    principal: ClassVar[float | None] = None
    n_lines: ClassVar[int] = 0

    def content(self) -> bytes:
        raise NotImplementedError

    def counts(self) -> np.ndarray:
        return counts()

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / self.file_name
        path.write_bytes(self.content())
        return path

    @pytest.fixture
    def scan(self, path: Path) -> Diffractogram:
        return read(path)

    def test_every_value(self, scan: Diffractogram) -> None:
        assert scan.n_points == grid().size
        np.testing.assert_allclose(scan.two_theta, grid(), rtol=0, atol=2e-6)
        np.testing.assert_array_equal(scan.intensity, self.counts())

    def test_counts_have_their_own_variance(self, scan: Diffractogram) -> None:
        assert scan.count_kind == "counts"
        assert scan.gain == 1.0
        assert scan.su is None
        assert tuple(finding.code for finding in scan.findings) == self.finding_codes

    def test_positions_increase_strictly(self, scan: Diffractogram) -> None:
        assert np.all(np.diff(scan.two_theta) > 0)

    def test_arrays_are_read_only(self, scan: Diffractogram) -> None:
        for array in (scan.two_theta, scan.intensity):
            assert not array.flags.writeable

    def test_source(self, path: Path, scan: Diffractogram) -> None:
        assert scan.source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert scan.source.format == self.format_name
        assert scan.source.path == str(path)
        assert scan.source.scan == 1

    def test_wavelength(self, scan: Diffractogram) -> None:
        if self.principal is None:
            assert scan.wavelength is None
        else:
            assert scan.wavelength is not None
            assert scan.wavelength.origin == "file"
            assert scan.wavelength.principal == pytest.approx(self.principal, abs=1e-9)
            assert len(scan.wavelength.lines) == self.n_lines

    def test_metadata(self, scan: Diffractogram) -> None:
        found = {key: scan.metadata.get(key) for key in self.metadata}
        assert found == self.metadata

    def test_deterministic(self, path: Path) -> None:
        first, second = read(path), read(path)
        np.testing.assert_array_equal(first.two_theta, second.two_theta)
        np.testing.assert_array_equal(first.intensity, second.intensity)
        assert (first.findings, first.metadata, first.wavelength) == (
            second.findings,
            second.metadata,
            second.wavelength,
        )

    def test_gzip_reads_alike(self, path: Path, scan: Diffractogram) -> None:
        packed = path.with_name(path.name + ".gz")
        packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        again = read(packed)
        np.testing.assert_array_equal(again.intensity, scan.intensity)
        assert again.source.format == self.format_name
        assert again.source.sha256 == hashlib.sha256(packed.read_bytes()).hexdigest()

    def test_the_suffix_is_not_needed(self, path: Path, scan: Diffractogram) -> None:
        other = path.with_name("upload.tmp")
        other.write_bytes(path.read_bytes())
        np.testing.assert_array_equal(read(other).intensity, scan.intensity)

    @pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.999])
    def test_a_cut_file_is_refused_or_flagged(self, path: Path, share: float) -> None:
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        try:
            cut = read(path)
        except InputError as error:
            message = str(error)
        else:
            message = ""
        assert not message or str(path) in message
        if message:
            return
        if self.cut_is_noticed:
            assert Code.TRUNCATED_FILE in {finding.code for finding in cut.findings}
        np.testing.assert_array_equal(cut.intensity[:-1], self.counts()[: cut.n_points - 1])
