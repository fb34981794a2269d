"""The contract of a Camera, run over every implementation. A new one adds a row to `BENCHES`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_runtime.errors import EndpointError
from edge_runtime.field.camera import Camera
from edge_runtime.field.camera_folder import FolderCamera
from edge_runtime.field.camera_memory import MemoryCamera
from edge_runtime.field.camera_socket import SocketCamera
from edge_runtime.field.tests.frame_server import FrameServer

PIXELS = np.arange(24 * 32, dtype=np.uint32).astype(np.uint8).reshape(24, 32)


@dataclass
class Bench:
    """A camera that sees PIXELS; `expose` makes the frame of a trigger come; `vanish`, `reappear`: the camera."""

    camera: Camera
    expose: Callable[[int], None]
    vanish: Callable[[], None]
    reappear: Callable[[], None]


def folder_bench(tmp_path: Path) -> Iterator[Bench]:
    folder, away = tmp_path / "images", tmp_path / "away"
    folder.mkdir()
    Image.fromarray(PIXELS).save(folder / "one.png")
    camera = FolderCamera(folder)

    def vanish() -> None:
        camera.close()
        folder.rename(away)

    def reappear() -> None:
        away.rename(folder)

    yield Bench(camera, lambda trigger: None, vanish, reappear)


def memory_bench(tmp_path: Path) -> Iterator[Bench]:
    camera = MemoryCamera(lambda trigger: PIXELS)

    def power(on: bool) -> None:
        camera.alive = on

    yield Bench(camera, lambda trigger: None, lambda: power(False), lambda: power(True))


def socket_bench(tmp_path: Path) -> Iterator[Bench]:
    with FrameServer() as server:
        camera = SocketCamera("127.0.0.1", server.port)
        yield Bench(camera, lambda trigger: server.send(trigger, PIXELS), server.stop, server.start)
        camera.close()


BENCHES: dict[str, Callable[[Path], Iterator[Bench]]] = {
    "folder": folder_bench,
    "memory": memory_bench,
    "socket": socket_bench,
}


@pytest.fixture(params=BENCHES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    yield from BENCHES[request.param](tmp_path)


def test_the_frame_belongs_to_its_trigger(bench: Bench) -> None:
    bench.camera.open()
    for trigger in (1, 2, 65535, 1):
        bench.expose(trigger)
        frame = bench.camera.frame(trigger, 2.0)
        assert frame is not None
        assert frame.trigger == trigger
        assert frame.pixels.dtype == np.uint8
        assert np.array_equal(frame.pixels, PIXELS)
        assert frame.timestamp_ns >= 0


def test_preparing_the_next_frame_takes_none_away(bench: Bench) -> None:
    assert isinstance(bench.camera.repeats, bool)
    bench.camera.idle()  # closed: nothing to do
    bench.camera.open()
    for trigger in (1, 2):
        bench.camera.idle()
        bench.expose(trigger)
        bench.camera.idle()
        assert bench.camera.frame(trigger, 2.0) is not None


def test_it_describes_itself_in_json(bench: Bench) -> None:
    bench.camera.open()
    assert json.loads(json.dumps(bench.camera.describe()))["driver"] in BENCHES


def test_open_and_close_may_be_repeated(bench: Bench) -> None:
    for _ in range(2):
        bench.camera.open()
        bench.camera.open()
        bench.expose(7)
        assert bench.camera.frame(7, 2.0) is not None
        bench.camera.close()
        bench.camera.close()


def test_a_camera_that_is_gone_is_an_endpoint_error_and_may_come_back(bench: Bench) -> None:
    bench.camera.open()
    bench.vanish()
    with pytest.raises(EndpointError) as caught:
        bench.camera.frame(3, 2.0)
    assert "\n" not in str(caught.value)
    with pytest.raises(EndpointError):
        bench.camera.open()
    bench.reappear()
    bench.camera.open()
    bench.expose(4)
    assert bench.camera.frame(4, 2.0) is not None
