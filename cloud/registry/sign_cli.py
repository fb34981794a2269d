"""`gudgeon sign METADATA|REGISTRY --key KEY`: the ceremony: sign staged metadata with the key of one of its holders.

METADATA is one staged file; REGISTRY is the folder: all is signed that this key may sign. What is signed is shown."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloud.registry.counting import Count
from cloud.registry.folder import Document, Registry
from cloud.registry.keys import load_signer
from cloud.registry.keys_cli import asked
from cloud.registry.signing import sign_staged
from edge_runtime.errors import UsageError


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="gudgeon sign", description=__doc__)
    parser.add_argument("what", type=Path, metavar="METADATA|REGISTRY")
    parser.add_argument(
        "--key", type=Path, required=True, metavar="KEY", help="of one holder, made by `gudgeon keys make`"
    )
    parser.add_argument("--passphrase-file", type=Path, metavar="F", help="else it is asked for at the terminal")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    registry, roles = _what(args.what)
    signer = load_signer(args.key, asked(args.passphrase_file))
    with registry.locked():
        published = registry.published()
        done = sign_staged(registry, signer, roles)
        told = {role: _told(registry.all_staged()[role], published.get(role), found) for role, found in done.items()}
    if args.json:
        print(json.dumps(told))
        return 0
    for role, row in told.items():
        print(f"signed {role} version {row['version']}, valid until {row['expires'][:10]}")
        for change in row["changes"]:
            print(f"  {change}")
        for by, count in row["signatures"].items():
            print(f"  {by}: {count['signed']} of {count['threshold']} signatures" + _more(count["missing"]))
    return 0


def _more(missing: int) -> str:
    return f", {missing} more needed" if missing else ""


def _what(path: Path) -> tuple[Registry, list[str]]:
    """A staged file, or a registry's folder."""
    if path.is_dir():
        return Registry(path), []
    if path.parent.name != "staged" or path.suffix != ".json":
        raise UsageError(
            f"{path}: expected <registry>/staged/<role>.json, a registry's folder, or (without --key) a bundle"
        )
    return Registry(path.parent.parent), [path.stem]


def _told(document: Document, published: Document | None, found: list[Count]) -> dict[str, Any]:
    return {
        "version": document.version,
        "expires": document.signed.expires.isoformat(),
        "changes": changes(document, published),
        "signatures": {
            c.by: {"signed": len(c.signed), "threshold": c.threshold, "missing": c.missing} for c in found
        },
    }  # fmt: skip


def changes(document: Document, published: Document | None) -> list[str]:
    """What the holder is asked to agree to, against what is published."""
    new, old = _facts(document), _facts(published) if published else {}
    return [
        *(f"+ {name}: {text}" for name, text in new.items() if name not in old),
        *(f"- {name}" for name in old if name not in new),
        *(f"~ {name}: {old[name]} → {text}" for name, text in new.items() if name in old and old[name] != text),
    ]


def _facts(document: Document) -> Mapping[str, str]:
    signed, found = document.signed, {}
    roles = getattr(signed, "roles", None) or getattr(getattr(signed, "delegations", None), "roles", None) or {}
    for name, role in roles.items():
        found[f"keys of {name}"] = f"{role.threshold} of {', '.join(sorted(k[:16] for k in role.keyids))}"
    for path, entry in (getattr(signed, "targets", None) or {}).items():
        custom = entry.custom or {}
        more = "".join(f", {k} {custom[k]}" for k in ("index", "floor", "hardware") if k in custom)
        found[f"target {path}"] = f"{entry.length} bytes, SHA-256 {entry.hashes.get('sha256', '')[:16]}…{more}"
    return found
