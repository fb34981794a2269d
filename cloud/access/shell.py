"""The one with a shell on the cloud's machine, who reads and writes its store directly: an admin, by the name of their user."""

from __future__ import annotations

from cloud.access.roles import Actor, Role
from edge_runtime.who import user_name


def shell_actor() -> Actor:
    return Actor(f"cli:{user_name()}", Role.ADMIN, "cli")
