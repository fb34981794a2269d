"""Gudgeon's own wheel, as a runtime release carries it: what runs on a device and nothing else, the same bytes each time.

It is stored and not compressed, so that the difference between two releases stays small.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import edge_runtime

SKIPPED = {"tests", "__pycache__"}
TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip file knows


def source_files(package: Path) -> Iterator[Path]:
    """Everything of a package that is not a test."""
    for path in sorted(package.rglob("*")):
        parts = path.relative_to(package).parts
        if path.is_file() and not SKIPPED & set(parts) and path.name != "conftest.py":
            yield path


def build_wheel(folder: Path, version: str, package: Path = Path(edge_runtime.__file__).parent) -> Path:
    """Write the wheel of `package` into `folder`."""
    info = f"gudgeon-{version}.dist-info"
    content = {str(path.relative_to(package.parent)): path.read_bytes() for path in source_files(package)}
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: gudgeon\nVersion: {version}\n".encode()
    content[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: gudgeon\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in content.items())
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    wheel = folder / f"gudgeon-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            entry = zipfile.ZipInfo(name, TIME)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return wheel


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
