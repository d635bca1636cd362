"""The README is a transcript: its commands exist, its output is today's, its example runs, its links lead somewhere."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from xrdz.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SHELL = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
OUTPUT = next(text for kind, text in BLOCKS if kind == "text")
SET_UP = [line for line in SHELL if line.startswith("python3 -m venv")]
VALUE_WITH_SU = re.compile(r"(\d+\.\d+)\((\d+)\)")


def words(text: str) -> set[str]:
    """Return the words of a table without its numbers, hash, budget and wrapping."""
    kept = re.sub(r"uncertainty of ln Z.*?together [\d.]+ %|sha256 [0-9a-f]+", "", text, flags=re.DOTALL)
    return set(re.findall(r"[A-Za-z][A-Za-z_-]+", kept))


def test_two_single_lines_do_all_the_setting_up() -> None:
    fit, test = SET_UP
    assert fit.startswith("python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/xrdz fit ")
    assert test == 'python3 -m venv .venv && .venv/bin/pip install -q -e ".[test]" && .venv/bin/pytest -q'


def test_the_output_shown_is_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = shlex.split(SET_UP[0].partition(".venv/bin/xrdz ")[2])
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "96")
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert (tmp_path / "snni_z1.00_clean.png").is_file()
    assert words(shown) == words(OUTPUT)
    for now, then in zip(VALUE_WITH_SU.findall(shown), VALUE_WITH_SU.findall(OUTPUT), strict=True):
        unit = 10.0 ** -len(then[0].partition(".")[2])
        assert abs(float(now[0]) - float(then[0])) <= 2.0 * int(then[1]) * unit, "paste the README's output again"


def test_the_python_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [kind for kind, _ in BLOCKS]
    place = kinds.index("python")
    monkeypatch.chdir(ROOT)
    printed = io.StringIO()
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(printed):
        exec(BLOCKS[place][1], names)
    assert words(printed.getvalue()) == words(BLOCKS[place + 1][1])
    assert names["document"]["schema"] == "xrdz.analysis/1"  # type: ignore[index]


def test_commands_that_are_named_exist(capsys: pytest.CaptureFixture[str]) -> None:
    named = set(re.findall(r"`?xrdz ([a-z]+)\b", "\n".join(text for kind, text in BLOCKS if kind in ("sh", "text"))))
    assert named <= set(COMMANDS)
    for command in sorted(named):
        assert main([command, "--help"]) == 0
        assert "example" in capsys.readouterr().out


def test_options_that_are_named_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help"]) == 0
    known = capsys.readouterr().out
    for option in re.findall(r"`(--[a-z]+)", README):
        assert option in known or option == "--help", option


def test_links_lead_to_files_of_the_project() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_exit_codes_are_those_of_the_program() -> None:
    from xrdz.commands.fit import BAD_INPUT, FIT_FAILED, NOT_MET

    table = dict(re.findall(r"^\| (\d) \| (.*?) \|$", README, re.MULTILINE))
    assert list(table) == ["0", "1", "2", "3", "4"]
    assert (NOT_MET, BAD_INPUT, FIT_FAILED) == (1, 2, 3)


def test_no_registry_is_named() -> None:
    files = [ROOT / name for name in ("README.md", "CHANGELOG.md", "pyproject.toml", ".ci/run")]
    for path in files:
        assert not re.search(r"index-url|pypi\.org|pythonhosted|conda\.io", path.read_text(encoding="utf-8")), path


def test_the_changelog_knows_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_checks_of_a_change_can_be_run() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text(encoding="utf-8")
