"""The key of the cloud that this device obeys, and what is signed with it. Without a key there is nobody to obey."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_runtime.durable import disk_errors
from edge_runtime.errors import ConfigError
from edge_runtime.wire.signed import Sealed, signed_bytes

KEY_PATH = Path("identity") / "cloud.pub"  # not in trust/: what lies there signs bundles


def cloud_key(state_dir: Path, configured: str = "") -> Ed25519PublicKey | None:
    """The key of `[cloud] public_key`, else of the file; None where there is neither."""
    path, text, where = state_dir / KEY_PATH, configured, "cloud.public_key"
    if not text:
        with disk_errors(path):
            if not path.exists():
                return None
            text, where = path.read_text(errors="replace"), str(path)
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text.strip(), validate=True))
    except (binascii.Error, ValueError) as error:
        raise ConfigError(
            f"{where}: not an Ed25519 public key in base64 (44 characters); `gudgeon device --help` tells how to get it"
        ) from error


def signed_by(key: Ed25519PublicKey, kind: str, message: Sealed) -> bool:
    try:
        key.verify(message.signature, signed_bytes(kind, message.body))
    except InvalidSignature:
        return False
    return True
