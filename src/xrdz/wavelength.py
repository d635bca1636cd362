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
