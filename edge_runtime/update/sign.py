"""`gudgeon sign BUNDLE_DIR`: verify a bundle and sign its manifest with the local developer key."""

from __future__ import annotations

import argparse
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.durable import replace_file
from edge_runtime.identity import public_bytes
from edge_runtime.infer import kinds
from edge_runtime.update import keyring, trust
from edge_runtime.wire import manifest as wire


def sign_bundle(path: Path, key: Ed25519PrivateKey | None = None) -> str:
    """Write `manifest.sig` and return the signer's key id. `key` is the developer key where none is given."""
    loaded = kinds.load(path)
    key = key or keyring.developer_key()
    signer = trust.key_id(public_bytes(key))
    data = (loaded.path / wire.MANIFEST).read_bytes()
    replace_file(path / wire.SIGNATURE, trust.encode_signature(signer, key.sign(data)))
    return signer


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="gudgeon sign", description=__doc__)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE_DIR")
    args = parser.parse_args(argv)
    signer = sign_bundle(args.bundle)
    print(f"signed {args.bundle} with key {signer}")
    return 0
