"""CloudPort: how the updater asks for its assignment. One seam: `HttpCloud` over mutual TLS, `FolderCloud` on a medium that was
carried here, and `MemoryCloud`, which ships for tests and simulation.

    POST <url>/device/v1/devices/<device>/update    an `UpdateStatus`, as JSON
    answer {assignment, poll_after_s}               the two lines of `wire.signed`, or null; seconds

The answer is believed in nothing: the assignment is checked by its signature, and the pause is bounded.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, urlsplit

from edge_runtime.errors import EndpointError
from edge_runtime.update.fetch import proxy as proxies
from edge_runtime.update.fetch.proxy import Proxy
from edge_runtime.wire.envelope import strict_json
from edge_runtime.wire.signed import SIGNED_LIMIT_BYTES
from edge_runtime.wire.update_status import UpdateStatus

ANSWER_LIMIT_BYTES = 2 * SIGNED_LIMIT_BYTES
TIMEOUT_S = 20.0
LEAST_POLL_S, MOST_POLL_S = 1.0, 24 * 3600.0
MEDIA = "assignments"


class Answer(NamedTuple):
    """`assignment`: sealed, None where nothing is assigned. `poll_after_s`: when to ask again; 0: not said."""

    assignment: bytes | None
    poll_after_s: float = 0.0


class CloudPort(Protocol):
    def ask(self, status: UpdateStatus) -> Answer:
        """EndpointError where there is no answer, or not one that can be read."""
        ...


class HttpCloud:
    """`context`: made anew for each connection, because certificates are renewed while the updater runs. `proxy`: as in
    `fetch.proxy`."""

    def __init__(
        self,
        url: str,
        context: Callable[[], ssl.SSLContext],
        proxy: str = "",
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 443
        self._path, self._context = parts.path.rstrip("/"), context
        self._proxy = proxies.choose(proxy, environment, "https", self._host)

    def ask(self, status: UpdateStatus) -> Answer:
        where = f"{self._host}:{self._port}"
        at = self._proxy or Proxy(self._host, self._port)
        connection = http.client.HTTPSConnection(at.host, at.port, timeout=TIMEOUT_S, context=self._context())
        if self._proxy:
            secret = {"Proxy-Authorization": at.authorization} if at.authorization else {}
            connection.set_tunnel(self._host, self._port, secret)
        try:
            path = f"{self._path}/device/v1/devices/{quote(status.device, safe='')}/update"
            connection.request("POST", path, status.to_json(), {"Content-Type": "application/json"})
            response = connection.getresponse()
            body = response.read(ANSWER_LIMIT_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise EndpointError(f"{where}: cannot be asked for an assignment: {error}; tried again later") from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            text = refusal(body)
            raise EndpointError(f"{where}: answered {response.status} when asked for an assignment: {text}")
        return read_answer(body, where)


def refusal(body: bytes) -> str:
    """What our cloud says, or the beginning of what somebody else does."""
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["detail"])[:500]
    return body[:200].decode(errors="replace").replace("\n", " ")


def read_answer(body: bytes, where: str) -> Answer:
    try:
        if len(body) > ANSWER_LIMIT_BYTES:
            raise ValueError(f"more than {ANSWER_LIMIT_BYTES} bytes")
        value: Any = strict_json(body, "answer")
        sealed, after = value["assignment"], value["poll_after_s"]
        if (
            not (sealed is None or isinstance(sealed, str))
            or isinstance(after, bool)
            or not isinstance(after, int | float)
        ):
            raise ValueError("expected assignment (text or null) and poll_after_s (seconds)")
        pause_s = min(max(float(after), LEAST_POLL_S), MOST_POLL_S) if after > 0 else 0.0
        return Answer(sealed.encode() if sealed else None, pause_s)
    except (ValueError, KeyError, TypeError) as error:
        raise EndpointError(f"{where}: its answer about the assignment cannot be read: {error}") from error


class FolderCloud:
    """`<folder>/assignments/<device>`: a sealed assignment that was carried here. What the device says of itself stays here."""

    def __init__(self, folder: Path, device: str) -> None:
        self._path = folder / MEDIA / device

    def ask(self, status: UpdateStatus) -> Answer:
        try:
            with self._path.open("rb") as file:
                data = file.read(SIGNED_LIMIT_BYTES + 1)
        except OSError as error:
            raise EndpointError(
                f"{self._path}: cannot be read: {error.strerror}; is the medium for this device?"
            ) from error
        return Answer(data.rstrip(b"\n"))


@dataclass
class MemoryCloud:
    """`answer` is given until it is changed; `told`: every status that came. `fails`: raised instead, in turn."""

    answer: Answer = field(default_factory=lambda: Answer(None))
    told: list[UpdateStatus] = field(default_factory=list)
    fails: list[Exception] = field(default_factory=list)

    def ask(self, status: UpdateStatus) -> Answer:
        self.told.append(status)
        if self.fails:
            raise self.fails.pop(0)
        return self.answer


def to_json(answer: Answer) -> bytes:
    """What a cloud sends."""
    text = answer.assignment.decode() if answer.assignment else None
    return json.dumps({"assignment": text, "poll_after_s": answer.poll_after_s}).encode()
