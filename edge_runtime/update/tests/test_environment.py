"""Environments of runtime releases: made whole or not at all, refused where a wheel wants more than its place."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_runtime import launcher
from edge_runtime.errors import BundleError, ResourceError
from edge_runtime.tests.releases import SHA_A, SHA_B, release, small, wheel
from edge_runtime.update import environment
from edge_runtime.wire.release import Needs

HERE = environment.this_machine()


def packages(made: Path) -> Path:
    return next(made.glob("lib*/python*/site-packages"))


def test_it_runs_what_is_in_it_and_nothing_else(tmp_path: Path) -> None:
    made = environment.make(small(tmp_path / "r"), tmp_path / "runtimes", SHA_A)
    script = "import sys, thing; print(thing.X, thing.__cached__); sys.path.pop(); import numpy"
    done = subprocess.run([made / "bin/python", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split()[0] == "1"
    assert "__pycache__" in done.stdout
    assert "No module named 'numpy'" in done.stderr
    assert environment.problem(made) == launcher.problem(made) == ""


def test_made_once_and_left_alone(tmp_path: Path) -> None:
    made = environment.make(small(tmp_path / "r"), tmp_path / "runtimes", SHA_A)
    before = {p: p.lstat().st_ino for p in made.rglob("*")}
    assert environment.make(tmp_path / "r", tmp_path / "runtimes", SHA_A) == made
    assert {p: p.lstat().st_ino for p in made.rglob("*")} == before


def test_the_same_release_makes_the_same_environment(tmp_path: Path) -> None:
    a = environment.make(small(tmp_path / "r"), tmp_path / "1", SHA_A)
    b = environment.make(small(tmp_path / "r"), tmp_path / "2", SHA_A)
    assert (a / "digests").read_bytes() == (b / "digests").read_bytes()


def lead_elsewhere(made: Path) -> None:
    (made / "bin/python").unlink()
    (made / "bin/python").symlink_to("/bin/true")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a byte": lambda made: (packages(made) / "thing/data.txt").write_text("dat"),
    "a compiled file": lambda made: next(packages(made).rglob("*.pyc")).write_bytes(b""),
    "a missing file": lambda made: (packages(made) / "thing/data.txt").unlink(),
    "a further file": lambda made: (packages(made) / "x.pth").write_text("import os\n"),
    "another interpreter": lead_elsewhere,
    "the list": lambda made: (made / "digests").write_text(""),
    "the list, one line": lambda made: (made / "digests").write_bytes((made / "digests").read_bytes()[:-70]),
    "the list, gone": lambda made: (made / "digests").unlink(),
    "everything": lambda made: shutil.rmtree(made / "lib"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_by_both_and_mended(damage: str, tmp_path: Path) -> None:
    made = environment.make(small(tmp_path / "r"), tmp_path / "runtimes", SHA_A)
    DAMAGES[damage](made)
    assert environment.problem(made)
    assert launcher.problem(made)
    assert environment.make(tmp_path / "r", tmp_path / "runtimes", SHA_A) == made
    assert environment.problem(made) == launcher.problem(made) == ""


OK = {"thing/__init__.py": ""}
REFUSED = [
    ("../up.py", "not a plain path"),
    ("thing/../../up.py", "not a plain path"),
    ("/etc/passwd", "not a plain path"),
    ("thing//a.py", "not a plain path"),
    ("thing\\a.py", "not a plain path"),
    ("a\n.py", "not a plain path"),
    ("x" * 301, "not a plain path"),
    ("evil.pth", "whenever Python starts"),
    ("sitecustomize.py", "whenever Python starts"),
    ("usercustomize/__init__.py", "whenever Python starts"),
    ("thing-1.0.data/scripts/run", "elsewhere"),
    ("thing/a.cpython-311.pyc", "compiled already"),
]


@pytest.mark.parametrize(("name", "told"), REFUSED, ids=[repr(n)[:30] for n, _ in REFUSED])
def test_a_wheel_stays_in_its_place(name: str, told: str, tmp_path: Path) -> None:
    wheel(tmp_path / "r", "thing", {**OK, name: "x"})
    with pytest.raises(BundleError, match=told):
        environment.make(release(tmp_path / "r"), tmp_path / "runtimes", SHA_A)
    assert list((tmp_path / "runtimes").iterdir()) == []
    assert not (tmp_path / "up.py").exists()


def test_links_and_second_copies_are_refused(tmp_path: Path) -> None:
    wheel(tmp_path / "r", "thing", {**OK, "thing/link": "/etc/passwd"}, link="thing/link")
    with pytest.raises(BundleError, match="a link"):
        environment.make(release(tmp_path / "r"), tmp_path / "runtimes", SHA_A)
    wheel(tmp_path / "r", "thing", OK)
    wheel(tmp_path / "r", "other", OK)
    with pytest.raises(BundleError, match="there twice"):
        environment.make(release(tmp_path / "r"), tmp_path / "runtimes", SHA_A)


def test_the_bytes_are_those_of_the_manifest(tmp_path: Path) -> None:
    folder = small(tmp_path / "r")
    wheel(folder, "thing", OK)
    with pytest.raises(BundleError, match="is not the file that the manifest names"):
        environment.read_release(folder)
    small(folder)
    (folder / "note.txt").write_text("x")
    with pytest.raises(BundleError, match="not named in the manifest"):
        environment.read_release(folder)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"machine": "riscv64"}, "it is for riscv64"),
        ({"python": "3.99"}, "it is for Python 3.99"),
        ({"glibc": "2.999"}, "it needs glibc 2.999"),
        ({"kind": "config"}, "kind is 'config'"),
        ({"outbox": 0}, "outbox is 0"),
        ({"more": "x"}, "unknown key 'more'"),
    ],
)
def test_a_release_for_something_else_is_refused(fields: dict[str, str | int], told: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=told):
        environment.read_release(small(tmp_path / "r", **fields), Needs(HERE.python, HERE.machine, "2.31"))


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1))
    with pytest.raises(ResourceError, match="MB are needed"):
        environment.make(small(tmp_path / "r"), tmp_path / "runtimes", SHA_A)


def test_sweep_keeps_what_it_is_told(tmp_path: Path) -> None:
    runtimes = tmp_path / "runtimes"
    for sha in (SHA_A, SHA_B):
        environment.make(small(tmp_path / "r"), runtimes, sha)
    (runtimes / f".{SHA_A}").mkdir()
    environment.sweep(runtimes, [SHA_A])
    assert [p.name for p in runtimes.iterdir()] == [SHA_A]
