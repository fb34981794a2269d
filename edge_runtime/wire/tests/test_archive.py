"""An archive is what `pack` writes, byte for byte, and nothing else."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.wire import archive
from edge_runtime.wire.archive import ArchiveError, Limits

ROOM = 10_000


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir()
    lines = ["schema = 1", "[files]"]
    for name, content in files.items():
        (path / name).write_bytes(content)
        lines.append(f'"{name}" = "{hashlib.sha256(content).hexdigest()}"')
    (path / "manifest.toml").write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "release", {"weights.onnx": bytes(range(256)) * 9, "CARD.md": b"", "b": b"x" * 512})


@pytest.fixture
def packed(tmp_path: Path, release: Path) -> Path:
    archive.pack_file(release, tmp_path / "a.tar")
    return tmp_path / "a.tar"


def test_there_and_back(tmp_path: Path, release: Path, packed: Path) -> None:
    again = io.BytesIO()
    told = archive.pack(release, again.write)
    assert again.getvalue() == packed.read_bytes()
    assert told == (packed.stat().st_size, hashlib.sha256(packed.read_bytes()).hexdigest())
    digests = archive.unpack(packed, tmp_path / "out", told.length)
    assert sorted(digests) == sorted(os.listdir(tmp_path / "out")) == ["CARD.md", "b", "manifest.toml", "weights.onnx"]
    for name in digests:
        assert (tmp_path / "out" / name).read_bytes() == (release / name).read_bytes()
    assert archive.pack(tmp_path / "out", io.BytesIO().write) == told


def test_times_and_modes_of_the_folder_do_not_matter(release: Path, packed: Path) -> None:
    (release / "b").chmod(0o600)
    os.utime(release / "b", (1, 1))
    again = io.BytesIO()
    archive.pack(release, again.write)
    assert again.getvalue() == packed.read_bytes()


def test_others_can_read_it(tmp_path: Path, release: Path, packed: Path) -> None:
    with tarfile.open(packed) as tar:
        assert {m.name for m in tar.getmembers() if m.isreg()} == set(os.listdir(release))
    listed = subprocess.run(["tar", "-tf", packed], capture_output=True, text=True, check=True).stdout.split()
    assert listed == sorted(os.listdir(release))


def test_members_stand_where_they_are_said_to(release: Path, packed: Path) -> None:
    data = packed.read_bytes()
    with packed.open("rb") as file:
        found = archive.members(file, len(data))
    assert {m.name: data[m.start : m.start + m.size] for m in found} == {
        name: (release / name).read_bytes() for name in os.listdir(release)
    }


def entry(name: str = "b", content: bytes = b"x", **changes: object) -> bytes:
    """A member as Python's own writer makes it."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    shape: Any = tarfile.PAX_FORMAT if "pax_headers" in changes else tarfile.USTAR_FORMAT
    if len(name) > 100:
        shape = tarfile.GNU_FORMAT
    body = content + bytes(-len(content) % 512) if info.type == tarfile.REGTYPE else b""
    return info.tobuf(shape) + body


def plain(name: str, content: bytes = b"x") -> bytes:
    return archive.header(name, len(content)) + content + bytes(-len(content) % 512)


def broken(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at + 1 :]


