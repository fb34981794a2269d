"""The crash scenarios, one table: name → where the Scenario is. Each is imported only where it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from tools.crash.scenario import Scenario

SCENARIOS: Mapping[str, str] = {
    "outbox-life": "tools.crash.outbox:LIFE",
    "outbox-shed": "tools.crash.outbox:SHED",
    "outbox-age": "tools.crash.outbox:AGE",
    "outbox-adopt": "tools.crash.outbox:ADOPT",
    "outbox-damaged": "tools.crash.outbox:DAMAGED",
    "cloud-commit": "tools.crash.ingest:COMMIT",
    "cloud-make": "tools.crash.ingest:MAKE",
    "files": "tools.crash.files:FILES",
}


def scenario(name: str) -> Scenario:
    """By its name, or by `module:attribute` for one that is not in the table."""
    module, attribute = SCENARIOS.get(name, name).split(":")
    found = getattr(importlib.import_module(module), attribute)
    assert isinstance(found, Scenario)
    return found
