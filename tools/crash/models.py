"""What may be on the disk after a crash: persistence models, one table.

    lost      only what was flushed: data by a flush of the file, names by a flush of its folder
    early     names and sizes are there before the data: what was not flushed reads as zeros where the file grew
    torn      all is there, but of the last write that was not flushed only the sectors of its first half
    torn-end  the same with its second half: a disk writes sectors in any order
    written   all is there, as when a process is killed and the machine goes on
    some      any of the writes that were not flushed, and the first few of the changes of names; drawn by a seed

All of these are legal for a file system that promises no more than POSIX does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import NamedTuple

from tools.crash.disk import ALL, BACK, FRONT, NONE, SIZE, Disk, Entry, File, Folder, Image

#: disk, dice → how many changes of a folder's names survive, and the letter for each change of a file
Choice = tuple[Callable[[Folder], int], Callable[[File], str]]


class Model(NamedTuple):
    text: str
    choose: Callable[[Disk, Random], Choice]
    #: nothing at all is lost: also what was never flushed must be there
    keeps_all: bool = False


def _none(folder: Folder) -> int:
    return 0


def _all(folder: Folder) -> int:
    return len(folder.changes)


def _each(letter: str) -> Callable[[File], str]:
    return lambda file: letter * len(file.changes)


def _torn(letter: str) -> Callable[[Disk, Random], Choice]:
    def choose(disk: Disk, dice: Random) -> Choice:
        writes = [(c.number, f.id, i) for f in disk.files() for i, c in enumerate(f.changes) if c.data]
        _, last_file, last = max(writes, default=(0, 0, 0))

        def parts(file: File) -> str:
            whole = ALL * len(file.changes)
            return whole[:last] + letter + whole[last + 1 :] if file.id == last_file else whole

        return _all, parts

    return choose


def _some(disk: Disk, dice: Random) -> Choice:
    drawn: dict[int, str] = {}  # the same for both names of a file

    def names(folder: Folder) -> int:
        return dice.randint(0, len(folder.changes))

    def parts(file: File) -> str:
        if file.id not in drawn:
            drawn[file.id] = "".join(dice.choice((ALL, NONE)) for _ in file.changes)
        return drawn[file.id]

    return names, parts


MODELS: Mapping[str, Model] = {
    "lost": Model("un-synced data lost", lambda disk, dice: (_none, _each(NONE))),
    "early": Model("names and sizes before data", lambda disk, dice: (_all, _each(SIZE))),
    "torn": Model("last write torn: its first half", _torn(FRONT)),
    "torn-end": Model("last write torn: its second half", _torn(BACK)),
    "written": Model("all as written", lambda disk, dice: (_all, _each(ALL)), keeps_all=True),
    "some": Model("any of the un-synced writes", _some),
}


def image(disk: Disk, model: Model, dice: Random) -> Image:
    """The names and what is behind them, folders before what is in them."""
    names, parts = model.choose(disk, dice)
    return list(_walk(disk.root, "", names, parts))


def _walk(folder: Folder, prefix: str, names: Callable[[Folder], int], parts: Callable[[File], str]) -> Iterator[Entry]:
    for name, node in sorted(folder.content(names(folder)).items()):
        path = f"{prefix}{name}"
        if isinstance(node, File):
            yield Entry(path, node, parts(node))
        else:
            yield Entry(path, None, "")
            yield from _walk(node, f"{path}/", names, parts)
