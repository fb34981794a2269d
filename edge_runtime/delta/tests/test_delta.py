"""What is made is undone to the very bytes; what was not made so is refused, in bounds."""

from __future__ import annotations

import dataclasses
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.delta import container, making, planes, regions
from edge_runtime.delta.container import COPY, PLANE, RAW, SUB, XOR, End, Head, Range, Section, Step
from edge_runtime.delta.tests.artifacts import files, packed, sha256
from edge_runtime.delta.undo import undo
from edge_runtime.errors import BundleError
from edge_runtime.tests.bundles import make_bundle
from edge_runtime.wire import delta as wire

OLD = packed(files())
NEW = packed(files(moved=1e-3, version="2"))


def undone(tmp_path: Path, delta: bytes, source: bytes | None, target: bytes) -> bytes:
    """The target as it comes out of a delta."""
    (tmp_path / "delta").write_bytes(delta)
    (tmp_path / "target").unlink(missing_ok=True)
    if source is not None:
        (tmp_path / "source").write_bytes(source)
    undo(
        tmp_path / "delta",
        None if source is None else tmp_path / "source",
        tmp_path / "target",
        len(target),
        sha256(target),
    )
    return (tmp_path / "target").read_bytes()


@pytest.mark.parametrize("name", ["patch", "tensor", "packed"])
def test_there_and_back(name: str, tmp_path: Path) -> None:
    source = None if name == "packed" else OLD
    assert undone(tmp_path, making.make(source, NEW)[name], source, NEW) == NEW


def test_weights_that_moved_cost_less_by_planes() -> None:
    made = {name: len(delta) for name, delta in (making.make(OLD, NEW) | making.make(None, NEW)).items()}
    assert made["tensor"] < 0.9 * made["patch"] < made["packed"] < len(NEW)


def test_what_is_the_same_costs_nothing() -> None:
    assert len(making.make(OLD, OLD)["patch"]) < 2000
    renamed = packed({"other.bin" if n == "picture.bin" else n: c for n, c in files().items()})
    assert len(making.make(OLD, renamed)["patch"]) < 3000


def test_real_bundles(tmp_path: Path) -> None:
    from edge_runtime.wire import archive

    for i in range(2):
        archive.pack_file(make_bundle(tmp_path / f"b{i}", seed=i), tmp_path / f"{i}.tar")
    old, new = ((tmp_path / f"{i}.tar").read_bytes() for i in range(2))
    for delta in making.make(old, new).values():
        assert undone(tmp_path, delta, old, new) == new


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([1, 2, 4, 8]), st.sampled_from([PLANE, SUB, XOR]))
def test_planes_and_differences(data: st.DataObject, width: int, mode: str) -> None:
    count = data.draw(st.integers(1, 40)) * width
    target, source = (data.draw(st.binary(min_size=count, max_size=count)) for _ in range(2))
    assert planes.from_planes(planes.to_planes(target, width), width) == target
    assert planes.restore(mode, width, planes.difference(mode, width, target, source), source) == target


def test_pieces_longer_than_one_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "LEVEL", 3)
    big = {"weights.tflite": os.urandom(container.PIECE_BYTES + 4097) * 2}
    old, new = packed(big), packed({"weights.tflite": bytes(b ^ 1 for b in big["weights.tflite"])})
    made = making.make(old, new)
    assert undone(tmp_path, made["tensor"], old, new) == new
    assert len(made["tensor"]) < len(new) / 100


def test_regions_of_every_kind_of_file() -> None:
    content = files()
    found = regions.find("model.fp32.onnx", content["model.fp32.onnx"])
    assert [(r.name, r.length, r.width) for r in found] == [("conv", 40 * 40 * 9 * 4, 4), ("head", 8 * 40 * 4, 4)]
    (table,) = regions.find("golden.npz", content["golden.npz"])
    assert (table.length, table.width) == (8 * 40 * 4, 4)
    assert regions.find("x.tflite", bytes(2000)) == [regions.Region("", 0, 2000, 1)]
    assert regions.find("x.bin", bytes(2000)) == []


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 5000), st.integers(0, 255), st.sampled_from(["model.fp32.onnx", "golden.npz"]))
def test_damaged_files_have_regions_inside_of_them_or_none(at: int, value: int, name: str) -> None:
    data = bytearray(files()[name])
    data[at % len(data)] = value
    end = 0
    for region in regions.find(name, bytes(data)):
        assert end <= region.start < region.start + region.length <= len(data)
        end = region.start + region.length


