"""Large payloads, which devices send in pieces (`Outbox.append_blob`): a row of records of kind ``<kind>.part``, joined again
here by the SHA-256 of the whole."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from typing import Any

from sqlalchemy import Engine, select

from cloud.store import tables as t
from cloud.store.database import here
from edge_runtime.errors import DataError, UsageError

SUFFIX = ".part"
LIMIT_BYTES = 64 * 1024 * 1024
PAGE = 64
#: other records of the stream between the pieces of one payload
LOOK_AT = 10_000


def payload(engine: Engine, number: int) -> bytes:
    """The payload whose first piece is the Event of this id. UsageError where that is no first piece; DataError where
    pieces are missing, or do not fit the SHA-256."""
    e = t.event.c
    with engine.connect() as connection:
        first = connection.execute(select(t.event).where(e.id == number)).first()
        told = _piece(first.record) if first is not None and first.kind.endswith(SUFFIX) else {}
        if first is None or told.get("part") != 0:
            raise UsageError(
                f"Event {number} is not the first piece of a payload; ask /events for a kind that ends in .part"
            )
        if not 0 <= told["size_bytes"] <= LIMIT_BYTES:
            raise UsageError(f"a payload of {told['size_bytes']} bytes; at most {LIMIT_BYTES} are joined here")
        pieces: dict[int, bytes] = {}
        after, seen = first.seq - 1, 0
        where = *here(t.event, (first.device, first.chain, first.stream)), e.kind == first.kind
        while len(pieces) < told["of"] and seen < LOOK_AT:
            query = select(e.seq, e.record).where(*where, e.seq > after).order_by(e.seq).limit(PAGE)
            page = connection.execute(query).all()
            for row in page:
                found = _piece(row.record)
                if found.get("blob") == told["blob"]:
                    pieces.setdefault(found["part"], base64.b64decode(found["data"]))
            if len(page) < PAGE:
                break
            after, seen = page[-1].seq, seen + PAGE
    missing = [n for n in range(told["of"]) if n not in pieces]
    if missing:
        raise DataError(f"{len(missing)} of {told['of']} pieces are not here (yet), the first of them is {missing[0]}")
    whole = b"".join(pieces[n] for n in range(told["of"]))
    if sha256(whole).hexdigest() != told["blob"]:
        raise DataError("the pieces do not fit the SHA-256 of the payload")
    return whole


def _piece(record: str) -> dict[str, Any]:
    """The body, if it has the form of a piece; else nothing."""
    body = json.loads(record)["body"]
    if not isinstance(body, dict) or not all(isinstance(body.get(n), int) for n in ("part", "of")):
        return {}
    whole = isinstance(body.get("size_bytes", 0), int) and all(isinstance(body.get(n), str) for n in ("blob", "data"))
    return body if whole and (body["part"] or "size_bytes" in body) else {}
