"""The few exceptions a user can meet; each message names the object, the value, the expectation and the remedy."""

from __future__ import annotations


class XrdzError(Exception):
    """Base of every error this package raises on purpose; the command line prints it as one line."""

    exit_code = 2


class InputError(XrdzError):
    """A file or a value cannot be used: bad diffractogram, method, CIF or option (exit code 2)."""


class FitError(XrdzError):
    """The refinement could not be carried out at all (exit code 3)."""

    exit_code = 3
