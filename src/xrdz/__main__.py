"""`python -m xrdz` is `xrdz`."""

from __future__ import annotations

import sys

from xrdz.cli import main

if __name__ == "__main__":
    sys.exit(main())
