"""The one with a shell on the cloud's machine, who reads and writes its store directly: an admin, by the name of their user."""

from __future__ import annotations

import getpass

from cloud.access.roles import Actor, Role


def shell_actor() -> Actor:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return Actor(f"cli:{user}", Role.ADMIN, "cli")
