"""What does not diffract: the row against its distribution drawn by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xrdz.crystallinity import CRYSTALLINITY, LARGEST_SHARE, with_crystallinity
from xrdz.quantify import COUNTING, MassEstimate, fraction_quantity, ratio_quantity
from xrdz.reference import reference


def estimate_of(ids: tuple[str, ...], masses: tuple[float, ...]) -> MassEstimate:
    values = np.array(masses)
    values.setflags(write=False)
    return MassEstimate(ids, values, {COUNTING: np.zeros((values.size,) * 2)}, np.zeros((values.size,) * 2))


def test_the_row_is_the_scatter_of_weighed_fractions_about_crystalline_ones() -> None:
    ids, masses = ("corundum", "fluorite", "zincite"), (0.55, 0.30, 0.15)
    estimate = with_crystallinity(estimate_of(ids, masses), [reference(name) for name in ids])
    shares = np.random.default_rng(7).uniform(0.0, LARGEST_SHARE, (200_000, 3))
    weighed = np.array(masses) / (1.0 - shares)
    drawn = weighed / weighed.sum(axis=1, keepdims=True)
    for number in range(3):
        quantity = fraction_quantity(estimate, number)
        # The mean is common but for the second order, 0.01 % of a mass; the spread for the nonlinear 1 / (1 - share).
        assert quantity.value == pytest.approx(drawn[:, number].mean(), abs=2e-4)
        assert quantity.su == pytest.approx(drawn[:, number].std(), rel=0.06)


def test_the_ratio_of_two_phases_of_one_alloy_has_none() -> None:
    ids = ("sn", "ni3sn4", "graphite")
    estimate = with_crystallinity(estimate_of(ids, (1.0, 1.0, 0.2)), [reference(name) for name in ids])
    assert ratio_quantity(estimate, 1, 0)[1][CRYSTALLINITY] == pytest.approx(0.0, abs=1e-12)
    # Two rectangular distributions of the width 0.05: sqrt(2) 0.05 / sqrt(12).
    with_carbon = ratio_quantity(estimate, 2, 0)[1][CRYSTALLINITY]
    assert math.sqrt(with_carbon) == pytest.approx(math.sqrt(2.0 / 12.0) * LARGEST_SHARE, rel=1e-9)
