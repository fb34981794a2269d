"""AlarmBook: all alarms of a device, what is to be told of them, and what must survive a restart. Pure: it writes nothing.

Each change gets the next number. What is to be told waits in `untold` until the caller has stored the book and then the
Events (`alarm_file` has the order); after a crash the newest number in the outbox tells which of them are there already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from edge_runtime.decide import alarms
from edge_runtime.decide.alarm_states import ALLOWED, MEANING, AlarmInput, AlarmState, Severity
from edge_runtime.decide.alarms import Alarm, AlarmSettings, Stepped

#: input → kind of the Event on stream `alarm`
KINDS: Mapping[AlarmInput, str] = {
    AlarmInput.RAISE: "raised",
    AlarmInput.ESCALATE: "escalated",
    AlarmInput.CLEAR: "returned",
    AlarmInput.ACK: "acknowledged",
    AlarmInput.SHELVE: "shelved",
    AlarmInput.SUPPRESS: "suppressed",
    AlarmInput.RESUME_ON: "resumed",
    AlarmInput.RESUME_OFF: "resumed",
}
REMOVED = "removed"
BY_LIMIT = 64


class Told(NamedTuple):
    kind: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """Where an alarm belongs: `source` is ``anomaly``, ``remaining``, ``samples`` or a rule's name."""

    asset: str
    source: str
    settings: AlarmSettings

    @property
    def id(self) -> str:
        return f"{self.asset}/{self.source}"


@dataclass(frozen=True)
class Saved:
    """What the file holds. `detail`: of each alarm, what was measured when it was last told."""

    change: int = 0
    alarms: tuple[Alarm, ...] = ()
    detail: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    untold: tuple[Told, ...] = ()
    hours_s: Mapping[str, float] = field(default_factory=dict)


