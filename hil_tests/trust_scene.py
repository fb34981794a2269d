"""A device that has seen an honest repository with one release: what rows of attacks on its trust stand on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.clock import FakeClock
from edge_runtime.errors import BundleError, GudgeonError
from edge_runtime.link.time_floor import RELEASED_NS
from edge_runtime.update.tuf.memory import MemoryRepository
from edge_runtime.update.tuf.repository import METADATA, Targets, TrustedRepository
from edge_runtime.wire.assignment import Item
from hil_tests.attacks.row import Attack
from tools.crash.run import in_memory

NAME = "press-1"
PATH = "models/surface/2.tar"
RELEASE = b"the release that was signed"
HARDWARE = frozenset({"x86_64"})
DAY_S = 24 * 3600
YEAR_NS = 365 * DAY_S * 10**9
NOT_THERE = "not in the repository's signed targets"


def caught(act: Callable[[], object], kind: type[GudgeonError]) -> str:
    """What was said when it was refused; "" where it was not."""
    try:
        act()
    except kind as error:
        return str(error)
    return ""


class Scene:
    """A device that has seen the honest release, and the repository that will misbehave."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock(wall_ns=RELEASED_NS + 10**9)
        self.repository = MemoryRepository(self.clock)
        self.folder = folder / "trust"
        self.sha256 = self.repository.add(PATH, RELEASE, index=5)
        self.repository.publish()
        self.refresh().admitted(PATH, HARDWARE)
        self.remember()
        self.seen = self.trusted().floor

    def remember(self) -> None:
        """What is served now is honest."""
        r = self.repository
        roots = {name: data for name, data in r.files.items() if name.endswith(".root.json")}
        self._honest = copy.deepcopy((r.roles, r.root, r.signers, r.artifacts, roots)), r.assignment_key

    def trusted(self, wall_ns: int | None = None) -> TrustedRepository:
        """As after a start of the process."""
        clock = self.clock if wall_ns is None else FakeClock(wall_ns=wall_ns)
        root = self.repository.root_bytes
        return TrustedRepository(self.folder, root, self.repository, clock, lambda: RELEASED_NS)

    def refresh(self) -> Targets:
        return self.trusted().refresh()

    def lose(self, *names: str) -> None:
        """As files are left that were not flushed when the power went."""
        for name in names or ("timestamp.json", "snapshot.json", "targets.json", "models.json"):
            (self.folder / METADATA / name).write_bytes(bytes(64))

    def refused(
        self, told: str, act: Callable[[], object] | None = None, kind: type[GudgeonError] = BundleError
    ) -> None:
        """Refused for this reason, and nothing that was seen is forgotten."""
        refusal = caught(act or self.refresh, kind)
        assert told in refusal, f"expected to be told {told!r}, found: {refusal or 'it was taken'}"
        floor = self.trusted().floor
        for name, least in self.seen.versions.items():
            assert floor.versions[name] >= least, name

    def still_holds(self) -> None:
        """The honest repository goes on, above whatever numbers were seen, and is taken."""
        r, floor = self.repository, self.trusted().floor
        (r.roles, r.root, r.signers, r.artifacts, r.files), r.assignment_key = self._honest
        for role, signed in r.roles.items():
            seen = {"timestamp": floor.timestamp, "snapshot": floor.snapshot}.get(role, floor.roles.get(role, 0))
            signed.version, signed.expires = max(signed.version, seen) + 1, r.in_days(7)
        r.publish()
        assert self.refresh().admitted(PATH, HARDWARE).sha256 == self.sha256

    def assignment(self, counter: int = 1, hours: float = 24, device: str = NAME, item: Item | None = None) -> bytes:
        return self.repository.assignment(device, counter, hours, default=item or Item(PATH, self.sha256))

    def take(self, payload: bytes) -> None:
        taken = self.refresh().take(payload, NAME, HARDWARE)
        if taken.refused:
            raise BundleError("; ".join(taken.refused.values()))


Act = Callable[[Scene], None]


@dataclass(frozen=True)
class Run:
    """`act` makes the attack and asserts the refusal. `recovers`: the honest repository is tried afterwards."""

    act: Act
    recovers: bool = True

    def __call__(self, folder: Path) -> None:
        with in_memory() as work:  # what reaches the disk when is shown by `tools.crash`
            scene = Scene(work)
            self.act(scene)
            if self.recovers:
                scene.still_holds()


class Rows(list[Attack]):
    """The rows of one file."""

    def add(self, name: str, told: str, act: Callable[..., None], *args: object, recovers: bool = True) -> None:
        """`act` gets the scene, what must be told, and `args`."""
        self.append(Attack("trust", name, told, Run(lambda scene: act(scene, told, *args), recovers)))
