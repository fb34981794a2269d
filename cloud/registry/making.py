"""A new registry: its folders and online keys, and the first versions of all offline roles, staged to be signed.

`make_registry` makes the holders' keys as well, and signs and publishes: for a laptop, a test, a demonstration. In earnest the
holders make their keys themselves, and only the `.pub` files meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import Key

from cloud.registry import draft
from cloud.registry.folder import Registry
from cloud.registry.keys import key_files, load_private, load_signer, make_key, public_key, raw_public, read_public
from cloud.registry.publishing import publish
from cloud.registry.roles import DELEGATED, ONLINE
from cloud.registry.signing import sign_staged, stage
from edge_runtime.durable import disk_errors, sync_folder
from edge_runtime.errors import UsageError

#: folders of `make_registry`, one a holder
PERSONS = ("root-1", "root-2", "root-3")
RELEASER = "targets"
#: with fewer, one key that is lost leaves a fleet that nobody can tell anything
ROOT_LEAST = 3
ASSIGNMENT = "assignment"


def init(
    folder: Path,
    root: Iterable[Key],
    targets: Iterable[Key],
    now: datetime,
    delegated: Mapping[str, Iterable[Key]] | None = None,
) -> Registry:
    """`root`, `targets`: the public keys of the holders. `delegated`: of models, runtime, config, os; else those of targets."""
    registry = Registry(folder)
    root, releasers = list(root), list(targets)
    if len({key.keyid for key in root}) < ROOT_LEAST or not releasers:
        raise UsageError(
            "a registry needs public keys: --root PUB of three different people or more, two of whom will have to sign, and "
            "--targets PUB"
        )
    with disk_errors(folder):
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder}: not empty; a registry begins in a folder of its own")
        for path in (registry.metadata, registry.targets, registry.staged, folder / "repo" / "deltas"):
            path.mkdir(parents=True, exist_ok=True)
    for name in (*ONLINE, ASSIGNMENT):
        make_key(registry.online, name)
    online = {name: [read_public(registry.online / f"{name}.pub")] for name in ONLINE}
    stage(registry, "root", draft.first_root({"root": root, "targets": releasers, **online}, now))
    keys = {name: list((delegated or {}).get(name, ())) or releasers for name in DELEGATED}
    first = draft.first_targets(keys, now)
    draft.name_assignment_key(first["targets"], raw_public(load_private(registry.online / f"{ASSIGNMENT}.key")))
    for role, made in first.items():
        stage(registry, role, made)
    sync_folder(folder)
    return registry


def make_registry(folder: Path, keys: Path, now: datetime) -> Registry:
    """A registry that is signed and published, and all keys in `keys/<holder>/`, not encrypted."""
    for person in (*PERSONS, RELEASER):
        make_key(keys / person, person)
    root = [read_public(keys / person / f"{person}.pub") for person in PERSONS]
    registry = init(folder, root, [read_public(keys / RELEASER / f"{RELEASER}.pub")], now)
    release(registry, keys, now)
    return registry


def release(registry: Registry, keys: Path, now: datetime) -> Mapping[str, int]:
    """Sign everything staged with all keys below `keys`, and publish it."""
    for holder in sorted(path for path in keys.iterdir() if path.is_dir()):
        for file in key_files(holder):
            if registry.all_staged():
                try:
                    sign_staged(registry, load_signer(file.path))
                except UsageError:
                    continue  # nothing staged is this holder's
    return publish(registry, now)


def new_online_key(registry: Registry, name: str) -> Key:
    """One more key file in `online/`; it is used as soon as published metadata name it."""
    number = sum(1 for file in key_files(registry.online) if file.path.stem.partition("-")[0] == name) + 1
    made = make_key(registry.online, f"{name}-{number}")
    return public_key(raw_public(load_private(made.path)))
