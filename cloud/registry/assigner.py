"""Sealing assignments with the online assignment key.

The key is one that the *published* top-level targets name; of several, that which was named last. So a new key is used no
sooner than devices can know it, and devices that have not refreshed yet do so and look again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.registry.artifacts import targets_of
from cloud.registry.folder import Registry
from cloud.registry.keys import key_files, load_private, raw_public
from edge_runtime.errors import ResourceError, UsageError
from edge_runtime.wire.assignment import KIND, LONGEST_NS, Assignment, Item
from edge_runtime.wire.signed import seal
from edge_runtime.wire.target import Target, assignment_key

VALID_NS = 24 * 3600 * 10**9


class Assigner:
    """`items` are checked against what is published: what no device could take is refused here already."""

    def __init__(self, folder: Path) -> None:
        self._registry = Registry(folder)
        self._registry.check()
        self._stamp: tuple[int, int] | None = None
        self._targets: Mapping[str, Target] = {}
        self._key: Ed25519PrivateKey | None = None

    def seal(
        self, device: str, counter: int, items: Mapping[str, Item], now_ns: int, valid_ns: int = VALID_NS
    ) -> bytes:
        """One assignment for one device. UsageError where an item names what is not published; ValueError where it is too large
        or lasts too long."""
        self._read()
        for slot_set, item in items.items():
            known = self._targets.get(item.target)
            if item.go != "revert" and (known is None or known.sha256 != item.sha256):
                told = (
                    "not in the published targets" if known is None else f"published with SHA-256 {known.sha256[:12]}…"
                )
                raise UsageError(f"slot set {slot_set}: {item.target}, {item.sha256[:12]}…: {told}")
        body = Assignment(device, counter, now_ns, now_ns + min(valid_ns, LONGEST_NS), dict(items)).body()
        assert self._key is not None
        return seal(KIND, body, self._key.sign)

    def target(self, path: str) -> Target | None:
        """What is published for this path."""
        self._read()
        return self._targets.get(path)

    def targets(self) -> Mapping[str, Target]:
        self._read()
        return dict(self._targets)

    def _read(self) -> None:
        """Again after each publication."""
        try:
            status = (self._registry.metadata / "timestamp.json").stat()
        except FileNotFoundError as error:
            raise ResourceError(
                f"{self._registry.folder}: nothing is published yet; `gudgeon repo status` tells who must sign"
            ) from error
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            self._targets, self._key = targets_of(self._registry, published_only=True), self._online_key()
            self._stamp = stamp

    def _online_key(self) -> Ed25519PrivateKey:
        entries = self._registry.published()["targets"].signed.targets.items()
        named = [assignment_key(path, entry.hashes.get("sha256"), entry.custom) for path, entry in entries]
        private = [load_private(file.path) for file in key_files(self._registry.online)]
        here = {raw_public(key): key for key in private}
        usable = [here[raw] for raw in named if raw in here]
        if not usable:
            raise ResourceError(
                f"{self._registry.online}: none of the keys that the published targets name for assignments; put it there, "
                "or name a new one with `gudgeon repo rotate … assignment`"
            )
        return usable[-1]
