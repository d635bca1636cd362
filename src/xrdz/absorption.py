"""Absorption contrast between grains (microabsorption), after Brindley 1945, Phil. Mag. 36, 347.

A grain that absorbs more than the mixture around it shades its own inside and diffracts too little:

    m_p  ->  m_p / tau_p,     tau_p = (1/V) integral over the grain of exp(-(mu_p - mu) l) dV,     mu = sum_q v_q mu_q

l is the way of the radiation inside the grain, mu_p and mu the linear attenuation coefficients of the grain and of the
solid mixture, v_q volume fractions. For a sphere of radius R, tau depends on x = (mu_p - mu) R and on the angle alone;
ln tau = -3 x / 2 + O(x^2) at every angle. The exact integral at `TWO_THETA` is used; for |x| < 0.3 it lies within 3 %
of that at any angle between 0 and 140 degrees. Because mu depends on the masses sought, both are iterated.

Grains without a stated size are taken as of a powder ground for diffraction, 1 to 5 micrometres (log-normal, one
standard deviation; about half of the variance common to all phases). No powder has grains of no size, and the sign of
the effect is known, so the expectation of ln tau over this prior is corrected for (JCGM 100:2008, 3.2.4 and F.2.4.5),
and its spread about what was corrected is the budget row. Two things are left uncorrected, and the row is then the mean
square of what was left out, about zero:

* phases of one alloy (flag `alloy`) among themselves: they grew in the same grains, where each is surrounded by its own
  alloy and a region of one phase is as small as the microstructure, which grinding does not tell. Against other phases
  the alloy's grains count with their mean attenuation;
* mixtures in which grains of `COARSE_UM` would change a ratio of two phases by more than `SEVERE_LN`: there the answer
  would be made of the assumed size. Where that is the ratio asked for, the row allows for 2 to 20 micrometres, and the
  finding is severe.

The invariant: common attenuation, or equal attenuation of all phases, changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from xrdz.detection import WeakPhase
from xrdz.diffractogram import FloatArray
from xrdz.fields import Estimate
from xrdz.findings import Code, Finding, info, severe, warning
from xrdz.quantify import COVERAGE_FACTOR, MassEstimate
from xrdz.reference import Reference

ABSORPTION = "absorption contrast"
"""Budget row."""

TWO_THETA = 60.0
"""Angle (deg) at which tau is taken, between the strong lines of a powder pattern."""

X_RANGE = (-2.0, 6.0)
"""Range of (mu_p - mu) R; beyond, the nearest end stands. The theory itself is trusted to about +-0.5."""

GROUND_UM, COARSE_PRIOR_UM = (1.0, 5.0), (2.0, 20.0)
"""Grain diameters one standard deviation below and above the median: ground for diffraction, and as received.

