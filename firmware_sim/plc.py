"""The PLC: PackML state, trigger, answers, reject gate. No sockets and no sleeping; the clock is an argument.

- Triggers only in Execute, which lasts until the last ordered part has met the gate: devices answer in no other state.
  After the command Complete the belt runs on in Completing until it is empty.
- Recipe, lot and serial are in the registers before `part_seq` is; the frame is sent after.
- Latency: from the write of `part_seq` into the registers to the write of `result_seq` by the handler of the request.
- An answer counts for any part that has not met the gate yet, so also a late one for an older part.
- A reject coil that is left on is switched off after `coil_timeout_ms`.
- A restart (fault `reset_plc`) clears registers and part numbers; parts on the belt stay there, unknown, and are diverted.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from firmware_sim.camera import ReadyFrame
from firmware_sim.config import Config
from firmware_sim.feeder import Feeder, Upcoming
from firmware_sim.line import Conveyor
from firmware_sim.packml import ACTING, Input, State, step
from firmware_sim.part import RESULTS, Part
from firmware_sim.registers import Registers
from firmware_sim.scenario import Fault
from firmware_sim.score import Score
from firmware_sim.watch import Heartbeat, RejectCoil

PART_SEQ_MAX = 65535
CAMERA_GRACE_NS = 2_000_000_000
SETTLED_KEPT = 256
IDLE_TICK_S = 0.02
RUNNING = (State.EXECUTE, State.COMPLETING)

Send = Callable[[ReadyFrame, int, int], None]


def seq_after(seq: int, epoch: int, faults: Sequence[Fault] = ()) -> tuple[int, int]:
    """(part_seq, epoch) of the next part: +1, 65535 → 1, and what a fault adds. A number that does not grow begins an epoch."""
    options = {f.kind: f.options for f in faults}
    after = seq + 1 + (options["skip_seq"]["skip"] if "skip_seq" in options else 0)
    if after > PART_SEQ_MAX:
        after -= PART_SEQ_MAX
    if "wrap16" in options:
        after = options["wrap16"]["to"]
    return after, epoch + (after <= seq)


class Plc:
    """`send` hands a frame to the camera (frame, part_seq, wall time); `settled` hears of each part that has met the gate."""

    def __init__(
        self,
        config: Config,
        conveyor: Conveyor,
        send: Send,
        settled: Callable[[Part], None] = lambda part: None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._line, self._recipe, self._conveyor = config.line, config.recipe, conveyor
        self._send, self._settled, self._clock_ns, self._wall_ns = send, settled, clock_ns, wall_ns
        self.registers = Registers(self._written)
        self.registers.before_read = self._refresh
        self.score, self.counts = Score(), Counter[str]()
        self.wake: Callable[[], None] = lambda: None
        self.camera_clients: Callable[[], int] = lambda: 1
        self.epoch, self._seq = 1, 0
        self._open: dict[int, Part] = {}  # by part_seq: can still be answered
        self._belt: deque[Part] = deque()  # between inspection and gate
        self._gone: deque[int] = deque(maxlen=SETTLED_KEPT)
        self._held: Upcoming | None = None  # stands in the inspection position, not yet triggered
        self._last_answered: Part | None = None
        self._settled_ns: deque[int] = deque()
        self._mute_until_ns = 0
        self._coil, self._heartbeat = RejectCoil(self._line.coil_timeout_ms), Heartbeat()
        self._auto = config.line.auto_start
        self._wait = config.line.wait_for_device
        self._began_ns: int | None = None
        self.state = State.STOPPED
        self._enter(State.STOPPED, clock_ns())

    # ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def tick(self, feeder: Feeder) -> None:
        """Do all that is due now."""
        now_ns = self._clock_ns()
        if self._coil.times_out(now_ns):
            self.registers.put("reject_coil", 0)
        self._heartbeat.watch(now_ns)
        before: State | None = None
        while before is not self.state:
            before = self.state
            if self.state is State.EXECUTE and self._held is not None:
                held, self._held = self._held, None
                self._trigger(held)
            self._arrivals(feeder)
            self._move_on(now_ns)

    def due_s(self) -> float | None:
        """When the next tick is due, on the clock; None: not before something is written."""
        times = [self._conveyor.next_due_s()] if self._conveyor.running else []
        if self.state in ACTING and self.state is not State.COMPLETING:
            times.append(self._complete_ns / 1e9)
        coil_due_ns = self._coil.due_ns()
        if coil_due_ns is not None:
            times.append(coil_due_ns / 1e9)
        if self._auto and self.state in (State.IDLE, State.STOPPED):
            times.append(self._clock_ns() / 1e9 + IDLE_TICK_S)
        return min((t for t in times if t is not None), default=None)

    @property
    def mute(self) -> bool:
        """The PLC answers no request just now."""
        return self._clock_ns() < self._mute_until_ns

    @property
    def done(self) -> bool:
        return self.state is State.COMPLETED and not self._belt

    # ── PackML ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def command(self, given: Input) -> bool:
        after = step(self.state, given)
        if after is None:
            self.counts["refused_commands"] += 1
            return False
        self._enter(after, self._clock_ns())
        return True

    def _enter(self, state: State, now_ns: int) -> None:
        self.state = state
        self._complete_ns = now_ns + self._line.transition_ms * 1_000_000
        if state is State.STARTING and self._conveyor.all_inspected:
            self._conveyor.limit = self._conveyor.inspected + self._line.parts if self._line.parts else None
        elif state is State.COMPLETING:
            self._conveyor.limit = self._conveyor.inspected
        elif state is State.EXECUTE:
            self._began_ns = self._began_ns or now_ns
        if state in RUNNING:
            self._conveyor.run(now_ns / 1e9)
        else:
            self._conveyor.stop(now_ns / 1e9)
        self.registers.put("line_state", int(state))
        self.registers.put("belt_speed", round(self._line_speed()))

    def _line_speed(self) -> float:
        return self._conveyor.layout.speed_mm_s if self._conveyor.running else 0.0

    def _move_on(self, now_ns: int) -> None:
        """State complete, and the start of the line by itself."""
        if self.state is State.COMPLETING:
            if not self._belt:
                self.command(Input.SC)
        elif self.state in ACTING:
            if now_ns >= self._complete_ns:
                self.command(Input.SC)
        elif self.state is State.EXECUTE and self._conveyor.all_inspected and not self._belt and self._held is None:
            self.command(Input.SC)
        elif self._auto and self.state is State.STOPPED:
            self.command(Input.RESET)
        elif self._auto and self.state is State.IDLE and self._device_ready(now_ns):
            self._auto = self._wait = False
            self.command(Input.START)

    def _device_ready(self, now_ns: int) -> bool:
        """Its heartbeat has moved, and it has had a moment to open the camera (which it need not)."""
        if not self._wait:
            return True
        if self._heartbeat.first_ns is None:
            return False
        return self.camera_clients() > 0 or now_ns - self._heartbeat.first_ns > CAMERA_GRACE_NS

    # ── parts ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _arrivals(self, feeder: Feeder) -> None:
        while self._held is None:
            arrival = self._conveyor.take(self._clock_ns() / 1e9, inspect=feeder.ready)
            if arrival is None:
                return
            if arrival.place == "gate":
                self._gate()
            else:
                self._inspection(feeder.take())

    def _inspection(self, part: Upcoming) -> None:
        kinds = {f.kind: f for f in part.faults}
        if "reset_plc" in kinds:
            self._held = part
            self._restart()
            return
        self._trigger(part)

    def _trigger(self, coming: Upcoming) -> None:
        kinds = {f.kind: f for f in coming.faults}
        self._seq, self.epoch = seq_after(self._seq, self.epoch, coming.faults)
        if "no_answer" in kinds:
            self._fall_silent(kinds["no_answer"].options["duration_ms"])
        if "stuck_coil" in kinds:
            self._coil.stick_when_set()
        index, put = coming.part_index, self.registers.put
        lot, serial = 1 + index // self._line.lot_size, 1 + index
        put("recipe", self._recipe_of(index))
        put("lot", lot)
        put("serial", serial)
        put("part_seq", self._seq)
        now_ns, wall_ns = self._clock_ns(), self._wall_ns()
        for _ in range(0 if "drop_frame" in kinds else 2 if "duplicate_trigger" in kinds else 1):
            self._send(coming.frame, self._seq, wall_ns)
        injected = [*kinds, *(["no_answer"] if self.mute and "no_answer" not in kinds else [])]
        part = Part(
            index,
            self._seq,
            self.epoch,
            serial,
            lot,
            coming.frame.truth,
            now_ns,
            wall_ns,
            "+".join(injected) or None,
        )
        self._open[self._seq] = part
        self._belt.append(part)

    def _recipe_of(self, part_index: int) -> int:
        every, codes = self._recipe.change_every_parts, self._recipe.codes
        return codes[part_index // every % len(codes)] if every else codes[0]

    def _gate(self) -> None:
        part = self._belt.popleft()
        if self._open.get(part.part_seq) is part:
            del self._open[part.part_seq]
            self._gone.append(part.part_seq)
        self.score.settle(part)
        now_ns = self._clock_ns()
        self._settled_ns.append(now_ns)
        while now_ns - self._settled_ns[0] > 60_000_000_000:
            self._settled_ns.popleft()
        self._settled(part)

    # ── what the client writes ──────────────────────────────────────────────────────────────────────────────────────

    def _written(self, names: Sequence[str]) -> None:
        if "result_seq" in names:
            self._answered(self._clock_ns())
        if "heartbeat" in names:
            self._heartbeat.written(self.registers.get("heartbeat"), self._clock_ns())
        if "reject_coil" in names:
            self._pulse(bool(self.registers.get("reject_coil")))
        if "command" in names:
            self._commanded()

    def _answered(self, now_ns: int) -> None:
        get = self.registers.get
        seq, result = get("result_seq"), get("result")
        part = self._open.get(seq)
        if result not in RESULTS:
            self.counts["invalid_answers"] += 1
        elif part is not None:
            part.answer(result, get("score"), now_ns)
            self._last_answered = part
        elif seq in self._gone:
            self.counts["answers_after_gate"] += 1
        else:
            self.counts["stray_answers"] += 1

    def _commanded(self) -> None:
        code = self.registers.get("command")
        self.registers.put("command", 0)
        if code in Input.__members__.values() and code != Input.SC:
            self.command(Input(code))
        elif code:
            self.counts["refused_commands"] += 1
        self.wake()

    def _pulse(self, on: bool) -> None:
        self.registers.put("reject_coil", self._coil.written(on, self._clock_ns()))
        if on and self._last_answered is not None:
            self._last_answered.pulse_seen = True
        self.wake()

    # ── faults of the PLC itself ──────────────────────────────────────────────────────────────────────────────────────

    def _fall_silent(self, duration_ms: int) -> None:
        self._mute_until_ns = self._clock_ns() + duration_ms * 1_000_000
        self._blame("no_answer")

    def _restart(self) -> None:
        self._blame("reset_plc")
        self._open.clear()
        self._seq, self.epoch = 0, self.epoch + 1
        self._coil.clear()
        self._heartbeat.clear()
        self.registers.clear()
        self._auto = True
        self._enter(State.STOPPED, self._clock_ns())

    def _blame(self, kind: str) -> None:
        """Parts that wait for an answer, and may now get none, carry the fault as well."""
        for part in self._open.values():
            if not part.answered:
                part.fault_injected = "+".join(filter(None, (part.fault_injected, kind)))

    # ── what is told ────────────────────────────────────────────────────────────────────────────────────────────────

    def _refresh(self) -> None:
        self.registers.put("encoder", self._conveyor.encoder(self._clock_ns() / 1e9))

    def status(self) -> dict[str, Any]:
        """The body of /stats."""
        now_ns = self._clock_ns()
        age_ns = self._heartbeat.age_ns(now_ns)
        counted = ("answers_after_gate", "stray_answers", "invalid_answers", "refused_commands")
        return {
            **self.score.summary(),
            "done": self.done,
            "triggered": self._conveyor.inspected - (self._held is not None),
            "parts_ordered": self._line.parts,
            "line_state": int(self.state),
            "line_state_name": self.state.title,
            "parts_per_min": self._parts_per_min(now_ns),
            "part_seq": self._seq,
            "epoch": self.epoch,
            "device_health": self.registers.get("health"),
            "heartbeat_age_ms": None if age_ns is None else age_ns // 1_000_000,
            "heartbeat_losses": self._heartbeat.losses,
            "coil_timeouts": self._coil.timeouts,
            **{name: self.counts[name] for name in counted},
            "belt_slips": self._conveyor.slips,
        }

    def _parts_per_min(self, now_ns: int) -> float:
        """Parts that met the gate in the last minute, or since the start scaled to a minute."""
        recent = sum(now_ns - t <= 60_000_000_000 for t in self._settled_ns)
        seconds = min(60.0, (now_ns - self._began_ns) / 1e9) if self._began_ns is not None else 0.0
        return round(recent * 60.0 / seconds, 2) if seconds > 0 else 0.0
