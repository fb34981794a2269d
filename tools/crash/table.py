"""The crash scenarios, one table: name → where the Scenario is. Each is imported only where it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from edge_runtime.errors import UsageError
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
    "identity": "tools.crash.identity:IDENTITY",
    "runtime": "tools.crash.runtime:RUNTIME",
    "update-confirm": "tools.crash.update:CONFIRM",
    "update-rollback": "tools.crash.update:ROLLBACK",
    "update-revert": "tools.crash.update:REVERT",
    "install": "tools.crash.install:INSTALL",
    "update-migrate": "tools.crash.update:MIGRATE",
    "download": "tools.crash.download:DOWNLOAD",
    "trust": "tools.crash.trust:TRUST",
    "registry": "tools.crash.registry:REGISTRY",
}


def scenario(name: str) -> Scenario:
    """By its name, or by `module:attribute` for one that is not in the table; UsageError where there is none."""
    module, _, attribute = SCENARIOS.get(name, name).partition(":")
    if not module or not attribute:
        raise UsageError(f"unknown scenario {name!r}: expected module:attribute, or one of {', '.join(SCENARIOS)}")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"scenario {name}: {error}") from error
    if not isinstance(found, Scenario):
        raise UsageError(f"scenario {name}: expected a tools.crash.scenario.Scenario, found {type(found).__name__}")
    return found
