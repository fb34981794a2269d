"""Who this device is: its signing key (`signing_key`), and its TLS key with the certificate that the cloud gave for it."""

from __future__ import annotations

from edge_runtime.identity.signing_key import KEY_PATH, device_key, load_or_make, public_bytes, public_text

__all__ = ["KEY_PATH", "device_key", "load_or_make", "public_bytes", "public_text"]
