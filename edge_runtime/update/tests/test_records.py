"""Records: what is written comes back; one torn file is normal; of two damaged ones nothing is guessed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.update import records
from edge_runtime.update.records import NAMES, RECORD_BYTES, Job, RecordError, Release, SlotRecord
from edge_runtime.wire.update_status import UpdateState

SHA = st.text("0123456789abcdef", min_size=64, max_size=64)
counts = st.integers(0, 2**63 - 1)
text = st.text(max_size=300)
releases = st.builds(Release, SHA, SHA, st.text(max_size=140), counts, counts)
numbers = st.dictionaries(st.text(max_size=20), st.floats(allow_nan=False, allow_infinity=False), max_size=8)
jobs = st.builds(Job, releases, text, counts, counts, st.booleans(), counts, text, counts, numbers)
some_records = st.builds(
    SlotRecord,
    st.sampled_from(UpdateState),
    st.none() | jobs,
    st.none() | releases,
    st.none() | releases,
    st.dictionaries(SHA, counts, max_size=8),
)
A, B = Release("a" * 64), Release("b" * 64)
ONE, TWO = SlotRecord(confirmed=A), SlotRecord(UpdateState.CONFIRMED, confirmed=B, previous=A)


@given(some_records, counts)
def test_a_record_comes_back(record: SlotRecord, sequence: int) -> None:
    data = records.encode(sequence, record)
    assert len(data) == RECORD_BYTES
    assert records.decode(data) == (sequence, record)


@given(some_records, st.data())
@settings(max_examples=60)
def test_a_changed_or_short_file_is_no_record(record: SlotRecord, data: st.DataObject) -> None:
    good = records.encode(3, record)
    body = len(good.rstrip())
    at = data.draw(st.integers(0, body - 1))
    bad = bytearray(good)
    bad[at] ^= data.draw(st.integers(1, 255))
    for wrong in (bytes(bad), good[: data.draw(st.integers(0, RECORD_BYTES - 1))], bytes(RECORD_BYTES)):
        with pytest.raises(ValueError):
            records.decode(wrong)


def both(state: Path, slot_set: str = "default") -> list[Path]:
    return [records.folder_of(state, slot_set) / name for name in NAMES]


def test_two_files_in_turn_and_the_newest_counts(tmp_path: Path) -> None:
    assert records.read(tmp_path, "default").sequence == 0
    for n in range(1, 6):
        assert records.write(tmp_path, "default", TWO if n % 2 else ONE) == n
        found = records.read(tmp_path, "default")
        assert (found.record, found.sequence, found.damaged) == (TWO if n % 2 else ONE, n, ())
    assert found.named == {A.sha256, B.sha256}
    assert records.slot_sets(tmp_path) == ["default"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in both(tmp_path))


@pytest.mark.parametrize("newest", [0, 1])
def test_one_torn_file_is_normal_and_is_written_next(tmp_path: Path, newest: int) -> None:
    for n in range(3 + newest):
        records.write(tmp_path, "default", ONE if n % 2 else TWO)
    kept = records.read(tmp_path, "default")
    torn, other = both(tmp_path)[newest], both(tmp_path)[1 - newest]
    assert records.decode(torn.read_bytes())[0] == kept.sequence
    torn.write_bytes(torn.read_bytes()[:200] + bytes(RECORD_BYTES - 200))
    before = other.read_bytes()
    found = records.read(tmp_path, "default")
    assert (found.sequence, found.damaged) == (kept.sequence - 1, (torn.name,))
    assert records.write(tmp_path, "default", ONE) == kept.sequence
    assert other.read_bytes() == before
    assert records.read(tmp_path, "default").damaged == ()


def test_both_damaged_is_told_and_an_installation_ends_it(tmp_path: Path) -> None:
    records.write(tmp_path, "default", ONE)
    records.write(tmp_path, "default", TWO)
    for path in both(tmp_path):
        path.write_bytes(b"rubbish")
    with pytest.raises(RecordError, match="safe mode") as caught:
        records.read(tmp_path, "default")
    assert "\n" not in str(caught.value)
    records.write(tmp_path, "default", ONE)
    assert records.read(tmp_path, "default").record == ONE


def test_a_first_write_that_was_cut_leaves_a_device_without_anything_installed(tmp_path: Path) -> None:
    records.write(tmp_path, "default", ONE)
    both(tmp_path)[0].write_bytes(b"")
    found = records.read(tmp_path, "default")
    assert (found.record, found.damaged) == (SlotRecord(), ("record.0",))


def test_what_a_planted_link_leads_to_is_left_alone(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    records.write(tmp_path, "default", ONE)
    os.symlink(victim, both(tmp_path)[1])
    assert records.read(tmp_path, "default").record == ONE
    records.write(tmp_path, "default", TWO)
    assert records.read(tmp_path, "default").record == TWO
    assert victim.read_text() == "mine"


def test_numbers_that_are_none_are_left_out_and_texts_are_cut(tmp_path: Path) -> None:
    job = Job(B, reason="x" * 9999, measured={"p99_ms": float("nan"), "agreement": 0.5})
    records.write(tmp_path, "default", SlotRecord(UpdateState.TRIAL, job))
    found = records.read(tmp_path, "default").record.job
    assert found
    assert (len(found.reason), found.measured) == (records.REASON_LIMIT, {"agreement": 0.5})


def test_what_a_newer_runtime_has_written_more_is_left_out(tmp_path: Path) -> None:
    """After a rollback the older one goes on with these records."""
    full = SlotRecord(UpdateState.TRIAL, Job(A, "r", 5, 1, measured={"p99_ms": 1.5}), B, A, {B.sha256: 4})
    data = json.loads(records.encode(3, full).split(b"\n")[1])
    data["later"] = data["job"]["later"] = data["job"]["release"]["later"] = data["confirmed"]["later"] = {"x": 1}
    body = json.dumps(data).encode()
    file = (hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n").ljust(records.RECORD_BYTES)
    assert records.decode(file) == (3, full)
