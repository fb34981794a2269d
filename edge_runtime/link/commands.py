"""CommandDesk: what is asked for from outside is admitted here, handed to `control` once, and followed to its end.

    signature   by the pinned key of the cloud, over the exact bytes        else refused
    device      this one                                                    else refused
    counter     above the highest seen, which is on the disk first          else replayed
    issued      after this device's journal began                           else replayed
    allow-list  `[commands] allow`, and the point's limits; or `alarms`     else refused
    time        known: by the cloud's acknowledgements, or a set clock      else refused
    expiry      not reached, the clock's uncertainty counted against it     else expired

- One command is under way at a time. Order: the counter and the command go to the disk, then Event `accepted`, then the
  datagram to `control`. So a crash anywhere carries out a command at most once.
- `control` writes the Event of the end. Where none comes (it died, or so did we), the end is told as `unknown` after the
  command's time, or at the next start; the command is never tried again.
- Every command ends in one Event on stream `command` (`wire.command.ENDS`). Messages that nobody known has signed are told
  the 1st, 2nd, 4th, 8th … time, so that they cannot fill the disk.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_runtime import log
from edge_runtime.clock import Clock
from edge_runtime.decide.points import ALARM_COMMANDS, AlarmRequest, Commands, WriteRequest, alarm_problem
from edge_runtime.errors import ResourceError
from edge_runtime.link import journal
from edge_runtime.link.cloud_clock import TrustedTime, tell
from edge_runtime.link.cloud_key import KEY_PATH, signed_by
from edge_runtime.link.journal import Journal, Open
from edge_runtime.wire.command import ENDS, KIND, Command, read_command
from edge_runtime.wire.envelope import Event
from edge_runtime.wire.signed import unseal

WAITING_LIMIT = 16
TIME_WAIT_S = 10.0  # for the first acknowledgement of a new connection, which tells the time
GRACE_S = 5.0  # for control's record of a command whose time is up
FUTURE_S = 60.0
SIGNED = "cloud"
NO_TIME = "the device does not know the time, so it cannot tell whether the command has expired"
NO_KEY = f"this device has no key of a cloud; put it into {KEY_PATH} or cloud.public_key"


class Records(Protocol):
    """What is needed of the outbox."""

    def append(self, stream: str, kind: str, body: Mapping[str, Any]) -> Any: ...
    def last(self, stream: str) -> Event | None: ...


@dataclass(frozen=True)
class Asked:
    """One command that waits for its turn. `counter` 0: it came unsigned."""

    id: str
    source: str
    name: str
    value: object
    counter: int
    issued_ns: int
    expires_ns: int
    since_mono_ns: int

    @property
    def key(self) -> str:
        return f"{self.source}/{self.name}"

    def body(self) -> dict[str, Any]:
        shown = self.value if isinstance(self.value, bool | int | float) else repr(self.value)[:100]
        return {"id": self.id, "source": self.source, "name": self.name, "value": shown}


class CommandDesk:
    """`trusted` tells the time; `hand_over` gives a request to `control`, `to_alarms` one to an alarm to `monitor`; False where
    that is not there."""

    def __init__(
        self,
        path: Path,
        device: str,
        boot_id: str,
        settings: Commands,
        key: Ed25519PublicKey | None,
        records: Records,
        trusted: Callable[[], TrustedTime | None],
        hand_over: Callable[[WriteRequest], bool],
        clock: Clock,
        to_alarms: Callable[[AlarmRequest], bool] = lambda request: False,
    ) -> None:
        self._path, self._device, self._boot_id = path, device, boot_id
        self._settings, self._allowed, self._key = settings, settings.allowed, key
        self._records, self._trusted, self._hand_over, self._clock = records, trusted, hand_over, clock
        self._to_alarms = to_alarms
        self._waiting: deque[Asked] = deque()
        self._strangers = self._unsigned = 0
        self._said = ""
        self._born_mono_ns: int | None = None  # of a journal that is not on the disk yet
        self._journal = self._load()

    # ── what comes in ───────────────────────────────────────────────────────────────────────────────────────────────

    def receive(self, payload: bytes) -> None:
        """One message of leaf `command`."""
        try:
            message = unseal(payload, "command")
            if self._key is None:
                return self._stranger(NO_KEY)
            if not signed_by(self._key, KIND, message):
                return self._stranger("not signed with the key of this device's cloud")
            command = read_command(message.body)
        except ValueError as error:
            return self._stranger(str(error))
        return self._queue(self._asked(command), command.device)

    def request(self, source: str, name: str, value: object, issued_wall_ns: int) -> None:
        """A command that carries no signature, as those of Sparkplug."""
        now_ns = self._clock.monotonic_ns()
        self._unsigned += 1
        until_ns = issued_wall_ns + round(self._settings.max_age_s * 1e9)
        asked = Asked(
            f"{now_ns}-{self._unsigned}-{source}"[:64],
            source[:64],
            name[:64],
            value,
            0,
            issued_wall_ns,
            until_ns,
            now_ns,
        )
        if not self._settings.allow_unsigned_sparkplug:
            return self._end(asked, "refused", "it is not signed, and commands.allow_unsigned_sparkplug is false")
        return self._queue(asked, self._device)

    def _asked(self, command: Command) -> Asked:
        value: object = command.args.get("value") if set(command.args) == {"value"} else dict(command.args)
        times = command.issued_ns, command.expires_ns, self._clock.monotonic_ns()
        return Asked(command.id, SIGNED, command.name, value, command.counter, *times)

    def _queue(self, asked: Asked, device: str) -> None:
        if device != self._device:
            return self._end(asked, "refused", f"it is for device {device}")
        if len(self._waiting) >= WAITING_LIMIT:
            return self._end(asked, "refused", f"{WAITING_LIMIT} commands wait already; send it again later")
        self._waiting.append(asked)
        return self.step()

    # ── one after the other ─────────────────────────────────────────────────────────────────────────────────────────

    def step(self) -> None:
        """Follow the command that is under way; then take those that wait, as far as that can be decided now."""
        try:
            self._step()
        except ResourceError as error:  # the next turn tries again
            if str(error) != self._said:
                log.say(logging.ERROR, "the end of a command cannot be recorded", reason=str(error))
            self._said = str(error)
        else:
            self._said = ""

    def _step(self) -> None:
        while self._follow() and self._waiting:
            asked = self._waiting[0]
            waited_s = (self._clock.monotonic_ns() - asked.since_mono_ns) / 1e9
            now = self._trusted()
            if now is None and waited_s < TIME_WAIT_S:
                return
            self._waiting.popleft()
            self._decide(asked, now)

    @property
    def busy(self) -> bool:
        """Is there anything that `step` must be called for?"""
        return self._journal.open is not None or bool(self._waiting)

    def _decide(self, asked: Asked, now: TrustedTime | None) -> None:
        try:
            if self._born_mono_ns is not None:
                if now is None:
                    return self._end(asked, "refused", NO_TIME)
                self._begin_journal(self._born_mono_ns, now)
            if reason := self._replay(asked):
                return self._end(asked, "replayed", reason)
            seen = self._seen(asked)
            kind, reason = self._refusal(asked, now)
            if kind:
                self._save(seen)
                return self._end(asked, kind, reason)
            assert now is not None
            return self._begin(asked, seen, now)
        except ResourceError as error:  # what could not be written down is not done
            log.say(logging.ERROR, "a command was not carried out: it cannot be recorded", reason=str(error))
            return self._end(asked, "refused", f"it cannot be recorded: {error}")

    def _begin_journal(self, born_mono_ns: int, now: TrustedTime) -> None:
        """Of a device that is new, or whose state was wiped: what was issued before may have had its turn."""
        age_ns = self._clock.monotonic_ns() - born_mono_ns
        self._journal = replace(self._journal, since_ns=now.wall_ns - now.uncertainty_ns - age_ns)
        self._born_mono_ns = None

    def _replay(self, asked: Asked) -> str:
        """Why this one has had its turn; "" where it has not."""
        j = self._journal
        if asked.issued_ns <= j.since_ns:
            return "it is older than this device's journal of commands, which is new or was lost"
        if asked.counter and asked.counter <= j.counter:
            return f"its counter {asked.counter} is not above {j.counter}, which was seen"
        if not asked.counter and asked.issued_ns <= j.newest_ns.get(asked.key, 0):
            return "one with this time of issue, or a later one, was seen"
        return ""

    def _seen(self, asked: Asked) -> Journal:
        """The journal with which this one does not pass again. Of unsigned ones only what is allowed is remembered."""
        if asked.counter:
            return replace(self._journal, counter=asked.counter)
        return self._journal.with_newest(asked.key, asked.issued_ns) if asked.name in self._allowed else self._journal

    def _refusal(self, asked: Asked, now: TrustedTime | None) -> tuple[str, str]:
        if problem := self._problem(asked):
            return "refused", problem
        if now is None:
            return "refused", NO_TIME
        if now.wall_ns + now.uncertainty_ns >= asked.expires_ns:
            late_s = (now.wall_ns + now.uncertainty_ns - asked.expires_ns) / 1e9
            return (
                "expired",
                f"its time was up {late_s:.1f} s ago (the clock is known to {now.uncertainty_ns / 1e9:.3f} s)",
            )
        if asked.issued_ns - now.uncertainty_ns > now.wall_ns + FUTURE_S * 1e9:
            return "refused", f"it was issued {(asked.issued_ns - now.wall_ns) / 1e9:.0f} s in the future"
        return "", ""

    def _problem(self, asked: Asked) -> str:
        if asked.name in ALARM_COMMANDS:
            if not self._settings.alarms or not asked.counter:
                return f"{asked.name} needs commands.alarms = true on this device, and a signature"
            return alarm_problem(asked.name, asked.value)
        point = self._allowed.get(asked.name)
        if point is None:
            return f"{asked.name} is not in this device's commands.allow"
        return point.problem(asked.value)

    def _begin(self, asked: Asked, seen: Journal, now: TrustedTime) -> None:
        left_ns = asked.expires_ns - now.wall_ns - now.uncertainty_ns
        until_ns = self._clock.monotonic_ns() + left_ns
        self._save(replace(seen, open=Open(asked.body(), until_ns, self._boot_id)))
        try:
            self._records.append("command", "accepted", {**asked.body(), "reason": "", "counter": asked.counter})
        except ResourceError:
            self._save(replace(self._journal, open=None))
            raise
        if problem := self._give(asked, until_ns):
            self._end(asked, "refused", problem)
            self._save(replace(self._journal, open=None))

    def _give(self, asked: Asked, until_ns: int) -> str:
        """Why nobody took it; "" where it was handed over."""
        value = asked.value
        if isinstance(value, Mapping):
            times = float(value.get("for_s", 0.0)), until_ns
            request = AlarmRequest(asked.id, asked.source, asked.name, str(value["alarm"]), *times)
            return "" if self._to_alarms(request) else "the process monitor is not there to take it"
        assert isinstance(value, bool | int | float)
        taken = self._hand_over(WriteRequest(asked.id, asked.source, asked.name, value, until_ns))
        return "" if taken else "the process control is not there to take it"

    def _follow(self) -> bool:
        """True where no command is under way any more."""
        under_way = self._journal.open
        if under_way is None:
            return True
        last = self._records.last("command")
        if last is not None and last.body.get("id") == under_way.body.get("id") and ENDS.get(last.kind, False):
            return self._close()
        over_ns = self._clock.monotonic_ns() - under_way.until_mono_ns
        if under_way.boot_id == self._boot_id and over_ns < GRACE_S * 1e9:
            return False
        reason = (
            "it was handed to control, and no end was recorded: it may have been carried out; it is not tried again"
        )
        self._records.append("command", "unknown", {**under_way.body, "reason": reason})
        return self._close()

    def _close(self) -> bool:
        self._save(replace(self._journal, open=None))
        return True

    # ── what is told, what is kept ──────────────────────────────────────────────────────────────────────────────────

    def _end(self, asked: Asked, kind: str, reason: str) -> None:
        body = {**asked.body(), "reason": reason}
        try:
            self._records.append("command", kind, {**body, "counter": asked.counter} if asked.counter else body)
        except ResourceError as error:
            log.say(logging.ERROR, "the end of a command cannot be recorded", id=asked.id, end=kind, reason=str(error))

    def _stranger(self, reason: str) -> None:
        self._strangers += 1
        if self._strangers & (self._strangers - 1) == 0:
            tell(self._records.append, "command", "refused", {"id": "", "reason": reason, "count": self._strangers})
            log.say(logging.WARNING, "a command was refused", reason=reason, count=self._strangers)

    def _load(self) -> Journal:
        found = journal.load(self._path)
        if found == Journal():
            self._born_mono_ns = self._clock.monotonic_ns()
        if found is not None:
            return found
        now = self._trusted()
        since_ns = now.wall_ns + now.uncertainty_ns if now else self._clock.wall_ns()
        log.say(logging.ERROR, "the journal of commands is damaged; older commands are refused", file=str(self._path))
        tell(self._records.append, "fault", "command_journal_damaged", {"file": self._path.name, "since_ns": since_ns})
        made = Journal(since_ns=since_ns)
        journal.save(self._path, made)
        return made

    def _save(self, changed: Journal) -> None:
        journal.save(self._path, changed)
        self._journal = changed
