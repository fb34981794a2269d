"""By the fewest bytes, and whole wherever a delta does not lead to the artifact."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.clock import FakeClock
from edge_runtime.delta import making
from edge_runtime.delta.tests.artifacts import files, folder, packed, sha256
from edge_runtime.errors import GudgeonError
from edge_runtime.update.fetch import artifact
from edge_runtime.update.fetch.artifact import Fetched, fetch, undo_apart
from edge_runtime.update.fetch.fetcher import Fetcher, FetchError
from edge_runtime.update.fetch.folder import FolderFetcher
from edge_runtime.update.fetch.memory import MemoryFetcher
from edge_runtime.update.fetch.pace import Limits
from edge_runtime.update.fetch.partial import Wanted
from edge_runtime.wire import delta as wire

OLD_FILES, NEW_FILES = files(), files(moved=1e-3, version="2")
OLD, NEW = packed(OLD_FILES), packed(NEW_FILES)
PATH = "targets/models/surface/2.tar"
WANTED = Wanted(PATH, len(NEW), sha256(NEW))
LIMITS = Limits(leave_free_bytes=0)
DELTAS = making.make(OLD, NEW)


def offered(source: str, deltas: dict[str, bytes]) -> dict[str, bytes]:
    """What a repository has beside the artifact."""
    name = sha256(NEW)
    candidates = tuple(wire.Candidate(f, len(d), sha256(d), f"{name}.{f}") for f, d in deltas.items())
    found = {f"deltas/{source}/{name}.{f}": d for f, d in deltas.items()}
    return {PATH: NEW, wire.hint_path(source, name): wire.Hint(source, name, candidates).to_json(), **found}


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    return {sha256(OLD): folder(tmp_path / "store", OLD_FILES)}


def get(fetcher: Fetcher, sources: dict[str, Path], tmp_path: Path) -> Fetched:
    found = fetch(fetcher, WANTED, tmp_path / "d", FakeClock(), sources, LIMITS)
    assert found.path.read_bytes() == NEW
    assert os.listdir(tmp_path / "d") == [WANTED.sha256]
    return found


def test_by_the_smallest_delta(sources: dict[str, Path], tmp_path: Path) -> None:
    fetcher = MemoryFetcher(offered(sha256(OLD), DELTAS))
    assert get(fetcher, sources, tmp_path).way == "tensor"
    assert fetcher.given_bytes < len(DELTAS["tensor"]) + 1000 < len(NEW)
    asked = len(fetcher.asked)
    assert get(fetcher, sources, tmp_path).way == "kept"
    assert len(fetcher.asked) == asked


def test_by_a_delta_from_a_medium_that_carries_it(sources: dict[str, Path], tmp_path: Path) -> None:
    for path, data in offered(sha256(OLD), DELTAS).items():
        (tmp_path / "usb" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "usb" / path).write_bytes(data)
    assert get(FolderFetcher(tmp_path / "usb"), sources, tmp_path).way == "tensor"


def test_packed_where_nothing_else_is_here(tmp_path: Path) -> None:
    fetcher = MemoryFetcher(offered(wire.NOTHING, making.make(None, NEW)))
    assert get(fetcher, {}, tmp_path) == Fetched(tmp_path / "d" / WANTED.sha256, "packed")


def test_whole_where_nothing_is_offered(sources: dict[str, Path], tmp_path: Path) -> None:
    found = get(MemoryFetcher({PATH: NEW}), sources, tmp_path)
    assert (found.way, found.refused) == ("whole", ())


def test_the_next_candidate_where_the_first_is_wrong(sources: dict[str, Path], tmp_path: Path) -> None:
    wrong = DELTAS["patch"][: len(DELTAS["tensor"]) - 100]
    found = get(MemoryFetcher(offered(sha256(OLD), {"patch": wrong, "tensor": DELTAS["tensor"]})), sources, tmp_path)
    assert found.way == "tensor"
    assert "patch" in found.refused[0]


def changed(source: str, change: Callable[[dict[str, bytes]], Any]) -> MemoryFetcher:
    content = offered(source, DELTAS)
    change(content)
    return MemoryFetcher(content)


HINT = wire.hint_path(sha256(OLD), sha256(NEW))
FILE = f"deltas/{sha256(OLD)}/{sha256(NEW)}"
TROUBLE: dict[str, Callable[[dict[str, bytes]], Any]] = {
    "a hint that is none": lambda c: c.update({HINT: b"<html>"}),
    "a hint without end": lambda c: c.update({HINT: b" " * 100_000}),
    "a hint for another artifact": lambda c: c.update({HINT: c[HINT].replace(sha256(NEW).encode(), b"5" * 64)}),
    "deltas that are not there": lambda c: [c.pop(f"{FILE}.{f}") for f in DELTAS],
    "deltas of another content": lambda c: c.update({f"{FILE}.{f}": bytes(len(d)) for f, d in DELTAS.items()}),
    "deltas of another length": lambda c: c.update({f"{FILE}.{f}": d + b"x" for f, d in DELTAS.items()}),
    "deltas to somewhere else": lambda c: c.update(offered(sha256(OLD), making.make(OLD, OLD))),
    "deltas that promise little and are long": lambda c: c.update(
        {HINT: json.dumps(json.loads(c[HINT]) | {"candidates": [
            {"format": "patch", "length": 10**9, "sha256": "0" * 64, "file": "x"}]}).encode()}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TROUBLE)
def test_any_trouble_with_deltas_ends_with_the_whole_file(name: str, sources: dict[str, Path], tmp_path: Path) -> None:
    found = get(changed(sha256(OLD), TROUBLE[name]), sources, tmp_path)
    assert found.way == "whole"
    assert found.refused or "long" in name


def test_a_store_that_was_changed_is_no_source(sources: dict[str, Path], tmp_path: Path) -> None:
    store = sources[sha256(OLD)]
    (store / "picture.bin").write_bytes(b"changed")
    found = get(MemoryFetcher(offered(sha256(OLD), DELTAS)), sources, tmp_path)
    assert found.way == "whole"
    assert "picture.bin is changed" in found.refused[0]


def test_without_room_for_a_delta_there_may_be_room_for_the_whole(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = subprocess.CompletedProcess([], 6, "", "No space left on device")
    monkeypatch.setattr(
        artifact, "undo_apart", lambda p, s, made, n, h: undo_apart(p, s, made, n, h, lambda *args, **more: full)
    )
    found = get(MemoryFetcher(offered(sha256(OLD), DELTAS)), sources, tmp_path)
    assert found.way == "whole"
    assert "No space left" in found.refused[0]


def test_a_delta_that_came_is_kept_until_the_artifact_is_there(sources: dict[str, Path], tmp_path: Path) -> None:
    cut = MemoryFetcher(
        offered(sha256(OLD), DELTAS) | {PATH: b""}, trouble=lambda path, n: FetchError("HTTP 503") if n > 2 else None
    )
    (sources[sha256(OLD)] / "CARD.md").rename(tmp_path / "away")
    with pytest.raises(FetchError, match="503"):
        get(cut, sources, tmp_path)
    (tmp_path / "away").rename(sources[sha256(OLD)] / "CARD.md")
    fetcher = MemoryFetcher(offered(sha256(OLD), DELTAS))
    assert get(fetcher, sources, tmp_path).way == "tensor"
    assert fetcher.given_bytes < 1000


def test_a_process_that_dies_or_hangs_is_a_refusal(tmp_path: Path) -> None:
    def dies(*args: Any, **more: Any) -> Any:
        return subprocess.CompletedProcess([], -9, "", "")

    def hangs(*args: Any, **more: Any) -> Any:
        raise subprocess.TimeoutExpired([], 1)

    for run, told in ((dies, "ended with -9"), (hangs, "not undone within")):
        with pytest.raises(GudgeonError, match=told):
            undo_apart(tmp_path / "x", None, tmp_path / "y", 1, "0" * 64, run)


def test_the_deadline_of_the_whole_file_is_its_own(sources: dict[str, Path], tmp_path: Path) -> None:
    fetcher = MemoryFetcher(
        offered(sha256(OLD), DELTAS),
        trouble=lambda path, number: FetchError("HTTP 503") if path.startswith("deltas") else None,
    )
    found = get(fetcher, sources, tmp_path)
    assert found.way == "whole"
    assert found.refused == ("hint: HTTP 503", "hint: HTTP 503")
