"""A Video4Linux2 camera (`/dev/video*`): Linux ioctls over memory-mapped buffers, nothing to install.

The driver streams without pause; a trigger takes the first frame that was exposed after it. Pixel formats: GREY, YUYV (its
luminance) and MJPEG (decoded with Pillow), the first of these that the camera offers at the wanted size.
Source of structures and numbers: the kernel's `include/uapi/linux/videodev2.h`.
"""

from __future__ import annotations

import ctypes
import fcntl
import io
import mmap
import os
import select
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_runtime.errors import EndpointError
from edge_runtime.field.camera import Frame

BUFFERS = 4
CAPTURE, MEMORY_MMAP, FIELD_NONE = 1, 1, 1
CAN_CAPTURE, CAN_STREAM, HAS_DEVICE_CAPS = 0x1, 0x04000000, 0x80000000


def fourcc(text: str) -> int:
    return int.from_bytes(text.encode(), "little")


FORMATS = {fourcc(name): name for name in ("GREY", "YUYV", "MJPG")}


class Capability(ctypes.Structure):
    _fields_ = (
        ("driver", ctypes.c_char * 16),
        ("card", ctypes.c_char * 32),
        ("bus_info", ctypes.c_char * 32),
        ("version", ctypes.c_uint32),
        ("capabilities", ctypes.c_uint32),
        ("device_caps", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 3),
    )


class PixFormat(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint32)
        for name in (
            "width", "height", "pixelformat", "field", "bytesperline", "sizeimage", "colorspace", "priv",
            "flags", "ycbcr_enc", "quantization", "xfer_func",
        )
    )  # fmt: skip


class _FormatUnion(ctypes.Union):
    _fields_ = (("pix", PixFormat), ("raw", ctypes.c_uint8 * 200), ("align", ctypes.c_void_p))


class Format(ctypes.Structure):
    _fields_ = (("type", ctypes.c_uint32), ("fmt", _FormatUnion))


