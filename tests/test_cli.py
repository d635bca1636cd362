"""The command line's front: quick without numpy, one line per error, exit codes, help with an example everywhere."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import xrdz
from xrdz import cli
from xrdz.errors import FitError, InputError

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "xrdz", *arguments], capture_output=True, text=True, check=False, timeout=120
    )


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from parsers(child)


ALL_PARSERS = list(parsers(cli.build_parser()))


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"xrdz {project['version']}\n")
    assert project["version"] == xrdz.__version__


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["method", "--help"], ["claims", "--help"], ["nonsense"], [], ["--nonsense"]],
)
def test_help_version_and_usage_errors_import_no_numpy(arguments: list[str]) -> None:
    code = "import sys; from xrdz.cli import main; main(sys.argv[1:]); sys.exit(7 if 'numpy' in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["--nonsense"], ["method", "check"], ["claims", "--she", "x"]])
def test_a_usage_error_is_one_line_that_names_the_help(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("xrdz: error: ")
    assert "--help'" in done.stderr


def test_an_input_error_is_one_line_and_debug_adds_the_traceback_before_or_after_the_command() -> None:
    plain = run("method", "check", "nowhere.toml")
    assert plain.returncode == 2
    assert (
        plain.stderr == "xrdz: error: nowhere.toml: cannot be read (No such file or directory); expected a TOML file\n"
    )
    for arguments in (["--debug", "method", "check", "x.toml"], ["method", "check", "x.toml", "--debug"]):
        done = run(*arguments)
        assert done.returncode == 2
        assert "Traceback" in done.stderr
        assert done.stderr.splitlines()[-1].startswith("xrdz: error: x.toml")


@pytest.mark.parametrize("parser", ALL_PARSERS, ids=lambda parser: parser.prog)
def test_every_help_has_an_example_and_explains_every_option(parser: argparse.ArgumentParser) -> None:
    assert "example" in parser.format_help()
    for action in parser._actions:
        assert action.help or isinstance(action, argparse._SubParsersAction), f"{parser.prog} {action.dest}"


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (InputError("a.xy line 3: bad"), 2, "a.xy line 3: bad"),
        (FitError("two\nlines"), 3, "two lines"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (PermissionError(13, "Permission denied", "out.json"), 2, "out.json: Permission denied"),
        (ZeroDivisionError("float division"), 3, "internal error, ZeroDivisionError: float division"),
    ],
)
def test_every_exception_becomes_a_line_and_an_exit_code(
    raised: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_and_fail(_args: argparse.Namespace) -> int:
        raise raised

    def parser_that_fails() -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser()
        parser.set_defaults(run=run_and_fail)
        return parser

    monkeypatch.setattr(cli, "build_parser", parser_that_fails)
    assert cli.main([]) == code
    shown = capsys.readouterr()
    assert shown.err.startswith(f"xrdz: error: {said}")
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m xrdz method schema | {sys.executable} -c 'pass'"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_debug_after_a_double_dash_is_an_argument() -> None:
    assert cli._without_debug(["a", "--debug", "--", "--debug"]) == (["a", "--", "--debug"], True)


def test_importing_the_package_is_light_and_its_names_are_listed() -> None:
    code = "import sys, xrdz; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert set(dir(xrdz)) >= {"read", "analyse", "batch", "__version__"}
    with pytest.raises(AttributeError, match="no attribute 'analyze'"):
        xrdz.analyze  # noqa: B018


def test_a_public_name_is_imported_on_first_use() -> None:
    assert callable(xrdz.read)


def test_method_new_check_and_schema(tmp_path: Path) -> None:
    path = tmp_path / "method.toml"
    assert run("method", "new", str(path)).returncode == 0
    assert path.read_text() == run("method", "new").stdout
    again = run("method", "new", "--out", str(path))
    assert again.returncode == 2
    assert "exists already" in again.stderr
    checked = run("method", "check", str(path))
    assert checked.returncode == 0
    document = json.loads(run("method", "check", str(path), "--json").stdout)
    assert document["sha256"] in checked.stdout
    assert document["phases"] == ["sn", "ni3sn4"]
    assert json.loads(run("method", "schema").stdout)["title"] == "xrdz method"
    assert json.loads(run("method", "schema", "--instrument").stdout)["title"] == "xrdz instrument"


def test_method_check_knows_the_reference_library(tmp_path: Path) -> None:
    path = tmp_path / "method.toml"
    path.write_text('phases = ["sn", "ni3sn5"]')
    done = run("method", "check", str(path))
    assert done.returncode == 2
    assert "ni3sn4" in done.stderr


def test_claims_from_a_sheet(tmp_path: Path) -> None:
    path = tmp_path / "sheet.csv"
    path.write_text("file,ni_mass_percent,ni_u\na.xy,15,0.2\nb.xy,3,0.2\n")
    lines = run("claims", "--sheet", str(path), "--json").stdout.splitlines()
    first, second = (json.loads(line) for line in lines)
    assert first["schema"] == "xrdz.claims/1"
    assert [claim["verdict"] for claim in first["claims"]][:2] == ["met", "met"]
    assert {claim["verdict"] for claim in second["claims"]} == {"not_met"}
    text = run("claims", "--sheet", str(path)).stdout
    assert text.startswith("a.xy\nclaim 1  met")
    method = tmp_path / "method.toml"
    method.write_text('[decision]\nrule = "simple"')
    judged = json.loads(run("claims", "--sheet", str(path), "--method", str(method), "--json").stdout.splitlines()[0])
    assert judged["claims"][1]["rule"].startswith("simple acceptance")
