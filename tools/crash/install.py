"""`gudgeon install` crashed: a bundle in the place of another one, and what a device starts with then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.identity import public_bytes
from edge_runtime.tests.bundles import make_bundle
from edge_runtime.update import install as installing
from edge_runtime.update import keyring, slots
from edge_runtime.update.store import Store, address
from tools.crash.models import Model
from tools.crash.notes import Note, tell
from tools.crash.scenario import Scenario, State

KEY = Ed25519PrivateKey.from_private_bytes(b"c" * 32)
ENGINE = "reference"
SOURCES = ("old", "new")


def _install(folder: Path, name: str) -> str:
    return installing.install(folder / "from" / name, folder, engine=ENGINE).path.name


def prepare(folder: Path) -> None:
    (folder / "trust").mkdir()
    keyring.write_public(folder / "trust" / "crash.pub", public_bytes(KEY))
    for seed, name in enumerate(SOURCES):
        make_bundle(folder / "from" / name, seed=seed, int8=False, sign_key=KEY)
    _install(folder, "old")


def run(folder: Path) -> None:
    tell(installed=_install(folder, "new"))


def recover(folder: Path) -> State:
    path = slots.active(folder)
    boots = path.name if path else ""
    whole = path is not None and address(path) == boots
    _install(folder, "new")
    Store(folder).clean()
    after = slots.active(folder)
    names = {name: address(folder / "from" / name) for name in SOURCES}
    return {
        "boots": boots,
        "whole": whole,
        "after": after.name if after else "",
        "sources": names,
        "store": sorted(p.name for p in Store(folder).folder.iterdir()),
        "named": sorted(slots.named(folder) or ()),
    }


def check(notes: Sequence[Note], state: State, model: Model) -> list[str]:
    """The old one or the new one, whole; the new one where that was told; and it can be installed again."""
    if "error" in state:
        return [f"recovery failed: {state['error']}"]
    old, new = (state["sources"][name] for name in SOURCES)
    wrong = []
    if state["boots"] not in (old, new) or not state["whole"]:
        wrong.append(f"boots {state['boots'][:12] or 'nothing'}, whole: {state['whole']}")
    if any("installed" in note for note in notes) and state["boots"] != new:
        wrong.append("it was told as installed, and the old one boots")
    if state["after"] != new:
        wrong.append(f"installed again, {state['after'][:12] or 'nothing'} boots")
    if state["store"] != state["named"]:
        wrong.append(f"left over in the store: {sorted(set(state['store']) - set(state['named']))}")
    return wrong


INSTALL = Scenario("gudgeon install of a bundle in the place of another", run, recover, check, prepare)
