"""The store: a release is there whole or not at all, what is changed is found, what a record names is never removed."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.errors import BundleError, ResourceError
from edge_runtime.update.store import Store, address
from edge_runtime.wire.archive import pack_file, unpack


def folder(path: Path, text: str = "weights") -> Path:
    """The smallest release."""
    path.mkdir(parents=True)
    (path / "model.bin").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (path / "manifest.toml").write_text(f'schema = 1\n[files]\n"model.bin" = "{digest}"\n')
    return path


def put(store: Store, source: Path) -> str:
    sha256 = address(source)
    store.put(sha256, lambda into: shutil.copytree(source, into))
    return sha256


def test_the_address_is_the_hash_of_the_artifact(tmp_path: Path) -> None:
    source = folder(tmp_path / "a")
    packed = pack_file(source, tmp_path / "a.tar")
    assert address(source) == packed.sha256
    store = Store(tmp_path / "state")
    path = store.put(packed.sha256, lambda into: unpack(tmp_path / "a.tar", into, packed.length))
    assert store.problem(packed.sha256) == ""
    assert store.names() == [packed.sha256]
    assert {p.name for p in path.iterdir()} == {"manifest.toml", "model.bin"}
    assert all(p.stat().st_mode & 0o222 == 0 for p in path.iterdir())


def test_what_has_another_hash_is_not_taken(tmp_path: Path) -> None:
    store, source = Store(tmp_path / "state"), folder(tmp_path / "a")
    with pytest.raises(BundleError, match="give the hash"):
        store.put("0" * 64, lambda into: shutil.copytree(source, into))
    assert os.listdir(store.folder) == []
    with pytest.raises(BundleError, match="not a SHA-256"):
        store.path("../../etc")


def link(path: Path) -> None:
    (path / "model.bin").unlink()
    (path / "model.bin").symlink_to("/etc/hostname")


CHANGES: dict[str, Callable[[Path], object]] = {
    "changed": lambda p: (p / "model.bin").write_text("weighty"),
    "shorter": lambda p: (p / "model.bin").write_text(""),
    "gone": lambda p: (p / "model.bin").unlink(),
    "more": lambda p: (p / "more.bin").write_text(""),
    "link": link,
    "manifest": lambda p: (p / "manifest.toml").write_text("schema = 1\n[files]\n"),
    "folder": lambda p: (p / "sub").mkdir(),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_found_and_mended_by_putting_it_again(tmp_path: Path, what: str) -> None:
    store, source = Store(tmp_path / "state"), folder(tmp_path / "a")
    sha256 = put(store, source)
    path = store.path(sha256)
    for file in path.iterdir():
        file.chmod(0o644)
    CHANGES[what](path)
    assert sha256[:12] in store.problem(sha256)
    assert put(store, source) == sha256
    assert store.problem(sha256) == ""


def test_a_symbolic_link_in_place_of_a_release_is_none(tmp_path: Path) -> None:
    store, source = Store(tmp_path / "state"), folder(tmp_path / "a")
    store.folder.mkdir(parents=True)
    store.path(address(source)).symlink_to(source)
    assert "not in the store" in store.problem(address(source))
    put(store, source)
    assert store.problem(address(source)) == ""
    assert source.is_dir()


def test_collect_keeps_what_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    a, b, c = (put(store, folder(tmp_path / name, name)) for name in "abc")
    assert store.collect({a, c}) == [b]
    assert store.names() == sorted({a, c})
    assert not store.problem(a)


def test_what_was_interrupted_is_cleaned(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    a = put(store, folder(tmp_path / "a"))
    for left in (f".{a}.making", f".{a}.gone"):
        folder(store.folder / left)
    (store.folder / "mine.txt").write_text("left alone")
    store.clean()
    assert sorted(os.listdir(store.folder)) == sorted([a, "mine.txt"])


def test_a_failed_write_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")

    def full(into: Path) -> None:
        into.mkdir()
        (into / "half").write_text("x")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ResourceError, match="the disk is full"):
        store.put("1" * 64, full)
    assert os.listdir(store.folder) == []


def test_the_budget_and_the_disk(tmp_path: Path) -> None:
    store = Store(tmp_path / "state", budget_bytes=4096)
    put(store, folder(tmp_path / "a", "x" * 3000))
    store.ask_room(900)
    with pytest.raises(ResourceError, match="over the budget of 4096"):
        store.ask_room(2000)
    with pytest.raises(ResourceError, match="100 bytes are free"):
        Store(tmp_path / "state", free_bytes=lambda path: 100).ask_room(1)
