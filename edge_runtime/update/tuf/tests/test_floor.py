"""The floor: it only rises, but for what new keys of the root allow; and its two files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import ResourceError
from edge_runtime.update.tuf.floor import FILES, Floor, FloorFiles, Signers

NUMBERS = st.integers(0, 1000)
KEYS = st.frozensets(st.sampled_from("abcd"), max_size=4)
SIGNERS = st.fixed_dictionaries({role: st.tuples(KEYS, st.integers(1, 3)) for role in ("timestamp", "snapshot")})
ROLES = st.dictionaries(st.sampled_from(["targets", "models", "os"]), NUMBERS)
FLOORS = st.builds(
    Floor, root=NUMBERS, timestamp=NUMBERS, snapshot=NUMBERS, roles=ROLES, index=NUMBERS, time_ns=NUMBERS,
    counters=st.dictionaries(KEYS.map("".join), NUMBERS, max_size=3),
    keys=st.fixed_dictionaries({"timestamp": KEYS, "snapshot": KEYS}),
)  # fmt: skip


@given(FLOORS, NUMBERS, SIGNERS)
def test_a_root_lowers_only_what_its_keys_took_away(floor: Floor, root: int, signers: dict[str, Signers]) -> None:
    found = floor.under(root, signers)
    if root <= floor.root:
        assert found == floor
        return
    for role in ("timestamp", "snapshot"):
        keys, threshold = signers[role]
        gone = len(floor.keys[role] & keys) < threshold
        assert getattr(found, role) == (0 if gone else getattr(floor, role))
        if role == "snapshot":
            assert found.roles == ({} if gone else floor.roles)
    assert (found.root, found.index, found.counters, found.time_ns) == (
        root,
        floor.index,
        floor.counters,
        floor.time_ns,
    )


@given(FLOORS, NUMBERS, NUMBERS, ROLES)
def test_what_was_seen_is_never_below_the_floor_again(
    floor: Floor, timestamp: int, snapshot: int, roles: dict[str, int]
) -> None:
    raised = floor.raised(timestamp, snapshot, roles)
    assert not list(raised.below(raised.timestamp, raised.snapshot, raised.roles))
    assert raised.raised(timestamp, snapshot, roles) == raised
    for name, least in floor.versions.items():
        assert raised.versions[name] >= least
    for older in range(max(0, raised.timestamp - 3), raised.timestamp):
        assert bool(list(raised.below(timestamp=older))) == (older > 0)


def test_a_role_that_is_gone_is_told() -> None:
    floor = Floor(roles={"targets": 2, "models": 3})
    assert list(floor.below(roles={"targets": 2})) == ["models is gone, not at 3, which this device has seen"]
    assert list(floor.below(roles={"targets": 1, "models": 4})) == [
        "targets version 1 is older than 2, which this device has seen"
    ]
    assert not list(floor.below(timestamp=1))


@settings(max_examples=20)
@given(
    floors=st.lists(FLOORS, min_size=1, max_size=3),
    at=st.integers(0, 1),
    damage=st.sampled_from([b"", b"\0" * 80, b"{}\n"]),
)
def test_one_damaged_file_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, floors: list[Floor], at: int, damage: bytes
) -> None:
    folder = tmp_path_factory.mktemp("floor")
    files = FloorFiles(folder, folder / "metadata")
    for floor in floors:
        files.keep(floor)
    (folder / FILES[at]).write_bytes(damage)
    assert FloorFiles(folder, folder / "metadata").floor == floors[-1]
    assert (folder / FILES[0]).read_bytes() == (folder / FILES[1]).read_bytes(), "and it is mended"


def test_of_two_that_differ_the_later_counts(tmp_path: Path) -> None:
    files = FloorFiles(tmp_path, tmp_path / "m")
    files.keep(Floor(root=1))
    older = (tmp_path / FILES[1]).read_bytes()
    files.keep(Floor(root=2))
    (tmp_path / FILES[1]).write_bytes(older)
    assert FloorFiles(tmp_path, tmp_path / "m").floor.root == 2


def test_counters_begin_again_with_the_key_that_sealed_them() -> None:
    floor = Floor().counted("old", 2**40, {"old"})
    assert floor.counter({"old", "new"}) == 2**40
    both = floor.counted("new", 2**40 + 1, {"old", "new"})
    assert both.counter({"new"}) == 2**40 + 1
    assert floor.counter({"new"}) == 0
    assert floor.counted("new", 7, {"new"}).counters == {"new": 7}
    assert both.counted("new", 3, {"new"}).counter({"new"}) == 2**40 + 1


def test_nothing_is_written_where_nothing_changes(tmp_path: Path) -> None:
    files = FloorFiles(tmp_path, tmp_path / "m")
    files.keep(Floor(root=1))
    before = [(tmp_path / name).stat().st_mtime_ns for name in FILES]
    files.keep(Floor(root=1))
    assert [(tmp_path / name).stat().st_mtime_ns for name in FILES] == before


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize("first", [flipped, lambda data: data[:-3], lambda data: b"\0" * len(data), lambda data: b""])
def test_both_damaged_is_refused_with_what_to_do(tmp_path: Path, first: object) -> None:
    FloorFiles(tmp_path, tmp_path / "m").keep(Floor(root=1))
    for name in FILES:
        (tmp_path / name).write_bytes(first((tmp_path / name).read_bytes()))  # type: ignore[operator]
    with pytest.raises(ResourceError, match=r"both damaged.*floor reset"):
        FloorFiles(tmp_path, tmp_path / "m")


@pytest.mark.parametrize("change", [{"root": -1}, {"root": "1"}, {"v": 2}, {"index": True}, {"roles": {"a": 2**63}}])
def test_a_record_that_nobody_wrote_so(tmp_path: Path, change: dict[str, object]) -> None:
    """With a checksum that fits."""
    FloorFiles(tmp_path, tmp_path / "m").keep(Floor(root=1))
    line = json.dumps({**json.loads((tmp_path / FILES[0]).read_text().splitlines()[0]), **change}).encode()
    for name in FILES:
        (tmp_path / name).write_bytes(line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n")
    with pytest.raises(ResourceError, match="both damaged"):
        FloorFiles(tmp_path, tmp_path / "m")
