"""Attacks on what a device trusts: a repository whose server, network or some of whose keys belong to somebody else.

The device has seen an honest repository with one release; then the row happens; it must be refused for that reason, what was
seen before must still hold, and the honest repository must be taken again afterwards.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import redirect_stderr

from tuf.ngclient import Updater

from edge_runtime.errors import EndpointError, ResourceError
from edge_runtime.link.time_floor import RELEASED_NS
from edge_runtime.update.tuf.checked import BASE, CONFIG, _Bounded
from edge_runtime.update.tuf.client import main as client
from edge_runtime.update.tuf.floor import FILES
from edge_runtime.update.tuf.memory import MemoryRepository
from edge_runtime.update.tuf.repository import METADATA
from edge_runtime.update.tuf.tests.served import served
from hil_tests.trust_scene import DAY_S, HARDWARE, NOT_THERE, PATH, RELEASE, YEAR_NS, Rows, Scene, caught

ROWS = Rows()
row = ROWS.add


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


def away(scene: Scene, told: str) -> None:
    """A repository that cannot be reached is no attack: tried again, and nothing is lost."""
    scene.repository.files.pop("timestamp.json")
    scene.refused(told, kind=EndpointError)


row("the repository hides its timestamp", "timestamp.json is not in the repository; tried again later", away)
