"""The drill of `make restore-drill`, short: on both databases."""

from __future__ import annotations

import pytest

from cloud.store.postgres_server import programs
from tools.proofs.restore_drill import KINDS, run


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_a_moment_of_a_lost_cloud_comes_back(kind: str) -> None:
    if kind == "postgresql" and programs() is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    result = run(kind, before_s=2.0, after_s=2.0, every_s=0.5)
    assert result.findings == []
    assert (result.beyond_moment, result.lost_before_moment) == (0, 0)
    assert 0 < result.moment_rows < result.newest_rows <= result.written
    assert result.passed
