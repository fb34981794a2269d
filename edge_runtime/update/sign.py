"""`gudgeon sign BUNDLE_DIR`: verify a bundle and sign its manifest with the local developer key.

`gudgeon sign METADATA|REGISTRY --key KEY` signs a release, as one of its holders; `gudgeon sign --key= --help` tells more."""

from __future__ import annotations

import argparse
import importlib
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


#: of a release, loaded on demand: a device has no registry
CEREMONY = "cloud.registry.sign_cli"


def main(argv: list[str]) -> int:
    if any(arg == "--key" or arg.startswith("--key=") for arg in argv):
        return int(importlib.import_module(CEREMONY).main(argv))
    parser = argparse.ArgumentParser(prog="gudgeon sign", description=__doc__)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE_DIR")
    args = parser.parse_args(argv)
    if (args.bundle / "staged").is_dir() or args.bundle.parent.name == "staged":
        parser.error(f"{args.bundle} is a registry, or of one: expected --key KEY, of one of its holders")
    signer = sign_bundle(args.bundle)
    print(f"signed {args.bundle} with key {signer}")
    return 0
