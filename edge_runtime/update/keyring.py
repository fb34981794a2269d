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

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.durable import disk_errors, replace_file
from edge_runtime.errors import ResourceError
from edge_runtime.update.trust import KeySet, key_id


def home() -> Path:
    return Path(os.environ.get("GUDGEON_HOME") or Path.home() / ".config" / "gudgeon")


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def developer_key(folder: Path | None = None) -> Ed25519PrivateKey:
    """The local developer's key; made, with its public half beside it, where there is none yet."""
    folder = folder or home()
    path = folder / "developer.key"
    with disk_errors(path):
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            key = Ed25519PrivateKey.generate()
            pem = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(pem)
        if path.stat().st_mode & 0o077:
            raise ResourceError(f"{path}: other users can read this private key; run: chmod 600 {path}")
        pem = path.read_bytes()
    try:
        loaded = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ResourceError(f"{path}: not a private key; move it away and a new one is made") from error
    if not isinstance(loaded, Ed25519PrivateKey):
        raise ResourceError(f"{path}: not an Ed25519 key; move it away and a new one is made")
    if not (folder / "developer.pub").exists():
        write_public(folder / "developer.pub", public_bytes(loaded))
    return loaded


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
