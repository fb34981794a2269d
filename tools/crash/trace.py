"""The records that `shim/record.c` writes, as values."""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from edge_runtime.errors import GudgeonError

HEAD = struct.Struct("<IcBHHHIqQqq")
MAGIC = 0x43525348


class Kind(enum.Enum):
    CREATE = b"C"
    WRITE = b"W"
    RESIZE = b"T"
    SYNC = b"S"
    SYNC_ALL = b"Y"
    RENAME = b"R"
    LINK = b"L"
    UNLINK = b"U"
    FOLDER = b"M"
    SYMLINK = b"Z"
    FAILED = b"F"  # or without effect
    UNKNOWN = b"X"  # what no image can show: a writable shared mapping, a name moved in or out
    NOTE = b"N"


@dataclass(frozen=True)
class Op:
    """`number` counts operations from 1; a note has 0. `flags`: of WRITE 1: on the disk at once; of RENAME those of
    renameat2."""

    kind: Kind
    number: int
    flags: int = 0
    path: str = ""
    other: str = ""
    inode: int = 0
    offset: int = 0
    size: int = 0
    data: bytes = b""

    def __str__(self) -> str:
        more = f" +{len(self.data)} at {self.offset}" if self.kind is Kind.WRITE else ""
        return f"{self.number} {self.kind.name.lower()} {self.path or f'inode {self.inode}'}{more}"


def read_trace(data: bytes) -> Sequence[Op]:
    """GudgeonError for anything but whole records."""
    ops, at = [], 0
    while at < len(data):
        if len(data) - at < HEAD.size:
            raise GudgeonError(f"the trace ends within a record, at byte {at}")
        magic, kind, flags, path_n, other_n, _, data_n, number, inode, offset, size = HEAD.unpack_from(data, at)
        at += HEAD.size
        if magic != MAGIC or len(data) - at < path_n + other_n + data_n:
            raise GudgeonError(f"the trace is damaged at byte {at - HEAD.size}")
        path, other = data[at : at + path_n].decode(), data[at + path_n : at + path_n + other_n].decode()
        at += path_n + other_n
        ops.append(Op(Kind(kind), number, flags, path, other, inode, offset, size, data[at : at + data_n]))
        at += data_n
    return ops
