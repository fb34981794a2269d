"""Archives that nobody's `pack` wrote: refused; not one file of them is left, and nothing outside of their folder was touched."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.wire import archive
from hil_tests.attacks.row import Attack

END = archive.END
PLAIN = archive.header("b", 1) + b"x" + bytes(511)
NAME = "not a plain file name"


def member(name: str, kind: bytes = tarfile.REGTYPE, **changes: Any) -> bytes:
    """As another writer of tar would put it."""
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in changes.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.PAX_FORMAT if "pax_headers" in changes else tarfile.GNU_FORMAT) + END


def row(name: str, told: str, data: bytes) -> Attack:
    def run(place: Path) -> None:
        (place / "a.tar").write_bytes(data)
        before = sorted(place.parent.iterdir())
        with pytest.raises(archive.ArchiveError, match=told):
            archive.unpack(place / "a.tar", place / "out", len(data))
        assert os.listdir(place) == ["a.tar"]
        assert sorted(place.parent.iterdir()) == before

    return Attack("archive", name, told, run)


ROWS: list[Attack] = [
    row("bomb: a huge declared size", "one over 1073741824 bytes", archive.header("b", 1 << 32) + END),
    row("bomb: files without end", "more than 64 files", b"".join(archive.header(f"f{i:05}", 0) for i in range(9999))),
    row("bomb: a sparse file", "a sparse file", member("b", b"S")),
    row("up and out of its folder", NAME, member("../../escaped")),
    row("an absolute path", NAME, member("/etc/cron.d/x")),
    row("a symbolic link", "a symbolic link", member("b", tarfile.SYMTYPE, linkname="/etc")),
    row("a hard link", "a hard link", member("b", tarfile.LNKTYPE, linkname="/etc/passwd")),
    row("a device", "a device", member("b", tarfile.BLKTYPE, devmajor=8)),
    row("a name twice", "each once", PLAIN + PLAIN + END),
    row("a NUL inside a name", NAME, b"b\0c" + PLAIN[3:] + END),
    row("a look-alike of manifest.toml", NAME, member("m\u0430nifest.toml")),
    row("a second name in an extension", "a pax extension", member("b", pax_headers={"path": "../x"})),
    row("bytes after its end", "after its end", PLAIN + END + bytes(512)),
    row("no manifest", "manifest.toml is missing", PLAIN + END),
]
