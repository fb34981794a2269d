"""Which bundles this device believes: an Ed25519 signature over the manifest's bytes by a key that it trusts. Pure.

Trusted until identity exists: the release keys packaged with the runtime, the keys in `<state_dir>/trust/*.pub`, and
the local developer's own key.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_runtime.errors import BundleError

SIGNATURE_LIMIT_BYTES = 4096
HINT = "sign it with `gudgeon sign BUNDLE_DIR`, or put the signer's .pub file into the device's trust folder"

#: key id → raw 32-byte Ed25519 public key
KeySet = Mapping[str, bytes]


def key_id(public: bytes) -> str:
    """The first 16 hex digits of the key's SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def encode_signature(signer: str, signature: bytes) -> bytes:
    return json.dumps({"key_id": signer, "signature": base64.b64encode(signature).decode()}).encode() + b"\n"


def verify(manifest_bytes: bytes, signature_file: bytes | None, keys: KeySet) -> str:
    """The id of the trusted key that signed; BundleError otherwise."""
    if signature_file is None:
        raise BundleError(f"bundle is not signed (manifest.sig is missing); {HINT}")
    try:
        if len(signature_file) > SIGNATURE_LIMIT_BYTES:
            raise ValueError("too large")
        data = json.loads(signature_file)
        signer, signature = str(data["key_id"]), base64.b64decode(data["signature"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"manifest.sig is not a signature file; {HINT}") from error
    if signer not in keys:
        raise BundleError(f"bundle is signed by key {signer[:16]}, which this device does not trust; {HINT}")
    try:
        Ed25519PublicKey.from_public_bytes(keys[signer]).verify(signature, manifest_bytes)
    except (InvalidSignature, ValueError) as error:
        raise BundleError(f"bundle's manifest does not match its signature by key {signer}: it was changed") from error
    return signer
