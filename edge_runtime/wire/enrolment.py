"""What crosses the wire so that a device gets a certificate. Pure formats, JSON over HTTPS.

    GET  /device/v1/roots                          → {roots}; compared with the fingerprint in the token before all else
    POST /device/v1/enrol                          {v, token, hardware, csr} → Certified
    GET  /device/v1/devices/<device>/certificate   with a certificate → {device, serial, not_after_ns}: it works
    GET  /device/v1/devices/<device>/key           with a certificate → {public_key}: of the cloud whose commands it takes
    POST /device/v1/devices/<device>/challenge     {v} → {challenge}
    POST /device/v1/devices/<device>/certificate   {v, csr} with a certificate → Certified
                                                   {v, csr, certificate, challenge, proof} without one → Certified

`proof` is a signature over `proof_bytes` with the key of `certificate`, ECDSA with SHA-256: for a device whose certificate has
expired, which TLS would not let in. The token of a person has four parts, joined by dots: `gudgeon1`, number, secret, SHA-256 of
the root. Only number and secret go over the wire.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, NamedTuple

from edge_runtime.wire.envelope import strict_json

VERSION = 1
LIMIT_BYTES = 64 * 1024
TOKEN_KIND = "gudgeon1"
TOKEN = re.compile(r"gudgeon1\.([0-9a-f]{16})\.([A-Za-z0-9_-]{43})\.([0-9a-f]{64})")
HARDWARE = re.compile(r"[A-Za-z0-9:_.-]{1,128}")


class Token(NamedTuple):
    number: str
    secret: str
    root: str

    def text(self) -> str:
        return ".".join((TOKEN_KIND, *self))

    @property
    def sent(self) -> str:
        return f"{self.number}.{self.secret}"


def read_token(text: str) -> Token:
    found = TOKEN.fullmatch(text.strip())
    if not found:
        raise ValueError(
            "not an enrolment token: expected gudgeon1.NUMBER.SECRET.FINGERPRINT, as `gudgeon devices token` prints it"
        )
    return Token(*found.groups())


class Certified(NamedTuple):
    """All in PEM. `chain`: between the certificate and a root. `roots`: whom the device trusts from now on."""

    device: str
    certificate: str
    chain: str
    roots: str

    def to_json(self) -> dict[str, Any]:
        return {"v": VERSION, **self._asdict()}


def read_answer(data: bytes, what: str, *names: str) -> dict[str, str]:
    """These texts of a JSON object; ValueError where it is something else."""
    if len(data) > LIMIT_BYTES:
        raise ValueError(f"{what} of {len(data)} bytes is over the limit of {LIMIT_BYTES}")
    value = strict_json(data, what)
    if not isinstance(value, dict) or not all(isinstance(value.get(name), str) for name in names):
        raise ValueError(f"{what}: expected a JSON object with {', '.join(names)}")
    return {name: value[name] for name in names}


def read_certified(data: bytes) -> Certified:
    return Certified(**read_answer(data, "certificate", *Certified._fields))


def proof_bytes(device: str, challenge: str, csr: str) -> bytes:
    """What the old key signs: this device wants this request signed, now."""
    digest = hashlib.sha256(csr.encode()).hexdigest()
    return b"gudgeon renewal\n" + json.dumps([device, challenge, digest]).encode()
