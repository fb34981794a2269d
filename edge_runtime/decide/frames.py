"""Live frames, and what was decided of them, from `control` to a process that judges them a second time: one place in shared
memory and a datagram. `control` never waits: where the place is still taken, the frame is left out.

- The other side makes the memory, of the size that it asks for, and names it in its request ``watch`` (`swap_socket`). It is no
  file on a disk: the first write to a page of one may wait for the disk's journal.
- `control` copies the frame in and sends the header as a datagram; the other side answers ``taken`` when it has copied it out.
  Both system calls order the memory accesses on either side.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.decide.models import Seen

FRAME_LIMIT_BYTES = 64 * 1024 * 1024


class FrameBox:
    """The side of `control`. ValueError or OSError where the memory is not as asked for."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        if not 0 < size_bytes <= FRAME_LIMIT_BYTES:
            raise ValueError(f"a place of {size_bytes} bytes, expected up to {FRAME_LIMIT_BYTES}")
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size_bytes)
        self._place = np.frombuffer(self._map, np.uint8)
        self._free = True
        self.given = self.left_out = 0

    def put(self, seen: Seen) -> Mapping[str, Any] | None:
        """The header to be sent, None where the frame is left out."""
        pixels = seen.frame.pixels
        if not self._free or pixels.size > self._place.size:
            self.left_out += 1
            return None
        self._place[: pixels.size] = pixels.reshape(-1)
        self._free = False
        self.given += 1
        d = seen.decision
        header = {"part_seq": d.part_seq, "part_epoch": d.part_epoch, "result": int(d.result), "score": d.score}
        return {**header, "digest": d.bundle_digest, "shape": pixels.shape}

    def taken(self) -> None:
        self._free = True


class FramePlace:
    """The other side: the memory, and frames out of it. `path`: where another process of this user finds it."""

    def __init__(self, size_bytes: int) -> None:
        self._fd = os.memfd_create("frames")
        os.ftruncate(self._fd, size_bytes)
        self._map = mmap.mmap(self._fd, size_bytes)
        self.path, self.size_bytes = Path(f"/proc/{os.getpid()}/fd/{self._fd}"), size_bytes
        self._place = np.frombuffer(self._map, np.uint8)

    def take(self, header: Mapping[str, Any]) -> NDArray[np.uint8]:
        """A copy of the frame; ValueError where the header does not fit."""
        shape = tuple(int(n) for n in header["shape"])
        count = int(np.prod(shape))
        if len(shape) not in (2, 3) or min(shape) < 1 or count > self._place.size:
            raise ValueError(f"a frame of shape {shape} does not fit {self.size_bytes} bytes")
        return self._place[:count].reshape(shape).copy()
