"""Identities, tokens and certificates in the store. Each function is one step of a transaction that its caller has begun.

A token is used up by one UPDATE whose condition holds only once: of any number that try at the same time one gets it, on
both databases.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from sqlalchemy import Connection, RowMapping, delete, func, select, update

from cloud.ca.authority import Issued, Revoked, fingerprint, serial_text
from cloud.enrol.requests import key_of
from cloud.store import tables as t
from cloud.store.database import merge, newest

Row = RowMapping
KEEP_IDENTITY = merge(t.identity, ("device",), **newest("hardware", "revoked_ns", "reason", "since_ns"))


def one(connection: Connection, table: Any, key: str) -> Row | None:
    """The row of a table whose primary key is this."""
    query = select(table).where(next(iter(table.primary_key)) == key)
    return connection.execute(query).mappings().one_or_none()


# ── identities ──────────────────────────────────────────────────────────────────────────────────────────────────────


def keep_identity(connection: Connection, device: str, hardware: str, now_ns: int) -> None:
    values = {"device": device, "hardware": hardware, "revoked_ns": None, "reason": None, "since_ns": now_ns}
    connection.execute(KEEP_IDENTITY, values)


def end_identity(connection: Connection, device: str, reason: str, now_ns: int) -> None:
    c = t.identity.c
    connection.execute(update(t.identity).where(c.device == device).values(revoked_ns=now_ns, reason=reason))


def drop_ddi_token(connection: Connection, device: str) -> None:
    """What the board before it showed on the DDI routes (`cloud.ddi`)."""
    connection.execute(delete(t.ddi_token).where(t.ddi_token.c.device == device))


def identities(connection: Connection) -> list[Row]:
    return list(connection.execute(select(t.identity).order_by(t.identity.c.device)).mappings())


# ── tokens ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def add_token(connection: Connection, **values: Any) -> None:
    connection.execute(t.enrolment_token.insert().values(failures=0, **values))


def withdraw_tokens(connection: Connection, device: str, now_ns: int) -> None:
    """All that were not used."""
    c = t.enrolment_token.c
    unused = (c.device == device, c.used_ns.is_(None), c.withdrawn_ns.is_(None))
    connection.execute(update(t.enrolment_token).where(*unused).values(withdrawn_ns=now_ns))


def count_failure(connection: Connection, number: str, most: int, now_ns: int) -> None:
    """At `most` failures the token is withdrawn."""
    c = t.enrolment_token.c
    connection.execute(update(t.enrolment_token).where(c.id == number).values(failures=c.failures + 1))
    spent = (c.id == number, c.failures >= most, c.withdrawn_ns.is_(None))
    connection.execute(update(t.enrolment_token).where(*spent).values(withdrawn_ns=now_ns))


def take_token(connection: Connection, number: str, public_key: str, now_ns: int) -> bool:
    """Use it up for this key; False where somebody else has, or it holds no more."""
    c = t.enrolment_token.c
    holds = (c.id == number, c.used_ns.is_(None), c.withdrawn_ns.is_(None), c.expires_ns > now_ns)
    done = connection.execute(update(t.enrolment_token).where(*holds).values(used_ns=now_ns, public_key=public_key))
    return done.rowcount == 1


def tokens(connection: Connection, device: str) -> list[Row]:
    query = select(t.enrolment_token).where(t.enrolment_token.c.device == device)
    return list(connection.execute(query.order_by(t.enrolment_token.c.made_ns)).mappings())


# ── certificates ────────────────────────────────────────────────────────────────────────────────────────────────────


def add_certificate(connection: Connection, device: str, issued: Issued, now_ns: int) -> None:
    made = issued.certificate
    values = {
        "serial": serial_text(made.serial_number), "device": device, "public_key": key_of(made),
        "issuer": fingerprint(x509.load_pem_x509_certificate(issued.chain)) if issued.chain else "",
        "issued_ns": now_ns, "not_before_ns": _ns(made.not_valid_before_utc), "not_after_ns": _ns(made.not_valid_after_utc),
        "pem": issued.pem.decode(), "chain": issued.chain.decode(),
    }  # fmt: skip
    connection.execute(t.certificate.insert().values(**values))


def certificates(connection: Connection, device: str | None = None) -> list[Row]:
    """The oldest first."""
    c = t.certificate.c
    query = select(t.certificate).order_by(c.issued_ns, c.not_after_ns)
    return list(connection.execute(query if device is None else query.where(c.device == device)).mappings())


def issued_since(connection: Connection, device: str, since_ns: int) -> int:
    c = t.certificate.c
    query = select(func.count()).select_from(t.certificate).where(c.device == device, c.issued_ns > since_ns)
    return int(connection.execute(query).scalar_one())


def holding(connection: Connection, device: str, public_key: str, after_ns: int) -> Row | None:
    """The newest certificate of this key that was not revoked and holds beyond `after_ns`."""
    c = t.certificate.c
    holds = (c.device == device, c.public_key == public_key, c.revoked_ns.is_(None), c.not_after_ns > after_ns)
    query = select(t.certificate).where(*holds).order_by(c.not_after_ns.desc()).limit(1)
    return connection.execute(query).mappings().one_or_none()


def revoke_certificates(
    connection: Connection, device: str, reason: str, now_ns: int, but_of: str | None = None
) -> list[str]:
    """All of the device, or all but those of one key; the serials that this has revoked."""
    c = t.certificate.c
    valid = [c.device == device, c.revoked_ns.is_(None)]
    if but_of is not None:
        valid.append(c.public_key != but_of)
    serials = list(connection.execute(select(c.serial).where(*valid)).scalars())
    connection.execute(update(t.certificate).where(*valid).values(revoked_ns=now_ns, reason=reason))
    return serials


def revoked(connection: Connection, now_ns: int) -> list[Revoked]:
    """What a CRL has to name: expired certificates need no word more."""
    c = t.certificate.c
    query = select(c.serial, c.revoked_ns).where(c.revoked_ns.is_not(None), c.not_after_ns > now_ns).order_by(c.serial)
    rows = connection.execute(query).all()
    return [Revoked(int(row.serial, 16), datetime.fromtimestamp(row.revoked_ns // 10**9, UTC)) for row in rows]


def _ns(at: datetime) -> int:
    return round(at.timestamp()) * 10**9
