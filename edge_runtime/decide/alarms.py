"""One alarm: a level that is measured becomes a state that an operator can trust. Pure.

- Debounce: the level must stay above what is told for `on_delay_s` before the alarm is raised or escalates, and at 0 for
  `off_delay_s` before it clears. Both run in monotonic time. It is told at the lowest level of that time.
- An unknown level (`None`: samples are stale, the model gave nothing) holds the state and starts both delays anew: what is
  not known neither raises nor clears.
- The severity of an alarm only rises while its condition lasts.
- Rate limit: an alarm that was raised `max_per_hour` times in the last hour does not clear until the first of these is an
  hour old. It stays told, and nothing is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_runtime.decide.alarm_states import TABLE, AlarmInput, AlarmState
from edge_runtime.machine import step

SECOND_NS = 1_000_000_000
HOUR_NS = 3600 * SECOND_NS


@dataclass(frozen=True)
class AlarmSettings:
    """`hysteresis`: share of a limit that a value must fall back behind it before the condition counts as gone."""

    on_delay_s: float = 5.0
    off_delay_s: float = 30.0
    hysteresis: float = 0.1
    max_per_hour: int = 6
    longest_shelf_h: float = 24.0

    def __post_init__(self) -> None:
        if not 0 <= self.on_delay_s <= 86_400 or not 0 <= self.off_delay_s <= 86_400:
            raise ValueError("on_delay_s and off_delay_s: expected seconds from 0 to 86400")
        if not 0 <= self.hysteresis < 1 or self.max_per_hour < 1 or not 0 < self.longest_shelf_h <= 720:
            raise ValueError("expected hysteresis from 0 to 1, max_per_hour of 1 or more, longest_shelf_h up to 720")


@dataclass(frozen=True)
class Alarm:
    """`active`: the debounced condition, also while shelved. `severity` is that of the present or last episode, 0 before
    the first. `shelf_until_ns`: monotonic, where shelved. The fields behind it are not kept over a restart."""

    id: str
    state: AlarmState = AlarmState.NORMAL
    active: bool = False
    severity: int = 0
    raised_wall_ns: int = 0
    by: str = ""
    shelf_until_ns: int = 0
    rising: int = 0
    rising_since_ns: int | None = None
    falling_since_ns: int | None = None
    raises_ns: tuple[int, ...] = ()

    @property
    def level(self) -> int:
        return self.severity if self.active else 0


@dataclass(frozen=True)
class Stepped:
    """The alarm after one step and what happened; None: nothing to tell."""

    alarm: Alarm
    event: AlarmInput | None = None


def observe(a: Alarm, s: AlarmSettings, level: int | None, now_ns: int, wall_ns: int) -> Stepped:
    """One measurement: 0 normal, else a `Severity`, None unknown."""
    if level is None:
        return Stepped(replace(a, rising=0, rising_since_ns=None, falling_since_ns=None))
    if level > a.level:
        return _rise(a, s, level, now_ns, wall_ns)
    a = replace(a, rising=0, rising_since_ns=None)
    if level or not a.active:
        return Stepped(replace(a, falling_since_ns=None))
    since_ns = now_ns if a.falling_since_ns is None else a.falling_since_ns
    a = replace(a, falling_since_ns=since_ns, raises_ns=_recent(a, now_ns))
    if now_ns - since_ns < s.off_delay_s * SECOND_NS or len(a.raises_ns) >= s.max_per_hour:
        return Stepped(a)
    return _enter(replace(a, active=False, falling_since_ns=None), AlarmInput.CLEAR)


def _rise(a: Alarm, s: AlarmSettings, level: int, now_ns: int, wall_ns: int) -> Stepped:
    fresh = a.rising_since_ns is None
    since_ns, rising = (now_ns, level) if fresh else (a.rising_since_ns or 0, min(a.rising, level))
    a = replace(a, rising=rising, rising_since_ns=since_ns, falling_since_ns=None)
    if now_ns - since_ns < s.on_delay_s * SECOND_NS:
        return Stepped(a)
    event = AlarmInput.ESCALATE if a.active else AlarmInput.RAISE
    above = level > rising  # it may escalate further, after a delay of its own
    a = replace(
        a, active=True, severity=rising, rising=level if above else 0, rising_since_ns=now_ns if above else None
    )
    if event is AlarmInput.RAISE:
        a = replace(a, raised_wall_ns=wall_ns, raises_ns=(*_recent(a, now_ns), now_ns))
    return _enter(a, event)


def _recent(a: Alarm, now_ns: int) -> tuple[int, ...]:
    return tuple(t for t in a.raises_ns if now_ns - t < HOUR_NS)


def _enter(a: Alarm, event: AlarmInput) -> Stepped:
    """What happens while shelved or suppressed is kept and not told; it is told with the end of that."""
    state = step(TABLE, a.state, event)
    told = state is not a.state or (event is AlarmInput.ESCALATE and a.state is AlarmState.UNACKNOWLEDGED)
    by = "" if event in (AlarmInput.RAISE, AlarmInput.ESCALATE) else a.by
    return Stepped(replace(a, state=state, by=by), event if told else None)


def suppress(a: Alarm, wanted: bool) -> Stepped:
    """The machine stands (`wanted`), or runs again. A shelved alarm stays shelved."""
    if wanted:
        return _enter(a, AlarmInput.SUPPRESS)
    return resume(a) if a.state is AlarmState.SUPPRESSED else Stepped(a)


def acknowledge(a: Alarm, by: str) -> Stepped:
    return _enter(replace(a, by=by), AlarmInput.ACK)


def shelve(a: Alarm, by: str, until_ns: int) -> Stepped:
    return _enter(replace(a, by=by, shelf_until_ns=until_ns), AlarmInput.SHELVE)


def resume(a: Alarm) -> Stepped:
    """The end of shelving or suppression."""
    done = _enter(a, AlarmInput.RESUME_ON if a.active else AlarmInput.RESUME_OFF)
    return replace_alarm(done, shelf_until_ns=0)


def replace_alarm(stepped: Stepped, **changes: int) -> Stepped:
    return replace(stepped, alarm=replace(stepped.alarm, **changes))  # type: ignore[arg-type]


def expire(a: Alarm, now_ns: int) -> Stepped:
    """Shelving that is over."""
    return resume(a) if a.state is AlarmState.SHELVED and now_ns >= a.shelf_until_ns else Stepped(a)
