"""Attacks and faults between the repository and a verified artifact on the disk: servers, networks, deltas, archives, the disk
itself.

Wherever a row ends in a refusal it is also shown that nothing is left which could be taken for the artifact, and, where the
trouble is the other side's, that an honest one is fetched from afterwards.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.clock import FakeClock
from edge_runtime.delta.tests.artifacts import files, packed
from edge_runtime.errors import BundleError, EndpointError, GudgeonError, ResourceError
from edge_runtime.update.fetch.download import download
from edge_runtime.update.fetch.fetcher import Fetcher, FetchError
from edge_runtime.update.fetch.folder import FolderFetcher
from edge_runtime.update.fetch.http import HttpFetcher
from edge_runtime.update.fetch.memory import MemoryFetcher
from edge_runtime.update.fetch.pace import Limits
from edge_runtime.update.fetch.partial import CHUNK_BYTES, Partial, Wanted
from edge_runtime.update.fetch.tests.server import Answer, Asked, Server, proper
from hil_tests.attacks.row import Attack
from tools.chaos.disk import why_not

AREA = "transport"
PATH = "targets/models/surface/2.tar"
OLD, NEW = packed(files()), packed(files(moved=1e-3, version="2"))
BIG = NEW + random.Random(3).randbytes(3 * CHUNK_BYTES)
LIMITS = Limits(leave_free_bytes=0, tries=3)
Answers = Callable[[Asked], Answer]


def wanted(data: bytes) -> Wanted:
    return Wanted(PATH, len(data), hashlib.sha256(data).hexdigest())


def get(fetcher: Fetcher, place: Path, data: bytes, clock: FakeClock | None = None, limits: Limits = LIMITS) -> Path:
    return download(fetcher, wanted(data), place, clock or FakeClock(), limits, rng=random.Random(1))


def refused(call: Callable[[], object], kind: type[GudgeonError], told: str, place: Path, data: bytes) -> None:
    """Refused for that reason; nothing stands where the artifact would; and an honest repository is fetched from afterwards."""
    with pytest.raises(kind, match=told):
        call()
    assert not (place / wanted(data).sha256).exists()
    assert get(MemoryFetcher({PATH: data}), place, data).read_bytes() == data


# --- what a server, or somebody in between, may answer ---------------------------------------------------------------------


def server(
    told: str, answer: Answers, kind: type[GudgeonError] = FetchError, most_bytes: int = 8 * CHUNK_BYTES
) -> tuple[str, Callable[[Path], None]]:
    def run(place: Path) -> None:
        with Server(answer) as other:
            refused(lambda: get(HttpFetcher(other.url), place, BIG), kind, told, place, BIG)
        assert other.sent_bytes <= most_bytes

    return told, run


def passing(trouble: Answers, count: int = 2) -> tuple[str, Callable[[Path], None]]:
    """The same question is answered rightly a little later."""

    def run(place: Path) -> None:
        with Server(lambda asked: trouble(asked) if asked.number <= count else proper({PATH: BIG}, asked)) as other:
            assert get(HttpFetcher(other.url), place, BIG).read_bytes() == BIG
        assert len(other.asked) == count + 1

    return "asked again", run


def truncated(asked: Asked) -> Answer:
    answer = proper({PATH: BIG}, asked)
    answer.cut = CHUNK_BYTES + 77
    return answer


HTML = {"Content-Type": "text/html"}
NOT_IT = "does not have the hash"
SERVERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "404": server("HTTP 404", lambda a: Answer(404)),
    "403 to everything": server("HTTP 403", lambda a: Answer(403)),
    "503 for good": server("HTTP 503", lambda a: Answer(503)),
    "500, then well again": passing(lambda a: Answer(500)),
    "429 with Retry-After": passing(lambda a: Answer(429, {"Retry-After": "30"})),
    "429 to a date that never comes": server("HTTP 429", lambda a: Answer(429, {"Retry-After": "999999999"})),
    "captive portal: a login page": server("a login page", lambda a: Answer(200, HTML, b"<html>please log in")),
    "captive portal: a login page as long as the artifact": server(
        "a login page", lambda a: Answer(200, HTML, bytes(len(BIG)))
    ),
    "captive portal: a redirect to its login": server(
        "redirected away", lambda a: Answer(302, {"Location": "http://login.example/"})
    ),
    "redirect to another host": server(
        "redirected away", lambda a: Answer(307, {"Location": "https://evil.example/x"})
    ),
    "redirect to a file of the device": server(
        "redirected away", lambda a: Answer(302, {"Location": "file:///etc/shadow"})
    ),
    "redirects without end": server("more than 3 redirects", lambda a: Answer(302, {"Location": a.path})),
    "endless data of no declared length": server(
        NOT_IT, lambda a: Answer(200, {"Content-Length": ""}, bytes(4 * len(BIG))), BundleError, 5 * len(BIG)
    ),
    "more than was signed, and declared": server("were signed", lambda a: Answer(200, body=BIG + b"x")),
    "a body that is shorter than its declared length": passing(truncated, 1),
    "another artifact of the same length": server(
        NOT_IT, lambda a: Answer(200, body=bytes(len(BIG))), BundleError, 4 * len(BIG)
    ),
    "another part than the one asked for": server(
        "asked for bytes", lambda a: Answer(206, {"Content-Range": f"bytes 5-{len(BIG) - 1}/{len(BIG)}"}, BIG[5:])
    ),
    "compressed, to become larger here": server(
        "nobody asked", lambda a: Answer(200, {"Content-Encoding": "gzip"}, bytes(1000))
    ),
    "headers without end": server("no answer", lambda a: Answer(raw=b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 9999)),
    "416 to a file that is shorter": server("not the file that is meant", lambda a: Answer(416)),
}


def changed_in_between(honest: bool) -> Callable[[Path], None]:
    """The first connection gives another file, with another ETag, and breaks off. Not honest: ranges are given out of the new
    file although the old one was asked for."""

    def answer(asked: Asked) -> Answer:
        if asked.number == 1:
            return Answer(200, {"ETag": '"old"'}, bytes(len(BIG)), cut=CHUNK_BYTES + 99)
        if not honest:
            asked = Asked(asked.path, {**asked.headers, "if-range": '"new"'}, asked.number)
        return proper({PATH: BIG}, asked, '"new"')

    def run(place: Path) -> None:
        with Server(answer) as other:
            assert get(HttpFetcher(other.url), place, BIG).read_bytes() == BIG
        assert other.sent_bytes <= 2 * len(BIG)

    return run


class Ticking(FakeClock):
    """A second goes by with every look at it."""

    def monotonic_ns(self) -> int:
        self.advance(1)
        return super().monotonic_ns()


def drip(of_headers: bool) -> Callable[[Path], None]:
    """A byte now and then, so that no wait for one is ever too long."""

    def run(place: Path) -> None:
        raw = b"HTTP/1.1 200 OK\r\n" + (b"X: y\r\n" * 90 if of_headers else b"\r\n" + bytes(5000))
        with Server(lambda asked: Answer(raw=raw)) as other:
            limits = Limits(leave_free_bytes=0, least_bytes_s=10_000, window_s=1, tries=2)
            with pytest.raises(FetchError, match="expected 10000 a second"):
                get(HttpFetcher(other.url), place, BIG, Ticking(), limits)
            assert len(other.asked) == 3
        assert get(MemoryFetcher({PATH: BIG}), place, BIG).read_bytes() == BIG

    return run


def overdue(place: Path) -> None:
    """Fast enough for the least rate, but the whole would last for days."""
    clock = FakeClock()

    def slow(path: str, position: int) -> bool:
        clock.advance(60)
        return False

    limits = Limits(deadline_s=600, least_bytes_s=1, leave_free_bytes=0)
    refused(
        lambda: get(MemoryFetcher({PATH: BIG}, cut=slow), place, BIG, clock, limits),
        EndpointError,
        "not done within",
        place,
        BIG,
    )


# --- the connection is cut, the device dies, somebody writes to its disk ---------------------------------------------------


def cut_everywhere(place: Path) -> None:
    """At each chunk's boundary, one byte before and one after: nothing is sent twice."""
    points = [n * CHUNK_BYTES + d for n in range(4) for d in (-1, 0, 1) if 0 < n * CHUNK_BYTES + d < len(BIG)]
    for number, point in enumerate(points):

        def cut(asked: Asked, point: int = point) -> Answer:
            answer = proper({PATH: BIG}, asked)
            answer.cut = point if asked.number == 1 else None
            return answer

        with Server(cut) as other:
            assert get(HttpFetcher(other.url), place / str(number), BIG).read_bytes() == BIG
        assert other.sent_bytes == len(BIG)


