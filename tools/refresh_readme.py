"""Paste today's output and plot into the README: `python tools/refresh_readme.py` from the project's root.

Every text block that follows a command or an example is replaced by what that command prints now.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from pathlib import Path

from xrdz.cli import main

ROOT = Path(__file__).resolve().parent.parent
TERMINAL_COLUMNS = "96"


def refreshed(readme: str) -> str:
    """Return the README with the first text block and the one after the Python example written anew."""
    command = re.search(r"^python3 -m venv .*?\.venv/bin/xrdz (.*)$", readme, re.MULTILINE)
    example = re.search(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert command is not None
    assert example is not None
    fitted = io.StringIO()
    with contextlib.redirect_stdout(fitted):
        code = main([*shlex.split(command[1]), "--out", "docs"])
    assert code == 0
    (ROOT / "docs" / "snni_z1.00_clean.json").unlink()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(example[1], {})
    table = re.sub(r"^wrote .*\n", "", fitted.getvalue(), flags=re.MULTILINE) + "wrote snni_z1.00_clean.png\n"
    readme = re.sub(r"(?<=```text\n).*?(?=^```$)", lambda _: table, readme, count=1, flags=re.MULTILINE | re.DOTALL)
    place = readme.index("```text\n", readme.index("```python\n")) + len("```text\n")
    return readme[:place] + printed.getvalue() + readme[readme.index("```", place) :]


if __name__ == "__main__":
    os.chdir(ROOT)
    os.environ["COLUMNS"] = TERMINAL_COLUMNS
    path = ROOT / "README.md"
    path.write_text(refreshed(path.read_text(encoding="utf-8")), encoding="utf-8")
