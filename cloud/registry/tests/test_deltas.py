"""Of every pair the smallest delta or none is published, and what is published leads to the artifact."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from cloud.registry import artifacts, deltas
from cloud.registry.folder import Registry
from cloud.registry.making import make_registry, release
from cloud.registry.publishing import utc_now
from cloud.registry.renewer import Renewer
from edge_runtime.cli import main
from edge_runtime.delta.making import choose
from edge_runtime.delta.tests.artifacts import files, folder, packed
from edge_runtime.delta.undo import undo
from edge_runtime.wire import delta
from edge_runtime.wire.target import Target

VERSIONS = {"1": files(), "2": files(moved=1e-3, version="2"), "3": files(seed=40, version="3")}


def put(registry: Registry, place: Path, path: str, source: Path) -> Target:
    target = artifacts.add(registry, source, path, utc_now())
    release(registry, place / "keys", utc_now())
    return target


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Registry, dict[str, Target]]:
    place = tmp_path_factory.mktemp("registry")
    registry = make_registry(place / "r", place / "keys", utc_now())
    found = {
        version: put(registry, place, f"models/surface/{version}.tar", folder(place / version, content))
        for version, content in VERSIONS.items()
    }
    (place / "other").write_bytes(b"no archive of ours " * 100)
    put(registry, place, "models/other/1.tar", place / "other")
    return registry, found


def test_all_pairs_once(filled: tuple[Registry, dict[str, Target]], tmp_path: Path) -> None:
    registry, found = filled
    made = deltas.build(registry)
    pairs = [(m.source.rpartition("/")[2], m.target.rpartition("/")[2]) for m in made if "surface" in m.target]
    assert sorted(pairs) == [
        ("", "1.tar"),
        ("", "2.tar"),
        ("", "3.tar"),
        ("1.tar", "2.tar"),
        ("1.tar", "3.tar"),
        ("2.tar", "3.tar"),
    ]
    assert deltas.build(registry) == []
    assert len(deltas.build(registry, "models/surface/3.tar", again=True)) == 3
    (nothing,) = [m for m in made if "other" in m.target]
    assert (nothing.chosen, nothing.sizes) == ("", {})

    by_pair = {(m.source, m.target): m for m in made}
    moved = by_pair["models/surface/1.tar", "models/surface/2.tar"]
    assert moved.chosen == "tensor" == min(moved.sizes, key=lambda name: moved.sizes[name])
    for m in made:
        if "surface" in m.target:
            _leads_there(registry, found, m, tmp_path)


def _leads_there(registry: Registry, found: dict[str, Target], m: deltas.Made, tmp_path: Path) -> None:
    by_path = {t.path: t for t in found.values()}
    target, source = by_path[m.target], by_path.get(m.source)
    base = registry.folder / "repo"
    origin = source.sha256 if source else delta.NOTHING
    hint = delta.read_hint((base / delta.hint_path(origin, target.sha256)).read_bytes(), origin, target.sha256)
    assert [c.format for c in hint.candidates] == ([m.chosen] if m.chosen else [])
    for c in hint.candidates:
        file = base / delta.folder(origin) / c.file
        assert (c.length, c.sha256) == (file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())
        out = tmp_path / f"{origin[:8]}.{target.sha256[:8]}"
        undo(file, registry.targets / source.file if source else None, out, target.length, target.sha256)
        assert out.read_bytes() == packed(VERSIONS[target.path[-5]])


@pytest.mark.parametrize(
    ("sizes", "packed_bytes", "chosen"),
    [
        ({"patch": 700, "tensor": 600}, 900, "tensor"),
        ({"patch": 700, "tensor": 730}, 900, "patch"),
        ({"patch": 790, "tensor": 800}, 950, "patch"),  # packed is not worth it, so the whole counts
        ({"patch": 801, "tensor": 810}, 950, ""),
        ({"patch": 730}, 900, ""),
        ({"packed": 900}, 900, "packed"),
        ({"packed": 901}, 901, ""),
        ({}, 900, ""),
    ],
)
def test_the_smallest_or_none(sizes: dict[str, int], packed_bytes: int, chosen: str) -> None:
    assert choose(1000, packed_bytes, sizes) == chosen


def test_deltas_to_what_is_named_no_more_are_removed(filled: tuple[Registry, dict[str, Target]]) -> None:
    registry, _ = filled
    deltas.build(registry)
    stale = registry.folder / "repo" / delta.folder("a" * 64) / f"{'b' * 64}.patch"
    stale.parent.mkdir()
    stale.write_bytes(b"")
    assert deltas.sweep(registry) == 1
    assert not stale.exists()
    assert not deltas.missing(registry)


def test_the_cloud_makes_what_is_missing(filled: tuple[Registry, dict[str, Target]]) -> None:
    registry, found = filled
    deltas.build(registry)
    hint = registry.folder / "repo" / delta.hint_path(found["1"].sha256, found["2"].sha256)
    hint.unlink()
    assert deltas.missing(registry)
    renewer = Renewer(registry.folder)
    renewer._make_deltas()
    assert hint.exists()
    assert not deltas.missing(registry)


def test_as_it_is_typed(filled: tuple[Registry, dict[str, Target]], capsys: pytest.CaptureFixture[str]) -> None:
    registry, _ = filled
    line = ["repo", "deltas", str(registry.folder), "models/surface/2.tar", "--again"]
    assert main([*line, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["deltas"]
    assert {row["chosen"] for row in rows} == {"", "tensor"}
    assert main(line) == 0
    assert "published tensor" in capsys.readouterr().out
