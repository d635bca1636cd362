"""Phase fractions, the Ni3Sn4/Sn mass ratio and an honest uncertainty from X-ray powder diffractograms.

>>> import xrdz
>>> xrdz.__version__
'0.1.0'
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

__all__ = ["__version__", "analyse", "batch", "read"]

_HOMES = {"read": "xrdz.readers", "analyse": "xrdz.pipeline", "batch": "xrdz.batching"}
"""Where each public function lives; it is imported on first use, so that `import xrdz` stays instant."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'xrdz' has no attribute {name!r}; it offers {', '.join(__all__)}")
    public = getattr(import_module(_HOMES[name]), name)
    globals()[name] = public
    return public


def __dir__() -> list[str]:
    return __all__
