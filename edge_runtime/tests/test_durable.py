"""Files that survive a power cut, and disk trouble told in one line."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.durable import disk_errors, replace_file
from edge_runtime.errors import ResourceError

TOLD = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "quota",
    errno.EACCES: "permission denied",
    errno.EROFS: "read-only",
    errno.EIO: "Input/output error",
}


@pytest.mark.parametrize("code", TOLD)
def test_disk_errors_say_what_to_do(code: int) -> None:
    with pytest.raises(ResourceError) as caught, disk_errors(Path("/x/y")):
        raise OSError(code, os.strerror(code))
    assert str(caught.value).startswith("/x/y: ")
    assert TOLD[code] in str(caught.value)


def test_replace_file_puts_the_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    for content in (b"one", b"", b"two" * 1000):
        replace_file(tmp_path / "f", content)
        assert (tmp_path / "f").read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_missing_folder_is_a_resource_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="No such file"):
        replace_file(tmp_path / "none" / "f", b"")


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failure_keeps_the_old_content_and_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    replace_file(tmp_path / "f", b"old")
    if broken == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ResourceError, match="disk is full"):
        replace_file(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_the_data_is_on_disk_before_the_name_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def watch(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object) -> object:
            order.append(name)
            return call(*args)

        return wrapped

    monkeypatch.setattr(os, "fsync", watch("fsync", os.fsync))
    monkeypatch.setattr(Path, "replace", watch("replace", Path.replace))
    replace_file(tmp_path / "f", b"x")
    assert order == ["fsync", "replace", "fsync"]


def test_a_file_is_named_once(tmp_path: Path) -> None:
    for path in (tmp_path / "a", tmp_path / "b/c"):
        with pytest.raises(ResourceError) as caught, disk_errors(tmp_path / "a"):
            path.read_bytes()
        assert str(caught.value).count(str(path)) == 1
        assert "Errno" not in str(caught.value)
