"""Challenges for a proof of possession: a time and a random number under a MAC, so that nothing has to be kept.

They hold for a short time by the cloud's clock; the device's clock, which may be wrong, plays no part.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HOLDS_NS = 300 * 10**9


class Challenges:
    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def of(cls, key: Ed25519PrivateKey) -> Challenges:
        """All processes that have the cloud's key believe one another's."""
        raw, plain = serialization.Encoding.Raw, serialization.NoEncryption()
        seed = key.private_bytes(raw, serialization.PrivateFormat.Raw, plain)
        return cls(hmac.digest(seed, b"gudgeon renewal challenge", hashlib.sha256))

    def make(self, device: str, now_ns: int) -> str:
        text = f"{now_ns}.{secrets.token_hex(8)}"
        return f"{text}.{self._mac(device, text)}"

    def holds(self, device: str, challenge: str, now_ns: int) -> bool:
        text, _, mac = challenge.rpartition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(device, text).encode()):
            return False
        return 0 <= now_ns - int(text.partition(".")[0]) < HOLDS_NS

    def _mac(self, device: str, text: str) -> str:
        return hmac.digest(self._key, f"{device}\n{text}".encode(), hashlib.sha256).hex()
