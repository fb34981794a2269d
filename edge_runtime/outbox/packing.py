"""A record line as it is stored: compressed with Zstandard where that pays, else as it is.

Short lines do not get smaller by themselves (on the wire whole batches are compressed); long ones, pieces of an image in
base64 above all, do. A line begins with ``{``, a compressed one with Zstandard's magic number."""

from __future__ import annotations

from edge_runtime.wire.batch import ZSTD_MAGIC
from edge_runtime.wire.envelope import LINE_LIMIT_BYTES

PACK_FROM_BYTES = 1024
PAYS = 0.9
LEVEL = 3


def pack(line: bytes) -> bytes:
    if len(line) < PACK_FROM_BYTES:
        return line
    import zstandard

    packed = zstandard.ZstdCompressor(level=LEVEL).compress(line)
    return packed if len(packed) < PAYS * len(line) else line


def unpack(data: bytes) -> bytes:
    if not data.startswith(ZSTD_MAGIC):
        return data
    import zstandard

    return zstandard.ZstdDecompressor().decompress(data, max_output_size=LINE_LIMIT_BYTES)
