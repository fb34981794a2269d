"""The frame protocol: frames in any order and any pieces; anything else is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_runtime.errors import EndpointError
from edge_runtime.field.camera_socket import KEPT, SocketCamera
from edge_runtime.field.tests.frame_server import FrameServer, frame_bytes


def pixels(value: int) -> NDArray[np.uint8]:
    return np.full((4, 6), value % 256, np.uint8)


@pytest.fixture
def server() -> Iterator[FrameServer]:
    with FrameServer() as server:
        yield server


@pytest.fixture
def camera(server: FrameServer) -> Iterator[SocketCamera]:
    camera = SocketCamera("127.0.0.1", server.port)
    camera.open()
    yield camera
    camera.close()


def value_of(camera: SocketCamera, trigger: int, timeout_s: float = 2.0) -> int | None:
    frame = camera.frame(trigger, timeout_s)
    return None if frame is None else int(frame.pixels[0, 0])


def test_a_frame_before_its_turn_is_kept(server: FrameServer, camera: SocketCamera) -> None:
    for trigger in (2, 3, 1):
        server.send(trigger, pixels(trigger))
    assert [value_of(camera, t) for t in (1, 2, 3)] == [1, 2, 3]


def test_before_its_turn_across_the_wrap(server: FrameServer, camera: SocketCamera) -> None:
    server.send(1, pixels(1))
    server.send(65535, pixels(200))
    assert value_of(camera, 65535) == 200
    assert value_of(camera, 1) == 1


def test_frames_of_earlier_triggers_are_thrown_away(server: FrameServer, camera: SocketCamera) -> None:
    server.send(1, pixels(1))
    server.send(2, pixels(2))
    assert value_of(camera, 2) == 2
    assert value_of(camera, 1, 0.01) is None


def test_only_a_few_are_kept(server: FrameServer, camera: SocketCamera) -> None:
    for trigger in range(1, KEPT + 3):
        server.send(trigger, pixels(trigger))
    assert value_of(camera, KEPT + 2) == KEPT + 2
    camera.open()
    server.send(9, pixels(9))
    assert value_of(camera, 9) == 9


def test_a_frame_that_does_not_come_costs_its_time_out(server: FrameServer, camera: SocketCamera) -> None:
    server.send(1, pixels(1))
    start = time.monotonic()
    assert camera.frame(2, 0.05) is None
    assert 0.04 < time.monotonic() - start < 10.0
    assert camera.frame(2, 0.0) is None


def test_colour_and_a_longer_header(server: FrameServer, camera: SocketCamera) -> None:
    colour = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    server.send_bytes(frame_bytes(1, colour, header_bytes=40))
    server.send(2, pixels(2))
    frame = camera.frame(1, 2.0)
    assert frame is not None
    assert np.array_equal(frame.pixels, colour)
    assert frame.timestamp_ns == 123
    assert value_of(camera, 2) == 2


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 3 * (36 + 24)), max_size=6))
def test_frames_in_any_pieces(cuts: list[int]) -> None:
    data = b"".join(frame_bytes(t, pixels(t)) for t in (1, 2, 3))
    with FrameServer() as server:
        camera = SocketCamera("127.0.0.1", server.port)
        camera.open()
        at = 0
        for cut in sorted({*cuts, len(data)}):
            server.send_bytes(data[at:cut])
            assert camera.frame(99, 0.0) is None
            at = cut
        assert [value_of(camera, t) for t in (1, 2, 3)] == [1, 2, 3]
        camera.close()


WRONG = {
    "magic": frame_bytes(1, pixels(1), magic=b"JPEG"),
    "version": frame_bytes(1, pixels(1), version=2),
    "size": frame_bytes(1, pixels(1), size=25),
    "oversize": frame_bytes(1, np.empty((0, 3), np.uint8), size=2**32 - 1),
    "empty": frame_bytes(1, np.empty((0, 3), np.uint8)),
    "channels": frame_bytes(1, np.zeros((2, 2, 2), np.uint8)),
    "short header": frame_bytes(1, pixels(1), header_bytes=20),
    "text": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_frame_is_refused_and_the_camera_may_be_opened_again(
    server: FrameServer, camera: SocketCamera, what: str
) -> None:
    server.send_bytes(WRONG[what])
    with pytest.raises(EndpointError, match="not a frame of protocol version 1"):
        camera.frame(1, 2.0)
    with pytest.raises(EndpointError, match="not connected"):
        camera.frame(1, 2.0)
    camera.open()
    server.send(2, pixels(2))
    assert value_of(camera, 2) == 2


def test_a_truncated_frame_and_a_closed_connection(server: FrameServer, camera: SocketCamera) -> None:
    server.send_bytes(frame_bytes(1, pixels(1))[:-1])
    server.hang_up()
    with pytest.raises(EndpointError, match="closed the connection"):
        camera.frame(1, 2.0)


def test_a_frame_sent_just_before_the_end_is_delivered(server: FrameServer, camera: SocketCamera) -> None:
    server.send(1, pixels(1))
    server.hang_up()
    time.sleep(0.05)
    assert value_of(camera, 1) == 1
    with pytest.raises(EndpointError):
        camera.frame(2, 2.0)


def test_nobody_there() -> None:
    with FrameServer() as server:
        port = server.port
    with pytest.raises(EndpointError, match=f"camera 127.0.0.1:{port}: cannot connect"):
        SocketCamera("127.0.0.1", port).open()
