"""Numbers as text files write them: decimal points or commas, grouped thousands, Fortran exponents, missing values.

One conversion is judged from all tokens of a table together, since `1,234` alone could be either; whatever stays
ambiguous is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdz.diffractogram import FloatArray
from xrdz.errors import InputError
from xrdz.findings import Code, Finding, info

PLAIN_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?\Z")
_FORTRAN_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+))[dD]([-+]?\d{1,3})\Z")
_NOT_A_VALUE = re.compile(r"[-+]?(?:nan|inf|infinity|n/a|na|null|1\.#\w+|-nan\(ind\))\Z", re.IGNORECASE)
_COMMA_NUMBER = re.compile(r"[-+]?[\d.,']*\d[\d.,']*(?:[eEdD][-+]?\d{1,3})?\Z")
_THOUSANDS_COMMA = re.compile(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?\Z")
_THOUSANDS_DOT = re.compile(r"[-+]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d*)?\Z")
_THOUSANDS_APOSTROPHE = re.compile(r"[-+]?[1-9]\d{0,2}(?:'\d{3})+(?:\.\d*)?\Z")

UNSIGNED_DECIMAL = b"0123456789. \t\n"
"""The characters of numbers without sign and exponent, and of the blanks between them."""

EXACT_DIGITS = 15
"""Decimal digits of which every whole number is a float64."""

_POWERS_OF_TEN = 10.0 ** np.arange(EXACT_DIGITS + 1)


@dataclass(frozen=True)
class Row:
    """The tokens of one line, and its number in the file."""

    line: int
    tokens: list[str]


def tokens_of(stripped: str) -> list[str]:
    """Return the tokens of a row: split at semicolons or tabs if there are any, else at commas or blanks."""
    if ";" in stripped:
        return [token.strip().strip('"') for token in stripped.rstrip(";").split(";")]
    if "\t" in stripped:
        return [token.strip().strip('"') for token in stripped.split("\t") if token.strip()]
    if "," in stripped and (" " not in stripped or re.search(r",\s", stripped)):
        return [token.strip().strip('"') for token in stripped.rstrip(",").split(",")]
    return stripped.split()


def looks_numeric(token: str) -> bool:
    """Return whether a token can be a number in any of the forms, or stands for a missing one."""
    forms = (PLAIN_NUMBER, _COMMA_NUMBER, _FORTRAN_NUMBER, _NOT_A_VALUE)
    return any(form.match(token) for form in forms)


def decimals_of(
    block: bytes, characters: NDArray[np.uint8], begins: NDArray[np.intp], ends: NDArray[np.intp]
) -> FloatArray | None:
    """Return the values of all tokens of a text when each is digits with at most one point, else None.

    A number of at most 15 digits is a whole number n over 10^k, and both are float64 without rounding; their quotient
    is rounded once, as IEEE 754 has it, and so is the same float64 that `float` makes of the token.

    Parameters
    ----------
    block : the text, of `UNSIGNED_DECIMAL` characters alone
    characters : shape (c,), the text after one more line end
    begins, ends : shape (t,), indices of `characters`: before the first and of the last character of each token
    """
    if int((ends - begins).max()) > EXACT_DIGITS:
        return None
    points = np.flatnonzero(characters == ord("."))
    token = np.searchsorted(begins, points) - 1
    if bool(np.any(token[1:] == token[:-1])):
        return None
    whole = np.fromstring(block.translate(None, b"."), dtype=np.int64, sep=" ")
    if whole.size != begins.size:
        return None
    values = whole.astype(np.float64)
    values[token] /= _POWERS_OF_TEN[ends[token] - points]
    return values


def value_of(token: str, place: str, line: int) -> float:
    """Return the value of a token with a decimal point.

    Raises
    ------
    InputError
        If it is no number; the message names the line.
    """
    if PLAIN_NUMBER.match(token):
        return float(token)
    fortran = _FORTRAN_NUMBER.match(token)
    if fortran:
        return float(f"{fortran.group(1)}e{fortran.group(2)}")
    if _NOT_A_VALUE.match(token):
        return float("inf") if "inf" in token.lower() else float("nan")
    raise InputError(f"{place} line {line}: {token[:40]!r} is not a number; correct it or export the scan again")


def refuse_split_decimals(rows: list[Row], place: str) -> None:
    """Refuse `20,02,862`: the comma both marks decimals and separates columns, so whole numbers follow each other."""
    if len(rows[0].tokens) < 3 or not all(row.tokens[0].isdecimal() for row in rows):
        return
    split = next((row for row in rows if re.fullmatch(r"0\d+", row.tokens[1])), None)
    if split is not None:
        raise InputError(
            f"{place} line {split.line}: {','.join(split.tokens)[:40]!r} is ambiguous: the comma could mark decimals"
            " or separate columns; export with decimal points, or with semicolons between columns"
        )


def number_format(rows: list[Row], place: str) -> tuple[Callable[[str], str], tuple[Finding, ...]]:
    """Return the conversion of one token to a plain number, judged from all tokens together, and what to say of it.

    Raises
    ------
    InputError
        If commas could mark decimals or group thousands.
    """
    tokens = [token for row in rows for token in row.tokens if not _NOT_A_VALUE.match(token)]
    grouped = [token for token in tokens if "'" in token]
    findings: tuple[Finding, ...] = ()
    if grouped:
        wrong = next((token for token in grouped if not _THOUSANDS_APOSTROPHE.match(token)), None)
        if wrong is not None:
            raise InputError(f"{place} line {rows[0].line}: {wrong[:40]!r} is not a number; export with decimal points")
        findings = (_note("apostrophes group thousands", grouped[0], place),)
    convert, more = _comma_format(rows, tokens, place)
    return (lambda token: convert(token.replace("'", ""))), (*findings, *more)


def _note(what: str, token: str, place: str) -> Finding:
    return info(Code.READER_NOTE, f"{what}, as in {token[:40]!r}", place)


def _comma_format(rows: list[Row], tokens: list[str], place: str) -> tuple[Callable[[str], str], tuple[Finding, ...]]:
    comma, dot = [token for token in tokens if "," in token], [token for token in tokens if "." in token]
    where = f"{place} line {rows[0].line}"
    if not comma:
        return str, ()
    if not dot:
        _refuse_doubtful_groups(rows, comma[0], where)
        note = info(Code.DECIMAL_COMMA, f"decimal commas, as in {comma[0][:40]!r}, were converted", place)
        return (lambda token: token.replace(",", ".")), (note,)
    both = next((token for token in dot if "," in token), "")
    if both.rfind(",") > both.rfind(".") and all(_THOUSANDS_DOT.match(token) for token in dot):
        text = f"decimal commas with dots for thousands, as in {both[:40]!r}, were converted"
        return (lambda token: token.replace(".", "").replace(",", ".")), (info(Code.DECIMAL_COMMA, text, place),)
    if all(_THOUSANDS_COMMA.match(token) for token in comma):
        return (lambda token: token.replace(",", "")), (_note("commas group thousands", comma[0], place),)
    raise InputError(
        f"{where}: {comma[0][:40]!r} and {dot[0][:40]!r} in one file: which of comma and point marks the decimals is"
        " ambiguous; export with decimal points alone"
    )


def _refuse_doubtful_groups(rows: list[Row], example: str, where: str) -> None:
    """Refuse a column, other than the first, where only some numbers hold a comma and each could group thousands."""
    for column in list(zip(*(row.tokens for row in rows), strict=True))[1:]:
        with_comma = [token for token in column if "," in token]
        without = next((token for token in column if "," not in token), None)
        if with_comma and without is not None and all(_THOUSANDS_COMMA.match(token) for token in with_comma):
            raise InputError(
                f"{where}: {example[:40]!r} and {without[:40]!r} in one file: the comma could mark decimals or"
                " thousands; export with decimal points"
            )
