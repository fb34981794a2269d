"""Where the weights stand in a file: byte ranges of arrays, by name, with the width of their elements. Pure.

An `.onnx` file is walked as a protobuf message (ModelProto.graph = 7, GraphProto.initializer = 5, TensorProto.data_type = 2,
name = 8, raw_data = 9); an `.npz` file by its zip directory, arrays that are stored unpacked; a `.tflite` file as a whole, byte
by byte. What cannot be read has no regions: then a delta is larger, not wrong.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from typing import NamedTuple

REGIONS_LIMIT = 2000
LEAST_BYTES = 1024
#: ONNX data type → bytes of an element
ONNX_WIDTHS = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}


class Region(NamedTuple):
    name: str
    start: int
    length: int
    width: int


def find(file: str, data: bytes) -> list[Region]:
    """Of a file by its name; in rising order, none over another."""
    readers = {".onnx": onnx, ".npz": npz, ".tflite": whole}
    try:
        found = sorted(readers.get(file[file.rfind(".") :], nothing)(data), key=lambda r: r.start)
    except (ValueError, IndexError, KeyError, struct.error, zipfile.BadZipFile, UnicodeDecodeError):
        return []
    end = 0
    for region in found:
        if region.start < end or region.start + region.length > len(data) or region.length % region.width:
            return []
        end = region.start + region.length
    return [r for r in found if r.length >= LEAST_BYTES][:REGIONS_LIMIT]


def nothing(data: bytes) -> list[Region]:
    return []


def whole(data: bytes) -> list[Region]:
    return [Region("", 0, len(data), 1)]


def onnx(data: bytes) -> list[Region]:
    found = []
    for number, start, stop in _fields(data, 0, len(data)):
        if number == 7:
            for inner, at, end in _fields(data, start, stop):
                if inner == 5:
                    found += _tensor(data, at, end)
    return found


def _tensor(data: bytes, start: int, stop: int) -> list[Region]:
    name, kind, raw = "", 0, (0, 0)
    for number, at, end in _fields(data, start, stop):
        if number == 8:
            name = data[at:end].decode()
        elif number == 2:
            kind = _varint(data, at)[0]
        elif number == 9:
            raw = (at, end)
    width = ONNX_WIDTHS.get(kind, 0)
    return [Region(name, raw[0], raw[1] - raw[0], width)] if width and raw[1] > raw[0] else []


def _fields(data: bytes, at: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """(field number, start, end of its value) of one message."""
    while at < stop:
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            end = _varint(data, at)[1]
        elif wire in (1, 5):
            end = at + (8 if wire == 1 else 4)
        elif wire == 2:
            size, at = _varint(data, at)
            end = at + size
        else:
            raise ValueError(f"wire type {wire} is not used by ONNX")
        if end > stop:
            raise ValueError("a field goes on beyond its message")
        yield key >> 3, at, end
        at = end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a varint is longer than 64 bits")


def npz(data: bytes) -> list[Region]:
    found = []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or not entry.filename.endswith(".npy"):
                continue
            name_bytes, extra_bytes = struct.unpack("<HH", data[entry.header_offset + 26 : entry.header_offset + 30])
            start = entry.header_offset + 30 + name_bytes + extra_bytes
            if data[start : start + 6] != b"\x93NUMPY" or data[start + 6] != 1:
                continue
            (head_bytes,) = struct.unpack("<H", data[start + 8 : start + 10])
            head = data[start + 10 : start + 10 + head_bytes].decode("latin1")
            kind = head.partition("'descr': '")[2][:3]
            if kind[:2] in ("<f", "<i", "<u", "|u", "|i", "|b") and kind[2:] in "1248":
                body = start + 10 + head_bytes
                found.append(Region(entry.filename, body, start + entry.file_size - body, int(kind[2:])))
    return found