Powders made for diffraction: below 1 micrometre (NIST SRM 676a), about 2 (SRM 674; International Tables C, 2006,
5.2.11), 2.8 and 7.7 (SRM 1979, medians by laser scattering)."""

LARGEST_UM = 45.0
"""No powder in a diffractometer is coarser: it passes a 325 mesh sieve."""

SHARED = 0.5
"""Share of the variance of ln D that all phases of a powder have in common."""

SIZE_SU, SHAPE_SU = 0.3, 0.2
"""Relative standard uncertainty of a stated size without one, and what stands for grains that are no equal spheres."""

COARSE_UM = 10.0
INFORM_LN, WARNING_LN, SEVERE_LN = 0.01, 0.2, 0.5
DRAWS = 64


@dataclass(frozen=True)
class AbsorptionContrast:
    """Grains, their corrections and what is not known of them.

    Parameters
    ----------
    attenuation : (p,) linear attenuation coefficients, 1/cm
    mean : of the solid mixture after correction, 1/cm
    diameter_um : (p,) stated diameters; NaN where none is stated, which takes the prior's median once any other is
    tau : (p,) factors the masses are divided by, for stated sizes or for assumed ones
    is_assumed : whether sizes were assumed for a correction
    ln_spread : (p, p) mean products of the errors of ln m that remain
    coarse_shift : (p,) change of ln m if the grains of all phases without a size had `COARSE_UM`
    is_severe : whether the wider prior was needed
    """

    ids: tuple[str, ...]
    attenuation: FloatArray
    mean: float
    diameter_um: FloatArray
    tau: FloatArray
    ln_spread: FloatArray
    coarse_shift: FloatArray
    is_severe: bool
    is_assumed: bool = False

    @property
    def sizes_stated(self) -> bool:
        """Whether every phase has a stated size."""
        return bool(np.all(np.isfinite(self.diameter_um)))


def sphere_tau(x: float, *, two_theta: float = TWO_THETA, nodes: int = 16) -> float:
    """Return the exact tau of a sphere by quadrature over its volume.

    Parameters
    ----------
    x : (mu_p - mu) R
    two_theta : deg
    nodes : Gauss-Legendre nodes in r^3 and in the polar angle, twice as many in the azimuth
    """
    ways, weights = _ways(two_theta, nodes)
    return float(weights @ np.exp(-x * ways))


@lru_cache(maxsize=8)
def _ways(two_theta: float, nodes: int) -> tuple[FloatArray, FloatArray]:
    """Return the ways through a unit sphere to and from the nodes of a volume quadrature, and their weights."""
    abscissa, weight = np.polynomial.legendre.leggauss(nodes)
    radius = np.cbrt(0.5 * (abscissa + 1.0))
    azimuth = np.pi * (np.arange(2 * nodes) + 0.5) / nodes
    r, cosine, angle = np.meshgrid(radius, abscissa, azimuth, indexing="ij")
    weights = np.broadcast_to(0.25 * weight[:, None, None] * weight[None, :, None] / (2 * nodes), r.shape)
    across, along = r * np.sqrt(1.0 - cosine**2) * np.cos(angle), r * cosine
    theta = math.radians(0.5 * two_theta)

    def to_surface(direction: FloatArray) -> FloatArray:
        forward = across * direction[0] + along * direction[1]
        way: FloatArray = np.sqrt(np.maximum(1.0 - r**2 + forward**2, 0.0)) - forward
        return way

    back = to_surface(np.array([-math.cos(theta), math.sin(theta)]))
    ways = back + to_surface(np.array([math.cos(theta), math.sin(theta)]))
    return ways.ravel(), weights.ravel().copy()


@lru_cache(maxsize=1)
def _ln_tau_table() -> tuple[FloatArray, FloatArray]:
    """Return x over `X_RANGE` and ln tau(x), dense enough for straight lines; within 1e-4 of the integral."""
    series = np.polynomial.Chebyshev.interpolate(
        lambda x: np.log([sphere_tau(float(value)) for value in x]), 20, domain=X_RANGE
    )
    x = np.linspace(*X_RANGE, 1601)
    return x, np.asarray(series(x))


def ln_tau(x: FloatArray) -> FloatArray:
    """Return ln tau of a sphere at `TWO_THETA`; `x` = (mu_p - mu) R of any shape."""
    result: FloatArray = np.interp(x, *_ln_tau_table())
    return result


def mixture_ln_tau(
    masses: FloatArray, density: FloatArray, attenuation: FloatArray, diameter_um: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return ln tau and the mixture's mean attenuation (1/cm) that agree with the masses they correct.

    Parameters
    ----------
    masses : (p,) uncorrected
    density, attenuation : (p,) g/cm^3, 1/cm
    diameter_um : (..., p)

    Returns
    -------
    ln_tau : (..., p)
    mean : (...)
    """
    found = np.zeros(diameter_um.shape)
    mean = np.zeros(diameter_um.shape[:-1])
    for _ in range(60):
        # Relative to the largest, so that no exponential overflows on the way.
        volumes = masses / density * np.exp(-(found - found.min(axis=-1, keepdims=True)))
        mean = (volumes @ attenuation) / volumes.sum(axis=-1)
        new = ln_tau((attenuation - mean[..., None]) * 0.5e-4 * diameter_um)
        change = float(np.max(np.abs(new - found)))
        # A heavy minor phase raises the mean that corrects it: shorter steps keep that from swinging.
        found = found + 0.8 * (new - found)
        if change < 1e-4:
            break
    return found, mean


