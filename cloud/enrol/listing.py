"""Identities as they are shown: the state of each, in one word. No hash and no key goes out."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Engine

from cloud.enrol import store
from cloud.enrol.store import Row
from cloud.store import tables as t

SHOWN = ("serial", "issued_ns", "not_before_ns", "not_after_ns", "revoked_ns", "reason")
SHOWN_OF_TOKEN = ("id", "hardware", "made_ns", "expires_ns", "used_ns")


def identities(engine: Engine, now_ns: int) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        known, certificates = store.identities(connection), store.certificates(connection)
    newest = {str(row["device"]): row for row in certificates}
    return [_shown(one, newest.get(one["device"]), now_ns) for one in known]


def identity(engine: Engine, device: str, now_ns: int) -> dict[str, Any] | None:
    with engine.connect() as connection:
        known = store.one(connection, t.identity, device)
        certificates, tokens = store.certificates(connection, device), store.tokens(connection, device)
    if known is None:
        return None
    found = _shown(known, certificates[-1] if certificates else None, now_ns)
    listed = [{name: row[name] for name in SHOWN_OF_TOKEN} | {"state": token_state(row, now_ns)} for row in tokens]
    return found | {"certificates": [_certificate(row) for row in certificates], "tokens": listed}


def needing(engine: Engine, issuers: Collection[str], now_ns: int) -> list[str]:
    """Devices whose newest valid certificate one of these issuers has signed."""
    with engine.connect() as connection:
        rows = store.certificates(connection)
    newest = {row["device"]: row for row in rows if row["revoked_ns"] is None and row["not_after_ns"] > now_ns}
    return sorted(device for device, row in newest.items() if row["issuer"] in issuers)


def token_state(row: Row, now_ns: int) -> str:
    if row["used_ns"] is not None:
        return "used"
    if row["withdrawn_ns"] is not None:
        return "withdrawn"
    return "expired" if row["expires_ns"] <= now_ns else "open"


def _shown(known: Row, newest: Row | None, now_ns: int) -> dict[str, Any]:
    shown = {name: known[name] for name in ("device", "hardware", "since_ns", "revoked_ns", "reason")}
    return shown | {"state": _state(known, newest, now_ns), "certificate": _certificate(newest) if newest else None}


def _state(known: Row, newest: Row | None, now_ns: int) -> str:
    if known["revoked_ns"] is not None:
        return "revoked"
    if newest is None or newest["revoked_ns"] is not None:
        return "waiting"
    return "expired" if newest["not_after_ns"] <= now_ns else "valid"


def _certificate(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in SHOWN}
