from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from firmware_sim import faults, scenario
from firmware_sim.errors import ConfigError
from firmware_sim.scenario import Fault, Schedule

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "simulator.md"


def hits(fault: Fault, parts: int = 20) -> list[int]:
    schedule = Schedule((fault,))
    return [n for n in range(parts) if schedule.of(n, n * 0.1)]


def test_when() -> None:
    assert hits(Fault("black", part=0)) == [0]
    assert hits(Fault("black", part=3, count=2)) == [3, 4]
    assert hits(Fault("black", every=7)) == [7, 14]
    assert hits(Fault("black", every=7, count=2)) == [7, 8, 14, 15]
    assert hits(Fault("black", at_s=0.45, count=3)) == [5, 6, 7]
    assert hits(Fault("black", at_s=0.0)) == [0]


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(
        '[[fault]]\nkind = "no_answer"\nat_s = 2\nduration_ms = 900\n[[fault]]\nkind = "black"\nevery = 5\n'
    )
    silent, dark = scenario.load(file)
    assert (silent.at_s, silent.options) == (2.0, {"duration_ms": 900})
    assert (dark.every, dark.options) == (5, {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[[fault]]\nkind = "blak"\npart = 1', "did you mean 'black'"),
        ('[[fault]]\nkind = ["x"]\npart = 1', "unknown kind"),
        ('[[fault]]\nkind = "black"\nprt = 1', "did you mean 'part'"),
        ('[[fault]]\nkind = "black"\npart = 1\nduration_ms = 4', "unknown key 'duration_ms'"),
        ('[[fault]]\nkind = "black"', "exactly one of part, every, at_s"),
        ('[[fault]]\nkind = "black"\npart = 1\nevery = 2', "exactly one"),
        ('[[fault]]\nkind = "black"\npart = -1', "part is -1"),
        ('[[fault]]\nkind = "black"\nevery = 0', "every is 0"),
        ('[[fault]]\nkind = "black"\nat_s = nan', "at_s is nan"),
        ('[[fault]]\nkind = "black"\npart = true', "part is True"),
        ('[[fault]]\nkind = "wrap16"\npart = 1\nto = 65536', "at most 65535"),
        ("[fault]\nkind = 3", "list of [[fault]]"),
        ("faults = 3", "unknown key 'faults'"),
        ("[[fault", "cannot be read"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        scenario.load(file)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pictures_are_spoiled_as_named() -> None:
    rng = np.random.default_rng(1)
    sharp, before = rng.integers(0, 255, (60, 80), np.uint8), rng.integers(0, 255, (60, 80), np.uint8)
    assert faults.black(sharp, None).max() == 0
    assert faults.saturated(sharp, None).min() == 255
    assert np.array_equal(faults.frozen(sharp, before), before)
    assert np.array_equal(faults.frozen(sharp, None), sharp)
    assert np.diff(faults.blurred(sharp, None).astype(int)).std() < 0.2 * np.diff(sharp.astype(int)).std()
    covered = faults.occluded(sharp, None)
    assert covered[:, :56].std() == 0
    assert np.array_equal(covered[:, 56:], sharp[:, 56:])
    for kind in faults.KINDS.values():
        if kind.picture is not None:
            assert kind.picture(sharp, before).shape == sharp.shape
            assert kind.picture(np.dstack([sharp] * 3), None).dtype == np.uint8


def test_the_reference_page_prints_the_kinds_of_the_code() -> None:
    assert faults.docs_table() in DOCS.read_text(encoding="utf-8")
