"""What is sent again when downloads are cut: counted at a real server, with processes that are really killed."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.clock import FakeClock
from edge_runtime.update.fetch.download import download
from edge_runtime.update.fetch.http import HttpFetcher
from edge_runtime.update.fetch.pace import Limits
from edge_runtime.update.fetch.partial import CHUNK_BYTES, Wanted
from edge_runtime.update.fetch.tests.server import Answer, Asked, Server, proper

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PATH = "targets/runtime/gudgeon/2.tar"
DATA = random.Random(11).randbytes(16 * CHUNK_BYTES + 12_345)
WANTED = Wanted(PATH, len(DATA), hashlib.sha256(DATA).hexdigest())
KILLS = 10
DEVICE = """
import sys
from pathlib import Path
from edge_runtime.clock import SystemClock
from edge_runtime.update.fetch.download import download
from edge_runtime.update.fetch.http import HttpFetcher
from edge_runtime.update.fetch.pace import Limits
from edge_runtime.update.fetch.partial import Wanted
url, folder, path, length, sha256 = sys.argv[1:]
download(HttpFetcher(url), Wanted(path, int(length), sha256), Path(folder), SystemClock(), Limits(leave_free_bytes=0))
"""


def most(cuts: int) -> int:
    return int(len(DATA) * 1.02) + cuts * CHUNK_BYTES


class Killing(Server):
    """Kills the device when so many bytes went out in all."""

    def __init__(self, points: list[int]) -> None:
        super().__init__(lambda asked: proper({PATH: DATA}, asked))
        self.points, self.device = points, 0

    def sent(self, count: int) -> None:
        super().sent(count)
        if self.points and self.sent_bytes >= self.points[0]:
            self.points.pop(0)
            os.kill(self.device, signal.SIGKILL)


def killed(points: list[int], folder: Path) -> int:
    """Bytes that went over the wire until the file was there; the device is started again each time."""
    count = len(points)
    server = Killing(points)
    with server:
        for _ in range(count + 1):
            command = [sys.executable, "-c", DEVICE, server.url, str(folder), PATH, str(len(DATA)), WANTED.sha256]
            with subprocess.Popen(command) as device:
                server.device = device.pid
                code = device.wait(60)
            if code == 0:
                break
            assert code == -signal.SIGKILL
    assert server.points == []
    assert (folder / WANTED.sha256).read_bytes() == DATA
    return server.sent_bytes


def test_killed_in_random_places(tmp_path: Path) -> None:
    rng = random.Random(4)
    points = sorted(rng.randrange(len(DATA)) for _ in range(KILLS))
    assert killed(points, tmp_path) <= most(KILLS)


def test_killed_at_chunks_boundaries(tmp_path: Path) -> None:
    points = [n * CHUNK_BYTES for n in range(1, KILLS + 1)]
    assert killed(points, tmp_path) <= most(KILLS)


def test_connection_cut_at_every_chunk_boundary_in_one_download(tmp_path: Path) -> None:
    def one_chunk(asked: Asked) -> Answer:
        answer = proper({PATH: DATA}, asked)
        answer.cut = CHUNK_BYTES
        return answer

    with Server(one_chunk) as server:
        path = download(HttpFetcher(server.url), WANTED, tmp_path, FakeClock(), Limits(leave_free_bytes=0))
    assert path.read_bytes() == DATA
    assert len(server.asked) == 17
    assert server.sent_bytes == len(DATA)


def test_connection_cut_in_random_places(tmp_path: Path) -> None:
    rng = random.Random(5)

    def some(asked: Asked) -> Answer:
        answer = proper({PATH: DATA}, asked)
        answer.cut = rng.randrange(1, 3 * CHUNK_BYTES)
        return answer

    with Server(some) as server:
        path = download(HttpFetcher(server.url), WANTED, tmp_path, FakeClock(), Limits(leave_free_bytes=0))
    assert path.read_bytes() == DATA
    assert server.sent_bytes == len(DATA)
