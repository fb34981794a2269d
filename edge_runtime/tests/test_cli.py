"""The command table and what the command says when something is missing or wrong."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path

import pytest

from edge_runtime import __version__, cli, errors
from edge_runtime.cli import COMMANDS, Command

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_target_of_a_command_exists(name: str) -> None:
    """Read from the source, so that no optional package is needed."""
    module, function = COMMANDS[name].target.split(":")
    file = ROOT / (module.replace(".", "/") + ".py")
    if not file.exists():
        pytest.skip(f"{module} is not in this tree")
    assert f"\ndef {function}(" in file.read_text()


def test_extras_are_those_of_the_project_file() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {extra for c in COMMANDS.values() for extra in c.extra.split(",")} <= set(known)


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(args) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out and c.help in out for name, c in COMMANDS.items())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"gudgeon {__version__}\n"


@pytest.mark.parametrize(("typed", "hint"), [("instal", "did you mean 'install'?"), ("zzzzzz", "see gudgeon --help")])
def test_an_unknown_command_names_the_nearest(typed: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([typed]) == 2
    err = capsys.readouterr().err
    assert hint in err
    assert err.count("\n") == 1


def run_entry(monkeypatch: pytest.MonkeyPatch, error: BaseException | None, code: int | None = 0) -> int:
    def entry(args: list[str]) -> int | None:
        if error is not None:
            raise error
        return code

    monkeypatch.setattr(cli, "entry_for_test", entry, raising=False)
    monkeypatch.setitem(COMMANDS, "try", Command("edge_runtime.cli:entry_for_test", "edge", "for the test"))
    return cli.main(["try"])


def test_errors_become_one_line_and_their_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds: list[type[errors.GudgeonError]] = [errors.GudgeonError, *errors.GudgeonError.__subclasses__()]
    for kind in kinds:
        assert run_entry(monkeypatch, kind("it broke")) == kind.exit_code
        assert capsys.readouterr().err == "gudgeon try: it broke\n"


def test_other_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_entry(monkeypatch, None) == 0
    assert run_entry(monkeypatch, None, None) == 0
    assert run_entry(monkeypatch, None, 3) == 3
    assert run_entry(monkeypatch, KeyboardInterrupt()) == 130
    assert run_entry(monkeypatch, BrokenPipeError()) == 0


def test_a_missing_package_names_the_install_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert importlib.util.find_spec("no_such_package") is None
    monkeypatch.setitem(COMMANDS, "try", Command("no_such_package.main:main", "cloud", "for the test"))
    assert cli.main(["try"]) == 7
    err = capsys.readouterr().err
    assert "needs the Python package 'no_such_package'" in err
    assert "pip install 'gudgeon[cloud]'" in err