# --- malicious deltas ------------------------------------------------------------------------------------------------------


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def evil(steps: list[Step], frames: dict[tuple[str, int], bytes], target: bytes = NEW, **changes: Any) -> bytes:
    """A delta of these parts, the head not checked."""
    head = Head.__new__(Head)
    values = {
        "source": End(len(OLD), sha256(OLD)), "target": End(len(target), sha256(target)), "steps": steps,
        "sections": [Section(*key, len(frame)) for key, frame in frames.items()], "dictionary": [], **changes,
    }  # fmt: skip
    for name, value in values.items():
        object.__setattr__(head, name, value)
    return head.to_bytes() + b"".join(frames.values())


ALL = len(NEW)
WHOLE = [Step(RAW, 0, ALL, 0)]
EVIL: dict[str, tuple[bytes, str]] = {
    "another content": (evil(WHOLE, {(RAW, 0): zstd(bytes(ALL))}), "does not have the hash"),
    "a bomb": (evil(WHOLE, {(RAW, 0): zstd(bytes(1 << 28))}), "does not have the hash"),
    "a huge window": (
        evil(WHOLE, {(RAW, 0): zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters(window_log=27, write_content_size=0)
        ).compressobj().compress(b"x") + bytes.fromhex("28b52ffd00a0")}), "memory|error|ends",
    ),
    "too much is promised": (evil([Step(RAW, 0, 1 << 40, 0)], {(RAW, 0): zstd(b"")}), "do not add up"),
    "too little comes": (evil(WHOLE, {(RAW, 0): zstd(bytes(10))}), "ends too early"),
    "not zstd": (evil(WHOLE, {(RAW, 0): b"hello, I am not a frame"}), "."),
    "a frame beyond the file": (evil(WHOLE, {(RAW, 0): zstd(NEW)[:-100]}), "."),
    "a copy from beyond": (evil([Step(COPY, 0, ALL, len(OLD) - 5)], {}), "does not have"),
    "elements from beyond": (evil([Step(XOR, 4, ALL // 4 * 4, 1 << 49)], {(XOR, 4): zstd(NEW)}), "does not have"),
    "half an element": (evil([Step(SUB, 4, 7, 0)], {(SUB, 4): zstd(NEW)}), "whole number"),
    "a step of nothing": (evil([Step(RAW, 0, 0, 0), *WHOLE], {(RAW, 0): zstd(NEW)}), "whole number"),
    "a width that is none": (evil([Step(SUB, 3, ALL, 0)], {(SUB, 3): zstd(NEW)}), "no step"),
    "a mode that is none": (evil([Step("exec", 0, ALL, 0)], {("exec", 0): zstd(NEW)}), "no step"),
    "a section too many": (evil(WHOLE, {(RAW, 0): zstd(NEW), (XOR, 1): zstd(b"")}), "each once"),
    "a section too few": (evil(WHOLE, {}), "each once"),
    "a dictionary from beyond": (evil(WHOLE, {(RAW, 0): zstd(NEW)}, dictionary=[Range(0, len(OLD) + 1)]), "does not have"),
    "a dictionary without end": (
        evil(WHOLE, {(RAW, 0): zstd(NEW)}, source=End(1 << 31, sha256(OLD)), dictionary=[Range(0, 1 << 30)]), "more than"
    ),
    "ten thousand steps": (evil([Step(RAW, 0, 1, 0)] * 10_000, {(RAW, 0): zstd(NEW)}, target=bytes(10_000)), "more than|over"),
    "for another target": (making.make(OLD, OLD)["patch"], "another file"),
    "from another source": (evil([Step(COPY, 0, 5, 0)], {}, source=End(5, sha256(b"12345")), target=b"12345"), "another file"),
    "a head without end": (container.MAGIC + struct.pack("<I", 1 << 31) + b"{", "over the limit"),
    "no head": (b"", "not a delta"),
    "a head of another version": (b"gudgeon\x02" + bytes(4), "not a delta"),
    "a head that is a list": (container.MAGIC + struct.pack("<I", 2) + b"[]", "expected"),
    "a head so deep": (container.MAGIC + struct.pack("<I", 200_000) + b"[" * 200_000, "."),
}  # fmt: skip


@pytest.mark.parametrize("name", EVIL)
def test_a_malicious_delta_is_refused(name: str, tmp_path: Path) -> None:
    delta, told = EVIL[name]
    with pytest.raises(BundleError, match=told):
        undone(tmp_path, delta, OLD, NEW)
    assert sorted(os.listdir(tmp_path)) == ["delta", "source"]


def test_every_field_of_a_head_is_checked(tmp_path: Path) -> None:
    good = container.read_head(
        making.make(OLD, NEW)["tensor"][12:][: container.head_length(making.make(OLD, NEW)["tensor"][:12])]
    )
    changes: list[Callable[[Head], Any]] = [
        lambda h: dataclasses.replace(h, target=End(h.target.length + 1, h.target.sha256)),
        lambda h: dataclasses.replace(h, steps=list(h.steps)[1:]),
        lambda h: dataclasses.replace(h, sections=[*h.sections, h.sections[0]]),
        lambda h: dataclasses.replace(h, source=End(-1, h.source.sha256)),
    ]
    for change in changes:
        with pytest.raises(ValueError, match="delta"):
            change(good)
    for text in (
        b"{}",
        b'{"source":[1],"target":[1,"x"],"steps":[],"sections":[],"dictionary":[]}',
        b"\xff",
        b'{"steps":NaN}',
    ):
        with pytest.raises(ValueError, match=r"delta|JSON|utf"):
            container.read_head(text)


def test_it_takes_no_more_memory_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the device runs it; the peak of the whole process, Python and NumPy in it, with the largest dictionary."""
    monkeypatch.setattr(making, "LEVEL", 3)
    some = os.urandom(6 * 1024 * 1024)
    old, new = (
        packed({"a.tflite": a, "b.bin": b}) for a, b in ((some, some[::-1]), (some[1:] + b"x", some[::-1] + b"y"))
    )
    (tmp_path / "delta").write_bytes(making.make(old, new)["tensor"])
    (tmp_path / "source").write_bytes(old)
    script = (
        "import sys\nfrom edge_runtime.delta import undo\ncode = undo.main(sys.argv[1:])\n"
        "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')])\nsys.exit(code)"
    )
    args = [str(tmp_path / "delta"), str(tmp_path / "source"), str(tmp_path / "target"), str(len(new)), sha256(new)]
    done = subprocess.run(
        [sys.executable, "-c", script, *args], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "target").read_bytes() == new
    assert int(done.stdout) < 96 * 1024


# --- hints -----------------------------------------------------------------------------------------------------------------


def test_a_hint_there_and_back() -> None:
    hint = wire.Hint("1" * 64, "2" * 64, (wire.Candidate("patch", 5, "3" * 64, "2.patch"),))
    assert wire.read_hint(hint.to_json(), "1" * 64, "2" * 64) == hint


@pytest.mark.parametrize(
    "change",
    [("v", "w"), ('"length": 5', '"length": 0'), ('"length": 5', '"length": 1.5'), ("2.patch", "../x"), ("2.patch", "a/b"),
     ('"patch"', '"exec"'), ('"3', '"X'), ('"candidates"', '"other"'), ("[{", "[[{"), ('"from": "1', '"from": "4')],
)  # fmt: skip
def test_a_hint_that_is_none(change: tuple[str, str]) -> None:
    hint = wire.Hint("1" * 64, "2" * 64, (wire.Candidate("patch", 5, "3" * 64, "2.patch"),)).to_json().decode()
    with pytest.raises(ValueError, match=r"delta hint|JSON"):
        wire.read_hint(hint.replace(*change).encode(), "1" * 64, "2" * 64)
