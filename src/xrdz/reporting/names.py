"""Names from files and sheets are data: made printable for a page, and harmless for a file system.

The invariant: `printable` keeps every visible character as it is and makes the invisible ones visible, so that two
names which differ also look different; `safe_file_name` returns only characters that every file system takes.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

MOST_CHARACTERS = 60
"""Longest file name `safe_file_name` returns."""

RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"com{k}" for k in range(10)), *(f"lpt{k}" for k in range(10))})
"""Names that Windows keeps for devices, whatever the suffix."""

CONTROL_PICTURES = 0x2400
"""Where Unicode shows the control characters 0 to 31 as symbols."""


def printable(text: str) -> str:
    """Return a text with each control, direction or broken character replaced by a visible sign for it.

    Tabs, line breaks and runs of blanks become one blank; what changes the direction of reading becomes its code,
    such as `<U+202E>`; a half character (of a file name in no encoding) becomes the replacement sign.
    """
    return "".join(map(_visible, " ".join(text.split())))


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cc":
        code = ord(character)
        return chr(CONTROL_PICTURES + code) if code < 32 else f"<U+{code:04X}>"
    if category == "Cs":
        return "\ufffd"
    if category in ("Cf", "Co", "Cn", "Zl", "Zp"):
        return f"<U+{ord(character):04X}>"
    return character


def safe_file_name(text: str) -> str:
    """Return a file name of ASCII letters, digits, dots, dashes and underscores that stands for a text.

    A text that had to be changed ends with six characters of its SHA-256, so that different texts have different names.
    """
    folded = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    kept = re.sub(r"[^A-Za-z0-9._-]+", "_", folded).strip("._-")
    reserved = kept.split(".")[0].lower() in RESERVED
    if kept and kept == text and len(kept) <= MOST_CHARACTERS and not reserved:
        return kept
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    stem = kept[: MOST_CHARACTERS - 7].rstrip("._-")
    if reserved:
        stem = f"scan_{stem}"[: MOST_CHARACTERS - 7]
    return f"{stem or 'scan'}-{mark}"
