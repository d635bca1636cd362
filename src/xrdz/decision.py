"""From a measured value to a verdict: conformity with two limits, with the uncertainty in it.

A measured value is a two-piece normal in its own space (ln for a ratio, logit for a fraction): each side of the value
holds half the probability, and its spread is that side of the 95 % interval over 1.96, as the signed root of a
profile likelihood has it. With limits [low, high] (ILAC-G8:09/2019 section 4.2; JCGM 106:2012 sections 7 and 8):

    probability of conformity  p = F(high) - F(low)
    simple acceptance          met: the value lies within the limits, else not met
    guard band w = U           met: the coverage interval lies within the limits, else not met
    non-binary                 met: it lies within, not met: it lies wholly outside, else undecided

    spread^2 = spread_measured^2 + extra^2         extra: the laboratory's own reproducibility in the same space

The invariant: all three rules and p see the same distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist
from typing import Literal, Protocol

from xrdz.errors import InputError
from xrdz.method import Decision
from xrdz.numerals import significant

Space = Literal["linear", "ln", "logit"]
Limit = Literal["upper", "lower"]

NORMAL = NormalDist()
COVERAGE_FACTOR_95 = NORMAL.inv_cdf(0.975)


class Verdict(StrEnum):
    """What a check may say."""

    MET = "met"
    NOT_MET = "not_met"
    UNDECIDED = "undecided"
    NOT_ASSESSED = "not_assessed"


class IntervalLike(Protocol):
    """A value with its combined standard uncertainty and 95 % interval, whatever class holds them."""

    @property
    def value(self) -> float | None:
        """Best estimate."""

    @property
    def su(self) -> float | None:
        """Combined standard uncertainty, in the units of the value."""

    @property
    def interval95(self) -> tuple[float | None, float | None] | None:
        """Equal-tailed 95 % interval; None for an open end."""


@dataclass(frozen=True)
class Measured:
    """A value and how it is distributed.

    Parameters
    ----------
    value : best estimate
    su : combined standard uncertainty in the units of the value, None when none is stated
    interval95 : equal-tailed 95 % interval, which decides over `su`; None for an open end, or without intervals
    space : where each side is normal
    limit : "upper" when the quantity is only known to lie below `interval95[1]`, "lower" above `interval95[0]`,
        each with 95 % probability; the quantity, or its reciprocal, is then half-normal at zero
    """

    value: float
    su: float | None = None
    interval95: tuple[float | None, float | None] | None = None
    space: Space = "linear"
    limit: Limit | None = None

    def __post_init__(self) -> None:
        low, high = self.interval95 or (None, None)
        if not math.isfinite(self.value) or (self.su is not None and not self.su >= 0.0):
            raise InputError(f"measured value {self.value!r}, su {self.su!r}: expected finite and not negative")
        if self.space == "linear" and self.interval95 is not None and None in self.interval95:
            raise InputError(f"measured value {self.value!r}: expected both ends of its interval, or none")
        if self.limit is None and not (
            (low is None or low <= self.value) and (high is None or self.value <= high) and self._in_domain(self.value)
        ):
            raise InputError(f"measured value {self.value!r}: expected inside its interval {self.interval95!r}")
        if self.limit is not None and not (self.space == "ln" and self._bound() > 0.0):
            raise InputError(f"a {self.limit} limit of {self.value!r}: expected a positive ratio")

    def _in_domain(self, x: float) -> bool:
        low, high = DOMAINS[self.space]
        return low < x < high

    def _bound(self) -> float:
        """Return the number a limit states."""
        end = None if self.interval95 is None else self.interval95[1 if self.limit == "upper" else 0]
        return self.value if end is None else end

    def is_uncertain(self, extra: float = 0.0) -> bool:
        """Return whether the value has a distribution; without one it can only be compared with the limits."""
        return self.limit is not None or self.interval95 is not None or bool(self.su) or extra > 0.0

    def cdf(self, x: float, extra: float = 0.0) -> float:
        """Return F(x), the probability that the quantity is at most `x`.

        Parameters
        ----------
        x : in the units of the value; infinity is allowed
        extra : one more standard uncertainty, in the space
        """
        low, high = DOMAINS[self.space]
        if x <= low or x >= high:
            return 0.0 if x <= low else 1.0
        if self.limit is not None:
            bound = self._widened_bound(extra)
            tail = x / bound if self.limit == "upper" else bound / x
            within = math.erf(COVERAGE_FACTOR_95 * tail / math.sqrt(2.0))
            return within if self.limit == "upper" else 1.0 - within
        side = self._side(below=x < self.value, extra=extra)
        return NORMAL.cdf(side.deviate(x))

    def probability(self, low: float, high: float, extra: float = 0.0) -> float:
        """Return the probability of conformity, F(high) - F(low)."""
        return max(0.0, self.cdf(high, extra) - self.cdf(low, extra))

    def coverage_interval(self, coverage: float, extra: float = 0.0) -> tuple[float, float]:
        """Return the interval that holds `coverage`: equal-tailed, or open towards zero or infinity for a limit."""
        if self.limit is not None:
            bound = self._widened_bound(extra)
            stretch = NORMAL.inv_cdf((1.0 + coverage) / 2.0) / COVERAGE_FACTOR_95
            return (0.0, bound * stretch) if self.limit == "upper" else (bound / stretch, math.inf)
        deviate = NORMAL.inv_cdf((1.0 + coverage) / 2.0)
        return (
            self._side(below=True, extra=extra).quantile(-deviate),
            self._side(below=False, extra=extra).quantile(deviate),
        )

    def reciprocal(self) -> Measured:
        """Return the distribution of 1 / quantity, for a ratio stated the other way round."""
        if self.space != "ln":
            raise InputError(f"reciprocal of a value in {self.space} space: expected a ratio, in ln space")
        low, high = self.interval95 or (None, None)
        turned = (None if not high else 1.0 / high, None if not low else 1.0 / low)
        other: dict[Limit, Limit] = {"upper": "lower", "lower": "upper"}
        value = 1.0 / self.value if self.value > 0.0 else 1.0 / self._bound()
        return Measured(
            value=value,
            su=None if self.su is None else self.su * value**2,
            interval95=None if self.interval95 is None else turned,
            space="ln",
            limit=None if self.limit is None else other[self.limit],
        )

    def _widened_bound(self, extra: float) -> float:
        stretch = math.exp(COVERAGE_FACTOR_95 * extra)
        return self._bound() * stretch if self.limit == "upper" else self._bound() / stretch

    def _side(self, *, below: bool, extra: float) -> _Side:
        """Return one half of the distribution.

        A side whose end lies on the edge of the space (zero, one, infinity) is normal in the quantity itself, or in
        its reciprocal towards infinity, because no spread in the space could express it.
        """
        forward, backward, slope = TRANSFORMS[self.space]
        if self.interval95 is None:
            return _Side(self, forward, backward, math.hypot((self.su or 0.0) * slope(self.value), extra))
        end = self.interval95[0 if below else 1]
        if end is not None and self._in_domain(end):
            spread = abs(forward(end) - forward(self.value)) / COVERAGE_FACTOR_95
            return _Side(self, forward, backward, math.hypot(spread, extra))
        edge = DOMAINS[self.space][0 if below else 1]
        forward, backward, own_slope = TRANSFORMS["linear" if math.isfinite(edge) else "reciprocal"]
        spread = abs(forward(edge) - forward(self.value)) / COVERAGE_FACTOR_95
        return _Side(self, forward, backward, math.hypot(spread, extra * own_slope(self.value) / slope(self.value)))


@dataclass(frozen=True)
class _Side:
    """One half of a two-piece normal: deviate = (g(x) - g(value)) / spread."""

    measured: Measured
    forward: Callable[[float], float]
    backward: Callable[[float], float]
    spread: float

    def deviate(self, x: float) -> float:
        distance = self.forward(x) - self.forward(self.measured.value)
        if self.spread > 0.0:
            return distance / self.spread
        return math.copysign(math.inf, distance) if distance else 0.0

    def quantile(self, deviate: float) -> float:
        low, high = DOMAINS[self.measured.space]
        return min(max(self.backward(self.forward(self.measured.value) + deviate * self.spread), low), high)


DOMAINS: dict[str, tuple[float, float]] = {
    "linear": (-math.inf, math.inf),
    "ln": (0.0, math.inf),
    "logit": (0.0, 1.0),
}

TRANSFORMS: dict[str, tuple[Callable[[float], float], Callable[[float], float], Callable[[float], float]]] = {
    "linear": (lambda x: x, lambda y: y, lambda _x: 1.0),
    "ln": (math.log, lambda y: math.exp(min(y, 700.0)), lambda x: 1.0 / x),
    "logit": (
        lambda x: math.log(x / (1.0 - x)),
        lambda y: 1.0 / (1.0 + math.exp(-y)) if y > -700.0 else 0.0,
        lambda x: 1.0 / (x * (1.0 - x)),
    ),
    "reciprocal": (
        lambda x: -1.0 / x if math.isfinite(x) else 0.0,
        lambda y: -1.0 / y if y < -1e-12 else math.inf,
        lambda x: 1.0 / x**2,
    ),
}
"""Per space: the increasing map g, its inverse, and dg/dx."""


def measured_from(quantity: IntervalLike, space: Space) -> Measured | None:
    """Return the distribution of a quantity of the analysis, or None when nothing is known about it.

    NaN and infinity count as not known. A ratio of exactly zero with an upper end is an upper limit, and one that is
    infinite with a lower end a lower limit; a fraction of exactly 0 or 1 is judged as it stands.
    """
    limit: Limit | None = getattr(quantity, "limit", None)
    value, su = quantity.value, _finite(quantity.su)
    low, high = (_finite(end) for end in quantity.interval95 or (None, None))
    interval = None if low is None and high is None else (low, high)
    if space == "ln" and limit is None and value is not None and not 0.0 < value < math.inf:
        limit = "upper" if value <= 0.0 else "lower"
    if limit is not None:
        bound = high if limit == "upper" else low
        return Measured(_finite(value) or bound, su, interval, space, limit) if bound else None
    value = _finite(value)
    if value is None:
        return None
    return Measured(value, su, interval, space if space != "logit" or 0.0 < value < 1.0 else "linear")


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


@dataclass(frozen=True)
class Conformity:
    """The verdict on one value against two limits.

    Parameters
    ----------
    verdict : after the rule
    probability : of conformity, None when the value has no uncertainty
    span : (F(low), F(high)), from which joint probabilities of quantities that move together follow; or None
    rule : the decision rule in words
    why : what the verdict rests on, in words
    """

    verdict: Verdict
    probability: float | None
    span: tuple[float, float] | None
    rule: str
    why: str


def conformity(
    measured: Measured,
    limits: tuple[float, float],
    decision: Decision,
    *,
    extra: float = 0.0,
    shown_as: Callable[[float], float] = lambda x: x,
) -> Conformity:
    """Return the verdict on a measured value.

    Parameters
    ----------
    measured : the value
    limits : (low, high) in the units of the value; both belong to the tolerance
    decision : rule and coverage
    extra : one more standard uncertainty, in the space of the value
    shown_as : increasing map from the value to the quantity that the words are about, where the two differ
    """
    low, high = limits
    by_value = Verdict.MET if low <= measured.value <= high else Verdict.NOT_MET
    place = "within" if by_value is Verdict.MET else "outside"
    if not measured.is_uncertain(extra):
        return Conformity(
            by_value,
            None,
            None,
            "simple acceptance, no uncertainty is stated",
            f"the value lies {place} the limits; no uncertainty is stated",
        )
    span = measured.cdf(low, extra), measured.cdf(high, extra)
    probability = max(0.0, span[1] - span[0])
    covered = measured.coverage_interval(decision.coverage, extra)
    inside = low <= covered[0] and covered[1] <= high
    outside = covered[1] < low or high < covered[0]
    text = f"the {100 * decision.coverage:g} % interval {_shown_interval(*map(shown_as, covered))}"
    over = [f"the lower limit {shown_as(low):.4g}"] if covered[0] < low else []
    over += [f"the upper limit {shown_as(high):.4g}"] if covered[1] > high else []
    reach = f"reaches over {' and '.join(over)}"
    where = "lies within the limits" if inside else "lies outside the limits" if outside else reach
    if measured.limit is not None:
        verdict = Verdict.NOT_MET if outside or decision.rule == "guard-band" else Verdict.UNDECIDED
        text = f"only {'an upper' if measured.limit == 'upper' else 'a lower'} limit is known: {text}"
    elif decision.rule == "simple":
        verdict, where = by_value, f"{where}; the value lies {place} them"
    elif decision.rule == "guard-band":
        verdict = Verdict.MET if inside else Verdict.NOT_MET
    else:
        verdict = Verdict.MET if inside else Verdict.NOT_MET if outside else Verdict.UNDECIDED
    return Conformity(verdict, probability, span, rule_in_words(decision, measured.space), f"{text} {where}")


def _shown_interval(low: float, high: float) -> str:
    """Return an interval with four significant digits; one without an upper end says so."""
    return f"{significant(low, 4)} to {significant(high, 4) if math.isfinite(high) else 'infinity'}"


def rule_in_words(decision: Decision, space: Space = "linear") -> str:
    """Return the decision rule as a report states it."""
    where = "" if space == "linear" else f", in {space}"
    coverage = f", coverage {100 * decision.coverage:g} %"
    return {
        "simple": f"simple acceptance (ILAC-G8:09/2019 4.2.1){where}",
        "guard-band": f"guard band w = U (ILAC-G8:09/2019 4.2.2){coverage}{where}",
        "non-binary": f"non-binary (ILAC-G8:09/2019 4.2.3){coverage}{where}",
    }[decision.rule]
