"""The device's key: made once, on the disk before anybody is told it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.errors import ResourceError
from edge_runtime.identity import KEY_PATH, device_key, public_text


@pytest.mark.parametrize("was_there", [False, True])
def test_the_key_and_the_name_of_its_folder_are_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was_there: bool
) -> None:
    first = public_text(device_key(tmp_path)) if was_there else None
    flushed: list[Path] = []
    monkeypatch.setattr("edge_runtime.identity.signing_key.sync_folder", flushed.append)
    key = public_text(device_key(tmp_path))
    assert first in (None, key)
    assert flushed == [tmp_path / "identity", tmp_path], "who made it may have been killed before its flush"


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    device_key(tmp_path)
    (tmp_path / KEY_PATH).chmod(0o644)
    with pytest.raises(ResourceError, match="chmod 600"):
        device_key(tmp_path)
