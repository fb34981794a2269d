"""LineGate: the health gate of a model that answers parts (slot sets ``default`` and ``recipe-<code>``).

`check` lets a process of its own try the candidate (`process`) while the running model answers; `begin` asks `control` to swap it
in (`decide.swap`); `trial` listens to both until there is a verdict. The process goes on through the trial, comparing with the
model before. Nothing here is in the way of a part, and what `control` undoes by itself it undoes without this gate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_runtime.decide import swap_socket
from edge_runtime.decide.swap_socket import Request
from edge_runtime.decide.trial_files import SPARE_S
from edge_runtime.decide.trial_settings import TrialSection
from edge_runtime.errors import EndpointError
from edge_runtime.update.gate import Candidate, Verdict
from edge_runtime.update.trial.judge import MODULE, Judge, Order

WORK_S = 60.0  # the longest silence while it loads, on a board that is busy
SILENCE_S = 30.0  # and afterwards
LOAD_S = 120.0
LOOK_S = 0.1


class LineGate:
    """`running`: the folder of what is confirmed in a slot set, None where nothing is. `module`: see `Judge`."""

    def __init__(
        self,
        state_dir: Path,
        engine: str,
        deadline_ms: float,
        section: TrialSection,
        running: Callable[[str], Path | None],
        module: str = MODULE,
    ) -> None:
        self._state_dir, self._engine, self._deadline_ms = state_dir, engine, deadline_ms
        self._section, self._confirmed, self._module = section, running, module
        self._judge: Judge | None = None
        self._slot_set = "default"

    # ── Gate ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def check(self, candidate: Candidate) -> Verdict:
        self._ask({"do": "forget", "digest": candidate.digest})  # it was assigned anew
        judge = self._start_judge(candidate, offline=True)
        end_s: float | None = None
        while True:
            live, loads = judge.phase == "live", judge.phase in ("start", "loading", "golden")
            if live and end_s is None:
                end_s = time.monotonic() + self._section.timeout_s
            word = judge.listen(WORK_S if loads else SILENCE_S)
            if word is None:
                return self._silent(judge)
            if "ok" in word:
                if not word["ok"]:
                    self._stop_judge()
                return Verdict(bool(word["ok"]), str(word["reason"]), dict(judge.measured))
            if end_s is not None and time.monotonic() > end_s:
                self._stop_judge()
                raise EndpointError(
                    f"{self._section.timeout_s:.0f} s were not enough to see {self._section.parts} parts judged "
                    f"({judge.measured.get('parts', 0):.0f} so far): does the line run? It is tried again later"
                )

    def begin(self, candidate: Candidate) -> None:
        self._slot_set = candidate.slot_set
        ended = self._ask({"do": "status"})["ended"]
        if ended["digest"] != candidate.digest or not ended["blamed"]:  # else `trial` has its verdict
            self._swap(candidate, trial=True)

    def trial(self, candidate: Candidate) -> Verdict | None:
        status = self._ask({"do": "status"})
        if status["running"].get(candidate.slot_set) != candidate.digest:
            return self._not_running(candidate, status)
        if status.get("digest") != candidate.digest:
            return Verdict(True, "it was kept before")
        measured = self._listen(candidate)
        if measured is None or not self._lasted(status) or not measured.get("trial_settled", 1.0):
            return None
        self._ask({"do": "keep", "digest": candidate.digest})
        self._stop_judge()
        return Verdict(True, "", measured | timing(status))

    def revert(self, to: Candidate | None) -> None:
        self._stop_judge()
        status = self._ask({"do": "status"})
        if status["state"] == "trial":
            self._ask({"do": "revert", "digest": status["digest"], "reason": "the updater takes it back"})
        if to is not None:
            self._swap(to, trial=False)
        else:
            self._ask({"do": "clear", "slot_set": self._slot_set})

    # ── the process that tries ──────────────────────────────────────────────────────────────────────────────────────

    def _start_judge(self, candidate: Candidate, offline: bool) -> Judge:
        self._stop_judge()
        s, running = self._section, self._confirmed(candidate.slot_set)
        order = Order(
            state_dir=str(self._state_dir.resolve()),
            candidate=str(candidate.path.resolve()),
            running=str(running.resolve()) if running else "",
            engine=self._engine,
            offline=offline,
            deadline_ms=self._deadline_ms,
            slow_ratio=s.slow_ratio,
            deadline_share=s.deadline_share,
            min_agreement=s.min_agreement,
            parts=s.parts,
            most_parts=s.most_parts,
            memory_mib=s.memory_mib,
        )
        self._judge = Judge(order, self._module)
        return self._judge

    def _stop_judge(self) -> None:
        judge, self._judge = self._judge, None
        if judge is not None:
            judge.stop()

    def _silent(self, judge: Judge) -> Verdict:
        """It hung, or it has ended."""
        measured = dict(judge.measured)
        if judge.alive:
            self._stop_judge()
            return Verdict(False, f"it hung in phase {judge.phase}", measured)
        own, text = judge.ending()
        self._stop_judge()
        if own:
            return Verdict(False, text, measured)
        raise EndpointError(f"{text}; it is tried again later")

    def _listen(self, candidate: Candidate) -> dict[str, float] | None:
        """What it measured so far; None where it had to be started again, after a restart of the updater or its own end."""
        judge = self._judge
        if judge is None or not judge.alive or Path(judge.order.candidate) != candidate.path.resolve():
            self._start_judge(candidate, offline=False)
            return None
        judge.catch_up()
        return dict(judge.measured)

    # ── control ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _ask(self, request: Request) -> Mapping[str, Any]:
        status = swap_socket.ask(self._state_dir / swap_socket.SOCKET_PATH, request)
        if not isinstance(status.get("running"), dict):
            raise EndpointError("control gave an answer that is not understood")
        return status

    def _swap(self, to: Candidate, trial: bool) -> None:
        """Ask for it, and wait until `control` has loaded it or could not."""
        where = {"slot_set": to.slot_set, "path": str(to.path.resolve()), "digest": to.digest}
        end_s = time.monotonic() + SPARE_S + LOAD_S
        status = self._ask({"do": "swap", **where, "trial": trial})
        while status["reason"] or status["state"] == "loading":
            if time.monotonic() > end_s:
                raise EndpointError(
                    f"control did not swap within {SPARE_S + LOAD_S:.0f} s: {status['reason'] or 'it loads'}"
                )
            time.sleep(LOOK_S)
            again = status["reason"]  # it was busy
            status = self._ask({"do": "swap", **where, "trial": trial} if again else {"do": "status"})
        ended = status["ended"]
        if ended["digest"] == to.digest and not ended["blamed"]:
            raise EndpointError(f"{ended['reason']}; it is tried again later")

    def _not_running(self, candidate: Candidate, status: Mapping[str, Any]) -> Verdict | None:
        ended = status["ended"]
        if ended["digest"] == candidate.digest and ended["blamed"]:
            measured = dict(self._judge.measured) if self._judge else {}
            self._stop_judge()
            return Verdict(False, str(ended["reason"]), measured)
        self.begin(candidate)  # control was started anew, in good order: it runs what is confirmed
        return None

    def _lasted(self, status: Mapping[str, Any]) -> bool:
        return bool(status["parts"] >= self._section.parts and status["trial_s"] >= self._section.soak_s)


def timing(status: Mapping[str, Any]) -> dict[str, float]:
    """What the candidate took in `control` itself."""
    found = {"trial_s": float(status["trial_s"])}
    return found | ({"trial_p99_ms": status["p99_us"] / 1000.0} if status["p99_us"] is not None else {})
