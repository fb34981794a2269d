"""A desk with an authority of its own, and a clock that the test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine

from cloud.ca.local import LocalAuthority
from cloud.enrol.challenges import Challenges
from cloud.enrol.desk import Desk

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return round(self.now.timestamp() * 1e9)


def make_desk(engine: Engine, folder: Path, clock: Clock | None = None) -> Desk:
    authority = LocalAuthority(folder / "ca")
    authority.create("Test", NOW)
    return Desk(engine, authority, Challenges(b"k" * 32), clock or Clock())
