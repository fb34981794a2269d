"""What came is kept and checked, what is wrong is refused, and both are bounded."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.clock import FakeClock
from edge_runtime.errors import BundleError, ResourceError
from edge_runtime.update.fetch import partial as partials
from edge_runtime.update.fetch.download import download
from edge_runtime.update.fetch.fetcher import READ_BYTES, FetchError
from edge_runtime.update.fetch.memory import MemoryFetcher
from edge_runtime.update.fetch.pace import Limits, OverdueError, Pace, SlowError
from edge_runtime.update.fetch.partial import CHUNK_BYTES, TAIL_BYTES, Partial, Wanted, sweep

PATH = "targets/models/surface/2.tar"
DATA = random.Random(5).randbytes(5 * CHUNK_BYTES + 77_777)
WANTED = Wanted(PATH, len(DATA), hashlib.sha256(DATA).hexdigest())
LIMITS = Limits(leave_free_bytes=0)


def get(fetcher: Any, folder: Path, **changes: Any) -> Path:
    values: dict[str, Any] = {"clock": FakeClock(), "limits": LIMITS, "rng": random.Random(1), **changes}
    return download(fetcher, values.pop("wanted", WANTED), folder, **values)


def test_a_file_and_nothing_else(tmp_path: Path) -> None:
    fetcher = MemoryFetcher({PATH: DATA})
    told: list[tuple[int, int]] = []
    path = get(fetcher, tmp_path / "d", progress=lambda held, length: told.append((held, length)))
    assert path.read_bytes() == DATA
    assert path.name == WANTED.sha256
    assert os.listdir(tmp_path / "d") == [WANTED.sha256]
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700
    assert told == sorted(told)
    assert told[-1] == (len(DATA), len(DATA))
    assert fetcher.given_bytes == len(DATA)


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    path = get(MemoryFetcher({PATH: DATA}), tmp_path)
    assert get(MemoryFetcher({}), tmp_path) == path
    path.write_bytes(DATA[:-1] + b"?")
    fetcher = MemoryFetcher({PATH: DATA})
    assert get(fetcher, tmp_path).read_bytes() == DATA
    assert fetcher.given_bytes == len(DATA)


@pytest.mark.parametrize("length", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES])
def test_every_length(length: int, tmp_path: Path) -> None:
    data = DATA[:length]
    wanted = Wanted(PATH, length, hashlib.sha256(data).hexdigest())
    assert get(MemoryFetcher({PATH: data}), tmp_path, wanted=wanted).read_bytes() == data


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, len(DATA) - 1), max_size=12), st.booleans())
def test_cuts_cost_a_chunk_each_at_most(cuts: list[int], restarted: bool) -> None:
    """Where the connection breaks nothing is fetched twice; where the process does, less than a chunk."""
    import tempfile

    left = sorted({at // READ_BYTES * READ_BYTES for at in cuts})

    def cut(path: str, position: int) -> bool:
        if left and position >= left[0]:
            left.pop(0)
            return True
        return False

    count = len(left)
    fetcher = MemoryFetcher({PATH: DATA}, cut=cut)
    with tempfile.TemporaryDirectory() as name:
        for _ in range(count + 1):
            try:
                path = get(fetcher, Path(name), limits=Limits(leave_free_bytes=0, tries=0 if restarted else 8))
                break
            except FetchError:
                assert restarted
        assert path.read_bytes() == DATA
    most = len(DATA) + (count * CHUNK_BYTES if restarted else count * READ_BYTES)
    assert fetcher.given_bytes <= most


def stopped_after(folder: Path, chunks: int) -> None:
    """As a device that lost its power when so many chunks were there."""
    partial = Partial(folder, WANTED)
    for i in range(chunks):
        partial.put(i, DATA[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES])
    partial.close()


@pytest.mark.parametrize("chunks", range(6))
def test_it_goes_on_at_every_chunk(chunks: int, tmp_path: Path) -> None:
    stopped_after(tmp_path, chunks)
    fetcher = MemoryFetcher({PATH: DATA})
    assert get(fetcher, tmp_path).read_bytes() == DATA
    assert fetcher.given_bytes == len(DATA) - chunks * CHUNK_BYTES


@pytest.mark.parametrize("chunk", range(5))
def test_a_chunk_that_was_changed_on_the_disk_is_fetched_again_alone(chunk: int, tmp_path: Path) -> None:
    stopped_after(tmp_path, 5)
    with (tmp_path / f"{WANTED.sha256}.part").open("r+b") as file:
        file.seek(chunk * CHUNK_BYTES + 4321)
        file.write(b"changed")
    fetcher = MemoryFetcher({PATH: DATA})
    assert get(fetcher, tmp_path).read_bytes() == DATA
    assert fetcher.given_bytes == len(DATA) - 4 * CHUNK_BYTES


def test_a_chunk_and_its_note_changed_together_are_found_by_the_hash_of_the_whole(tmp_path: Path) -> None:
    stopped_after(tmp_path, 3)
    partial = Partial(tmp_path, WANTED)
    partial.put(1, bytes(CHUNK_BYTES))
    partial.close()
    fetcher = MemoryFetcher({PATH: DATA})
    assert get(fetcher, tmp_path).read_bytes() == DATA
    assert fetcher.given_bytes == 2 * len(DATA) - 3 * CHUNK_BYTES


def died_within(folder: Path, at: int) -> None:
    """As a device whose process died when it had received so many bytes."""
    fetcher = MemoryFetcher({PATH: DATA}, cut=lambda path, position: position >= at)
    with pytest.raises(FetchError):
        get(fetcher, folder, limits=Limits(leave_free_bytes=0, tries=0))


@pytest.mark.parametrize("quarters", [1, 2, 3, 5, 7])
def test_a_process_that_dies_within_a_chunk_goes_on_there(quarters: int, tmp_path: Path) -> None:
    at = quarters * TAIL_BYTES
    died_within(tmp_path, at + READ_BYTES)
    fetcher = MemoryFetcher({PATH: DATA})
    assert get(fetcher, tmp_path).read_bytes() == DATA
    assert fetcher.given_bytes == len(DATA) - at


def test_a_beginning_that_was_changed_on_the_disk_is_fetched_again(tmp_path: Path) -> None:
    died_within(tmp_path, CHUNK_BYTES + 3 * TAIL_BYTES)
    with (tmp_path / f"{WANTED.sha256}.part").open("r+b") as file:
        file.seek(CHUNK_BYTES + 99)
        file.write(b"changed")
    fetcher = MemoryFetcher({PATH: DATA})
    assert get(fetcher, tmp_path).read_bytes() == DATA
    assert fetcher.given_bytes == len(DATA) - CHUNK_BYTES


def test_a_beginning_of_another_file_is_not_taken(tmp_path: Path) -> None:
    """It died within a chunk of what turned out to be another file."""
    files = {PATH: bytes(len(DATA))}
    with pytest.raises(FetchError):
        get(
            MemoryFetcher(files, cut=lambda path, position: position >= 3 * TAIL_BYTES),
            tmp_path,
            limits=Limits(leave_free_bytes=0, tries=0),
        )
    fetcher = MemoryFetcher({PATH: DATA})
    assert get(fetcher, tmp_path).read_bytes() == DATA
    assert fetcher.given_bytes == len(DATA)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 530, 544, 600])
def test_torn_notes_cost_bytes_and_no_more(size: int, tmp_path: Path) -> None:
    stopped_after(tmp_path, 4)
    os.truncate(tmp_path / f"{WANTED.sha256}.chunks", size)
    assert get(MemoryFetcher({PATH: DATA}), tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("content", [b"[1]", b'{"v": 1}', b"[" * 500, b"\xff" * 700])
def test_foreign_notes_cost_bytes_and_no_more(content: bytes, tmp_path: Path) -> None:
    stopped_after(tmp_path, 4)
    (tmp_path / f"{WANTED.sha256}.chunks").write_bytes(content.ljust(700))
    fetcher = MemoryFetcher({PATH: DATA})
    assert get(fetcher, tmp_path).read_bytes() == DATA
    assert fetcher.given_bytes == len(DATA)


def test_a_short_part_is_no_part(tmp_path: Path) -> None:
    stopped_after(tmp_path, 4)
    os.truncate(tmp_path / f"{WANTED.sha256}.part", 2 * CHUNK_BYTES + 5)
    fetcher = MemoryFetcher({PATH: DATA})
    assert get(fetcher, tmp_path).read_bytes() == DATA
    assert fetcher.given_bytes == len(DATA) - 2 * CHUNK_BYTES


def test_a_link_in_the_place_of_the_part_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / f"{WANTED.sha256}.part").symlink_to("precious")
    with pytest.raises(ResourceError):
        get(MemoryFetcher({PATH: DATA}), tmp_path)
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_server_without_ranges_costs_bytes_but_ends(tmp_path: Path) -> None:
    cuts = [3 * CHUNK_BYTES + READ_BYTES, 4 * CHUNK_BYTES]
    fetcher = MemoryFetcher(
        {PATH: DATA}, ranges=False, cut=lambda path, position: bool(cuts) and position >= cuts[0] and bool(cuts.pop(0))
    )
    assert get(fetcher, tmp_path).read_bytes() == DATA
    assert fetcher.given_bytes == len(DATA) + 7 * CHUNK_BYTES + READ_BYTES


def test_a_file_that_changes_in_between_is_begun_anew(tmp_path: Path) -> None:
    files = {PATH: bytes(len(DATA))}

    def cut(path: str, position: int) -> bool:
        if files[path] != DATA and position == 2 * CHUNK_BYTES:
            files[path] = DATA
            return True
        return False

    fetcher = MemoryFetcher(files, cut=cut)
    assert get(fetcher, tmp_path).read_bytes() == DATA
    assert fetcher.given_bytes == len(DATA) + 2 * CHUNK_BYTES


def test_another_content_is_refused_after_as_many_beginnings(tmp_path: Path) -> None:
    fetcher = MemoryFetcher({PATH: bytes(len(DATA))})
    with pytest.raises(BundleError, match="does not have the hash that was signed, also after 2 new beginnings"):
        get(fetcher, tmp_path)
    assert fetcher.given_bytes == 3 * len(DATA)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"x", b""])
def test_another_length_is_refused_before_a_byte_is_kept(data: bytes, tmp_path: Path) -> None:
    fetcher = MemoryFetcher({PATH: data})
    with pytest.raises(FetchError, match="were signed"):
        get(fetcher, tmp_path)
    assert fetcher.given_bytes == 0


def test_it_waits_longer_each_time_and_gives_up(tmp_path: Path) -> None:
    clock = FakeClock()
    begun_ns = clock.monotonic_ns()
    fetcher = MemoryFetcher({PATH: DATA}, trouble=lambda path, number: FetchError("HTTP 503"))
    with pytest.raises(FetchError, match="503"):
        get(fetcher, tmp_path, clock=clock)
    assert len(fetcher.asked) == 1 + LIMITS.tries
    assert 0 < (clock.monotonic_ns() - begun_ns) / 1e9 < 300


def test_it_waits_as_long_as_the_server_asks(tmp_path: Path) -> None:
    clock = FakeClock()
    begun_ns = clock.monotonic_ns()
    fetcher = MemoryFetcher(
        {PATH: DATA}, trouble=lambda path, number: FetchError("HTTP 429", after_s=120) if number == 1 else None
    )
    get(fetcher, tmp_path, clock=clock)
    assert 120 <= (clock.monotonic_ns() - begun_ns) / 1e9 < 130


def test_a_pointless_question_is_asked_once(tmp_path: Path) -> None:
    fetcher = MemoryFetcher({})
    with pytest.raises(FetchError) as told:
        get(fetcher, tmp_path)
    assert told.value.missing
    assert len(fetcher.asked) == 1


def test_the_deadline_ends_it_and_what_came_is_kept(tmp_path: Path) -> None:
    clock = FakeClock()

    def slow(path: str, position: int) -> bool:
        clock.advance(10)
        return False

    with pytest.raises(OverdueError, match="not done within 400 s"):
        get(MemoryFetcher({PATH: DATA}, cut=slow), tmp_path, clock=clock, limits=Limits(400, leave_free_bytes=0))
    fetcher = MemoryFetcher({PATH: DATA})
    assert get(fetcher, tmp_path).read_bytes() == DATA
    assert fetcher.given_bytes == len(DATA) - 2 * CHUNK_BYTES - TAIL_BYTES


def test_the_next_try_would_be_after_the_deadline(tmp_path: Path) -> None:
    fetcher = MemoryFetcher({PATH: DATA}, trouble=lambda path, number: FetchError("HTTP 503", after_s=3600))
    with pytest.raises(OverdueError, match="503; no time is left"):
        get(fetcher, tmp_path, limits=Limits(600, leave_free_bytes=0))


def test_a_drip_is_given_up_and_taken_up_elsewhere() -> None:
    clock = FakeClock()
    pace = Pace(clock, Limits(least_bytes_s=512, window_s=60))
    pace.begin()
    for _ in range(59):
        clock.advance(1)
        pace.received(511)
    clock.advance(1)
    with pytest.raises(SlowError, match="expected 512 a second"):
        pace.received(511)
    pace.begin()
    for _ in range(600):
        clock.advance(1)
        pace.received(512)


def test_no_faster_than_it_may(tmp_path: Path) -> None:
    clock = FakeClock()
    begun_ns = clock.monotonic_ns()
    get(MemoryFetcher({PATH: DATA}), tmp_path, clock=clock, limits=Limits(most_bytes_s=100_000, leave_free_bytes=0))
    assert (clock.monotonic_ns() - begun_ns) / 1e9 == pytest.approx(len(DATA) / 100_000, rel=1e-3)


class Dripping(MemoryFetcher):
    """The first connections give a byte a second."""

    def __init__(self, files: dict[str, bytes], clock: FakeClock, drips: int) -> None:
        super().__init__(files)
        self._clock, self._drips = clock, drips

    def _pieces(self, path: str, data: bytes, pace: Pace, start: int, stop: int) -> Any:
        if len(self.asked) > self._drips:
            yield from super()._pieces(path, data, pace, start, stop)
            return
        for at in range(start, stop):
            self._clock.advance(1)
            self.given_bytes += 1
            pace.received(1)
            yield data[at : at + 1]


def test_a_drip_cannot_hold_a_download_open(tmp_path: Path) -> None:
    clock = FakeClock()
    fetcher = Dripping({PATH: DATA}, clock, drips=3)
    assert get(fetcher, tmp_path, clock=clock).read_bytes() == DATA
    assert len(fetcher.asked) == 4
    assert fetcher.given_bytes < len(DATA) + 10


def test_only_so_many_bytes_are_spent(tmp_path: Path) -> None:
    """A server that always begins at 0 and always breaks off a little later."""
    ends = iter(range(READ_BYTES, 100 * CHUNK_BYTES, CHUNK_BYTES))
    end = [0]

    def trouble(path: str, number: int) -> None:
        end[0] = next(ends)

    fetcher = MemoryFetcher({PATH: DATA}, ranges=False, trouble=trouble, cut=lambda path, position: position >= end[0])
    with pytest.raises(FetchError, match="times its length"):
        get(fetcher, tmp_path, limits=Limits(spend=1.0, leave_free_bytes=0))


def test_a_disk_without_room_says_so_before_a_byte(tmp_path: Path) -> None:
    fetcher = MemoryFetcher({PATH: DATA})
    with pytest.raises(ResourceError, match="must stay free"):
        get(fetcher, tmp_path, limits=Limits(leave_free_bytes=1 << 60))
    assert (fetcher.given_bytes, os.listdir(tmp_path)) == (0, [])


@pytest.mark.parametrize("call", ["pwrite", "fdatasync", "fsync", "posix_fallocate"])
@pytest.mark.parametrize("at", range(8))
def test_a_disk_that_is_full_at_any_write(call: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = getattr(os, call), iter(range(1000))

    def full(*args: Any) -> Any:
        if next(calls) == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(partials.__name__ + ".os." + call, full)
        try:
            get(MemoryFetcher({PATH: DATA}), tmp_path)
        except ResourceError as error:
            told = str(error)
        else:
            told = "" if next(calls) <= at else "nothing of it"
    assert told == "" or "disk is full" in told
    assert get(MemoryFetcher({PATH: DATA}), tmp_path).read_bytes() == DATA
    assert os.listdir(tmp_path) == [WANTED.sha256]


def test_sweep_keeps_what_it_is_told_to(tmp_path: Path) -> None:
    stopped_after(tmp_path, 1)
    other = "0" * 64
    for name in (other, f"{other}.part", "somebody-else"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / f"{other}.deltas").mkdir()
    (tmp_path / f"{other}.deltas" / "source").write_bytes(b"")
    sweep(tmp_path, keep={WANTED.sha256})
    assert sorted(os.listdir(tmp_path)) == sorted([f"{WANTED.sha256}.part", f"{WANTED.sha256}.chunks", "somebody-else"])
    sweep(tmp_path)
    assert os.listdir(tmp_path) == ["somebody-else"]
