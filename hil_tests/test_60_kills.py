"""kill -9 of `control` and `link` in turn, in the middle of a run: every answered part is in the cloud exactly once."""

from __future__ import annotations

from pathlib import Path

import pytest

from hil_tests.test_30_line import demo


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    report = demo(tmp_path, "--parts", "300", "--parts-per-s", "20", "--kills", "6", "--seed", "3")
    assert report["kills"] == report["restarts"] == 6
    assert report["parts"] == 300
    assert report["answered_parts_missing_in_cloud"] == 0
    assert report["duplicates_in_cloud"] == 0
    assert report["parts_that_differ_from_their_event"] == 0
    assert report["events_in_cloud"] + report["unrecorded"] == report["answered"]
    assert report["control_recovery_s"]["max"] <= 10.0
