"""A medium is read like a network: nothing on it is followed, and it may be gone at any moment."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from pathlib import Path

import pytest

from edge_runtime.clock import FakeClock
from edge_runtime.errors import DataError
from edge_runtime.update.fetch.download import download
from edge_runtime.update.fetch.fetcher import FetchError, fetch_small
from edge_runtime.update.fetch.folder import FolderFetcher
from edge_runtime.update.fetch.pace import Limits, OverdueError, Pace
from edge_runtime.update.fetch.partial import CHUNK_BYTES, Wanted

PATH = "targets/models/surface/2.tar"
DATA = random.Random(7).randbytes(2 * CHUNK_BYTES + 99)
WANTED = Wanted(PATH, len(DATA), hashlib.sha256(DATA).hexdigest())
LIMITS = Limits(leave_free_bytes=0, tries=2)


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    path = tmp_path / "stick" / PATH
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    return tmp_path / "stick"


def get(stick: Path, folder: Path, clock: FakeClock | None = None, limits: Limits = LIMITS) -> bytes:
    return download(FolderFetcher(stick), WANTED, folder, clock or FakeClock(), limits).read_bytes()


def test_a_file_of_a_read_only_medium(stick: Path, tmp_path: Path) -> None:
    for path in [stick, *stick.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted((p, p.stat().st_mtime_ns) for p in stick.rglob("*"))
    assert get(stick, tmp_path / "d") == DATA
    assert sorted((p, p.stat().st_mtime_ns) for p in stick.rglob("*")) == before


def test_what_is_not_there(stick: Path, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="not on this medium") as error:
        fetch_small(FolderFetcher(stick), "metadata/timestamp.json", Pace(FakeClock()), 100)
    assert error.value.missing
    assert not error.value.again
    with pytest.raises(DataError, match="mount the medium"):
        FolderFetcher(tmp_path / "nothing")


@pytest.mark.parametrize("at", ["targets", "targets/models", "targets/models/surface", PATH])
def test_links_lead_nowhere(at: str, stick: Path, tmp_path: Path) -> None:
    (stick / at).rename(tmp_path / "elsewhere")
    (stick / at).symlink_to(tmp_path / "elsewhere")
    assert (stick / PATH).read_bytes() == DATA
    with pytest.raises(FetchError, match="links are not followed"):
        get(stick, tmp_path / "d")


def test_only_regular_files(stick: Path, tmp_path: Path) -> None:
    (stick / PATH).unlink()
    os.mkfifo(stick / PATH)
    with pytest.raises(FetchError, match="not a regular file"):
        get(stick, tmp_path / "d")
    (stick / PATH).unlink()
    (stick / PATH).mkdir()
    with pytest.raises(FetchError, match="not a regular file"):
        get(stick, tmp_path / "d")


class Pulled:
    """From some byte on every read fails, until it is put in again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, times: int) -> None:
        self.read_bytes, self._at, self.times, self._real = 0, at, times, os.pread
        monkeypatch.setattr("edge_runtime.update.fetch.folder.os.pread", self._pread)

    def _pread(self, fd: int, count: int, at: int) -> bytes:
        if at >= self._at and self.times and os.readlink(f"/proc/self/fd/{fd}").endswith(PATH):
            self.times -= 1
            raise OSError(errno.EIO, "Input/output error")
        data = self._real(fd, count, at)
        self.read_bytes += len(data) if os.readlink(f"/proc/self/fd/{fd}").endswith(PATH) else 0
        return data


def test_pulled_out_and_put_in_again(stick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    medium = Pulled(monkeypatch, CHUNK_BYTES + 65536, times=2)
    assert get(stick, tmp_path / "d") == DATA
    assert medium.read_bytes == len(DATA)


def test_pulled_out_for_good_and_tried_again_later(
    stick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    medium = Pulled(monkeypatch, CHUNK_BYTES + 65536, times=1000)
    with pytest.raises(FetchError, match="is the medium still there"):
        get(stick, tmp_path / "d")
    medium.times = 0
    assert get(stick, tmp_path / "d") == DATA
    assert medium.read_bytes == len(DATA) + 65536


def test_a_slow_medium_has_until_the_deadline(stick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, real = FakeClock(), os.pread

    def slow(fd: int, count: int, at: int) -> bytes:
        clock.advance(1)
        return real(fd, count, at)

    monkeypatch.setattr("edge_runtime.update.fetch.folder.os.pread", slow)
    assert get(stick, tmp_path / "d", clock) == DATA
    (tmp_path / "d" / WANTED.sha256).unlink()
    with pytest.raises(OverdueError):
        get(stick, tmp_path / "d", clock, Limits(20, leave_free_bytes=0))


def test_another_file_on_the_medium_in_between(stick: Path, tmp_path: Path) -> None:
    fetcher = FolderFetcher(stick)
    first = fetcher.open(PATH, Pace(FakeClock()), 5)
    assert (first.start, first.total) == (5, len(DATA))
    (stick / PATH).write_bytes(DATA + b"x")
    again = fetcher.open(PATH, Pace(FakeClock()), 5, None, first.version)
    assert (again.start, again.version == first.version) == (0, False)
    first.close()
    again.close()
    with pytest.raises(FetchError, match="has only"):
        fetcher.open(PATH, Pace(FakeClock()), 1 << 40)
