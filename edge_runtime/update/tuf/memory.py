"""A repository in memory: a `Source` with a root, top-level targets and the four delegations, signed by keys of its own.

It ships for tests and for the simulation of devices. Everything of it may be changed before `publish`, also so that it is wrong:
that is what it is for.

    repository = MemoryRepository(clock)
    repository.add("models/surface/2.tar", data, index=7, floor=3)
    repository.publish()
    trusted = TrustedRepository(folder, repository.root_bytes, repository, clock, lambda: 0)
"""

from __future__ import annotations

import base64
import copy
import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edge_runtime.clock import Clock
from edge_runtime.identity import public_text
from edge_runtime.link.time_floor import RELEASED_NS
from edge_runtime.update.tuf.source import CHUNK_BYTES, MissingError
from edge_runtime.wire.assignment import KIND, Assignment, Item
from edge_runtime.wire.signed import seal
from edge_runtime.wire.target import KINDS, assignment_key_path

DELEGATED = tuple(KINDS)
TOP = ("targets", "snapshot", "timestamp")
DAYS: Mapping[str, int] = {"root": 365, "targets": 365, "snapshot": 30, "timestamp": 7}


def key(name: str) -> Ed25519PrivateKey:
    """The same key for the same name."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"memory repository {name}".encode()).digest())


class MemoryRepository:
    """`files`: what is served, name → bytes. `roles`: the next version of each, which `publish` signs. `signers`: the names
    of the keys of each role. `artifacts`: path → bytes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.files: dict[str, bytes] = {}
        self.artifacts: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.signers: dict[str, list[str]] = {role: [role] for role in (*TOP, *DELEGATED)}
        self.signers["root"] = ["root 1", "root 2", "root 3"]
        self.assignment_key = key("assignment")
        expires = self.in_days
        self.root = Root(expires=expires(DAYS["root"]), consistent_snapshot=True)
        self.roles: dict[str, Any] = {
            "targets": Targets(expires=expires(DAYS["targets"])),
            "snapshot": Snapshot(expires=expires(DAYS["snapshot"])),
            "timestamp": Timestamp(expires=expires(DAYS["timestamp"])),
        }
        for role in ("root", *TOP):
            for name in self.signers[role]:
                self.root.add_key(CryptoSigner(key(name)).public_key, role)
        self.root.roles["root"].threshold = 2
        delegations = Delegations({}, {name: DelegatedRole(name, [], 1, True, [f"{name}/*/*"]) for name in DELEGATED})
        self.roles["targets"].delegations = delegations
        for name in DELEGATED:
            self.roles["targets"].add_key(CryptoSigner(key(name)).public_key, name)
            self.roles[name] = Targets(expires=expires(DAYS["targets"]))
        self.name_assignment_key(self.assignment_key)
        self._sign_root()
        self.publish()

    @property
    def root_bytes(self) -> bytes:
        """The first root: where a device's trust begins."""
        return self.files["1.root.json"]

    def in_days(self, days: float) -> datetime:
        now_ns = max(self._clock.wall_ns(), RELEASED_NS)
        return datetime.fromtimestamp(now_ns // 10**9, UTC) + timedelta(days=days)

    # ── what is in it ───────────────────────────────────────────────────────────────────────────────────────────────

    def add(
        self,
        path: str,
        data: bytes,
        index: int = 1,
        floor: int = 0,
        hardware: tuple[str, ...] = ("*",),
        digest: str = "",
    ) -> str:
        """Offer an artifact from the next `publish` on; its SHA-256."""
        role = path.partition("/")[0]
        custom = {
            "kind": KINDS.get(role, role), "digest": digest, "index": index, "floor": floor, "hardware": list(hardware)
        }  # fmt: skip
        return self.put(role, path, data, custom)

    def put(self, role: str, path: str, data: bytes, custom: Any) -> str:
        """Any entry in the metadata of any role."""
        entry = TargetFile.from_data(path, data, ["sha256"])
        entry.unrecognized_fields["custom"] = custom
        self.roles[role].targets[path] = entry
        self.artifacts[path] = data
        return str(entry.hashes["sha256"])

    def name_assignment_key(self, private: Ed25519PrivateKey) -> None:
        text = public_text(private)
        self.put("targets", assignment_key_path(base64.b64decode(text)), f"{text}\n".encode(), {"public": text})

    def assignment(self, device: str, counter: int, hours: float = 24, **items: Item) -> bytes:
        """Sealed as the cloud does it. A slot set's ``-`` is written ``_``."""
        now_ns = max(self._clock.wall_ns(), RELEASED_NS)
        named = {name.replace("_", "-"): item for name, item in items.items()}
        body = Assignment(device, counter, now_ns, now_ns + round(hours * 3600e9), named).body()
        return seal(KIND, body, self.assignment_key.sign)

    # ── publishing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def publish(self, *roles: str) -> None:
        """The next version of these roles (none named: of all), of the snapshot, and of the timestamp."""
        for role in roles or ("targets", *DELEGATED):
            self.sign(role)
        self.sign("snapshot")
        self.sign("timestamp")

    def sign(self, role: str) -> bytes:
        """One role alone; what names it is not changed."""
        signed = self.roles[role]
        served = any(name == f"{role}.json" or name.endswith(f".{role}.json") for name in self.files)
        signed.version += served
        data = self.signed_bytes(role)
        self.serve(role, data)
        return data

    def serve(self, role: str, data: bytes) -> None:
        """Put these bytes in the place of the role's newest, and name them in snapshot or timestamp."""
        version = self.roles[role].version
        meta = MetaFile(version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})
        if role == "timestamp":
            self.files["timestamp.json"] = data
            return
        self.files[f"{version}.{role}.json"] = data
        if role == "snapshot":
            self.roles["timestamp"].snapshot_meta = meta
        else:
            self.roles["snapshot"].meta[f"{role}.json"] = meta

    def signed_bytes(self, role: str, signers: list[str] | None = None) -> bytes:
        """The role as it is now, signed by its keys or by those of these names."""
        metadata = Metadata(copy.deepcopy(self.roles[role]))
        for name in self.signers[role] if signers is None else signers:
            metadata.sign(CryptoSigner(key(name)), append=True)
        return metadata.to_bytes()

    def new_root(self, signers: list[str] | None = None) -> None:
        """The next version of `root`, as it is now. `signers`: of the old root and the new."""
        self.root.version += 1
        self._sign_root(signers)

    def rotate(self, *roles: str) -> None:
        """New keys for these roles in `root` or in the delegations; to be followed by `new_root` or `publish`."""
        for role in roles:
            into = self.root if role in ("root", *TOP) else self.roles["targets"]
            for name in self.signers[role]:
                into.revoke_key(CryptoSigner(key(name)).public_key.keyid, role)
            self.signers[role] = [f"{name} again" for name in self.signers[role]]
            for name in self.signers[role]:
                into.add_key(CryptoSigner(key(name)).public_key, role)

    def _sign_root(self, signers: list[str] | None = None) -> None:
        metadata = Metadata(copy.deepcopy(self.root))
        for name in self.signers["root"] if signers is None else signers:
            metadata.sign(CryptoSigner(key(name)), append=True)
        self.files[f"{self.root.version}.root.json"] = metadata.to_bytes()

    # ── as a Source, and for who fetches artifacts ──────────────────────────────────────────────────────────────────

    def chunks(self, name: str) -> Iterator[bytes]:
        self.asked.append(name)
        data = self.files.get(unquote(name))
        if data is None:
            raise MissingError(name)
        for at in range(0, len(data), CHUNK_BYTES):
            yield data[at : at + CHUNK_BYTES]

    def state(self) -> dict[str, bytes]:
        """What is served now, to be served again later: an older repository, as signed as it was."""
        return dict(self.files)
