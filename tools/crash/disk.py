"""A folder as the page cache has it and as the disk has it. Pure, but for reading a real folder and writing an image.

- A file's data are on the disk after a flush of the file; a name (made, renamed, removed) after a flush of the folder that
  it is in. This is all that POSIX promises; file systems that do more are kinder.
- What came since the last flush are *changes*, in order. A persistence model (`models`) says which part of each survives.
- The changes of the names of one folder survive in their order, as a journal writes them; those of a file's data need not.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from edge_runtime.errors import GudgeonError
from tools.crash.trace import Kind, Op

SECTOR_BYTES = 512
AT_ONCE = 1  # flag of a write to a file that was opened with O_SYNC or O_DSYNC
EXCHANGE = 2  # flag of renameat2
LEFT_OUT = "-shm"

#: what survives of one change of a file's data, one letter each
ALL, NONE, SIZE, FRONT, BACK = "ANSFB"


class Change(NamedTuple):
    """Bytes written at `offset`, or, where `data` is None, a new size."""

    number: int
    offset: int
    data: bytes | None

    @property
    def cut(self) -> int:
        """Where the write tears: the last sector begins that lies in its first half."""
        assert self.data is not None
        return max(self.offset, (self.offset + len(self.data) // 2) // SECTOR_BYTES * SECTOR_BYTES)


@dataclass(eq=False)
class File:
    """`id` is its number on this disk; `flushes` counts, so that (id, flushes, parts) names a content."""

    id: int
    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    symlink: bool = False
    changes: list[Change] = field(default_factory=list)
    flushes: int = 0

    def change(self, change: Change) -> None:
        _apply(self.data, change, ALL)
        self.changes.append(change)

    def flush(self) -> None:
        if self.changes:
            self.synced, self.flushes = bytes(self.data), self.flushes + 1
            self.changes.clear()

    def content(self, parts: str) -> bytes:
        if parts == ALL * len(self.changes):
            return bytes(self.data)
        data = bytearray(self.synced)
        for change, part in zip(self.changes, parts, strict=True):
            _apply(data, change, part)
        return bytes(data)


def _apply(data: bytearray, change: Change, part: str) -> None:
    offset, new = change.offset, change.data
    if part == NONE:
        return
    if new is None:
        del data[offset:]
        data.extend(bytes(offset - len(data)))
        return
    data.extend(bytes(max(0, offset + len(new) - len(data))))  # what is not there reads as zeros
    first, last = {SIZE: (0, 0), FRONT: (0, change.cut - offset), BACK: (change.cut - offset, len(new))}.get(
        part, (0, len(new))
    )
    data[offset + first : offset + last] = new[first:last]


@dataclass(eq=False)
class Folder:
    names: dict[str, Node] = field(default_factory=dict)
    synced: dict[str, Node] = field(default_factory=dict)
    changes: list[Mapping[str, Node | None]] = field(default_factory=list)

    def change(self, change: Mapping[str, Node | None]) -> None:
        _rename(self.names, change)
        self.changes.append(change)

    def flush(self) -> None:
        self.synced = dict(self.names)
        self.changes.clear()

    def content(self, count: int) -> dict[str, Node]:
        """The names with the first `count` changes."""
        found = dict(self.synced)
        for change in self.changes[:count]:
            _rename(found, change)
        return found


Node = File | Folder


def _rename(names: dict[str, Node], change: Mapping[str, Node | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class Disk:
    """One folder, `base`, to which operations are applied in turn."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self.root = Folder()
        self._by_inode: dict[int, Node] = {}
        self._made = 0

    @classmethod
    def of(cls, folder: Path) -> Disk:
        """The folder as it is, all of it on the disk."""
        disk = cls(folder.resolve())
        disk._by_inode[os.stat(folder).st_ino] = disk.root
        disk._read(disk._base, disk.root)
        return disk

    def _read(self, path: Path, into: Folder) -> None:
        for entry in sorted(os.scandir(path), key=lambda e: e.name):
            if entry.name.endswith(LEFT_OUT) or not (entry.is_dir() or entry.is_file() or entry.is_symlink()):
                continue
            node = self._by_inode.get(entry.inode())
            if node is None:
                node = self._by_inode[entry.inode()] = self._node(entry)
            into.names[entry.name] = node
            if isinstance(node, Folder):
                self._read(Path(entry.path), node)
        into.flush()

    def at(self, folder: Path) -> Disk:
        """The same, what is not flushed yet among it, in a folder to which it was written as it is (`write_image`)."""
        disk = copy.deepcopy(self)
        disk._base, disk._by_inode = folder.resolve(), {}
        disk._find(disk._base, disk.root)
        return disk

    def _find(self, path: Path, node: Node) -> None:
        self._by_inode[os.lstat(path).st_ino] = node
        if isinstance(node, Folder):
            for name, within in node.names.items():
                self._find(path / name, within)

    def _node(self, entry: os.DirEntry[str]) -> Node:
        if entry.is_symlink():
            return self._new(os.readlink(entry.path).encode(), symlink=True)
        return Folder() if entry.is_dir() else self._new(Path(entry.path).read_bytes())

    def _new(self, data: bytes = b"", symlink: bool = False) -> File:
        self._made += 1
        return File(self._made, bytearray(data), data, symlink)

    def apply(self, op: Op) -> bool:
        """Do it; False if it is a note or had no effect. GudgeonError for what no image can show."""
        if op.kind in (Kind.NOTE, Kind.FAILED):
            return False
        if op.kind is Kind.UNKNOWN:
            raise GudgeonError(
                f"{op.path}: a shared mapping for writing, or a name moved in or out; no image can show it"
            )
        getattr(self, f"_{op.kind.name.lower()}")(op)
        return True

    def files(self) -> Iterator[File]:
        seen = {id(node): node for node in self._by_inode.values()}
        return (node for node in seen.values() if isinstance(node, File))

    # ── operations ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _place(self, path: str) -> tuple[Folder, str]:
        parts = Path(path).relative_to(self._base).parts
        at: Node = self.root
        for name in parts[:-1]:
            at = at.names[name] if isinstance(at, Folder) else at
        if not parts or not isinstance(at, Folder):
            raise GudgeonError(f"{path}: expected a name in a folder of {self._base}")
        return at, parts[-1]

    def _file(self, op: Op) -> File:
        node = self._by_inode.get(op.inode)
        if not isinstance(node, File):
            raise GudgeonError(f"operation {op.number}: no file has inode {op.inode}; its making was not seen")
        return node

    def _create(self, op: Op) -> None:
        self._make(op, self._new())

    def _folder(self, op: Op) -> None:
        self._make(op, Folder())

    def _symlink(self, op: Op) -> None:
        self._make(op, self._new(op.data, symlink=True))

    def _make(self, op: Op, node: Node) -> None:
        folder, name = self._place(op.path)
        folder.change({name: node})
        if op.inode:
            self._by_inode[op.inode] = node

    def _write(self, op: Op) -> None:
        file = self._file(op)
        file.change(Change(op.number, op.offset, op.data))
        if op.flags & AT_ONCE:
            file.flush()

    def _resize(self, op: Op) -> None:
        self._file(op).change(Change(op.number, op.size, None))

    def _sync(self, op: Op) -> None:
        node = self._by_inode.get(op.inode)
        if node is None:
            raise GudgeonError(f"operation {op.number}: flush of inode {op.inode}, which was never seen")
        node.flush()

    def _sync_all(self, op: Op) -> None:
        for node in set(self._by_inode.values()):
            node.flush()

    def _rename(self, op: Op) -> None:
        (old_folder, old), (new_folder, new) = self._place(op.path), self._place(op.other)
        node, replaced = old_folder.names[old], new_folder.names.get(new)
        back = replaced if op.flags & EXCHANGE else None
        if node is replaced:
            return  # two names of one file: POSIX leaves both
        if old_folder is new_folder:
            old_folder.change({old: back, new: node})
        else:
            new_folder.change({new: node})
            old_folder.change({old: back})

    def _link(self, op: Op) -> None:
        folder, name = self._place(op.path)
        to, other = self._place(op.other)
        to.change({other: folder.names[name]})

    def _unlink(self, op: Op) -> None:
        folder, name = self._place(op.path)
        folder.change({name: None})


class Entry(NamedTuple):
    """A name of an image; `file` None: a folder."""

    path: str
    file: File | None
    parts: str


Image = Sequence[Entry]


def same_key(image: Image) -> tuple[tuple[str, int, int, str], ...]:
    """Equal for images with the same content, without looking at it."""
    return tuple((e.path, e.file.id, e.file.flushes, e.parts) if e.file else (e.path, 0, 0, "") for e in image)


def contents(image: Image) -> dict[str, bytes | None]:
    """Path → data; None for a folder."""
    return {e.path: e.file.content(e.parts) if e.file else None for e in image}


def write_image(image: Image, folder: Path) -> None:
    """Make the real folder, readable by its owner only. Two names of one file stay so."""
    folder.mkdir(parents=True)
    written: dict[int, Path] = {}
    for entry in image:
        path = folder / entry.path
        if entry.file is None:
            path.mkdir(mode=0o700)
        elif entry.file.id in written:
            os.link(written[entry.file.id], path, follow_symlinks=False)
        elif entry.file.symlink:
            path.symlink_to(entry.file.data.decode())
        else:
            path.write_bytes(entry.file.content(entry.parts))
            path.chmod(0o600)
            written[entry.file.id] = path
