"""Device health, as the PLC reads it: one table over the worst of what is wrong now.

state      meaning
nominal    everything works
degraded   parts are answered, but something is missing: the camera, frames fit to be judged, or the disk
safe       no model: every part is answered `fault`, so that the PLC diverts it
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from enum import Enum

from edge_runtime.decide.decision import Health
from edge_runtime.machine import step

#: condition → does it leave the device without a judgement?
CONDITIONS: Mapping[str, bool] = {
    "camera": False,
    "frames": False,
    "recording": False,
    "model": True,
}


class HealthInput(Enum):
    ALL_WELL = "all well"
    SOMETHING_MISSING = "something missing"
    CANNOT_JUDGE = "cannot judge"


TABLE: Mapping[tuple[Health, HealthInput], Health] = {
    (Health.NOMINAL, HealthInput.SOMETHING_MISSING): Health.DEGRADED,
    (Health.NOMINAL, HealthInput.CANNOT_JUDGE): Health.SAFE,
    (Health.DEGRADED, HealthInput.ALL_WELL): Health.NOMINAL,
    (Health.DEGRADED, HealthInput.CANNOT_JUDGE): Health.SAFE,
    (Health.SAFE, HealthInput.ALL_WELL): Health.NOMINAL,
    (Health.SAFE, HealthInput.SOMETHING_MISSING): Health.DEGRADED,
}


def health_input(conditions: Set[str]) -> HealthInput:
    """The worst of the conditions that hold; KeyError for one that CONDITIONS does not know."""
    if any(CONDITIONS[c] for c in conditions):
        return HealthInput.CANNOT_JUDGE
    return HealthInput.SOMETHING_MISSING if conditions else HealthInput.ALL_WELL


def after(health: Health, conditions: Set[str]) -> Health:
    return step(TABLE, health, health_input(conditions))
