"""A cloud in memory for one device: repository, assignments and artifacts, signed with real keys. For tests, simulation, and the
exploration of crashes; everything that the device does with it is the production code.

    cloud = SimulatedCloud(clock, "d1")
    item = cloud.release("models/line/2.tar", "weights", index=2)
    cloud.assign(default=item)
    updater = Updater(state_dir, DEVICE, cloud.seams(state_dir, gate), …)
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

from edge_runtime.clock import Clock
from edge_runtime.update.cloud_port import Answer
from edge_runtime.update.fetch.memory import MemoryFetcher
from edge_runtime.update.fetch.pace import Limits
from edge_runtime.update.gate import Gate
from edge_runtime.update.getting import Getting, served_as
from edge_runtime.update.seams import Device, Seams
from edge_runtime.update.tuf.memory import MemoryRepository
from edge_runtime.update.tuf.repository import TrustedRepository
from edge_runtime.wire import archive
from edge_runtime.wire.assignment import Item
from edge_runtime.wire.update_status import UpdateStatus, read_status

HARDWARE = "x86_64"


def tiny_release(text: str) -> bytes:
    """The smallest artifact: a manifest and one file."""
    weights = text.encode()
    manifest = f'schema = 1\n[files]\n"model.bin" = "{hashlib.sha256(weights).hexdigest()}"\n'.encode()
    out = io.BytesIO()
    for name, data in (("manifest.toml", manifest), ("model.bin", weights)):
        out.write(archive.header(name, len(data)) + data + bytes(-len(data) % archive.BLOCK))
    out.write(archive.END)
    return out.getvalue()


class SimulatedCloud:
    """`told`: every status, read back from its wire format. `counter`: of the newest assignment; 0: none."""

    def __init__(self, clock: Clock, device: str) -> None:
        self._clock, self._device = clock, device
        self.repository = MemoryRepository(clock)
        self.fetcher = MemoryFetcher({})
        self.told: list[UpdateStatus] = []
        self.fails: list[Exception] = []
        self.counter, self.poll_after_s = 0, 0.0
        self.sealed: bytes | None = None  # what is given
        self.on_ask: Callable[[], None] = lambda: None

    def release(
        self, path: str, content: str | bytes, index: int = 1, floor: int = 0, hardware: tuple[str, ...] = ("*",)
    ) -> Item:
        """Sign and publish an artifact: bytes, or the smallest one with this text. The Item that assigns it."""
        data = tiny_release(content) if isinstance(content, str) else content
        sha256 = self.repository.add(path, data, index, floor, hardware)
        self.repository.publish(path.partition("/")[0])
        self.fetcher.files[served_as(path, sha256)] = data
        return Item(path, sha256, "r1")

    def assign(self, counter: int = 0, **items: Item) -> None:
        """What is asked for from now on: everything. A slot set's ``-`` is written ``_``."""
        self.counter = counter or self.counter + 1
        self.sealed = self.repository.assignment(self._device, self.counter, 24.0, **items)

    def give(self, sealed: bytes | None) -> None:
        """Any bytes in the place of an assignment."""
        self.sealed = sealed

    def ask(self, status: UpdateStatus) -> Answer:
        self.told.append(read_status(status.to_json()))
        self.on_ask()
        if self.fails:
            raise self.fails.pop(0)
        return Answer(self.sealed, self.poll_after_s)

    def trust(self, state_dir: Path) -> TrustedRepository:
        folder = state_dir / "trust"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "root.json").exists():
            (folder / "root.json").write_bytes(self.repository.root_bytes)
        return TrustedRepository.of(state_dir, self.repository, self._clock)

    def seams(self, state_dir: Path, gate: Callable[[str], Gate | None], limits: Limits | None = None) -> Seams:
        getting = Getting(lambda: self.fetcher, state_dir, self._clock, limits or Limits(leave_free_bytes=0))
        return Seams(self, self.trust(state_dir), getting, gate, self._clock)


def device(name: str = "d1") -> Device:
    return Device(name, "boot-1", (HARDWARE,))
