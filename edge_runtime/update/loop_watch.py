"""Is the local loop healthy? Looked at from outside, again and again, while a runtime or a configuration is on trial.

Healthy: every process of the device runs and was not restarted of late; `control` has told within FRESH_S that its loop turns,
so that the PLC answered and the outbox was written; it did not lose the PLC in between; it can judge parts; no record waits for
the disk. The trial passes after HEALTHY_S of that in a row, and fails where a process dies again and again, or at its deadline.
The network is not asked: a device that reaches no cloud is healthy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from edge_runtime.clock import Clock
from edge_runtime.decide.decision import Health
from edge_runtime.errors import GudgeonError
from edge_runtime.outbox.trouble import DamagedError
from edge_runtime.processes import Process
from edge_runtime.update.gate import Verdict
from edge_runtime.wire.envelope import Event

HEALTHY_S = 60.0
DEADLINE_S = 900.0
FRESH_S = 20.0
RESTARTS_ALLOWED = 2
SECOND_NS = 1_000_000_000


class Told(Protocol):
    """What is read of the outbox."""

    def last(self, stream: str) -> Event | None: ...


class LoopWatch:
    """`needed`: the processes of the device; `control` among them is asked for what it tells. `boot_id`: of this boot."""

    def __init__(
        self,
        needed: tuple[str, ...],
        processes: Callable[[], Mapping[str, Process]],
        outbox: Told,
        boot_id: str,
        clock: Clock,
        healthy_s: float = HEALTHY_S,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._needed, self._processes, self._outbox, self._boot_id = needed, processes, outbox, boot_id
        self._clock, self._healthy_s, self._deadline_s = clock, healthy_s, deadline_s
        self._began_ns = self._healthy_ns = clock.monotonic_ns()
        self._restarts = self._lost = 0
        self._told: Event | None = None

    def look(self) -> Verdict | None:
        """None while nothing is decided; to be called every few seconds."""
        now_ns = self._clock.monotonic_ns()
        found = self._processes()
        restarts = sum(found[name].restarts for name in self._needed if name in found)
        trouble = self._trouble(found, now_ns)
        lost = self._count("plc_lost")
        if trouble or (restarts, lost) != (self._restarts, self._lost):
            self._healthy_ns, self._restarts, self._lost = now_ns, restarts, lost
        healthy_s, age_s = (now_ns - self._healthy_ns) / SECOND_NS, (now_ns - self._began_ns) / SECOND_NS
        measured = {"healthy_s": healthy_s, "trial_s": age_s, "restarts": restarts, "plc_lost": lost}
        measured["parts"] = self._count("answered")
        if restarts > RESTARTS_ALLOWED:
            return Verdict(False, f"its processes ended {restarts} times: {self._most_restarted(found)}", measured)
        if healthy_s >= self._healthy_s:
            return Verdict(True, "", measured)
        if age_s >= self._deadline_s:
            why = trouble or f"its processes ended {restarts} times, and it lost the PLC {lost} times"
            return Verdict(
                False, f"not healthy for {self._healthy_s:g} s within {self._deadline_s:g} s: {why}", measured
            )
        return None

    def _trouble(self, found: Mapping[str, Process], now_ns: int) -> str:
        """What is wrong now, "" where nothing is."""
        for name in self._needed:
            if name not in found or found[name].seen is None:
                return f"{name} does not run"
        try:
            last = self._outbox.last("metric")
        except (GudgeonError, DamagedError) as error:
            return f"the outbox cannot be read: {error}"
        if last is not None and last.kind == "control" and last.boot_id == self._boot_id:
            self._told = last
        return self._trouble_of_control(now_ns) if "control" in self._needed else ""

    def _trouble_of_control(self, now_ns: int) -> str:
        told = self._told
        if told is None or told.mono_ns < self._began_ns or now_ns - told.mono_ns > FRESH_S * SECOND_NS:
            return f"control has told nothing for {FRESH_S:g} s: its loop stands, or the PLC does not answer"
        if told.body.get("health") == Health.SAFE.name.lower():
            return "control cannot judge parts (health: safe)"
        if told.body.get("records_waiting"):
            return "records cannot be stored"
        return ""

    def _most_restarted(self, found: Mapping[str, Process]) -> str:
        return max((name for name in self._needed if name in found), key=lambda name: found[name].restarts)

    def _count(self, name: str) -> int:
        """Of what `control` counts."""
        found = self._told.body.get(name, 0) if self._told else 0
        return found if isinstance(found, int) else 0
