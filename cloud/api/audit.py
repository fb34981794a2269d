"""What was done, by whom, newest first; see `cloud.audit`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from cloud.access.needs import needs
from cloud.access.roles import Role
from cloud.audit import checkpoint
from cloud.audit.listing import LIMIT, Wanted, listing
from edge_runtime.identity import load_or_make

router = APIRouter()
Text = Annotated[str | None, Query(max_length=300)]


class AuditItem(BaseModel):
    """`outcome`: done, refused or failed. `via`: how the actor was known."""

    seq: int
    at_ns: int
    actor: str
    role: str
    via: str
    address: str
    action: str
    subject: str
    outcome: str
    detail: dict[str, Any]


class AuditPage(BaseModel):
    items: list[AuditItem]
    next_before: int | None


class AuditReport(BaseModel):
    """`signed`: up to which row a signed checkpoint holds the log. `archived`: up to which row it is in files, which only
    `gudgeon audit verify --archive` looks at."""

    whole: bool
    rows: int
    last: int
    hash: str
    signed: int
    findings: list[str]
    archived: int


@router.get("/audit", response_model=AuditPage, dependencies=[needs(Role.VIEWER)])
def audit(
    request: Request,
    actor: Text = None,
    did: Text = None,
    subject: Text = None,
    outcome: Text = None,
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT)] = 100,
) -> Any:
    """Rows of the audit log, newest first; `did` is an action or its first part."""
    items = listing(request.app.state.engine, Wanted(actor, did, subject, outcome), before, limit)
    return {"items": items, "next_before": items[-1]["seq"] if len(items) == limit else None}


@router.get("/audit/verify", response_model=AuditReport, dependencies=[needs(Role.RELEASER)])
def verify(request: Request) -> Any:
    """Read the whole log and check it against its signed checkpoints."""
    settings = request.app.state.settings
    key = load_or_make(settings.store.key_file).public_key()
    report = checkpoint.look(request.app.state.engine, key, settings.anchor_file)
    return report._asdict() | {"whole": not report.findings}