class RequestBuffers(ctypes.Structure):
    _fields_ = (
        ("count", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("memory", ctypes.c_uint32),
        ("capabilities", ctypes.c_uint32),
        ("flags_reserved", ctypes.c_uint32),
    )


class Timeval(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_usec", ctypes.c_long))


class Timecode(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("frames", ctypes.c_uint8),
        ("seconds", ctypes.c_uint8),
        ("minutes", ctypes.c_uint8),
        ("hours", ctypes.c_uint8),
        ("userbits", ctypes.c_uint8 * 4),
    )


class _BufferUnion(ctypes.Union):
    _fields_ = (("offset", ctypes.c_uint32), ("userptr", ctypes.c_ulong), ("planes", ctypes.c_void_p))


class Buffer(ctypes.Structure):
    _fields_ = (
        ("index", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("bytesused", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("field", ctypes.c_uint32),
        ("timestamp", Timeval),
        ("timecode", Timecode),
        ("sequence", ctypes.c_uint32),
        ("memory", ctypes.c_uint32),
        ("m", _BufferUnion),
        ("length", ctypes.c_uint32),
        ("reserved2", ctypes.c_uint32),
        ("request_fd", ctypes.c_int32),
    )


def _ioc(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | ord("V") << 8 | number


QUERYCAP = _ioc(2, 0, ctypes.sizeof(Capability))
S_FMT = _ioc(3, 5, ctypes.sizeof(Format))
REQBUFS = _ioc(3, 8, ctypes.sizeof(RequestBuffers))
QUERYBUF = _ioc(3, 9, ctypes.sizeof(Buffer))
QBUF = _ioc(3, 15, ctypes.sizeof(Buffer))
DQBUF = _ioc(3, 17, ctypes.sizeof(Buffer))
STREAMON = _ioc(1, 18, 4)
STREAMOFF = _ioc(1, 19, 4)


class V4l2Camera:
    repeats = False

    def __init__(self, path: Path, width: int, height: int) -> None:
        self._path, self._width, self._height = path, width, height
        self._fd = -1
        self._maps: list[mmap.mmap] = []
        self._format = PixFormat()
        self._card = ""

    def open(self) -> None:
        self.close()
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
            self._negotiate()
            self._start()
        except OSError as error:
            self.close()
            raise EndpointError(f"camera {self._path}: {error}; check that it is plugged in and not in use") from error
        except EndpointError:
            self.close()
            raise

    def frame(self, trigger: int, timeout_s: float) -> Frame | None:
        """The first frame whose exposure began at or after this call."""
        begin_s = time.monotonic()
        if self._fd < 0:
            raise EndpointError(f"camera {self._path}: not open")
        try:
            while (left_s := begin_s + timeout_s - time.monotonic()) > 0:
                if not select.select([self._fd], [], [], left_s)[0]:
                    return None
                buffer = self._dequeue()
                stamp_s = buffer.timestamp.tv_sec + buffer.timestamp.tv_usec / 1e6
                data = bytes(self._maps[buffer.index][: buffer.bytesused])
                self._call(QBUF, buffer)
                if stamp_s >= begin_s:
                    return Frame(trigger, round(stamp_s * 1e9), decode(data, self._format), str(self._path))
        except OSError as error:
            self.close()
            raise EndpointError(f"camera {self._path}: {error}") from error
        return None

    def idle(self) -> None:
        pass

    def close(self) -> None:
        for m in self._maps:
            m.close()
        self._maps = []
        if self._fd >= 0:
            os.close(self._fd)  # stops the stream
        self._fd = -1

    def describe(self) -> dict[str, Any]:
        f = self._format
        name = FORMATS.get(f.pixelformat, "")
        return {
            "driver": "v4l2",
            "path": str(self._path),
            "card": self._card,
            "format": name,
            "size": [f.width, f.height],
        }

    def _negotiate(self) -> None:
        caps = Capability()
        self._call(QUERYCAP, caps)
        self._card = caps.card.decode(errors="replace")
        can = caps.device_caps if caps.capabilities & HAS_DEVICE_CAPS else caps.capabilities
        if not (can & CAN_CAPTURE and can & CAN_STREAM):
            raise EndpointError(f"camera {self._path}: {self._card} does not stream video; use another /dev/video*")
        for wanted in FORMATS:
            request = Format(type=CAPTURE)
            request.fmt.pix.width, request.fmt.pix.height = self._width, self._height
            request.fmt.pix.pixelformat, request.fmt.pix.field = wanted, FIELD_NONE
            self._call(S_FMT, request)
            self._format = request.fmt.pix
            if self._format.pixelformat == wanted:
                return
        raise EndpointError(f"camera {self._path}: {self._card} offers none of {', '.join(FORMATS.values())}")

    def _start(self) -> None:
        request = RequestBuffers(count=BUFFERS, type=CAPTURE, memory=MEMORY_MMAP)
        self._call(REQBUFS, request)
        for index in range(request.count):
            buffer = Buffer(index=index, type=CAPTURE, memory=MEMORY_MMAP)
            self._call(QUERYBUF, buffer)
            self._maps.append(mmap.mmap(self._fd, buffer.length, offset=buffer.m.offset))
            self._call(QBUF, buffer)
        self._call(STREAMON, ctypes.c_int(CAPTURE))

    def _dequeue(self) -> Buffer:
        buffer = Buffer(type=CAPTURE, memory=MEMORY_MMAP)
        self._call(DQBUF, buffer)
        return buffer

    def _call(self, request: int, argument: Any) -> None:
        fcntl.ioctl(self._fd, request, argument)


def decode(data: bytes, f: PixFormat) -> NDArray[np.uint8]:
    """Grey pixels (height, width) of one buffer; EndpointError for a buffer that is too short or no JPEG."""
    name = FORMATS.get(f.pixelformat, "")
    if name == "MJPG":
        try:
            return np.asarray(Image.open(io.BytesIO(data)).convert("L"))
        except (OSError, ValueError) as error:
            raise EndpointError(f"camera: a frame is no JPEG: {error}") from error
    bytes_a_pixel = 2 if name == "YUYV" else 1
    stride = max(f.bytesperline, f.width * bytes_a_pixel)
    if len(data) < stride * f.height:
        raise EndpointError(f"camera: a frame has {len(data)} bytes, expected {stride * f.height}")
    rows = np.frombuffer(data, np.uint8, stride * f.height).reshape(f.height, stride)
    return np.ascontiguousarray(rows[:, : f.width * bytes_a_pixel : bytes_a_pixel])