STRANGE: dict[str, tuple[bytes, str]] = {
    "symbolic link": (entry(type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0), "a symbolic link"),
    "hard link": (entry(type=tarfile.LNKTYPE, linkname="a", size=0), "a hard link"),
    "device": (entry(type=tarfile.CHRTYPE, size=0), "a device"),
    "folder": (entry(type=tarfile.DIRTYPE, size=0), "a folder"),
    "pipe": (entry(type=tarfile.FIFOTYPE, size=0), "a pipe"),
    "gnu sparse": (entry(type=b"S"), "a sparse file"),
    "pax": (entry(pax_headers={"comment": "x"}), "a pax extension"),
    "gnu long name": (entry("n" * 120), "a GNU extension"),
    "old type": (broken(plain("b"), 156, 0), "unknown type"),
    "up": (entry(".."), "not a plain"),
    "up and away": (entry("../b"), "not a plain"),
    "absolute": (entry("/etc/passwd"), "not a plain"),
    "in a folder": (entry("a/b"), "not a plain"),
    "dot file": (entry(".b"), "not a plain"),
    "backslash": (entry("a\\b"), "not a plain"),
    "nothing": (entry(""), "not a plain"),
    "NUL inside": (plain("b")[:1] + b"\0c" + plain("b")[3:], "not a plain"),
    "look-alike": (entry("m\u0430nifest.toml"), "not a plain"),
    "newline": (entry("b\n"), "not a plain"),
    "mode": (entry(mode=0o4755), "not the one"),
    "owner": (entry(uid=1000), "not the one"),
    "time": (entry(mtime=1), "not the one"),
    "prefix": (plain("b")[:345] + b"etc" + plain("b")[348:], "not the one"),
    "checksum": (broken(plain("b"), 148, 0x37), "not the one"),
    "size in base 256": (broken(plain("b"), 124, 0x80), "octal"),
    "negative size": (plain("b")[:124] + b"-0000000001" + plain("b")[135:], "octal"),
    "padding": (plain("b")[:-1] + b"x", "padding"),
    "huge": (archive.header("b", archive.SIZE_LIMIT), "or one over"),
    "twice": (plain("b") + plain("b"), "each once"),
    "falling": (plain("c") + plain("b"), "each once"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_pack_would_not_write_is_refused(name: str, tmp_path: Path) -> None:
    data, told = STRANGE[name]
    (tmp_path / "a.tar").write_bytes(data + archive.END)
    with pytest.raises(ArchiveError, match=told):
        archive.unpack(tmp_path / "a.tar", tmp_path / "out")
    assert os.listdir(tmp_path) == ["a.tar"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d + bytes(512), "after its end"),
        (lambda d: d + b"x", "after its end"),
        (lambda d: d[:-512], "before its end"),
        (lambda d: d[:-1], "before its end"),
        (lambda d: d[:700], "before its end"),
        (lambda d: b"", "before its end"),
        (lambda d: d[:-512] + b"\1" * 512, "two blocks"),
        (lambda d: d[:-1024] + plain("z") + archive.END, "z is not named"),
        (lambda d: d[512:], "CARD.md is missing"),
        (lambda d: d.replace(b"x" * 512, b"y" * 512), "b is changed"),
    ],
)
def test_a_damaged_archive_is_refused(
    change: Callable[[bytes], bytes], told: str, tmp_path: Path, packed: Path
) -> None:
    (tmp_path / "bad.tar").write_bytes(change(packed.read_bytes()))
    with pytest.raises(ArchiveError, match=told):
        archive.unpack(tmp_path / "bad.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_it_is_as_long_as_declared(tmp_path: Path, packed: Path) -> None:
    length = packed.stat().st_size
    for wrong in (length - 512, length + 512, 0):
        with pytest.raises(ArchiveError, match="declared length"):
            archive.unpack(packed, tmp_path / "out", wrong)


def test_limits(tmp_path: Path, packed: Path) -> None:
    length = packed.stat().st_size
    for limits in (Limits(files=3), Limits(file_bytes=2303), Limits(total_bytes=length - 1)):
        with pytest.raises(ArchiveError):
            archive.unpack(packed, tmp_path / "out", None, limits)
    archive.unpack(packed, tmp_path / "out", length, Limits(4, 2304, length))


def test_an_endless_list_of_empty_files_ends(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"".join(archive.header(f"f{i:05}", 0) for i in range(ROOM)))
    with pytest.raises(ArchiveError, match="more than 64 files"):
        archive.unpack(tmp_path / "a.tar", tmp_path / "out")


def test_only_the_files_of_the_manifest_are_packed(release: Path) -> None:
    sink = io.BytesIO()
    (release / "stray").write_bytes(b"")
    with pytest.raises(ArchiveError, match="stray is not named"):
        archive.pack(release, sink.write)
    (release / "stray").rename(release / ".hidden")
    with pytest.raises(ArchiveError, match="hidden"):
        archive.pack(release, sink.write)
    (release / ".hidden").unlink()
    (release / "b").unlink()
    with pytest.raises(ArchiveError, match="b is missing"):
        archive.pack(release, sink.write)
    (release / "b").symlink_to("CARD.md")
    with pytest.raises(OSError, match="symbolic"):
        archive.pack(release, sink.write)
    (release / "b").unlink()
    os.mkfifo(release / "b")
    with pytest.raises(ArchiveError, match="not a regular file"):
        archive.pack(release, sink.write)


def test_nothing_is_followed_or_overwritten(tmp_path: Path, packed: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to("elsewhere")
    with pytest.raises(FileExistsError):
        archive.unpack(packed, tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_full_disk_leaves_no_folder(tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        archive.unpack(packed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_one_changed_byte_is_refused_or_changes_nothing(data: st.DataObject) -> None:
    """Every byte of an archive counts: there is no second form of the same content."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive.pack_file(folder_of(folder / "r", {"w": b"weights" * 40}), folder / "a.tar")
        content = bytearray((folder / "a.tar").read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
        (folder / "a.tar").write_bytes(content)
        try:
            archive.unpack(folder / "a.tar", folder / "out")
        except ArchiveError:
            return
        # a comment or the like of the manifest itself: its digest is the bundle's, and was signed
        with tarfile.open(folder / "a.tar") as tar:
            manifest = next(m for m in tar.getmembers() if m.name == "manifest.toml")
        assert manifest.offset_data <= at < manifest.offset_data + manifest.size
