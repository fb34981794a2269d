"""Attacks on what a device trusts: a repository whose server, network or some of whose keys belong to somebody else.

The device has seen an honest repository with one release; then the row happens; it must be refused for that reason, what was
seen before must still hold, and the honest repository must be taken again afterwards.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tuf.ngclient import Updater

from edge_runtime.clock import FakeClock
from edge_runtime.errors import BundleError, EndpointError, GudgeonError, ResourceError
from edge_runtime.link.time_floor import RELEASED_NS
from edge_runtime.update.tuf.checked import BASE, CONFIG, _Bounded
from edge_runtime.update.tuf.client import main as client
from edge_runtime.update.tuf.floor import FILES
from edge_runtime.update.tuf.memory import MemoryRepository, key
from edge_runtime.update.tuf.repository import METADATA, Targets, TrustedRepository
from edge_runtime.update.tuf.tests.served import served
from edge_runtime.wire.assignment import Assignment, Item
from edge_runtime.wire.signed import seal
from hil_tests.attacks.row import Attack
from tools.crash.run import in_memory

NAME = "press-1"
PATH = "models/surface/2.tar"
RELEASE = b"the release that was signed"
HARDWARE = frozenset({"x86_64"})
DAY_S = 24 * 3600
YEAR_NS = 365 * DAY_S * 10**9


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


ROWS: list[Attack] = []


def row(name: str, told: str, act: Callable[..., None], *args: object, recovers: bool = True) -> None:
    """`act` gets the scene, what must be told, and `args`."""
    ROWS.append(Attack("trust", name, told, Run(lambda scene: act(scene, told, *args), recovers)))


# ── signatures ──────────────────────────────────────────────────────────────────────────────────────────────────────────

ROLES = ("timestamp", "snapshot", "targets", "models")


def resigned(scene: Scene, told: str, role: str, signers: list[str]) -> None:
    """The next version of this role, signed by these; everything above it is honest."""
    repository = scene.repository
    repository.publish()
    above = {"timestamp": "", "snapshot": "timestamp"}.get(role, "snapshot timestamp")
    repository.serve(role, repository.signed_bytes(role, signers))
    for name in above.split():
        repository.sign(name)
    scene.refused(told, lambda: scene.refresh().target(PATH))


def signed_twice(scene: Scene, told: str, role: str) -> None:
    """One signature, given twice under the same key id."""
    repository = scene.repository
    repository.publish()
    value = json.loads(repository.signed_bytes(role))
    value["signatures"] *= 2
    repository.serve(role, json.dumps(value).encode())
    for name in {"timestamp": "", "snapshot": "timestamp"}.get(role, "snapshot timestamp").split():
        repository.sign(name)
    scene.refused(told, lambda: scene.refresh().target(PATH))


for _role in ROLES:
    row(f"{_role} signed by a wrong key", f"{_role} was signed by 0/1 keys", resigned, _role, ["root 1"])
    row(f"{_role} not signed", f"{_role} was signed by 0/1 keys", resigned, _role, [])
    row(f"{_role} with one signature twice", "Multiple signatures found for keyid", signed_twice, _role)


def new_root(scene: Scene, told: str, signers: list[str], rotate: bool) -> None:
    if rotate:
        scene.repository.rotate("root")
    scene.repository.new_root(signers)
    scene.refused(told)


OLD, NEW = ["root 1", "root 2"], ["root 1 again", "root 2 again"]
row("root signed by wrong keys", "root was signed by 0/2 keys", new_root, ["targets", "snapshot"], False)
row("root not signed", "root was signed by 0/2 keys", new_root, [], False)
row("root with one signature of two", "root was signed by 1/2 keys", new_root, ["root 1"], False)
row("root signed by the new threshold only", "root was signed by 0/2 keys", new_root, NEW, True)
row("root signed by the old threshold only", "root was signed by 0/2 keys", new_root, OLD, True)


def root_signed_twice(scene: Scene, told: str) -> None:
    """One holder of the root gives the signature of two."""
    scene.repository.new_root(["root 1"])
    name = f"{scene.repository.root.version}.root.json"
    value = json.loads(scene.repository.files[name])
    value["signatures"] *= 2
    scene.repository.files[name] = json.dumps(value).encode()
    scene.refused(told)


row("root with one signature twice", "Multiple signatures found for keyid", root_signed_twice)


def root_with_a_gap(scene: Scene, told: str) -> None:
    """A root that nobody can reach, as version 2."""
    scene.repository.root.version += 1
    scene.repository.new_root()
    files = scene.repository.files
    files["2.root.json"] = files.pop("3.root.json")
    scene.refused(told)


row("a version of root left out", "Expected root version 2 instead got version 3", root_with_a_gap)


# ── older, frozen, mixed ────────────────────────────────────────────────────────────────────────────────────────────────


def rolled_back(scene: Scene, told: str, role: str, lost: bool) -> None:
    """The stolen online keys sign something older than what was seen."""
    repository = scene.repository
    if lost:
        scene.lose()
    if role == "timestamp":
        repository.roles["timestamp"].version = 0
    elif role == "snapshot":
        repository.roles["snapshot"].version = 0
        repository.sign("snapshot")
    else:
        meta = repository.roles["snapshot"].meta[f"{role}.json"]
        meta.version, meta.hashes, meta.length = 1, None, None
        repository.sign("snapshot")
    repository.sign("timestamp")
    scene.refused(told)


row("timestamp rolled back", "New timestamp version 1 must be >= 2", rolled_back, "timestamp", False)
row("snapshot rolled back", "New snapshot version must be >= 2, got version 1", rolled_back, "snapshot", False)
row("targets rolled back", "Expected targets.json version", rolled_back, "targets", False)
row("a delegated role rolled back", "Expected models.json version", rolled_back, "models", False)
row("timestamp rolled back, files zeroed", "timestamp version 1 is older than 2", rolled_back, "timestamp", True)
row("snapshot rolled back, files zeroed", "snapshot version 1 is older than 2", rolled_back, "snapshot", True)
row("targets rolled back, files zeroed", "targets version 1 is older than 2", rolled_back, "targets", True)
row("a delegated role rolled back, files zeroed", "models version 1 is older than 2", rolled_back, "models", True)


def replayed(scene: Scene, told: str, damaged: tuple[str, ...]) -> None:
    """A whole older repository, every file of it signed as it must be; python-tuf alone would take it."""
    older = MemoryRepository(scene.clock).state()
    scene.lose()
    bare = Updater(
        str(scene.folder / METADATA),
        BASE,
        fetcher=_Bounded(scene.repository),
        config=CONFIG,
        bootstrap=older["1.root.json"],
    )
    bare._trusted_set.reference_time = scene.repository.in_days(0)
    scene.repository.files = older
    bare.refresh()
    assert bare._trusted_set.timestamp.version == 1
    scene.lose()
    for name in damaged:
        (scene.folder / name).write_bytes(bytes(32))
    scene.refused(told)


row("an older repository after metadata files were zeroed", "timestamp version 1 is older than 2", replayed, ())
row("the same, and one floor file damaged", "timestamp version 1 is older than 2", replayed, FILES[:1])
row("the same, and the other floor file damaged", "timestamp version 1 is older than 2", replayed, FILES[1:])


def without_a_floor(scene: Scene, told: str) -> None:
    for name in FILES:
        (scene.folder / name).write_bytes(bytes(32))
    scene.lose()
    scene.repository.files = MemoryRepository(scene.clock).state()
    assert told in caught(scene.trusted, ResourceError)


row(
    "both floor files damaged",
    "both damaged, so that an old release could pass for a new one",
    without_a_floor,
    recovers=False,
)


def older_root(scene: Scene, told: str) -> None:
    """The device has seen a newer root; then all its files are lost, and the server hides that root."""
    scene.repository.new_root()
    scene.repository.publish()
    scene.remember()
    scene.refresh()
    scene.lose()
    for path in (scene.folder / METADATA / "root_history").iterdir():
        path.write_bytes(bytes(32))
    del scene.repository.files["2.root.json"]
    scene.refused(told)


row("a newer root hidden after its file was lost", "root version 1 is older than 2", older_root)


def frozen(scene: Scene, told: str) -> None:
    """The network serves the same for ever: signatures fit, nothing is new."""
    scene.clock.advance(8 * DAY_S)
    scene.refused(told)
    scene.clock.advance(-8 * DAY_S)


row("freeze", "timestamp.json is expired: nothing new is installed", frozen)


def frozen_by_the_clock(scene: Scene, told: str, wall_ns: int) -> None:
    """The same, and the device wakes up with a clock that makes the frozen metadata young."""
    scene.clock.advance(8 * DAY_S)
    scene.trusted()
    scene.repository.roles["timestamp"].expires = scene.repository.in_days(7)
    scene.repository.sign("timestamp")
    scene.refresh()  # the device was on the network on that day
    frozen = scene.trusted(wall_ns)
    frozen._clock.sleep(8 * DAY_S)
    scene.refused(told, frozen.refresh)


row("freeze with a clock at 1970", "timestamp.json is expired", frozen_by_the_clock, 0)
row("freeze with a clock one year behind", "timestamp.json is expired", frozen_by_the_clock, RELEASED_NS - YEAR_NS)


def clock_ahead(scene: Scene, told: str) -> None:
    """Believed: nothing new is installed. It is not remembered, so that the right clock finds all as it was."""
    scene.refused(told, scene.trusted(scene.clock.wall_ns() + 10 * YEAR_NS).refresh)
    assert scene.trusted().floor.time_ns == scene.seen.time_ns


row("a clock ten years ahead", "is expired", clock_ahead)


def mixed(scene: Scene, told: str) -> None:
    """Targets of one day with models of another, each as signed as it ever was."""
    scene.repository.add(PATH, RELEASE[::-1], index=6)
    scene.repository.publish()
    files = scene.repository.files
    files["3.models.json"] = files["2.models.json"]
    scene.refused(told, lambda: scene.refresh().target(PATH))


row("mix-and-match of two days", "Observed hash", mixed)


def mixed_snapshot(scene: Scene, told: str) -> None:
    scene.repository.publish()
    files = scene.repository.files
    files["3.snapshot.json"] = files["2.snapshot.json"]
    scene.refused(told)


row("an older snapshot under a newer name", "Observed", mixed_snapshot)


def fast_forward(scene: Scene, told: str) -> None:
    """Stolen online keys push the versions to the end of numbers. New keys in a new root bring the fleet back."""
    repository = scene.repository
    stolen = repository.roles
    stolen["timestamp"].version = stolen["snapshot"].version = 2**31
    repository.publish()
    scene.refresh()
    assert scene.trusted().floor.versions["timestamp"] == 2**31 + 1
    stolen["timestamp"].version = stolen["snapshot"].version = 3
    repository.publish()
    scene.refused(told)
    repository.rotate("timestamp", "snapshot")
    repository.new_root()
    repository.publish()
    scene.refresh()
    assert scene.trusted().floor.versions["timestamp"] == 5
    scene.remember()
    repository.rotate("timestamp")
    repository.new_root(["root 1"])
    scene.refused("root was signed by 1/2 keys")


row("fast-forward, and recovery by new keys", "must be >= 2147483649", fast_forward)


def fast_forward_again(scene: Scene, told: str) -> None:
    """After the recovery the holder of the old keys has nothing that is still believed."""
    repository = scene.repository
    repository.rotate("timestamp", "snapshot")
    repository.new_root()
    repository.publish()
    scene.refresh()
    scene.remember()
    repository.serve("timestamp", repository.signed_bytes("timestamp", ["timestamp"]))
    scene.refused(told)


row("the old online key after its rotation", "timestamp was signed by 0/1 keys", fast_forward_again)


# ── what is too large ───────────────────────────────────────────────────────────────────────────────────────────────────


def oversized(scene: Scene, told: str, name: str, size_bytes: int) -> None:
    scene.repository.publish()
    scene.repository.files[name] = b" " * size_bytes
    scene.refused(told, lambda: scene.refresh().target(PATH))


for _name, _size in (
    ("timestamp.json", 1 << 20), ("2.root.json", 1 << 20), ("3.snapshot.json", 1 << 20), ("3.targets.json", 4 << 20),
):  # fmt: skip
    row(f"{_name} too large", f"{_name} is longer than", oversized, _name, _size)


def endless(scene: Scene, told: str) -> None:
    real, given = scene.repository.chunks, [0]

    def chunks(name: str) -> Iterator[bytes]:
        while name == "timestamp.json":
            given[0] += 1
            yield b"[" * 1024
        yield from real(name)

    scene.repository.chunks = chunks  # type: ignore[method-assign]
    scene.refused(told)
    assert given[0] <= 17, "read on after the limit"
    scene.repository.chunks = real  # type: ignore[method-assign]


row("metadata without an end", "timestamp.json is longer than 16384 bytes", endless)


def deep(scene: Scene, told: str) -> None:
    scene.repository.files["timestamp.json"] = b"[" * 16_000
    scene.refused(told)


row("metadata nested without an end", "Failed to deserialize", deep)


# ── what is offered ─────────────────────────────────────────────────────────────────────────────────────────────────────


def swapped(scene: Scene, told: str) -> None:
    """Another artifact under the signed name, by the command that fetches whole files."""
    scene.repository.roles["timestamp"].expires = scene.repository.in_days(3650)
    for name in ("snapshot", "targets", "models"):
        scene.repository.roles[name].expires = scene.repository.in_days(3650)
    scene.repository.root.expires = scene.repository.in_days(3650)
    scene.repository.new_root()
    scene.repository.publish()
    scene.remember()
    place, targets = scene.folder.parent / "client", scene.folder.parent / "targets"
    (scene.folder.parent / "root.json").write_bytes(scene.repository.root_bytes)
    common = ["--metadata-dir", str(place), "--target-dir", str(targets), "--target-name", PATH]
    targets.mkdir()
    assert client([*common, "init", str(scene.folder.parent / "root.json")]) == 0
    genuine = hashlib.sha256(RELEASE).hexdigest()
    swap = {f"/targets/models/surface/{genuine}.2.tar": (200, RELEASE[::-1])}
    with served(scene.repository, swap.get) as url:
        urls = ["--metadata-url", f"{url}/metadata", "--target-base-url", f"{url}/targets"]
        with redirect_stderr(io.StringIO()) as said:
            assert client([*common, *urls, "download"]) == 1
        assert told in said.getvalue()
        assert not list(targets.iterdir())
        swap.clear()
        assert client([*common, *urls, "download"]) == 0
        assert [path.read_bytes() for path in targets.iterdir()] == [RELEASE]


row("an artifact swapped on the server", "not the bytes that are signed", swapped)


def escaped(scene: Scene, told: str, role: str, path: str, custom_kind: str) -> None:
    """The holder of one delegated key names what belongs to another."""
    custom = {"kind": custom_kind, "digest": "", "index": 9, "floor": 0, "hardware": ["*"]}
    scene.repository.put(role, path, b"escaped", custom)
    scene.repository.publish()
    scene.refused(told, lambda: scene.refresh().admitted(path, HARDWARE))


NOT_THERE = "not in the repository's signed targets"
row("models/ key names a runtime/ path", NOT_THERE, escaped, "models", "runtime/gudgeon/9.tar", "runtime")
row("models/ key names a key for assignments", NOT_THERE, escaped, "models", "assignment-keys/mine.pub", "model")
row("models/ key calls its artifact a runtime", "is of kind 'runtime', expected 'model'", escaped, "models",
    "models/surface/9.tar", "runtime")  # fmt: skip
row("a path with ..", "is no path of an artifact", escaped, "targets", "models/../../etc/x.tar", "model")
row("a path deeper than delegated", NOT_THERE, escaped, "models", "models/a/b/c.tar", "model")
row("an absolute path", "is no path of an artifact", escaped, "targets", "/etc/cron.d/x.tar", "model")
row("a path with a line break", "is no path of an artifact", escaped, "targets", "models/surface/1.tar\n", "model")


def offered(scene: Scene, told: str, changed: dict[str, object]) -> None:
    custom = {"kind": "model", "digest": "", "index": 9, "floor": 0, "hardware": ["*"], **changed}
    scene.repository.put("models", "models/surface/9.tar", b"offered", custom)
    scene.repository.publish()
    scene.refused(told, lambda: scene.refresh().admitted("models/surface/9.tar", HARDWARE))


row("made for other hardware", "is made for aarch64; this device is x86_64", offered, {"hardware": ["aarch64"]})
row("made for no hardware", "needs custom.hardware", offered, {"hardware": []})
row("an index that is no number", "needs custom.index", offered, {"index": "9"})
row("a floor above its own index", "has floor 10 above its own index 9", offered, {"floor": 10})


def below_the_floor(scene: Scene, told: str) -> None:
    """The release with the hole is still signed and still offered, after the one that mends it was confirmed."""
    scene.repository.add("models/surface/3.tar", b"mended", index=6, floor=6)
    scene.repository.publish()
    targets = scene.refresh()
    targets.repository.confirmed(targets.admitted("models/surface/3.tar", HARDWARE))
    scene.lose()
    scene.refused(told, lambda: scene.refresh().admitted(PATH, HARDWARE))
    scene.refused(told, lambda: scene.take(scene.assignment()))


row(
    "an artifact below the index floor",
    "has artifact index 5, below this device's floor of 6",
    below_the_floor,
    recovers=False,
)


# ── assignments ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def assigned(scene: Scene, told: str, make: Callable[[Scene], bytes]) -> None:
    scene.take(scene.assignment(counter=7))
    scene.refused(told, lambda: scene.take(make(scene)))
    assert list(scene.trusted().floor.counters.values()) == [7]
    scene.take(scene.assignment(counter=7))


def by_key(scene: Scene, private: Ed25519PrivateKey, kind: str = "assignment") -> bytes:
    now_ns = scene.clock.wall_ns()
    item = {"default": Item(PATH, scene.sha256)}
    return seal(kind, Assignment(NAME, 8, now_ns, now_ns + 10**12, item).body(), private.sign)


def changed_after(scene: Scene) -> bytes:
    return scene.assignment(counter=8).replace(b'"activate"', b'"stage"')


def expired(scene: Scene) -> bytes:
    payload = scene.assignment(counter=8, hours=1)
    scene.clock.advance(2 * 3600)
    return payload


SEALED = "not signed by a key that the offline keys name for it"
row("assignment for another device", "for device 'press-2', this one is 'press-1'", assigned,
    lambda s: s.assignment(counter=8, device="press-2"))  # fmt: skip
row("assignment with an older counter", "counter 6 is older than 7", assigned, lambda s: s.assignment(counter=6))
row("assignment that has expired", "assignment: expired 3600 s ago", assigned, expired)
row("assignment by a wrong key", SEALED, assigned, partial(by_key, private=key("timestamp")))
row(
    "assignment sealed as another message",
    SEALED,
    assigned,
    lambda s: by_key(s, s.repository.assignment_key, "command"),
)
row("assignment changed after sealing", SEALED, assigned, changed_after)
row("assignment of an unknown target", NOT_THERE, assigned,
    lambda s: s.assignment(counter=7, item=Item("models/surface/77.tar", s.sha256)))  # fmt: skip
row("assignment of another hash than signed", "names another hash than what is signed", assigned,
    lambda s: s.assignment(counter=7, item=Item(PATH, "0" * 64)))  # fmt: skip
row(
    "assignment that is no assignment",
    "expected a line of JSON and a line with its signature",
    assigned,
    lambda s: b"{}",
)


def assigned_after_loss(scene: Scene, told: str) -> None:
    """The counter is in the floor record, not in files that may be lost."""
    scene.take(scene.assignment(counter=7))
    scene.lose()
    (scene.folder / FILES[0]).write_bytes(bytes(32))
    scene.refused(told, lambda: scene.take(scene.assignment(counter=6)))


row("assignment replayed after local state loss", "counter 6 is older than 7", assigned_after_loss)


def name_another(scene: Scene) -> None:
    """The offline keys take the assignment key away, and name a new one."""
    for path in [p for p in scene.repository.roles["targets"].targets if p.startswith("assignment-keys/")]:
        del scene.repository.roles["targets"].targets[path]
    scene.repository.assignment_key = key("assignment again")
    scene.repository.name_assignment_key(scene.repository.assignment_key)
    scene.repository.publish()
    scene.remember()


def pushed(scene: Scene, told: str) -> None:
    """A stolen assignment key cannot push the counter to the end of numbers; and what it did push is over with the key."""
    scene.take(scene.assignment(counter=2**31))
    scene.refused(told, lambda: scene.take(scene.assignment(counter=2**62)))
    name_another(scene)
    scene.take(scene.assignment(counter=8))


row("assignment counter pushed to the end of numbers", "is too far above 2147483648", pushed)


def rotated_key(scene: Scene, told: str) -> None:
    """A stolen assignment key is worth nothing once the offline keys name another."""
    stolen = scene.repository.assignment_key
    name_another(scene)
    scene.take(scene.assignment(counter=8))
    scene.refused(told, lambda: scene.take(by_key(scene, stolen)))


row("the stolen assignment key after its rotation", SEALED, rotated_key)


def away(scene: Scene, told: str) -> None:
    """A repository that cannot be reached is no attack: tried again, and nothing is lost."""
    scene.repository.files.pop("timestamp.json")
    scene.refused(told, kind=EndpointError)


row("the repository hides its timestamp", "timestamp.json is not in the repository; tried again later", away)
