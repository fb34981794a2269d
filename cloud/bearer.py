"""Who may write through the API: whoever can read the token file, which is this user alone.

The token goes in the header `Authorization: Bearer …`. A browser adds no such header by itself, so no page elsewhere can
write in a visitor's name."""

from __future__ import annotations

import secrets
from pathlib import Path

from edge_runtime.durable import disk_errors, make_secret, sync_folder
from edge_runtime.mqtt_access import secret_file

LEAST_CHARS = 32


def load_or_make(path: Path) -> str:
    """The token in the file; made, durably and with mode 0600, where there is none. ResourceError where others can read it."""
    with disk_errors(path):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            make_secret(path, f"{secrets.token_urlsafe(32)}\n".encode())  # where another was first, its token holds
            sync_folder(path.parent)
    return secret_file(path)


def allowed(header: str, token: str) -> bool:
    """Compared in a time that tells nothing of the token. An empty or short token allows nobody."""
    scheme, _, given = header.partition(" ")
    fits = secrets.compare_digest(given.strip().encode(), token.encode())
    return fits and scheme.lower() == "bearer" and len(token) >= LEAST_CHARS
