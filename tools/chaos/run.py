"""One scenario from its beginning to its ledger: a healthy start, the fault, the recovery, the comparison.

`recovered_s` runs from the end of the fault until the cloud's database has everything that the outbox had taken by then, and
the first record that was acknowledged afterwards. The pair goes on producing meanwhile.
"""

from __future__ import annotations

import datetime
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.errors import ResourceError
from tools.chaos import ledger
from tools.chaos.disk import WORK_PREFIX
from tools.chaos.evidence import Evidence
from tools.chaos.pair import Pair
from tools.chaos.scenarios import SCENARIOS, missing, without_namespaces

HEALTHY_ROWS = 3
HEALTHY_S = 30.0
BASELINE_S = 1.0
AFTER_S = 0.5
RECOVERY_S = 120.0
NOT_KEPT = ("*.sock", "disk.img", "*.key", "lost+found")


@dataclass(frozen=True)
class Result:
    """All that is known of a run; `passed` is what the exit code says."""

    scenario: str
    ledger: ledger.Ledger
    evidence: Evidence
    recovered_s: float | None
    times: dict[str, str]
    facts: dict[str, Any]

    @property
    def passed(self) -> bool:
        wrong = self.ledger.lost + self.ledger.double + self.ledger.disordered + self.ledger.findings
        return wrong == 0 and self.recovered_s is not None and self.evidence.happened

    def as_json(self) -> dict[str, Any]:
        counts = ledger.as_json(self.ledger)
        fault = {"happened": self.evidence.happened, "by": self.evidence.by, **self.evidence.facts}
        head = {"scenario": self.scenario, "passed": self.passed}
        return {**head, **counts, "recovered_s": self.recovered_s, **self.times, **self.facts, "fault": fault}


def now_text() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def run(name: str, seconds: float | None, keep: Path | None, told: Callable[[str], None], proxy_only: bool) -> Result:
    """ResourceError names what the machine lacks."""
    if lacking := missing(name):
        raise ResourceError(f"{name}: this machine lacks {'; '.join(lacking)}")
    folder = Path(tempfile.mkdtemp(prefix=f"{WORK_PREFIX}{os.getpid()}-"))
    scenario = SCENARIOS[name]
    in_namespaces = not proxy_only and not without_namespaces()
    try:
        with Pair(folder, scenario.wiring, in_namespaces, told) as pair:
            try:
                return _phases(name, pair, scenario.seconds if seconds is None else seconds, told)
            finally:
                if keep:
                    _keep(folder, keep / name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _phases(name: str, pair: Pair, seconds: float, told: Callable[[str], None]) -> Result:
    times = {"started_at": now_text()}
    told("a healthy start")
    pair.wait_for("the first records in the cloud", lambda: pair.arrived() >= HEALTHY_ROWS, HEALTHY_S)
    pair.wait(BASELINE_S)
    times["fault_began_at"] = now_text()
    told(f"the fault: {SCENARIOS[name].text}")
    evidence = SCENARIOS[name].fault(pair, seconds)
    times["fault_ended_at"], ended_s = now_text(), time.monotonic()
    told("recovering")
    recovered = _recover(pair)
    recovered_s = round(time.monotonic() - ended_s, 3) if recovered else None
    pair.wait(AFTER_S)
    pair.stop_producer()
    last = ledger.outstanding(pair.produced()[0])
    told("the last records")
    settled = pair.wait(RECOVERY_S if recovered else 0.0, lambda: pair.settled(last))
    times["ended_at"] = now_text()
    facts = {"mode": _mode(pair), "settled": settled, "process_starts": pair.keeper.starts()}
    return Result(name, pair.settle(), evidence, recovered_s, times, facts)


def _recover(pair: Pair) -> bool:
    """True when everything until now and one record more has arrived."""
    before = len(pair.produced()[0])
    deadline_s = time.monotonic() + RECOVERY_S
    if not pair.wait(RECOVERY_S, lambda: any(p.durable for p in pair.produced()[0][before:])):
        return False
    produced = pair.produced()[0]
    first = next(i for i, p in enumerate(produced) if i >= before and p.durable)
    top = ledger.outstanding(produced[: first + 1])
    return pair.wait(deadline_s - time.monotonic(), lambda: pair.settled(top))


def _mode(pair: Pair) -> str:
    network = "namespaces" if pair.namespaces else f"loopback and proxy alone ({without_namespaces() or 'as asked'})"
    return f"{network}; {'embedded broker' if pair.embedded else 'Mosquitto'}{' with TLS' if pair.wiring.tls else ''}"


def _keep(folder: Path, to: Path) -> None:
    with suppress(shutil.Error):  # a socket or a file that just went away is no reason to lose the rest
        shutil.copytree(folder, to, ignore=shutil.ignore_patterns(*NOT_KEPT), dirs_exist_ok=True)