class AlarmBook:
    """`told_change`: the number of the newest change that is in the outbox."""

    def __init__(self, places: list[Place], saved: Saved | None = None, told_change: int = 0) -> None:
        saved = saved or Saved()
        self._places = {place.id: place for place in places}
        self._alarms = {place.id: Alarm(place.id) for place in places}
        self._detail: dict[str, Mapping[str, Any]] = {}
        self.hours_s: dict[str, float] = {p.asset: float(saved.hours_s.get(p.asset, 0.0)) for p in places}
        self.change = max(saved.change, told_change)
        self.untold: list[Told] = [told for told in saved.untold if told.body["change"] > told_change]
        self.dirty = False
        for alarm in saved.alarms:
            self._take_over(alarm, saved.detail.get(alarm.id, {}))

    def _take_over(self, alarm: Alarm, detail: Mapping[str, Any]) -> None:
        if alarm.id in self._places:
            self._alarms[alarm.id], self._detail[alarm.id] = alarm, detail
        elif alarm.state is not AlarmState.NORMAL:
            asset, _, source = alarm.id.partition("/")
            self._tell(
                Place(asset, source, AlarmSettings()), alarm, REMOVED, {"reason": "it is not configured any more"}
            )

    # ── what is measured ────────────────────────────────────────────────────────────────────────────────────────────

    def level(self, alarm_id: str) -> int:
        """The severity that holds now, 0 where the condition is absent."""
        return self._alarms[alarm_id].level

    def observe(self, alarm_id: str, level: int | None, detail: Mapping[str, Any], now_ns: int, wall_ns: int) -> None:
        place = self._places[alarm_id]
        self._set(place, alarms.observe(self._alarms[alarm_id], place.settings, level, now_ns, wall_ns), detail)

    def suppress(self, alarm_id: str, wanted: bool, reason: str) -> None:
        self._set(self._places[alarm_id], alarms.suppress(self._alarms[alarm_id], wanted), {"reason": reason})

    def expire(self, now_ns: int) -> None:
        for alarm_id, place in self._places.items():
            self._set(place, alarms.expire(self._alarms[alarm_id], now_ns), {"reason": "its time on the shelf is over"})

    def run(self, asset: str, seconds: float) -> None:
        """The asset ran so long."""
        self.hours_s[asset] += seconds

    # ── what an operator asks ───────────────────────────────────────────────────────────────────────────────────────

    def ask(self, action: str, alarm_id: str, by: str, for_s: float, now_ns: int) -> str:
        """``ack``, ``shelve`` or ``unshelve``; why it was not done, "" where it was."""
        done: Callable[[Alarm], Stepped]
        if action not in ACTIONS:
            return f"unknown action {action!r}, expected one of {', '.join(ACTIONS)}"
        if alarm_id not in self._places:
            return f"there is no alarm {alarm_id!r}; there are {', '.join(self._places)}"
        alarm, place = self._alarms[alarm_id], self._places[alarm_id]
        if alarm.state not in ALLOWED[ACTIONS[action]]:
            return f"{alarm_id} is {alarm.state.value}, so there is nothing to {action}"
        by, longest_s = by[:BY_LIMIT], place.settings.longest_shelf_h * 3600
        if action == "shelve" and not 0 < for_s <= longest_s:
            return f"{for_s:g} s: expected more than 0 and at most {longest_s:g} s (alarms.longest_shelf_h)"
        if action == "ack":
            done = lambda a: alarms.acknowledge(a, by)  # noqa: E731
        elif action == "shelve":
            done = lambda a: alarms.shelve(a, by, now_ns + round(for_s * 1e9))  # noqa: E731
        else:
            done = lambda a: alarms.resume(replace(a, by=by))  # noqa: E731
        self._set(place, done(alarm), {"for_s": for_s} if action == "shelve" else {})
        return ""

    # ── what is kept and told ───────────────────────────────────────────────────────────────────────────────────────

    def _set(self, place: Place, stepped: Stepped, detail: Mapping[str, Any]) -> None:
        before, after = self._alarms[place.id], stepped.alarm
        self._alarms[place.id] = after
        if kept(before) != kept(after):
            self.dirty = True
        if stepped.event is not None:
            if stepped.event in (AlarmInput.RAISE, AlarmInput.ESCALATE):
                self._detail[place.id] = detail
            self._tell(place, after, KINDS[stepped.event], detail)

    def _tell(self, place: Place, alarm: Alarm, kind: str, detail: Mapping[str, Any]) -> None:
        self.change += 1
        self.dirty = True
        self.untold.append(Told(kind, {"change": self.change, **shown(place.asset, place.source, alarm), **detail,
                                       "operating_h": round(self.hours_s.get(place.asset, 0.0) / 3600, 4)}))  # fmt: skip

    def saved(self) -> Saved:
        return Saved(
            self.change, tuple(self._alarms.values()), dict(self._detail), tuple(self.untold), dict(self.hours_s)
        )

    def told(self, count: int) -> None:
        """The first `count` are in the outbox."""
        del self.untold[:count]


ACTIONS: Mapping[str, AlarmInput] = {
    "ack": AlarmInput.ACK,
    "shelve": AlarmInput.SHELVE,
    "unshelve": AlarmInput.RESUME_ON,
}


def kept(a: Alarm) -> tuple[object, ...]:
    """The part of an alarm that survives a restart."""
    return a.id, a.state, a.active, a.severity, a.raised_wall_ns, a.by, a.shelf_until_ns


def shown(asset: str, source: str, alarm: Alarm) -> dict[str, Any]:
    """An alarm as Events and the command line tell it."""
    severity = Severity(alarm.severity) if alarm.severity else None
    return {
        "alarm": alarm.id,
        "asset": asset,
        "source": source,
        "state": alarm.state.value,
        "active": alarm.active,
        "severity": severity.name.lower() if severity else "",
        "meaning": MEANING[severity] if severity else "",
        "raised_wall_ns": alarm.raised_wall_ns,
        "by": alarm.by,
    }
