"""Elements and their bytes: differences of two arrays of weights, and the layout byte plane by byte plane. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_runtime.delta.container import PLANE, SUB, XOR

TYPES: dict[int, Any] = {1: np.dtype("<u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}


def to_planes(data: bytes, width: int) -> bytes:
    """First the first byte of every element, then the second of every one, …"""
    return np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(-1, width).T).tobytes()


def from_planes(data: bytes, width: int) -> bytes:
    return np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(width, -1).T).tobytes()


def difference(mode: str, width: int, target: bytes, source: bytes) -> bytes:
    """What `restore` needs beside the source."""
    if mode == PLANE:
        return target
    t, s = np.frombuffer(target, TYPES[width]), np.frombuffer(source, TYPES[width])
    return (t ^ s if mode == XOR else t - s).tobytes()  # unsigned: wraps


def restore(mode: str, width: int, changed: bytes, source: bytes) -> bytes:
    if mode == PLANE:
        return changed
    d, s = np.frombuffer(changed, TYPES[width]), np.frombuffer(source, TYPES[width])
    return (d + s if mode == SUB else d ^ s).tobytes()
