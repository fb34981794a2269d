"""Listening sockets, opened before anything else starts, so that a port in use is one clear line."""

from __future__ import annotations

import errno
import socket

from edge_runtime.errors import ConfigError, ResourceError

BACKLOG = 128


def listen(host: str, port: int, key: str) -> socket.socket:
    """A socket that listens on host:port (0: any free port). `key` is the setting to change, for the error text.

    ResourceError if the port is in use or not permitted; ConfigError if the host has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ResourceError(
                f"port {port} on {host} is in use; stop what listens there, or set {key} in cloud.toml to another port or to 0"
            ) from error
        if error.errno == errno.EACCES:
            raise ResourceError(f"port {port} on {host} needs more permission; set {key} to 1024 or more") from error
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}; check {key}") from error
    sock.setblocking(False)
    return sock


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])
