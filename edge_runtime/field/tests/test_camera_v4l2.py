"""The V4L2 camera: its numbers against the kernel's, its pixel formats, and what happens where there is no camera.

With a camera at hand (`/dev/video0`, or the kernel's `vivid` test driver) the contract is tested on it as well."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_runtime.errors import EndpointError
from edge_runtime.field import camera_v4l2 as v4l2
from edge_runtime.field.camera_v4l2 import PixFormat, V4l2Camera, decode, fourcc

DEVICE = Path("/dev/video0")


def test_the_requests_are_the_kernels() -> None:
    """`VIDIOC_…` of include/uapi/linux/videodev2.h on a 64-bit machine."""
    names = ("QUERYCAP", "S_FMT", "REQBUFS", "QUERYBUF", "QBUF", "DQBUF", "STREAMON", "STREAMOFF")
    expected = (
        0x80685600, 0xC0D05605, 0xC0145608, 0xC0585609, 0xC058560F, 0xC0585611, 0x40045612, 0x40045613,
    )  # fmt: skip
    assert tuple(getattr(v4l2, name) for name in names) == expected


def pix(name: str, width: int, height: int, stride: int) -> PixFormat:
    return PixFormat(width=width, height=height, pixelformat=fourcc(name), bytesperline=stride)


def test_grey_rows_lose_their_padding() -> None:
    rows = np.arange(3 * 8, dtype=np.uint8).reshape(3, 8)
    assert decode(rows.tobytes(), pix("GREY", 6, 3, 8)).tolist() == rows[:, :6].tolist()


def test_yuyv_gives_its_luminance() -> None:
    y = np.arange(2 * 4, dtype=np.uint8).reshape(2, 4)
    packed = np.stack([y, np.full_like(y, 128)], axis=-1)
    assert decode(packed.tobytes(), pix("YUYV", 4, 2, 8)).tolist() == y.tolist()


def test_mjpeg_is_decoded() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((16, 24), 77, np.uint8)).save(buffer, "JPEG")
    assert np.abs(decode(buffer.getvalue(), pix("MJPG", 24, 16, 0)).astype(int) - 77).max() <= 1


@pytest.mark.parametrize(("name", "data"), [("GREY", b"short"), ("MJPG", b"no picture")])
def test_a_broken_buffer_is_an_endpoint_error(name: str, data: bytes) -> None:
    with pytest.raises(EndpointError, match="a frame"):
        decode(data, pix(name, 24, 16, 24))


@pytest.mark.parametrize("path", ["/dev/video-none", "/dev/null"])
def test_where_there_is_no_camera(path: str) -> None:
    camera = V4l2Camera(Path(path), 640, 480)
    with pytest.raises(EndpointError, match=path):
        camera.open()
    with pytest.raises(EndpointError, match="not open"):
        camera.frame(1, 0.01)
    camera.close()


@pytest.mark.skipif(not DEVICE.exists(), reason="no /dev/video0 on this machine")
def test_a_real_camera_gives_a_frame_exposed_after_the_trigger() -> None:
    camera = V4l2Camera(DEVICE, 640, 480)
    camera.open()
    first, second = camera.frame(1, 2.0), camera.frame(2, 2.0)
    camera.close()
    assert first is not None
    assert second is not None
    assert (first.trigger, second.trigger) == (1, 2)
    assert first.timestamp_ns < second.timestamp_ns
    assert first.pixels.ndim == 2
