"""Key files: the local developer's signing key and the public keys that a device trusts.

The private key is made on first use in `$GUDGEON_HOME` (or `~/.config/gudgeon`), mode 0600, and never leaves it. A
`.pub` file is one line of base64: the raw 32-byte Ed25519 public key.
"""

from __future__ import annotations

import base64
import binascii
import os
from importlib import resources
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.durable import disk_errors, replace_file
from edge_runtime.errors import ResourceError
from edge_runtime.identity import load_or_make, public_bytes
from edge_runtime.update.trust import KeySet, key_id


def home() -> Path:
    return Path(os.environ.get("GUDGEON_HOME") or Path.home() / ".config" / "gudgeon")


def developer_key(folder: Path | None = None) -> Ed25519PrivateKey:
    """The local developer's key; made, with its public half beside it, where there is none yet."""
    folder = folder or home()
    key = load_or_make(folder / "developer.key")
    if not (folder / "developer.pub").exists():
        write_public(folder / "developer.pub", public_bytes(key))
    return key


def write_public(path: Path, public: bytes) -> None:
    replace_file(path, base64.b64encode(public) + b"\n")


def trusted_keys(state_dir: Path) -> KeySet:
    """Everything that this device trusts; ResourceError names a key file that cannot be read."""
    packaged = resources.files("edge_runtime.update").joinpath("keys")
    texts = [(str(f), f.read_bytes()) for f in packaged.iterdir() if f.name.endswith(".pub")]
    for path in [*sorted((state_dir / "trust").glob("*.pub")), home() / "developer.pub"]:
        with disk_errors(path):
            texts += [(str(path), path.read_bytes())] if path.is_file() else []
    keys = {}
    for name, text in texts:
        try:
            public = base64.b64decode(text.strip(), validate=True)
        except binascii.Error as error:
            raise ResourceError(f"{name}: not a public key (one line of base64); remove it") from error
        if len(public) != 32:
            raise ResourceError(f"{name}: a public key has 32 bytes, this one {len(public)}; remove it")
        keys[key_id(public)] = public
    return keys
