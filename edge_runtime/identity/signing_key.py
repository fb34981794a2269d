"""The device's own key: Ed25519, made on the device at first use, readable by this user only, never sent anywhere.

`<state_dir>/identity/device.key` (PEM, 0600). What is signed with it: the checkpoints of the outbox."""

from __future__ import annotations

import base64
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.durable import disk_errors, make_secret, sync_folder
from edge_runtime.errors import ResourceError

KEY_PATH = Path("identity") / "device.key"


def device_key(state_dir: Path) -> Ed25519PrivateKey:
    """The key of the device whose state is here; ResourceError where the file cannot be used."""
    key = load_or_make(state_dir / KEY_PATH)
    with disk_errors(state_dir):
        sync_folder(state_dir)  # the name of the key's folder, too
    return key


def load_or_make(path: Path) -> Ed25519PrivateKey:
    """The private key in `path`; made where there is none yet. It is on the disk, whoever made it: others will be told it."""
    with disk_errors(path):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            make_secret(path, _new_pem())
        sync_folder(path.parent)
        if path.stat().st_mode & 0o077:
            raise ResourceError(f"{path}: other users can read this private key; run: chmod 600 {path}")
        pem = path.read_bytes()
    try:
        loaded = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ResourceError(f"{path}: not a private key; move it away and a new one is made") from error
    if not isinstance(loaded, Ed25519PrivateKey):
        raise ResourceError(f"{path}: not an Ed25519 key; move it away and a new one is made")
    return loaded


def _new_pem() -> bytes:
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return Ed25519PrivateKey.generate().private_bytes(serialization.Encoding.PEM, pkcs8, plain)


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def public_text(key: Ed25519PrivateKey) -> str:
    """The public key as one line of base64."""
    return base64.b64encode(public_bytes(key)).decode()
