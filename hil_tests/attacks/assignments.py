"""Attacks on assignments: what a cloud that was stolen, or somebody on the way, could ask of a device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.update.tuf.floor import FILES
from edge_runtime.update.tuf.memory import key
from edge_runtime.wire.assignment import Assignment, Item
from edge_runtime.wire.signed import seal
from hil_tests.trust_scene import NAME, NOT_THERE, PATH, Rows, Scene

ROWS = Rows()
row = ROWS.add


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
