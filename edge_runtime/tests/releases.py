"""Small runtime releases for tests: wheels written by hand."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

from edge_runtime.update import environment
from edge_runtime.wire import manifest

SHA_A, SHA_B = "a" * 64, "b" * 64


def wheel(folder: Path, name: str, files: Mapping[str, str], link: str = "") -> Path:
    """`link`: the file among them that is stored as a symbolic link."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in files.items():
            info = zipfile.ZipInfo(inner)
            info.external_attr = (0o120777 if inner == link else 0o644) << 16
            archive.writestr(info, text)
    return path


def release(folder: Path, **fields: str | int) -> Path:
    """A manifest for the wheels in `folder`."""
    has = environment.this_machine()
    values: dict[str, str | int] = {"name": "gudgeon", "python": has.python, "machine": "any"}
    values |= {"version": "1.0", "glibc": "any", "outbox": 2, "kind": "runtime", "schema": 1, **fields}
    lines = [f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in values.items()]
    lines += ["[files]", *(f'"{w.name}" = "{_sha256(w)}"' for w in sorted(folder.glob("*.whl")))]
    (folder / manifest.MANIFEST).write_text("\n".join(lines) + "\n")
    return folder


def small(folder: Path, **fields: str | int) -> Path:
    """A release with one package of two files."""
    wheel(
        folder, "thing", {"thing/__init__.py": "X = 1\n", "thing/data.txt": "data", "thing-1.0.dist-info/METADATA": "x"}
    )
    return release(folder, **fields)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
