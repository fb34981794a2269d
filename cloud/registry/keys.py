"""Key files: an Ed25519 key as PEM, encrypted with a passphrase or readable by its owner only, and its `.pub` beside it.

The keys of each person lie in a folder of their own (mode 0700), best on a medium of its own. A `.pub` is one line of base64:
the raw 32 bytes. No key is ever written over another.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, SSlibKey

from edge_runtime.durable import disk_errors, make_secret, replace_file, sync_folder
from edge_runtime.errors import ResourceError, UsageError
from edge_runtime.identity import public_bytes, public_text

SUFFIX = ".key"
LIMIT_BYTES = 16 * 1024
LEAST_CHARS = 8

#: asks for the passphrase of a key file
Passphrase = Callable[[Path], bytes]


class KeyFile(NamedTuple):
    """`id`: as the metadata name it."""

    path: Path
    id: str
    encrypted: bool


def make_key(folder: Path, name: str, passphrase: bytes = b"") -> KeyFile:
    """`<folder>/<name>.key` and `.pub`, on the disk when this returns. An empty passphrase: not encrypted."""
    if passphrase and len(passphrase) < LEAST_CHARS:
        raise UsageError(f"the passphrase has {len(passphrase)} characters, expected {LEAST_CHARS} or more")
    path, private = folder / f"{name}{SUFFIX}", Ed25519PrivateKey.generate()
    how = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
    with disk_errors(path):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        taken = UsageError(f"{path}: there is a key already; choose another name, no key is overwritten")
        if path.exists():
            raise taken
        replace_file(
            path.with_suffix(".pub"), public_text(private).encode() + b"\n"
        )  # a key is there when its `.key` is
        if not make_secret(path, pem):
            raise taken
        sync_folder(path.parent)
    return KeyFile(path, CryptoSigner(private).public_key.keyid, bool(passphrase))


def read_public(path: Path) -> SSlibKey:
    """The public key of a `.pub` file."""
    with disk_errors(path):
        text = path.read_bytes()[:LIMIT_BYTES]
    try:
        return public_key(base64.b64decode(text.strip(), validate=True))
    except (binascii.Error, ValueError) as error:
        raise ResourceError(f"{path}: not a public key (one line of base64, 32 bytes)") from error


def public_key(raw: bytes) -> SSlibKey:
    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(raw))


def raw_public(private: Ed25519PrivateKey) -> bytes:
    return public_bytes(private)


def load_private(path: Path, passphrase: Passphrase | None = None) -> Ed25519PrivateKey:
    """ResourceError where the file is no key or others can read it; UsageError for a missing or wrong passphrase."""
    with disk_errors(path):
        if path.suffix == ".pub":
            raise UsageError(f"{path}: the public half of a key; expected the private one, {path.stem}{SUFFIX}")
        if path.stat().st_mode & 0o077:
            raise ResourceError(f"{path}: other users can read this private key; run: chmod 600 {path}")
        pem = path.read_bytes()[:LIMIT_BYTES]
    given = None
    if is_encrypted(pem):
        if passphrase is None:
            raise UsageError(f"{path}: is encrypted; give its passphrase with --passphrase-file F, or at a terminal")
        given = passphrase(path)
    try:
        private = serialization.load_pem_private_key(pem, given)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if given is not None:
            raise UsageError(f"{path}: the passphrase is not that of this key") from error
        raise ResourceError(f"{path}: not a private key") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise ResourceError(f"{path}: not an Ed25519 key; make one with `gudgeon keys make`")
    return private


def load_signer(path: Path, passphrase: Passphrase | None = None) -> CryptoSigner:
    return CryptoSigner(load_private(path, passphrase))


def is_encrypted(pem: bytes) -> bool:
    return b"ENCRYPTED" in pem.partition(b"\n")[0]


def key_files(folder: Path) -> list[KeyFile]:
    """The keys of a folder, by their `.pub`: no passphrase is needed to list them."""
    found = []
    with disk_errors(folder):
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            pem = path.read_bytes()[:LIMIT_BYTES]
            found.append(KeyFile(path, read_public(path.with_suffix(".pub")).keyid, is_encrypted(pem)))
    return found
