"""A key as what it is, whatever id metadata give it."""

from __future__ import annotations

import hashlib

from securesystemslib.signer import Key

from edge_runtime.wire.signed import canonical


def key_print(key: Key) -> str:
    """The first 32 hex digits of the SHA-256 of type, scheme and value."""
    value = {"keytype": key.keytype, "scheme": key.scheme, "keyval": key.keyval}
    return hashlib.sha256(canonical(value)).hexdigest()[:32]
