"""The artifacts that the cloud still needs, by hash: on a device, assigned, in a rollout or an action that has not ended, in an
experiment that runs."""

from __future__ import annotations

import re

from sqlalchemy import Connection, select

from cloud.ddi.actions import ACTIVE
from cloud.experiments.store import RUNNING
from cloud.rollout.states import RolloutState
from cloud.store.tables import assignment, ddi_action, experiment, fleet_slot, rollout

SHA256 = re.compile(r"\b[0-9a-f]{64}\b", re.ASCII)
ENDED = (RolloutState.FINISHED.value, RolloutState.ABORTED.value)
QUERIES = (
    *(select(fleet_slot.c[name]) for name in ("sha256", "installed", "running", "confirmed")),
    select(assignment.c.content),
    select(rollout.c.sha256).where(rollout.c.state.not_in(ENDED)),
    select(ddi_action.c.sha256).where(ddi_action.c.state.in_([state.value for state in ACTIVE])),
    select(experiment.c.plan).where(experiment.c.state == RUNNING),
)


def hashes(store: Connection) -> set[str]:
    return {found for query in QUERIES for text in store.scalars(query) for found in SHA256.findall(text)}
