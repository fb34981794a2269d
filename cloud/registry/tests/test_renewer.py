"""The cloud keeps the online metadata young, and tells what it cannot."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from cloud.registry.making import make_registry
from cloud.registry.publishing import utc_now
from cloud.registry.renewer import Renewer
from edge_runtime.errors import UsageError

NOW = utc_now()


def test_it_renews_and_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry = make_registry(tmp_path / "r", tmp_path / "keys", NOW)
    now = [NOW]
    renewer = Renewer(registry.folder, lambda: now[0])
    assert renewer.step() == []
    now[0] = NOW + timedelta(days=350)
    assert renewer.step() == ["snapshot", "timestamp"]
    assert renewer.step() == []
    told = [record.getMessage() for record in caplog.records]
    assert sum("targets expires on" in text for text in told) == 1
    assert registry.published()["timestamp"].signed.expires > now[0]


def test_a_thread_that_ends(tmp_path: Path) -> None:
    make_registry(tmp_path / "r", tmp_path / "keys", NOW)
    renewer = Renewer(tmp_path / "r")
    renewer.start()
    renewer.stop()
    assert not renewer._thread.is_alive()


def test_no_registry(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a registry"):
        Renewer(tmp_path)
