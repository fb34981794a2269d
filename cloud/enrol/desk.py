"""Desk: who gets a certificate, and for how long it holds. The only place that asks the `Authority` for one of a device.

- A token names the device; what the device says of itself decides nothing. It is for one hardware id, once, for a while. What is
  kept of it is a hash.
- Once means: for one key. The same token with the same key gets the same certificate again, so that an answer that was lost
  locks nobody out, and whoever repeats a request of another gets what is worthless without that key.
- A renewal needs the certificate before it: shown in the handshake, or, once expired, with a proof that its key is there, within
  the grace. A device that was revoked gets none.
- Asked again while more than half of the life is left, the same certificate is given.
- Who has not shown the secret of a token is told nothing about it.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from sqlalchemy import Connection, Engine

from cloud.access.roles import Actor, Role
from cloud.audit import record
from cloud.ca.authority import Authority, Issued, Revoked, Wanted, fingerprint, serial_text
from cloud.enrol import store
from cloud.enrol.challenges import Challenges
from cloud.enrol.refused import RefusedError
from cloud.enrol.requests import key_of, read_request, signed_with
from cloud.store import tables as t
from cloud.store.database import WRITES
from edge_runtime import log
from edge_runtime.errors import GudgeonError
from edge_runtime.wire.enrolment import HARDWARE, Certified, Token, proof_bytes
from edge_runtime.wire.topics import SEGMENT

HARDWARE_TRIES = 5
LONGEST_TTL = timedelta(days=30)
UNKNOWN = "the token is not known here; make a new one with: gudgeon devices token DEVICE --hardware ID"
SECOND_NS = 10**9
DAY_NS, A_DAY = (
    86_400 * SECOND_NS,
    20,
)  # certificates for one device in a day: more is a fault, or somebody who fills the store
SHELL = Actor("cli", Role.ADMIN, "cli")
Clock = Callable[[], int]


@dataclass(frozen=True)
class Proof:
    """What stands for a certificate that TLS would not take any more."""

    certificate: str
    challenge: str
    signature: bytes


@dataclass(frozen=True)
class Desk:
    engine: Engine
    authority: Authority
    challenges: Challenges
    now_ns: Clock
    life: timedelta = timedelta(days=60)
    grace: timedelta = timedelta(days=60)

    # ── tokens ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def make_token(self, device: str, hardware: str, ttl: timedelta, actor: Actor = SHELL) -> Token:
        """For a device that is new, or has this hardware. Those made before and not used hold no more."""
        self._check_names(device, hardware, ttl)
        with self._writing() as connection:
            known = store.one(connection, t.identity, device)
            if known and known["revoked_ns"] is not None:
                raise RefusedError(
                    f"{device} was revoked; `gudgeon devices replace` gives its name to a device again", 409
                )
            if known and known["hardware"] != hardware:
                raise RefusedError(
                    f"{device} has hardware {known['hardware']}; use: gudgeon devices replace {device}", 409
                )
            if not known:
                store.keep_identity(connection, device, hardware, self.now_ns())
            token = self._add_token(connection, device, hardware, ttl)
            record(connection, actor, "identity.token", device, {"hardware": hardware, "token": token.number})
        return token

    def replace(self, device: str, hardware: str, ttl: timedelta, actor: Actor = SHELL) -> Token:
        """The name goes to this hardware: what the device before it has, holds no more."""
        self._check_names(device, hardware, ttl)
        with self._writing() as connection:
            if store.one(connection, t.identity, device) is None:
                raise RefusedError(
                    f"no device {device} was ever given an identity; use: gudgeon devices token {device}", 404
                )
            now_ns = self.now_ns()
            gone = store.revoke_certificates(connection, device, "replaced", now_ns)
            store.drop_ddi_token(connection, device)
            store.keep_identity(connection, device, hardware, now_ns)
            token = self._add_token(connection, device, hardware, ttl)
            record(connection, actor, "identity.replace", device, {"hardware": hardware, "revoked": gone})
        self._tell_authority(gone, "replaced")
        return token

    def _add_token(self, connection: Connection, device: str, hardware: str, ttl: timedelta) -> Token:
        now_ns = self.now_ns()
        store.withdraw_tokens(connection, device, now_ns)
        root = x509.load_pem_x509_certificate(self.authority.roots())
        token = Token(secrets.token_hex(8), secrets.token_urlsafe(32), fingerprint(root))
        expires_ns = now_ns + round(ttl.total_seconds() * SECOND_NS)
        store.add_token(
            connection, id=token.number, device=device, hardware=hardware, hash=_hash(token.secret), made_ns=now_ns,
            expires_ns=expires_ns,
        )  # fmt: skip
        return token

    # ── enrolment ───────────────────────────────────────────────────────────────────────────────────────────────────

    def enrol(self, sent: str, hardware: str, csr: str) -> Certified:
        number, _, secret = sent.partition(".")
        now_ns = self.now_ns()
        with self.engine.connect() as connection:
            token = store.one(connection, t.enrolment_token, number)
            known = store.one(connection, t.identity, token["device"]) if token else None
        kept = token["hash"] if token else _hash("")
        if not hmac.compare_digest(_hash(secret), kept) or not token:
            raise RefusedError(UNKNOWN)
        self._check_token(token, known, hardware, now_ns)
        device = str(token["device"])
        request = read_request(csr, device)
        key = key_of(request)
        if token["used_ns"] is not None:
            return self._again(token, key, now_ns)
        issued = self._issue(request, device, now_ns)
        with self._writing() as connection:
            if not store.take_token(connection, number, key, now_ns):
                raise RefusedError("the token was used, or withdrawn, a moment ago; make a new one")
            gone = store.revoke_certificates(connection, device, "enrolled anew", now_ns, but_of=key)
            store.add_certificate(connection, device, issued, now_ns)
            record(connection, by_device(device), "identity.enrol", device, _what(issued) | {"token": number})
        self._tell_authority(gone, "enrolled anew")
        return self._certified(device, issued.pem.decode(), issued.chain.decode())

    def _check_token(self, token: store.Row, known: store.Row | None, hardware: str, now_ns: int) -> None:
        if token["withdrawn_ns"] is not None or known is None or known["revoked_ns"] is not None:
            raise RefusedError("the token was withdrawn; make a new one")
        if token["expires_ns"] <= now_ns:
            raise RefusedError("the token has expired; make a new one")
        if not hmac.compare_digest(token["hardware"].encode(), hardware.encode()):
            with self._writing() as connection:
                store.count_failure(connection, token["id"], HARDWARE_TRIES, now_ns)
            raise RefusedError(f"the token is for hardware {token['hardware']}, and this is {hardware[:128]!r}")

    def _again(self, token: store.Row, key: str, now_ns: int) -> Certified:
        with self.engine.connect() as connection:
            row = store.holding(connection, token["device"], key, now_ns) if key == token["public_key"] else None
        if row is None:
            raise RefusedError("the token was used already; make a new one")
        return self._certified(row["device"], row["pem"], row["chain"])

    # ── renewal ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def renew(self, device: str, csr: str) -> Certified:
        """For a device whose certificate was checked in the handshake and by `check`."""
        return self._renew(device, csr)

    def renew_with_proof(self, device: str, csr: str, proof: Proof) -> Certified:
        """For a device whose certificate has expired."""
        if not self.challenges.holds(device, proof.challenge, self.now_ns()):
            raise RefusedError("the challenge does not hold any more; ask for another one")
        try:
            certificate = x509.load_pem_x509_certificate(proof.certificate.encode())
        except ValueError as error:
            raise RefusedError("the old certificate cannot be read: expected PEM", 422) from error
        self.check(certificate, device, self.grace)
        if not signed_with(certificate, proof.signature, proof_bytes(device, proof.challenge, csr)):
            raise RefusedError("the proof is not signed with the key of the old certificate")
        return self._renew(device, csr)

    def _renew(self, device: str, csr: str) -> Certified:
        request, now_ns = read_request(csr, device), self.now_ns()
        half_ns = now_ns + round(self.life.total_seconds() * SECOND_NS / 2)
        with self.engine.connect() as connection:
            row = store.holding(connection, device, key_of(request), half_ns)
            lately = store.issued_since(connection, device, now_ns - DAY_NS)
        if row is not None:
            return self._certified(device, row["pem"], row["chain"])
        if lately >= A_DAY:
            raise RefusedError(f"{device} was given {lately} certificates within a day; ask again tomorrow", 429)
        issued = self._issue(request, device, now_ns)
        with self._writing() as connection:
            self._check_identity(store.one(connection, t.identity, device), device)
            store.add_certificate(connection, device, issued, now_ns)
            record(connection, by_device(device), "identity.renew", device, _what(issued))
        return self._certified(device, issued.pem.decode(), issued.chain.decode())

    # ── who is who ──────────────────────────────────────────────────────────────────────────────────────────────────

    def check(self, certificate: x509.Certificate, device: str, grace: timedelta = timedelta(0)) -> store.Row:
        """The row of this certificate, where it is the device's, known, neither revoked nor expired; else RefusedError."""
        with self.engine.connect() as connection:
            row = store.one(connection, t.certificate, serial_text(certificate.serial_number))
            known = store.one(connection, t.identity, row["device"]) if row else None
        if row is None or x509.load_pem_x509_certificate(row["pem"].encode()) != certificate:
            raise RefusedError("this certificate was not given by this cloud; enrol the device again")
        if row["device"] != device:
            raise RefusedError(f"the certificate is that of {row['device']}, and the path is that of {device[:64]!r}")
        self._check_identity(known, device)
        if row["revoked_ns"] is not None:
            raise RefusedError(
                f"the certificate was revoked ({row['reason']}); enrol the device again with a new token"
            )
        if row["not_after_ns"] + round(grace.total_seconds() * SECOND_NS) <= self.now_ns():
            within = f", and the {grace.days} days in which it could be renewed are over" if grace else ""
            raise RefusedError(
                f"the certificate has expired{within}; {'enrol the device again' if grace else 'renew it'}"
            )
        return row

    def revoke(self, device: str, reason: str, actor: Actor = SHELL) -> list[str]:
        """From now on nothing that the device shows is believed; the serials of what was valid."""
        with self._writing() as connection:
            if store.one(connection, t.identity, device) is None:
                raise RefusedError(f"no device {device} was ever given an identity", 404)
            now_ns = self.now_ns()
            gone = store.revoke_certificates(connection, device, reason, now_ns)
            store.withdraw_tokens(connection, device, now_ns)
            store.drop_ddi_token(connection, device)
            store.end_identity(connection, device, reason, now_ns)
            record(connection, actor, "identity.revoke", device, {"reason": reason, "revoked": gone})
        self._tell_authority(gone, reason)
        return gone

    def revoked(self) -> list[Revoked]:
        with self.engine.connect() as connection:
            return store.revoked(connection, self.now_ns())

    def crl(self) -> bytes:
        return self.authority.crl(self.revoked(), _at(self.now_ns()))

    # ── small ones ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _writing(self) -> Any:
        return self.engine.execution_options(**{WRITES: True}).begin()

    def _issue(self, request: x509.CertificateSigningRequest, device: str, now_ns: int) -> Issued:
        return self.authority.issue(request, Wanted(device, self.life), _at(now_ns))

    def _certified(self, device: str, certificate: str, chain: str) -> Certified:
        return Certified(device, certificate, chain, self.authority.roots().decode())

    def _tell_authority(self, serials: list[str], reason: str) -> None:
        for serial in serials:
            try:
                self.authority.revoke(int(serial, 16), reason)
            except GudgeonError as error:  # the store has it, so it holds; only a list of the authority's own lacks it
                log.say(logging.ERROR, "the authority was not told of a revocation", serial=serial, reason=str(error))

    @staticmethod
    def _check_identity(known: store.Row | None, device: str) -> None:
        if known is None or known["revoked_ns"] is not None:
            reason = known["reason"] if known else "no such device"
            raise RefusedError(f"{device} was revoked ({reason})")

    @staticmethod
    def _check_names(device: str, hardware: str, ttl: timedelta) -> None:
        if not SEGMENT.fullmatch(device):
            raise RefusedError("device: expected 1 to 64 characters of A-Z a-z 0-9 _ . -", 422)
        if not HARDWARE.fullmatch(hardware):
            raise RefusedError("hardware: expected 1 to 128 characters of A-Z a-z 0-9 : _ . -", 422)
        if not timedelta(0) < ttl <= LONGEST_TTL:
            raise RefusedError(f"ttl: expected more than 0 and at most {LONGEST_TTL.days} days", 422)


def by_device(device: str) -> Actor:
    """A device acts for itself, by its token or its certificate; it has no role among people."""
    return Actor(f"device {device}", Role.VIEWER, "device")


def _what(issued: Issued) -> dict[str, str]:
    until = issued.certificate.not_valid_after_utc
    return {"serial": serial_text(issued.certificate.serial_number), "until": until.isoformat()}


def _hash(secret: str) -> str:
    """The secret has 256 random bits: nothing slower is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _at(now_ns: int) -> datetime:
    return datetime.fromtimestamp(now_ns // SECOND_NS, UTC)
