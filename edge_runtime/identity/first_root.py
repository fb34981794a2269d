"""The registry's first root, `trust/root.json`, where trust in updates begins: brought by enrolment, or by hand.

- It makes the device a managed one, so it is brought only to a device that asks for updates (`update.url`), or where it is given
  as a file. It is never put over another: from the first on, roots follow one another by their signatures.
- By enrolment it is as good as the token: it comes over a connection to the cloud that the token names. Its SHA-256 is told, for
  people who compare it with the one of the machine where the ceremony was.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from edge_runtime.durable import disk_errors, make_folder, replace_file
from edge_runtime.errors import DataError
from edge_runtime.update.tuf.repository import FOLDER, ROOT, ROOT_LIMIT_BYTES


def read_first_root(path: Path) -> bytes:
    with disk_errors(path), path.open("rb") as file:
        return check_first_root(file.read(ROOT_LIMIT_BYTES + 1), str(path))


def check_first_root(data: bytes, what: str) -> bytes:
    """DataError where this is not version 1 of a root, signed by as many of its own keys as it asks for."""
    if len(data) > ROOT_LIMIT_BYTES:
        raise DataError(f"{what}: larger than {ROOT_LIMIT_BYTES} bytes, expected the repository's 1.root.json")
    try:
        found = Metadata[Root].from_bytes(data)
        if not isinstance(found.signed, Root) or found.signed.version != 1:
            raise DataError(f"{what}: expected version 1 of a root, the repository's 1.root.json")
        found.verify_delegate(Root.type, found)
    except (RepositoryError, ValueError) as error:
        raise DataError(f"{what}: no root that its own keys have signed: {error}") from error
    return data


def known(state_dir: Path) -> bool:
    path = state_dir / FOLDER / ROOT
    with disk_errors(path):
        return path.exists()


def keep(state_dir: Path, data: bytes) -> str:
    """Its SHA-256."""
    with disk_errors(state_dir / FOLDER):
        make_folder(state_dir / FOLDER)
    replace_file(state_dir / FOLDER / ROOT, data)
    return hashlib.sha256(data).hexdigest()
