"""Small files of the device that are replaced whole, and its key: what is crashed, and what must be there then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_runtime.durable import replace_file
from edge_runtime.identity import KEY_PATH, device_key, public_text
from tools.crash.models import Model
from tools.crash.notes import Note, tell
from tools.crash.scenario import Scenario, State

VERSIONS = 4
NAMES = ("engines.json", "state.json")
LENGTH = 3000


def content(version: int) -> str:
    return f"{version} " * (LENGTH // 2 + 100 * version)


def run(folder: Path) -> None:
    """A key at first use; two files replaced in turn."""
    tell(key=public_text(device_key(folder)))
    for version in range(1, VERSIONS + 1):
        for name in NAMES:
            tell(begun=name, version=version)
            replace_file(folder / name, content(version).encode())
            tell(replaced=name, version=version)
    tell(key=public_text(device_key(folder)))


def recover(folder: Path) -> State:
    found = {name: (folder / name).read_text(errors="replace") for name in NAMES if (folder / name).exists()}
    had_key = (folder / KEY_PATH).exists()
    key = public_text(device_key(folder))
    tell(key=key)
    for name in NAMES:
        tell(begun=name, version=VERSIONS + 1)
        replace_file(folder / name, content(VERSIONS + 1).encode())
        tell(replaced=name, version=VERSIONS + 1)
    return {"key": key, "had_key": had_key, "files": found}


def check(notes: Sequence[Note], state: State, model: Model) -> list[str]:
    """The old or the new content, whole; and never a second key."""
    if "error" in state:
        return [f"recovery failed: {state['error']}"]
    keys = [note["key"] for note in notes if "key" in note]
    wrong = [
        f"the key that was told is gone ({'another' if state['had_key'] else 'none'} was there)"
        for key in keys[-1:]
        if key != state["key"]
    ]
    for name in NAMES:
        done = max((n["version"] for n in notes if n.get("replaced") == name), default=0)
        begun = max((n["version"] for n in notes if n.get("begun") == name), default=0)
        allowed = {content(v) for v in {done, begun} if v}
        found = state["files"].get(name)
        if found is None and done:
            wrong.append(f"{name}: gone; version {done} was acknowledged")
        elif found is not None and found not in allowed:
            wrong.append(f"{name}: neither version {done} nor {begun}, but {len(found)} characters {found[:20]!r}")
    return wrong


FILES = Scenario("the device's key made; small files replaced", run, recover, check)
