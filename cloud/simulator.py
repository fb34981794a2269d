"""The simulated line's ground truth, asked for at most once a second; None where there is no simulator or it is away."""

from __future__ import annotations

import time
from typing import Any

import httpx

FRESH_S = 1.0
TIMEOUT_S = 0.5


class Simulator:
    """`transport` is for tests; `stats_url` may be empty: then nothing is ever asked."""

    def __init__(self, stats_url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._url = stats_url
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, transport=transport, trust_env=False)
        self._asked_s = -FRESH_S
        self._stats: dict[str, Any] | None = None

    async def stats(self) -> dict[str, Any] | None:
        if self._url and time.monotonic() - self._asked_s >= FRESH_S:
            self._asked_s = time.monotonic()
            self._stats = await self._ask()
        return self._stats

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self) -> dict[str, Any] | None:
        try:
            answer = await self._client.get(self._url)
            found = answer.raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return None
        return found if isinstance(found, dict) else None
