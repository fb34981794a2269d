"""Gate: the health gate of one kind of slot set; it decides whether what was staged may become what runs.

    check(candidate)    before anything changes: golden vectors, latency on this board, shadow agreement. Never touches what runs.
    begin(candidate)    from now on the candidate runs, on trial
    trial(candidate)    how the trial went; None: it still runs
    revert(to)          from now on this one runs, as confirmed; None: nothing is confirmed, so nothing may run

- Only the updater calls a gate, and it has written its records before each call. After a crash it calls again: `begin` of a
  candidate that runs already and `revert` to what runs already change nothing.
- `Verdict.ok` False speaks about the candidate: its hash is refused. What cannot be asked now (the process that runs it is
  away) is an `EndpointError`: the updater asks again later and nobody is blamed.
- A gate that went back by itself (the candidate crashed, hung, gave NaN) says so as a Verdict of `trial`.
- `check` and `trial` may take a while; they end by themselves and are told of no deadline.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Candidate:
    """`path`: its verified folder in the store. `digest`: of its manifest, as Events name it; `sha256`: of the artifact."""

    slot_set: str
    path: Path
    digest: str
    sha256: str


@dataclass(frozen=True)
class Verdict:
    """`measured`: what was seen, by names of `wire.update_status` (`p99_ms`, `agreement`, `parts`, …); at most 32 of them."""

    ok: bool
    reason: str = ""
    measured: Mapping[str, float] = field(default_factory=dict)


class Gate(Protocol):
    def check(self, candidate: Candidate) -> Verdict: ...

    def begin(self, candidate: Candidate) -> None: ...

    def trial(self, candidate: Candidate) -> Verdict | None: ...

    def revert(self, to: Candidate | None) -> None: ...


@runtime_checkable
class StartedOutside(Protocol):
    """A gate whose candidates others start, with the whole device: the launcher, or the supervisor. They read the record, and
    spend a try on it before each start; the updater spends none. `runs`: is this process part of what the candidate started?"""

    def runs(self, candidate: Candidate) -> bool: ...


PASS = Verdict(True)


class FakeGate:
    """A gate with answers given beforehand: `checks` and `trials` in turn, the last one again and again. `calls` tells what
    was asked; `running` is what it would run now. `fails`: errors that its calls raise, in turn, before they work again."""

    def __init__(self, checks: Iterable[Verdict] = (PASS,), trials: Iterable[Verdict | None] = (PASS,)) -> None:
        self._checks, self._trials = deque(checks), deque(trials)
        self.fails: deque[Exception] = deque()
        self.calls: list[tuple[str, str]] = []
        self.running = ""

    def check(self, candidate: Candidate) -> Verdict:
        self._call("check", candidate.sha256)
        return self._checks.popleft() if len(self._checks) > 1 else self._checks[0]

    def begin(self, candidate: Candidate) -> None:
        self._call("begin", candidate.sha256)
        self.running = candidate.sha256

    def trial(self, candidate: Candidate) -> Verdict | None:
        self._call("trial", candidate.sha256)
        return self._trials.popleft() if len(self._trials) > 1 else self._trials[0]

    def revert(self, to: Candidate | None) -> None:
        sha256 = to.sha256 if to else ""
        self._call("revert", sha256)
        self.running = sha256

    def _call(self, name: str, sha256: str) -> None:
        self.calls.append((name, sha256))
        if self.fails:
            raise self.fails.popleft()
