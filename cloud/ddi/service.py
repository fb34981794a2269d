"""The DDI routes on this cloud's rollouts and its registry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fastapi import HTTPException, Request
from sqlalchemy import Engine

from cloud.ddi.routes import SLOT_SET, Ddi
from cloud.devices.peer import certified
from cloud.rollout.polling import answer
from cloud.rollout.registry import Registry
from cloud.settings import DdiSection
from edge_runtime.mqtt_access import secret_file
from edge_runtime.wire.assignment import KIND, Item, read_assignment
from edge_runtime.wire.signed import unseal
from edge_runtime.wire.update_status import UpdateStatus


def make_ddi(engine: Engine, section: DdiSection, registry: Registry, folder: Path, now_ns: Callable[[], int]) -> Ddi:
    """`folder`: of the registry."""

    def ask(status: UpdateStatus) -> tuple[int, Item | None]:
        given = answer(engine, [status], registry, now_ns())[status.device].assignment
        if given is None:
            return 0, None
        assignment = read_assignment(unseal(given.encode(), KIND).body)
        return assignment.counter, assignment.items.get(SLOT_SET)

    def file_of(item: Item) -> Path | None:
        found = registry.target(item.target)
        place, _, name = item.target.rpartition("/")
        path = folder / "repo" / "targets" / place / f"{item.sha256}.{name}"
        return path if found is not None and found.sha256 == item.sha256 and path.is_file() else None

    gateway = secret_file(section.gateway_token_file) if section.gateway_token_file else ""
    return Ddi(engine, ask, file_of, _has_certificate, section.tenant, section.poll_s, gateway, now_ns)


def _has_certificate(request: Request, device: str) -> bool:
    try:
        return certified(request, device) == device
    except HTTPException:
        return False
