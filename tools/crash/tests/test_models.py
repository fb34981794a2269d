"""The models can fail: programs that flush too little are caught by each model that should catch them, right ones by none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random

import pytest

from edge_runtime.errors import GudgeonError
from tools.crash.disk import Disk, contents, same_key, write_image
from tools.crash.models import MODELS, image
from tools.crash.trace import Kind, Op

BASE = Path("/a/b")
ROOT, OLD, NEW = 1, 2, 3  # inodes
OLD_DATA, NEW_DATA = b"old" * 700, b"new" * 900


class Program:
    """Operations on a folder in which `file` is, whole and flushed."""

    def __init__(self) -> None:
        self.ops: list[Op] = []

    def _do(self, kind: Kind, **fields: object) -> Program:
        self.ops.append(Op(kind, len(self.ops) + 1, **fields))  # type: ignore[arg-type]
        return self

    def create(self, name: str) -> Program:
        return self._do(Kind.CREATE, path=str(BASE / name), inode=NEW)

    def write(self, inode: int = NEW, data: bytes = NEW_DATA, offset: int = 0) -> Program:
        return self._do(Kind.WRITE, inode=inode, data=data, offset=offset)

    def resize(self, inode: int, size: int) -> Program:
        return self._do(Kind.RESIZE, inode=inode, size=size)

    def sync(self, inode: int = NEW) -> Program:
        return self._do(Kind.SYNC, inode=inode)

    def rename(self, old: str, new: str) -> Program:
        return self._do(Kind.RENAME, path=str(BASE / old), other=str(BASE / new))

    def link(self, old: str, new: str) -> Program:
        return self._do(Kind.LINK, path=str(BASE / old), other=str(BASE / new))

    def unlink(self, name: str) -> Program:
        return self._do(Kind.UNLINK, path=str(BASE / name))


def disk() -> Disk:
    made = Disk(BASE)
    made._by_inode[ROOT] = made.root
    for op in Program().create("file").write(data=OLD_DATA).ops:
        made.apply(op)
    made._by_inode[OLD] = made._by_inode.pop(NEW)
    for inode in (OLD, ROOT):
        made.apply(Op(Kind.SYNC, 1, inode=inode))
    return made


def images(program: Program, model: str, seeds: int = 1) -> Iterator[Mapping[str, bytes | None]]:
    """At every point of the program."""
    at = disk()
    for op in [*program.ops, None]:
        for seed in range(seeds):
            yield contents(image(at, MODELS[model], Random(f"{seed} {op}")))
        if op:
            at.apply(op)


def torn_file(seen: Mapping[str, bytes | None]) -> bool:
    """Neither the old nor the new content: what an atomic replacement rules out."""
    return seen.get("file") not in (OLD_DATA, NEW_DATA)


def forgotten(program: Program, model: str, seeds: int = 1) -> bool:
    """At the end, when the program has said that it is done, the new content is not there."""
    *_, last = images(program, model, seeds)
    return last.get("file") != NEW_DATA


WHOLE = Program().create("t").write().sync().rename("t", "file").sync(ROOT)
NO_FILE_SYNC = Program().create("t").write().rename("t", "file").sync(ROOT)
NO_FOLDER_SYNC = Program().create("t").write().sync().rename("t", "file")
IN_PLACE = Program().resize(OLD, 0).write(OLD).sync(OLD)
LATE_SYNC = Program().create("t").write().rename("t", "file").sync().sync(ROOT)


@pytest.mark.parametrize("model", MODELS)
def test_a_right_replacement_is_never_torn_nor_forgotten(model: str) -> None:
    assert not any(map(torn_file, images(WHOLE, model, seeds=20)))
    assert not forgotten(WHOLE, model, seeds=20)


@pytest.mark.parametrize("model", ["lost", "early", "torn", "torn-end", "some"])
def test_a_replacement_without_a_flush_of_the_file_is_torn(model: str) -> None:
    assert any(map(torn_file, images(NO_FILE_SYNC, model, seeds=20)))


@pytest.mark.parametrize("model", ["early", "torn", "torn-end", "some"])
def test_a_flush_after_the_rename_is_too_late(model: str) -> None:
    assert any(map(torn_file, images(LATE_SYNC, model, seeds=20)))


def test_a_replacement_without_a_flush_of_the_folder_is_forgotten() -> None:
    assert forgotten(NO_FOLDER_SYNC, "lost")
    assert not forgotten(NO_FOLDER_SYNC, "early")


@pytest.mark.parametrize("model", ["early", "torn", "torn-end", "written", "some"])
def test_writing_in_place_is_torn(model: str) -> None:
    assert any(map(torn_file, images(IN_PLACE, model, seeds=20)))


def last_image(program: Program, model: str) -> Mapping[str, bytes | None]:
    *_, last = images(program, model)
    return last


def test_what_each_model_leaves_of_a_write() -> None:
    grown = Program().write(OLD, b"N" * 2048, offset=len(OLD_DATA))
    half = (len(OLD_DATA) + 1024) // 512 * 512 - len(OLD_DATA)
    expected = {
        "lost": OLD_DATA,
        "early": OLD_DATA + bytes(2048),
        "torn": OLD_DATA + b"N" * half + bytes(2048 - half),
        "torn-end": OLD_DATA + bytes(half) + b"N" * (2048 - half),
        "written": OLD_DATA + b"N" * 2048,
    }
    assert {model: last_image(grown, model)["file"] for model in expected} == expected


def test_an_overwrite_that_is_not_there_leaves_what_was_there() -> None:
    over = Program().write(OLD, b"N" * 100, offset=10)
    assert last_image(over, "early")["file"] == OLD_DATA
    assert last_image(over, "torn")["file"] == OLD_DATA, "within one sector: whole or not at all"


def test_a_removed_name_comes_back_until_its_folder_is_flushed() -> None:
    removed = Program().unlink("file")
    assert last_image(removed, "lost") == {"file": OLD_DATA}
    assert last_image(removed, "early") == {}
    assert last_image(removed.sync(ROOT), "lost") == {}


def test_some_draws_every_subset() -> None:
    two = Program().write(OLD, b"A", offset=0).write(OLD, b"B", offset=1)
    seen = {c["file"][:2] for c in images(two, "some", seeds=60) if c["file"]}
    assert seen == {b"ol", b"Al", b"oB", b"AB"}


def test_equal_keys_are_equal_images() -> None:
    found: dict[object, object] = {}
    for program in (WHOLE, NO_FILE_SYNC):
        at = disk()
        for op in program.ops:
            at.apply(op)
            for name, model in MODELS.items():
                shown = image(at, model, Random(name))
                assert found.setdefault((id(program), same_key(shown)), contents(shown)) == contents(shown)


def test_what_no_image_can_show_is_refused() -> None:
    with pytest.raises(GudgeonError, match="shared mapping"):
        disk().apply(Op(Kind.UNKNOWN, 1, path="/a/b/file"))
    with pytest.raises(GudgeonError, match="its making was not seen"):
        disk().apply(Op(Kind.WRITE, 1, inode=99, data=b"x"))


def test_an_image_on_a_real_disk_reads_back(tmp_path: Path) -> None:
    at = disk()
    for op in Program().link("file", "second").ops:
        at.apply(op)
    shown = image(at, MODELS["written"], Random(0))
    write_image(shown, tmp_path / "image")
    assert os.stat(tmp_path / "image/file").st_nlink == 2
    again = Disk.of(tmp_path / "image")
    assert contents(image(again, MODELS["lost"], Random(0))) == contents(shown)


def test_a_killed_process_leaves_what_is_not_flushed_to_the_next(tmp_path: Path) -> None:
    at = disk()
    for op in Program().write(OLD, b"X" * 4, offset=0).ops:
        at.apply(op)
    write_image(image(at, MODELS["written"], Random(0)), tmp_path / "image")
    moved = at.at(tmp_path / "image")
    look: Callable[[str], bytes | None] = lambda model: contents(image(moved, MODELS[model], Random(0)))["file"]  # noqa: E731
    assert (look("lost"), look("written")) == (OLD_DATA, b"XXXX" + OLD_DATA[4:])
    moved.apply(Op(Kind.SYNC, 2, inode=(tmp_path / "image/file").stat().st_ino))
    assert look("lost") == b"XXXX" + OLD_DATA[4:]
