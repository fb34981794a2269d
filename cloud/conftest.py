"""What the tests of the cloud share ends with them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloud.tests import browser


@pytest.fixture(autouse=True, scope="session")
def _browser_ends() -> Iterator[None]:
    yield
    browser.end()
