"""Numbers for people: a value with its standard uncertainty in brackets, and intervals with matching digits.

The uncertainty keeps two significant digits when they lie from 10 to 29, else one, and the value ends at the same
decimal: 49.84(16), 1.007(7), 1230(160). The digits in brackets count in the last places of the value (International
Union of Crystallography, Acta Cryst. C notes for authors, and GUM 7.2.2).
"""

from __future__ import annotations

import math

UNKNOWN = "-"
"""What stands for a number that does not exist."""

SIGNIFICANT = 4
"""Significant digits of a value that has no uncertainty."""

TWO_DIGITS_BELOW = 30
"""Two digits of an uncertainty are kept when they are below this."""


def value_with_su(value: float | None, su: float | None) -> str:
    """Return a value with its standard uncertainty in brackets, such as `49.84(16)`.

    Without a usable uncertainty (None, zero, negative, not finite) the value stands alone with four significant
    digits; a value that does not exist is `-`.
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if su is None or not math.isfinite(su) or su <= 0.0:
        return f"{value:.{SIGNIFICANT}g}"
    decimals = su_decimals(su)
    digits = _half_up(su * 10.0**decimals)
    bracket = digits if decimals > 0 else digits * 10**-decimals
    return f"{at_decimals(value, decimals)}({bracket})"


def su_decimals(su: float) -> int:
    """Return at how many decimals a value with this standard uncertainty ends; negative for tens, hundreds, ..."""
    leading = -math.floor(math.log10(su))
    digits = _half_up(su * 10.0 ** (leading + 1))
    return leading + 1 if digits < TWO_DIGITS_BELOW else leading


def at_decimals(value: float, decimals: int) -> str:
    """Return a value rounded to `decimals` places, never as a negative zero."""
    rounded = round(value, decimals) + 0.0
    return f"{rounded:.{max(decimals, 0)}f}"


def interval_text(low: float | None, high: float | None, *, decimals: int | None = None) -> str:
    """Return `low to high`, `at least low` or `at most high`; an open or infinite side is left out.

    Parameters
    ----------
    decimals : places after the point; None for as many as a quarter of the width needs
    """
    low, high = _finite(low), _finite(high)
    if low is not None and high is not None:
        if decimals is None and high > low:
            decimals = su_decimals((high - low) / 4.0)
        return f"{_plain(low, decimals)} to {_plain(high, decimals)}"
    if low is not None:
        return f"at least {_plain(low, decimals)}"
    return f"at most {_plain(high, decimals)}" if high is not None else UNKNOWN


def probability_text(p: float | None) -> str:
    """Return a probability with three decimals; certainty is never claimed."""
    if p is None:
        return ""
    if p > 0.9995:
        return "> 0.999"
    return "< 0.001" if p < 0.0005 else at_decimals(p, 3)


def significant(value: float, digits: int) -> str:
    """Return a number with so many significant digits, closing zeros included, without an exponent from 1e-4 to 1e6."""
    rounded = float(f"{value:.{digits}g}")
    if not math.isfinite(rounded) or rounded == 0.0 or not 1e-4 <= abs(rounded) < 1e6:
        return f"{rounded:.{digits}g}"
    return at_decimals(rounded, max(digits - 1 - math.floor(math.log10(abs(rounded))), 0))


def two_digits(value: float) -> str:
    """Return a positive number with two significant digits, without an exponent up to thousands."""
    return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _half_up(x: float) -> int:
    """Return the nearest integer, halves upward: an uncertainty is not rounded down at a half (GUM 7.2.6)."""
    return math.floor(x + 0.5)


def _plain(value: float, decimals: int | None) -> str:
    return f"{value:.{SIGNIFICANT}g}" if decimals is None else at_decimals(value, decimals)
