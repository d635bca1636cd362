"""What a user should judge: findings are part of the result, never log lines and never exceptions.

Every code stands once in `Code`; the place that detects a condition builds the `Finding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How much a finding matters; a severe one forces every affected verdict to `undecided`."""

    INFO = "info"
    WARNING = "warning"
    SEVERE = "severe"


class Code(StrEnum):
    """All finding codes, one line per reason."""

    # What the file held
    WAVELENGTH_ASSUMED = "WAVELENGTH_ASSUMED"  # neither file nor method names a wavelength
    NOT_COUNTS = "NOT_COUNTS"  # the numbers are rates, scaled or background-subtracted
    MULTIPLE_SCANS = "MULTIPLE_SCANS"  # the file holds several scans and one was chosen or they were summed
    DECIMAL_COMMA = "DECIMAL_COMMA"  # decimal commas were converted
    TRUNCATED_FILE = "TRUNCATED_FILE"  # fewer points than the header announces
    SPIKES_MASKED = "SPIKES_MASKED"  # detector spikes, narrower than the instrument can make, were left out
    POINTS_MASKED = "POINTS_MASKED"  # missing, infinite or negative values were left out
    POSITIONS_SORTED = "POSITIONS_SORTED"  # descending positions were sorted
    DUPLICATES_MERGED = "DUPLICATES_MERGED"  # repeated positions were merged
    SIGMA_COLUMN_IGNORED = "SIGMA_COLUMN_IGNORED"  # a column of zero or constant uncertainties was replaced by Poisson
    ATTENUATOR_APPLIED = "ATTENUATOR_APPLIED"  # attenuation factors were applied to the counts
    INDEX_COLUMN_SKIPPED = "INDEX_COLUMN_SKIPPED"  # a running index before 2theta was recognised
    RANGE_TOO_SHORT = "RANGE_TOO_SHORT"  # too few lines of a phase lie in the fitted range
    RADIUS_ASSUMED = "RADIUS_ASSUMED"  # no goniometer radius is known; displacement is relative to an assumed one
    READER_NOTE = "READER_NOTE"  # anything else the reader did that a user should know

    # What the fit showed
    NOT_CONVERGED = "NOT_CONVERGED"  # the minimiser stopped before the predicted decrease was small
    AT_BOUND = "AT_BOUND"  # a parameter ended on its bound
    POOR_FIT = "POOR_FIT"  # the model does not describe the diffractogram
    UNEXPLAINED_PEAK = "UNEXPLAINED_PEAK"  # a peak no phase explains
    PHASE_NOT_DETECTED = "PHASE_NOT_DETECTED"  # a phase is below its detection limit
    STRONG_TEXTURE = "STRONG_TEXTURE"  # preferred orientation is strong
    CELL_FAR_FROM_REFERENCE = "CELL_FAR_FROM_REFERENCE"  # a cell moved more than its prior expects
    COMPOSITION_FITTED = "COMPOSITION_FITTED"  # a phase of variable composition was fitted with more of an element
    TUBE_LINE_FITTED = "TUBE_LINE_FITTED"  # K-beta or another line of the tube was fitted on evidence
    SECOND_START_BETTER = "SECOND_START_BETTER"  # the annealed second start found the lower minimum

    # What the answer rests on
    MICROABSORPTION_RISK = "MICROABSORPTION_RISK"  # absorption contrast could move the answer beyond its interval
    AMORPHOUS_SUSPECTED = "AMORPHOUS_SUSPECTED"  # a hump, a spike or the nickel balance says part is not crystalline
    CANDIDATE_KEPT = "CANDIDATE_KEPT"  # a candidate phase was kept on evidence
    BROADENING_ANISOTROPIC = "BROADENING_ANISOTROPIC"  # widths depend on the direction in the crystal
    STANDARD_NOT_PURE = "STANDARD_NOT_PURE"  # a calibration standard shows lines of something else


@dataclass(frozen=True)
class Finding:
    """One thing a user should judge.

    Parameters
    ----------
    level : Level
    code : Code
    message : what was found, with its value and what was expected
    where : the place, such as a file line, a 2theta in degrees, or a phase id
    suggestion : what to do about it
    """

    level: Level
    code: Code
    message: str
    where: str = ""
    suggestion: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the analysis document."""
        return {
            "level": self.level.value,
            "code": self.code.value,
            "message": self.message,
            "where": self.where,
            "suggestion": self.suggestion,
        }


def info(code: Code, message: str, where: str = "", suggestion: str = "") -> Finding:
    """Return a finding that only informs."""
    return Finding(Level.INFO, code, message, where, suggestion)


def warning(code: Code, message: str, where: str = "", suggestion: str = "") -> Finding:
    """Return a finding that a user should look at."""
    return Finding(Level.WARNING, code, message, where, suggestion)


def severe(code: Code, message: str, where: str = "", suggestion: str = "") -> Finding:
    """Return a finding that forces affected verdicts to `undecided`."""
    return Finding(Level.SEVERE, code, message, where, suggestion)