@lru_cache(maxsize=16)
def _normal_draws(count: int, dimensions: int) -> FloatArray:
    """Return an even design of standard normal draws with their mirror images, (2 count, dimensions): Kronecker's."""
    primes = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97]
    roots = np.sqrt(np.resize(primes, dimensions).astype(np.float64)) + np.arange(dimensions) // len(primes)
    uniform = (0.5 + np.outer(np.arange(1, count + 1), roots)) % 1.0
    inverse = NormalDist().inv_cdf
    draws = np.array([[inverse(float(value)) for value in row] for row in uniform])
    draws = np.concatenate((draws, -draws))
    draws.setflags(write=False)
    return draws


def absorption_contrast(
    estimate: MassEstimate,
    references: Sequence[Reference],
    *,
    wavelength: float,
    sizes: Mapping[str, Estimate],
    ratio: tuple[str, str] | None = None,
) -> AbsorptionContrast:
    """Return the correction of the masses for absorption contrast and what remains unknown of it.

    Parameters
    ----------
    wavelength : angstrom
    sizes : particle diameter per phase id, micrometres
    ratio : the pair of phases whose ratio decides alone whether the contrast is severe; without it any pair does
    """
    ids = estimate.ids
    attenuation = np.array([item.linear_attenuation(wavelength) for item in references])
    density = np.array([item.density for item in references])
    masses = estimate.masses
    stated = np.array([name in sizes for name in ids])
    if not np.any(masses > 0.0):
        masses = np.ones(len(ids))

    def factors(diameter_um: FloatArray) -> tuple[FloatArray, FloatArray]:
        return mixture_ln_tau(masses, density, attenuation, diameter_um)

    size = np.array([sizes[name].value if name in sizes else math.nan for name in ids])
    draws = _normal_draws(DRAWS // 2, len(ids) + 1)
    ground = np.where(stated, size, _prior_diameters(GROUND_UM, draws))
    if_coarse = -factors(np.where(stated, size, COARSE_UM))[0]
    coarse = if_coarse + factors(ground)[0].mean(axis=0) if stated.any() else if_coarse
    # One grain of an alloy holds all its phases.
    alloy = np.array(["alloy" in item.flags for item in references]) & ~stated
    grains = attenuation.copy()
    if np.any(masses[alloy] > 0.0):
        grains[alloy] = (masses / density * attenuation)[alloy].sum() / (masses / density)[alloy].sum()
        ground[:, alloy] = ground[:, alloy][:, :1]
    is_severe = not stated.all() and _largest_change(coarse, ids, masses, ratio) > SEVERE_LN
    is_assumed = not stated.all() and _largest_change(coarse, ids, masses, None) <= SEVERE_LN
    tau = np.ones(len(ids))
    mean = float(masses / density @ attenuation / (masses / density).sum())
    if (stated.any() or is_assumed) and float(np.ptp(grains)) > 0.0:
        logarithm, means = mixture_ln_tau(masses, density, grains, ground)
        tau, mean = np.exp(logarithm.mean(axis=0)), float(means.mean())
    relative = np.array([_relative_su(sizes[name]) if name in sizes else 0.0 for name in ids])
    around = np.where(stated, size, 1.0) * np.exp(np.sqrt(np.log1p(relative**2)) * draws[:, 1:])
    prior = _prior_diameters(COARSE_PRIOR_UM if is_severe else GROUND_UM, draws)
    errors = np.log(tau) - factors(np.where(stated, around, prior))[0]
    # Only ratios of masses matter: the total is kept.
    errors -= np.log(np.exp(errors) @ (masses / tau) / (masses / tau).sum())[:, None]
    return AbsorptionContrast(
        ids=ids,
        attenuation=attenuation,
        mean=mean,
        diameter_um=np.where(stated, size, np.nan),
        tau=tau,
        ln_spread=errors.T @ errors / len(errors),
        coarse_shift=np.log(tau) + if_coarse,
        is_severe=bool(is_severe),
        is_assumed=bool(is_assumed),
    )


def _prior_diameters(range_um: tuple[float, float], draws: FloatArray) -> FloatArray:
    """Return diameters (n, p) of a prior at standard normal draws (n, 1 + p), the first column common to all phases."""
    low, high = range_um
    spread = 0.5 * math.log(high / low)
    standard = math.sqrt(SHARED) * draws[:, :1] + math.sqrt(1.0 - SHARED) * draws[:, 1:]
    diameters: FloatArray = np.minimum(math.sqrt(low * high) * np.exp(spread * standard), LARGEST_UM)
    return diameters


def _relative_su(size: Estimate) -> float:
    own = size.su / size.value if size.su is not None else SIZE_SU
    return math.hypot(own, SHAPE_SU)


def _largest_change(shift: FloatArray, ids: Sequence[str], masses: FloatArray, ratio: tuple[str, str] | None) -> float:
    """Return the largest |change of ln(m_p / m_q)|, of the ratio alone when it is given and fitted."""
    if ratio is not None and set(ratio) <= set(ids):
        numerator, denominator = (ids.index(name) for name in ratio)
        return float(abs(shift[numerator] - shift[denominator]))
    present = shift[masses > 0.002 * masses.sum()]
    return float(np.ptp(present)) if present.size else 0.0


def with_absorption(estimate: MassEstimate, contrast: AbsorptionContrast) -> MassEstimate:
    """Return the masses divided by tau, their covariances with them, and the row of the contrast."""
    masses = estimate.masses / contrast.tau
    both = np.outer(contrast.tau, contrast.tau)
    sources = {name: matrix / both for name, matrix in estimate.sources.items()}
    sources[ABSORPTION] = np.outer(masses, masses) * contrast.ln_spread
    return replace(estimate, masses=masses, sources=sources, robust=estimate.robust / both)


def widened(profile: WeakPhase, masses: FloatArray, contrast: AbsorptionContrast) -> WeakPhase:
    """Return a weak phase's interval with its masses corrected and widened by what remains of the contrast.

    Parameters
    ----------
    masses : of the fit, uncorrected
    """
    number = profile.number
    corrected = masses / contrast.tau
    others = np.where(np.arange(masses.size) == number, 0.0, corrected)
    if not others.sum() > 0.0:
        return profile
    gradient = -others / float(others.sum())
    gradient[number] = 1.0
    u = COVERAGE_FACTOR * math.sqrt(max(float(gradient @ contrast.ln_spread @ gradient), 0.0))

    def odds(of: FloatArray) -> float:
        rest = float(of.sum() - of[number])
        return float(of[number]) / rest if rest > 0.0 else 0.0

    def stretched(end: FloatArray, outward: float) -> FloatArray:
        reach = abs(math.log(odds(end) / odds(corrected))) if odds(end) > 0.0 < odds(corrected) else 0.0
        result = end.copy()
        result[number] *= math.exp(outward * (math.hypot(reach, u) - reach))
        return result

    low, high = profile.masses_low / contrast.tau, profile.masses_high / contrast.tau
    return replace(profile, masses_low=stretched(low, -1.0), masses_high=stretched(high, 1.0))


def brindley_class(attenuation: float, diameter_um: float) -> str:
    """Return Brindley's class of a powder by mu D: fine below 0.01, medium, coarse from 0.1, very coarse from 1."""
    thickness = 1e-4 * attenuation * diameter_um
    for limit, name in ((0.01, "fine"), (0.1, "medium"), (1.0, "coarse")):
        if thickness < limit:
            return name
    return "very coarse"


def absorption_findings(
    contrast: AbsorptionContrast, estimate: MassEstimate, *, ratio: tuple[str, str] | None
) -> list[Finding]:
    """Return `MICROABSORPTION_RISK` where coarse grains would move the ratio or a fraction beyond its interval.

    Parameters
    ----------
    estimate : with the row of the contrast
    ratio : the reported ratio
    """
    named = ", ".join(
        f"{name} {mu:.0f}/cm ({brindley_class(mu, COARSE_UM if math.isnan(size) else size)})"
        for name, mu, size in zip(contrast.ids, contrast.attenuation, contrast.diameter_um, strict=True)
    )
    if contrast.sizes_stated:
        reach = np.abs(contrast.attenuation - contrast.mean) * 0.5e-4 * contrast.diameter_um
        if float(reach.max()) <= 0.5:
            return []
        return [
            warning(
                Code.MICROABSORPTION_RISK,
                f"the stated grains reach |(mu - mean) R| = {float(reach.max()):.2f}, where the correction for "
                f"absorption contrast is no longer trusted (to 0.5): {named}; mean {contrast.mean:.0f}/cm",
                where=contrast.ids[int(np.argmax(reach))],
                suggestion="grind below 5 micrometres",
            )
        ]
    assumed = _assumption(contrast)
    moved = list(_beyond(contrast, estimate, ratio))
    if not moved and not contrast.is_severe:
        return assumed
    what = "; ".join(f"{name} by {100 * (math.exp(change) - 1.0):+.0f} %" for name, change in moved)
    grains = f"where no particle size is stated, grains of {COARSE_UM:g} micrometres would change "
    level = severe if contrast.is_severe else warning
    return [
        *assumed,
        level(
            Code.MICROABSORPTION_RISK,
            f"{grains}{what or 'the masses beyond trust'} by absorption contrast: {named}",
            where=moved[0][0] if moved else "",
            suggestion="state the sizes in [particle_size_um] of the method, or grind below 5 micrometres",
        ),
    ]


def _assumption(contrast: AbsorptionContrast) -> list[Finding]:
    """Return what was corrected for sizes nobody stated, nothing where it is less than `INFORM_LN`."""
    change = -np.log(contrast.tau)
    if not contrast.is_assumed or np.ptp(change) < INFORM_LN:
        return []
    least = int(np.argmin(change))
    named = ", ".join(
        f"{name} {100.0 * math.expm1(value - change[least]):+.1f} %"
        for number, (name, value) in enumerate(zip(contrast.ids, change, strict=True))
        if number != least
    )
    low, high = GROUND_UM
    return [
        info(
            Code.MICROABSORPTION_RISK,
            f"masses were corrected for the absorption contrast of grains of {low:g} to {high:g} micrometres, as no "
            f"particle size is stated: {named} against {contrast.ids[least]}",
            suggestion="state the sizes in [particle_size_um] of the method; 0 corrects nothing",
        )
    ]


def _beyond(
    contrast: AbsorptionContrast, estimate: MassEstimate, ratio: tuple[str, str] | None
) -> list[tuple[str, float]]:
    """Return what would change by more than `WARNING_LN` and its interval: name and change of its ln."""
    moved = []
    ids, masses, shift = estimate.ids, estimate.masses, contrast.coarse_shift
    if ratio is not None and set(ratio) <= set(ids):
        numerator, denominator = (ids.index(name) for name in ratio)
        if masses[numerator] > 0.0 and masses[denominator] > 0.0:
            u = math.sqrt(sum(estimate.variances(estimate.ln_ratio_gradient(numerator, denominator)).values()))
            change = float(shift[numerator] - shift[denominator])
            if abs(change) > max(WARNING_LN, 0.0 if contrast.is_severe else COVERAGE_FACTOR * u):
                moved.append(("/".join(ratio), change))
    total = math.log(float(np.exp(shift) @ estimate.fractions))
    for number, name in enumerate(ids):
        fraction = float(estimate.fractions[number])
        if fraction <= 1e-3 or len(ids) == 1:
            continue
        u = math.sqrt(sum(estimate.variances(estimate.fraction_gradient(number)).values())) / fraction
        change = float(shift[number]) - total
        if abs(change) > max(WARNING_LN, 0.0 if contrast.is_severe else COVERAGE_FACTOR * u):
            moved.append((name, change))
    return moved
