"""The first bytes of an MQTT connection: which version does the client speak?

amqtt reads a CONNECT of MQTT 5 as if it were 3.1.1 and, where there is a last will, waits for bytes that never come. So the
broker reads the first bytes itself, refuses other versions at once in the client's own version, and hands the bytes of a
3.1.1 client on. A connection that does not begin with a CONNECT within `HELLO_TIMEOUT_S` is closed.
"""

from __future__ import annotations

import asyncio

CONNECT = 0x10
HELLO_TIMEOUT_S = 10.0
LENGTH_BYTES = 4
NAME_BYTES = 6
MQTT_311 = 4
MQTT_5 = 5

#: CONNACK: unsupported protocol version
REFUSAL_5 = bytes((0x20, 0x03, 0x00, 0x84, 0x00))
REFUSAL_3 = bytes((0x20, 0x02, 0x00, 0x01))


async def read_hello(reader: asyncio.StreamReader) -> tuple[bytes, int]:
    """The bytes up to the protocol level, and the level. ValueError if this is no CONNECT; EOFError if it ends before."""
    data = await reader.readexactly(1)
    if data[0] != CONNECT:
        raise ValueError(f"the first byte is {data[0]:#04x}, expected a CONNECT")
    for _ in range(LENGTH_BYTES):
        data += await reader.readexactly(1)
        if data[-1] < 0x80:
            break
    else:
        raise ValueError("the length of the CONNECT is malformed")
    name_length = await reader.readexactly(2)
    length = int.from_bytes(name_length, "big")
    if length > NAME_BYTES:
        raise ValueError(f"the protocol name is {length} bytes long")
    rest = await reader.readexactly(length + 1)
    return data + name_length + rest, rest[-1]


def refusal(level: int) -> bytes:
    """What a client of this protocol level understands as: unsupported version."""
    return REFUSAL_5 if level >= MQTT_5 else REFUSAL_3
