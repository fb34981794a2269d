"""The how-to says what the command does: its view is one, its options and kinds are all of them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from edge_runtime.wire.series import FEATURE_KINDS, parse_view
from tools.pdm import train_cli
from tools.pdm.members import MEMBERS

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "predictive-maintenance.md").read_text(encoding="utf-8")


def test_the_view_of_the_page_is_one() -> None:
    example = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert example
    view = parse_view(tomllib.loads(example.group(1)))
    assert [name for name, _ in view.columns()] == [
        "mean(flow,5)",
        "mean(vibration,5)",
        "slope(flow)",
        "corr(flow|vibration)",
    ]


def test_every_kind_model_and_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for name in (*FEATURE_KINDS, *MEMBERS):
        assert f"`{name}`" in PAGE, name
    with pytest.raises(SystemExit):
        train_cli.parse(["--help"])
    options = set(re.findall(r"--[a-z0-9-]+", capsys.readouterr().out))
    obvious = {"--help", "--data", "--out", "--name", "--bundle-version", "--epochs", "--seed", "--threads"}
    for option in options - obvious:
        assert option in PAGE, option
