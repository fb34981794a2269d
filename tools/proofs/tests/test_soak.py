"""The soak itself, at a length that CI can bear, and that it would find what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.wire.batch import Shed
from tools.proofs.soak import run, unstated

H = "0" * 64


def test_what_is_not_stated_is_counted() -> None:
    thin = Shed(1, "telemetry", 1, 20, 10, 18, "thin", H, H, H, 1, 2)
    ranges = [thin, Shed(2, "telemetry", 21, 25, 0, 5, "evict_oldest", H, H, H, 1, 2)]
    assert unstated([(1, 9), (11, 19), (21, 25)], ranges) == 0
    assert unstated([(1, 10), (26, 27)], ranges) == 3


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_day_offline(tmp_path: Path) -> None:
    found = run(1.0, tmp_path, quiet=True)
    assert found["passed"], found
    assert found["shed"] > 0
    assert found["alarms_held"] == 1440
