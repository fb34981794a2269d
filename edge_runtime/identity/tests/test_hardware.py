"""What a board calls itself: the first source that there is, as one word that fits a token."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.errors import ConfigError
from edge_runtime.identity.hardware import SOURCES, hardware_id


def test_the_board_before_the_firmware_before_the_installation(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set identity\.hardware_id"):
        hardware_id(tmp_path)
    contents = {"machine": b"ABCDEF01\n", "dmi": b"4C4C4544-0035\n", "serial": b"10000000a3b1c2d4\x00"}
    told = []
    for kind, data in contents.items():
        path = tmp_path / SOURCES[kind]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        told.append(hardware_id(tmp_path))
    assert told == ["machine:abcdef01", "dmi:4c4c4544-0035", "serial:10000000a3b1c2d4"]


@pytest.mark.parametrize("data", [b"", b"\x00\n", b"///"])
def test_a_source_that_says_nothing_is_passed_over(tmp_path: Path, data: bytes) -> None:
    for kind, content in (("serial", data), ("machine", b"abc")):
        path = tmp_path / SOURCES[kind]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert hardware_id(tmp_path) == "machine:abc"
