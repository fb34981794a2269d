"""Renewer: keeps the device's certificate alive. `step` does what is due and says when to call it again; it raises nothing that a
later try can heal.

- Renewed in time it goes over a connection that shows the old certificate. Expired, or where the cloud's TLS will not take the
  old one any more, the old key is proven instead.
- The key stays. What is new is tried before it replaces the old (`credentials`).
- A failure is told once for each reason; after a refusal it is tried again now and then, because an operator can change that.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.backoff import Backoff
from edge_runtime.errors import GudgeonError
from edge_runtime.identity.cloud import Cloud, CloudRefusedError
from edge_runtime.identity.credentials import Credentials, CredentialStore, trusting
from edge_runtime.identity.schedule import Do, Life, jitter, plan, renew_at_ns
from edge_runtime.wire.enrolment import Certified

LOOK_S = 3600.0
AFTER_REFUSAL_S = 6 * 3600.0
#: kind of an Event, and its body
Tell = Callable[[str, dict[str, Any]], object]


def retry_backoff() -> Backoff:
    return Backoff(60.0, 3600.0, floor_s=30.0)


@dataclass
class Renewer:
    """`tell` gets Events: `certificate_renewed`, and `certificate_not_renewed` with its reason."""

    store: CredentialStore
    cloud: Cloud
    tell: Tell = lambda kind, body: None
    backoff: Backoff = field(default_factory=retry_backoff)
    _told: str = ""

    def step(self, now_ns: int) -> float:
        """Seconds until it has to be called again."""
        try:
            credentials = self.store.current()
            leaf = credentials.certificate()
            life = Life(_ns(leaf.not_valid_before_utc.timestamp()), _ns(leaf.not_valid_after_utc.timestamp()))
            spread = jitter(credentials.device, leaf.serial_number)
            due = plan(life, spread, now_ns)
            if due is Do.WAIT:
                return min(LOOK_S, (renew_at_ns(life, spread) - now_ns) / 1e9 + 1)
            given = self._ask(credentials, due)
            fresh = self.store.adopt(given, credentials.key, False, now_ns, self.cloud.works)
        except CloudRefusedError as error:
            self._failed(error)
            return AFTER_REFUSAL_S
        except GudgeonError as error:
            self._failed(error)
            return self.backoff.next_s()
        self.backoff.reset()
        self._told = ""
        made = fresh.certificate()
        ends_ns = _ns(made.not_valid_after_utc.timestamp())
        self.tell(
            "certificate_renewed", {"serial": f"{made.serial_number:040x}", "not_after_ns": ends_ns, "by": due.value}
        )
        return LOOK_S

    def _ask(self, credentials: Credentials, due: Do) -> Certified:
        csr = credentials.key.request(credentials.device)
        if due is Do.RENEW:
            try:
                return self.cloud.renew(credentials, csr)
            except GudgeonError as error:
                if not isinstance(error.__cause__, (ssl.SSLError, ConnectionError)):
                    raise
        return self.cloud.renew_expired(trusting(credentials.roots_path), credentials, csr)

    def _failed(self, error: GudgeonError) -> None:
        if str(error) != self._told:
            self._told = str(error)
            self.tell("certificate_not_renewed", {"reason": str(error)[:500]})


def _ns(seconds: float) -> int:
    return round(seconds) * 10**9
