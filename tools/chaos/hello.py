"""How long the broker takes to answer a CONNECT, as seen from where this runs: ``python -m tools.chaos.hello HOST PORT``."""

from __future__ import annotations

import socket
import sys
import time

TIMEOUT_S = 20.0
#: MQTT 3.1.1, clean session, client id "gudgeon-hello"
CONNECT = b"\x10\x19\x00\x04MQTT\x04\x02\x00\x3c\x00\x0dgudgeon-hello"


def round_trip_s(host: str, port: int) -> float:
    with socket.create_connection((host, port), TIMEOUT_S) as connection:
        began_s = time.monotonic()
        connection.sendall(CONNECT)
        if connection.recv(1) != b"\x20":
            raise ConnectionError(f"{host}:{port} answered a CONNECT with something else than a CONNACK")
        return time.monotonic() - began_s


if __name__ == "__main__":
    print(round_trip_s(sys.argv[1], int(sys.argv[2])))
