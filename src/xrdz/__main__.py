"""`python -m xrdz` is `xrdz`."""

from __future__ import annotations

from xrdz.cli import entry

if __name__ == "__main__":
    entry()
