"""The crash scenarios, one table."""

from __future__ import annotations

from collections.abc import Mapping

from tools.crash import files, outbox, promises
from tools.crash.scenario import Scenario

SCENARIOS: Mapping[str, Scenario] = {
    "outbox-life": Scenario(
        "made; durable, bulk, shared and large appends; sent, acknowledged, closed, opened again",
        outbox.run_life, outbox.recover_with(None), promises.check,
    ),
    "outbox-shed": Scenario(
        "a budget that is used up: thinned, evicted, signed, confirmed",
        outbox.run_shed, outbox.recover_with(outbox.BUDGET), promises.check,
    ),
    "outbox-age": Scenario(
        "records past their retention are given up while nothing new comes",
        outbox.run_age, outbox.recover_with(outbox.AGEING), promises.check,
    ),
    "outbox-adopt": Scenario(
        "a queue of schema 1 is taken over",
        outbox.run_short, outbox.recover_with(None), outbox.check_old, outbox.prepare_old,
    ),
    "outbox-damaged": Scenario(
        "a damaged file is set aside, a new one takes its place",
        outbox.run_short, outbox.recover_with(None), outbox.check_damaged, outbox.prepare_damaged,
    ),
    "files": Scenario("the device's key made; small files replaced", files.run, files.recover, files.check),
}  # fmt: skip
