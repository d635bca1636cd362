"""X-ray tube emission lines: positions and relative weights of the K-alpha doublets.

Positions of the line maxima in angstrom. Cr, Fe, Co, Cu: Hölzer, Fritsch, Deutsch, Härtwig & Förster 1997,
Phys. Rev. A 56, 4554; Mo, Ag: Deslattes, Kessler, Indelicato, de Billy, Lindroth & Anton 2003,
Rev. Mod. Phys. 75, 35. The weight of K-alpha2 is the statistical 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

from xrdz.errors import InputError

HC_KEV_ANGSTROM = 12.398419843320026
"""Planck constant times speed of light, keV angstrom (exact in the 2019 SI)."""


@dataclass(frozen=True)
class Wavelength:
    """The emission lines a scan was measured with.

    Parameters
    ----------
    lines : pairs (wavelength in angstrom, relative weight); the first is the principal line
    name : such as "CuKa" when the lines are those of a tube, else ""
    origin : "file", "method" or "default"
    """

    lines: tuple[tuple[float, float], ...]
    name: str = ""
    origin: str = "file"

    def __post_init__(self) -> None:
        if not self.lines:
            raise InputError("wavelength: no line given; expected at least one [angstrom, weight] pair")
        for angstrom, weight in self.lines:
            if not (0.1 <= angstrom <= 5.0):
                raise InputError(f"wavelength {angstrom!r} angstrom is outside 0.1 to 5; give it in angstrom")
            if not (0.0 < weight <= 1e6):
                raise InputError(f"wavelength {angstrom!r}: weight {weight!r} is not positive")

    @property
    def principal(self) -> float:
        """Wavelength of the first line, angstrom."""
        return self.lines[0][0]

    @property
    def anode(self) -> str:
        """Chemical symbol of the tube anode recognised from the principal line, or ""."""
        for name, lines in EMISSION_LINES.items():
            if abs(lines[0][0] - self.principal) < 3e-4 * self.principal:
                return name[:2]
        return ""


EMISSION_LINES = MappingProxyType(
    {
        "CrKa": ((2.2897260, 1.0), (2.2936510, 0.5)),
        "FeKa": ((1.9360410, 1.0), (1.9399730, 0.5)),
        "CoKa": ((1.7889960, 1.0), (1.7928350, 0.5)),
        "CuKa": ((1.5405929, 1.0), (1.5444274, 0.5)),
        "MoKa": ((0.70931715, 1.0), (0.7136070, 0.5)),
        "AgKa": ((0.55942178, 1.0), (0.5638131, 0.5)),
    }
)


def wavelength_from_name(name: str, *, origin: str = "method") -> Wavelength:
    """Return the emission lines of a tube by name: `CuKa`, or `CuKa1` for its first line alone.

    Raises
    ------
    InputError
        If the name is unknown; the message lists the nearest known name.
    """
    if name in EMISSION_LINES:
        return Wavelength(EMISSION_LINES[name], name, origin)
    if name.endswith("1") and name[:-1] in EMISSION_LINES:
        return Wavelength((EMISSION_LINES[name[:-1]][0],), name, origin)
    known = [*EMISSION_LINES, *(f"{key}1" for key in EMISSION_LINES)]
    nearest = get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise InputError(f"wavelength {name!r} is not known{hint} Known: {', '.join(known)}")


@dataclass(frozen=True)
class TubeLine:
    """A line a tube emits besides its K-alpha doublet.

    Parameters
    ----------
    angstrom : position
    largest_share : of the K-alpha intensity, which no filter leaves
    """

    label: str
    angstrom: float
    largest_share: float


TUBE_LINES = MappingProxyType(
    {
        "Cr": (TubeLine("K-beta", 2.08492, 0.25),),
        "Fe": (TubeLine("K-beta", 1.75664, 0.25),),
        "Co": (TubeLine("K-beta", 1.62082, 0.25),),
        "Cu": (TubeLine("K-beta", 1.39225, 0.25), TubeLine("W L-alpha", 1.47639, 0.05)),
        "Mo": (TubeLine("K-beta", 0.632303, 0.25),),
        "Ag": (TubeLine("K-beta", 0.497082, 0.25),),
    }
)
"""K-beta1, and L-alpha1 of tungsten from the filament; Bearden 1967, Rev. Mod. Phys. 39, 78."""


def tube_lines(wavelength: Wavelength) -> tuple[TubeLine, ...]:
    """Return the other lines of the tube whose K-alpha a wavelength is; none where a scan lists them itself."""
    listed = [angstrom for angstrom, _ in wavelength.lines]
    return tuple(
        line
        for line in TUBE_LINES.get(wavelength.anode, ())
        if all(abs(angstrom / line.angstrom - 1.0) > 2e-3 for angstrom in listed)
    )


@dataclass(frozen=True)
class EmissionLine:
    """One Lorentzian of a tube's emission profile.

    Parameters
    ----------
    angstrom : position
    weight : share of the total emission
    fwhm : full width at half maximum, angstrom
    principal : index of the listed line it belongs to
    satellite : whether it belongs to the satellite group, whose share is refined
    """

    angstrom: float
    weight: float
    fwhm: float
    principal: int
    satellite: bool = False


# Cu K-alpha: energies, areas and widths of the two pairs from Hölzer et al. 1997, Phys. Rev. A 56, 4554, table II, as
# (offset from the line's maximum, relative area within the line, width), milliangstrom; the K-alpha3,4 satellite group
# from Berger 1986, X-Ray Spectrom. 15, 241: area share, position and width in angstrom.
_CU_PAIRS = (
    ((0.0, 0.8786, 0.437), (0.473, 0.1214, 0.643)),
    ((0.0, 0.6921, 0.513), (0.286, 0.3079, 0.687)),
)
_CU_SATELLITE = (1.534753, 0.0125, 3.69e-3)

SATELLITE_SHARE = (_CU_SATELLITE[1], 0.005)
"""Share of the satellite group and its standard uncertainty; published values go from 0.6 % to 1.6 %."""


def emission_profile(wavelength: Wavelength) -> tuple[EmissionLine, ...]:
    """Return the Lorentzians a scan's lines really consist of; plain sharp lines where the profile is not tabulated.

    The listed lines keep their relative weights. A doublet of copper gets the pairs and the satellite group of its
    emission spectrum; a single K-alpha1 is taken as monochromatised, without satellites.
    """
    total = sum(weight for _, weight in wavelength.lines)
    if wavelength.anode != "Cu" or len(wavelength.lines) > 2:
        return tuple(
            EmissionLine(angstrom, weight / total, 0.0, k) for k, (angstrom, weight) in enumerate(wavelength.lines)
        )
    doublet = len(wavelength.lines) == 2
    share = 1.0 - _CU_SATELLITE[1] if doublet else 1.0
    profile = [
        EmissionLine(angstrom + 1e-3 * offset, share * weight / total * area, 1e-3 * fwhm, k)
        for k, ((angstrom, weight), pair) in enumerate(zip(wavelength.lines, _CU_PAIRS, strict=False))
        for offset, area, fwhm in pair
    ]
    if doublet:
        scale = wavelength.principal / EMISSION_LINES["CuKa"][0][0]
        profile.append(EmissionLine(_CU_SATELLITE[0] * scale, _CU_SATELLITE[1], _CU_SATELLITE[2], 0, True))
    return tuple(profile)
