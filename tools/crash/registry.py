"""A publication with a new root, a new release and new online keys, and the pruning of what it replaced: at every moment a reader
finds the old state or the new one, whole, and the publication can be made again."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuf.ngclient import Updater

from cloud.registry import artifacts
from cloud.registry.folder import Registry
from cloud.registry.making import make_registry, release
from cloud.registry.pruning import prune
from cloud.registry.publishing import renew
from cloud.registry.rotating import rotate
from cloud.registry.status import Files, verify
from edge_runtime.errors import UsageError
from tools.crash.models import Model
from tools.crash.notes import Note, tell
from tools.crash.scenario import Scenario, State

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PATH = "models/surface/1.tar"


def prepare(folder: Path) -> None:
    make_registry(folder / "registry", folder / "keys", NOW)
    (folder / "artifact").write_bytes(b"release")


def run(folder: Path) -> None:
    registry = Registry(folder / "registry")
    artifacts.add(registry, folder / "artifact", PATH, NOW)
    rotate(registry, "timestamp", NOW)
    release(registry, folder / "keys", NOW)
    tell(published=registry.published()["timestamp"].version)
    renew(registry, NOW, force=True)
    tell(published=registry.published()["timestamp"].version)
    prune(registry, set(), keep_versions=1)


def _read(registry: Registry) -> dict[str, Any]:
    """As a device that begins with the first root."""
    with tempfile.TemporaryDirectory() as work:
        updater = Updater(work, "registry:/", fetcher=Files(registry.metadata), bootstrap=registry.root(1).data)
        updater._trusted_set.reference_time = NOW
        updater.refresh()
        return {"version": updater._trusted_set.timestamp.version, "release": updater.get_targetinfo(PATH) is not None}


def recover(folder: Path) -> State:
    registry = Registry(folder / "registry")
    found = _read(registry)
    tell(published=found["version"])
    if not found["release"] and "models" not in registry.all_staged():
        artifacts.add(registry, folder / "artifact", PATH, NOW)
    try:
        release(registry, folder / "keys", NOW)
    except UsageError as error:
        return {**found, "again": str(error)}
    prune(registry, set(), keep_versions=1)
    return {**found, "again": "", "valid": verify(registry, NOW)["valid"], "after": _read(registry)["release"]}


def check(notes: Sequence[Note], state: State, model: Model) -> list[str]:
    if "error" in state:
        return [f"recovery failed: {state['error']}"]
    if state["again"]:
        return [f"could not be published again: {state['again']}"]
    published = max((note["published"] for note in notes if "published" in note), default=1)
    wrong = []
    if state["version"] < published:
        wrong.append(f"a reader found version {state['version']}; {published} was published")
    if not state["valid"] or not state["after"]:
        wrong.append("the release is not there after it was published again")
    return wrong


REGISTRY = Scenario(
    "a release with new online keys is published, renewed, old versions pruned", run, recover, check, prepare
)