def dies_at_every_chunk(place: Path) -> None:
    """A new process each time finds what the last one left, and no more than a chunk is fetched twice in all."""
    fetcher = MemoryFetcher({PATH: BIG}, trouble=lambda path, number: None)
    for chunks in range(1, -(-len(BIG) // CHUNK_BYTES)):
        fetcher.cut = lambda path, position, end=chunks: position >= end * CHUNK_BYTES  # type: ignore[misc]
        with pytest.raises(FetchError):
            get(fetcher, place, BIG, limits=Limits(leave_free_bytes=0, tries=0))
    fetcher.cut = lambda path, position: False
    assert get(fetcher, place, BIG).read_bytes() == BIG
    assert fetcher.given_bytes == len(BIG)


def tampered(also_the_note: bool) -> Callable[[Path], None]:
    def run(place: Path) -> None:
        partial = Partial(place, wanted(BIG))
        for i in range(3):
            partial.put(i, BIG[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES])
        if also_the_note:
            partial.put(1, bytes(CHUNK_BYTES))
        partial.close()
        if not also_the_note:
            with (place / f"{wanted(BIG).sha256}.part").open("r+b") as file:
                file.seek(CHUNK_BYTES + 5)
                file.write(b"evil")
        fetcher = MemoryFetcher({PATH: BIG})
        assert get(fetcher, place, BIG).read_bytes() == BIG
        assert fetcher.given_bytes == (2 * len(BIG) - 3 * CHUNK_BYTES if also_the_note else len(BIG) - 2 * CHUNK_BYTES)

    return run


def finished_then_changed(place: Path) -> None:
    """What was fetched and checked earlier is checked again before it is given out."""
    path = get(MemoryFetcher({PATH: BIG}), place, BIG)
    path.write_bytes(bytes(len(BIG)))
    assert get(MemoryFetcher({PATH: BIG}), place, BIG).read_bytes() == BIG


def link_in_its_place(place: Path) -> None:
    (place / "precious").write_bytes(b"precious")
    (place / f"{wanted(BIG).sha256}.part").symlink_to("precious")
    with pytest.raises(ResourceError):
        get(MemoryFetcher({PATH: BIG}), place, BIG)
    assert (place / "precious").read_bytes() == b"precious"


#: in a mount namespace of its own: a file system that is too small by a little less each time, room taken at once or not
FULL = """
import errno, hashlib, os, subprocess, sys
from pathlib import Path
from edge_runtime.clock import FakeClock
from edge_runtime.errors import ResourceError
from edge_runtime.update.fetch.download import download
from edge_runtime.update.fetch.memory import MemoryFetcher
from edge_runtime.update.fetch.pace import Limits
from edge_runtime.update.fetch.partial import Wanted
data = os.urandom(3 << 20)
wanted = Wanted("targets/a.tar", len(data), hashlib.sha256(data).hexdigest())
def refuse(*_): raise OSError(errno.EOPNOTSUPP, "not supported")
for way in ("at once", "bit by bit"):
    disk = Path(sys.argv[1]) / way.replace(" ", "-")
    disk.mkdir()
    if way == "bit by bit": os.posix_fallocate = refuse
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    os.statvfs = lambda path: os.statvfs_result([4096, 4096, 1 << 30, 1 << 30, 1 << 30, 1, 1, 1, 0, 255])
    fetcher, full, given = MemoryFetcher({wanted.path: data}), 0, []
    for size in range(64, 3400, 128):
        subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
        try:
            path = download(fetcher, wanted, disk, FakeClock(), Limits(leave_free_bytes=0))
            break
        except ResourceError as error:
            assert "the disk is full" in str(error), error
            full += 1
    assert path.read_bytes() == data and os.listdir(disk) == [wanted.sha256]
    print(way, full, fetcher.given_bytes)
"""


def really_full(place: Path) -> None:
    if reason := why_not():
        pytest.skip(f"a small disk: {reason}")
    script = ["unshare", "--mount", sys.executable, "-c", FULL, str(place)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert int(line.split()[-2]) >= 20


# --- media -----------------------------------------------------------------------------------------------------------------


def linked_medium(place: Path) -> None:
    """A stick whose artifact is a link to a file of the device."""
    (place / "stick" / "targets" / "models" / "surface").mkdir(parents=True)
    (place / "secret").write_bytes(BIG)
    (place / "stick" / PATH).symlink_to(place / "secret")
    refused(
        lambda: get(FolderFetcher(place / "stick"), place / "d", BIG),
        FetchError,
        "links are not followed",
        place / "d",
        BIG,
    )


def path_out(place: Path) -> None:
    (place / "stick").mkdir()
    (place / "outside").write_bytes(b"x")
    for path in ("../outside", "/etc/passwd", "a/../../outside", "a\0b", "targets//x", ".hidden"):
        with pytest.raises(FetchError, match="not a path of a repository"):
            download(FolderFetcher(place / "stick"), Wanted(path, 1, "0" * 64), place / "d", FakeClock(), LIMITS)


ROWS: list[Attack] = [
    *(Attack(AREA, name, told, run) for name, (told, run) in SERVERS.items()),
    Attack(AREA, "another file and ETag in between", "begun anew", changed_in_between(honest=True)),
    Attack(AREA, "another file in between, If-Range not heeded", "begun anew", changed_in_between(honest=False)),
    Attack(AREA, "slow data: headers that drip", "expected … a second", drip(of_headers=True)),
    Attack(AREA, "slow data: a body that drips", "expected … a second", drip(of_headers=False)),
    Attack(AREA, "slow data: days for one artifact", "not done within", overdue),
    Attack(AREA, "connection cut at every chunk's boundary", "not a byte twice", cut_everywhere),
    Attack(AREA, "device dies at every chunk's boundary", "goes on there", dies_at_every_chunk),
    Attack(
        AREA, "a chunk changed on the disk between two starts", "fetched again, alone", tampered(also_the_note=False)
    ),
    Attack(AREA, "a chunk and its noted hash changed", "found by the hash of the whole", tampered(also_the_note=True)),
    Attack(AREA, "a finished artifact changed on the disk", "fetched again", finished_then_changed),
    Attack(AREA, "a symbolic link in the place of the download", "not followed", link_in_its_place),
    Attack(AREA, "disk full at each write", "the disk is full; what came is kept", really_full),
    Attack(AREA, "a medium with a link out of it", "links are not followed", linked_medium),
    Attack(AREA, "a target's path that leads out of the repository", "not a path of a repository", path_out),
]
