"""Every attack and fault on identity and updates of the table `hil_tests.attacks`, one row each."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

import hil_tests.attacks
from hil_tests.attacks.row import Attack


def rows() -> list[Attack]:
    modules = [m.name for m in pkgutil.iter_modules(hil_tests.attacks.__path__) if m.name != "row"]
    return [row for name in sorted(modules) for row in importlib.import_module(f"hil_tests.attacks.{name}").ROWS]


@pytest.mark.parametrize("attack", rows(), ids=lambda a: f"{a.area}: {a.name}")
def test_it_comes_to_nothing(attack: Attack, tmp_path: Path) -> None:
    attack.run(tmp_path)


def test_no_row_is_there_twice() -> None:
    names = [(a.area, a.name) for a in rows()]
    assert len(set(names)) == len(names)
