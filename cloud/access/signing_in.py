"""Sign in with a password: so many tries of each account and address, whether they fit or not, and few at the same time,
because each takes 64 MiB and a core for a moment.

The tries are counted in the store, for all web servers. Who tries often enough keeps an account from signing in with its password
(not with its tokens, and not who is signed in already): that is the price of not letting them guess.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from sqlalchemy import Engine

from cloud.access import operators
from cloud.access.limits import SharedLimit
from cloud.access.roles import Actor, Role

ACCOUNT_PER_S, ACCOUNT_TRIES = 1 / 60, 10
ADDRESS_PER_S, ADDRESS_TRIES = 1 / 10, 20
AT_ONCE, WAIT_S = 2, 10.0


class TooManyError(Exception):
    def __init__(self, wait_s: float) -> None:
        self.wait_s = max(1, math.ceil(round(wait_s, 3)))
        super().__init__(f"too many tries; try again in {self.wait_s} s")


class Passwords:
    def __init__(self, engine: Engine, now_ns: Callable[[], int]) -> None:
        self._engine = engine
        self._accounts = SharedLimit(engine, "sign in as", ACCOUNT_PER_S, ACCOUNT_TRIES, now_ns)
        self._addresses = SharedLimit(engine, "sign in from", ADDRESS_PER_S, ADDRESS_TRIES, now_ns)
        self._free = threading.BoundedSemaphore(AT_ONCE)

    def actor(self, name: str, password: str, address: str) -> Actor | None:
        """Who this is; None where name and password do not fit. TooManyError where it is not even tried."""
        name = name if operators.NAME.fullmatch(name) else ""  # that of nobody
        wait_s = max(self._accounts.wait_s(name), self._addresses.wait_s(address))
        if wait_s or not (self._accounts.take(name) and self._addresses.take(address)):
            raise TooManyError(wait_s)
        if not self._free.acquire(timeout=WAIT_S):
            raise TooManyError(WAIT_S)
        try:
            row = operators.operator(self._engine, name)
            if not operators.password_fits(row, password) or row is None:
                return None
        finally:
            self._free.release()
        return Actor(name, Role.of(row["role"]), "session", address)
