"""A signed SWUpdate image, as a release tool would make it: a cpio archive (`newc` with checksums) of a description, its CMS
signature and one file."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

MAGIC = b"070702"
BLOCK_BYTES = 512

DESCRIPTION = """software = {{
  version = "{version}";
  hardware-compatibility: [ "1.0" ];
  files: ({{ filename = "image.bin"; path = "{path}"; sha256 = "{sha256}"; }});
}}
"""


def release_key(folder: Path) -> tuple[Path, Path]:
    """Certificate and key of a signer."""
    certificate, key = folder / "release.pem", folder / "release.key"
    text = f"openssl req -x509 -newkey rsa:3072 -nodes -keyout {key} -out {certificate} -days 2 -subj /CN=release"
    text += " -addext keyUsage=digitalSignature -addext extendedKeyUsage=emailProtection"
    subprocess.run(text.split(), check=True, capture_output=True)
    return certificate, key


def build(folder: Path, image: bytes, path: Path, version: str, signer: tuple[Path, Path]) -> bytes:
    """The image that puts `image` at `path` of the device."""
    text = DESCRIPTION.format(version=version, path=path, sha256=hashlib.sha256(image).hexdigest()).encode()
    description, signature = folder / "sw-description", folder / "sw-description.sig"
    description.write_bytes(text)
    command = f"openssl cms -sign -binary -nosmimecap -outform DER -in {description} -out {signature}"
    command += f" -signer {signer[0]} -inkey {signer[1]}"
    subprocess.run(command.split(), check=True, capture_output=True)
    files = {"sw-description": text, "sw-description.sig": signature.read_bytes(), "image.bin": image}
    archive = b"".join(_entry(name, data, i) for i, (name, data) in enumerate(files.items(), 1))
    archive += _entry("TRAILER!!!", b"", 0)
    return archive + bytes(-len(archive) % BLOCK_BYTES)


def _entry(name: str, data: bytes, inode: int) -> bytes:
    mode = 0o100644 if inode else 0
    encoded = name.encode() + b"\0"
    numbers = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), sum(data) & 0xFFFFFFFF)
    head = MAGIC + b"".join(b"%08X" % number for number in numbers) + encoded
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
